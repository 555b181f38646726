//! Health checks: they run on a thread of their own, each on its own interval and
//! never twice at a time. Results go to the judge and to the [`Board`]. A check
//! that hangs holds up nobody but itself.

mod blocking;
mod board;
mod exec;
mod http;
mod probe;
mod verdict;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc::Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use self::{probe::Probe, verdict::Verdict};
use super::messages::Heard;
use crate::config::{Check, Config, Group};

pub use self::board::{Board, Hearing};

/// The checks' first runs are spread over this time, or over their interval where
/// that is shorter.
const SPREAD_MAX: Duration = Duration::from_millis(500);

/// The checks to run, by group and name.
type Wanted = BTreeMap<(String, String), Check>;

/// Orders to the thread.
#[derive(Debug)]
enum Ask {
    Run(Wanted),
    End,
}

/// The running checks. They end when this is dropped.
#[derive(Debug)]
pub struct Checks {
    applier: Applier,
    thread: Option<JoinHandle<()>>,
}

/// A handle that changes which checks run.
#[derive(Clone, Debug)]
pub struct Applier(UnboundedSender<Ask>);

impl Applier {
    /// Runs the checks of these groups and no others. A check that ran before and
    /// is unchanged goes on, with its state.
    pub fn apply(&self, groups: &[Group]) {
        let of = |group: &Group, check: &Check| ((group.name.clone(), check.name.clone()), check.clone());
        let wanted =
            groups.iter().flat_map(|group| group.health.checks.iter().map(move |check| of(group, check)));
        // The thread may have ended, with the agent.
        let _ = self.0.send(Ask::Run(wanted.collect()));
    }
}

impl Checks {
    /// Starts the checks of this node; a node that never holds has none, and no
    /// judge.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn of_node(
        config: &Config,
        board: &Arc<Board>,
        judge: Option<&Sender<Heard>>,
    ) -> io::Result<Option<Self>> {
        let Some(judge) = judge else { return Ok(None) };
        let checks = Self::start(Arc::clone(board), judge.clone())?;
        checks.applier.apply(&config.groups);
        Ok(Some(checks))
    }

    /// Starts the thread, with nothing to do.
    fn start(board: Arc<Board>, judge: Sender<Heard>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, todo) = unbounded_channel();
        let thread = thread::Builder::new().name("checks".into()).spawn(move || {
            runtime.block_on(run(todo, &board, &judge));
            // Doesn't wait for work that hangs on other threads.
            runtime.shutdown_background();
        })?;
        Ok(Self { applier: Applier(orders), thread: Some(thread) })
    }

    /// A handle by which others change which checks run.
    #[must_use]
    pub fn applier(&self) -> Applier {
        self.applier.clone()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // It may have ended by a panic, which was reported.
        let _ = self.applier.0.send(Ask::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(mut orders: UnboundedReceiver<Ask>, board: &Arc<Board>, judge: &Sender<Heard>) {
    let mut running: BTreeMap<(String, String), (Check, AbortHandle)> = BTreeMap::new();
    while let Some(Ask::Run(wanted)) = orders.recv().await {
        running.retain(|key, (check, task)| {
            let stays = wanted.get(key) == Some(check);
            if !stays {
                task.abort();
                board.end(&key.0, &key.1);
            }
            stays
        });
        for (key, check) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            board.begin(&key.0, &check);
            let task = survive(key.0.clone(), check.clone(), Arc::clone(board), judge.clone());
            running.insert(key, (check, tokio::spawn(task).abort_handle()));
        }
    }
}

/// Runs [`watch`], which only a bug can end; then the check fails, instead of
/// keeping its last verdict for ever.
async fn survive(group: String, check: Check, board: Arc<Board>, judge: Sender<Heard>) {
    let name = check.name.clone();
    let watched = watch(group.clone(), check, Arc::clone(&board), judge.clone());
    if std::panic::AssertUnwindSafe(watched).catch_unwind().await.is_err() {
        let trouble = "it panicked, which is a bug of this agent";
        board.note(&group, &name, Err(trouble), Duration::ZERO, Some(false));
        // The judge ends with the agent.
        let _ = judge.send(Heard::Checked { group, check: name, trouble: Some(trouble.to_owned()) });
    }
}

/// Runs one check again and again.
async fn watch(group: String, check: Check, board: Arc<Board>, judge: Sender<Heard>) {
    let mut probe = Probe::new(&group, &check);
    let mut verdict = Verdict::new(check.rise, check.fall);
    let spread = check.interval.min(SPREAD_MAX);
    let mut beat = interval_at(Instant::now() + spread.mul_f64(fastrand::f64()), check.interval);
    // A late run shifts the following ones; missed runs are not made up for.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let begun = Instant::now();
        let result = probe.run(check.timeout).await;
        let news = verdict.note(result.is_ok());
        board.note(
            &group,
            &check.name,
            result.as_ref().copied().map_err(String::as_str),
            begun.elapsed(),
            news,
        );
        let Some(passes) = news else { continue };
        let heard = Heard::Checked {
            group: group.clone(),
            check: check.name.clone(),
            trouble: (!passes).then(|| result.err().unwrap_or_default()),
        };
        if judge.send(heard).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::mpsc::{Receiver, RecvTimeoutError, channel},
    };

    use super::*;
    use crate::config::{CheckKind, Health};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn check(name: &str, kind: CheckKind) -> Check {
        let beat = Duration::from_millis(100);
        Check { name: name.into(), kind, interval: beat, timeout: beat, rise: 2, fall: 2 }
    }

    fn group(checks: Vec<Check>) -> Group {
        Group {
            name: "db".into(),
            vips: Vec::new(),
            homes: BTreeMap::new(),
            is_gateway: false,
            virtual_mac: None,
            priorities: BTreeMap::new(),
            preempt: None,
            hooks: crate::config::Hooks::default(),
            health: Health { checks, ..Health::default() },
        }
    }

    fn flag(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("vip-checks-{name}-{}", std::process::id()))
    }

    fn is_there(path: &Path) -> CheckKind {
        CheckKind::File { path: path.to_owned(), present: true }
    }

    /// The next verdict: the check's name, and why it fails.
    fn next(notices: &Receiver<Heard>) -> (String, Option<String>) {
        let notice = notices.recv_timeout(PATIENCE).expect("a verdict");
        let Heard::Checked { group, check, trouble } = notice else { panic!("{notice:?}") };
        assert_eq!(group, "db");
        (check, trouble)
    }

    #[test]
    fn verdicts_are_told_once_and_the_board_knows_more() {
        let path = flag("verdicts");
        fs::write(&path, "").expect("written");
        let (board, (tell, notices)) = (Arc::new(Board::default()), channel());
        let checks = Checks::start(Arc::clone(&board), tell).expect("started");
        checks.applier.apply(&[group(vec![check("flag", is_there(&path))])]);
        assert_eq!(next(&notices), ("flag".into(), None));
        fs::remove_file(&path).expect("there");
        let why = format!("{} is not there", path.display());
        assert_eq!(next(&notices), ("flag".into(), Some(why.clone())));
        let seen = board.see("db").checks;
        let [seen] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(
            (seen.ok, seen.kind.as_str(), seen.last_error.as_ref()),
            (Some(false), "file", Some(&why))
        );
        assert!(seen.took_ms.is_some());
        assert_eq!(notices.recv_timeout(Duration::from_millis(500)).err(), Some(RecvTimeoutError::Timeout));
        fs::write(&path, "").expect("written");
        assert_eq!(next(&notices), ("flag".into(), None));
        assert_eq!(board.see("db").checks[0].last_error, None);
        fs::remove_file(&path).expect("there");
        drop(checks);
        // The check is gone: nothing more comes.
        while notices.recv_timeout(PATIENCE).is_ok() {}
        assert_eq!(notices.recv().err(), Some(std::sync::mpsc::RecvError));
    }

    #[test]
    fn a_hung_check_holds_up_no_other_and_not_the_end() {
        let path = flag("hung");
        let hung = CheckKind::Exec(["/bin/sleep", "1000"].map(str::to_owned).to_vec());
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = silent.local_addr().expect("bound").port();
        let url = crate::config::Url::parse(&format!("http://127.0.0.1:{port}/")).expect("a URL");
        let page = CheckKind::Http { url, statuses: Vec::new(), body: None, insecure: false };
        let (board, (tell, notices)) = (Arc::new(Board::default()), channel());
        let checks = Checks::start(board, tell).expect("started");
        let slow = |name, kind| Check { interval: PATIENCE, timeout: PATIENCE, ..check(name, kind) };
        checks.applier.apply(&[group(vec![
            slow("hung", hung),
            slow("page", page),
            check("flag", is_there(&path)),
        ])]);
        assert!(next(&notices).1.is_some());
        fs::write(&path, "").expect("written");
        assert_eq!(next(&notices), ("flag".into(), None));
        fs::remove_file(&path).expect("there");
        let begun = std::time::Instant::now();
        drop(checks);
        assert!(begun.elapsed() < PATIENCE / 2, "the end waited for a check");
    }

    #[test]
    fn what_is_the_same_goes_on_and_what_is_gone_is_not_run() {
        let (kept, gone) = (flag("kept"), flag("gone"));
        fs::write(&kept, "").expect("written");
        fs::write(&gone, "").expect("written");
        let (board, (tell, notices)) = (Arc::new(Board::default()), channel());
        let checks = Checks::start(Arc::clone(&board), tell).expect("started");
        let stays = check("kept", is_there(&kept));
        checks.applier.apply(&[group(vec![stays.clone(), check("gone", is_there(&gone))])]);
        let mut first = [next(&notices).0, next(&notices).0];
        first.sort();
        assert_eq!(first, ["gone", "kept"]);
        checks.applier.apply(&[group(vec![stays])]);
        fs::remove_file(&gone).expect("there");
        // The one that stays does not tell its verdict again: it never began anew.
        assert_eq!(notices.recv_timeout(Duration::from_millis(700)).err(), Some(RecvTimeoutError::Timeout));
        let names: Vec<_> = board.see("db").checks.into_iter().map(|check| check.name).collect();
        assert_eq!(names, ["kept"]);
        fs::remove_file(&kept).expect("there");
        assert!(next(&notices).1.is_some());
    }
}
