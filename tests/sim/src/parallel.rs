//! Many seeds, or broken worlds, on all cores. They know nothing of each other;
//! only the order in which they are reported is kept.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use super::{Outcome, run};

/// Runs `seeds` on every core and hands each outcome to `each`, in the order
/// of the seeds, until all are done or `stop` is set. What has been begun by
/// then is ended and reported.
pub fn run_all(seeds: Range<u64>, stop: &AtomicBool, each: impl FnMut(Outcome)) {
    in_order(seeds, stop, run, each);
}

/// [`run_all`] for any `work` on numbers.
pub(super) fn in_order<T: Send>(
    numbers: Range<u64>,
    stop: &AtomicBool,
    work: impl Fn(u64) -> T + Sync,
    mut each: impl FnMut(T),
) {
    let next = AtomicU64::new(numbers.start);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let (send, done) = mpsc::channel();
        for _ in 0..cores {
            let (send, next, work) = (send.clone(), &next, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end || send.send((number, work(number))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let (mut due, mut waiting) = (numbers.start, BTreeMap::new());
        for (number, result) in done {
            waiting.insert(number, result);
            while let Some(result) = waiting.remove(&due) {
                each(result);
                due += 1;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_reported_once_and_in_order() {
        let mut reported = Vec::new();
        run_all(5..25, &AtomicBool::new(false), |outcome| reported.push(outcome.seed));
        assert_eq!(reported, (5..25).collect::<Vec<_>>());
    }

    #[test]
    fn a_stop_leaves_no_gap() {
        let stop = AtomicBool::new(false);
        let mut reported = Vec::new();
        run_all(0..u64::MAX, &stop, |outcome| {
            reported.push(outcome.seed);
            stop.store(reported.len() >= 6, Ordering::Relaxed);
        });
        assert!(reported.len() >= 6);
        assert_eq!(reported, (0..).take(reported.len()).collect::<Vec<_>>());
    }
}
