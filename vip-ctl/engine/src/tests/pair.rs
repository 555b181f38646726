//! Pair mode (rule 13) and taking a lease by force: what they give, and what
//! they can't.

use super::*;

fn pair(loss: PeerLoss) -> Cluster {
    let nodes = vec![NodeSpec { role: Role::Node }; 2];
    let groups = vec![GroupSpec::default()];
    let config = EngineConfig::new(A, Incarnation(0), nodes, groups, ACCEPT);
    let mut cluster = Cluster::with_config(EngineConfig { pair: Some(loss), ..config });
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    cluster
}

#[test]
fn the_standby_of_a_pair_takes_over_from_a_dead_node_after_t_accept() {
    let mut cluster = pair(PeerLoss::Take);
    cluster.kill(A);
    let taken = cluster.run_until(ACCEPT * 2, |cluster| cluster.holder() == Some(B)).unwrap();
    assert!(taken > HOLD - Timing::new(ACCEPT).renew, "not before A's fence has closed: {taken:?}");
    assert!(taken <= ACCEPT + Timing::new(ACCEPT).slot * 3, "{taken:?}");
}

#[test]
fn the_holder_of_a_pair_outlives_the_standby_and_its_restart() {
    for loss in [PeerLoss::Take, PeerLoss::Hold] {
        let mut cluster = pair(loss);
        cluster.kill(B);
        cluster.run(ACCEPT * 10);
        assert_eq!((cluster.holder(), cluster.state(A).epoch), (Some(A), Epoch(1)));
        assert!(cluster.engines[&A].status(cluster.now).alone);
        cluster.start(B);
        cluster.run(ACCEPT * 10);
        assert_eq!((cluster.holder(), cluster.state(B).epoch), (Some(A), Epoch(1)));
        assert!(!cluster.engines[&A].status(cluster.now).alone);
    }
}

#[test]
fn a_cut_makes_two_holders_and_the_higher_epoch_stays_and_announces_again() {
    let mut cluster = pair(PeerLoss::Take);
    cluster.two_may_hold = true;
    cluster.isolate(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.open(DB), [A, B]);
    cluster.log.clear();
    cluster.cut.clear();
    let merged = cluster.run_until(ACCEPT, |cluster| cluster.open(DB) == [B]).unwrap();
    assert!(merged <= Timing::new(ACCEPT).heartbeat + DELAY * 4, "{merged:?}");
    cluster.two_may_hold = false;
    cluster.run(ACCEPT * 5);
    assert_eq!(
        (cluster.holder(), cluster.state(A).holder, cluster.state(B).epoch),
        (Some(B), Some(B), Epoch(2))
    );
    assert_eq!(cluster.announced(), [B], "the network may have believed A last");
}

#[test]
fn equal_epochs_meet_and_the_higher_rank_stays() {
    // Both start while they can't hear each other.
    let nodes = vec![NodeSpec { role: Role::Node }; 2];
    let groups = vec![GroupSpec { priorities: vec![50, 100], ..GroupSpec::default() }];
    let config = EngineConfig::new(A, Incarnation(0), nodes, groups, ACCEPT);
    let mut cluster = Cluster::with_config(EngineConfig { pair: Some(PeerLoss::Take), ..config });
    cluster.two_may_hold = true;
    cluster.isolate(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.open(DB), [A, B]);
    assert_eq!(cluster.state(A).epoch, cluster.state(B).epoch);
    cluster.cut.clear();
    cluster.run(ACCEPT * 2);
    cluster.two_may_hold = false;
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(B));
}

#[test]
fn a_pair_that_holds_never_has_two_and_waits_for_a_person() {
    let mut cluster = pair(PeerLoss::Hold);
    cluster.isolate(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.open(DB), [A]);
    cluster.kill(A);
    cluster.run(ACCEPT * 20);
    assert_eq!(cluster.open(DB), []);
    let promote = Command::Promote { group: DB, to: B };
    assert_eq!(cluster.command(B, promote), Err(Refusal::NoQuorum));
    assert_eq!(cluster.command(B, Command::Force { group: DB }), Ok(Completed::HeldBy(B)));
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), Some(B));
    // The dead node is back, and finds that another one has the lease.
    cluster.cut.clear();
    cluster.start(A);
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(A).holder), (Some(B), Some(B)));
}

#[test]
fn a_replaced_agent_of_a_pair_keeps_its_lease_with_and_without_the_other() {
    for with_peer in [true, false] {
        let mut cluster = pair(PeerLoss::Take);
        if !with_peer {
            cluster.kill(B);
            cluster.run(ACCEPT * 5);
        }
        cluster.kill(A);
        cluster.run(ms(40));
        cluster.log.clear();
        cluster.config.remembered.epochs = vec![Epoch(1)].into();
        cluster.start(A);
        for _ in 0..100 {
            cluster.run(ms(5));
            assert_eq!(cluster.holder(), Some(A));
        }
        assert_eq!((cluster.state(A).epoch, cluster.announced()), (Epoch(1), Vec::new()));
    }
}

#[test]
fn a_stopped_process_reads_its_mail_before_it_believes_itself_alone() {
    // B is stopped for just T_accept, and for ten times as long.
    for stopped in [ACCEPT, ACCEPT * 10] {
        let mut cluster = pair(PeerLoss::Take);
        let alone = |cluster: &Cluster| cluster.engines[&B].status(cluster.now).alone;
        // What A sent waits in the socket. The wake-up comes first.
        cluster.now = cluster.now.plus(stopped);
        for _ in 0..3 {
            cluster.give(B, Input::Wake);
            assert!(!alone(&cluster) && cluster.open(DB) != [B]);
        }
        cluster.give(B, Input::Message { from: A, packet: Packet { messages: Vec::new() } });
        cluster.now = cluster.now.plus(Timing::new(ACCEPT).slot);
        cluster.give(B, Input::Wake);
        assert!(!alone(&cluster) && cluster.open(DB) != [B]);
    }
}

#[test]
fn force_is_for_a_minority_and_lets_go_when_the_majority_is_back() {
    let mut cluster = Cluster::settled();
    cluster.isolate(C);
    cluster.run(ACCEPT * 5);
    cluster.two_may_hold = true;
    assert_eq!(cluster.command(C, Command::Force { group: DB }), Ok(Completed::HeldBy(C)));
    assert!(cluster.state(C).forced);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.open(DB), [A, C], "which is what force risks");
    cluster.cut.clear();
    let merged = cluster.run_until(ACCEPT * 2, |cluster| cluster.open(DB) == [A]);
    assert!(merged.is_some());
    cluster.two_may_hold = false;
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(C).holder), (Some(A), Some(A)));
}

#[test]
fn a_lease_by_force_becomes_an_ordinary_one_with_the_majoritys_votes() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.kill(B);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.command(C, Command::Force { group: DB }), Ok(Completed::HeldBy(C)));
    cluster.run(ACCEPT * 3);
    assert!(cluster.state(C).forced);
    let epoch = cluster.state(C).epoch;
    cluster.start(B);
    cluster.run(ACCEPT * 5);
    assert_eq!((cluster.holder(), cluster.state(C).forced, cluster.state(C).epoch), (Some(C), false, epoch));
    // From then on it needs their votes.
    cluster.kill(B);
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), None);
}

#[test]
fn force_respects_what_the_own_acceptor_knows() {
    let mut cluster = Cluster::new(&[Role::Node; 5]);
    cluster.run(ACCEPT * 3);
    // B hears A alone, which holds the lease with the others.
    let others = [C, NodeId(3), NodeId(4)];
    for other in others {
        cluster.lose(B, other);
        cluster.lose(other, B);
    }
    cluster.run(ms(600));
    assert!(!cluster.engines[&B].status(cluster.now).quorate);
    assert_eq!(cluster.command(B, Command::Force { group: DB }), Err(Refusal::NoQuorum));
    assert_eq!(cluster.open(DB), [A]);
    cluster.run(ACCEPT * 20);
    assert_eq!(cluster.open(DB), [A], "nor later");
}

#[test]
fn with_a_quorum_nothing_is_forced() {
    let mut cluster = Cluster::settled();
    assert_eq!(cluster.command(B, Command::Force { group: DB }), Ok(Completed::HeldBy(B)));
    assert!(!cluster.state(B).forced);
}
