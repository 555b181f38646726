//! The world: true time, the queue of events, the nodes with their clocks and
//! maps, and the network between them. What fate does to them is in
//! [`super::chaos`] and [`super::drill`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use vip_common::{BootNs, Lease};
use vip_ctl::engine::{
    COMMAND_TIMEOUT, Command, CommandId, Completed, Engine, EngineConfig, GroupId, Incarnation, Input,
    NodeId, Output, PAYLOAD_MAX, Packet, Refusal, Timing,
};

use super::{
    Mutant, Stats, TRACE_LINES, Violation,
    clock::{Clock, SimNs, nanos},
    plan::Plan,
    rng::Rng,
};

/// Inputs that wait in a stopped process's socket; more are lost.
const INBOX_MAX: usize = 256;
/// Wake-ups that a node may ask for at one and the same moment.
const SPINS_MAX: u32 = 8;

/// A node: a host with a map, and maybe a process on it.
pub(super) struct SimNode {
    pub id: NodeId,
    pub clock: Clock,
    pub hold: Duration,
    /// The pinned map: outlives the process, not the host.
    pub map: Vec<Lease>,
    /// `None` while no process runs.
    pub engine: Option<Engine>,
    /// Counts starts of the process.
    pub generation: u64,
    /// The process is stopped until then.
    pub stalled_until: Option<SimNs>,
    pub eligible: Vec<bool>,
    /// Under way, with the time on the node's clock by which they must be answered.
    pub commands: BTreeMap<CommandId, BootNs>,
    pub restarts: bool,
    inbox: VecDeque<Input>,
    /// Outputs held back (only in [`Mutant::SendBeforeStore`]).
    held_back: VecDeque<Output>,
    wake_at: Option<SimNs>,
    handled_at: BootNs,
    spins: u32,
    /// By peer: the latest incarnation heard.
    heard: Vec<u64>,
}

enum Event {
    Deliver {
        from: usize,
        to: usize,
        generations: (u64, u64),
        bytes: Vec<u8>,
    },
    Wake {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Restart {
        node: usize,
        generation: u64,
    },
    Blow,
    /// Nothing but a look at the fences.
    Look,
}

struct Queued {
    at: SimNs,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Where a group's fence is and was open.
#[derive(Clone, Copy, Default)]
pub(super) struct Holding {
    pub open: Option<NodeId>,
    last: Option<NodeId>,
    pub opened_at: SimNs,
    pub closed_at: SimNs,
    /// How often the fence opened or closed anywhere.
    pub changes: u64,
}

pub(super) struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now: SimNs,
    pub nodes: Vec<SimNode>,
    /// By sender and receiver.
    pub cut: Vec<Vec<bool>>,
    pub holdings: Vec<Holding>,
    pub answers: Vec<(NodeId, CommandId, Result<Completed, Refusal>)>,
    pub stats: Stats,
    pub trace: VecDeque<String>,
    pub blows: bool,
    traced: bool,
    mutant: Mutant,
    queue: BinaryHeap<Reverse<Queued>>,
    numbered: u64,
    commands: u64,
}

impl World {
    pub fn new(plan: Plan, mut rng: Rng, mutant: Mutant, traced: bool) -> Self {
        let count = plan.nodes.len();
        let nodes = (0..count).map(|index| SimNode {
            id: node_id(index),
            clock: Clock::new(SimNs(0), BootNs(rng.between(1_000_000_000, 1 << 50)), plan.ppm[index]),
            hold: Timing::new(plan.accept[index]).hold,
            map: vec![Lease::NONE; plan.groups.len()],
            engine: None,
            generation: 0,
            stalled_until: None,
            eligible: vec![true; plan.groups.len()],
            commands: BTreeMap::new(),
            restarts: true,
            inbox: VecDeque::new(),
            held_back: VecDeque::new(),
            wake_at: None,
            handled_at: BootNs(0),
            spins: 0,
            heard: vec![0; count],
        });
        let nodes = nodes.collect();
        let holdings = vec![Holding::default(); plan.groups.len()];
        let stats = Stats { accept: plan.timing.accept, ..Stats::default() };
        let mut world = Self {
            now: SimNs(0),
            nodes,
            cut: vec![vec![false; count]; count],
            holdings,
            answers: Vec::new(),
            stats,
            trace: VecDeque::new(),
            blows: false,
            traced,
            mutant,
            queue: BinaryHeap::new(),
            numbered: 0,
            commands: 0,
            plan,
            rng,
        };
        world.note(|world| format!("{mutant:?} {:?}", world.plan));
        for node in 0..count {
            let delay = world.rng.below(nanos(world.plan.timing.accept));
            world.start_later(node, Duration::from_nanos(delay));
        }
        world
    }

    /// Writes a line of the trace, if there is one.
    pub fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.traced {
            let line =
                format!("{:>13.6} ms {}", Duration::from_nanos(self.now.0).as_secs_f64() * 1e3, line(self));
            self.trace.push_back(line);
            if self.trace.len() > TRACE_LINES {
                self.trace.pop_front();
            }
        }
    }

    fn push(&mut self, at: SimNs, event: Event) {
        self.numbered += 1;
        self.queue.push(Reverse(Queued { at, number: self.numbered, event }));
    }

    pub fn blow_later(&mut self, after: Duration) {
        self.push(self.now.plus(after), Event::Blow);
    }

    pub fn start_later(&mut self, node: usize, after: Duration) {
        let generation = self.nodes[node].generation;
        self.push(self.now.plus(after), Event::Restart { node, generation });
    }

    /// Lets the world turn until `end`.
    pub fn run_until(&mut self, end: SimNs) -> Result<(), Violation> {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else { break };
            self.stats.simulated += at.since(self.now);
            self.now = self.now.max(at);
            self.happen(event)?;
            self.check_fences()?;
        }
        self.stats.simulated += end.since(self.now);
        self.now = self.now.max(end);
        self.check_fences()
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver { from, to, generations, bytes } => self.deliver(from, to, generations, &bytes),
            Event::Wake { node } if self.nodes[node].wake_at == Some(self.now) => {
                self.nodes[node].wake_at = None;
                self.give(node, Input::Wake)
            }
            Event::Resume { node } if self.nodes[node].stalled_until == Some(self.now) => self.resume(node),
            Event::Restart { node, generation } if self.nodes[node].generation == generation => {
                self.start(node)
            }
            Event::Blow => self.blow(),
            Event::Wake { .. } | Event::Resume { .. } | Event::Restart { .. } | Event::Look => Ok(()),
        }
    }

    fn start(&mut self, index: usize) -> Result<(), Violation> {
        if self.nodes[index].engine.is_some() {
            return Ok(());
        }
        let (incarnation, groups) = (self.rng.draw(), self.plan.groups.len());
        let (nodes, groups_of) = (self.plan.nodes.clone(), self.plan.groups.clone());
        let accept = self.plan.accept[index];
        let config = EngineConfig::new(node_id(index), Incarnation(incarnation), nodes, groups_of, accept);
        let node = &mut self.nodes[index];
        let mut now = node.clock.at(self.now);
        node.handled_at = now;
        if self.mutant == Mutant::NoSilence {
            now = BootNs(now.0 - nanos(config.accept));
        }
        let held: Vec<_> =
            (0..groups).filter_map(|group| Some((group_id(group), node.map[group].expiry()?))).collect();
        node.generation += 1;
        node.engine = Some(Engine::new(config, &held, now));
        node.inbox.clear();
        node.held_back.clear();
        node.commands.clear();
        self.note(|_| format!("node {index}: start, held {held:?}"));
        let node = &mut self.nodes[index];
        for group in 0..groups {
            let eligible = node.eligible[group];
            node.inbox.push_back(Input::Eligible { group: group_id(group), eligible });
        }
        self.give(index, Input::Wake)
    }

    /// The process is gone; with the host, the map is too, and the clock begins anew.
    pub fn kill(&mut self, index: usize, host: bool) {
        self.note(|_| format!("node {index}: killed{}", if host { " with its host" } else { "" }));
        let uptime = self.rng.between(1_000_000_000, 100_000_000_000);
        let (now, ppm) = (self.now, self.plan.ppm[index]);
        let node = &mut self.nodes[index];
        node.engine = None;
        node.stalled_until = None;
        node.inbox.clear();
        node.held_back.clear();
        node.commands.clear();
        node.wake_at = None;
        if host {
            node.map.fill(Lease::NONE);
            node.clock = Clock::new(now, BootNs(uptime), ppm);
            node.handled_at = BootNs(0);
        }
    }

    /// The process is stopped; what comes in waits.
    pub fn stall(&mut self, index: usize, how_long: Duration) {
        let until = self.now.plus(how_long);
        self.note(|_| format!("node {index}: stopped for {how_long:?}"));
        self.nodes[index].stalled_until = Some(until);
        self.push(until, Event::Resume { node: index });
    }

    pub fn resume(&mut self, index: usize) -> Result<(), Violation> {
        self.note(|_| format!("node {index}: continues"));
        self.nodes[index].stalled_until = None;
        self.give(index, Input::Wake)
    }

    /// Gives a command to a node; returns its number, if a process is there to take it.
    pub fn command(&mut self, index: usize, command: Command) -> Result<Option<CommandId>, Violation> {
        if self.nodes[index].engine.is_none() {
            return Ok(None);
        }
        self.commands += 1;
        let id = CommandId(self.commands);
        self.note(|_| format!("node {index}: {command:?} is command {}", id.0));
        self.give(index, Input::Command { id, command })?;
        Ok(Some(id))
    }

    /// Queues an input for a node's process, and lets the process run if it can.
    pub fn give(&mut self, index: usize, input: Input) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if node.engine.is_some() && node.inbox.len() < INBOX_MAX {
            node.inbox.push_back(input);
        }
        self.run_process(index)
    }

    /// A process does what its event loop does: outputs, one by one, then the next input.
    fn run_process(&mut self, index: usize) -> Result<(), Violation> {
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
            if let Some(output) = self.nodes[index].held_back.pop_front() {
                self.execute(index, output)?;
                continue;
            }
            let Some(engine) = &mut self.nodes[index].engine else { return Ok(()) };
            if let Some(output) = engine.poll_output() {
                if self.mutant == Mutant::SendBeforeStore && !matches!(output, Output::Send { .. }) {
                    self.hold_back(index, output)?;
                } else {
                    self.execute(index, output)?;
                }
                continue;
            }
            let Some(input) = self.nodes[index].inbox.pop_front() else { break };
            self.handle(index, input)?;
        }
        self.wake_later(index);
        Ok(())
    }

    /// [`Mutant::SendBeforeStore`]: sends overtake everything else, and then
    /// the process may even be stopped for a while.
    fn hold_back(&mut self, index: usize, first: Output) -> Result<(), Violation> {
        let Some(engine) = &mut self.nodes[index].engine else { return Ok(()) };
        let rest = std::iter::from_fn(|| engine.poll_output());
        let (sends, others): (Vec<_>, Vec<_>) =
            rest.partition(|output| matches!(output, Output::Send { .. }));
        self.nodes[index].held_back = std::iter::once(first).chain(others).collect();
        for send in sends {
            self.execute(index, send)?;
        }
        if self.rng.chance(200) {
            let how_long = self.rng.below(nanos(self.plan.timing.accept));
            self.stall(index, Duration::from_nanos(how_long));
        }
        Ok(())
    }

    fn handle(&mut self, index: usize, input: Input) -> Result<(), Violation> {
        self.stats.inputs += 1;
        let now = self.nodes[index].clock.at(self.now);
        if !matches!(input, Input::Wake) {
            self.note(|_| format!("node {index}: {input:?}"));
        }
        let node = &mut self.nodes[index];
        let Some(engine) = &mut node.engine else { return Ok(()) };
        if let Input::Command { id, .. } = input {
            node.commands.insert(id, now.plus(COMMAND_TIMEOUT + Duration::from_millis(10)));
        }
        let told = now.max(node.handled_at);
        node.spins = if told == node.handled_at { node.spins + 1 } else { 0 };
        let woken = matches!(input, Input::Wake);
        engine.handle(input, told);
        node.handled_at = told;
        if woken && node.spins > SPINS_MAX && engine.next_deadline().is_some_and(|at| at <= told) {
            return Err(Violation::Spinning(node.id));
        }
        Ok(())
    }

    fn wake_later(&mut self, index: usize) {
        let lateness = self.rng.below(self.plan.lateness_ns + 1);
        let node = &mut self.nodes[index];
        let Some(deadline) = node.engine.as_ref().and_then(Engine::next_deadline) else { return };
        let at = SimNs(node.clock.when(deadline).max(self.now).0 + lateness);
        // A timer that is set already and early enough does.
        if node.wake_at.is_none_or(|set| set > at || set < self.now) {
            node.wake_at = Some(at);
            self.push(at, Event::Wake { node: index });
        }
    }

    fn execute(&mut self, index: usize, output: Output) -> Result<(), Violation> {
        self.note(|_| format!("node {index}:   {output:?}"));
        let node = &mut self.nodes[index];
        match output {
            Output::StoreLease { group, lease } => {
                if lease != Lease::NONE {
                    let until = lease.expiry().unwrap_or_default();
                    if until <= node.handled_at || until.since(node.handled_at) > node.hold {
                        return Err(Violation::BadLease(node.id, group));
                    }
                    let end = node.clock.when(until);
                    node.map[usize::from(group.0)] = lease;
                    self.push(end, Event::Look);
                } else {
                    node.map[usize::from(group.0)] = lease;
                }
                self.check_fences()
            }
            Output::Send { to, packet } => {
                let bytes = packet.encode();
                if bytes.len() > PAYLOAD_MAX || Packet::decode(&bytes) != Ok(packet) {
                    return Err(Violation::BadPacket(node.id));
                }
                self.transmit(index, usize::from(to.0), &bytes);
                Ok(())
            }
            Output::Announce { group } => {
                let lease = node.map[usize::from(group.0)].expiry();
                if lease.is_none_or(|until| until <= node.handled_at) {
                    return Err(Violation::BadAnnouncement(node.id, group));
                }
                Ok(())
            }
            Output::Changed { .. } | Output::Remember { .. } => Ok(()),
            Output::Done { id, outcome } => {
                if node.commands.remove(&id).is_none() {
                    return Err(Violation::StrayAnswer(node.id, id));
                }
                self.stats.commands += 1;
                self.stats.completed += u64::from(outcome.is_ok());
                self.answers.push((node_id(index), id, outcome));
                Ok(())
            }
            Output::Stopped => {
                let open = (0..self.plan.groups.len()).map(group_id);
                let id = node_id(index);
                for group in open {
                    if self.open_on(group).contains(&id) {
                        return Err(Violation::StoppedWithLease(id, group));
                    }
                }
                self.kill(index, false);
                if self.nodes[index].restarts {
                    let pause = self.rng.below(nanos(self.plan.timing.accept) * 2);
                    self.start_later(index, Duration::from_nanos(pause));
                }
                Ok(())
            }
        }
    }

    /// Are all commands answered that should be? A process that is stopped is excused.
    pub fn check_answers(&self) -> Result<(), Violation> {
        // Stopped between two outputs, it may have the answer in its hands.
        let running = self.nodes.iter().filter(|node| node.engine.is_some() && node.stalled_until.is_none());
        for node in running {
            for (&id, &until) in &node.commands {
                if until <= node.handled_at {
                    return Err(Violation::NoAnswer(node.id, id));
                }
            }
        }
        Ok(())
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if self.cut[from][to] || self.rng.chance(self.plan.loss) {
            self.note(|_| format!("node {from}:   lost on the way to {to}"));
            return;
        }
        let generations = (self.nodes[from].generation, self.nodes[to].generation);
        let copies = if self.rng.chance(self.plan.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay_ns = self.plan.delay_ns[from][to] + self.rng.below(self.plan.jitter_ns + 1);
            if self.rng.chance(self.plan.late) {
                delay_ns += self.rng.below(nanos(self.plan.timing.accept) * 3);
            }
            let at = SimNs(self.now.0 + delay_ns);
            self.push(at, Event::Deliver { from, to, generations, bytes: bytes.to_vec() });
        }
    }

    fn deliver(
        &mut self,
        from: usize,
        to: usize,
        generations: (u64, u64),
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[to];
        if self.plan.incarnations_checked {
            let (sender, receiver) = generations;
            if receiver != node.generation || sender < node.heard[from] {
                return Ok(());
            }
            node.heard[from] = sender;
        }
        let Ok(packet) = Packet::decode(bytes) else {
            return Err(Violation::BadPacket(node_id(from)));
        };
        self.give(to, Input::Message { from: node_id(from), packet })
    }

    /// Takes note of where a group's fence is open now.
    pub fn note_holder(&mut self, group: GroupId, open: Option<NodeId>) {
        let (now, index) = (self.now, usize::from(group.0));
        let holding = &mut self.holdings[index];
        if holding.open == open {
            return;
        }
        holding.changes += 1;
        holding.open = open;
        match open {
            None => holding.closed_at = now,
            Some(node) => {
                holding.opened_at = now;
                self.stats.moves += u64::from(holding.last.is_some_and(|last| last != node));
                holding.last = Some(node);
            }
        }
        self.note(|_| format!("group {index}: open on {:?}", open.map(|node| node.0)));
    }
}

/// The id of the node at `index`.
pub(super) fn node_id(index: usize) -> NodeId {
    NodeId(u8::try_from(index).unwrap_or(u8::MAX))
}

/// The id of the group at `index`.
pub(super) fn group_id(index: usize) -> GroupId {
    GroupId(u16::try_from(index).unwrap_or(u16::MAX))
}
