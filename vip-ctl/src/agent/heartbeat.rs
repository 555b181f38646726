//! Signs of life of the threads that the watchdog checks besides the lease
//! thread: each records when it was last at work. The daemon reads them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use vip_common::BootNs;

use crate::clock;

/// A thread that the watchdog checks, besides the lease thread.
#[derive(Clone, Copy, Debug)]
pub enum WatchedThread {
    /// The keeper.
    Keeper,
    /// The judge; a node that never holds has none.
    Judge,
}

/// When each was last at work; zero before its first beat. One table for the
/// process, like the watchdog.
static BEATS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Records that this thread is at work, or has nothing to do.
pub fn beat(of: WatchedThread) {
    BEATS[of as usize].store(clock::now().0, Ordering::Relaxed);
}

/// [`beat`] of the keeper.
pub fn keeper_beat() {
    beat(WatchedThread::Keeper);
}

/// When a thread was last at work; zero if it has not begun.
#[must_use]
pub fn last(of: WatchedThread) -> BootNs {
    BootNs(BEATS[of as usize].load(Ordering::Relaxed))
}

/// How long a thread has not been at work.
#[must_use]
pub fn idle_for(of: WatchedThread) -> Duration {
    clock::now().since(last(of))
}
