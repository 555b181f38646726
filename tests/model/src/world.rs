//! The whole cluster as a state, the next events, and what they lead to.

use std::sync::Arc;

use stateright::{Model, Property};
use vip_engine::{GroupState, Role};

use super::{
    claims,
    local::{Fault, Local},
    place,
    scope::{Generation, Order, PLACES, Scope, Start},
    table::{EventKey, LocalId, MessageId, Own, Step, Table},
};

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// True time.
    pub(super) tick: u8,
    /// How many ballots, restarts and stops are left.
    pub(super) ballots: u8,
    pub(super) restarts: u8,
    stops: u8,
    /// The orders that are left, as bits.
    pub(super) orders: u16,
    /// The nodes whose fence is open, as bits.
    pub(super) open: u8,
    pub(super) fault: Option<Fault>,
    pub(super) nodes: [LocalId; PLACES],
    /// What is on the way, in the order of numbers.
    pub(super) net: Box<[MessageId]>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on by a tick.
    Tick,
    /// Something happens to a node.
    Node {
        /// The node.
        node: u8,
        /// What happens.
        what: EventKey,
        /// Is the process stopped before its first map write?
        stopped: bool,
    },
    /// An order is given.
    Order {
        /// Its place in [`Scope::orders`].
        index: u8,
        /// Is the process stopped before its first map write?
        stopped: bool,
    },
}

/// The cluster as a model.
pub struct Cluster {
    pub(super) scope: Scope,
    pub(super) table: Table,
    hold_ns: u64,
}

impl Cluster {
    /// Nodes whose first silence has just ended.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { table: Table::default(), hold_ns: scope.hold_ns(), scope }
    }

    pub(super) fn local(&self, world: &World, node: usize) -> Arc<Local> {
        self.table.local(world.nodes[node])
    }

    pub(super) fn step(&self, world: &World, node: usize, event: EventKey) -> Arc<Step> {
        self.table.step(&self.scope, node, world.nodes[node], event, world.tick)
    }

    /// What happens to which node in an action, if it is one of a node.
    pub(super) fn event_of(&self, action: Action) -> Option<(usize, EventKey, bool)> {
        match action {
            Action::Tick => None,
            Action::Node { node, what, stopped } => Some((usize::from(node), what, stopped)),
            Action::Order { index, stopped } => {
                let (node, order) = self.scope.orders[usize::from(index)];
                Some((usize::from(node), EventKey::Own(Own::Order(order)), stopped))
            }
        }
    }

    /// Adds the result of a step to the world.
    fn apply(&self, world: &mut World, node: usize, step: &Step, stopped: bool) {
        let (next, sent) = match &step.stopped_before {
            Some((local, sent)) if stopped => (*local, sent),
            Some(_) | None => (step.next, &step.sent),
        };
        world.nodes[node] = next;
        world.stops -= u8::from(stopped);
        let carried = self.carries_ballot(world, step);
        world.ballots -= u8::from(step.new_ballot && carried);
        self.send(world, sent, carried);
        world.fault = world.fault.or(step.fault);
    }

    /// Time goes on. A process whose timers have nothing to tell anybody does
    /// what is due at once; any other may be late, which is a choice.
    ///
    /// Being late with something that nobody sees is the same as doing it in
    /// time: an engine first lets run out what ran out before its input, and it
    /// may still be late with everything that it wants to do after that.
    fn tick(&self, world: &mut World) {
        world.tick += 1;
        for node in 0..PLACES {
            let local = self.local(world, node);
            if local.engine.is_none() || local.is_stopped() {
                continue;
            }
            let step = self.step(world, node, EventKey::Own(Own::Wake));
            let seen = step.stored || step.stands || step.fault.is_some();
            if !seen && self.says_nothing(world, &step) {
                world.nodes[node] = step.next;
            }
        }
    }

    /// Node 0 gets the lease by the votes of `others`, as far as they vote: one
    /// that could stand itself from the start may have done so.
    fn won_by(&self, mut world: World, others: &[usize]) -> World {
        // Prepare, Promise, Propose, Accept.
        let asks = others.iter().map(|&voter| (0, voter));
        let answers = others.iter().map(|&voter| (voter, 0));
        let ways: Vec<_> = asks.chain(answers).collect();
        for &(from, to) in [&ways, &ways].into_iter().flatten() {
            let next = world.net.iter().find_map(|&message| {
                let envelope = self.table.message(message);
                let meant = (envelope.from, envelope.to) == (place(from), place(to));
                let step = meant.then(|| self.step(&world, to, EventKey::Deliver(message)))?;
                (step.next != world.nodes[to]).then_some(step)
            });
            if let Some(step) = next {
                self.apply(&mut world, to, &step, false);
            }
        }
        self.prune(&mut world);
        self.look_at_fences(&mut world);
        world
    }

    /// Every choice of as many others as node 0 needs the votes of; one of those
    /// that differ only in which of several witnesses they have.
    ///
    /// Witnesses whose clocks run alike differ in their place alone. No ballot
    /// names one, for it never stands; it has no rank, nothing is handed over to
    /// it and no order is given to it; its votes are counted, and no claim is
    /// about a certain one. So to exchange two of them makes of each schedule
    /// another one, in which the same fences are open. Not so during a step of
    /// the membership, where witnesses may be in different generations.
    fn electorates(&self, world: &World) -> Vec<Vec<usize>> {
        let generation = self.local(world, 0).generation;
        let hears = |node: usize| {
            let members = self.scope.members(self.local(world, node).generation);
            members.is_some_and(|roles| roles[0] != Role::Vacant)
        };
        let others: Vec<_> =
            (1..PLACES).filter(|&node| self.scope.is_in(node, generation) && hears(node)).collect();
        let needed = self.scope.majority(generation) - 1;
        let chosen = |set: u32| others.iter().enumerate().filter(move |(index, _)| set & (1 << index) != 0);
        let sets = (0..1_u32 << others.len()).filter(|set| set.count_ones() as usize == needed);
        let choices = sets.map(|set| chosen(set).map(|(_, &node)| node).collect::<Vec<_>>());
        // With a witness, all of those that come before it and are like it.
        choices
            .filter(|choice| {
                choice.iter().all(|&node| self.alike_before(node).all(|other| choice.contains(&other)))
            })
            .collect()
    }

    /// The witnesses at lower places that differ from that one in nothing else.
    fn alike_before(&self, node: usize) -> impl Iterator<Item = usize> {
        let scope = &self.scope;
        let is_one = |node: usize| scope.step.is_none() && scope.roles[node] == Role::Witness;
        (0..node)
            .filter(move |&other| is_one(node) && is_one(other) && scope.rates[other] == scope.rates[node])
    }

    /// Every way in which the nodes may be in the generations of a step.
    fn generations(&self) -> Vec<[Generation; PLACES]> {
        let mut ways = vec![[Generation::Former; PLACES]];
        for node in 0..PLACES {
            let (former, next) =
                (self.scope.is_in(node, Generation::Former), self.scope.is_in(node, Generation::Next));
            let stepped = ways.iter().map(|way| {
                let mut way = *way;
                way[node] = Generation::Next;
                way
            });
            match (former, next) {
                (true, true) => ways = ways.iter().copied().chain(stepped).collect(),
                (false, true) => ways = stepped.collect(),
                (true | false, false) => {}
            }
        }
        ways
    }

    /// The beginning, with nodes in these generations.
    fn begin(&self, generations: [Generation; PLACES]) -> Vec<World> {
        let scope = &self.scope;
        let mut world = World {
            tick: 0,
            ballots: scope.ballots + 1,
            restarts: scope.restarts,
            stops: scope.stops,
            orders: (1 << scope.orders.len()) - 1,
            open: 0,
            fault: None,
            nodes: std::array::from_fn(|node| {
                self.table.add_local(Local::fresh(scope, node, generations[node]))
            }),
            net: Box::default(),
        };
        // Told to, node 0 stands before anybody else does.
        let first = self.step(&world, 0, EventKey::Own(Own::Order(Order::Stand)));
        self.apply(&mut world, 0, &first, false);
        match scope.start {
            Start::Standing => vec![world],
            Start::Won => {
                let electorates = self.electorates(&world);
                electorates.iter().map(|others| self.won_by(world.clone(), others)).collect()
            }
        }
    }

    fn look_at_fences(&self, world: &mut World) {
        world.open = 0;
        for node in 0..PLACES {
            if self.local(world, node).is_open(self.hold_ns, self.scope.clock(node, world.tick)) {
                world.open |= 1 << node;
            }
        }
    }

    /// Is this an order that means something to the node now?
    fn is_sensible(&self, world: &World, node: usize, order: Order) -> bool {
        let local = self.local(world, node);
        let Some(engine) = local.engine.as_ref().filter(|_| !local.is_stopped()) else { return false };
        let status = engine.status(self.scope.clock(node, world.tick));
        status.groups.iter().next().is_some_and(|group| match order {
            Order::Fit => group.state == GroupState::Fault,
            Order::Stand => group.state == GroupState::Standby && group.holder.is_none(),
            Order::HandOver(_) | Order::Stop | Order::Unfit => group.state == GroupState::Active,
        })
    }

    /// Adds what may happen to a node, if it makes a difference.
    fn add(&self, world: &World, node: usize, what: EventKey, actions: &mut Vec<Action>) {
        let step = self.step(world, node, what);
        let carried_on = step.next != world.nodes[node] || !self.says_nothing(world, &step);
        if carried_on && !self.is_beyond(world, &step) {
            let node = place(node);
            actions.push(Action::Node { node, what, stopped: false });
            if world.stops > 0 && step.stopped_before.is_some() {
                actions.push(Action::Node { node, what, stopped: true });
            }
        }
    }

    /// Would a process stand once more than the scope allows?
    fn is_beyond(&self, world: &World, step: &Step) -> bool {
        step.stands && world.ballots == 0
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let worlds: Vec<_> =
            self.generations().into_iter().flat_map(|generations| self.begin(generations)).collect();
        let is_won = self.scope.start == Start::Standing || worlds.iter().any(|world| world.open == 1);
        assert!(is_won, "{}: node 0 has the lease in no beginning", self.scope.name);
        worlds
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // Nothing after a violation matters.
        if world.fault.is_some() || world.open.count_ones() > 1 {
            return;
        }
        let mut runs = [false; PLACES];
        for (node, runs) in runs.iter_mut().enumerate() {
            let local = self.local(world, node);
            if world.restarts > 0 && self.scope.has(node) {
                let what = EventKey::Own(Own::Restart);
                actions.push(Action::Node { node: place(node), what, stopped: false });
                let is_behind = local.generation == Generation::Former;
                if is_behind && self.scope.is_in(node, Generation::Next) {
                    let what = EventKey::Own(Own::Step);
                    actions.push(Action::Node { node: place(node), what, stopped: false });
                }
            }
            if local.is_stopped() {
                self.add(world, node, EventKey::Own(Own::Continue), actions);
            } else if local.engine.is_some() {
                *runs = true;
                self.add(world, node, EventKey::Own(Own::Wake), actions);
            }
        }
        for (index, &(node, order)) in self.scope.orders.iter().enumerate() {
            let node = usize::from(node);
            if world.orders & (1 << index) != 0 && self.is_sensible(world, node, order) {
                let step = self.step(world, node, EventKey::Own(Own::Order(order)));
                if self.is_beyond(world, &step) {
                    continue;
                }
                let index = place(index);
                actions.push(Action::Order { index, stopped: false });
                if world.stops > 0 && step.stopped_before.is_some() {
                    actions.push(Action::Order { index, stopped: true });
                }
            }
        }
        for &message in &world.net {
            let node = usize::from(self.table.message(message).to);
            if runs[node] {
                self.add(world, node, EventKey::Deliver(message), actions);
            }
        }
        if world.tick < self.scope.horizon {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        if let Action::Order { index, .. } = action {
            next.orders &= !(1 << index);
        }
        match self.event_of(action) {
            None => self.tick(&mut next),
            Some((node, what, stopped)) => {
                let step = self.step(world, node, what);
                if matches!(what, EventKey::Own(Own::Restart | Own::Step)) {
                    next.restarts -= 1;
                    if !self.scope.old_datagrams {
                        // The transport drops what was sealed for the former
                        // incarnation. What the former one has sent is kept:
                        // until they hear the new one, peers accept it.
                        let others =
                            |&message: &MessageId| usize::from(self.table.message(message).to) != node;
                        next.net = next.net.iter().copied().filter(others).collect();
                    }
                }
                self.apply(&mut next, node, &step, stopped);
            }
        }
        self.prune(&mut next);
        self.look_at_fences(&mut next);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        claims::properties(self)
    }
}
