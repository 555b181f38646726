//! The node's lock: the process that has it is the only writer of leases and of
//! the host's configuration. The agent keeps it for its life, a verb for a
//! moment.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    thread,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    mutant::{self, Mutant},
    paths::Paths,
};

/// How many times, and how far apart, to try a busy lock again.
const TRIES: u32 = 50;
const RETRY: Duration = Duration::from_millis(100);

/// Holds the lock until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// An agent has it.
    #[error("the agent (pid {pid}) runs this node: stop it first, or ask it (`vip-ctl status`)")]
    Agent {
        /// Its process id.
        pid: u32,
    },
    /// Another verb has it, and does not release it.
    #[error("another vip-ctl (pid {pid}) is at work on this node: wait for it to end, and try again")]
    Busy {
        /// Its process id.
        pid: u32,
    },
    /// The file can't be used.
    #[error("could not lock {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why it can't be used.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock. Waits some seconds for another verb, not for an agent.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(paths: &Paths, agent: bool) -> Result<Self, LockError> {
        let path = paths.lock();
        let failed = |source| LockError::Io { path: path.display().to_string(), source };
        fs::create_dir_all(&paths.run_dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        for _ in 0..TRIES {
            let exclusive = FlockArg::LockExclusiveNonblock;
            let how = if mutant::is(Mutant::SharedLock) { FlockArg::LockSharedNonblock } else { exclusive };
            match Flock::lock(file, how) {
                Ok(mut file) => {
                    let owner = format!("{} {}\n", if agent { "agent" } else { "verb" }, std::process::id());
                    if Owner::write(&mut file, owner.as_bytes()).is_err() {
                        // On a full disk the lock works without its owner's name, but
                        // must not keep another's.
                        let _ = file.set_len(0);
                    }
                    return Ok(Self { _file: file });
                }
                Err((mut back, nix::errno::Errno::EWOULDBLOCK)) => {
                    if let Owner { agent: true, pid } = Owner::read(&mut back) {
                        return Err(LockError::Agent { pid });
                    }
                    thread::sleep(RETRY);
                    file = back;
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
        Err(LockError::Busy { pid: Owner::read(&mut file).pid })
    }
}

impl Lock {
    /// The process id of the agent that has the lock, if it lives. Does not try
    /// the lock: an agent that starts at that moment would find it taken.
    #[must_use]
    pub fn agent(paths: &Paths) -> Option<u32> {
        let mut file = File::open(paths.lock()).ok()?;
        let Owner { agent, pid } = Owner::read(&mut file);
        (agent && has_locked(pid, &file).unwrap_or(false)).then_some(pid)
    }

    /// Checks whether the lock could be taken, without creating its file.
    ///
    /// # Errors
    /// [`LockError`], like [`Lock::take`].
    pub fn check(paths: &Paths) -> Result<(), LockError> {
        if !paths.lock().exists() {
            return Ok(());
        }
        Self::take(paths, false).map(drop)
    }
}

/// Has a process this file locked? The agent has, whatever its program is called; a
/// process that got the number of one that is gone has not.
fn has_locked(pid: u32, file: &File) -> io::Result<bool> {
    let wanted = file.metadata()?;
    let is_it = |fd: fs::DirEntry| {
        // The process may close it meanwhile.
        fs::metadata(fd.path()).is_ok_and(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
            && fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().display()))
                .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
    };
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().any(is_it))
}

/// The process that wrote itself into the lock file.
struct Owner {
    agent: bool,
    pid: u32,
}

impl Owner {
    /// Writes before it truncates: overwriting needs no free space.
    fn write(file: &mut File, owner: &[u8]) -> io::Result<()> {
        file.rewind()?;
        file.write_all(owner)?;
        file.set_len(owner.len() as u64)
    }

    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        // An unreadable owner counts as "some verb": then we wait, and time out.
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        let mut words = text.split_whitespace();
        let agent = words.next() == Some("agent");
        Self { agent, pid: words.next().and_then(|pid| pid.parse().ok()).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_its_lock_and_not_by_its_programs_name() {
        let dir = std::env::temp_dir().join(format!("vip-lock-found-{}", std::process::id()));
        let paths = Paths { bpf_dir: dir.clone(), run_dir: dir.clone(), state_dir: dir.clone() };
        assert_eq!(Lock::agent(&paths), None, "nobody has ever run here");
        // This test's program is not called vip-ctl.
        let agent = Lock::take(&paths, true).unwrap();
        assert_eq!(Lock::agent(&paths), Some(std::process::id()));
        drop(agent);
        assert_eq!(Lock::agent(&paths), None, "another process may have its number by now");
        drop(Lock::take(&paths, false).unwrap());
        assert_eq!(Lock::agent(&paths), None, "a verb is no agent");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_agent_is_named_at_once_and_its_end_frees_the_lock() {
        let dir = std::env::temp_dir().join(format!("vip-lock-{}", std::process::id()));
        let paths = Paths { bpf_dir: dir.clone(), run_dir: dir.clone(), state_dir: dir.clone() };
        let agent = Lock::take(&paths, true).unwrap();
        match Lock::take(&paths, false) {
            Err(LockError::Agent { pid }) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(agent);
        drop(Lock::take(&paths, false).unwrap());
        fs::remove_dir_all(dir).unwrap();
    }
}
