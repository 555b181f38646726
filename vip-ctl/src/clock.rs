//! CLOCK_BOOTTIME, the only clock that the agent uses. The BPF helpers read the
//! same one.

use nix::time::{ClockId, clock_gettime};
use vip_common::BootNs;

/// The time now.
#[must_use]
pub fn now() -> BootNs {
    // CLOCK_BOOTTIME exists since Linux 2.6.39, and the call has no argument that
    // can be wrong.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME can be read");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    BootNs(seconds * 1_000_000_000 + nanos)
}

/// Does no time namespace shift this process's CLOCK_BOOTTIME, as far as /proc
/// tells? What /proc can't tell, the data plane's test run of the clock program
/// can.
#[must_use]
pub fn is_the_kernels() -> bool {
    // A kernel without time namespaces has no such file.
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    boot_offset(&offsets).is_none_or(|offset| offset == (0, 0))
}

/// The boot clock's offset, in seconds and nanoseconds, from the text of
/// timens_offsets, which lists the clocks by name (time_namespaces(7)).
#[must_use]
pub fn boot_offset(text: &str) -> Option<(i64, i64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
