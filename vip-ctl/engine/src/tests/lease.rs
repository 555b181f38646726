//! Getting, keeping and losing a lease.

use super::*;

#[test]
fn the_first_election_goes_by_rank_after_the_silence() {
    let priorities = vec![100, 150, 100];
    let mut cluster =
        Cluster::with_groups(&[Role::Node; 3], vec![GroupSpec { priorities, ..GroupSpec::default() }]);
    let took = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder().is_some());
    // Silence, then both phases: nobody may be faster, and rank 0 doesn't wait.
    let took = took.unwrap();
    assert!(took >= ACCEPT && took < ACCEPT + RANK_SLOT_MIN, "{took:?}");
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(B));
    assert_eq!(cluster.announced(), [B]);
    for node in [A, B, C] {
        let status = cluster.state(node);
        assert_eq!((status.holder, status.epoch), (Some(B), Epoch(1)));
        assert_eq!(status.ready, [A, B, C]);
        let state = if node == B { GroupState::Active } else { GroupState::Standby };
        assert_eq!(status.state, state);
    }
}

#[test]
fn a_renewal_keeps_epoch_and_fence_and_says_nothing() {
    let mut cluster = Cluster::settled();
    cluster.log.clear();
    let before = cluster.state(A);
    cluster.run(ACCEPT * 10);
    let after = cluster.state(A);
    assert_eq!(after.epoch, before.epoch);
    assert!(after.expiry > before.expiry);
    let stores = cluster.log.iter().filter(|(_, node, output)| {
        *node == A && matches!(output, Output::StoreLease { lease, .. } if *lease != Lease::NONE)
    });
    assert_eq!(stores.count(), cluster.log.len(), "only leases are stored: {:?}", cluster.log);
    // Every r = 40 ms, give or take the two phases.
    assert!((45..=50).contains(&cluster.log.len()), "{}", cluster.log.len());
}

/// When `node` last sent a message like this.
fn sent_last(cluster: &Cluster, node: NodeId, is_it: impl Fn(&About) -> bool) -> BootNs {
    let has_it = |packet: &Packet| {
        packet.messages.iter().any(|m| matches!(m, Message::Group { about, .. } if is_it(about)))
    };
    cluster.sent.iter().rfind(|(_, from, _, packet)| *from == node && has_it(packet)).unwrap().0
}

#[test]
fn a_lease_counts_from_the_first_word_of_its_attempt() {
    let mut cluster = Cluster::settled();
    cluster.delay = ms(5);
    cluster.run(ACCEPT);
    // A renewal has one phase.
    cluster.log.clear();
    cluster.run_until(ACCEPT, |cluster| cluster.log.iter().any(|(_, node, _)| *node == A)).unwrap();
    let sent = sent_last(&cluster, A, |about| matches!(about, About::Propose { .. }));
    assert_eq!(cluster.maps[&(A, DB)], Lease::until(sent.plus(HOLD)));
    assert_eq!(cluster.now, sent.plus(ms(10)));
    // A grant has two.
    cluster.kill(A);
    cluster.give(C, Input::Eligible { group: DB, eligible: false });
    cluster.run_until(ACCEPT * 3, |cluster| cluster.holder() == Some(B)).unwrap();
    let sent = sent_last(&cluster, B, |about| matches!(about, About::Prepare { .. }));
    assert_eq!(cluster.maps[&(B, DB)], Lease::until(sent.plus(HOLD)));
    assert_eq!(cluster.now, sent.plus(ms(20)));
    // The lease counts from the first packet, even if that is sent again.
    cluster.lose(B, C);
    cluster.log.clear();
    let renewed = |cluster: &Cluster| cluster.log.iter().any(|(_, node, _)| *node == B);
    let came_back = cluster.run_until(ms(35), renewed);
    cluster.cut.clear();
    cluster.run_until(ACCEPT, renewed).unwrap();
    let repeated = sent_last(&cluster, B, |about| matches!(about, About::Propose { .. }));
    assert_eq!((came_back, cluster.now), (None, repeated.plus(ms(10))));
    assert!(cluster.maps[&(B, DB)].expiry() < Some(repeated.plus(HOLD)), "it was sent before that");
}

#[test]
fn groups_that_are_renewed_together_have_one_round() {
    let groups = (0..5).map(|_| GroupSpec { priorities: vec![3, 2, 1], ..GroupSpec::default() }).collect();
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], groups);
    cluster.run(ACCEPT * 2);
    // One of them is at a higher round than the others.
    let other = Command::Switchover { group: GroupId(2), to: Some(B) };
    assert_eq!(cluster.command(A, other), Ok(Completed::HeldBy(B)));
    let back = Command::Switchover { group: GroupId(2), to: Some(A) };
    assert_eq!(cluster.command(A, back), Ok(Completed::HeldBy(A)));
    cluster.run(ACCEPT * 2);
    cluster.sent.clear();
    cluster.run(ms(40));
    let of = |packet: &Packet| -> Vec<Ballot> {
        let mut ballots = Vec::new();
        for message in &packet.messages {
            if let Message::Group { about: About::Propose { ballot, claim: Claim::Held, .. }, .. } = message {
                ballots.push(*ballot);
            }
        }
        ballots
    };
    let renewals: Vec<_> = cluster.sent.iter().map(|sent| of(&sent.3)).filter(|of| !of.is_empty()).collect();
    assert!(!renewals.is_empty());
    for renewal in renewals {
        assert_eq!(renewal.len(), 5, "{renewal:?}");
        assert!(renewal.iter().all(|ballot| *ballot == renewal[0]), "{renewal:?}");
    }
}

#[test]
fn a_silent_holder_is_replaced_within_t_accept_and_a_slot() {
    let mut cluster = Cluster::settled();
    for _ in 0..5 {
        cluster.run(ms(7));
        let lost = cluster.holder().unwrap();
        cluster.kill(lost);
        let took = cluster.run_until(ACCEPT * 2, |c| c.holder().is_some_and(|holder| holder != lost));
        let took = took.unwrap();
        // T_accept − x + σ + 2·RTT, with the age x of the last renewal up to r + both phases.
        assert!(took >= ACCEPT - ms(42), "{took:?}");
        assert!(took <= ACCEPT + RANK_SLOT_MIN * 2 + DELAY * 8, "{took:?}");
        cluster.start(lost);
        cluster.run(ACCEPT * 3);
    }
}

#[test]
fn the_first_survivor_waits_for_no_slot() {
    let mut cluster = Cluster::settled();
    cluster.run(ms(7));
    let until = cluster.engines[&B].groups[GroupId(0)].acceptor.lease(cluster.now).unwrap().until;
    let until = until.max(cluster.engines[&C].groups[GroupId(0)].acceptor.lease(cluster.now).unwrap().until);
    cluster.kill(A);
    let took = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder() == Some(B)).unwrap();
    let rest = until.since(cluster.now.max(until)).max(Duration::ZERO);
    let after = cluster.now.since(until) + rest;
    assert!(after < RANK_SLOT_MIN && took < ACCEPT + RANK_SLOT_MIN, "{after:?} after the vote ended");
    // A node that comes back has its rank again.
    cluster.start(A);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_dead_holder_takes_all_groups_to_the_next_in_rank_each() {
    let first = GroupSpec { priorities: vec![200, 100, 50], ..GroupSpec::default() };
    let second = GroupSpec { priorities: vec![200, 50, 100], ..GroupSpec::default() };
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], vec![first, second]);
    cluster.run(ACCEPT * 3);
    assert_eq!((cluster.open(GroupId(0)), cluster.open(GroupId(1))), (vec![A], vec![A]));
    cluster.kill(A);
    cluster.run(ACCEPT * 2);
    assert_eq!((cluster.open(GroupId(0)), cluster.open(GroupId(1))), (vec![B], vec![C]));
    assert_eq!(cluster.state(B).epoch, Epoch(2));
}

#[test]
fn nobody_takes_over_without_a_majority() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.kill(B);
    cluster.run(ACCEPT * 20);
    assert_eq!(cluster.holder(), None);
    assert!(!cluster.engines[&C].status(cluster.now).quorate);
    // It does not even try any more, so that it disturbs nobody.
    cluster.sent.clear();
    cluster.run(ACCEPT * 5);
    let asked = |(_, _, _, packet): &(BootNs, NodeId, NodeId, Packet)| {
        packet.messages.iter().any(|message| matches!(message, Message::Group { .. }))
    };
    assert!(!cluster.sent.iter().any(asked));
}

#[test]
fn a_node_that_hears_a_majority_again_stands() {
    let mut cluster = Cluster::settled();
    // B is stopped for so long that it counts nobody as present any more.
    let mut stopped = cluster.engines.remove(&B).unwrap();
    cluster.kill(A);
    cluster.run(ms(700));
    let heartbeat = Message::Heartbeat { first: DB, ready: vec![true] };
    stopped.handle(Input::Message { from: C, packet: Packet { messages: vec![heartbeat] } }, cluster.now);
    cluster.engines.insert(B, stopped);
    cluster.give(C, Input::Eligible { group: DB, eligible: false });
    let took = cluster.run_until(ms(20), |cluster| cluster.holder() == Some(B));
    assert!(took.is_some());
}

#[test]
fn an_isolated_holder_is_fenced_before_the_others_take_over() {
    let mut cluster = Cluster::settled();
    cluster.isolate(A);
    // `run` asserts that no two fences are open at once.
    let fenced = cluster.run_until(ACCEPT, |cluster| cluster.holder() != Some(A)).unwrap();
    assert!(fenced <= HOLD, "{fenced:?}");
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(B));
    assert_eq!((cluster.state(A).state, cluster.state(A).holder), (GroupState::Standby, None));
    // After the cut A learns of the new lease, and does not take it back.
    cluster.cut.clear();
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(A).holder), (Some(B), Some(B)));
    assert_eq!(cluster.announced(), [A, B]);
}

#[test]
fn a_deaf_standby_does_not_starve_the_holder() {
    let mut cluster = Cluster::settled();
    // B hears C but not A; all hear B. It sees no lease and stands, again and again.
    cluster.lose(A, B);
    cluster.log.clear();
    cluster.run(ACCEPT * 20);
    assert_eq!(cluster.holder(), Some(A));
    let moved = cluster.log.iter().any(|(_, _, output)| matches!(output, Output::Announce { .. }));
    assert!(!moved, "the lease moved");
}

#[test]
fn a_holder_that_can_only_speak_is_replaced_and_lets_go() {
    let mut cluster = Cluster::settled();
    cluster.lose(B, A);
    cluster.lose(C, A);
    cluster.run(ACCEPT * 6);
    assert_eq!(cluster.holder(), Some(B));
    let epoch = cluster.state(B).epoch;
    cluster.run(ACCEPT * 10);
    assert_eq!((cluster.holder(), cluster.state(B).epoch), (Some(B), epoch));
}

#[test]
fn a_round_trip_close_to_r_still_renews() {
    let mut cluster = Cluster::settled();
    cluster.delay = ms(18);
    cluster.run(ACCEPT * 2);
    cluster.log.clear();
    cluster.run(ACCEPT * 10);
    assert_eq!(cluster.holder(), Some(A));
    let lapsed = cluster.log.iter().any(|(_, _, output)| matches!(output, Output::Changed(_)));
    assert!(!lapsed, "{:?}", cluster.log);
}

#[test]
fn a_witness_votes_and_never_holds() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.state(C).state, GroupState::Witness);
    cluster.kill(A);
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), Some(B));
    cluster.kill(B);
    cluster.start(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
    assert!(!cluster.announced().contains(&C));
}

#[test]
fn losing_eligibility_clears_the_map_before_the_release_is_sent() {
    let mut cluster = Cluster::settled();
    cluster.log.clear();
    cluster.sent.clear();
    let engine = cluster.engines.get_mut(&A).unwrap();
    engine.handle(Input::Eligible { group: DB, eligible: false }, cluster.now);
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll_output()).collect();
    let store = outputs.iter().position(|o| *o == Output::StoreLease { group: DB, lease: Lease::NONE });
    let release = outputs.iter().position(|output| {
        let Output::Send { packet, .. } = output else { return false };
        let is_release = |message: &_| matches!(message, Message::Group { about: About::Release { .. }, .. });
        packet.messages.iter().any(is_release)
    });
    assert!(store.unwrap() < release.unwrap(), "{outputs:?}");
    assert_eq!(cluster.state(A).state, GroupState::Fault);
}

#[test]
fn a_node_that_becomes_ineligible_hands_over_at_once_and_comes_back_as_standby() {
    let mut cluster = Cluster::settled();
    cluster.give(A, Input::Eligible { group: DB, eligible: false });
    assert_eq!(cluster.holder(), None);
    let took = cluster.run_until(ACCEPT, |cluster| cluster.holder().is_some()).unwrap();
    assert!(took <= DELAY * 8, "{took:?}");
    assert_eq!(cluster.holder(), Some(B));
    cluster.give(A, Input::Eligible { group: DB, eligible: true });
    cluster.run(ACCEPT * 5);
    // Priority orders candidates; it takes nothing from a holder.
    assert_eq!((cluster.holder(), cluster.state(A).state), (Some(B), GroupState::Standby));
}

#[test]
fn after_a_long_stop_everything_has_run_out_before_old_packets_count() {
    let mut cluster = Cluster::settled();
    // A renews; the answers come, but the process is stopped for a second.
    cluster.run_until(ACCEPT, |c| c.in_flight.values().any(|&(from, to, _)| (from, to) == (B, A))).unwrap();
    let waiting: Vec<_> = cluster.in_flight.values().filter(|&&(_, to, _)| to == A).cloned().collect();
    let mut stopped = cluster.engines.remove(&A).unwrap();
    cluster.run(ms(1000));
    assert_eq!(cluster.holder(), Some(B));
    for (from, _, packet) in waiting {
        stopped.handle(Input::Message { from, packet }, cluster.now);
        while let Some(output) = stopped.poll_output() {
            let opened = matches!(output, Output::StoreLease { lease, .. } if lease != Lease::NONE)
                || matches!(output, Output::Announce { .. });
            assert!(!opened, "{output:?}");
        }
    }
    assert_eq!(stopped.status(cluster.now).groups[GroupId(0)].state, GroupState::Standby);
    cluster.engines.insert(A, stopped);
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(A).holder), (Some(B), Some(B)));
}

/// The refusal of `ballot` by an acceptor that has a lease of B, under this round, claim and
/// epoch.
fn refused_for_b(from: NodeId, ballot: Ballot, round: u64, (claim, epoch): (Claim, u64)) -> Input {
    let theirs = Ballot { round, incarnation: Incarnation(99), node: B };
    let because = Refused::Held { ballot: theirs, epoch: Epoch(epoch), claim, remaining: ms(100) };
    let about = About::Refuse { ballot, because };
    Input::Message { from, packet: Packet { messages: vec![Message::Group { group: DB, about }] } }
}

/// Such a refusal by C, for A, which holds: it says that B holds.
fn held_by_b(cluster: &Cluster, round: u64, epoch: u64) -> Input {
    let mine = Ballot { round: 1, incarnation: Incarnation(1), node: A };
    assert!(cluster.holder() == Some(A), "A holds before");
    refused_for_b(C, mine, round, (Claim::Held, epoch))
}

#[test]
fn a_refusal_for_a_newer_lease_ends_the_lease_at_once() {
    let mut cluster = Cluster::settled();
    // Whatever its ballot: voters that have restarted begin their rounds anew.
    let refusal = held_by_b(&cluster, 0, 2);
    cluster.give(A, refusal);
    assert_eq!((cluster.holder(), cluster.maps[&(A, DB)]), (None, Lease::NONE));
}

/// A's virtual machine was paused, its voters lost their disks, and B has a lease of the same
/// epoch: nobody remembers the old one.
#[test]
fn a_refusal_by_the_holder_itself_ends_a_lease_of_the_same_epoch() {
    let (asked, has, forced) = ((Claim::Asked, 1), (Claim::Held, 1), (Claim::Forced, 1));
    for (claim, from, renews, stays) in [
        (has, B, true, false),
        (asked, B, true, true),
        (forced, B, true, true),
        (has, C, true, true),
        (has, B, false, true),
        // B's own machine was paused, and A has replaced it.
        ((Claim::Held, 0), B, true, true),
    ] {
        let mut cluster = Cluster::settled();
        let won = cluster.engines[&A].groups[GroupId(0)].lease.unwrap().ballot.unwrap();
        let ballot = if renews { Ballot { round: won.round + 1, ..won } } else { won };
        cluster.give(A, refused_for_b(from, ballot, 0, claim));
        let told = format!("{claim:?}, from {from:?}, a renewal {renews}");
        assert_eq!(cluster.holder(), stays.then_some(A), "{told}");
        assert_eq!(cluster.maps[&(A, DB)] == Lease::NONE, !stays, "{told}");
    }
}

/// B has crashed, which put its epochs far ahead, and had an attempt under way when
/// A won by the votes of others: A met it again and again, and gave way each time
/// (seed 10,133,020).
#[test]
fn an_attempt_that_is_older_than_the_grant_ends_no_lease_however_late_its_epoch() {
    for (claim, above, stays) in
        [(Claim::Asked, false, true), (Claim::Asked, true, false), (Claim::Held, false, false)]
    {
        let mut cluster = Cluster::settled();
        let mine = cluster.engines[&A].groups[GroupId(0)].lease.unwrap().ballot.unwrap();
        let round = if above { mine.round + 1 } else { mine.round - 1 };
        let renewal = Ballot { round: mine.round + 2, ..mine };
        cluster.give(A, refused_for_b(B, renewal, round, (claim, 1001)));
        assert_eq!(cluster.holder(), stays.then_some(A), "{claim:?}, above ours: {above}");
    }
}

/// B took the group by force while it was cut off, with a higher epoch.
#[test]
fn what_is_held_by_force_ends_no_lease_of_a_majority() {
    for (claim, stays) in [(Claim::Forced, true), (Claim::Held, false), (Claim::Asked, false)] {
        let mut cluster = Cluster::settled();
        let mine = cluster.engines[&A].groups[GroupId(0)].lease.unwrap().ballot.unwrap();
        let renewal = Ballot { round: mine.round + 1, ..mine };
        cluster.give(A, refused_for_b(B, renewal, 99, (claim, 2)));
        assert_eq!(cluster.holder(), stays.then_some(A), "{claim:?}");
    }
}

#[test]
fn a_holder_says_that_it_holds_and_one_whose_lease_is_over_does_not() {
    let mut cluster = Cluster::settled();
    let ballot = Ballot { round: 1_000, incarnation: Incarnation(7), node: B };
    let asks = Input::Message {
        from: B,
        packet: Packet { messages: vec![Message::Group { group: DB, about: About::Prepare { ballot } }] },
    };
    cluster.isolate(A);
    for claim in [Claim::Held, Claim::Asked] {
        if claim == Claim::Asked {
            cluster.run_until(ACCEPT, |cluster| cluster.state(A).expiry.is_none()).unwrap();
        }
        cluster.sent.clear();
        cluster.give(A, asks.clone());
        let refused = cluster.sent.iter().find_map(|(_, from, to, packet)| {
            packet.messages.iter().find_map(|message| {
                let Message::Group { about: About::Refuse { because, .. }, .. } = message else {
                    return None;
                };
                let Refused::Held { ballot, claim, .. } = because else { return None };
                ((*from, *to, ballot.node) == (A, B, A)).then_some(*claim)
            })
        });
        assert_eq!(refused, Some(claim));
    }
}

#[test]
fn a_refusal_for_an_older_leases_remains_changes_nothing() {
    let mut cluster = Cluster::settled();
    // A holder that is cut off goes on to renew, under ever higher ballots.
    let refusal = held_by_b(&cluster, 1_000_000, 1);
    cluster.give(A, refusal);
    assert_eq!(cluster.holder(), Some(A));
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_late_duplicate_of_a_release_takes_nothing_away() {
    let mut cluster = Cluster::settled();
    cluster.sent.clear();
    cluster.command(A, Command::Switchover { group: DB, to: Some(B) }).unwrap();
    cluster.command(B, Command::Switchover { group: DB, to: Some(A) }).unwrap();
    let released = |m: &Message| matches!(m, Message::Group { about: About::Release { .. }, .. });
    let old: Vec<_> = cluster
        .sent
        .iter()
        .filter(|(_, _, _, packet)| packet.messages.iter().any(released))
        .cloned()
        .collect();
    assert!(old.len() >= 4, "{old:?}");
    cluster.log.clear();
    for (_, from, to, packet) in old {
        cluster.give(to, Input::Message { from, packet });
        cluster.run(ms(50));
        assert_eq!(cluster.holder(), Some(A));
    }
}

#[test]
fn duels_between_equal_candidates_end() {
    // Packets take longer than a slot, so that candidates don't see each other in time.
    let mut cluster = Cluster::new(&[Role::Node; 5]);
    cluster.delay = ms(6);
    let took = cluster.run_until(ACCEPT * 10, |cluster| cluster.holder().is_some());
    assert!(took.is_some_and(|took| took < ACCEPT * 3), "{took:?}");
}

#[test]
fn all_groups_to_one_peer_share_datagrams() {
    let groups = vec![GroupSpec::default(); 40];
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], groups);
    cluster.run(ACCEPT * 4);
    for group in cluster.config.group_ids() {
        assert_eq!(cluster.open(group), [A]);
    }
    cluster.sent.clear();
    cluster.run(ms(40) * 10);
    let to_b = cluster.sent.iter().filter(|(_, from, to, _)| (*from, *to) == (A, B)).count();
    // Ten renewals of two phases, and eight heartbeats; a Propose for 40 groups fills one packet.
    assert!(to_b <= 10 * 2 * 2 + 9, "{to_b} packets");
}
