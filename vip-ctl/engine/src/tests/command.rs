//! Switchover, promotion and demotion, from any node.

use super::*;

fn switchover(to: Option<NodeId>) -> Command {
    Command::Switchover { group: DB, to }
}

#[test]
fn a_switchover_works_from_every_node() {
    for at in [A, B, C] {
        let mut cluster = Cluster::settled();
        assert_eq!(cluster.command(at, switchover(Some(C))), Ok(Completed::HeldBy(C)));
        assert_eq!((cluster.holder(), cluster.state(C).epoch), (Some(C), Epoch(2)));
        cluster.run(ACCEPT * 5);
        assert_eq!(cluster.holder(), Some(C));
    }
}

#[test]
fn a_switchover_leaves_a_gap_of_a_few_round_trips() {
    let mut cluster = Cluster::settled();
    cluster.give(A, Input::Command { id: CommandId(7), command: switchover(Some(B)) });
    cluster.run_until(ms(50), |cluster| cluster.holder().is_none()).unwrap();
    let gap = cluster.run_until(ms(50), |cluster| cluster.holder().is_some()).unwrap();
    assert!(gap <= DELAY * 6, "{gap:?}");
    assert_eq!(cluster.announced(), [A, B]);
}

#[test]
fn a_switchover_to_nobody_in_particular_takes_the_best() {
    let priorities = vec![100, 50, 80];
    let mut cluster =
        Cluster::with_groups(&[Role::Node; 3], vec![GroupSpec { priorities, ..GroupSpec::default() }]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.command(B, switchover(None)), Ok(Completed::HeldBy(C)));
    // B holds now, so the best other node is A again.
    assert_eq!(cluster.command(B, switchover(None)), Ok(Completed::HeldBy(A)));
}

/// Whom a node has asked whether it is ready, in this order.
fn asked_by(cluster: &Cluster, node: NodeId) -> Vec<NodeId> {
    let is_ask = |message: &Message| matches!(message, Message::Group { about: About::AskReady { .. }, .. });
    let asks = cluster
        .sent
        .iter()
        .filter(|(_, from, _, packet)| *from == node && packet.messages.iter().any(is_ask));
    asks.map(|(_, _, to, _)| *to).collect()
}

#[test]
fn a_holder_asks_nodes_with_other_groups_after_those_that_are_ready() {
    for (is_c_ready, asked, taken) in [(true, vec![C], C), (false, vec![C, B], B)] {
        let mut cluster = Cluster::settled();
        // B is before C in rank, and has other groups than A, so that A doesn't know
        // whether it is ready.
        let packet = Packet { messages: vec![Message::Heartbeat { first: DB, ready: Vec::new() }] };
        cluster.give(A, Input::Message { from: B, packet });
        cluster.give(C, Input::Eligible { group: DB, eligible: is_c_ready });
        assert_eq!(cluster.command(A, switchover(None)), Ok(Completed::HeldBy(taken)));
        assert_eq!(asked_by(&cluster, A), asked);
    }
}

#[test]
fn a_switchover_to_a_target_that_is_not_fit_keeps_the_lease() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Node, Role::Witness]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.command(A, switchover(Some(C))), Err(Refusal::TargetNeverHolds));
    assert_eq!(cluster.command(A, switchover(Some(NodeId(3)))), Err(Refusal::NoSuchNode));
    let group = GroupId(1);
    assert_eq!(cluster.command(A, Command::Demote { group }), Err(Refusal::NoSuchGroup));
    cluster.give(B, Input::Eligible { group: DB, eligible: false });
    assert_eq!(cluster.command(A, switchover(Some(B))), Err(Refusal::TargetNotReady));
    assert_eq!(cluster.command(C, switchover(None)), Err(Refusal::NoTarget));
    cluster.kill(B);
    // C heard B a moment ago, but B does not answer.
    assert_eq!(cluster.command(C, switchover(Some(B))), Err(Refusal::TargetSilent));
    cluster.run(ms(600));
    assert_eq!(cluster.command(C, switchover(Some(B))), Err(Refusal::TargetSilent));
    assert_eq!((cluster.holder(), cluster.state(A).epoch), (Some(A), Epoch(1)));
}

#[test]
fn lost_requests_and_verdicts_are_repeated_and_done_once() {
    let mut cluster = Cluster::settled();
    // B reaches A, but A's answers to B are lost at first.
    cluster.lose(A, B);
    cluster.give(B, Input::Command { id: CommandId(900), command: switchover(Some(C)) });
    cluster.run(ms(120));
    cluster.cut.clear();
    cluster.run(ms(100));
    assert_eq!(cluster.done(CommandId(900)), Some(Ok(Completed::HeldBy(C))));
    cluster.run(ACCEPT * 20);
    assert_eq!((cluster.holder(), cluster.state(C).epoch), (Some(C), Epoch(2)));
}

#[test]
fn an_old_request_does_not_touch_a_later_grant() {
    let mut cluster = Cluster::settled();
    let request = RequestId { incarnation: Incarnation(2), command: CommandId(1) };
    let old = Message::Request { request, epoch: Epoch(1), command: switchover(None) };
    cluster.command(A, switchover(Some(B))).unwrap();
    cluster.command(B, switchover(Some(A))).unwrap();
    cluster.give(A, Input::Message { from: C, packet: Packet { messages: vec![old] } });
    cluster.run(ACCEPT);
    assert_eq!((cluster.holder(), cluster.state(A).epoch), (Some(A), Epoch(3)));
}

#[test]
fn a_target_that_dies_before_it_takes_over_does_not_take_the_group_along() {
    let mut cluster = Cluster::settled();
    cluster.give(A, Input::Command { id: CommandId(900), command: switchover(Some(B)) });
    cluster.run_until(ms(50), |cluster| cluster.holder().is_none()).unwrap();
    cluster.kill(B);
    let took = cluster.run_until(ACCEPT, |cluster| cluster.holder().is_some()).unwrap();
    let Timing { reserve, slot, .. } = Timing::new(ACCEPT);
    assert!(took <= reserve + slot * 3, "{took:?}");
    let answered = cluster.run_until(COMMAND_TIMEOUT * 2, |c| c.done(CommandId(900)).is_some());
    assert!(answered.is_some());
    assert_eq!(cluster.done(CommandId(900)), Some(Err(Refusal::Timeout)));
}

#[test]
fn promotion_moves_a_lease_or_makes_a_node_stand() {
    let mut cluster = Cluster::settled();
    let promote = |to| Command::Promote { group: DB, to };
    assert_eq!(cluster.command(C, promote(C)), Ok(Completed::HeldBy(C)));
    assert_eq!(cluster.command(A, promote(C)), Ok(Completed::HeldBy(C)));
    assert_eq!(cluster.command(C, promote(B)), Ok(Completed::HeldBy(B)));
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn demotion_hands_over_and_the_demoted_node_is_a_standby_again() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(C, Command::Demote { group: DB }), Ok(Completed::HeldBy(B)));
    cluster.run(ms(10));
    assert_eq!(cluster.state(A).state, GroupState::Standby);
}

#[test]
fn demotion_without_another_node_releases_until_a_person_promotes() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Witness, Role::Witness]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.command(B, Command::Demote { group: DB }), Ok(Completed::Released));
    assert_eq!(cluster.maps[&(A, DB)], Lease::NONE);
    cluster.run(ACCEPT * 10);
    assert_eq!((cluster.holder(), cluster.state(A).state), (None, GroupState::Paused));
    assert_eq!(cluster.command(B, Command::Demote { group: DB }), Err(Refusal::NotHeld));
    assert_eq!(cluster.command(B, switchover(None)), Err(Refusal::NotHeld));
    let promote = Command::Promote { group: DB, to: A };
    assert_eq!(cluster.command(B, promote), Ok(Completed::HeldBy(A)));
    assert_eq!(cluster.state(A).state, GroupState::Active);
}

#[test]
fn a_demoted_node_does_not_come_back_before_another_has_held() {
    let mut cluster = Cluster::settled();
    for node in [B, C] {
        cluster.give(node, Input::Eligible { group: DB, eligible: false });
    }
    cluster.run(ms(60));
    assert_eq!(cluster.command(A, Command::Demote { group: DB }), Ok(Completed::Released));
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.state(A).state, GroupState::Paused);
    cluster.give(B, Input::Eligible { group: DB, eligible: true });
    cluster.run(ACCEPT);
    assert_eq!((cluster.holder(), cluster.state(A).state), (Some(B), GroupState::Standby));
}

#[test]
fn commands_without_quorum_are_refused_except_giving_up_ones_own_lease() {
    let mut cluster = Cluster::settled();
    cluster.isolate(C);
    cluster.run(ms(600));
    assert_eq!(cluster.command(C, switchover(Some(C))), Err(Refusal::NoQuorum));
    cluster.kill(B);
    cluster.kill(C);
    cluster.run(ms(20));
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.command(A, Command::Demote { group: DB }), Ok(Completed::Released));
}

#[test]
fn a_node_in_its_silence_says_so() {
    let mut cluster = Cluster::settled();
    cluster.kill(C);
    cluster.start(C);
    assert_eq!(cluster.command(C, switchover(None)), Err(Refusal::Starting));
}

#[test]
fn two_commands_for_one_group_do_not_mix() {
    let mut cluster = Cluster::settled();
    cluster.give(A, Input::Command { id: CommandId(900), command: switchover(Some(B)) });
    cluster.give(A, Input::Command { id: CommandId(901), command: switchover(Some(C)) });
    cluster.run(ACCEPT);
    assert_eq!(cluster.done(CommandId(900)), Some(Ok(Completed::HeldBy(B))));
    assert_eq!(cluster.done(CommandId(901)), Some(Err(Refusal::Busy)));
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn too_many_commands_are_refused_not_kept() {
    let mut cluster = Cluster::settled();
    cluster.isolate(B);
    let most = u64::try_from(COMMANDS_MAX).unwrap();
    for id in 1000..=1000 + most {
        cluster.give(B, Input::Command { id: CommandId(id), command: switchover(Some(C)) });
    }
    assert_eq!(cluster.done(CommandId(1000 + most)), Some(Err(Refusal::Busy)));
    assert_eq!(cluster.done(CommandId(999 + most)), None);
    cluster.run(COMMAND_TIMEOUT * 2);
    assert!((1000..1000 + most).all(|id| cluster.done(CommandId(id)).is_some()));
}

#[test]
fn a_command_that_may_take_longer_is_waited_for() {
    let mut cluster = Cluster::settled();
    // B's requests reach nobody, for longer than a command may take.
    cluster.cut.extend([(B, A), (B, C)]);
    let (id, command) = (CommandId(900), Command::Switchover { group: DB, to: Some(B) });
    cluster.give(B, Input::Command { id, command });
    cluster.engines.get_mut(&B).unwrap().wait_longer(id, COMMAND_TIMEOUT);
    cluster.run(COMMAND_TIMEOUT + COMMAND_TIMEOUT / 2);
    assert_eq!(cluster.done(id), None);
    cluster.cut.clear();
    cluster.run(COMMAND_TIMEOUT);
    assert!(cluster.done(id).is_some(), "and not for ever");
}
