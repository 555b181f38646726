//! Tests of the transport: what two or three real transports say to each
//! other over a network that the test plays. Floods are in [`flood`], the property tests in
//! [`replay`] and [`forged`], the tests of the key file in [`keyfile`].

mod flood;
mod forged;
mod keyfile;
mod replay;

use std::time::Duration;

use vip_common::heartbeat::WIRE_VERSION;

use super::{handshake::CHALLENGE_GAP_MIN, window::WINDOW_LEN, *};

const T0: BootNs = BootNs(10_000_000_000);
const PSK: [u8; 32] = *b"a pre-shared key just for tests.";
const OTHER_PSK: [u8; 32] = *b"another one, that nobody has got";

fn ring() -> KeyRing {
    KeyRing::new((KeyId(1), Psk::new(PSK)), None).expect("one key")
}

/// The identity of node `me` in its `life`-th life, in a cluster of three.
fn identity(me: u8, life: u64) -> Identity {
    Identity {
        me,
        incarnation: 0x1000 * (u64::from(me) + 1) + life,
        cluster: "shop".to_owned(),
        config_digest: 77,
        generation: 5,
        nodes_digest: 55,
        is_member: true,
        peers: vec![0, 1, 2],
    }
}

fn entropy(identity: &Identity) -> [u8; 32] {
    *blake3::hash(&identity.incarnation.to_be_bytes()).as_bytes()
}

fn transport(identity: Identity, keys: KeyRing) -> Transport {
    let entropy = entropy(&identity);
    Transport::new(identity, keys, entropy)
}

fn node(me: u8, generation: u64) -> Transport {
    transport(identity(me, generation), ring())
}

fn drain(from: &mut Transport, to: u8) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| from.poll_transmit())
        .filter(|(peer, _)| *peer == to)
        .map(|(_, datagram)| datagram)
        .collect()
}

/// Delivers all datagrams between 0 and 1, at once and in order, until both are silent. Returns
/// what became of each.
fn talk(a: &mut Transport, b: &mut Transport, now: BootNs) -> Vec<Received> {
    let mut received = Vec::new();
    for _ in 0..20 {
        let (to_b, to_a) = (drain(a, 1), drain(b, 0));
        if to_a.is_empty() && to_b.is_empty() {
            return received;
        }
        received.extend(to_b.iter().map(|datagram| b.receive(datagram, now)));
        received.extend(to_a.iter().map(|datagram| a.receive(datagram, now)));
    }
    panic!("the two never fall silent");
}

/// 0 and 1, connected.
fn pair() -> (Transport, Transport) {
    let (mut a, mut b) = (node(0, 1), node(1, 1));
    a.wake(T0);
    talk(&mut a, &mut b, T0);
    assert!(a.connected(1) && b.connected(0));
    (a, b)
}

fn rejected(reason: Rejected) -> Received {
    Received::Rejected { reason, from: Some(0) }
}

fn payload(from: u8, payload: &[u8]) -> Received {
    Received::Payload { from, payload: payload.to_vec() }
}

#[test]
fn one_side_waking_connects_both_within_one_exchange() {
    let (mut a, mut b) = (node(0, 1), node(1, 1));
    assert_eq!(a.next_deadline(), Some(BootNs(0)), "due at once");
    a.wake(T0);
    let received = talk(&mut a, &mut b, T0);
    assert!(received.contains(&Received::Adopted {
        peer: 0,
        incarnation: 0x1001,
        fresh: true,
        generation: 5,
        is_member: true,
    }));
    assert!(received.contains(&Received::Adopted {
        peer: 1,
        incarnation: 0x2001,
        fresh: true,
        generation: 5,
        is_member: true,
    }));
    assert_eq!((a.incarnation(1), b.incarnation(0)), (Some(0x2001), Some(0x1001)));
}

#[test]
fn payloads_flow_both_ways_empty_and_longest_too() {
    let (mut a, mut b) = pair();
    for bytes in [vec![], vec![5], vec![9; PAYLOAD_LEN_MAX]] {
        let datagram = a.seal(1, &bytes).expect("connected");
        assert_eq!(datagram.len(), bytes.len() + OVERHEAD);
        assert_eq!(b.receive(&datagram, T0), payload(0, &bytes));
        let datagram = b.seal(0, &bytes).expect("connected");
        assert_eq!(a.receive(&datagram, T0), payload(1, &bytes));
    }
    assert_eq!((a.counters().sealed, a.counters().delivered), (3, 3));
}

#[test]
fn sealing_says_why_it_cannot() {
    let (mut a, _) = pair();
    assert_eq!(a.seal(2, b"x"), Err(SealError::NotConnected(2)));
    assert_eq!(a.seal(0, b"x"), Err(SealError::UnknownPeer(0)), "no talking to oneself");
    assert_eq!(a.seal(9, b"x"), Err(SealError::UnknownPeer(9)));
    let long = vec![0; PAYLOAD_LEN_MAX + 1];
    assert_eq!(a.seal(1, &long), Err(SealError::TooLong { len: long.len() }));
    a.peers.get_mut(&1).expect("a peer").counter = SendCounter(u64::MAX - 1);
    assert!(a.seal(1, b"the last one").is_ok());
    assert_eq!(a.seal(1, b"x"), Err(SealError::CounterExhausted(1)));
}

#[test]
fn a_silent_peer_is_challenged_at_the_retry_interval_and_no_faster() {
    let mut a = transport(Identity { peers: vec![1], ..identity(0, 1) }, ring());
    let mut now = T0;
    for _ in 0..5 {
        a.wake(now);
        assert_eq!(drain(&mut a, 1).len(), 1);
        a.wake(now);
        assert_eq!(drain(&mut a, 1).len(), 0);
        let next = a.next_deadline().expect("not adopted");
        assert_eq!(next.since(now), handshake::CHALLENGE_RETRY);
        now = next;
    }
}

#[test]
fn nothing_is_due_once_all_are_connected() {
    let (mut a, mut b) = (
        transport(Identity { peers: vec![1], ..identity(0, 1) }, ring()),
        transport(Identity { peers: vec![0], ..identity(1, 1) }, ring()),
    );
    a.wake(T0);
    talk(&mut a, &mut b, T0);
    // Evidence that came after a nonce was drawn may ask for one more round trip.
    let later = T0.plus(CHALLENGE_GAP_MIN);
    a.wake(later);
    b.wake(later);
    talk(&mut a, &mut b, later);
    assert_eq!((a.next_deadline(), b.next_deadline()), (None, None));
}

#[test]
fn a_restarted_peer_is_adopted_at_its_first_challenge() {
    let (mut a, _) = pair();
    let now = T0.plus(Duration::from_secs(5));
    let mut b = node(1, 2);
    b.wake(now);
    let received = talk(&mut a, &mut b, now);
    assert!(received.contains(&Received::Adopted {
        peer: 1,
        incarnation: 0x2002,
        fresh: false,
        generation: 5,
        is_member: true,
    }));
    assert!(received.contains(&Received::Adopted {
        peer: 0,
        incarnation: 0x1001,
        fresh: true,
        generation: 5,
        is_member: true,
    }));
    let datagram = a.seal(1, b"welcome back").expect("connected");
    assert_eq!(b.receive(&datagram, now), payload(0, b"welcome back"));
}

#[test]
fn an_incarnation_adopted_again_cannot_have_its_past_replayed() {
    // Two agents of one node, which a file lock prevents: even then nothing is received twice.
    let (mut a, mut b) = pair();
    let old = a.seal(1, b"renew").expect("connected");
    assert_eq!(b.receive(&old, T0), payload(0, b"renew"));
    let mut twin = node(0, 2);
    let mut now = T0;
    for (life, live) in [(0x1002, true), (0x1001, false), (0x1002, true), (0x1001, false)] {
        now = now.plus(CHALLENGE_GAP_MIN);
        let talker = if live { &mut twin } else { &mut a };
        if talker.connected(1) {
            let evidence = talker.seal(1, b"me").expect("connected");
            b.receive(&evidence, now);
        } else {
            talker.wake(now);
        }
        talk(talker, &mut b, now);
        assert_eq!(b.incarnation(0), Some(life));
        let outcome = b.receive(&old, now);
        assert!(matches!(outcome, Received::Rejected { .. }), "{outcome:?}");
        let new = if live { &mut twin } else { &mut a }.seal(1, b"new").expect("connected");
        assert_eq!(b.receive(&new, now), payload(0, b"new"));
    }
}

#[test]
fn both_sides_restarting_find_each_other() {
    let _ = pair();
    let (mut a, mut b) = (node(0, 2), node(1, 2));
    a.wake(T0);
    b.wake(T0);
    talk(&mut a, &mut b, T0);
    assert_eq!((a.incarnation(1), b.incarnation(0)), (Some(0x2002), Some(0x1002)));
}

#[test]
fn data_from_a_peer_that_missed_our_restart_makes_us_challenge_it_early() {
    let (mut a, b) = pair();
    drop(b);
    let now = T0.plus(Duration::from_secs(5));
    let mut b = node(1, 2);
    b.wake(now);
    // The first challenge is lost, and the retry is 100 ms away.
    let _ = drain(&mut b, 0);
    let to_the_dead = a.seal(1, b"renew").expect("connected to the old incarnation");
    let soon = now.plus(CHALLENGE_GAP_MIN);
    assert_eq!(b.receive(&to_the_dead, soon), rejected(Rejected::StaleIncarnation));
    talk(&mut a, &mut b, soon);
    assert_eq!((a.incarnation(1), b.incarnation(0)), (Some(0x2002), Some(0x1001)));
    assert!(soon.since(now) < Duration::from_millis(50));
}

#[test]
fn data_for_our_former_incarnation_is_not_delivered_to_this_one() {
    let (mut a, _) = pair();
    let now = T0.plus(Duration::from_secs(5));
    let mut b = node(1, 2);
    b.wake(now);
    for challenge in drain(&mut b, 0) {
        a.receive(&challenge, now);
    }
    // Our response to a's challenge gets lost: we adopt a, and a not us.
    for datagram in drain(&mut a, 1) {
        b.receive(&datagram, now);
    }
    let _ = drain(&mut b, 0);
    assert_eq!((a.incarnation(1), b.incarnation(0)), (Some(0x2001), Some(0x1001)));
    let to_the_dead = a.seal(1, b"renew").expect("connected to the old incarnation");
    assert_eq!(b.receive(&to_the_dead, now), rejected(Rejected::StaleIncarnation));
}

/// Loses the `lost`-th datagram of a handshake and expects the rest to heal it.
fn heals_after_losing(lost: usize) {
    let (mut a, mut b) = (node(0, 1), node(1, 1));
    let mut now = T0;
    let mut count = 0;
    for _ in 0..30 {
        a.wake(now);
        b.wake(now);
        for _ in 0..4 {
            for (datagram, to_b) in drain(&mut a, 1)
                .into_iter()
                .map(|datagram| (datagram, true))
                .chain(drain(&mut b, 0).into_iter().map(|datagram| (datagram, false)))
                .collect::<Vec<_>>()
            {
                if count != lost {
                    let _ = if to_b { b.receive(&datagram, now) } else { a.receive(&datagram, now) };
                }
                count += 1;
            }
        }
        now = now.plus(CHALLENGE_GAP_MIN);
    }
    assert!(count > lost, "there was a datagram to lose");
    assert!(a.connected(1) && b.connected(0), "losing datagram {lost} left the pair one-sided");
    let datagram = a.seal(1, b"through").expect("connected");
    assert_eq!(b.receive(&datagram, now), payload(0, b"through"));
}

#[test]
fn losing_any_one_datagram_of_a_handshake_leaves_no_pair_one_sided() {
    for lost in 0..4 {
        heals_after_losing(lost);
    }
}

#[test]
fn a_wrong_key_is_a_bad_tag_and_connects_nobody() {
    let mut a = transport(identity(0, 1), KeyRing::new((KeyId(1), Psk::new(OTHER_PSK)), None).expect("one"));
    let mut b = node(1, 1);
    a.wake(T0);
    b.wake(T0);
    let received = talk(&mut a, &mut b, T0);
    assert_eq!(received.len(), 2);
    for outcome in received {
        assert!(matches!(outcome, Received::Rejected { reason: Rejected::BadTag, from: Some(_) }));
    }
    assert_eq!(b.counters().rejected(Rejected::BadTag), 1);
    assert!(!a.connected(1) && !b.connected(0));
}

#[test]
fn another_cluster_with_the_same_key_is_a_bad_tag() {
    let mut a = transport(Identity { cluster: "shop2".to_owned(), ..identity(0, 1) }, ring());
    let mut b = node(1, 1);
    a.wake(T0);
    assert_eq!(talk(&mut a, &mut b, T0), [rejected(Rejected::BadTag)]);
}

#[test]
fn another_configuration_is_named_and_connects_nobody() {
    let mut a = transport(Identity { config_digest: 78, ..identity(0, 1) }, ring());
    let mut b = node(1, 1);
    a.wake(T0);
    assert_eq!(talk(&mut a, &mut b, T0), [rejected(Rejected::ConfigMismatch)]);
    assert!(!b.connected(0));
    assert_eq!(drain(&mut b, 0), Vec::<Vec<u8>>::new(), "not even a challenge");
}

#[test]
fn a_forged_digest_is_a_bad_tag_and_not_a_mismatch() {
    let (mut a, mut b) = pair();
    let mut datagram = a.seal(1, b"x").expect("connected");
    datagram[12] ^= 1;
    assert_eq!(b.receive(&datagram, T0), rejected(Rejected::BadTag));
}

#[test]
fn another_version_is_rejected_by_name_and_harms_nothing() {
    let (mut a, mut b) = pair();
    for version in [0, WIRE_VERSION + 1, 255] {
        let mut datagram = a.seal(1, b"from the future").expect("connected");
        datagram[0] = version;
        let outcome = b.receive(&datagram, T0);
        assert_eq!(outcome, Received::Rejected { reason: Rejected::Version, from: None });
    }
    assert_eq!(b.counters().rejected(Rejected::Version), 3);
    let datagram = a.seal(1, b"of today").expect("connected");
    assert_eq!(b.receive(&datagram, T0), payload(0, b"of today"));
}

/// A cluster in the middle of an upgrade: 0 and 1 speak one version, 2 another.
#[test]
fn those_of_one_version_connect_and_those_of_two_reject_each_other() {
    let mut nodes = [node(0, 1), node(1, 1), node(2, 1)];
    // The datagram with the version that its receiver sees: 2 speaks another one.
    let seen = |from: u8, to: u8, mut datagram: Vec<u8>| {
        if (from == 2) != (to == 2) {
            datagram[0] = if from == 2 { WIRE_VERSION + 1 } else { WIRE_VERSION - 1 };
        }
        datagram
    };
    let mut between_versions = 0_u64;
    for round in 0..20_u32 {
        let now = T0.plus(CHALLENGE_GAP_MIN * round * 2);
        for from in 0..3_u8 {
            nodes[usize::from(from)].wake(now);
            while let Some((to, datagram)) = nodes[usize::from(from)].poll_transmit() {
                let received = nodes[usize::from(to)].receive(&seen(from, to, datagram), now);
                if (from == 2) != (to == 2) {
                    between_versions += 1;
                    assert_eq!(received, Received::Rejected { reason: Rejected::Version, from: None });
                }
            }
        }
    }
    let connected = |of: usize| (0..3).filter(|peer| nodes[of].connected(*peer)).collect::<Vec<_>>();
    assert_eq!([connected(0), connected(1), connected(2)], [vec![1], vec![0], vec![]]);
    let rejected: u64 = nodes.iter().map(|node| node.counters().rejected(Rejected::Version)).sum();
    assert!(rejected == between_versions && rejected > 0, "{rejected} of {between_versions}");
    let answers: u64 = nodes[2].counters().responses_sent;
    assert_eq!(answers, 0, "what is rejected is not answered");
    let datagram = nodes[0].seal(1, b"and leases go on").expect("connected");
    assert_eq!(nodes[1].receive(&datagram, T0), payload(0, b"and leases go on"));
}

/// A node that is joining is heard, and told apart from those that take part (rule 10).
#[test]
fn who_is_joining_says_so() {
    let mut a = node(0, 1);
    let mut b = transport(Identity { is_member: false, ..identity(1, 1) }, ring());
    b.wake(T0);
    let received = talk(&mut a, &mut b, T0);
    let adopted = |peer: u8| {
        received.iter().find_map(|received| match received {
            Received::Adopted { peer: of, is_member, .. } if *of == peer => Some(*is_member),
            Received::Adopted { .. }
            | Received::Payload { .. }
            | Received::Handshake
            | Received::Rejected { .. } => None,
        })
    };
    assert_eq!((adopted(0), adopted(1)), (Some(true), Some(false)));
}

#[test]
fn what_is_not_for_us_or_not_from_a_peer_is_named() {
    let (mut a, _) = pair();
    let to_one = a.seal(1, b"x").expect("connected");
    let mut c = node(2, 1);
    let nameless = |reason| Received::Rejected { reason, from: None };
    assert_eq!(c.receive(&to_one, T0), nameless(Rejected::NotForMe));
    let mut stranger = to_one.clone();
    stranger[3] = 5;
    stranger[4] = 2;
    assert_eq!(c.receive(&stranger, T0), nameless(Rejected::UnknownPeer));
    stranger[3] = 2;
    assert_eq!(c.receive(&stranger, T0), nameless(Rejected::UnknownPeer), "we are no peer of ours");
    let mut kind = to_one.clone();
    kind[1] = 4;
    assert_eq!(c.receive(&kind, T0), nameless(Rejected::Kind));
    assert_eq!(c.receive(b"", T0), nameless(Rejected::Truncated));
    let mut b = node(1, 1);
    let mut key = to_one;
    key[2] = 2;
    assert_eq!(b.receive(&key, T0), rejected(Rejected::UnknownKey));
}

#[test]
fn tampering_with_any_bit_of_any_kind_is_never_believed() {
    let (mut a, mut b) = (node(0, 1), node(1, 1));
    a.wake(T0);
    b.wake(T0);
    let challenge = drain(&mut a, 1).remove(0);
    a.receive(&drain(&mut b, 0)[0], T0);
    let response = drain(&mut a, 1).remove(0);
    let data = pair().0.seal(1, b"renew").expect("connected");
    let mut now = T0;
    for datagram in [challenge, response, data] {
        for bit in 0..datagram.len() * 8 {
            // They come too slowly for a flood: the transport checks each of them.
            now = now.plus(Duration::from_millis(10));
            let mut tampered = datagram.clone();
            tampered[bit / 8] ^= 1 << (bit % 8);
            let outcome = b.receive(&tampered, now);
            assert!(matches!(outcome, Received::Rejected { .. }), "bit {bit}: {outcome:?}");
            if bit / 8 >= 5 {
                assert_eq!(outcome, rejected(Rejected::BadTag), "bit {bit}");
            }
        }
        for len in 0..datagram.len() {
            let outcome = b.receive(&datagram[..len], T0);
            assert!(matches!(outcome, Received::Rejected { .. }), "{len} bytes: {outcome:?}");
        }
    }
    assert!(!b.connected(0));
    assert!(drain(&mut b, 0).is_empty(), "nothing is ever sent back");
}

#[test]
fn a_kind_cannot_pass_for_another() {
    let (mut a, mut b) = pair();
    let mut datagram = a.seal(1, &[0; 16]).expect("connected");
    datagram[1] = Kind::Response as u8;
    assert_eq!(b.receive(&datagram, T0), rejected(Rejected::BadTag));
}

#[test]
fn reordering_within_the_window_loses_nothing_and_duplicates_are_dropped() {
    let (mut a, mut b) = pair();
    let datagrams: Vec<_> =
        (0..WINDOW_LEN).map(|n| a.seal(1, &n.to_be_bytes()).expect("connected")).collect();
    for (n, datagram) in datagrams.iter().enumerate().rev() {
        assert_eq!(b.receive(datagram, T0), payload(0, &(n as u64).to_be_bytes()));
    }
    for datagram in &datagrams {
        assert_eq!(b.receive(datagram, T0), rejected(Rejected::Replayed));
    }
}

#[test]
fn a_forged_counter_does_not_move_the_window() {
    let (mut a, mut b) = pair();
    let datagram = a.seal(1, b"genuine").expect("connected");
    let mut forged = datagram.clone();
    forged[29] = 0x7f;
    assert_eq!(b.receive(&forged, T0), rejected(Rejected::BadTag));
    assert_eq!(b.receive(&datagram, T0), payload(0, b"genuine"));
}

#[test]
fn keys_rotate_in_three_steps_without_a_gap() {
    let old = || (KeyId(1), Psk::new(PSK));
    let new = || (KeyId(2), Psk::new(OTHER_PSK));
    let both = |primary, secondary| KeyRing::new(primary, Some(secondary)).expect("two ids");
    let steps = [ring(), both(old(), new()), both(new(), old()), KeyRing::new(new(), None).expect("one")];
    for neighbours in steps.windows(2) {
        for (left, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut a = transport(identity(0, 1), neighbours[left].clone());
            let mut b = transport(identity(1, 1), neighbours[right].clone());
            a.wake(T0);
            talk(&mut a, &mut b, T0);
            let to_b = a.seal(1, b"there").expect("connected");
            assert_eq!(to_b[2], neighbours[left].primary_id().0, "sent under the first key");
            assert_eq!(b.receive(&to_b, T0), payload(0, b"there"));
            let to_a = b.seal(0, b"back").expect("connected");
            assert_eq!(a.receive(&to_a, T0), payload(1, b"back"));
        }
    }
    let mut a = transport(identity(0, 1), steps[0].clone());
    let mut b = transport(identity(1, 1), steps[3].clone());
    a.wake(T0);
    assert_eq!(talk(&mut a, &mut b, T0), [rejected(Rejected::UnknownKey)], "no step may be skipped");
}

#[test]
fn debug_output_has_neither_keys_nor_nonces() {
    let (a, _) = pair();
    let shown = format!("{a:?}");
    assert!(shown.contains("shop") && shown.contains("Psk(..)"), "{shown}");
    assert!(!shown.contains("nonces") && !shown.contains("97, 32, 112"), "{shown}");
}

#[test]
fn labels_of_the_reasons_are_unique() {
    let mut labels: Vec<_> = Rejected::ALL.iter().map(|reason| reason.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Rejected::ALL.len());
}

/// Rule 10: neighbouring generations hear each other, others do not, and
/// within one generation the nodes must be the same.
#[test]
fn only_neighbouring_generations_are_heard() {
    for (generation, nodes_digest, is_heard) in
        [(5, 55, true), (5, 56, false), (4, 44, true), (6, 66, true), (3, 33, false), (7, 77, false)]
    {
        let mut a = node(0, 1);
        let other = Identity { generation, nodes_digest, ..identity(1, 1) };
        let mut b = transport(other, ring());
        b.wake(T0);
        let (_, challenge) = b.poll_transmit().expect("a challenge");
        let received = a.receive(&challenge, T0);
        if is_heard {
            assert_eq!(received, Received::Handshake, "{generation}");
        } else {
            let reason = Rejected::GenerationMismatch;
            assert_eq!(received, Received::Rejected { reason, from: Some(1) }, "{generation}");
            assert_eq!(a.counters().rejected(reason), 1);
            assert!(a.poll_transmit().is_none(), "nothing is sent back");
        }
    }
}
