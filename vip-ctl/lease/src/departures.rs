//! Planned moves that wait for `pre_demote`: holds back the command until the
//! hook of every group that it takes from this node has ended or had its time,
//! while the leases are renewed. A lease that is lost meanwhile is lost at once;
//! nothing here keeps one.
//!
//! Sans-IO, and generic over what it holds back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use vip_common::BootNs;
use vip_engine::{COMMAND_TIMEOUT, GroupId};

use crate::{
    gate::Ticket,
    mutant::{self, Mutant},
};

/// How many hooks of one kind run at the same time; more wait. Ten thousand
/// groups can move at once.
pub const RUNS_MAX: usize = 16;
/// The most moves that it holds back at a time; more go ahead at once.
const KEPT_MAX: usize = 64;
/// How much longer than the hook's limit its process and the report of its end
/// may take; the thread that runs hooks enforces the limit itself.
const GRACE: Duration = Duration::from_millis(500);
/// How long in all a move waits if there are more hooks than run at a time.
const QUEUE_MAX: Duration = Duration::from_secs(10);

/// A group whose hook runs, or has recently ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// A move waits for it until then.
    Running { ticket: Ticket, until: BootNs },
    /// The hook has ended; the move may come until then.
    Done { until: BootNs },
}

/// A move that is held back.
#[derive(Debug)]
struct Kept<T> {
    what: T,
    waits_for: BTreeSet<GroupId>,
}

/// What [`Departures::overdue`] finds.
#[derive(Debug)]
pub struct Overdue<T> {
    /// The moves that may go ahead because their hooks have had their time.
    pub free: Vec<T>,
    /// The groups that did not move although their hook has ended.
    pub stayed: Vec<GroupId>,
    /// Runs that must not begin any more.
    pub late: Vec<Ticket>,
}

/// The moves that are held back, and why.
#[derive(Debug)]
pub struct Departures<T> {
    groups: BTreeMap<GroupId, Departure>,
    kept: Vec<Kept<T>>,
}

impl<T> Default for Departures<T> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), kept: Vec::new() }
    }
}

impl<T> Departures<T> {
    /// Which of these groups' hooks have still to end before a move?
    pub fn waiting(&self, groups: &[GroupId]) -> Vec<GroupId> {
        let is_done = |group: &&GroupId| !matches!(self.groups.get(group), Some(Departure::Done { .. }));
        groups.iter().filter(is_done).copied().collect()
    }

    /// Is there no room to hold anything back?
    pub fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    /// Everything that is held back.
    pub fn kept(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().map(|kept| &kept.what)
    }

    /// Does this group's hook run?
    pub fn is_running(&self, group: GroupId) -> bool {
        matches!(self.groups.get(&group), Some(Departure::Running { .. }))
    }

    /// A group's hook is going to run. It may take `limit` from its begin, and
    /// may first have to wait until others have ended.
    pub fn begin(&mut self, group: GroupId, ticket: Ticket, limit: Duration, now: BootNs) {
        let running =
            self.groups.values().filter(|departure| matches!(departure, Departure::Running { .. })).count();
        let turns = u32::try_from(running / RUNS_MAX).unwrap_or(u32::MAX).saturating_add(1);
        let until = now.plus(limit.saturating_mul(turns).min(QUEUE_MAX.max(limit))).plus(GRACE);
        self.groups.insert(group, Departure::Running { ticket, until });
    }

    /// Holds `what` back until the hooks of these groups have ended.
    pub fn keep(&mut self, what: T, waits_for: &[GroupId]) {
        self.kept.push(Kept { what, waits_for: waits_for.iter().copied().collect() });
    }

    /// A hook has ended: returns the moves that may go ahead now.
    pub fn ended(&mut self, ticket: Ticket, now: BootNs) -> Vec<T> {
        let is_it =
            |departure: &Departure| matches!(departure, Departure::Running { ticket: t, .. } if *t == ticket);
        let found = self.groups.iter().find(|(_, departure)| is_it(departure)).map(|(group, _)| *group);
        found.map_or_else(Vec::new, |group| self.done(group, now))
    }

    /// Forgets everything, since groups get new numbers; returns what was held
    /// back.
    pub fn drain(&mut self) -> Vec<T> {
        self.groups.clear();
        std::mem::take(&mut self.kept).into_iter().map(|kept| kept.what).collect()
    }

    fn done(&mut self, group: GroupId, now: BootNs) -> Vec<T> {
        // A sender repeats its request for this long.
        let lasts = if mutant::is(Mutant::HookAgain) { Duration::ZERO } else { COMMAND_TIMEOUT };
        self.groups.insert(group, Departure::Done { until: now.plus(lasts) });
        self.free(group)
    }

    fn free(&mut self, group: GroupId) -> Vec<T> {
        for kept in &mut self.kept {
            kept.waits_for.remove(&group);
        }
        let (free, kept) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|k| k.waits_for.is_empty() || mutant::is(Mutant::FirstHookFrees));
        self.kept = kept;
        let free: Vec<Kept<T>> = free;
        free.into_iter().map(|kept| kept.what).collect()
    }

    /// The lease of this group is gone, for whatever reason: returns the moves
    /// that may go ahead now, and the run that must not begin any more.
    pub fn lost(&mut self, group: GroupId) -> (Vec<T>, Option<Ticket>) {
        match self.groups.remove(&group) {
            None => (Vec::new(), None),
            Some(_) if mutant::is(Mutant::LostHoldsUp) => (Vec::new(), None),
            Some(Departure::Running { ticket, .. }) => (self.free(group), Some(ticket)),
            Some(Departure::Done { .. }) => (self.free(group), None),
        }
    }

    /// The moves, groups and runs whose time is over at `now`.
    pub fn overdue(&mut self, now: BootNs) -> Overdue<T> {
        let mut over = Overdue { free: Vec::new(), stayed: Vec::new(), late: Vec::new() };
        for (group, departure) in self.groups.clone() {
            match departure {
                Departure::Running { ticket, until } if until <= now && !mutant::is(Mutant::HookHoldsUp) => {
                    over.free.extend(self.done(group, now));
                    over.late.push(ticket);
                }
                Departure::Done { until } if until <= now => {
                    self.groups.remove(&group);
                    over.stayed.push(group);
                }
                Departure::Running { .. } | Departure::Done { .. } => {}
            }
        }
        over
    }

    /// When [`Departures::overdue`] next returns something.
    pub fn next_deadline(&self) -> Option<BootNs> {
        let until = |departure: &Departure| match departure {
            Departure::Running { until, .. } | Departure::Done { until } => *until,
        };
        self.groups.values().map(until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> BootNs {
        BootNs(ms * 1_000_000)
    }

    #[test]
    fn a_move_goes_ahead_when_all_its_hooks_have_ended() {
        let mut departures = Departures::default();
        let groups = [GroupId(0), GroupId(1)];
        assert_eq!(departures.waiting(&groups), groups);
        departures.begin(GroupId(0), Ticket(1), LIMIT, at(0));
        departures.begin(GroupId(1), Ticket(2), LIMIT, at(0));
        departures.keep("standby", &groups);
        assert!(departures.ended(Ticket(9), at(1)).is_empty(), "another run");
        assert!(departures.ended(Ticket(1), at(1)).is_empty());
        assert_eq!(departures.ended(Ticket(2), at(2)), ["standby"]);
        // A repeated request runs nothing again, for a while.
        let over = departures.overdue(at(2).plus(COMMAND_TIMEOUT / 2));
        assert!(over.stayed.is_empty() && departures.waiting(&groups).is_empty());
        let over = departures.overdue(at(2).plus(COMMAND_TIMEOUT));
        assert!(over.free.is_empty() && over.late.is_empty());
        assert_eq!(over.stayed, groups, "nothing came of it");
        assert_eq!(departures.waiting(&groups), groups);
    }

    #[test]
    fn a_hook_that_does_not_end_holds_a_move_up_for_its_time_only() {
        let mut departures = Departures::default();
        departures.begin(GroupId(0), Ticket(1), LIMIT, at(0));
        departures.keep("switchover", &[GroupId(0)]);
        let due = departures.next_deadline().expect("it is waited for");
        assert!(due <= at(0).plus(LIMIT).plus(Duration::from_secs(1)));
        assert!(departures.overdue(at(100)).free.is_empty());
        let over = departures.overdue(due);
        assert_eq!((over.free, over.late), (vec!["switchover"], vec![Ticket(1)]));
    }

    #[test]
    fn whose_hook_has_to_wait_for_others_has_its_time_all_the_same_but_not_for_ever() {
        let mut departures = Departures::<()>::default();
        let mut until = Vec::new();
        for number in 0..200_u16 {
            let ticket = Ticket(u64::from(number));
            departures.begin(GroupId(number), ticket, LIMIT, at(0));
            let Some(Departure::Running { until: own, .. }) = departures.groups.get(&GroupId(number)) else {
                panic!("it runs")
            };
            until.push(*own);
        }
        assert_eq!((until[0], until[RUNS_MAX - 1]), (at(2_500), at(2_500)));
        assert_eq!((until[RUNS_MAX], until[3 * RUNS_MAX]), (at(4_500), at(8_500)));
        assert_eq!(until[199], at(10_500));
    }

    #[test]
    fn a_lost_lease_holds_up_nothing() {
        let mut departures = Departures::default();
        departures.begin(GroupId(0), Ticket(1), LIMIT, at(0));
        departures.keep("stop", &[GroupId(0)]);
        assert_eq!(departures.lost(GroupId(0)), (vec!["stop"], Some(Ticket(1))));
        assert_eq!(departures.lost(GroupId(0)), (Vec::new(), None));
        assert_eq!(departures.next_deadline(), None);
    }
}
