//! A dry run of a command foretells exactly what the engine then does.

use super::*;
use crate::{Foreseen, GroupMove, Heir};

const EYE: NodeId = NodeId(3);

/// Three nodes that can hold, C before B by its priority, and an observer; A holds.
fn well() -> Cluster {
    let roles = [Role::Node, Role::Node, Role::Node, Role::Observer];
    let priorities = vec![150, 100, 120];
    let mut cluster = Cluster::with_groups(&roles, vec![GroupSpec { priorities, ..GroupSpec::default() }]);
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    cluster
}

fn foreseen(cluster: &Cluster, at: NodeId, command: Command) -> Result<Foreseen, Refusal> {
    cluster.engines[&at].foresee(command, cluster.now)
}

fn unfit(cluster: &mut Cluster, nodes: &[NodeId]) {
    for &node in nodes {
        cluster.give(node, Input::Eligible { group: DB, eligible: false });
    }
    cluster.run(ACCEPT);
}

/// The only group's move from A to this node.
fn from_a(to: Option<NodeId>) -> GroupMove {
    GroupMove { group: DB, epoch: Epoch(1), from: Some(A), to, is_asked: false }
}

fn heir(cluster: &Cluster, at: NodeId) -> Heir {
    cluster.engines[&at].status(cluster.now).groups[GroupId(0)].heir
}

#[test]
fn a_switchover_names_the_target_or_the_refusal() {
    let mut cluster = well();
    let switchover = |to| Command::Switchover { group: DB, to };
    for at in [A, B, C, EYE] {
        let to_c = Ok(Foreseen::Moves(from_a(Some(C))));
        assert_eq!(foreseen(&cluster, at, switchover(None)), to_c, "the best by priority");
        assert_eq!(foreseen(&cluster, at, switchover(Some(C))), to_c);
        assert_eq!(foreseen(&cluster, at, switchover(Some(A))), Ok(Foreseen::Nothing), "it is there already");
        assert_eq!(foreseen(&cluster, at, switchover(Some(EYE))), Err(Refusal::TargetNeverHolds));
    }
    assert_eq!(cluster.command(B, switchover(None)), Ok(Completed::HeldBy(C)), "and so it goes");
    assert_eq!(cluster.command(B, switchover(Some(A))), Ok(Completed::HeldBy(A)));
    unfit(&mut cluster, &[B, C]);
    assert_eq!(foreseen(&cluster, A, switchover(None)), Err(Refusal::NoTarget));
    assert_eq!(foreseen(&cluster, A, switchover(Some(B))), Err(Refusal::TargetNotReady));
    cluster.kill(B);
    cluster.run(ms(1200));
    assert_eq!(foreseen(&cluster, A, switchover(Some(B))), Err(Refusal::TargetSilent));
    cluster.kill(A);
    cluster.run(ACCEPT);
    assert_eq!(foreseen(&cluster, C, switchover(None)), Err(Refusal::NotHeld));
    cluster.run(ms(1200));
    assert_eq!(foreseen(&cluster, C, switchover(None)), Err(Refusal::NoQuorum));
}

#[test]
fn a_demotion_says_when_nobody_would_answer() {
    let mut cluster = well();
    let demote = Command::Demote { group: DB };
    assert_eq!(foreseen(&cluster, A, demote), Ok(Foreseen::Moves(from_a(Some(C)))));
    unfit(&mut cluster, &[B, C]);
    assert_eq!(foreseen(&cluster, A, demote), Ok(Foreseen::Moves(from_a(None))));
    assert_eq!(heir(&cluster, A), Heir::NobodyReady);
}

#[test]
fn who_was_demoted_can_be_promoted_by_name() {
    let mut cluster = well();
    unfit(&mut cluster, &[B, C]);
    assert_eq!(cluster.command(A, Command::Demote { group: DB }), Ok(Completed::Released));
    let promote = |to| Command::Promote { group: DB, to };
    assert_eq!(foreseen(&cluster, B, promote(B)), Err(Refusal::TargetNotReady));
    let moves = GroupMove { from: None, ..from_a(Some(A)) };
    assert_eq!(foreseen(&cluster, A, promote(A)), Ok(Foreseen::Moves(moves)));
    assert_eq!(cluster.command(A, promote(A)), Ok(Completed::HeldBy(A)));
}

#[test]
fn standby_tells_of_all_that_moves_or_is_refused() {
    let mut cluster = well();
    let standby = |force| Command::Standby { node: A, on: true, force };
    for at in [A, B] {
        let moves = Foreseen::Standby(A, vec![from_a(Some(C))]);
        assert_eq!(foreseen(&cluster, at, standby(false)), Ok(moves));
    }
    unfit(&mut cluster, &[B, C]);
    assert_eq!(foreseen(&cluster, A, standby(false)), Err(Refusal::NoTarget));
    let moves = Foreseen::Standby(A, vec![from_a(None)]);
    assert_eq!(foreseen(&cluster, B, standby(true)), Ok(moves));
    assert_eq!(cluster.command(A, standby(true)), Ok(Completed::Standby(true)));
    assert_eq!(foreseen(&cluster, A, standby(false)), Ok(Foreseen::Nothing));
    let off = Command::Standby { node: A, on: false, force: false };
    assert_eq!(foreseen(&cluster, A, off), Ok(Foreseen::Unstandby(A)));
}

#[test]
fn force_needs_no_quorum_and_is_none_with_one() {
    let mut cluster = well();
    let force = Command::Force { group: DB };
    let moves = Ok(Foreseen::Moves(from_a(Some(B))));
    assert_eq!(foreseen(&cluster, B, force), moves, "a promotion like any other");
    cluster.kill(A);
    cluster.kill(C);
    cluster.run(ms(1200));
    assert_eq!(foreseen(&cluster, B, force), Ok(Foreseen::Forced(DB)));
    assert_eq!(cluster.command(B, force), Ok(Completed::HeldBy(B)));
    assert_eq!(foreseen(&cluster, B, force), Ok(Foreseen::Nothing));
}

#[test]
fn a_pause_that_is_on_changes_nothing_and_nobody_inherits() {
    let mut cluster = well();
    assert_eq!(heir(&cluster, B), Heir::Node(C));
    let pause = Command::Pause { on: true };
    assert_eq!(foreseen(&cluster, A, pause), Ok(Foreseen::Paused(true)));
    assert_eq!(cluster.command(A, pause), Ok(Completed::Paused(true)));
    assert_eq!(foreseen(&cluster, A, pause), Ok(Foreseen::Nothing));
    assert_eq!(heir(&cluster, B), Heir::Paused);
}

#[test]
fn an_heir_needs_the_votes_that_are_left() {
    let mut cluster = well();
    cluster.kill(B);
    cluster.run(ms(1200));
    assert_eq!(heir(&cluster, C), Heir::NoMajority(1));
    cluster.kill(A);
    cluster.run(ACCEPT * 5);
    assert_eq!(cluster.holder(), None, "and nobody takes over");
}

#[test]
fn who_has_other_groups_is_asked() {
    let mut cluster = well();
    unfit(&mut cluster, &[B]);
    let peer = &mut cluster.engines.get_mut(&A).unwrap().node;
    peer.hear_ready(C, DB, &[]);
    let moves = GroupMove { is_asked: true, ..from_a(Some(C)) };
    let switchover = Command::Switchover { group: DB, to: None };
    assert_eq!(foreseen(&cluster, A, switchover), Ok(Foreseen::Moves(moves)));
    assert_eq!(heir(&cluster, A), Heir::Perhaps(C));
    // But a node leaves only if others say by themselves that they are ready.
    let standby = |force| Command::Standby { node: A, on: true, force };
    assert_eq!(foreseen(&cluster, A, standby(false)), Err(Refusal::NoTarget));
    assert_eq!(foreseen(&cluster, A, standby(true)), Ok(Foreseen::Standby(A, vec![moves])));
}
