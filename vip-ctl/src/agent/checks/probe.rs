//! What one run of a check does, by its kind. A run returns that it passed, or a
//! few words why not.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::{
    blocking::{Aside, too_slow},
    exec::Program,
    http::Http,
};
use crate::config::{Check, CheckKind};

/// Where the kernel lists processes.
const PROC: &str = "/proc";

/// A check, ready to be run.
#[derive(Debug)]
pub(super) enum Probe {
    Tcp(SocketAddr),
    Http(Box<Http>),
    Exec(Program),
    Unit(Program),
    Process { name: String, aside: Aside },
    File { path: PathBuf, present: bool, aside: Aside },
}

impl Probe {
    /// The check of a group, ready to run.
    pub(super) fn new(group: &str, check: &Check) -> Self {
        match &check.kind {
            CheckKind::Tcp(address) => Self::Tcp(*address),
            CheckKind::Http { url, statuses, body, insecure } => {
                Self::Http(Box::new(Http::new(url.clone(), statuses.clone(), body.clone(), *insecure)))
            }
            CheckKind::Exec(words) => {
                let environment = vec![("VIP_GROUP", group.to_owned()), ("VIP_CHECK", check.name.clone())];
                Self::Exec(Program::new(words.clone(), environment))
            }
            CheckKind::Systemd(unit) => {
                let words = ["systemctl", "is-active", "--", unit].map(str::to_owned).to_vec();
                Self::Unit(Program::new(words, Vec::new()))
            }
            CheckKind::Process(name) => Self::Process { name: name.clone(), aside: Aside::default() },
            CheckKind::File { path, present } => {
                Self::File { path: path.clone(), present: *present, aside: Aside::default() }
            }
        }
    }

    /// Runs it, in at most about `limit`.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) async fn run(&mut self, limit: Duration) -> Result<(), String> {
        match self {
            Self::Tcp(address) => match timeout(limit, TcpStream::connect(*address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err(too_slow(limit)),
            },
            Self::Http(http) => http.get(limit).await,
            Self::Exec(program) => {
                let ended = program.run(limit).await?;
                match (ended.code, ended.line()) {
                    (Some(0), _) => Ok(()),
                    (_, Some(line)) => Err(format!("{}: {line}", ended.how)),
                    (_, None) => Err(ended.how),
                }
            }
            Self::Unit(program) => {
                let ended = program.run(limit).await?;
                match (ended.code, ended.line()) {
                    (Some(0), _) => Ok(()),
                    (_, Some(line)) => Err(format!("systemctl says: {line}")),
                    (_, None) => Err(format!("systemctl: {}", ended.how)),
                }
            }
            Self::Process { name, aside } => {
                let wanted = name.clone();
                aside.run(limit, move || process(Path::new(PROC), &wanted)).await
            }
            Self::File { path, present, aside } => {
                let (path, present) = (path.clone(), *present);
                aside.run(limit, move || file(&path, present)).await
            }
        }
    }
}

/// Is there a process with this name that is not a zombie?
fn process(proc: &Path, name: &str) -> Result<(), String> {
    let entries = fs::read_dir(proc).map_err(|e| format!("{} can't be read: {e}", proc.display()))?;
    let pids = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    let is_it = |stat: Vec<u8>| {
        // `PID (name) state …`, and the name may have parentheses in it (proc_pid_stat(5)).
        let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let state = stat.get(end + 2)?;
        Some(stat.get(begin..end)? == name.as_bytes() && !b"ZXx".contains(state))
    };
    for pid in pids {
        // It may have ended meanwhile.
        let stat = fs::read(pid.path().join("stat")).unwrap_or_default();
        if is_it(stat) == Some(true) {
            return Ok(());
        }
    }
    Err(format!("no process {name}"))
}

/// Is the file there, or absent, as the check demands?
fn file(path: &Path, present: bool) -> Result<(), String> {
    match (fs::metadata(path), present) {
        (Ok(_), true) => Ok(()),
        (Ok(_), false) => Err(format!("{} is there", path.display())),
        (Err(e), _) if e.kind() != ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
        (Err(_), false) => Ok(()),
        (Err(_), true) => Err(format!("{} is not there", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn probe(kind: CheckKind) -> Probe {
        let check = Check { name: "c".into(), kind, interval: LIMIT, timeout: LIMIT, rise: 1, fall: 1 };
        Probe::new("db", &check)
    }

    #[tokio::test]
    async fn tcp_passes_where_somebody_listens_and_fails_where_nobody_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let mut probe = probe(CheckKind::Tcp(address));
        assert_eq!(probe.run(LIMIT).await, Ok(()));
        drop(listener);
        let error = probe.run(LIMIT).await.expect_err("closed");
        assert!(error.starts_with("Connection refused"), "{error}");
    }

    #[tokio::test]
    async fn tcp_that_is_not_answered_ends_in_time() {
        // A full backlog of one leaves further handshakes unanswered.
        let socket = tokio::net::TcpSocket::new_v4().expect("made");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listener = socket.listen(1).expect("listening");
        let address = listener.local_addr().expect("bound");
        let mut fill = Vec::new();
        for _ in 0..8 {
            fill.push(tokio::spawn(TcpStream::connect(address)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (begun, limit) = (Instant::now(), Duration::from_millis(200));
        assert_eq!(probe(CheckKind::Tcp(address)).run(limit).await, Err("no result within 200ms".into()));
        assert!(begun.elapsed() < LIMIT);
        fill.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn exec_passes_by_its_exit_code_and_fails_with_what_it_says() {
        let sh = |script: &str| probe(CheckKind::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec()));
        assert_eq!(sh("exit 0").run(LIMIT).await, Ok(()));
        assert_eq!(sh("test \"$VIP_GROUP/$VIP_CHECK\" = db/c").run(LIMIT).await, Ok(()));
        assert_eq!(
            sh("echo; echo not today; exit 3").run(LIMIT).await,
            Err("exit status: 3: not today".into())
        );
        assert_eq!(sh("exit 4").run(LIMIT).await, Err("exit status: 4".into()));
        let slow = sh("sleep 1000").run(Duration::from_millis(100)).await;
        assert_eq!(slow, Err("no result within 100ms".into()));
    }

    #[tokio::test]
    async fn a_unit_that_is_not_active_fails_with_its_state() {
        let error = probe(CheckKind::Systemd("vip-no-such-unit.service".into())).run(LIMIT).await;
        let error = error.expect_err("there is no such unit");
        // Where systemd does not run, or is not installed, the error says that instead.
        assert!(error.starts_with("systemctl"), "{error}");
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_name_until_it_ends() {
        // A copy of its own, so that nobody else's process has the name.
        let name = format!("vipt{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        fs::copy("/bin/sleep", &path).expect("copied");
        let mut probe = probe(CheckKind::Process(name.clone()));
        assert_eq!(probe.run(LIMIT).await, Err(format!("no process {name}")));
        let mut child = std::process::Command::new(&path).arg("1000").spawn().expect("started");
        assert_eq!(probe.run(LIMIT).await, Ok(()));
        child.kill().expect("running");
        // Until somebody waits for it, it is a zombie, which serves nobody.
        let begun = Instant::now();
        while probe.run(LIMIT).await.is_ok() && begun.elapsed() < LIMIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(probe.run(LIMIT).await, Err(format!("no process {name}")));
        child.wait().expect("ended");
        fs::remove_file(path).expect("there");
    }

    #[test]
    fn a_name_with_parentheses_is_read_as_a_whole() {
        let dir = std::env::temp_dir().join(format!("vip-proc-{}", std::process::id()));
        fs::create_dir_all(dir.join("12")).expect("made");
        fs::write(dir.join("12/stat"), "12 (a) R (b) S 1 12").expect("written");
        assert_eq!(process(&dir, "a) R (b"), Ok(()));
        assert!(process(&dir, "a").is_err());
        fs::write(dir.join("12/stat"), "12 (a) Z 1 12").expect("written");
        assert!(process(&dir, "a").is_err(), "a zombie");
        fs::remove_dir_all(dir).expect("there");
    }

    #[tokio::test]
    async fn a_file_is_there_or_not_as_it_should_be() {
        let path = std::env::temp_dir().join(format!("vip-flag-{}", std::process::id()));
        let of = |present| probe(CheckKind::File { path: path.clone(), present });
        let shown = path.display();
        assert_eq!(of(true).run(LIMIT).await, Err(format!("{shown} is not there")));
        assert_eq!(of(false).run(LIMIT).await, Ok(()));
        fs::write(&path, "").expect("written");
        assert_eq!(of(true).run(LIMIT).await, Ok(()));
        assert_eq!(of(false).run(LIMIT).await, Err(format!("{shown} is there")));
        fs::remove_file(&path).expect("there");
        let below =
            probe(CheckKind::File { path: "/proc/version/x".into(), present: false }).run(LIMIT).await;
        assert!(below.is_err(), "what can't be looked at is not absent: {below:?}");
    }
}
