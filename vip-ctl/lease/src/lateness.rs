//! How late renewals begin: a histogram, and which are late enough for a warning.
//! A lease is renewed r after its last Prepare and lasts T_hold from there, so
//! lateness eats up a margin of T_hold - r.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::{Bounds, Buckets, Histogram};

/// Upper bounds of the buckets, in microseconds; anything later is in no bucket.
pub const BOUNDS_US: Bounds =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000];

/// How many renewals were how late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Lateness {
    /// By bucket, not cumulative; one more than [`BOUNDS_US`] for the rest.
    #[schema(value_type = Vec<u64>)]
    pub counts: Buckets,
    /// The sum of all, in nanoseconds.
    pub sum_ns: u64,
    /// Renewals that began later than half of the margin.
    pub late: u64,
}

impl Lateness {
    /// Takes note of a renewal. Returns whether it was later than half of `margin`.
    pub fn note(&mut self, by: Duration, margin: Duration) -> bool {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.counts.note(us, &BOUNDS_US);
        self.sum_ns = self.sum_ns.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
        let is_late = by > margin / 2;
        self.late += u64::from(is_late);
        is_late
    }

    /// For the metrics.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        Histogram {
            bounds: BOUNDS_US.map(|us| Duration::from_micros(us).as_secs_f64()),
            buckets: self.counts,
            sum: Duration::from_nanos(self.sum_ns).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_falls_into_its_bucket_and_half_the_margin_is_late() {
        let mut lateness = Lateness::default();
        let margin = Duration::from_millis(30);
        assert!(!lateness.note(Duration::from_micros(50), margin));
        assert!(!lateness.note(Duration::from_millis(15), margin));
        assert!(lateness.note(Duration::from_secs(1), margin));
        assert_eq!(lateness.counts.0[0], 1);
        assert_eq!(lateness.counts.0[8], 1);
        assert_eq!(lateness.counts.0[BOUNDS_US.len()], 1);
        assert_eq!((lateness.counts.count(), lateness.late), (3, 1));
        assert_eq!(lateness.sum_ns, 1_015_050_000);
    }
}
