//! What a process does: turns of its loop like those of the agent's lease loop,
//! step by step, and the acts of each step on the world. It may be stopped before
//! each act.

use std::time::Duration;

use vip_common::Lease;
use vip_engine::{PAYLOAD_MAX, Packet, Transition};
use vip_lease::{Eligible, Hook, LeaseNotice, transport::OVERHEAD};

use super::{
    Mutant, Violation,
    agent::{self, Act, Ask},
    clock::{SimNs, nanos},
    hosts::{Fitness, Prepared, Turn},
    names::node_id,
    network::Datagram,
    trace,
    world::{Event, World},
};

/// Wake-ups that a node may ask for at the same moment.
const SPINS_MAX: u32 = 8;

impl World {
    /// A process runs its loop: the acts of a step, one by one, then the next
    /// step.
    pub(super) fn run_process(&mut self, index: usize) -> Result<(), Violation> {
        loop {
            if self.nodes[index].stalled_until.is_some() {
                return Ok(());
            }
            if self.rng.below(1_000_000) < self.plan.stalls {
                let most = nanos(self.plan.timing.accept) * 3;
                let how_long = Duration::from_nanos(self.rng.below(most));
                self.stall(index, how_long);
                return Ok(());
            }
            let node = &mut self.nodes[index];
            let Some(agent) = &mut node.agent else { return Ok(()) };
            if !agent.io.acts.is_empty() {
                if let Some(how_long) = node.stall_with_output.take() {
                    self.stall(index, how_long);
                } else if let Some(act) = agent.io.acts.pop_front() {
                    self.act(index, act)?;
                }
                continue;
            }
            if agent.is_stopped() {
                return self.stopped(index);
            }
            if !self.step(index)? {
                break;
            }
            if self.mutant == Mutant::SendBeforeStore {
                self.send_first(index)?;
            }
        }
        self.check_duties(index)?;
        self.wake_later(index);
        Ok(())
    }

    /// The next step of the process's loop: the time, everything that has
    /// arrived, what follows from silence, requests. False if it waits.
    fn step(&mut self, index: usize) -> Result<bool, Violation> {
        let (now, unread) = (self.nodes[index].clock.at(self.now), self.unread_words(index));
        let node = &mut self.nodes[index];
        let told = now.max(node.handled_at);
        let Some(agent) = &mut node.agent else { return Ok(false) };
        (node.unread, node.handled_at, agent.io.now) = (unread, told, told);
        match node.turn {
            Turn::Waiting => return Ok(false),
            Turn::Woken => {
                node.turn = Turn::Reading;
                agent.begin_turn();
                if self.mutant == Mutant::TimersBeforeMail {
                    agent.judge(true);
                }
            }
            Turn::Reading => {
                if let Some(mail) = node.mail.pop_front() {
                    self.read(index, mail)?;
                } else {
                    node.turn = Turn::Asked;
                    return self.judge(index);
                }
            }
            Turn::Asked => {
                if let Some(ask) = node.asks.pop_front() {
                    self.answer(index, ask);
                } else {
                    agent.look_at_uncovered();
                    // Anything that came meanwhile wakes it at once.
                    node.turn = if node.mail.is_empty() { Turn::Waiting } else { Turn::Woken };
                }
            }
        }
        self.stats.inputs += 1;
        Ok(true)
    }

    /// All mail is read.
    fn judge(&mut self, index: usize) -> Result<bool, Violation> {
        let node = &mut self.nodes[index];
        let Some(agent) = &mut node.agent else { return Ok(false) };
        node.spins = if node.judged_at == node.handled_at { node.spins + 1 } else { 0 };
        node.judged_at = node.handled_at;
        agent.judge(true);
        let is_due = agent.next_deadline().is_some_and(|at| at <= node.handled_at);
        if node.spins > SPINS_MAX && is_due && agent.io.acts.is_empty() {
            return Err(Violation::Spinning(node.id));
        }
        Ok(true)
    }

    fn read(&mut self, index: usize, mail: agent::Mail) -> Result<(), Violation> {
        let from = node_id(mail.from);
        if let Some(said) = mail.said.as_ref().filter(|_| self.trace.wanted()) {
            let said = trace::packet(said, &self.plan.names);
            self.note(|world| {
                format!("{:<6} <- {:<6} {said}", world.name(index), world.plan.names.node(from))
            });
        }
        let Some(agent) = &mut self.nodes[index].agent else { return Ok(()) };
        let undecoded = agent.counts().undecoded;
        let dropped = agent::read(agent, mail);
        if agent.counts().undecoded != undecoded {
            return Err(Violation::BadPacket(from));
        }
        if let Some(why) = dropped {
            self.note(|world| {
                format!("{:<6} <- {:<6} dropped: {why}", world.name(index), world.plan.names.node(from))
            });
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, ask: Ask) {
        if self.trace.wanted() {
            let line = trace::ask(&ask, &self.plan.names);
            self.note(|world| format!("{:<6} {line}", world.name(index)));
        }
        let node = &mut self.nodes[index];
        let Some(agent) = &mut node.agent else { return };
        match ask {
            Ask::Command { id, command } => {
                let until = node.handled_at.plus(self.plan.answer_max() + Duration::from_millis(10));
                node.commands.insert(id, until);
                agent.command(command, agent.labels.table(), id);
            }
            Ask::Eligible { group, word } => {
                node.told[group.place()] = match word {
                    Eligible::Yes => Fitness::Fit,
                    Eligible::No => Fitness::Unfit,
                    Eligible::Unwell => Fitness::Unwell,
                };
                agent.eligible(group, word);
            }
            Ask::Ceiling(ceiling) => agent.ceiling(ceiling),
            Ask::Regroup(regroup) => {
                let ended = regroup.ended.clone();
                agent.regroup(*regroup, |_, _| ());
                self.forget_fitness(index, &ended);
            }
            Ask::HookEnded { hook, ticket, well } => {
                let of = node.prepared.iter_mut().find(|by| **by == Prepared::By(ticket));
                if let Some(prepared) = of.filter(|_| well && hook == Hook::PrePromote) {
                    *prepared = Prepared::Yes;
                }
                agent.hook_ended(hook, ticket, well);
            }
            Ask::Stop => agent.stop(),
        }
    }

    /// [`Mutant::SendBeforeStore`]: sends overtake everything else, and then
    /// the process may even be stopped for a while.
    fn send_first(&mut self, index: usize) -> Result<(), Violation> {
        let Some(agent) = &mut self.nodes[index].agent else { return Ok(()) };
        let acts = std::mem::take(&mut agent.io.acts);
        if acts.is_empty() {
            return Ok(());
        }
        let (sends, others): (Vec<_>, Vec<_>) =
            acts.into_iter().partition(|act| matches!(act, Act::Send { .. }));
        agent.io.acts = others.into();
        for send in sends {
            self.act(index, send)?;
        }
        if self.rng.chance(200) {
            let how_long = self.rng.below(nanos(self.plan.timing.accept));
            self.stall(index, Duration::from_nanos(how_long));
        }
        Ok(())
    }

    fn wake_later(&mut self, index: usize) {
        let lateness = self.rng.below(self.plan.lateness_ns + 1);
        let node = &mut self.nodes[index];
        let Some(deadline) = node.agent.as_ref().and_then(agent::Agent::next_deadline) else { return };
        let at = SimNs(node.clock.when(deadline).max(self.now).0 + lateness);
        // A timer that is set already and early enough does.
        if node.wake_at.is_none_or(|set| set > at || set < self.now) {
            node.wake_at = Some(at);
            self.push(at, Event::Wake { node: index });
        }
    }

    /// Does one act on the world.
    fn act(&mut self, index: usize, act: Act) -> Result<(), Violation> {
        if self.trace.wanted()
            && let Some(line) = trace::act(&act, self.nodes[index].clock.at(self.now), &self.plan.names)
        {
            self.note(|world| format!("{:<6} {line}", world.name(index)));
        }
        let node = &mut self.nodes[index];
        match act {
            Act::Store { group, lease } => {
                if lease != Lease::NONE {
                    let until = lease.expiry().unwrap_or_default();
                    if until <= node.handled_at || until.since(node.handled_at) > node.hold {
                        return Err(Violation::BadLease(node.id, group));
                    }
                    if !node.is_prepared(&self.plan, group) {
                        return Err(Violation::Unprepared(node.id, group));
                    }
                    let end = node.clock.when(until);
                    self.push(end, Event::Look { group });
                }
                let node = &mut self.nodes[index];
                node.map[group.place()] = lease;
                if lease == Lease::NONE {
                    node.prepared[group.place()] = Prepared::No;
                }
                self.check_fence(group)
            }
            Act::Send { to, said, bytes } => {
                if let Some(said) = &said {
                    self.check_packet(index, said, bytes.as_deref())?;
                    self.check_candidacies(index, said)?;
                }
                self.transmit(Datagram::new(self, index, usize::from(to.0), said, bytes));
                Ok(())
            }
            Act::Takeover { group } => {
                let lease = node.map[group.place()].expiry();
                if lease.is_none_or(|until| until <= node.handled_at) {
                    return Err(Violation::BadAnnouncement(node.id, group));
                }
                Ok(())
            }
            Act::Tell(notice) => self.notice(index, notice),
            Act::Hook { hook, ticket, group } => {
                if hook == Hook::PrePromote {
                    node.prepared[group.place()] = Prepared::By(ticket);
                }
                let delay = Duration::from_nanos(self.rng.below(self.plan.hook_ns + 1));
                let well = !self.rng.chance(self.plan.hooks_fail);
                let event = Event::HookEnds { node: index, life: node.life, hook, ticket, well };
                self.push(self.now.plus(delay), event);
                Ok(())
            }
            Act::Reply { id, outcome } => {
                if node.commands.remove(&id).is_none() {
                    return Err(Violation::StrayAnswer(node.id, id));
                }
                self.stats.commands += 1;
                self.stats.completed += u64::from(outcome.is_ok());
                self.answers.push((node_id(index), id, outcome));
                Ok(())
            }
        }
    }

    /// Does a packet fit into a datagram, and decode to itself?
    fn check_packet(&self, index: usize, said: &Packet, bytes: Option<&[u8]>) -> Result<(), Violation> {
        let is_right = match bytes {
            // The receiver checks the decoded packet.
            Some(bytes) => bytes.len() <= PAYLOAD_MAX + OVERHEAD,
            None => {
                let payloads = said.encode();
                let read =
                    payloads.iter().map(|payload| Packet::decode(payload).map(|packet| packet.messages));
                let read: Result<Vec<_>, _> = read.collect();
                payloads.iter().all(|payload| payload.len() <= PAYLOAD_MAX)
                    && read.is_ok_and(|read| read.concat() == said.messages)
            }
        };
        if is_right { Ok(()) } else { Err(Violation::BadPacket(self.nodes[index].id)) }
    }

    /// What the keeper does about it.
    fn notice(&mut self, index: usize, notice: LeaseNotice) -> Result<(), Violation> {
        let known = &mut self.nodes[index].disk.known;
        match notice {
            LeaseNotice::Changed { transition, promoting, .. } => {
                let Transition { group, epoch, state, reason, .. } = transition;
                let highest = &mut known.epochs[group];
                if epoch > *highest {
                    *highest = epoch;
                    self.write_later(index);
                }
                // The end of a `pre_promote` is no other grant.
                let is_grant = promoting || !self.plan.hooks[group.place()].0;
                return if is_grant { self.note_grant(index, group, epoch, (state, reason)) } else { Ok(()) };
            }
            LeaseNotice::RaiseCeiling(ceiling) => {
                known.ceiling = known.ceiling.max(ceiling);
                self.write_later(index);
            }
            LeaseNotice::Remember { standby, pause } => {
                (known.standby, known.pause) = (standby, pause);
                self.write_later(index);
            }
            LeaseNotice::Claim { .. }
            | LeaseNotice::Asked { .. }
            | LeaseNotice::Connected { .. }
            | LeaseNotice::Late { .. }
            | LeaseNotice::Rejected { .. } => {}
            LeaseNotice::Regrouped | LeaseNotice::Covered { .. } => self.keep_later(index, notice),
        }
        Ok(())
    }

    /// The process has released everything and ends.
    fn stopped(&mut self, index: usize) -> Result<(), Violation> {
        self.note(|world| format!("{:<6} has stopped", world.name(index)));
        let id = node_id(index);
        for group in self.groups() {
            if self.open_on(group).any(|node| node == id) {
                return Err(Violation::StoppedWithLease(id, group));
            }
        }
        self.write_last(index);
        self.kill(index, false)?;
        if self.nodes[index].restarts {
            let pause = self.rng.below(nanos(self.plan.timing.accept) * 2);
            self.start_later(index, Duration::from_nanos(pause));
        }
        Ok(())
    }
}
