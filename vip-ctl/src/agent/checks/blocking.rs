//! Runs work that may block for ever (a file on a dead server, a resolver) on a
//! thread of its own, and never again before the last run has returned.

use std::time::Duration;

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// One kind of work that may block.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) hanging: Option<JoinHandle<()>>,
}

impl Aside {
    /// Does `work`, and waits for at most `limit`.
    ///
    /// # Errors
    /// The error of `work`, or that it takes too long, or that an earlier run
    /// still hangs.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        if self.hanging.as_ref().is_some_and(|hanging| !hanging.is_finished()) {
            return Err("an earlier run still hangs in the kernel".to_owned());
        }
        let (done, result) = tokio::sync::oneshot::channel();
        let handle = spawn_blocking(move || {
            // Nobody listens any more if the work took too long.
            let _ = done.send(work());
        });
        match timeout(limit, result).await {
            Ok(result) => result.unwrap_or_else(|_| Err("it panicked".to_owned())),
            Err(_) => {
                self.hanging = Some(handle);
                Err(too_slow(limit))
            }
        }
    }
}

/// The sentence for work that takes longer than `limit`.
pub(super) fn too_slow(limit: Duration) -> String {
    format!("no result within {}", humantime::format_duration(limit))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_not_begun_again_before_it_is_over() {
        let (release, wait) = mpsc::channel::<()>();
        let mut aside = Aside::default();
        let limit = Duration::from_millis(50);
        let hangs = aside.run(limit, move || wait.recv().map_err(|e| e.to_string())).await;
        assert_eq!(hangs, Err("no result within 50ms".to_owned()));
        let (begun, is_begun) = mpsc::channel();
        let again = aside.run(limit, move || begun.send(()).map_err(|e| e.to_string())).await;
        assert_eq!(again, Err("an earlier run still hangs in the kernel".to_owned()));
        assert!(is_begun.try_recv().is_err(), "it was begun");
        release.send(()).expect("it waits");
        let patience = tokio::time::Instant::now() + Duration::from_secs(10);
        while aside.run(Duration::from_secs(5), || Ok(())).await.is_err() {
            assert!(tokio::time::Instant::now() < patience, "it never came back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
