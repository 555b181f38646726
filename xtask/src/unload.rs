//! `cargo xtask unload`: builds, then becomes `vip-ctl unload`, whose arguments
//! it passes on as they are.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use crate::{build, place::Place, process};

/// `cargo xtask unload`.
///
/// # Errors
/// When something does not build or cannot be run.
pub(crate) fn run(place: &Place, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let vip_ctl = build::vip_ctl(place)?;
    Err(process::become_program(Command::new(vip_ctl).arg("unload").args(args)))
}
