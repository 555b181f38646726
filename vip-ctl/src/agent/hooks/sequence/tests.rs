//! Which hooks of a group may run, and in which order: single turns, and many random ones with
//! hooks that take time, fail, are killed and are waited for.

use std::{collections::BTreeSet, time::Duration};

use fastrand::Rng;
use vip_common::{BootNs, Lease};
use vip_lease::gate::{GateRule, Gates, Promotion, Told};

use super::*;
use crate::engine::{Epoch, GroupId, Transition};

const SEEDS: u64 = 600;
const STEPS: usize = 400;

fn db() -> Arc<str> {
    "db".into()
}

fn all(_: Hook) -> bool {
    true
}

/// The group is in this state here, under this grant or none.
fn turned(state: GroupState, grant: Option<u64>) -> Turned {
    Turned {
        group: db(),
        state,
        grant: grant.map(Grant),
        promoting: false,
        pre_promote: None,
        epoch: Epoch(grant.unwrap_or(0)),
        reason: Reason::Elected,
        holder: None,
    }
}

fn promoting(grant: u64) -> Turned {
    Turned { promoting: true, pre_promote: Some(Ticket(grant)), ..turned(GroupState::Active, Some(grant)) }
}

/// Runs everything that may run, to its end at once.
fn runs(sequencer: &mut Sequencer) -> Vec<(Hook, u64, String)> {
    let mut runs = Vec::new();
    while let Some((number, order)) = sequencer.next() {
        sequencer.ended(number);
        runs.push((order.hook, order.epoch, order.state));
    }
    runs
}

fn hooks(sequencer: &mut Sequencer) -> Vec<(Hook, u64)> {
    runs(sequencer).into_iter().map(|(hook, epoch, _)| (hook, epoch)).collect()
}

#[test]
fn a_grant_that_comes_at_once_after_another_waits_for_its_end() {
    let mut sequencer = Sequencer::default();
    assert_eq!(sequencer.turned(&turned(GroupState::Active, Some(1)), all), []);
    assert_eq!(hooks(&mut sequencer), [(Hook::PostPromote, 1)]);
    // The lease is lost and won again before any hook has run; the loss is told, or is not.
    for is_told in [true, false] {
        let (grant, next) = if is_told { (1, 2) } else { (2, 3) };
        if is_told {
            sequencer.turned(&turned(GroupState::Standby, None), all);
        }
        sequencer.turned(&promoting(next), all);
        assert_eq!(hooks(&mut sequencer), [(Hook::PostDemote, grant), (Hook::PrePromote, next)]);
        sequencer.turned(&turned(GroupState::Active, Some(next)), all);
        assert_eq!(hooks(&mut sequencer), [(Hook::PostPromote, next)]);
    }
}

#[test]
fn one_at_a_time_and_a_grant_that_is_lost_while_it_waits_runs_nothing() {
    let mut sequencer = Sequencer::default();
    sequencer.turned(&promoting(1), all);
    let (first, order) = sequencer.next().expect("it begins");
    assert_eq!((order.hook, order.ticket), (Hook::PrePromote, Some(Ticket(1))));
    for grant in 2..50 {
        sequencer.turned(&turned(GroupState::Standby, None), all);
        sequencer.turned(&promoting(grant), all);
        assert!(sequencer.next().is_none(), "the first one runs still");
    }
    sequencer.turned(&turned(GroupState::Standby, None), all);
    sequencer.ended(first);
    // The other grants began nothing, so that they have nothing to end.
    assert_eq!(hooks(&mut sequencer), [(Hook::PostDemote, 1)]);
    assert!(sequencer.is_idle());
}

#[test]
fn too_many_that_wait_cost_no_post_demote_of_what_has_begun() {
    let mut sequencer = Sequencer::default();
    sequencer.turned(&turned(GroupState::Active, Some(1)), all);
    let (number, _) = sequencer.next().expect("post_promote begins");
    let mut dropped = Vec::new();
    for grant in 2..50 {
        dropped.extend(sequencer.turned(&turned(GroupState::Fault, None), all));
        dropped.extend(sequencer.turned(&turned(GroupState::Active, Some(grant)), all));
    }
    assert!(dropped.iter().all(|skipped| skipped.why.is_some()));
    sequencer.ended(number);
    let ran = hooks(&mut sequencer);
    assert_eq!(ran[0], (Hook::PostDemote, 1));
    assert!(ran.len() <= WAITING_MAX + 1, "{ran:?}");
    assert!(ran.contains(&(Hook::PostPromote, 49)), "the latest ones are kept: {ran:?}");
}

#[test]
fn what_the_last_agent_could_not_do_is_done_by_the_next() {
    // The last agent was killed, and this one came in time: nothing has moved.
    let adopted = Turned { reason: Reason::Adopted, ..turned(GroupState::Active, Some(0)) };
    for is_known in [true, false] {
        let mut sequencer = Sequencer::default();
        if is_known {
            sequencer.was_up("db", 4);
        }
        sequencer.turned(&adopted, all);
        assert_eq!(hooks(&mut sequencer), []);
        // From here on this agent has to end the grant.
        sequencer.turned(&turned(GroupState::Standby, None), all);
        assert_eq!(hooks(&mut sequencer), [(Hook::PostDemote, 0)]);
    }
    // The last agent was killed, and this one came too late.
    let mut sequencer = Sequencer::default();
    sequencer.was_up("db", 4);
    sequencer.turned(&turned(GroupState::Init, None), all);
    assert_eq!(runs(&mut sequencer), [(Hook::PostDemote, 4, "init".to_owned())]);
    // The grant has been ended, so nothing is left to do.
    sequencer.turned(&turned(GroupState::Standby, None), all);
    assert_eq!(hooks(&mut sequencer), []);
}

#[test]
fn a_fault_is_told_once_and_after_the_end() {
    let mut sequencer = Sequencer::default();
    sequencer.turned(&promoting(1), all);
    assert_eq!(hooks(&mut sequencer), [(Hook::PrePromote, 1)]);
    sequencer.turned(&turned(GroupState::Fault, None), all);
    let fault = || "fault".to_owned();
    let expected = [(Hook::PostDemote, 1, fault()), (Hook::OnFault, 0, fault())];
    assert_eq!(runs(&mut sequencer), expected);
    sequencer.turned(&turned(GroupState::Fault, None), all);
    assert_eq!(hooks(&mut sequencer), []);
}

#[test]
fn what_there_is_no_hook_for_keeps_nobody_waiting_and_what_is_late_is_said() {
    let mut sequencer = Sequencer::default();
    let skipped = sequencer.turned(&promoting(1), |_| false);
    assert_eq!((skipped[0].order.ticket, skipped[0].why), (Some(Ticket(1)), None));
    let leave = |grant| HookOrder {
        ticket: Some(Ticket(9)),
        ..HookOrder::of(&turned(GroupState::Active, Some(grant)), Hook::PreDemote)
    };
    assert_eq!(sequencer.add(leave(1), all), []);
    sequencer.turned(&promoting(2), all);
    assert!(sequencer.add(leave(1), all)[0].why.is_some(), "that grant is over");
    assert!(sequencer.remove_waiting(Ticket(9)).is_some());
    assert!(sequencer.remove_waiting(Ticket(9)).is_none());
}

/// A hook that runs in the world.
struct Run {
    order: HookOrder,
    until: BootNs,
    well: bool,
}

/// What has become of a grant.
#[derive(Default)]
struct Fate {
    begun: bool,
    ended: bool,
}

/// Groups whose leases come and go by chance, and hooks that take their time.
struct World {
    rng: Rng,
    now: BootNs,
    gates: Gates,
    hooks: Vec<BTreeSet<Hook>>,
    held: Vec<Option<BootNs>>,
    states: Vec<GroupState>,
    epochs: u64,
    sequencer: Sequencer,
    running: BTreeMap<u64, Run>,
    cancelled: BTreeSet<Ticket>,
    /// By group, the latest grant of which anything ran.
    latest: Vec<Grant>,
    fates: BTreeMap<(Arc<str>, Grant), Fate>,
    /// How often a `pre_promote` had to wait for a `post_demote`.
    waited: usize,
    dropped: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let groups = rng.usize(1..=3);
        let any = |rng: &mut Rng| Hook::ALL.into_iter().filter(|_| rng.u8(0..4) > 0).collect();
        let hooks: Vec<BTreeSet<Hook>> = (0..groups).map(|_| any(&mut rng)).collect();
        let rule = |(place, hooks): (usize, &BTreeSet<Hook>)| GateRule {
            name: format!("g{place}").into(),
            pre_promote: hooks.contains(&Hook::PrePromote),
            ignore_failure: rng.bool(),
            retry_after: Duration::from_secs(1),
            pre_demote: hooks.contains(&Hook::PreDemote).then_some(Duration::from_secs(2)),
        };
        let rules = hooks.iter().enumerate().map(rule).collect();
        Self {
            now: BootNs(1_000_000_000),
            gates: Gates::new(rules, &[]),
            held: vec![None; groups],
            states: vec![GroupState::Standby; groups],
            epochs: 0,
            sequencer: Sequencer::default(),
            running: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            latest: vec![Grant::FOUND; groups],
            fates: BTreeMap::new(),
            waited: 0,
            dropped: 0,
            hooks,
            rng,
        }
    }

    fn id(group: usize) -> GroupId {
        GroupId(u16::try_from(group).unwrap())
    }

    fn tell(&mut self, group: usize, told: Told) {
        let (id, hooks) = (Self::id(group), self.hooks[group].clone());
        self.cancel(told.cancel);
        let state = self.states[group];
        let turned = Turned {
            group: self.gates.name(id),
            state,
            grant: (state == GroupState::Active).then(|| self.gates.grant(id)),
            promoting: told.promoting,
            pre_promote: told.begin,
            epoch: Epoch(self.epochs),
            reason: Reason::Elected,
            holder: None,
        };
        let skipped = self.sequencer.turned(&turned, |hook| hooks.contains(&hook));
        self.skip(skipped);
    }

    fn skip(&mut self, skipped: Vec<Skipped>) {
        for Skipped { order, why } in skipped {
            self.dropped += usize::from(why.is_some());
            if let Some(ticket) = order.ticket {
                self.hook_ended(order.hook, ticket, why.is_none());
            }
        }
    }

    fn cancel(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        self.cancelled.insert(ticket);
        self.sequencer.remove_waiting(ticket);
        let now = self.now.plus(Duration::from_millis(self.rng.u64(1..1_100)));
        for run in self.running.values_mut().filter(|run| run.order.ticket == Some(ticket)) {
            (run.until, run.well) = (run.until.min(now), false);
        }
    }

    /// The engine wins the group's lease, renews it, or loses it in some way.
    fn turn(&mut self, group: usize) {
        let id = Self::id(group);
        let until = self.now.plus(Duration::from_millis(160));
        let runs_out = self.held[group].is_some_and(|until| until <= self.now);
        match (self.held[group], self.rng.u8(0..4)) {
            (Some(_), 0..=2) if !runs_out => {
                let step = self.gates.word(id, Lease::until(until), self.now);
                assert_eq!(step.cancel, None, "a renewal");
                self.held[group] = Some(until);
                return;
            }
            (Some(_), 0) => {}
            // The lease ran out and is won again in one turn: no change is told in between.
            (Some(_), 1) if runs_out => {
                self.win(group, until);
                return;
            }
            (Some(_), _) => {
                let step = self.gates.word(id, Lease::NONE, self.now);
                self.cancel(step.cancel);
            }
            (None, 0..=2) => {
                self.win(group, until);
                return;
            }
            (None, _) => {}
        }
        self.held[group] = None;
        self.states[group] = if self.rng.bool() { GroupState::Standby } else { GroupState::Fault };
        let told = self.changed(id, self.states[group], Reason::Expired);
        self.tell(group, told);
    }

    /// What the gate makes of a change of the latest grant.
    fn changed(&mut self, group: GroupId, state: GroupState, reason: Reason) -> Told {
        let epoch = Epoch(self.epochs);
        self.gates.changed(&Transition { group, state, epoch, reason, holder: None }, self.now)
    }

    fn win(&mut self, group: usize, until: BootNs) {
        let id = Self::id(group);
        self.epochs += 1;
        self.held[group] = Some(until);
        self.states[group] = GroupState::Active;
        let step = self.gates.word(id, Lease::until(until), self.now);
        self.cancel(step.cancel);
        let told = self.changed(id, GroupState::Active, Reason::Elected);
        self.tell(group, told);
    }

    fn leave(&mut self, group: usize) {
        let id = Self::id(group);
        if self.gates.pre_demote(id).is_none() || !self.gates.is_open(id, self.now) {
            return;
        }
        let ticket = self.gates.ticket();
        let turned = Turned {
            group: self.gates.name(id),
            grant: Some(self.gates.grant(id)),
            epoch: self.gates.epoch(id),
            ..turned(GroupState::Active, None)
        };
        let hooks = self.hooks[group].clone();
        let order = HookOrder { ticket: Some(ticket), ..HookOrder::of(&turned, Hook::PreDemote) };
        let skipped = self.sequencer.add(order, |hook| hooks.contains(&hook));
        self.skip(skipped);
        if self.rng.bool() {
            self.sequencer.remove_waiting(ticket);
        }
    }

    fn hook_ended(&mut self, hook: Hook, ticket: Ticket, well: bool) {
        if hook != Hook::PrePromote {
            return;
        }
        match self.gates.ended(ticket, well, self.now) {
            Promotion::Stale => {}
            Promotion::Open { group, .. } => {
                self.tell(usize::from(group.0), Told::default());
            }
            Promotion::Release(group) => {
                let group = usize::from(group.0);
                self.gates.word(Self::id(group), Lease::NONE, self.now);
                self.held[group] = None;
                self.states[group] = GroupState::Fault;
                let told = self.changed(Self::id(group), GroupState::Fault, Reason::PromoteFailed);
                self.tell(group, told);
            }
        }
    }

    /// Begins the hooks that may begin, and requires that they may.
    fn begin(&mut self) {
        while let Some((number, order)) = self.sequencer.next() {
            let group: usize = order.group[1..].parse().unwrap();
            assert!(self.running.values().all(|run| run.order.group != order.group), "two at once");
            assert!(self.hooks[group].contains(&order.hook));
            if order.hook != Hook::OnFault {
                assert!(order.grant >= self.latest[group], "{order:?} after {:?}", self.latest[group]);
                self.latest[group] = order.grant;
            }
            if order.hook == Hook::PrePromote {
                assert!(!self.cancelled.contains(&order.ticket.unwrap()), "it has lost its meaning");
                let has_end = self.hooks[group].contains(&Hook::PostDemote);
                let is_owed = |(key, fate): (&(Arc<str>, Grant), &Fate)| {
                    key.0 == order.group && key.1 < order.grant && fate.begun && !fate.ended
                };
                assert!(!has_end || !self.fates.iter().any(is_owed), "a post_demote is outstanding");
            }
            let fate = self.fates.entry((Arc::clone(&order.group), order.grant)).or_default();
            match order.hook {
                Hook::PrePromote | Hook::PostPromote => {
                    assert!(!fate.ended, "{order:?} after its post_demote");
                    fate.begun = true;
                }
                Hook::PostDemote => assert!(!std::mem::replace(&mut fate.ended, true), "twice: {order:?}"),
                Hook::PreDemote => assert!(!fate.ended),
                Hook::OnFault => {}
            }
            let until = self.now.plus(Duration::from_millis(self.rng.u64(0..400)));
            self.running.insert(number, Run { order, until, well: self.rng.u8(0..4) > 0 });
        }
    }

    fn end(&mut self) {
        let over = self.running.iter().filter(|(_, run)| run.until <= self.now).map(|(n, _)| *n);
        for number in over.collect::<Vec<_>>() {
            let run = self.running.remove(&number).unwrap();
            let is_waiting = |order: &HookOrder| order.hook == Hook::PrePromote;
            let line = &self.sequencer.lines[&run.order.group];
            self.waited +=
                usize::from(run.order.hook == Hook::PostDemote && line.waiting.iter().any(is_waiting));
            self.sequencer.ended(number);
            if let Some(ticket) = run.order.ticket {
                self.hook_ended(run.order.hook, ticket, run.well);
            }
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus(Duration::from_millis(self.rng.u64(0..60)));
        self.end();
        let group = self.rng.usize(0..self.held.len());
        match self.rng.u8(0..8) {
            0 => self.leave(group),
            _ => self.turn(group),
        }
        self.begin();
    }

    /// Everything is lost, and what is left comes to its end.
    fn finish(&mut self) {
        for group in 0..self.held.len() {
            let step = self.gates.word(Self::id(group), Lease::NONE, self.now);
            self.cancel(step.cancel);
            self.held[group] = None;
            self.states[group] = GroupState::Standby;
            let told = self.changed(Self::id(group), GroupState::Standby, Reason::Stopping);
            self.tell(group, told);
        }
        for _ in 0..1_000 {
            self.begin();
            self.now = self.now.plus(Duration::from_millis(100));
            self.end();
        }
        assert!(self.sequencer.is_idle() && self.running.is_empty(), "{:?}", self.sequencer);
        assert!(self.sequencer.tickets.is_empty());
        for ((group, grant), fate) in &self.fates {
            let place: usize = group[1..].parse().unwrap();
            let has_end = self.hooks[place].contains(&Hook::PostDemote);
            assert!(!has_end || !fate.begun || fate.ended, "{group} {grant:?} has begun and was not ended");
        }
    }
}

#[test]
fn whatever_comes_and_goes_hooks_keep_the_order_of_grants_and_come_in_pairs() {
    let (mut waited, mut dropped, mut runs) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        waited += world.waited;
        dropped += world.dropped;
        runs += world.sequencer.runs;
    }
    // The test must have met hard cases, not easy days alone.
    assert!(waited > 1_000 && dropped > 100 && runs > 50_000, "{waited}, {dropped}, {runs}");
}
