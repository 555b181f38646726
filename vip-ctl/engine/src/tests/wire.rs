//! Packets as bytes: everything comes back as it was, and no bytes do harm.

use proptest::prelude::*;

use super::ms;
use crate::*;

fn ballots() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u64>(), any::<u8>()).prop_map(|(round, incarnation, node)| Ballot {
        round,
        incarnation: Incarnation(incarnation),
        node: NodeId(node),
    })
}

/// 255 stands for nobody.
fn nodes() -> impl Strategy<Value = NodeId> {
    (0..u8::MAX).prop_map(NodeId)
}

fn durations() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::NoSuchGroup),
        Just(Refusal::NoSuchNode),
        Just(Refusal::NoQuorum),
        Just(Refusal::Starting),
        Just(Refusal::Stopping),
        Just(Refusal::NotHeld),
        Just(Refusal::TargetNeverHolds),
        Just(Refusal::TargetNotReady),
        Just(Refusal::TargetSilent),
        Just(Refusal::NoTarget),
        Just(Refusal::NotHolder),
        Just(Refusal::Busy),
        Just(Refusal::Timeout),
    ]
}

fn refused() -> impl Strategy<Value = Refused> {
    prop_oneof![
        (ballots(), any::<u64>(), claims(), durations()).prop_map(|(ballot, epoch, claim, remaining)| {
            Refused::Held { ballot, epoch: Epoch(epoch), claim, remaining }
        }),
        ballots().prop_map(|ballot| Refused::Promised { ballot }),
        (any::<u8>(), durations())
            .prop_map(|(node, remaining)| Refused::Reserved { successor: NodeId(node), remaining }),
        durations().prop_map(|remaining| Refused::Silent { remaining }),
    ]
}

fn claims() -> impl Strategy<Value = Claim> {
    prop_oneof![Just(Claim::Asked), Just(Claim::Held), Just(Claim::Forced)]
}

fn abouts() -> impl Strategy<Value = About> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let ask = || any::<u64>().prop_map(AskId);
    prop_oneof![
        ballots().prop_map(|ballot| About::Prepare { ballot }),
        (ballots(), epoch(), proptest::option::of(epoch()))
            .prop_map(|(ballot, epoch, yours)| About::Promise { ballot, epoch, yours }),
        (ballots(), epoch(), claims()).prop_map(|(ballot, epoch, claim)| About::Propose {
            ballot,
            epoch,
            claim
        }),
        ballots().prop_map(|ballot| About::Holding { ballot }),
        ballots().prop_map(|ballot| About::Accept { ballot }),
        (ballots(), refused()).prop_map(|(ballot, because)| About::Refuse { ballot, because }),
        (ballots(), proptest::option::of(nodes()))
            .prop_map(|(ballot, successor)| About::Release { ballot, successor }),
        ballots().prop_map(|ballot| About::Released { ballot }),
        ask().prop_map(|ask| About::AskReady { ask }),
        (ask(), any::<bool>()).prop_map(|(ask, ready)| About::Ready { ask, ready }),
        (any::<std::net::IpAddr>(), any::<[u8; 6]>()).prop_map(|(vip, mac)| {
            // An IPv6-mapped address is the IPv4 address.
            About::Stale { client: StaleClient { vip: vip.to_canonical(), mac } }
        }),
        any::<std::net::IpAddr>().prop_map(|vip| About::Unheard { vip: vip.to_canonical() }),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let request = || {
        (any::<u64>(), any::<u64>()).prop_map(|(incarnation, command)| RequestId {
            incarnation: Incarnation(incarnation),
            command: CommandId(command),
        })
    };
    let group = || any::<u16>().prop_map(GroupId);
    let command = prop_oneof![
        (group(), nodes()).prop_map(|(group, to)| Command::Promote { group, to }),
        group().prop_map(|group| Command::Demote { group }),
        (group(), proptest::option::of(nodes())).prop_map(|(group, to)| Command::Switchover { group, to }),
        group().prop_map(|group| Command::Force { group }),
        (nodes(), any::<bool>(), any::<bool>()).prop_map(|(node, on, force)| Command::Standby {
            node,
            on,
            force: on && force
        }),
        any::<bool>().prop_map(|on| Command::Pause { on }),
    ];
    let verdict = prop_oneof![
        proptest::option::of(nodes()).prop_map(|successor| Verdict::Started { successor }),
        refusals().prop_map(Verdict::Refused),
    ];
    prop_oneof![
        (group(), proptest::collection::vec(any::<bool>(), 0..200))
            .prop_map(|(first, ready)| Message::Heartbeat { first, ready }),
        (request(), any::<u64>(), command).prop_map(|(request, epoch, command)| Message::Request {
            request,
            epoch: Epoch(epoch),
            command
        }),
        (any::<bool>(), any::<u64>(), any::<bool>(), any::<u64>()).prop_map(
            |(standby, version, on, highest)| {
                Message::Node { standby, pause: Pause { version, on }, highest: Epoch(highest) }
            }
        ),
        (request(), verdict).prop_map(|(request, verdict)| Message::Verdict { request, verdict }),
        (group(), abouts()).prop_map(|(group, about)| Message::Group { group, about }),
        paths().prop_map(Message::Paths),
    ]
}

fn paths() -> impl Strategy<Value = Paths> {
    let end = (any::<[u8; 6]>(), any::<std::net::IpAddr>());
    // An IPv6-mapped address is the IPv4 address.
    let end = end.prop_map(|(mac, address)| PathEnd { mac, address: address.to_canonical() });
    let seen = any::<(std::net::IpAddr, bool)>();
    let seen = seen.prop_map(|(address, arrives)| PathSeen { address: address.to_canonical(), arrives });
    let some = 0..4_usize;
    (proptest::collection::vec(end, some.clone()), proptest::collection::vec(seen, some))
        .prop_map(|(ends, seen)| Paths { ends, seen })
}

#[test]
fn more_interfaces_than_a_message_has_room_for_are_left_out() {
    let end = PathEnd { mac: [2; 6], address: std::net::Ipv6Addr::LOCALHOST.into() };
    let seen = PathSeen { address: end.address, arrives: true };
    let count = PATHS_MAX + 1;
    let packet =
        Packet { messages: vec![Message::Paths(Paths { ends: vec![end; count], seen: vec![seen; count] })] };
    let [payload] = &packet.encode()[..] else { panic!("it fits into one payload") };
    let expected = Paths { ends: vec![end; PATHS_MAX], seen: vec![seen; PATHS_MAX] };
    assert_eq!(Packet::decode(payload), Ok(Packet { messages: vec![Message::Paths(expected)] }));
    let too_many = [&[18, 25][..], &[0; 25 * 22 + 1]].concat();
    assert!(matches!(Packet::decode(&too_many), Err(DecodeError::Unknown { byte: 25, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_MAX + 10)) {
        if let Ok(packet) = Packet::decode(&bytes) {
            // A packet that was decoded means the same when it is encoded again.
            prop_assert_eq!(Packet::decode(&packet.encode().concat()), Ok(packet));
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(messages in proptest::collection::vec(messages(), 0..12)) {
        let packet = Packet { messages };
        prop_assert_eq!(Packet::decode(&packet.encode().concat()), Ok(packet));
    }

    #[test]
    fn what_decodes_has_one_form(
        messages in proptest::collection::vec(messages(), 1..12),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8), 0..3),
    ) {
        let count = messages.len();
        let mut bytes = Packet { messages }.encode().concat();
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1_u8 << bit;
        }
        if let Ok(packet) = Packet::decode(&bytes) {
            let again = packet.encode().concat();
            let of_another_table = |message: &Message| {
                matches!(message, Message::Heartbeat { ready, .. } if ready.is_empty())
            };
            if packet.messages.len() < count || packet.messages.iter().any(of_another_table) {
                // The packet is about groups that do not exist.
                return Ok(());
            }
            prop_assert_eq!(again.len(), bytes.len());
            let padded = |message: &Message| match message {
                Message::Heartbeat { ready, .. } => ready.len() % 8 != 0,
                Message::Node { .. }
                | Message::Request { .. }
                | Message::Verdict { .. }
                | Message::Group { .. }
                | Message::Paths(_) => false,
            };
            if packet.messages.iter().any(padded) {
                // Only what pads a heartbeat may differ: bits that become zero.
                prop_assert!(again.iter().zip(&bytes).all(|(again, was)| again & !was == 0));
            } else {
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn what_pads_a_heartbeat_is_ignored(groups in 1_u16..64, padding in any::<u8>()) {
        let ready = vec![true; usize::from(groups)];
        let heartbeat = Packet { messages: vec![Message::Heartbeat { first: GroupId(0), ready }] };
        let canonical = heartbeat.encode().concat();
        let mut padded = canonical.clone();
        if let (Some(last), true) = (padded.last_mut(), groups % 8 != 0) {
            *last |= padding << (groups % 8);
        }
        let decoded = Packet::decode(&padded);
        prop_assert_eq!(decoded.as_ref(), Ok(&heartbeat));
        prop_assert_eq!(decoded.map(|packet| packet.encode().concat()), Ok(canonical));
    }

    #[test]
    fn a_packet_cut_short_is_an_error_or_fewer_messages(message in messages(), cut in any::<prop::sample::Index>()) {
        let bytes = Packet { messages: vec![message] }.encode().concat();
        let short = &bytes[..cut.index(bytes.len())];
        match Packet::decode(short) {
            Ok(packet) => prop_assert!(short.is_empty() && packet.messages.is_empty()),
            Err(error) => prop_assert_eq!(error, DecodeError::Truncated),
        }
    }

    #[test]
    fn splitting_loses_nothing_and_keeps_to_the_limit(messages in proptest::collection::vec(messages(), 0..70)) {
        let mut again = Vec::new();
        for payload in (Packet { messages: messages.clone() }).encode() {
            prop_assert!(payload.len() <= PAYLOAD_MAX);
            again.extend(Packet::decode(&payload).unwrap().messages);
        }
        prop_assert_eq!(again, messages);
    }
}

/// Renewals, or their answers, of these groups.
fn together(groups: &[u16], is_renewal: bool, epoch: impl Fn(u16) -> u64) -> Vec<Message> {
    let ballot = Ballot { round: 9, incarnation: Incarnation(8), node: NodeId(7) };
    let about = |group| match is_renewal {
        true => About::Propose { ballot, epoch: Epoch(epoch(group)), claim: Claim::Held },
        false => About::Accept { ballot },
    };
    groups.iter().map(|&group| Message::Group { group: GroupId(group), about: about(group) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_renewed_together_comes_apart_as_it_was(
        gaps in proptest::collection::vec(prop_oneof![4 => 1_u16..4, 1 => 1_u16..400], 1..300),
        wide in any::<bool>(),
        is_renewal in any::<bool>(),
        others in proptest::collection::vec((any::<prop::sample::Index>(), messages()), 0..3),
    ) {
        let groups: Vec<u16> = gaps.iter().scan(0_u16, |at, gap| { *at = at.checked_add(*gap)?; Some(*at) }).collect();
        let epoch = |group: u16| if wide { u64::MAX / (u64::from(group) + 1) } else { group.into() };
        let mut messages = together(&groups, is_renewal, epoch);
        for (at, other) in others {
            messages.insert(at.index(messages.len()), other);
        }
        let mut again = Vec::new();
        for payload in (Packet { messages: messages.clone() }).encode() {
            prop_assert!(payload.len() <= PAYLOAD_MAX);
            again.extend(Packet::decode(&payload).unwrap().messages);
        }
        prop_assert_eq!(again, messages);
    }
}

#[test]
fn ten_thousand_renewals_are_few_datagrams() {
    let all: Vec<u16> = (0..10_000).collect();
    let len = |is_renewal| Packet { messages: together(&all, is_renewal, |_| 3) }.encode().len();
    assert!((len(true), len(false)) <= (10, 2), "{:?}", (len(true), len(false)));
}

#[test]
fn a_run_has_one_form() {
    let bytes = Packet { messages: together(&[4, 5, 7], true, |_| 300) }.encode().concat();
    // Pinned: a change here is a change of the wire version.
    let head = [15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 4, 0, 4];
    assert_eq!(bytes, [&head[..], &[0b1011], &[0xac, 2, 0xac, 2, 0xac, 2]].concat());
    for (at, byte, what) in [
        (29, 1, "one group is no run"),
        (29, 5, "the last bit is not set"),
        (30, 0b1010, "nor the first one"),
        (30, 0b1_1011, "a bit beyond"),
        (32, 0x80, "a number that does not end"),
        (36, 0, "a number that ends in zeros"),
    ] {
        let mut other = bytes.clone();
        other[at] = byte;
        assert!(Packet::decode(&other).is_err(), "{what}");
    }
    for cut in 1..bytes.len() {
        assert_eq!(Packet::decode(&bytes[..cut]), Err(DecodeError::Truncated), "{cut}");
    }
    // A group number that is too high.
    let mut high = bytes;
    (high[26], high[27]) = (0xff, 0xfd);
    assert!(matches!(Packet::decode(&high), Err(DecodeError::Unknown { .. })));
}

#[test]
fn only_who_has_the_same_groups_is_told_of_them_by_number() {
    let specs =
        |first: u64| -> Vec<_> { (first..first + 4).map(|label| LabelSpec::only(Label(label))).collect() };
    let config = |me| {
        let nodes = vec![NodeSpec { role: Role::Node }; 3];
        EngineConfig::new(me, Incarnation(1), nodes, vec![GroupSpec::default(); 4], super::ACCEPT)
    };
    let at = BootNs(1_000_000_000);
    let mut of_a = Labels::new(&config(super::A), &specs(10), 1, at);
    let mut of_b = Labels::new(&config(super::B), &specs(10), 1, at);
    let renewals = Packet { messages: together(&[0, 1, 2, 3], true, |_| 1) };
    let told = |of_a: &mut Labels, of_b: &mut Labels| {
        let mut bytes = renewals.encode_for(super::B, of_a, at);
        let bytes = bytes.pop().unwrap();
        (bytes.len(), Packet::decode_from(&bytes, super::A, of_b, at).unwrap())
    };
    // A has not heard of B's groups yet.
    let (long, heard) = told(&mut of_a, &mut of_b);
    assert_eq!((long, &heard), (4 * 35, &renewals));
    let heartbeat = Packet { messages: vec![Message::Heartbeat { first: GroupId(0), ready: vec![true; 4] }] };
    let hears = |of_a: &mut Labels, of_b: &mut Labels| {
        let bytes = heartbeat.encode_for(super::A, of_b, at).concat();
        Packet::decode_from(&bytes, super::B, of_a, at).unwrap();
    };
    hears(&mut of_a, &mut of_b);
    let (short, heard) = told(&mut of_a, &mut of_b);
    assert_eq!((short, &heard), (30 + 1 + 4, &renewals));
    // B has other groups now, of which A has not heard: A's numbers mean other groups there.
    let others: Vec<_> = specs(11)
        .into_iter()
        .enumerate()
        .map(|(at, spec)| (u16::try_from(at + 1).ok().filter(|was| *was < 4).map(GroupId), spec))
        .collect();
    of_b.reload(&others, 2, at);
    let (_, heard) = told(&mut of_a, &mut of_b);
    assert_eq!(heard.messages, []);
    hears(&mut of_a, &mut of_b);
    let (long, heard) = told(&mut of_a, &mut of_b);
    assert_eq!(long, 4 * 35);
    // What both have is 11, 12 and 13, and B has them one place before.
    assert_eq!(heard.messages, together(&[0, 1, 2], true, |_| 1));
}

#[test]
fn the_longest_heartbeat_fits_a_packet() {
    let ready = vec![true; usize::from(HEARTBEAT_GROUPS)];
    let heartbeat = Message::Heartbeat { first: GroupId(0), ready };
    assert!(Packet { messages: vec![heartbeat] }.encode().concat().len() <= PAYLOAD_MAX);
}

#[test]
fn too_long_and_unknown_are_told_apart() {
    assert_eq!(Packet::decode(&[0; PAYLOAD_MAX + 1]), Err(DecodeError::TooLong));
    let unknown = DecodeError::Unknown { what: "message", byte: 200 };
    assert_eq!(Packet::decode(&[200; 9]), Err(unknown));
    assert_eq!(unknown.to_string(), "unknown message 200");
}

#[test]
fn a_prepare_looks_like_this_on_the_wire() {
    // Pinned: a change here is a change of the wire version.
    let ballot = Ballot { round: 0x0102, incarnation: Incarnation(0x0a0b), node: NodeId(5) };
    let refuse = About::Refuse { ballot, because: Refused::Silent { remaining: ms(1) } };
    let packet = Packet { messages: vec![Message::Group { group: GroupId(7), about: refuse }] };
    let expected = [
        6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 5, 4, 0, 0, 0, 0, 0,
        0x0f, 0x42, 0x40,
    ];
    assert_eq!(packet.encode().concat(), expected);
}
