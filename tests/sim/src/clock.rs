//! The simulated world's true time, and the clocks that nodes have instead.

use std::time::Duration;

use vip_common::BootNs;

/// True time since the beginning of a simulation, in nanoseconds. No node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimNs(pub u64);

impl SimNs {
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds. Simulations are short.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const MILLION: i64 = 1_000_000;

/// One node's CLOCK_BOOTTIME: its own zero, its own rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it shows at true time 0; negative for a host that booted later.
    offset: i64,
    /// How much too fast it runs, in parts per million.
    ppm: i64,
}

impl Clock {
    /// A clock that shows `shows` at true time `at`.
    pub fn new(at: SimNs, shows: BootNs, ppm: i64) -> Self {
        Self { offset: signed(shows.0) - scaled(at, ppm), ppm }
    }

    /// What it shows at true time `at`.
    pub fn at(&self, at: SimNs) -> BootNs {
        BootNs(u64::try_from(self.offset + scaled(at, self.ppm)).unwrap_or(0))
    }

    /// The first moment of true time at which it shows `shows` or more.
    pub fn when(&self, shows: BootNs) -> SimNs {
        let elapsed = (signed(shows.0) - self.offset).max(0) * MILLION;
        let rate = MILLION + self.ppm;
        SimNs(u64::try_from((elapsed + rate - 1) / rate).unwrap_or(u64::MAX))
    }
}

/// Simulations last minutes: products with a million fit.
fn scaled(at: SimNs, ppm: i64) -> i64 {
    signed(at.0) * (MILLION + ppm) / MILLION
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_shows_a_moment_first_when_it_says_so() {
        for ppm in [-250_000, -500, 0, 500, 99_999] {
            let clock = Clock::new(SimNs(777), BootNs(5_000_000_000), ppm);
            assert_eq!(clock.at(SimNs(777)), BootNs(5_000_000_000));
            for shows in [5_000_000_001, 5_123_456_789, 9_000_000_007] {
                let when = clock.when(BootNs(shows));
                assert!(clock.at(when).0 >= shows, "{ppm} {shows}");
                assert!(clock.at(SimNs(when.0 - 1)).0 < shows, "{ppm} {shows}");
            }
        }
    }
}
