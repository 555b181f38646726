//! Tests of the engine: one acceptor alone, bytes, and whole clusters in a
//! harness that jumps from one thing to do to the next. The harness has one
//! clock and a network that does what the test says; chance, drifting clocks
//! and stopped processes are the simulator's business.

mod acceptor;
mod answers;
mod command;
mod epochs;
mod foresight;
mod health;
mod label;
mod lease;
mod mail;
mod operate;
mod pair;
mod reload;
mod restart;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use vip_common::{BootNs, GroupMode, Lease, fence_open};

use super::*;

/// The mutant that these tests must catch, if the environment names one.
#[cfg(feature = "mutants")]
pub(super) fn chosen_mutant() -> Option<Mutant> {
    let name = std::env::var("VIP_MUTANT").ok()?;
    Some(Mutant::by_name(&name).unwrap_or_else(|| panic!("there is no mutant {name:?}")))
}

pub(super) const ACCEPT: Duration = Duration::from_millis(200);
pub(super) const HOLD: Duration = Duration::from_millis(160);
/// More steps than anything takes at one time.
const STEPS_MAX: u32 = 20_000;
/// How long a packet takes, one way.
pub(super) const DELAY: Duration = Duration::from_micros(100);
pub(super) const DB: GroupId = GroupId(0);
pub(super) const A: NodeId = NodeId(0);
pub(super) const B: NodeId = NodeId(1);
pub(super) const C: NodeId = NodeId(2);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A cluster in which every output is carried out at once.
pub(super) struct Cluster {
    pub now: BootNs,
    pub config: EngineConfig,
    pub engines: BTreeMap<NodeId, Engine>,
    pub maps: BTreeMap<(NodeId, GroupId), Lease>,
    pub delay: Duration,
    /// Messages of these pairs, from one node to another, are lost.
    pub cut: Vec<(NodeId, NodeId)>,
    /// Everything but `Send`, with the time.
    pub log: Vec<(BootNs, NodeId, Output)>,
    /// Packets that were sent, also lost ones.
    pub sent: Vec<(BootNs, NodeId, NodeId, Packet)>,
    /// Whether two fences may be open at once, as in pair mode and by force.
    pub two_may_hold: bool,
    in_flight: BTreeMap<(BootNs, u64), (NodeId, NodeId, Packet)>,
    numbered: u64,
    /// Steps since time has passed.
    steps: u32,
}

impl Cluster {
    /// Nodes with these roles, all just started, with one group; all eligible.
    pub fn new(roles: &[Role]) -> Self {
        Self::with_groups(roles, vec![GroupSpec::default()])
    }

    pub fn with_groups(roles: &[Role], groups: Vec<GroupSpec>) -> Self {
        let nodes = roles.iter().map(|&role| NodeSpec { role }).collect();
        Self::with_config(EngineConfig::new(A, Incarnation(0), nodes, groups, ACCEPT))
    }

    pub fn with_config(config: EngineConfig) -> Self {
        let mut cluster = Self {
            now: BootNs(1_000_000_000),
            engines: BTreeMap::new(),
            maps: BTreeMap::new(),
            delay: DELAY,
            cut: Vec::new(),
            log: Vec::new(),
            sent: Vec::new(),
            two_may_hold: false,
            in_flight: BTreeMap::new(),
            numbered: 0,
            steps: 0,
            config,
        };
        for node in cluster.config.members() {
            cluster.start(node);
        }
        cluster
    }

    /// Three nodes that have been up long enough for A to hold the group.
    pub fn settled() -> Self {
        let mut cluster = Self::new(&[Role::Node; 3]);
        cluster.run(ACCEPT * 3);
        assert_eq!(cluster.holder(), Some(A));
        cluster
    }

    /// A new process on the node, which finds what is in the map.
    pub fn start(&mut self, node: NodeId) {
        self.numbered += 1;
        let incarnation = Incarnation(self.numbered);
        // The transport drops what was for the former process.
        self.in_flight.retain(|_, (_, to, _)| *to != node);
        let config = EngineConfig { me: node, incarnation, ..self.config.clone() };
        let held: Vec<_> = self
            .config
            .group_ids()
            .filter_map(|group| Some((group, self.maps.get(&(node, group))?.expiry()?)))
            .collect();
        self.engines.insert(node, Engine::new(config, &held, self.now));
        for other in self.engines.keys().copied().filter(|other| *other != node).collect::<Vec<_>>() {
            self.give(other, Input::PeerStarted { peer: node });
        }
        for group in self.config.group_ids() {
            self.give(node, Input::Eligible { group, eligible: true });
        }
    }

    pub fn kill(&mut self, node: NodeId) {
        self.engines.remove(&node);
    }

    pub fn give(&mut self, node: NodeId, input: Input) {
        let Some(engine) = self.engines.get_mut(&node) else { return };
        engine.handle(input, self.now);
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Send { to, packet } => {
                    for payload in packet.encode() {
                        assert!(payload.len() <= PAYLOAD_MAX, "{} bytes", payload.len());
                        if !self.cut.contains(&(node, to)) {
                            self.numbered += 1;
                            let packet = Packet::decode(&payload).unwrap();
                            let at = (self.now.plus(self.delay), self.numbered);
                            self.in_flight.insert(at, (node, to, packet));
                        }
                    }
                    self.sent.push((self.now, node, to, packet));
                }
                Output::StoreLease { group, lease } => {
                    self.maps.insert((node, group), lease);
                    self.log.push((self.now, node, Output::StoreLease { group, lease }));
                }
                Output::Announce { .. }
                | Output::Changed(_)
                | Output::RaiseCeiling { .. }
                | Output::Remember { .. }
                | Output::Done { .. }
                | Output::Correct { .. }
                | Output::Unheard { .. }
                | Output::Stopped => self.log.push((self.now, node, output)),
            }
        }
        let deadline = engine.next_deadline();
        assert!(
            !matches!(deadline, Some(at) if at < self.now),
            "node {} is due at {deadline:?}, {:?} ago",
            node.0,
            deadline.map(|at| self.now.since(at))
        );
    }

    /// Jumps from deadline to delivery to deadline until `how_long` is over.
    pub fn run(&mut self, how_long: Duration) {
        let end = self.now.plus(how_long);
        while let Some(at) = self.next_event().filter(|&at| at <= end) {
            self.go_to(at);
            self.step();
            self.check();
        }
        self.now = end;
        self.check();
    }

    /// Lets the time pass that there is until then. An engine that has something to do at
    /// once, time and again, hangs.
    fn go_to(&mut self, at: BootNs) {
        self.steps = if at > self.now { 0 } else { self.steps + 1 };
        assert!(self.steps < STEPS_MAX, "it hangs");
        self.now = self.now.max(at);
    }

    fn next_event(&self) -> Option<BootNs> {
        let deadlines = self.engines.values().filter_map(Engine::next_deadline);
        deadlines.chain(self.in_flight.keys().map(|&(at, _)| at)).min()
    }

    fn step(&mut self) {
        if let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, packet) = entry.remove();
            self.give(to, Input::Message { from, packet });
            return;
        }
        let due =
            self.engines.iter().find(|(_, engine)| engine.next_deadline().is_some_and(|at| at <= self.now));
        if let Some((&node, _)) = due {
            self.give(node, Input::Wake);
        }
    }

    /// Runs until `true`, for at most `how_long`; returns how long it took.
    pub fn run_until(
        &mut self,
        how_long: Duration,
        mut until: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let (begin, end) = (self.now, self.now.plus(how_long));
        while !until(self) {
            let at = self.next_event().filter(|&at| at <= end)?;
            self.go_to(at);
            self.step();
            self.check();
        }
        Some(self.now.since(begin))
    }

    fn check(&self) {
        for group in self.config.group_ids().filter(|_| !self.two_may_hold) {
            assert!(self.open(group).len() <= 1, "open on {:?}", self.open(group));
        }
    }

    /// The nodes whose fence is open.
    pub fn open(&self, group: GroupId) -> Vec<NodeId> {
        let hold_ns_max = u64::try_from(HOLD.as_nanos()).unwrap();
        let leases = self.maps.iter().filter(|((_, of), _)| *of == group);
        let open = leases.filter(|&(_, &lease)| fence_open(GroupMode::Cluster, lease, hold_ns_max, self.now));
        open.map(|(&(node, _), _)| node).collect()
    }

    pub fn holder(&self) -> Option<NodeId> {
        self.open(DB).first().copied()
    }

    pub fn lose(&mut self, from: NodeId, to: NodeId) {
        self.cut.push((from, to));
    }

    pub fn isolate(&mut self, node: NodeId) {
        for other in self.config.members().into_iter().filter(|&other| other != node) {
            self.lose(node, other);
            self.lose(other, node);
        }
    }

    pub fn state(&self, node: NodeId) -> GroupStatus {
        self.engines[&node].status(self.now).groups[GroupId(0)].clone()
    }

    pub fn done(&self, id: CommandId) -> Option<Result<Completed, Refusal>> {
        self.log.iter().find_map(|(_, _, output)| {
            let Output::Done { id: done, outcome } = output else { return None };
            (*done == id).then_some(*outcome)
        })
    }

    /// Gives a command and waits for its answer.
    pub fn command(&mut self, node: NodeId, command: Command) -> Result<Completed, Refusal> {
        self.numbered += 1;
        let id = CommandId(self.numbered);
        self.give(node, Input::Command { id, command });
        let waited = self.run_until(COMMAND_TIMEOUT * 2, |cluster| cluster.done(id).is_some());
        assert!(waited.is_some(), "{command:?} was not answered");
        self.done(id).unwrap()
    }

    pub fn announced(&self) -> Vec<NodeId> {
        let announced = self.log.iter().filter(|(_, _, output)| matches!(output, Output::Announce { .. }));
        announced.map(|&(_, node, _)| node).collect()
    }
}
