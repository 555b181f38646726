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

#[test]
fn a_host_without_an_address_in_a_vips_subnet_asks_there_in_its_name_under_a_lease() {
    let stranger = [192, 0, 2, 1];
    let question = |mac, sender, target| ethernet(0, 0x0806, &arp_packet(1, mac, sender, target));
    let sender_of = |frame: &[u8]| [frame[28], frame[29], frame[30], frame[31]];
    let asked = |fence, mut frame: Vec<u8>| {
        let mut fake = Fake { prefix: 29, home: IFINDEX, ..maps(fence) };
        fake.asks[0] = VIP;
        assert_eq!(egress(&view(&mut frame), &fake, IFINDEX), Verdict::Pass);
        let is_counted = *fake.counted.borrow() == [(SLOT, ArpOutPassed)];
        (sender_of(&frame), is_counted)
    };
    let neighbour = [10, 0, 1, 9];
    for (fence, sender) in under([VIP, stranger, stranger, stranger]) {
        let is_open = fence == Fence::Open;
        assert_eq!(asked(fence, question(OUR_MAC, stranger, neighbour)), (sender, is_open), "{fence:?}");
    }
    // Another subnet; somebody else's question, by a bridge; a probe; an address of the host
    // in that subnet; an answer.
    let other = [
        question(OUR_MAC, stranger, [10, 0, 1, 17]),
        question(CLIENT_MAC, stranger, neighbour),
        question(OUR_MAC, [0; 4], neighbour),
        question(OUR_MAC, [10, 0, 1, 10], neighbour),
        ethernet(0, 0x0806, &arp_packet(2, OUR_MAC, stranger, neighbour)),
    ];
    for frame in other {
        assert_eq!(asked(Fence::Open, frame.clone()), (sender_of(&frame), false));
    }
    // Nobody's name is there to ask in.
    let mut frame = question(OUR_MAC, stranger, neighbour);
    let fake = Fake { prefix: 29, ..maps(Fence::Open) };
    assert_eq!(egress(&view(&mut frame), &fake, IFINDEX), Verdict::Pass);
    assert_eq!(sender_of(&frame), stranger);
}

#[test]
fn a_peers_test_is_answered_under_any_lease_by_the_interface_that_it_asks() {
    let address = IfaceConfig::test_address(OUR_MAC);
    let asked = |to: [u8; 6], target| {
        let mut frame = ethernet(0, 0x0806, &arp_packet(1, PEER_MAC, CLIENT, target));
        frame[..6].copy_from_slice(&to);
        frame
    };
    for fence in FENCES {
        let fake = maps(fence);
        let mut frame = asked(OUR_MAC, address);
        assert_eq!(run_in(&fake, &mut frame), Verdict::Answer, "{fence:?}");
        assert_eq!((&frame[..6], &frame[6..12]), (&PEER_MAC[..], &OUR_MAC[..]));
        assert_eq!((&frame[28..32], &frame[38..42]), (&address[..], &CLIENT[..]));
        // Of others, to all, below an interface that answers, and where nothing is guarded.
        let other = IfaceConfig::test_address(PEER_MAC);
        for mut frame in [asked(OUR_MAC, other), asked([0xff; 6], address), asked(PEER_MAC, address)] {
            assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
        }
        let below = Fake { flags: IfaceConfig::BELOW, ..maps(fence) };
        assert_eq!(run_in(&below, &mut asked(OUR_MAC, address)), Verdict::Pass);
        let unguarded = Fake { ifaces: BTreeMap::new(), ..maps(fence) };
        assert_eq!(run_in(&unguarded, &mut asked(OUR_MAC, address)), Verdict::Pass);
        let counted = [fake, below, unguarded].map(|fake| fake.counted.take().len());
        assert_eq!(counted, [0; 3]);
    }
}

#[test]
fn no_test_address_is_reserved() {
    for byte in 0..=u8::MAX {
        let [first, second, third, _] = IfaceConfig::test_address([byte, 0, 0, 0, 0, 7]);
        assert!(first == 169 && second == 254 && (1..=254).contains(&third) && third != 169);
    }
}

#[test]
fn a_vip_of_the_network_below_is_not_in_a_vlan_on_top_of_it() {
    let request = |tag: Option<[u8; 2]>| {
        let mut frame = ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
        if let Some([high, low]) = tag {
            frame.splice(12..12, [0x81, 0, high, low]);
        }
        frame
    };
    let below = Fake { home: IFINDEX, flags: IfaceConfig::BELOW, ..maps(Fence::Open) };
    let alone = Fake { home: IFINDEX, ..maps(Fence::Open) };
    let tagged = request(Some([0, 7]));
    for (fake, mut frame, expected) in [
        (&below, request(None), Verdict::Answer),
        // It says no more than a priority.
        (&below, request(Some([0xe0, 0])), Verdict::Answer),
        (&below, tagged.clone(), Verdict::Pass),
        // A trunk without anything on top is answered with the tag.
        (&alone, tagged.clone(), Verdict::Answer),
    ] {
        assert_eq!(run_in(fake, &mut frame), expected, "{frame:x?}");
    }
    // The kernel has taken the tag out.
    let mut beside = request(None);
    let seen = view(&mut beside).with_tag(0x2007);
    assert_eq!(ingress(&seen, &below, IFINDEX, |_| false), Verdict::Pass);
    let mut beside = request(None);
    let seen = view(&mut beside).with_tag(0x2000);
    assert_eq!(ingress(&seen, &below, IFINDEX, |_| false), Verdict::Answer);
    // Nor is who claims it there a rival.
    below.counted.take();
    let mut claim = ethernet(1, 0x0806, &arp_packet(1, PEER_MAC, VIP, VIP));
    assert_eq!(run_in(&below, &mut claim), Verdict::Pass);
    assert!(below.counted.take().is_empty() && below.events.take().is_empty());
}
