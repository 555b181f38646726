//! `vip-ctl unload`: removes everything from this host, and puts the host back as
//! it was; or takes single VIPs and interfaces off.

use std::net::IpAddr;

use super::support::{
    dry_run,
    output::{Failure, Format, print, print_json},
};
use crate::{
    exit::Exit,
    lock::Lock,
    node::{
        parts::{self, Parts},
        plan, tear_down,
    },
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl unload --dry-run\n  vip-ctl unload\n  vip-ctl unload --vip 10.0.1.13"
)]
pub(super) struct Args {
    /// Take this VIP off, and leave the rest; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    vip: Vec<IpAddr>,
    /// Take the programs off this interface, and leave the rest; may be repeated.
    #[arg(long, value_name = "IFACE")]
    iface: Vec<String>,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let parts =
        Parts { vips: args.vip.iter().copied().collect(), interfaces: args.iface.iter().cloned().collect() };
    if !parts.vips.is_empty() || !parts.interfaces.is_empty() {
        return run_parts(args, &parts, paths, format);
    }
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

fn run_parts(args: &Args, parts: &Parts, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        Lock::check(paths)?;
        return dry_run::tell(&parts::plan(paths, parts)?, format);
    }
    let _lock = Lock::take(paths, false)?;
    let warnings = parts::remove(paths, parts)?;
    let gone: Vec<_> =
        parts.vips.iter().map(IpAddr::to_string).chain(parts.interfaces.iter().cloned()).collect();
    match format {
        Format::Json => print_json(&serde_json::json!({ "removed": gone, "warnings": warnings }))?,
        Format::Text => {
            print(&format!("taken off: {}\n", gone.join(", ")));
            warnings.iter().for_each(|warning| print(&format!("warning: {warning}\n")));
        }
    }
    Ok(Exit::Ok)
}
