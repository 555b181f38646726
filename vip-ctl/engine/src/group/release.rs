//! Giving a lease up (rule 7): this node clears the map first, then tells
//! acceptors until each has confirmed it. Also what follows when another node has
//! released.

use vip_common::{BootNs, Lease};

use super::Group;
use crate::{
    config::{NodeId, NodeSet},
    io::{Output, Reason},
    message::{About, Ballot},
    mutant::Mutant,
    node::Node,
};

/// A release that some acceptor may not know of, or that no successor has used
/// yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Releasing {
    ballot: Ballot,
    successor: Option<NodeId>,
    unconfirmed: NodeSet,
    resend: BootNs,
    /// After T_accept every acceptor has forgotten the lease anyway.
    until: BootNs,
}

impl Releasing {
    /// When to repeat or forget it.
    pub fn next_deadline(&self) -> BootNs {
        if self.unconfirmed.is_empty() { self.until } else { self.resend.min(self.until) }
    }
}

impl Group {
    /// Gives the lease up (rule 7): the map first, then the release. Drops the
    /// attempt too, so that no late reply brings the lease back.
    pub fn release(&mut self, successor: Option<NodeId>, reason: Reason, node: &mut Node) {
        self.lease = None;
        if !node.broken.is(Mutant::LateRenewal) {
            self.attempt = None;
        }
        self.at_once = false;
        self.forced = None;
        // A pause keeps groups where they are. This release is wanted, but the group
        // shall not end up without a holder: if the successor is gone, it may come back.
        self.was_mine = successor.is_some();
        self.reason = reason;
        if !node.broken.is(Mutant::ReleaseKeepsMap) {
            node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        }
        self.announce_release(successor, node);
        self.stand_after = node.now;
        self.cancel_handover(node);
    }

    /// Frees the lease that an attempt of this node may have left with acceptors
    /// without winning.
    pub fn clean_up(&mut self, node: &mut Node) {
        let is_free = self.lease.is_none() && self.attempt.is_none();
        if self.leftover && is_free && !node.broken.is(Mutant::NoCleanUp) {
            self.announce_release(None, node);
        }
    }

    fn announce_release(&mut self, successor: Option<NodeId>, node: &mut Node) {
        self.leftover = false;
        let Some(ballot) = self.used else { return };
        self.acceptor.release(ballot, successor, node.now, node.timing.reserve);
        node.tell_all(self.id, About::Release { ballot, successor });
        self.releasing = Some(Releasing {
            ballot,
            successor,
            unconfirmed: node.config.voting_peers(),
            resend: node.now.plus(node.timing.retry),
            until: node.now.plus(node.timing.accept),
        });
    }

    /// Repeats a release that is not confirmed.
    pub fn drive_release(&mut self, node: &mut Node) {
        let Some(releasing) = &mut self.releasing else { return };
        if releasing.until <= node.now {
            self.releasing = None;
            return;
        }
        let is_done = releasing.unconfirmed.is_empty() || node.broken.is(Mutant::ReleasesOnce);
        if releasing.resend > node.now || is_done {
            return;
        }
        releasing.resend = node.now.plus(node.timing.retry);
        let Releasing { ballot, successor, unconfirmed, .. } = *releasing;
        for peer in unconfirmed {
            node.tell(peer, self.id, About::Release { ballot, successor });
        }
    }

    /// A peer has confirmed a release.
    pub fn on_released(&mut self, from: NodeId, ballot: Ballot) {
        if let Some(releasing) = self.releasing.as_mut().filter(|releasing| releasing.ballot == ballot) {
            releasing.unconfirmed.remove(from);
        }
    }

    /// May a stopping node leave, as far as this group goes? The successor may
    /// need its vote, so it stays until it has seen the successor hold.
    pub fn given_up(&self, node: &Node) -> bool {
        self.releasing.is_none_or(|releasing| {
            let taken = releasing.successor.is_none() || self.acceptor.lease(node.now).is_some();
            let confirmed = !releasing.unconfirmed.into_iter().any(|peer| node.present(peer, node.now));
            (taken && confirmed) || node.broken.is(Mutant::LeavesAtOnce)
        })
    }

    /// A peer's release has arrived.
    pub fn on_release(&mut self, from: NodeId, ballot: Ballot, successor: Option<NodeId>, node: &mut Node) {
        if node.votes() {
            node.tell(from, self.id, About::Released { ballot });
        }
        self.round = self.round.max(ballot.round);
        if !self.acceptor.release(ballot, successor, node.now, node.timing.reserve) {
            return;
        }
        if self.lease.is_some() {
            // Both nodes held, and the other one has released: switches and neighbours
            // may have believed the other one last (rule 13).
            if node.config.pair.is_some() && !node.broken.is(Mutant::MergesInSilence) {
                node.outputs.push_back(Output::Announce { group: self.id });
            }
            return;
        }
        self.reason = Reason::HolderReleased;
        // Between candidates the back-off goes on: here a release is what one of them
        // leaves to the others, and without the back-off all would begin anew at once.
        if self.duels == 0 || successor.is_some() {
            self.stand_after = node.now;
        }
        if successor == Some(node.me()) {
            // The attempt under way has met the old holder's lease: begin a new one.
            self.attempt = None;
            self.abstaining = false;
            self.at_once = true;
        }
    }
}
