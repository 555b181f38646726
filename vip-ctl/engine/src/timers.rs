//! When each group's tick is due. Renewals go together, so that many groups are
//! due at one moment, and each is put off several times for each renewal. A group
//! that is put off stays in the queue until its former moment has come.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use vip_common::BootNs;

use super::{ByGroup, GroupId};

/// How often each group is in the queue at most, on average.
const STALE_MAX: usize = 16;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    due: ByGroup<Option<BootNs>>,
    /// By moment, the groups that were or are due then. The last group of the
    /// first moment is really due then.
    queue: BTreeMap<BootNs, Vec<GroupId>>,
    /// Groups in the queue, each as often as it is there.
    queued: usize,
}

/// Equal if the same groups are due at the same moments; leftovers in the queue
/// make no difference.
impl PartialEq for Timers {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Timers {}

impl Hash for Timers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.due.hash(state);
    }
}

impl Timers {
    /// All of these groups are due at `now`.
    pub fn new(groups: usize, now: BootNs) -> Self {
        let ids = GroupId::first(groups).collect::<Vec<_>>();
        let queued = ids.len();
        let queue = if ids.is_empty() { BTreeMap::new() } else { BTreeMap::from([(now, ids)]) };
        Self { due: ByGroup::from_fn(groups, |_| Some(now)), queue, queued }
    }

    /// When the first group is due.
    pub fn first(&self) -> Option<BootNs> {
        self.queue.first_key_value().map(|(at, _)| *at)
    }

    /// The groups that are due at `now`, the longest overdue first, and those
    /// of one moment by their numbers.
    pub fn due(&self, now: BootNs) -> Vec<GroupId> {
        let mut all = Vec::new();
        for (at, groups) in self.queue.range(..=now) {
            let begin = all.len();
            all.extend(groups.iter().copied().filter(|group| is_due(&self.due, *group, *at)));
            all[begin..].sort_unstable();
        }
        // One that was put off, and back, is there twice.
        all.dedup();
        all
    }

    /// Makes a group due at `at` instead of its former moment; never, if `None`.
    pub fn set(&mut self, group: GroupId, at: Option<BootNs>) {
        let Some(due) = self.due.get_mut(group) else { return };
        let before = std::mem::replace(due, at);
        if before == at {
            return;
        }
        if let Some(at) = at {
            self.queue.entry(at).or_default().push(group);
            self.queued += 1;
        }
        if before.is_some() && before == self.first() {
            self.drop_stale();
        }
        if self.queued > self.due.len().saturating_mul(STALE_MAX) {
            self.rebuild();
        }
    }

    /// Drops leftovers of groups that were put off, up to the first group that is
    /// due.
    fn drop_stale(&mut self) {
        while let Some(mut first) = self.queue.first_entry() {
            let at = *first.key();
            while let Some(group) = first.get().last() {
                if is_due(&self.due, *group, at) {
                    return;
                }
                first.get_mut().pop();
                self.queued -= 1;
            }
            first.remove();
        }
    }

    /// Drops all leftovers.
    fn rebuild(&mut self) {
        self.queue.clear();
        self.queued = 0;
        for (group, due) in self.due.with_ids() {
            if let Some(at) = due {
                self.queue.entry(*at).or_default().push(group);
                self.queued += 1;
            }
        }
    }
}

fn is_due(due: &ByGroup<Option<BootNs>>, group: GroupId, at: BootNs) -> bool {
    due.get(group).copied().flatten() == Some(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_set_of_moments_and_groups(
            changes in proptest::collection::vec((0_u16..8, proptest::option::of(0_u64..30)), 0..300),
            now in 0_u64..30,
        ) {
            let mut timers = Timers::new(8, BootNs(7));
            let mut set: BTreeSet<_> = (0..8).map(|group| (BootNs(7), GroupId(group))).collect();
            for (group, at) in changes {
                let (group, at) = (GroupId(group), at.map(BootNs));
                set.retain(|(_, other)| *other != group);
                set.extend(at.map(|at| (at, group)));
                timers.set(group, at);
                prop_assert_eq!(timers.first(), set.first().map(|(at, _)| *at));
                prop_assert!(timers.queued <= 8 * STALE_MAX);
                prop_assert_eq!(timers.queued, timers.queue.values().map(Vec::len).sum::<usize>());
            }
            let due: Vec<_> = set.iter().filter(|(at, _)| at.0 <= now).map(|(_, group)| *group).collect();
            prop_assert_eq!(timers.due(BootNs(now)), due);
        }
    }
}
