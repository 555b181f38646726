//! Nodes whose interface is what people have on servers: a VLAN's, or a bond of two
//! cables. By hand and in the default mode; what an agent does is the other modules'.
//!
//! Not every kernel has bonds and VLANs: `cargo xtask vm` boots some that have.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::{
    INTERFACE, LEASE, Lab, LabSpec, Netns, Node, SERVICE_PORT, VIP, cards, find_vip_ctl, wire,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer where none is expected.
const BRIEF: Duration = Duration::from_millis(500);

fn lab() -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Loads on `interface` of two nodes, and moves `vip` from the first to the second: `client`
/// is answered by who holds it, and by nobody while nobody does.
fn serves(lab: &Lab, interface: &str, vip: Ipv4Addr, client: &Netns) -> Result<()> {
    let nodes = &lab.nodes()[..2];
    let at = SocketAddrV4::new(vip, SERVICE_PORT);
    let services: Result<Vec<_>> =
        nodes.iter().map(|node| EchoServer::start(node.ns(), node.name(), at)).collect();
    let _services = services?;
    for node in nodes {
        node.succeed(&["load", "--iface", interface, "--vip", &vip.to_string()])?;
    }
    ensure!(ask_udp(client, at, BRIEF).is_err(), "answered before it was promoted");
    for node in nodes {
        node.succeed(&["promote"])?;
        // As a client whose entry has aged, or that was told: the announcement is not what is asked here.
        client.ip("neigh flush all")?;
        assert_eq!(asked(|| ask_udp(client, at, PATIENCE / 10), node)?, node.name());
        assert_eq!(ask_tcp(client, at, PATIENCE)?, node.name());
        node.succeed(&["demote"])?;
        ensure!(ask_udp(client, at, BRIEF).is_err(), "answered after it was demoted");
    }
    for node in nodes {
        node.succeed(&["unload"])?;
    }
    Ok(())
}

/// Asks again while the interface's ports are still being chosen; says what the node counted.
fn asked(mut ask: impl FnMut() -> Result<String>, node: &Node) -> Result<String> {
    let mut last = ask();
    for _ in 0..5 {
        if last.is_ok() {
            return last;
        }
        last = ask();
    }
    let counted = node.succeed(&["status"]).unwrap_or_default();
    last.map_err(|e| e.context(format!("{} says:\n{counted}", node.name())))
}

/// Gives `ns` an interface of VLAN 5 on its cable, with an address of another network.
fn tag(ns: &Netns, host: u8) -> Result<()> {
    ns.ip_batch(&format!(
        "link add link {INTERFACE} name {INTERFACE}.5 type vlan id 5\n\
         addr add 10.78.0.{host}/24 dev {INTERFACE}.5\n\
         link set {INTERFACE}.5 up\n"
    ))
}

#[lab_test("link vlan")]
fn a_vip_on_an_interface_of_a_vlan() -> Result<()> {
    let lab = lab()?;
    for (node, host) in lab.nodes().iter().zip(1..) {
        tag(node.ns(), host)?;
    }
    let client = &lab.client()?.ns;
    tag(client, 201)?;
    serves(&lab, &format!("{INTERFACE}.5"), Ipv4Addr::new(10, 78, 0, 100), client)
}

#[lab_test("link vlan")]
fn a_vip_in_a_vlan_of_a_provider() -> Result<()> {
    let lab = lab()?;
    // A VLAN of 802.1Q within one of 802.1ad.
    let tag_twice = |ns: &Netns, host: u8| {
        ns.ip_batch(&format!(
            "link add link {INTERFACE} name outer type vlan proto 802.1ad id 5\n\
             link add link outer name inner type vlan proto 802.1Q id 7\n\
             addr add 10.78.0.{host}/24 dev inner\nlink set outer up\nlink set inner up\n"
        ))
    };
    for (node, host) in lab.nodes().iter().zip(1..) {
        tag_twice(node.ns(), host)?;
    }
    let client = &lab.client()?.ns;
    tag_twice(client, 201)?;
    serves(&lab, "inner", Ipv4Addr::new(10, 78, 0, 100), client)
}

#[lab_test("link dummy")]
fn a_vip_beside_a_dummy() -> Result<()> {
    let lab = lab()?;
    // Addresses that belong to no cable, as routers and load balancers have them.
    for node in lab.nodes() {
        node.ns()
            .ip_batch("link add dummy0 type dummy\naddr add 10.79.0.1/24 dev dummy0\nlink set dummy0 up\n")?;
    }
    let client = &lab.client()?.ns;
    serves(&lab, INTERFACE, VIP, client)?;
    // Guarded as well, it changes nothing, though it has neither a cable nor an answer.
    let node = &lab.nodes()[0];
    let at = SocketAddrV4::new(VIP, SERVICE_PORT);
    let _service = EchoServer::start(node.ns(), node.name(), at)?;
    node.succeed(&["load", "--iface", INTERFACE, "--guard", "dummy0", "--vip", &VIP.to_string()])?;
    node.succeed(&["promote"])?;
    client.ip("neigh flush all")?;
    assert_eq!(asked(|| ask_udp(client, at, PATIENCE / 10), node)?, node.name());
    node.succeed(&["unload"]).map(drop)
}

/// Runs vip-ctl in this process's namespace, where a card with a standby stays.
fn here(args: &[&str]) -> Result<std::process::Output> {
    let mut command = std::process::Command::new(find_vip_ctl()?);
    command.env("VIP_BPF_DIR", "/sys/fs/bpf/vip-standby").env("VIP_RUN_DIR", "/run/vip-standby");
    Ok(command.env("VIP_STATE_DIR", "/run/vip-standby/state").args(args).output()?)
}

fn done_here(args: &[&str]) -> Result<String> {
    let output = here(args)?;
    ensure!(output.status.success(), "{args:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[lab_test("standby card")]
fn a_card_with_a_standby_has_a_vip() -> Result<()> {
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 100);
    let card = cards::with_standby().context("such a card")?;
    let (lab, at) = (lab()?, SocketAddrV4::new(THERE, SERVICE_PORT));
    let client = &lab.client()?.ns;
    client.adopt(&card.far, "far0")?;
    client.ip_batch("addr add 10.80.0.201/24 dev far0\nlink set far0 up\n")?;
    let ip = |args: &str| -> Result<String> {
        let output = std::process::Command::new("ip").args(args.split_whitespace()).output()?;
        ensure!(output.status.success(), "{args}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    ip(&format!("addr add 10.80.0.1/24 dev {}", card.upper))?;
    ip(&format!("link set {} up", card.upper))?;
    let refused = here(&["load", "--iface", &format!("{}:native", card.upper), "--vip", &THERE.to_string()])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(64) && said.contains("on top of"), "{said}");
    let said = done_here(&["load", "--iface", &card.upper, "--vip", &THERE.to_string()])?;
    ensure!(said.contains(&format!("{}: tc mode", card.upper)), "{said}");
    let _service = EchoServer::start_here("here", at)?;
    ensure!(ask_udp(client, at, BRIEF).is_err(), "answered before it was promoted");
    done_here(&["promote"])?;
    // Where the standby alone carries nothing, as QEMU's does not, the host's own address says so.
    let own = SocketAddrV4::new(Ipv4Addr::new(10, 80, 0, 1), 7001);
    let _own = EchoServer::start_here("own", own)?;
    let is_answered = |at| (0..3).any(|_| ask_udp(client, at, 4 * BRIEF).is_ok());
    for how in ["up", "down", "up"] {
        ip(&format!("link set {} {how}", card.primary))?;
        client.ip("neigh flush all")?;
        let (host, vip) = (is_answered(own), is_answered(at));
        println!("the primary is {how}: the host is answered: {host}, the VIP: {vip}");
        ensure!(vip == host && (host || how == "down"), "the primary is {how}: {}", ip("-d link")?);
    }
    assert_eq!(ask_tcp(client, at, PATIENCE)?, "here");
    done_here(&["demote"])?;
    ensure!(ask_udp(client, at, BRIEF).is_err(), "answered after it was demoted");
    let said = done_here(&["load", "--iface", &card.primary, "--vip", &THERE.to_string()])?;
    ensure!(said.contains(&format!("{} is a port of {}", card.primary, card.upper)), "{said}");
    done_here(&["unload"])?;
    ip(&format!("addr flush dev {}", card.upper)).map(drop)
}

/// How the two cables of a bond share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// One at a time; the switch knows nothing of it.
    ActiveBackup,
    /// Both, agreed upon with the switch.
    Lacp,
}

/// Puts a second cable between a node and the switch, and makes a bond of both, which
/// gets the node's address.
fn bond(lab: &Lab, node: &Node, how: Bond) -> Result<()> {
    let (name, ns, switch) = (node.name(), node.ns(), lab.switch());
    let second = format!("{name}-2");
    switch.ip_batch(&format!("link add {second} type veth peer name eth1 netns {}\n", ns.name()))?;
    let mode = match how {
        Bond::ActiveBackup => "active-backup miimon 50",
        Bond::Lacp => "802.3ad miimon 50 lacp_rate fast",
    };
    let enslave = |bond: &str, ports: [&str; 2]| {
        let ports: String = ports
            .iter()
            .map(|port| format!("link set {port} down\nlink set {port} master {bond}\n"))
            .collect();
        format!("link add {bond} type bond mode {mode}\n{ports}link set {bond} up\n")
    };
    let address = node.address();
    ns.ip_batch(&format!("addr flush dev {INTERFACE}\n{}", enslave("bond0", [INTERFACE, "eth1"])))?;
    match how {
        Bond::ActiveBackup => switch.ip_batch(&format!("link set {second} master br0 up\n"))?,
        Bond::Lacp => {
            let trunk = format!("{name}-bond");
            switch.ip_batch(&format!("link set {name} nomaster\n{}", enslave(&trunk, [name, &second])))?;
            switch.ip_batch(&format!("link set {trunk} master br0\n"))?;
        }
    }
    wire::disable_tx_checksum_offload(ns, "eth1")?;
    wire::attach_pass_all(switch, &second)?;
    ns.ip_batch(&format!("addr add {address}/24 dev bond0\n"))
}

fn bonded(how: Bond) -> Result<()> {
    let lab = lab()?;
    for node in lab.nodes() {
        bond(&lab, node, how)?;
    }
    let client = lab.client()?;
    for node in &lab.nodes()[..2] {
        // The bond works, whatever vip makes of it.
        let _service = EchoServer::start(node.ns(), node.name(), SocketAddrV4::new(node.address(), 7001))?;
        let ask = || ask_udp(&client.ns, SocketAddrV4::new(node.address(), 7001), PATIENCE / 10);
        let up = (0..10).any(|_| ask().is_ok());
        ensure!(up, "the bond of {} carries nothing: {}", node.name(), node.ns().ip("-d link show bond0")?);
    }
    serves(&lab, "bond0", VIP, &client.ns)
}

#[lab_test("link bond")]
fn a_vip_on_a_bond_with_one_cable_at_a_time() -> Result<()> {
    bonded(Bond::ActiveBackup)
}

#[lab_test("link bond")]
fn a_vip_on_a_bond_that_the_switch_knows() -> Result<()> {
    bonded(Bond::Lacp)
}
