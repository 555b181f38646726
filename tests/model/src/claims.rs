//! States that must never be, and states that must be seen for that to mean
//! anything. [`vip_common::fence_open`] decides who may answer, never the engine.

use stateright::Property;
use vip_engine::{About, Refused};

use super::{
    scope::{Generation, Order, PLACES},
    world::{Cluster, World},
};

/// The rule that everything is about.
pub const ONE_HOLDER: &str = "at most one fence is open";

/// Something that must be reachable, or the exploration has shown nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A fence is open.
    Held,
    /// An order has moved the lease, before it could have run out.
    HandedOver,
    /// A node has the lease that another one held and never released.
    FailedOver,
    /// A process that has just started holds a lease longer than its map said.
    Adopted,
    /// An acceptor refused a candidate for another owner's lease.
    Refused,
    /// A candidate met a higher ballot.
    Duel,
    /// A node has a lease by the next generation's votes, while another one
    /// runs in the former generation.
    HeldInNext,
    /// A node has a lease by the former generation's votes, while another one
    /// runs in the next generation.
    HeldInFormer,
    /// Two nodes of a pair hold at once, which is what a cut may cost.
    TwoHold,
}

impl Claim {
    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "a lease is held",
            Self::HandedOver => "a lease is handed over",
            Self::FailedOver => "a lease runs out and another node has the next",
            Self::Adopted => "a process adopts its former incarnation's lease",
            Self::Refused => "a candidate is refused for another's lease",
            Self::Duel => "a candidate meets a higher ballot",
            Self::HeldInNext => "the next generation's votes make a lease while a node is in the former one",
            Self::HeldInFormer => {
                "the former generation's votes make a lease while a node is in the next one"
            }
            Self::TwoHold => "two nodes of a pair hold at once, as pair mode says",
        }
    }

    fn property(self) -> Property<Cluster> {
        Property::sometimes(
            self.name(),
            match self {
                Self::Held => |_, world: &World| world.open != 0,
                Self::HandedOver => handed_over,
                Self::FailedOver => failed_over,
                Self::Adopted => adopted,
                Self::Refused => refused,
                Self::Duel => duel,
                Self::HeldInNext => |cluster, world| held_in(Generation::Next, cluster, world),
                Self::HeldInFormer => |cluster, world| held_in(Generation::Former, cluster, world),
                Self::TwoHold => |_, world: &World| world.open.count_ones() > 1,
            },
        )
    }
}

/// The claims about every state of `cluster`.
pub(super) fn properties(cluster: &Cluster) -> Vec<Property<Cluster>> {
    let mut properties =
        vec![Property::always("no output is impossible", |_: &Cluster, world: &World| world.fault.is_none())];
    if cluster.scope.one_holder {
        properties.push(Property::always(ONE_HOLDER, |_, world: &World| world.open.count_ones() <= 1));
    }
    properties.extend(cluster.scope.reaches.iter().map(|claim| claim.property()));
    properties
}

fn given(cluster: &Cluster, world: &World, wanted: impl Fn(Order) -> bool) -> bool {
    let orders = cluster.scope.orders.iter().enumerate();
    orders.into_iter().any(|(index, &(_, order))| world.orders & (1 << index) == 0 && wanted(order))
}

fn releases(order: Order) -> bool {
    match order {
        Order::HandOver(_) | Order::Unfit | Order::Stop => true,
        Order::Fit | Order::Stand => false,
    }
}

fn another_is_open(world: &World) -> bool {
    world.open & !1 != 0
}

/// Only the holder is given an order to release, and node 0 is the first one.
fn handed_over(cluster: &Cluster, world: &World) -> bool {
    another_is_open(world)
        && world.tick < cluster.scope.tick.per_accept()
        && given(cluster, world, releases)
        && cluster.local(world, 0).stored
}

fn failed_over(cluster: &Cluster, world: &World) -> bool {
    another_is_open(world) && !given(cluster, world, releases) && cluster.local(world, 0).stored
}

fn adopted(cluster: &Cluster, world: &World) -> bool {
    (0..PLACES).any(|node| {
        let local = cluster.local(world, node);
        let now = cluster.scope.clock(node, world.tick);
        world.open & (1 << node) != 0
            && local.stored
            && local.starts > 1
            && local.engine.as_ref().is_some_and(|engine| engine.status(now).silent)
    })
}

/// Node 0 may have had its lease before.
fn held_in(generation: Generation, cluster: &Cluster, world: &World) -> bool {
    let is_in = |node: usize| cluster.local(world, node).generation == generation;
    let (inside, outside): (Vec<_>, Vec<_>) =
        (0..PLACES).filter(|&node| cluster.scope.has(node)).partition(|&node| is_in(node));
    let holds = |node: usize| node != 0 && world.open & (1 << node) != 0;
    inside.into_iter().any(holds) && !outside.is_empty()
}

fn refused(cluster: &Cluster, world: &World) -> bool {
    cluster.on_the_way(world).any(|envelope| {
        matches!(envelope.about, About::Refuse { because: Refused::Held { .. }, .. })
            && world.open & (1 << envelope.to) == 0
    })
}

fn duel(cluster: &Cluster, world: &World) -> bool {
    cluster.on_the_way(world).any(|envelope| match envelope.about {
        About::Refuse { ballot, because: Refused::Promised { ballot: higher } } => {
            higher.node != ballot.node
                && cluster.local(world, usize::from(envelope.to)).latest == Some(ballot)
        }
        About::Prepare { .. }
        | About::Promise { .. }
        | About::Propose { .. }
        | About::Accept { .. }
        | About::Holding { .. }
        | About::Refuse { .. }
        | About::Release { .. }
        | About::Released { .. }
        | About::AskReady { .. }
        | About::Ready { .. }
        | About::Stale { .. }
        | About::Unheard { .. } => false,
    })
}
