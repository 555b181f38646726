//! Where the log goes: to journald with its fields where systemd has connected
//! stderr to it, and else to stderr as lines.

use std::{io::IsTerminal as _, os::unix::fs::MetadataExt as _};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::output::Failure;
use crate::exit::Exit;

/// The program's name in the journal: `journalctl -t vip-ctl` shows its lines.
const IDENTIFIER: &str = "vip-ctl";
/// In front of the fields' names: `journalctl VIP_GROUP=db`.
const PREFIX: &str = "VIP";

/// Starts the log.
pub(in crate::cli) fn start(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        Failure::new(Exit::Usage, format!("--log {filter:?} is no filter ({e}): write one like info"))
    })?;
    // A second subscriber in one process does not happen.
    if let Some(journal) = journal() {
        let _ = tracing_subscriber::registry().with(filter).with(journal).try_init();
        return Ok(());
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let log = log.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let _ = log.try_init();
    Ok(())
}

/// The journal, if stderr is connected to it (systemd.exec(5), `$JOURNAL_STREAM`)
/// and it can be reached.
fn journal() -> Option<tracing_journald::Layer> {
    let named = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if !is_stream(&named, stderr.dev(), stderr.ino()) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_syslog_identifier(IDENTIFIER.into()).with_field_prefix(Some(PREFIX.into())))
}

/// Does `$JOURNAL_STREAM` name this device and inode?
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    let numbers = named.split_once(':').and_then(|(d, i)| Some((d.parse().ok()?, i.parse().ok()?)));
    numbers == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_stream_is_the_journal() {
        assert!(is_stream("9:21467", 9, 21467));
        assert!(!is_stream("9:21467", 9, 21468), "stderr was sent elsewhere");
        assert!(!is_stream("9", 9, 0));
        assert!(!is_stream("", 0, 0));
    }
}
