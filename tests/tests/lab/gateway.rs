//! A VIP that is a default gateway: a node without its lease takes no packets from the VIP's
//! clients through to elsewhere, whichever router they take for theirs.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use vip_tests::lab::beside::Beside;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::load::nft;
use vip_tests::lab::probe::UdpProber;
use vip_tests::lab::wan::Wan;
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, Node, SERVICE_PORT, VIP, clock, find_vip_ctl,
    wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// In how much time a client with a stale entry is corrected.
const BOUND: Duration = Duration::from_secs(1);
/// Beyond the routers.
pub(super) const SERVER: SocketAddrV4 = SocketAddrV4::new(Wan::CLIENT, SERVICE_PORT);
const NAME: &str = "the server";

/// Two routers between a LAN, whose gateway is the VIP, and a network with a server. What
/// the server sends back comes by the first of them, whoever has the lease.
pub(super) struct Routers {
    // Ends before what it runs on.
    _server: EchoServer,
    pub(super) lab: Lab,
    wan: Wan,
}

impl Routers {
    pub(super) fn new(nic: Nic, is_gateway: bool) -> Result<Self> {
        let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).with_witness().on(nic);
        let lab = Lab::new(&spec.without_steering())?;
        let wan = Wan::new(&lab)?;
        for (router, last) in lab.candidates().zip(3..) {
            router.ns().ip(&format!("addr add 203.0.113.{last}/29 dev {}", Wan::interface(router)))?;
            forward(router.ns())?;
        }
        wan.client.ip("route add 10.77.0.0/24 via 203.0.113.3")?;
        lab.client()?.ns.ip(&format!("route add default via {VIP}"))?;
        let routers = Self { _server: EchoServer::start(&wan.client, NAME, SERVER)?, lab, wan };
        routers.set_gateway(is_gateway)?;
        Ok(routers)
    }

    fn set_gateway(&self, is_gateway: bool) -> Result<()> {
        let (name, key) = (format!("name = \"{GROUP}\"\n"), "gateway = true\n");
        for node in self.lab.nodes() {
            let text = std::fs::read_to_string(node.config_file())?.replace(key, "");
            let key = if is_gateway { key } else { "" };
            node.write_config(&text.replace(&name, &format!("{name}{key}")))?;
        }
        Ok(())
    }

    pub(super) fn client(&self) -> Result<&Netns> {
        Ok(&self.lab.client()?.ns)
    }

    /// Starts the agents; returns the first router, which takes the group, and the second.
    pub(super) fn start(&self) -> Result<(&Node, &Node)> {
        self.lab.start_agents(PATIENCE)?;
        let first = self.lab.wait_holder(GROUP, PATIENCE)?;
        let second = self.lab.candidates().find(|node| node.name() != first.name());
        self.passes("the gateway has been chosen")?;
        Ok((first, second.context("a second router")?))
    }

    /// The client takes `router` for its gateway.
    fn believes(&self, router: &Node, state: &str) -> Result<()> {
        let mac = router.ns().mac(INTERFACE)?;
        self.client()?.ip(&format!("neigh replace {VIP} lladdr {mac} dev {INTERFACE} nud {state}")).map(drop)
    }

    pub(super) fn passes(&self, when: &str) -> Result<()> {
        for ask in [ask_udp, ask_tcp] {
            assert_eq!(ask(self.client()?, SERVER, PATIENCE).with_context(|| when.to_owned())?, NAME);
        }
        Ok(())
    }

    fn is_held_back(&self, when: &str) -> Result<()> {
        for ask in [ask_udp, ask_tcp] {
            let said = ask(self.client()?, SERVER, BRIEF);
            ensure!(said.is_err(), "{when}: answered by {said:?}");
        }
        Ok(())
    }

    pub(super) fn moves_to(&self, router: &Node) -> Result<()> {
        router.take(GROUP, PATIENCE)?;
        let is_there = || self.lab.wait_holder(GROUP, BRIEF).is_ok_and(|node| node.name() == router.name());
        ensure!(wait_until(clock::now().plus(PATIENCE), is_there), "{}", router.log_tail());
        Ok(())
    }
}

/// Makes a router of a host.
fn forward(ns: &Netns) -> Result<()> {
    ns.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Questions and answers may go by different routers.
        for entry in std::fs::read_dir("/proc/sys/net/ipv4/conf")? {
            std::fs::write(entry?.path().join("rp_filter"), "0")?;
        }
        Ok(())
    })?
}

pub(super) fn counts(router: &Node, counter: &str) -> Result<()> {
    let shown = router.succeed(&["status", "-o", "json"])?;
    ensure!(shown.contains(counter), "no {counter}: {shown}");
    Ok(())
}

/// The lease moves, and the client sends to the router that had it.
fn moved(nic: Nic, mode: Option<&str>) -> Result<()> {
    let routers = Routers::new(nic, true)?;
    for (node, mode) in routers.lab.candidates().flat_map(|node| mode.map(|mode| (node, mode))) {
        let text = std::fs::read_to_string(node.config_file())?;
        let other = text.replace(nic.config(), &format!("mode = \"{mode}\"\n"));
        ensure!(other != text, "{text}");
        node.write_config(&other)?;
    }
    let (first, second) = routers.start()?;
    routers.believes(first, "permanent")?;
    routers.passes("the first has the lease")?;
    routers.moves_to(second)?;
    routers.is_held_back("the second has the lease")?;
    counts(first, "ip_forward_drop_no_lease")?;
    // Only what comes from the LAN: the server's answers come by the first.
    routers.believes(second, "permanent")?;
    routers.passes("the client has noticed")?;
    routers.believes(first, "permanent")?;
    routers.moves_to(first)?;
    routers.passes("the first has the lease again")
}

#[lab_test]
fn a_router_without_the_lease_takes_nothing_through() -> Result<()> {
    moved(Nic::Veth, None)
}

#[lab_test]
fn so_it_is_where_xdp_drops_it() -> Result<()> {
    moved(Nic::Card, None)
}

#[lab_test]
fn so_it_is_where_generic_xdp_drops_it() -> Result<()> {
    moved(Nic::Card, Some("generic"))
}

#[lab_test("cards")]
fn so_it_is_on_a_virtual_machines_card() -> Result<()> {
    moved(Nic::Virtio, None)
}

#[lab_test]
fn a_client_that_missed_the_move_is_told_of_its_new_gateway() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    let (first, second) = routers.start()?;
    routers.believes(first, "reachable")?;
    routers.lab.keep_broadcasts_from_client(true)?;
    routers.moves_to(second)?;
    // It sends nothing to the VIP itself: what it sends through is how the router knows.
    let start = clock::now();
    let shown = || routers.client().and_then(|ns| ns.ip(&format!("neigh show {VIP}"))).unwrap_or_default();
    let before = first.ns().mac(INTERFACE)?.to_string();
    ensure!(shown().contains(&before), "it has missed nothing: {}", shown());
    let client = routers.client()?;
    let is_answered = || ask_udp(client, SERVER, Duration::from_millis(10)).is_ok();
    ensure!(wait_until(start.plus(PATIENCE), is_answered), "never: {}", shown());
    let healed = clock::now().since(start);
    println!("corrected and answered after {healed:?}");
    ensure!(healed <= BOUND, "corrected after {healed:?}");
    ensure!(!shown().contains(&before), "{}", shown());
    counts(first, "ip_forward_drop_no_lease")
}

#[lab_test]
fn a_router_whose_agent_has_died_takes_nothing_through() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    let (first, _) = routers.start()?;
    routers.believes(first, "permanent")?;
    first.kill_agent()?;
    let is_quiet = || ask_udp(first.ns(), SERVER, BRIEF).is_ok() && routers.is_held_back("dead").is_ok();
    ensure!(wait_until(clock::now().plus(PATIENCE), is_quiet), "it forwards without an agent");
    counts(first, "ip_forward_drop_expired")
}

/// A router without the lease, to which a client sends all the time: nothing comes through,
/// whatever becomes of its agent and its configuration.
#[lab_test]
fn no_moment_of_a_change_lets_anything_through() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    let (first, second) = routers.start()?;
    routers.moves_to(second)?;
    // It gets no lease of a gateway that only its own file has, either.
    first.succeed(&["standby", first.name()])?;
    routers.believes(first, "permanent")?;
    routers.is_held_back("the second has the lease")?;
    let prober = UdpProber::start(routers.lab.client()?, SERVER, Duration::from_millis(1))?;
    let is_quiet = |what: &str| -> Result<()> {
        let answered: Vec<_> =
            prober.probes().into_iter().enumerate().filter(|(_, probe)| probe.answer.is_some()).collect();
        ensure!(answered.is_empty(), "{what}: {} answered, first {:?}", answered.len(), answered.first());
        Ok(())
    };
    let own = std::fs::read_to_string(first.config_file())?;
    let with = |more: &str| format!("{own}\n[[group]]\nname = \"more\"\nvips = [\"10.77.0.151\"]\n{more}");
    // Another gateway comes and goes; then the first moves to a group that nobody has.
    let renamed = own.replace(&format!("name = \"{GROUP}\""), "name = \"renamed\"");
    ensure!(renamed != own, "{own}");
    for (what, text) in [
        ("another gateway", with("gateway = true\n")),
        ("which is none any more", with("")),
        ("and goes", own.clone()),
        ("both come", with("gateway = true\n")),
        ("and one goes", own.clone()),
        ("a group with another name", renamed),
        ("and its own again", own.clone()),
        // Nobody's lease is about that one, which is no VIP here before one is.
        ("another address", own.replace(&format!("\"{VIP}\""), "\"10.77.0.152\"")),
        ("and the former", own.clone()),
    ] {
        first.write_config(&text)?;
        first.succeed(&["reload"])?;
        std::thread::sleep(BRIEF);
        is_quiet(what)?;
    }
    kill(first.agent_pid()?, Signal::SIGUSR2)?;
    let begun = |times| {
        let log = std::fs::read_to_string(first.log_file());
        log.is_ok_and(|log| log.matches("the agent runs").count() == times)
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), || begun(2)), "{}", first.log_tail());
    is_quiet("another program")?;
    first.pause_agent()?;
    std::thread::sleep(LEASE * 3);
    first.resume_agent()?;
    is_quiet("a stopped agent")?;
    first.kill_agent()?;
    std::thread::sleep(BRIEF);
    first.start_agent()?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || first.status().is_ok()), "{}", first.log_tail());
    std::thread::sleep(BRIEF);
    is_quiet("another agent")?;
    // Then the host is as it was.
    first.stop_agent()?;
    first.succeed(&["unload"])?;
    let client = routers.client()?;
    let passes = || ask_udp(client, SERVER, BRIEF).is_ok();
    ensure!(wait_until(clock::now().plus(PATIENCE), passes), "it is unloaded, and forwards nothing");
    Ok(())
}

#[lab_test]
fn nothing_is_held_back_where_no_group_is_a_gateway() -> Result<()> {
    let routers = Routers::new(Nic::Veth, false)?;
    let (first, second) = routers.start()?;
    routers.believes(first, "permanent")?;
    routers.moves_to(second)?;
    routers.passes("no group is a gateway")?;
    // A reload makes it one, and another undoes that.
    routers.set_gateway(true)?;
    first.succeed(&["reload"])?;
    let is_held = || routers.is_held_back("it is a gateway").is_ok();
    ensure!(wait_until(clock::now().plus(PATIENCE), is_held), "{}", first.log_tail());
    routers.set_gateway(false)?;
    first.succeed(&["reload"])?;
    routers.passes("it is none any more")
}

#[lab_test]
fn a_person_is_told_of_gateways_and_of_what_is_held_back() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    let (first, second) = routers.start()?;
    routers.moves_to(second)?;
    routers.believes(first, "permanent")?;
    routers.is_held_back("the second has the lease")?;
    let config = first.config_file();
    let config = config.to_string_lossy();
    let said = |args: &[&str]| -> Result<String> { Ok(String::from_utf8(first.run(args)?.stdout)?) };
    let doctor = said(&["doctor", "--config", &config])?;
    ensure!(doctor.contains("without a lease of its gateways"), "{doctor}");
    let check = said(&["check", "--config", &config])?;
    ensure!(check.contains("  gateway: without the lease"), "{check}");
    let metrics = said(&["metrics"])?;
    let counted = r#"class="ip_forward",verdict="drop",reason="no_lease"} "#;
    ensure!(metrics.contains(counted), "{metrics}");
    let status = said(&["status"])?;
    ensure!(status.contains("ip_forward_drop_no_lease"), "{status}");
    // Somebody makes a host of it that forwards nothing.
    first.ns().enter(|| std::fs::write(format!("/proc/sys/net/ipv4/conf/{INTERFACE}/forwarding"), "0"))??;
    let doctor = said(&["doctor", "--config", &config])?;
    ensure!(doctor.contains("forwards nothing that comes in by it"), "{doctor}");
    // And the file says that there is a gateway, which nobody has reloaded.
    let text = std::fs::read_to_string(first.config_file())?;
    first.write_config(&format!(
        "{text}\n[[group]]\nname = \"more\"\nvips = [\"10.77.0.151\"]\ngateway = true\n"
    ))?;
    let doctor = said(&["doctor", "--config", &config])?;
    ensure!(doctor.contains("10.77.0.151 is a gateway, and the programs don't know it"), "{doctor}");
    Ok(())
}

#[lab_test("nft")]
fn a_router_without_the_lease_is_a_host_as_before() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    let container =
        Beside::new(&routers.lab, routers.lab.nodes().first().context("a router")?, "docker0", 1)?;
    container.route_all()?;
    let (holder, other) = routers.start()?;
    let first = routers.lab.nodes().first().context("a router")?;
    let second = if holder.name() == first.name() { other } else { holder };
    nft(
        first.ns(),
        &format!(
            "table ip nat {{ chain out {{ type nat hook postrouting priority srcnat; \
             ip saddr 172.31.1.0/24 oifname {INTERFACE} masquerade; }}; \
             chain in {{ type nat hook prerouting priority dstnat; \
             ip daddr {} udp dport 7999 dnat to 172.31.1.2; }}; }}",
            first.address()
        ),
    )?;
    if holder.name() == first.name() {
        routers.moves_to(second)?;
    }
    let client = routers.client()?;
    let own = SocketAddrV4::new(routers.lab.client()?.address, SERVICE_PORT);
    let _answers = EchoServer::start(client, "the client", own)?;
    let published = SocketAddrV4::new(first.address(), 7999);
    let _published =
        EchoServer::start(&container.ns, "the container", SocketAddrV4::new([172, 31, 1, 2].into(), 7999))?;
    // A process of its own, a container of its own, and a published port: what comes back,
    // or in, is for the router's own address. From the other network it takes through.
    assert_eq!(ask_udp(first.ns(), own, PATIENCE)?, "the client");
    assert_eq!(ask_udp(&container.ns, own, PATIENCE)?, "the client");
    assert_eq!(ask_udp(client, published, PATIENCE)?, "the container");
    routers.wan.client.ip("route replace 10.77.0.0/24 via 203.0.113.3")?;
    assert_eq!(ask_udp(&routers.wan.client, own, PATIENCE)?, "the client");
    Ok(())
}
