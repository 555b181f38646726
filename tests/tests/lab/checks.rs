//! Health checks with the real agent in the real kernel: they move a group,
//! they keep it or let it go when nobody is well, and one that hangs delays
//! nothing. And `vip-ctl check`, on files.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::status::GroupStatus;
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// The file that exists while a node is well.
fn well(node: &Node) -> PathBuf {
    node.config_file().with_file_name("well")
}

/// Says whether a node is well.
fn set_well(node: &Node, is_well: bool) -> Result<()> {
    if is_well {
        return Ok(fs::write(well(node), "")?);
    }
    Ok(fs::remove_file(well(node))?)
}

/// The configuration of a check for the file [`well`].
fn file_check(node: &Node) -> String {
    format!(
        "[[group.check]]\nname = \"well\"\nfile = \"{}\"\ninterval = \"100ms\"\nrise = 1\nfall = 2\n",
        well(node).display()
    )
}

/// A lab whose nodes are well, with more in the configuration of its group.
fn lab_with(spec: &LabSpec, more: impl Fn(&Node) -> String) -> Result<Lab> {
    let lab = Lab::new(spec)?;
    for node in lab.nodes() {
        let text = fs::read_to_string(node.config_file())?;
        node.write_config(&format!("{text}{}", more(node)))?;
        set_well(node, true)?;
    }
    Ok(lab)
}

fn rig_with(spec: &LabSpec, more: impl Fn(&Node) -> String) -> Result<Rig> {
    Rig::start(lab_with(spec, more)?, spec, ArpProbes::On, |_| ())
}

fn group(node: &Node) -> Result<GroupStatus> {
    node.status()?.group(GROUP).cloned().context("the group")
}

/// Waits until a node says whether it is eligible.
fn wait_eligible(node: &Node, eligible: bool) -> Result<()> {
    let is_so = || group(node).is_ok_and(|group| group.eligible == Some(eligible));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_so), "{}: {:?}", node.name(), group(node));
    Ok(())
}

fn others<'a>(rig: &'a Rig, than: &Node) -> Vec<&'a Node> {
    rig.lab.nodes().iter().filter(|node| node.name() != than.name()).collect()
}

#[lab_test]
fn a_check_that_fails_on_the_holder_moves_the_group() -> Result<()> {
    let rig = rig_with(&spec()?, file_check)?;
    let old = rig.holder()?;
    let start = clock::now();
    set_well(old, false)?;
    let (new, _) = rig.expect_move(start, old.name())?;
    let seen = group(old)?;
    ensure!(seen.state == "fault" && seen.eligible == Some(false), "{seen:?}");
    let trouble = format!("{} is not there", well(old).display());
    ensure!(seen.why == Some(format!("check well: {trouble}")), "{seen:?}");
    ensure!(seen.checks.len() == 1 && seen.checks[0].ok == Some(false), "{seen:?}");
    ensure!(seen.checks[0].last_error == Some(trouble), "{seen:?}");
    let text = old.succeed(&["status"])?;
    ensure!(text.contains("check well (file) FAILS since"), "{text}");
    let metrics = old.succeed(&["metrics"])?;
    let line =
        format!("vip_check_up{{cluster=\"lab\",group=\"{GROUP}\",node=\"{}\",check=\"well\"}} 0", old.name());
    ensure!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    ensure!(metrics.contains("vip_check_duration_seconds{"), "{metrics}");
    // A node that is not well cannot be given the group. Once it is well again, it can.
    ensure!(new.run(&["switchover", GROUP, "--to", old.name()])?.status.code() == Some(107));
    set_well(old, true)?;
    wait_eligible(old, true)?;
    let start = clock::now();
    new.succeed(&["switchover", GROUP, "--to", old.name()])?;
    rig.expect_move(start, new.name())?;
    Ok(())
}

#[lab_test]
fn a_tracked_interface_without_a_carrier_moves_the_group() -> Result<()> {
    let spec = spec()?;
    let lab = lab_with(&spec, |_| "track_interface = [\"uplink\"]\n".to_owned())?;
    for node in lab.nodes() {
        node.ns().ip("link add uplink type veth peer name far")?;
        node.ns().ip("link set uplink up")?;
        node.ns().ip("link set far up")?;
    }
    let rig = Rig::start(lab, &spec, ArpProbes::On, |_| ())?;
    let old = rig.holder()?;
    let start = clock::now();
    old.ns().ip("link set far down")?;
    rig.expect_move(start, old.name())?;
    ensure!(group(old)?.why.as_deref() == Some("uplink has no carrier"), "{:?}", group(old));
    old.ns().ip("link set far up")?;
    wait_eligible(old, true)
}

#[lab_test]
fn when_nobody_is_well_nobody_answers() -> Result<()> {
    let rig = rig_with(&spec()?, file_check)?;
    let holder = rig.holder()?;
    for node in others(&rig, holder) {
        set_well(node, false)?;
        wait_eligible(node, false)?;
    }
    set_well(holder, false)?;
    wait_eligible(holder, false)?;
    rig.expect_silence(clock::now().plus(LEASE))?;
    // The first that is well again takes it.
    let first = others(&rig, holder)[0];
    set_well(first, true)?;
    ensure!(&*rig.wait_answerer(None, || ())? == first.name());
    Ok(())
}

#[lab_test]
fn a_holder_that_shall_keep_it_keeps_it_until_another_node_is_well() -> Result<()> {
    let rig = rig_with(&spec()?, |node| format!("when_all_fail = \"keep\"\n{}", file_check(node)))?;
    let holder = rig.holder()?;
    for node in others(&rig, holder) {
        set_well(node, false)?;
        wait_eligible(node, false)?;
    }
    let start = clock::now();
    set_well(holder, false)?;
    wait_eligible(holder, false)?;
    rig.expect_calm(start, holder.name())?;
    ensure!(group(holder)?.state == "active", "{:?}", group(holder));
    let start = clock::now();
    let next = others(&rig, holder)[1];
    set_well(next, true)?;
    let (new, _) = rig.expect_move(start, holder.name())?;
    ensure!(new.name() == next.name(), "{} has it", new.name());
    Ok(())
}

/// A web server that answers, or only listens.
struct Server {
    silent: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(node: &Node, port: u16) -> Result<Self> {
        let listener = node.ns().enter(|| TcpListener::bind(("127.0.0.1", port)))??;
        listener.set_nonblocking(true)?;
        let (silent, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_silent, is_over) = (Arc::clone(&silent), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) if is_silent.load(Ordering::Relaxed) => kept.push(stream),
                    Ok((mut stream, _)) => {
                        let mut request = [0; 1024];
                        // A client that has gone needs no answer.
                        let _ = stream.set_nonblocking(false).and_then(|()| stream.read(&mut request));
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5))
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Self { silent, stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing.
            let _ended = thread.join();
        }
    }
}

#[lab_test]
fn checks_that_hang_delay_no_lease() -> Result<()> {
    let spec = spec()?;
    // Both checks pass until they hang; `fall` is so high that they do not fail for a long time
    // after.
    let lab = lab_with(&spec, |node| {
        format!(
            "[[group.check]]\nname = \"page\"\nhttp = \"http://127.0.0.1:8080/\"\nbody = \"ok\"\n\
             interval = \"300ms\"\ntimeout = \"300ms\"\nfall = 1000\n\
             [[group.check]]\nname = \"script\"\ninterval = \"300ms\"\ntimeout = \"300ms\"\nfall = 1000\n\
             exec = [\"/bin/sh\", \"-c\", \"test -e $0 || sleep 1000\", \"{}\"]\n",
            well(node).display()
        )
    })?;
    let servers = lab.nodes().iter().map(|node| Server::start(node, 8080)).collect::<Result<Vec<_>>>()?;
    let rig = Rig::start(lab, &spec, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?;
    let start = clock::now();
    servers.iter().for_each(|server| server.silent.store(true, Ordering::Relaxed));
    for node in rig.lab.nodes() {
        set_well(node, false)?;
    }
    let hang = || {
        group(holder).is_ok_and(|group| {
            let slow = |error: &Option<String>| error.as_deref() == Some("no result within 300ms");
            group.checks.len() == 2 && group.checks.iter().all(|check| slow(&check.last_error))
        })
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), hang), "{:?}", group(holder));
    rig.expect_calm(start, holder.name())?;
    ensure!(group(holder)?.checks.iter().all(|check| check.ok == Some(true)), "{:?}", group(holder));
    Ok(())
}

#[lab_test]
fn an_agent_that_is_replaced_keeps_its_lease_while_it_waits_for_its_checks() -> Result<()> {
    // A longer lease, since a start may be slow on a busy machine.
    let spec = LabSpec { lease: LEASE * 3, ..spec()? };
    // The check takes 12 s once the node is not well.
    let rig = rig_with(&spec, |node| {
        format!(
            "[[group.check]]\nname = \"script\"\ninterval = \"20s\"\ntimeout = \"20s\"\nfall = 1\n\
             exec = [\"/bin/sh\", \"-c\", \"test -e $0 || sleep 12\", \"{}\"]\n",
            well(node).display()
        )
    })?;
    let holder = rig.holder()?;
    set_well(holder, false)?;
    let start = clock::now();
    holder.kill_agent()?;
    holder.start_agent()?;
    holder.wait_quorate(clock::now().plus(PATIENCE))?;
    let seen = group(holder)?;
    ensure!(seen.state == "active" && seen.checks[0].ok.is_none(), "{seen:?}");
    ensure!(seen.why.as_deref() == Some("check script has no result yet"), "{seen:?}");
    rig.expect_calm(start, holder.name())?;
    wait_eligible(holder, true)?;
    rig.expect_calm(start, holder.name())
}

#[lab_test]
fn a_reload_adds_and_removes_checks() -> Result<()> {
    let rig = rig_with(&spec()?, |_| String::new())?;
    let old = rig.holder()?;
    let without = fs::read_to_string(old.config_file())?;
    let start = clock::now();
    old.write_config(&format!("{without}{}", file_check(old)))?;
    old.succeed(&["reload"])?;
    // Until the new check has a result, the node holds the group by its earlier results.
    rig.expect_calm(start, old.name())?;
    wait_eligible(old, true)?;
    ensure!(group(old)?.checks.len() == 1, "{:?}", group(old));
    let start = clock::now();
    set_well(old, false)?;
    rig.expect_move(start, old.name())?;
    old.write_config(&without)?;
    old.succeed(&["reload"])?;
    wait_eligible(old, true)?;
    ensure!(group(old)?.checks.is_empty(), "{:?}", group(old));
    Ok(())
}

/// A directory with a configuration, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vip-check-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("conf.d"))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.join(name), text)?)
    }

    fn check(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(find_vip_ctl()?);
        command.arg("check").arg("--config").arg(self.0.join("vip.toml")).args(args);
        Ok(command.output()?)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind in the directory of temporary files, it does no harm.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

const MAIN: &str = "[node]\nname = \"db-a\"\ninterface = \"eth0\"\n[cluster]\nname = \"shop\"\nkey_file = \"key\"\n\
                    [[cluster.node]]\nname = \"db-a\"\naddress = \"10.0.1.10:7077\"\n";
const DB: &str =
    "[[group]]\nname = \"db\"\nvips = [\"10.0.1.12\"]\n[[group.check]]\ntcp = \"127.0.0.1:3306\"\n";

#[test]
fn check_says_what_a_configuration_means_or_all_that_is_wrong() -> Result<()> {
    let directory = Directory::new("means")?;
    directory.write("vip.toml", MAIN)?;
    directory.write("conf.d/db.toml", DB)?;
    // The key file is missing: an agent would not start without it.
    let output = directory.check(&[])?;
    ensure!(output.status.code() == Some(78), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).starts_with("there is no key file"), "{output:?}");
    ensure!(directory.check(&["--no-host"])?.status.code() == Some(0));
    let key = directory.0.join("key");
    let made = Command::new(find_vip_ctl()?).arg("keygen").arg(&key).output()?;
    ensure!(made.status.success(), "{made:?}");
    let output = directory.check(&[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(0) && output.stderr.is_empty(), "{output:?}");
    ensure!(text.contains("conf.d/db.toml are right: node db-a of cluster shop"), "{text}");
    ensure!(text.contains("check tcp-127.0.0.1:3306: tcp 127.0.0.1:3306; every 2s"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&directory.check(&["-o", "json"])?.stdout)?;
    ensure!(json["ok"] == true && json["configuration"]["groups"][0]["name"] == "db", "{json}");

    directory.write("conf.d/web.toml", &DB.replace("[[group.check]]", "[[group.chekc]]"))?;
    directory.write("vip.toml", &MAIN.replace("interface", "interfaec"))?;
    let output = directory.check(&[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(78) && output.stdout.is_empty(), "{output:?}");
    for wanted in [
        "vip.toml:3:1: [node] has no key \"interfaec\": did you mean \"interface\"?\n    interfaec = \"eth0\"\n    ^^^^^^^^^\n",
        "conf.d/web.toml:4:9: [[group]] has no key \"chekc\": did you mean \"check\"?",
        "conf.d/web.toml:2:8: there is a group \"db\" already",
    ] {
        ensure!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
    let output = directory.check(&["-o", "json"])?;
    ensure!(output.status.code() == Some(78), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let errors = json["errors"].as_array().context("errors")?;
    let is_it = |error: &&serde_json::Value| error["text"] == "interfaec";
    let error = errors.iter().find(is_it).with_context(|| format!("{json}"))?;
    ensure!(json["ok"] == false && error["line"] == 3 && error["column"] == 1, "{json}");
    Ok(())
}
