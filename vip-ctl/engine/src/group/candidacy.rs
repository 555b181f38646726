//! When this node stands for a group, and whether it could: by rank, by hand, by
//! force, or to get the group back from a node of lower rank (rule 9).
//! [`super::proposer`] has the attempt itself.

use vip_common::BootNs;

use super::{Group, proposer::Kind};
use crate::{
    config::COMMAND_TIMEOUT,
    io::{Command, Reason},
    mutant::Mutant,
    node::Node,
};

impl Group {
    /// Stands if it is time.
    pub fn drive_candidacy(&mut self, node: &mut Node) {
        if self.stand_at(node).is_some_and(|at| at <= node.now) {
            self.start(Kind::Stand, node);
        }
    }

    /// When this node stands; `None` while it may not stand or need not.
    pub fn stand_at(&self, node: &Node) -> Option<BootNs> {
        if self.lease.is_some() || self.attempt.is_some() || !self.able(node) {
            return None;
        }
        if self.abstaining && !node.broken.is(Mutant::StandsDemoted) {
            return None;
        }
        // The node calls this again when it becomes quorate.
        if !node.quorate && self.forced.is_none() && !node.broken.is(Mutant::StandsWithoutQuorum) {
            return None;
        }
        // In a pause only a person moves a group; but it may come back to where it was.
        let waits = !self.at_once && !self.was_mine && !node.broken.is(Mutant::MovesInAPause);
        if node.pause.on && waits {
            return None;
        }
        let delay = node.timing.slot.saturating_mul(self.place(node)?);
        let at_once = self.at_once || node.broken.is(Mutant::StandsInSilence);
        let after = if at_once { self.stand_after } else { self.stand_after.max(node.starts_at) };
        let after = if node.broken.is(Mutant::NoStartupDelay) { self.stand_after } else { after };
        match self.acceptor.blocked_until(node.me(), node.now) {
            Some(until) => Some(after.max(until).plus(delay)),
            None if self.at_once => Some(after),
            None => Some(after.plus(delay)),
        }
    }

    /// How many candidates this node lets go first (rule 9).
    fn place(&self, node: &Node) -> Option<u32> {
        let rank = self.rank?;
        let is_ahead = |other| node.config.rank(self.id, other).is_some_and(|theirs| theirs < rank);
        let gone = u32::from(self.gone.is_some_and(is_ahead) && !node.broken.is(Mutant::WaitsForTheDead));
        Some(if node.broken.is(Mutant::NoRank) { 0 } else { rank.saturating_sub(gone) })
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
        // A candidate without its own vote would only disturb others.
        let is_silent =
            self.acceptor.silent_until(node.now).is_some() && !node.broken.is(Mutant::StandsInSilence);
        let is_away = node.standby && !node.broken.is(Mutant::StandsOnStandby);
        let stays_away = node.stopping || is_away || node.leaving.is_some();
        let is_fit = self.eligible == Some(true) || node.broken.is(Mutant::StandsUnfit);
        let is_mute = self.mute && self.lease.is_none() && !node.broken.is(Mutant::StandsMute);
        self.rank.is_some() && is_fit && !is_mute && !is_silent && !stays_away
    }

    /// May others count on this node to have the lease soon?
    pub fn is_expected(&self, node: &Node) -> bool {
        self.lease.is_none()
            && (self.promised_until.is_some()
                || self.at_once
                || self.attempt.is_some()
                || self.acceptor.reserved_for(node.me(), node.now))
    }

    /// Does another node have the group, or could one take it, if this node
    /// leaves?
    pub fn is_covered(&self, node: &Node) -> bool {
        let is_held = self.holder(node, node.now).is_some_and(|holder| holder != node.me());
        // This node could not take the group without a quorum either, whatever the
        // reason.
        let can_not_have_it = self.rank.is_none()
            || self.eligible == Some(false)
            || self.mute
            || self.abstaining
            || !node.quorate;
        is_held
            || (self.lease.is_none() && can_not_have_it)
            || (self.releasing.is_none() && node.best_peer(self.id).is_some())
    }

    /// Does a node of lower rank have a lease that this node could have (rule 9)?
    fn could_preempt(&self, node: &Node) -> bool {
        let Some(rank) = self.rank.filter(|_| self.lease.is_none() && self.ready(node)) else { return false };
        let lower = |other| node.config.rank(self.id, other).is_some_and(|theirs| theirs > rank);
        let held_lower = self.holder(node, node.now).is_some_and(lower);
        // Only the best of the nodes that could preempt does.
        let is_best = node.ready_peers(self.id, node.now).all(lower) || node.broken.is(Mutant::AnyPreempts);
        let is_paused = node.pause.on && !node.broken.is(Mutant::PreemptsInAPause);
        held_lower && !is_paused && node.quorate && is_best
    }

    /// When [`Group::drive_preemption`] asks for the group.
    pub fn preempt_at(&self, node: &Node) -> Option<BootNs> {
        let delay = node.config.preempt(self.id)?;
        self.preempts_since.map(|since| since.plus(delay))
    }

    /// Preemption is a switchover that the node of higher priority asks for, once
    /// it has been able to hold the lease for a while (rule 9).
    pub fn drive_preemption(&mut self, node: &mut Node) {
        let Some(delay) = node.config.preempt(self.id) else { return };
        if !self.could_preempt(node) {
            self.preempts_since = None;
            return;
        }
        let since = *self.preempts_since.get_or_insert(node.now);
        if since.plus(delay) <= node.now || node.broken.is(Mutant::PreemptsAtOnce) {
            // If it fails, this node asks again: where many groups are due at once, it
            // asks for only some of them at a time.
            let again = node.now.plus(COMMAND_TIMEOUT);
            self.preempts_since = Some(BootNs(0).plus(again.since(BootNs(0).plus(delay))));
            node.wishes.push_back(Command::Switchover { group: self.id, to: Some(node.me()) });
        }
    }

    /// Take the lease by this node's own vote, whoever else may have it. Even so,
    /// its own acceptor keeps to another's lease that it has accepted.
    pub fn force(&mut self, node: &mut Node) {
        if self.lease.is_none() {
            if node.broken.is(Mutant::ForceOverwrites) {
                self.acceptor.forget();
            }
            self.attempt = None;
            self.forced = Some(node.now.plus(node.timing.accept).plus(COMMAND_TIMEOUT));
            self.stand_by_hand(node);
        }
    }

    /// Stand at once, because a person asked for it.
    pub fn stand_by_hand(&mut self, node: &Node) {
        self.abstaining = false;
        self.at_once = true;
        self.stand_after = node.now;
        self.reason = Reason::Promoted;
    }
}
