//! Machines that are slower than those that the lab's bounds are made for, such as
//! emulated ones. What is judged stays the same; what only waits, waits longer.

use std::sync::LazyLock;
use std::time::Duration;

/// How many times slower this machine is, as a whole number.
pub const SLOW_ENV: &str = "VIP_LAB_SLOW";

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let said = std::env::var(SLOW_ENV).ok().and_then(|said| said.parse().ok());
    said.unwrap_or(1).max(1)
});

/// How many of `sent` probes may be lost here while nothing happens: none on a usual
/// machine. On a slower one an agent that starts keeps client and holder from running.
#[must_use]
pub fn excused(sent: usize) -> usize {
    if factor() > 1 { sent / 2 } else { 0 }
}

/// How many times slower this machine is; 1 on a usual one.
#[must_use]
pub fn factor() -> u32 {
    *FACTOR
}

/// How long to wait here for what takes up to `patience` on a usual machine.
#[must_use]
pub fn patient(patience: Duration) -> Duration {
    patience * factor()
}
