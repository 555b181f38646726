//! One group on this node: its acceptor, its lease or its wish for one, and when
//! its next step is due. [`proposer`] has how an attempt goes, [`handover`] how a
//! holder gives a lease away.
//!
//! ```text
//!            silence over, eligible                majority accepts
//!   Init ───────────────────────────► Standby ─────────────────────► Active
//!    │                                 │   ▲ ◄─────────────────────── │ │
//!    │ not eligible                    ▼   │  ran out, handed over    │ │
//!    └──────────────────────────────► Fault ◄──────── not eligible ───┘ │
//!                                     Paused ◄──────── demoted ─────────┘
//! ```

mod acceptor;
mod candidacy;
mod handover;
mod proposer;
mod release;
#[cfg(feature = "mutants")]
mod same_ballot;
mod supersession;

use vip_common::{BootNs, Lease};

#[cfg(test)]
pub(crate) use self::acceptor::{OwnPhase, Promised};
pub(crate) use self::{
    acceptor::{Acceptor, Lapsed},
    handover::Wish,
};
use self::{handover::Handover, proposer::Attempt, release::Releasing};
use crate::{
    config::{Epoch, GroupId, NodeId, NodeSet},
    io::{GroupState, Output, Reason, Transition},
    message::{About, Ballot},
    mutant::Mutant,
    node::Node,
};

/// This node's own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    /// The ballot that won it last; `None` for a lease that a former incarnation
    /// left in the map.
    pub ballot: Option<Ballot>,
    /// `None` until an acceptor has told the epoch of an adopted lease.
    pub epoch: Option<Epoch>,
    /// When it ends, on this node's clock.
    pub until: BootNs,
    /// When its renewal begins.
    pub renew_at: BootNs,
}

/// One group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub id: GroupId,
    pub acceptor: Acceptor,
    /// `None` for a witness.
    pub rank: Option<u32>,
    /// `None` until the event loop has said whether this node is eligible.
    pub eligible: Option<bool>,
    /// Not eligible, but keeps a lease until another node is ready.
    pub clings: bool,
    /// With the lease, this node would answer none of its VIPs.
    pub mute: bool,
    /// When this node, not being well, last asked others to take the group.
    asked_at: Option<BootNs>,
    /// Has this node something to do between a grant and the service?
    pub prepares: bool,
    /// Is it doing that now?
    pub preparing: bool,
    /// Demoted by hand: does not stand.
    pub abstaining: bool,
    /// The highest round seen anywhere.
    pub round: u64,
    /// The highest ballot that this incarnation has used.
    pub used: Option<Ballot>,
    /// Some acceptor may keep a lease from an attempt of this node that did not
    /// win.
    pub leftover: bool,
    pub lease: Option<Held>,
    pub attempt: Option<Attempt>,
    /// Attempts in a row that lost against another candidate's.
    pub duels: u32,
    /// Not to stand before this; the rank's delay comes on top.
    pub stand_after: BootNs,
    /// Stand without the rank's delay: named as successor, or promoted by hand.
    pub at_once: bool,
    /// This node has taken, or is to take, the lease by its own vote alone. It
    /// gives up at that time if it has no lease by then.
    pub forced: Option<BootNs>,
    /// The node whose lease ran out, if nobody has had one since: others need not
    /// wait for its candidacy.
    pub gone: Option<NodeId>,
    /// This node said that it is ready, and may be handed the group until then.
    pub promised_until: Option<BootNs>,
    /// Was the last holder known here this node?
    pub was_mine: bool,
    /// Since when this node, of higher priority, could have had the lease of
    /// another one.
    pub preempts_since: Option<BootNs>,
    pub handover: Option<Handover>,
    pub releasing: Option<Releasing>,
    pub reason: Reason,
    reported: Option<(GroupState, Option<NodeId>, Epoch)>,
    told_ready: bool,
    #[cfg(feature = "mutants")]
    pub given: same_ballot::Given,
}

impl Group {
    /// A group whose acceptor is silent until then, because it has forgotten what
    /// it promised and accepted before: on a node that starts, and for a group
    /// that is new on a running node.
    pub fn new(id: GroupId, silent_until: BootNs, node: &Node) -> Self {
        Self {
            id,
            acceptor: Acceptor::new(
                node.config.remembered.epochs.get(id).copied().unwrap_or_default(),
                node.config.remembered.floor,
                silent_until,
                node.broken,
            ),
            rank: node.own_rank(id),
            eligible: None,
            clings: false,
            mute: false,
            asked_at: None,
            prepares: false,
            preparing: false,
            abstaining: false,
            round: 0,
            used: None,
            leftover: false,
            lease: None,
            attempt: None,
            duels: 0,
            stand_after: silent_until,
            at_once: false,
            forced: None,
            gone: None,
            promised_until: None,
            was_mine: false,
            preempts_since: None,
            handover: None,
            releasing: None,
            reason: Reason::Started,
            reported: None,
            told_ready: false,
            #[cfg(feature = "mutants")]
            given: same_ballot::Given::default(),
        }
    }

    /// Takes over a lease that a former incarnation left in the map (rule 5).
    /// Clears a word that can't be a lease of this node.
    pub fn adopt(&mut self, expiry: BootNs, node: &mut Node) {
        let plausible = expiry > node.now && expiry <= node.now.plus(node.timing.hold);
        let plausible = plausible || node.broken.is(Mutant::AdoptsAnything);
        if plausible && self.rank.is_some() {
            self.lease = Some(Held { ballot: None, epoch: None, until: expiry, renew_at: node.now });
            self.was_mine = true;
            self.reason = Reason::Adopted;
        } else {
            node.outputs.push_back(Output::StoreLease { group: self.id, lease: Lease::NONE });
        }
    }

    /// Can this message change anything? Not if it answers an attempt that is
    /// over, as every vote beyond a majority does.
    pub fn waits_for(&self, about: &About, node: &Node) -> bool {
        #[cfg(feature = "mutants")]
        if node.broken.is(Mutant::SameBallot) {
            return true;
        }
        match about {
            About::Promise { ballot, .. } | About::Accept { ballot } => {
                self.attempt.as_ref().is_some_and(|attempt| attempt.is_of(*ballot))
                    || node.broken.is(Mutant::AnyAccept)
                    || node.broken.is(Mutant::AnyPromise)
            }
            About::Prepare { .. }
            | About::Propose { .. }
            | About::Holding { .. }
            | About::Refuse { .. }
            | About::Release { .. }
            | About::Released { .. }
            | About::AskReady { .. }
            | About::Ready { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => true,
        }
    }

    /// Takes a message about this group. The ballot of a question must be the
    /// sender's and that of an answer this node's; others are ignored.
    pub fn receive(&mut self, from: NodeId, about: About, node: &mut Node) {
        #[cfg(feature = "mutants")]
        if node.broken.is(Mutant::SameBallot) && self.receive_other(from, about, node) {
            return;
        }
        let me = node.me();
        match about {
            About::Prepare { ballot } if ballot.node == from => self.answer_prepare(from, ballot, node),
            About::Propose { ballot, epoch, claim } if ballot.node == from => {
                self.answer_propose(from, ballot, epoch, claim, node);
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
                // The holder asks for this node by name: a person who demoted it before
                // has changed their mind.
                let ready = (self.able(node) && node.quorate) || node.broken.is(Mutant::AlwaysReady);
                if ready && !node.broken.is(Mutant::ForgetsPromise) {
                    self.promised_until = Some(node.now.plus(node.timing.ask).plus(node.timing.reserve));
                }
                node.tell(from, self.id, About::Ready { ask, ready });
            }
            About::Ready { ask, ready } => self.on_ready(from, ask, ready, node),
            About::Stale { client } => {
                if self.lease.is_some_and(|lease| lease.until > node.now) {
                    node.outputs.push_back(Output::Correct { client });
                }
            }
            About::Unheard { vip } => {
                if self.lease.is_some_and(|lease| lease.until > node.now) {
                    node.outputs.push_back(Output::Unheard { vip, by: from });
                }
            }
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
        self.run_out_own(node);
        self.run_out_others(node);
        self.judge_attempt(node);
        self.drive_renewal(node);
        self.drive_candidacy(node);
        self.drive_release(node);
        self.drive_handover(node);
        self.drive_preemption(node);
        self.drive_standby(node);
        // Each renewal is often enough to notice which nodes have become ready.
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
        [lease, renew, attempt, release, handover, acceptor, stand, preempt, forced, self.promised_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next renewal begins; `None` without a lease or while one is under way.
    pub fn renewal_due(&self) -> Option<BootNs> {
        let busy = self.attempt.as_ref().is_some_and(|attempt| !attempt.is_won());
        self.lease.filter(|_| !busy).map(|lease| lease.renew_at)
    }

    /// Lets run out what other nodes have of this group, once every message from
    /// them is read.
    fn run_out_others(&mut self, node: &Node) {
        if let Some(Lapsed { at: ended, holder }) = self.acceptor.run_out(node.me(), node.now) {
            self.gone = holder.or(self.gone);
            // Long overdue means that this process was stopped, maybe with its whole
            // machine: messages that the holder has sent meanwhile may not even be in the
            // socket yet.
            let late = node.now.since(ended) > node.timing.slot;
            let after = if late { node.now.plus(node.timing.slot) } else { ended };
            self.stand_after = self.stand_after.max(after);
            self.reason = Reason::HolderExpired;
        }
    }

    /// Lets this node's own lease run out, before anything else happens.
    pub fn run_out_own(&mut self, node: &mut Node) {
        self.promised_until = self.promised_until.filter(|until| *until > node.now);
        if self.lease.is_some_and(|lease| lease.until <= node.now) && !node.broken.is(Mutant::EndlessLease) {
            self.lease = None;
            self.forced = None;
            // A renewal that still succeeded would be a new grant, and only candidates
            // get those.
            if !node.broken.is(Mutant::AttemptOutlivesLease) {
                self.attempt = None;
            }
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

    /// Takes the event loop's verdict on eligibility (rule 12).
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
        } else if !node.broken.is(Mutant::UnfitCandidate) {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// [`crate::Input::Mute`].
    pub fn set_mute(&mut self, on: bool, node: &mut Node) {
        if self.mute && !on {
            // The ranks count from now on.
            self.stand_after = self.stand_after.max(node.now);
        }
        self.mute = on;
        if on && self.lease.is_none() && !node.broken.is(Mutant::StandsMute) {
            self.attempt = None;
            self.clean_up(node);
        }
    }

    /// Rule 12: releases a lease that this node can't serve, but not while the
    /// cluster is paused.
    pub fn leave_if_ineligible(&mut self, node: &mut Node) {
        if self.clings && !node.broken.is(Mutant::UnwellLetsGo) {
            self.drive_unwell(node);
        } else if self.lease.is_some()
            && self.eligible == Some(false)
            && (!node.pause.on || node.broken.is(Mutant::PauseLetsGo))
            && !node.broken.is(Mutant::KeepsUnfit)
        {
            let successor = node.best_peer(self.id);
            self.release(successor, Reason::Eligibility, node);
        }
    }

    /// A node that clings asks others, and releases only to one that answers that
    /// it is ready: an earlier word of that node may be outdated, and then nobody
    /// would have the lease.
    fn drive_unwell(&mut self, node: &mut Node) {
        let may_leave = self.clings && self.lease.is_some() && self.handover.is_none() && !node.pause.on;
        if !may_leave {
            return;
        }
        // A node with other groups can't announce that it is ready, so it is asked now
        // and then.
        let is_due = self.asked_at.is_none_or(|at| at.plus(node.timing.accept) <= node.now);
        if node.best_peer(self.id).is_some()
            || (is_due && node.best_target(self.id, NodeSet::default(), None, node.now).is_some())
        {
            self.asked_at = Some(node.now);
            self.begin_handover(None, Wish::Unwell, node);
        }
    }

    /// This node's acceptor has accepted another node's lease, which that
    /// node may already hold.
    pub fn on_foreign_lease(&mut self, held: bool) {
        self.at_once = false;
        self.gone = None;
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

    /// A node on standby keeps nothing, and a leaving node hands everything over.
    fn drive_standby(&mut self, node: &mut Node) {
        let leaves = node.standby || node.leaving.is_some_and(|leaving| !leaving.failed);
        if leaves
            && self.lease.is_some()
            && self.handover.is_none()
            && !node.broken.is(Mutant::KeepsOnStandby)
        {
            self.begin_handover(None, Wish::Leave, node);
        }
    }

    /// Tells the holder, if that is another node, what it can't see from where it is: a client
    /// that sends to this node, which may not answer, or that nobody answers for a VIP.
    pub fn tell_holder(&self, about: About, node: &mut Node) {
        if let Some(holder) = self.holder(node, node.now).filter(|holder| *holder != node.me()) {
            node.tell(holder, self.id, about);
        }
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
        // Without a lease of this node, what its own acceptor keeps for it is a leftover;
        // and what another node has only asked for may become one.
        let lease = self.acceptor.lease(now).filter(|l| l.claim.is_held() && l.ballot.node != node.me())?;
        Some((lease.ballot.node, Some(lease.epoch)))
    }

    /// The epoch of this node's lease; without one, the highest known here.
    pub fn epoch(&self) -> Epoch {
        self.lease.and_then(|lease| lease.epoch).unwrap_or_else(|| self.acceptor.epoch())
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

    /// [`crate::Engine::forget_courtesies`].
    pub fn forget_courtesies(&mut self, node: &Node) {
        self.stand_after = self.stand_after.min(node.now);
        self.duels = 0;
        self.reason = Reason::Started;
        self.reported = None;
    }

    /// Tells the event loop what has changed since the last report, if anything
    /// has.
    pub fn report(&mut self, node: &mut Node) {
        let (state, holder) = (self.state(node, node.now), self.holder(node, node.now));
        let epoch = self.epoch();
        if self.reported != Some((state, holder, epoch)) {
            self.reported = Some((state, holder, epoch));
            let (group, reason) = (self.id, self.reason);
            node.outputs.push_back(Output::Changed(Transition { group, state, epoch, reason, holder }));
        }
        let ready = self.ready(node);
        if ready != self.told_ready {
            self.told_ready = ready;
            node.heartbeat_soon();
        }
    }
}
