//! `cargo xtask model`: builds, then becomes `vip-model`, the exhaustive check
//! of the shipped engine and of its mutants. It lives in a package of its own;
//! the feature `mutants`, which it needs, is in nothing that ships.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use crate::{build, place::Place, process};

/// `cargo xtask model`.
///
/// # Errors
/// When it does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    Err(process::become_program(Command::new(program(place)?).args(args)))
}

/// Runs the check as it is by default. Returns whether it passed.
///
/// # Errors
/// When it does not build or cannot be run.
pub(crate) fn check(place: &Place) -> anyhow::Result<bool> {
    Ok(process::run(&mut Command::new(program(place)?))?.success())
}

fn program(place: &Place) -> anyhow::Result<PathBuf> {
    let programs = [["vip-model", "vip-model"]];
    let [program] = build::host_programs_with(place, "release", programs, &["mutants"])?;
    Ok(program)
}
