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

use crate::{frame::Frame, verdict::Maps};

/// RFC 768.
const UDP: u8 = 17;
const UDP_LEN: usize = 8;
// Offsets in an IPv4 header (RFC 791), and the length of one without options.
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
const IPV4_SOURCE: usize = 12;
const IPV4_TARGET: usize = 16;
const IPV4_LEN: usize = 20;
/// The first byte of such a header.
const IPV4_PLAIN: u8 = 0x45;
/// The part of a fragment's offset that is beside the flags: a first fragment
/// has ports, and without it the others come to nothing.
const OFFSET_HIGH: u8 = 0x1f;
// Offsets in an IPv6 header (RFC 8200), and its length.
const IPV6_NEXT: usize = 6;
const IPV6_SOURCE: usize = 8;
const IPV6_TARGET: usize = 24;
const IPV6_LEN: usize = 40;

/// Is the IPv4 packet at `offset` a datagram for the agent that is kept out?
/// Agents send no options; what has some goes on, and the agent's socket has a
/// look at it. So do fragments but for the first one.
#[inline(always)]
pub fn is_kept_out_v4<M: Maps>(frame: &Frame, offset: usize, maps: &M) -> bool {
    let is_plain = frame.bytes(offset + IPV4_PROTOCOL) == Some([UDP])
        && frame.bytes(offset) == Some([IPV4_PLAIN])
        && frame.bytes(offset + IPV4_FRAGMENT).is_some_and(|[high, low]| high & OFFSET_HIGH == 0 && low == 0);
    if !is_plain {
        return false;
    }
    let udp = offset + IPV4_LEN;
    let (Some(source), Some(target)) = (frame.bytes(offset + IPV4_SOURCE), frame.bytes(offset + IPV4_TARGET))
    else {
        return false;
    };
    is_kept_out(frame, udp, maps, |port| Endpoint::v4(target, port), |port| Endpoint::v4(source, port))
}

/// The same for IPv6. One with extension headers goes on: agents send none.
#[inline(always)]
pub fn is_kept_out_v6<M: Maps>(frame: &Frame, offset: usize, maps: &M) -> bool {
    if frame.bytes::<1>(offset + IPV6_NEXT) != Some([UDP]) {
        return false;
    }
    let (Some(source), Some(target)) = (frame.bytes(offset + IPV6_SOURCE), frame.bytes(offset + IPV6_TARGET))
    else {
        return false;
    };
    let udp = offset + IPV6_LEN;
    is_kept_out(frame, udp, maps, |port| Endpoint::v6(target, port), |port| Endpoint::v6(source, port))
}

#[inline(always)]
fn is_kept_out<M: Maps>(
    frame: &Frame,
    udp: usize,
    maps: &M,
    target: impl Fn([u8; 2]) -> Endpoint,
    source: impl Fn([u8; 2]) -> Endpoint,
) -> bool {
    let Some([from_high, from_low, to_high, to_low]) = frame.bytes(udp) else { return false };
    if !maps.is_agent(&target([to_high, to_low])) {
        return false;
    }
    let (passed, counter) = match maps.admits(&source([from_high, from_low])) {
        Some(Admits::All) => return false,
        Some(Admits::Payloads(bounds)) => match piece(frame, udp + UDP_LEN, &bounds) {
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
