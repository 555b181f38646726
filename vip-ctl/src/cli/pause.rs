//! `vip-ctl pause` and `resume`: automatic moves in the whole cluster.

use serde_json::json;

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
pub(super) struct Args {
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn pause(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(true, args, paths, format)
}

pub(super) fn resume(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(false, args, paths, format)
}

fn run(on: bool, args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        return dry_run::of_agent(paths, &Request::Pause { on }, "a pause", format);
    }
    let Response::Pause { on } = client::ask_agent(paths, &Request::Pause { on }, "a pause")? else {
        return Err(client::strange());
    };
    match format {
        Format::Json => print_json(&json!({ "paused": on }))?,
        Format::Text if on => {
            print("paused: leases go on, and nothing moves by itself until `vip-ctl resume`\n");
        }
        Format::Text => print("resumed: groups move by themselves again\n"),
    }
    Ok(Exit::Ok)
}
