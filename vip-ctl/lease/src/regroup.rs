//! New groups for a running loop: it gives up the leases of groups that end, and
//! goes on with the rest by new numbers.

use vip_common::GroupIndex;
use vip_engine::{ByGroup, GroupId, LabelSpec, Reloaded};

use crate::{
    gate::GateRule,
    loop_core::{Core, Io},
    messages::LeaseNotice,
    mutant::{self, Mutant},
};

/// New groups for a running loop.
pub struct Regroup {
    /// Groups that end or begin anew, by their numbers so far.
    pub ended: Vec<GroupId>,
    /// The groups, by their new numbers.
    pub groups: ByGroup<Reloaded>,
    /// Their labels.
    pub labels: Vec<LabelSpec>,
    /// The digest of all of them.
    pub table: u64,
    /// Their places in the maps, for the thread that writes there; empty on a
    /// witness.
    pub index: ByGroup<GroupIndex>,
    /// The groups whose leases may not have all of their VIPs yet.
    pub uncovered: Vec<GroupId>,
    /// Those of them of which this node would answer none of the VIPs.
    pub mute: Vec<GroupId>,
    /// What their hooks ask of the gates, by their new numbers.
    pub rules: ByGroup<GateRule>,
}

impl<I: Io> Core<I> {
    /// Gives up the leases of groups that end before anything else changes. Then
    /// calls `replace` with the places in the maps, before any message about a
    /// group by its new number.
    pub fn regroup(&mut self, regroup: Regroup, replace: impl FnOnce(&mut I, ByGroup<GroupIndex>)) {
        let Regroup { ended, groups, labels, table, index, uncovered, mute, rules } = regroup;
        for group in ended.into_iter().filter(|_| !mutant::is(Mutant::NotRetired)) {
            let now = self.io.now();
            self.engine.retire(group, now);
            self.outputs(now);
        }
        let now = self.io.now();
        let labels: Vec<_> = groups.iter().map(|group| group.was).zip(labels).collect();
        self.labels.reload(&labels, table, now);
        replace(&mut self.io, index);
        let was: ByGroup<_> = groups.iter().map(|group| group.was).collect();
        let prepared: ByGroup<_> = was.iter().map(|was| was.map(|was| self.gates.prepares(was))).collect();
        let stops = self.regroup_moves(&was, rules);
        self.engine.reload(groups, now);
        self.uncovered = uncovered;
        self.forget_troubles();
        // All notices from here on name groups by their new numbers.
        self.io.tell(LeaseNotice::Regrouped);
        self.outputs(now);
        self.prepare(&prepared);
        self.set_mute(mute);
        if stops {
            self.stop();
        }
    }
}
