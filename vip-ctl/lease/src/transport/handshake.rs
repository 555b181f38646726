//! When to challenge one peer, and with which nonce: the state machine that turns
//! evidence of a new incarnation into a proof of it. It seals and sends nothing,
//! and knows nothing of keys.
//!
//! ```text
//!            evidence or not adopted               nonce echoed,
//!   quiet ─────────────────────────► outstanding ─────────────────► quiet
//!     ▲                                │      ▲    no doubt since
//!     │                                └──────┘
//!     │                        again, every CHALLENGE_RETRY
//!     └ nonce echoed, but evidence since it was drawn: challenge afresh
//! ```
//!
//! One nonce is outstanding at a time and stays until it is echoed. So a
//! response proves that its incarnation was alive after the nonce was drawn,
//! however long the round trip is, and a recorded one proves nothing at all.

use std::time::Duration;

use vip_common::BootNs;

use crate::mutant::{self, Mutant};

/// How often a challenge is repeated while nobody answers it.
pub const CHALLENGE_RETRY: Duration = Duration::from_millis(100);
/// The shortest time between two challenges to one peer, however much evidence
/// there is: it limits what a flood of recorded datagrams can make a node send.
pub const CHALLENGE_GAP_MIN: Duration = Duration::from_millis(10);

/// What a challenge carries and its response echoes.
pub(super) type ChallengeNonce = [u8; 16];

/// The state of the challenge to one peer.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Drawn, sent at least once, and not echoed yet.
    outstanding: Option<ChallengeNonce>,
    /// When the last challenge was sent.
    sent_at: Option<BootNs>,
    /// Has there been evidence of an unknown incarnation since the last challenge
    /// was sent?
    hurry: bool,
    /// Has there been such evidence since the outstanding nonce was drawn? An
    /// echo of that nonce may then come from an incarnation that has ended since.
    doubt: bool,
}

impl Handshake {
    /// Something genuine came from an incarnation that is not the adopted one.
    pub(super) const fn suspect(&mut self) {
        self.hurry = true;
        self.doubt = true;
    }

    /// When to send the next challenge; `None` while there is no need for one.
    pub(super) fn due(&self, adopted: bool) -> Option<BootNs> {
        if adopted && self.outstanding.is_none() && !self.doubt {
            return None;
        }
        let wait = if self.hurry { CHALLENGE_GAP_MIN } else { CHALLENGE_RETRY };
        Some(self.sent_at.map_or(BootNs(0), |sent_at| sent_at.plus(wait)))
    }

    /// Returns the nonce of a challenge that is sent at `now`.
    pub(super) fn send(&mut self, now: BootNs, draw: impl FnOnce() -> ChallengeNonce) -> ChallengeNonce {
        self.sent_at = Some(now);
        self.hurry = false;
        *self.outstanding.get_or_insert_with(|| {
            self.doubt = false;
            draw()
        })
    }

    /// A genuine response echoed `nonce`: true if that is the outstanding one.
    pub(super) fn echoed(&mut self, nonce: &[u8]) -> bool {
        let matches = self.outstanding.is_some_and(|outstanding| outstanding == *nonce);
        if matches {
            self.outstanding = self.outstanding.filter(|_| mutant::is(Mutant::EchoTwice));
            self.hurry = self.doubt;
            self.doubt &= !mutant::is(Mutant::NoDoubtLeft);
        }
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: BootNs = BootNs(1_000_000_000);

    #[test]
    fn a_peer_not_adopted_is_challenged_at_once_and_then_at_the_retry_interval() {
        let mut handshake = Handshake::default();
        assert_eq!(handshake.due(false), Some(BootNs(0)));
        assert_eq!(handshake.send(T0, || [1; 16]), [1; 16]);
        assert_eq!(handshake.due(false), Some(T0.plus(CHALLENGE_RETRY)));
        assert_eq!(handshake.send(T0.plus(CHALLENGE_RETRY), || [2; 16]), [1; 16], "the nonce stays");
    }

    #[test]
    fn an_echo_ends_it_and_counts_once() {
        let mut handshake = Handshake::default();
        handshake.send(T0, || [1; 16]);
        assert!(!handshake.echoed(&[2; 16]));
        assert!(!handshake.echoed(&[1; 15]));
        assert!(handshake.echoed(&[1; 16]));
        assert_eq!(handshake.due(true), None);
        assert!(!handshake.echoed(&[1; 16]));
    }

    #[test]
    fn evidence_hurries_but_not_below_the_gap() {
        let mut handshake = Handshake::default();
        handshake.send(T0, || [1; 16]);
        assert!(handshake.echoed(&[1; 16]));
        handshake.suspect();
        assert_eq!(handshake.due(true), Some(T0.plus(CHALLENGE_GAP_MIN)));
    }

    #[test]
    fn evidence_after_the_nonce_was_drawn_asks_for_a_fresh_one() {
        let mut handshake = Handshake::default();
        handshake.send(T0, || [1; 16]);
        handshake.suspect();
        handshake.send(T0.plus(CHALLENGE_GAP_MIN), || [2; 16]);
        assert!(handshake.echoed(&[1; 16]));
        assert_eq!(handshake.due(true), Some(T0.plus(CHALLENGE_GAP_MIN).plus(CHALLENGE_GAP_MIN)));
        assert_eq!(handshake.send(T0.plus(CHALLENGE_RETRY), || [2; 16]), [2; 16]);
        assert!(handshake.echoed(&[2; 16]));
        assert_eq!(handshake.due(true), None);
    }
}
