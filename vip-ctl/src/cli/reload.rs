//! `vip-ctl reload`: the agent reads its configuration again.

use super::support::{
    client, dry_run,
    output::{Failure, Format, print, print_json},
};
use crate::{
    agent::control::{Request, Response},
    exit::Exit,
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl reload --dry-run\n  vip-ctl reload")]
pub(super) struct Args {
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        return dry_run::of_agent(paths, &Request::Reload, "reload", format);
    }
    let Response::Reloaded(changes) = client::ask_agent(paths, &Request::Reload, "reload")? else {
        return Err(client::strange());
    };
    if format == Format::Json {
        print_json(&changes)?;
        return Ok(Exit::Ok);
    }
    let mut said = String::new();
    for (what, names) in [
        ("added", &changes.added),
        ("removed", &changes.removed),
        ("changed", &changes.changed),
        ("begun anew, since a VIP went from one group to another", &changes.anew),
    ] {
        if !names.is_empty() {
            said.push_str(&format!("{what}: {}\n", names.join(", ")));
        }
    }
    print(if said.is_empty() { "no group has changed\n" } else { &said });
    Ok(Exit::Ok)
}
