//! A frame that is about two VIPs.

use super::*;

#[test]
fn holder_of_one_vip_may_ask_for_another() {
    struct Two(Fake);
    const SECOND: [u8; 4] = [10, 0, 1, 13];
    impl Maps for Two {
        fn vip(&self, address: [u8; 4]) -> Option<VipEntry> {
            if address == SECOND {
                return Some(VipEntry { group: GroupIndex(2), slot: VipSlot(4), ..VipEntry::default() });
            }
            self.0.vip(address)
        }
        fn fence(&self, group: GroupIndex) -> Fence {
            if group == GroupIndex(2) { Fence::Open } else { Fence::NoLease }
        }
        fn iface(&self, ifindex: u32) -> Option<IfaceConfig> {
            self.0.iface(ifindex)
        }
        fn is_agent(&self, endpoint: &Endpoint) -> bool {
            self.0.is_agent(endpoint)
        }
        fn admits(&self, endpoint: &Endpoint) -> Option<Admits> {
            self.0.admits(endpoint)
        }
        fn random(&self) -> u32 {
            self.0.random()
        }
        fn may_tell(&self, slot: VipSlot, mac: [u8; 6]) -> bool {
            self.0.may_tell(slot, mac)
        }
        fn heard(&self, slot: VipSlot, ifindex: u32, mac: [u8; 6], is_answer: bool) {
            self.0.heard(slot, ifindex, mac, is_answer);
        }
        fn count(&self, slot: VipSlot, counter: Counter) {
            self.0.count(slot, counter);
        }
        fn event(&self, event: Event) {
            self.0.event(event);
        }
    }
    let fake = Two(maps(Fence::NoLease));
    let mut frame = ethernet(0, 0x0806, &arp_packet(1, PEER_MAC, VIP, SECOND));
    assert_eq!(ingress(&view(&mut frame), &fake, IFINDEX), Verdict::Answer);
    assert_eq!(*fake.0.counted.borrow(), [(SLOT, ArpClaimSeen), (VipSlot(4), ArpRequestAnswered)]);
}
