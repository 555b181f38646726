//! `vip-ctl standby` and `unstandby`: take a node out of service, and back.

use serde_json::json;

use super::{
    promote,
    support::{
        client, dry_run,
        output::{Failure, Format, print, print_json},
    },
};
use crate::{
    agent::control::{Request, Response},
    exit::Exit,
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl standby db-a\n  vip-ctl standby --dry-run")]
pub(super) struct StandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Release also groups that no other node can take: nobody answers then.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: promote::Wait,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl unstandby db-a")]
pub(super) struct UnstandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn standby(args: &StandbyArgs, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(
        Request::Standby { node: args.node.clone(), on: true, force: args.force, wait: args.wait.is_on() },
        args.dry_run,
        paths,
        format,
    )
}

pub(super) fn unstandby(args: &UnstandbyArgs, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(
        Request::Standby { node: args.node.clone(), on: false, force: false, wait: false },
        args.dry_run,
        paths,
        format,
    )
}

fn run(request: Request, dry_run: bool, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if dry_run {
        return dry_run::of_agent(paths, &request, "standby", format);
    }
    let Response::Standby { node, on } = client::ask_agent(paths, &request, "standby")? else {
        return Err(client::strange());
    };
    match format {
        Format::Json => print_json(&json!({ "node": node, "standby": on }))?,
        Format::Text if on => print(&format!("node {node} is on standby and holds nothing\n")),
        Format::Text => print(&format!("node {node} is not on standby\n")),
    }
    Ok(Exit::Ok)
}
