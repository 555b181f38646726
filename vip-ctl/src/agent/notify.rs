//! What systemd is told (sd_notify(3)): that the agent is ready, what it holds,
//! that it ends, and that its lease thread is alive. Without systemd, nothing.
//!
//! The watchdog is fed from the lease thread's own answer, by a thread that
//! has nothing else to do: who can't decide about leases any more is ended.

use std::{thread, time::Duration};

use sd_notify::NotifyState;
use tracing::warn;

use super::{
    AgentError,
    lease_loop::{Ask, Asker, Snapshot},
};
use crate::engine::GroupState;

/// How often the status text is renewed where there is no watchdog.
const RENEW: Duration = Duration::from_secs(2);

/// The agent listens, and its lease loop runs.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent ends, and hands over what it holds.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another program goes on in this process's place.
pub(super) fn replaced() {
    tell(&[NotifyState::Status("going on as the installed version")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        warn!("systemd could not be told ({e}): it may think that the agent is not ready");
    }
}

/// Begins to feed the watchdog, and to say what this node holds.
///
/// # Errors
/// [`AgentError::System`] if there is no thread for it.
pub(super) fn start(asker: &Asker) -> Result<(), AgentError> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    // Three times within the limit: one that is late does no harm.
    let pause = sd_notify::watchdog_enabled().map_or(RENEW, |limit| (limit / 3).min(RENEW));
    let asker = asker.clone();
    let feed = move || {
        while let Some(snapshot) = asker.ask_for_blocking(Ask::Status) {
            let text = status(&snapshot);
            tell(&[NotifyState::Watchdog, NotifyState::Status(&text)]);
            thread::sleep(pause);
        }
    };
    let spawned = thread::Builder::new().name("watchdog".into()).spawn(feed);
    spawned.map(drop).map_err(AgentError::system("start the watchdog's thread"))
}

/// One line for `systemctl status`.
fn status(snapshot: &Snapshot) -> String {
    let groups = &snapshot.engine.groups;
    let active = groups.iter().filter(|group| group.state == GroupState::Active).count();
    let quorum = match (snapshot.engine.silent, snapshot.engine.quorate) {
        (true, _) => "no vote yet",
        (false, true) => "quorate",
        (false, false) => "NO QUORUM",
    };
    let paused = if snapshot.engine.paused { ", paused" } else { "" };
    format!("{quorum}{paused}, active in {active} of {} groups", groups.len())
}
