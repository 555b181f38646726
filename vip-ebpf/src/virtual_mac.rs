//! Virtual MACs: a group's own hardware address, which moves with it. Clients' neighbour
//! entries for its VIPs stay right whoever holds them; switches alone learn anew.
//!
//! Every node lets frames for it in, so that a move changes nothing but the lease. Under the
//! lease they are made the interface's own, and all other verdicts follow.

use vip_common::{
    layout::VirtualMac,
    verdict::{Class, Verdict},
};

use crate::{
    frame::{Frame, Network},
    packet::arp,
    verdict::{Maps, judged, tell_stale},
};

/// What is to be done with a frame from the network, by whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is for no virtual MAC of this interface: go on.
    Other,
    /// It was, and now is for the interface's own: go on. The kernel may still take it for
    /// another host's, if it has looked before.
    Ours,
    /// Drop it.
    Drop,
}

/// Makes a frame that is for a virtual MAC the interface's own, under the lease.
#[inline(always)]
pub fn take<M: Maps>(frame: &Frame, maps: &M, ifindex: u32) -> Taken {
    if !maps.has_virtual_macs() {
        return Taken::Other;
    }
    let Some(to) = frame.bytes::<6>(0) else { return Taken::Other };
    let Some(of) = maps.virtual_mac(ifindex, to) else { return Taken::Other };
    if judge(maps, of, Class::MacIn) == Verdict::Drop {
        // A switch sends them here that has not learned who has it: what the holder then sends
        // to this client, every switch on the way learns from.
        if let Some(mac) = frame.bytes::<6>(6) {
            tell_stale(maps, of.vip, of.group, of.slot, ifindex, mac);
        }
        return Taken::Drop;
    }
    let (Some(iface), Some(ethernet)) = (maps.iface(ifindex), frame.at::<[u8; 6]>(0)) else {
        return Taken::Other;
    };
    let mut i = 0;
    while i < 6 {
        // SAFETY: `at` checked the bounds; bytes have no alignment.
        unsafe { (*ethernet)[i] = iface.mac[i] };
        i += 1;
    }
    Taken::Ours
}

/// May this frame leave, as far as virtual MACs are concerned? Not from one, nor saying that
/// one is here, without its lease.
#[inline(always)]
pub fn leaves<M: Maps>(frame: &Frame, maps: &M, ifindex: u32) -> Verdict {
    if !maps.has_virtual_macs() {
        return Verdict::Pass;
    }
    let Some(from) = frame.bytes::<6>(6) else { return Verdict::Pass };
    if let Some(of) = maps.virtual_mac(ifindex, from) {
        return judge(maps, of, Class::MacOut);
    }
    let Network::Arp(offset) = frame.network() else { return Verdict::Pass };
    let Ok(packet) = arp::read(frame, offset) else { return Verdict::Pass };
    match maps.virtual_mac(ifindex, packet.sender_mac) {
        Some(of) => judge(maps, of, Class::MacOut),
        None => Verdict::Pass,
    }
}

#[inline(always)]
fn judge<M: Maps>(maps: &M, of: VirtualMac, class: Class) -> Verdict {
    judged(maps, of.group, of.slot, class)
}
