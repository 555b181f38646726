//! What an admin does to a whole node or cluster: preemption, standby, pause; and observers.

use super::*;

const DELAY_OF_PREEMPTION: Duration = Duration::from_secs(1);

fn preempting() -> Cluster {
    let groups = vec![GroupSpec { priorities: vec![150, 100, 50], preempt: Some(DELAY_OF_PREEMPTION) }];
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], groups);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    cluster
}

#[test]
fn preemption_is_a_switchover_after_the_delay() {
    let mut cluster = preempting();
    cluster.kill(A);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(B));
    cluster.start(A);
    let ready = ACCEPT;
    let waited = cluster.run_until(ms(5000), |cluster| cluster.holder() == Some(A)).unwrap();
    assert!(waited >= ready + DELAY_OF_PREEMPTION, "{waited:?}");
    assert!(waited <= ready + DELAY_OF_PREEMPTION + ACCEPT, "{waited:?}");
    // B handed the lease over: without that, A would have had to wait much longer.
    let gap = Output::StoreLease { group: DB, lease: Lease::NONE };
    let released = cluster.log.iter().rev().find(|(_, node, output)| *node == B && *output == gap);
    assert!(cluster.now.since(released.unwrap().0) <= DELAY * 6);
}

#[test]
fn more_groups_than_are_asked_for_at_once_are_preempted_one_round_after_the_other() {
    let delay = ms(5000);
    let group = GroupSpec { priorities: vec![150, 100, 50], preempt: Some(delay) };
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], vec![group; 2 * COMMANDS_MAX + 2]);
    cluster.run(ACCEPT * 3);
    cluster.kill(A);
    cluster.run(ACCEPT * 3);
    cluster.start(A);
    let all = |cluster: &Cluster| cluster.config.group_ids().all(|group| cluster.open(group) == [A]);
    assert!(!all(&cluster));
    let rounds = COMMAND_TIMEOUT * 3;
    let waited = cluster.run_until(delay + rounds + ms(1000), all).expect("all of them");
    assert!(waited >= delay, "{waited:?}");
}

#[test]
fn without_preempt_a_higher_priority_waits_for_its_turn() {
    let groups = vec![GroupSpec { priorities: vec![150, 100, 50], preempt: None }];
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], groups);
    cluster.run(ACCEPT * 3);
    cluster.kill(A);
    cluster.run(ACCEPT * 3);
    cluster.start(A);
    cluster.run(DELAY_OF_PREEMPTION * 5);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn only_the_best_of_those_that_could_preempts() {
    let mut cluster = preempting();
    assert_eq!(cluster.command(A, Command::Switchover { group: DB, to: Some(C) }), Ok(Completed::HeldBy(C)));
    cluster.log.clear();
    cluster.run(DELAY_OF_PREEMPTION * 3);
    assert_eq!((cluster.holder(), cluster.announced()), (Some(A), vec![A]));
}

#[test]
fn standby_hands_everything_over_and_lasts_over_a_restart() {
    let mut cluster = Cluster::settled();
    let on = Command::Standby { node: A, on: true, force: false };
    assert_eq!(cluster.command(B, on), Ok(Completed::Standby(true)));
    assert_eq!((cluster.holder(), cluster.state(A).state), (Some(B), GroupState::Paused));
    cluster.run(ACCEPT);
    assert!(cluster.engines[&C].status(cluster.now).nodes[0].standby);
    let pause = Pause::default();
    let told = |(_, node, output): &(BootNs, NodeId, Output)| {
        *node == A && *output == Output::Remember { standby: true, pause }
    };
    assert!(cluster.log.iter().any(told));
    cluster.kill(B);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(C), "A is on standby");
    let to = Command::Switchover { group: DB, to: Some(A) };
    assert_eq!(cluster.command(C, to), Err(Refusal::TargetNotReady));
    assert_eq!(
        cluster.command(C, Command::Standby { node: A, on: false, force: false }),
        Ok(Completed::Standby(false))
    );
    assert_eq!(cluster.command(C, to), Ok(Completed::HeldBy(A)));
}

#[test]
fn standby_that_would_leave_nobody_needs_force() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Witness, Role::Witness]);
    cluster.run(ACCEPT * 3);
    let standby = |force| Command::Standby { node: A, on: true, force };
    assert_eq!(cluster.command(B, standby(false)), Err(Refusal::NoTarget));
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.command(B, standby(true)), Ok(Completed::Standby(true)));
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), None);
    let witness = Command::Standby { node: B, on: true, force: false };
    assert_eq!(cluster.command(A, witness), Err(Refusal::TargetNeverHolds));
    assert_eq!(
        cluster.command(A, Command::Standby { node: A, on: false, force: false }),
        Ok(Completed::Standby(false))
    );
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(A));
}

fn standby(node: NodeId) -> Command {
    Command::Standby { node, on: true, force: false }
}

/// Two nodes can hold, and both are put on standby: in any order, from any node, at any interval.
#[test]
fn two_standbys_back_to_back_leave_a_holder() {
    for pause_us in [0, 50, 100, 150, 200, 250, 300, 400, 500, 700, 1_000, 3_000, 20_000, 100_000] {
        for (first, second) in [(A, B), (B, A)] {
            for at in [A, B, C] {
                let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
                cluster.run(ACCEPT * 3);
                cluster.give(at, Input::Command { id: CommandId(1 << 20), command: standby(first) });
                cluster.run(Duration::from_micros(pause_us));
                let second = cluster.command(at, standby(second));
                cluster.run(COMMAND_TIMEOUT);
                let first = cluster.done(CommandId(1 << 20)).expect("it was answered");
                assert!(first.is_err() || second.is_err(), "{pause_us} us at {at:?}: {first:?}, {second:?}");
                assert!(cluster.holder().is_some(), "{pause_us} us at {at:?}: {first:?}, {second:?}");
            }
        }
    }
}

#[test]
fn a_switchover_and_the_standby_of_its_target_leave_a_holder() {
    for pause_us in [0, 50, 100, 150, 200, 250, 300, 400, 500, 700, 1_000, 3_000] {
        let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
        cluster.run(ACCEPT * 3);
        let command = Command::Switchover { group: DB, to: Some(B) };
        cluster.give(A, Input::Command { id: CommandId(1 << 20), command });
        cluster.run(Duration::from_micros(pause_us));
        let _answered = cluster.command(B, standby(B));
        cluster.run(COMMAND_TIMEOUT);
        assert!(cluster.holder().is_some(), "{pause_us} us");
        let _answered = cluster.command(C, standby(A));
        cluster.run(COMMAND_TIMEOUT);
        assert!(cluster.holder().is_some(), "{pause_us} us, and A's");
    }
}

#[test]
fn a_node_whose_target_turns_out_not_to_be_ready_stays() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
    cluster.run(ACCEPT * 3);
    // A has heard that B is ready, and not yet that it is so no more.
    cluster.give(B, Input::Eligible { group: DB, eligible: false });
    assert_eq!(cluster.command(A, standby(A)), Err(Refusal::NoTarget));
    assert_eq!((cluster.holder(), cluster.state(A).state), (Some(A), GroupState::Active));
    assert!(!cluster.engines[&A].status(cluster.now).nodes[0].standby);
    // It renews, and gives way as soon as somebody can take it.
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
    cluster.give(B, Input::Eligible { group: DB, eligible: true });
    cluster.run(ACCEPT);
    assert_eq!(cluster.command(A, standby(A)), Ok(Completed::Standby(true)));
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn who_could_be_the_only_candidate_of_a_vacant_group_stays() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    cluster.kill(A);
    cluster.run(ACCEPT * 4);
    assert_eq!(cluster.holder(), None);
    assert_eq!(cluster.command(C, standby(B)), Err(Refusal::NoTarget));
    assert_eq!(cluster.command(C, Command::Pause { on: false }), Ok(Completed::Paused(false)));
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_node_without_a_quorum_holds_nothing_and_can_go_on_standby() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
    cluster.run(ACCEPT * 3);
    cluster.isolate(B);
    cluster.run(ACCEPT * 4);
    assert_eq!(cluster.command(B, standby(B)), Ok(Completed::Standby(true)));
    cluster.cut.clear();
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(A));
}

/// B hears A and no other voter: it could take nothing over.
#[test]
fn who_has_no_quorum_is_no_target() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness, Role::Witness, Role::Witness]);
    for witness in [NodeId(2), NodeId(3), NodeId(4)] {
        cluster.lose(B, witness);
        cluster.lose(witness, B);
    }
    cluster.run(ACCEPT * 10);
    assert_eq!(cluster.holder(), Some(A));
    assert!(!cluster.state(A).ready.contains(&B), "{:?}", cluster.state(A));
    let on = Command::Standby { node: A, on: true, force: false };
    assert_eq!(cluster.command(A, on), Err(Refusal::NoTarget));
    // Nor is it asked again and again by a holder that is not well.
    cluster.sent.clear();
    cluster.give(A, Input::Unwell { group: DB });
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
    let asked = |packet: &Packet| {
        let is_it =
            |message: &&Message| matches!(message, Message::Group { about: About::AskReady { .. }, .. });
        packet.messages.iter().filter(is_it).count()
    };
    assert_eq!(cluster.sent.iter().map(|(.., packet)| asked(packet)).sum::<usize>(), 0);
}

#[test]
fn a_paused_cluster_moves_nothing_by_itself_and_goes_on_with_its_leases() {
    let mut cluster = preempting();
    assert_eq!(cluster.command(C, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    for node in [A, B, C] {
        assert!(cluster.engines[&node].status(cluster.now).paused);
    }
    // A failed check does not move it.
    cluster.give(A, Input::Eligible { group: DB, eligible: false });
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
    cluster.give(A, Input::Eligible { group: DB, eligible: true });
    // Nor does its death.
    cluster.kill(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None);
    // An admin may move it.
    let promote = Command::Promote { group: DB, to: C };
    assert_eq!(cluster.command(B, promote), Ok(Completed::HeldBy(C)));
    // A node that was away learns of the pause, and then of its end.
    cluster.start(A);
    cluster.run(DELAY_OF_PREEMPTION * 3);
    assert_eq!(cluster.holder(), Some(C));
    assert_eq!(cluster.command(B, Command::Pause { on: false }), Ok(Completed::Paused(false)));
    cluster.run(DELAY_OF_PREEMPTION * 2);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_group_comes_back_to_where_it_was_in_a_pause() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    cluster.isolate(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None);
    cluster.cut.clear();
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_planned_move_whose_target_dies_leaves_no_paused_group_without_a_holder() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    let to_b = Command::Switchover { group: DB, to: Some(B) };
    cluster.give(A, Input::Command { id: CommandId(77), command: to_b });
    cluster.run_until(ACCEPT, |cluster| cluster.holder().is_none()).expect("released");
    cluster.kill(B);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_resume_leaves_a_node_that_can_not_serve() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    cluster.give(A, Input::Eligible { group: DB, eligible: false });
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.command(B, Command::Pause { on: false }), Ok(Completed::Paused(false)));
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn of_two_words_on_the_pause_the_newer_one_stays_and_a_pause_wins_a_tie() {
    let mut cluster = Cluster::settled();
    cluster.isolate(C);
    cluster.run(ms(600));
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    assert_eq!(cluster.command(A, Command::Pause { on: false }), Ok(Completed::Paused(false)));
    assert_eq!(cluster.command(C, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    cluster.cut.clear();
    cluster.run(ACCEPT * 2);
    let paused = |cluster: &Cluster, node| cluster.engines[&node].status(cluster.now).paused;
    assert!(!paused(&cluster, A) && !paused(&cluster, C), "the second word of A is newer than C's first");
    assert!(Pause { version: 1, on: true } > Pause { version: 1, on: false });
}

#[test]
fn an_observer_learns_and_neither_votes_nor_stands() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness, Role::Observer]);
    let observer = NodeId(3);
    cluster.run(ACCEPT * 3);
    let seen = cluster.state(observer);
    assert_eq!((seen.state, seen.holder, seen.epoch), (GroupState::Observer, Some(A), Epoch(1)));
    cluster.sent.clear();
    // B may not have heard that the observer has no vote any more.
    let ballot = Ballot { round: 1_000, incarnation: Incarnation(2), node: B };
    let packet = Packet { messages: vec![Message::Group { group: DB, about: About::Prepare { ballot } }] };
    cluster.give(observer, Input::Message { from: B, packet });
    cluster.run(ACCEPT);
    let votes =
        cluster.sent.iter().filter(|(_, from, ..)| *from == observer).any(|(.., packet)| {
            packet.messages.iter().any(|message| matches!(message, Message::Group { .. }))
        });
    assert!(!votes, "an observer says nothing about leases");
    // Two voters of three are gone: the observer's voice makes no majority.
    cluster.kill(B);
    cluster.kill(C);
    cluster.run(ACCEPT * 3);
    assert_eq!((cluster.holder(), cluster.state(observer).holder), (None, None));
    // An admin may give commands on an observer.
    cluster.start(B);
    cluster.run(ACCEPT * 5);
    let to = Command::Switchover { group: DB, to: Some(B) };
    assert_eq!(cluster.command(observer, to), Ok(Completed::HeldBy(B)));
    cluster.run(ACCEPT);
    assert_eq!(cluster.state(observer).holder, Some(B));
    let to_it = Command::Switchover { group: DB, to: Some(observer) };
    assert_eq!(cluster.command(A, to_it), Err(Refusal::TargetNeverHolds));
}

/// C was made an observer, and has not heard of it. The others do not wait for it, so they may be
/// two generations further: they give it no vote.
#[test]
fn who_could_hold_a_generation_ago_gets_no_vote() {
    let mut cluster = Cluster::settled();
    cluster.config.nodes[usize::from(C.0)].role = Role::Observer;
    cluster.start(B);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    cluster.kill(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None, "B alone is no majority in either generation");
    assert_eq!(cluster.state(C).state, GroupState::Standby);
}

#[test]
fn a_startup_delay_keeps_a_node_from_standing_but_not_from_voting() {
    let delay = ms(3000);
    let nodes = vec![NodeSpec { role: Role::Node }; 3];
    let config = EngineConfig::new(A, Incarnation(0), nodes, vec![GroupSpec::default()], ACCEPT);
    let mut cluster = Cluster::with_config(config);
    cluster.run(ACCEPT * 3);
    cluster.kill(A);
    cluster.kill(C);
    cluster.run(ms(600));
    assert_eq!(cluster.holder(), None);
    // A, the first in rank, is back with its delay; its vote is what B needs.
    cluster.config.startup_delay = delay;
    cluster.start(A);
    let waited = cluster.run_until(delay, |cluster| cluster.holder().is_some()).unwrap();
    assert_eq!(cluster.holder(), Some(B));
    assert!(waited <= ACCEPT * 2, "{waited:?}");
    assert_eq!(cluster.state(A).state, GroupState::Init);
    cluster.kill(B);
    cluster.start(C);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), None, "both that are there wait");
    cluster.run(delay);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn epochs_go_on_after_everybody_has_restarted() {
    let mut cluster = Cluster::settled();
    for _ in 0..3 {
        assert!(cluster.command(A, Command::Switchover { group: DB, to: None }).is_ok());
    }
    assert_eq!(cluster.state(A).epoch, Epoch(4));
    for node in [A, B, C] {
        cluster.kill(node);
    }
    cluster.run(ACCEPT * 3);
    // A majority knew of the last grant; two of them remember it.
    cluster.start(A);
    cluster.config.remembered.epochs = vec![Epoch(4)].into();
    cluster.start(B);
    cluster.start(C);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.state(A).epoch, Epoch(5));
}
