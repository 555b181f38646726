//! `cargo xtask demo`: sets up, builds, then becomes `vip-demo`, which has the
//! arguments and the demo itself. That program lives in the `tests` package,
//! beside the lab: it uses `vip-ctl`'s library, which xtask must do without.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{build, place::Place, process};

/// `cargo xtask demo`.
///
/// # Errors
/// When something is missing, does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let [vip_ctl, vip_demo] = build::lab_program(place, "vip-demo")?;
    Err(process::become_program(Command::new(vip_demo).arg("--vip-ctl").arg(vip_ctl).args(args)))
}
