//! Checks that this process and the BPF helpers read the same clock.

use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions, Xdp},
};
use vip_common::names;

use super::DataPlaneError;
use crate::clock::now;

/// Compares this process's CLOCK_BOOTTIME with the one that BPF programs
/// read, through a test run of the clock program.
///
/// A time namespace shifts the former and not the latter (time_namespaces(7)).
///
/// # Errors
/// [`DataPlaneError::TimeNamespace`] if they differ.
pub fn check(ebpf: &mut Ebpf) -> Result<(), DataPlaneError> {
    let program: &mut Xdp = crate::dataplane::load::program(ebpf, names::PROG_CLOCK)?;
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
