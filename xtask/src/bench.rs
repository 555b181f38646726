//! `cargo xtask bench`: sets up, builds, then becomes `vip-bench`, which has
//! the arguments and measures. That program lives in the `tests` package,
//! beside the lab that it runs in.

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

/// `cargo xtask bench`.
///
/// # Errors
/// When something is missing, does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let tools = setup::ensure(place, Need::Lab)?;
    build::object(place, &tools, Warnings::Show)?;
    let [vip_ctl, vip_bench] =
        build::host_programs(place, "release", [["vip-ctl", "vip-ctl"], ["vip-tests", "vip-bench"]])?;
    let mut command = Command::new(vip_bench);
    command.args(args);
    // Without a subcommand it says what there is.
    if !args.is_empty() && !args.iter().any(|arg| arg == "--help" || arg == "-h") {
        command.arg("--vip-ctl").arg(vip_ctl);
    }
    Err(process::become_program(&mut command))
}
