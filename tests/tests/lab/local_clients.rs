//! Local clients of a VIP follow the lease, whatever rules and routes the host has
//! beside ours; and these go on as they would without ours.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::beside::Beside;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// The table of local clients' routes, "VIP" in ASCII.
const TABLE: u32 = 0x56_4950;
/// The table that the oldest version had for the first group.
const TABLE_EARLIER: u32 = 0x76_6970;

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

#[lab_test]
fn local_clients_reach_the_holder_before_and_after_a_failover() -> Result<()> {
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
    // The same on the host whose agent is dead: its fence has closed, so its processes must not
    // reach its own service.
    let own = ask_tcp(old.ns(), rig.service(), BRIEF);
    ensure!(own.as_deref().map_or(true, |by| by != old.name()), "reached its own host without a lease");
    old.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_all_reach(&rig, &new)?;
    let account = rig.account(start, clock::now(), old.name())?;
    assert_eq!(account.verdict.answered_by_two, 0, "{account:?}");
    Ok(())
}

#[lab_test]
fn a_local_client_on_a_standby_never_reaches_its_own_host() -> Result<()> {
    // Worked by hand, with no holder: only the host's own service could answer, and it must not.
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let _any = EchoServer::start(node.ns(), node.name(), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7001))?;
    node.load()?;
    for port in [SERVICE_PORT, 7001] {
        let at = SocketAddrV4::new(VIP, port);
        for ask in [ask_tcp, ask_udp] {
            let said = ask(node.ns(), at, BRIEF);
            ensure!(said.is_err(), "{at} was answered by {said:?}");
        }
    }
    Ok(())
}

/// The preferences of rules that networkd would drop on its start.
fn foreign_rules(node: &Node) -> Result<Vec<String>> {
    let rules = node.ns().ip("-details rule")?;
    let foreign = rules.lines().filter(|line| !line.contains("proto kernel"));
    Ok(foreign.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect())
}

/// Lets `node` route for others, strictly.
fn be_a_router(node: &Node) -> Result<()> {
    node.ns().enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")
    })??;
    Ok(())
}

#[lab_test]
fn containers_of_every_node_reach_the_holder_before_and_after_a_failover() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let mut containers = Vec::new();
    for (node, subnet) in lab.candidates().zip(1..) {
        be_a_router(node)?;
        let container = Beside::new(&lab, node, "docker0", subnet)?;
        container.route_all()?;
        for other in lab.candidates().filter(|other| other.name() != node.name()) {
            other.ns().ip(&format!("route add 172.31.{subnet}.0/24 via {}", node.address()))?;
        }
        containers.push((node.name().to_owned(), container));
    }
    let rig = Rig::start(lab, &spec()?, ArpProbes::On, |_| ())?;
    let reach = |holder: &str, but: &str| -> Result<()> {
        for (on, container) in containers.iter().filter(|(on, _)| on != but) {
            for ask in [ask_tcp, ask_udp] {
                let mut said = Ok(String::new());
                wait_until(clock::now().plus(PATIENCE), || {
                    said = ask(&container.ns, rig.service(), BRIEF);
                    said.as_deref().is_ok_and(|by| by == holder)
                });
                assert_eq!(said.with_context(|| format!("from a container on {on}"))?, holder);
            }
        }
        Ok(())
    };
    let old = rig.holder()?;
    reach(old.name(), "")?;
    let start = clock::now();
    old.kill_agent()?;
    let new = rig.wait_answerer(Some(old.name()), || ())?;
    reach(&new, old.name())?;
    for (on, container) in containers.iter().filter(|(on, _)| on == old.name()) {
        let own = ask_tcp(&container.ns, rig.service(), BRIEF);
        ensure!(own.as_deref().map_or(true, |by| by != on), "reached its own host without a lease");
    }
    let account = rig.account(start, clock::now(), old.name())?;
    assert_eq!(account.verdict.answered_by_two, 0, "{account:?}");
    Ok(())
}

#[lab_test]
fn a_new_holder_answers_the_wire_while_its_route_still_leads_away() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    be_a_router(node)?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let (client, container) = (&lab.client()?.ns, Beside::new(&lab, node, "docker0", 1)?);
    container.route_all()?;
    let second = Beside::new(&lab, node, "second", 2)?;
    second.route_all()?;
    for (named, way_in) in [(INTERFACE, client), ("second", &second.ns)] {
        node.succeed(&["load", "--iface", named, "--vip", &VIP.to_string()])?;
        node.succeed(&["promote"])?;
        // As it is from when the lease opens the fence until the keeper has been there.
        node.ns().ip(&format!("route add {VIP} dev {INTERFACE} table {TABLE}"))?;
        for ask in [ask_tcp, ask_udp] {
            for from in [client, way_in] {
                assert_eq!(ask(from, AT_VIP, PATIENCE)?, node.name(), "with {named}");
            }
            ensure!(ask(&container.ns, AT_VIP, BRIEF).is_err(), "the route is not the one that leads away");
        }
        node.ns().ip(&format!("route del {VIP} dev {INTERFACE} table {TABLE}"))?;
    }
    Ok(())
}

#[lab_test]
fn the_rule_is_for_all_but_what_comes_in_by_a_named_interface() -> Result<()> {
    const OF_PROCESSES: &str = "0: from all iif lo lookup 5654864";
    const BY: [&str; 3] = [
        "0: from all iif eth0 lookup local",
        "0: from all iif second lookup local",
        "0: from all lookup 5654864",
    ];
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let before = node.ns().ip("rule")?;
    node.load()?;
    assert_eq!(first_rules(node)?, [OURS, LOCAL]);
    let _second = Beside::new(&lab, node, "second", 1)?;
    node.succeed(&["load", "--iface", "second"])?;
    assert_eq!(rules(node, 4)?, [&BY[..], &[LOCAL]].concat());
    assert_eq!(foreign_rules(node)?, Vec::<String>::new(), "networkd finds something to drop");
    // Where packets may come in by another interface still, as by one above that has the
    // address, or tagged, of a subnet that is not here.
    node.ns().ip("addr flush dev second")?;
    node.succeed(&["load", "--iface", "second"])?;
    assert_eq!(first_rules(node)?, [OF_PROCESSES, LOCAL]);
    node.ns().ip("link del second")?;
    node.load()?;
    assert_eq!(first_rules(node)?, [OURS, LOCAL]);
    node.succeed(&["load", "--iface", INTERFACE, "--vip", "192.0.2.7", "--group", "vlan"])?;
    assert_eq!(first_rules(node)?, [OF_PROCESSES, LOCAL]);
    node.succeed(&["unload"])?;
    assert_eq!(node.ns().ip("rule")?, before, "a rule is left");
    // Likewise from several.
    let _third = Beside::new(&lab, node, "third", 3)?;
    node.succeed(&["load", "--iface", INTERFACE, "--iface", "third", "--vip", &VIP.to_string()])?;
    assert_eq!(rules(node, 5)?.len(), 5);
    node.succeed(&["unload"])?;
    assert_eq!(node.ns().ip("rule")?, before, "a rule is left");
    Ok(())
}

#[lab_test]
fn networkd_finds_nothing_to_drop() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], &lab.client()?.ns);
    let own = SocketAddrV4::new(node.address(), SERVICE_PORT);
    let _echo =
        EchoServer::start(node.ns(), node.name(), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE_PORT))?;
    node.load()?;
    for pref in foreign_rules(node)? {
        node.ns().ip(&format!("rule del pref {pref}"))?;
    }
    assert_eq!(ask_tcp(client, own, PATIENCE)?, node.name(), "the host is deaf");
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "the VIP is not guarded");
    ensure!(ask_udp(node.ns(), AT_VIP, BRIEF).is_err(), "a local client reached its own host");

    Ok(())
}

/// The first rules of a host with ours: the order is the kernel's.
fn first_rules(node: &Node) -> Result<Vec<String>> {
    rules(node, 2)
}

/// The first of a host's rules.
fn rules(node: &Node, count: usize) -> Result<Vec<String>> {
    Ok(node
        .ns()
        .ip("rule")?
        .lines()
        .take(count)
        .map(|rule| rule.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect())
}

const OURS: &str = "0: not from all iif eth0 lookup 5654864";
const LOCAL: &str = "0: from all lookup local";

#[lab_test]
fn what_earlier_versions_put_there_is_brought_over() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    let oldest = format!("to {VIP} lookup {TABLE_EARLIER}");
    let last = format!("lookup {TABLE} protocol kernel");
    for (local, ours) in [("protocol boot", oldest), ("protocol kernel", last)] {
        node.load()?;
        node.ns().ip(&format!("rule add pref 100 lookup local {local}"))?;
        for _ in [OURS, LOCAL] {
            node.ns().ip("rule del pref 0")?;
        }
        node.ns().ip(&format!("rule add pref 50 iif lo {ours}"))?;
        node.ns().ip(&format!("route add default dev {INTERFACE} table {TABLE_EARLIER}"))?;
        node.load()?;
        assert_eq!(foreign_rules(node)?, Vec::<String>::new());
        assert_eq!(first_rules(node)?, [OURS, LOCAL]);
        let rules = node.ns().ip("rule")?;
        ensure!(!rules.contains("50:") && !rules.contains("100:"), "{rules}");
        ensure!(
            !node.ns().ip("route show table all")?.contains(&TABLE_EARLIER.to_string()),
            "its route is left"
        );
        ensure!(ask_udp(node.ns(), AT_VIP, BRIEF).is_err(), "a local client reached its own host");
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    }
    Ok(())
}

#[lab_test]
fn policy_routing_takes_no_host_off_its_subnet() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    // As people route what comes from one of their addresses: a table with the
    // subnet and a router, in front of the main table.
    for node in lab.nodes() {
        let (ns, address) = (node.ns(), node.address());
        let [a, b, c, _] = address.octets();
        ns.ip(&format!("rule add pref 5 from {a}.{b}.{c}.0/24 lookup 5000"))?;
        ns.ip(&format!("route add {a}.{b}.{c}.0/24 dev {INTERFACE} src {address} table 5000"))?;
        ns.ip(&format!("route add default via {a}.{b}.{c}.254 dev {INTERFACE} table 5000"))?;
    }
    let rig = Rig::start(lab, &spec()?, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    assert_all_reach(&rig, &holder)?;
    let client = &rig.lab.client()?.ns;
    for node in rig.lab.candidates() {
        let own = EchoServer::start(node.ns(), node.name(), SocketAddrV4::new(node.address(), 7002))?;
        let said = ask_tcp(client, SocketAddrV4::new(node.address(), 7002), PATIENCE);
        assert_eq!(said.with_context(|| format!("{} is deaf", node.name()))?, node.name());
        drop(own);
    }
    Ok(())
}

/// A host's rules without ours, from the local table's on.
fn others(ns: &Netns) -> Result<Vec<String>> {
    let rules = ns.ip("rule")?;
    Ok(rules.lines().filter(|rule| !rule.contains(&TABLE.to_string())).map(str::to_owned).collect())
}

#[lab_test]
fn rules_of_others_get_the_priorities_that_they_get_without_ours() -> Result<()> {
    // As wg-quick(8) adds them: each without a priority, and the second has to come
    // before the first.
    const ADDED: [&str; 2] =
        ["rule add not fwmark 51820 table 51820", "rule add table main suppress_prefixlength 0"];
    let rig = Rig::start(Lab::new(&spec()?)?, &spec()?, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    let standby = rig.lab.candidates().find(|node| node.name() != holder).context("a standby")?;
    let without = &rig.lab.client()?.ns;
    for added in ADDED {
        standby.ns().ip(added)?;
        without.ip(added)?;
    }
    let wanted = others(without)?;
    let is_same = || others(standby.ns()).is_ok_and(|rules| rules == wanted);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_same), "{:?}, not {wanted:?}", others(standby.ns()));
    assert_eq!(first_rules(standby)?, [OURS, LOCAL]);
    assert_all_reach(&rig, &holder)?;
    // Whoever added them can delete them, as wg-quick does.
    for deleted in ["rule del table 51820", "rule del table main suppress_prefixlength 0"] {
        standby.ns().ip(deleted)?;
    }
    assert_all_reach(&rig, &holder)
}

#[lab_test]
fn who_flushes_the_rules_leaves_the_host_its_own_addresses() -> Result<()> {
    let rig = Rig::start(Lab::new(&spec()?)?, &spec()?, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    let start = clock::now();
    for node in rig.lab.candidates() {
        node.ns().ip("rule flush")?;
        node.ns().ip("rule add pref 32766 lookup main")?;
        node.ns().ip("rule add pref 32767 lookup default")?;
        assert_eq!(first_rules(node)?, [OURS, LOCAL]);
    }
    rig.lab.wait_quorate(PATIENCE)?;
    assert_all_reach(&rig, &holder)?;
    // Ours alone, by whoever deletes the first.
    for node in rig.lab.candidates() {
        node.ns().ip("rule del pref 0")?;
        let is_mended = || first_rules(node).is_ok_and(|rules| rules == [OURS, LOCAL]);
        ensure!(wait_until(clock::now().plus(PATIENCE), is_mended), "{:?}", first_rules(node));
    }
    assert_all_reach(&rig, &holder)?;
    // Answers were lost while there was no rule for the main table, and no lease.
    let account = rig.account(start, clock::now(), &holder)?;
    ensure!(account.verdict.new_holder.is_none() && account.verdict.answered_by_two == 0, "{account:?}");
    Ok(())
}

#[lab_test]
fn a_route_that_is_gone_from_a_standby_is_put_back() -> Result<()> {
    let rig = Rig::start(Lab::new(&spec()?)?, &spec()?, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    assert_all_reach(&rig, &holder)?;
    let standby = rig.lab.candidates().find(|node| node.name() != holder).context("a standby")?;
    // Somebody removes the route; then the kernel does, which sends no notice of it.
    standby.ns().ip(&format!("route flush table {TABLE}"))?;
    assert_all_reach(&rig, &holder)?;
    standby.ns().ip(&format!("link set {INTERFACE} down"))?;
    standby.ns().ip(&format!("link set {INTERFACE} up"))?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_all_reach(&rig, &holder)
}

#[lab_test]
fn a_vip_is_no_source_on_an_interface_without_an_address() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let ns = node.ns();
    ns.ip("link add unnumbered type veth peer name other")?;
    ns.ip("link set unnumbered up")?;
    ns.ip("link set other up")?;
    ns.ip("route add 198.51.100.0/24 dev unnumbered")?;
    let before = ns.ip("route get 198.51.100.7")?;
    ensure!(before.contains(&node.address().to_string()), "{before}");
    node.load()?;
    assert_eq!(ns.ip("route get 198.51.100.7")?, before);
    // A service binds to it all the same.
    let _echo = EchoServer::start(ns, node.name(), AT_VIP)?;
    node.succeed(&["promote"])?;
    assert_eq!(ask_tcp(&lab.client()?.ns, AT_VIP, PATIENCE)?, node.name());
    Ok(())
}

#[lab_test]
fn whatever_rules_others_add_and_delete_no_vip_stays_away_and_none_comes_back() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let before = others(node.ns())?;
    // Each is deleted again at once, maybe while the agent gives it its priority.
    for mark in 100..200 {
        node.ns().ip(&format!("rule add fwmark {mark} lookup {mark}"))?;
        node.ns().ip(&format!("rule del fwmark {mark} lookup {mark}"))?;
    }
    let is_as_before = || others(node.ns()).is_ok_and(|rules| rules == before);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_as_before), "{:?}", others(node.ns()));
    // The kernel has this one at 0 alone: elsewhere it would lead back.
    node.ns().ip("rule add goto 100")?;
    node.ns().ip(&format!("addr del {VIP}/32 dev lo"))?;
    let is_on_lo = || node.ns().ip("addr show lo").is_ok_and(|shown| shown.contains(&VIP.to_string()));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_on_lo), "{}", node.log_tail());
    assert_eq!(first_rules(node)?, [OURS, LOCAL]);
    node.kill_agent()?;
    node.start_agent()?;
    lab.wait_quorate(PATIENCE)?;
    node.stop_agent()?;
    node.succeed(&["unload"])?;
    ensure!(others(node.ns())?.iter().any(|rule| rule.contains("goto 100")), "{:?}", others(node.ns()));
    Ok(())
}
