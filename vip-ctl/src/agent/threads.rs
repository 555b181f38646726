//! Starting the agent's threads, and what happens when one of them panics.

use std::{io, thread, time::Duration};

use crate::clock;

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

/// A panic on one of our threads ends the process, so that the lease runs out
/// instead of being renewed by half an agent.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        if matches!(thread::current().name(), Some("lease" | "judge" | "keeper" | "announcer" | "hooks")) {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_is_not_waited_for() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let hangs = spawn("hangs", move || wait.recv()).unwrap();
        assert!(!ends_within(&hangs, Duration::from_millis(50)));
        drop(release);
        assert!(ends_within(&hangs, Duration::from_secs(20)));
    }
}
