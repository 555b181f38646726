//! Runs a program to its end: in a process group of its own, without a shell, as
//! this agent's user, with an empty stdin. When its time is over, kills the whole
//! group. Keeps a little of what it prints.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::blocking::{Aside, too_slow};
use crate::outbound::process;

/// Bytes of a program's output to keep; the rest is read and dropped.
const OUTPUT_MAX: usize = 4096;
/// How long to wait for the rest of the output of a program that has ended:
/// another process of its group may keep the pipe open.
const REST: Duration = Duration::from_millis(20);
/// How long a killed program may take to be gone. One that the kernel keeps (an
/// NFS server that is away) takes longer.
const KILLED: Duration = Duration::from_millis(200);

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// How, in words.
    pub how: String,
    /// The beginning of what it printed to stdout and stderr.
    pub output: String,
}

impl Ended {
    /// The first line that it printed.
    pub(super) fn line(&self) -> Option<&str> {
        self.output.lines().map(str::trim).find(|line| !line.is_empty())
    }
}

/// A program to run again and again.
#[derive(Debug)]
pub(super) struct Program {
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// A killed run that is not gone yet.
    killed: Option<Child>,
    /// Where the program is started: that takes as long as the kernel takes to
    /// read the program, which can be for ever on the disk of a dead server.
    starting: Aside,
}

/// Kills the group when it is dropped, however the run ended.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn kill(&self) {
        if let Some(leader) = self.0 {
            // The group may be gone already. No other process has its number: nobody has
            // waited for the leader yet.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Program {
    /// The program and its arguments, and what to add to its environment.
    pub(super) fn new(words: Vec<String>, environment: Vec<(&'static str, String)>) -> Self {
        Self { words, environment, killed: None, starting: Aside::default() }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The program could not be started, took longer than `limit`, or an earlier
    /// run that was killed is still there.
    pub(super) async fn run(&mut self, limit: Duration) -> Result<Ended, String> {
        if let Some(mut killed) = self.killed.take()
            && let Ok(None) = killed.try_wait()
        {
            self.killed = Some(killed);
            return Err("an earlier run was killed and still hangs in the kernel".to_owned());
        }
        let until = Instant::now() + limit;
        let (words, environment) = (self.words.clone(), self.environment.clone());
        let mut child = self.starting.run(limit, move || start(&words, environment)).await?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut group = ProcessGroup(leader);
        let mut output = Vec::new();
        let Ok(ended) = timeout_at(until, end_of(&mut child, &mut output)).await else {
            group.kill();
            if timeout(KILLED, child.wait()).await.is_err() {
                self.killed = Some(child);
            }
            group.0 = None;
            return Err(too_slow(limit));
        };
        group.0 = None;
        let status = ended.map_err(|e| format!("its end is not known: {e}"))?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Ended { code: status.code(), how: status.to_string(), output })
    }
}

fn start(words: &[String], environment: Vec<(&'static str, String)>) -> Result<Child, String> {
    let mut command = Command::from(process::command(words, environment).map_err(|e| e.to_string())?);
    // A program that starts too late for anybody to wait for it is killed.
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = words.first().map_or("", String::as_str);
    let child = command.spawn().map_err(|e| format!("{program} can't be started: {e}"))?;
    if let Some(pid) = child.id() {
        process::is_like_others(pid);
    }
    Ok(child)
}

/// Waits for the end of a program, and keeps the beginning of its output.
async fn end_of(child: &mut Child, output: &mut Vec<u8>) -> std::io::Result<std::process::ExitStatus> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let status = loop {
        let some = tokio::select! {
            status = child.wait() => break status?,
            some = read_some(&mut stdout) => some,
            some = read_some(&mut stderr) => some,
        };
        keep(output, &some);
    };
    let rest = async {
        while stdout.is_some() {
            keep(output, &read_some(&mut stdout).await);
        }
        while stderr.is_some() {
            keep(output, &read_some(&mut stderr).await);
        }
    };
    // What has not come by then is from another process.
    let _ = timeout(REST, rest).await;
    Ok(status)
}

/// Reads some of a pipe; never returns if there is no pipe any more.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(open) = pipe else { return std::future::pending().await };
    let mut some = vec![0; OUTPUT_MAX];
    let len = open.read(&mut some).await.unwrap_or(0);
    if len == 0 {
        *pipe = None;
    }
    some.truncate(len);
    some
}

fn keep(output: &mut Vec<u8>, some: &[u8]) {
    let room = OUTPUT_MAX.saturating_sub(output.len());
    output.extend_from_slice(&some[..some.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;

    fn sh(script: &str) -> Program {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Program::new(words, vec![("VIP_GROUP", "db".to_owned())])
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_is_run_to_its_end_with_its_words_as_they_are() {
        let words = ["/bin/echo", "$HOME;", "a b"].map(str::to_owned).to_vec();
        let ended = Program::new(words, Vec::new()).run(PATIENCE).await.expect("run");
        assert_eq!((ended.code, ended.output.as_str()), (Some(0), "$HOME; a b\n"));
        let ended = sh("echo \"$VIP_GROUP\" >&2; read x || exit 3").run(PATIENCE).await.expect("run");
        assert_eq!((ended.code, ended.line()), (Some(3), Some("db")));
        let ended = sh("kill -9 $$").run(PATIENCE).await.expect("run");
        assert!(ended.code.is_none() && ended.how.contains('9'), "{ended:?}");
        let none = Program::new(vec!["/nowhere/check".to_owned()], Vec::new()).run(PATIENCE).await;
        assert!(none.expect_err("none").starts_with("/nowhere/check can't be started: No such file"));
    }

    #[tokio::test]
    async fn of_much_output_little_is_kept_and_nobody_is_held_up() {
        let ended = sh("head -c 3000000 /dev/zero; echo end >&2").run(PATIENCE).await.expect("run");
        assert_eq!((ended.code, ended.output.len()), (Some(0), OUTPUT_MAX));
    }

    #[tokio::test]
    async fn who_leaves_a_process_behind_has_ended_all_the_same() {
        let begun = Instant::now();
        let ended = sh("sleep 30 & echo $!").run(PATIENCE).await.expect("run");
        assert!(begun.elapsed() < PATIENCE, "waited for the one left behind");
        let left: i32 = ended.line().and_then(|line| line.parse().ok()).expect("a process id");
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL)
            .expect("it was not killed with its parent");
    }

    /// Is there a process in this group?
    fn is_alive(leader: i32) -> bool {
        killpg(Pid::from_raw(leader), None).is_ok()
    }

    async fn is_gone(leader: i32) -> bool {
        let begun = Instant::now();
        while is_alive(leader) && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        !is_alive(leader)
    }

    /// A script that writes its process id to a file and then hangs, with a
    /// child that hangs too.
    fn hanging(name: &str) -> (std::path::PathBuf, Program) {
        let file = std::env::temp_dir().join(format!("vip-program-{name}-{}", std::process::id()));
        let script = format!("trap '' TERM; sleep 1000 & echo $$ > {}; wait; sleep 1000", file.display());
        (file, sh(&script))
    }

    fn leader(file: &std::path::Path) -> i32 {
        let text = fs::read_to_string(file).expect("it ran");
        fs::remove_file(file).expect("there");
        text.trim().parse().expect("a process id")
    }

    #[tokio::test]
    async fn when_its_time_is_over_the_whole_group_is_killed() {
        let (file, mut program) = hanging("slow");
        let slow = program.run(Duration::from_millis(500)).await.expect_err("too slow");
        assert_eq!(slow, "no result within 500ms");
        assert!(is_gone(leader(&file)).await, "the group lives on");
        assert!(program.killed.is_none(), "it has been waited for");
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_leaves_nothing_behind() {
        let (file, mut program) = hanging("dropped");
        let run = tokio::spawn(async move { program.run(PATIENCE).await.map(|_| ()) });
        let begun = Instant::now();
        while fs::read_to_string(&file).map_or(true, |text| text.is_empty()) && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run.abort();
        assert!(run.await.expect_err("aborted").is_cancelled());
        assert!(is_gone(leader(&file)).await, "the group lives on");
    }
}
