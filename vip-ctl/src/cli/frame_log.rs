//! `vip-ctl frame-log`: what the program on the way in looks up, for debugging.

use std::time::Duration;

use super::support::{log, output::Failure};
use crate::{dataplane::attach, exit::Exit, paths::Paths};

/// How often to fetch new lines of the log.
const FETCH: Duration = Duration::from_millis(50);

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl load --iface eth0 --frame-log\n  vip-ctl frame-log --seconds 10"
)]
pub(super) struct Args {
    /// End after this many seconds; without it, go on until interrupted.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

pub(super) fn run(args: &Args, paths: &Paths) -> Result<Exit, Failure> {
    log::start("info")?;
    let mut logs = Vec::new();
    for ifindex in attach::interfaces(&paths.bpf_dir)?.into_keys() {
        logs.push(attach::frame_log(&paths.bpf_dir, ifindex)?);
    }
    if logs.is_empty() {
        return Err(crate::dataplane::DataPlaneError::NotLoaded { dir: paths.bpf_dir.clone() }.into());
    }
    let fetches = args.seconds.map(|seconds| seconds.saturating_mul(20));
    let mut done = 0;
    while fetches.is_none_or(|fetches| done < fetches) {
        std::thread::sleep(FETCH);
        for log in &mut logs {
            log.flush();
        }
        done += 1;
    }
    Ok(Exit::Ok)
}
