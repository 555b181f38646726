//! Answers that must not count: from members without a vote, to earlier questions, and to
//! questions that are over.

use super::*;

/// Takes all outputs. Returns whether the engine stored a lease, and what it sent.
fn done(engine: &mut Engine) -> (bool, Vec<(NodeId, About)>) {
    let (mut stored, mut sent) = (false, Vec::new());
    while let Some(output) = engine.poll_output() {
        if let Output::Send { to, packet } = &output {
            sent.extend(packet.messages.iter().filter_map(|message| match message {
                Message::Group { about, .. } => Some((*to, *about)),
                Message::Heartbeat { .. }
                | Message::Node { .. }
                | Message::Request { .. }
                | Message::Verdict { .. }
                | Message::Paths(_) => None,
            }));
        }
        stored |= matches!(output, Output::StoreLease { lease, .. } if lease != Lease::NONE);
    }
    (stored, sent)
}

fn tell(engine: &mut Engine, from: NodeId, about: About, now: BootNs) {
    let packet = Packet { messages: vec![Message::Group { group: DB, about }] };
    engine.handle(Input::Message { from, packet }, now);
}

fn promise(ballot: Ballot) -> About {
    About::Promise { ballot, epoch: Epoch(1), yours: Some(Epoch(1)) }
}

/// Takes the engine of `node` out of the cluster and runs it alone until it stands. Returns it,
/// its ballot, and the time.
fn stands(mut cluster: Cluster, node: NodeId) -> (Engine, Ballot, BootNs) {
    cluster.isolate(node);
    let mut engine = cluster.engines.remove(&node).unwrap();
    let mut now = cluster.now;
    loop {
        engine.handle(Input::Wake, now);
        let begun = done(&mut engine).1.into_iter().find_map(|(_, about)| {
            let About::Prepare { ballot } = about else { return None };
            Some(ballot)
        });
        if let Some(ballot) = begun {
            return (engine, ballot, now);
        }
        now = now.plus(ms(1));
        assert!(now < cluster.now.plus(ACCEPT * 4), "it does not stand");
    }
}

#[test]
fn an_observers_votes_do_not_count() {
    let observer = NodeId(3);
    let roles = [Role::Node, Role::Node, Role::Witness, Role::Observer];
    let mut cluster = Cluster::new(&roles);
    cluster.run(ACCEPT * 3);
    let (mut engine, ballot, now) = stands(cluster, B);
    // It had a vote a generation ago, and does not know that it has none now.
    tell(&mut engine, observer, promise(ballot), now);
    tell(&mut engine, observer, About::Accept { ballot }, now);
    let (stored, sent) = done(&mut engine);
    assert!(!stored && !sent.iter().any(|(_, about)| matches!(about, About::Propose { .. })), "{sent:?}");
    tell(&mut engine, C, promise(ballot), now);
    tell(&mut engine, observer, About::Accept { ballot }, now);
    assert!(!done(&mut engine).0, "nor to the second phase");
    tell(&mut engine, C, About::Accept { ballot }, now);
    assert!(done(&mut engine).0, "a voter's do");
}

#[test]
fn answers_to_an_earlier_attempt_do_not_count_for_the_next_one() {
    let (mut engine, first, begun) = stands(Cluster::settled(), B);
    // Nobody has answered, so it gives that one up and begins anew.
    let over = begun.plus(Timing::new(ACCEPT).patience);
    let mut again = (0..100).map(|step| over.plus(ms(step))).filter_map(|now| {
        engine.handle(Input::Wake, now);
        done(&mut engine).1.into_iter().find_map(|(_, about)| {
            let About::Prepare { ballot } = about else { return None };
            Some((ballot, now))
        })
    });
    let (second, now) = again.next().expect("it stands again");
    assert!(second > first, "late answers would count for the new attempt: {second:?}");
    tell(&mut engine, C, promise(first), now);
    let (_, sent) = done(&mut engine);
    assert!(!sent.iter().any(|(_, about)| matches!(about, About::Propose { .. })), "{sent:?}");
    tell(&mut engine, C, promise(second), now);
    tell(&mut engine, C, About::Accept { ballot: first }, now);
    assert!(!done(&mut engine).0, "nor in the second phase");
    tell(&mut engine, C, About::Accept { ballot: second }, now);
    assert!(done(&mut engine).0, "those to this one do");
}

#[test]
fn a_new_process_goes_on_by_the_votes_of_those_that_have_proved_its_lease() {
    let mut cluster = Cluster::settled();
    cluster.kill(A);
    cluster.start(A);
    let started = cluster.now;
    // Its last renewal in the silence, which is over before anybody has answered.
    cluster.run(ACCEPT - ms(45));
    let (mut engine, ballot, begun) = stands(cluster, A);
    let now = started.plus(ACCEPT + ms(1));
    assert!(begun < started.plus(ACCEPT) && engine.status(now).groups[GroupId(0)].expiry.is_some());
    for from in [B, C] {
        tell(&mut engine, from, promise(ballot), now);
    }
    let (_, sent) = done(&mut engine);
    assert!(sent.iter().any(|(_, about)| matches!(about, About::Propose { .. })), "{sent:?}");
    tell(&mut engine, B, About::Accept { ballot }, now);
    assert!(!done(&mut engine).0, "its own acceptor has forgotten the lease, though it may vote again");
    tell(&mut engine, C, About::Accept { ballot }, now);
    assert!(done(&mut engine).0);
}

#[test]
fn votes_that_come_when_the_lease_would_be_over_bring_none() {
    let (mut engine, ballot, sent) = stands(Cluster::settled(), B);
    // The process was stopped.
    let now = sent.plus(HOLD);
    engine.handle(Input::Clock, now);
    tell(&mut engine, C, promise(ballot), now);
    tell(&mut engine, C, About::Accept { ballot }, now);
    assert!(!done(&mut engine).0);
    assert_eq!(engine.status(now).groups[GroupId(0)].expiry, None);
}

#[test]
fn a_renewal_that_comes_through_after_the_lease_is_over_brings_it_not_back() {
    let mut cluster = Cluster::settled();
    cluster.run(ms(5));
    let mut engine = cluster.engines.remove(&A).unwrap();
    let due = engine.groups[GroupId(0)].renewal_due().expect("none is under way");
    engine.handle(Input::Clock, due);
    let begun = done(&mut engine).1;
    let Some((_, About::Propose { ballot, .. })) = begun.first() else { panic!("{begun:?}") };
    let until = engine.status(due).groups[GroupId(0)].expiry.unwrap();
    engine.handle(Input::Clock, until);
    tell(&mut engine, B, About::Accept { ballot: *ballot }, until);
    assert!(!done(&mut engine).0, "that is a new grant, and those are for candidates");
}

#[test]
fn who_can_not_serve_any_more_goes_on_with_no_attempt_and_leaves_nothing_behind() {
    let (mut engine, ballot, now) = stands(Cluster::settled(), B);
    let unfit = Input::Eligible { group: DB, eligible: false };
    let mut proposing = engine.clone();
    engine.handle(unfit.clone(), now);
    tell(&mut engine, C, promise(ballot), now);
    tell(&mut engine, C, About::Accept { ballot }, now);
    let (stored, sent) = done(&mut engine);
    assert!(!stored && !sent.iter().any(|(_, about)| matches!(about, About::Propose { .. })), "{sent:?}");
    // In the second phase an acceptor may have accepted the lease already.
    tell(&mut proposing, C, promise(ballot), now);
    done(&mut proposing);
    proposing.handle(unfit, now);
    let sent = done(&mut proposing).1;
    assert!(sent.iter().any(|(_, about)| matches!(about, About::Release { .. })), "{sent:?}");
}

#[test]
fn who_has_not_answered_is_asked_again_under_the_same_ballot() {
    let (mut engine, ballot, begun) = stands(Cluster::settled(), B);
    let mut asked = 0;
    for step in 1..30 {
        engine.handle(Input::Wake, begun.plus(ms(step)));
        let again = done(&mut engine).1.into_iter();
        asked += again.filter(|(to, about)| *to == C && *about == About::Prepare { ballot }).count();
    }
    assert!(asked > 0);
}

#[test]
fn an_answer_to_an_earlier_question_hands_nothing_over() {
    let mut cluster = Cluster::settled();
    cluster.isolate(A);
    let command = Command::Switchover { group: DB, to: Some(B) };
    cluster.give(A, Input::Command { id: CommandId(1 << 20), command });
    let ask = cluster.engines[&A].groups[GroupId(0)].handover.expect("it asks").ask;
    let engine = cluster.engines.get_mut(&A).unwrap();
    tell(engine, B, About::Ready { ask: AskId(ask.0 + 1), ready: true }, cluster.now);
    assert!(engine.status(cluster.now).groups[GroupId(0)].expiry.is_some());
    tell(engine, B, About::Ready { ask, ready: true }, cluster.now);
    assert_eq!(engine.status(cluster.now).groups[GroupId(0)].expiry, None);
}

#[test]
fn when_the_best_target_says_no_the_next_one_is_asked() {
    let mut cluster = Cluster::settled();
    cluster.isolate(A);
    let command = Command::Switchover { group: DB, to: None };
    cluster.give(A, Input::Command { id: CommandId(1 << 20), command });
    for (target, next) in [(B, Some(C)), (C, None)] {
        let ask = cluster.engines[&A].groups[GroupId(0)].handover.expect("it asks").ask;
        // By its last heartbeat it is ready all the same.
        let engine = cluster.engines.get_mut(&A).unwrap();
        tell(engine, target, About::Ready { ask, ready: false }, cluster.now);
        let asked = done(engine).1.into_iter().find_map(|(to, about)| {
            let About::AskReady { .. } = about else { return None };
            Some(to)
        });
        assert_eq!(asked, next, "after {target:?}");
    }
    assert!(
        cluster.engines[&A].status(cluster.now).groups[GroupId(0)].expiry.is_some(),
        "it keeps the lease"
    );
}

#[test]
fn only_the_best_of_those_that_could_asks_for_what_it_would_preempt() {
    let spec = GroupSpec { priorities: vec![50, 100, 150], preempt: Some(ACCEPT) };
    let mut cluster = Cluster::with_groups(&[Role::Node; 3], vec![spec]);
    for node in [B, C] {
        cluster.give(node, Input::Eligible { group: DB, eligible: false });
    }
    cluster.run(ACCEPT * 3);
    assert_eq!(cluster.holder(), Some(A));
    let asks = |cluster: &Cluster, node: NodeId| {
        cluster.sent.iter().any(|(_, from, _, packet)| {
            let is_request = |message: &Message| matches!(message, Message::Request { .. });
            *from == node && packet.messages.iter().any(is_request)
        })
    };
    for node in [B, C] {
        cluster.give(node, Input::Eligible { group: DB, eligible: true });
    }
    cluster.run(ACCEPT + ms(150));
    assert!(!asks(&cluster, B) && asks(&cluster, C));
}

#[test]
fn a_node_that_gets_the_packets_of_a_client_tells_the_holder_alone() {
    let client = StaleClient { vip: std::net::IpAddr::from([10, 0, 0, 9]), mac: [2, 0, 0, 0, 0, 7] };
    let mut cluster = Cluster::settled();
    let (group, now) = (GroupId(0), cluster.now);
    let told = |engine: &mut Engine| {
        engine.handle(Input::Stale { group, client }, now);
        done(engine).1
    };
    let standby = cluster.engines.get_mut(&B).unwrap();
    assert_eq!(told(standby), [(A, About::Stale { client })]);
    let holder = cluster.engines.get_mut(&A).unwrap();
    assert_eq!(told(holder), [], "it is nobody's fault but the network's");
    tell(holder, B, About::Stale { client }, now);
    let corrects = |engine: &mut Engine| {
        std::iter::from_fn(|| engine.poll_output()).any(|o| o == Output::Correct { client })
    };
    assert!(corrects(holder));
    // Who does not hold tells nobody where the VIP is.
    let other = cluster.engines.get_mut(&C).unwrap();
    tell(other, B, About::Stale { client }, now);
    assert!(!corrects(other));
}

#[test]
fn a_node_that_hears_nobody_answer_for_a_vip_tells_the_holder_alone() {
    let vip = std::net::IpAddr::from([10, 0, 0, 9]);
    let mut cluster = Cluster::settled();
    let (group, now) = (GroupId(0), cluster.now);
    let told = |engine: &mut Engine| {
        engine.handle(Input::Unheard { vips: vec![(group, vip)] }, now);
        done(engine).1
    };
    assert_eq!(told(cluster.engines.get_mut(&B).unwrap()), [(A, About::Unheard { vip })]);
    let holder = cluster.engines.get_mut(&A).unwrap();
    assert_eq!(told(holder), [], "it does not listen to itself");
    let unheard = |engine: &mut Engine| {
        tell(engine, B, About::Unheard { vip }, now);
        std::iter::from_fn(|| engine.poll_output()).any(|o| o == Output::Unheard { vip, by: B })
    };
    assert!(unheard(holder));
    assert!(!unheard(cluster.engines.get_mut(&C).unwrap()), "that is about another node's lease");
}
