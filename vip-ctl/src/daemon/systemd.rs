//! Messages to systemd (sd_notify(3)): the agent is ready, what it holds, it
//! ends, its lease thread is alive. Without systemd they do nothing.
//!
//! A thread of its own feeds the watchdog, but only after the lease thread has
//! answered: systemd ends an agent that can no longer decide about leases. It
//! also checks the beats of the judge, without which the node can't tell whether
//! it can serve, and of the keeper, which keeps the host fit for that.

use std::{thread, time::Duration};

use sd_notify::NotifyState;
use tracing::{error, warn};
use vip_common::BootNs;
use vip_lease::Snapshot;

use super::AgentError;
use crate::{
    agent::{
        heartbeat::{self, WatchedThread},
        messages::{Ask, Asker},
    },
    clock,
    engine::GroupState,
};

/// How often to renew the status text where there is no watchdog.
const RENEW: Duration = Duration::from_secs(2);

/// Has a thread that has begun been silent for longer than the watchdog's limit?
fn hangs(beat: BootNs, now: BootNs, limit: Option<Duration>) -> bool {
    beat != BootNs(0) && limit.is_some_and(|limit| now.since(beat) > limit)
}

/// The agent listens, and its lease loop runs.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent ends, and hands over what it holds.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another program goes on in this process.
pub(super) fn replaced() {
    tell(&[NotifyState::Status("going on as the installed version")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        warn!("systemd could not be told ({e}): it may think that the agent is not ready");
    }
}

/// Begins to feed the watchdog, and to report what this node holds.
///
/// # Errors
/// [`AgentError::System`] if the thread can't be started.
pub(super) fn start(asker: &Asker) -> Result<(), AgentError> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    // Three times within the limit, so that one late message does no harm.
    let limit = sd_notify::watchdog_enabled();
    let pause = limit.map_or(RENEW, |limit| (limit / 3).min(RENEW));
    let asker = asker.clone();
    heartbeat::keeper_beat();
    let feed = move || {
        while let Some(snapshot) = asker.ask_for_blocking(Ask::Status) {
            let hangs = |of| hangs(heartbeat::last(of), clock::now(), limit);
            if hangs(WatchedThread::Keeper) {
                error!("the keeper hangs: the watchdog is not fed, and systemd starts this agent again");
            } else if hangs(WatchedThread::Judge) {
                error!("the judge hangs: the watchdog is not fed, and systemd starts this agent again");
            } else {
                let text = status(&snapshot);
                tell(&[NotifyState::Watchdog, NotifyState::Status(&text)]);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_hangs_when_its_last_beat_is_older_than_the_limit() {
        let (beat, limit) = (BootNs(7_000_000_000), Duration::from_secs(5));
        assert!(!hangs(beat, beat.plus(limit), Some(limit)));
        assert!(hangs(beat, beat.plus(limit + Duration::from_millis(1)), Some(limit)));
        assert!(!hangs(beat, beat.plus(limit * 100), None), "nobody watches");
        assert!(!hangs(BootNs(0), beat.plus(limit * 100), Some(limit)), "it has not begun");
    }
}
