//! The mutants, each with the scope in which to look for it: as small as the
//! fault allows, and clean without the mutant.

use vip_engine::Mutant;

use super::{
    catalogue::{FIVE, FOUR, RIVALS, TWO},
    claims::Claim,
    scope::{Order, Scope, Start, Tick, fit, slow},
};

const ONE_CANDIDATE: Scope =
    Scope { orders: &[(1, Order::Fit)], start: Start::Won, ..Scope::new("one candidate", Tick::Half, 1, 1) };

const RESTARTED_VOTER: Scope = Scope { name: "restarted voter", restarts: 1, ..ONE_CANDIDATE };

const FINE: Scope = Scope {
    name: "fine time",
    fit: fit(&[0, 1]),
    orders: &[],
    start: Start::Standing,
    tick: Tick::Quarter,
    horizon: 4,
    ..ONE_CANDIDATE
};

const STOPPED: Scope = Scope {
    name: "stopped before the write",
    orders: &[(1, Order::Fit), (0, Order::Unfit)],
    stops: 1,
    horizon: 0,
    ..ONE_CANDIDATE
};

const RENEWAL: Scope = Scope { name: "renewal", horizon: 2, ballots: 2, late_accepts: true, ..ONE_CANDIDATE };

const RENEWAL_AND_RELEASE: Scope = Scope {
    name: "renewal and release",
    fit: fit(&[0, 1]),
    orders: &[(0, Order::Unfit)],
    horizon: 1,
    ballots: 2,
    late_accepts: true,
    ..ONE_CANDIDATE
};

const DRIFT: Scope =
    Scope { name: "drift", rates: slow(0), horizon: 2, reaches: &[Claim::Held], ..ONE_CANDIDATE };

const HANDOVER: Scope = Scope {
    name: "handover",
    fit: fit(&[0, 2]),
    orders: &[(1, Order::Fit), (0, Order::HandOver(2))],
    horizon: 2,
    renewals: false,
    holding: true,
    late_accepts: true,
    ..ONE_CANDIDATE
};

const RIVALS_AT_ONCE: Scope = Scope { name: "rivals at once", horizon: 0, ..RIVALS };

const TWO_RESTARTS: Scope = Scope { name: "two voters, two restarts", ballots: 3, horizon: 1, ..TWO };

const FOUR_AT_ONCE: Scope = Scope { name: "four voters at once", restarts: 0, horizon: 0, ..FOUR };

const FIVE_SHORTLY: Scope = Scope { name: "five voters, shortly", horizon: 1, ..FIVE };

/// All of them; some twice, where another scope must show that it finds their
/// fault too.
pub const MUTANTS: [(Mutant, Scope); 14] = [
    (Mutant::ShortSilence, RESTARTED_VOTER),
    (Mutant::ShortAcceptor, ONE_CANDIDATE),
    (Mutant::Overwrite, ONE_CANDIDATE),
    (Mutant::LeaseFromPropose, FINE),
    (Mutant::ReleaseBeforeStore, STOPPED),
    (Mutant::AnyAccept, RENEWAL),
    (Mutant::LateRenewal, RENEWAL_AND_RELEASE),
    (Mutant::NoMargin, DRIFT),
    (Mutant::SameBallot, HANDOVER),
    (Mutant::StandsInSilence, RESTARTED_VOTER),
    (Mutant::ProposeInSilence, RIVALS_AT_ONCE),
    (Mutant::ShortSilence, TWO_RESTARTS),
    (Mutant::Overwrite, FOUR_AT_ONCE),
    (Mutant::ShortAcceptor, FIVE_SHORTLY),
];
