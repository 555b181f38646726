//! The verdicts on the host, row by row, over maps made of plain collections.

use std::{cell::RefCell, collections::BTreeMap};

use vip_common::{
    Counter::{self, *},
    event::EventKind,
    layout::{ANYWHERE, ASKS_MAX},
    verdict::CLASSES,
};

use super::*;
use crate::virtual_mac::{self, Taken};

const VIP: [u8; 4] = [10, 0, 1, 12];
const SECOND: [u8; 4] = [10, 0, 1, 13];
const OTHER: [u8; 4] = [10, 0, 1, 99];
const CLIENT: [u8; 4] = [10, 0, 1, 50];
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
/// Behind a router.
const BEYOND: [u8; 4] = [192, 0, 2, 1];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const IFINDEX: u32 = 7;
const SLOT: VipSlot = VipSlot(3);
const AGENT: Endpoint = Endpoint::v4([10, 0, 1, 10], [27, 165]);

struct Fake {
    fence: Fence,
    /// Of the group of [`SECOND`], if there is that VIP.
    second: Option<Fence>,
    agent: Endpoint,
    peers: BTreeMap<Endpoint, Admits>,
    random: u32,
    ifaces: BTreeMap<u32, [u8; 6]>,
    /// Of every interface.
    flags: u16,
    /// The index of the VIP's own interface, and its prefix.
    home: u32,
    prefix: u8,
    asks: [[u8; 4]; ASKS_MAX],
    /// Where the holder is; what a peer sends goes nowhere.
    hop: Option<[u8; 6]>,
    /// Of the interface [`IFINDEX`].
    gateways: Option<Gateways>,
    /// Of the group of [`VIP`].
    virtual_mac: Option<[u8; 6]>,
    /// Whom the host would forward packets to.
    routed: Option<[u8; 4]>,
    counted: RefCell<Vec<(VipSlot, Counter)>>,
    events: RefCell<Vec<Event>>,
    /// The client of which the agent was told last.
    stale: RefCell<Option<[u8; 6]>>,
    /// Claims that were remembered: whose, and whether in answer to this host.
    heard: RefCell<Vec<([u8; 6], bool)>>,
}

fn maps(fence: Fence) -> Fake {
    Fake {
        fence,
        second: None,
        agent: AGENT,
        peers: BTreeMap::new(),
        random: 1,
        ifaces: BTreeMap::from([(IFINDEX, OUR_MAC)]),
        flags: 0,
        home: ANYWHERE,
        prefix: 0,
        asks: [[0; 4]; ASKS_MAX],
        hop: None,
        gateways: None,
        virtual_mac: None,
        routed: None,
        counted: RefCell::default(),
        events: RefCell::default(),
        stale: RefCell::default(),
        heard: RefCell::default(),
    }
}

impl Maps for Fake {
    fn vip(&self, address: [u8; 4]) -> Option<VipEntry> {
        let mac = self.virtual_mac.unwrap_or_default();
        let entry = VipEntry {
            group: GroupIndex(1),
            slot: SLOT,
            home: self.home,
            prefix: self.prefix,
            flags: 0,
            mac,
        };
        let second = VipEntry { group: GroupIndex(2), slot: VipSlot(4), ..entry };
        match address {
            VIP => Some(entry),
            SECOND => self.second.map(|_| second),
            _ => None,
        }
    }
    fn fence(&self, group: GroupIndex) -> Fence {
        if group == GroupIndex(1) { self.fence } else { self.second.expect("a second group") }
    }
    fn iface(&self, ifindex: u32) -> Option<IfaceConfig> {
        let mac = self.ifaces.get(&ifindex).copied();
        mac.map(|mac| IfaceConfig { mac, flags: self.flags, asks: self.asks })
    }
    fn next_hop(&self, group: GroupIndex, ifindex: u32, from: [u8; 6]) -> Option<[u8; 6]> {
        assert_eq!(ifindex, IFINDEX);
        self.hop.filter(|_| group == GroupIndex(1) && from != PEER_MAC)
    }
    fn gateways(&self, ifindex: u32) -> Option<&Gateways> {
        self.gateways.as_ref().filter(|_| ifindex == IFINDEX)
    }
    fn has_virtual_macs(&self) -> bool {
        self.virtual_mac.is_some()
    }
    fn virtual_mac(&self, ifindex: u32, mac: [u8; 6]) -> Option<VirtualMac> {
        let is_it = ifindex == IFINDEX && self.virtual_mac == Some(mac);
        is_it.then_some(VirtualMac { group: GroupIndex(1), slot: SLOT, vip: VIP })
    }
    fn is_agent(&self, endpoint: &Endpoint) -> bool {
        *endpoint == self.agent
    }
    fn admits(&self, endpoint: &Endpoint) -> Option<Admits> {
        self.peers.get(endpoint).copied()
    }
    fn random(&self) -> u32 {
        self.random
    }
    fn may_tell(&self, _slot: VipSlot, mac: [u8; 6]) -> bool {
        self.stale.replace(Some(mac)) != Some(mac)
    }
    fn heard(&self, slot: VipSlot, ifindex: u32, mac: [u8; 6], is_answer: bool) {
        assert_eq!((slot, ifindex), (SLOT, IFINDEX));
        self.heard.borrow_mut().push((mac, is_answer));
    }
    fn count(&self, slot: VipSlot, counter: Counter) {
        self.counted.borrow_mut().push((slot, counter));
    }
    fn event(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }
}

fn ethernet(tags: usize, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT_MAC);
    for _ in 0..tags {
        frame.extend([0x81, 0, 0, 10]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The same frame, for our interface's own address.
fn to_us(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&OUR_MAC);
    frame
}

fn arp_packet(op: u16, sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(op.to_be_bytes());
    packet.extend(sender_mac);
    packet.extend(sender);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

fn ipv4(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet
}

fn view(bytes: &mut [u8]) -> Frame {
    let range = bytes.as_mut_ptr_range();
    // SAFETY: the tests keep the bytes alive and do not touch them meanwhile.
    unsafe { Frame::new(range.start as usize, range.end as usize) }
}

fn run_in(fake: &Fake, bytes: &mut [u8]) -> Verdict {
    if virtual_mac::take(&view(bytes), fake, IFINDEX) == Taken::Drop {
        return Verdict::Drop;
    }
    ingress(&view(bytes), fake, IFINDEX, |flow| fake.routed == Some(flow.destination))
}

const FENCES: [Fence; 4] = [Fence::Open, Fence::NoLease, Fence::Expired, Fence::Invalid];

/// Each fence with what is expected under it.
fn under<T>(expected: [T; 4]) -> impl Iterator<Item = (Fence, T)> {
    FENCES.into_iter().zip(expected)
}

#[test]
fn arp_request_is_answered_with_our_mac_under_a_lease() {
    for tags in 0..=2 {
        let fake = maps(Fence::Open);
        let mut frame = ethernet(tags, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
        assert_eq!(run_in(&fake, &mut frame), Verdict::Answer);
        assert_eq!(frame[..6], CLIENT_MAC);
        assert_eq!(frame[6..12], OUR_MAC);
        let packet = &frame[14 + 4 * tags..];
        assert_eq!(packet[6..8], [0, 2]);
        assert_eq!(packet[8..14], OUR_MAC);
        assert_eq!(packet[14..18], VIP);
        assert_eq!(packet[18..24], CLIENT_MAC);
        assert_eq!(packet[24..28], CLIENT);
        assert_eq!(*fake.counted.borrow(), [(SLOT, ArpRequestAnswered)]);
    }
}

#[test]
fn address_probe_is_answered_too() {
    let fake = maps(Fence::Open);
    let mut frame = ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, [0; 4], VIP));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Answer);
    assert_eq!(frame[14 + 24..14 + 28], [0; 4]);
}

#[test]
fn arp_request_without_a_lease_never_reaches_the_stack_and_is_not_changed() {
    for (fence, counter) in [
        (Fence::NoLease, ArpRequestNoLease),
        (Fence::Expired, ArpRequestExpired),
        (Fence::Invalid, ArpRequestInvalid),
    ] {
        let fake = maps(fence);
        let mut frame = ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
        let before = frame.clone();
        assert_eq!(run_in(&fake, &mut frame), Verdict::Drop);
        assert_eq!(frame, before);
        assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
    }
}

#[test]
fn arp_request_on_an_interface_without_known_mac_is_dropped() {
    let mut fake = maps(Fence::Open);
    fake.ifaces.clear();
    let mut frame = ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Drop);
    assert_eq!(*fake.counted.borrow(), [(SLOT, ArpRequestNoMac)]);
}

#[test]
fn claim_by_another_node_is_told_and_passed_and_never_answered() {
    for op in [1, 2] {
        for (fence, counter, kind) in [
            (Fence::Open, ArpClaimConflict, EventKind::ClaimConflict),
            (Fence::NoLease, ArpClaimSeen, EventKind::ClaimSeen),
            (Fence::Expired, ArpClaimSeen, EventKind::ClaimSeen),
        ] {
            let fake = maps(fence);
            let mut frame = ethernet(0, 0x0806, &arp_packet(op, PEER_MAC, VIP, VIP));
            let before = frame.clone();
            assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
            assert_eq!(frame, before);
            assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
            let events = fake.events.borrow();
            assert_eq!(events.len(), 1);
            assert_eq!((events[0].kind, events[0].mac, events[0].vip), (kind as u32, PEER_MAC, VIP));
        }
    }
}

#[test]
fn our_own_announcement_coming_back_is_no_claim() {
    let fake = maps(Fence::Open);
    let mut frame = ethernet(0, 0x0806, &arp_packet(1, OUR_MAC, VIP, VIP));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
    assert!(fake.counted.borrow().is_empty() && fake.events.borrow().is_empty());
}

#[test]
fn arp_about_others_is_passed_uncounted() {
    for op in [1, 2, 3] {
        let fake = maps(Fence::NoLease);
        let mut frame = ethernet(0, 0x0806, &arp_packet(op, CLIENT_MAC, CLIENT, OTHER));
        assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
        assert!(fake.counted.borrow().is_empty());
    }
}

#[test]
fn ip_to_the_vip_follows_the_lease() {
    for tags in 0..=2 {
        for (fence, counter) in under([IpInPassed, IpInNoLease, IpInExpired, IpInInvalid]) {
            let fake = maps(fence);
            let mut frame = ethernet(tags, 0x0800, &ipv4(CLIENT, VIP));
            let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
            assert_eq!(run_in(&fake, &mut frame), expected);
            assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
        }
    }
}

#[test]
fn who_sends_to_a_standby_is_told_of_once_and_what_is_flooded_is_not() {
    let packet = ethernet(0, 0x0800, &ipv4(CLIENT, VIP));
    let request = ethernet(1, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP));
    for plain in [packet, request] {
        for (fence, to, told) in [
            (Fence::NoLease, OUR_MAC, 1),
            (Fence::Expired, OUR_MAC, 1),
            (Fence::Open, OUR_MAC, 0),
            (Fence::NoLease, PEER_MAC, 0),
            (Fence::NoLease, [0xff; 6], 0),
        ] {
            let fake = maps(fence);
            for _ in 0..2 {
                let mut frame = plain.clone();
                frame[..6].copy_from_slice(&to);
                run_in(&fake, &mut frame);
            }
            let events = fake.events.take();
            assert_eq!(events.len(), told, "{fence:?} {to:?}");
            let is_right = |event: &Event| {
                (event.kind, event.vip, event.mac) == (EventKind::Stale as u32, VIP, CLIENT_MAC)
            };
            assert!(events.iter().all(is_right), "{events:?}");
        }
    }
}

#[test]
fn ip_to_others_is_passed_uncounted_whatever_the_lease() {
    let fake = maps(Fence::NoLease);
    let mut frame = ethernet(0, 0x0800, &ipv4(VIP, CLIENT));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
    assert!(fake.counted.borrow().is_empty());
}

#[test]
fn egress_gate_holds_back_whatever_carries_the_vip_as_source() {
    let counters = [
        (IpOutPassed, ArpOutPassed),
        (IpOutNoLease, ArpOutNoLease),
        (IpOutExpired, ArpOutExpired),
        (IpOutInvalid, ArpOutInvalid),
    ];
    for (fence, (ip, arp)) in under(counters) {
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        let fake = maps(fence);
        let mut packet = ethernet(0, 0x0800, &ipv4(VIP, CLIENT));
        assert_eq!(egress(&view(&mut packet), &fake, IFINDEX), expected);
        let mut announcement = ethernet(1, 0x0806, &arp_packet(2, OUR_MAC, VIP, VIP));
        assert_eq!(egress(&view(&mut announcement), &fake, IFINDEX), expected);
        assert_eq!(*fake.counted.borrow(), [(SLOT, ip), (SLOT, arp)]);
    }
}

#[test]
fn egress_lets_everything_else_out() {
    let fake = maps(Fence::NoLease);
    for mut frame in [
        ethernet(0, 0x0800, &ipv4(CLIENT, VIP)),
        ethernet(0, 0x0806, &arp_packet(1, OUR_MAC, CLIENT, VIP)),
        ethernet(0, 0x86dd, &[0; 40]),
    ] {
        assert_eq!(egress(&view(&mut frame), &fake, IFINDEX), Verdict::Pass);
    }
    assert!(fake.counted.borrow().is_empty());
}

#[test]
fn local_gate_keeps_a_process_of_a_standby_from_its_own_host() {
    for (fence, counter) in under([IpLocalPassed, IpLocalNoLease, IpLocalExpired, IpLocalInvalid]) {
        let fake = maps(fence);
        let mut frame = ethernet(0, 0x0800, &ipv4(CLIENT, VIP));
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(local(&view(&mut frame), &fake), expected);
        assert_eq!(*fake.counted.borrow(), [(SLOT, counter)]);
    }
}

#[test]
fn the_gate_at_ip_level_drops_what_others_let_through_and_leaves_the_rest_alone() {
    for fence in FENCES {
        let fake = maps(fence);
        let expected = if fence == Fence::Open { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(local_in(VIP, &fake), expected);
        assert_eq!(local_in(OTHER, &fake), Verdict::Pass);
    }
}

#[test]
fn every_truncation_passes_and_is_counted_for_the_node_only() {
    // With the length from which on the gate can read who sends it.
    let whole = [
        (ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP)), 14 + 28),
        (ethernet(2, 0x0800, &ipv4(CLIENT, VIP)), 22 + 16),
    ];
    for (frame, readable) in whole {
        for len in 0..frame.len() {
            let fake = maps(Fence::Open);
            let mut cut = frame[..len].to_vec();
            assert_eq!(run_in(&fake, &mut cut), Verdict::Pass, "cut to {len} bytes");
            assert_eq!(*fake.counted.borrow(), [(VipSlot::NODE, FrameTruncated)]);
            // On its way out it may have a VIP as source.
            let fake = maps(Fence::Open);
            let verdict = egress(&view(&mut cut), &fake, IFINDEX);
            let held_back = (Verdict::Drop, vec![(VipSlot::NODE, FrameTruncatedOut)]);
            let expected = if len < readable { held_back } else { (Verdict::Pass, vec![]) };
            assert_eq!((verdict, fake.counted.take()), expected, "cut to {len} bytes");
        }
    }
}

#[test]
fn a_third_tag_is_not_looked_through() {
    let fake = maps(Fence::NoLease);
    let mut frame = ethernet(3, 0x0800, &ipv4(CLIENT, VIP));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Pass);
    assert_eq!(*fake.counted.borrow(), [(VipSlot::NODE, FrameTagged)]);
    let fake = maps(Fence::Open);
    assert_eq!(egress(&view(&mut frame), &fake, IFINDEX), Verdict::Drop);
    assert_eq!(*fake.counted.borrow(), [(VipSlot::NODE, FrameTaggedOut)]);
}

mod elsewhere;
mod gateway;
mod heard;
mod heartbeat;
mod steer;
mod table;
mod two_vips;
mod virtual_macs;
