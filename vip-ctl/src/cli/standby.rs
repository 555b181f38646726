//! `vip-ctl standby` and `unstandby`: take a node out of service, and back.

use serde_json::json;

use super::{Failure, Format, client, print, print_json};
use crate::{
    agent::api::{Request, Response},
    exit::Exit,
    paths::Paths,
};

/// Example: vip-ctl standby db-a
#[derive(clap::Args, Debug)]
pub(super) struct StandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Release also groups that no other node can take: nobody answers then.
    #[arg(long)]
    force: bool,
}

/// Example: vip-ctl unstandby db-a
#[derive(clap::Args, Debug)]
pub(super) struct UnstandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

pub(super) fn standby(args: &StandbyArgs, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(Request::Standby { node: args.node.clone(), on: true, force: args.force }, paths, format)
}

pub(super) fn unstandby(args: &UnstandbyArgs, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(Request::Standby { node: args.node.clone(), on: false, force: false }, paths, format)
}

fn run(request: Request, paths: &Paths, format: Format) -> Result<Exit, Failure> {
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
