//! `vip-ctl switchover`: a planned move, through the agent.

use super::{
    promote,
    support::{
        client, dry_run,
        output::{Failure, Format},
    },
};
use crate::{agent::control::Request, exit::Exit, paths::Paths};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl switchover db --to db-b\n  vip-ctl switchover db --dry-run")]
pub(super) struct Args {
    /// The group, or one of its VIPs; may be left out where there is one group.
    #[arg(value_name = "GROUP|VIP")]
    group: Option<String>,
    /// The node that shall hold it; without it the holder chooses the best one.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    wait: promote::Wait,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let request =
        Request::Switchover { group: args.group.clone(), to: args.to.clone(), wait: args.wait.is_on() };
    if args.dry_run {
        return dry_run::of_agent(paths, &request, "a switchover", format);
    }
    let Some(response) = client::ask(paths, &request)? else {
        return Err(Failure::new(
            Exit::NotLoaded,
            format!(
                "no agent runs on this node (there is none at {}): a switchover needs one; by hand, demote there and promote here",
                paths.socket().display()
            ),
        ));
    };
    promote::tell(response, format)
}
