//! The explorations that `cargo xtask model` makes: one for each kind of
//! fault, small ones by default and larger ones on demand.
//!
//! The last ones have other numbers of voters than three, or a step from one
//! number to another (rule 10).
//!
//! Pair mode (rule 13) claims less, and the explorations check those claims: one
//! holder while the nodes hear each other, one holder always for a pair that
//! holds, and that a pair that takes can indeed have two.

use vip_engine::{PeerLoss, Role};

use super::{
    claims::Claim,
    scope::{Membership, Order, Scope, Start, Tick, slow, voters},
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
    rates: slow(0),
    start: Start::Won,
    orders: FIT,
    reaches: FAILS_OVER,
    ..Scope::new("slow holder", Tick::Half, 3, 1)
};

/// The second holder's clock is slow, the others' fast.
pub(super) const SLOW_SUCCESSOR: Scope = Scope {
    rates: slow(1),
    start: Start::Won,
    orders: BOTH_FIT,
    reaches: FAILS_OVER,
    ..Scope::new("slow successor", Tick::Half, 3, 1)
};

const PAIR: Scope = Scope {
    roles: voters(&[Role::Node; 2]),
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

/// Two candidates at once, a witness, and any restart. A Propose may be on its
/// way to a voter that has voted for a higher ballot and forgotten it.
pub(super) const RIVALS: Scope = Scope {
    roles: voters(&[Role::Node, Role::Node, Role::Witness]),
    restarts: 1,
    orders: FIT,
    reaches: &[Claim::Held, Claim::Duel, Claim::Refused],
    ..Scope::new("rivals and a restart", Tick::Half, 1, 1)
};

/// Another node takes over or the holder comes back, with three ballots, and
/// any restart; the third voter never stands.
pub(super) const RESTARTS_WITNESS: Scope = Scope {
    name: "restarts, witness",
    roles: voters(&[Role::Node, Role::Node, Role::Witness]),
    ballots: 2,
    restarts: 1,
    horizon: 2,
    ..RESTARTS
};

/// Two voters that are no pair: both votes are needed, so that a process has
/// its own vote again for the lease that it adopts (rule 5).
pub(super) const TWO: Scope = Scope {
    name: "two voters",
    roles: voters(&[Role::Node; 2]),
    ballots: 2,
    horizon: 4,
    reaches: &[Claim::Held, Claim::Adopted, Claim::Refused, Claim::FailedOver],
    ..RESTARTS
};

/// An even number of voters: three votes of four are needed, two are not.
pub(super) const FOUR: Scope = Scope {
    name: "four voters",
    roles: voters(&[Role::Node, Role::Node, Role::Witness, Role::Witness]),
    restarts: 1,
    horizon: 2,
    ..RESTARTS
};

/// Three votes of five are needed, and who has which of them may differ more.
pub(super) const FIVE: Scope = Scope {
    name: "five voters",
    roles: voters(&[Role::Node, Role::Node, Role::Witness, Role::Witness, Role::Witness]),
    restarts: 0,
    horizon: 2,
    ..RESTARTS
};

/// Three voters and a fourth one, and any restart, also one into the next
/// generation. Two of three and three of four have one in common.
pub(super) const FOURTH_ADDED: Scope = Scope {
    name: "fourth voter added",
    step: Some(Membership { next: voters(&[Role::Node; 4]) }),
    restarts: 1,
    horizon: 2,
    reaches: &[Claim::Held, Claim::HeldInNext, Claim::HeldInFormer],
    ..RESTARTS
};

/// The voter that is added stands; nobody in the former generation hears it.
pub(super) const ADDED_STANDS: Scope = Scope {
    name: "added voter stands",
    orders: &[(3, Order::Fit)],
    restarts: 0,
    reaches: &[Claim::Held, Claim::HeldInNext],
    ..FOURTH_ADDED
};

/// Two voters and a third one. In the former generation both votes are needed,
/// in the next one not.
pub(super) const THIRD_ADDED: Scope = Scope {
    name: "third voter added",
    roles: voters(&[Role::Node; 2]),
    step: Some(Membership { next: voters(&[Role::Node; 3]) }),
    ..FOURTH_ADDED
};

/// One of three voters goes. Now both votes are needed, and were not when a
/// lease was won that a process adopts.
pub(super) const THIRD_REMOVED: Scope = Scope {
    name: "third voter removed",
    step: Some(Membership { next: voters(&[Role::Node; 2]) }),
    ..FOURTH_ADDED
};

/// The voter that goes is the holder; nobody in the next generation hears it.
pub(super) const HOLDER_REMOVED: Scope = Scope {
    name: "holder removed",
    step: Some(Membership { next: voters(&[Role::Vacant, Role::Node, Role::Node]) }),
    ..FOURTH_ADDED
};

/// A step of the membership that breaks rule 10: the exploration must find that
/// it leads to two holders, and that the right step does not.
#[derive(Clone, Copy, Debug)]
pub struct Leap {
    /// What it does.
    pub name: &'static str,
    /// With the leap.
    pub broken: Scope,
    /// With a step by one voter.
    pub whole: Scope,
}

const LEAP: Scope =
    Scope { name: "a step", restarts: 0, horizon: 1, reaches: &[Claim::Held], ..FOURTH_ADDED };

/// Changes by more than one voter: there are majorities without a voter in
/// common.
pub const LEAPS: [Leap; 2] = [
    Leap {
        name: "adds-two-voters-at-once",
        broken: Scope { step: Some(Membership { next: voters(&[Role::Node; 5]) }), ..LEAP },
        whole: LEAP,
    },
    Leap {
        name: "replaces-a-voter-at-once",
        broken: Scope {
            step: Some(Membership { next: voters(&[Role::Node, Role::Node, Role::Vacant, Role::Node]) }),
            ..LEAP
        },
        whole: LEAP,
    },
];

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
        RIVALS,
        RESTARTS_WITNESS,
        TWO,
        FOUR,
        FIVE,
        FOURTH_ADDED,
        ADDED_STANDS,
        THIRD_ADDED,
        THIRD_REMOVED,
        HOLDER_REMOVED,
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
        Scope { name: "restarts, witness, longer", restarts: 2, horizon: 3, ..RESTARTS_WITNESS },
        Scope { name: "restarts, drift", rates: SLOW_HOLDER.rates, ..RESTARTS },
        Scope { name: "release and restart", restarts: 1, horizon: 2, ..RELEASE },
        Scope {
            name: "stop",
            orders: &[(1, Order::Fit), (0, Order::Stop)],
            restarts: 1,
            horizon: 2,
            ..RELEASE
        },
        Scope { name: "rivals and a restart, longer", horizon: 2, ..RIVALS },
        Scope { name: "four voters, two restarts", restarts: 2, ..FOUR },
        Scope { name: "five voters, a restart", restarts: 1, ..FIVE },
        Scope { name: "third voter removed, longer", restarts: 2, horizon: 3, ..THIRD_REMOVED },
        Scope { name: "third voter added, longer", restarts: 2, horizon: 3, ..THIRD_ADDED },
        Scope { name: "holder removed, longer", restarts: 2, horizon: 3, ..HOLDER_REMOVED },
        Scope {
            name: "fourth voter removed",
            roles: voters(&[Role::Node; 4]),
            step: Some(Membership { next: voters(&[Role::Node; 3]) }),
            ..FOURTH_ADDED
        },
        Scope {
            name: "removed voter stands",
            orders: &[(2, Order::Fit)],
            ballots: 2,
            restarts: 2,
            reaches: &[Claim::Held, Claim::HeldInFormer, Claim::Adopted],
            ..THIRD_REMOVED
        },
    ]);
    scopes
}

/// One that is over at once, for tests of this code.
#[must_use]
pub fn smallest() -> Scope {
    Scope { name: "smallest", ballots: 1, horizon: 2, ..FAILOVER }
}
