//! A program that is killed on purpose, just before one of the system calls by which it
//! changes something.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{cleanup, slow};

/// `PTRACE_SYSCALL_INFO_ENTRY`, of linux/ptrace.h.
const ENTRY: u8 = 1;
/// The system calls that leave something behind: on bpffs and disk, and by netlink.
const CHANGES: [i64; 14] = [
    libc::SYS_bpf,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mount,
];
/// Commands of bpf(2) that only make or read what goes with the process: `BPF_MAP_CREATE`,
/// `BPF_MAP_LOOKUP_ELEM`, `BPF_PROG_LOAD`, and so on, of linux/bpf.h.
const HARMLESS: [u64; 12] = [0, 1, 4, 5, 7, 11, 12, 13, 14, 15, 18, 31];

/// What became of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was killed at the place that was asked for.
    Killed,
    /// It ended by itself before that, with this exit code.
    Itself(i32),
    /// It was killed when it had made no further change for too long.
    Idle,
}

/// How long a program may take until the change that it is killed at.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the program, and kills it before its change of this number, from 0 on. Only the
/// changes of its first thread count.
///
/// # Errors
/// When it can't be started or followed.
pub fn before_change(mut command: Command, number: usize) -> Result<Ended> {
    // SAFETY: the closure makes one system call between fork and exec, and allocates nothing.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let _gate = cleanup::gate()?;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting it")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(slow::patient(PATIENCE)) == Err(RecvTimeoutError::Timeout) {
                let _gone = kill(pid, Signal::SIGKILL);
            }
        });
        let followed = follow(pid, number);
        drop(done);
        if !matches!(followed, Ok(Ended::Itself(_) | Ended::Idle)) {
            // It may have gone meanwhile; it is taken away in any case.
            let _gone = kill(pid, Signal::SIGKILL);
            let _status = child.wait();
        }
        followed
    })
}

fn follow(pid: Pid, number: usize) -> Result<Ended> {
    // The stop at exec.
    let WaitStatus::Stopped(..) = waitpid(pid, None)? else { bail!("it did not stop at its start") };
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
    let (mut changes, mut signal) = (0, None);
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) if !is_change(pid)? => {}
            WaitStatus::PtraceSyscall(_) if changes == number => return Ok(Ended::Killed),
            WaitStatus::PtraceSyscall(_) => changes += 1,
            WaitStatus::Stopped(_, with) => signal = Some(with),
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => return Ok(Ended::Idle),
            WaitStatus::Exited(_, code) => return Ok(Ended::Itself(code)),
            other @ (WaitStatus::Signaled(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive) => bail!("it ended otherwise: {other:?}"),
        }
    }
}

/// Is the process about to make a system call that changes something?
fn is_change(pid: Pid) -> Result<bool> {
    let info = ptrace::syscall_info(pid)?;
    if info.op != ENTRY {
        return Ok(false);
    }
    // SAFETY: at an entry the kernel has written this one; it is numbers.
    let entry = unsafe { info.u.entry };
    let is_harmless = || entry.nr == libc::SYS_bpf.cast_unsigned() && HARMLESS.contains(&entry.args[0]);
    Ok(CHANGES.contains(&entry.nr.cast_signed()) && !is_harmless())
}
