//! VIPs with a MAC of their own, which moves with them.

use super::*;

fn virtual_macs(fence: Fence) -> Fake {
    let mut fake = maps(fence);
    fake.virtual_mac = Some(VIRTUAL_MAC);
    fake
}

fn to_it(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&VIRTUAL_MAC);
    frame
}

fn from_it(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&VIRTUAL_MAC);
    frame
}

/// ARP whose target hardware address is this one.
fn marked(op: u16, sender_mac: [u8; 6], target: [u8; 4], mark: [u8; 6]) -> Vec<u8> {
    let mut packet = arp_packet(op, sender_mac, VIP, target);
    packet[18..24].copy_from_slice(&mark);
    ethernet(0, 0x0806, &packet)
}

#[test]
fn what_is_for_it_becomes_the_interfaces_under_the_lease_alone() {
    for destination in [VIP, BEYOND] {
        for fence in FENCES {
            let fake = virtual_macs(fence);
            let mut frame = to_it(ethernet(0, 0x0800, &ipv4(CLIENT, destination)));
            let before = frame.clone();
            let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
            assert_eq!(run_in(&fake, &mut frame), expected, "{fence:?}");
            let to = if fence == Fence::Open { OUR_MAC } else { VIRTUAL_MAC };
            assert_eq!((&frame[..6], &frame[6..]), (&to[..], &before[6..]), "{fence:?}");
            // The holder makes itself known to a client whose switch sends here.
            let told: Vec<_> = fake.events.take().iter().map(|e| (e.kind, e.vip, e.mac)).collect();
            let is_told = (fence != Fence::Open).then_some((EventKind::Stale as u32, VIP, CLIENT_MAC));
            assert_eq!(told, Vec::from_iter(is_told), "{fence:?}");
        }
    }
}

#[test]
fn what_is_for_others_is_untouched() {
    let of_others = ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND));
    for fence in FENCES {
        for frame in [of_others.clone(), to_us(of_others.clone())] {
            let mut after = frame.clone();
            assert_eq!(run_in(&virtual_macs(fence), &mut after), Verdict::Pass);
            assert_eq!(after, frame);
        }
        // On an interface that the group is not announced on, and where there is none.
        let mut frame = to_it(of_others.clone());
        assert_eq!(virtual_mac::take(&view(&mut frame), &virtual_macs(fence), IFINDEX + 1), Taken::Other);
        assert_eq!(virtual_mac::take(&view(&mut frame), &maps(fence), IFINDEX), Taken::Other);
        assert_eq!(frame, to_it(of_others.clone()));
    }
}

#[test]
fn a_gateways_clients_are_taken_through_under_the_lease() {
    for fence in FENCES {
        let mut fake = virtual_macs(fence);
        fake.gateways = Gateways::of([VIP]);
        fake.routed = Some(BEYOND);
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        let mut frame = to_it(ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND)));
        assert_eq!(run_in(&fake, &mut frame), expected, "{fence:?}");
    }
}

#[test]
fn an_answer_says_the_vip_is_there() {
    let request = ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
    for mut frame in [request.clone(), to_it(request)] {
        assert_eq!(run_in(&virtual_macs(Fence::Open), &mut frame), Verdict::Answer);
        assert_eq!(frame[..6], CLIENT_MAC);
        assert_eq!((&frame[6..12], &frame[22..28]), (&VIRTUAL_MAC[..], &VIRTUAL_MAC[..]));
        assert_eq!(frame[28..32], VIP);
    }
}

#[test]
fn nothing_of_it_leaves_without_the_lease() {
    let ip = ethernet(0, 0x0800, &ipv4(OTHER, CLIENT));
    let arp = ethernet(0, 0x0806, &arp_packet(1, VIRTUAL_MAC, OTHER, CLIENT));
    let leaves =
        |fence, frame: &[u8]| virtual_mac::leaves(&view(&mut frame.to_vec()), &virtual_macs(fence), IFINDEX);
    for fence in FENCES {
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(leaves(fence, &from_it(ip.clone())), expected, "{fence:?}");
        assert_eq!(leaves(fence, &arp), expected, "{fence:?}");
        assert_eq!(leaves(fence, &ip), Verdict::Pass, "{fence:?}");
    }
}

#[test]
fn what_the_host_says_of_the_vip_by_itself_says_it_too() {
    for (op, target) in [(1, CLIENT), (1, VIP), (2, VIP)] {
        let mut frame = ethernet(0, 0x0806, &arp_packet(op, OUR_MAC, VIP, target));
        let fake = virtual_macs(Fence::Open);
        assert_eq!(egress(&view(&mut frame), &fake, IFINDEX), Verdict::Pass);
        assert_eq!((&frame[6..12], &frame[22..28]), (&VIRTUAL_MAC[..], &VIRTUAL_MAC[..]));
        // A reply that is not so is none to Linux.
        assert_eq!(frame[32..38], if op == 1 { OUR_MAC } else { VIRTUAL_MAC });
    }
}

#[test]
fn the_mark_tells_our_own_claims_from_a_rivals() {
    let conflict = |frame: &[u8]| {
        let fake = virtual_macs(Fence::Open);
        assert_eq!(run_in(&fake, &mut frame.to_vec()), Verdict::Pass);
        fake.events.take().iter().map(|event| (event.kind, event.mac)).collect::<Vec<_>>()
    };
    let rival = |mac| vec![(EventKind::ClaimConflict as u32, mac)];
    for target in [VIP, CLIENT] {
        assert_eq!(conflict(&marked(1, VIRTUAL_MAC, target, OUR_MAC)), [], "the network sent it back");
        assert_eq!(conflict(&marked(1, VIRTUAL_MAC, target, PEER_MAC)), rival(PEER_MAC));
        assert_eq!(conflict(&marked(1, VIRTUAL_MAC, target, [0; 6])), rival([0; 6]), "of no agent");
    }
    // A reply names no host.
    assert_eq!(conflict(&marked(2, VIRTUAL_MAC, VIP, VIRTUAL_MAC)), []);
    assert_eq!(conflict(&marked(2, PEER_MAC, VIP, PEER_MAC)), rival(PEER_MAC));
}

#[test]
fn without_the_lease_whoever_claims_it_is_the_holder() {
    for frame in [marked(1, VIRTUAL_MAC, VIP, PEER_MAC), to_us(marked(2, VIRTUAL_MAC, OTHER, OUR_MAC))] {
        let fake = virtual_macs(Fence::NoLease);
        assert_eq!(run_in(&fake, &mut frame.clone()), Verdict::Pass);
        let told: Vec<_> = fake.events.take().iter().map(|event| event.kind).collect();
        assert_eq!(told, [EventKind::ClaimSeen as u32], "{frame:x?}");
    }
}
