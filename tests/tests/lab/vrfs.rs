//! Hosts with VRFs: the order of their routing rules is theirs, and a VIP may be on an
//! interface of a VRF.
//!
//! Not every kernel has them: `cargo xtask vm` boots some that have.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::{INTERFACE, LEASE, Lab, LabSpec, Netns, SERVICE_PORT, VIP, find_vip_ctl};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// Our table, as `ip rule` shows it.
const TABLE: &str = "5654864";

fn lab() -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// A VRF, and the local table's rule behind that of the VRFs, as the kernel's guide has it.
fn with_a_vrf(ns: &Netns) -> Result<()> {
    ns.ip_batch(
        "link add red type vrf table 10\nlink set red up\n\
         rule add pref 32765 table local\nrule del pref 0\n",
    )
}

/// Tables of the host's rules, in their order.
fn order(ns: &Netns) -> Result<Vec<String>> {
    let rules = ns.ip("rule")?;
    let table = |rule: &str| {
        let name = rule.split_whitespace().skip_while(|word| *word != "lookup").nth(1);
        name.unwrap_or_default().trim_matches(['[', ']']).to_owned()
    };
    Ok(rules.lines().map(table).collect())
}

#[lab_test("link vrf")]
fn the_rules_of_a_host_with_vrfs_stay_in_their_order() -> Result<()> {
    let lab = lab()?;
    let nodes = &lab.nodes()[..2];
    for node in nodes {
        with_a_vrf(node.ns())?;
    }
    let before: Vec<_> = nodes.iter().map(vip_tests::lab::Node::snapshot).collect::<Result<_>>()?;
    assert_eq!(order(nodes[0].ns())?, ["l3mdev-table", "local", "main", "default"]);
    for node in nodes {
        node.load()?;
        assert_eq!(order(node.ns())?, ["l3mdev-table", TABLE, "local", "main", "default"]);
    }
    // A local client on the standby reaches the holder, and one on the network as well.
    let [holder, standby] = nodes else { anyhow::bail!("two nodes") };
    let _service = EchoServer::start(holder.ns(), holder.name(), AT_VIP)?;
    let _own = EchoServer::start(standby.ns(), standby.name(), AT_VIP)?;
    holder.succeed(&["promote"])?;
    for ns in [&lab.client()?.ns, standby.ns(), holder.ns()] {
        assert_eq!(ask_tcp(ns, AT_VIP, PATIENCE)?, holder.name());
    }
    for (node, before) in nodes.iter().zip(before) {
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    }
    Ok(())
}

#[lab_test("link vrf")]
fn a_vip_on_an_interface_of_a_vrf() -> Result<()> {
    let lab = lab()?;
    let nodes = &lab.nodes()[..2];
    for node in nodes {
        // The rules are in the kernel's order: with the local table's behind that of the VRFs,
        // the VRF's route to the subnet comes before the VIP on `lo`.
        node.ns().ip_batch(&format!(
            "link add red type vrf table 10\nlink set red up\nlink set {INTERFACE} master red\n"
        ))?;
        // A service that is bound to no VRF serves all of them.
        node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_l3mdev_accept", "1"))??;
    }
    let services: Result<Vec<_>> =
        nodes.iter().map(|node| EchoServer::start(node.ns(), node.name(), AT_VIP)).collect();
    let _services = services?;
    let client = &lab.client()?.ns;
    let before: Vec<_> = nodes.iter().map(vip_tests::lab::Node::snapshot).collect::<Result<_>>()?;
    for node in nodes {
        node.load()?;
    }
    ensure!(ask_tcp(client, AT_VIP, BRIEF).is_err(), "answered before it was promoted");
    for node in nodes {
        node.succeed(&["promote"])?;
        client.ip("neigh flush all")?;
        assert_eq!(ask_tcp(client, AT_VIP, PATIENCE)?, node.name());
        node.succeed(&["demote"])?;
        ensure!(ask_tcp(client, AT_VIP, BRIEF).is_err(), "answered after it was demoted");
    }
    for (node, before) in nodes.iter().zip(before) {
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    }
    Ok(())
}

#[lab_test]
fn a_rule_that_ours_can_not_come_before_is_refused_and_nothing_is_left() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes()[0];
    // Two rules at 0 and 1, before the local table's: there is no number between them.
    node.ns().ip_batch(
        "rule add pref 1 from 10.9.0.0/24 lookup 5000\nrule add pref 0 from 10.8.0.0/24 lookup 5001\n",
    )?;
    let before = node.snapshot()?;
    let refused = node.run(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("table 5001 at priority 0 is in the way"),
        "{refused:?}"
    );
    node.succeed(&["unload"])?;
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    node.ns().ip("rule del pref 0 lookup 5001")?;
    node.load()?;
    let at_another = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 7002);
    let _echo = EchoServer::start(node.ns(), node.name(), at_another)?;
    assert_eq!(ask_udp(&lab.client()?.ns, at_another, PATIENCE)?, node.name());
    node.succeed(&["unload"]).map(drop)
}
