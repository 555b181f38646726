//! A group whose VIPs change: from when on a voter votes on its new set, and
//! from when on a node asks for leases under it.

use super::*;

const AT: BootNs = BootNs(1_000_000_000);
const OLD: Label = Label(10);
const NEW: Label = Label(11);
/// Digests of the groups before and after the change.
const TABLES: (u64, u64) = (1, 2);

fn config(me: NodeId) -> EngineConfig {
    let nodes = vec![NodeSpec { role: Role::Node }; 3];
    EngineConfig::new(me, Incarnation(1), nodes, vec![GroupSpec::default()], ACCEPT)
}

/// What `me` has of the group, which has changed at [`AT`].
fn changed(me: NodeId) -> Labels {
    let mut labels = Labels::new(&config(me), &[LabelSpec::only(OLD)], TABLES.0, BootNs(0));
    let spec = LabelSpec { current: NEW, formers: vec![OLD], asks: OLD };
    labels.reload(&[(Some(DB), spec)], TABLES.1, AT);
    labels
}

/// What `me` has of it where it has never had other VIPs.
fn only(me: NodeId, label: Label, table: u64) -> Labels {
    Labels::new(&config(me), &[LabelSpec::only(label)], table, AT)
}

/// Sends a message; does it arrive?
fn arrives(message: Message, from: &mut Labels, to: &mut Labels, now: BootNs) -> bool {
    let packet = Packet { messages: vec![message] };
    let payloads = packet.encode_for(B, from, now);
    payloads.iter().any(|bytes| !Packet::decode_from(bytes, A, to, now).unwrap().messages.is_empty())
}

#[test]
fn a_voter_votes_on_a_new_set_from_t_accept_after_the_change() {
    let ballot = Ballot { round: 1, incarnation: Incarnation(1), node: A };
    let epoch = Epoch(1);
    for about in [About::Prepare { ballot }, About::Propose { ballot, epoch, claim: Claim::Asked }] {
        let ask = |label, table, now| {
            let message = Message::Group { group: DB, about };
            arrives(message, &mut only(A, label, table), &mut changed(B), now)
        };
        let voted_on = AT.plus(ACCEPT);
        assert!(!ask(NEW, TABLES.1, AT) && !ask(NEW, TABLES.1, BootNs(voted_on.0 - 1)), "{about:?}");
        assert!(ask(NEW, TABLES.1, voted_on), "{about:?}");
        // It goes on to vote on the set that the group had.
        assert!([AT, voted_on].into_iter().all(|now| ask(OLD, TABLES.0, now)), "{about:?}");
    }
    // What is no request for a vote does not wait.
    let told = Message::Group { group: DB, about: About::Holding { ballot } };
    assert!(arrives(told, &mut only(A, NEW, TABLES.1), &mut changed(B), AT));
}

#[test]
fn a_node_asks_under_a_new_set_once_a_majority_has_had_it_for_longer_than_t_accept() {
    let mut labels = changed(A);
    let asks = |labels: &mut Labels, now| {
        labels.advance(now);
        labels.asked(DB).unwrap().0
    };
    // By its own clock, which may be faster than the voters'.
    let wait = ACCEPT + ACCEPT / 4;
    assert_eq!(asks(&mut labels, AT.plus(wait * 2)), OLD, "it has not heard that anybody else has it");
    let heard_at = AT.plus(wait * 2);
    let heartbeat = Packet { messages: vec![Message::Heartbeat { first: DB, ready: vec![true] }] };
    for bytes in heartbeat.encode_for(A, &mut only(B, NEW, TABLES.1), heard_at) {
        Packet::decode_from(&bytes, B, &mut labels, heard_at).unwrap();
    }
    let asked_from = heard_at.plus(wait);
    assert_eq!(asks(&mut labels, BootNs(asked_from.0 - 1)), OLD);
    assert_eq!(asks(&mut labels, asked_from), NEW);
}
