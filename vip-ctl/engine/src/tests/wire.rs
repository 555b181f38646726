//! Packets as bytes: everything comes back as it was, and no bytes do harm.

use proptest::prelude::*;

use super::ms;
use crate::{wire::split, *};

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
        (ballots(), any::<bool>(), durations()).prop_map(|(ballot, held, remaining)| Refused::Held {
            ballot,
            held,
            remaining
        }),
        ballots().prop_map(|ballot| Refused::Promised { ballot }),
        (any::<u8>(), durations())
            .prop_map(|(node, remaining)| Refused::Reserved { successor: NodeId(node), remaining }),
        durations().prop_map(|remaining| Refused::Silent { remaining }),
    ]
}

fn abouts() -> impl Strategy<Value = About> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let ask = || any::<u64>().prop_map(AskId);
    prop_oneof![
        ballots().prop_map(|ballot| About::Prepare { ballot }),
        (ballots(), epoch(), proptest::option::of(epoch()))
            .prop_map(|(ballot, epoch, yours)| About::Promise { ballot, epoch, yours }),
        (ballots(), epoch(), any::<bool>()).prop_map(|(ballot, epoch, held)| About::Propose {
            ballot,
            epoch,
            held
        }),
        ballots().prop_map(|ballot| About::Holding { ballot }),
        ballots().prop_map(|ballot| About::Accept { ballot }),
        (ballots(), refused()).prop_map(|(ballot, because)| About::Refuse { ballot, because }),
        (ballots(), proptest::option::of(nodes()))
            .prop_map(|(ballot, successor)| About::Release { ballot, successor }),
        ballots().prop_map(|ballot| About::Released { ballot }),
        ask().prop_map(|ask| About::AskReady { ask }),
        (ask(), any::<bool>()).prop_map(|(ask, ready)| About::Ready { ask, ready }),
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
        (any::<bool>(), any::<u64>(), any::<bool>())
            .prop_map(|(standby, version, on)| Message::Node { standby, pause: Pause { version, on } }),
        (request(), verdict).prop_map(|(request, verdict)| Message::Verdict { request, verdict }),
        (group(), abouts()).prop_map(|(group, about)| Message::Group { group, about }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_MAX + 10)) {
        if let Ok(packet) = Packet::decode(&bytes) {
            // What was understood means the same when said again.
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(messages in proptest::collection::vec(messages(), 0..12)) {
        let packet = Packet { messages };
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    #[test]
    fn what_decodes_has_one_form(
        messages in proptest::collection::vec(messages(), 1..12),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8), 0..3),
    ) {
        let count = messages.len();
        let mut bytes = Packet { messages }.encode();
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1_u8 << bit;
        }
        if let Ok(packet) = Packet::decode(&bytes) {
            let again = packet.encode();
            let of_another_table = |message: &Message| {
                matches!(message, Message::Heartbeat { ready, .. } if ready.is_empty())
            };
            if packet.messages.len() < count || packet.messages.iter().any(of_another_table) {
                // About groups that there are not.
                return Ok(());
            }
            prop_assert_eq!(again.len(), bytes.len());
            let padded = |message: &Message| match message {
                Message::Heartbeat { ready, .. } => ready.len() % 8 != 0,
                Message::Node { .. }
                | Message::Request { .. }
                | Message::Verdict { .. }
                | Message::Group { .. } => false,
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
        let (canonical, mut padded) = (heartbeat.encode(), heartbeat.encode());
        if let (Some(last), true) = (padded.last_mut(), groups % 8 != 0) {
            *last |= padding << (groups % 8);
        }
        let decoded = Packet::decode(&padded);
        prop_assert_eq!(decoded.as_ref(), Ok(&heartbeat));
        prop_assert_eq!(decoded.map(|packet| packet.encode()), Ok(canonical));
    }

    #[test]
    fn a_packet_cut_short_is_an_error_or_fewer_messages(message in messages(), cut in any::<prop::sample::Index>()) {
        let bytes = Packet { messages: vec![message] }.encode();
        let short = &bytes[..cut.index(bytes.len())];
        match Packet::decode(short) {
            Ok(packet) => prop_assert!(short.is_empty() && packet.messages.is_empty()),
            Err(error) => prop_assert_eq!(error, DecodeError::Truncated),
        }
    }

    #[test]
    fn splitting_loses_nothing_and_keeps_to_the_limit(messages in proptest::collection::vec(messages(), 0..70)) {
        let packets = split(messages.clone());
        for packet in &packets {
            let bytes = Packet { messages: packet.clone() }.encode();
            prop_assert!(bytes.len() <= PAYLOAD_MAX);
        }
        prop_assert_eq!(packets.concat(), messages);
    }
}

#[test]
fn the_longest_heartbeat_fits_a_packet() {
    let ready = vec![true; usize::from(HEARTBEAT_GROUPS)];
    let heartbeat = Message::Heartbeat { first: GroupId(0), ready };
    assert!(Packet { messages: vec![heartbeat] }.encode().len() <= PAYLOAD_MAX);
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
    assert_eq!(packet.encode(), expected);
}
