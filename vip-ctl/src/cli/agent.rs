//! `vip-ctl agent`.

use std::path::PathBuf;

use super::support::{log, output::Failure};
use crate::{daemon, exit::Exit, paths::Paths};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl agent --config /etc/vip/vip.toml\n  vip-ctl agent --hold  # ends without a release, for an upgrade"
)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vip.toml")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, or a tracing filter.
    #[arg(long, env = "VIP_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// On SIGTERM or SIGINT, end without releasing the leases: an agent that is
    /// up again before they run out goes on with them, for an upgrade.
    #[arg(long)]
    hold: bool,
    /// Say whether an agent could start here now, and do nothing.
    #[arg(long, hide = true)]
    trial: bool,
}

pub(super) fn run(args: &Args, paths: &Paths) -> Result<Exit, Failure> {
    if args.trial {
        daemon::try_out(&args.config, paths).map_err(|e| Failure::new(e.exit(), e.to_string()))?;
        return Ok(Exit::Ok);
    }
    log::start(&args.log)?;
    daemon::run(&args.config, paths, args.hold).map_err(|e| Failure::new(e.exit(), e.to_string()))?;
    Ok(Exit::Ok)
}
