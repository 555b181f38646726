//! Limits that keep a flood of one peer's datagrams cheap: how many of those that
//! cost a key derivation are checked, how many challenges are answered, and which
//! were checked before. It knows nothing of keys and sends nothing.
//!
//! There is no limit for payloads of an adopted incarnation: each costs one tag,
//! and dropping one unseen could cost a lease.

use std::{collections::VecDeque, time::Duration};

use vip_common::BootNs;

use super::header::{Header, Kind};
use crate::mutant::{self, Mutant};

/// How often at most, in the long run, this node answers a peer's challenges. A
/// peer sends at most one each [`super::handshake::CHALLENGE_GAP_MIN`].
pub const RESPONSE_GAP: Duration = Duration::from_millis(10);
/// How many challenges this node answers at once after a calm.
pub const RESPONSE_BURST: u32 = 16;
/// The same for challenges and responses that need a key derivation, of each
/// kind.
const HANDSHAKE_GAP: Duration = Duration::from_millis(5);
const HANDSHAKE_BURST: u32 = 32;
/// The same for payloads of an incarnation that is not adopted: they only show
/// that there is one, and a busy peer sends a thousand a second.
const EVIDENCE_GAP: Duration = super::handshake::CHALLENGE_GAP_MIN;
const EVIDENCE_BURST: u32 = 4;
/// How many incarnations of a peer this node remembers by their last datagram.
const LIVES_MAX: usize = 24;

/// A token bucket: this many at once, and then one in each gap.
#[derive(Debug)]
struct Bucket {
    gap: Duration,
    burst: u32,
    /// When it is full again.
    full_at: BootNs,
}

impl Bucket {
    const fn new(gap: Duration, burst: u32) -> Self {
        Self { gap, burst, full_at: BootNs(0) }
    }

    /// Takes one; false if there is none left at `now`.
    fn take(&mut self, now: BootNs) -> bool {
        let full_at = self.full_at.max(now).plus(self.gap);
        let fits = full_at.since(now) <= self.gap * self.burst;
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

/// The last genuine datagram of a kind from an incarnation of a peer.
#[derive(Debug)]
struct Heard {
    kind: Kind,
    incarnation: u64,
    counter: u64,
}

/// The limits of one peer.
#[derive(Debug)]
pub(super) struct Limits {
    answers: Bucket,
    /// The limits by kind: many of one kind must not keep out another.
    challenges: Bucket,
    responses: Bucket,
    evidence: Bucket,
    /// The one heard last is in front.
    heard: VecDeque<Heard>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answers: Bucket::new(RESPONSE_GAP, RESPONSE_BURST),
            challenges: Bucket::new(HANDSHAKE_GAP, HANDSHAKE_BURST),
            responses: Bucket::new(HANDSHAKE_GAP, HANDSHAKE_BURST),
            evidence: Bucket::new(EVIDENCE_GAP, EVIDENCE_BURST),
            heard: VecDeque::new(),
        }
    }
}

impl Limits {
    /// May a challenge be answered at `now`?
    pub(super) fn may_respond(&mut self, now: BootNs) -> bool {
        self.answers.take(now)
    }

    /// May this node derive a key at `now`, to see whether a datagram of this
    /// kind is genuine?
    pub(super) fn may_derive(&mut self, kind: Kind, now: BootNs) -> bool {
        match kind {
            _ if mutant::is(Mutant::OneLimit) => self.evidence.take(now),
            Kind::Challenge => self.challenges.take(now),
            Kind::Response => self.responses.take(now),
            Kind::Data => self.evidence.take(now),
        }
    }

    /// Has this node checked this datagram before, or a later one of its kind? A
    /// sender's counter only rises, so there is nothing new in it.
    pub(super) fn is_old(&self, header: &Header) -> bool {
        self.place(header).is_some_and(|place| header.counter <= self.heard[place].counter)
    }

    /// Takes note of a genuine datagram.
    pub(super) fn note(&mut self, header: &Header) {
        if let Some(place) = self.place(header) {
            self.heard.remove(place);
        }
        self.heard.truncate(LIVES_MAX - 1);
        let Header { kind, src_incarnation, counter, .. } = *header;
        self.heard.push_front(Heard { kind, incarnation: src_incarnation, counter });
    }

    fn place(&self, header: &Header) -> Option<usize> {
        let is_it = |heard: &Heard| (heard.kind, heard.incarnation) == (header.kind, header.src_incarnation);
        self.heard.iter().position(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: BootNs = BootNs(1_000_000_000);

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_in_each_gap() {
        let mut bucket = Bucket::new(Duration::from_millis(10), 3);
        assert_eq!((0..10).filter(|_| bucket.take(T0)).count(), 3);
        let later = T0.plus(Duration::from_millis(10));
        assert_eq!((0..10).filter(|_| bucket.take(later)).count(), 1);
        // However long the calm, no more than the burst.
        let much_later = T0.plus(Duration::from_secs(3600));
        assert_eq!((0..10).filter(|_| bucket.take(much_later)).count(), 3);
    }

    #[test]
    fn what_a_life_has_said_is_old_in_that_life_and_kind_alone() {
        let header = |kind, life, counter| Header {
            kind,
            key: super::super::KeyId::FIRST,
            src: 0,
            dst: 1,
            is_member: true,
            config_digest: 0,
            generation: 1,
            nodes_digest: 0,
            src_incarnation: life,
            dst_incarnation: 0,
            counter,
        };
        let mut limits = Limits::default();
        limits.note(&header(Kind::Challenge, 7, 5));
        assert!(
            limits.is_old(&header(Kind::Challenge, 7, 5)) && limits.is_old(&header(Kind::Challenge, 7, 4))
        );
        assert!(!limits.is_old(&header(Kind::Challenge, 7, 6)));
        assert!(
            !limits.is_old(&header(Kind::Response, 7, 5)) && !limits.is_old(&header(Kind::Challenge, 8, 5))
        );
        // What was heard last is known longest, and no more of it than fits.
        for life in 100..200 {
            limits.note(&header(Kind::Challenge, life, 1));
        }
        assert_eq!(limits.heard.len(), LIVES_MAX);
        assert!(
            !limits.is_old(&header(Kind::Challenge, 7, 5)) && limits.is_old(&header(Kind::Challenge, 199, 1))
        );
    }
}
