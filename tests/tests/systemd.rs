//! The agent under systemd: the unit is valid, its privileges are enough, the agent notifies
//! systemd, an upgrade goes on in the same process, and a restart moves nothing.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vip_tests::lab::rig::Rig;
use vip_tests::lab::systemd::Systemd;
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::{lab_test, tool_test};

const PATIENCE: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn unit() -> Result<String> {
    std::fs::read_to_string(root().join("packaging/vip-agent.service")).context("the unit")
}

/// The capabilities that the unit leaves: the values of a key that may be there several times.
fn capabilities(unit: &str) -> impl Iterator<Item = String> {
    let values = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    values.flat_map(str::split_whitespace).map(|name| name.trim_start_matches("CAP_").to_lowercase())
}

/// A child that does not outlive its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Makes the cluster's key, as `Lab::start_agents` would.
fn make_key(lab: &Lab) -> Result<()> {
    let key = lab.key_file();
    lab.nodes()[0].succeed(&["keygen", key.to_str().context("a path")?]).map(drop)
}

/// Adds the environment and the arguments of a node's agent to a command.
fn agent_of<'c>(command: &'c mut Command, node: &Node) -> Result<&'c mut Command> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(node.log_file())?;
    command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", node.run_dir());
    command.env("VIP_STATE_DIR", node.state_dir());
    command.arg("agent").arg("--config").arg(node.config_file());
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))
}

#[tool_test("systemd-analyze")]
fn systemd_accepts_the_unit() -> Result<()> {
    // systemd-analyze looks for the program, which is not installed here: name the one under
    // test.
    let dir = std::env::temp_dir().join(format!("vip-unit-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("vip-agent.service");
    let program = find_vip_ctl()?.canonicalize()?;
    std::fs::write(&file, unit()?.replace("/usr/sbin/vip-ctl", program.to_str().context("a path")?))?;
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output()?;
    std::fs::remove_dir_all(&dir)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("vip-agent"), "{}: {said}", output.status);
    Ok(())
}

#[lab_test("setpriv")]
fn the_units_capabilities_are_enough() -> Result<()> {
    let unit = unit()?;
    let bounding = capabilities(&unit).fold("-all".to_owned(), |all, name| all + ",+" + &name);
    ensure!(bounding.contains("+bpf") && bounding.contains("+setuid"), "{bounding}");
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    make_key(&lab)?;
    let mut agents = Vec::new();
    for node in lab.nodes() {
        let mut command = node.ns().command("setpriv")?;
        command.args(["--no-new-privs", "--inh-caps", "-all", "--bounding-set", &bounding]);
        command.arg(find_vip_ctl()?);
        agents.push(Owned(agent_of(&mut command, node)?.spawn()?));
    }
    for node in lab.nodes() {
        node.wait_quorate(clock::now().plus(PATIENCE))?;
    }
    let active = || {
        let active = lab.nodes().iter().filter(|node| {
            node.status().is_ok_and(|status| status.group(GROUP).is_some_and(|group| group.state == "active"))
        });
        active.count() == 1
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), active), "{}", lab.nodes()[0].log_tail());
    for node in lab.nodes() {
        let log = std::fs::read_to_string(node.log_file())?;
        for lacking in ["no real-time priority", "memory is not locked", "not allowed"] {
            ensure!(!log.contains(lacking), "{lacking} in\n{log}");
        }
    }
    Ok(())
}

#[lab_test]
fn the_agent_says_that_it_is_ready_alive_and_ending() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    make_key(&lab)?;
    let node = lab.node("db-a")?;
    let path = lab.id().dir().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut command = node.ns().command(&find_vip_ctl()?)?;
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let mut agent = Owned(agent_of(&mut command, node)?.spawn()?);
    let receive = || -> Result<String> {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).context("nothing was said")?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    let mut said = Vec::new();
    while !(said.iter().any(|s: &String| s.contains("READY=1"))
        && said.iter().any(|s| s.contains("WATCHDOG=1")))
    {
        said.push(receive()?);
    }
    let status = said.iter().find(|s| s.contains("STATUS=")).context("a status")?;
    ensure!(status.contains("active in 0 of 1 groups"), "{status}");
    // The agent feeds the watchdog again and again, well within its second.
    for _ in 0..3 {
        while !receive()?.contains("WATCHDOG=1") {}
    }
    let pid = Pid::from_raw(i32::try_from(agent.0.id())?);
    kill(pid, Signal::SIGTERM)?;
    while !receive()?.contains("STOPPING=1") {}
    ensure!(agent.0.wait()?.success());
    Ok(())
}

#[lab_test]
fn an_upgrade_goes_on_in_the_same_process_and_moves_nothing() -> Result<()> {
    // A longer lease, since a start may be slow on a busy machine.
    let rig = Rig::new(&LabSpec::three_nodes(LEASE * 3, Some(find_vip_ctl()?)))?;
    let node = rig.holder()?;
    let pid = node.agent_pid()?;
    for round in 1..=2 {
        let start = clock::now();
        kill(pid, Signal::SIGUSR2)?;
        let begun =
            || std::fs::read_to_string(node.log_file()).unwrap_or_default().matches("the agent runs").count();
        ensure!(wait_until(start.plus(PATIENCE), || begun() > round), "{}", node.log_tail());
        node.check_agent()?;
        rig.lab.wait_quorate(PATIENCE)?;
        rig.expect_calm(start, node.name())?;
    }
    ensure!(node.agent_pid()? == pid && rig.lab.wait_holder(GROUP, PATIENCE)?.name() == node.name());
    // With an address that this host does not have, no new program could start: the old one goes
    // on.
    let (start, good) = (clock::now(), std::fs::read_to_string(node.config_file())?);
    node.write_config(&good.replace(&format!("\"{}:", node.address()), "\"10.77.9.9:"))?;
    kill(pid, Signal::SIGUSR2)?;
    let told = || node.has_logged("could not listen on 10.77.9.9");
    ensure!(wait_until(start.plus(PATIENCE), told), "{}", node.log_tail());
    node.write_config(&good)?;
    rig.expect_calm(start, node.name())?;
    // It still ends in good order.
    ensure!(node.stop_agent()?.success());
    Ok(())
}

const UNIT: &str = "vip-agent.service";

/// A node's agent, run by a systemd of the node's from the unit that is shipped.
fn unit_on(node: &Node) -> Result<Systemd> {
    let program = find_vip_ctl()?.canonicalize()?;
    // Only the paths are different here.
    let own = format!(
        "[Unit]\nConditionPathExists=\nAfter=systemd-journald.socket\nWants=systemd-journald.socket\n[Service]\n\
         Environment=VIP_BPF_DIR={1} VIP_RUN_DIR={2} VIP_STATE_DIR={3}\n\
         ExecStart=\nExecStart={0} agent --config {4}\nExecReload=\nExecReload={0} reload\n",
        program.display(),
        node.bpf_dir().display(),
        node.run_dir().display(),
        node.state_dir().display(),
        node.config_file().display(),
    );
    let units = [(UNIT, unit()?), ("vip-agent.service.d/lab.conf", own)];
    let systemd = Systemd::start(node, &units)?;
    systemd.succeed(&["start", UNIT])?;
    Ok(systemd)
}

/// What admins let hooks and checks do: become another user, send that user's process a signal,
/// remove that user's file, and mount a filesystem for the host. What they must not inherit: the
/// agent's protection from the OOM killer.
fn hooks_and_checks(disk: &Path) -> String {
    let disk = disk.display();
    let check = "set -e; runuser -u nobody -- true; \
                 setpriv --reuid=65534 --regid=65534 --clear-groups sleep 60 & sleep 0.2; kill $!; \
                 d=$(mktemp -d); chown 65534 $d; chmod 700 $d; touch $d/file; rm -r $d";
    format!(
        "[[group.check]]\nname = \"others\"\nexec = [\"/bin/sh\", \"-c\", '''{check}''']\n\
         interval = \"2s\"\ntimeout = \"2s\"\n\
         [hooks]\npost_promote = [\"/bin/sh\", \"-c\", \"mountpoint -q {disk} || {{ sleep 0.2; \
         grep -qx 0 /proc/self/oom_score_adj && mount -t tmpfs disk {disk}; }}\"]\n\
         pre_demote = [\"/bin/umount\", \"{disk}\"]\n"
    )
}

fn main_pid(systemd: &Systemd) -> Result<String> {
    systemd.succeed(&["show", "--property=MainPID", "--value", UNIT])
}

/// What the journal has of the agent, with these fields.
fn journal(systemd: &Systemd, fields: &[&str]) -> Result<String> {
    let mut journalctl = systemd.command("journalctl");
    let output = journalctl.args(["--no-pager", "--quiet", "-o", "cat", "-u", UNIT]).args(fields).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[lab_test("systemd", "systemctl", "unshare", "nsenter")]
fn under_systemd_a_restart_moves_nothing_and_a_stop_hands_over() -> Result<()> {
    let rig = Rig::new(&LabSpec::three_nodes(LEASE * 3, Some(find_vip_ctl()?)))?;
    let holder = rig.holder()?.name().to_owned();
    let node = rig.lab.candidates().find(|node| node.name() != holder).context("another node")?;
    ensure!(node.stop_agent()?.success());
    let disk = rig.lab.id().dir().join("disk");
    std::fs::create_dir(&disk)?;
    let text = std::fs::read_to_string(node.config_file())? + &hooks_and_checks(&disk);
    node.write_config(&text)?;
    let systemd = unit_on(node)?;
    let is_mounted = || {
        let mut mountpoint = systemd.command("mountpoint");
        mountpoint.arg("--quiet").arg(&disk).status().is_ok_and(|status| status.success())
    };
    let log = || journal(&systemd, &[]).unwrap_or_default();
    node.wait_quorate(clock::now().plus(PATIENCE)).with_context(log)?;
    let ready = || rig.lab.nodes()[0].succeed(&["switchover", GROUP, "--to", node.name()]).is_ok();
    ensure!(wait_until(clock::now().plus(PATIENCE), ready), "{}", log());
    ensure!(&*rig.wait_answerer(Some(&holder), || ())? == node.name());
    // The host sees what a hook mounts.
    ensure!(wait_until(clock::now().plus(PATIENCE), is_mounted), "{}", log());

    // After a restart, another process has the same lease.
    let mut pid = main_pid(&systemd)?;
    for _ in 0..2 {
        let start = clock::now();
        systemd.succeed(&["restart", UNIT])?;
        let next = main_pid(&systemd)?;
        ensure!(next != pid && next != "0", "{pid} was not replaced: {next}");
        pid = next;
        node.wait_quorate(clock::now().plus(PATIENCE))?;
        rig.expect_calm(start, node.name()).with_context(log)?;
    }
    // An upgrade: the same process becomes another program.
    let start = clock::now();
    let begun = log().matches("the agent runs").count();
    systemd.succeed(&["kill", "--kill-who=main", "--signal=USR2", UNIT])?;
    // SIGHUP, which asks for a reload, does not end a process that has just become another
    // program.
    let again = || {
        systemd.succeed(&["kill", "--kill-who=main", "--signal=HUP", UNIT]).is_ok()
            && log().matches("the agent runs").count() > begun
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), again), "{}", log());
    ensure!(main_pid(&systemd)? == pid, "{}", log());
    node.wait_quorate(clock::now().plus(PATIENCE))?;
    systemd.succeed(&["reload", UNIT])?;
    node.write_config(&text.replace("[node]", "[mode]"))?;
    ensure!(!systemd.systemctl(&["reload", UNIT])?.status.success(), "what is refused is no success");
    node.write_config(&text)?;
    systemd.succeed(&["reload", UNIT])?;
    rig.expect_calm(start, node.name()).with_context(log)?;
    ensure!(is_mounted(), "{}", log());

    // The journal has the fields, and the agent misses no privilege.
    let fields = [&format!("VIP_GROUP={GROUP}"), "VIP_STATE=active"];
    ensure!(!journal(&systemd, &fields)?.is_empty(), "{}", log());
    for lacking in ["no real-time priority", "memory is not locked", "not permitted", "denied"] {
        ensure!(!log().contains(lacking), "{lacking} in\n{}", log());
    }

    // A stop, unlike a restart, hands the group over: no lease has to run out.
    let start = clock::now();
    systemd.succeed(&["stop", UNIT])?;
    let (_, account) = rig.expect_move(start, node.name()).with_context(log)?;
    ensure!(account.gap_ms() < 500.0, "a planned move: {account:?}\n{}", log());
    ensure!(!is_mounted(), "unmounted before anybody else has the VIP\n{}", log());
    // If the agent is killed, systemd starts it again.
    systemd.succeed(&["start", UNIT])?;
    node.wait_quorate(clock::now().plus(PATIENCE)).with_context(log)?;
    let pid = main_pid(&systemd)?;
    systemd.succeed(&["kill", "--kill-who=main", "--signal=KILL", UNIT])?;
    let is_back = || main_pid(&systemd).is_ok_and(|next| next != pid && next != "0");
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", log());
    node.wait_quorate(clock::now().plus(PATIENCE)).with_context(log)?;

    // If the agent could not start again, an upgrade does not begin, and a restart first hands
    // the leases over.
    let before = rig.holder()?.name().to_owned();
    ensure!(wait_until(clock::now().plus(PATIENCE), ready), "{}", log());
    ensure!(&*rig.wait_answerer(Some(&before), || ())? == node.name());
    node.write_config(&text.replace("[node]", "[mode]"))?;
    let (start, pid) = (clock::now(), main_pid(&systemd)?);
    systemd.succeed(&["kill", "--kill-who=main", "--signal=USR2", UNIT])?;
    let refused = || log().contains("the installed vip-ctl can't go on");
    ensure!(wait_until(clock::now().plus(PATIENCE), refused), "{}", log());
    ensure!(main_pid(&systemd)? == pid);
    rig.expect_calm(start, node.name()).with_context(log)?;
    let start = clock::now();
    ensure!(!systemd.systemctl(&["restart", UNIT])?.status.success());
    let (_, account) = rig.expect_move(start, node.name()).with_context(log)?;
    ensure!(account.gap_ms() < 500.0, "a planned move: {account:?}\n{}", log());
    rig.check()
}
