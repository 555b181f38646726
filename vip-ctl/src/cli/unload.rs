//! `vip-ctl unload`: everything off this host, and the host as it was.

use super::{Failure, Format, print, print_json};
use crate::{exit::Exit, lock::Lock, node::tear_down, paths::Paths};

/// Example: vip-ctl unload
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let _lock = Lock::take(paths, false)?;
    let was_loaded = paths.bpf_dir.exists();
    tear_down(paths)?;
    let said = if was_loaded { "unloaded: no VIP is answered here any more" } else { "nothing was loaded" };
    match format {
        Format::Json => print_json(&serde_json::json!({ "unloaded": was_loaded }))?,
        Format::Text => print(&format!("{said}\n")),
    }
    Ok(Exit::Ok)
}
