//! The simulator: the shipped lease loop, with its engine and its transport, on
//! as many nodes as a seed says, in a world of bad networks, stopped processes,
//! dying hosts and wrong clocks.
//!
//! One seed decides everything. First comes a rough phase, in which at every
//! event at most one node may answer for a group, judged by the very
//! [`vip_common::fence_open`] that the data plane runs, on each node's own
//! clock. Then everything is healed, and each group must have a holder, soon
//! and for good; and then a drill (crash, stop, switchover, demotion, agent
//! restart) is timed.
//!
//! A scenario can steer the same world: [`scenario`] reads and replays files in
//! which a person wrote what happens and what must come of it.
//!
//! [`agent`] has what a node runs: the core of the agent's lease loop; half of
//! the clusters seal their datagrams with the shipped transport. The data plane,
//! the loop's own system calls and the keeper are not simulated.

mod agent;
mod broken;
mod chaos;
mod check;
mod clock;
mod disk;
mod drill;
mod duties;
mod groups;
mod hosts;
mod names;
mod network;
mod parallel;
mod plan;
mod process;
mod rng;
pub mod scenario;
mod summary;
mod trace;
mod world;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use self::{plan::Plan, rng::Rng, trace::Trace, world::World};

pub use self::{
    broken::{Noticed, look_for_all},
    check::Violation,
    names::Names,
    parallel::run_all,
    summary::{Spread, Summary},
};

/// Trace lines to keep of a failing run: the last ones matter.
const TRACE_LINES: usize = 400;

/// Ways to break the world around the engine, in order to see that the
/// simulator notices. Each breaks a promise that the engine relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing is broken.
    None,
    /// Clocks run ±25 % wrong: more than the margin between T_hold and T_accept.
    ClockRate,
    /// Packets leave before the map is written, so a release before it is true (rule 7).
    SendBeforeStore,
    /// Nodes speak and vote right after a start, without knowing what they
    /// had promised (rule 5).
    NoSilence,
    /// Every other node counts T_accept half as long: shorter than T_hold (rule 4).
    ShortAcceptor,
    /// A loop checks its timers before it reads what has arrived.
    TimersBeforeMail,
    /// An agent with a new T_accept is silent for that long only, whatever it
    /// voted for under the former one (rule 5).
    VotesUnrecorded,
    /// Nodes whose configurations have another T_accept hear each other.
    MixedLeases,
    /// Nodes enter the next membership but one before all voters have the next
    /// one (rule 10).
    HastySteps,
    /// Nodes take steps of a key's rotation before the others have taken the
    /// one before.
    HastyKeys,
}

/// The figures of a run without a violation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Simulated true time.
    pub simulated: Duration,
    /// Inputs that engines were given.
    pub inputs: u64,
    /// How often a group's fence opened on another node than the one before.
    pub moves: u64,
    /// T_accept of this run.
    pub accept: Duration,
    /// From a holder's crash in a healed cluster to the first open fence elsewhere.
    pub failovers: Vec<Duration>,
    /// Time without an open fence in planned moves of a healed cluster.
    pub handovers: Vec<Duration>,
    /// Commands that were answered, well or with a refusal.
    pub commands: u64,
    /// Commands that were answered well.
    pub completed: u64,
}

/// A run that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was violated.
    pub violation: Violation,
    /// The world's last events.
    pub trace: Vec<String>,
}

/// The result of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Figures, or what went wrong.
    pub result: Result<Stats, Failure>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(_) => write!(f, "seed {}: ok", self.seed),
            Err(failure) => {
                for line in &failure.trace {
                    writeln!(f, "{line}")?;
                }
                writeln!(f, "seed {}: {}", self.seed, failure.violation)?;
                write!(
                    f,
                    "replay: cargo xtask sim --start {} --seeds 1 (all of the trace: --trace)",
                    self.seed
                )
            }
        }
    }
}

/// Breaks every agent of this process by the mutant that the environment names
/// (`VIP_MUTANT`), to check that the simulation notices.
///
/// # Panics
/// If there is no such mutant, or engines were made before.
#[cfg(feature = "mutants")]
pub fn choose_mutant() {
    use std::sync::Once;

    static ONCE: Once = Once::new();
    ONCE.call_once(vip_lease::choose_mutant);
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_mutant(seed, Mutant::None)
}

/// Runs one seed in a world that is broken in a particular way.
#[must_use]
pub fn run_mutant(seed: u64, mutant: Mutant) -> Outcome {
    match run_world(seed, mutant, 0) {
        (Ok(()), world) => Outcome { seed, result: Ok(world.stats) },
        (Err(_), _) => {
            // Runs it again, this time with a trace.
            let (result, world) = run_world(seed, mutant, TRACE_LINES);
            let violation = result.err().unwrap_or(Violation::NotReproducible);
            Outcome { seed, result: Err(Failure { violation, trace: world.trace.into_lines() }) }
        }
    }
}

/// Runs one seed and traces everything that happens in it, with or without a
/// violation.
#[must_use]
pub fn trace(seed: u64) -> (Outcome, Vec<String>) {
    let (result, world) = run_world(seed, Mutant::None, usize::MAX);
    let lines = world.trace.into_lines();
    let result = match result {
        Ok(()) => Ok(world.stats),
        // Its trace is all here.
        Err(violation) => Err(Failure { violation, trace: Vec::new() }),
    };
    (Outcome { seed, result }, lines)
}

fn run_world(seed: u64, mutant: Mutant, trace_lines: usize) -> (Result<(), Violation>, World) {
    let mut rng = Rng::new(seed);
    let plan = Plan::new(&mut rng, mutant);
    let mut world = World::new(plan, rng, mutant, Trace::new(trace_lines));
    world.start_all();
    let result = survive(&mut world, |world| world.rough_phase().and_then(|()| world.liveness_phase()));
    (result, world)
}

/// A panic is a violation like any other: it comes with a trace, and other seeds go on.
fn survive<T>(
    world: &mut World,
    act: impl FnOnce(&mut World) -> Result<T, Violation>,
) -> Result<T, Violation> {
    // Nobody runs the world again after this, only reads it.
    panic::catch_unwind(AssertUnwindSafe(|| act(world))).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::Panicked(text.unwrap_or_default()))
    })
}
