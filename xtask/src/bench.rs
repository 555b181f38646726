//! `cargo xtask bench`: sets up, builds, then becomes `vip-bench`, which has
//! the arguments and measures. That program lives in the `tests` package,
//! beside the lab that it runs in.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{build, place::Place, process};

/// `cargo xtask bench`.
///
/// # Errors
/// When something is missing, does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let [vip_ctl, vip_bench] = build::lab_program(place, "vip-bench")?;
    let mut command = Command::new(vip_bench);
    command.args(args);
    // Without a subcommand it prints its help.
    if !args.is_empty() && !args.iter().any(|arg| arg == "--help" || arg == "-h") {
        command.arg("--vip-ctl").arg(vip_ctl);
    }
    Err(process::become_program(&mut command))
}
