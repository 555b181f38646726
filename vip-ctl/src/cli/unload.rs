//! `vip-ctl unload`: removes everything from this host, and puts the host back as
//! it was.

use super::support::{
    dry_run,
    output::{Failure, Format, print, print_json},
};
use crate::{
    exit::Exit,
    lock::Lock,
    node::{plan, tear_down},
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl unload --dry-run\n  vip-ctl unload")]
pub(super) struct Args {
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        Lock::check(paths)?;
        return dry_run::tell(&plan::of_tear_down(paths)?, format);
    }
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
