//! Clients in another subnet: a router is between them and the VIP, with a neighbour table
//! of its own, and it takes from each network only what belongs there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::BootNs;
use vip_tests::lab::account::Account;
use vip_tests::lab::echo::ask_tcp;
use vip_tests::lab::probe::UdpProber;
use vip_tests::lab::rig::{ArpProbes, Rig, STEADY};
use vip_tests::lab::{
    Client, GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, SERVICE_PORT, VIP, clock, find_vip_ctl, slow,
    wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// In how much time a router is healed: a kernel by itself takes 23 s and more.
const BOUND: Duration = Duration::from_secs(5);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
/// The client's subnet, and it.
const SUBNET: &str = "192.168.50.0/24";
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
/// Between two probes of it.
const PERIOD: Duration = Duration::from_millis(5);

/// A cluster whose clients are behind a router: the lab's client is that.
struct Routed {
    // The watchers before what they watch.
    udp: UdpProber,
    far: Client,
    rig: Rig,
}

impl Routed {
    fn new(spec: &LabSpec) -> Result<Self> {
        let lab = Lab::new(spec)?;
        let router = lab.client()?;
        let far = Netns::create(&lab.id().netns("far"))?;
        router.ns.ip_batch(&format!(
            "link add lan0 type veth peer name {INTERFACE} netns {}\n\
             addr add 192.168.50.1/24 dev lan0\nlink set lan0 up\n",
            far.name()
        ))?;
        far.ip_batch(&format!(
            "addr add {FAR}/24 dev {INTERFACE}\nlink set {INTERFACE} up\nroute add default via 192.168.50.1\n"
        ))?;
        router.ns.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        let strictly = |ns: &Netns| {
            ns.enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))?
                .context("setting rp_filter")
        };
        strictly(&router.ns)?;
        for node in lab.nodes() {
            strictly(node.ns())?;
            node.ns().ip(&format!("route add {SUBNET} via {}", router.address))?;
        }
        // Its own requests would tell the router what it has missed.
        let rig = Rig::start(lab, spec, ArpProbes::Off, |_| ())?;
        let far = Client { name: "far".to_owned(), ns: far, address: FAR };
        let udp = UdpProber::start(&far, AT_VIP, PERIOD * slow::factor())?;
        let routed = Self { udp, far, rig };
        routed.served(routed.rig.holder()?.name())?;
        Ok(routed)
    }

    /// Waits until the client has answers from this node, and from it alone.
    fn served(&self, by: &str) -> Result<()> {
        let is_served = || self.udp.steady_answerer(STEADY).is_some_and(|answerer| *answerer == *by);
        ensure!(wait_until(clock::now().plus(slow::patient(PATIENCE)), is_served), "not served by {by}");
        Ok(())
    }

    /// The VIP has moved, for the router's own processes and for whom it routes, within the
    /// bound, and nobody was answered by two. Returns who has it.
    fn moved(&self, start: BootNs, before: &str) -> Result<String> {
        let after = self.rig.expect_move(start, before)?.0.name().to_owned();
        self.served(&after)?;
        let account = Account::new(&self.udp.probes(), &[], start, clock::now(), None);
        let bound = clock::millis(self.rig.lab.lease() + slow::patient(Duration::from_secs(1)));
        ensure!(account.gap_ms() <= bound, "from {before} to {after}: {account:?}");
        ensure!(self.udp.doubled() == 0, "answered by two");
        let mut answers: Vec<_> =
            self.udp.probes().into_iter().filter(|p| p.sent >= start).filter_map(|p| p.answer).collect();
        answers.sort_by_key(|answer| answer.at);
        let mut by: Vec<_> = answers.iter().map(|answer| answer.by.to_string()).collect();
        by.dedup();
        ensure!(by == [before, &*after] || by == [&*after], "answered by {by:?}");
        assert_eq!(ask_tcp(&self.far.ns, AT_VIP, PATIENCE)?, after);
        Ok(after)
    }
}

fn spec(nic: Nic) -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic))
}

/// A planned move, a killed agent and a lost node.
fn clients_follow(nic: Nic) -> Result<()> {
    let routed = Routed::new(&spec(nic)?)?;
    let lab = &routed.rig.lab;
    let first = routed.rig.holder()?.name().to_owned();

    let start = clock::now();
    lab.node(&first)?.succeed(&["switchover", GROUP])?;
    let second = routed.moved(start, &first).context("the VIP is moved")?;

    let start = clock::now();
    lab.node(&second)?.kill_agent()?;
    let third = routed.moved(start, &second).context("the agent is killed")?;
    lab.node(&second)?.start_agent()?;
    lab.wait_quorate(PATIENCE)?;

    let start = clock::now();
    lab.node(&third)?.cut()?;
    routed.moved(start, &third).context("the node is lost")?;
    Ok(())
}

#[lab_test]
fn clients_behind_a_router_follow_the_vip() -> Result<()> {
    clients_follow(Nic::Veth)
}

#[lab_test]
fn so_they_do_where_the_way_in_is_xdp() -> Result<()> {
    clients_follow(Nic::Card)
}

#[lab_test]
fn a_planned_move_that_a_router_never_hears_of_is_a_short_gap() -> Result<()> {
    let routed = Routed::new(&spec(Nic::Veth)?)?;
    let before = routed.rig.holder()?.name().to_owned();
    routed.rig.lab.keep_broadcasts_from_client(true)?;
    let start = clock::now();
    routed.rig.lab.node(&before)?.succeed(&["switchover", GROUP])?;
    routed.moved(start, &before)?;
    Ok(())
}

#[lab_test]
fn a_router_that_missed_a_planned_move_is_corrected_where_nothing_is_steered() -> Result<()> {
    let routed = Routed::new(&spec(Nic::Veth)?.without_steering())?;
    let lab = &routed.rig.lab;
    let before = routed.rig.holder()?.name().to_owned();
    lab.keep_broadcasts_from_client(true)?;
    let start = clock::now();
    lab.node(&before)?.succeed(&["switchover", GROUP])?;
    let after = routed.rig.wait_answerer(Some(&before), || ())?;
    routed.served(&after)?;
    let healed = clock::now().since(start);
    ensure!(healed <= BOUND, "healed after {healed:?}");
    let mac = lab.node(&after)?.ns().mac(INTERFACE)?;
    let entry = lab.client()?.ns.ip(&format!("neigh show {VIP}"))?;
    ensure!(entry.contains(&mac) && routed.udp.doubled() == 0, "{entry}");
    Ok(())
}

#[lab_test]
fn a_router_that_was_away_when_a_node_was_lost_hears_of_it_within_seconds() -> Result<()> {
    let routed = Routed::new(&spec(Nic::Veth)?)?;
    let lab = &routed.rig.lab;
    let before = routed.rig.holder()?.name().to_owned();
    lab.keep_broadcasts_from_client(true)?;
    lab.node(&before)?.cut()?;
    let other = lab.candidates().find(|node| node.name() != before).context("another node")?;
    let has_moved = || other.sees_it_leave(GROUP, &before);
    ensure!(wait_until(clock::now().plus(PATIENCE), has_moved), "{}", other.log_tail());
    // By now it has missed all announcements that follow a takeover closely.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(routed.udp.steady_answerer(STEADY).is_none(), "it has missed nothing");
    lab.keep_broadcasts_from_client(false)?;
    let heard = clock::now();
    let after = routed.rig.wait_answerer(Some(&before), || ())?;
    routed.served(&after)?;
    let healed = clock::now().since(heard);
    ensure!(healed <= BOUND && routed.udp.doubled() == 0, "healed after {healed:?}");
    Ok(())
}
