//! The lab's own tests, without vip: it does what it says, its checker can
//! fail, and nothing of it stays behind.

use std::net::SocketAddrV4;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vip_tests::lab::capture::{Capture, FrameKind, judge};
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::probe::{ArpProber, TcpProber, UdpProber};
use vip_tests::lab::snapshot::Carrier;
use vip_tests::lab::{
    INTERFACE, Lab, LabId, LabSpec, Nic, NodeIndex, SERVICE_PORT, VIP, cleanup, clock, wait_until,
};
use vip_tests_macros::lab_test;

const LEASE: Duration = Duration::from_millis(200);
const PERIOD: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

fn bare_lab() -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, None))
}

/// Gives the VIP to a node the old way: as an address of its interface.
fn own(lab: &Lab, node: usize) -> Result<EchoServer> {
    let node = &lab.nodes()[node];
    let server = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    node.ns().ip(&format!("addr add {VIP}/32 dev {INTERFACE}"))?;
    Ok(server)
}

#[lab_test]
fn one_owner_is_seen_by_probes_and_capture() -> Result<()> {
    let lab = bare_lab()?;
    let client = lab.client()?;
    let capture = Capture::start(&lab, &[VIP])?;
    let _server = own(&lab, 0)?;
    assert_eq!(ask_udp(&client.ns, AT_VIP, PATIENCE)?, "db-a");
    assert_eq!(ask_tcp(&client.ns, AT_VIP, PATIENCE)?, "db-a");

    let udp = UdpProber::start(client, AT_VIP, PERIOD)?;
    let tcp = TcpProber::start(client, AT_VIP)?;
    let arp = ArpProber::start(client, VIP, Duration::from_millis(5))?;
    let steady = || udp.steady_answerer(Duration::from_millis(500)).as_deref() == Some("db-a");
    ensure!(wait_until(clock::now().plus(PATIENCE), steady), "no steady answers");
    ensure!(tcp.history().exchanges > 0 && tcp.history().reconnects() == 0);
    ensure!(arp.sent() > 0);

    // However late the machine was with some, the prober catches up, and never runs ahead.
    let first = udp.probes()[0].sent;
    let behind = || {
        let due = clock::now().since(first).as_millis();
        due as i128 - udp.counts().0 as i128 - i128::from(udp.skipped())
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), || behind() <= 5), "{} probes behind", behind());
    ensure!(behind() >= -5, "{} probes ahead", -behind());

    let frames = capture.frames();
    ensure!(frames.iter().any(|f| f.kind == FrameKind::Arp));
    ensure!(frames.iter().any(|f| f.kind == FrameKind::Ip));
    ensure!(frames.iter().all(|f| f.from == NodeIndex(0)));
    let last = clock::now();
    let timely = frames.iter().filter(|f| first <= f.at && f.at <= last).count();
    ensure!(timely >= 450, "{timely} of {} frames in the span of the probes", frames.len());
    let verdict = judge(&frames, Some(NodeIndex(0)));
    assert_eq!((verdict.new_holder, verdict.answered_by_two), (None, 0));
    assert_eq!(capture.lost()?, 0);
    Ok(())
}

#[lab_test]
fn two_owners_are_caught() -> Result<()> {
    let lab = bare_lab()?;
    let client = lab.client()?;
    let capture = Capture::start(&lab, &[VIP])?;
    let _first = own(&lab, 0)?;
    ask_udp(&client.ns, AT_VIP, PATIENCE)?;
    let _second = own(&lab, 1)?;
    let _arp = ArpProber::start(client, VIP, Duration::from_millis(5))?;
    let caught = || judge(&capture.frames(), Some(NodeIndex(0))).answered_by_two >= 20;
    ensure!(wait_until(clock::now().plus(PATIENCE), caught), "two owners went unnoticed");
    assert_eq!(judge(&capture.frames(), Some(NodeIndex(0))).new_holder, Some(NodeIndex(1)));
    Ok(())
}

#[lab_test]
fn a_cut_node_is_unreachable_and_comes_back_unchanged() -> Result<()> {
    let lab = bare_lab()?;
    let (client, node) = (lab.client()?, &lab.nodes()[0]);
    let _server = own(&lab, 0)?;
    let before = node.snapshot()?;
    let brief = Duration::from_millis(300);

    node.cut()?;
    ensure!(ask_udp(&client.ns, AT_VIP, brief).is_err());
    let cut = node.snapshot()?;
    ensure!(!before.interface_changes(&cut, Carrier::Compared).is_empty());
    assert_eq!(before.interface_changes(&cut, Carrier::Ignored), Vec::<String>::new());
    node.heal()?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || ask_udp(&client.ns, AT_VIP, brief).is_ok()));
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());

    node.isolate()?;
    ensure!(ask_udp(&client.ns, AT_VIP, brief).is_err());
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    node.rejoin()?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || ask_udp(&client.ns, AT_VIP, brief).is_ok()));

    // A snapshot must notice an address and a rule that are added.
    node.ns().ip("addr add 10.77.0.150/32 dev lo")?;
    ensure!(!before.interface_changes(&node.snapshot()?, Carrier::Ignored).is_empty());
    node.ns().ip("rule add pref 50 to 10.77.0.150 lookup 77")?;
    ensure!(before.all_changes(&node.snapshot()?).iter().any(|line| line.contains("lookup 77")));
    Ok(())
}

#[lab_test]
fn a_partition_parts_nodes_and_not_clients() -> Result<()> {
    let lab = bare_lab()?;
    let (client, node) = (lab.client()?, &lab.nodes()[1]);
    let _server = own(&lab, 0)?;
    let brief = Duration::from_millis(300);
    lab.partition(true)?;
    ensure!(ask_udp(&node.ns().clone(), AT_VIP, brief).is_err());
    assert_eq!(ask_udp(&client.ns, AT_VIP, PATIENCE)?, "db-a");
    lab.partition(false)?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || ask_udp(node.ns(), AT_VIP, brief).is_ok()));
    Ok(())
}

#[lab_test]
fn ports_run_a_program_only_where_xdp_tx_has_to_arrive() -> Result<()> {
    for (nic, runs) in [(Nic::Veth, false), (Nic::Card, true)] {
        let lab = Lab::new(&LabSpec::three_nodes(LEASE, None).on(nic))?;
        for node in lab.nodes() {
            let link = lab.switch().ip(&format!("-d link show {}", node.name()))?;
            ensure!(link.contains("prog/xdp") == runs, "{link}");
        }
    }
    Ok(())
}

/// What of a lab can still be found on the machine.
fn leftovers(id: &LabId) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (dir, prefix) in [
        ("/run/netns", id.netns("")),
        (cleanup::LABS_DIR, id.to_string()),
        (cleanup::BPFFS_DIR, format!("vip-lab-{id}-")),
    ] {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    Ok(found)
}

#[lab_test]
fn a_dropped_lab_leaves_nothing_and_a_kept_one_stays() -> Result<()> {
    let mut lab = bare_lab()?;
    let other = bare_lab()?;
    let id = lab.id().clone();
    ensure!(leftovers(&id)?.len() >= 6, "five namespaces and a directory");
    // A process in it, which must go too, even when it is stopped.
    let mut sleeper = lab.nodes()[0].ns().command("sleep")?.arg("600").spawn()?;
    kill(Pid::from_raw(i32::try_from(sleeper.id())?), Signal::SIGSTOP)?;
    lab.keep()?;
    drop(lab);
    cleanup::sweep()?;
    ensure!(leftovers(&id)?.len() >= 6, "a kept lab was swept");
    ensure!(sleeper.try_wait()?.is_none(), "a kept lab's process was ended");
    cleanup::remove(&id)?;
    assert_eq!(sleeper.wait()?.signal(), Some(libc::SIGTERM));
    assert_eq!(leftovers(&id)?, Vec::<String>::new());
    ensure!(cleanup::remove(&id).is_err(), "there is nothing left to remove");

    let id = other.id().clone();
    ensure!(leftovers(&id)?.len() >= 6, "another lab was removed as well");
    ensure!(cleanup::remove(&id).is_err(), "a lab in use must not be removed");
    drop(other);
    assert_eq!(leftovers(&id)?, Vec::<String>::new());
    Ok(())
}

/// Set for the process that this test starts from its own program.
const CHILD_ENV: &str = "VIP_TEST_LAB_CHILD";

#[lab_test]
fn signals_and_crashes_leave_nothing() -> Result<()> {
    if std::env::var_os(CHILD_ENV).is_some() {
        let lab = bare_lab()?;
        println!("lab {}", lab.id());
        loop {
            std::thread::park();
        }
    }
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)]
    {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", &format!("the_lab::{TEST}"), "--nocapture", "--test-threads=1"])
            .env(CHILD_ENV, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = std::io::BufReader::new(child.stdout.take().context("its output")?);
        let id = loop {
            let mut line = String::new();
            ensure!(std::io::BufRead::read_line(&mut stdout, &mut line)? > 0, "the child ended early");
            if let Some((_, id)) = line.trim_end().split_once("lab ") {
                break LabId::parse(id)?;
            }
        };
        ensure!(leftovers(&id)?.len() >= 6);
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        assert_eq!(child.wait()?.code(), code, "{signal}");
        if signal == Signal::SIGKILL {
            ensure!(!leftovers(&id)?.is_empty(), "nobody can have cleaned up yet");
            cleanup::sweep()?;
        }
        assert_eq!(leftovers(&id)?, Vec::<String>::new(), "{signal}");
    }
    Ok(())
}
