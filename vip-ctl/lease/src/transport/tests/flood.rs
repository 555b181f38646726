//! Floods of recorded, forged or foreign datagrams cost little, get few answers, which all go to
//! the peer that they name, and keep nothing from genuine peers.

use super::{
    limit::{RESPONSE_BURST, RESPONSE_GAP},
    *,
};

/// Recorded challenges of node 0, one from each of these lives.
fn recorded(lives: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let challenge = |life| {
        let mut a = node(0, life);
        a.wake(T0);
        drain(&mut a, 1).remove(0)
    };
    lives.map(challenge).collect()
}

/// All that node 1 has to send: to whom, and of which kind.
fn said(by: &mut Transport) -> Vec<(u8, u8)> {
    std::iter::from_fn(|| by.poll_transmit()).map(|(to, datagram)| (to, datagram[1])).collect()
}

#[test]
fn a_challenge_is_answered_once_however_often_it_is_replayed() {
    let mut b = transport(Identity { peers: vec![0, 2], ..identity(1, 1) }, ring());
    let challenge = recorded(7..8).remove(0);
    assert_eq!(b.receive(&challenge, T0), Received::Handshake);
    let mut sent = said(&mut b);
    let mut now = T0;
    for _ in 0..100_000 {
        now = now.plus(Duration::from_micros(2));
        assert_eq!(b.receive(&challenge, now), rejected(Rejected::Replayed));
        sent.extend(said(&mut b));
    }
    let answers = sent.iter().filter(|(_, kind)| *kind == Kind::Response as u8).count();
    assert_eq!((answers, b.counters().responses_sent), (1, 1));
    assert!(sent.iter().all(|(to, _)| *to == 0), "to nobody but the peer that it names: {sent:?}");
}

#[test]
fn challenges_of_many_lives_have_no_more_answers_than_a_peer_may_ask_for() {
    let mut b = node(1, 1);
    let recorded = recorded(1..200);
    let (mut sent, mut now, span) = (Vec::new(), T0, Duration::from_secs(2));
    while now < T0.plus(span) {
        for challenge in &recorded {
            b.receive(challenge, now);
            sent.extend(said(&mut b));
        }
        now = now.plus(Duration::from_millis(1));
    }
    let of_kind = |wanted: Kind| sent.iter().filter(|(_, kind)| *kind == wanted as u8).count() as u128;
    let limit = u128::from(RESPONSE_BURST) + span.as_nanos() / RESPONSE_GAP.as_nanos() + 1;
    assert!(of_kind(Kind::Response) <= limit, "{} answers", of_kind(Kind::Response));
    assert!(of_kind(Kind::Challenge) <= span.as_nanos() / CHALLENGE_GAP_MIN.as_nanos() + 1);
    assert!(sent.iter().all(|(to, _)| *to == 0));
    assert!(b.counters().rejected(Rejected::RateLimited) > 100_000, "most are not looked at");
}

#[test]
fn forged_challenges_soon_cost_no_derivation_and_payloads_still_flow() {
    let (mut a, mut b) = pair();
    let mut forged = recorded(9..10).remove(0);
    for n in 0..10_000_u64 {
        // Each one names another life, and its tag is wrong.
        forged[30..38].copy_from_slice(&n.to_be_bytes());
        assert!(matches!(b.receive(&forged, T0), Received::Rejected { .. }));
    }
    assert!(b.counters().rejected(Rejected::BadTag) < 100, "{:?}", b.counters());
    assert_eq!(said(&mut b), []);
    let datagram = a.seal(1, b"renew").expect("connected");
    assert_eq!(b.receive(&datagram, T0), payload(0, b"renew"));
    assert_eq!(b.receive(&datagram, T0), rejected(Rejected::Replayed));
}

#[test]
fn a_restarted_peer_comes_back_although_its_former_challenges_are_replayed() {
    let (mut a, mut b) = pair();
    let old = recorded(100..110);
    let now = T0.plus(Duration::from_secs(5));
    let flood = |on: &mut Transport| {
        for challenge in old.iter().cycle().take(1_000) {
            on.receive(challenge, now);
        }
    };
    flood(&mut b);
    let mut restarted = node(0, 2);
    restarted.wake(now);
    for _ in 0..4 {
        let (to_b, to_a) = (drain(&mut restarted, 1), drain(&mut b, 0));
        to_b.iter().for_each(|datagram| drop(b.receive(datagram, now)));
        to_a.iter().for_each(|datagram| drop(restarted.receive(datagram, now)));
        flood(&mut b);
    }
    assert_eq!((b.incarnation(0), restarted.incarnation(1)), (Some(0x1002), Some(0x2001)));
    assert!(
        a.seal(1, b"from before").is_ok_and(|stale| b.receive(&stale, now) != payload(0, b"from before"))
    );
}

#[test]
fn a_peer_that_says_much_is_adopted_at_its_first_response() {
    let (mut a, mut b) = (node(0, 1), node(1, 1));
    a.wake(T0);
    drain(&mut a, 1).iter().for_each(|challenge| drop(b.receive(challenge, T0)));
    // Its own challenges are lost from here on, so only one side is connected.
    drain(&mut b, 0).iter().take(1).for_each(|response| drop(a.receive(response, T0)));
    assert_eq!((a.incarnation(1), b.incarnation(0)), (Some(0x2001), None));
    let mut now = T0;
    let mut talk = |a: &mut Transport, b: &mut Transport, are_lost: bool| {
        now = now.plus(Duration::from_millis(1));
        for _ in 0..5 {
            let datagram = a.seal(1, b"renew").expect("connected");
            b.receive(&datagram, now);
        }
        b.wake(now);
        for challenge in drain(b, 0).iter().filter(|_| !are_lost) {
            a.receive(challenge, now);
        }
        drain(a, 1).iter().map(|response| b.receive(response, now)).collect::<Vec<_>>()
    };
    (0..500).for_each(|_| assert_eq!(talk(&mut a, &mut b, true), []));
    let heard = std::iter::repeat_with(|| talk(&mut a, &mut b, false)).find(|heard| !heard.is_empty());
    assert!(matches!(heard.as_deref(), Some([Received::Adopted { peer: 0, .. }, ..])), "{heard:?}");
}

#[test]
fn nobody_is_a_peer_at_anothers_address() {
    let (mut a, mut b) = pair();
    let foreign = Received::Rejected { reason: Rejected::ForeignAddress, from: None };
    let challenge = recorded(3..4).remove(0);
    for from in [None, Some(2)] {
        assert_eq!(b.receive_from(from, &challenge, T0), foreign);
        let datagram = a.seal(1, b"renew").expect("connected");
        assert_eq!(b.receive_from(from, &datagram, T0), foreign);
    }
    assert_eq!(said(&mut b), []);
    assert_eq!(b.counters().rejected(Rejected::ForeignAddress), 4);
    let datagram = a.seal(1, b"renew").expect("connected");
    assert_eq!(b.receive_from(Some(0), &datagram, T0), payload(0, b"renew"));
    // A datagram of another version names no sender, so its address does not matter.
    let version = Received::Rejected { reason: Rejected::Version, from: None };
    assert_eq!(b.receive_from(Some(0), &[99, 1, 2, 3], T0), version);
}

#[test]
fn the_bounds_of_a_session_are_those_of_what_it_delivers() {
    let (mut a, mut b) = pair();
    let bounds = |of: &Transport| of.session_bounds(0).expect("connected");
    let (before, datagram) = (bounds(&b), a.seal(1, b"renew").expect("connected"));
    let there = a.session_bounds(1).expect("connected");
    assert_eq!((before.from, before.to), (0x1001, 0x2001));
    let (header, ..) = Header::decode(&datagram).expect("our own");
    assert!(header.counter > before.highest);
    let bytes = datagram.first_chunk().expect("a header");
    assert!(before.is_named(bytes) && before.is_new(bytes));
    b.receive(&datagram, T0);
    assert_eq!(bounds(&b).highest, header.counter);
    assert!(!bounds(&b).is_new(bytes));
    assert!(!SessionBounds { keys: there.keys, ..before }.is_new(bytes), "keys of the other way");
    assert_eq!(b.session_bounds(2), None);
}

#[test]
fn the_bounds_of_a_session_have_both_keys_of_a_rotation() {
    let (old, new) = ((KeyId(1), Psk::new(PSK)), (KeyId(2), Psk::new(OTHER_PSK)));
    let ring = |first, second| KeyRing::new(first, Some(second)).expect("two ids");
    let mut a = transport(identity(0, 1), ring(new.clone(), old.clone()));
    let mut b = transport(identity(1, 1), ring(old, new));
    a.wake(T0);
    talk(&mut a, &mut b, T0);
    for at in [1, 0] {
        let (from, to) = if at == 1 { (&mut a, &b) } else { (&mut b, &a) };
        let datagram = from.seal(at, b"renew").expect("connected");
        let bounds = to.session_bounds(1 - at).expect("connected");
        assert!(bounds.is_new(datagram.first_chunk().expect("a header")));
    }
}

#[test]
fn a_flood_of_recorded_challenges_makes_us_challenge_once_per_gap() {
    let mut old = node(0, 1);
    let challenge = |nth: u64| {
        old.wake(T0.plus(handshake::CHALLENGE_RETRY * u32::try_from(nth).expect("few")));
        drain(&mut old, 1).remove(0)
    };
    let recorded: Vec<_> = (0..1_000).map(challenge).collect();
    let mut a = node(0, 2);
    let mut b = node(1, 1);
    a.wake(T0);
    talk(&mut a, &mut b, T0);
    assert_eq!(b.incarnation(0), Some(0x1002));
    let before = b.counters().clone();
    let mut now = T0;
    for challenge in &recorded {
        now = now.plus(Duration::from_micros(100));
        b.wake(now);
        b.receive(challenge, now);
        talk(&mut a, &mut b, now);
        assert_eq!(b.incarnation(0), Some(0x1002), "a record displaces nothing");
    }
    // 100 ms of flood.
    let sent = b.counters().challenges_sent - before.challenges_sent;
    assert!((1..=11).contains(&sent), "{sent} challenges in 100 ms");
    let answered = b.counters().responses_sent - before.responses_sent;
    assert!((10..=u64::from(RESPONSE_BURST) + 11).contains(&answered), "{answered} answers in 100 ms");
    assert_eq!(a.counters().rejected(Rejected::Unsolicited), 0);
    assert_eq!(
        a.counters().rejected(Rejected::StaleIncarnation),
        answered,
        "what is answered is for that life"
    );
}

#[test]
fn a_full_outbox_drops_and_counts_and_is_healed_by_the_retry() {
    const LIVES: u64 = 10;
    let others = [0, 2, 3, 4, 5, 6, 7, 8];
    let mut b = transport(Identity { peers: others.to_vec(), ..identity(1, 1) }, ring());
    for peer in others {
        for life in 1..=LIVES {
            let mut other = transport(Identity { peers: vec![1], ..identity(peer, life) }, ring());
            other.wake(T0);
            b.receive(&drain(&mut other, 1)[0], T0);
        }
    }
    // Each peer's first one has b challenge it, too.
    let queued = others.len() * (usize::try_from(LIVES).expect("few") + 1);
    assert_eq!(b.counters().outbox_full, (queued - OUTBOX_LEN_MAX) as u64);
    let _ = drain(&mut b, 0);
    let later = T0.plus(handshake::CHALLENGE_RETRY);
    let mut a = node(0, LIVES + 1);
    a.wake(later);
    b.wake(later);
    talk(&mut a, &mut b, later);
    assert!(a.connected(1) && b.connected(0));
}
