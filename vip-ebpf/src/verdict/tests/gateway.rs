//! What the clients of a gateway send through.

use super::*;

/// A router with these gateways.
fn router(fence: Fence, vips: impl IntoIterator<Item = [u8; 4]>) -> Fake {
    let mut fake = maps(fence);
    fake.gateways = Gateways::of(vips);
    fake.routed = Some(BEYOND);
    fake
}

fn through() -> Vec<u8> {
    to_us(ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND)))
}

#[test]
fn it_follows_the_lease_and_the_client_is_told_of() {
    for (fence, counter) in
        under([None, Some(IpForwardNoLease), Some(IpForwardExpired), Some(IpForwardInvalid)])
    {
        let fake = router(fence, [VIP]);
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        for _ in 0..2 {
            assert_eq!(run_in(&fake, &mut through()), expected, "{fence:?}");
        }
        let counted = counter.map(|counter| (SLOT, counter));
        assert_eq!(fake.counted.take(), Vec::from_iter(counted.into_iter().chain(counted)), "{fence:?}");
        let told: Vec<_> = fake.events.take().iter().map(|e| (e.kind, e.vip, e.mac)).collect();
        let expected = counter.map(|_| (EventKind::Stale as u32, VIP, CLIENT_MAC));
        assert_eq!(told, Vec::from_iter(expected), "{fence:?}");
    }
}

#[test]
fn one_lease_of_several_is_enough_and_each_gateway_is_told_of_its_clients() {
    for (first, second) in [(Fence::Open, Fence::NoLease), (Fence::Expired, Fence::Open)] {
        let mut fake = router(first, [VIP, SECOND]);
        fake.second = Some(second);
        assert_eq!(run_in(&fake, &mut through()), Verdict::Pass);
        assert!(fake.counted.borrow().is_empty() && fake.events.borrow().is_empty());
    }
    let mut told = Vec::new();
    for random in 0..2 {
        let mut fake = router(Fence::NoLease, [VIP, SECOND]);
        (fake.second, fake.random) = (Some(Fence::Expired), random);
        assert_eq!(run_in(&fake, &mut through()), Verdict::Drop);
        told.extend(fake.events.take().iter().map(|event| (event.group, event.vip)));
    }
    assert_eq!(told, [(GroupIndex(1), VIP), (GroupIndex(2), SECOND)]);
}

#[test]
fn all_else_passes_untouched() {
    let mut tagged = through();
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    let unrouted = to_us(ethernet(0, 0x0800, &ipv4(CLIENT, OTHER)));
    let to_others = ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND));
    let v6 = to_us(ethernet(0, 0x86dd, &[0x60; 40]));
    let passes = |fake: &Fake, frame: &mut [u8]| {
        assert_eq!(run_in(fake, frame), Verdict::Pass, "{frame:x?}");
        assert!(fake.counted.borrow().is_empty() && fake.events.borrow().is_empty());
    };
    // In a VLAN; for the host itself, or for nobody; for another's hardware address.
    for mut frame in [tagged, unrouted, to_others, v6] {
        passes(&router(Fence::NoLease, [VIP]), &mut frame);
    }
    passes(&router(Fence::NoLease, []), &mut through());
    let fake = router(Fence::NoLease, [VIP]);
    let other = ingress(&view(&mut through()), &fake, IFINDEX + 1, |_| true);
    assert_eq!(other, Verdict::Pass, "by another interface");
}

#[test]
fn nothing_goes_through_for_a_gateway_that_is_on_its_way_to_another_group() {
    // Whichever of them is to be told.
    for random in 0..2 {
        let mut fake = router(Fence::NoLease, [SECOND, VIP]);
        fake.random = random;
        assert_eq!(run_in(&fake, &mut through()), Verdict::Drop);
        fake.fence = Fence::Open;
        assert_eq!(run_in(&fake, &mut through()), Verdict::Pass);
    }
}

#[test]
fn what_is_for_a_group_of_hosts_or_for_all_passes() {
    for destination in [[224, 0, 0, 18], [239, 255, 255, 255], [255; 4], [0; 4]] {
        let mut fake = router(Fence::NoLease, [VIP]);
        fake.routed = Some(destination);
        let mut frame = to_us(ethernet(0, 0x0800, &ipv4(CLIENT, destination)));
        assert_eq!(run_in(&fake, &mut frame), Verdict::Pass, "{destination:?}");
    }
    for destination in [[223, 255, 255, 255], [240, 0, 0, 0], [255, 255, 255, 254], [0, 0, 0, 1]] {
        assert!(!crate::packet::ipv4::is_for_many(destination), "{destination:?}");
    }
}

#[test]
fn a_flow_has_ports_where_rules_look_for_them() {
    let flow = |protocol: u8, first: u8, fragment: [u8; 2], length: usize| {
        let mut packet = ipv4(CLIENT, BEYOND);
        (packet[0], packet[1], packet[9]) = (first, 0x10, protocol);
        packet[6..8].copy_from_slice(&fragment);
        packet.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        packet.truncate(length);
        crate::packet::ipv4::flow(&view(&mut packet), 0)
    };
    let ports = |protocol, first, fragment| flow(protocol, first, fragment, 28).expect("whole").ports;
    let theirs = u32::from_ne_bytes([1, 2, 3, 4]);
    for protocol in [6, 17, 33, 132] {
        assert_eq!(ports(protocol, 0x45, [0x40, 0]), theirs, "{protocol}");
    }
    assert_eq!(ports(1, 0x45, [0, 0]), 0, "ICMP");
    assert_eq!(ports(17, 0x46, [0, 0]), 0, "behind options");
    for fragment in [[0x20, 0], [0, 1], [1, 0]] {
        assert_eq!(ports(17, 0x45, fragment), 0, "a fragment");
    }
    assert_eq!(flow(17, 0x45, [0, 0], 23).map(|flow| flow.ports), Some(0), "cut off");
    assert_eq!(flow(17, 0x45, [0, 0], 19), None);
    let whole = flow(17, 0x45, [0, 0], 28).expect("whole");
    let expected = (CLIENT, BEYOND, 0x10, 17);
    assert_eq!((whole.source, whole.destination, whole.tos, whole.protocol), expected);
}

#[test]
fn a_priority_makes_no_vlan() {
    let mut frame = through();
    frame.splice(12..12, [0x81, 0, 0xe0, 0]);
    assert_eq!(run_in(&router(Fence::NoLease, [VIP]), &mut frame), Verdict::Drop);
}

#[test]
fn under_a_lease_the_routes_are_not_asked() {
    for gateways in [vec![VIP], vec![]] {
        let fake = router(Fence::Open, gateways);
        let verdict = ingress(&view(&mut through()), &fake, IFINDEX, |_| panic!("asked"));
        assert_eq!(verdict, Verdict::Pass);
    }
}
