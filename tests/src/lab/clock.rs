//! The lab's only clock, CLOCK_BOOTTIME, which is also the one that leases run
//! on; the wall clock is not used for any measurement.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use vip_common::BootNs;

/// A timespec in nanoseconds; a negative one is 0.
pub(crate) fn timespec_ns(ts: TimeSpec) -> u64 {
    let secs = u64::try_from(ts.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(ts.tv_nsec()).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Now, on CLOCK_BOOTTIME.
#[must_use]
pub fn now() -> BootNs {
    // The call fails only for an unknown clock; every kernel that runs BPF has this one.
    BootNs(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, timespec_ns))
}

/// Sleeps until `at` on CLOCK_BOOTTIME; returns at once if that has passed.
pub fn sleep_until(at: BootNs) {
    let whole = Duration::from_nanos(at.0);
    let request = TimeSpec::from_duration(whole);
    // An absolute deadline makes an interrupted sleep safe to repeat as it is.
    while clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &request)
        == Err(Errno::EINTR)
    {}
}

/// `d` in milliseconds, with the fraction.
#[must_use]
pub fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_until_a_deadline_never_ends_before_it() {
        let deadline = now().plus(Duration::from_millis(5));
        sleep_until(deadline);
        assert!(now() >= deadline);
        // A deadline in the past must not hang.
        sleep_until(BootNs(1));
    }
}
