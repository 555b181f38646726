//! Keeps floods off the agent's port before the host spends time on them. Drops
//! datagrams from addresses of no peer. While somebody floods from a peer's
//! address, drops all datagrams from there but new payloads of the peer's session:
//! the tag in their header tells those from forged ones.
//!
//! The agent, or its socket, would drop the same datagrams later. A few of them
//! pass, here as there: so the agent notices the flood, and a peer that restarts
//! during a flood comes back. This filter lets in nothing that would not come in
//! without it: a packet for a VIP still goes to its gate.

use vip_common::{
    Counter, VipSlot,
    heartbeat::{Admits, Endpoint, OTHERS_PASSED, STALE_PASSED, STRANGERS_PASSED, SessionBounds},
};

use crate::{
    frame::Frame,
    packet::{ipv4, ipv6, udp},
    verdict::Maps,
};

/// Is the IPv4 packet at `offset` a datagram for the agent that must be dropped?
/// Says no for a header with options and for every fragment but the first, which
/// agents never send: the agent judges those itself.
#[inline(always)]
pub fn is_kept_out_v4<M: Maps>(frame: &Frame, offset: usize, maps: &M) -> bool {
    let Some(udp) = ipv4::udp(frame, offset) else { return false };
    let (Some(source), Some(target)) = (ipv4::source(frame, offset), ipv4::destination(frame, offset)) else {
        return false;
    };
    is_kept_out(frame, udp, maps, |port| Endpoint::v4(target, port), |port| Endpoint::v4(source, port))
}

/// The same for IPv6. Says no for a packet with extension headers: agents send none.
#[inline(always)]
pub fn is_kept_out_v6<M: Maps>(frame: &Frame, offset: usize, maps: &M) -> bool {
    let Some(udp) = ipv6::udp(frame, offset) else { return false };
    let (Some(source), Some(target)) = (ipv6::source(frame, offset), ipv6::destination(frame, offset)) else {
        return false;
    };
    is_kept_out(frame, udp, maps, |port| Endpoint::v6(target, port), |port| Endpoint::v6(source, port))
}

#[inline(always)]
fn is_kept_out<M: Maps>(
    frame: &Frame,
    offset: usize,
    maps: &M,
    target: impl Fn([u8; 2]) -> Endpoint,
    source: impl Fn([u8; 2]) -> Endpoint,
) -> bool {
    let Some(to) = udp::destination(frame, offset) else { return false };
    if !maps.is_agent(&target(to)) {
        return false;
    }
    let Some(from) = udp::source(frame, offset) else { return false };
    let (passed, counter) = match maps.admits(&source(from)) {
        Some(Admits::All) => return false,
        Some(Admits::Payloads(bounds)) => match piece(frame, offset + udp::LEN, &bounds) {
            Piece::New => return false,
            Piece::Stale => (STALE_PASSED, Counter::HeartbeatFlood),
            Piece::Other => (OTHERS_PASSED, Counter::HeartbeatFlood),
        },
        Some(Admits::Few) => (OTHERS_PASSED, Counter::HeartbeatFlood),
        None => (STRANGERS_PASSED, Counter::HeartbeatStranger),
    };
    if maps.random().is_multiple_of(passed) {
        return false;
    }
    maps.count(VipSlot::NODE, counter);
    true
}

/// The kinds of datagrams from the address of a flooded peer.
enum Piece {
    /// A new payload of its session, as far as the header tells.
    New,
    /// It names that session, but is no new payload of it: forged, or sent before.
    Stale,
    /// Something else, perhaps a handshake of the peer.
    Other,
}

#[inline(always)]
fn piece(frame: &Frame, offset: usize, bounds: &SessionBounds) -> Piece {
    match frame.bytes(offset) {
        Some(header) if bounds.is_named(&header) => {
            if bounds.is_new(&header) {
                Piece::New
            } else {
                Piece::Stale
            }
        }
        Some(_) | None => Piece::Other,
    }
}
