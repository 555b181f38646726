//! One node by itself: the shipped engine, the word in its map, and the loop
//! that carries the engine's outputs out one by one, as the agent's does.

use std::{collections::VecDeque, time::Duration};

use vip_common::{BootNs, GroupMode, Lease, fence_open};
use vip_engine::{
    About, Ballot, Claim, Command, CommandId, Engine, GroupId, Input, Message, NodeId, Output, Packet,
    Refused,
};

use super::{
    node_id, place,
    scope::{Generation, Order, PLACES, STARTED, Scope},
};

/// The one group.
pub(super) const GROUP: GroupId = GroupId(0);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Envelope {
    pub from: u8,
    pub to: u8,
    pub about: About,
}

/// What happens to one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    Wake,
    Deliver {
        from: u8,
        about: About,
    },
    Order(Order),
    Restart,
    /// A new process by the next generation's configuration.
    Step,
    /// The process, stopped before a map write, goes on.
    Continue,
}

/// What must never happen on a node, whichever node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The engine wanted a lease stored that is over, or longer than any lease.
    BadLease,
    /// The engine wanted a takeover announced without a lease in the map.
    BadAnnouncement,
    /// A node said that it has stopped, with a lease in its map.
    StoppedWithLease,
}

/// What an event has brought about on its node.
pub(super) struct Outcome {
    pub next: Local,
    pub sent: Vec<Envelope>,
    /// Was the map written?
    pub stored: bool,
    pub fault: Option<Fault>,
    /// The same, had the process been stopped before its first map write.
    pub stopped_before: Option<(Local, Vec<Envelope>)>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Local {
    /// Its place. No two nodes are equal.
    place: u8,
    /// The configuration that its process runs with.
    pub generation: Generation,
    /// `None` when the process has ended.
    pub engine: Option<Engine>,
    pub map: Lease,
    /// Outputs that a stopped process has yet to carry out.
    held_back: VecDeque<Output>,
    /// How often a process was started.
    pub starts: u8,
    /// The last ballot that this start's engine has sent.
    pub latest: Option<Ballot>,
    /// Until when answers to it may count: an attempt lasts no longer.
    listens_until: Option<BootNs>,
    /// Has this start's engine stored a lease?
    pub stored: bool,
    /// The time at which it ran last.
    ran: BootNs,
    /// The time at which it last heard its peers.
    heard: BootNs,
}

impl Local {
    /// A node whose silence after the start ends at tick 0.
    pub fn fresh(scope: &Scope, node: usize, generation: Generation) -> Self {
        let started = STARTED;
        let engine = scope.is_in(node, generation).then(|| {
            let mut engine = scope.engine(node, generation, 1, None, started);
            engine.handle(Input::Eligible { group: GROUP, eligible: scope.fit[node] }, started);
            engine
        });
        let mut local = Self {
            place: place(node),
            generation,
            engine,
            map: Lease::NONE,
            held_back: VecDeque::new(),
            starts: 1,
            latest: None,
            listens_until: None,
            stored: false,
            ran: started,
            heard: BootNs(0),
        };
        local.take_outputs();
        local.execute_held(&mut Run::default());
        local
    }

    /// Is the process stopped in the middle of its outputs?
    pub fn is_stopped(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// May an answer to this ballot count at `now`? An attempt that failed is
    /// taken for one under way until its time is over.
    pub fn listens(&self, ballot: Ballot, now: BootNs) -> bool {
        self.latest == Some(ballot) && self.listens_until > Some(now)
    }

    /// May this node answer at `now`? The data plane's own judgement.
    pub fn is_open(&self, hold_ns: u64, now: BootNs) -> bool {
        fence_open(GroupMode::Cluster, self.map, hold_ns, now)
    }

    /// What `event` does to this node at `now`.
    pub fn step(&self, scope: &Scope, node: usize, event: &Event, now: BootNs) -> Outcome {
        let mut next = self.clone();
        let mut run = Run::default();
        let mut stopped_before = None;
        match event {
            Event::Restart => next.restart(scope, node, now),
            Event::Step => {
                next.generation = Generation::Next;
                next.restart(scope, node, now);
            }
            Event::Continue => next.execute_held(&mut run),
            Event::Wake | Event::Deliver { .. } | Event::Order(_) => {
                next.hear_peers(scope, node, now, &mut run);
                let input = match *event {
                    Event::Deliver { from, about } => Input::Message {
                        from: NodeId(from),
                        packet: Packet { messages: vec![Message::Group { group: GROUP, about }] },
                    },
                    Event::Order(order) => next.input_of(order, node),
                    Event::Wake | Event::Restart | Event::Step | Event::Continue => Input::Wake,
                };
                next.handle(input, now, &mut run);
                let before = (next.clone(), run.sent.clone());
                next.execute_held(&mut run);
                if run.stored {
                    stopped_before = before.0.until_store(before.1, node);
                }
            }
        }
        next.ran = now;
        next.listens_until = next.listens_until.filter(|&until| until > now);
        if let Some(engine) = &mut next.engine {
            engine.forget_courtesies();
        }
        for envelope in &mut run.sent {
            envelope.from = place(node);
        }
        // A lease that has run out is none, also for an engine that starts.
        if next.map.expiry().is_some_and(|until| until <= now) {
            next.map = Lease::NONE;
        }
        let Run { sent, stored, fault } = run;
        Outcome { next, sent, stored, fault, stopped_before }
    }

    fn input_of(&self, order: Order, node: usize) -> Input {
        // A number for each: to repeat one is to ask again for the same.
        let command = |id, command| Input::Command { id: CommandId(id), command };
        match order {
            Order::HandOver(to) => command(2, Command::Switchover { group: GROUP, to: Some(NodeId(to)) }),
            Order::Stop => Input::Stop,
            Order::Stand => command(1, Command::Promote { group: GROUP, to: node_id(node) }),
            Order::Unfit => Input::Eligible { group: GROUP, eligible: false },
            Order::Fit => Input::Eligible { group: GROUP, eligible: true },
        }
    }

    fn restart(&mut self, scope: &Scope, node: usize, now: BootNs) {
        self.starts += 1;
        let mut engine = scope.engine(node, self.generation, self.starts, self.map.expiry(), now);
        engine.handle(Input::Eligible { group: GROUP, eligible: self.map != Lease::NONE }, now);
        self.engine = Some(engine);
        self.latest = None;
        self.listens_until = None;
        self.stored = false;
        self.held_back.clear();
        self.heard = BootNs(0);
        self.take_outputs();
        self.execute_held(&mut Run::default());
    }

    /// It hears every node at all times, and every node says that it is ready.
    ///
    /// This is more than real nodes do: one of those hears some peers only
    /// sometimes, and then keeps quiet. Presence and readiness only decide
    /// whether a node stands and to whom it hands over; no vote and no lease
    /// depends on them.
    ///
    /// In pair mode a vote may depend on it: a node that hears nobody counts its
    /// own vote alone. So the explorations there cover both: nodes that hear each
    /// other always, and nodes that hear only what is delivered.
    fn hear_peers(&mut self, scope: &Scope, node: usize, now: BootNs, run: &mut Run) {
        if self.heard == now || (scope.deaf && now > scope.clock(node, 0)) {
            return;
        }
        self.heard = now;
        for peer in (0..PLACES).filter(|&peer| peer != node && scope.has(peer)) {
            let messages = vec![Message::Heartbeat { first: GROUP, ready: vec![true] }];
            self.handle(Input::Message { from: node_id(peer), packet: Packet { messages } }, now, run);
            self.execute_held(run);
        }
    }

    fn handle(&mut self, input: Input, now: BootNs, run: &mut Run) {
        let Some(engine) = &mut self.engine else { return };
        engine.handle(input, now);
        // Each message is judged by itself, as if no other had arrived: that
        // makes candidates stand more often than they do, never less.
        engine.handle(Input::Wake, now);
        let hold = engine.hold();
        self.ran = now;
        let first = self.held_back.len();
        self.take_outputs();
        for output in self.held_back.iter().skip(first) {
            if let Output::StoreLease { lease, .. } = output
                && lease.expiry().is_some_and(|until| until <= now || until.since(now) > hold)
            {
                run.fault = Some(Fault::BadLease);
            }
        }
    }

    fn take_outputs(&mut self) {
        if let Some(engine) = &mut self.engine {
            while let Some(output) = engine.poll_output() {
                self.held_back.push_back(output);
            }
        }
    }

    /// Carries everything out.
    fn execute_held(&mut self, run: &mut Run) {
        while let Some(output) = self.held_back.pop_front() {
            self.execute(output, run);
        }
    }

    /// Carries out the outputs before the first map write, and stops there.
    fn until_store(mut self, sent: Vec<Envelope>, node: usize) -> Option<(Self, Vec<Envelope>)> {
        let mut run = Run { sent, ..Run::default() };
        while let Some(output) = self.held_back.pop_front() {
            if matches!(output, Output::StoreLease { .. }) {
                self.held_back.push_front(output);
                for envelope in &mut run.sent {
                    envelope.from = place(node);
                }
                return Some((self, run.sent));
            }
            self.execute(output, &mut run);
        }
        None
    }

    fn execute(&mut self, output: Output, run: &mut Run) {
        let now = self.ran;
        match output {
            Output::StoreLease { lease, .. } => {
                run.stored = true;
                // Won or given up: either way the attempt is over.
                self.listens_until = None;
                self.map = lease;
                self.stored |= lease != Lease::NONE;
            }
            Output::Send { to, packet } => {
                for message in packet.messages {
                    if let Message::Group { about, .. } = message {
                        self.send(to, about, run);
                    }
                }
            }
            Output::Announce { .. } => {
                if self.map == Lease::NONE {
                    run.fault = Some(Fault::BadAnnouncement);
                }
            }
            Output::Stopped => {
                if self.map.expiry().is_some_and(|until| until > now) {
                    run.fault = Some(Fault::StoppedWithLease);
                }
                self.engine = None;
            }
            Output::Changed(_)
            | Output::RaiseCeiling { .. }
            | Output::Remember { .. }
            | Output::Done { .. }
            | Output::Correct { .. }
            | Output::Unheard { .. } => {}
        }
    }

    fn send(&mut self, to: NodeId, about: About, run: &mut Run) {
        if let About::Prepare { ballot } | About::Propose { ballot, .. } = about {
            if self.latest != Some(ballot) {
                self.listens_until = Some(self.ran.plus(Scope::patience()));
            }
            self.latest = Some(ballot);
        }
        let about = match about {
            About::Refuse { ballot, because } => {
                // How long it would be useless to ask again is a courtesy, too: without
                // it, a candidate may ask sooner, or as late.
                let remaining = Duration::ZERO;
                let because = match because {
                    Refused::Held { ballot, epoch, .. } => {
                        Refused::Held { ballot, epoch, claim: Claim::Held, remaining }
                    }
                    Refused::Promised { ballot } => Refused::Promised { ballot },
                    Refused::Reserved { successor, .. } => Refused::Reserved { successor, remaining },
                    Refused::Silent { .. } => Refused::Silent { remaining },
                };
                About::Refuse { ballot, because }
            }
            About::Prepare { .. }
            | About::Promise { .. }
            | About::Propose { .. }
            | About::Accept { .. }
            | About::Holding { .. }
            | About::Release { .. }
            | About::Released { .. }
            | About::AskReady { .. }
            | About::Ready { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => about,
        };
        run.sent.push(Envelope { from: 0, to: to.0, about });
    }
}

#[derive(Default)]
struct Run {
    sent: Vec<Envelope>,
    stored: bool,
    fault: Option<Fault>,
}
