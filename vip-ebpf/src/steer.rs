//! Sends on what a client sends to this node by mistake: it has missed that another node
//! holds the VIP, and until it is told, nothing of it gets lost.

use vip_common::GroupIndex;

use crate::{frame::Frame, packet::ipv4, verdict::Maps};

/// Readdresses the frame, whose IPv4 header is at `offset`, from this interface to the
/// holder's. False if the holder is not known, if a node has sent it on already, or if its
/// time to live is over: so no two nodes that take each other for the holder can keep it.
#[inline(always)]
pub(crate) fn on<M: Maps>(frame: &Frame, offset: usize, group: GroupIndex, maps: &M, ifindex: u32) -> bool {
    let (Some(own), Some(from)) = (frame.bytes::<6>(0), frame.bytes::<6>(6)) else { return false };
    let Some(to) = maps.next_hop(group, ifindex, from) else { return false };
    if !ipv4::step(frame, offset) {
        return false;
    }
    let Some(addresses) = frame.at::<[[u8; 6]; 2]>(0) else { return false };
    // SAFETY: `at` checked the bounds; a byte array has no alignment.
    unsafe { *addresses = [to, own] };
    true
}
