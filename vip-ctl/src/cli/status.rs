//! `vip-ctl status`.

use super::{Failure, Format, host_name, print, print_json};
use crate::{
    dataplane::DataPlane,
    exit::Exit,
    host::Host,
    paths::Paths,
    report::{Status, text},
};

/// Example: vip-ctl status -o json
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let status = of_maps(paths)?;
    match format {
        Format::Json => print_json(&status)?,
        Format::Text => print(&text(&status)),
    }
    Ok(Exit::Ok)
}

/// The status that the maps alone give.
pub(super) fn of_maps(paths: &Paths) -> Result<Status, Failure> {
    let plane = DataPlane::open(&paths.bpf_dir)?;
    let mut status = Status::of_maps(&plane, &host_name())?;
    status.add_interfaces(&plane, &Host::open(&paths.run_dir)?)?;
    Ok(status)
}
