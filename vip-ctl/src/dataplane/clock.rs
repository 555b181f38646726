//! CLOCK_BOOTTIME, the only clock there is, and the check that this process
//! and the BPF helpers read the same one.

use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions, Xdp},
};
use nix::time::{ClockId, clock_gettime};
use vip_common::{BootNs, names};

use super::DataPlaneError;

/// The time now.
#[must_use]
pub fn now() -> BootNs {
    // CLOCK_BOOTTIME exists since Linux 2.6.39 and takes no arguments that can be wrong.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME can be read");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    BootNs(seconds * 1_000_000_000 + nanos)
}

/// Is this process in no time namespace that shifts its CLOCK_BOOTTIME, as far
/// as /proc tells? What it can't tell, [`check`] can.
#[must_use]
pub fn is_the_kernels() -> bool {
    // A kernel without time namespaces has no such file.
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    boot_offset(&offsets).is_none_or(|offset| offset == (0, 0))
}

/// The boot clock's offset, in seconds and nanoseconds, in the text of
/// timens_offsets, which has the clocks by name (time_namespaces(7)).
#[must_use]
pub fn boot_offset(text: &str) -> Option<(i64, i64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Compares this process's CLOCK_BOOTTIME with the one that BPF programs
/// read, through a test run of the clock program.
///
/// A time namespace shifts the former and not the latter (time_namespaces(7)).
///
/// # Errors
/// [`DataPlaneError::TimeNamespace`] if they differ.
pub fn check(ebpf: &mut Ebpf) -> Result<(), DataPlaneError> {
    let program: &mut Xdp = super::load::program(ebpf, names::PROG_CLOCK)?;
    let frame = [0_u8; 64];
    let mut out = [0_u8; 64];
    let before = now();
    program
        .test_run(TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::new() })
        .map_err(|e| DataPlaneError::from_source("test-run the clock program".into(), &e))?;
    let after = now();
    let mut word = [0; 8];
    word.copy_from_slice(&out[..8]);
    let kernel = u64::from_ne_bytes(word);
    if (before.0..=after.0).contains(&kernel) {
        return Ok(());
    }
    Err(DataPlaneError::TimeNamespace { off_by_ns: i128::from(before.0) - i128::from(kernel) })
}
