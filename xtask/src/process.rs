//! Running programs: in the foreground, with their output in a log and a line
//! that shows progress, or with their output copied as it comes. On Ctrl-C a
//! child gets to finish its own cleaning up before we leave.
//!
//! Which programs to run, and with what, is for the verbs.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _},
    ops::ControlFlow,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal},
};

/// How often to check a running child.
const POLL: Duration = Duration::from_millis(50);
/// The same for one of many short ones.
const WATCH: Duration = Duration::from_millis(10);
/// How often to report progress if no terminal shows a moving line.
const TELL: Duration = Duration::from_secs(10);
/// How long a program that was asked to end gets for its own cleaning up.
const GRACE: Duration = Duration::from_secs(10);
/// How much of a log is shown when its program failed.
const TAIL_LINES: usize = 30;

/// The signal that asked us to stop; 0 when none did.
static STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_signal(signal: i32) {
    STOP.store(signal, Ordering::Relaxed);
}

/// The user, or whoever runs us, asked us to stop.
#[derive(Debug)]
pub(crate) struct Interrupted(i32);

impl Interrupted {
    /// 128 + the signal's number, as shells report it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::try_from(128 + self.0).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; the next run goes on from here")
    }
}

impl std::error::Error for Interrupted {}

/// From here on SIGINT and SIGTERM are noted instead of ending us: a child that
/// was in the middle of something (dpkg, a test with namespaces) ends first.
///
/// # Errors
/// When the kernel refuses the handler.
pub(crate) fn catch_signals() -> anyhow::Result<()> {
    let action = SigAction::new(SigHandler::Handler(note_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is
        // async-signal-safe. Children do not inherit it: exec resets handlers.
        unsafe { signal::sigaction(signal, &action) }.context("cannot handle signals")?;
    }
    Ok(())
}

/// Fails if a signal asked us to stop.
///
/// # Errors
/// [`Interrupted`].
pub(crate) fn check_stop() -> Result<(), Interrupted> {
    match STOP.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Interrupted(signal)),
    }
}

/// Waits for the child, calling `tick` meanwhile. A SIGTERM, which unlike
/// Ctrl-C reaches us alone, is handed on.
fn wait(child: &mut Child, mut tick: impl FnMut()) -> anyhow::Result<ExitStatus> {
    let mut handed_on = false;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            check_stop()?;
            return Ok(status);
        }
        if STOP.load(Ordering::Relaxed) == Signal::SIGTERM as i32 && !handed_on {
            send(child.id(), Signal::SIGTERM);
            handed_on = true;
        }
        tick();
        thread::sleep(POLL);
    }
}

fn send(child: u32, signal: Signal) {
    // A child that has ended meanwhile is still ours to wait for, so its number
    // cannot belong to another process.
    if let Ok(pid) = i32::try_from(child) {
        let _gone = signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// The command as a person would type it.
pub(crate) fn spell(command: &Command) -> String {
    let mut words = vec![command.get_program()];
    words.extend(command.get_args());
    words.into_iter().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs in the foreground, sharing our terminal.
///
/// # Errors
/// When it cannot be started, or [`Interrupted`].
pub(crate) fn run(command: &mut Command) -> anyhow::Result<ExitStatus> {
    check_stop()?;
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", spell(command)))?;
    wait(&mut child, || ())
}

/// Becomes the program: its signals, its terminal and its exit code are then
/// nobody's but its own.
///
/// # Errors
/// Returns only if it could not be started.
pub(crate) fn become_program(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot run `{}`", spell(command)))
}

/// What a program prints, for those that answer in a moment.
///
/// # Errors
/// When it cannot be started or fails; the message carries what it complained.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    check_stop()?;
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{}`", spell(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", spell(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs something long: output goes to `log`, progress to stderr, and the end
/// of the log is shown if it fails.
///
/// # Errors
/// When it cannot be started or fails, or [`Interrupted`].
pub(crate) fn run_logged(what: &str, command: &mut Command, log: &Path) -> anyhow::Result<()> {
    check_stop()?;
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", spell(command)))?;
    let mut progress = Progress::start(what);
    let status = wait(&mut child, || progress.tick(log));
    progress.end();
    let status = status?;
    if !status.success() {
        eprintln!("--- the end of {}:\n{}\n---", log.display(), tail(log, TAIL_LINES));
        bail!("`{}` failed ({status})", spell(command));
    }
    eprintln!("{what}: done in {} s", progress.started.elapsed().as_secs());
    Ok(())
}

/// Runs with stdout passed to `sink` as it comes; stderr is ours. After `limit`
/// the program is asked to end, and made to if it does not.
///
/// # Errors
/// When it cannot be started, its output cannot be read, or [`Interrupted`].
pub(crate) fn run_streamed(
    command: &mut Command,
    limit: Duration,
    sink: impl FnMut(&[u8]),
) -> anyhow::Result<ExitStatus> {
    run_streamed_until(command, |running| running > limit, sink)
}

/// [`run_streamed`], with a limit that depends on what came: `is_overdue` is asked
/// again and again, with the time since the start.
///
/// # Errors
/// As there.
pub(crate) fn run_streamed_until(
    command: &mut Command,
    mut is_overdue: impl FnMut(Duration) -> bool,
    mut sink: impl FnMut(&[u8]),
) -> anyhow::Result<ExitStatus> {
    check_stop()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", spell(command)))?;
    let mut pipe = child.stdout.take().context("the child has no stdout")?;
    // Not until end of file: a process that the child left behind would hold
    // the pipe open, and us with it.
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot make a pipe non-blocking")?;
    let (pid, started) = (child.id(), Instant::now());
    let (mut read, mut urged) = (Ok(()), None::<Instant>);
    let status = wait(&mut child, || {
        if read.is_ok() {
            read = drain(&mut pipe, &mut sink);
        }
        match urged {
            None if is_overdue(started.elapsed()) => {
                eprintln!(
                    "xtask: `{}` has not ended after {} s; stopping it",
                    spell(command),
                    started.elapsed().as_secs()
                );
                send(pid, Signal::SIGTERM);
                urged = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => send(pid, Signal::SIGKILL),
            None | Some(_) => {}
        }
    })?;
    read.and_then(|()| drain(&mut pipe, &mut sink)).context("cannot read a child's output")?;
    Ok(status)
}

/// How a watched program came to its end.
#[derive(Debug)]
pub(crate) enum Watched {
    /// By itself.
    Ended(ExitStatus),
    /// It had said enough, and was killed.
    Enough,
    /// It was killed when its time was over.
    Overdue,
}

/// Runs something that may hang or go on for long after it has said what
/// matters: it is killed, with all that it started, as soon as `sink` breaks or
/// `limit` is over. Its stderr is dropped.
///
/// # Errors
/// When it cannot be started, its output cannot be read, or [`Interrupted`].
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    mut sink: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> anyhow::Result<Watched> {
    check_stop()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own, so that no child of its is left behind.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run `{}`", spell(command)))?;
    let mut pipe = child.stdout.take().context("the child has no stdout")?;
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot make a pipe non-blocking")?;
    let started = Instant::now();
    let mut end = || -> anyhow::Result<Watched> {
        loop {
            let status = child.try_wait().context("cannot wait for a child process")?;
            let mut flow = ControlFlow::Continue(());
            let mut feed = |bytes: &[u8]| {
                if flow.is_continue() {
                    flow = sink(bytes);
                }
            };
            drain(&mut pipe, &mut feed).context("cannot read a child's output")?;
            check_stop()?;
            match (flow, status) {
                (ControlFlow::Break(()), _) => return Ok(Watched::Enough),
                (ControlFlow::Continue(()), Some(status)) => return Ok(Watched::Ended(status)),
                (ControlFlow::Continue(()), None) if started.elapsed() > limit => {
                    return Ok(Watched::Overdue);
                }
                (ControlFlow::Continue(()), None) => thread::sleep(WATCH),
            }
        }
    };
    let end = end();
    if !matches!(end, Ok(Watched::Ended(_)))
        && let Ok(group) = i32::try_from(child.id())
    {
        // Its leader is ours to wait for, so the group is still its own.
        let _gone = signal::killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL);
        child.wait().context("cannot wait for a child process")?;
    }
    end
}

/// Hands over what the pipe holds now.
fn drain(pipe: &mut impl io::Read, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0_u8; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sink(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One line on stderr about something that takes long.
struct Progress<'a> {
    what: &'a str,
    started: Instant,
    told: Instant,
    terminal: bool,
}

impl<'a> Progress<'a> {
    fn start(what: &'a str) -> Self {
        let now = Instant::now();
        Self { what, started: now, told: now, terminal: io::stderr().is_terminal() }
    }

    fn tick(&mut self, log: &Path) {
        let every = if self.terminal { Duration::from_millis(500) } else { TELL };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let last = tail(log, 1);
        let last: String = last.trim().chars().filter(|c| !c.is_control()).take(60).collect();
        let mut stderr = io::stderr().lock();
        // A progress line that cannot be written is no reason to stop the work.
        let _unseen = if self.terminal {
            write!(stderr, "\r\x1b[K{} … {seconds} s  {last}", self.what).and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{} … {seconds} s  {last}", self.what)
        };
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// The last lines of a log, as far as its last 16 KiB go.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // cargo and apt redraw lines with \r: only what was drawn last counts.
    let all: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line))
        .filter(|line| !line.trim().is_empty())
        .collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("vip-xtask-process-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("scratch directory");
        dir.join(name)
    }

    #[test]
    fn a_failing_program_leaves_its_log_and_says_what_failed() {
        let log = scratch("fails.log");
        let error =
            run_logged("trial", &mut shell("echo one; echo two >&2; exit 3"), &log).expect_err("exit code 3");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let text = fs::read_to_string(&log).expect("the log is there");
        assert!(text.contains("one") && text.contains("two"), "{text}");
    }

    #[test]
    fn tail_shows_the_last_lines_as_a_terminal_would() {
        let log = scratch("tail.log");
        fs::write(&log, "first\nsecond\n10%\r50%\r100%\n\n").expect("written");
        assert_eq!(tail(&log, 2), "second\n100%");
        assert_eq!(tail(&log, 9), "first\nsecond\n100%");
        assert_eq!(tail(&scratch("absent.log"), 2), "");
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn streamed_output_arrives_whole_and_the_status_is_the_childs() {
        let mut seen = Vec::new();
        let status = run_streamed(&mut shell("printf 'a b\\nc'; sleep 0.2; printf d; exit 4"), LONG, |b| {
            seen.extend_from_slice(b)
        })
        .expect("it runs");
        assert_eq!(seen, b"a b\ncd");
        assert_eq!(status.code(), Some(4));
    }

    #[test]
    fn a_process_left_behind_does_not_hold_us() {
        let started = Instant::now();
        let mut seen = Vec::new();
        // The background process keeps the pipe open long after its parent.
        run_streamed(&mut shell("sleep 30 & echo $!"), LONG, |b| seen.extend_from_slice(b)).expect("it runs");
        let left = String::from_utf8(seen).expect("a number").trim().parse().expect("a number");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        signal::kill(nix::unistd::Pid::from_raw(left), Signal::SIGKILL).expect("it was still there");
    }

    #[test]
    fn a_program_over_its_limit_is_ended() {
        let started = Instant::now();
        let status = run_streamed(Command::new("sleep").arg("60"), Duration::from_millis(100), |_| ())
            .expect("it runs");
        assert!(!status.success());
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    }

    #[test]
    fn what_is_watched_ends_by_itself_or_by_its_word_or_by_its_time() {
        let seen = |script: &str, limit: Duration| {
            watch(&mut shell(script), limit, |bytes| match bytes.contains(&b'!') {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
            .expect("it runs")
        };
        assert!(matches!(seen("echo one; exit 3", LONG), Watched::Ended(status) if status.code() == Some(3)));
        let started = Instant::now();
        assert!(matches!(seen("echo !; sleep 60", LONG), Watched::Enough));
        assert!(matches!(seen("echo one; sleep 60", Duration::from_millis(100)), Watched::Overdue));
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
        // What it said with its last breath counts.
        assert!(matches!(seen("echo !", LONG), Watched::Enough));
    }

    #[test]
    fn output_of_a_failing_program_is_an_error_with_its_complaint() {
        let error = output_of(&mut shell("echo broken >&2; exit 1")).expect_err("it fails");
        assert!(error.to_string().contains("broken"), "{error}");
        assert_eq!(output_of(&mut shell("echo fine")).expect("it runs"), "fine\n");
    }
}
