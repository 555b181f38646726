//! Virtual machines on the nodes: each node's interface is a bridge, and a guest is another
//! port of it. A guest is a client like any other, also of its own host, and never of a
//! host without the lease.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::BootNs;
use vip_tests::lab::account::Account;
use vip_tests::lab::docker::Docker;
use vip_tests::lab::ears::Ears;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::guest::Guest;
use vip_tests::lab::load::nft;
use vip_tests::lab::probe::{Answer, UdpProber};
use vip_tests::lab::rig::{ArpProbes, Rig, STEADY, WATCH};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, slow,
    wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// In how much time a guest with a stale entry is healed: a kernel by itself takes 23 s and more.
const BOUND: Duration = Duration::from_secs(5);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// The number of the first node's guest.
const FIRST_GUEST: u8 = 211;
/// Between two probes of a guest.
const PERIOD: Duration = Duration::from_millis(5);

/// A firewall for guests that follows connections.
const RULES: &str = "table ip guests { chain forward { \
    type filter hook forward priority 0; policy drop; \
    ct state invalid drop; ct state established,related accept; ct state new accept; }; }";

/// Does the firewall of the nodes see what their bridges forward?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bridges {
    /// It does (`bridge-nf-call-iptables`), and it follows connections.
    Filter,
    /// It does not.
    Plain,
}

impl Bridges {
    fn prepare(self, node: &Node) -> Result<()> {
        let filter = if self == Self::Filter { "1" } else { "0" };
        node.ns().enter(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", filter))??;
        match self {
            Self::Filter => nft(node.ns(), RULES),
            Self::Plain => Ok(()),
        }
    }
}

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(Nic::Bridge))
}

/// A guest, and what it sees of the VIP.
struct View {
    on: String,
    guest: Guest,
    udp: UdpProber,
    ears: Ears,
}

impl View {
    fn ns(&self) -> &Netns {
        &self.guest.host.ns
    }

    /// All answers to probes that were sent since then, by when they came.
    fn answers(&self, start: BootNs) -> Vec<Answer> {
        let mut answers: Vec<_> =
            self.udp.probes().into_iter().filter(|p| p.sent >= start).filter_map(|p| p.answer).collect();
        answers.sort_by_key(|answer| answer.at);
        answers
    }

    /// Who has answered since then, each once for as long as nobody else did.
    fn answerers(&self, start: BootNs) -> Vec<String> {
        let mut by: Vec<_> = self.answers(start).into_iter().map(|answer| answer.by.to_string()).collect();
        by.dedup();
        by
    }

    /// Whose MAC the VIP had since the last look, by what the guest heard.
    fn heard(&self, rig: &Rig) -> Result<Vec<String>> {
        let mut heard = Vec::new();
        for arp in self.ears.hear()?.iter().filter(|arp| arp.sender == VIP) {
            let mac = arp.mac.map(|byte| format!("{byte:02x}")).join(":");
            let of = rig.lab.nodes().iter().find(|node| node.ns().mac(INTERFACE).is_ok_and(|own| own == mac));
            heard.push(of.map_or(mac, |node| node.name().to_owned()));
        }
        heard.dedup();
        Ok(heard)
    }
}

/// A cluster whose nodes have a guest each.
struct World {
    // The watchers before what they watch.
    views: Vec<View>,
    rig: Rig,
}

impl World {
    fn new(bridges: Bridges) -> Result<Self> {
        Self::of(spec()?, bridges, |_| Ok(()))
    }

    fn of(spec: LabSpec, bridges: Bridges, prepare: impl Fn(&Node) -> Result<()>) -> Result<Self> {
        let lab = Lab::new(&spec)?;
        let mut guests = Vec::new();
        for (node, number) in lab.nodes().iter().zip(FIRST_GUEST..) {
            bridges.prepare(node)?;
            prepare(node)?;
            guests.push((node.name().to_owned(), Guest::start(&lab, node, number, None)?));
        }
        let rig = Rig::start(lab, &spec, ArpProbes::On, |_| ())?;
        let view = |(on, guest): (String, Guest)| {
            let ears = Ears::open(&guest.host.ns, INTERFACE)?;
            Ok(View { on, udp: UdpProber::start(&guest.host, AT_VIP, PERIOD * slow::factor())?, ears, guest })
        };
        let world = Self { views: guests.into_iter().map(view).collect::<Result<_>>()?, rig };
        let holder = world.rig.holder()?.name().to_owned();
        for view in &world.views {
            world.served(view, &holder)?;
            view.ears.hear()?;
        }
        Ok(world)
    }

    fn view(&self, on: &str) -> Result<&View> {
        self.views.iter().find(|view| view.on == on).with_context(|| format!("no guest on {on}"))
    }

    /// Waits until the guest has answers from this node, and from it alone.
    fn served(&self, view: &View, by: &str) -> Result<()> {
        let is_served = || view.udp.steady_answerer(STEADY).is_some_and(|answerer| *answerer == *by);
        ensure!(
            wait_until(clock::now().plus(slow::patient(PATIENCE)), is_served),
            "the guest on {} is not served by {by}: {:?}",
            view.on,
            view.answerers(BootNs(0))
        );
        Ok(())
    }

    /// The VIP has moved, for every client and every guest but `but`, in one step, within the
    /// bound, and nobody was answered by two. Returns who has it.
    fn moved(&self, start: BootNs, before: &str, but: Option<&str>) -> Result<String> {
        let after = self.rig.expect_move(start, before)?.0.name().to_owned();
        let bound = clock::millis(self.rig.lab.lease() + slow::patient(Duration::from_secs(1)));
        for view in self.views.iter().filter(|view| Some(&*view.on) != but) {
            let told = || format!("the guest on {}, from {before} to {after}", view.on);
            self.served(view, &after).with_context(told)?;
            let account = Account::new(&view.udp.probes(), &[], start, clock::now(), None);
            ensure!(account.gap_ms() <= bound, "{}: {account:?}", told());
            let by = view.answerers(start);
            ensure!(by == [before, &*after] || by == [&*after], "{}: answered by {by:?}", told());
            let heard = view.heard(&self.rig)?;
            ensure!(
                heard == [before, &*after] || heard == [&*after],
                "{}: it hears that the VIP is at {heard:?}",
                told()
            );
            ensure!(view.udp.doubled() == 0, "{}: answered by two", told());
        }
        Ok(after)
    }
}

/// A killed agent, a cut uplink, and planned moves to each host and back.
fn guests_follow(bridges: Bridges) -> Result<()> {
    let world = World::new(bridges)?;
    let lab = &world.rig.lab;
    let first = world.rig.holder()?.name().to_owned();

    let start = clock::now();
    lab.node(&first)?.kill_agent()?;
    let second = world.moved(start, &first, None).context("the agent is killed")?;
    lab.node(&first)?.start_agent()?;
    lab.wait_quorate(PATIENCE)?;

    // Its guest keeps the bridge's carrier, so that the host hears of nothing.
    let start = clock::now();
    lab.node(&second)?.cut()?;
    let third = world.moved(start, &second, Some(&second)).context("the uplink is cut")?;
    let left = world.view(&second)?;
    let took = world.view(&third)?.answers(start).into_iter().find(|answer| *answer.by == *third);
    let last = left.answers(start).into_iter().next_back();
    ensure!(last.is_none_or(|a| *a.by == *second && took.is_some_and(|t| a.at < t.at)), "{:?}", left.on);
    ensure!(ask_tcp(left.ns(), AT_VIP, BRIEF).is_err(), "its own host answers it without a lease");
    lab.node(&second)?.heal()?;
    world.served(left, &third).context("the uplink is back")?;
    lab.wait_quorate(PATIENCE)?;
    left.heard(&world.rig)?;

    // Away from each guest's own host, and back.
    let mut before = third.clone();
    for to in [&second, &third, &second] {
        let start = clock::now();
        lab.node(to)?.take(GROUP, PATIENCE)?;
        before = world.moved(start, &before, None).context("the VIP is moved")?;
        ensure!(before == **to, "{before} took it, not {to}");
        for view in &world.views {
            assert_eq!(ask_tcp(view.ns(), AT_VIP, PATIENCE)?, *to, "the guest on {}", view.on);
        }
    }
    Ok(())
}

#[lab_test("nft")]
fn guests_of_every_host_follow_the_vip_through_bridges_that_filter() -> Result<()> {
    guests_follow(Bridges::Filter)
}

#[lab_test]
fn guests_of_every_host_follow_the_vip_through_plain_bridges() -> Result<()> {
    guests_follow(Bridges::Plain)
}

/// The guest takes `node` for the VIP's, by an entry that may be corrected, or that may not.
fn believes(guest: &Netns, node: &Node, state: &str) -> Result<()> {
    let mac = node.ns().mac(INTERFACE)?;
    guest.ip(&format!("neigh replace {VIP} lladdr {mac} dev {INTERFACE} nud {state}")).map(drop)
}

#[lab_test]
fn a_guest_that_never_learns_is_served_through_any_host() -> Result<()> {
    let world = World::new(Bridges::Plain)?;
    let holder = world.rig.holder()?.name().to_owned();
    for view in &world.views {
        for through in world.rig.lab.candidates() {
            believes(view.ns(), through, "permanent")?;
            for ask in [ask_tcp, ask_udp] {
                let mut said = Ok(String::new());
                let mut is_answered = || {
                    said = ask(view.ns(), AT_VIP, BRIEF);
                    said.is_ok()
                };
                wait_until(clock::now().plus(PATIENCE), &mut is_answered);
                let told = || format!("the guest on {}, through {}", view.on, through.name());
                assert_eq!(said.with_context(told)?, holder, "{}", told());
            }
        }
        ensure!(view.udp.doubled() == 0, "the guest on {}: answered by two", view.on);
    }
    Ok(())
}

#[lab_test]
fn a_guest_that_missed_a_move_is_corrected_at_once() -> Result<()> {
    // Only a correction shall heal it.
    let unannounced = |node: &Node| {
        let config = std::fs::read_to_string(node.config_file())?;
        node.write_config(&config.replace("[node]\n", "[node]\ngarp_master_refresh = \"0s\"\n"))
    };
    let world = World::of(spec()?.without_steering(), Bridges::Filter, unannounced)?;
    let lab = &world.rig.lab;
    let holder = world.rig.holder()?.name().to_owned();
    let mac = lab.node(&holder)?.ns().mac(INTERFACE)?;
    for view in &world.views {
        for through in lab.candidates().filter(|node| node.name() != holder) {
            let start = clock::now();
            believes(view.ns(), through, "reachable")?;
            let told = || format!("the guest on {}, which believed {}", view.on, through.name());
            let is_healed =
                || view.ns().ip(&format!("neigh show {VIP}")).is_ok_and(|entry| entry.contains(&mac));
            ensure!(wait_until(start.plus(BOUND), is_healed), "{}: nobody corrects it", told());
            world.served(view, &holder)?;
            let by = view.answerers(start);
            ensure!(by.is_empty() || by == [&*holder], "{}: {by:?}", told());
        }
    }
    Ok(())
}

#[lab_test]
fn no_guest_reaches_its_host_without_the_lease() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let guest = Guest::start(&lab, node, FIRST_GUEST, None)?.host.ns;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    for bridges in [Bridges::Plain, Bridges::Filter] {
        bridges.prepare(node)?;
        node.load()?;
        let silent = |when: &str| -> Result<()> {
            // Asked for by ARP, and told so already.
            for entry in ["none", "stale"] {
                if entry == "stale" {
                    believes(&guest, node, "permanent")?;
                }
                for ask in [ask_tcp, ask_udp] {
                    let said = ask(&guest, AT_VIP, BRIEF);
                    ensure!(said.is_err(), "{bridges:?}, {when}, {entry}: answered by {said:?}");
                }
            }
            guest.ip(&format!("neigh del {VIP} dev {INTERFACE}")).map(drop)
        };
        silent("before it was promoted")?;
        node.succeed(&["promote"])?;
        for ask in [ask_tcp, ask_udp] {
            assert_eq!(ask(&guest, AT_VIP, PATIENCE)?, node.name(), "{bridges:?}");
        }
        guest.ip("neigh flush all")?;
        node.succeed(&["demote"])?;
        silent("after it was demoted")?;
        node.succeed(&["unload"])?;
    }
    Ok(())
}

#[lab_test]
fn a_guest_that_comes_and_goes_changes_the_bridges_mac_and_costs_nobody_the_vip() -> Result<()> {
    let world = World::new(Bridges::Plain)?;
    let holder = world.rig.holder()?;
    let client = world.rig.lab.client()?;
    let ears = Ears::open(&client.ns, INTERFACE)?;
    let is_told = |mac: &str| {
        let bytes = |arp: [u8; 6]| arp.map(|byte| format!("{byte:02x}")).join(":");
        let heard =
            || ears.hear().is_ok_and(|all| all.iter().any(|a| a.sender == VIP && bytes(a.mac) == mac));
        wait_until(clock::now().plus(PATIENCE), heard)
    };
    let before = holder.ns().mac(INTERFACE)?;
    // Lower than that of any other port.
    let low = "02:00:00:00:00:01";
    let calm = |what: &str, start: BootNs| -> Result<()> {
        world.rig.wait_answerer(None, || ())?;
        std::thread::sleep(WATCH);
        let account = world.rig.account(start, clock::now(), holder.name())?;
        ensure!(account.verdict.new_holder.is_none() && account.verdict.answered_by_two == 0, "{account:?}");
        println!("{what}: a gap of {} ms", account.gap_ms());
        ensure!(account.gap_ms() <= clock::millis(BOUND), "{what}: {account:?}");
        Ok(())
    };
    let start = clock::now();
    let guest = Guest::start(&world.rig.lab, holder, FIRST_GUEST + 9, Some(low))?;
    assert_eq!(holder.ns().mac(INTERFACE)?, low, "the kernel gives a bridge the lowest MAC of its ports");
    ensure!(is_told(low), "nobody is told of the bridge's new MAC");
    calm("a guest starts", start)?;
    assert_eq!(ask_udp(&guest.host.ns, AT_VIP, PATIENCE)?, holder.name());
    let start = clock::now();
    guest.stop()?;
    assert_eq!(holder.ns().mac(INTERFACE)?, before);
    ensure!(is_told(&before), "nobody is told of the bridge's former MAC");
    calm("it ends", start)?;
    for view in &world.views {
        world.served(view, holder.name())?;
        ensure!(view.udp.doubled() == 0, "the guest on {}: answered by two", view.on);
    }
    Ok(())
}

#[lab_test("nft")]
fn a_port_that_docker_publishes_leads_no_guest_to_its_own_host() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let guest = Guest::start(&lab, node, FIRST_GUEST, None)?.host.ns;
    let docker = Docker::install(&lab, node, SERVICE_PORT)?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE_PORT);
    let _echo = EchoServer::start(&docker.containers[0], "container", any)?;
    // Its rules see what the bridge forwards, and take the VIP for the node's own address.
    node.ns().enter(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1"))??;
    node.load()?;
    for other in [&lab.nodes()[1], node] {
        believes(&guest, other, "permanent")?;
        for ask in [ask_tcp, ask_udp] {
            let said = ask(&guest, AT_VIP, BRIEF);
            ensure!(said.is_err(), "without the lease, through {}: answered by {said:?}", other.name());
        }
    }
    node.succeed(&["promote"])?;
    for ask in [ask_tcp, ask_udp] {
        assert_eq!(ask(&guest, AT_VIP, PATIENCE)?, "container");
    }
    Ok(())
}

/// Names another interface in a node's configuration.
fn name_instead(node: &Node, interface: &str) -> Result<()> {
    let config = std::fs::read_to_string(node.config_file())?;
    node.write_config(&config.replace(&format!("\"{INTERFACE}\""), &format!("\"{interface}\"")))
}

/// A verb's output, whether it succeeds or not.
fn says(node: &Node, verb: &str) -> Result<String> {
    let file = node.config_file();
    let output = node.run(&[verb, "--config", file.to_str().context("the path is not UTF-8")?])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whoever names `lower` is told `sentence` by everything that reads it, and nobody who names
/// what is on top.
fn told_of(nic: Nic, lower: &str, sentence: &str) -> Result<()> {
    let lab = Lab::new(&spec()?.on(nic))?;
    let node = &lab.nodes()[0];
    let vip = VIP.to_string();
    for (named, is_told) in [(INTERFACE, false), (lower, true)] {
        let load = ["load", "--iface", named, "--vip", &vip];
        for args in [&[&load[..], &["--dry-run"]].concat()[..], &load] {
            let said = node.succeed(args)?;
            assert_eq!(said.contains(sentence), is_told, "{args:?}: {said}");
        }
        node.succeed(&["unload"])?;
    }
    for named in [INTERFACE, lower] {
        lab.nodes().iter().try_for_each(|node| name_instead(node, named))?;
        let is_told = named == lower;
        lab.start_agents(PATIENCE)?;
        for verb in ["check", "doctor"] {
            let said = says(node, verb)?;
            assert_eq!(said.contains(sentence), is_told, "{verb}: {said}");
            // Which would contradict it.
            ensure!(!said.contains("is in no subnet of its interface"), "{verb}: {said}");
        }
        assert_eq!(node.has_logged(sentence), is_told, "{}", node.log_tail());
        // It is no reason to serve nobody.
        let holder = lab.wait_holder(GROUP, PATIENCE)?;
        let _echo = EchoServer::start(holder.ns(), holder.name(), AT_VIP)?;
        assert_eq!(ask_tcp(&lab.client()?.ns, AT_VIP, PATIENCE)?, holder.name());
        for node in lab.nodes() {
            node.stop_agent()?;
            node.succeed(&["unload"])?;
        }
    }
    Ok(())
}

#[lab_test]
fn a_port_that_is_named_in_place_of_its_bridge_is_told() -> Result<()> {
    told_of(Nic::Bridge, "lower0", "lower0 is a port of the bridge eth0")?;
    // By hand, all that look at what is loaded say so, too, and not of what is only guarded.
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let sentence = "lower0 is a port of the bridge eth0";
    let vip = VIP.to_string();
    for (named, is_told) in [(["--iface", "lower0"], true), (["--guard", "lower0"], false)] {
        let mut load = vec!["load", "--vip", &vip];
        load.extend(named);
        if !is_told {
            load.extend(["--iface", INTERFACE]);
        }
        let mut said = node.succeed(&load)?;
        assert_eq!(said.contains(sentence), is_told, "{said}");
        for verb in ["status", "doctor"] {
            said = String::from_utf8_lossy(&node.run(&[verb])?.stdout).into_owned();
            assert_eq!(said.contains(sentence), is_told, "{verb}: {said}");
        }
        node.succeed(&["unload"])?;
    }
    Ok(())
}

#[lab_test("link macvlan")]
fn an_interface_that_is_named_in_place_of_a_macvlan_on_it_is_told() -> Result<()> {
    told_of(Nic::Macvlan, "lower0", "10.77.0.100 is in a subnet of eth0, which is on top of lower0")
}
