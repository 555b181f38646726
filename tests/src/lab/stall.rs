//! Does the machine itself stand still? A virtual machine that is not run for
//! some milliseconds loses a short lease, and no agent can help it. A thread on
//! each CPU, of higher real-time priority than any agent's, notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::clock;

/// How often each thread wakes up.
const PERIOD: Duration = Duration::from_millis(1);
/// Above the agent's own threads, below the kernel's watchdogs.
const PRIORITY: libc::c_int = 90;

/// From here on a stall is noted by itself: some leases are as short as that.
const LONG: Duration = Duration::from_millis(5);

/// For how long CPUs did not get to their threads.
#[derive(Clone, Debug, Default)]
pub struct Stalls {
    /// The longest time.
    pub longest: Duration,
    /// When each of the long ones was over, and how long it was, in order.
    pub long: Vec<(SystemTime, Duration)>,
}

/// Watches until it is asked.
#[derive(Debug)]
pub struct StallWatch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Stalls>>,
}

impl StallWatch {
    /// Begins to watch every CPU.
    ///
    /// # Errors
    /// Where real-time priority, or a CPU, is not granted.
    pub fn start() -> Result<Self> {
        let mut watch = Self { stop: Arc::default(), threads: Vec::new() };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let cpus = std::thread::available_parallelism()?.get();
        for cpu in 0..cpus {
            let (stop, ready) = (Arc::clone(&watch.stop), ready.clone());
            watch.threads.push(std::thread::spawn(move || {
                // Whoever started it has gone only if another one was refused.
                let _told = ready.send(settle(cpu));
                let mut stalls = Stalls::default();
                while !stop.load(Ordering::Relaxed) {
                    let due = clock::now().plus(PERIOD);
                    clock::sleep_until(due);
                    let late = clock::now().since(due);
                    stalls.longest = stalls.longest.max(late);
                    if late >= LONG {
                        stalls.long.push((SystemTime::now(), late));
                    }
                }
                stalls
            }));
        }
        for _ in 0..cpus {
            is_ready.recv().context("a thread that watches for stalls has ended")??;
        }
        Ok(watch)
    }

    /// For how long CPUs did not get to their threads.
    ///
    /// # Errors
    /// When a thread has panicked.
    pub fn finish(mut self) -> Result<Stalls> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Stalls::default();
        for thread in std::mem::take(&mut self.threads) {
            let stalls = thread.join().ok().context("a thread that watches for stalls has panicked")?;
            all.longest = all.longest.max(stalls.longest);
            all.long.extend(stalls.long);
        }
        all.long.sort();
        Ok(all)
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Keeps the calling thread on a CPU, above everything else.
fn settle(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("staying on CPU {cpu}"))?;
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the parameter lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    ensure!(result == 0, "cannot get real-time priority: {}", std::io::Error::last_os_error());
    Ok(())
}
