//! The acceptor's rules, one by one.

use vip_common::BootNs;

use super::{A, ACCEPT, B, C, ms};
use crate::{
    Ballot, Claim, Epoch, Incarnation, NodeId, RESERVE_MIN, Refused,
    group::{Acceptor, Lapsed, OwnPhase, Promised},
    mutant::Broken,
};

const T0: BootNs = BootNs(1_000_000_000);

fn ballot(round: u64, node: NodeId) -> Ballot {
    Ballot { round, incarnation: Incarnation(u64::from(node.0) + 10), node }
}

fn accepted_from_a(round: u64) -> Acceptor {
    let mut acceptor = Acceptor::idle();
    acceptor.prepare(ballot(round, A), T0).unwrap();
    acceptor.propose(ballot(round, A), Epoch(3), Claim::Held, T0, ACCEPT).unwrap();
    acceptor
}

#[test]
fn ballots_are_ordered_by_round_then_incarnation_then_node() {
    let low = Ballot { round: 1, incarnation: Incarnation(9), node: C };
    assert!(low < Ballot { round: 2, incarnation: Incarnation(1), node: A });
    assert!(low < Ballot { round: 1, incarnation: Incarnation(10), node: A });
    assert!(Ballot { node: B, ..low } < low);
}

#[test]
fn a_promise_keeps_lower_ballots_out_in_both_phases() {
    let mut acceptor = Acceptor::idle();
    acceptor.prepare(ballot(5, A), T0).unwrap();
    let refused = Err(Refused::Promised { ballot: ballot(5, A) });
    assert_eq!(acceptor.prepare(ballot(4, B), T0), refused.map(|()| unreachable!()));
    assert_eq!(acceptor.propose(ballot(4, B), Epoch(1), Claim::Held, T0, ACCEPT), refused);
    assert!(acceptor.lease(T0).is_none());
}

#[test]
fn a_duplicate_prepare_is_promised_again() {
    let mut acceptor = Acceptor::idle();
    let first = acceptor.prepare(ballot(5, A), T0);
    assert_eq!(acceptor.prepare(ballot(5, A), T0), first);
}

#[test]
fn anothers_lease_is_refused_with_holder_and_rest_and_promises_nothing() {
    let mut acceptor = accepted_from_a(5);
    let later = T0.plus(ms(50));
    let held =
        Refused::Held { ballot: ballot(5, A), epoch: Epoch(3), claim: Claim::Held, remaining: ms(150) };
    assert_eq!(acceptor.prepare(ballot(9, B), later), Err(held));
    assert_eq!(acceptor.propose(ballot(9, B), Epoch(9), Claim::Held, later, ACCEPT), Err(held));
    // The holder's next ballot is lower than the intruder's, and goes through.
    let yours = Some(Epoch(3));
    assert_eq!(acceptor.prepare(ballot(6, A), later), Ok(Promised { epoch: Epoch(3), yours }));
    assert_eq!(acceptor.lease(later).unwrap().ballot, ballot(5, A));
}

#[test]
fn a_lease_lasts_from_receipt_for_t_accept_to_the_nanosecond() {
    let mut acceptor = accepted_from_a(5);
    let end = T0.plus(ACCEPT);
    assert!(acceptor.lease(BootNs(end.0 - 1)).is_some());
    assert!(acceptor.prepare(ballot(6, B), BootNs(end.0 - 1)).is_err());
    assert!(acceptor.lease(end).is_none());
    assert_eq!(acceptor.prepare(ballot(6, B), end), Ok(Promised { epoch: Epoch(3), yours: None }));
}

#[test]
fn the_owner_is_the_node_so_its_new_incarnation_renews() {
    let mut acceptor = accepted_from_a(5);
    let reborn = Ballot { round: 6, incarnation: Incarnation(77), node: A };
    assert_eq!(acceptor.prepare(reborn, T0).unwrap().yours, Some(Epoch(3)));
    assert_eq!(acceptor.propose(reborn, Epoch(3), Claim::Held, T0, ACCEPT), Ok(()));
}

#[test]
fn what_ran_out_is_reported_only_if_it_was_in_our_way() {
    let end = T0.plus(ACCEPT);
    assert_eq!(accepted_from_a(5).run_out(B, end), Some(Lapsed { at: end, holder: Some(A) }));
    assert_eq!(accepted_from_a(5).run_out(A, end), None);
    assert_eq!(accepted_from_a(5).run_out(B, BootNs(end.0 - 1)), None);
}

#[test]
fn a_release_clears_the_lease_and_keeps_its_ballots_out() {
    let mut acceptor = accepted_from_a(5);
    assert!(acceptor.release(ballot(7, A), None, T0, RESERVE_MIN));
    assert!(acceptor.lease(T0).is_none());
    let late = Err(Refused::Promised { ballot: ballot(7, A) });
    assert_eq!(acceptor.propose(ballot(5, A), Epoch(3), Claim::Held, T0, ACCEPT), late);
    assert_eq!(acceptor.propose(ballot(7, A), Epoch(3), Claim::Held, T0, ACCEPT), late);
    assert!(acceptor.prepare(ballot(8, B), T0).is_ok());
}

#[test]
fn a_late_release_touches_no_newer_lease() {
    let mut acceptor = accepted_from_a(9);
    assert!(acceptor.release(ballot(5, A), Some(B), T0, RESERVE_MIN));
    assert_eq!(acceptor.lease(T0).unwrap().ballot, ballot(9, A));
    assert!(!acceptor.reserved_for(B, T0));
}

#[test]
fn a_former_incarnations_release_touches_no_lease_of_the_new_one() {
    let mut acceptor = Acceptor::idle();
    let reborn = Ballot { round: 6, incarnation: Incarnation(77), node: A };
    acceptor.propose(reborn, Epoch(4), Claim::Held, T0, ACCEPT).unwrap();
    // The former incarnation had used a ballot that nobody ever saw.
    acceptor.release(ballot(8, A), None, T0, RESERVE_MIN);
    assert_eq!(acceptor.lease(T0).unwrap().ballot, reborn);
}

#[test]
fn a_released_group_is_kept_for_the_successor_for_a_while() {
    let mut acceptor = accepted_from_a(5);
    acceptor.release(ballot(5, A), Some(B), T0, RESERVE_MIN);
    let kept = Refused::Reserved { successor: B, remaining: RESERVE_MIN };
    assert_eq!(acceptor.prepare(ballot(9, C), T0), Err(kept));
    assert!(acceptor.clone().prepare(ballot(6, B), T0).is_ok());
    assert!(acceptor.prepare(ballot(9, C), T0.plus(RESERVE_MIN)).is_ok());
}

#[test]
fn a_duplicate_release_reserves_nothing_again() {
    let mut acceptor = accepted_from_a(5);
    assert!(acceptor.release(ballot(5, A), Some(B), T0, RESERVE_MIN));
    let later = T0.plus(RESERVE_MIN);
    assert!(!acceptor.release(ballot(5, A), Some(B), later, RESERVE_MIN));
    assert!(acceptor.prepare(ballot(6, C), later).is_ok());
}

#[test]
fn a_lease_is_known_to_be_held_by_the_ballot_that_won() {
    let mut acceptor = Acceptor::idle();
    acceptor.propose(ballot(5, A), Epoch(1), Claim::Asked, T0, ACCEPT).unwrap();
    assert_eq!(acceptor.lease(T0).unwrap().claim, Claim::Asked);
    assert!(!acceptor.confirm(ballot(4, A), T0));
    assert!(acceptor.confirm(ballot(5, A), T0));
    assert_eq!(acceptor.lease(T0).unwrap().claim, Claim::Held);
    assert!(!acceptor.confirm(ballot(5, A), T0.plus(ACCEPT)));
}

#[test]
fn who_takes_note_believes_a_holder_whose_ballot_is_lower_than_anothers_release() {
    let mut acceptor = Acceptor::idle();
    assert!(acceptor.release(ballot(41, B), None, T0, RESERVE_MIN));
    let (now, accept) = (T0.plus(ms(1)), ACCEPT);
    assert!(acceptor.learn(ballot(38, A), Epoch(4), Claim::Held, now, accept));
    assert_eq!(acceptor.lease(now).unwrap().ballot, ballot(38, A));
    // But it does not believe a lease from before the holder's own release.
    assert!(acceptor.release(ballot(42, A), None, now, RESERVE_MIN));
    assert!(!acceptor.learn(ballot(40, A), Epoch(4), Claim::Held, now, accept));
    assert!(acceptor.lease(now).is_none());
    // Its next process knows nothing of its rounds, and neither do voters that
    // have restarted meanwhile (seed 3,053,987).
    let next = Ballot { incarnation: Incarnation(99), ..ballot(7, A) };
    assert!(acceptor.learn(next, Epoch(5), Claim::Held, now, accept));
    assert_eq!(acceptor.lease(now).unwrap().ballot, next);
}

/// Rule 5: an acceptor that may have forgotten a promise refuses everybody, its own node
/// included.
#[test]
fn silence_refuses_everybody_and_this_nodes_own_candidacy() {
    let until = T0.plus(ACCEPT);
    let mut acceptor = Acceptor::new(Epoch(3), Epoch(0), until, Broken::chosen());
    for node in [A, B, C] {
        let silent = |at: BootNs| Refused::Silent { remaining: until.since(at) };
        for at in [T0, T0.plus(ms(199))] {
            assert_eq!(acceptor.prepare(ballot(9, node), at), Err(silent(at)));
            assert_eq!(acceptor.propose(ballot(9, node), Epoch(4), Claim::Held, at, ACCEPT), Err(silent(at)));
        }
    }
    assert_eq!((acceptor.lease(until), acceptor.next_deadline()), (None, Some(until)));
    assert_eq!(acceptor.run_out(A, until), None, "silence kept nobody in particular from standing");
    assert!(acceptor.prepare(ballot(1, B), until).is_ok(), "nothing was promised in the silence");
}

/// Where every vote is needed, this acceptor must have accepted its own node's lease, too.
#[test]
fn the_renewal_of_its_own_nodes_lease_is_the_one_door_through_the_silence() {
    let mut acceptor = Acceptor::new(Epoch(3), Epoch(0), T0.plus(ACCEPT), Broken::chosen());
    let own = ballot(2, A);
    assert!(acceptor.renew_own(OwnPhase::Prepare { ballot: own }, T0).is_ok());
    let propose = OwnPhase::Propose { ballot: own, epoch: Epoch(3), accept: ACCEPT };
    assert!(acceptor.renew_own(propose, T0).is_ok());
    assert!(acceptor.prepare(ballot(9, B), T0).is_err(), "the silence goes on for others");
    let foreign = OwnPhase::Prepare { ballot: ballot(9, B) };
    assert!(acceptor.renew_own(foreign, T0).is_err(), "and its lease is respected");
}
