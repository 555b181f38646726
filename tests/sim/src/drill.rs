//! After the rough phase: everything is healed, each group must find a holder
//! and keep it, and one drill is carried out and timed.

use std::{cmp::Reverse, time::Duration};

use vip_engine::{
    COMMAND_TIMEOUT, Command, CommandId, Completed, GroupId, GroupSpec, GroupState, GroupStatus, HEARD_MIN,
    NodeId, PeerLoss, Role, Timing,
};
use vip_lease::Eligible;

use super::{
    Violation,
    agent::Ask,
    clock::{SimNs, nanos},
    names::group_id,
    plan::Change,
    world::World,
};

impl World {
    /// Heals the world, and waits until it is well again.
    pub(super) fn liveness_phase(&mut self) -> Result<(), Violation> {
        self.heal()?;
        self.wait_for_answers()?;
        // Silence after a restart, leases left over, then back-off and rank.
        let accept = self.plan.timing.accept;
        self.run_for(accept * 4 + HEARD_MIN)?;
        if self.end_standby()? {
            self.run_for(accept * 4)?;
        }
        self.end_pauses()?;
        self.run_for(accept * 2 + Duration::from_millis(100))?;
        let preempts = self.plan.groups.iter().any(|group| group.preempt.is_some());
        if preempts {
            // Until every group is where it should be; a command may have to be repeated.
            let end = self.now.plus(accept * 4 + COMMAND_TIMEOUT * 3);
            while self.now < end && !self.is_as_wanted() {
                self.run_for(accept)?;
            }
            self.run_for(accept)?;
            self.require_preferred()?;
        }
        // Two that held have met by now.
        self.two_may_hold = false;
        self.check_fences()?;
        let changes = self.require_holders()?;
        self.require_answers()?;
        self.run_for(accept * 3)?;
        self.require_stable(&changes)?;
        let offset = self.rng.below(nanos(self.plan.timing.renew));
        self.run_for(Duration::from_nanos(offset))?;
        match self.rng.below(9) {
            // What fate or a person moves, preemption moves back.
            _ if preempts => self.drill_restart(),
            0 => self.drill_crash(),
            1 => self.drill_stop(),
            2 => self.drill_switchover(),
            3 => self.drill_demote(),
            4 => self.drill_pause(),
            5 => self.drill_commands(),
            6 => self.drill_guest(),
            7 => self.drill_force(),
            _ => self.drill_restart(),
        }
    }

    pub(super) fn run_for(&mut self, how_long: Duration) -> Result<(), Violation> {
        self.run_until(self.now.plus(how_long))
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.note(|_| "healed".to_owned());
        self.cut.iter_mut().for_each(|row| row.fill(false));
        (self.plan.loss, self.plan.duplicates, self.plan.late, self.plan.stalls) = (0, 0, 0, 0);
        (self.plan.disk_full, self.plan.disk_ns) = (0, 0);
        self.plan.jitter_ns = self.plan.jitter_ns.min(nanos(self.plan.timing.renew) / 16);
        self.plan.hook_ns = self.plan.hook_ns.min(nanos(self.plan.timing.accept) / 4);
        self.plan.hooks_fail = 0;
        // Nodes that have two leases don't hear each other, and so take no step.
        self.end_change_of_lease()?;
        self.end_changes()?;
        self.end_reloads()?;
        for node in 0..self.nodes.len() {
            if self.nodes[node].stalled_until.is_some() {
                self.resume(node)?;
            }
            if self.nodes[node].agent.is_none() {
                self.start_later(node, Duration::ZERO);
            }
            self.write_now(node)?;
            self.nodes[node].eligible.fill(true);
            for group in 0..self.plan.groups.len() {
                self.tell_eligible(node, group, Eligible::Yes)?;
            }
        }
        Ok(())
    }

    /// Every node goes over to the last generation, one after the other.
    fn end_changes(&mut self) -> Result<(), Violation> {
        let last = self.plan.last_generation();
        for generation in 2..=last {
            let members = self.plan.members(generation);
            let members = members.iter().enumerate().filter(|(_, spec)| spec.role != Role::Vacant);
            for (node, _) in members {
                if self.nodes[node].generation < generation && self.nodes[node].agent.is_some() {
                    self.kill(node, false)?;
                }
                self.nodes[node].generation = self.nodes[node].generation.max(generation);
                self.start(node)?;
                // Silence, and the round trips after it.
                self.run_for(self.plan.timing.accept * 2)?;
            }
        }
        for Change { node, added } in std::mem::take(&mut self.plan.changes) {
            if !added {
                self.plan.nodes[node].role = Role::Vacant;
                self.kill(node, false)?;
            }
        }
        Ok(())
    }

    /// Every node gets the later T_accept, one after the other.
    fn end_change_of_lease(&mut self) -> Result<(), Violation> {
        let Some(later) = self.plan.accept_later else { return Ok(()) };
        let longest = self.plan.longest().accept;
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_later || self.plan.nodes[node].role == Role::Vacant {
                continue;
            }
            if self.nodes[node].agent.is_some() {
                self.kill(node, false)?;
            }
            self.change_accept(node);
            self.start(node)?;
            self.run_for(longest * 2)?;
        }
        self.plan.accept.fill(later);
        self.plan.timing = Timing::new(later);
        self.stats.accept = later;
        self.plan.jitter_ns = self.plan.jitter_ns.min(nanos(self.plan.timing.renew) / 16);
        self.plan.accept_later = None;
        Ok(())
    }

    /// Commands of the rough phase may still move groups; let them come to their end.
    fn wait_for_answers(&mut self) -> Result<(), Violation> {
        let end = self.now.plus(self.plan.answer_max() * 3 / 2);
        while self.now < end && self.nodes.iter().any(|node| !node.commands.is_empty()) {
            self.run_for(self.plan.timing.accept)?;
            self.check_answers()?;
        }
        match self.nodes.iter().find_map(|node| Some((node.id, *node.commands.first_key_value()?.0))) {
            Some((node, id)) => Err(Violation::NoAnswer(node, id)),
            None => Ok(()),
        }
    }

    /// Takes every node off standby and ends the pause. Returns whether
    /// anything had to be done.
    fn end_standby(&mut self) -> Result<bool, Violation> {
        let mut done = false;
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(status) = node.engine().map(|engine| engine.status(node.clock.at(self.now))) else {
                continue;
            };
            let id = node.id;
            if status.paused && !done {
                self.command(index, Command::Pause { on: false })?;
                done = true;
            }
            if status.nodes[index].standby {
                self.command(index, Command::Standby { node: id, on: false, force: false })?;
                done = true;
            }
        }
        Ok(done)
    }

    /// A group that was demoted everywhere waits for a person: the drill plays
    /// that person.
    fn end_pauses(&mut self) -> Result<(), Violation> {
        for group in self.groups() {
            if self.open_on(group).next().is_some() {
                continue;
            }
            let paused = self.nodes.iter().position(|node| {
                let status = node.engine().map(|engine| engine.status(node.clock.at(self.now)));
                status.is_some_and(|status| status.groups[group].state == GroupState::Paused)
            });
            if let Some(node) = paused {
                let to = self.nodes[node].id;
                self.command(node, Command::Promote { group, to })?;
            }
        }
        Ok(())
    }

    pub(super) fn groups(&self) -> Vec<GroupId> {
        (0..self.plan.groups.len()).map(group_id).collect()
    }

    /// Has every group that preempts the holder that it prefers?
    fn is_as_wanted(&self) -> bool {
        self.plan.groups.iter().enumerate().filter(|(_, group)| group.preempt.is_some()).all(
            |(index, group)| {
                let candidates = self.plan.nodes.iter().zip(&group.priorities).enumerate();
                let candidates = candidates.filter(|(_, (spec, _))| spec.role == Role::Node);
                let best = candidates.max_by_key(|(node, (_, priority))| (**priority, Reverse(*node)));
                self.holder(group_id(index)) == best.map(|(node, _)| node)
            },
        )
    }

    /// The best of those that say to the holder that they could have the group,
    /// by priority and then by number (rule 9).
    fn best_ready(&self, group: GroupId) -> Option<usize> {
        let priorities = &self.plan.groups[group.place()].priorities;
        let holder = self.holder(group)?;
        let ready = self.status_of(holder, group)?.ready.into_iter().map(|node| usize::from(node.0));
        ready.filter(|node| *node != holder).max_by_key(|node| (priorities[*node], Reverse(*node)))
    }

    /// No group that preempts is kept from a better node that could have it.
    fn require_preferred(&self) -> Result<(), Violation> {
        for group in self.groups() {
            let GroupSpec { preempt, priorities } = &self.plan.groups[group.place()];
            let (Some(holder), Some(best)) = (self.holder(group), self.best_ready(group)) else { continue };
            let place = |node: usize| (priorities[node], Reverse(node));
            if preempt.is_some() && place(best) > place(holder) {
                return Err(Violation::NotPreferred(group, self.nodes[holder].id, self.nodes[best].id));
            }
        }
        Ok(())
    }

    /// Is a slot longer than the difference of candidates' clocks and delays, so
    /// that they stand in the order of their ranks?
    fn is_by_rank(&self) -> bool {
        let ppm = self.plan.ppm.iter().map(|ppm| ppm.unsigned_abs()).max().unwrap_or_default();
        let drift = Duration::from_nanos(nanos(self.plan.timing.accept) / 1_000_000 * ppm * 2);
        let late = Duration::from_nanos(self.plan.lateness_ns) * 2;
        drift + late + self.delay_max() * 4 < self.plan.timing.slot
    }

    /// Every group has exactly one holder. Returns how often each has changed so far.
    fn require_holders(&self) -> Result<Vec<u64>, Violation> {
        for group in self.groups() {
            if self.open_on(group).count() != 1 {
                return Err(Violation::NoHolder(group));
            }
        }
        Ok(self.holdings.iter().map(|holding| holding.changes).collect())
    }

    /// No fence has opened or closed since.
    fn require_stable(&self, changes: &[u64]) -> Result<(), Violation> {
        let moved =
            self.holdings.iter().zip(changes).position(|(holding, &before)| holding.changes != before);
        moved.map_or(Ok(()), |group| Err(Violation::Unstable(group_id(group))))
    }

    pub(super) fn holder(&self, group: GroupId) -> Option<usize> {
        self.holdings[group.place()].open.map(|node| usize::from(node.0))
    }

    /// Can the others go on without `node`, and is one of them no witness?
    pub(super) fn expendable(&self, node: usize) -> bool {
        if self.plan.pair.is_some() {
            // The other takes over when it does not hear this one, or never.
            return self.plan.pair == Some(PeerLoss::Take);
        }
        let voters = self.voters();
        let others = self.plan.nodes.iter().enumerate().filter(|&(other, _)| other != node);
        voters - 1 > voters / 2 && others.into_iter().any(|(_, spec)| spec.role == Role::Node)
    }

    fn voters(&self) -> usize {
        self.plan.nodes.iter().filter(|spec| spec.role.votes()).count()
    }

    fn candidates(&self) -> usize {
        self.plan.nodes.iter().filter(|spec| spec.role == Role::Node).count()
    }

    /// A packet's longest way, at present.
    pub(super) fn delay_max(&self) -> Duration {
        let most = self.plan.delay_ns.iter().flatten().max().copied().unwrap_or_default();
        Duration::from_nanos(most + self.plan.jitter_ns)
    }

    /// What a candidacy takes beyond the wait for the lease: the ranks' slots,
    /// two phases, late timers, and one lost duel or question asked too early.
    pub(super) fn candidacy_bound(&self) -> Duration {
        let (slots, late) = (self.plan.timing.slot * 10, Duration::from_nanos(self.plan.lateness_ns) * 8);
        // One to go, one to come.
        let hooks = Duration::from_nanos(self.plan.hook_ns) * 2;
        let bound = slots + self.delay_max() * 12 + late + self.plan.timing.retry + hooks;
        // Candidates a slot apart don't see each other in time if a packet
        // takes longer than that: then some duels have to be fought out.
        if self.delay_max() * 4 > self.plan.timing.slot { bound + self.plan.timing.accept } else { bound }
    }

    /// The holder's machine dies. The others take over when they have forgotten its lease.
    fn drill_crash(&mut self) -> Result<(), Violation> {
        let Some(victim) = self.holder(group_id(0)).filter(|&node| self.expendable(node)) else {
            return Ok(());
        };
        let crash = self.now;
        let lost: Vec<_> = self.groups().into_iter().filter(|&g| self.holder(g) == Some(victim)).collect();
        let next: Vec<_> = lost.iter().map(|&group| self.best_ready(group)).collect();
        self.kill(victim, false)?;
        // The slowest clock that a plan can have counts T_accept 1.12 times as long.
        let bound = self.plan.timing.accept.mul_f64(1.12) + self.candidacy_bound();
        self.run_for(bound * 2)?;
        for (group, next) in lost.into_iter().zip(next) {
            let took = self.taken_over(group, victim, crash);
            self.require_within("crash", group, took, bound)?;
            self.stats.failovers.extend(took);
            if let (Some(holder), Some(next)) = (self.holder(group), next)
                && holder != next
                && self.is_by_rank()
            {
                return Err(Violation::NotPreferred(group, self.nodes[holder].id, self.nodes[next].id));
            }
        }
        Ok(())
    }

    /// From `since` to the opening of the group's fence on another node than `from`.
    fn taken_over(&self, group: GroupId, from: usize, since: SimNs) -> Option<Duration> {
        let holding = &self.holdings[group.place()];
        let taken = self.holder(group).is_some_and(|node| node != from);
        taken.then(|| holding.opened_at.since(since))
    }

    fn require_within(
        &self,
        drill: &'static str,
        group: GroupId,
        took: Option<Duration>,
        bound: Duration,
    ) -> Result<(), Violation> {
        if took.is_some_and(|took| took <= bound) {
            return Ok(());
        }
        Err(Violation::Slow { drill, group, took, bound })
    }

    /// The gap of a planned move that has been made, against its bound.
    fn require_gap(&mut self, drill: &'static str, group: GroupId, from: usize) -> Result<(), Violation> {
        let closed = self.holdings[group.place()].closed_at;
        let gap = self.taken_over(group, from, closed);
        let bound = self.candidacy_bound();
        self.require_within(drill, group, gap, bound)?;
        self.stats.handovers.extend(gap);
        Ok(())
    }

    /// The holder's agent is stopped in an orderly way.
    fn drill_stop(&mut self) -> Result<(), Violation> {
        let Some(victim) = self.holder(group_id(0)).filter(|&node| self.expendable(node)) else {
            return Ok(());
        };
        let lost: Vec<_> = self.groups().into_iter().filter(|&g| self.holder(g) == Some(victim)).collect();
        self.nodes[victim].restarts = false;
        self.ask(victim, Ask::Stop)?;
        self.run_for(self.candidacy_bound() * 2)?;
        lost.into_iter().try_for_each(|group| self.require_gap("stop", group, victim))?;
        if self.nodes[victim].agent.is_some() {
            self.run_for(Duration::from_millis(200))?;
        }
        match self.nodes[victim].agent {
            Some(_) => Err(Violation::Refused("stop", group_id(0), "the agent did not stop".to_owned())),
            None => Ok(()),
        }
    }

    /// A command is given anywhere, and its answer awaited.
    pub(super) fn obey(
        &mut self,
        drill: &'static str,
        group: GroupId,
        command: Command,
    ) -> Result<Completed, Violation> {
        let running = (0..self.nodes.len()).filter(|&node| self.nodes[node].agent.is_some());
        let at = self.rng.pick(&running.collect::<Vec<_>>());
        self.obey_at(at, drill, group, command)
    }

    /// A command is given to this node, and its answer awaited.
    fn obey_at(
        &mut self,
        at: usize,
        drill: &'static str,
        group: GroupId,
        command: Command,
    ) -> Result<Completed, Violation> {
        let refused = |why: String| Violation::Refused(drill, group, why);
        let id: CommandId =
            self.command(at, command)?.ok_or_else(|| refused("no process to take it".to_owned()))?;
        let end = self.now.plus(COMMAND_TIMEOUT / 2);
        let answer = |world: &Self| world.answers.iter().rev().find(|answer| answer.1 == id).copied();
        self.run_until_or(end, |world| answer(world).is_some())?;
        // If it is still so a moment later, it was no coincidence.
        self.run_for(self.plan.timing.accept * 2)?;
        match answer(self) {
            Some((_, _, outcome)) => outcome.map_err(|refusal| refused(refusal.to_string())),
            None => Err(refused("no answer within a second".to_owned())),
        }
    }

    fn drill_switchover(&mut self) -> Result<(), Violation> {
        let group = group_id(0);
        let Some(from) = self.holder(group).filter(|_| self.candidates() > 1) else { return Ok(()) };
        let targets = self.plan.nodes.iter().enumerate();
        let targets = targets.filter(|&(node, spec)| node != from && spec.role == Role::Node);
        let targets: Vec<_> = targets.map(|(node, _)| self.nodes[node].id).collect();
        let named = self.rng.pick(&targets);
        let (command, wanted) = match self.rng.below(3) {
            0 => (Command::Switchover { group, to: None }, None),
            1 => (Command::Switchover { group, to: Some(named) }, Some(named)),
            _ => (Command::Promote { group, to: named }, Some(named)),
        };
        let epoch = self.epoch(group);
        let completed = self.obey("switchover", group, command)?;
        if self.epoch(group) <= epoch {
            return Err(Violation::EpochStays(group));
        }
        let holder = self.holdings[group.place()].open;
        let right = holder.is_some() && completed == Completed::HeldBy(holder.unwrap_or_default());
        if !right || wanted.is_some_and(|wanted| Some(wanted) != holder) {
            let why = format!("answered {completed:?}, holder is {holder:?}");
            return Err(Violation::Refused("switchover", group, why));
        }
        self.require_gap("switchover", group, from)
    }

    fn drill_demote(&mut self) -> Result<(), Violation> {
        let group = group_id(0);
        let Some(from) = self.holder(group) else { return Ok(()) };
        let completed = self.obey("demote", group, Command::Demote { group })?;
        let holder: Option<NodeId> = self.holdings[group.place()].open;
        let expected = match (self.candidates(), holder) {
            (1, _) => Completed::Released,
            (_, Some(holder)) => Completed::HeldBy(holder),
            (_, None) => return Err(Violation::NoHolder(group)),
        };
        if completed != expected || holder.is_some_and(|node| usize::from(node.0) == from) {
            let why = format!("answered {completed:?}, holder is {holder:?}");
            return Err(Violation::Refused("demote", group, why));
        }
        if self.candidates() > 1 { self.require_gap("demote", group, from) } else { Ok(()) }
    }

    /// The holder's machine is paused, and its clock with it, until others have
    /// its groups. When it goes on, its leases have time left by its clock: the
    /// first renewal that is refused ends them, and nobody else's.
    fn drill_guest(&mut self) -> Result<(), Violation> {
        let is_right = |world: &Self, node| world.expendable(node) && world.plan.pair.is_none();
        let Some(victim) = self.holder(group_id(0)).filter(|&node| is_right(self, node)) else {
            return Ok(());
        };
        let paused = self.now;
        let held: Vec<_> = self.groups().into_iter().filter(|&g| self.holder(g) == Some(victim)).collect();
        self.pause_guest(victim);
        let duel = if self.is_by_rank() { Duration::ZERO } else { self.plan.timing.accept };
        let bound = self.plan.timing.accept.mul_f64(1.12) + self.candidacy_bound() + duel;
        self.run_for(bound * 2)?;
        for &group in &held {
            let took = self.taken_over(group, victim, paused);
            self.require_within("pause of a guest", group, took, bound)?;
        }
        let holders: Vec<_> = self.groups().into_iter().map(|group| self.holder(group)).collect();

        self.two_may_hold = true;
        self.resume_guest(victim)?;
        let late = Duration::from_nanos(self.plan.lateness_ns) * 4;
        self.run_for(self.plan.timing.renew.mul_f64(1.12) + self.delay_max() * 2 + late)?;
        self.two_may_hold = false;
        self.check_fences()?;
        self.run_for(self.plan.timing.accept * 4)?;
        let after: Vec<_> = self.groups().into_iter().map(|group| self.holder(group)).collect();
        match holders.iter().zip(&after).position(|(before, after)| before != after) {
            Some(group) => Err(Violation::Unstable(group_id(group))),
            None => Ok(()),
        }
    }

    /// A node that is cut off takes a group by force and keeps it. When the
    /// others hear it again, the node that has the group by right goes on; if
    /// there is none, this one does.
    fn drill_force(&mut self) -> Result<(), Violation> {
        let candidates = self.plan.nodes.iter().enumerate().filter(|(_, spec)| spec.role == Role::Node);
        let candidates: Vec<_> = candidates.map(|(node, _)| node).collect();
        let (group, at) = (group_id(0), self.rng.pick(&candidates));
        if self.plan.pair.is_some() || self.voters() < 2 {
            return Ok(());
        }
        let id = self.nodes[at].id;
        self.cut_off(at, true);
        let timing = self.plan.timing;
        self.run_for(
            timing.heard.mul_f64(1.12) + timing.accept.mul_f64(1.12) * 2 + self.candidacy_bound() * 2,
        )?;
        let by_right = self.open_on(group).find(|&node| node != id);
        if self.expendable(at) && by_right.is_none() {
            return Err(Violation::NoHolder(group));
        }

        self.two_may_hold = true;
        let completed = self.obey_at(at, "force", group, Command::Force { group })?;
        let says = |world: &Self| world.status_of(at, group).is_some_and(|status| status.forced);
        if completed != Completed::HeldBy(id) || !self.open_on(group).any(|node| node == id) || !says(self) {
            let why = format!(
                "answered {completed:?}, it is open on {:?}",
                self.open_on(group).collect::<Vec<_>>()
            );
            return Err(Violation::Refused("force", group, why));
        }
        if by_right.is_some_and(|by_right| !self.open_on(group).any(|node| node == by_right)) {
            return Err(Violation::Unstable(group));
        }

        self.cut_off(at, false);
        self.run_for(timing.accept.mul_f64(1.12) * 2 + self.candidacy_bound())?;
        self.two_may_hold = false;
        self.check_fences()?;
        if self.open_on(group).next() != Some(by_right.unwrap_or(id)) || says(self) {
            let why = format!("{by_right:?} had it by right, it is open on {:?}", self.holder(group));
            return Err(Violation::Refused("merge", group, why));
        }
        Ok(())
    }

    fn status_of(&self, node: usize, group: GroupId) -> Option<GroupStatus> {
        let node = &self.nodes[node];
        let status = node.engine()?.status(node.clock.at(self.now));
        status.groups.into_iter().nth(group.place())
    }

    /// The holder's agent is replaced: no fence moves. Of two voters that need
    /// each other, one keeps silent then, and the other one's leases run out.
    fn drill_restart(&mut self) -> Result<(), Violation> {
        let others_go_on = self.plan.pair.is_some() || self.voters() != 2;
        let Some(node) = self.holder(group_id(0)).filter(|_| others_go_on) else { return Ok(()) };
        // Its peers have to adopt it again, it meets a higher ballot, and asks in two
        // phases.
        let ways = if self.plan.is_sealed { 8 } else { 6 };
        let needed = self.delay_max() * ways + Duration::from_nanos(self.plan.lateness_ns) * ways;
        let Timing { hold, renew, .. } = self.plan.timing;
        let spare = hold.saturating_sub(renew.mul_f64(1.12) + needed);
        if spare.is_zero() {
            return Ok(());
        }
        let changes = self.require_holders()?;
        self.kill(node, false)?;
        let pause = self.rng.below(nanos(spare.min(hold / 4)));
        self.start_later(node, Duration::from_nanos(pause));
        self.run_for(self.plan.timing.accept * 4)?;
        self.require_stable(&changes)
    }
}
