//! A systemd of its own for a node: the installed one, as the first process of
//! new namespaces, with nothing to start but what it is given. The network
//! namespace is the node's; what it may touch of this host's is taken away.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Node, cleanup, clock, wait_until};

/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the room and becomes systemd. `$1` is a directory with unit files.
///
/// Nothing that is usually wanted at a start is: no udev, no sysctl, no
/// modules, no audit, which would change this host.
const BEGIN: &str = r#"
set -e
mount --make-rprivate /
# What the labs have below /run stays in sight.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/labs
mount --bind /run/vip-lab /mnt/labs
mount -t tmpfs tmpfs /run
mkdir -p /run/vip-lab /run/lock /run/systemd/journald.conf.d
mount --bind /mnt/labs /run/vip-lab
umount /mnt/labs /mnt
printf '[Journal]\nAudit=\nReadKMsg=no\nStorage=volatile\n' > /run/systemd/journald.conf.d/lab.conf
for wants in /usr/lib/systemd/system/*.wants /usr/lib/systemd/system-generators; do
    mount -t tmpfs tmpfs "$wants"
done
mount -t tmpfs tmpfs /etc/systemd/system
cp -r "$1"/. /etc/systemd/system
ln -s /dev/null /etc/systemd/system/systemd-journald-audit.socket
printf '[Unit]\nDescription=a lab\n' > /etc/systemd/system/lab.target
mount -t tmpfs tmpfs /sys/fs/cgroup
if grep -q name=systemd: /proc/self/cgroup; then
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
export container=vip-lab
exec systemd --system --unit=lab.target --show-status=no --log-target=console
"#;

/// A running systemd; ends, with all that it has started, when dropped.
#[derive(Debug)]
pub struct Systemd {
    /// Waits for the first process and ends with it.
    unshare: Child,
    /// The first process, as this host counts.
    pid: u32,
    cgroup: PathBuf,
}

impl Systemd {
    /// Starts it on a node, with these unit files: their names (also
    /// `NAME.service.d/NAME.conf`) and texts.
    ///
    /// # Errors
    /// When it does not come up; with what it said.
    pub fn start(node: &Node, units: &[(&str, String)]) -> Result<Self> {
        let dir = node.run_dir().with_extension("systemd");
        for (name, text) in units {
            let file = dir.join("units").join(name);
            std::fs::create_dir_all(
                file.parent().with_context(|| format!("{} is in no directory", file.display()))?,
            )?;
            std::fs::write(file, text)?;
        }
        let said = dir.join("log");
        let log = std::fs::File::create(&said)?;
        let name = node.ns().name().to_owned();
        let cgroup = cgroup_root()?.join(name);
        std::fs::create_dir(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
        // A shell moves into the control group, so that what follows is below it.
        let mut command = node.ns().command("sh")?;
        command.args(["-c", "echo $$ > \"$2/cgroup.procs\" && exec unshare --fork --kill-child --pid --mount-proc --mount --cgroup --uts --ipc sh -c \"$3\" sh \"$1\"", "sh"]);
        command.arg(dir.join("units")).arg(&cgroup).arg(BEGIN);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let unshare = {
            let _gate = cleanup::gate()?;
            command.spawn().context("starting unshare")?
        };
        let mut systemd = Self { pid: 0, unshare, cgroup };
        let children = format!("/proc/{0}/task/{0}/children", systemd.unshare.id());
        let is_up = wait_until(clock::now().plus(PATIENCE), || {
            let first = std::fs::read_to_string(&children).unwrap_or_default();
            systemd.pid = first.trim().parse().unwrap_or(0);
            systemd.pid != 0
                && systemd.systemctl(&["is-active", "lab.target"]).is_ok_and(|output| output.status.success())
        });
        ensure!(
            is_up,
            "systemd has not come up within {PATIENCE:?}; it says: {}",
            std::fs::read_to_string(&said).unwrap_or_default()
        );
        Ok(systemd)
    }

    /// A command that runs as a child of nobody in its namespaces.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--all", program]).stdin(Stdio::null());
        command
    }

    /// Runs systemctl to its end.
    ///
    /// # Errors
    /// When it can't be started. That it failed is in the output.
    pub fn systemctl(&self, args: &[&str]) -> Result<Output> {
        let _gate = cleanup::gate()?;
        self.command("systemctl").args(args).output().context("starting systemctl")
    }

    /// Runs systemctl, which has to succeed; what it printed.
    ///
    /// # Errors
    /// When it does not, with what it said.
    pub fn succeed(&self, args: &[&str]) -> Result<String> {
        let output = self.systemctl(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "systemctl {}: {}: {said}", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With --kill-child its first process ends, and with that all others.
        let _killed = self.unshare.kill();
        let _reaped = self.unshare.wait();
        let deadline = clock::now().plus(Duration::from_secs(10));
        if !wait_until(deadline, || remove_groups(&self.cgroup)) {
            let _told =
                writeln!(std::io::stderr(), "cannot remove the control group {}", self.cgroup.display());
        }
    }
}

/// Where control groups for systemd are: the hierarchy of its own, or the only one.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let of = |wanted: fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let [_, place, kind, options, ..] = words[..] else { return None };
            wanted(kind, options).then(|| PathBuf::from(place))
        })
    };
    of(|kind, options| kind == "cgroup" && options.contains("name=systemd"))
        .or_else(|| of(|kind, _| kind == "cgroup2"))
        .context("this machine has no control groups mounted")
}

/// Removes a group and those below it; false as long as a process is in one.
fn remove_groups(group: &Path) -> bool {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    std::fs::remove_dir(group).is_ok() || !group.exists()
}
