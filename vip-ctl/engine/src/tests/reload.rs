//! Other groups on a running engine, and groups that end.

use super::*;

fn same(was: u16) -> Reloaded {
    Reloaded { was: Some(GroupId(was)), spec: GroupSpec::default(), epoch: Epoch(0) }
}

fn outputs(engine: &mut Engine) -> Vec<Output> {
    std::iter::from_fn(|| engine.poll_output()).collect()
}

fn two_groups() -> Cluster {
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], vec![GroupSpec::default(); 2]);
    cluster.run(ACCEPT * 3);
    cluster
}

#[test]
fn a_group_that_ends_clears_its_map_before_its_release_is_sent() {
    let mut cluster = two_groups();
    let now = cluster.now;
    let engine = cluster.engines.get_mut(&A).unwrap();
    engine.retire(GroupId(1), now);
    let done = outputs(engine);
    let cleared = done.iter().position(
        |output| matches!(output, Output::StoreLease { group: GroupId(1), lease } if *lease == Lease::NONE),
    );
    let released = done.iter().position(|output| {
        let Output::Send { packet, .. } = output else { return false };
        packet.messages.iter().any(|message| {
            matches!(message, Message::Group { group: GroupId(1), about: About::Release { .. } })
        })
    });
    assert!(cleared.is_some() && cleared < released, "{done:?}");
    let untouched = |output: &Output| !matches!(output, Output::StoreLease { group: GroupId(0), .. });
    assert!(done.iter().all(untouched), "{done:?}");
    let status = engine.status(now);
    assert_eq!((status.groups[GroupId(0)].holder, status.groups[GroupId(1)].expiry), (Some(A), None));
}

/// Nor is it taken between its end and the reload.
#[test]
fn a_group_that_has_ended_is_not_taken_again() {
    let mut cluster = two_groups();
    let now = cluster.now;
    let engine = cluster.engines.get_mut(&A).unwrap();
    engine.retire(GroupId(1), now);
    outputs(engine);
    for step in 0..500 {
        engine.handle(Input::Wake, now.plus(ms(step)));
        let stands = outputs(engine).into_iter().any(|output| {
            let Output::Send { packet, .. } = output else { return false };
            packet.messages.iter().any(|message| {
                matches!(message, Message::Group { group: GroupId(1), about: About::Prepare { .. } })
            })
        });
        assert!(!stands, "after {step} ms");
    }
}

#[test]
fn a_group_that_stays_keeps_its_lease_and_one_that_is_new_is_silent() {
    let mut cluster = two_groups();
    let now = cluster.now;
    let engine = cluster.engines.get_mut(&A).unwrap();
    let until = engine.status(now).groups[GroupId(1)].expiry;
    engine.retire(GroupId(0), now);
    outputs(engine);
    let new = Reloaded { was: None, ..same(0) };
    engine.reload(vec![same(1), new].into(), now);
    let done = outputs(engine);
    assert!(!done.iter().any(|output| matches!(output, Output::StoreLease { .. })), "{done:?}");
    let status = engine.status(now);
    assert_eq!((status.groups[GroupId(0)].expiry, status.groups[GroupId(0)].holder), (until, Some(A)));
    engine.handle(Input::Eligible { group: GroupId(1), eligible: true }, now);
    assert!(!engine.status(now).groups[GroupId(1)].ready.contains(&A), "it may have been there before");
    let ballot = Ballot { round: 1, incarnation: Incarnation(2), node: B };
    let packet =
        Packet { messages: vec![Message::Group { group: GroupId(1), about: About::Prepare { ballot } }] };
    outputs(engine);
    engine.handle(Input::Message { from: B, packet }, now.plus(ACCEPT - ms(1)));
    let told = outputs(engine);
    let refused = told.iter().any(|output| {
        let Output::Send { to: B, packet } = output else { return false };
        packet.messages.iter().any(|message| {
            let refused = About::Refuse { ballot, because: Refused::Silent { remaining: ms(1) } };
            *message == Message::Group { group: GroupId(1), about: refused }
        })
    });
    assert!(refused, "{told:?}");
    engine.handle(Input::Wake, now.plus(ACCEPT));
    assert!(engine.status(now.plus(ACCEPT)).groups[GroupId(1)].ready.contains(&A));
}
