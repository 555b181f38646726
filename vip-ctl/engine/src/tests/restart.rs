//! Starting anew, and stopping (rule 5).

use super::*;

#[test]
fn a_node_that_has_just_started_neither_votes_nor_stands() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.kill(B);
    cluster.run(ACCEPT);
    cluster.start(B);
    // C is alone with B, whose vote doesn't count before its silence is over.
    let took = cluster.run_until(ACCEPT * 3, |cluster| cluster.holder().is_some()).unwrap();
    assert!(took >= ACCEPT, "{took:?}");
}

#[test]
fn who_has_just_started_is_not_called_ready() {
    let mut cluster = Cluster::settled();
    cluster.kill(C);
    cluster.run(ms(50));
    assert_eq!(cluster.state(A).ready, [A, B, C], "C is not missed yet");
    cluster.start(C);
    // C was ready only by the word of its former process.
    assert_eq!(cluster.state(A).ready, [A, B]);
    let leave = Command::Standby { node: A, on: true, force: false };
    cluster.kill(B);
    cluster.run(ms(10));
    cluster.start(B);
    assert_eq!(cluster.command(A, leave), Err(Refusal::NoTarget));
    let is_ready = |cluster: &Cluster| cluster.state(A).ready.len() == 3;
    let silent = cluster.run_until(ACCEPT * 3, is_ready).unwrap();
    assert!(silent > ACCEPT - ms(70), "{silent:?}");
    assert_eq!(cluster.command(A, leave), Ok(Completed::Standby(true)));
}

#[test]
fn who_is_called_ready_is_not_refused() {
    let mut cluster = Cluster::settled();
    cluster.kill(B);
    cluster.kill(C);
    cluster.run_until(ACCEPT * 2, |cluster| cluster.state(A).ready == [A]).unwrap();
    assert!(cluster.engines[&A].status(cluster.now).nodes[1].present, "it still counts for the quorum");
}

#[test]
fn a_replaced_agent_keeps_its_lease_through_the_others() {
    let mut cluster = Cluster::settled();
    for _ in 0..5 {
        cluster.log.clear();
        cluster.run(ms(13));
        let epoch = cluster.state(A).epoch;
        cluster.kill(A);
        cluster.run(ms(30));
        cluster.start(A);
        assert_eq!(cluster.state(A).state, GroupState::Active);
        for _ in 0..100 {
            cluster.run(ms(5));
            assert_eq!(cluster.holder(), Some(A));
        }
        assert_eq!(cluster.state(A).epoch, epoch);
        assert_eq!(cluster.announced(), []);
    }
}

#[test]
fn agents_can_be_replaced_one_after_the_other_as_soon_as_each_has_its_vote() {
    let mut cluster = Cluster::settled();
    for node in [C, B, A, C, A, B] {
        cluster.kill(node);
        cluster.start(node);
        cluster.run_until(ACCEPT * 2, |cluster| !cluster.engines[&node].status(cluster.now).silent).unwrap();
        assert_eq!((cluster.holder(), cluster.state(A).epoch), (Some(A), Epoch(1)));
    }
    cluster.run(ACCEPT * 3);
    assert_eq!((cluster.holder(), cluster.announced()), (Some(A), vec![A]));
}

#[test]
fn a_replaced_agent_needs_a_majority_of_others_that_know_its_lease() {
    let mut cluster = Cluster::settled();
    cluster.kill(C);
    cluster.run(ms(100));
    assert_eq!(cluster.holder(), Some(A));
    cluster.kill(A);
    cluster.start(A);
    // B alone is no majority of three, and A's own vote does not count.
    let fenced = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder().is_none()).unwrap();
    assert!(fenced <= HOLD, "{fenced:?}");
}

#[test]
fn acceptors_that_have_forgotten_the_lease_do_not_renew_it() {
    let mut cluster = Cluster::settled();
    for node in [A, B, C] {
        cluster.kill(node);
    }
    for node in [A, B, C] {
        cluster.start(node);
    }
    let fenced = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder().is_none()).unwrap();
    assert!(fenced <= HOLD, "{fenced:?}");
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_shorter_lease_keeps_the_silence_of_the_longer_one() {
    let mut cluster = Cluster::settled();
    // Nodes whose configurations differ reject each other's datagrams.
    cluster.isolate(A);
    for node in [B, C] {
        cluster.kill(node);
    }
    cluster.config.accept = ACCEPT / 4;
    cluster.config.silence = ACCEPT;
    for node in [B, C] {
        cluster.start(node);
    }
    // B and C are a majority that has forgotten A's lease.
    let took = |cluster: &Cluster| [B, C].iter().any(|node| cluster.state(*node).state == GroupState::Active);
    let took = cluster.run_until(ACCEPT * 3, took).unwrap();
    assert!(took >= ACCEPT, "{took:?}");
}

#[test]
fn leftovers_that_cannot_be_ours_are_cleared() {
    let nodes = vec![NodeSpec { role: Role::Node }; 3];
    let config = EngineConfig::new(A, Incarnation(1), nodes, vec![GroupSpec::default(); 3], ACCEPT);
    let now = BootNs(5_000_000_000);
    let held = [
        (GroupId(0), now),
        (GroupId(1), now.plus(HOLD + ms(1))),
        (GroupId(2), now.plus(HOLD)),
        (GroupId(9), now),
    ];
    let mut engine = Engine::new(config.clone(), &held, now);
    let cleared: Vec<_> = std::iter::from_fn(|| engine.poll_output()).collect();
    let clear = |group| Output::StoreLease { group: GroupId(group), lease: Lease::NONE };
    assert_eq!(cleared, [clear(0), clear(1)]);
    let states: Vec<_> = engine.status(now).groups.iter().map(|group| group.state).collect();
    assert_eq!(states, [GroupState::Init, GroupState::Init, GroupState::Active]);

    let nodes = [Role::Witness, Role::Node, Role::Node].map(|role| NodeSpec { role }).to_vec();
    let mut witness = Engine::new(EngineConfig { nodes, ..config }, &held[2..], now);
    assert_eq!(witness.poll_output(), Some(clear(2)));
}

#[test]
fn without_a_word_on_eligibility_a_node_does_not_stand() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.kill(B);
    let config = EngineConfig { me: B, incarnation: Incarnation(500), ..cluster.config.clone() };
    cluster.engines.insert(B, Engine::new(config, &[], cluster.now));
    cluster.give(C, Input::Eligible { group: DB, eligible: false });
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(B).state), (None, GroupState::Init));
    cluster.give(B, Input::Eligible { group: DB, eligible: true });
    cluster.run(ms(20));
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_stopped_agent_has_released_everything_and_hands_over() {
    let mut cluster = Cluster::settled();
    cluster.log.clear();
    cluster.sent.clear();
    cluster.give(A, Input::Stop);
    assert_eq!(cluster.maps[&(A, DB)], Lease::NONE);
    let took = cluster.run_until(ACCEPT, |cluster| cluster.holder() == Some(B)).unwrap();
    assert!(took <= DELAY * 8, "{took:?}");
    let stopped = |cluster: &Cluster| {
        cluster.log.iter().any(|(_, node, output)| *node == A && *output == Output::Stopped)
    };
    // It stays until the successor's lease is seen: its vote may be needed.
    cluster.run_until(STOP_GRACE, stopped).unwrap();
    let accepted = cluster.sent.iter().any(|(_, from, to, packet)| {
        let accept = |m: &Message| matches!(m, Message::Group { about: About::Accept { .. }, .. });
        (*from, *to) == (A, B) && packet.messages.iter().any(accept)
    });
    assert!(accepted);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_stopped_agent_votes_for_its_successor_before_it_goes() {
    // C is dead, so that B needs A's vote.
    let mut cluster = Cluster::settled();
    cluster.kill(C);
    cluster.run(ACCEPT);
    cluster.give(A, Input::Stop);
    let gone = |cluster: &Cluster| {
        cluster.log.iter().any(|(_, node, output)| *node == A && *output == Output::Stopped)
    };
    cluster.run_until(STOP_GRACE, gone).unwrap();
    cluster.kill(A);
    cluster.run(DELAY * 2);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_stop_without_anybody_to_hear_it_ends_all_the_same() {
    let mut cluster = Cluster::settled();
    cluster.isolate(A);
    cluster.give(A, Input::Stop);
    assert_eq!(cluster.holder(), None);
    cluster.run(STOP_GRACE + ms(1));
    assert!(cluster.log.iter().any(|(_, node, output)| *node == A && *output == Output::Stopped));
}

#[test]
fn an_agent_that_is_adopting_can_be_stopped() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.start(A);
    cluster.give(A, Input::Stop);
    assert_eq!(cluster.maps[&(A, DB)], Lease::NONE);
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn one_node_alone_holds_by_its_own_vote() {
    let mut cluster = Cluster::new(&[Role::Node]);
    let took = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder().is_some()).unwrap();
    assert!(took >= ACCEPT);
    for _ in 0..100 {
        cluster.run(ms(7));
        assert_eq!(cluster.holder(), Some(A));
    }
}

/// A has been started anew with a lease in its map; B and C promise. Does it go on?
fn proposes_after(yours: Option<Epoch>) -> bool {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.sent.clear();
    cluster.start(A);
    cluster.give(A, Input::Clock);
    let prepare = cluster.sent.iter().find_map(|(_, _, _, packet)| {
        packet.messages.iter().find_map(|message| match message {
            Message::Group { about: About::Prepare { ballot }, .. } => Some(*ballot),
            Message::Group { .. }
            | Message::Heartbeat { .. }
            | Message::Node { .. }
            | Message::Request { .. }
            | Message::Verdict { .. }
            | Message::Paths(_) => None,
        })
    });
    let about = About::Promise { ballot: prepare.unwrap(), epoch: Epoch(1), yours };
    cluster.sent.clear();
    for from in [B, C] {
        let packet = Packet { messages: vec![Message::Group { group: DB, about }] };
        cluster.give(A, Input::Message { from, packet });
    }
    let proposed = |m: &Message| matches!(m, Message::Group { about: About::Propose { .. }, .. });
    cluster.sent.iter().any(|(_, _, _, packet)| packet.messages.iter().any(proposed))
}

#[test]
fn adopting_counts_only_promises_that_tell_of_this_nodes_own_lease() {
    assert!(proposes_after(Some(Epoch(1))));
    assert!(!proposes_after(None));
}
