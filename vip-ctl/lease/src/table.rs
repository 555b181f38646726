//! The groups and VIPs that a node has, and what a new set does to them: which
//! groups go on, which begin anew, and under which sets of VIPs this node still
//! votes for nodes that may not have the new set yet. [`vip_engine::Labels`] has
//! what follows for votes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vip_engine::{ByGroup, FORMERS_MAX, GroupId, Label, LabelSpec};

use crate::mutant::{self, Mutant};

/// A set of VIPs, sorted.
type Vips = Vec<IpAddr>;

/// A group as a configuration has it.
pub trait Configured {
    /// Its name.
    fn name(&self) -> &str;
    /// Its VIPs, sorted.
    fn vips(&self) -> &[IpAddr];
}

impl Configured for (String, Vec<IpAddr>) {
    fn name(&self) -> &str {
        &self.0
    }

    fn vips(&self) -> &[IpAddr] {
        &self.1
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableGroup {
    /// Its name.
    pub name: String,
    /// The VIPs that it has by the configuration.
    pub vips: Vips,
    /// Sets that it had before, newest first, under which others may still hold
    /// it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formers: Vec<Vips>,
    /// The one of all these under which this node asks for leases; it answers
    /// only for VIPs in it.
    pub asks: Vips,
}

/// All groups of a node, sorted by name: a group's place is its [`GroupId`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<TableGroup>", into = "Vec<TableGroup>")]
pub struct Table(ByGroup<TableGroup>);

impl From<Vec<TableGroup>> for Table {
    fn from(groups: Vec<TableGroup>) -> Self {
        Self(groups.into())
    }
}

impl From<Table> for Vec<TableGroup> {
    fn from(table: Table) -> Self {
        table.0.into()
    }
}

impl TableGroup {
    fn new(name: &str, vips: &[IpAddr]) -> Self {
        Self { name: name.to_owned(), vips: vips.to_vec(), formers: Vec::new(), asks: vips.to_vec() }
    }

    /// VIPs that this node may answer when it has the lease: neither those that
    /// are gone from the configuration, nor those that no lease covers yet.
    pub fn answered(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.iter().copied().filter(|vip| self.asks.contains(vip) || mutant::is(Mutant::AnswersAtOnce))
    }

    /// May the node answer for all of its VIPs?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.asks == self.vips
    }

    fn label(&self, vips: &[IpAddr]) -> Label {
        let mut hasher = blake3::Hasher::new_derive_key("vip-ctl label of a group with its VIPs");
        hasher.update(&(self.name.len() as u64).to_be_bytes()).update(self.name.as_bytes());
        for vip in vips.iter().filter(|_| !mutant::is(Mutant::LabelOfName)) {
            match vip {
                IpAddr::V4(vip) => hasher.update(&[4]).update(&vip.octets()),
                IpAddr::V6(vip) => hasher.update(&[6]).update(&vip.octets()),
            };
        }
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        Label(u64::from_be_bytes(first))
    }

    /// The group's label.
    #[must_use]
    pub fn labels(&self) -> LabelSpec {
        LabelSpec {
            current: self.label(&self.vips),
            formers: self.formers.iter().map(|vips| self.label(vips)).collect(),
            asks: self.label(&self.asks),
        }
    }
}

/// A new table, and how it follows from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The new table.
    pub table: Table,
    /// Which group each was; `None` for one that begins anew.
    pub was: ByGroup<Option<GroupId>>,
    /// Groups of the former table that end, or begin anew.
    pub ended: Vec<GroupId>,
}

impl Next {
    /// The names of the groups that end, even if a new group has the same name.
    #[must_use]
    pub fn ended_names(&self, before: &Table) -> Vec<String> {
        let name = |group: &GroupId| before.0.get(*group).map(|group| group.name.clone());
        self.ended.iter().filter_map(name).collect()
    }
}

impl Table {
    /// The table that the maps show, where there is no record: groups with their
    /// VIPs.
    #[must_use]
    pub fn of_maps(groups: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self(groups.iter().map(|(name, vips)| TableGroup::new(name, vips)).collect())
    }

    /// The table of a configuration that follows no other.
    #[must_use]
    pub fn of(groups: &[impl Configured]) -> Self {
        Self(groups.iter().map(|group| TableGroup::new(group.name(), group.vips())).collect())
    }

    /// The groups.
    #[must_use]
    pub const fn groups(&self) -> &ByGroup<TableGroup> {
        &self.0
    }

    /// The groups whose leases may not have all of their VIPs yet.
    #[must_use]
    pub fn uncovered(&self) -> Vec<GroupId> {
        self.0
            .with_ids()
            .filter(|(_, group)| !group.is_settled() && !mutant::is(Mutant::NothingUncovered))
            .map(|(id, _)| id)
            .collect()
    }

    /// The groups of which this node, with the lease, would answer no VIP: all
    /// that they have are new, and all that they had are gone.
    #[must_use]
    pub fn mute(&self) -> Vec<GroupId> {
        self.0
            .with_ids()
            .filter(|(_, group)| !group.is_settled() && group.answered().next().is_none())
            .map(|(id, _)| id)
            .collect()
    }

    /// This node asks for leases of all of the group's VIPs from now on.
    pub fn settle(&mut self, group: GroupId) {
        if let Some(group) = self.0.get_mut(group) {
            group.asks.clone_from(&group.vips);
        }
    }

    /// The table that follows from this one by a new configuration.
    ///
    /// Keeps a former set unless one of its VIPs is now in another group: at any
    /// time, the sets that a voter votes on under two groups have no VIP in
    /// common. A group goes on if it keeps the set under which this node asks for
    /// its leases; else it begins anew.
    #[must_use]
    pub fn next(&self, groups: &[impl Configured]) -> Next {
        let mut owner = BTreeMap::new();
        for group in groups {
            owner.extend(group.vips().iter().map(|vip| (*vip, group.name())));
        }
        let mut next = Next { table: Self::default(), was: ByGroup::new(), ended: Vec::new() };
        let olds: BTreeMap<_, _> = self.0.with_ids().map(|(id, old)| (old.name.as_str(), id)).collect();
        for group in groups {
            let old = olds.get(group.name()).copied();
            let kept = old.and_then(|id| self.0[id].followed_by(group.vips(), &owner));
            let goes_on = kept.is_some();
            next.table.0.push(kept.unwrap_or_else(|| TableGroup::new(group.name(), group.vips())));
            next.was.push(old.filter(|_| goes_on));
        }
        let going_on: BTreeSet<_> = next.was.iter().flatten().copied().collect();
        next.ended.extend(
            self.0.ids().filter(|group| !going_on.contains(group) && !mutant::is(Mutant::NothingEnds)),
        );
        next
    }
}

impl TableGroup {
    /// This group with these VIPs; `None` if it can't go on.
    fn followed_by(&self, now: &[IpAddr], owner: &BTreeMap<IpAddr, &str>) -> Option<Self> {
        let is_free = |vips: &Vips| {
            vips.iter().all(|vip| {
                owner.get(vip).is_none_or(|name| *name == self.name || mutant::is(Mutant::MovedVipKept))
            })
        };
        let known = std::iter::once(&self.vips).chain(&self.formers);
        let mut formers: Vec<Vips> = known.filter(|vips| **vips != now && is_free(vips)).cloned().collect();
        if self.asks != now && !formers.contains(&self.asks) {
            return None;
        }
        // Forgets the oldest set, but never the one under which this node asks.
        while formers.len() > FORMERS_MAX {
            let oldest =
                formers.iter().rposition(|vips| *vips != self.asks || mutant::is(Mutant::ForgetsAsked))?;
            formers.remove(oldest);
        }
        Some(Self { name: self.name.clone(), vips: now.to_vec(), formers, asks: self.asks.clone() })
    }
}

#[cfg(test)]
mod tests;
