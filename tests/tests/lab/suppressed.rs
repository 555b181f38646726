//! Bridges that answer ARP themselves (`neigh_suppress`, as EVPN has it): what they know of
//! the VIP moves with it or not, and the clients behind them follow the lease all the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use vip_common::BootNs;
use vip_tests::lab::ears::Ears;
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{
    Client, GROUP, INTERFACE, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, trunk, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// In how much time a client is healed: a kernel by itself takes 23 s and more.
const BOUND: Duration = Duration::from_secs(5);
/// Within what time the holder announces the VIP once more.
const REFRESH: Duration = Duration::from_millis(2500);
/// Nobody has this address, but the bridge says who does.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);

/// A cluster whose first client asks a bridge.
struct Suppressing {
    rig: Rig,
    holder: String,
}

impl Suppressing {
    /// The holder announces the VIP again each `refresh`.
    fn new(refresh: &str) -> Result<Self> {
        let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).without_steering();
        let lab = Lab::new(&spec)?;
        for node in lab.nodes() {
            let config = std::fs::read_to_string(node.config_file())?;
            let with = format!("[node]\ngarp_master_refresh = \"{refresh}\"\n");
            node.write_config(&config.replace("[node]\n", &with))?;
        }
        let rig = Rig::start(lab, &spec, ArpProbes::Off, |_| ())?;
        let holder = rig.holder()?.name().to_owned();
        Ok(Self { rig, holder })
    }

    fn client(&self) -> Result<&Client> {
        self.rig.lab.client()
    }

    fn mac(&self, node: &str) -> Result<String> {
        self.rig.lab.node(node)?.ns().mac(INTERFACE)
    }

    /// The bridge answers for all that it knows behind the nodes' ports, as a leaf does for
    /// what is behind its tunnels; it takes the holder for the VIP's owner.
    fn answer_for_nodes(&self, state: &str) -> Result<()> {
        self.suppress(self.rig.lab.nodes().iter().flat_map(Node::ports))?;
        let mac = self.mac(&self.holder)?;
        for address in [VIP, NOBODY] {
            let known = format!("neigh replace {address} lladdr {mac} dev br0 nud {state}");
            self.rig.lab.switch().ip(&known)?;
        }
        self.is_asked()
    }

    fn suppress(&self, ports: impl Iterator<Item = String>) -> Result<()> {
        let lines = ports.map(|port| format!("link set {port} type bridge_slave neigh_suppress on\n"));
        self.rig.lab.switch().ip_batch(&lines.collect::<String>())
    }

    /// Requires that the bridge answers the client, and asks none of the nodes.
    fn is_asked(&self) -> Result<()> {
        let nodes = self.rig.lab.nodes().iter().map(|node| Ears::open(node.ns(), INTERFACE));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let answer = trunk::ask(self.client()?, NOBODY, None, BOUND)?;
        ensure!(answer == Some(None), "the bridge doesn't answer");
        for node in nodes {
            ensure!(!node.hear()?.iter().any(|arp| arp.target == NOBODY), "the bridge asks a node");
        }
        Ok(())
    }

    /// Does the bridge know the VIP there?
    fn bridge_knows(&self, node: &str) -> Result<bool> {
        let known = self.rig.lab.switch().ip("neigh show dev br0")?;
        let mac = self.mac(node)?;
        Ok(known.lines().any(|line| line.starts_with(&format!("{VIP} ")) && line.contains(&mac)))
    }

    /// Moves the VIP, and returns which node answers the client instead, soon.
    fn move_away(&self) -> Result<String> {
        let start = clock::now();
        self.rig.lab.node(&self.holder)?.succeed(&["switchover", GROUP])?;
        let after = self.rig.wait_answerer(Some(&self.holder), || ())?;
        let healed = clock::now().since(start);
        ensure!(healed <= BOUND, "healed after {healed:?}");
        Ok(after.to_string())
    }

    /// The client forgets where the VIP is, and asks. Returns the hardware addresses that it
    /// is told.
    fn ask_anew(&self, holder: &str) -> Result<Vec<String>> {
        let client = &self.client()?.ns;
        let ears = Ears::open(client, INTERFACE)?;
        let start = clock::now();
        client.ip(&format!("neigh del {VIP} dev {INTERFACE}"))?;
        let is_answered = || {
            self.rig.udp.recent(50).iter().all(|probe| {
                probe.sent > start && probe.answered().is_some_and(|answer| *answer.by == *holder)
            })
        };
        let all = wait_until(clock::now().plus(PATIENCE), is_answered);
        let healed = clock::now().since(start);
        ensure!(all && healed <= BOUND, "{holder} answers after {healed:?}");
        let told = ears.hear()?.into_iter().filter(|arp| arp.sender == VIP);
        Ok(told.map(|arp| arp.mac.map(|byte| format!("{byte:02x}")).join(":")).collect())
    }

    fn never_two_answered(&self, start: BootNs) -> Result<()> {
        let account = self.rig.account(start, clock::now(), &self.holder)?;
        ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
        Ok(())
    }
}

#[lab_test]
fn what_a_bridge_has_learnt_moves_with_the_vip() -> Result<()> {
    let cluster = Suppressing::new("1s")?;
    cluster.answer_for_nodes("stale")?;
    let start = clock::now();
    let after = cluster.move_away()?;
    ensure!(cluster.bridge_knows(&after)?, "the bridge has not heard of it");
    // Whoever asks later is told the new holder, and that one alone.
    let told = cluster.ask_anew(&after)?;
    let mac = cluster.mac(&after)?;
    ensure!(!told.is_empty() && told.iter().all(|told| *told == mac), "{told:?}, not {mac}");
    cluster.never_two_answered(start)
}

#[lab_test]
fn clients_of_a_bridge_that_goes_on_to_name_the_old_holder_are_corrected() -> Result<()> {
    let cluster = Suppressing::new("0s")?;
    // As the control plane of an EVPN has it, before it hears of the move.
    cluster.answer_for_nodes("noarp")?;
    let start = clock::now();
    let after = cluster.move_away()?;
    // All announcements that follow a takeover closely.
    std::thread::sleep(Duration::from_secs(4));
    let old = cluster.mac(&cluster.holder)?;
    let told = cluster.ask_anew(&after)?;
    ensure!(told.contains(&old), "the bridge does not name the old holder: {told:?}");
    cluster.never_two_answered(start)
}

#[lab_test]
fn a_client_to_which_no_announcement_is_flooded_is_corrected() -> Result<()> {
    let cluster = Suppressing::new("1s")?;
    let client = cluster.client()?;
    let ears = Ears::open(&client.ns, INTERFACE)?;
    let announced = || {
        std::thread::sleep(REFRESH);
        Ok::<_, anyhow::Error>(ears.hear()?.iter().any(|arp| arp.announced() == Some(VIP)))
    };
    ensure!(announced()?, "the holder announces nothing");
    cluster.suppress(std::iter::once(client.name.clone()))?;
    ears.hear()?;
    ensure!(!announced()?, "the bridge floods announcements");
    let start = clock::now();
    cluster.move_away()?;
    cluster.never_two_answered(start)
}

#[lab_test]
fn a_client_to_which_no_announcement_is_flooded_hears_of_a_lost_node() -> Result<()> {
    let cluster = Suppressing::new("1s")?;
    cluster.suppress(std::iter::once(cluster.client()?.name.clone()))?;
    let start = clock::now();
    // Nobody is left there who would tell the holder of the client.
    cluster.rig.lab.node(&cluster.holder)?.cut()?;
    cluster.rig.wait_answerer(Some(&cluster.holder), || ())?;
    let healed = clock::now().since(start);
    ensure!(healed <= 2 * BOUND, "healed after {healed:?}");
    cluster.never_two_answered(start)
}
