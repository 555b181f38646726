//! What the gate lets into the map, and what it never does.

use super::*;

const GROUP: GroupId = GroupId(0);
const LEASE: Duration = Duration::from_millis(160);
const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(0);
const GRANT: (Epoch, Reason) = (Epoch(7), Reason::Elected);

fn at(ms: u64) -> BootNs {
    BootNs(ms * 1_000_000)
}

fn word(ms: u64) -> Lease {
    Lease::until(at(ms).plus(LEASE))
}

fn gates(rule: GateRule, held: &[(GroupId, BootNs)]) -> Gates {
    Gates::new(vec![rule].into(), held)
}

fn transition(state: GroupState, holder: Option<NodeId>, (epoch, reason): (Epoch, Reason)) -> Transition {
    Transition { group: GROUP, state, epoch, reason, holder }
}

fn waits() -> GateRule {
    GateRule { pre_promote: true, retry_after: Duration::from_secs(30), ..GateRule::default() }
}

/// Wins the lease at `ms`, as the engine tells it.
fn win(gates: &mut Gates, ms: u64) -> Ticket {
    let step = gates.word(GROUP, word(ms), at(ms));
    assert_eq!(step.store, None, "the fence stays shut");
    let told = gates.changed(&transition(GroupState::Active, Some(ME), GRANT), at(ms));
    assert!(told.promoting);
    told.begin.expect("the hook is to be run")
}

#[test]
fn without_a_hook_each_word_goes_into_the_map() {
    let mut gates = gates(GateRule::default(), &[]);
    for ms in [0, 40, 80] {
        assert_eq!(gates.word(GROUP, word(ms), at(ms)).store, Some(word(ms)));
    }
    assert!(gates.is_open(GROUP, at(100)));
    assert_eq!(gates.word(GROUP, Lease::NONE, at(120)).store, Some(Lease::NONE));
    assert!(!gates.is_open(GROUP, at(120)));
}

#[test]
fn the_newest_word_goes_into_the_map_when_the_hook_has_ended() {
    let mut gates = gates(waits(), &[]);
    let ticket = win(&mut gates, 0);
    for ms in [40, 80, 120, 160, 200] {
        assert_eq!(gates.word(GROUP, word(ms), at(ms)), Step::default());
        assert!(gates.is_promoting(GROUP) && !gates.is_open(GROUP, at(ms)));
    }
    let Promotion::Open { group: GROUP, lease, epoch, reason, gap } = gates.ended(ticket, true, at(210))
    else {
        panic!("it opens");
    };
    assert_eq!((lease, epoch, reason, gap), (word(200), GRANT.0, GRANT.1, None));
    assert_eq!(gates.word(GROUP, word(240), at(240)).store, Some(word(240)), "and those after it");
    assert_eq!(gates.ended(ticket, true, at(241)), Promotion::Stale, "once");
}

#[test]
fn a_release_while_the_hook_runs_never_opens_the_fence() {
    let mut gates = gates(waits(), &[]);
    let ticket = win(&mut gates, 0);
    gates.word(GROUP, word(40), at(40));
    let step = gates.word(GROUP, Lease::NONE, at(50));
    assert_eq!(step, Step { store: Some(Lease::NONE), cancel: Some(ticket) });
    for well in [true, false] {
        assert_eq!(gates.ended(ticket, well, at(51)), Promotion::Stale);
    }
}

#[test]
fn a_lease_that_runs_out_while_the_hook_runs_never_opens_the_fence() {
    let mut gates = gates(waits(), &[]);
    let ticket = win(&mut gates, 0);
    let ended = at(0).plus(LEASE);
    // The hook ends too late: before the engine has noticed the end of the lease, and after.
    assert_eq!(gates.ended(ticket, true, ended), Promotion::Stale);
    let told =
        gates.changed(&transition(GroupState::Standby, None, (GRANT.0, Reason::Expired)), ended.plus(LEASE));
    assert_eq!(told.cancel, Some(ticket));
    assert_eq!(gates.ended(ticket, true, ended.plus(LEASE)), Promotion::Stale);
}

#[test]
fn the_end_of_a_hook_opens_no_later_grant() {
    let mut gates = gates(waits(), &[]);
    let first = win(&mut gates, 0);
    // The lease ran out and was won again in one turn: the gate was told of no change in between.
    let step = gates.word(GROUP, word(500), at(500));
    assert_eq!(step, Step { store: None, cancel: Some(first) });
    let told = gates.changed(&transition(GroupState::Active, Some(ME), (Epoch(8), Reason::Elected)), at(500));
    let second = told.begin.expect("its own hook");
    assert_ne!(first, second);
    assert_eq!(gates.ended(first, true, at(510)), Promotion::Stale);
    assert!(matches!(gates.ended(second, true, at(520)), Promotion::Open { .. }));
    // The same after a release.
    gates.word(GROUP, Lease::NONE, at(530));
    let third = win(&mut gates, 540);
    assert_eq!(gates.ended(second, true, at(550)), Promotion::Stale);
    assert!(matches!(gates.ended(third, true, at(560)), Promotion::Open { .. }));
}

#[test]
fn an_adopted_lease_is_never_shut_and_runs_no_hook() {
    let mut gates = gates(waits(), &[(GROUP, at(100))]);
    assert!(gates.is_open(GROUP, at(10)));
    assert_eq!(gates.word(GROUP, word(20), at(20)).store, Some(word(20)));
    let told = gates.changed(&transition(GroupState::Active, Some(ME), (Epoch(3), Reason::Adopted)), at(20));
    assert_eq!(told, Told::default());
    // Once it is lost, the next grant waits as any other.
    gates.word(GROUP, Lease::NONE, at(30));
    win(&mut gates, 50);
}

#[test]
fn a_lease_from_before_that_ran_out_is_no_reason_to_open() {
    let mut gates = gates(waits(), &[(GROUP, at(100))]);
    win(&mut gates, 100);
}

#[test]
fn a_failed_hook_asks_for_a_release_and_bars_the_group_for_a_while() {
    let mut gates = gates(waits(), &[]);
    assert_eq!(gates.eligible(GROUP, Eligible::Yes), Eligible::Yes);
    let ticket = win(&mut gates, 0);
    assert_eq!(gates.ended(ticket, false, at(10)), Promotion::Release(GROUP));
    assert!(gates.is_promoting(GROUP));
    assert_eq!(gates.eligible(GROUP, Eligible::Yes), Eligible::No, "barred");
    assert_eq!(gates.eligible(GROUP, Eligible::Unwell), Eligible::No);
    // The gate stores no lease of this grant any more, whatever the engine says.
    assert_eq!(gates.word(GROUP, word(40), at(40)).store, None);
    assert_eq!(gates.ended(ticket, true, at(41)), Promotion::Stale);
    assert_eq!(gates.word(GROUP, Lease::NONE, at(42)).store, Some(Lease::NONE));
    assert!(!gates.is_promoting(GROUP));
    let free = at(10).plus(Duration::from_secs(30));
    assert_eq!(gates.next_deadline(), Some(free));
    assert_eq!(gates.unbarred(at(1_000)), []);
    assert_eq!(gates.unbarred(free), [(GROUP, Eligible::Unwell)]);
    assert_eq!(gates.eligible(GROUP, Eligible::Yes), Eligible::Yes);
}

#[test]
fn a_failed_hook_that_is_to_be_ignored_opens() {
    let mut gates = gates(GateRule { ignore_failure: true, ..waits() }, &[]);
    let ticket = win(&mut gates, 0);
    assert!(matches!(gates.ended(ticket, false, at(10)), Promotion::Open { .. }));
    assert_eq!(gates.next_deadline(), None);
}

#[test]
fn the_gap_is_from_the_end_before_to_the_write() {
    // This node saw the end of another node's lease.
    let mut plain = gates(GateRule::default(), &[]);
    let seen = (Epoch(6), Reason::HolderSeen);
    plain.changed(&transition(GroupState::Standby, Some(OTHER), seen), at(0));
    plain.changed(&transition(GroupState::Standby, None, (Epoch(6), Reason::HolderReleased)), at(100));
    plain.word(GROUP, word(103), at(103));
    let told = plain.changed(&transition(GroupState::Active, Some(ME), GRANT), at(103));
    assert_eq!(told.gap, Some(Duration::from_millis(3)));
    // The gap is told only once.
    assert_eq!(plain.changed(&transition(GroupState::Active, Some(ME), GRANT), at(104)).gap, None);
    // This node's own lease ran out unnoticed: the gap begins at its end.
    plain.word(GROUP, word(1_000), at(1_000));
    let told = plain.changed(&transition(GroupState::Active, Some(ME), GRANT), at(1_000));
    assert_eq!(told.gap, Some(at(1_000).since(at(103).plus(LEASE))));

    // With a hook the gap ends when the fence opens. A grant whose fence never opened ends no
    // gap.
    let mut hooked = gates(waits(), &[]);
    hooked.changed(&transition(GroupState::Standby, Some(OTHER), seen), at(0));
    hooked.changed(&transition(GroupState::Standby, None, (Epoch(6), Reason::HolderExpired)), at(100));
    win(&mut hooked, 110);
    hooked.word(GROUP, Lease::NONE, at(120));
    hooked.changed(&transition(GroupState::Standby, None, (Epoch(7), Reason::Superseded)), at(120));
    let ticket = win(&mut hooked, 200);
    let Promotion::Open { gap, .. } = hooked.ended(ticket, true, at(300)) else { panic!("it opens") };
    assert_eq!(gap, Some(Duration::from_millis(200)));
    // No earlier holder is known, so the gap is not known either.
    let mut first = gates(GateRule::default(), &[]);
    first.word(GROUP, word(0), at(0));
    assert_eq!(first.changed(&transition(GroupState::Active, Some(ME), GRANT), at(0)).gap, None);
}

#[test]
fn a_reload_keeps_each_group_with_what_it_waits_for() {
    let other = GateRule { name: "web".into(), ..GateRule::default() };
    let mut gates = Gates::new(vec![waits()].into(), &[]);
    let ticket = win(&mut gates, 0);
    gates.regroup(&vec![None, Some(GROUP)].into(), vec![other.clone(), waits()].into());
    let moved = GroupId(1);
    assert!(gates.is_promoting(moved) && !gates.is_promoting(GROUP));
    assert_eq!(gates.word(moved, word(40), at(40)).store, None);
    assert_eq!(gates.word(GROUP, word(40), at(40)).store, Some(word(40)), "the new one has no hook");
    let Promotion::Release(group) = gates.ended(ticket, false, at(50)) else { panic!("it failed") };
    assert_eq!(group, moved);
    gates.regroup(&vec![Some(moved)].into(), vec![waits()].into());
    assert!(gates.is_promoting(GROUP), "and stays away from it");
    assert_eq!(gates.eligible(GROUP, Eligible::Yes), Eligible::No);
    // The group is gone, and another one has its number.
    gates.regroup(&vec![None].into(), vec![other].into());
    assert!(!gates.is_promoting(GROUP));
    assert_eq!(gates.next_deadline(), None);
}
