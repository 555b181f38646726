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
    config::{COMMAND_TIMEOUT, Epoch, GroupId, NodeId, NodeSet},
    handover::{Handover, Wish},
    io::{Command, GroupState, Output, Reason},
    message::{About, Ballot},
    mutant::Mutant,
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

/// A release that some acceptor may not know of, or that a successor has not
/// made use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Releasing {
    ballot: Ballot,
    successor: Option<NodeId>,
    unconfirmed: NodeSet,
    resend: BootNs,
    /// After T_accept every acceptor has forgotten the lease anyway.
    until: BootNs,
}

impl Releasing {
    fn next_deadline(&self) -> BootNs {
        if self.unconfirmed.is_empty() { self.until } else { self.resend.min(self.until) }
    }
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
    /// Not eligible, but a lease goes on until another node is ready.
    pub clings: bool,
    /// Something is to be done between a grant and the service.
    pub prepares: bool,
    /// It is being done.
    pub preparing: bool,
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
    /// A group that is new on a running node neither votes nor stands before
    /// this: it may have been there before, with other VIPs or votes.
    pub silent_until: Option<BootNs>,
    /// Not to stand before this; the rank's delay comes on top.
    pub stand_after: BootNs,
    /// Stand without the rank's delay: named as successor, or promoted by hand.
    pub at_once: bool,
    /// Taken, or to be taken, by this node's vote alone. Given up at that
    /// time if there is no lease by then.
    pub forced: Option<BootNs>,
    /// Was the last holder known here this node?
    pub was_mine: bool,
    /// Since when this node, of higher priority, could have the lease that
    /// another one has.
    preempts_since: Option<BootNs>,
    pub handover: Option<Handover>,
    pub releasing: Option<Releasing>,
    pub reason: Reason,
    reported: Option<(GroupState, Option<NodeId>, Epoch)>,
    told_ready: bool,
    #[cfg(feature = "mutants")]
    pub given: super::mutant::Given,
}

impl Group {
    pub fn new(id: GroupId, node: &Node) -> Self {
        Self {
            id,
            acceptor: Acceptor::new(
                node.config.remembered.epochs.get(usize::from(id.0)).copied().unwrap_or_default(),
                node.broken,
            ),
            rank: node.config.rank(id, node.me()),
            eligible: None,
            clings: false,
            prepares: false,
            preparing: false,
            abstaining: false,
            round: 0,
            used: None,
            leftover: false,
            lease: None,
            attempt: None,
            duels: 0,
            silent_until: None,
            stand_after: node.silent_until,
            at_once: false,
            forced: None,
            was_mine: false,
            preempts_since: None,
            handover: None,
            releasing: None,
            reason: Reason::Started,
            reported: None,
            told_ready: false,
            #[cfg(feature = "mutants")]
            given: super::mutant::Given::default(),
        }
    }

    /// Takes over what a former incarnation left in the map (rule 5). What
    /// can't be a lease of ours is cleared.
    pub fn adopt(&mut self, expiry: BootNs, node: &mut Node) {
        let plausible = expiry > node.now && expiry <= node.now.plus(node.timing.hold);
        if plausible && self.rank.is_some() {
            self.lease = Some(Held { ballot: None, epoch: None, until: expiry, renew_at: node.now });
            self.was_mine = true;
            self.reason = Reason::Adopted;
        } else {
            node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        }
    }

    /// Takes a message about this group. Ballots must be the sender's in
    /// questions and this node's in answers; others are not for us.
    pub fn receive(&mut self, from: NodeId, about: About, node: &mut Node) {
        #[cfg(feature = "mutants")]
        if node.broken.is(Mutant::SameBallot) && self.receive_other(from, about, node) {
            return;
        }
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
        self.drive_preemption(node);
        self.drive_standby(node);
        // A renewal comes round often enough to notice who has become ready.
        self.drive_unwell(node);
    }

    /// When [`Group::tick`] has something to do next.
    pub fn next_deadline(&self, node: &Node) -> Option<BootNs> {
        let lease = self.lease.map(|lease| lease.until);
        let renew = self.renewal_due();
        let attempt = self.attempt.as_ref().map(|attempt| attempt.next_deadline(&node.timing));
        let release = self.releasing.map(|releasing| releasing.next_deadline());
        let handover = self.handover.map(|handover| handover.next_deadline());
        let stand = self.stand_at(node);
        let (preempt, forced) = (self.preempt_at(node), self.forced.filter(|_| self.lease.is_none()));
        let acceptor = self.acceptor.next_deadline();
        [lease, renew, attempt, release, handover, acceptor, stand, preempt, forced, self.silent_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next renewal begins; `None` without a lease or while one is under way.
    pub fn renewal_due(&self) -> Option<BootNs> {
        let busy = self.attempt.as_ref().is_some_and(|attempt| !attempt.is_won());
        self.lease.filter(|_| !busy).map(|lease| lease.renew_at)
    }

    /// Lets everything that ran out by now run out, before anything else is looked at.
    fn run_out(&mut self, node: &mut Node) {
        self.silent_until = self.silent_until.filter(|until| *until > node.now);
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
            self.forced = None;
            // A renewal that still came through would be a lease again; but
            // it would be a new grant, and those are for candidates.
            self.attempt = None;
            self.leftover = true;
            self.stand_after = self.stand_after.max(node.now);
            self.reason = Reason::Expired;
            self.cancel_handover(node);
        }
        if self.lease.is_none() && self.forced.is_some_and(|until| until <= node.now) {
            self.forced = None;
            self.at_once = false;
        }
    }

    fn drive_candidacy(&mut self, node: &mut Node) {
        if self.stand_at(node).is_some_and(|at| at <= node.now) {
            self.start(Kind::Stand, node);
        }
    }

    /// When this node stands; `None` while it may not, or needs not.
    fn stand_at(&self, node: &Node) -> Option<BootNs> {
        if self.lease.is_some() || self.attempt.is_some() || !self.able(node) || self.abstaining {
            return None;
        }
        // Becoming quorate is an event of its own, which looks here again.
        if !node.quorate && self.forced.is_none() {
            return None;
        }
        // Only a person moves a group now; where it was it may come back to.
        if node.pause.on && !self.at_once && !self.was_mine {
            return None;
        }
        let delay = node.timing.slot.saturating_mul(self.rank?);
        let after = if self.at_once { self.stand_after } else { self.stand_after.max(node.starts_at) };
        match self.acceptor.blocked_until(node.me(), node.now) {
            Some(until) => Some(after.max(until).plus(delay)),
            None if self.at_once => Some(after),
            None => Some(after.plus(delay)),
        }
    }

    /// Could this node take the lease by itself, or serve if it has it?
    pub fn ready(&self, node: &Node) -> bool {
        let is_free = match self.lease {
            Some(_) => !self.preparing,
            None => !self.abstaining && node.starts_at <= node.now,
        };
        is_free && self.able(node) && node.quorate
    }

    /// Could this node take the lease if a person asks for it by name?
    pub fn able(&self, node: &Node) -> bool {
        let is_silent = node.silent || self.silent_until.is_some();
        self.rank.is_some() && self.eligible == Some(true) && !is_silent && !node.stopping && !node.standby
    }

    /// Has a node of lower rank the lease that this node could have (rule 9)?
    fn could_preempt(&self, node: &Node) -> bool {
        let Some(rank) = self.rank.filter(|_| self.lease.is_none() && self.ready(node)) else { return false };
        let lower = |other| node.config.rank(self.id, other).is_some_and(|theirs| theirs > rank);
        let held_lower = self.holder(node, node.now).is_some_and(lower);
        // It is for the best of those who could.
        held_lower && !node.pause.on && node.quorate && node.ready_peers(self.id, node.now).all(lower)
    }

    fn preempt_at(&self, node: &Node) -> Option<BootNs> {
        let delay = node.config.preempt(self.id)?;
        self.preempts_since.map(|since| since.plus(delay))
    }

    /// Preemption is a switchover that the node of higher priority asks for,
    /// after a while in which it could have had the lease (rule 9).
    fn drive_preemption(&mut self, node: &mut Node) {
        let Some(delay) = node.config.preempt(self.id) else { return };
        if !self.could_preempt(node) {
            self.preempts_since = None;
            return;
        }
        let since = *self.preempts_since.get_or_insert(node.now);
        if since.plus(delay) <= node.now {
            // If nothing comes of it, it is asked for again: where many groups
            // are due at once, only some of them are asked for at a time.
            let again = node.now.plus(COMMAND_TIMEOUT);
            self.preempts_since = Some(BootNs(0).plus(again.since(BootNs(0).plus(delay))));
            node.wishes.push_back(Command::Switchover { group: self.id, to: Some(node.me()) });
        }
    }

    /// The event loop's word on eligibility (rule 12).
    pub fn set_eligible(&mut self, eligible: bool, clings: bool, node: &mut Node) {
        if self.eligible == Some(eligible) && self.clings == clings {
            return;
        }
        self.eligible = Some(eligible);
        self.clings = clings;
        self.reason = Reason::Eligibility;
        if eligible {
            self.stand_after = self.stand_after.max(node.now);
        } else if self.lease.is_some() {
            self.leave_if_ineligible(node);
        } else {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// Rule 12: a lease is released where it can't be served, but not while
    /// the cluster is paused.
    pub fn leave_if_ineligible(&mut self, node: &mut Node) {
        if self.clings {
            self.drive_unwell(node);
        } else if self.lease.is_some() && self.eligible == Some(false) && !node.pause.on {
            let successor = node.best_target(self.id, NodeSet::default());
            self.release(successor, Reason::Eligibility, node);
        }
    }

    /// Who clings asks, and releases to whom says that it is ready: what it
    /// last said may be over, and then nobody would have the lease.
    fn drive_unwell(&mut self, node: &mut Node) {
        let may_leave = self.clings && self.lease.is_some() && self.handover.is_none() && !node.pause.on;
        if may_leave && node.best_target(self.id, NodeSet::default()).is_some() {
            self.begin_handover(None, Wish::Unwell, node);
        }
    }

    /// Gives the lease up (rule 7): the map first, then the release. The
    /// attempt goes too, so that no late reply brings the lease back.
    pub fn release(&mut self, successor: Option<NodeId>, reason: Reason, node: &mut Node) {
        self.lease = None;
        if !node.broken.is(Mutant::LateRenewal) {
            self.attempt = None;
        }
        self.at_once = false;
        self.forced = None;
        // A pause keeps groups where they are; this one is to go, though not to
        // nobody: should the successor be gone, it may come back.
        self.was_mine = successor.is_some();
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
        self.releasing = Some(Releasing {
            ballot,
            successor,
            unconfirmed: node.config.voting_peers(),
            resend: node.now.plus(node.timing.retry),
            until: node.now.plus(node.timing.accept),
        });
    }

    fn drive_release(&mut self, node: &mut Node) {
        let Some(releasing) = &mut self.releasing else { return };
        if releasing.until <= node.now {
            self.releasing = None;
            return;
        }
        if releasing.resend > node.now || releasing.unconfirmed.is_empty() {
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

    /// Has a stopping node nothing to wait for here? Its vote may be what
    /// the successor needs, so it stays until it has seen the successor.
    pub fn given_up(&self, node: &Node) -> bool {
        self.releasing.is_none_or(|releasing| {
            let taken = releasing.successor.is_none() || self.acceptor.lease(node.now).is_some();
            let confirmed = !releasing.unconfirmed.into_iter().any(|peer| node.present(peer, node.now));
            taken && confirmed
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
            // Two held, and the other one has let go: the network may have
            // believed it last (rule 13).
            if node.config.pair.is_some() {
                node.outputs.push_back(Output::Announce { group: self.id });
            }
            return;
        }
        self.reason = Reason::HolderReleased;
        // Among candidates the back-off goes on: a release is then what one
        // of them leaves to the others, who would all begin anew at once.
        if self.duels == 0 || successor.is_some() {
            self.stand_after = node.now;
        }
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
            self.was_mine = false;
            self.abstaining = false;
            self.duels = 0;
            self.reason = Reason::HolderSeen;
        }
    }

    /// The node has been put on standby, or taken off it.
    pub fn on_standby(&mut self, node: &mut Node) {
        self.reason = Reason::Standby;
        self.stand_after = self.stand_after.max(node.now);
        if node.standby && self.lease.is_none() {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// On standby a node keeps nothing.
    fn drive_standby(&mut self, node: &mut Node) {
        if node.standby && self.lease.is_some() && self.handover.is_none() {
            self.begin_handover(None, Wish::Leave, node);
        }
    }

    /// Take the lease by this node's own vote, whoever else may have it. What
    /// its own acceptor keeps of another is respected even so.
    pub fn force(&mut self, node: &mut Node) {
        if self.lease.is_none() {
            self.attempt = None;
            self.forced = Some(node.now.plus(node.timing.accept).plus(COMMAND_TIMEOUT));
            self.stand_by_hand(node);
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
            if node.votes() { GroupState::Witness } else { GroupState::Observer }
        } else if self.lease.is_some_and(|lease| lease.until > now) {
            GroupState::Active
        } else {
            match self.eligible {
                Some(false) => GroupState::Fault,
                Some(true) if self.abstaining || node.standby => GroupState::Paused,
                Some(true) if node.starts_at <= now => GroupState::Standby,
                Some(true) | None => GroupState::Init,
            }
        }
    }

    /// [`super::Engine::forget_courtesies`].
    pub fn forget_courtesies(&mut self, node: &Node) {
        self.stand_after = self.stand_after.min(node.now);
        self.duels = 0;
        self.reason = Reason::Started;
        self.reported = None;
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
