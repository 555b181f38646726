//! What is sent on to the holder.

use super::*;

const HOLDER_MAC: [u8; 6] = PEER_MAC;

/// A node that knows the holder.
fn standby(fence: Fence) -> Fake {
    let mut fake = maps(fence);
    fake.hop = Some(HOLDER_MAC);
    fake
}

fn packet(from: [u8; 6], ttl: u8) -> Vec<u8> {
    let mut packet = ipv4(CLIENT, VIP);
    packet[8] = ttl;
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = to_us(ethernet(0, 0x0800, &packet));
    frame[6..12].copy_from_slice(&from);
    frame
}

/// RFC 1071, of a header whose checksum is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("no second carry")
}

#[test]
fn a_client_that_errs_reaches_the_holder_and_is_told_of() {
    for (fence, expected) in under([Verdict::Pass, Verdict::Steer, Verdict::Steer, Verdict::Steer]) {
        let fake = standby(fence);
        let mut frame = packet(CLIENT_MAC, 64);
        assert_eq!(run_in(&fake, &mut frame), expected, "{fence:?}");
        if expected == Verdict::Pass {
            assert_eq!(frame, packet(CLIENT_MAC, 64));
            assert_eq!(fake.counted.take(), [(SLOT, IpInPassed)]);
            assert!(fake.events.take().is_empty());
            continue;
        }
        let mut sent = packet(OUR_MAC, 63);
        sent[..6].copy_from_slice(&HOLDER_MAC);
        assert_eq!(frame, sent, "{fence:?}");
        assert_eq!(fake.counted.take(), [(SLOT, IpInSteered)]);
        let told: Vec<_> = fake.events.take().iter().map(|event| (event.kind, event.mac)).collect();
        assert_eq!(told, [(EventKind::Stale as u32, CLIENT_MAC)]);
        // It is told of now and then, and each of its packets goes on.
        assert_eq!(run_in(&fake, &mut packet(CLIENT_MAC, 64)), Verdict::Steer);
        assert!(fake.events.take().is_empty());
    }
}

#[test]
fn a_gateways_client_is_sent_on_as_well() {
    let mut fake = standby(Fence::Expired);
    (fake.gateways, fake.routed) = (Gateways::of([VIP]), Some(BEYOND));
    let mut frame = to_us(ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND)));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Steer);
    assert_eq!((&frame[..6], &frame[6..12]), (&HOLDER_MAC[..], &OUR_MAC[..]));
    assert_eq!(fake.counted.take(), [(SLOT, IpForwardSteered)]);
}

#[test]
fn every_checksum_stays_right() {
    for ttl in 2..=u8::MAX {
        for id in (0..=u16::MAX).step_by(257) {
            let mut header = ipv4(CLIENT, VIP);
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[8] = ttl;
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            assert!(ipv4::step(&view(&mut header), 0));
            assert_eq!(header[8], ttl - 1);
            let got = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].fill(0);
            assert_eq!(got, checksum(&header), "{ttl} {id}");
        }
    }
}

#[test]
fn all_else_is_dropped_untouched() {
    let flooded = {
        let mut frame = packet(CLIENT_MAC, 64);
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x77]);
        frame
    };
    let from_a_group = packet([3, 0, 0, 0, 0, 9], 64);
    let from_a_node = packet(PEER_MAC, 64);
    for frame in [flooded, from_a_group, from_a_node, packet(CLIENT_MAC, 1), packet(CLIENT_MAC, 0)] {
        let fake = standby(Fence::NoLease);
        let mut seen = frame.clone();
        assert_eq!(run_in(&fake, &mut seen), Verdict::Drop, "{frame:x?}");
        assert_eq!(seen, frame);
        assert_eq!(fake.counted.take(), [(SLOT, IpInNoLease)]);
    }
    // Nobody knows the holder, or the VIP is of another interface.
    let unknown = maps(Fence::NoLease);
    let mut elsewhere = standby(Fence::NoLease);
    elsewhere.home = IFINDEX + 1;
    for fake in [unknown, elsewhere] {
        assert_eq!(run_in(&fake, &mut packet(CLIENT_MAC, 64)), Verdict::Drop);
    }
    // What leaves, or is for this host, is nobody's to send on.
    let fake = standby(Fence::NoLease);
    assert_eq!(egress(&view(&mut ethernet(0, 0x0800, &ipv4(VIP, CLIENT))), &fake, IFINDEX), Verdict::Drop);
    assert_eq!(local(&view(&mut packet(CLIENT_MAC, 64)), &fake), Verdict::Drop);
    assert_eq!(local_in(VIP, &fake), Verdict::Drop);
}
