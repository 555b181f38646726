//! Nodes in two networks, each VIP in one of them: answered and announced there alone,
//! also in a subnet in which no node has an address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_ctl::dataplane::DataPlane;
use vip_tests::lab::docker::Docker;
use vip_tests::lab::ears::Ears;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::wan::Wan;
use vip_tests::lab::wire::Direction;
use vip_tests::lab::{
    GROUP, GroupSpec, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, Node, SERVICE_PORT, VIP, clock,
    find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

use super::gates::at_tc_of;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// So long that an announcement is repeated.
const REPEATED: Duration = Duration::from_secs(3);
const AT_LAN: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
const AT_WAN: SocketAddrV4 = SocketAddrV4::new(Wan::VIP, SERVICE_PORT);
/// The subnet of the VIP in the second network.
const SUBNET: &str = "203.0.113.0/29";

/// Three nodes in two networks, with a group in each.
struct Two {
    // Ends before what it runs on.
    _services: Vec<EchoServer>,
    lab: Lab,
    wan: Wan,
}

impl Two {
    fn new() -> Result<Self> {
        Self::of(Nic::Veth, Wan::new)
    }

    fn of(nic: Nic, second: impl FnOnce(&Lab) -> Result<Wan>) -> Result<Self> {
        let mut spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic);
        spec.groups.push(GroupSpec { name: "wan".into(), vips: vec![Wan::VIP] });
        let lab = Lab::new(&spec)?;
        let wan = second(&lab)?;
        let mut services = Vec::new();
        for node in lab.candidates() {
            for at in [AT_LAN, AT_WAN] {
                services.push(EchoServer::start(node.ns(), node.name(), at)?);
            }
            let interfaces = format!(
                "interface = [\"{INTERFACE}\", {{ name = \"{}\", label = \"wan\" }}]",
                Wan::interface(node)
            );
            let text = std::fs::read_to_string(node.config_file())?;
            let text = text.replace(&format!("interface = \"{INTERFACE}\""), &interfaces);
            let text = text.replace(
                &format!("vips = [\"{}\"]", Wan::VIP),
                &format!("vips = [{{ address = \"{}/29\", interface = \"wan\" }}]", Wan::VIP),
            );
            let lan = format!("name = \"{GROUP}\"");
            node.write_config(&text.replace(&lan, &format!("{lan}\ninterface = \"{INTERFACE}\"")))?;
        }
        Ok(Self { lab, wan, _services: services })
    }

    /// Who holds the VIP of the second network, when its client has been answered there.
    fn holder(&self, other_than: Option<&str>) -> Result<&Node> {
        let mut said = String::new();
        let is_answered = || {
            said = ask_udp(&self.wan.client, AT_WAN, BRIEF).unwrap_or_default();
            !said.is_empty() && other_than != Some(&*said)
        };
        ensure!(wait_until(clock::now().plus(PATIENCE), is_answered), "the client of the WAN hears nobody");
        assert_eq!(ask_tcp(&self.wan.client, AT_WAN, PATIENCE)?, said);
        self.lab.node(&said)
    }
}

/// Asks for an address that `ns` takes to be on its own network.
fn ensure_unknown(ns: &Netns, at: SocketAddrV4) -> Result<()> {
    ns.ip(&format!("route replace {} dev {INTERFACE}", at.ip()))?;
    let said = ask_udp(ns, at, BRIEF);
    ensure!(said.is_err(), "{} was answered by {said:?}", at.ip());
    ns.ip(&format!("route del {} dev {INTERFACE}", at.ip())).map(drop)
}

fn routes(node: &Node) -> Result<String> {
    node.ns().ip(&format!("route show {SUBNET}"))
}

#[lab_test]
fn a_vip_is_answered_and_announced_in_its_own_network_alone() -> Result<()> {
    each_in_its_own_network(&Two::new()?)
}

#[lab_test("link vlan")]
fn so_it_is_on_a_vlan_and_on_what_is_below_it() -> Result<()> {
    on_both_levels(Nic::Veth)
}

#[lab_test("link bond", "link vlan")]
fn so_it_is_on_a_vlan_of_a_bond_and_on_the_bond() -> Result<()> {
    on_both_levels(Nic::Bond)
}

fn on_both_levels(nic: Nic) -> Result<()> {
    let two = Two::of(nic, Wan::on_vlan)?;
    each_in_its_own_network(&two)?;
    // Each group moves, and the other one stays.
    let below = two.lab.wait_holder(GROUP, PATIENCE)?.name();
    let above = two.holder(None)?;
    above.succeed(&["switchover", "wan"])?;
    let next = two.holder(Some(above.name()))?;
    assert_eq!(two.lab.wait_holder(GROUP, PATIENCE)?.name(), below);
    two.lab.node(below)?.succeed(&["switchover", GROUP])?;
    let lan = &two.lab.client()?.ns;
    let has_moved = || ask_udp(lan, AT_LAN, BRIEF).is_ok_and(|said| said != below);
    ensure!(wait_until(clock::now().plus(PATIENCE), has_moved), "the VIP below is not answered");
    assert_eq!(two.holder(None)?.name(), next.name());
    // What is below goes away, and what is on it too.
    next.cut()?;
    two.holder(Some(next.name()))?;
    let is_elsewhere = || ask_udp(lan, AT_LAN, BRIEF).is_ok_and(|said| said != next.name());
    ensure!(wait_until(clock::now().plus(PATIENCE), is_elsewhere), "the VIP below is not answered");
    next.heal()?;
    each_in_its_own_network(&two)
}

fn each_in_its_own_network(two: &Two) -> Result<()> {
    if two.lab.nodes().iter().all(|node| !node.has_agent()) {
        two.lab.start_agents(PATIENCE)?;
    }
    let lan = &two.lab.client()?.ns;
    let holder = two.lab.wait_holder(GROUP, PATIENCE)?;
    two.lab.wait_holder("wan", PATIENCE)?;
    two.holder(None)?;
    assert_eq!(ask_udp(lan, AT_LAN, PATIENCE)?, holder.name());
    ensure_unknown(lan, AT_WAN)?;
    ensure_unknown(&two.wan.client, AT_LAN)?;
    let counted = holder.succeed(&["status", "-o", "json"])?;
    ensure!(counted.contains("arp_request_drop_other_interface"), "{counted}");
    let ears = [(lan, VIP, Wan::VIP), (&two.wan.client, Wan::VIP, VIP)];
    for (ns, own, other) in ears {
        let ears = Ears::open(ns, INTERFACE)?;
        std::thread::sleep(REPEATED);
        let heard: BTreeSet<_> = ears.hear()?.iter().map(|arp| arp.sender).collect();
        ensure!(heard.contains(&own) && !heard.contains(&other), "{own} alone is announced there: {heard:?}");
    }
    Ok(())
}

#[lab_test]
fn a_subnet_without_an_own_address_is_served_across_a_failover() -> Result<()> {
    let two = Two::new()?;
    two.lab.start_agents(PATIENCE)?;
    let first = two.holder(None)?;
    for node in two.lab.nodes() {
        let shown = routes(node)?;
        ensure!(shown.contains(&Wan::interface(node)), "{} has no route: {shown}", node.name());
    }
    // Somebody removes it.
    first.ns().ip(&format!("route del {SUBNET}"))?;
    let is_back = || routes(first).is_ok_and(|shown| !shown.is_empty());
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", first.log_tail());
    // Its interface goes down and comes back.
    let other = two.lab.nodes().iter().find(|node| node.name() != first.name()).context("a standby")?;
    let wan = Wan::interface(other);
    other.ns().ip(&format!("link set {wan} down"))?;
    other.ns().ip(&format!("link set {wan} up"))?;
    let is_back = || routes(other).is_ok_and(|shown| !shown.is_empty());
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", other.log_tail());
    // A process on a node without the lease reaches the holder.
    assert_eq!(ask_udp(other.ns(), AT_WAN, PATIENCE)?, first.name());

    first.kill_agent()?;
    let second = two.holder(Some(first.name()))?;
    ensure!(second.name() != first.name());
    for node in two.lab.nodes() {
        if node.has_agent() {
            node.stop_agent()?;
        }
        node.succeed(&["unload"])?;
        assert_eq!(routes(node)?, "", "{}", node.name());
    }
    Ok(())
}

#[lab_test]
fn a_reload_gives_a_vip_another_interface() -> Result<()> {
    let two = Two::new()?;
    for node in two.lab.nodes() {
        // So that nothing is announced by itself.
        let text = std::fs::read_to_string(node.config_file())?;
        node.write_config(&text.replace("[node]\n", "[node]\ngarp_master_refresh = \"0s\"\n"))?;
    }
    two.lab.start_agents(PATIENCE)?;
    let holder = two.holder(None)?;
    std::thread::sleep(REPEATED);
    let lan = &two.lab.client()?.ns;
    let ears = Ears::open(lan, INTERFACE)?;
    let text = std::fs::read_to_string(holder.config_file())?;
    let (from, to) = ("/29\", interface = \"wan\"", format!("\", interface = \"{INTERFACE}\""));
    ensure!(text.contains(from), "{text}");
    holder.write_config(&text.replace(from, &to))?;
    holder.succeed(&["reload"])?;
    assert_eq!(routes(holder)?, "");
    let is_announced =
        || ears.hear().is_ok_and(|heard| heard.iter().any(|arp| arp.announced() == Some(Wan::VIP)));
    ensure!(
        wait_until(clock::now().plus(PATIENCE), is_announced),
        "it is not announced on the other network"
    );
    // The lease goes on there.
    lan.ip(&format!("route add {} dev {INTERFACE}", Wan::VIP))?;
    assert_eq!(ask_udp(lan, AT_WAN, PATIENCE)?, holder.name());
    two.wan.client.ip("neigh flush all")?;
    ensure!(ask_udp(&two.wan.client, AT_WAN, BRIEF).is_err(), "it is still answered in the WAN");
    Ok(())
}

#[lab_test]
fn an_interface_that_is_only_guarded_faults_nobody() -> Result<()> {
    let two = Two::new()?;
    for node in two.lab.nodes() {
        // As Docker leaves it where no container runs.
        node.ns().ip_batch(
            "link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up\n",
        )?;
        let text = std::fs::read_to_string(node.config_file())?;
        let guarded = "interface = [{ name = \"docker0\", announce = false }, ";
        node.write_config(&text.replace("interface = [\"eth0\"", &format!("{guarded}\"eth0\"")))?;
    }
    two.lab.start_agents(PATIENCE)?;
    two.lab.wait_holder(GROUP, PATIENCE)?;
    let holder = two.holder(None)?;
    // The one interface of a group is another matter: the other group stays where it is.
    let lan_holder = two.lab.wait_holder(GROUP, PATIENCE)?.name().to_owned();
    holder.ns().ip(&format!("link set {} down", Wan::interface(holder)))?;
    two.holder(Some(holder.name()))?;
    assert_eq!(two.lab.wait_holder(GROUP, PATIENCE)?.name(), lan_holder);
    assert_eq!(ask_udp(&two.lab.client()?.ns, AT_LAN, PATIENCE)?, lan_holder);
    Ok(())
}

#[lab_test("nft")]
fn containers_of_every_node_reach_the_holder_of_each_network() -> Result<()> {
    let two = Two::new()?;
    let mut containers = Vec::new();
    for (node, own) in two.lab.candidates().zip([1, 3, 4]) {
        node.ns().ip(&format!("addr add 203.0.113.{own}/29 dev {}", Wan::interface(node)))?;
        node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))??;
        let docker = Docker::install(&two.lab, node, SERVICE_PORT + 1)?;
        let [_, second] = docker.containers;
        containers.push((node.name(), [second, docker.other]));
    }
    let reach = |but: Option<&str>| -> Result<()> {
        let wan = two.holder(but)?.name();
        let lan = two.lab.wait_holder(GROUP, PATIENCE)?.name();
        for (on, from) in containers.iter().filter(|(on, _)| Some(*on) != but) {
            for (at, by) in [(AT_LAN, lan), (AT_WAN, wan)] {
                for (ask, from) in from.iter().flat_map(|from| [(ask_tcp as Ask, from), (ask_udp, from)]) {
                    let mut said = Ok(String::new());
                    wait_until(clock::now().plus(PATIENCE), || {
                        said = ask(from, at, BRIEF);
                        said.as_deref().is_ok_and(|answer| answer == by)
                    });
                    assert_eq!(said.with_context(|| format!("from {on} at {at}"))?, by, "from {on} at {at}");
                }
            }
        }
        Ok(())
    };
    two.lab.start_agents(PATIENCE)?;
    reach(None)?;
    let old = two.lab.wait_holder(GROUP, PATIENCE)?;
    old.kill_agent()?;
    let is_over = || ask_udp(&two.lab.client()?.ns, AT_LAN, BRIEF);
    let by_another = || is_over().is_ok_and(|by| by != old.name());
    ensure!(wait_until(clock::now().plus(PATIENCE), by_another), "nobody takes over");
    for (_, from) in containers.iter().filter(|(on, _)| *on == old.name()) {
        for (at, from) in from.iter().flat_map(|from| [(AT_LAN, from), (AT_WAN, from)]) {
            let own = ask_tcp(from, at, BRIEF);
            ensure!(own.as_deref().map_or(true, |by| by != old.name()), "reached its own host at {at}");
        }
    }
    reach(Some(old.name()))
}

/// How to ask.
type Ask = fn(&Netns, SocketAddrV4, Duration) -> Result<String>;

#[lab_test]
fn by_hand_a_vip_has_its_interface_and_its_subnet() -> Result<()> {
    let two = Two::new()?;
    let node = &two.lab.nodes()[0];
    let wan = Wan::interface(node);
    let vip = format!("{}/29@{wan}", Wan::VIP);
    let refused = node.run(&["load", "--iface", INTERFACE, "--vip", &vip])?;
    ensure!(!refused.status.success(), "a VIP on an interface that nothing guards");
    let load = ["load", "--iface", INTERFACE, "--iface", &wan, "--vip", &vip];
    let would = node.succeed(&[&load[..], &["--dry-run"]].concat())?;
    ensure!(would.contains(&format!("answered on {wan} alone")) && would.contains(SUBNET), "{would}");
    node.succeed(&load)?;
    let refused = node.run(&["unload", "--iface", &wan])?;
    ensure!(!refused.status.success(), "the VIP's one interface was taken off");
    node.succeed(&["promote"])?;
    assert_eq!(two.holder(None)?.name(), node.name());
    ensure_unknown(&two.lab.client()?.ns, AT_WAN)?;
    // Routers choose the interface by which they send: the lease alone decides.
    two.lab.client()?.ns.ip(&format!("route add {SUBNET} via {}", node.address()))?;
    assert_eq!(ask_udp(&two.lab.client()?.ns, AT_WAN, PATIENCE)?, node.name());
    node.succeed(&["demote"])?;
    ensure!(ask_udp(&two.lab.client()?.ns, AT_WAN, BRIEF).is_err(), "answered without a lease");
    node.succeed(&["unload"])?;
    assert_eq!(routes(node)?, "");
    Ok(())
}

#[lab_test]
fn by_hand_one_interface_is_taken_off_and_the_rest_goes_on() -> Result<()> {
    let two = Two::new()?;
    let node = &two.lab.nodes()[0];
    let wan = Wan::interface(node);
    let client = &two.lab.client()?.ns;
    let has_carrier = || node.ns().ip("link").is_ok_and(|links| !links.contains("NO-CARRIER"));
    ensure!(wait_until(clock::now().plus(PATIENCE), has_carrier), "a cable has no carrier");
    let before = node.snapshot()?;
    let (everywhere, at_home) = (VIP.to_string(), format!("{}/29@{wan}", Wan::VIP));
    let both = ["load", "--iface", INTERFACE, "--iface", &wan, "--vip", &everywhere];
    let interfaces = || -> Result<Vec<String>> {
        let status: serde_json::Value = serde_json::from_str(&node.succeed(&["status", "-o", "json"])?)?;
        let all = status["interfaces"].as_array().context("the interfaces")?;
        Ok(all.iter().filter_map(|interface| Some(interface["name"].as_str()?.to_owned())).collect())
    };
    let is_off = || -> Result<()> {
        assert_eq!(interfaces()?, [INTERFACE]);
        for direction in [Direction::In, Direction::Out] {
            assert_eq!(at_tc_of(node, &wan, direction)?, Vec::<String>::new(), "{direction:?}");
            ensure!(!at_tc_of(node, INTERFACE, direction)?.is_empty(), "nothing is left at {direction:?}");
        }
        // The lease goes on, and with it whoever is on the other interface.
        assert_eq!(ask_tcp(client, AT_LAN, PATIENCE)?, node.name());
        assert_eq!(ask_udp(node.ns(), AT_LAN, PATIENCE)?, node.name());
        for at in [AT_LAN, AT_WAN] {
            ensure_unknown(&two.wan.client, at)?;
        }
        Ok(())
    };
    node.succeed(&both)?;
    node.succeed(&["promote"])?;
    two.wan.client.ip(&format!("route add {VIP} dev {INTERFACE}"))?;
    assert_eq!(ask_udp(client, AT_LAN, PATIENCE)?, node.name());
    assert_eq!(ask_arp(&two.wan.client, VIP)?, node.ns().mac(&wan)?);
    two.wan.client.ip(&format!("route del {VIP} dev {INTERFACE}"))?;
    // A VIP that is on all: the interface goes alone.
    let off = ["unload", "--iface", &wan];
    let would = node.succeed(&[&off[..], &["--dry-run"]].concat())?;
    ensure!(would.contains(&format!("taken off {wan}")) && !would.contains(INTERFACE), "{would}");
    assert_eq!(interfaces()?.len(), 2, "a dry run does nothing");
    assert_eq!(node.succeed(&off)?, format!("taken off: {wan}\n"));
    is_off()?;
    // It comes back, with a VIP of its own; that one goes with it, or it can't go.
    node.succeed(&[&both[..], &["--vip", &at_home]].concat())?;
    assert_eq!(two.holder(None)?.name(), node.name());
    ensure!(!node.run(&off)?.status.success(), "the VIP's one interface was taken off");
    assert_eq!(ask_udp(&two.wan.client, AT_WAN, PATIENCE)?, node.name(), "a refusal changes nothing");
    node.succeed(&[&off[..], &["--vip", &Wan::VIP.to_string()]].concat())?;
    is_off()?;
    assert_eq!(routes(node)?, "");
    node.succeed(&["unload"])?;
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    Ok(())
}

/// The MAC that an address has for a host, once it has asked.
fn ask_arp(ns: &Netns, address: Ipv4Addr) -> Result<String> {
    let _unanswered = ask_udp(ns, SocketAddrV4::new(address, SERVICE_PORT), BRIEF);
    let entry = ns.ip(&format!("neigh show {address}"))?;
    let mac = entry.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    mac.map(str::to_owned).with_context(|| format!("nobody says that it has {address}: {entry}"))
}

#[lab_test]
fn a_router_that_hears_its_own_subnet_alone_is_asked_in_the_name_of_a_vip() -> Result<()> {
    let two = Two::new()?;
    // Its reverse path check drops questions in the name of addresses of other networks.
    two.wan.client.enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))??;
    let nodes = &two.lab.nodes()[..2];
    for node in nodes {
        let wan = Wan::interface(node);
        let vip = format!("{}/29@{wan}", Wan::VIP);
        node.succeed(&["load", "--iface", INTERFACE, "--iface", &wan, "--vip", &vip])?;
    }
    for node in nodes {
        node.succeed(&["promote"])?;
        let ears = Ears::open(&two.wan.client, INTERFACE)?;
        assert_eq!(two.holder(None)?.name(), node.name());
        let heard = ears.hear()?.iter().map(|arp| arp.sender).collect::<BTreeSet<_>>();
        ensure!(heard == [Wan::VIP].into(), "asked in the name of {heard:?}");
        node.succeed(&["demote"])?;
    }
    Ok(())
}

#[lab_test]
fn a_group_in_whose_name_no_question_can_leave_is_told() -> Result<()> {
    const SAYS: &str = "is one too many in 198.51.100.0/24";
    let two = Two::new()?;
    let [by_hand, by_agent, ..] = two.lab.nodes() else { anyhow::bail!("there are three nodes") };
    let wan = Wan::interface(by_hand);
    for number in 1..=9 {
        let (group, vip) = (format!("g{number}"), format!("198.51.100.{number}/24@{wan}"));
        let load = ["load", "--iface", INTERFACE, "--iface", &wan, "--group", &group, "--vip", &vip];
        let said = by_hand.succeed(&load)?;
        assert_eq!(said.contains(&format!("{wan}: group g9 {SAYS}")), number == 9, "{said}");
    }
    let doctor = |node: &Node| -> Result<bool> {
        Ok(String::from_utf8_lossy(&node.run(&["doctor"])?.stdout).contains(SAYS))
    };
    ensure!(doctor(by_hand)?, "the doctor says nothing of it");
    by_hand.ns().ip(&format!("addr add 198.51.100.99/24 dev {wan}"))?;
    ensure!(!doctor(by_hand)?, "it is mended");

    let groups = (1..=9).map(|number| {
        format!("[[group]]\nname = \"g{number}\"\ninterface = \"wan\"\nvips = [\"198.51.100.{number}/24\"]\n")
    });
    let groups = groups.collect::<String>();
    by_hand.succeed(&["unload"])?;
    for node in two.lab.nodes() {
        node.write_config(&(std::fs::read_to_string(node.config_file())? + &groups))?;
    }
    two.lab.start_agents(PATIENCE)?;
    let log = std::fs::read_to_string(by_agent.log_file())?;
    assert_eq!(log.matches(SAYS).count(), 1, "{log}");
    ensure!(doctor(by_agent)?, "the doctor says nothing of it");
    Ok(())
}

#[lab_test]
fn an_interface_on_top_of_another_has_vips_of_its_own() -> Result<()> {
    let two = Two::new()?;
    let node = &two.lab.nodes()[0];
    let client = &two.lab.client()?.ns;
    // The second network is on the same cable here, by an interface on top of the first one's.
    node.ns().ip_batch(&format!(
        "link add link {INTERFACE} name upper0 type macvlan mode bridge\nlink set upper0 up\n"
    ))?;
    client.ip(&format!("addr add {}/29 dev {INTERFACE}", Wan::CLIENT))?;
    let (lower, upper) = (format!("{VIP}@{INTERFACE}"), format!("{}/29@upper0", Wan::VIP));
    node.succeed(&["load", "--iface", INTERFACE, "--iface", "upper0", "--vip", &lower, "--vip", &upper])?;
    for at in [AT_LAN, AT_WAN] {
        ensure!(ask_udp(client, at, BRIEF).is_err(), "{at} was answered before it was promoted");
    }
    node.succeed(&["promote"])?;
    let mac = |interface: &str| -> Result<String> {
        let shown = node.ns().ip(&format!("link show {interface}"))?;
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        mac.map(str::to_owned).context("a hardware address")
    };
    for (at, interface) in [(AT_LAN, INTERFACE), (AT_WAN, "upper0")] {
        client.ip("neigh flush all")?;
        assert_eq!(ask_udp(client, at, PATIENCE)?, node.name());
        let entry = client.ip(&format!("neigh show {}", at.ip()))?;
        ensure!(
            entry.contains(&mac(interface)?),
            "{} is answered by another than {interface}: {entry}",
            at.ip()
        );
    }
    node.succeed(&["demote"])?;
    client.ip("neigh flush all")?;
    for at in [AT_LAN, AT_WAN] {
        ensure!(ask_udp(client, at, BRIEF).is_err(), "{at} was answered after it was demoted");
    }
    Ok(())
}

#[lab_test]
fn interfaces_that_swap_their_names_take_their_vips_along() -> Result<()> {
    let two = Two::new()?;
    let lan = &two.lab.client()?.ns;
    two.lab.start_agents(PATIENCE)?;
    two.holder(None)?;
    let swap = |node: &Node| -> Result<()> {
        let wan = Wan::interface(node);
        // A name can be changed of an interface that is down alone.
        node.ns().ip(&format!("link set {wan} down"))?;
        node.ns().ip(&format!("link set {INTERFACE} down"))?;
        node.ns().ip(&format!("link set {wan} name other"))?;
        node.ns().ip(&format!("link set {INTERFACE} name {wan}"))?;
        node.ns().ip(&format!("link set other name {INTERFACE}"))?;
        node.ns().ip(&format!("link set {INTERFACE} up"))?;
        node.ns().ip(&format!("link set {wan} up")).map(drop)
    };
    // Wherever a VIP goes now, it is on the device that has the name.
    for node in two.lab.nodes() {
        swap(node)?;
        let wan = Wan::interface(node);
        let index = |name: &str| -> Result<u32> {
            let shown = node.ns().ip(&format!("-o link show {name}"))?;
            Ok(shown.split(':').next().context("an index")?.trim().parse()?)
        };
        let homes = [(VIP, index(INTERFACE)?), (Wan::VIP, index(&wan)?)];
        let follows = || {
            DataPlane::open(node.bpf_dir()).is_ok_and(|plane| {
                homes.iter().all(|(vip, home)| plane.vip((*vip).into()).is_some_and(|vip| vip.home == *home))
            })
        };
        ensure!(wait_until(clock::now().plus(PATIENCE), follows), "{}", node.log_tail());
        let log = std::fs::read_to_string(node.log_file())?;
        ensure!(log.contains("an interface's name is another device's now"), "{log}");
    }
    two.lab.wait_holder(GROUP, PATIENCE)?;
    two.lab.wait_holder("wan", PATIENCE)?;
    ensure_unknown(&two.wan.client, AT_WAN)?;
    ensure_unknown(lan, AT_LAN)?;
    lan.ip(&format!("route replace {} dev {INTERFACE}", Wan::VIP))?;
    let answered = ask_udp(lan, AT_WAN, PATIENCE)?;
    assert_eq!(two.lab.wait_holder("wan", PATIENCE)?.name(), answered);
    Ok(())
}

#[lab_test]
fn a_holder_that_is_cut_off_beyond_its_cable_gives_the_vip_up() -> Result<()> {
    let two = Two::new()?;
    two.lab.start_agents(PATIENCE)?;
    let (holder, lan) = (two.holder(None)?, two.lab.wait_holder(GROUP, PATIENCE)?.name());
    // Its interface has a carrier all the time, and the agents hear each other by the LAN.
    two.wan.switch.ip(&format!("link set {} nomaster", holder.name()))?;
    let start = clock::now();
    let next = two.holder(Some(holder.name()))?;
    println!("given up after {:?}", clock::now().since(start));
    ensure!(next.name() != holder.name() && two.lab.wait_holder(GROUP, PATIENCE)?.name() == lan);
    // It does not come back at once.
    two.wan.switch.ip(&format!("link set {} master br0", holder.name()))?;
    std::thread::sleep(REPEATED);
    ensure!(two.holder(None)?.name() == next.name(), "it has come back");
    Ok(())
}
