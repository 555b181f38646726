//! The process that goes on with this agent's leases. This agent leaves them in
//! the maps, where the next one finds them. For an upgrade it becomes, in the
//! same process, the `vip-ctl` that is installed now; for a restart it makes way
//! for the next process.

use std::{
    convert::Infallible,
    env, fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::{process::Command, time::timeout};

/// Why serving ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A signal ended it, or the lease loop has ended.
    Stop,
    /// systemd ends this process, and starts the unit again at once.
    Restart,
    /// This program, installed meanwhile, goes on in this process.
    Replace(PathBuf),
}

/// What a restart takes besides the start itself: systemd's own work.
const RESTART: Duration = Duration::from_millis(60);
/// What becoming another program takes besides its start.
const REPLACE: Duration = Duration::from_millis(10);

impl Ended {
    /// Will the next process be up before leases of `hold` expire, if its start
    /// takes as long as this one's did? If not, the agent hands them over. Leaves
    /// room: a lease may be half over, and the next start twice as slow.
    pub(super) fn can_be_back(&self, start: Duration, hold: Duration) -> bool {
        let besides = match self {
            Self::Stop => return false,
            Self::Restart => RESTART,
            Self::Replace(_) => REPLACE,
        };
        start * 2 + besides <= hold / 2
    }
}

/// What Linux adds to the path of a program whose file was replaced.
const DELETED: &str = " (deleted)";
/// How long the installed program may take to say whether it could go on.
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// The argument that asks it.
const TRIAL: &str = "--trial";
/// How long systemd may take to say why it ends this process.
const JOB_MAX: Duration = Duration::from_secs(1);

/// The program that is installed in this one's place, if an agent could start
/// with it here and now, with this one's arguments.
///
/// # Errors
/// If there is none, or it can't start an agent: then the running agent had
/// better go on, or hand over before it ends.
pub(super) async fn find() -> io::Result<PathBuf> {
    let own = fs::read_link("/proc/self/exe")?;
    let path = own.to_str().and_then(|path| path.strip_suffix(DELETED)).map_or(own.clone(), PathBuf::from);
    let mut trial = Command::new(&path);
    trial.args(env::args_os().skip(1)).arg(TRIAL).stdin(Stdio::null()).stdout(Stdio::null());
    let tried = timeout(TRIAL_MAX, trial.kill_on_drop(true).stderr(Stdio::piped()).output()).await;
    let tried = tried.map_err(|_| io::Error::other(format!("it hangs for {TRIAL_MAX:?}")))??;
    if tried.status.success() {
        return Ok(path);
    }
    let said = String::from_utf8_lossy(&tried.stderr);
    let line = said.lines().next().unwrap_or("it says nothing");
    Err(io::Error::other(format!("its trial ends with {}: {line}", tried.status)))
}

/// Becomes `program`, with this process's arguments; returns only if that fails.
/// Ignores SIGHUP and the like first: the new program inherits that (execve(2)),
/// and so survives them until it has handlers of its own.
///
/// # Errors
/// Why `program` could not be started.
pub(super) fn become_it(program: &Path) -> io::Result<Infallible> {
    for asked in [Signal::SIGHUP, Signal::SIGUSR2] {
        // SAFETY: ignoring a signal runs no handler.
        unsafe { signal(asked, SigHandler::SigIgn) }?;
    }
    Err(process::Command::new(program).args(env::args_os().skip(1)).exec())
}

/// Does systemd end this process to start its unit again at once? False if
/// systemd can't be asked: then the agent hands the leases over.
pub(super) async fn is_restart() -> bool {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // systemd sets it for the processes that it starts (systemd.exec(5)).
    let Some(unit) = unit_of(&cgroup).filter(|_| env::var_os("INVOCATION_ID").is_some()) else {
        return false;
    };
    let mut systemctl = Command::new("systemctl");
    systemctl.args(["list-jobs", "--plain", "--no-legend", "--no-pager", unit]);
    systemctl.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(JOB_MAX, systemctl.output()).await {
        Ok(Ok(output)) => is_restart_of(unit, &String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// The service that a process belongs to, by its control groups (cgroups(7)).
fn unit_of(cgroup: &str) -> Option<&str> {
    cgroup.lines().filter_map(|line| line.rsplit('/').next()).find(|name| name.ends_with(".service"))
}

/// Is there a job that restarts the unit in what `systemctl list-jobs` prints:
/// number, unit, kind and state of each?
fn is_restart_of(unit: &str, jobs: &str) -> bool {
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next() == Some("restart")
    };
    jobs.lines().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_can_not_go_on_takes_nothing_over() {
        // The test's own program has no such verb.
        let refused = find().await.expect_err("no vip-ctl");
        assert!(refused.to_string().starts_with("its trial ends with"), "{refused}");
    }

    #[test]
    fn leases_are_left_only_to_who_is_back_within_them() {
        let ms = Duration::from_millis;
        let replace = Ended::Replace("vip-ctl".into());
        assert!(!Ended::Stop.can_be_back(ms(0), ms(60_000)));
        assert!(Ended::Restart.can_be_back(ms(40), ms(800)));
        assert!(!Ended::Restart.can_be_back(ms(40), ms(160)));
        assert!(replace.can_be_back(ms(30), ms(160)) && !replace.can_be_back(ms(40), ms(160)));
    }

    #[test]
    fn a_service_is_found_in_both_versions_of_control_groups() {
        assert_eq!(unit_of("0::/system.slice/vip-agent.service\n"), Some("vip-agent.service"));
        let first = "3:cpu:/\n1:name=systemd:/system.slice/vip-agent.service\n0::/\n";
        assert_eq!(unit_of(first), Some("vip-agent.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None);
    }

    #[test]
    fn a_restart_is_told_from_a_stop_and_from_others_restarts() {
        let unit = "vip-agent.service";
        assert!(is_restart_of(unit, "51 vip-agent.service restart running\n"));
        assert!(!is_restart_of(unit, "97 vip-agent.service stop running\n"));
        assert!(!is_restart_of(
            unit,
            "51 other.service restart running\n52 vip-agent.service stop waiting\n"
        ));
        assert!(!is_restart_of(unit, ""));
    }
}
