//! `vip-ctl agent`.

use std::{io::IsTerminal, path::PathBuf};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::{agent, exit::Exit, paths::Paths};

/// Example: vip-ctl agent --config /etc/vip/vip.toml
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vip.toml")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, or a tracing filter.
    #[arg(long, env = "VIP_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// On SIGTERM or SIGINT, end without releasing the leases: an agent that
    /// is back within them goes on as if nothing had been, for an upgrade.
    #[arg(long)]
    hold: bool,
}

pub(super) fn run(args: &Args, paths: &Paths) -> Result<Exit, Failure> {
    log_to_stderr(&args.log)?;
    agent::run(&args.config, paths, args.hold).map_err(|e| Failure::new(e.exit(), e.to_string()))?;
    Ok(Exit::Ok)
}

/// Sends the log to stderr, where journald takes it from.
pub(super) fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        Failure::new(Exit::Usage, format!("--log {filter:?} is no filter ({e}): write one like info"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let log = log.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second subscriber in one process does not happen.
    let _ = log.try_init();
    Ok(())
}
