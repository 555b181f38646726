//! The sum of many runs: for a person to read, and as JSON for the record.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::Outcome;

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
    /// Commands answered, well or with a refusal.
    pub commands: u64,
    /// Commands answered well.
    pub completed: u64,
    /// Crash of the holder to the first open fence elsewhere, with T_accept.
    pub failovers: Vec<(Duration, Duration)>,
    /// Time without an open fence in planned moves, with T_accept.
    pub handovers: Vec<(Duration, Duration)>,
    /// Seeds that failed, with what was violated.
    pub failed: Vec<(u64, String)>,
}

/// How values are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// Half are no larger.
    pub median: f64,
    /// 90 % are no larger.
    pub p90: f64,
    /// 99 % are no larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The distribution of these values; `None` without any.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        // The nearest rank: the smallest value that enough others don't exceed.
        let rank = |per_cent: usize| values[(values.len() * per_cent).div_ceil(100).max(1) - 1];
        Some(Self { count: values.len(), min, median: rank(50), p90: rank(90), p99: rank(99), max })
    }

    /// In milliseconds.
    fn ms(times: &[(Duration, Duration)]) -> Option<Self> {
        Self::of(times.iter().map(|(time, _)| time.as_secs_f64() * 1e3).collect())
    }

    /// In multiples of T_accept.
    fn leases(times: &[(Duration, Duration)]) -> Option<Self> {
        Self::of(times.iter().map(|(time, accept)| time.as_secs_f64() / accept.as_secs_f64()).collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, p90, p99, max, .. } = self;
        write!(f, "min {min:.2}, median {median:.2}, p90 {p90:.2}, p99 {p99:.2}, max {max:.2}")
    }
}

/// What [`Summary`] looks like as JSON.
#[derive(Serialize)]
struct Record<'a> {
    schedules: u64,
    simulated_hours: f64,
    inputs: u64,
    moves: u64,
    commands: u64,
    commands_completed: u64,
    failover_ms: Option<Spread>,
    failover_leases: Option<Spread>,
    handover_ms: Option<Spread>,
    handover_leases: Option<Spread>,
    failed: &'a [(u64, String)],
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
                self.handovers.extend(stats.handovers.iter().map(|&time| (time, stats.accept)));
            }
            Err(failure) => self.failed.push((outcome.seed, failure.violation.to_string())),
        }
    }

    /// The summary as JSON, with a line break at its end. Times are in
    /// milliseconds and in multiples of T_accept.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let record = Record {
            schedules: self.schedules,
            simulated_hours: self.hours(),
            inputs: self.inputs,
            moves: self.moves,
            commands: self.commands,
            commands_completed: self.completed,
            failover_ms: Spread::ms(&self.failovers),
            failover_leases: Spread::leases(&self.failovers),
            handover_ms: Spread::ms(&self.handovers),
            handover_leases: Spread::leases(&self.handovers),
            failed: &self.failed,
        };
        serde_json::to_string_pretty(&record).map(|json| json + "\n")
    }

    fn hours(&self) -> f64 {
        self.simulated.as_secs_f64() / 3600.0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, inputs, moves, completed, commands, .. } = self;
        write!(
            f,
            "{schedules} schedules, {:.2} h simulated, {inputs} inputs, {moves} moves, ",
            self.hours()
        )?;
        write!(f, "{completed} of {commands} commands completed")?;
        for (what, times) in [("failovers", &self.failovers), ("handovers", &self.handovers)] {
            if let (Some(leases), Some(ms)) = (Spread::leases(times), Spread::ms(times)) {
                write!(f, "\n{} {what}, leases: {leases}", leases.count)?;
                write!(f, "\n{} {what}, ms:     {ms}", ms.count)?;
            }
        }
        write!(f, "\n{} failed", self.failed.len())?;
        self.failed.iter().try_for_each(|(seed, why)| write!(f, "\n  seed {seed}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_by_nearest_rank() {
        assert_eq!(Spread::of(Vec::new()), None);
        let one = Spread::of(vec![7.0]).expect("a value");
        assert_eq!((one.min, one.median, one.p90, one.p99, one.max), (7.0, 7.0, 7.0, 7.0, 7.0));
        let hundred = Spread::of((1..=100).rev().map(f64::from).collect()).expect("values");
        assert_eq!((hundred.min, hundred.median, hundred.p90), (1.0, 50.0, 90.0));
        assert_eq!((hundred.p99, hundred.max, hundred.count), (99.0, 100.0, 100));
    }
}
