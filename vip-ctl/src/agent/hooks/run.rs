//! One run of a hook, for a limited time. It blocks, and runs on a thread of its
//! own.

use std::{
    collections::BTreeMap,
    io::{self, PipeReader, Read},
    os::fd::AsFd,
    process::{Child, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use vip_common::BootNs;

use crate::{agent::messages::HookEnded, clock, events::HookOutcome, outbound::process};

/// Bytes of output to keep; the rest is read and dropped.
const OUTPUT_MAX: usize = 4096;
/// Lines of output to report.
const LINES_MAX: usize = 10;
/// The longest line to report, in characters.
const LINE_MAX: usize = 200;
/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long to read the rest of the output of a hook that has ended: a process
/// that it left behind may write for ever.
const REST: Duration = Duration::from_millis(20);
/// How long the end of a program that closed no pipe may go unnoticed.
const EXIT_POLL_MS: u16 = 10;

/// A program to run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables to add to the environment.
    pub environment: BTreeMap<&'static str, String>,
    /// After this time the run is killed.
    pub limit: Duration,
}

/// Runs it to its end, to its limit, or until `cancel` is set.
pub fn run(task: &Task, cancel: &AtomicBool) -> HookEnded {
    let begun = clock::now();
    let ended = |outcome, exit, output: &[u8]| HookEnded {
        outcome,
        exit,
        took: clock::now().since(begun),
        output: lines(output),
    };
    let (child, pipe) = match start(task) {
        Ok(started) => started,
        Err(e) => return ended(HookOutcome::NotStarted, None, e.to_string().as_bytes()),
    };
    let mut running = Process { child, pipe: Some(pipe), output: Vec::new() };
    let deadline = begun.plus(task.limit);
    let stop = || cancel.load(Ordering::Relaxed);
    match running.wait(deadline, stop) {
        Ok(Some(status)) => {
            let outcome = if status.success() { HookOutcome::Done } else { HookOutcome::Failed };
            ended(outcome, status.code(), &running.output)
        }
        Ok(None) => {
            let outcome = if stop() { HookOutcome::Cancelled } else { HookOutcome::TimedOut };
            running.kill();
            ended(outcome, None, &running.output)
        }
        Err(e) => {
            running.kill();
            ended(HookOutcome::Failed, None, e.to_string().as_bytes())
        }
    }
}

fn start(task: &Task) -> io::Result<(Child, PipeReader)> {
    let mut command = process::command(&task.command, task.environment.clone())?;
    let (reader, writer) = io::pipe()?;
    // The command ends with this function, and the pipe's writing ends with it.
    let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    process::is_like_others(child.id());
    Ok((child, reader))
}

struct Process {
    child: Child,
    /// `None` once nobody can write to it any more.
    pipe: Option<PipeReader>,
    output: Vec<u8>,
}

impl Process {
    /// Reads what the program prints until it has ended; `None` if it has to be
    /// ended.
    fn wait(&mut self, deadline: BootNs, stop: impl Fn() -> bool) -> io::Result<Option<ExitStatus>> {
        loop {
            self.read_for(EXIT_POLL_MS)?;
            if let Some(status) = self.child.try_wait()? {
                let until = clock::now().plus(REST);
                while self.pipe.is_some() && clock::now() < until && self.read_for(0)? {}
                return Ok(Some(status));
            }
            if clock::now() >= deadline || stop() {
                return Ok(None);
            }
        }
    }

    /// Reads once what comes within `ms` milliseconds. Returns whether anything
    /// came.
    fn read_for(&mut self, ms: u16) -> io::Result<bool> {
        let Some(pipe) = &mut self.pipe else {
            std::thread::sleep(Duration::from_millis(1));
            return Ok(false);
        };
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, ms) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut bytes = [0; 4096];
        let count = pipe.read(&mut bytes)?;
        if count == 0 {
            self.pipe = None;
            return Ok(false);
        }
        let room = OUTPUT_MAX.saturating_sub(self.output.len());
        self.output.extend_from_slice(&bytes[..count.min(room)]);
        Ok(true)
    }

    /// Ends the whole process group: SIGTERM first, then SIGKILL.
    fn kill(&mut self) {
        let Ok(group) = i32::try_from(self.child.id()) else { return };
        let group = Pid::from_raw(group);
        // A group that is gone needs no signal.
        let _ = killpg(group, Signal::SIGTERM);
        // Processes that the first one leaves behind get their second too.
        let until = clock::now().plus(TERM_GRACE);
        let is_there = || killpg(group, None).is_ok();
        while is_there() {
            if clock::now() >= until {
                let _ = killpg(group, Signal::SIGKILL);
                break;
            }
            let _ = self.read_for(EXIT_POLL_MS);
            let _ = self.child.try_wait();
        }
        // The number of a group that is gone may be another's by now: no signal then.
        let _ = self.child.wait();
    }
}

/// The first lines, fit to print.
fn lines(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let line = |line: &str| line.trim_end().chars().take(LINE_MAX).map(printable).collect();
    text.lines().take(LINES_MAX).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Task {
        Task {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: BTreeMap::from([("VIP_GROUP", "db".to_owned())]),
            limit,
        }
    }

    fn run_alone(task: &Task) -> HookEnded {
        run(task, &AtomicBool::new(false))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_of_both_streams_exit_code_and_environment_are_told() {
        let ended = run_alone(&sh("echo $VIP_GROUP; echo oh >&2; exit 3", LONG));
        assert_eq!((ended.outcome, ended.exit), (HookOutcome::Failed, Some(3)));
        assert_eq!(ended.output, ["db", "oh"]);
        let ended = run_alone(&sh("", LONG));
        assert_eq!((ended.outcome, ended.exit), (HookOutcome::Done, Some(0)));
        let ended = run_alone(&Task { command: vec!["/nonexistent/hook".into()], ..sh("", LONG) });
        assert_eq!((ended.outcome, ended.exit), (HookOutcome::NotStarted, None));
        assert!(!ended.output.is_empty(), "it says why");
    }

    #[test]
    fn a_hook_that_prints_without_end_is_limited_and_does_not_block() {
        let ended = run_alone(&sh("yes | head -c 1000000; exit 0", LONG));
        assert_eq!((ended.outcome, ended.output.len()), (HookOutcome::Done, LINES_MAX));
        let ended = run_alone(&sh("head -c 5000 /dev/zero", LONG));
        assert_eq!(ended.output, [" ".repeat(LINE_MAX)]);
    }

    /// Does a process that is no zombie have this text in its command line?
    fn lives(marker: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| String::from_utf8_lossy(&line).contains(marker))
    }

    #[test]
    fn at_its_limit_the_whole_group_is_killed_also_one_that_does_not_listen() {
        let marker = format!("8642.{}", std::process::id());
        let script = format!("trap '' TERM; sleep {marker} & sleep {marker}; wait");
        let ended = run_alone(&sh(&script, Duration::from_millis(300)));
        assert_eq!((ended.outcome, ended.exit), (HookOutcome::TimedOut, None));
        assert!(ended.took >= Duration::from_millis(300) && ended.took < Duration::from_secs(30));
        let gone = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !lives(&marker)
        });
        assert!(gone, "a child of the hook is left");
    }

    #[test]
    fn a_cancelled_hook_ends_at_once() {
        let cancel = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            let run = scope.spawn(|| run(&sh("sleep 1000", LONG), &cancel));
            std::thread::sleep(Duration::from_millis(50));
            cancel.store(true, Ordering::Relaxed);
            run.join().unwrap()
        });
        assert_eq!(ended.outcome, HookOutcome::Cancelled);
        assert!(ended.took < LONG / 2);
    }

    #[test]
    fn what_a_hook_leaves_in_the_background_is_not_waited_for() {
        let marker = format!("7531.{}", std::process::id());
        let ended = run_alone(&sh(&format!("echo up; sleep {marker} & echo $!"), LONG));
        assert_eq!((ended.outcome, ended.output[0].as_str()), (HookOutcome::Done, "up"));
        assert!(ended.took < LONG / 2);
        let pid: i32 = ended.output[1].parse().unwrap();
        // For a moment in execve a process has no command line.
        let goes_on = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            lives(&marker)
        });
        assert!(goes_on, "it was killed with its hook");
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}
