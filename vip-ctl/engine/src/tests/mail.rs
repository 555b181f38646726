//! A process that was late reads what waits in its socket before it concludes anything from
//! silence.

use super::*;

/// B's engine alone, after it has heard of A's lease, and the time.
fn standby_of_a() -> (Engine, BootNs) {
    let mut cluster = Cluster::settled();
    cluster.run(ms(5));
    (cluster.engines.remove(&B).unwrap(), cluster.now)
}

/// A renews under this round.
fn renewal(round: u64) -> Input {
    let ballot = Ballot { round, incarnation: Incarnation(1), node: A };
    let about = About::Propose { ballot, epoch: Epoch(1), claim: Claim::Held };
    Input::Message { from: A, packet: Packet { messages: vec![Message::Group { group: DB, about }] } }
}

/// Gives the engine an input. Does it then stand for the lease?
fn stands(engine: &mut Engine, input: Input, now: BootNs) -> bool {
    engine.handle(input, now);
    let mut stood = false;
    while let Some(output) = engine.poll_output() {
        if let Output::Send { packet, .. } = output {
            stood |= packet
                .messages
                .iter()
                .any(|message| matches!(message, Message::Group { about: About::Prepare { .. }, .. }));
        }
    }
    stood
}

/// The time at which A's lease and all slots are just over, when the thread wakes up.
fn late(engine: &Engine, now: BootNs) -> BootNs {
    let mut at = now;
    let mut probe = engine.clone();
    while !stands(&mut probe, Input::Wake, at) {
        at = at.plus(ms(1));
    }
    at
}

#[test]
fn a_renewal_in_the_socket_is_read_before_its_sender_is_believed_gone() {
    let (mut engine, now) = standby_of_a();
    let at = late(&engine, now);
    assert!(!stands(&mut engine, Input::Clock, at), "by the clock alone");
    assert!(!stands(&mut engine, renewal(1_000), at), "by a message");
    assert!(!stands(&mut engine, Input::Wake, at), "all is read, and A is there");
    assert_eq!(engine.status(at).groups[GroupId(0)].holder, Some(A));
}

#[test]
fn without_a_word_from_the_holder_it_stands_once_all_is_read() {
    let (mut engine, now) = standby_of_a();
    let at = late(&engine, now);
    assert!(!stands(&mut engine, Input::Clock, at));
    assert_eq!(engine.next_deadline().map(|due| due <= at), Some(true), "it is to be woken at once");
    assert!(stands(&mut engine, Input::Wake, at));
}

#[test]
fn other_groups_are_no_reason_to_believe_a_holder_gone_whose_renewal_is_unread() {
    let (engine, now) = standby_of_a();
    let at = late(&engine, now);
    let reload = |engine: &mut Engine| {
        engine.handle(Input::Clock, at);
        while engine.poll_output().is_some() {}
        let same = Reloaded { was: Some(DB), spec: GroupSpec::default(), epoch: Epoch(0) };
        let new = Reloaded { was: None, spec: GroupSpec::default(), epoch: Epoch(0) };
        engine.reload(vec![same, new].into(), at);
        assert!(!stands(engine, Input::Clock, at), "by the reload");
        assert_eq!(engine.next_deadline().map(|due| due <= at), Some(true), "it is to be woken at once");
    };
    let (mut told, mut untold) = (engine.clone(), engine);
    reload(&mut told);
    assert!(!stands(&mut told, renewal(1_000), at) && !stands(&mut told, Input::Wake, at), "A is there");
    reload(&mut untold);
    assert!(stands(&mut untold, Input::Wake, at), "nobody is");
}

#[test]
fn votes_in_the_socket_are_counted_before_an_attempt_is_given_up() {
    let mut cluster = Cluster::settled();
    cluster.run(ms(5));
    let due = cluster.engines[&A].groups[GroupId(0)].renewal_due().expect("none is under way");
    cluster.run(due.since(cluster.now) - ms(1));
    let mut engine = cluster.engines.remove(&A).unwrap();
    let until = engine.status(due).groups[GroupId(0)].expiry.unwrap();
    let ballot = begun(&mut engine, due).expect("a renewal begins when it is due");
    // The attempt has timed out, but the answers to it wait in the socket.
    let at = BootNs(until.0 - 1_000_000);
    assert_eq!(begun(&mut engine, at), None, "another attempt began before the mail was read");
    for about in [About::Promise { ballot, epoch: Epoch(1), yours: Some(Epoch(1)) }, About::Accept { ballot }]
    {
        let packet = Packet { messages: vec![Message::Group { group: DB, about }] };
        engine.handle(Input::Message { from: B, packet }, at);
    }
    engine.handle(Input::Wake, at);
    assert!(engine.status(at).groups[GroupId(0)].expiry > Some(until), "the vote did not count");
}

/// The ballot of the attempt that the engine begins at `now`; `None` if it begins none.
fn begun(engine: &mut Engine, now: BootNs) -> Option<Ballot> {
    engine.handle(Input::Clock, now);
    let mut found = None;
    while let Some(output) = engine.poll_output() {
        if let Output::Send { packet, .. } = output {
            for message in packet.messages {
                if let Message::Group {
                    about: About::Prepare { ballot } | About::Propose { ballot, .. },
                    ..
                } = message
                {
                    found = Some(ballot);
                }
            }
        }
    }
    found
}

#[test]
fn a_late_clock_ends_this_nodes_own_lease_whatever_is_unread() {
    let mut cluster = Cluster::settled();
    let mut engine = cluster.engines.remove(&A).unwrap();
    let until = engine.status(cluster.now).groups[GroupId(0)].expiry.unwrap();
    engine.handle(Input::Clock, until);
    assert_eq!(engine.status(until).groups[GroupId(0)].expiry, None);
    assert_eq!(engine.status(until).groups[GroupId(0)].state, GroupState::Standby);
}
