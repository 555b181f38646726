//! Starting the agent's threads, and what happens when one of them panics.

use std::{io, thread, time::Duration};

use crate::{
    clock,
    mutant::{self, Mutant},
};

/// How often to check whether a thread has ended.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// A thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("could not start the thread {name}: {source}")]
pub struct ThreadError {
    /// Its name.
    pub name: String,
    /// Why not.
    pub source: io::Error,
}

/// Starts a thread.
///
/// # Errors
/// [`ThreadError`] if there can't be one.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, ThreadError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|source| ThreadError { name: name.into(), source })
}

/// Waits for the end of a thread, for at most `limit`. Returns whether it ended.
pub fn ends_within<T>(thread: &thread::JoinHandle<T>, limit: Duration) -> bool {
    let until = clock::now().plus(limit);
    ends_while(thread, || clock::now() < until)
}

/// Waits for the end of a thread, as long as `has_a_point`. Returns whether it
/// ended.
pub fn ends_while<T>(thread: &thread::JoinHandle<T>, has_a_point: impl Fn() -> bool) -> bool {
    while !thread.is_finished() {
        if !has_a_point() {
            return false;
        }
        thread::sleep(EXIT_POLL);
    }
    true
}

/// The threads on which leases depend. What "memory" has written says which epochs
/// this node may grant and vote for.
const VITAL: [&str; 6] = ["lease", "judge", "keeper", "announcer", "hooks", "memory"];

/// A panic on one of our threads ends the process, so that the lease runs out
/// instead of being renewed by half an agent.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let vital = thread::current().name().is_some_and(|name| VITAL.contains(&name));
        if vital && !mutant::is(Mutant::OutlivesPanic) {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt as _, process::Command};

    use nix::sys::signal::Signal;

    use super::*;

    /// Tells a process of the test below on which thread to panic.
    const PANICS_ON: &str = "VIP_TEST_PANICS_ON";

    #[test]
    fn a_panic_ends_the_process_where_leases_depend_on_the_thread() {
        if let Ok(name) = env::var(PANICS_ON) {
            abort_on_panic();
            assert!(spawn(&name, || panic!("as it was told")).unwrap().join().is_err());
            return;
        }
        let this = "agent::threads::tests::a_panic_ends_the_process_where_leases_depend_on_the_thread";
        let vital = ["lease", "judge", "keeper", "announcer", "hooks", "memory"].map(|name| (name, true));
        for (name, is_vital) in vital.into_iter().chain([("hook", false), ("http", false)]) {
            let mut process = Command::new(env::current_exe().unwrap());
            let ended = process.args(["--exact", this]).env(PANICS_ON, name).output().unwrap();
            let out = String::from_utf8_lossy(&ended.stdout);
            if is_vital {
                assert_eq!(ended.status.signal(), Some(Signal::SIGABRT as i32), "{name}: {out}");
            } else {
                assert!(ended.status.success() && out.contains("1 passed"), "{name}: {out}");
            }
        }
    }

    #[test]
    fn who_hangs_is_not_waited_for() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let hangs = spawn("hangs", move || wait.recv()).unwrap();
        assert!(!ends_within(&hangs, Duration::from_millis(50)));
        drop(release);
        assert!(ends_within(&hangs, Duration::from_secs(20)));
    }
}
