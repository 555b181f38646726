//! Nobody reaches a node's service at a VIP without its lease, whatever way the
//! packets come: from a container, by an interface that nothing guards, by one that
//! was made again while the agent hangs, through a tunnel.

mod by_nftables;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use vip_common::names;
use vip_tests::lab::beside::Beside;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::wire::detach_link;
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, skip,
    wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// The table of the routes to other holders, "VIP" in ASCII.
const TABLE: u32 = 0x56_4950;
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Nobody answers `from` at the VIP, neither by TCP nor by UDP.
fn ensure_silent(from: &Netns, when: &str) -> Result<()> {
    for ask in [ask_tcp, ask_udp] {
        let said = ask(from, AT_VIP, BRIEF);
        ensure!(said.is_err(), "{when}: answered by {said:?}");
    }
    Ok(())
}

/// The same, when no route leads such packets to the holder: the gate alone is left.
fn ensure_gated(node: &Node, from: &Netns, when: &str) -> Result<()> {
    ensure_silent(from, when)?;
    node.ns().ip(&format!("route flush table {TABLE}"))?;
    ensure_silent(from, &format!("{when}, without a route"))
}

/// The node's own service answers `from` at the VIP while the node holds it, and
/// not otherwise.
fn follows_the_lease(node: &Node, from: &Netns) -> Result<()> {
    ensure_gated(node, from, "before it was promoted")?;
    for round in 0..2 {
        node.succeed(&["promote"])?;
        for ask in [ask_tcp, ask_udp] {
            let said = ask(from, AT_VIP, PATIENCE);
            assert_eq!(said.with_context(|| format!("while it is active, {round}"))?, node.name());
        }
        node.succeed(&["demote"])?;
        ensure_gated(node, from, "after it was demoted")?;
    }
    Ok(())
}

/// The pins of the gate at IP level.
fn pins(node: &Node) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(node.bpf_dir().join("links")).context("listing the links")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(names::PROG_LOCAL_IN)).collect())
}

fn pin(node: &Node) -> PathBuf {
    node.bpf_dir().join("links").join(names::PROG_LOCAL_IN)
}

#[lab_test]
fn a_container_reaches_its_host_at_the_vip_only_while_that_holds() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let container = Beside::new(&lab, node, "docker0", 1)?;
    container.route_all()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let own = SocketAddrV4::new(container.node, SERVICE_PORT + 1);
    let _own = EchoServer::start(node.ns(), node.name(), own)?;
    node.load()?;
    follows_the_lease(node, &container.ns)?;
    // What is no VIP is none of the gate's business.
    assert_eq!(ask_tcp(&container.ns, own, PATIENCE)?, node.name());
    // It is counted, and by this gate alone.
    let vip = node.succeed(&["status", "-o", "json"])?;
    ensure!(vip.contains("ip_local_in_drop_no_lease"), "{vip}");
    node.succeed(&["unload"])?;
    ensure!(!node.bpf_dir().exists(), "pins are left");
    Ok(())
}

#[lab_test]
fn an_interface_that_nothing_guards_is_no_way_in() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let routed = Beside::new(&lab, node, "second", 1)?;
    routed.ns.ip(&format!("route add {VIP} via {}", routed.node))?;
    let stale = Beside::new(&lab, node, "third", 2)?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    node.load()?;
    stale.believes(node, VIP, "third")?;
    follows_the_lease(node, &routed.ns)?;
    follows_the_lease(node, &stale.ns)
}

#[lab_test]
fn a_tunnel_that_ends_on_a_node_is_no_way_in() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], lab.client()?);
    let end = |ns: &Netns, own: Ipv4Addr, other: Ipv4Addr, inner: &str| -> Result<()> {
        ns.ip(&format!(
            "link add vx0 type vxlan id 7 dstport 4789 local {own} remote {other} dev {INTERFACE}"
        ))?;
        ns.ip(&format!("addr add {inner}/24 dev vx0"))?;
        ns.ip("link set vx0 up").map(drop)
    };
    end(node.ns(), node.address(), client.address, "172.31.7.1")?;
    end(&client.ns, client.address, node.address(), "172.31.7.2")?;
    client.ns.ip(&format!("route add {VIP} via 172.31.7.1"))?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    node.load()?;
    follows_the_lease(node, &client.ns)
}

#[lab_test]
fn a_hung_agents_interface_that_was_made_again_is_no_way_in() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let echoes: Result<Vec<_>> =
        lab.nodes().iter().map(|node| EchoServer::start(node.ns(), node.name(), AT_VIP)).collect();
    let _echoes = echoes?;
    lab.start_agents(PATIENCE)?;
    let old = lab.wait_holder(GROUP, PATIENCE)?;
    old.pause_agent()?;
    // No program is on this one, and nobody is there to attach one.
    old.ns().ip(&format!("link del {INTERFACE}"))?;
    let stale = Beside::new(&lab, old, INTERFACE, 3)?;
    stale.believes(old, VIP, INTERFACE)?;
    let holds =
        |node: &Node| node.status().is_ok_and(|status| status.groups.iter().any(|g| g.state == "active"));
    let mut others = lab.nodes().iter().filter(|node| node.name() != old.name()).cycle();
    let taken = wait_until(clock::now().plus(PATIENCE), || others.next().is_some_and(holds));
    ensure!(taken, "nobody has taken over");
    ensure_silent(&stale.ns, "while another node holds")?;
    Ok(())
}

#[lab_test]
fn the_gate_at_ip_level_is_put_back() -> Result<()> {
    if !by_nftables::has_netfilter_programs() {
        skip::note(TEST, "needs Linux 6.4");
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let standby = lab.candidates().find(|node| node.name() != holder.name()).context("a standby")?;
    let container = Beside::new(&lab, standby, "docker0", 1)?;
    container.route_all()?;
    let _echo = EchoServer::start(standby.ns(), standby.name(), AT_VIP)?;
    ensure_silent(&container.ns, "with the gate")?;
    std::fs::remove_file(pin(standby))?;
    let is_back = || pin(standby).exists();
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", standby.log_tail());
    ensure_silent(&container.ns, "with the gate that was put back")?;
    // Detached, its pin is still there, and names the same link as before.
    let link = || -> Result<u32> { Ok(FdLink::from(PinnedLink::from_pin(pin(standby))?).info()?.id()) };
    let detached = link()?;
    detach_link(&pin(standby))?;
    let is_another = || link().is_ok_and(|id| id != detached);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_another), "{}", standby.log_tail());
    ensure_silent(&container.ns, "with another link")?;
    // What looks behind NAT is part of it, where the kernel records connections.
    let translated = pin(standby).with_file_name(names::PROG_TRANSLATED);
    let has_nat = translated.exists();
    if has_nat {
        std::fs::remove_file(&translated)?;
        let is_back = || translated.exists();
        ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", standby.log_tail());
    }
    let log = std::fs::read_to_string(standby.log_file())?;
    let told = log.matches("the gate at IP level is gone").count();
    assert_eq!(told, 2 + usize::from(has_nat), "{log}");
    Ok(())
}

#[lab_test]
fn the_gate_at_ip_level_is_replaced_and_found_wherever_it_was_left() -> Result<()> {
    if !by_nftables::has_netfilter_programs() {
        skip::note(TEST, "needs Linux 6.4");
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    let (node, other) = (&lab.nodes()[0], &lab.nodes()[1]);
    let container = Beside::new(&lab, node, "docker0", 1)?;
    container.route_all()?;
    let elsewhere = Beside::new(&lab, other, "docker0", 2)?;
    elsewhere.route_all()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let _other = EchoServer::start(other.ns(), other.name(), AT_VIP)?;
    node.load()?;
    // As if a process had ended between the two steps of a replacement.
    std::fs::rename(pin(node), pin(node).with_file_name(format!("{}_new", names::PROG_LOCAL_IN)))?;
    ensure_gated(node, &container.ns, "with the new link alone")?;
    node.load()?;
    assert_eq!(pins(node)?, [names::PROG_LOCAL_IN]);
    ensure_gated(node, &container.ns, "with another one")?;
    node.load()?;
    ensure_gated(node, &container.ns, "with the same one")?;
    // The same pins, from another namespace: that one gets a gate, too.
    let mut command = other.ns().command(find_vip_ctl()?)?;
    command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", other.run_dir());
    command.args(["load", "--iface", INTERFACE, "--vip", &VIP.to_string()]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure_gated(other, &elsewhere.ns, "in another namespace")?;
    Ok(())
}

#[lab_test("nft", "unshare")]
fn a_host_that_can_not_have_the_gate_is_told_what_is_open() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let _beside = Beside::new(&lab, node, "docker0", 1)?;
    // Without the kernel's type information nobody knows where a packet's header is.
    let blind = |args: &[&str]| -> Result<String> {
        let mut command = node.ns().command("unshare")?;
        command.args(["--mount", "sh", "-c", by_nftables::BLIND, "sh"]);
        command.arg(find_vip_ctl()?).args(args);
        command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", node.run_dir());
        let output = command.output().context("unshare")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // And nftables can't have it, since somebody keeps the table of that name.
    blind(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    let table = by_nftables::table(node)?;
    node.succeed(&["unload"])?;
    let _owner = by_nftables::Owned::new(node.ns(), &table)?;
    let said = blind(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    ensure!(said.contains("warning: the host has no gate at IP level: /sys/kernel/btf/vmlinux"), "{said}");
    ensure!(said.contains("nor does nftables take a rule that asks one"), "{said}");
    ensure!(said.contains("docker0 is up and not guarded"), "{said}");
    assert_eq!(pins(node)?, Vec::<String>::new());
    let said = blind(&["doctor"])?;
    ensure!(said.contains("the host can't have the gate at IP level"), "{said}");
    ensure!(said.contains("not guarded"), "{said}");
    // By hand, who takes an interface off is told that it is open from then on.
    let guarded = blind(&["load", "--iface", INTERFACE, "--guard", "docker0"])?;
    ensure!(!guarded.contains("docker0 is up"), "{guarded}");
    let said = blind(&["unload", "--iface", "docker0"])?;
    ensure!(said.contains("warning: docker0 is up and not guarded") && !said.contains("eth0"), "{said}");
    // The rest works as ever.
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let client = &lab.client()?.ns;
    ensure_silent(client, "before it was promoted")?;
    node.succeed(&["promote"])?;
    assert_eq!(ask_tcp(client, AT_VIP, PATIENCE)?, node.name());
    // With the type information, the next one has the gate.
    ensure!(!node.load()?.contains("warning"), "it is still warned");
    assert_eq!(pins(node)?, [names::PROG_LOCAL_IN]);
    Ok(())
}

#[lab_test]
fn by_hand_an_interface_is_guarded_and_answers_nothing() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let container = Beside::new(&lab, node, "docker0", 1)?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let vip = VIP.to_string();
    for wrong in [
        &["load", "--iface", INTERFACE, "--guard", INTERFACE, "--vip", &vip][..],
        &["load", "--iface", INTERFACE, "--guard", "docker0", "--vip", &format!("{vip}@docker0")],
    ] {
        let refused = node.run(wrong)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(64) && said.contains("--guard"), "{said}");
    }
    node.succeed(&["load", "--iface", INTERFACE, "--guard", "docker0", "--vip", &vip])?;
    node.succeed(&["promote"])?;
    let announces = || -> Result<Vec<bool>> {
        let status: serde_json::Value = serde_json::from_str(&node.succeed(&["status", "-o", "json"])?)?;
        let interfaces = status["interfaces"].as_array().context("the interfaces")?;
        let named = |name: &str| interfaces.iter().find(|interface| interface["name"] == name);
        [INTERFACE, "docker0"]
            .iter()
            .map(|name| Ok(named(name).context("it")?["announces"] == true))
            .collect()
    };
    assert_eq!(announces()?, [true, false]);
    // On the container's own link nobody says whose the VIP is.
    container.ns.ip(&format!("route add {vip} dev up0"))?;
    let ask = || ask_udp(&container.ns, AT_VIP, BRIEF);
    ensure!(ask().is_err(), "answered on an interface that is guarded alone");
    node.succeed(&["load", "--iface", INTERFACE, "--iface", "docker0", "--vip", &vip])?;
    assert_eq!(announces()?, [true, true]);
    container.ns.ip("neigh flush all")?;
    assert_eq!(ask_udp(&container.ns, AT_VIP, PATIENCE)?, node.name());
    Ok(())
}
