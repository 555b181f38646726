//! What another version has pinned in a layout that this one can't read: no agent goes on
//! with its leases, an agent that starts takes it off and loads its own, and in between
//! nobody answers who may not. The maps are this version's with another number in the record:
//! a layout that changes less is not there.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use vip_common::layout::{LAYOUT_VERSION, NodeConfig};
use vip_common::names;
use vip_tests::lab::echo::{EchoServer, ask_udp};
use vip_tests::lab::killed::{self, Ended};
use vip_tests::lab::rig::Rig;
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

use super::gates::is_gated;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer where none is expected.
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// Every so many changes of an agent's start are tried.
const STEP: usize = 9;
/// After so many it has taken the former data plane off and is up.
const CHANGES: usize = 160;

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// From now on, this is what an earlier version has pinned.
fn make_former(node: &Node) -> Result<()> {
    let maps = MapData::from_pin(node.bpf_dir().join("maps").join(names::NODE))?;
    let mut record: Array<_, [u8; size_of::<NodeConfig>()]> = Map::Array(maps).try_into()?;
    let mut other = record.get(&0, 0)?;
    other[..4].copy_from_slice(&(LAYOUT_VERSION - 1).to_ne_bytes());
    Ok(record.set(0, other, 0)?)
}

/// The VIP is on `lo` only beside a gate.
fn check_guarded(node: &Node) -> Result<()> {
    let on_lo = node.ns().ip("-4 addr show dev lo")?.contains(&VIP.to_string());
    ensure!(!on_lo || is_gated(node)?, "the VIP is on lo of {}, and no gate is there", node.name());
    Ok(())
}

#[lab_test]
fn what_another_version_pinned_can_be_taken_off() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    node.load()?;
    make_former(node)?;
    let refused = node.run(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("vip-ctl unload"), "{said}");
    // Who can read neither the VIPs nor the record does not know which VIPs are on lo.
    let (record, vips) = (node.run_dir().join("host.json"), node.bpf_dir().join("maps").join(names::VIPS_V4));
    let kept = std::fs::read(&record)?;
    let pinned = MapData::from_pin(&vips)?;
    std::fs::remove_file(&record)?;
    std::fs::remove_file(&vips)?;
    ensure!(!node.run(&["unload"])?.status.success() && is_gated(node)?, "the gate is gone");
    std::fs::write(&record, &kept)?;
    let said = node.succeed(&["unload", "--dry-run"])?;
    ensure!(said.contains("would be removed"), "{said}");
    node.succeed(&["unload"])?;
    drop(pinned);
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    // The VIPs in the map are enough for what matters.
    node.load()?;
    make_former(node)?;
    std::fs::remove_file(&record)?;
    node.succeed(&["unload"])?;
    ensure!(!node.ns().ip("-4 addr show dev lo")?.contains(&VIP.to_string()), "the VIP is left on lo");
    Ok(())
}

#[lab_test]
fn an_agent_that_starts_takes_off_what_another_version_pinned() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let node = rig.holder()?;
    // It goes on unharmed where the installed version can't, which says what to do.
    let (start, config) = (clock::now(), node.config_file());
    let config = config.to_str().context("a path that is no text")?;
    make_former(node)?;
    let tried = node.run(&["agent", "--trial", "--config", config])?;
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    ensure!(tried.status.code() == Some(76) && said.contains("systemctl restart vip-agent"), "{said}");
    ensure!(said.trim().lines().count() == 1, "more than a sentence: {said}");
    rig.expect_calm(start, node.name())?;
    // Its lease is open when the next version starts, which does not inherit it.
    let start = clock::now();
    node.kill_agent()?;
    node.start_agent()?;
    rig.expect_move(start, node.name())?;
    node.wait_quorate(clock::now().plus(PATIENCE))?;
    let log = std::fs::read_to_string(node.log_file())?;
    ensure!(log.contains("took off the data plane of an earlier version"), "{log}");
    check_guarded(node)?;
    // It can hold again, as ever.
    node.take(GROUP, PATIENCE)?;
    rig.wait_answerer(None, || ())?;
    ensure!(rig.lab.wait_holder(GROUP, PATIENCE)?.name() == node.name());
    rig.check()
}

#[lab_test]
fn a_start_that_is_killed_while_it_takes_off_is_mended_by_the_next() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], &lab.client()?.ns);
    let before = node.snapshot()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    lab.start_agents(PATIENCE)?;
    for node in lab.nodes() {
        node.kill_agent()?;
    }
    let config = node.config_file();
    let args = ["agent", "--config", config.to_str().context("a path that is no text")?];
    let mut tried = 0;
    for number in (0..CHANGES).step_by(STEP) {
        node.succeed(&["unload"])?;
        node.load()?;
        make_former(node)?;
        let mut command = node.vip_ctl()?;
        command.args(args);
        let ended = killed::before_change(command, number)?;
        if ended != Ended::Killed {
            break;
        }
        tried += 1;
        check_guarded(node).with_context(|| format!("after {number} changes"))?;
        ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "answered after {number} changes");
        if tried % 4 == 0 {
            node.start_agent()?;
            let is_up = || node.status().is_ok();
            ensure!(wait_until(clock::now().plus(PATIENCE), is_up), "{}", node.log_tail());
            node.kill_agent()?;
        }
        node.succeed(&["unload"])?;
        let changes = before.all_changes(&node.snapshot()?);
        ensure!(changes.is_empty(), "after {number} changes: {changes:?}");
        ensure!(!node.bpf_dir().exists(), "pins are left after {number} changes");
    }
    ensure!(tried > 10, "only {tried} places were tried");
    Ok(())
}

#[lab_test]
fn what_another_version_serves_by_hand_or_an_interface_has_is_left_alone() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], &lab.client()?.ns);
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    lab.start_agents(PATIENCE)?;
    for node in lab.nodes() {
        node.kill_agent()?;
    }
    node.succeed(&["unload"])?;
    let config = node.config_file();
    let start = ["agent", "--config", config.to_str().context("a path that is no text")?];
    node.load()?;
    node.succeed(&["promote"])?;
    make_former(node)?;
    let refused = node.run(&start)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("promoted by hand in maps of layout"), "{said}");
    assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, node.name());
    // Without the gates an interface's own address would be served.
    node.succeed(&["unload"])?;
    node.load()?;
    make_former(node)?;
    node.ns().ip(&format!("addr add {VIP}/32 dev {INTERFACE}"))?;
    let refused = node.run(&start)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("is an address of") && is_gated(node)?, "{said}");
    Ok(())
}
