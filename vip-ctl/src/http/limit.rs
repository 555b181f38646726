//! How often a peer may ask: a bucket of tokens for each, refilled by time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Requests per second that a peer may make in the long run.
const PER_SECOND: f64 = 20.0;
/// Requests that a peer may make at once.
const BURST: f64 = 60.0;
/// What a wrong token costs, in requests, besides its own.
pub(super) const WRONG_TOKEN_COST: f64 = 9.0;
/// Peers with buckets of their own; beyond that, the quietest ones are forgotten.
const PEERS_MAX: usize = 1024;

/// One peer's allowance.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refilled(self, now: Instant) -> Self {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        Self { left: (self.left + more).min(BURST), at: now }
    }
}

/// The buckets of all peers; those of the unix socket share one.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    by_peer: Mutex<HashMap<Option<IpAddr>, Bucket>>,
}

impl Buckets {
    /// Takes one request out of a peer's bucket. Returns false if it is empty.
    pub(super) fn take(&self, peer: Option<IpAddr>, now: Instant) -> bool {
        let mut buckets = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= PEERS_MAX && !buckets.contains_key(&peer) {
            forget(&mut buckets, now);
        }
        let bucket = buckets.entry(peer).or_insert(Bucket { left: BURST, at: now });
        *bucket = bucket.refilled(now);
        let may = bucket.left >= 1.0;
        if may {
            bucket.left -= 1.0;
        }
        may
    }

    /// Takes more out of a peer's bucket, below zero if need be.
    pub(super) fn charge(&self, peer: Option<IpAddr>, cost: f64) {
        let mut buckets = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&peer) {
            bucket.left -= cost;
        }
    }
}

/// Makes room: drops full buckets, or else that of the quietest peer.
fn forget(buckets: &mut HashMap<Option<IpAddr>, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| bucket.refilled(now).left < BURST);
    if buckets.len() < PEERS_MAX {
        return;
    }
    let quietest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(peer, _)| *peer);
    if let Some(quietest) = quietest {
        buckets.remove(&quietest);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(0x0a00_0000 + number).into())
    }

    #[test]
    fn a_burst_is_allowed_then_the_rate() {
        let (buckets, start) = (Buckets::default(), Instant::now());
        let at = |seconds| (0..1000).filter(|_| buckets.take(peer(1), start + seconds)).count();
        assert_eq!(at(Duration::ZERO), 60);
        assert_eq!(at(Duration::from_secs(1)), 20);
        assert_eq!(at(Duration::from_secs(3600)), 60, "not more than a burst is saved up");
        assert!(buckets.take(peer(2), start), "another peer has its own");
    }

    #[test]
    fn wrong_tokens_cost_more() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let tries = std::iter::from_fn(|| {
            let may = buckets.take(peer(1), now);
            buckets.charge(peer(1), WRONG_TOKEN_COST);
            may.then_some(())
        });
        assert_eq!(tries.count(), 6);
    }

    #[test]
    fn many_peers_take_no_more_room() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        for number in 0..10_000 {
            assert!(buckets.take(peer(number), now));
        }
        assert!(buckets.by_peer.lock().unwrap().len() <= PEERS_MAX);
    }
}
