//! What a lab leaves on the machine and how it goes away: on drop, on a
//! signal, and, for a lab whose owner died without either, at the next start.
//!
//! A lab is known by its id alone, so that any process can remove it:
//! namespaces `vip-ID-*`, pins `vip-lab-ID-*` on the BPF filesystem, and the
//! directory `/run/vip-lab/ID`, whose `lock` file the owner holds locked for
//! as long as it lives. Building a lab is not done here.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{Pid, pipe2};

use super::netns::{NETNS_DIR, tool};

/// Where labs keep their files.
pub const LABS_DIR: &str = "/run/vip-lab";
/// Where the BPF filesystem is expected.
pub const BPFFS_DIR: &str = "/sys/fs/bpf";
/// How long processes of a lab get to end by themselves.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long killed processes get to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The id of one lab: unique on the machine as long as it exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabId(String);

impl LabId {
    /// A new id, from the process id and 32 random bits.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn new() -> Result<Self> {
        let random = getrandom::u32().context("drawing a lab id")?;
        Ok(Self(format!("{}-{random:08x}", std::process::id())))
    }

    /// The id as it was printed by a lab that was kept.
    ///
    /// # Errors
    /// When no id looks like this.
    pub fn parse(text: &str) -> Result<Self> {
        let known = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c) || c == '-';
        if text.is_empty() || !text.contains('-') || !text.chars().all(known) {
            bail!("`{text}` is no lab id: one looks like 4711-0a1b2c3d");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name of the lab's namespace for `role`.
    #[must_use]
    pub fn netns(&self, role: &str) -> String {
        format!("vip-{}-{role}", self.0)
    }

    /// The directory of the lab's files.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        Path::new(LABS_DIR).join(&self.0)
    }

    /// The pin directory of the lab's node `node`. Flat and without dots: the
    /// BPF filesystem keeps names with dots for itself.
    #[must_use]
    pub fn pins(&self, node: &str) -> PathBuf {
        Path::new(BPFFS_DIR).join(format!("vip-lab-{}-{node}", self.0))
    }
}

impl std::fmt::Display for LabId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labs of this process that a signal must remove.
static LIVE: Mutex<Vec<LabId>> = Mutex::new(Vec::new());
/// True once a signal closed the gate: no more processes may be started.
static CLOSED: RwLock<bool> = RwLock::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Held while a process is being started or a directory is made. Without it a
/// process could be born into a namespace after the clean-up has looked there.
///
/// # Errors
/// When a signal has begun the clean-up.
pub(crate) fn gate() -> Result<RwLockReadGuard<'static, bool>> {
    let closed = CLOSED.read().unwrap_or_else(PoisonError::into_inner);
    if *closed {
        bail!("interrupted");
    }
    Ok(closed)
}

/// True once SIGINT, SIGTERM or SIGHUP has been seen. The clean-up then runs
/// on a thread of its own and ends the process when it is done.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// How a program that builds labs for people ends. After a signal the clean-up
/// thread ends the process, with the exit code of that signal.
#[must_use]
pub fn exit_code(result: Result<ExitCode>) -> ExitCode {
    while interrupted() {
        std::thread::park();
    }
    result.unwrap_or_else(|e| {
        eprintln!("error: {e:#}");
        ExitCode::FAILURE
    })
}

/// The lock that the owner of a lab holds for as long as it lives.
#[derive(Debug)]
pub(crate) struct Ownership {
    id: LabId,
    keep: bool,
    _lock: Flock<File>,
}

impl Ownership {
    /// Makes the lab's directory and takes its lock.
    pub(crate) fn take(id: LabId) -> Result<Self> {
        catch_signals()?;
        let _all = lock_labs()?;
        // From the directory's making to its listing, so that a signal's
        // clean-up comes either before it or knows of it.
        let _gate = gate()?;
        std::fs::create_dir_all(id.dir()).with_context(|| format!("making {}", id.dir().display()))?;
        let lock = lock_file(&id.dir().join("lock"), FlockArg::LockExclusiveNonblock)?
            .with_context(|| format!("lab {id} exists already"))?;
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        Ok(Self { id, keep: false, _lock: lock })
    }

    /// From now on only [`remove`] takes the lab away.
    pub(crate) fn keep(&mut self) -> Result<()> {
        std::fs::write(self.id.dir().join("keep"), "").context("marking the lab as kept")?;
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.id);
        self.keep = true;
        Ok(())
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let closed = CLOSED.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            // The signal's clean-up does the same on its own thread and ends the process.
            loop {
                std::thread::park();
            }
        }
        if self.keep {
            return;
        }
        for complaint in teardown(&self.id) {
            eprintln!("lab {}: {complaint}", self.id);
        }
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.id);
    }
}

/// Serialises making labs and judging whether one is dead.
fn lock_labs() -> Result<Flock<File>> {
    std::fs::create_dir_all(LABS_DIR).with_context(|| format!("making {LABS_DIR} (are you root?)"))?;
    lock_file(&Path::new(LABS_DIR).join(".lock"), FlockArg::LockExclusive)?
        .context("locking the directory of labs")
}

/// The lock, or `None` if somebody else has it.
fn lock_file(path: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).with_context(|| format!("locking {}", path.display())),
    }
}

/// Removes what crashed runs left: labs without a living owner that were not
/// meant to be kept. Says on stderr what it removed.
///
/// # Errors
/// When the directory of labs can't be read.
pub fn sweep() -> Result<()> {
    let _all = lock_labs()?;
    for entry in std::fs::read_dir(LABS_DIR).with_context(|| format!("reading {LABS_DIR}"))? {
        let dir = entry.context("reading the directory of labs")?.path();
        let Some(id) = dir.file_name().and_then(|n| LabId::parse(&n.to_string_lossy()).ok()) else {
            continue;
        };
        if dir.join("keep").exists() {
            continue;
        }
        if lock_file(&dir.join("lock"), FlockArg::LockExclusiveNonblock)?.is_some() {
            eprintln!("removing lab {id}, which a crashed run left behind");
            for complaint in teardown(&id) {
                eprintln!("lab {id}: {complaint}");
            }
        }
    }
    Ok(())
}

/// Removes a lab that was kept.
///
/// # Errors
/// When there is no such lab, when its owner still lives, or with what could not be removed.
pub fn remove(id: &LabId) -> Result<()> {
    let _all = lock_labs()?;
    if !id.dir().exists() {
        bail!("there is no lab {id}: `ls {LABS_DIR}` lists those that there are");
    }
    if lock_file(&id.dir().join("lock"), FlockArg::LockExclusiveNonblock)?.is_none() {
        bail!("lab {id} belongs to a running process: end that process, which removes the lab");
    }
    let complaints = teardown(id);
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(())
}

/// Takes everything of a lab away, and goes on after a failure: what could
/// not be removed is returned.
fn teardown(id: &LabId) -> Vec<String> {
    let mut complaints = Vec::new();
    let spaces = named_with_prefix(Path::new(NETNS_DIR), &id.netns(""));
    complaints.extend(end_processes(&spaces).err().map(|e| format!("{e:#}")));
    for space in &spaces {
        if let Some(name) = space.file_name().and_then(|n| n.to_str()) {
            let deleted = tool("ip").and_then(|_| delete_netns(name));
            complaints.extend(deleted.err().map(|e| format!("{e:#}")));
        }
    }
    let prefix = format!("vip-lab-{id}-");
    for dir in named_with_prefix(Path::new(BPFFS_DIR), &prefix).into_iter().chain([id.dir()]) {
        if let Err(e) = std::fs::remove_dir_all(&dir)
            && e.kind() != ErrorKind::NotFound
        {
            complaints.push(format!("removing {}: {e}", dir.display()));
        }
    }
    complaints
}

/// Not through [`run`]: the gate may be closed by the very signal that asks for this.
fn delete_netns(name: &str) -> Result<()> {
    let output = std::process::Command::new("ip").args(["netns", "del", name]).output()?;
    if !output.status.success() {
        bail!("ip netns del {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn named_with_prefix(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new(); // no such directory: nothing in it
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found
}

/// Ends every process whose main thread is in one of these namespaces, which
/// are the lab's own: SIGTERM, then SIGKILL.
fn end_processes(spaces: &[PathBuf]) -> Result<()> {
    let inodes: Vec<u64> = spaces.iter().filter_map(|s| Some(std::fs::metadata(s).ok()?.ino())).collect();
    for (signal, patience) in [(Signal::SIGTERM, TERM_PATIENCE), (Signal::SIGKILL, KILL_PATIENCE)] {
        let deadline = Instant::now() + patience;
        let mut told: Vec<Pid> = Vec::new();
        loop {
            let alive = processes_in(&inodes);
            if alive.is_empty() {
                return Ok(());
            }
            for pid in alive.iter().filter(|pid| !told.contains(pid)) {
                // It may end between the look and the signal; the next look tells.
                let _gone = kill(*pid, signal);
                // A stopped process takes SIGTERM only when it goes on.
                let _gone = kill(*pid, Signal::SIGCONT);
            }
            told = alive;
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let left = processes_in(&inodes);
    if !left.is_empty() {
        bail!("processes {left:?} still run after SIGKILL");
    }
    Ok(())
}

fn processes_in(inodes: &[u64]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            // A zombie has no namespace any more and is rightly not found.
            std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| inodes.contains(&m.ino()))
        })
        .filter_map(|pid| i32::try_from(pid).ok().map(Pid::from_raw))
        .collect()
}

/// The write end of the pipe that wakes the clean-up thread.
static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe, and the buffer is one live byte.
    // A full pipe means that the thread has been woken already.
    let _written = unsafe { libc::write(WAKE.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
}

/// From here on, at the latest from the first lab on, SIGINT, SIGTERM and
/// SIGHUP remove this process's labs and end it with 128 + the signal's number.
///
/// # Errors
/// When the kernel refuses the handler or its thread.
pub fn catch_signals() -> Result<()> {
    static PIPE: OnceLock<Result<OwnedFd, nix::Error>> = OnceLock::new();
    let installed = PIPE.get_or_init(|| {
        let (wake, notify) = pipe2(OFlag::O_CLOEXEC)?;
        WAKE.store(notify.as_raw_fd(), Ordering::SeqCst);
        let mut wake = File::from(wake);
        std::thread::Builder::new()
            .name("lab-cleanup".to_owned())
            .spawn(move || {
                let mut signal = [0_u8];
                if wake.read_exact(&mut signal).is_ok() {
                    clean_up_and_exit(signal[0]);
                }
            })
            .map_err(|_| nix::Error::EAGAIN)?;
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler does only what is async-signal-safe.
            unsafe { sigaction(signal, &action)? };
        }
        Ok(notify)
    });
    match installed {
        Ok(_) => Ok(()),
        Err(e) => Err(*e).context("installing the signal handler"),
    }
}

fn clean_up_and_exit(signal: u8) -> ! {
    eprintln!("\ninterrupted: removing the lab");
    *CLOSED.write().unwrap_or_else(PoisonError::into_inner) = true;
    let labs = LIVE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for id in labs {
        for complaint in teardown(&id) {
            eprintln!("lab {id}: {complaint}");
        }
    }
    std::process::exit(128 + i32::from(signal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_parse_back() -> Result<()> {
        let (a, b) = (LabId::new()?, LabId::new()?);
        assert_ne!(a, b);
        assert_eq!(LabId::parse(&a.to_string())?, a);
        Ok(())
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "..", "../etc", "4711", "4711-xyz", "a b-1"] {
            assert!(LabId::parse(text).is_err(), "{text}");
        }
    }
}
