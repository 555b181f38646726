//! Gates and the programs and filters of others at tc: ours come first, and stay there.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, tc::TcAttachType};
use vip_common::names;
use vip_tests::lab::wire::{self, Direction, attach_first};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Node, VIP, clock, find_vip_ctl, skip, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer where none is expected.
const BRIEF: Duration = Duration::from_millis(500);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Is our gate on the way out?
pub(super) fn is_gated(node: &Node) -> Result<bool> {
    Ok(on_egress(node)?.iter().any(|name| name == names::PROG_EGRESS))
}

/// Is our program at tc on the way in?
pub(super) fn is_entered(node: &Node) -> Result<bool> {
    Ok(at_tc(node, Direction::In)?.iter().any(|name| name == names::PROG_INGRESS_TC))
}

/// What decides on the way out.
fn on_egress(node: &Node) -> Result<Vec<String>> {
    at_tc(node, Direction::Out)
}

/// What decides at tc, in the order in which it is asked: programs of tcx by their names,
/// then filters by their names or kinds. Kernels before 6.6 have no tcx.
pub(super) fn at_tc(node: &Node, direction: Direction) -> Result<Vec<String>> {
    at_tc_of(node, INTERFACE, direction)
}

/// The same of any interface.
pub(super) fn at_tc_of(node: &Node, interface: &str, direction: Direction) -> Result<Vec<String>> {
    let hook = match direction {
        Direction::In => TcAttachType::Ingress,
        Direction::Out => TcAttachType::Egress,
    };
    let programs = node.ns().enter(|| SchedClassifier::query_tcx(interface, hook))?;
    let programs = programs.map_or_else(|_| Vec::new(), |(_, programs)| programs);
    let programs = programs.iter().map(|program| program.name_as_str().unwrap_or_default().to_owned());
    Ok(programs.chain(wire::filters(node.ns(), interface, direction)?).collect())
}

/// Has a frame from the VIP left this node? Sends one, as a service that is bound
/// to it does, to a client that listens for it.
fn leaves(lab: &Lab, node: &Node) -> Result<bool> {
    let client = lab.client()?;
    let heard = client.ns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7003)))??;
    heard.set_read_timeout(Some(BRIEF))?;
    let at = SocketAddrV4::new(client.address, 7003);
    node.ns().enter(|| UdpSocket::bind((VIP, 7003))?.send_to(b"from the VIP", at))??;
    Ok(heard.recv_from(&mut [0; 64]).is_ok())
}

/// A node whose gate another one has come before: the next `load` puts the gate first
/// again, and each later one where others are there already.
fn overtakes_by_hand(
    lab: &Lab,
    node: &Node,
    how: &[&str],
    come_before: fn(&Netns, &str, Direction) -> Result<()>,
) -> Result<()> {
    let load = || node.succeed(&[&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()], how].concat());
    load()?;
    ensure!(!leaves(lab, node)?, "a frame left without a lease");
    come_before(node.ns(), INTERFACE, Direction::Out)?;
    let said = node.run(&["doctor"])?;
    let said = String::from_utf8_lossy(&said.stdout);
    ensure!(leaves(lab, node)?, "the other program lets nothing out: this proves nothing");
    ensure!(said.contains("runs before our gate"), "{said}");
    for _ in 0..2 {
        load()?;
        ensure!(!leaves(lab, node)?, "a frame left without a lease");
        assert_eq!(on_egress(node)?.iter().filter(|name| *name == names::PROG_EGRESS).count(), 1);
    }
    node.succeed(&["unload"])?;
    ensure!(leaves(lab, node).is_err() && !is_gated(node)?, "unload left the VIP or its gate");
    load()?;
    ensure!(!leaves(lab, node)?, "a frame left without a lease");
    node.succeed(&["unload"])?;
    assert_eq!(on_egress(node)?.len(), 1, "the other one is gone: {:?}", on_egress(node)?);
    Ok(())
}

#[lab_test]
fn a_gate_by_clsact_comes_before_the_filters_of_others() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let by_clsact = ["--gate", "clsact"];
    overtakes_by_hand(&lab, &lab.nodes()[0], &by_clsact, wire::filter_first)?;
    // What can't be overtaken is no obstacle, and is told.
    let node = &lab.nodes()[1];
    wire::filter(node.ns(), INTERFACE, Direction::Out, "ip")?;
    for _ in 0..2 {
        node.succeed(&[&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()], &by_clsact[..]].concat())?;
        assert_eq!(wire::filters(node.ns(), INTERFACE, Direction::Out)?, ["bpf", names::PROG_EGRESS]);
    }
    let said = node.run(&["doctor"])?;
    ensure!(String::from_utf8_lossy(&said.stdout).contains("runs before our gate"));
    Ok(())
}

#[lab_test]
fn a_gate_by_clsact_is_behind_programs_of_tcx_and_says_so() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    if node.ns().enter(|| SchedClassifier::query_tcx(INTERFACE, TcAttachType::Egress))?.is_err() {
        skip::note(TEST, "this kernel has no tcx");
        return Ok(());
    }
    attach_first(node.ns(), INTERFACE, Direction::Out)?;
    let load = ["load", "--iface", INTERFACE, "--vip", &VIP.to_string()];
    let said = node.succeed(&[&load[..], &["--gate", "clsact"]].concat())?;
    ensure!(said.contains("runs before our gate") && said.contains("without --gate clsact"), "{said}");
    ensure!(leaves(&lab, node)?, "the other program lets nothing out: this proves nothing");
    // What the warning says helps.
    let said = node.succeed(&load)?;
    ensure!(!said.contains("runs before our gate") && !leaves(&lab, node)?, "{said}");
    Ok(())
}

#[lab_test]
fn a_gate_comes_before_the_programs_of_others_and_stays_there() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (by_hand, agents) = lab.nodes().split_first().context("a node")?;
    overtakes_by_hand(&lab, by_hand, &[], attach_first)?;

    // An agent looks by itself, and gives no lease up for it.
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?.name().to_owned();
    let epoch = || -> Result<u64> {
        lab.node(&holder)?.status()?.group(GROUP).and_then(|group| group.epoch).context("its epoch")
    };
    let before = epoch()?;
    for node in agents {
        attach_first(node.ns(), INTERFACE, Direction::Out)?;
        let is_mended =
            || on_egress(node).is_ok_and(|names| names.first().is_some_and(|n| n == names::PROG_EGRESS));
        ensure!(wait_until(clock::now().plus(PATIENCE), is_mended), "{}", node.log_tail());
        ensure!(node.has_logged("another program comes before ours"), "{}", node.log_tail());
    }
    assert_eq!((lab.wait_holder(GROUP, PATIENCE)?.name(), epoch()?), (&*holder, before));
    Ok(())
}

#[lab_test("tc")]
fn filters_of_other_kinds_are_no_obstacle_and_stay() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let tc = |args: &str| -> Result<bool> {
        Ok(node.ns().command("tc")?.args(args.split(' ')).status()?.success())
    };
    ensure!(tc("qdisc add dev eth0 clsact")?);
    // One option of these filters has the number that a program's name has.
    let kinds = ["u32 match ip dst 192.0.2.1/32 action drop", "flower src_mac 02:00:00:00:00:01 action drop"];
    let mut is_there = false;
    for (prio, kind) in (9..).zip(kinds) {
        for direction in ["ingress", "egress"] {
            is_there |= tc(&format!("filter add dev eth0 {direction} protocol ip prio {prio} {kind}"))?;
        }
    }
    if !is_there {
        skip::note(TEST, "this kernel has no such filters");
        return Ok(());
    }
    let before = (at_tc(node, Direction::In)?, at_tc(node, Direction::Out)?);
    for how in [&["--gate", "auto"][..], &["--gate", "clsact"], &["--mode", "native"]] {
        node.succeed(&[&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()], how].concat())?;
        node.succeed(&["unload"])?;
        assert_eq!((at_tc(node, Direction::In)?, at_tc(node, Direction::Out)?), before, "{how:?}");
    }
    Ok(())
}

#[lab_test("tc")]
fn another_qdisc_in_the_place_of_clsact_is_named() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    ensure!(node.ns().command("tc")?.args(["qdisc", "add", "dev", INTERFACE, "ingress"]).status()?.success());
    let loads = ["load", "--iface", INTERFACE, "--vip", &VIP.to_string(), "--gate", "clsact"];
    let refused = node.run(&loads)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    // The kernel would take the gate on the way out for one on the way in.
    ensure!(refused.status.code() == Some(73) && said.contains("qdisc ingress"), "{said}");
    ensure!(!node.ns().ip("addr show dev lo")?.contains(&VIP.to_string()), "the VIP is there without a gate");
    Ok(())
}
