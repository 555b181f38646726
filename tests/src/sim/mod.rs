//! The simulator: the shipped engine, on as many nodes as a seed says, in a
//! world of bad networks, stopped processes, dying hosts and wrong clocks.
//!
//! One seed decides everything. First comes a rough phase, in which at every
//! event at most one node may answer for a group, judged by the very
//! [`vip_common::fence_open`] that the data plane runs, on each node's own
//! clock. Then everything is healed, and each group must have a holder, soon
//! and for good; and then a drill (crash, stop, switchover, demotion, agent
//! restart) is timed.
//!
//! Packets are really encoded and decoded. What is not simulated: the
//! transport's cryptography, the data plane, the event loop's own code.

mod chaos;
mod check;
mod clock;
mod drill;
mod plan;
mod rng;
mod world;

use std::{fmt, time::Duration};

use self::{plan::Plan, rng::Rng, world::World};

pub use self::check::Violation;

/// Trace lines that are kept of a failing run: the last ones matter.
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
}

/// What a run without a violation has to tell.
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

/// What came of one seed.
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
                write!(f, "replay: cargo xtask sim --start {} --seeds 1", self.seed)
            }
        }
    }
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_mutant(seed, Mutant::None)
}

/// Runs one seed in a world that is broken in a particular way.
#[must_use]
pub fn run_mutant(seed: u64, mutant: Mutant) -> Outcome {
    let run = |traced| {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng, mutant);
        let mut world = World::new(plan, rng, mutant, traced);
        let result = world.rough_phase().and_then(|()| world.liveness_phase());
        (result, world)
    };
    match run(false) {
        (Ok(()), world) => Outcome { seed, result: Ok(world.stats) },
        (Err(_), _) => {
            // The same again, this time taking notes.
            let (result, world) = run(true);
            let violation = result.err().unwrap_or(Violation::NotReproducible);
            Outcome { seed, result: Err(Failure { violation, trace: world.trace.into() }) }
        }
    }
}

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub schedules: u64,
    /// Simulated true time, all together.
    pub simulated: Duration,
    /// Inputs that engines were given.
    pub inputs: u64,
    /// How often a group's fence opened on another node than the one before.
    pub moves: u64,
    /// Commands answered, and answered well.
    pub commands: u64,
    /// Commands answered well.
    pub completed: u64,
    /// Crash of the holder to the first open fence elsewhere, with T_accept.
    pub failovers: Vec<(Duration, Duration)>,
    /// Time without an open fence in planned moves.
    pub handovers: Vec<Duration>,
    /// Seeds that failed.
    pub failed: Vec<u64>,
}

impl Summary {
    /// Adds one run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.schedules += 1;
        match &outcome.result {
            Ok(stats) => {
                self.simulated += stats.simulated;
                self.inputs += stats.inputs;
                self.moves += stats.moves;
                self.commands += stats.commands;
                self.completed += stats.completed;
                self.failovers.extend(stats.failovers.iter().map(|&time| (time, stats.accept)));
                self.handovers.extend(&stats.handovers);
            }
            Err(_) => self.failed.push(outcome.seed),
        }
    }

    /// Median and longest time from a holder's crash to the next open fence,
    /// as multiples of T_accept; `None` without any.
    #[must_use]
    pub fn failover_over_accept(&self) -> Option<(f64, f64)> {
        let mut times: Vec<_> =
            self.failovers.iter().map(|(t, a)| t.as_secs_f64() / a.as_secs_f64()).collect();
        times.sort_unstable_by(f64::total_cmp);
        Some((*times.get(times.len() / 2)?, *times.last()?))
    }

    /// Median and longest time without an open fence in planned moves.
    #[must_use]
    pub fn handover_gap(&self) -> Option<(Duration, Duration)> {
        let mut times = self.handovers.clone();
        times.sort_unstable();
        Some((*times.get(times.len() / 2)?, *times.last()?))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} schedules, {:.0} s simulated, {} inputs, {} moves, {} of {} commands completed",
            self.schedules,
            self.simulated.as_secs_f64(),
            self.inputs,
            self.moves,
            self.completed,
            self.commands,
        )?;
        if let Some((median, max)) = self.failover_over_accept() {
            let count = self.failovers.len();
            write!(f, "\n{count} failovers: median {median:.2}, longest {max:.2} of T_accept")?;
        }
        if let Some((median, max)) = self.handover_gap() {
            let count = self.handovers.len();
            write!(f, "\n{count} handovers: median gap {median:.1?}, longest {max:.1?}")?;
        }
        write!(f, "\n{} failed{}", self.failed.len(), if self.failed.is_empty() { "" } else { ":" })?;
        self.failed.iter().try_for_each(|seed| write!(f, " {seed}"))
    }
}
