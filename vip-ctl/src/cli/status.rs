//! `vip-ctl status`.

use super::support::{
    client,
    output::{Failure, Format, host_name, print, print_json},
};
use crate::{
    agent::control::{Request, Response},
    dataplane::{DataPlane, DataPlaneError},
    exit::Exit,
    host::Host,
    paths::Paths,
    report::{Status, text},
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl status\n  vip-ctl status -o json")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let mut status = read(paths)?;
    if let Err(e @ DataPlaneError::Layout { .. }) = DataPlane::open(&paths.bpf_dir) {
        // An agent of an earlier version does not know that.
        status.warnings.push(e.to_string());
    }
    match format {
        Format::Json => print_json(&status)?,
        Format::Text => print(&text(&status)),
    }
    Ok(Exit::Ok)
}

/// The agent's status if one runs and answers; otherwise the status from the maps
/// alone.
pub(super) fn read(paths: &Paths) -> Result<Status, Failure> {
    match client::ask(paths, &Request::Status) {
        Ok(Some(Response::Status(status))) => Ok(*status),
        Ok(Some(_)) => Err(client::strange()),
        Ok(None) => of_maps(paths),
        // The maps show what the kernel does, whatever the state of the agent.
        Err(failure) if failure.exit == Exit::Timeout => {
            let mut status = of_maps(paths)?;
            status.warnings.push(format!("{}; this is the status from the maps alone", failure.message));
            Ok(status)
        }
        Err(failure) => Err(failure),
    }
}

/// The status from the maps alone.
pub(super) fn of_maps(paths: &Paths) -> Result<Status, Failure> {
    let plane = DataPlane::open(&paths.bpf_dir)?;
    let mut status = Status::of_maps(&plane, &host_name())?;
    status.add_interfaces(&plane, &Host::open(&paths.run_dir)?)?;
    Ok(status)
}
