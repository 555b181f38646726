//! From single runs to a verdict, by `rise` and `fall`. No clock and no IO.

use crate::mutant::{self, Mutant};

/// The runs of one check so far.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    rise: u32,
    fall: u32,
    passes: Option<bool>,
    /// Runs in a row that contradict the verdict.
    against: u32,
}

impl Verdict {
    /// Before the first run.
    #[must_use]
    pub const fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, passes: None, against: 0 }
    }

    /// Takes note of a run. Returns the verdict if it is a new one.
    ///
    /// The first run that passes is enough for the first verdict: nothing has
    /// failed that would have to prove itself. A failure needs all of `fall`,
    /// also at first: an agent that has just been replaced must not give up a
    /// lease that its predecessor had good reason to keep.
    pub fn note(&mut self, passed: bool) -> Option<bool> {
        let needed = match (self.passes, passed) {
            (None, true) => 1,
            (Some(true), true) | (Some(false), false) => {
                self.against *= u32::from(mutant::is(Mutant::FailuresAddUp) && passed);
                return None;
            }
            (None, false) if mutant::is(Mutant::FirstFails) => 1,
            (Some(false), true) => self.rise - u32::from(mutant::is(Mutant::RisesEarly)),
            (None | Some(true), false) => self.fall - u32::from(mutant::is(Mutant::FallsEarly)),
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.passes = Some(passed);
        self.passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rise: u32, fall: u32, runs: &str) -> String {
        let mut verdict = Verdict::new(rise, fall);
        let told = runs.chars().map(|run| match verdict.note(run == '+') {
            None => '.',
            Some(true) => '+',
            Some(false) => '-',
        });
        told.collect()
    }

    #[test]
    fn the_first_pass_counts_and_failures_count_in_rows() {
        assert_eq!(told(2, 3, "+++"), "+..");
        assert_eq!(told(2, 3, "+--+--+---"), "+........-");
        assert_eq!(told(2, 3, "+----+-++--+---"), "+..-....+.....-");
        assert_eq!(told(1, 1, "+-+-"), "+-+-");
    }

    #[test]
    fn the_first_failures_need_all_of_fall() {
        assert_eq!(told(2, 3, "--+"), "..+");
        assert_eq!(told(2, 3, "---++"), "..-.+");
    }
}
