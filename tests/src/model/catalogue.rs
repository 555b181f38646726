//! The explorations that `cargo xtask model` makes: one for each kind of
//! fault, small ones by default and larger ones on demand.
//!
//! Pair mode (rule 13) claims less, and what it claims is explored: one holder
//! while the nodes hear each other, one holder always for a pair that holds,
//! and that a pair that takes can indeed come to two.

use vip_engine::{PeerLoss, Role};

use super::{
    claims::Claim,
    scope::{Order, Rate, Scope, Start, Tick},
};

const FIT: &[(u8, Order)] = &[(1, Order::Fit)];
const BOTH_FIT: &[(u8, Order)] = &[(1, Order::Fit), (2, Order::Fit)];
const FAILS_OVER: &[Claim] = &[Claim::Held, Claim::Refused, Claim::FailedOver];

/// Two or three candidates at once, with time fine enough that an attempt
/// goes on over a tick.
pub(super) const CANDIDATES: Scope = Scope {
    orders: BOTH_FIT,
    reaches: &[Claim::Held, Claim::Duel, Claim::Refused],
    ..Scope::new("candidates", Tick::Quarter, 1, 1)
};

/// The holder renews or is late, and another node takes over.
pub(super) const FAILOVER: Scope =
    Scope { start: Start::Won, orders: FIT, reaches: FAILS_OVER, ..Scope::new("failover", Tick::Half, 3, 2) };

/// Any two restarts: of acceptors, of the holder, of the same node twice.
pub(super) const RESTARTS: Scope = Scope {
    restarts: 2,
    start: Start::Won,
    orders: FIT,
    reaches: FAILS_OVER,
    ..Scope::new("restarts", Tick::Half, 3, 1)
};

/// A process is replaced, and finds the lease of the one before (rule 5).
pub(super) const ADOPTION: Scope = Scope {
    restarts: 1,
    start: Start::Won,
    reaches: &[Claim::Held, Claim::Adopted],
    ..Scope::new("adoption", Tick::Quarter, 3, 2)
};

/// The holder hands over, or releases because it can't serve, and its process
/// may be stopped or end just before it clears its map.
pub(super) const RELEASE: Scope = Scope {
    orders: &[(1, Order::Fit), (0, Order::HandOver(1)), (0, Order::Unfit)],
    stops: 1,
    start: Start::Won,
    reaches: &[Claim::Held, Claim::HandedOver],
    ..Scope::new("release", Tick::Half, 1, 1)
};

/// The holder's clock is slow, the others' fast, by all of the margin.
pub(super) const SLOW_HOLDER: Scope = Scope {
    rates: [Rate::Slow, Rate::Fast, Rate::Fast],
    start: Start::Won,
    orders: FIT,
    reaches: FAILS_OVER,
    ..Scope::new("slow holder", Tick::Half, 3, 1)
};

/// The second holder's clock is slow, the others' fast.
pub(super) const SLOW_SUCCESSOR: Scope = Scope {
    rates: [Rate::Fast, Rate::Slow, Rate::Fast],
    start: Start::Won,
    orders: BOTH_FIT,
    reaches: FAILS_OVER,
    ..Scope::new("slow successor", Tick::Half, 3, 1)
};

const PAIR: Scope = Scope {
    roles: [Role::Node, Role::Node, Role::Vacant],
    orders: FIT,
    restarts: 1,
    ..Scope::new("pair", Tick::Half, 3, 1)
};

/// A pair whose nodes hear each other, whatever else is lost.
pub(super) const PAIR_HEARD: Scope = Scope {
    name: "pair that takes, heard",
    pair: Some(PeerLoss::Take),
    reaches: &[Claim::Held, Claim::Refused],
    ..PAIR
};

/// A pair that may be cut, and takes: two may hold, and nothing else is wrong.
pub(super) const PAIR_CUT: Scope = Scope {
    name: "pair that takes, cut",
    pair: Some(PeerLoss::Take),
    deaf: true,
    one_holder: false,
    reaches: &[Claim::Held, Claim::TwoHold],
    ..PAIR
};

/// A pair that may be cut, and holds.
pub(super) const PAIR_HOLD: Scope = Scope {
    name: "pair that holds, cut",
    pair: Some(PeerLoss::Hold),
    deaf: true,
    reaches: &[Claim::Held, Claim::Refused],
    ..PAIR
};

/// The default.
#[must_use]
pub fn standard() -> Vec<Scope> {
    vec![
        CANDIDATES,
        FAILOVER,
        RESTARTS,
        ADOPTION,
        RELEASE,
        SLOW_HOLDER,
        SLOW_SUCCESSOR,
        PAIR_HEARD,
        PAIR_CUT,
        PAIR_HOLD,
    ]
}

/// Everything, which takes long.
#[must_use]
pub fn full() -> Vec<Scope> {
    let mut scopes = standard();
    scopes.extend([
        Scope { name: "failover, fine", tick: Tick::Quarter, horizon: 6, ballots: 1, ..FAILOVER },
        Scope { name: "candidates, longer", horizon: 2, ..CANDIDATES },
        Scope { name: "restarts, longer", horizon: 4, ..RESTARTS },
        Scope { name: "restarts, falling", falling: true, ..RESTARTS },
        Scope { name: "restart, old datagrams", old_datagrams: true, restarts: 1, ..RESTARTS },
        Scope {
            name: "restarts, witness",
            roles: [Role::Node, Role::Node, Role::Witness],
            ballots: 2,
            ..RESTARTS
        },
        Scope { name: "restarts, drift", rates: SLOW_HOLDER.rates, ..RESTARTS },
        Scope { name: "release and restart", restarts: 1, horizon: 2, ..RELEASE },
        Scope {
            name: "stop",
            orders: &[(1, Order::Fit), (0, Order::Stop)],
            restarts: 1,
            horizon: 2,
            ..RELEASE
        },
    ]);
    scopes
}

/// One that is over at once, for tests of this code.
#[must_use]
pub fn smallest() -> Scope {
    Scope { name: "smallest", ballots: 1, horizon: 2, ..FAILOVER }
}
