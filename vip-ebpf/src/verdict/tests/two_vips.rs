//! A frame that is about two VIPs.

use super::*;

#[test]
fn holder_of_one_vip_may_ask_for_another() {
    let mut fake = maps(Fence::NoLease);
    fake.second = Some(Fence::Open);
    let mut frame = ethernet(0, 0x0806, &arp_packet(1, PEER_MAC, VIP, SECOND));
    assert_eq!(run_in(&fake, &mut frame), Verdict::Answer);
    assert_eq!(*fake.counted.borrow(), [(SLOT, ArpClaimSeen), (VipSlot(4), ArpRequestAnswered)]);
}
