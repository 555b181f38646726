//! `cargo xtask sim`: builds, then becomes `vip-sim`, the seeded simulation of
//! the shipped lease loop, which has the arguments (`--seeds N`, `--start S`). It
//! lives in a package of its own. Neither needs anything but cargo.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use crate::{build, place::Place, process};

/// `cargo xtask sim`.
///
/// # Errors
/// When it does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    Err(process::become_program(Command::new(program(place)?).args(args)))
}

/// Runs what fits in a few minutes, always the same seeds, and breaks the world
/// on purpose. Returns whether all were safe and live, and the broken ones noticed.
///
/// # Errors
/// When it does not build or cannot be run.
pub(crate) fn check(place: &Place) -> anyhow::Result<bool> {
    let program = program(place)?;
    let seeds = process::run(Command::new(&program).args(["--seeds", "12000", "--at-most", "3m"]))?;
    Ok(process::run(Command::new(&program).arg("--broken"))?.success() && seeds.success())
}

fn program(place: &Place) -> anyhow::Result<PathBuf> {
    let [program] = build::host_programs(place, "release", [["vip-sim", "vip-sim"]])?;
    Ok(program)
}
