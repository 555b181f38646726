//! IPv6 (RFC 8200): the addresses of a packet, and where its UDP header is.

use super::udp;
use crate::frame::Frame;

const NEXT_HEADER_AT: usize = 6;
const SOURCE_AT: usize = 8;
const DESTINATION_AT: usize = 24;

/// Bytes of a header, without extensions.
pub const LEN: usize = 40;

/// Who sent the packet at `offset`; `None` if the frame ends before that.
#[inline(always)]
#[must_use]
pub fn source(frame: &Frame, offset: usize) -> Option<[u8; 16]> {
    frame.bytes(offset + SOURCE_AT)
}

/// Who the packet at `offset` is for; `None` if the frame ends before that.
#[inline(always)]
#[must_use]
pub fn destination(frame: &Frame, offset: usize) -> Option<[u8; 16]> {
    frame.bytes(offset + DESTINATION_AT)
}

/// Where the UDP header of the packet at `offset` begins. `None` for another
/// protocol, and for a packet with extension headers.
#[inline(always)]
#[must_use]
pub fn udp(frame: &Frame, offset: usize) -> Option<usize> {
    (frame.bytes(offset + NEXT_HEADER_AT) == Some([udp::PROTOCOL])).then_some(offset + LEN)
}
