//! One group on this node: its acceptor, its lease or its wish for one, and
//! when it has to look at the clock. How an attempt goes is in
//! [`super::proposer`], how a lease is given away in [`super::handover`].
//!
//! ```text
//!            silence over, eligible                majority accepts
//!   Init ───────────────────────────► Standby ─────────────────────► Active
//!    │                                 │   ▲ ◄─────────────────────── │ │
//!    │ not eligible                    ▼   │  ran out, handed over    │ │
//!    └──────────────────────────────► Fault ◄──────── not eligible ───┘ │
//!                                     Paused ◄──────── demoted ─────────┘
//! ```

use vip_common::{BootNs, Lease};

use super::{
    acceptor::Acceptor,
    config::{Epoch, GroupId, NodeId, NodeSet},
    handover::Handover,
    io::{GroupState, Output, Reason},
    message::{About, Ballot},
    node::Node,
    proposer::{Attempt, Kind},
};

/// This node's own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    /// The ballot that won it last; `None` while it is what a former
    /// incarnation left in the map.
    pub ballot: Option<Ballot>,
    /// `None` until an acceptor has told the epoch of an adopted lease.
    pub epoch: Option<Epoch>,
    /// When it ends, on this node's clock.
    pub until: BootNs,
    /// When its renewal begins.
    pub renew_at: BootNs,
}

/// A release that not every peer has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Releasing {
    ballot: Ballot,
    successor: Option<NodeId>,
    unconfirmed: NodeSet,
    resend: BootNs,
    /// After T_accept every acceptor has forgotten the lease anyway.
    until: BootNs,
}

/// One group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub id: GroupId,
    pub acceptor: Acceptor,
    /// `None` for a witness.
    pub rank: Option<u32>,
    /// `None` until the event loop has said.
    pub eligible: Option<bool>,
    /// Demoted by hand: does not stand.
    pub abstaining: bool,
    /// The highest round seen anywhere.
    pub round: u64,
    /// The highest ballot that this incarnation has used.
    pub used: Option<Ballot>,
    /// Some acceptor may keep a lease from an attempt of ours that did not win.
    pub leftover: bool,
    pub lease: Option<Held>,
    pub attempt: Option<Attempt>,
    /// Attempts in a row that lost against another candidate's.
    pub duels: u32,
    /// Not to stand before this; the rank's delay comes on top.
    pub stand_after: BootNs,
    /// Stand without the rank's delay: named as successor, or promoted by hand.
    pub at_once: bool,
    pub handover: Option<Handover>,
    pub releasing: Option<Releasing>,
    pub reason: Reason,
    reported: Option<(GroupState, Option<NodeId>, Epoch)>,
    told_ready: bool,
}

impl Group {
    pub fn new(id: GroupId, node: &Node) -> Self {
        Self {
            id,
            acceptor: Acceptor::default(),
            rank: node.config.rank(id, node.me()),
            eligible: None,
            abstaining: false,
            round: 0,
            used: None,
            leftover: false,
            lease: None,
            attempt: None,
            duels: 0,
            stand_after: node.silent_until,
            at_once: false,
            handover: None,
            releasing: None,
            reason: Reason::Started,
            reported: None,
            told_ready: false,
        }
    }

    /// Takes over what a former incarnation left in the map (rule 5). What
    /// can't be a lease of ours is cleared.
    pub fn adopt(&mut self, expiry: BootNs, node: &mut Node) {
        let plausible = expiry > node.now && expiry <= node.now.plus(node.timing.hold);
        if plausible && self.rank.is_some() {
            // The others alone must be a majority; with one or two voters they never are.
            let enough = node.config.peers().count() >= node.config.majority();
            let renew_at = if enough { node.now } else { node.silent_until };
            self.lease = Some(Held { ballot: None, epoch: None, until: expiry, renew_at });
            self.reason = Reason::Adopted;
        } else {
            node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        }
    }

    /// Takes a message about this group. Ballots must be the sender's in
    /// questions and this node's in answers; others are not for us.
    pub fn receive(&mut self, from: NodeId, about: About, node: &mut Node) {
        let me = node.me();
        match about {
            About::Prepare { ballot } if ballot.node == from => self.answer_prepare(from, ballot, node),
            About::Propose { ballot, epoch, held } if ballot.node == from => {
                self.answer_propose(from, ballot, epoch, held, node);
            }
            About::Holding { ballot } if ballot.node == from => {
                if self.acceptor.confirm(ballot, node.now) {
                    self.on_foreign_lease(true);
                }
            }
            About::Release { ballot, successor } if ballot.node == from => {
                self.on_release(from, ballot, successor, node);
            }
            About::Promise { ballot, epoch, yours } if ballot.node == me => {
                self.on_promise(from, ballot, epoch, yours, node);
            }
            About::Accept { ballot } if ballot.node == me => self.on_accept(from, ballot, node),
            About::Refuse { ballot, because } if ballot.node == me => {
                self.on_refuse(from, ballot, because, node);
            }
            About::Released { ballot } if ballot.node == me => self.on_released(from, ballot),
            About::AskReady { ask } => {
                // By name: somebody who demoted this node before has changed their mind.
                let ready = self.able(node) && node.quorate;
                node.tell(from, self.id, About::Ready { ask, ready });
            }
            About::Ready { ask, ready } => self.on_ready(from, ask, ready, node),
            About::Prepare { .. }
            | About::Propose { .. }
            | About::Holding { .. }
            | About::Release { .. }
            | About::Promise { .. }
            | About::Accept { .. }
            | About::Refuse { .. }
            | About::Released { .. } => {}
        }
    }

    /// Does everything whose time has come.
    pub fn tick(&mut self, node: &mut Node) {
        self.run_out(node);
        self.drive_attempt(node);
        self.drive_candidacy(node);
        self.drive_release(node);
        self.drive_handover(node);
    }

    /// When [`Group::tick`] has something to do next.
    pub fn next_deadline(&self, node: &Node) -> Option<BootNs> {
        let lease = self.lease.map(|lease| lease.until);
        let renew = self.lease.filter(|_| self.attempt.is_none()).map(|lease| lease.renew_at);
        let attempt = self.attempt.as_ref().map(|attempt| attempt.next_deadline(&node.timing));
        let release = self.releasing.map(|releasing| releasing.resend.min(releasing.until));
        let handover = self.handover.map(|handover| handover.next_deadline());
        [lease, renew, attempt, release, handover, self.acceptor.next_deadline(), self.stand_at(node)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets everything that ran out by now run out, before anything else is looked at.
    fn run_out(&mut self, node: &mut Node) {
        if let Some(ended) = self.acceptor.run_out(node.me(), node.now) {
            // Long overdue means that this process was stopped: the holder's
            // renewals may be waiting in the socket. Read them first.
            let late = node.now.since(ended) > node.timing.slot;
            let after = if late { node.now.plus(node.timing.slot) } else { ended };
            self.stand_after = self.stand_after.max(after);
            self.reason = Reason::HolderExpired;
        }
        if self.lease.is_some_and(|lease| lease.until <= node.now) {
            self.lease = None;
            // A renewal that still came through would be a lease again; but
            // it would be a new grant, and those are for candidates.
            self.attempt = None;
            self.leftover = true;
            self.stand_after = self.stand_after.max(node.now);
            self.reason = Reason::Expired;
            self.cancel_handover(node);
        }
    }

    fn drive_candidacy(&mut self, node: &mut Node) {
        if self.stand_at(node).is_some_and(|at| at <= node.now) {
            self.start(Kind::Stand, node);
        }
    }

    /// When this node stands; `None` while it may not, or needs not.
    fn stand_at(&self, node: &Node) -> Option<BootNs> {
        if self.lease.is_some() || self.attempt.is_some() || !self.ready(node) {
            return None;
        }
        // Becoming quorate is an event of its own, which looks here again.
        if !node.quorate {
            return None;
        }
        let delay = node.timing.slot.saturating_mul(self.rank?);
        match self.acceptor.blocked_until(node.me(), node.now) {
            Some(until) => Some(self.stand_after.max(until).plus(delay)),
            None if self.at_once => Some(self.stand_after),
            None => Some(self.stand_after.plus(delay)),
        }
    }

    /// Could this node take the lease by itself?
    pub fn ready(&self, node: &Node) -> bool {
        self.able(node) && !self.abstaining
    }

    /// Could this node take the lease if a person asks for it by name?
    pub fn able(&self, node: &Node) -> bool {
        self.rank.is_some() && self.eligible == Some(true) && !node.silent && !node.stopping
    }

    /// The event loop's word on eligibility (rule 12).
    pub fn set_eligible(&mut self, eligible: bool, node: &mut Node) {
        if self.eligible == Some(eligible) {
            return;
        }
        self.eligible = Some(eligible);
        self.reason = Reason::Eligibility;
        if eligible {
            self.stand_after = self.stand_after.max(node.now);
        } else if self.lease.is_some() {
            let successor = node.best_target(self.id, NodeSet::default());
            self.release(successor, Reason::Eligibility, node);
        } else {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// Gives the lease up (rule 7): the map first, then the release. The
    /// attempt goes too, so that no late reply brings the lease back.
    pub fn release(&mut self, successor: Option<NodeId>, reason: Reason, node: &mut Node) {
        self.lease = None;
        self.attempt = None;
        self.at_once = false;
        self.reason = reason;
        node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        self.announce_release(successor, node);
        self.stand_after = node.now;
        self.cancel_handover(node);
    }

    /// Frees what an attempt that did not win may have left with acceptors.
    pub fn clean_up(&mut self, node: &mut Node) {
        if self.leftover && self.lease.is_none() && self.attempt.is_none() {
            self.announce_release(None, node);
        }
    }

    fn announce_release(&mut self, successor: Option<NodeId>, node: &mut Node) {
        self.leftover = false;
        let Some(ballot) = self.used else { return };
        self.acceptor.release(ballot, successor, node.now, node.timing.reserve);
        node.tell_all(self.id, About::Release { ballot, successor });
        let mut unconfirmed = NodeSet::default();
        for peer in node.config.peers() {
            unconfirmed.insert(peer);
        }
        self.releasing = Some(Releasing {
            ballot,
            successor,
            unconfirmed,
            resend: node.now.plus(node.timing.retry),
            until: node.now.plus(node.timing.accept),
        });
    }

    fn drive_release(&mut self, node: &mut Node) {
        let Some(releasing) = &mut self.releasing else { return };
        if releasing.until <= node.now || releasing.unconfirmed.is_empty() {
            self.releasing = None;
            return;
        }
        if releasing.resend > node.now {
            return;
        }
        releasing.resend = node.now.plus(node.timing.retry);
        let Releasing { ballot, successor, unconfirmed, .. } = *releasing;
        for peer in node.config.peers().filter(|&peer| unconfirmed.contains(peer)) {
            node.tell(peer, self.id, About::Release { ballot, successor });
        }
    }

    /// A peer has confirmed a release.
    pub fn on_released(&mut self, from: NodeId, ballot: Ballot) {
        if let Some(releasing) = self.releasing.as_mut().filter(|releasing| releasing.ballot == ballot) {
            releasing.unconfirmed.remove(from);
        }
    }

    /// Has a stopping node nothing to wait for here? Its vote may be what
    /// the successor needs, so it stays until it has seen the successor.
    pub fn given_up(&self, node: &Node) -> bool {
        self.releasing.is_none_or(|releasing| {
            let taken = releasing.successor.is_none() || self.acceptor.lease(node.now).is_some();
            let confirmed = node
                .config
                .peers()
                .all(|peer| !releasing.unconfirmed.contains(peer) || !node.present(peer, node.now));
            taken && confirmed
        })
    }

    /// A peer's release has arrived.
    pub fn on_release(&mut self, from: NodeId, ballot: Ballot, successor: Option<NodeId>, node: &mut Node) {
        node.tell(from, self.id, About::Released { ballot });
        self.round = self.round.max(ballot.round);
        if !self.acceptor.release(ballot, successor, node.now, node.timing.reserve) {
            return;
        }
        self.reason = Reason::HolderReleased;
        if self.lease.is_some() {
            return;
        }
        self.stand_after = node.now;
        if successor == Some(node.me()) {
            // An attempt under way has met the old holder's lease: begin afresh.
            self.attempt = None;
            self.abstaining = false;
            self.at_once = true;
        }
    }

    /// This node's acceptor has accepted another node's lease, which that
    /// node may already hold.
    pub fn on_foreign_lease(&mut self, held: bool) {
        self.at_once = false;
        if held {
            self.abstaining = false;
            self.duels = 0;
            self.reason = Reason::HolderSeen;
        }
    }

    /// Stand at once, by a person's wish.
    pub fn stand_by_hand(&mut self, node: &Node) {
        self.abstaining = false;
        self.at_once = true;
        self.stand_after = node.now;
        self.reason = Reason::Promoted;
    }

    /// Who holds the group, by this node's own acceptor (or because it is this node).
    pub fn holder(&self, node: &Node, now: BootNs) -> Option<NodeId> {
        self.view(node, now).map(|(holder, _)| holder)
    }

    /// [`Group::holder`] with the epoch, where it is known.
    pub fn view(&self, node: &Node, now: BootNs) -> Option<(NodeId, Option<Epoch>)> {
        if let Some(lease) = self.lease.filter(|lease| lease.until > now) {
            return Some((node.me(), lease.epoch));
        }
        // What our own acceptor keeps of us without a lease is a leftover,
        // and what another node has only asked for may become one.
        let lease = self.acceptor.lease(now).filter(|l| l.held && l.ballot.node != node.me())?;
        Some((lease.ballot.node, Some(lease.epoch)))
    }

    /// The latest grant known here.
    pub fn epoch(&self) -> Epoch {
        let own = self.lease.and_then(|lease| lease.epoch).unwrap_or_default();
        own.max(self.acceptor.epoch())
    }

    /// This node's state for the group.
    pub fn state(&self, node: &Node, now: BootNs) -> GroupState {
        if self.rank.is_none() {
            GroupState::Witness
        } else if self.lease.is_some_and(|lease| lease.until > now) {
            GroupState::Active
        } else {
            match self.eligible {
                Some(false) => GroupState::Fault,
                Some(true) if self.abstaining => GroupState::Paused,
                Some(true) if !node.silent => GroupState::Standby,
                Some(true) | None => GroupState::Init,
            }
        }
    }

    /// Tells what has changed since the last time, if anything has.
    pub fn report(&mut self, node: &mut Node) {
        let (state, holder) = (self.state(node, node.now), self.holder(node, node.now));
        let epoch = self.epoch();
        if self.reported != Some((state, holder, epoch)) {
            self.reported = Some((state, holder, epoch));
            let (group, reason) = (self.id, self.reason);
            node.outputs.push_back(Output::Changed { group, state, epoch, reason, holder });
        }
        let ready = self.ready(node);
        if ready != self.told_ready {
            self.told_ready = ready;
            node.heartbeat_soon();
        }
    }
}
