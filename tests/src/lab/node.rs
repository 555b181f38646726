//! One node of the lab: its agent as a process, its cable, its `vip-ctl`.
//! What the node answers on the wire is seen by `capture` and `probe` instead.

use std::fs::OpenOptions;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vip_common::BootNs;

use super::netns::Netns;
use super::snapshot::Snapshot;
use super::status::Status;
use super::{INTERFACE, LabId, Nic, NodeSpec, VIP, cleanup, clock, slow, wait_until};

/// How long a verb of `vip-ctl` may take before it is killed.
pub const VERB_PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent may take to end on SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How many lines of an agent's log go into an error message.
const LOG_LINES: usize = 12;

/// A node on the switch.
#[derive(Debug)]
pub struct Node {
    name: String,
    witness: bool,
    ns: Netns,
    switch: Netns,
    nic: Nic,
    address: Ipv4Addr,
    dir: PathBuf,
    pins: PathBuf,
    vip_ctl: Option<PathBuf>,
    agent: Mutex<Option<Child>>,
}

impl Node {
    pub(super) fn new(
        id: &LabId,
        spec: &NodeSpec,
        ns: Netns,
        (switch, nic): (Netns, Nic),
        address: Ipv4Addr,
        vip_ctl: Option<PathBuf>,
    ) -> Result<Self> {
        let dir = id.dir().join(&spec.name);
        let _gate = cleanup::gate()?;
        std::fs::create_dir_all(dir.join("run")).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self {
            name: spec.name.clone(),
            witness: spec.witness,
            ns,
            switch,
            nic,
            address,
            pins: id.pins(&spec.name),
            dir,
            vip_ctl,
            agent: Mutex::new(None),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it only votes.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.witness
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its pin directory, `VIP_BPF_DIR`.
    #[must_use]
    pub fn bpf_dir(&self) -> &Path {
        &self.pins
    }

    /// Its run directory, `VIP_RUN_DIR`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Its agent's socket for HTTP.
    #[must_use]
    pub fn http_socket(&self) -> PathBuf {
        self.run_dir().join("http.sock")
    }

    /// Its state directory, `VIP_STATE_DIR`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("vip.toml")
    }

    /// Replaces its configuration.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        std::fs::write(self.config_file(), text)
            .with_context(|| format!("writing {}", self.config_file().display()))
    }

    /// A `vip-ctl` command in the node's namespace with its directories.
    ///
    /// # Errors
    /// When the lab has no `vip-ctl`, or the namespace is gone.
    pub fn vip_ctl(&self) -> Result<Command> {
        let command = self.ns.command(self.program()?)?;
        Ok(self.with_dirs(command))
    }

    /// The same in a session of its own, for a [`super::terminal::Terminal`].
    ///
    /// # Errors
    /// As [`Node::vip_ctl`].
    pub fn vip_ctl_session(&self) -> Result<Command> {
        let command = self.ns.session(self.program()?)?;
        Ok(self.with_dirs(command))
    }

    fn program(&self) -> Result<&Path> {
        self.vip_ctl.as_deref().context("this lab was made without vip-ctl")
    }

    fn with_dirs(&self, mut command: Command) -> Command {
        command.env("VIP_BPF_DIR", &self.pins).env("VIP_RUN_DIR", self.run_dir());
        command.env("VIP_STATE_DIR", self.state_dir());
        command
    }

    fn agent(&self) -> MutexGuard<'_, Option<Child>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `vip-ctl agent`; its output is appended to the node's log file.
    ///
    /// # Errors
    /// When one runs already, or it can't be started.
    pub fn start_agent(&self) -> Result<()> {
        self.start_agent_with(&[])
    }

    /// [`Node::start_agent`] with more arguments.
    ///
    /// # Errors
    /// As there.
    pub fn start_agent_with(&self, args: &[&str]) -> Result<()> {
        let mut agent = self.agent();
        if agent.is_some() {
            bail!("an agent already runs on {}", self.name);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.vip_ctl()?;
        command.arg("agent").arg("--config").arg(self.config_file()).args(args);
        command.stdout(log.try_clone()?).stderr(log);
        let _gate = cleanup::gate()?;
        *agent = Some(command.spawn().with_context(|| format!("starting the agent of {}", self.name))?);
        Ok(())
    }

    /// Whether an agent was started and neither stopped nor killed by the lab.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.agent().is_some()
    }

    /// How long a thread of the agent has run for.
    ///
    /// # Errors
    /// When there is no such thread, or its account can't be read.
    pub fn thread_time(&self, thread: &str) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.agent_pid()?);
        for task in std::fs::read_dir(&tasks).with_context(|| format!("listing {tasks}"))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
                let stat = std::fs::read_to_string(task.join("schedstat"))?;
                let run = stat.split_ascii_whitespace().next().context("schedstat has no run time")?;
                return Ok(Duration::from_nanos(
                    run.parse().context("schedstat's run time is not a number")?,
                ));
            }
        }
        anyhow::bail!("the agent of {} has no thread {thread}", self.name())
    }

    /// The agent's process id.
    ///
    /// # Errors
    /// When it was not started.
    pub fn agent_pid(&self) -> Result<Pid> {
        let agent = self.agent();
        let child = agent.as_ref().with_context(|| format!("no agent runs on {}", self.name))?;
        Ok(Pid::from_raw(i32::try_from(child.id()).context("the agent's process id is out of range")?))
    }

    /// Fails if the agent has ended by itself, with the end of its log.
    ///
    /// # Errors
    /// See above; a node without an agent is all right.
    pub fn check_agent(&self) -> Result<()> {
        let ended = match self.agent().as_mut() {
            Some(child) => child.try_wait().context("checking whether the agent still runs")?,
            None => None,
        };
        if let Some(status) = ended {
            bail!("the agent of {} ended ({status}); its log ends with:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Ends the agent with SIGTERM; how it ended.
    ///
    /// # Errors
    /// When there is none, or it takes longer than five seconds (it is killed then).
    pub fn stop_agent(&self) -> Result<ExitStatus> {
        let pid = self.agent_pid()?;
        kill(pid, Signal::SIGTERM).context("sending SIGTERM")?;
        let deadline = clock::now().plus(slow::patient(STOP_PATIENCE));
        let mut agent = self.agent();
        let mut child = agent.take().context("another thread has stopped the agent")?;
        let mut status = None;
        wait_until(deadline, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if let Some(status) = status {
            return Ok(status);
        }
        child.kill().context("killing the agent")?;
        child.wait().context("waiting for the agent")?;
        bail!("the agent of {} did not end on SIGTERM; its log ends with:\n{}", self.name, self.log_tail())
    }

    /// Kills the agent with SIGKILL and waits for its end; the host lives on.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_agent(&self) -> Result<()> {
        let mut agent = self.agent();
        let mut child = agent.take().with_context(|| format!("no agent runs on {}", self.name))?;
        child.kill().context("sending SIGKILL")?;
        child.wait().context("waiting for the agent")?;
        Ok(())
    }

    /// Stops the agent with SIGSTOP.
    ///
    /// # Errors
    /// When there is none.
    pub fn pause_agent(&self) -> Result<()> {
        kill(self.agent_pid()?, Signal::SIGSTOP).context("sending SIGSTOP")
    }

    /// Lets a stopped agent go on.
    ///
    /// # Errors
    /// When there is none.
    pub fn resume_agent(&self) -> Result<()> {
        kill(self.agent_pid()?, Signal::SIGCONT).context("sending SIGCONT")
    }

    /// Takes the child off the process table after the lab's clean-up has ended it.
    pub(super) fn reap(&self) {
        if let Some(child) = self.agent().as_mut() {
            // Ended or not (a kept lab's lives on), there is nobody left to tell.
            let _ended = child.try_wait();
        }
    }

    fn set_links(&self, links: Vec<String>, how: &str) -> Result<()> {
        let lines: String = links.iter().map(|link| format!("link set {link} {how}\n")).collect();
        self.switch.ip_batch(&lines)
    }

    /// The ports of the switch that it is on.
    #[must_use]
    pub fn ports(&self) -> Vec<String> {
        self.nic.ports(&self.name)
    }

    /// Pulls the cable: the switch's end goes down, the node loses its carrier.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cut(&self) -> Result<()> {
        self.set_links(self.nic.cables(&self.name), "down")
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn heal(&self) -> Result<()> {
        self.set_links(self.nic.cables(&self.name), "up")
    }

    /// Cuts the node off while its carrier stays: its port is no longer part
    /// of the bridge. What the node sends is still captured.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn isolate(&self) -> Result<()> {
        self.set_links(self.nic.ports(&self.name), "nomaster")
    }

    /// Ends [`Node::isolate`].
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn rejoin(&self) -> Result<()> {
        self.set_links(self.nic.ports(&self.name), "master br0")
    }

    /// Runs a verb of `vip-ctl` on this node to its end.
    ///
    /// # Errors
    /// When it can't be started, or takes longer than [`VERB_PATIENCE`] and is
    /// killed. That it failed is in the output, not an error.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.vip_ctl()?;
        command.args(args);
        output_within(&mut command, slow::patient(VERB_PATIENCE))
            .with_context(|| format!("vip-ctl {} on {}", args.join(" "), self.name))
    }

    /// Runs a verb that has to succeed; what it printed.
    ///
    /// # Errors
    /// As [`Node::run`], and when the verb's exit code is not 0.
    pub fn succeed(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        if !output.status.success() {
            bail!(
                "vip-ctl {} on {} failed ({}): {}",
                args.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Has the node take a group as soon as it is ready: an agent that has just started waits
    /// for its peers' word, and they for its own.
    ///
    /// # Errors
    /// When it is not ready by then, with what the command says.
    pub fn take(&self, group: &str, patience: Duration) -> Result<()> {
        let moved = || self.run(&["switchover", group, "--to", self.name()]);
        let is_here = || moved().is_ok_and(|output| output.status.success());
        if wait_until(clock::now().plus(patience), is_here) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&moved()?.stderr).into_owned();
        bail!("{} does not take {group}: {said}; its log ends with:\n{}", self.name(), self.log_tail())
    }

    /// Loads the data plane by hand, with the VIP on the node's interface; what it printed.
    ///
    /// # Errors
    /// As [`Node::succeed`].
    pub fn load(&self) -> Result<String> {
        self.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])
    }

    /// What `vip-ctl status -o json` says on this node.
    ///
    /// # Errors
    /// When it fails, or its output is not of the documented shape.
    pub fn status(&self) -> Result<Status> {
        let text = self.succeed(&["status", "-o", "json"])?;
        serde_json::from_str(&text)
            .with_context(|| format!("cannot read the status of {}: {}", self.name, text.trim()))
    }

    /// Has `group` gone to another node than `former`, as this one sees it?
    #[must_use]
    pub fn sees_it_leave(&self, group: &str, former: &str) -> bool {
        let holder = self.status().ok().and_then(|status| status.group(group)?.holder.clone());
        holder.is_some_and(|holder| holder != former)
    }

    /// Waits until the agent answers on its socket, hears a majority, has its vote, and waits no
    /// longer for its peers' word.
    ///
    /// # Errors
    /// When it ends meanwhile, or `deadline` passes; with the end of its log.
    pub fn wait_quorate(&self, deadline: BootNs) -> Result<()> {
        loop {
            self.check_agent()?;
            let status = self.status();
            if status.as_ref().is_ok_and(|s| s.quorate == Some(true) && !s.silent && !s.waits_for_word()) {
                return Ok(());
            }
            if clock::now() >= deadline {
                let said = match status {
                    Ok(s) if s.silent => "it has just started and has no vote yet".to_owned(),
                    Ok(s) if s.waits_for_word() => "no peer says that it hears it".to_owned(),
                    Ok(_) => "it hears no majority".to_owned(),
                    Err(e) => format!("{e:#}"),
                };
                bail!("{} is not ready: {said}; its log ends with:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The node's network configuration at this moment.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.ns)
            .with_context(|| format!("reading the network configuration of {}", self.name))
    }

    /// Where the agent's output goes.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// Has the agent said this, however long ago?
    #[must_use]
    pub fn has_logged(&self, what: &str) -> bool {
        std::fs::read_to_string(self.log_file()).is_ok_and(|log| log.contains(what))
    }

    /// The last lines of the agent's output, indented.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if tail.is_empty() { "    (nothing)".to_owned() } else { format!("    {}", tail.join("\n    ")) }
    }
}

/// Runs `command` to its end, or kills it when `patience` is over: an agent
/// that is stopped must not hang whoever asks it something.
fn output_within(command: &mut Command, patience: Duration) -> Result<Output> {
    let mut child = {
        let _gate = cleanup::gate()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?
    };
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // A read error ends the output, as its end does; the exit code decides.
                let _read = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let stderr = reader(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>));
    let deadline = clock::now().plus(patience);
    let mut status = child.try_wait()?;
    while status.is_none() && clock::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
        status = child.try_wait()?;
    }
    let Some(status) = status else {
        child.kill()?;
        child.wait()?;
        bail!("{command:?} did not end within {patience:?}: the lab has killed it");
    };
    Ok(Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}
