//! Other groups for an agent that runs: the keeper's side of it.
//!
//! 1. The keeper removes VIPs that go, and gives groups that come their places.
//! 2. The lease loop gives up the leases of groups that go or begin anew, and
//!    goes on with the new ones.
//! 3. The keeper removes groups that go, and adds VIPs that come; a VIP that
//!    comes to a group that goes on, only when the group's leases have it.
//!
//! The outcome of each step is known before the next one begins, so that a VIP is
//! never there under a lease that does not include it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tracing::{error, info, warn};
use vip_lease::{
    Regroup,
    table::{Table, TableGroup},
};

use super::Keeper;
use crate::agent::{
    hooks,
    judge::Handle,
    messages::{Changes, ReloadOrder, ReloadOutcome, ReloadRefused, Tell},
    names::Names,
    setup::{node_setup, whole_groups},
};
use crate::{
    config::Config,
    engine::{ByGroup, GroupId, GroupSpec, Reloaded},
    exit::Exit,
    node::Setup,
    records::groups,
};

/// A reload that the lease loop is working on.
#[derive(Debug)]
pub struct UnderWay {
    order: ReloadOrder,
    table: Table,
    setup: Setup,
    names: Names,
    changes: Changes,
}

/// What the engine needs to know of the groups of a configuration.
pub fn specs(config: &Config) -> ByGroup<GroupSpec> {
    let ids = config.cluster.nodes.iter().map(|node| usize::from(node.id) + 1).max().unwrap_or(0);
    let spec = |group: &crate::config::Group| {
        let mut priorities = vec![crate::config::PRIORITY_DEFAULT; ids];
        for node in &config.cluster.nodes {
            if let Some(priority) = group.priorities.get(&node.name) {
                priorities[usize::from(node.id)] = *priority;
            }
        }
        GroupSpec { priorities, preempt: group.preempt }
    };
    config.groups.iter().map(spec).collect()
}

impl<T: Tell> Keeper<T> {
    /// Steps 1 and 2.
    pub(super) fn begin_reload(&mut self, order: ReloadOrder) {
        if self.under_way.is_some() {
            let message = "another reload is under way: try again".to_owned();
            // The client may have gone away.
            let _ = order.reply.send(Err(ReloadRefused { exit: Exit::Busy, message }));
            return;
        }
        match self.change(&order.config) {
            Ok(None) => {
                // So that a reload also mends what an earlier one has left undone.
                let missing = self.repair_vips().err();
                let _ = order.reply.send(Ok(ReloadOutcome { changes: Changes::default(), missing }));
            }
            Ok(Some((table, setup, changes, regroup))) => {
                let names = Names { index: regroup.index.clone(), ..Names::of(&order.config) };
                // Before the lease loop can order a hook of a new group.
                self.chronicle.reload(&order.config);
                self.under_way = Some(UnderWay { order, table, setup, names, changes });
                // Groups are about to get other numbers.
                if let Some(judge) = &self.judge {
                    judge.hold();
                }
                if !self.lease_loop.regroup(regroup) {
                    error!("the lease loop has ended");
                }
            }
            Err(refused) => {
                // Puts back what was removed for the change. If that fails, the log says
                // so; the client gets the refusal.
                let _ = self.repair_vips();
                let _ = order.reply.send(Err(refused));
            }
        }
    }

    fn change(&mut self, config: &Config) -> Result<Option<(Table, Setup, Changes, Regroup)>, ReloadRefused> {
        let next = self.table.next(&config.groups);
        let changes = changes(&self.table, &next.table, &next.was, &self.config, config);
        if changes.is_empty() {
            return Ok(None);
        }
        let setup = Setup { vips_max: self.setup.vips_max, ..node_setup(config, &next.table) };
        let mut index = ByGroup::new();
        if let Some(node) = &mut self.node {
            // For all VIPs, including those that wait for a lease that has them.
            node.has_room_for(&Setup { groups: whole_groups(config), ..setup.clone() })?;
            index = node.begin_change(&setup.groups)?.into();
        }
        let epochs = config.groups.iter().map(|group| self.memory.epoch(&group.name));
        let groups = next.was.iter().zip(specs(config)).zip(epochs);
        let regroup = Regroup {
            ended: next.ended.clone(),
            groups: groups.map(|((was, spec), epoch)| Reloaded { was: *was, spec, epoch }).collect(),
            labels: next.table.groups().iter().map(TableGroup::labels).collect(),
            table: config.groups_digest(),
            index,
            uncovered: next.table.uncovered(),
            mute: next.table.mute(),
            rules: hooks::rules(config),
        };
        Ok(Some((next.table, setup, changes, regroup)))
    }

    /// Step 3: the lease loop goes on with the new groups.
    pub(super) fn finish_reload(&mut self) {
        let Some(UnderWay { order, table, setup, names, changes }) = self.under_way.take() else { return };
        let moved = moved(&self.config, &order.config);
        (self.table, self.setup, self.names, self.config) = (table, setup, names, order.config);
        // At once, before a new check can have a verdict; on groups that come, when their
        // VIPs are here.
        let comes = changes.added.iter().chain(&changes.anew).cloned().collect();
        let regroup =
            |judge: &Handle<_, _>| judge.regroup(&self.setup.interfaces, &self.config.groups, &comes);
        let told = self.judge.as_ref().and_then(regroup);
        told.into_iter().for_each(|notice| self.notice(notice));
        self.store_table();
        let missing = self.repair_vips().err();
        self.announce(&moved);
        if let Some(checks) = &self.checks {
            checks.apply(&self.config.groups);
        }
        let told = self.judge.as_ref().and_then(Handle::admit);
        told.into_iter().for_each(|notice| self.notice(notice));
        for watched in std::mem::take(&mut self.postponed) {
            self.watched(watched);
        }
        info!(?changes, "reloaded");
        // The client may have gone away.
        let _ = order.reply.send(Ok(ReloadOutcome { changes, missing }));
    }

    /// Makes the node match its groups; can run again.
    ///
    /// # Errors
    /// What is missing and why, which the log has as well.
    fn repair_vips(&mut self) -> Result<(), ReloadRefused> {
        self.forget_ways();
        let Some(node) = &mut self.node else { return Ok(()) };
        let came = node.finish_change(&self.setup.groups).map_err(|e| {
            let message = format!(
                "the VIPs of this node are not all there: {e}; mend that and run `vip-ctl reload` again"
            );
            error!("{message}");
            ReloadRefused { exit: Exit::System, message }
        })?;
        node.newly_left_out().iter().for_each(|warning| warn!("{warning}"));
        if !came.is_empty() {
            info!(?came, "VIPs that this node can answer for now");
        }
        Ok(())
    }

    /// Groups' leases now have all of their VIPs. Handles many at once as one
    /// change of the node.
    pub(super) fn cover(&mut self) {
        let covered = std::mem::take(&mut self.covered);
        if covered.is_empty() || self.under_way.is_some() {
            // The loop checks again when it has the new groups.
            return;
        }
        let groups = self.table.groups().with_ids();
        let ids: BTreeMap<_, _> = groups.map(|(id, group)| (group.labels().current, id)).collect();
        let known: Vec<_> =
            covered.into_iter().filter_map(|label| Some((label, *ids.get(&label)?))).collect();
        if known.is_empty() {
            return;
        }
        for (_, group) in &known {
            self.table.settle(*group);
        }
        self.store_table();
        self.setup.groups = node_setup(&self.config, &self.table).groups;
        // No client waits; the log says what is missing.
        let _ = self.repair_vips();
        for (label, _) in known {
            let _ = self.lease_loop.announce(label);
        }
    }

    /// Announces those of these groups that are here.
    fn announce(&self, names: &BTreeSet<String>) {
        for group in self.table.groups().iter().filter(|group| names.contains(&group.name)) {
            // The lease loop ends only with the process.
            let _ = self.lease_loop.announce(group.labels().current);
        }
    }

    fn store_table(&self) {
        if let Err(e) = groups::store(&self.table, &self.paths.state_dir) {
            // Then the next start begins from the former groups, which costs time and not
            // safety.
            warn!("the record of the groups could not be written to {}: {e}", self.paths.state_dir.display());
        }
    }
}

/// A VIP's interface, and its virtual MAC, if it has any.
type Place = (Option<String>, Option<[u8; 6]>);

/// The groups with a VIP that has another interface than before, or another virtual MAC: nobody
/// knows yet that the VIP is there.
fn moved(old: &Config, new: &Config) -> BTreeSet<String> {
    let interfaces = |config: &Config| -> BTreeMap<(String, IpAddr), Place> {
        let of = |group: &crate::config::Group| {
            let interface = |vip| group.homes.get(&vip).and_then(|home| home.interface.clone());
            let place = |vip| (interface(vip), group.virtual_mac);
            let vips = group.vips.iter().map(|vip| ((group.name.clone(), *vip), place(*vip)));
            vips.collect::<Vec<_>>()
        };
        config.groups.iter().flat_map(of).collect()
    };
    let former = interfaces(old);
    let is_other = |(vip, now): &(_, _)| former.get(vip).is_some_and(|before| before != now);
    interfaces(new).into_iter().filter(is_other).map(|((group, _), _)| group).collect()
}

fn changes(
    old: &Table,
    new: &Table,
    was: &ByGroup<Option<GroupId>>,
    old_config: &Config,
    new_config: &Config,
) -> Changes {
    let mut changes = Changes::default();
    let by_name = |config: &Config| -> BTreeMap<String, crate::config::Group> {
        config.groups.iter().map(|group| (group.name.clone(), group.clone())).collect()
    };
    let (old_groups, new_groups) = (by_name(old_config), by_name(new_config));
    let names = |table: &Table| -> BTreeSet<String> {
        table.groups().iter().map(|group| group.name.clone()).collect()
    };
    let (old_names, new_names) = (names(old), names(new));
    for (group, was) in new.groups().iter().zip(was) {
        let name = &group.name;
        let is_known = old_names.contains(name);
        match was {
            Some(_) if old_groups.get(name) != new_groups.get(name) => changes.changed.push(name.clone()),
            Some(_) => {}
            None if is_known => changes.anew.push(name.clone()),
            None => changes.added.push(name.clone()),
        }
    }
    changes.removed.extend(old_names.difference(&new_names).cloned());
    changes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn groups_are_announced_whose_vips_have_another_interface() {
        let config = |groups: &str| {
            let text = format!(
                "[node]\nname = \"a\"\ninterface = [\"lan0\", \"wan0\"]\n[cluster]\nname = \"c\"\n\
                 key_file = \"k\"\n[[cluster.node]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n{groups}"
            );
            Config::parse(&text, Path::new("vip.toml"), "a").unwrap()
        };
        let group = |name: &str, interface: &str, vips: &str| {
            format!("[[group]]\nname = \"{name}\"\n{interface}\nvips = [{vips}]\n")
        };
        let (lan, wan) = ("interface = \"lan0\"", "interface = \"wan0\"");
        let before = config(&(group("db", lan, "\"10.0.1.12\"") + &group("web", "", "\"10.0.1.13\"")));
        assert_eq!(moved(&before, &before), BTreeSet::new());
        let after = group("db", wan, "\"10.0.1.12\"") + &group("web", "", "\"10.0.1.13\"");
        assert_eq!(moved(&before, &config(&after)), ["db".to_owned()].into());
        let mac = group("db", &format!("{lan}\nvirtual_mac = \"auto\""), "\"10.0.1.12\"");
        let after = config(&(mac + &group("web", "", "\"10.0.1.13\"")));
        assert_eq!(moved(&before, &after), ["db".to_owned()].into());
        // To one of its own, and from all.
        let own = "{ address = \"10.0.1.13\", interface = \"wan0\" }";
        let after = group("db", lan, "\"10.0.1.12\"") + &group("web", "", own);
        assert_eq!(moved(&before, &config(&after)), ["web".to_owned()].into());
        // VIPs that come are announced when a lease has them.
        let after = group("db", lan, "\"10.0.1.12\", \"10.0.1.14\"") + &group("app", wan, "\"10.0.1.13\"");
        assert_eq!(moved(&before, &config(&after)), BTreeSet::new());
    }
}
