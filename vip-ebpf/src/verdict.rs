//! What happens to a frame: the table of docs/frames.md, row by row.
//!
//! Nothing here knows where the maps live, and nothing but the maps decides.

use vip_common::{
    Counter, Fence, GroupIndex, VipEntry, VipSlot,
    counter::{arp_out, arp_request, ip_in, ip_local, ip_out},
    event::{Event, EventKind},
    heartbeat::{Admits, Endpoint},
};

use crate::{
    frame::{Frame, Network},
    heartbeat,
    packet::{
        arp::{self, Arp, Unread},
        ipv4,
    },
};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it go on, untouched.
    Pass,
    /// Drop it silently.
    Drop,
    /// It has been turned into an answer: send it back out where it came from.
    Answer,
}

/// The maps, as the verdicts see them.
pub trait Maps {
    /// The VIP with this address, if the node has it.
    fn vip(&self, address: [u8; 4]) -> Option<VipEntry>;
    /// What the fence of the group says now.
    fn fence(&self, group: GroupIndex) -> Fence;
    /// The MAC of an interface that the data plane is on.
    fn mac(&self, ifindex: u32) -> Option<[u8; 6]>;
    /// Is this where the agent listens?
    fn is_agent(&self, endpoint: &Endpoint) -> bool;
    /// What is let in from there, if a peer of the agent sends from there.
    fn admits(&self, endpoint: &Endpoint) -> Option<Admits>;
    /// A number by chance.
    fn random(&self) -> u32;
    /// Counts a frame.
    fn count(&self, slot: VipSlot, counter: Counter);
    /// Tells the agent.
    fn event(&self, event: Event);
}

/// A frame that came in from the network.
#[inline(always)]
pub fn ingress<M: Maps>(frame: &Frame, maps: &M, ifindex: u32) -> Verdict {
    match frame.network() {
        Network::Ipv4(offset) => {
            let Some(destination) = ipv4::destination(frame, offset) else { return truncated(maps) };
            if heartbeat::is_kept_out_v4(frame, offset, maps) {
                return Verdict::Drop;
            }
            let Some(vip) = maps.vip(destination) else { return Verdict::Pass };
            gate(maps, vip, ip_in)
        }
        Network::Arp(offset) => match arp::read(frame, offset) {
            Ok(packet) => arp_in(frame, offset, &packet, maps, ifindex),
            Err(Unread::Truncated) => truncated(maps),
            Err(Unread::Foreign) => Verdict::Pass,
        },
        Network::Ipv6(offset) if heartbeat::is_kept_out_v6(frame, offset, maps) => Verdict::Drop,
        Network::Ipv6(_) | Network::Other => Verdict::Pass,
        Network::Truncated => truncated(maps),
        Network::Tagged => tagged(maps),
    }
}

/// A frame that is about to leave towards the network.
#[inline(always)]
pub fn egress<M: Maps>(frame: &Frame, maps: &M) -> Verdict {
    match frame.network() {
        Network::Ipv4(offset) => {
            let Some(source) = ipv4::source(frame, offset) else { return truncated(maps) };
            let Some(vip) = maps.vip(source) else { return Verdict::Pass };
            gate(maps, vip, ip_out)
        }
        Network::Arp(offset) => match arp::read(frame, offset) {
            Ok(packet) => {
                let Some(vip) = maps.vip(packet.sender) else { return Verdict::Pass };
                gate(maps, vip, arp_out)
            }
            Err(Unread::Truncated) => truncated(maps),
            Err(Unread::Foreign) => Verdict::Pass,
        },
        Network::Ipv6(_) | Network::Other => Verdict::Pass,
        Network::Truncated => truncated(maps),
        Network::Tagged => tagged(maps),
    }
}

/// A frame on the loopback interface: a process of this host that talks to
/// this host.
///
/// The VIP is local on every node, so without this gate a process on a node
/// that lost its lease, and whose agent is dead and can't move the route,
/// would silently reach its own host: a database client would write to the
/// replica.
#[inline(always)]
pub fn local<M: Maps>(frame: &Frame, maps: &M) -> Verdict {
    match frame.network() {
        Network::Ipv4(offset) => {
            let Some(destination) = ipv4::destination(frame, offset) else { return truncated(maps) };
            let Some(vip) = maps.vip(destination) else { return Verdict::Pass };
            gate(maps, vip, ip_local)
        }
        Network::Arp(_) | Network::Ipv6(_) | Network::Other | Network::Tagged => Verdict::Pass,
        Network::Truncated => truncated(maps),
    }
}

/// Passes while the fence is open, drops else, and counts which.
#[inline(always)]
fn gate<M: Maps>(maps: &M, vip: VipEntry, counter: fn(Fence) -> Counter) -> Verdict {
    let fence = maps.fence(vip.group);
    maps.count(vip.slot, counter(fence));
    if fence.is_open() { Verdict::Pass } else { Verdict::Drop }
}

/// ARP from the network: a claim of a VIP by its sender, or a request for one.
#[inline(always)]
fn arp_in<M: Maps>(frame: &Frame, offset: usize, packet: &Arp, maps: &M, ifindex: u32) -> Verdict {
    if let Some(vip) = maps.vip(packet.sender) {
        claim(packet, vip, maps, ifindex);
    }
    if !packet.is_request || packet.target == packet.sender {
        return Verdict::Pass;
    }
    let Some(vip) = maps.vip(packet.target) else { return Verdict::Pass };
    let fence = maps.fence(vip.group);
    if !fence.is_open() {
        // The host's own stack has the VIP on `lo` and must never see this.
        maps.count(vip.slot, arp_request(fence));
        return Verdict::Drop;
    }
    let Some(mac) = maps.mac(ifindex) else {
        maps.count(vip.slot, Counter::ArpRequestNoMac);
        return Verdict::Drop;
    };
    if !arp::answer(frame, offset, packet, packet.target, mac) {
        return truncated(maps);
    }
    maps.count(vip.slot, Counter::ArpRequestAnswered);
    Verdict::Answer
}

/// Somebody says that the VIP is theirs.
///
/// That does not stop the frame: on a standby it is the holder's announcement,
/// and the neighbour entry of this host's own clients follows it; and the
/// holder of one VIP may well ask for another. The agent announces again.
#[inline(always)]
fn claim<M: Maps>(packet: &Arp, vip: VipEntry, maps: &M, ifindex: u32) {
    if maps.mac(ifindex) == Some(packet.sender_mac) {
        return; // our own announcement, sent back to us by the network
    }
    let (counter, kind) = if maps.fence(vip.group).is_open() {
        (Counter::ArpClaimConflict, EventKind::ClaimConflict)
    } else {
        (Counter::ArpClaimSeen, EventKind::ClaimSeen)
    };
    maps.count(vip.slot, counter);
    maps.event(Event {
        kind: kind as u32,
        group: vip.group,
        ifindex,
        vip: packet.sender,
        mac: packet.sender_mac,
        pad: [0; 2],
    });
}

/// Too short to name a VIP: the stack will discard it.
#[inline(always)]
fn truncated<M: Maps>(maps: &M) -> Verdict {
    maps.count(VipSlot::NODE, Counter::FrameTruncated);
    Verdict::Pass
}

/// Tagged more often than we look: counted, so that it can be seen.
#[inline(always)]
fn tagged<M: Maps>(maps: &M) -> Verdict {
    maps.count(VipSlot::NODE, Counter::FrameTagged);
    Verdict::Pass
}

#[cfg(test)]
mod tests;
