//! What a node owes besides not answering twice: to let go where it can't
//! serve, to stay away on standby, and not to stand against a holder whose word
//! it has not read. Checked of every process, at every turn of its loop; and of
//! healed clusters, in drills of a pause and of commands one after the other.

use std::time::Duration;

use vip_common::{BootNs, GroupMode, fence_open};
use vip_engine::{
    About, COMMAND_TIMEOUT, Claim, Command, Epoch, GroupId, GroupState, Message, NodeId, Packet, PeerLoss,
    Reason, Role,
};

use super::{
    Violation,
    clock::nanos,
    names::{group_id, node_id},
    world::World,
};

/// Commands of one drill, at most.
const COMMANDS_MAX: u64 = 4;

impl World {
    /// A process has done everything that was due: whatever is wrong now will be
    /// so for a while.
    pub(super) fn check_duties(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now;
        let node = &self.nodes[index];
        let Some(engine) = node.engine() else { return Ok(()) };
        let status = engine.status(node.handled_at);
        let (id, is_on_standby) = (node.id, status.nodes[index].standby);
        let since = if is_on_standby { node.standby_since.or(Some(now)) } else { None };
        // It asks every other node in turn whether it is ready.
        let others = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let bound = self.plan.longest().ask * others + self.plan.longest().accept;
        let is_overdue = since.is_some_and(|since| now.since(since) > bound);
        for group in (0..self.plan.groups.len()).map(group_id) {
            if !self.is_open_on(index, group) {
                continue;
            }
            if node.is_unfit(group) && !status.paused {
                return Err(Violation::KeepsUnfit(id, group));
            }
            if is_overdue {
                return Err(Violation::KeepsOnStandby(id, group));
            }
        }
        self.nodes[index].standby_since = since;
        Ok(())
    }

    /// May this node's kernel answer for the group now?
    pub(super) fn is_open_on(&self, index: usize, group: GroupId) -> bool {
        self.was_open_on(index, group, self.nodes[index].clock.at(self.now))
    }

    fn was_open_on(&self, index: usize, group: GroupId, at: BootNs) -> bool {
        let node = &self.nodes[index];
        fence_open(GroupMode::Cluster, node.map[group.place()], nanos(node.hold), at)
    }

    /// The groups whose holder has an unread message in this node's socket.
    pub(super) fn unread_words(&self, index: usize) -> Vec<GroupId> {
        if !self.plan.is_sealed {
            // Such a message may be from a process that is gone.
            return Vec::new();
        }
        let mut groups = Vec::new();
        for mail in &self.nodes[index].mail {
            for message in mail.said.iter().flat_map(|packet| &packet.messages) {
                if let Message::Group {
                    group,
                    about: About::Propose { claim: Claim::Held | Claim::Forced, .. },
                } = message
                    && self.is_open_on(mail.from, *group)
                {
                    groups.push(*group);
                }
            }
        }
        groups
    }

    /// Does a packet that is about to leave ask for a lease that its node must
    /// not ask for? Judges by the state in which the engine made it: the process
    /// may have been stopped before it sends it.
    pub(super) fn check_candidacies(&self, index: usize, packet: &Packet) -> Result<(), Violation> {
        let node = &self.nodes[index];
        let Some(engine) = node.engine() else { return Ok(()) };
        for message in &packet.messages {
            let Message::Group { group, about } = message else { continue };
            let begins = matches!(about, About::Prepare { .. });
            let (About::Prepare { ballot } | About::Propose { ballot, claim: Claim::Asked, .. }) = about
            else {
                continue;
            };
            // Renewals and adoptions have a word in the map; one that is given up
            // in the same packet had it when it began.
            let is_over = packet.messages.iter().any(|message| {
                let Message::Group { group: of, about: About::Release { ballot: last, .. } } = message else {
                    return false;
                };
                of == group && last >= ballot
            });
            if ballot.node != node.id || is_over || self.was_open_on(index, *group, node.handled_at) {
                continue;
            }
            let status = engine.status(node.handled_at);
            if node.is_unfit(*group) {
                return Err(Violation::StandsUnfit(node.id, *group));
            }
            // A command that puts it on standby may come right behind the judgement by
            // which it stands, before any of that leaves.
            if status.nodes[index].standby && node.standby_since.is_some() {
                return Err(Violation::StandsOnStandby(node.id, *group));
            }
            if node.is_mute(*group) {
                return Err(Violation::StandsMute(node.id, *group));
            }
            // What is answered by then is answered.
            if begins && node.unread.contains(group) {
                return Err(Violation::StandsUnread(node.id, *group));
            }
        }
        Ok(())
    }

    /// A new grant has a higher epoch than any before it, whatever hosts have
    /// forgotten. Not so by force, in pair mode, where two may hold, or when a
    /// majority is replaced in two steps.
    pub(super) fn note_grant(
        &mut self,
        index: usize,
        group: GroupId,
        epoch: Epoch,
        (state, reason): (GroupState, Reason),
    ) -> Result<(), Violation> {
        if state != GroupState::Active || self.plan.pair.is_some() || self.plan.last_generation() > 2 {
            return Ok(());
        }
        // A process that was stopped may report late a grant that is over.
        let is_open = self.is_open_on(index, group);
        let holding = &mut self.holdings[group.place()];
        holding.epochs_may_repeat |= reason == Reason::Forced;
        if reason != Reason::Elected || holding.epochs_may_repeat {
            return Ok(());
        }
        let highest = holding.granted.last().copied().unwrap_or_default();
        if !holding.granted.insert(epoch) || (is_open && epoch < highest) {
            return Err(Violation::EpochRepeats(group, highest, epoch));
        }
        Ok(())
    }

    /// The epoch of the grant that a group's holder has; none is the lowest.
    pub(super) fn epoch(&self, group: GroupId) -> Epoch {
        let holder = self.holder(group).map(|node| &self.nodes[node]);
        holder.map_or_else(Epoch::default, |node| {
            let status = node.engine().map(|engine| engine.status(node.clock.at(self.now)));
            status.map_or_else(Epoch::default, |status| status.groups[group].epoch)
        })
    }

    /// In a paused cluster a dead holder's groups wait for a person.
    pub(super) fn drill_pause(&mut self) -> Result<(), Violation> {
        let victim = self.holder(group_id(0)).filter(|&node| self.expendable(node));
        let Some(victim) = victim.filter(|_| self.plan.pair.is_none()) else { return Ok(()) };
        self.obey("pause", group_id(0), Command::Pause { on: true })?;
        let lost: Vec<_> = self.groups().into_iter().filter(|&g| self.holder(g) == Some(victim)).collect();
        let epochs: Vec<_> = lost.iter().map(|&group| self.epoch(group)).collect();
        self.kill(victim, false)?;
        self.run_for(self.plan.timing.accept * 4)?;
        if let Some(&group) = lost.iter().find(|&&group| self.holder(group).is_some()) {
            return Err(Violation::MovedInPause(group));
        }
        self.obey("resume", group_id(0), Command::Pause { on: false })?;
        self.run_for(self.plan.timing.accept * 2 + self.candidacy_bound())?;
        for (group, epoch) in lost.into_iter().zip(epochs) {
            if self.holder(group).is_none() {
                return Err(Violation::NoHolder(group));
            }
            if self.epoch(group) <= epoch {
                return Err(Violation::EpochStays(group));
            }
        }
        Ok(())
    }

    /// Whatever commands a person gives, in whatever order and however soon, no
    /// group is left without a holder if one is possible; except by force, and by
    /// demotion, which asks for that.
    pub(super) fn drill_commands(&mut self) -> Result<(), Violation> {
        if self.plan.pair == Some(PeerLoss::Hold) {
            // Where both are needed, and one is silent after a restart, nobody
            // can take over. Nothing restarts here, but a wish may be refused.
            return Ok(());
        }
        let mut given = Vec::new();
        for _ in 0..self.rng.between(2, COMMANDS_MAX) {
            let command = self.wish();
            let at = self.rng.index(self.nodes.len());
            given.push(command);
            self.command(at, command)?;
            let soon = nanos(self.delay_max()) * 4 + 1;
            let most = self.rng.pick(&[0, soon, soon, nanos(self.plan.timing.accept)]);
            let pause = self.rng.below(most + 1);
            self.run_for(Duration::from_nanos(pause))?;
        }
        self.run_for(COMMAND_TIMEOUT * 2 + self.plan.timing.accept * 4)?;
        for group in self.groups() {
            let is_demoted = given.contains(&Command::Demote { group });
            if self.holder(group).is_none() && !(is_demoted && self.is_paused_somewhere(group)) {
                return Err(Violation::LeftAlone(group, format!("{given:?}")));
            }
        }
        Ok(())
    }

    fn is_paused_somewhere(&self, group: GroupId) -> bool {
        self.nodes.iter().any(|node| {
            let status = node.engine().map(|engine| engine.status(node.clock.at(self.now)));
            status.is_some_and(|status| status.groups[group].state == GroupState::Paused)
        })
    }

    /// A command that a person may give without thinking twice.
    fn wish(&mut self) -> Command {
        let group = group_id(self.rng.index(self.plan.groups.len()));
        let candidates: Vec<NodeId> = (0..self.plan.nodes.len())
            .filter(|&node| self.plan.nodes[node].role == Role::Node)
            .map(node_id)
            .collect();
        let node = self.rng.pick(&candidates);
        match self.rng.below(10) {
            0..5 => Command::Standby { node, on: self.rng.chance(800), force: false },
            5..7 => Command::Switchover { group, to: Some(node) },
            7 => Command::Switchover { group, to: None },
            8 => Command::Promote { group, to: node },
            _ => Command::Demote { group },
        }
    }
}
