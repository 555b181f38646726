//! Finds the class of a frame, asks the fence, and does what the table of
//! [`vip_common::verdict`] says.
//!
//! Nothing here knows where the maps live, and nothing but the maps decides.

use vip_common::{
    Counter, Fence, GroupIndex, IfaceConfig, VipEntry, VipSlot,
    event::{Event, EventKind},
    heartbeat::{Admits, Endpoint},
    layout::{ASKS_MAX, Gateways, VirtualMac},
    verdict::{Class, Verdict, ruling},
};

use crate::{
    frame::{Frame, Network},
    gateway, heartbeat,
    packet::{
        arp::{self, Arp, Unread},
        ipv4,
    },
    steer,
};

/// The maps, as the verdicts see them.
pub trait Maps {
    /// The VIP with this address, if the node has it.
    fn vip(&self, address: [u8; 4]) -> Option<VipEntry>;
    /// What the fence of the group says now.
    fn fence(&self, group: GroupIndex) -> Fence;
    /// Is this a VIP of a group whose fence is open now?
    #[inline(always)]
    fn is_here(&self, address: [u8; 4]) -> bool {
        self.vip(address).is_some_and(|vip| self.fence(vip.group).is_open())
    }
    /// What is known of an interface that the data plane is on.
    fn iface(&self, ifindex: u32) -> Option<IfaceConfig>;
    /// Where to send a frame of this group on that `from` has sent to this interface by mistake.
    fn next_hop(&self, group: GroupIndex, ifindex: u32, from: [u8; 6]) -> Option<[u8; 6]>;
    /// The VIPs that are gateways on this interface, if any are.
    fn gateways(&self, ifindex: u32) -> Option<&Gateways>;
    /// Has any interface a virtual MAC? Asked for every frame, so it has to be cheap.
    fn has_virtual_macs(&self) -> bool;
    /// Whose virtual MAC this is on this interface, if it is one.
    fn virtual_mac(&self, ifindex: u32, mac: [u8; 6]) -> Option<VirtualMac>;
    /// Is this where the agent listens?
    fn is_agent(&self, endpoint: &Endpoint) -> bool;
    /// What to let in from this endpoint; `None` if no peer of the agent sends from it.
    fn admits(&self, endpoint: &Endpoint) -> Option<Admits>;
    /// A random number.
    fn random(&self) -> u32;
    /// May the agent hear now that this client sends to the wrong node? Only now and
    /// then, or a flood would.
    fn may_tell(&self, slot: VipSlot, mac: [u8; 6]) -> bool;
    /// Remembers that another host, with this MAC, has claimed a VIP on this interface;
    /// `is_answer`: in answer to a request of this interface.
    fn heard(&self, slot: VipSlot, ifindex: u32, mac: [u8; 6], is_answer: bool);
    /// Counts a frame.
    fn count(&self, slot: VipSlot, counter: Counter);
    /// Sends the agent an event.
    fn event(&self, event: Event);
}

/// A frame that came in from the network. `forwards`: would the host forward a packet of
/// this flow?
#[inline(always)]
pub fn ingress<M: Maps>(
    frame: &Frame,
    maps: &M,
    ifindex: u32,
    forwards: impl Fn(&ipv4::Flow) -> bool,
) -> Verdict {
    match frame.network() {
        Network::Ipv4(offset) => {
            let Some(destination) = ipv4::destination(frame, offset) else { return truncated(maps) };
            if heartbeat::is_kept_out_v4(frame, offset, maps) {
                return Verdict::Drop;
            }
            let Some(vip) = maps.vip(destination) else {
                return gateway::through(frame, offset, maps, ifindex, forwards);
            };
            arrived(frame, offset, destination, vip, Class::IpIn, maps, ifindex)
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

/// An IP packet from the network, to a VIP or through it, which is `address`. What a client
/// sends to this node by mistake goes on to the holder.
#[inline(always)]
pub(crate) fn arrived<M: Maps>(
    frame: &Frame,
    offset: usize,
    address: [u8; 4],
    vip: VipEntry,
    class: Class,
    maps: &M,
    ifindex: u32,
) -> Verdict {
    let ruling = ruling(class, maps.fence(vip.group));
    if ruling.verdict != Verdict::Drop {
        counted(maps, vip, ruling.counter);
        return Verdict::Pass;
    }
    if stale(frame, address, vip, maps, ifindex) && steer::on(frame, offset, vip.group, maps, ifindex) {
        let is_through = matches!(class, Class::IpForward);
        maps.count(vip.slot, if is_through { Counter::IpForwardSteered } else { Counter::IpInSteered });
        return Verdict::Steer;
    }
    counted(maps, vip, ruling.counter);
    Verdict::Drop
}

/// A frame that is about to leave towards the network. One that can't be read is
/// held back: it may have a VIP as source.
#[inline(always)]
pub fn egress<M: Maps>(frame: &Frame, maps: &M, ifindex: u32) -> Verdict {
    match frame.network() {
        Network::Ipv4(offset) => {
            let Some(source) = ipv4::source(frame, offset) else {
                return held_back(maps, Counter::FrameTruncatedOut);
            };
            gate(maps, source, Class::IpOut)
        }
        Network::Arp(offset) => match arp::read(frame, offset) {
            Ok(packet) => arp_out(frame, offset, &packet, maps, ifindex),
            Err(Unread::Truncated) => held_back(maps, Counter::FrameTruncatedOut),
            Err(Unread::Foreign) => Verdict::Pass,
        },
        Network::Ipv6(_) | Network::Other => Verdict::Pass,
        Network::Truncated => held_back(maps, Counter::FrameTruncatedOut),
        Network::Tagged => held_back(maps, Counter::FrameTaggedOut),
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
            let Some(destination) = ipv4::destination(frame, offset) else {
                return held_back(maps, Counter::FrameTruncatedOut);
            };
            gate(maps, destination, Class::IpLocal)
        }
        Network::Arp(_) | Network::Ipv6(_) | Network::Other | Network::Tagged => Verdict::Pass,
        Network::Truncated => held_back(maps, Counter::FrameTruncatedOut),
    }
}

/// An IP packet that the host is about to take as its own, whatever way it came:
/// by an interface that nothing guards, from a tunnel or a container.
#[inline(always)]
pub fn local_in<M: Maps>(destination: [u8; 4], maps: &M) -> Verdict {
    gate(maps, destination, Class::IpLocalIn)
}

/// Counts a frame about `address` if that is a VIP, and returns the verdict of the table.
#[inline(always)]
fn gate<M: Maps>(maps: &M, address: [u8; 4], class: Class) -> Verdict {
    let Some(vip) = maps.vip(address) else { return Verdict::Pass };
    judged(maps, vip.group, vip.slot, class)
}

/// Counts a frame under the lease of this group in this slot, and returns the verdict of the
/// table.
#[inline(always)]
pub(crate) fn judged<M: Maps>(maps: &M, group: GroupIndex, slot: VipSlot, class: Class) -> Verdict {
    let ruling = ruling(class, maps.fence(group));
    if let Some(counter) = ruling.counter {
        maps.count(slot, counter);
    }
    // A gate never answers, so its verdict is one of two. `ruling.verdict` itself
    // would cost `vip_local` twelve more instructions.
    if ruling.verdict == Verdict::Drop { Verdict::Drop } else { Verdict::Pass }
}

/// The class of a frame of ARP about this VIP on the interface `iface`; `None` below an
/// interface with the data plane on it, which judges the frame: one of a VLAN, in which a VIP
/// of the network below is not, and one about a VIP that is not at home. An interface that is
/// not in the map has just come or gone: it may well be the VIP's own.
#[inline(always)]
fn class_at(class: Class, vip: VipEntry, ifindex: u32, iface: IfaceConfig, in_vlan: bool) -> Option<Class> {
    let is_at_home = vip.is_at_home(ifindex, iface);
    if iface.has(IfaceConfig::BELOW) && (in_vlan || !is_at_home) {
        None
    } else if is_at_home {
        Some(class)
    } else {
        Some(class.elsewhere())
    }
}

/// ARP that is about to leave. What is for another interface than the VIP's own is not
/// let out, whoever holds it.
#[inline(always)]
fn arp_out<M: Maps>(frame: &Frame, offset: usize, packet: &Arp, maps: &M, ifindex: u32) -> Verdict {
    let found = maps.iface(ifindex);
    let (is_known, iface) = (found.is_some(), found.unwrap_or_default());
    let Some(vip) = maps.vip(packet.sender) else {
        if is_known && packet.is_request {
            ask_as_vip(frame, offset, packet, maps, iface);
        }
        return Verdict::Pass;
    };
    // The gate of an interface above has seen it, and let out what is licensed: but this
    // one's own clients may have made it.
    let class = class_at(Class::ArpOut, vip, ifindex, iface, false).unwrap_or(Class::ArpOut);
    let ruling = ruling(class, maps.fence(vip.group));
    counted(maps, vip, ruling.counter);
    if ruling.verdict == Verdict::Pass {
        at_virtual_mac(frame, offset, packet, vip);
    }
    ruling.verdict
}

/// Makes a VIP's virtual MAC, if it has one, what ARP in its name says: the kernel, and
/// whoever else announces the VIP, knows the interface's alone.
#[inline(always)]
fn at_virtual_mac(frame: &Frame, offset: usize, packet: &Arp, vip: VipEntry) {
    if let Some(mac) = vip.virtual_mac()
        && mac != packet.sender_mac
    {
        // It has just been read, so it is long enough.
        let _ = arp::set_sender_mac(frame, offset, packet, mac);
    }
}

/// Makes a VIP that is here the sender of this host's own question to the VIP's subnet,
/// in which the host has no address: routers answer no stranger there. `arp_announce`
/// keeps the kernel from doing that, which does not know who holds the VIP.
#[inline(always)]
fn ask_as_vip<M: Maps>(frame: &Frame, offset: usize, packet: &Arp, maps: &M, iface: IfaceConfig) {
    if packet.sender_mac != iface.mac || packet.sender == [0; 4] {
        return;
    }
    let mut i = 0;
    while i < ASKS_MAX {
        let address = iface.asks[i];
        i += 1;
        if address == [0; 4] {
            return;
        }
        // One that has just gone stays there until the agent writes them anew.
        let Some(vip) = maps.vip(address) else { continue };
        if vip.is_in_subnet(address, packet.target)
            && !vip.is_in_subnet(address, packet.sender)
            && maps.fence(vip.group).is_open()
            && arp::rename(frame, offset, address)
        {
            at_virtual_mac(frame, offset, packet, vip);
            return maps.count(vip.slot, Counter::ArpOutPassed);
        }
    }
}

/// Counts a frame about a VIP, if this is the program that counts it.
#[inline(always)]
fn counted<M: Maps>(maps: &M, vip: VipEntry, counter: Option<Counter>) {
    if let Some(counter) = counter {
        maps.count(vip.slot, counter);
    }
}

/// ARP from the network: a claim of a VIP by its sender, or a request for one.
///
/// It can be both: the holder of one VIP may well ask for another.
#[inline(always)]
fn arp_in<M: Maps>(frame: &Frame, offset: usize, packet: &Arp, maps: &M, ifindex: u32) -> Verdict {
    // Zeros where the interface is not known: of an `Option`, the verifier would find parts
    // that nobody has written.
    let found = maps.iface(ifindex);
    let is_known = found.is_some();
    let iface = found.unwrap_or_default();
    let in_vlan = frame.is_in_vlan(offset);
    let claimed = claim(frame, packet, maps, ifindex, iface, in_vlan);
    if claimed != Verdict::Pass {
        return claimed;
    }
    if !packet.is_request || packet.target == packet.sender {
        return Verdict::Pass;
    }
    let Some(vip) = maps.vip(packet.target) else {
        return if is_known { test(frame, offset, packet, iface) } else { Verdict::Pass };
    };
    // Below: the host has the VIP on `lo`, and answers for no address but those of the
    // interface (`arp_ignore`).
    let Some(class) = class_at(Class::ArpRequest, vip, ifindex, iface, in_vlan) else {
        return Verdict::Pass;
    };
    let ruling = ruling(class, maps.fence(vip.group));
    if ruling.verdict != Verdict::Answer {
        counted(maps, vip, ruling.counter);
        stale(frame, packet.target, vip, maps, ifindex);
        return ruling.verdict;
    }
    if !is_known {
        maps.count(vip.slot, Counter::ArpRequestNoMac);
        return Verdict::Drop;
    }
    if !arp::answer(frame, offset, packet, packet.target, vip.mac_on(iface)) {
        return truncated(maps);
    }
    counted(maps, vip, ruling.counter);
    Verdict::Answer
}

/// Answers a peer's question whether answers of this interface arrive, under any lease or
/// none: the address is nobody's ([`IfaceConfig::test_address`]). Peers ask this very
/// interface; a host that asks all whether it can have the address gets it.
#[inline(always)]
fn test(frame: &Frame, offset: usize, packet: &Arp, iface: IfaceConfig) -> Verdict {
    let is_test = packet.target == IfaceConfig::test_address(iface.mac);
    if !is_test || iface.has(IfaceConfig::BELOW) || frame.bytes::<6>(0) != Some(iface.mac) {
        return Verdict::Pass;
    }
    let is_answered = arp::answer(frame, offset, packet, packet.target, iface.mac);
    if is_answered { Verdict::Answer } else { Verdict::Pass }
}

/// Tells the agent of a client that sends a VIP's frames to this very interface, while this
/// node may not take them: it has missed who holds the VIP. What a switch floods is for
/// another address, and an ordinary ARP request for all. Is this such a frame?
#[inline(always)]
fn stale<M: Maps>(frame: &Frame, address: [u8; 4], vip: VipEntry, maps: &M, ifindex: u32) -> bool {
    let (Some(to), Some(mac)) = (frame.bytes::<6>(0), frame.bytes::<6>(6)) else { return false };
    let Some(iface) = maps.iface(ifindex) else { return false };
    // The holder announces it on its own interfaces alone. A frame from a group of hosts is
    // forged: to answer it would tell all of them (`tell_stale`).
    let is_here = iface.mac == to && vip.is_at_home(ifindex, iface);
    if mac[0] & 1 != 0 || !is_here {
        return false;
    }
    tell_stale(maps, address, vip.group, vip.slot, ifindex, mac);
    true
}

/// Tells the agent that this client does not know who holds this VIP, unless the client is
/// a group of hosts, or the agent has just heard of it.
#[inline(always)]
pub(crate) fn tell_stale<M: Maps>(
    maps: &M,
    vip: [u8; 4],
    group: GroupIndex,
    slot: VipSlot,
    ifindex: u32,
    mac: [u8; 6],
) {
    if mac[0] & 1 == 0 && maps.may_tell(slot, mac) {
        maps.event(Event { kind: EventKind::Stale as u32, group, ifindex, vip, mac, pad: [0; 2] });
    }
}

/// Judges the claim in an ARP packet, if its sender claims a VIP as its own.
#[inline(always)]
fn claim<M: Maps>(
    frame: &Frame,
    packet: &Arp,
    maps: &M,
    ifindex: u32,
    iface: IfaceConfig,
    in_vlan: bool,
) -> Verdict {
    let Some(vip) = maps.vip(packet.sender) else { return Verdict::Pass };
    let claimant = claimant(packet, vip);
    if iface.mac == claimant && claimant != [0; 6] {
        return Verdict::Pass; // our own announcement, sent back to us by the network
    }
    let Some(class) = class_at(Class::ArpClaim, vip, ifindex, iface, in_vlan) else { return Verdict::Pass };
    let fence = maps.fence(vip.group);
    if fence.is_open() && vip.virtual_mac() == Some(claimant) {
        return Verdict::Pass; // perhaps our own: it names no host
    }
    let ruling = ruling(class, fence);
    counted(maps, vip, ruling.counter);
    if ruling.event == Some(EventKind::ClaimSeen) {
        // Announcements and what others ask for are for all, or for them.
        let is_ours = frame.bytes::<6>(0) == Some(iface.mac);
        maps.heard(vip.slot, ifindex, claimant, is_ours && !packet.is_request);
    }
    if let Some(kind) = ruling.event {
        maps.event(Event {
            kind: kind as u32,
            group: vip.group,
            ifindex,
            vip: packet.sender,
            mac: claimant,
            pad: [0; 2],
        });
    }
    ruling.verdict
}

/// The MAC of the host that claims a VIP. Of one with a virtual MAC all holders claim that:
/// their announcements and questions name the interface as the target, where a request has
/// room for it. A reply does not; then it is the virtual MAC.
#[inline(always)]
fn claimant(packet: &Arp, vip: VipEntry) -> [u8; 6] {
    let is_virtual = vip.virtual_mac() == Some(packet.sender_mac);
    if is_virtual && packet.is_request { packet.target_mac } else { packet.sender_mac }
}

/// The frame from the network is too short to name a VIP: the network stack will
/// discard it.
#[inline(always)]
fn truncated<M: Maps>(maps: &M) -> Verdict {
    maps.count(VipSlot::NODE, Counter::FrameTruncated);
    Verdict::Pass
}

/// The frame from the network has too many VLAN tags to look through: passes it, but
/// counts it.
#[inline(always)]
fn tagged<M: Maps>(maps: &M) -> Verdict {
    maps.count(VipSlot::NODE, Counter::FrameTagged);
    Verdict::Pass
}

/// A frame of this host that the gate can't read.
#[inline(always)]
fn held_back<M: Maps>(maps: &M, counter: Counter) -> Verdict {
    maps.count(VipSlot::NODE, counter);
    Verdict::Drop
}

#[cfg(test)]
mod tests;
