//! Frames per second of each VIP, from the counters of successive statuses.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use vip_common::counter::COUNTERS;

use crate::{dataplane::observe::counter_name, report::Status};

/// The shortest span that a rate is taken over: shorter ones jump about.
const SPAN: Duration = Duration::from_secs(1);
/// Rates that it keeps; no terminal is wider.
const KEPT: usize = 240;

/// Frames of one VIP, or frames per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// IP packets that were passed, either way.
    pub(super) passed: u64,
    /// Frames that were dropped, of any kind.
    pub(super) dropped: u64,
}

impl Frames {
    fn of(counters: &BTreeMap<String, u64>) -> Self {
        let mut frames = Self::default();
        for counter in COUNTERS {
            let count = counters.get(&counter_name(*counter)).copied().unwrap_or(0);
            match (counter.class(), counter.verdict()) {
                (_, "drop") => frames.dropped = frames.dropped.saturating_add(count),
                ("ip_in" | "ip_out" | "ip_local", "pass") => {
                    frames.passed = frames.passed.saturating_add(count);
                }
                // ARP is not traffic of a service.
                _ => {}
            }
        }
        frames
    }
}

/// One VIP's last count and its rates, oldest first.
#[derive(Debug)]
struct Series {
    counted: Frames,
    rates: VecDeque<Frames>,
}

/// The rates of every VIP.
#[derive(Debug, Default)]
pub(super) struct Rates {
    at: Option<Instant>,
    by_vip: BTreeMap<String, Series>,
}

impl Rates {
    /// Takes note of a status that was read at `now`.
    pub(super) fn note(&mut self, status: &Status, now: Instant) {
        let span = self.at.map(|at| now.saturating_duration_since(at));
        if span.is_some_and(|span| span < SPAN) {
            return;
        }
        self.at = Some(now);
        let mut by_vip = BTreeMap::new();
        for vip in status.groups.iter().flat_map(|group| &group.vips) {
            let counted = Frames::of(&vip.counters);
            let mut rates = VecDeque::new();
            if let (Some(before), Some(span)) = (self.by_vip.remove(&vip.address), span) {
                rates = before.rates;
                rates.push_back(Frames {
                    passed: per_second(before.counted.passed, counted.passed, span),
                    dropped: per_second(before.counted.dropped, counted.dropped, span),
                });
                while rates.len() > KEPT {
                    rates.pop_front();
                }
            }
            by_vip.insert(vip.address.clone(), Series { counted, rates });
        }
        self.by_vip = by_vip;
    }

    /// The last rate of a VIP; `None` until there are two statuses.
    pub(super) fn last(&self, vip: &str) -> Option<Frames> {
        self.by_vip.get(vip)?.rates.back().copied()
    }

    /// The last `len` rates of a VIP, oldest first.
    pub(super) fn history(&self, vip: &str, len: usize) -> Vec<Frames> {
        let Some(series) = self.by_vip.get(vip) else { return Vec::new() };
        series.rates.iter().skip(series.rates.len().saturating_sub(len)).copied().collect()
    }
}

/// A rate, rounded up, so that one frame is not none. Counters that are lower
/// than before were made anew.
fn per_second(before: u64, after: u64, span: Duration) -> u64 {
    let frames = u128::from(after.saturating_sub(before));
    let rate = (frames * 1_000_000).div_ceil(span.as_micros().max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{GroupStatus, VipStatus};

    fn status(passed: u64, dropped: u64) -> Status {
        let counters = [("ip_in_pass_lease", passed), ("arp_request_drop_expired", dropped)];
        let counters = counters.map(|(name, count)| (name.to_owned(), count)).into();
        let vips = vec![VipStatus { address: "10.0.1.12".into(), counters, ..VipStatus::default() }];
        let group = GroupStatus { vips, ..super::super::tests::group("db", "active") };
        Status { groups: vec![group], ..Status::default() }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        rates.note(&status(1000, 0), start);
        assert_eq!(rates.last("10.0.1.12"), None, "one status is no rate");
        rates.note(&status(1100, 9), start + SPAN / 2);
        assert_eq!(rates.last("10.0.1.12"), None, "too soon");
        rates.note(&status(1500, 9), start + SPAN * 2);
        assert_eq!(rates.last("10.0.1.12"), Some(Frames { passed: 250, dropped: 5 }));
        rates.note(&status(3, 0), start + SPAN * 3);
        assert_eq!(rates.last("10.0.1.12"), Some(Frames::default()), "the maps were made anew");
        assert_eq!(rates.history("10.0.1.12", 10).len(), 2);
        assert_eq!(rates.history("10.0.1.13", 10), []);
    }
}
