//! What a node's own processes and its administrator notice: local clients
//! follow the lease, and taking vip off a host leaves it as it was.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{
    GROUP, INTERFACE, Lab, LabSpec, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, skip, wait_until,
};

const LEASE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Every node, holder or not, has to reach the holder at the VIP.
fn assert_all_reach(rig: &Rig, holder: &str) -> Result<()> {
    for node in rig.lab.candidates() {
        for ask in [ask_tcp, ask_udp] {
            // The route follows the lease a moment after the map does.
            let mut said = Ok(String::new());
            wait_until(clock::now().plus(PATIENCE), || {
                said = ask(node.ns(), rig.service(), BRIEF);
                said.as_deref().is_ok_and(|by| by == holder)
            });
            assert_eq!(said.with_context(|| format!("from {}", node.name()))?, holder, "{}", node.name());
        }
    }
    Ok(())
}

#[test]
fn local_clients_reach_the_holder_before_and_after_a_failover() -> Result<()> {
    if skip::skipped("local_clients_reach_the_holder_before_and_after_a_failover") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    for node in lab.nodes() {
        node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))??;
    }
    let rig = Rig::start(lab, &spec()?, ArpProbes::On, |_| ())?;
    let old = rig.holder()?;
    assert_all_reach(&rig, old.name())?;
    let start = clock::now();
    old.kill_agent()?;
    let new = rig.wait_answerer(Some(old.name()), || ())?;
    // Also from the host whose agent is dead: its fence has closed, so its own
    // service must not be what its processes reach.
    let own = ask_tcp(old.ns(), rig.service(), BRIEF);
    ensure!(own.as_deref().map_or(true, |by| by != old.name()), "reached its own host without a lease");
    old.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_all_reach(&rig, &new)?;
    let account = rig.account(start, clock::now(), old.name())?;
    assert_eq!(account.verdict.answered_by_two, 0, "{account:?}");
    Ok(())
}

#[test]
fn a_local_client_on_a_standby_never_reaches_its_own_host() -> Result<()> {
    if skip::skipped("a_local_client_on_a_standby_never_reaches_its_own_host") {
        return Ok(());
    }
    // By hand and without any holder: the tempting answer is the only one there is.
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let _any = EchoServer::start(node.ns(), node.name(), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7001))?;
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    for port in [SERVICE_PORT, 7001] {
        let at = SocketAddrV4::new(VIP, port);
        for ask in [ask_tcp, ask_udp] {
            let said = ask(node.ns(), at, BRIEF);
            ensure!(said.is_err(), "{at} was answered by {said:?}");
        }
    }
    Ok(())
}

/// Loads, promotes and demotes by hand, and checks what the client gets.
fn work_by_hand(lab: &Lab, node: &Node) -> Result<()> {
    let client = &lab.client()?.ns;
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "answered before it was promoted");
    node.succeed(&["promote"])?;
    assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, node.name());
    assert_eq!(ask_tcp(client, AT_VIP, PATIENCE)?, node.name());
    assert_eq!(ask_tcp(node.ns(), AT_VIP, PATIENCE)?, node.name());
    node.succeed(&["demote"])?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "answered after it was demoted");
    Ok(())
}

#[test]
fn unload_restores_a_host_that_was_worked_by_hand() -> Result<()> {
    if skip::skipped("unload_restores_a_host_that_was_worked_by_hand") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    // Settings of the host's own that must come back, and are not the defaults.
    node.ns().enter(|| {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{INTERFACE}/arp_ignore"), "2")?;
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")
    })??;
    node.ns().ip("rule add pref 60 from 10.77.9.0/24 lookup 60")?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let before = node.snapshot()?;
    for round in 0..2 {
        work_by_hand(&lab, node)?;
        ensure!(!before.all_changes(&node.snapshot()?).is_empty(), "load changed nothing");
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new(), "round {round}");
        let pins = std::fs::read_dir(node.bpf_dir()).into_iter().flatten().count();
        assert_eq!(pins, 0, "pins are left in round {round}");
    }
    Ok(())
}

#[test]
fn unload_while_active_leaves_nobody_answering() -> Result<()> {
    if skip::skipped("unload_while_active_leaves_nobody_answering") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], &lab.client()?.ns);
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let before = node.snapshot()?;
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    node.succeed(&["promote"])?;
    assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, node.name());
    node.succeed(&["unload"])?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err());
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    Ok(())
}

#[test]
fn unload_restores_a_host_after_its_agent_has_ended() -> Result<()> {
    if skip::skipped("unload_restores_a_host_after_its_agent_has_ended") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    let before: Result<Vec<_>> = lab.nodes().iter().map(Node::snapshot).collect();
    let before = before?;
    lab.start_agents(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE)?;
    for node in lab.nodes() {
        // One by SIGTERM, one by SIGKILL: unload must do for both.
        if node.name() == "db-b" {
            node.kill_agent()?;
        } else {
            node.stop_agent()?;
        }
    }
    for (node, before) in lab.nodes().iter().zip(&before) {
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new(), "{}", node.name());
    }
    Ok(())
}

#[test]
fn what_others_tidy_away_is_put_back() -> Result<()> {
    if skip::skipped("what_others_tidy_away_is_put_back") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let before = node.snapshot()?;
    // As systemd-networkd does to rules, and NetworkManager to addresses.
    node.ns().ip(&format!("addr del {VIP}/32 dev lo"))?;
    node.ns().ip("rule del pref 50")?;
    let mut changes = Vec::new();
    let back = wait_until(clock::now().plus(PATIENCE), || {
        changes = node.snapshot().map_or_else(|e| vec![format!("{e:#}")], |now| before.all_changes(&now));
        changes.is_empty()
    });
    ensure!(back, "{changes:?}");
    Ok(())
}

#[test]
fn an_interface_that_was_taken_away_is_no_obstacle() -> Result<()> {
    if skip::skipped("an_interface_that_was_taken_away_is_no_obstacle") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let name = node.name().to_owned();
    node.ns().ip(&format!("link del {INTERFACE}"))?;
    let state = |wanted: &str| {
        wait_until(clock::now().plus(PATIENCE), || {
            node.status().is_ok_and(|status| status.groups.iter().all(|group| group.state == wanted))
        })
    };
    ensure!(state("fault"), "{name} does not notice: {}", node.log_tail());
    // Another interface of the same name: attached to again, and fit to serve.
    node.ns().ip(&format!("link add {INTERFACE} type veth peer name spare"))?;
    node.ns().ip(&format!("link set {INTERFACE} up"))?;
    node.ns().ip("link set spare up")?;
    let attached = wait_until(clock::now().plus(PATIENCE), || {
        node.ns().ip(&format!("link show {INTERFACE}")).is_ok_and(|shown| shown.contains("xdp"))
    });
    ensure!(attached, "not attached again: {}", node.log_tail());
    node.ns().ip(&format!("link del {INTERFACE}"))?;
    node.stop_agent()?;
    node.succeed(&["unload"])?;
    let pins = std::fs::read_dir(node.bpf_dir()).into_iter().flatten().count();
    assert_eq!(pins, 0, "pins are left");
    Ok(())
}

#[test]
fn wrong_requests_have_exit_codes_of_their_own() -> Result<()> {
    if skip::skipped("wrong_requests_have_exit_codes_of_their_own") {
        return Ok(());
    }
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let code = |args: &[&str]| -> Result<Option<i32>> {
        let output = node.run(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!said.trim().is_empty(), "vip-ctl {args:?} says nothing about its failure");
        Ok(output.status.code())
    };
    let not_loaded = code(&["promote"])?;
    let no_interface = code(&["load", "--iface", "nowhere", "--vip", "10.77.0.100"])?;
    let usage = code(&["load", "--vip", "not-an-address"])?;
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?;
    let unknown = code(&["promote", "no-such-group"])?;
    // Another program on the interface that the switch's end of the cable stands for.
    let occupied = &lab.nodes()[1];
    vip_tests::lab::wire::attach_pass_all(occupied.ns(), INTERFACE)?;
    let busy = occupied.run(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string()])?.status.code();
    let codes = [not_loaded, no_interface, usage, unknown, busy];
    ensure!(codes.iter().all(|c| c.is_some_and(|c| c > 0)), "{codes:?}");
    let mut distinct = codes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    ensure!(distinct.len() == codes.len(), "not distinct: {codes:?}");
    Ok(())
}
