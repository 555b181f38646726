//! The world: true time, the queue of events, and what the processes of the
//! nodes do in it. The nodes themselves are in [`super::hosts`], the network
//! in [`super::network`]; what fate does to them is in [`super::chaos`] and
//! [`super::drill`], what a person does to them in [`super::scenario`].

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
    time::Duration,
};

use vip_common::Lease;
use vip_engine::{
    COMMAND_TIMEOUT, CommandId, Completed, Engine, Epoch, GroupId, Input, NodeId, Output, PAYLOAD_MAX,
    Packet, PeerLoss, Refusal, Remembered,
};

use super::{
    Mutant, Stats, Violation,
    clock::{SimNs, nanos},
    hosts::{Fitness, SimNode, Turn},
    names::{group_id, node_id},
    network::{Datagram, Keep, Tap},
    plan::Plan,
    rng::Rng,
    trace::{self, Trace},
};

/// Wake-ups that a node may ask for at one and the same moment.
const SPINS_MAX: u32 = 8;

pub(super) enum Event {
    Deliver(Datagram),
    Wake {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Restart {
        node: usize,
        life: u64,
    },
    /// A record has got to the disk of this node.
    Written {
        node: usize,
        life: u64,
        record: Box<Remembered>,
    },
    Blow,
    /// A lease of this group ends: look at its fences.
    Look {
        group: GroupId,
    },
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
#[derive(Clone, Default)]
pub(super) struct Holding {
    pub open: Option<NodeId>,
    last: Option<NodeId>,
    pub opened_at: SimNs,
    pub closed_at: SimNs,
    /// How often the fence opened or closed anywhere.
    pub changes: u64,
    /// How often it opened on another node than the one before.
    pub moves: u64,
    /// The epochs of its grants.
    pub granted: BTreeSet<Epoch>,
    /// It was taken by force, or a disk was lost: nothing is promised of them.
    pub epochs_may_repeat: bool,
}

pub(super) struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub now: SimNs,
    pub nodes: Vec<SimNode>,
    /// By sender and receiver.
    pub cut: Vec<Vec<bool>>,
    pub taps: Vec<Tap>,
    /// What the taps have kept.
    pub kept: Vec<(Keep, Datagram)>,
    pub holdings: Vec<Holding>,
    pub answers: Vec<(NodeId, CommandId, Result<Completed, Refusal>)>,
    pub stats: Stats,
    pub trace: Trace,
    pub blows: bool,
    /// Pair mode claims less while the nodes may not hear each other (rule 13).
    pub two_may_hold: bool,
    pub mutant: Mutant,
    /// Commands given so far.
    pub commands: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    numbered: u64,
}

impl World {
    /// A world in which no agent runs yet.
    pub fn new(plan: Plan, mut rng: Rng, mutant: Mutant, trace: Trace) -> Self {
        #[cfg(feature = "mutants")]
        super::choose_mutant();
        let count = plan.nodes.len();
        let nodes = (0..count).map(|index| SimNode::new(index, &plan, &mut rng)).collect();
        let holdings = vec![Holding::default(); plan.groups.len()];
        let stats = Stats { accept: plan.timing.accept, ..Stats::default() };
        Self {
            now: SimNs(0),
            nodes,
            cut: vec![vec![false; count]; count],
            taps: Vec::new(),
            kept: Vec::new(),
            holdings,
            answers: Vec::new(),
            stats,
            trace,
            blows: false,
            two_may_hold: plan.pair == Some(PeerLoss::Take),
            mutant,
            commands: 0,
            queue: BinaryHeap::new(),
            numbered: 0,
            plan,
            rng,
        }
    }

    /// Every agent starts some time within the first T_accept.
    pub fn start_all(&mut self) {
        self.note(|world| format!("{:?} {:?}", world.mutant, world.plan));
        for node in 0..self.nodes.len() {
            let delay = self.rng.below(nanos(self.plan.timing.accept));
            self.start_later(node, Duration::from_nanos(delay));
        }
    }

    /// Writes a line of the trace, if there is one.
    pub fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.wanted() {
            let line = line(self);
            self.trace.push(self.now, &line);
        }
    }

    pub fn push(&mut self, at: SimNs, event: Event) {
        self.numbered += 1;
        self.queue.push(Reverse(Queued { at, number: self.numbered, event }));
    }

    pub fn blow_later(&mut self, after: Duration) {
        self.push(self.now.plus(after), Event::Blow);
    }

    pub fn start_later(&mut self, node: usize, after: Duration) {
        let life = self.nodes[node].life;
        self.push(self.now.plus(after), Event::Restart { node, life });
    }

    /// Lets the world turn until `end`.
    pub fn run_until(&mut self, end: SimNs) -> Result<(), Violation> {
        self.run_until_or(end, |_| false).map(|_| ())
    }

    /// Lets the world turn until `end`, or until something is so. Returns
    /// whether it was.
    pub fn run_until_or(
        &mut self,
        end: SimNs,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Violation> {
        loop {
            if is_so(self) {
                return Ok(true);
            }
            let due = self.queue.peek_mut().filter(|next| next.0.at <= end);
            let Some(Reverse(Queued { at, event, .. })) = due.map(PeekMut::pop) else { break };
            self.pass(at);
            self.happen(event)?;
        }
        self.pass(end);
        // Nothing should be left to be seen here; but this is the rule that
        // everything is about.
        self.check_fences()?;
        Ok(is_so(self))
    }

    fn pass(&mut self, to: SimNs) {
        self.stats.simulated += to.since(self.now);
        self.now = self.now.max(to);
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver(datagram) => self.deliver(datagram),
            Event::Wake { node } if self.nodes[node].wake_at == Some(self.now) => {
                self.nodes[node].wake_at = None;
                self.wake(node)
            }
            Event::Resume { node } if self.nodes[node].stalled_until == Some(self.now) => self.resume(node),
            Event::Restart { node, life } if self.nodes[node].life == life => self.start(node),
            Event::Written { node, life, record }
                if self.nodes[node].life == life && self.nodes[node].engine.is_some() =>
            {
                self.written(node, *record)
            }
            Event::Blow => self.blow(),
            Event::Look { group } => self.check_fence(group),
            Event::Wake { .. } | Event::Resume { .. } | Event::Restart { .. } | Event::Written { .. } => {
                Ok(())
            }
        }
    }

    /// A process does what its event loop does: outputs, one by one, then the next input.
    pub fn run_process(&mut self, index: usize) -> Result<(), Violation> {
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
                if let Some(how_long) = self.nodes[index].stall_with_output.take() {
                    self.nodes[index].held_back.push_back(output);
                    self.stall(index, how_long);
                    return Ok(());
                }
                if self.mutant == Mutant::SendBeforeStore && !matches!(output, Output::Send { .. }) {
                    self.hold_back(index, output)?;
                } else {
                    self.execute(index, output)?;
                }
                continue;
            }
            let Some(input) = self.next_input(index) else { break };
            self.handle(index, input)?;
        }
        self.check_duties(index)?;
        self.wake_later(index);
        Ok(())
    }

    /// What the process's loop gives its engine next: the time, everything that
    /// has arrived, and then the word that all of it was read.
    fn next_input(&mut self, index: usize) -> Option<Input> {
        let node = &mut self.nodes[index];
        match node.turn {
            Turn::Waiting => None,
            Turn::Woken => {
                node.turn = Turn::Reading;
                Some(if self.mutant == Mutant::TimersBeforeMail { Input::Wake } else { Input::Clock })
            }
            Turn::Reading => {
                let mail = node.inbox.pop_front();
                if mail.is_none() {
                    node.turn = Turn::Waiting;
                }
                Some(mail.unwrap_or(Input::Wake))
            }
        }
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
        if self.trace.wanted()
            && let Some(line) = trace::input(&input, &self.plan.names)
        {
            self.note(|world| format!("{:<6} {line}", world.name(index)));
        }
        let unread = self.unread_words(index);
        let node = &mut self.nodes[index];
        let Some(engine) = &mut node.engine else { return Ok(()) };
        node.unread = unread;
        match input {
            Input::Command { id, .. } => {
                node.commands.insert(id, now.plus(COMMAND_TIMEOUT + Duration::from_millis(10)));
            }
            Input::Eligible { group, eligible } => {
                node.told[usize::from(group.0)] = if eligible { Fitness::Fit } else { Fitness::Unfit };
            }
            Input::Unwell { group } => node.told[usize::from(group.0)] = Fitness::Unwell,
            Input::PromoteFailed { group } => node.told[usize::from(group.0)] = Fitness::Unfit,
            Input::Clock
            | Input::Wake
            | Input::Message { .. }
            | Input::PeerStarted { .. }
            | Input::Ceiling { .. }
            | Input::Prepares { .. }
            | Input::Serving { .. }
            | Input::Stop => {}
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
        self.note(|world| {
            let now = world.nodes[index].clock.at(world.now);
            format!("{:<6} {}", world.name(index), trace::output(&output, now, &world.plan.names))
        });
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
                    self.push(end, Event::Look { group });
                } else {
                    node.map[usize::from(group.0)] = lease;
                }
                self.check_fence(group)
            }
            Output::Send { to, packet } => {
                let bytes = packet.encode();
                if bytes.len() > PAYLOAD_MAX || Packet::decode(&bytes).as_ref() != Ok(&packet) {
                    return Err(Violation::BadPacket(node.id));
                }
                self.check_candidacies(index, &packet)?;
                self.transmit(index, usize::from(to.0), packet);
                Ok(())
            }
            Output::Announce { group } => {
                let lease = node.map[usize::from(group.0)].expiry();
                if lease.is_none_or(|until| until <= node.handled_at) {
                    return Err(Violation::BadAnnouncement(node.id, group));
                }
                Ok(())
            }
            Output::Changed { group, epoch, state, reason, .. } => {
                let known = &mut node.disk.known.epochs[usize::from(group.0)];
                if epoch > *known {
                    *known = epoch;
                    self.write_later(index);
                }
                self.note_grant(index, group, epoch, (state, reason))
            }
            Output::RaiseCeiling { ceiling } => {
                let known = &mut node.disk.known;
                known.ceiling = known.ceiling.max(ceiling);
                self.write_later(index);
                Ok(())
            }
            Output::Remember { standby, pause } => {
                let known = &mut node.disk.known;
                (known.standby, known.pause) = (standby, pause);
                self.write_later(index);
                Ok(())
            }
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
                let moved = holding.last.is_some_and(|last| last != node);
                holding.moves += u64::from(moved);
                self.stats.moves += u64::from(moved);
                holding.last = Some(node);
            }
        }
        self.note(|world| {
            let names = &world.plan.names;
            let open = open.map_or("nobody".to_owned(), |node| names.node(node));
            format!("**     {} is open on {open}", names.group(group))
        });
    }
}
