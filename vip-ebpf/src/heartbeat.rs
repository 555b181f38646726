//! Datagrams for the agent's port: those from no peer's address are dropped
//! before the host spends its time on them, and while a peer's address is
//! flooded all but new payloads of that peer, which the tag of their header
//! tells from what others make up.
//!
//! What is dropped here the agent's socket would drop, too, or the agent, which
//! looks at tags and counters. A few go on, as there: so that it is noticed, and
//! so that a peer which restarts in a flood comes back. Nothing is let through
//! that would not come in otherwise, and a VIP's packet goes on to its gate.

use vip_common::{
    Counter, VipSlot,
    heartbeat::{Admits, Endpoint, OTHERS_PASSED, STALE_PASSED, STRANGERS_PASSED, SessionBounds},
};

use crate::{
    frame::Frame,
    packet::{ipv4, ipv6, udp},
    verdict::Maps,
};

/// Is the IPv4 packet at `offset` a datagram for the agent that is kept out?
/// Agents send no options; what has some goes on, and the agent's socket has a
/// look at it. So do fragments but for the first one.
#[inline(always)]
pub fn is_kept_out_v4<M: Maps>(frame: &Frame, offset: usize, maps: &M) -> bool {
    let Some(udp) = ipv4::udp(frame, offset) else { return false };
    let (Some(source), Some(target)) = (ipv4::source(frame, offset), ipv4::destination(frame, offset)) else {
        return false;
    };
    is_kept_out(frame, udp, maps, |port| Endpoint::v4(target, port), |port| Endpoint::v4(source, port))
}

/// The same for IPv6. One with extension headers goes on: agents send none.
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

/// What a datagram from a flooded peer is.
enum Piece {
    /// A new payload of its session, as far as the header tells.
    New,
    /// It names that session, and is none: made up, or sent again.
    Stale,
    /// Something else, which may be a handshake of the peer's.
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
