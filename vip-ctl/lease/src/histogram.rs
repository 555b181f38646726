//! The one histogram of what an agent counts: how often something took how
//! long, by buckets with upper bounds.

use serde::{Deserialize, Serialize};

/// Buckets that have an upper bound.
pub const BOUNDED: usize = 12;
/// Upper bounds of buckets, rising, in whatever unit is counted in.
pub type Bounds = [u64; BOUNDED];

/// How many fell into each bucket, not cumulative; the last is for what is
/// beyond all bounds. In JSON it is the list of its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Buckets(pub [u64; BOUNDED + 1]);

impl Buckets {
    /// One more: a value that is equal to a bound belongs into its bucket.
    pub fn note(&mut self, value: u64, bounds: &Bounds) {
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(BOUNDED);
        self.0[bucket] += 1;
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Everything that is told of it. Whoever counts keeps the buckets and the sum
/// beside each other, under the names and in the units of its own JSON.
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    /// Upper bounds of the buckets, in seconds.
    pub bounds: [f64; BOUNDED],
    /// How many fell into each.
    pub buckets: Buckets,
    /// The sum of all values, in seconds.
    pub sum: f64,
}
