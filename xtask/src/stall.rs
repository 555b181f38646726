//! Does the machine stand still while tests run? A virtual machine that is not
//! run for some hundred milliseconds makes a lease run out and a test fail that
//! is right. Whether to try again is [`crate::test`]'s to say.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often the watching threads wake up.
const PERIOD: Duration = Duration::from_millis(10);

/// Measures, until it is asked, by how much threads that only sleep wake up too
/// late. A busy machine wakes them within a few milliseconds.
pub(crate) struct StallWatch {
    /// Dropped to end the threads.
    threads: Vec<(Sender<()>, JoinHandle<Duration>)>,
}

impl StallWatch {
    /// Begins with one thread for each CPU.
    pub(crate) fn start() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let watch = |_| {
            let (stop, stopped) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                let mut worst = Duration::ZERO;
                loop {
                    let due = Instant::now() + PERIOD;
                    let woken = stopped.recv_timeout(PERIOD);
                    if woken != Err(RecvTimeoutError::Timeout) {
                        return worst;
                    }
                    worst = worst.max(due.elapsed());
                }
            });
            (stop, thread)
        };
        Self { threads: (0..cpus).map(watch).collect() }
    }

    /// The longest delay.
    pub(crate) fn finish(self) -> Duration {
        let worst = self.threads.into_iter().map(|(stop, thread)| {
            drop(stop);
            thread.join().unwrap_or_default()
        });
        worst.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_ends_at_once_and_has_measured() {
        let watch = StallWatch::start();
        std::thread::sleep(PERIOD * 10);
        let asked = Instant::now();
        let worst = watch.finish();
        assert!(worst > Duration::ZERO, "no sleep is exact");
        assert!(asked.elapsed() < Duration::from_secs(30));
    }
}
