//! `vip-ctl metrics`.

use super::{Failure, print, status};
use crate::{exit::Exit, metrics, paths::Paths};

/// Example: vip-ctl metrics
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, paths: &Paths) -> Result<Exit, Failure> {
    let status = status::read(paths)?;
    let text = metrics::text(&status)
        .map_err(|e| Failure::new(Exit::Software, format!("could not write the metrics: {e}")))?;
    print(&text);
    Ok(Exit::Ok)
}
