//! How the program on the way in runs: what was asked for, from one to the other without a
//! gap, beside the programs of others, with large frames, and in a VLAN.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::names;
use vip_tests::lab::echo::{EchoServer, ask_udp};
use vip_tests::lab::probe::UdpProber;
use vip_tests::lab::trunk;
use vip_tests::lab::wire::{Direction, attach_first, attach_pass_all};
use vip_tests::lab::{
    Client, GROUP, INTERFACE, LEASE, Lab, LabSpec, Nic, Node, SERVICE_PORT, VIP, clock, find_vip_ctl,
    wait_until,
};
use vip_tests_macros::lab_test;

use super::gates::at_tc;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer where none is expected.
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

fn lab(nic: Nic) -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic))
}

/// Loads on this interface, which can be `eth0:MODE`, and returns what it says.
fn load(node: &Node, interface: &str) -> Result<String> {
    node.succeed(&["load", "--iface", interface, "--vip", &VIP.to_string()])
}

/// Our programs on the way in of [`INTERFACE`]: by XDP, and at tc.
fn ours(node: &Node) -> Result<(bool, bool)> {
    let link = node.ns().ip(&format!("-d link show {INTERFACE}"))?;
    let at_tc = at_tc(node, Direction::In)?;
    Ok((link.contains("prog/xdp"), at_tc.iter().any(|name| name == names::PROG_INGRESS_TC)))
}

#[lab_test]
fn from_any_mode_to_any_other_nobody_notices() -> Result<()> {
    let lab = lab(Nic::Card)?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    load(node, "eth0:native")?;
    node.succeed(&["promote"])?;
    let client = lab.client()?;
    assert_eq!(ask_udp(&client.ns, AT_VIP, PATIENCE)?, node.name());
    let prober = UdpProber::start(client, AT_VIP, Duration::from_millis(5))?;
    let modes = ["native", "tc", "native", "generic", "tc", "generic", "native", "native", "tc", "tc"];
    for (mode, former) in modes[1..].iter().zip(modes) {
        let plan = node.succeed(&["load", "--iface", &format!("eth0:{mode}"), "--dry-run"])?;
        assert_eq!(plan.contains(&format!("from {former} to {mode} mode")), *mode != former, "{plan}");
        ensure!(load(node, &format!("eth0:{mode}"))?.contains(&format!("eth0: {mode} mode")));
        assert_eq!(ours(node)?, (*mode != "tc", *mode == "tc"), "{mode}");
        let status = node.succeed(&["status"])?;
        ensure!(status.contains(&format!("interface eth0: {mode} mode")), "{status}");
        // What was chosen stays where nobody asks for another.
        ensure!(load(node, "eth0")?.contains(&format!("eth0: {mode} mode as before")));
        std::thread::sleep(BRIEF);
    }
    let (probes, lost) = prober.counts();
    // XDP that comes and goes resets the queues of a veth, as of a card.
    ensure!(lost * 20 <= probes, "{lost} of {probes} were lost");
    node.succeed(&["unload"])?;
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    Ok(())
}

#[lab_test]
fn beside_the_programs_of_others() -> Result<()> {
    let lab = lab(Nic::Veth)?;
    let (node, agents) = lab.nodes().split_first().context("a node")?;
    attach_pass_all(node.ns(), INTERFACE)?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    ensure!(load(node, "eth0")?.contains("another XDP program"), "it is not said whose it is");
    node.succeed(&["promote"])?;
    assert_eq!(ask_udp(&lab.client()?.ns, AT_VIP, PATIENCE)?, node.name());
    node.succeed(&["demote"])?;
    ensure!(ask_udp(&lab.client()?.ns, AT_VIP, BRIEF).is_err());

    // At tc, too, one that comes before ours could accept a frame for a standby.
    attach_first(node.ns(), INTERFACE, Direction::In)?;
    load(node, "eth0")?;
    let first = |node: &Node| -> Result<bool> {
        Ok(at_tc(node, Direction::In)?.first().is_some_and(|name| name == names::PROG_INGRESS_TC))
    };
    ensure!(first(node)?, "another program decides first");
    node.succeed(&["unload"])?;
    let (xdp, tc) = ours(node)?;
    ensure!(xdp && !tc, "the other's program is gone, or ours is left");

    lab.start_agents(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE)?;
    for node in agents {
        attach_first(node.ns(), INTERFACE, Direction::In)?;
        let is_mended = || first(node).unwrap_or(false);
        ensure!(wait_until(clock::now().plus(PATIENCE), is_mended), "{}", node.log_tail());
    }
    Ok(())
}

/// Is a datagram answered that fills a frame of 9,000 bytes?
fn answers_large(client: &Client, patience: Duration) -> Result<bool> {
    let socket = client.ns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(&[0; 8900], AT_VIP)?;
    Ok(socket.recv(&mut [0; 16]).is_ok())
}

#[lab_test]
fn frames_of_nine_thousand_bytes() -> Result<()> {
    let lab = lab(Nic::Card)?;
    let node = &lab.nodes()[0];
    let client = lab.client()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    // XDP on a veth asks of its peer what it asks of a card's ring.
    lab.switch().ip_batch(&format!("link set {} mtu 9000\nlink set client mtu 9000\n", node.name()))?;
    node.ns().ip(&format!("link set {INTERFACE} mtu 9000"))?;
    client.ns.ip(&format!("link set {INTERFACE} mtu 9000"))?;
    for mode in ["native", "tc"] {
        load(node, &format!("eth0:{mode}"))?;
        node.succeed(&["promote"])?;
        assert_eq!(ask_udp(&client.ns, AT_VIP, PATIENCE)?, node.name(), "{mode}");
        ensure!(answers_large(client, PATIENCE)?, "{mode}: not answered");
        node.succeed(&["demote"])?;
        ensure!(!answers_large(client, BRIEF)?, "{mode}: a standby answers");
    }
    Ok(())
}

#[lab_test]
fn on_a_trunk_the_answer_goes_out_with_the_tag_of_the_question() -> Result<()> {
    let lab = lab(Nic::Veth)?;
    let (node, client) = (&lab.nodes()[0], lab.client()?);
    load(node, "eth0:tc")?;
    node.succeed(&["promote"])?;
    for vlan in [None, Some(5), Some(4094)] {
        assert_eq!(trunk::ask(client, VIP, vlan, PATIENCE)?, Some(vlan), "asked in {vlan:?}");
    }
    // As a card does, the kernel keeps the outer tag beside the frame, and leaves the inner one in it.
    for tags in [[(trunk::S_TAG, 5), (trunk::C_TAG, 7)], [(trunk::C_TAG, 4094), (trunk::C_TAG, 1)]] {
        let answered = trunk::ask_in(client, VIP, &tags, PATIENCE)?;
        assert_eq!(answered.as_deref(), Some(&tags[..]), "asked in {tags:x?}");
    }
    node.succeed(&["demote"])?;
    assert_eq!(trunk::ask_in(client, VIP, &[(trunk::S_TAG, 5), (trunk::C_TAG, 7)], BRIEF)?, None);
    for vlan in [None, Some(5)] {
        assert_eq!(trunk::ask(client, VIP, vlan, BRIEF)?, None, "a standby answers in {vlan:?}");
    }
    Ok(())
}
