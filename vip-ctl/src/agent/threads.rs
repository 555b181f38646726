//! Starting the agent's threads, and what happens when one of them panics.

use std::thread;

use super::AgentError;

/// Starts a thread.
///
/// # Errors
/// If there can't be one.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, AgentError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(AgentError::system(format!("start the thread {name}")))
}

/// A panic on one of our threads ends the process, so that the lease runs out
/// instead of being renewed by half an agent.
pub(super) fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        if matches!(thread::current().name(), Some("lease" | "keeper" | "announcer" | "hooks")) {
            std::process::abort();
        }
    }));
}
