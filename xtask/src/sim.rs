//! `cargo xtask sim`: sets up, builds, then becomes `vip-sim`, the seeded
//! simulation of the shipped engine, which has the arguments (`--seeds N`,
//! `--start S`). It lives in the `tests` package and uses `vip-ctl`'s library,
//! which xtask must do without.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{
    build::{self, Warnings},
    place::Place,
    process,
    setup::{self, Need},
};

/// `cargo xtask sim`.
///
/// # Errors
/// When something is missing, does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let tools = setup::ensure(place, Need::Build)?;
    build::object(place, &tools, Warnings::Show)?;
    let [vip_sim] = build::host_programs(place, "release", [["vip-tests", "vip-sim"]])?;
    Err(process::become_program(Command::new(vip_sim).args(args)))
}
