//! No epoch is ever given twice: what must be on disk before a node accepts a grant, and what a
//! node that has forgotten grants assumes of them.

use super::*;
use crate::config::CEILING_WAIT;

/// Three nodes with empty disks.
fn new_disks() -> Cluster {
    let mut cluster = Cluster::new(&[]);
    cluster.config.nodes = vec![NodeSpec { role: Role::Node }; 3];
    cluster.config.remembered.ceiling = Epoch(0);
    for node in [A, B, C] {
        cluster.start(node);
    }
    cluster
}

/// The last ceiling that the node asked its disk to store.
fn asked(cluster: &Cluster, node: NodeId) -> Option<Epoch> {
    cluster.log.iter().rev().find_map(|(_, by, output)| {
        let Output::RaiseCeiling { ceiling } = output else { return None };
        (*by == node).then_some(*ceiling)
    })
}

/// The node's disk stores the ceiling that the node asked for.
fn write(cluster: &mut Cluster, node: NodeId) {
    let ceiling = asked(cluster, node).unwrap();
    cluster.give(node, Input::Ceiling { ceiling });
}

#[test]
fn the_first_grant_waits_for_a_majority_of_disks() {
    let mut cluster = new_disks();
    for node in [A, B, C] {
        assert_eq!(asked(&cluster, node), Some(Epoch(EPOCH_MARGIN)), "it is not asked for at the start");
    }
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None);
    write(&mut cluster, A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None, "one disk is no majority");
    write(&mut cluster, B);
    let waited = cluster.run_until(ACCEPT, |cluster| cluster.holder().is_some());
    assert!(waited.is_some_and(|waited| waited < CEILING_WAIT * 4), "{waited:?}");
    assert_eq!(cluster.state(cluster.holder().unwrap()).epoch, Epoch(1));
}

#[test]
fn a_node_whose_own_disk_lags_takes_nothing_that_the_others_do_not_vote_for() {
    let mut cluster = new_disks();
    write(&mut cluster, B);
    write(&mut cluster, C);
    cluster.run(ACCEPT * 5);
    assert!(cluster.holder().is_some(), "two disks are a majority");
}

#[test]
fn what_only_the_candidate_knows_counts() {
    let mut cluster = Cluster::new(&[Role::Node; 3]);
    cluster.kill(A);
    // Its own acceptor has no room for a grant, and makes no promise.
    cluster.config.remembered.epochs = vec![Epoch(9)].into();
    cluster.config.remembered.ceiling = Epoch(0);
    cluster.start(A);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    assert_eq!(cluster.state(A).epoch, Epoch(10));
}

#[test]
fn after_a_crash_numbers_are_left_out_and_none_is_given_twice() {
    let mut cluster = new_disks();
    for node in [A, B, C] {
        write(&mut cluster, node);
    }
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.state(cluster.holder().unwrap()).epoch, Epoch(1));
    // All hosts lose what was not on disk, the epoch of the grant with it.
    for node in [A, B, C] {
        cluster.kill(node);
    }
    cluster.maps.clear();
    cluster.config.remembered.floor = Epoch(EPOCH_MARGIN);
    cluster.config.remembered.ceiling = Epoch(EPOCH_MARGIN);
    for node in [A, B, C] {
        cluster.start(node);
        write(&mut cluster, node);
    }
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.state(cluster.holder().unwrap()).epoch, Epoch(EPOCH_MARGIN + 1));
}

#[test]
fn a_renewal_waits_for_no_disk() {
    let mut cluster = Cluster::settled();
    cluster.kill(B);
    cluster.config.remembered.ceiling = Epoch(0);
    cluster.start(B);
    cluster.run(ACCEPT * 2);
    assert_eq!(cluster.holder(), Some(A));
    // From now on a renewal needs the vote of the one without a ceiling.
    cluster.isolate(C);
    cluster.log.clear();
    cluster.run(ACCEPT * 10);
    let closed = cluster.log.iter().any(|(_, node, output)| {
        *node == A && matches!(output, Output::StoreLease { lease, .. } if *lease == Lease::NONE)
    });
    assert!(cluster.holder() == Some(A) && !closed, "the lease was lost");
}

/// Force and pair mode promise nothing about epochs, and must work when all else is broken.
#[test]
fn force_and_a_pair_wait_for_no_disk() {
    let mut cluster = new_disks();
    cluster.isolate(A);
    cluster.run(ACCEPT * 5);
    cluster.two_may_hold = true;
    assert_eq!(cluster.command(A, Command::Force { group: DB }), Ok(Completed::HeldBy(A)));
    assert_eq!(cluster.open(DB), [A]);

    for pair in [PeerLoss::Take, PeerLoss::Hold] {
        let nodes = vec![NodeSpec { role: Role::Node }; 2];
        let mut config = EngineConfig::new(A, Incarnation(0), nodes, vec![GroupSpec::default()], ACCEPT);
        config.pair = Some(pair);
        config.remembered.ceiling = Epoch(0);
        let mut cluster = Cluster::with_config(config);
        cluster.run(ACCEPT * 5);
        assert_eq!(cluster.holder(), Some(A), "{pair:?}");
    }
}

#[test]
fn what_others_may_have_accepted_is_made_room_for_before_a_grant_needs_it() {
    let mut cluster = new_disks();
    cluster.kill(A);
    let far = Epoch(EPOCH_MARGIN * 7);
    (cluster.config.remembered.floor, cluster.config.remembered.ceiling) = (far, far);
    cluster.start(A);
    cluster.run(ACCEPT);
    for node in [A, B, C] {
        assert_eq!(asked(&cluster, node), Some(Epoch(far.0 + EPOCH_MARGIN)));
    }
}
