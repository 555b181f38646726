//! `vip-ctl failover`: gives the lease to a node, with or without the old holder.

use super::{
    promote,
    support::{
        client, dry_run,
        output::{Failure, Format},
    },
};
use crate::{agent::control::Request, exit::Exit, paths::Paths};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl failover db --to db-b\n  vip-ctl failover db --dry-run")]
pub(super) struct Args {
    /// The group, or one of its VIPs; may be left out where there is one group.
    #[arg(value_name = "GROUP|VIP")]
    group: Option<String>,
    /// The node that shall hold it; this one if left out.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Also without a quorum, by this node's vote alone: a node that this one
    /// does not hear may then answer too, and one of the two loses what clients
    /// write to it. Make sure first that the other nodes are off.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: promote::Wait,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let request = Request::Failover {
        group: args.group.clone(),
        to: args.to.clone(),
        force: args.force,
        wait: args.wait.is_on(),
    };
    if args.dry_run {
        return dry_run::of_agent(paths, &request, "a failover", format);
    }
    promote::tell(client::ask_agent(paths, &request, "a failover")?, format)
}
