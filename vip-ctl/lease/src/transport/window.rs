//! The sliding window that accepts every counter once. The caller shows it only
//! counters of datagrams whose tag is right.

use crate::mutant::{self, Mutant};

/// How far behind the highest counter a datagram may arrive and still be accepted.
pub const WINDOW_LEN: u64 = 128;

/// Which counters were seen: bit `i` of `seen` stands for `highest - i`.
#[derive(Debug)]
pub(super) struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    /// A window in which `counter` and all below it count as seen.
    pub(super) fn starting_after(counter: u64) -> Self {
        Self { highest: counter, seen: if mutant::is(Mutant::WindowEmpty) { 0 } else { u128::MAX } }
    }

    /// The highest counter that was seen.
    pub(super) const fn highest(&self) -> u64 {
        self.highest
    }

    /// Was `counter` seen before, or is it too old to tell?
    pub(super) fn has(&self, counter: u64) -> bool {
        if counter > self.highest {
            return false;
        }
        let behind = self.highest - counter;
        behind >= WINDOW_LEN - u64::from(mutant::is(Mutant::WindowShort)) || self.seen & (1 << behind) != 0
    }

    /// Takes note of `counter`; false if it was seen before, or is too old to tell.
    pub(super) fn accept(&mut self, counter: u64) -> bool {
        if self.has(counter) {
            return false;
        }
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.seen = if ahead >= WINDOW_LEN { 1 } else { (self.seen << ahead) | 1 };
            self.highest = counter;
        } else {
            self.seen |= 1 << (self.highest - counter);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_up_to_the_start_is_seen() {
        let mut window = Window::starting_after(1_000);
        assert!((0..=1_000).all(|counter| !window.accept(counter)));
        assert!(window.accept(1_001));
    }

    #[test]
    fn reordering_is_accepted_up_to_the_very_edge() {
        let mut window = Window::starting_after(0);
        assert!(window.accept(WINDOW_LEN + 1));
        assert!(!window.accept(1), "one too old");
        assert!(window.accept(2), "the oldest that the window can tell");
        assert!(!window.accept(2));
    }

    #[test]
    fn a_jump_over_the_whole_window_forgets_nothing_newer() {
        for ahead in [WINDOW_LEN - 1, WINDOW_LEN, WINDOW_LEN + 1, u64::MAX - 5] {
            let mut window = Window::starting_after(5);
            assert!(window.accept(5 + ahead));
            assert!(!window.accept(5 + ahead));
            assert!(window.accept(5 + ahead - 1));
            assert!(!window.accept(5));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_that_forgets_what_is_too_old(
            counters in prop::collection::vec(0_u64..600, 1..400)
        ) {
            let mut window = Window::starting_after(0);
            let mut seen = BTreeSet::from([0]);
            let mut highest = 0;
            for counter in counters {
                let expected = highest < WINDOW_LEN.saturating_add(counter) && !seen.contains(&counter);
                prop_assert_eq!(window.has(counter), !expected);
                prop_assert_eq!(window.accept(counter), expected, "counter {} at {}", counter, highest);
                if expected {
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
