//! Hosts as people have them: on whatever interface a node is, by the mode that it
//! chooses there, a client is answered, by nobody doubly, and within the bound.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::rig::Rig;
use vip_tests::lab::wire::Direction;
use vip_tests::lab::{GROUP, LEASE, LabSpec, Nic, Node, VIP, clock, find_vip_ctl};
use vip_tests_macros::lab_test;

use super::gates::at_tc;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec(nic: Nic) -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic))
}

/// How the way in runs, as `status` says.
pub(super) fn mode(node: &Node) -> Result<String> {
    let status: serde_json::Value = serde_json::from_str(&node.succeed(&["status", "-o", "json"])?)?;
    let mode = status["interfaces"][0]["mode"].as_str();
    Ok(mode.with_context(|| format!("{status}"))?.to_owned())
}

/// The demo's steps that an interface can make a difference to: the agent is killed, the
/// cable is cut, the VIP is moved.
fn serves_and_moves(nic: Nic) -> Result<()> {
    let rig = Rig::new(&spec(nic)?)?;
    for node in rig.lab.nodes() {
        ensure!(mode(node)? == nic.mode(), "{nic:?}: {} mode", mode(node)?);
    }
    let holder = rig.holder()?.name().to_owned();
    rig.expect_calm(clock::now(), &holder)?;

    let start = clock::now();
    rig.lab.node(&holder)?.kill_agent()?;
    let (next, _) = rig.expect_move(start, &holder).context("the agent is killed")?;
    let next = next.name().to_owned();
    rig.lab.node(&holder)?.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;

    let start = clock::now();
    rig.lab.node(&next)?.cut()?;
    let (third, _) = rig.expect_move(start, &next).context("the cable is cut")?;
    let third = third.name().to_owned();
    rig.lab.node(&next)?.heal()?;
    rig.lab.wait_quorate(PATIENCE)?;

    let start = clock::now();
    rig.lab.node(&third)?.succeed(&["switchover", GROUP])?;
    rig.expect_move(start, &third).context("the VIP is moved")?;

    // By hand, `unload` finds everything again.
    for node in rig.lab.nodes() {
        node.stop_agent()?;
        node.succeed(&["unload"])?;
        let links = node.ns().ip("link")?;
        ensure!(!links.contains("xdp"), "{links}");
        for direction in [Direction::In, Direction::Out] {
            assert_eq!(at_tc(node, direction)?, Vec::<String>::new(), "{direction:?}");
        }
        ensure!(!node.bpf_dir().exists(), "pins are left");
    }
    if matches!(nic, Nic::Bond | Nic::Bridge) {
        // Native mode would run on what is below, and answer nobody.
        let node = &rig.lab.nodes()[0];
        let refused = node.run(&["load", "--iface", "eth0:native", "--vip", &VIP.to_string()])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(64) && said.contains("on top of lower0"), "{said}");
    }
    Ok(())
}

#[lab_test]
fn a_veth_as_containers_have() -> Result<()> {
    serves_and_moves(Nic::Veth)
}

#[lab_test]
fn a_card_whose_driver_runs_xdp() -> Result<()> {
    serves_and_moves(Nic::Card)
}

#[lab_test("cards")]
fn a_virtual_machines_card() -> Result<()> {
    serves_and_moves(Nic::Virtio)
}

#[lab_test]
fn a_bridge_that_virtual_machines_are_on() -> Result<()> {
    serves_and_moves(Nic::Bridge)
}

#[lab_test("link macvlan")]
fn a_macvlan() -> Result<()> {
    serves_and_moves(Nic::Macvlan)
}

#[lab_test("link vlan")]
fn a_vlan() -> Result<()> {
    serves_and_moves(Nic::Vlan)
}

#[lab_test("link bond")]
fn a_bond() -> Result<()> {
    serves_and_moves(Nic::Bond)
}
