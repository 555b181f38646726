//! The hosts of a simulated cluster and the agents on them: how they start, stop,
//! hang and die, and how the world sends them input.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use vip_common::{BootNs, Lease};
use vip_engine::{Command, CommandId, Engine, EngineConfig, GroupId, Incarnation, NodeId, Role, Timing};
use vip_lease::{Eligible, gate::Ticket};

use super::{
    Mutant, Violation,
    agent::{self, Agent, Ask, Beginning, Keys, Mail},
    clock::{Clock, SimNs, nanos},
    disk::Disk,
    groups::Groups,
    names::{group_id, node_id},
    plan::Plan,
    rng::Rng,
    world::{Event, World},
};

/// Datagrams that wait in a stopped process's socket; more are lost.
const MAIL_MAX: usize = 256;

/// The verdict on whether its node can serve a group, as the process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// Nothing so far.
    Unknown,
    /// It can.
    Fit,
    /// It can't.
    Unfit,
    /// It is not well, and keeps the group if nobody else can take it.
    Unwell,
}

/// Has the `pre_promote` of a group's latest grant ended well?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prepared {
    No,
    /// It runs.
    By(Ticket),
    /// So it has, or it was open when the process started.
    Yes,
}

/// The stage of a process's loop: it checks the clock, reads everything that has
/// arrived, judges what follows from silence, and does requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for a timer or a datagram.
    Waiting,
    /// It has woken up: next it checks the clock.
    Woken,
    /// Reading.
    Reading,
    /// It has judged: next it does requests.
    Asked,
}

/// A node: a host with a map, and maybe a process on it.
pub(super) struct SimNode {
    pub id: NodeId,
    pub clock: Clock,
    pub hold: Duration,
    /// Has it [`Plan::accept_later`]?
    pub is_later: bool,
    /// The longest T_accept of votes that may count when it starts again, by
    /// the record that its agent keeps, and when that becomes its own.
    pub votes: (Duration, BootNs),
    /// The pinned map: outlives the process, not the host.
    pub map: Vec<Lease>,
    /// `None` while no process runs.
    pub agent: Option<Agent>,
    /// The host's disk: outlives both.
    pub disk: Disk,
    /// Counts starts of the process; stands for its incarnation.
    pub life: u64,
    /// Its groups and their VIPs.
    pub groups: Groups,
    /// When its keeper handles its last notices.
    pub kept_at: SimNs,
    /// How far it is with the rotation of keys.
    pub keys: Keys,
    /// The membership generation that the process is configured with (rule 10).
    pub generation: u64,
    /// What its clock showed when its machine was paused.
    pub paused_at: Option<BootNs>,
    /// The process is stopped until then.
    pub stalled_until: Option<SimNs>,
    /// Stop the process for this long as soon as it has an output in its hands.
    pub stall_with_output: Option<Duration>,
    pub eligible: Vec<bool>,
    /// What the engine was told of it.
    pub told: Vec<Fitness>,
    /// By group.
    pub prepared: Vec<Prepared>,
    /// Groups of which a holder's word lay unread at the last input.
    pub unread: Vec<GroupId>,
    /// Since when it has been on standby and has run without a stop.
    pub standby_since: Option<SimNs>,
    /// Under way, with the time on the node's clock by which they must be answered.
    pub commands: BTreeMap<CommandId, BootNs>,
    /// Does it start again after it has been stopped in an orderly way?
    pub restarts: bool,
    /// In the process's socket.
    pub mail: VecDeque<Mail>,
    /// Requests of others on the host to the process.
    pub asks: VecDeque<Ask>,
    /// What the process's loop does next.
    pub turn: Turn,
    pub wake_at: Option<SimNs>,
    pub handled_at: BootNs,
    /// When its loop last judged what follows from silence, and how often at that
    /// very moment.
    pub judged_at: BootNs,
    pub spins: u32,
}

impl SimNode {
    /// A host that has run for a while, without an agent.
    pub fn new(index: usize, plan: &Plan, rng: &mut Rng) -> Self {
        let uptime = BootNs(rng.between(1_000_000_000, 1 << 50));
        Self {
            id: node_id(index),
            clock: Clock::new(SimNs(0), uptime, plan.ppm[index]),
            hold: Timing::new(plan.accept[index]).hold,
            is_later: false,
            votes: (plan.accept[index], BootNs(0)),
            map: vec![Lease::NONE; plan.groups.len()],
            agent: None,
            disk: Disk::new(plan.groups.len()),
            life: 0,
            groups: Groups::new(plan),
            kept_at: SimNs(0),
            keys: Keys::default(),
            generation: 1,
            paused_at: None,
            stalled_until: None,
            stall_with_output: None,
            eligible: vec![true; plan.groups.len()],
            told: vec![Fitness::Unknown; plan.groups.len()],
            prepared: vec![Prepared::No; plan.groups.len()],
            unread: Vec::new(),
            standby_since: None,
            commands: BTreeMap::new(),
            restarts: true,
            mail: VecDeque::new(),
            asks: VecDeque::new(),
            turn: Turn::Waiting,
            wake_at: None,
            handled_at: BootNs(0),
            judged_at: BootNs(0),
            spins: 0,
        }
    }

    /// What the process knows, if one runs.
    pub fn engine(&self) -> Option<&Engine> {
        self.agent.as_ref().map(|agent| &agent.engine)
    }

    /// Was the process told that it can't serve this group, or does it stay away
    /// since a hook has failed?
    pub fn is_unfit(&self, group: GroupId) -> bool {
        let is_barred = self.agent.as_ref().is_some_and(|agent| agent.gates.barred().contains_key(&group));
        is_barred || self.told[group.place()] == Fitness::Unfit
    }

    /// Would the process answer nothing of this group if it had the lease?
    pub fn is_mute(&self, group: GroupId) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.mute.contains(&group))
    }

    /// May a word that opens the fence be stored?
    pub fn is_prepared(&self, plan: &Plan, group: GroupId) -> bool {
        let place = group.place();
        // A lease that goes on was opened before.
        let goes_on = self.map[place].expiry().is_some_and(|until| until > self.handled_at);
        !plan.hooks[place].0 || goes_on || self.prepared[place] == Prepared::Yes
    }

    /// Passes on the keeper's verdict on a group.
    pub fn word(&self, group: usize) -> Eligible {
        if self.eligible[group] { Eligible::Yes } else { Eligible::No }
    }

    /// The input and outputs of the process are lost with it.
    fn forget(&mut self) {
        self.stalled_until = None;
        self.stall_with_output = None;
        self.mail.clear();
        self.asks.clear();
        self.turn = Turn::Waiting;
        self.told.fill(Fitness::Unknown);
        self.prepared.fill(Prepared::No);
        self.standby_since = None;
        self.commands.clear();
    }
}

impl World {
    /// The only place that makes the configuration of a simulated engine.
    fn engine_config(&mut self, index: usize) -> EngineConfig {
        let incarnation = Incarnation(self.rng.draw());
        let (nodes, groups) = (self.plan.members(self.nodes[index].generation), self.plan.groups.clone());
        let accept = self.accept(index);
        let config = EngineConfig::new(node_id(index), incarnation, nodes, groups, accept);
        let silence = self.begin_votes(index);
        let remembered = self.remembered(index);
        let epoch_margin = self.plan.epoch_margin;
        let (pair, startup_delay) = (self.plan.pair, self.plan.startup_delay);
        EngineConfig { pair, startup_delay, silence, remembered, epoch_margin, ..config }
    }

    /// T_accept of a node's configuration.
    fn accept(&self, index: usize) -> Duration {
        let later = self.plan.accept_later.filter(|_| self.nodes[index].is_later);
        later.unwrap_or(self.plan.accept[index])
    }

    /// How long a process that starts has to be silent; writes that down, as
    /// `vip-ctl`'s votes do.
    fn begin_votes(&mut self, index: usize) -> Duration {
        let accept = self.accept(index);
        let is_forgotten = self.mutant == Mutant::VotesUnrecorded;
        let silence = if is_forgotten { accept } else { self.nodes[index].votes.0.max(accept) };
        let node = &mut self.nodes[index];
        node.hold = Timing::new(accept).hold;
        node.votes = (silence, node.clock.at(self.now).plus(silence));
        silence
    }

    /// For how long votes of the last process may count, by the record; for no
    /// longer than its own T_accept, if it has outlived its silence.
    fn settle_votes(&mut self, index: usize) {
        let (accept, longest) = (self.accept(index), self.plan.longest().accept);
        let node = &mut self.nodes[index];
        if node.handled_at == BootNs(0) {
            // Nobody knows how long the host was off.
            node.votes.0 = longest;
        } else if node.handled_at >= node.votes.1 {
            node.votes.0 = accept;
        }
        node.votes.1 = BootNs(u64::MAX);
    }

    /// The node's configuration gets the later T_accept, before a start.
    pub fn change_accept(&mut self, index: usize) {
        self.settle_votes(index);
        self.nodes[index].is_later = true;
    }

    /// The generation that a node starts with: its configuration is exchanged at
    /// some restart, and never back. Into the next but one it goes when every
    /// voter of the next takes part in that, which its agent asks for
    /// (`vip-ctl`'s membership, explored by its chains).
    fn next_generation(&mut self, index: usize) -> u64 {
        let mut generation = self.nodes[index].generation;
        while generation < self.plan.last_generation() {
            let is_member = |generation| self.plan.members(generation)[index].role != Role::Vacant;
            let members = self.plan.members(generation);
            let mut voters = members.iter().zip(&self.nodes).filter(|(spec, _)| spec.role.votes());
            let is_later = self.nodes[index].is_later;
            // It hears none that has another lease.
            let is_open = generation == 1
                || self.mutant == Mutant::HastySteps
                || voters.all(|(_, node)| node.generation >= generation && node.is_later == is_later);
            let has_gone = is_member(generation) && !is_member(generation + 1);
            // A node that is yet to come has no former membership.
            let is_due = !is_member(generation) || self.rng.chance(400);
            if !is_open || has_gone || !is_due {
                break;
            }
            generation += 1;
        }
        generation
    }

    /// The node takes the next step of the rotation of keys, or does not yet:
    /// nobody may be behind it.
    fn rotate_keys(&mut self, index: usize) {
        let keys = self.nodes[index].keys;
        let is_hasty = self.mutant == Mutant::HastyKeys;
        let may = is_hasty || self.nodes.iter().all(|node| node.keys >= keys);
        if self.plan.rotates && may && self.rng.chance(400) {
            self.nodes[index].keys = keys.next();
        }
    }

    /// Starts the node's process, if none runs.
    pub fn start(&mut self, index: usize) -> Result<(), Violation> {
        if self.nodes[index].agent.is_some() {
            return Ok(());
        }
        self.nodes[index].generation = self.next_generation(index);
        self.settle_votes(index);
        if self.plan.accept_later.is_some() && !self.nodes[index].is_later && self.rng.chance(400) {
            self.change_accept(index);
        }
        if self.plan.members(self.nodes[index].generation)[index].role == Role::Vacant {
            return Ok(());
        }
        self.rotate_keys(index);
        let told = self.begin_groups(index);
        let config = self.engine_config(index);
        let entropy = std::array::from_fn(|_| self.rng.draw().to_ne_bytes()[0]);
        let node = &mut self.nodes[index];
        let mut now = node.clock.at(self.now);
        node.handled_at = now;
        if self.mutant == Mutant::NoSilence {
            now = BootNs(now.0 - nanos(config.silence));
        }
        let leases = node.map.iter().enumerate();
        let held: Vec<_> =
            leases.filter_map(|(group, lease)| Some((group_id(group), lease.expiry()?))).collect();
        node.life += 1;
        let beginning = Beginning {
            held: &held,
            generation: node.generation,
            config_digest: u64::from(node.is_later && self.mutant != Mutant::MixedLeases),
            keys: node.keys,
            entropy,
            is_sealed: self.plan.is_sealed,
            groups: told,
            rules: self.plan.gate_rules(),
        };
        node.agent = Some(agent::start(config, beginning, now));
        node.forget();
        for (group, _) in &held {
            node.prepared[group.place()] = Prepared::Yes;
        }
        for group in 0..node.eligible.len() {
            let word = node.word(group);
            node.asks.push_back(Ask::Eligible { group: group_id(group), word });
        }
        self.note(|world| {
            let now = world.nodes[index].handled_at;
            let found = held.iter().map(|&(group, until)| {
                format!(", finds {} open for {:.3?}", world.plan.names.group(group), until.since(now))
            });
            format!("{:<6} starts{}", world.name(index), found.collect::<String>())
        });
        self.wake(index)
    }

    /// The process is gone; with the host, the map is too, and the clock begins anew.
    pub fn kill(&mut self, index: usize, host: bool) -> Result<(), Violation> {
        self.note(|world| {
            format!("{:<6} is killed{}", world.name(index), if host { " with its host" } else { "" })
        });
        let uptime = self.rng.between(1_000_000_000, 100_000_000_000);
        let (now, ppm, groups) = (self.now, self.plan.ppm[index], self.plan.groups.len());
        let is_disk_lost = host && self.rng.chance(self.plan.disk_lost);
        let node = &mut self.nodes[index];
        node.agent = None;
        node.wake_at = None;
        node.forget();
        if !host {
            return Ok(());
        }
        if is_disk_lost {
            // Nothing is promised about epochs any more, all the rest is.
            node.disk = Disk::new(groups);
            node.groups.lose_record();
            self.holdings.iter_mut().for_each(|holding| holding.epochs_may_repeat = true);
        }
        let node = &mut self.nodes[index];
        node.map.fill(Lease::NONE);
        node.groups.lose_maps();
        node.clock = Clock::new(now, BootNs(uptime), ppm);
        node.handled_at = BootNs(0);
        self.check_fences()
    }

    /// Stops the process; datagrams wait.
    pub fn stall(&mut self, index: usize, how_long: Duration) {
        let until = self.now.plus(how_long);
        self.note(|world| format!("{:<6} is stopped", world.name(index)));
        self.nodes[index].stalled_until = Some(until);
        self.nodes[index].standby_since = None;
        self.push(until, Event::Resume { node: index });
    }

    /// The process goes on.
    pub fn resume(&mut self, index: usize) -> Result<(), Violation> {
        self.note(|world| format!("{:<6} continues", world.name(index)));
        let node = &mut self.nodes[index];
        node.stalled_until = None;
        // A command may have waited for a hook meanwhile: its two seconds begin now.
        if self.plan.hooks.iter().any(|(_, pre_demote)| *pre_demote) {
            let lost = node.clock.at(self.now).since(node.handled_at);
            node.commands.values_mut().for_each(|until| *until = until.plus(lost));
        }
        self.wake(index)
    }

    /// Cuts the node off from all others, or reconnects it.
    pub fn cut_off(&mut self, index: usize, on: bool) {
        self.note(|world| {
            format!("{:<6} is {}", world.name(index), if on { "cut off" } else { "heard again" })
        });
        for other in (0..self.nodes.len()).filter(|&other| other != index) {
            self.cut[index][other] = on;
            self.cut[other][index] = on;
        }
    }

    /// The machine stops, with its clock and its network, until
    /// [`World::resume_guest`].
    pub fn pause_guest(&mut self, index: usize) {
        self.cut_off(index, true);
        let node = &mut self.nodes[index];
        node.paused_at = Some(node.clock.at(self.now));
        // Longer than any simulation.
        self.stall(index, Duration::from_secs(86_400));
    }

    /// It goes on, and for it no time has gone by.
    pub fn resume_guest(&mut self, index: usize) -> Result<(), Violation> {
        let (now, ppm) = (self.now, self.plan.ppm[index]);
        let node = &mut self.nodes[index];
        if let Some(shows) = node.paused_at.take() {
            node.clock = Clock::new(now, shows, ppm);
        }
        let ends: Vec<_> =
            node.map.iter().map(|lease| node.clock.when(lease.expiry().unwrap_or_default())).collect();
        for (group, end) in ends.into_iter().enumerate() {
            self.push(end.max(now), Event::Look { group: group_id(group) });
        }
        self.cut_off(index, false);
        self.check_fences()?;
        self.resume(index)
    }

    /// Gives a command to a node; returns its number, if a process is there to take it.
    pub fn command(&mut self, index: usize, command: Command) -> Result<Option<CommandId>, Violation> {
        if self.nodes[index].agent.is_none() {
            return Ok(None);
        }
        self.commands += 1;
        let id = CommandId(self.commands);
        self.ask(index, Ask::Command { id, command })?;
        Ok(Some(id))
    }

    /// Sends a request to a node's process, and lets it run if it can.
    pub fn ask(&mut self, index: usize, ask: Ask) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if node.agent.is_some() {
            node.asks.push_back(ask);
        }
        self.wake(index)
    }

    /// Tells a node's process whether it can serve a group.
    pub fn tell_eligible(&mut self, index: usize, group: usize, word: Eligible) -> Result<(), Violation> {
        self.ask(index, Ask::Eligible { group: group_id(group), word })
    }

    /// Puts a datagram into the socket of a node's process, if there is room.
    pub fn post(&mut self, index: usize, mail: Mail) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if node.agent.is_some() && node.mail.len() < MAIL_MAX {
            node.mail.push_back(mail);
        }
        self.wake(index)
    }

    /// A node's process has something to do.
    pub fn wake(&mut self, index: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if node.turn == Turn::Waiting {
            node.turn = Turn::Woken;
        }
        self.run_process(index)
    }

    /// Are all commands answered that should be? A process that is stopped is excused.
    pub fn check_answers(&self) -> Result<(), Violation> {
        // Stopped between two outputs, it may have the answer in its hands.
        let running = self.nodes.iter().filter(|node| node.agent.is_some() && node.stalled_until.is_none());
        for node in running {
            for (&id, &until) in &node.commands {
                if until <= node.handled_at {
                    return Err(Violation::NoAnswer(node.id, id));
                }
            }
        }
        Ok(())
    }
}
