//! Holds back a new lease from the map until `pre_promote` has succeeded, while
//! the engine renews it: the group's fence stays shut meanwhile. Also measures
//! the gap before each grant, and keeps this node away from groups whose hook
//! failed.
//!
//! Sans-IO. It only ever holds a word back: what it lets through is always the
//! engine's latest word, has not run out, and belongs to the grant that the hook
//! ran for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use vip_common::{BootNs, Lease};
use vip_engine::{ByGroup, Epoch, GroupId, GroupState, NodeId, Reason, Transition};

use crate::{
    messages::Eligible,
    mutant::{self, Mutant},
};

/// Names one run of a hook that the lease loop waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Numbers this node's grants, of all groups together, in the order in which
/// they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant(pub u64);

impl Grant {
    /// A grant of a former agent, found in the map.
    pub const FOUND: Self = Self(0);
}

/// What a group's hooks ask of its gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateRule {
    /// The group's name.
    pub name: Arc<str>,
    /// Is there a `pre_promote`?
    pub pre_promote: bool,
    /// Does the fence open even if it fails?
    pub ignore_failure: bool,
    /// How long this node stays away from the group after it has failed.
    pub retry_after: Duration,
    /// How long `pre_demote` may take; `None`: there is none.
    pub pre_demote: Option<Duration>,
}

/// How far a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// There is none.
    Shut,
    /// Its hook is to begin, or runs.
    Waiting { ticket: Ticket, begun: bool },
    /// Its hook has failed: the fence never opens for this grant.
    Failed,
    /// The engine's words go into the map.
    Open,
}

/// One group.
#[derive(Debug)]
struct Gate {
    rule: GateRule,
    passage: Passage,
    /// Where the engine's latest word ends; `None` after a release.
    until: Option<BootNs>,
    /// When the last lease ended, this node's or another's, if nobody has had
    /// one since.
    vacant_since: Option<BootNs>,
    holder: Option<NodeId>,
    /// When the lease before this grant ended, until the gap is reported.
    vacated: Option<BootNs>,
    /// Number of the latest grant.
    number: Grant,
    /// The epoch and reason that the engine gave for it.
    grant: (Epoch, Reason),
    /// The judge's last verdict on eligibility.
    eligible: Eligible,
}

/// What to do about a word of the engine, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Write this into the map.
    pub store: Option<Lease>,
    /// Cancel this run: nobody needs it any more.
    pub cancel: Option<Ticket>,
}

/// What to report of a change, and what to do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The lease is this node's, and the fence is shut until its hook has ended.
    pub promoting: bool,
    /// The time without a lease that the grant has ended.
    pub gap: Option<Duration>,
    /// Run `pre_promote`.
    pub begin: Option<Ticket>,
    /// Cancel this run: nobody needs it any more.
    pub cancel: Option<Ticket>,
}

/// What to do at the end of a `pre_promote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// Nothing: the grant that it ran for is over.
    Stale,
    /// Write the word into the map, and report the change.
    Open {
        /// The group.
        group: GroupId,
        /// The word.
        lease: Lease,
        /// The grant.
        epoch: Epoch,
        /// How it came here.
        reason: Reason,
        /// The gap that it has ended.
        gap: Option<Duration>,
    },
    /// Release the lease of this group.
    Release(GroupId),
}

/// The gates of all groups.
#[derive(Debug)]
pub struct Gates {
    gates: ByGroup<Gate>,
    /// Groups that this node stays away from, and until when.
    barred: BTreeMap<GroupId, BootNs>,
    any_pre_demote: bool,
    tickets: u64,
    grants: u64,
}

impl Gates {
    /// Gates by these rules. `held` are the leases that were found in the map:
    /// their gates are open and stay so.
    #[must_use]
    pub fn new(rules: ByGroup<GateRule>, held: &[(GroupId, BootNs)]) -> Self {
        let held: BTreeMap<_, _> = held.iter().copied().collect();
        let any_pre_demote = rules.iter().any(|rule| rule.pre_demote.is_some());
        let gates = rules.ids().zip(rules).map(|(group, rule)| Gate::new(rule, held.get(&group).copied()));
        Self { gates: gates.collect(), barred: BTreeMap::new(), any_pre_demote, tickets: 0, grants: 0 }
    }

    /// Goes on with other groups, by their new numbers: `was` has the former
    /// number of each that goes on. Groups that end have been released before.
    pub fn regroup(&mut self, was: &ByGroup<Option<GroupId>>, rules: ByGroup<GateRule>) {
        self.any_pre_demote = rules.iter().any(|rule| rule.pre_demote.is_some());
        let mut old: ByGroup<_> = std::mem::take(&mut self.gates).into_iter().map(Some).collect();
        let barred = std::mem::take(&mut self.barred);
        for ((new, was), rule) in was.with_ids().zip(rules) {
            let gate = was.and_then(|was| old.get_mut(was)).and_then(Option::take);
            if let Some(until) = was.and_then(|was| barred.get(&was)) {
                self.barred.insert(new, *until);
            }
            self.gates.push(match gate {
                Some(gate) if !mutant::is(Mutant::GateForgets) => Gate { rule, ..gate },
                Some(_) | None => Gate::new(rule, None),
            });
        }
    }

    fn gate(&mut self, group: GroupId) -> Option<&mut Gate> {
        self.gates.get_mut(group)
    }

    /// A ticket for a run.
    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The engine wants this word in the map.
    pub fn word(&mut self, group: GroupId, lease: Lease, now: BootNs) -> Step {
        let (ticket, number) = (self.ticket(), Grant(self.grants + 1));
        let Some(gate) = self.gate(group) else { return Step { store: Some(lease), cancel: None } };
        let Some(until) = lease.expiry() else {
            let cancel = gate.shut(now);
            let keeps_back = mutant::is(Mutant::ReleaseKeptBack) && cancel.is_some();
            return Step { store: (!keeps_back).then_some(lease), cancel };
        };
        let goes_on = gate.until.is_some_and(|until| until > now);
        let cancel = if goes_on { None } else { gate.begin(ticket, number, now) };
        gate.until = Some(until);
        let store = (gate.passage == Passage::Open).then_some(lease);
        if !goes_on {
            self.grants += 1;
        }
        Step { store, cancel }
    }

    /// The engine has reported a change.
    pub fn changed(&mut self, transition: &Transition, now: BootNs) -> Told {
        let Transition { group, state, epoch, reason, holder } = *transition;
        let Some(gate) = self.gate(group) else { return Told::default() };
        let mut told = Told::default();
        if state == GroupState::Active {
            gate.grant = (epoch, reason);
            match &mut gate.passage {
                Passage::Waiting { ticket, begun } => {
                    told.promoting = true;
                    if !std::mem::replace(begun, true) {
                        told.begin = Some(*ticket);
                    }
                }
                Passage::Failed => told.promoting = true,
                Passage::Open | Passage::Shut => {
                    told.gap = gate.vacated.take().map(|since| now.since(since));
                }
            }
            gate.vacant_since = None;
        } else {
            if gate.passage != Passage::Shut {
                told.cancel = gate.shut(now);
            }
            match (gate.holder, holder) {
                (_, Some(_)) => gate.vacant_since = None,
                (Some(_), None) => gate.vacant_since = gate.vacant_since.or(Some(now)),
                (None, None) => {}
            }
        }
        gate.holder = holder;
        told
    }

    /// `pre_promote` has ended; `well`: it has succeeded.
    pub fn ended(&mut self, ticket: Ticket, well: bool, now: BootNs) -> Promotion {
        let waits = Passage::Waiting { ticket, begun: true };
        let is_waiting = |passage: Passage| {
            passage == waits
                || (mutant::is(Mutant::OpenByAnyRun) && matches!(passage, Passage::Waiting { .. }))
        };
        let found = self.gates.with_ids_mut().find(|(_, gate)| is_waiting(gate.passage));
        let Some((group, gate)) = found else { return Promotion::Stale };
        let Some(until) = gate.until.filter(|until| *until > now || mutant::is(Mutant::OpenTooLate)) else {
            return Promotion::Stale;
        };
        if well || gate.rule.ignore_failure || mutant::is(Mutant::OpenInVain) {
            gate.passage = Passage::Open;
            let (epoch, reason) = gate.grant;
            let gap = gate.vacated.take().map(|since| now.since(since));
            return Promotion::Open { group, lease: Lease::until(until), epoch, reason, gap };
        }
        gate.passage = Passage::Failed;
        let until = now.plus(gate.rule.retry_after);
        self.barred.insert(group, until);
        Promotion::Release(group)
    }

    /// How many groups there are.
    #[must_use]
    pub(super) const fn len(&self) -> usize {
        self.gates.len()
    }

    /// Is the fence of this group open at `now`, as far as this gate knows?
    #[must_use]
    pub fn is_open(&self, group: GroupId, now: BootNs) -> bool {
        let gate = self.gates.get(group);
        gate.is_some_and(|gate| gate.passage == Passage::Open && gate.until.is_some_and(|until| until > now))
    }

    /// The groups whose fence is open at `now`.
    #[must_use]
    pub fn open(&self, now: BootNs) -> Vec<GroupId> {
        self.gates.ids().filter(|group| self.is_open(*group, now)).collect()
    }

    /// The groups whose lease this node has, while their fence is shut.
    #[must_use]
    pub fn promoting(&self) -> Vec<GroupId> {
        self.gates.ids().filter(|group| self.is_promoting(*group)).collect()
    }

    /// Does this node have the lease, while the fence is shut?
    #[must_use]
    pub fn is_promoting(&self, group: GroupId) -> bool {
        let gate = self.gates.get(group);
        gate.is_some_and(|gate| matches!(gate.passage, Passage::Waiting { .. } | Passage::Failed))
    }

    /// Groups that this node stays away from, and until when.
    #[must_use]
    pub const fn barred(&self) -> &BTreeMap<GroupId, BootNs> {
        &self.barred
    }

    /// How long the `pre_demote` of a group may take; `None`: there is none.
    #[must_use]
    pub fn pre_demote(&self, group: GroupId) -> Option<Duration> {
        self.gates.get(group).and_then(|gate| gate.rule.pre_demote)
    }

    /// The longest that `pre_demote` may take, of that group or of all of them.
    #[must_use]
    pub fn pre_demote_max(&self, group: Option<GroupId>) -> Duration {
        let longest = match group {
            Some(group) => self.pre_demote(group),
            None => self.gates.iter().filter_map(|gate| gate.rule.pre_demote).max(),
        };
        longest.unwrap_or_default()
    }

    /// The name of a group.
    #[must_use]
    pub fn name(&self, group: GroupId) -> Arc<str> {
        self.gates.get(group).map(|gate| Arc::clone(&gate.rule.name)).unwrap_or_default()
    }

    /// Number of this node's latest grant of a group.
    #[must_use]
    pub fn grant(&self, group: GroupId) -> Grant {
        self.gates.get(group).map_or(Grant::FOUND, |gate| gate.number)
    }

    /// Does the group have a `pre_promote`?
    #[must_use]
    pub fn prepares(&self, group: GroupId) -> bool {
        self.gates.get(group).is_some_and(|gate| gate.rule.pre_promote)
    }

    /// When the lease of a group ends by the engine's latest word, whether that
    /// is in the map or held back.
    #[must_use]
    pub fn until(&self, group: GroupId) -> Option<BootNs> {
        self.gates.get(group).and_then(|gate| gate.until)
    }

    /// Does any group have a `pre_demote`?
    #[must_use]
    pub const fn any_pre_demote(&self) -> bool {
        self.any_pre_demote
    }

    /// The epoch that the engine last reported.
    #[must_use]
    pub fn epoch(&self, group: GroupId) -> Epoch {
        self.gates.get(group).map_or_else(Epoch::default, |gate| gate.grant.0)
    }

    /// Takes the judge's verdict on eligibility; returns the one for the engine.
    pub fn eligible(&mut self, group: GroupId, eligible: Eligible) -> Eligible {
        let is_barred = self.barred.contains_key(&group) && !mutant::is(Mutant::NotBarred);
        if let Some(gate) = self.gate(group) {
            gate.eligible = eligible;
        }
        if is_barred { Eligible::No } else { eligible }
    }

    /// Groups that this node need no longer stay away from, and the verdict on
    /// each.
    pub fn unbarred(&mut self, now: BootNs) -> Vec<(GroupId, Eligible)> {
        let free: Vec<_> =
            self.barred.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        let gates = &self.gates;
        let eligible = |id: &GroupId| gates.get(*id).map_or(Eligible::No, |gate| gate.eligible);
        let told = free.iter().map(|id| (*id, eligible(id))).collect();
        self.barred.retain(|_, until| *until > now);
        told
    }

    /// When [`Gates::unbarred`] next returns something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNs> {
        self.barred.values().min().copied()
    }
}

impl Gate {
    /// `held`: the end of a lease that was found in the map.
    fn new(rule: GateRule, held: Option<BootNs>) -> Self {
        Self {
            rule,
            passage: if held.is_some() && !mutant::is(Mutant::AdoptedShut) {
                Passage::Open
            } else {
                Passage::Shut
            },
            until: held,
            vacant_since: None,
            holder: None,
            vacated: None,
            number: Grant::FOUND,
            grant: (Epoch::default(), Reason::Started),
            eligible: Eligible::No,
        }
    }

    /// A new grant. Returns the run that nobody needs any more.
    fn begin(&mut self, ticket: Ticket, number: Grant, now: BootNs) -> Option<Ticket> {
        let former = self.shut(now);
        self.number = number;
        self.vacated = self.vacant_since.take();
        self.passage = if self.rule.pre_promote && !mutant::is(Mutant::OpenAtOnce) {
            Passage::Waiting { ticket, begun: false }
        } else {
            Passage::Open
        };
        former
    }

    /// The lease is over. Returns the run that nobody needs any more.
    fn shut(&mut self, now: BootNs) -> Option<Ticket> {
        let former = std::mem::replace(&mut self.passage, Passage::Shut);
        let until = self.until.take();
        match former {
            Passage::Open => {
                // It ran out, or the engine has just released it.
                self.vacant_since = until.map(|until| until.min(now));
                None
            }
            // A gate that was never open has ended no gap.
            Passage::Waiting { ticket, .. } => {
                self.vacant_since = self.vacated.take();
                Some(ticket)
            }
            Passage::Failed => {
                self.vacant_since = self.vacated.take();
                None
            }
            Passage::Shut => None,
        }
    }
}

#[cfg(test)]
mod tests;
