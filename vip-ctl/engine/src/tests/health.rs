//! A holder that is not well: it goes at once, or stays until another node is
//! ready, and in no case does anybody take what it can't serve.

use super::*;

fn not_well(cluster: &mut Cluster, node: NodeId) {
    cluster.give(node, Input::Unwell { group: DB });
}

fn eligible(cluster: &mut Cluster, node: NodeId, eligible: bool) {
    cluster.give(node, Input::Eligible { group: DB, eligible });
}

/// The reason of the last change that a node reported.
fn reason(cluster: &Cluster, node: NodeId) -> Option<Reason> {
    cluster.log.iter().rev().find_map(|(_, by, output)| {
        let Output::Changed(transition) = output else { return None };
        (*by == node).then_some(transition.reason)
    })
}

#[test]
fn a_holder_that_is_not_well_hands_over_to_who_is_ready() {
    let mut cluster = Cluster::settled();
    cluster.log.clear();
    not_well(&mut cluster, A);
    let waited = cluster.run_until(ACCEPT, |cluster| cluster.holder() == Some(B)).unwrap();
    assert!(waited <= DELAY * 20, "asked and released, not run out: {waited:?}");
    assert_eq!(reason(&cluster, A), Some(Reason::Eligibility));
    cluster.run(ACCEPT);
    assert_eq!(cluster.state(A).state, GroupState::Fault);
}

#[test]
fn while_nobody_else_is_ready_it_stays() {
    let mut cluster = Cluster::settled();
    for node in [B, C] {
        eligible(&mut cluster, node, false);
    }
    cluster.run(ACCEPT);
    not_well(&mut cluster, A);
    cluster.run(ACCEPT * 10);
    assert_eq!(cluster.holder(), Some(A));
    assert!(!cluster.state(A).ready.contains(&A), "it does not say that it could take it");
    eligible(&mut cluster, C, true);
    let waited = cluster.run_until(ACCEPT, |cluster| cluster.holder() == Some(C)).unwrap();
    assert!(waited <= ACCEPT / 2, "noticed with a renewal: {waited:?}");
}

#[test]
fn what_a_node_last_said_of_itself_is_asked_again() {
    let mut cluster = Cluster::settled();
    // A believes that both are ready; they are not any more.
    cluster.lose(B, A);
    cluster.lose(C, A);
    for node in [B, C] {
        eligible(&mut cluster, node, false);
    }
    cluster.run(HOLD / 4);
    not_well(&mut cluster, A);
    cluster.run(DELAY * 20);
    assert_eq!(cluster.holder(), Some(A), "nobody has said yes");
    cluster.cut.clear();
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn who_can_not_serve_leaves_all_the_same() {
    let mut cluster = Cluster::new(&[Role::Node, Role::Witness, Role::Witness]);
    cluster.run(ACCEPT * 3);
    not_well(&mut cluster, A);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    eligible(&mut cluster, A, false);
    assert_eq!(cluster.holder(), None);
    // And it takes nothing back before it is well.
    not_well(&mut cluster, A);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), None);
    eligible(&mut cluster, A, true);
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn a_paused_cluster_leaves_it_where_it_is() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(A, Command::Pause { on: true }), Ok(Completed::Paused(true)));
    not_well(&mut cluster, A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.command(A, Command::Pause { on: false }), Ok(Completed::Paused(false)));
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn an_adopted_lease_goes_on_until_a_word_on_eligibility() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    // The new process does not know yet how its service is.
    let held: Vec<_> =
        cluster.maps.get(&(A, DB)).and_then(|lease| lease.expiry()).map(|at| (DB, at)).into_iter().collect();
    let config = EngineConfig { me: A, incarnation: Incarnation(1000), ..cluster.config.clone() };
    cluster.engines.insert(A, Engine::new(config, &held, cluster.now));
    cluster.give(A, Input::Wake);
    cluster.run(ACCEPT * 10);
    assert_eq!(cluster.holder(), Some(A));
    eligible(&mut cluster, A, false);
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(B));
}

/// Does `by` hear that `node` serves, or could?
fn is_ready(cluster: &Cluster, node: NodeId, by: NodeId) -> bool {
    cluster.state(by).ready.contains(&node)
}

#[test]
fn who_has_something_to_do_before_it_serves_is_not_ready_until_that_is_done() {
    let mut cluster = Cluster::settled();
    cluster.give(B, Input::Prepares { group: DB, on: true });
    cluster.run(ACCEPT);
    assert!(is_ready(&cluster, B, A) && is_ready(&cluster, B, C), "it could take it");
    let told = cluster.command(C, Command::Switchover { group: DB, to: Some(B) });
    assert_eq!(told, Ok(Completed::HeldBy(B)));
    // A node that knows of the lease knows as well that B is not ready.
    assert!(!is_ready(&cluster, B, C) && !is_ready(&cluster, B, B));
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(B), "the lease goes on meanwhile");
    assert!(!is_ready(&cluster, B, A));
    cluster.give(B, Input::Serving { group: DB });
    cluster.run(ACCEPT / 4);
    assert!([A, B, C].into_iter().all(|by| is_ready(&cluster, B, by)));
    // Without a lease it is as ready as anybody, and the next grant is another one.
    assert_eq!(cluster.command(A, Command::Promote { group: DB, to: A }), Ok(Completed::HeldBy(A)));
    cluster.run(ACCEPT / 4);
    assert!(is_ready(&cluster, B, A));
    assert_eq!(cluster.command(A, Command::Promote { group: DB, to: B }), Ok(Completed::HeldBy(B)));
    assert!(!is_ready(&cluster, B, A));
}

#[test]
fn what_failed_before_it_served_is_given_back_also_in_a_pause() {
    for pause in [false, true] {
        let mut cluster = Cluster::settled();
        assert_eq!(cluster.command(A, Command::Pause { on: pause }), Ok(Completed::Paused(pause)));
        cluster.give(B, Input::Prepares { group: DB, on: true });
        assert_eq!(cluster.command(A, Command::Promote { group: DB, to: B }), Ok(Completed::HeldBy(B)));
        cluster.log.clear();
        cluster.give(B, Input::PromoteFailed { group: DB });
        assert_eq!(reason(&cluster, B), Some(Reason::PromoteFailed));
        let waited = cluster.run_until(ACCEPT, |cluster| cluster.holder() == Some(A)).unwrap();
        assert!(waited <= DELAY * 20, "handed over, not run out: {waited:?}");
        cluster.run(ACCEPT);
        assert_eq!(cluster.state(B).state, GroupState::Fault);
    }
}

#[test]
fn what_failed_and_nobody_else_can_take_is_tried_again_also_in_a_pause() {
    for pause in [false, true] {
        let mut cluster = Cluster::new(&[Role::Node, Role::Witness, Role::Witness]);
        cluster.run(ACCEPT * 3);
        assert_eq!(cluster.command(A, Command::Pause { on: pause }), Ok(Completed::Paused(pause)));
        cluster.give(A, Input::PromoteFailed { group: DB });
        cluster.run(ACCEPT * 5);
        assert_eq!(cluster.holder(), None, "it is not eligible");
        eligible(&mut cluster, A, true);
        cluster.run(ACCEPT);
        assert_eq!(cluster.holder(), Some(A));
    }
}

#[test]
fn who_serves_says_so_also_before_it_would_stand_by_itself() {
    let mut cluster = Cluster::settled();
    cluster.kill(B);
    cluster.config.startup_delay = ACCEPT * 100;
    cluster.start(B);
    cluster.run(ACCEPT * 3);
    assert!(!is_ready(&cluster, B, A), "it takes nothing by itself");
    assert_eq!(cluster.command(A, Command::Promote { group: DB, to: B }), Ok(Completed::HeldBy(B)));
    cluster.run(ACCEPT / 4);
    assert!(is_ready(&cluster, B, A));
}

#[test]
fn who_would_answer_nothing_takes_nothing_and_keeps_what_it_has() {
    let mut cluster = Cluster::settled();
    for node in [A, B] {
        cluster.give(node, Input::Mute { group: DB, on: true });
    }
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(A), "it goes on, until somebody else is asked for");
    let refused = cluster.command(A, Command::Switchover { group: DB, to: Some(B) });
    assert_eq!(refused, Err(Refusal::TargetNotReady));
    assert_eq!(cluster.command(B, Command::Promote { group: DB, to: B }), Err(Refusal::TargetNotReady));
    cluster.kill(A);
    cluster.run_until(ACCEPT * 3, |cluster| cluster.holder() == Some(C)).unwrap();
    // Once its VIPs are covered it is a candidate as before.
    cluster.give(B, Input::Mute { group: DB, on: false });
    cluster.run(ACCEPT);
    assert_eq!(cluster.command(C, Command::Switchover { group: DB, to: Some(B) }), Ok(Completed::HeldBy(B)));
}

#[test]
fn whose_vips_are_covered_at_the_same_time_stand_by_rank() {
    let mut cluster = Cluster::new(&[Role::Node; 3]);
    for node in [A, B, C] {
        cluster.give(node, Input::Mute { group: DB, on: true });
    }
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None);
    // The best node is unmuted last.
    for node in [C, B, A] {
        cluster.give(node, Input::Mute { group: DB, on: false });
    }
    cluster.run(ACCEPT);
    assert_eq!(cluster.holder(), Some(A));
}

#[test]
fn who_is_not_well_asks_one_with_other_groups_now_and_then() {
    let mut cluster = Cluster::settled();
    cluster.kill(C);
    eligible(&mut cluster, B, false);
    cluster.run(ACCEPT);
    // B's heartbeat as A decodes it if B has other groups.
    let says = Packet { messages: vec![Message::Heartbeat { first: GroupId(0), ready: Vec::new() }] };
    cluster.give(A, Input::Message { from: B, packet: says.clone() });
    cluster.sent.clear();
    not_well(&mut cluster, A);
    for _ in 0..50 {
        cluster.run(ACCEPT / 10);
        cluster.give(A, Input::Message { from: B, packet: says.clone() });
    }
    let asks = |packet: &Packet| {
        let is_ask = |m: &&Message| matches!(m, Message::Group { about: About::AskReady { .. }, .. });
        packet.messages.iter().filter(is_ask).count()
    };
    let asked: usize = cluster.sent.iter().filter(|sent| sent.1 == A).map(|sent| asks(&sent.3)).sum();
    assert!((1..=10).contains(&asked), "asked {asked} times in five leases");
    assert_eq!(cluster.holder(), Some(A));
}
