//! What a gateway's clients send through this host to elsewhere.

use vip_common::{
    layout::GATEWAYS_MAX,
    verdict::{Class, Verdict},
};

use crate::{
    frame::Frame,
    packet::ipv4::{self, Flow},
    verdict::{Maps, arrived},
};

/// Holds back an IP packet that the host would forward, where VIPs are gateways on the
/// interface that it came in by and this node has the lease of none of them. `forwards`:
/// would the host forward a packet of this flow? It may be slow, and is asked only where the
/// answer counts.
///
/// This is asked before NAT: what is for an address of this host's is none of the
/// gateway's business, whomever NAT gives it to.
#[inline(always)]
pub(crate) fn through<M: Maps>(
    frame: &Frame,
    offset: usize,
    maps: &M,
    ifindex: u32,
    forwards: impl Fn(&Flow) -> bool,
) -> Verdict {
    let Some(gateways) = maps.gateways(ifindex) else { return Verdict::Pass };
    let mut i = 0;
    while i < GATEWAYS_MAX && gateways.vips[i] != [0; 4] {
        if maps.is_here(gateways.vips[i]) {
            return Verdict::Pass;
        }
        i += 1;
    }
    if !is_for_this_interface(frame, offset, maps, ifindex) {
        return Verdict::Pass;
    }
    let Some(flow) = ipv4::flow(frame, offset) else { return Verdict::Pass };
    if ipv4::is_for_many(flow.destination) || !forwards(&flow) {
        return Verdict::Pass;
    }
    // Which of them its sender takes for its gateway, a packet does not say: in time, each of
    // them is told of that client.
    let gateway = gateways.any(maps.random());
    // One that is on its way to another group is no VIP just now. One that goes for good is
    // taken off the gateways first.
    let Some(vip) = maps.vip(gateway) else { return Verdict::Drop };
    arrived(frame, offset, gateway, vip, Class::IpForward, maps, ifindex)
}

/// Will the host take this frame as one that came in by this very interface? It forwards
/// what is for the interface's own hardware address; a frame in a VLAN is another
/// interface's.
#[inline(always)]
fn is_for_this_interface<M: Maps>(frame: &Frame, offset: usize, maps: &M, ifindex: u32) -> bool {
    !frame.is_in_vlan(offset)
        && maps.iface(ifindex).is_none_or(|iface| frame.bytes::<6>(0) == Some(iface.mac))
}
