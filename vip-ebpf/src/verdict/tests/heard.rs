//! What a node without the lease remembers of those who claim the VIP.

use super::*;

/// What `fake` remembers of ARP from another node that is sent to this MAC.
fn heard(fake: &Fake, op: u16, to: [u8; 6]) -> Vec<([u8; 6], bool)> {
    let mut frame = ethernet(0, 0x0806, &arp_packet(op, PEER_MAC, VIP, VIP));
    frame[..6].copy_from_slice(&to);
    assert_eq!(run_in(fake, &mut frame), Verdict::Pass);
    fake.heard.take()
}

#[test]
fn an_answer_to_this_interface_is_told_from_what_all_hear() {
    for fence in [Fence::NoLease, Fence::Expired, Fence::Invalid] {
        let standby = maps(fence);
        assert_eq!(heard(&standby, 2, OUR_MAC), [(PEER_MAC, true)]);
        assert_eq!(heard(&standby, 2, [0xff; 6]), [(PEER_MAC, false)], "an announcement");
        assert_eq!(heard(&standby, 2, CLIENT_MAC), [(PEER_MAC, false)], "flooded by the switch");
        assert_eq!(heard(&standby, 1, OUR_MAC), [(PEER_MAC, false)], "a request in its name");
    }
}

#[test]
fn a_rival_of_the_holder_is_no_holder_and_neither_is_who_is_elsewhere() {
    assert_eq!(heard(&maps(Fence::Open), 2, OUR_MAC), []);
    assert_eq!(heard(&Fake { home: IFINDEX + 1, ..maps(Fence::NoLease) }, 2, OUR_MAC), []);
}
