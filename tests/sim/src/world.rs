//! The world: true time and the queue of events. [`super::hosts`] has the nodes,
//! [`super::process`] what their processes do, [`super::network`] the network,
//! [`super::chaos`] and [`super::drill`] what fate does to them, and
//! [`super::scenario`] what a person does to them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
    time::Duration,
};

use vip_engine::{CommandId, Completed, Epoch, GroupId, NodeId, PeerLoss, Refusal, Remembered};
use vip_lease::{Hook, LeaseNotice, gate::Ticket};

use super::{
    Mutant, Stats, Violation,
    agent::Ask,
    clock::{SimNs, nanos},
    hosts::SimNode,
    network::{Datagram, Keep, Tap},
    plan::Plan,
    rng::Rng,
    trace::Trace,
};

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
    /// The keeper of this node handles its notices.
    Keeper {
        node: usize,
        life: u64,
        notice: LeaseNotice,
    },
    /// A hook ends for which the lease loop of this node waits.
    HookEnds {
        node: usize,
        life: u64,
        hook: Hook,
        ticket: Ticket,
        well: bool,
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
    /// It was taken by force, or a disk was lost: its epochs promise nothing.
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

    /// Lets the world turn until `end`, or until something holds. Returns whether
    /// it does.
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
                if self.nodes[node].life == life && self.nodes[node].agent.is_some() =>
            {
                self.written(node, *record)
            }
            Event::Keeper { node, life, notice }
                if self.nodes[node].life == life && self.nodes[node].agent.is_some() =>
            {
                self.keep(node, &notice)
            }
            Event::HookEnds { node, life, hook, ticket, well } if self.nodes[node].life == life => {
                self.ask(node, Ask::HookEnded { hook, ticket, well })
            }
            Event::Blow => self.blow(),
            Event::Look { group } => self.check_fence(group),
            Event::Wake { .. }
            | Event::Resume { .. }
            | Event::Restart { .. }
            | Event::Written { .. }
            | Event::HookEnds { .. }
            | Event::Keeper { .. } => Ok(()),
        }
    }

    /// Takes note of where a group's fence is open now.
    pub fn note_holder(&mut self, group: GroupId, open: Option<NodeId>) {
        let (now, index) = (self.now, group.place());
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
