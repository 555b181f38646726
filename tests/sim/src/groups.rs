//! The VIPs of the groups: in each node's configuration, which changes at another
//! time on each node, and in each node's kernel, where the agent's keeper changes
//! them in three steps: it removes VIPs that go, the lease loop goes on with the
//! other groups, and the keeper adds VIPs that come.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use vip_common::Lease;
use vip_engine::{ByGroup, GroupId, Label, LabelSpec, NodeId, Reloaded};
use vip_lease::{
    LeaseNotice, Regroup,
    table::{Next, Table, TableGroup},
};

use super::{
    Violation,
    agent::Ask,
    hosts::Fitness,
    names::group_id,
    plan::Plan,
    rng::Rng,
    world::{Event, World},
};

/// The VIPs of each group, by number.
pub(super) type Version = Vec<Vec<u8>>;

/// Numbers of VIPs that come and go; below are those that each group keeps.
const COMING: std::ops::RangeInclusive<u8> = 100..=120;

/// A node's groups.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// Its configuration, by its place in [`Plan::versions`].
    pub version: usize,
    /// The process's table.
    table: Table,
    /// The record of it: outlives process and host, if not the disk.
    recorded: Option<Table>,
    /// A reload that the lease loop is busy with.
    under_way: Option<Next>,
    /// In the kernel: the VIPs that it answers, each with the group whose lease
    /// decides.
    answered: BTreeMap<IpAddr, GroupId>,
}

/// The groups that a process starts with.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub labels: Vec<LabelSpec>,
    pub digest: u64,
    pub uncovered: Vec<GroupId>,
    pub mute: Vec<GroupId>,
}

impl Groups {
    /// Of a host on which no agent has run.
    pub fn new(plan: &Plan) -> Self {
        let table = Table::of(&configured(&plan.versions[0]));
        Self { version: 0, recorded: None, table, under_way: None, answered: BTreeMap::new() }
    }

    /// The host is gone, and its kernel's maps with it.
    pub fn lose_maps(&mut self) {
        self.answered.clear();
    }

    /// So is its disk.
    pub fn lose_record(&mut self) {
        self.recorded = None;
    }

    /// The groups that the kernel has, if there is no record; none after a boot.
    fn of_maps(&self) -> Option<Table> {
        let mut groups: BTreeMap<String, Vec<IpAddr>> =
            self.table.groups().iter().map(|group| (group.name.clone(), Vec::new())).collect();
        for (vip, group) in &self.answered {
            let name = &self.table.groups()[*group].name;
            groups.entry(name.clone()).or_default().push(*vip);
        }
        (!self.answered.is_empty()).then(|| Table::of_maps(groups))
    }

    /// Removes VIPs that the node must not answer any more.
    fn prune(&mut self, table: &Table) {
        let stays = |vip: &IpAddr, group: &GroupId| {
            table.groups()[*group].answered().any(|answered| answered == *vip)
        };
        self.answered.retain(|vip, group| stays(vip, group));
    }

    /// Adds VIPs that the node shall answer. A VIP that another group had has
    /// been removed there before.
    fn put(&mut self) {
        let table = std::mem::take(&mut self.table);
        self.prune(&table);
        for (group, has) in table.groups().iter().enumerate() {
            for vip in has.answered() {
                let by = *self.answered.entry(vip).or_insert(group_id(group));
                assert_eq!(by, group_id(group), "{vip} went straight from one group to another");
            }
        }
        self.table = table;
    }

    fn told(&self) -> Told {
        Told {
            labels: self.table.groups().iter().map(TableGroup::labels).collect(),
            digest: self.version as u64 + 1,
            uncovered: self.table.uncovered(),
            mute: self.table.mute(),
        }
    }
}

/// Groups with these VIPs as a configuration has them.
fn configured(version: &Version) -> Vec<(String, Vec<IpAddr>)> {
    let address = |vip: &u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *vip));
    // In the order of their places.
    let group =
        |(place, vips): (usize, &Vec<u8>)| (format!("g{place:02}"), vips.iter().map(address).collect());
    version.iter().enumerate().map(group).collect()
}

/// One VIP for each group, and then what people change about that.
pub(super) fn some_versions(rng: &mut Rng, groups: usize, changes: u64) -> Vec<Version> {
    let own = |group: usize| u8::try_from(group).unwrap_or(u8::MAX) + 1;
    let mut versions: Vec<Version> = vec![(0..groups).map(|group| vec![own(group)]).collect()];
    for _ in 0..changes {
        let mut next = versions[versions.len() - 1].clone();
        for _ in 0..rng.between(1, 3) {
            change(rng, &mut next);
        }
        next.iter_mut().for_each(|vips| vips.sort_unstable());
        versions.push(next);
    }
    versions
}

/// A VIP comes, goes or moves; each group keeps one.
fn change(rng: &mut Rng, version: &mut Version) {
    let (from, to) = (rng.index(version.len()), rng.index(version.len()));
    let used: BTreeSet<u8> = version.iter().flatten().copied().collect();
    let free = COMING.filter(|vip| !used.contains(vip)).collect::<Vec<_>>();
    let place = rng.index(version[from].len());
    match rng.below(4) {
        0 | 1 if !free.is_empty() => version[to].push(rng.pick(&free)),
        2 if version[from].len() > 1 => drop(version[from].remove(place)),
        // One for another.
        3 if from != to => {
            let other = rng.index(version[to].len());
            let (of_from, of_to) = (version[from][place], version[to][other]);
            (version[from][place], version[to][other]) = (of_to, of_from);
        }
        _ if version[from].len() > 1 && from != to => {
            let vip = version[from].remove(place);
            version[to].push(vip);
        }
        _ => {}
    }
}

impl World {
    /// The table of a process that starts now, from the record of the one before
    /// and the node's configuration.
    pub(super) fn begin_groups(&mut self, index: usize) -> Told {
        let node = &mut self.nodes[index];
        let configuration = configured(&self.plan.versions[node.groups.version]);
        let before = node.groups.recorded.clone().or_else(|| node.groups.of_maps());
        let (table, ended) = before.map_or_else(
            || (Table::of(&configuration), Vec::new()),
            |before| {
                let next = before.next(&configuration);
                (next.table, next.ended)
            },
        );
        // What has ended has no lease any more.
        for group in &ended {
            node.map[group.place()] = Lease::NONE;
            self.holdings[group.place()].epochs_may_repeat = true;
        }
        let node = &mut self.nodes[index];
        node.groups.under_way = None;
        node.groups.table = table;
        node.groups.put();
        self.record(index);
        self.nodes[index].groups.told()
    }

    fn record(&mut self, index: usize) {
        if !self.rng.chance(self.plan.disk_full) {
            let groups = &mut self.nodes[index].groups;
            groups.recorded = Some(groups.table.clone());
        }
    }

    /// Somebody reloads the agent with that version of the groups. Step 1.
    pub(super) fn reload(&mut self, index: usize, version: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        let groups = &mut node.groups;
        // The next process finds it.
        groups.version = version;
        if node.agent.is_none() || groups.under_way.is_some() {
            return Ok(());
        }
        let configuration = configured(&self.plan.versions[version]);
        let next = groups.table.next(&configuration);
        groups.prune(&next.table);
        self.note(|world| format!("{:<6} is to go on with groups {version}", world.name(index)));
        let node = &mut self.nodes[index];
        let reloaded = |(group, was): (GroupId, &Option<GroupId>)| Reloaded {
            was: *was,
            spec: self.plan.groups[group.place()].clone(),
            epoch: node.disk.known.epochs[group],
        };
        let regroup = Regroup {
            ended: next.ended.clone(),
            groups: next.was.with_ids().map(reloaded).collect(),
            labels: next.table.groups().iter().map(TableGroup::labels).collect(),
            table: version as u64 + 1,
            index: ByGroup::new(),
            uncovered: next.table.uncovered(),
            mute: next.table.mute(),
            rules: self.plan.gate_rules(),
        };
        for group in &next.ended {
            self.holdings[group.place()].epochs_may_repeat = true;
        }
        node.groups.under_way = Some(next);
        self.ask(index, Ask::Regroup(Box::new(regroup)))
    }

    /// The keeper handles the notice about new groups, when its turn comes.
    pub(super) fn keep_later(&mut self, index: usize, notice: LeaseNotice) {
        let delay = Duration::from_nanos(self.rng.below(self.plan.keeper_ns + 1));
        let node = &mut self.nodes[index];
        // In the order in which it was told.
        let at = self.now.plus(delay).max(node.kept_at);
        node.kept_at = at;
        let life = node.life;
        self.push(at, Event::Keeper { node: index, life, notice });
    }

    /// Step 3, and the VIPs that a group's lease has by now.
    pub(super) fn keep(&mut self, index: usize, notice: &LeaseNotice) -> Result<(), Violation> {
        if let LeaseNotice::Covered { label } = notice {
            return self.cover(index, *label);
        }
        let groups = &mut self.nodes[index].groups;
        let Some(next) = groups.under_way.take_if(|_| matches!(notice, LeaseNotice::Regrouped)) else {
            return Ok(());
        };
        groups.table = next.table;
        groups.put();
        self.record(index);
        self.check_vips()?;
        for group in 0..self.plan.groups.len() {
            let word = self.nodes[index].word(group);
            self.tell_eligible(index, group, word)?;
        }
        Ok(())
    }

    fn cover(&mut self, index: usize, label: Label) -> Result<(), Violation> {
        let groups = &mut self.nodes[index].groups;
        let found = groups.table.groups().iter().position(|group| group.labels().current == label);
        // The loop looks again when it has the other groups.
        if let Some(group) = found.filter(|_| groups.under_way.is_none()) {
            groups.table.settle(group_id(group));
            groups.put();
            self.record(index);
        }
        self.check_vips()
    }

    /// The lease loop has given up a group that begins anew, and has reported
    /// nothing of it yet.
    pub(super) fn forget_fitness(&mut self, index: usize, ended: &[GroupId]) {
        for group in ended {
            self.nodes[index].told[group.place()] = Fitness::Unknown;
        }
    }

    /// Checks the nodes that may answer for each VIP: one at most.
    pub(super) fn check_vips(&self) -> Result<(), Violation> {
        if self.two_may_hold {
            return Ok(());
        }
        let mut by: BTreeMap<IpAddr, (NodeId, GroupId)> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for (vip, group) in &node.groups.answered {
                if !self.is_open_on(index, *group) {
                    continue;
                }
                if let Some((other, _)) = by.insert(*vip, (node.id, *group)) {
                    return Err(Violation::TwoHolders { group: *group, nodes: vec![other, node.id] });
                }
            }
        }
        Ok(())
    }

    /// Every node goes over to the last configuration of the groups.
    pub(super) fn end_reloads(&mut self) -> Result<(), Violation> {
        let last = self.plan.versions.len() - 1;
        if last == 0 {
            return Ok(());
        }
        self.plan.keeper_ns = 0;
        // What is under way comes to its end, on a process that is stopped as well.
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node.stalled_until.is_some() && node.groups.under_way.is_some() {
                self.resume(index)?;
            }
        }
        self.run_for(self.plan.longest().accept * 3)?;
        for index in 0..self.nodes.len() {
            self.reload(index, last)?;
        }
        Ok(())
    }

    /// The holder of a group answers for all of its VIPs.
    pub(super) fn require_answers(&self) -> Result<(), Violation> {
        let Some(last) = self.plan.versions.last().filter(|_| self.plan.versions.len() > 1) else {
            return Ok(());
        };
        for (group, (_, vips)) in configured(last).iter().enumerate() {
            let Some(holder) = self.holder(group_id(group)) else { continue };
            let answered = &self.nodes[holder].groups.answered;
            if vips.iter().any(|vip| answered.get(vip) != Some(&group_id(group))) {
                return Err(Violation::Unanswered(group_id(group), self.nodes[holder].id));
            }
        }
        Ok(())
    }
}
