//! Who may send to the agent's port.

use vip_common::heartbeat::{
    HEADER_LEN, HEADER_TAG_AT, HeaderKey, KIND_DATA, OTHERS_PASSED, STALE_PASSED, STRANGERS_PASSED,
    SessionBounds, SessionKey, WIRE_VERSION,
};

use super::*;

/// A datagram with this payload.
fn datagram(source: Endpoint, target: Endpoint, payload: &[u8]) -> Vec<u8> {
    let is_v4 = target.address[..10] == [0; 10];
    let mut packet = if is_v4 {
        let last = |endpoint: Endpoint| *endpoint.address.last_chunk().expect("sixteen bytes");
        ipv4(last(source), last(target))
    } else {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        packet.extend(source.address);
        packet.extend(target.address);
        packet
    };
    packet.extend(source.port);
    packet.extend(target.port);
    packet.extend([0; 4]);
    packet.extend(payload);
    ethernet(0, if is_v4 { 0x0800 } else { 0x86dd }, &packet)
}

fn key() -> HeaderKey {
    HeaderKey::new(*b"sixteen bytes of")
}

fn admits_payloads() -> Admits {
    let keys = [SessionKey::new(3, key()), SessionKey::default()];
    Admits::Payloads(SessionBounds { from: 1, to: 2, highest: 5, keys })
}

fn payload(counter: u64) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    (header[0], header[1], header[2]) = (WIRE_VERSION, KIND_DATA, 3);
    for (at, word) in [(30, 1_u64), (38, 2), (46, counter)] {
        header[at..at + 8].copy_from_slice(&word.to_be_bytes());
    }
    let tag = key().tag(&header);
    header[HEADER_TAG_AT..].copy_from_slice(&tag.to_le_bytes());
    [&header[..], &[7; 20]].concat()
}

fn peers(peer: Endpoint, admits: Admits) -> BTreeMap<Endpoint, Admits> {
    BTreeMap::from([(peer, admits)])
}

/// Our agent and a peer in each family.
fn families() -> [(Endpoint, Endpoint); 2] {
    let v6 = |last| {
        let mut address = [0xfd; 16];
        address[15] = last;
        Endpoint::v6(address, [27, 165])
    };
    [(AGENT, Endpoint::v4([10, 0, 1, 11], [27, 165])), (v6(1), v6(2))]
}

#[test]
fn strangers_do_not_come_to_the_agents_port_but_for_a_few() {
    for (agent, peer) in families() {
        let stranger = Endpoint { port: [27, 166], ..peer };
        let mut fake = maps(Fence::Open);
        (fake.agent, fake.peers) = (agent, peers(peer, Admits::All));
        let verdict = |fake: &Fake, from, to| run_in(fake, &mut datagram(from, to, b"x"));
        assert_eq!(verdict(&fake, stranger, agent), Verdict::Drop);
        assert_eq!(*fake.counted.borrow(), [(VipSlot::NODE, HeartbeatStranger)]);
        fake.counted.borrow_mut().clear();
        assert_eq!(verdict(&fake, peer, agent), Verdict::Pass);
        // A datagram for another port passes, and so does any while no agent listens.
        assert_eq!(verdict(&fake, stranger, Endpoint { port: [0, 53], ..agent }), Verdict::Pass);
        fake.random = 3 * STRANGERS_PASSED;
        assert_eq!(verdict(&fake, stranger, agent), Verdict::Pass, "one in so many");
        (fake.random, fake.agent) = (1, Endpoint::NONE);
        assert_eq!(verdict(&fake, stranger, agent), Verdict::Pass);
        assert!(fake.counted.borrow().is_empty());
    }
}

#[test]
fn of_a_flooded_peer_new_payloads_come_in_and_of_the_rest_a_few() {
    for (agent, peer) in families() {
        let mut fake = maps(Fence::Open);
        (fake.agent, fake.peers) = (agent, peers(peer, admits_payloads()));
        let verdict = |fake: &Fake, bytes: &[u8]| run_in(fake, &mut datagram(peer, agent, bytes));
        for counter in [6, u64::from(u32::MAX) + 1, u64::MAX] {
            assert_eq!(verdict(&fake, &payload(counter)), Verdict::Pass, "{counter}");
        }
        assert!(fake.counted.borrow().is_empty());
        let mut others = vec![
            payload(5),
            payload(0),
            b"short".to_vec(),
            Vec::new(),
            payload(6)[..HEADER_LEN - 1].to_vec(),
        ];
        for at in [0, 1, 2, 30, 37, 38, 45, 46, 53, 54, 61] {
            let mut other = payload(6);
            other[at] ^= 1;
            others.push(other);
        }
        for other in &others {
            assert_eq!(verdict(&fake, other), Verdict::Drop, "{other:?}");
        }
        assert_eq!(*fake.counted.borrow(), vec![(VipSlot::NODE, HeartbeatFlood); others.len()]);
        fake.random = OTHERS_PASSED;
        assert_eq!(run_in(&fake, &mut datagram(peer, agent, b"short")), Verdict::Pass, "one in so many");
        assert_eq!(run_in(&fake, &mut datagram(peer, agent, &payload(5))), Verdict::Drop, "fewer of these");
        fake.random = STALE_PASSED;
        assert_eq!(run_in(&fake, &mut datagram(peer, agent, &payload(5))), Verdict::Pass);
        (fake.random, fake.peers) = (1, peers(peer, Admits::Few));
        assert_eq!(verdict(&fake, &payload(6)), Verdict::Drop, "there is no session");
    }
}

#[test]
fn what_is_for_the_agent_passes_no_fence_and_what_agents_never_send_goes_on() {
    // The agent's address is a VIP here: the gate still decides.
    let agent = Endpoint::v4(VIP, AGENT.port);
    let peer = Endpoint::v4(OTHER, AGENT.port);
    let mut fake = maps(Fence::Expired);
    (fake.agent, fake.peers) = (agent, peers(peer, Admits::All));
    assert_eq!(run_in(&fake, &mut datagram(peer, agent, b"x")), Verdict::Drop);
    assert_eq!(*fake.counted.borrow(), [(SLOT, IpInExpired)]);
    let fake = maps(Fence::Open);
    let stranger = Endpoint::v4(CLIENT, [1, 1]);
    // Later fragments, options, another protocol.
    for (at, byte) in [(7, 1), (6, 0x01), (6, 0x21), (6, 0x10), (0, 0x46), (9, 6)] {
        let mut other = datagram(stranger, AGENT, b"x");
        other[14 + at] = byte;
        assert_eq!(run_in(&fake, &mut other), Verdict::Pass, "{byte} at {at}");
    }
    for flags in [0x40, 0x20] {
        let mut undivided_or_first = datagram(stranger, AGENT, b"x");
        undivided_or_first[14 + 6] = flags;
        assert_eq!(run_in(&fake, &mut undivided_or_first), Verdict::Drop);
    }
    // Cut off before the destination port ends, it passes; else it is a stranger's datagram.
    let whole = datagram(stranger, AGENT, b"x");
    for len in 14 + 20..whole.len() {
        let expected = if len < 14 + 20 + 4 { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(run_in(&fake, &mut whole[..len].to_vec()), expected, "cut to {len} bytes");
    }
}
