//! One row of the bench: a cluster of three nodes of which the first holds all
//! groups. Measures it while nothing happens; then a health check of the last
//! group fails, once in the calm, and once when the holder has just been killed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vip_common::BootNs;

use super::floor::floor;
use super::usage::{Spent, Usage};
use super::{Case, Row};
use crate::lab::leases::Leases;
use crate::lab::{GroupSpec, Lab, LabSpec, Node, cleanup, clock};

/// How long to measure usage.
const WINDOW: Duration = Duration::from_secs(5);
/// How long all groups must have had their holder before that.
const CALM: Duration = Duration::from_secs(2);
/// The agent's thread that announces VIPs, as it calls it.
const ANNOUNCER: &str = "announcer";
/// It is done once it does next to nothing for this long, which is longer than it
/// waits for anything when it is busy.
const ANNOUNCER_CALM: Duration = Duration::from_secs(2);
/// How long agents may take to have all groups.
const START_PATIENCE: Duration = Duration::from_secs(240);
/// How long a failed check may take to end the lease, and how long a failover may
/// take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to read lease words while waiting.
const LEASE_POLL: Duration = Duration::from_micros(500);
/// The same when all of them are read.
const ALL_LEASES_POLL: Duration = Duration::from_millis(5);

/// How long the other nodes leave all groups to the first one.
const HEAD_START: Duration = Duration::from_secs(5);

/// Measures one.
///
/// # Errors
/// Why it could not be measured.
pub(super) fn row(case: Case, vip_ctl: &Path) -> Result<Row> {
    let lab = lab(case, vip_ctl)?;
    let begun = clock::now();
    let cluster = Cluster::start(&lab, case)?;
    let start = clock::now().since(begun).saturating_sub(CALM);
    let [holder, ..] = lab.nodes() else { bail!("the lab has no nodes") };

    wait_announced(holder)?;

    let before = usage(&lab)?;
    clock::sleep_until(clock::now().plus(WINDOW));
    let after = usage(&lab)?;
    let spent: Vec<Spent> = after.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
    let held = cluster.held(0);
    ensure!(held == case.groups, "{} held {held} of {} groups at the end", holder.name(), case.groups);

    let last = case.groups - 1;
    let idle = cluster.fail_check(0, last)?;
    let next = cluster.wait_holder_of(last, &[1, 2])?;
    // So that it could have the group again.
    mend_check(holder)?;
    clock::sleep_until(clock::now().plus(CALM));

    holder.kill_agent()?;
    cluster.wait_all_held(&[1, 2])?;
    let failover = cluster.fail_check(next, last)?;

    let [of_holder, .., of_voter] = &spent[..] else { bail!("nothing was measured") };
    // Their programs stay.
    lab.nodes().iter().filter(|node| node.has_agent()).try_for_each(Node::kill_agent)?;
    let floor_cpu_percent = floor(&lab, of_holder, WINDOW)?;
    Ok(Row {
        groups: case.groups,
        lease_ms: u64::try_from(case.lease.as_millis()).unwrap_or(u64::MAX),
        nodes: lab.nodes().len(),
        holder_cpu_percent: of_holder.cpu_percent,
        voter_cpu_percent: of_voter.cpu_percent,
        floor_cpu_percent,
        bytes_per_s: of_holder.bytes_per_s,
        lost: spent.iter().map(|spent| spent.lost).sum(),
        sent: spent.iter().map(|spent| spent.sent).sum(),
        check_heard_ms: clock::millis(idle.max(failover)),
        check_heard_idle_ms: clock::millis(idle),
        check_heard_failover_ms: clock::millis(failover),
        start_ms: clock::millis(start),
    })
}

/// The accounts of all nodes.
fn usage(lab: &Lab) -> Result<Vec<Usage>> {
    lab.nodes().iter().map(Usage::of).collect()
}

/// Three nodes, `groups` groups of a VIP each, and a check of the last one.
fn lab(case: Case, vip_ctl: &Path) -> Result<Lab> {
    let mut spec = LabSpec::three_nodes(case.lease, Some(vip_ctl.to_owned()));
    spec.clients.clear();
    let group = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        // Out of the nodes' own subnet, where there is no room for so many.
        let vip = Ipv4Addr::new(10, 80, high, low);
        // In the order of their numbers, as the map has them.
        GroupSpec { name: format!("g{number:05}"), vips: vec![vip] }
    };
    spec.groups = (0..case.groups).map(group).collect();
    let lab = Lab::new(&spec)?;
    for (place, node) in lab.nodes().iter().enumerate() {
        // It belongs to the group that the configuration ends with.
        let mut text = std::fs::read_to_string(node.config_file())?;
        text += &format!(
            "[[group.check]]\nname = \"flag\"\nfile = \"{}\"\ninterval = \"100ms\"\nrise = 1\nfall = 1\n",
            flag(node).display()
        );
        if place > 0 {
            // The first node shall hold all groups: another one that stands at the same
            // time would get some.
            let delay = format!("[node]\nstartup_delay = \"{}ms\"\n", HEAD_START.as_millis());
            ensure!(text.contains("[node]\n"), "{} has no section [node]", node.config_file().display());
            text = text.replacen("[node]\n", &delay, 1);
        }
        node.write_config(&text)?;
        mend_check(node)?;
    }
    Ok(lab)
}

/// The file that has to be there on a node for the check to pass.
fn flag(node: &Node) -> PathBuf {
    node.run_dir().join("flag")
}

fn mend_check(node: &Node) -> Result<()> {
    std::fs::write(flag(node), "").with_context(|| format!("writing {}", flag(node).display()))
}

/// Waits until all announcements and repeats are sent: ten thousand VIPs take a
/// while.
fn wait_announced(holder: &Node) -> Result<()> {
    let deadline = clock::now().plus(START_PATIENCE);
    let mut before = holder.thread_time(ANNOUNCER)?;
    loop {
        clock::sleep_until(clock::now().plus(ANNOUNCER_CALM));
        let now = holder.thread_time(ANNOUNCER)?;
        if now.saturating_sub(before) < ANNOUNCER_CALM / 100 {
            return Ok(());
        }
        ensure!(clock::now() < deadline, "{} still announces VIPs after {START_PATIENCE:?}", holder.name());
        ensure!(!cleanup::interrupted(), "interrupted");
        before = now;
    }
}

/// The running cluster, and its kernels' lease words.
struct Cluster<'a> {
    lab: &'a Lab,
    case: Case,
    leases: Vec<Leases>,
}

impl<'a> Cluster<'a> {
    /// Starts all agents, the first one first, and waits until it has held all
    /// groups for a while.
    fn start(lab: &'a Lab, case: Case) -> Result<Self> {
        let deadline = clock::now().plus(START_PATIENCE);
        let [first, others @ ..] = lab.nodes() else { bail!("the lab has no nodes") };
        let key = lab.key_file();
        first.succeed(&["keygen", key.to_str().context("the path of the key file is not UTF-8")?])?;
        first.start_agent()?;
        wait(first, deadline, || has_started(first))?;
        for node in others {
            node.start_agent()?;
        }
        for node in others {
            wait(node, deadline, || has_started(node))?;
        }
        let leases = lab.nodes().iter().map(Leases::open).collect::<Result<_>>()?;
        let cluster = Self { lab, case, leases };
        let mut since: Option<BootNs> = None;
        loop {
            let is_complete = cluster.held(0) == case.groups;
            since = if is_complete { since.or(Some(clock::now())) } else { None };
            if since.is_some_and(|since| clock::now().since(since) >= CALM) {
                return Ok(cluster);
            }
            if clock::now() >= deadline || cleanup::interrupted() {
                let held: Vec<_> = (0..lab.nodes().len()).map(|node| cluster.held(node)).collect();
                bail!(
                    "{} does not hold all groups within {START_PATIENCE:?}: the nodes hold {held:?}",
                    first.name()
                );
            }
            lab.nodes().iter().try_for_each(Node::check_agent)?;
            std::thread::sleep(ALL_LEASES_POLL);
        }
    }

    /// How many groups a node holds.
    fn held(&self, node: usize) -> u32 {
        self.leases[node].valid(self.case.groups)
    }

    /// Makes the check of `group` fail on a node that holds it; returns how much
    /// longer the node has the lease.
    fn fail_check(&self, node: usize, group: u32) -> Result<Duration> {
        let name = self.lab.nodes()[node].name();
        ensure!(self.leases[node].is_valid(group), "{name} does not hold the group whose check has to fail");
        let flag = flag(&self.lab.nodes()[node]);
        std::fs::remove_file(&flag).with_context(|| format!("removing {}", flag.display()))?;
        let begun = clock::now();
        let deadline = begun.plus(PATIENCE);
        while self.leases[node].is_valid(group) {
            ensure!(
                clock::now() < deadline,
                "a failed check on {name} has not ended the lease within {PATIENCE:?}"
            );
            ensure!(!cleanup::interrupted(), "interrupted");
            std::thread::sleep(LEASE_POLL);
        }
        Ok(clock::now().since(begun))
    }

    /// Waits until one of these nodes holds `group`; returns which.
    fn wait_holder_of(&self, group: u32, nodes: &[usize]) -> Result<usize> {
        let deadline = clock::now().plus(PATIENCE);
        loop {
            if let Some(node) = nodes.iter().find(|node| self.leases[**node].is_valid(group)) {
                return Ok(*node);
            }
            ensure!(clock::now() < deadline, "no node has taken the group whose check has failed");
            std::thread::sleep(LEASE_POLL);
        }
    }

    /// Waits until these nodes hold all groups together.
    fn wait_all_held(&self, nodes: &[usize]) -> Result<()> {
        let deadline = clock::now().plus(PATIENCE);
        loop {
            let held: u32 = nodes.iter().map(|node| self.held(*node)).sum();
            if held == self.case.groups {
                return Ok(());
            }
            ensure!(
                clock::now() < deadline,
                "only {held} of {} groups have a new holder after {PATIENCE:?}",
                self.case.groups
            );
            ensure!(!cleanup::interrupted(), "interrupted");
            std::thread::sleep(ALL_LEASES_POLL);
        }
    }
}

/// Does the agent say that it runs?
fn has_started(node: &Node) -> bool {
    std::fs::read_to_string(node.log_file()).is_ok_and(|log| log.contains("the agent runs"))
}

fn wait(node: &Node, deadline: BootNs, ready: impl Fn() -> bool) -> Result<()> {
    while !ready() {
        node.check_agent()?;
        ensure!(clock::now() < deadline, "{} has not started within {START_PATIENCE:?}", node.name());
        ensure!(!cleanup::interrupted(), "interrupted");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
