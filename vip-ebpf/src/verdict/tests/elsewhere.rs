//! Interfaces that are not a VIP's own, that only guard, and that have others on top.

use super::*;

/// A holder whose VIP has this home, on an interface with these flags.
fn holder(home: u32, flags: u16) -> Fake {
    Fake { home, flags, ..maps(Fence::Open) }
}

fn request() -> Vec<u8> {
    ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP))
}

/// An announcement by the host with this MAC.
fn announcement(mac: [u8; 6]) -> Vec<u8> {
    ethernet(0, 0x0806, &arp_packet(2, mac, VIP, VIP))
}

#[test]
fn a_vip_is_answered_on_its_own_interface_and_on_all_that_announce() {
    let other = IFINDEX + 1;
    let silent = IfaceConfig::SILENT;
    let cases = [
        (IFINDEX, 0, true),
        (other, 0, false),
        (vip_common::layout::NOWHERE, 0, false),
        (ANYWHERE, 0, true),
        (ANYWHERE, silent, false),
    ];
    for (home, flags, is_at_home) in cases {
        let fake = holder(home, flags);
        let verdict = if is_at_home { Verdict::Answer } else { Verdict::Drop };
        assert_eq!(run_in(&fake, &mut request()), verdict, "{home} {flags}");
        let counter = if is_at_home { ArpRequestAnswered } else { ArpRequestElsewhere };
        assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
        let fake = holder(home, flags);
        let verdict = if is_at_home { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(egress(&view(&mut announcement(OUR_MAC)), &fake, IFINDEX), verdict, "{home} {flags}");
        let counter = if is_at_home { ArpOutPassed } else { ArpOutElsewhere };
        assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
        let fake = holder(home, flags);
        assert_eq!(run_in(&fake, &mut announcement(PEER_MAC)), Verdict::Pass);
        assert_eq!(fake.events.borrow().len(), usize::from(is_at_home), "a rival in the VIP's own network");
    }
}

#[test]
fn packets_pass_by_any_interface_under_a_lease_alone() {
    for (fence, expected) in under([Verdict::Pass, Verdict::Drop, Verdict::Drop, Verdict::Drop]) {
        let fake = Fake { home: IFINDEX + 1, ..maps(fence) };
        assert_eq!(run_in(&fake, &mut ethernet(0, 0x0800, &ipv4(CLIENT, VIP))), expected);
        assert_eq!(egress(&view(&mut ethernet(0, 0x0800, &ipv4(VIP, CLIENT))), &fake, IFINDEX), expected);
    }
}

#[test]
fn whoever_sends_by_another_interface_has_missed_no_announcement() {
    let mut frame = ethernet(0, 0x0800, &ipv4(CLIENT, VIP));
    frame[..6].copy_from_slice(&OUR_MAC);
    for (home, told) in [(IFINDEX, 1), (ANYWHERE, 1), (IFINDEX + 1, 0)] {
        let fake = Fake { home, ..maps(Fence::NoLease) };
        assert_eq!(run_in(&fake, &mut frame), Verdict::Drop);
        assert_eq!(fake.events.borrow().len(), told, "{home}");
    }
}

#[test]
fn what_comes_by_below_an_interface_is_left_to_that_one() {
    let fake = holder(IFINDEX + 1, IfaceConfig::BELOW);
    let mut frame = request();
    assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
    assert_eq!(frame, request(), "untouched");
    assert_eq!(run_in(&fake, &mut announcement(PEER_MAC)), Verdict::Pass);
    assert!(fake.counted.borrow().is_empty() && fake.events.borrow().is_empty());
    // On the way out the lease counts here, too.
    for (fence, expected) in under([Verdict::Pass, Verdict::Drop, Verdict::Drop, Verdict::Drop]) {
        let fake = Fake { home: IFINDEX + 1, flags: IfaceConfig::BELOW, ..maps(fence) };
        assert_eq!(egress(&view(&mut announcement(OUR_MAC)), &fake, IFINDEX), expected);
    }
    // A VIP of its own is its own.
    assert_eq!(run_in(&holder(IFINDEX, IfaceConfig::BELOW), &mut request()), Verdict::Answer);
}
