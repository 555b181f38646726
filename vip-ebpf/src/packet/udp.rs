//! UDP (RFC 768): the ports of a datagram.

use crate::frame::Frame;

const SOURCE_AT: usize = 0;
const DESTINATION_AT: usize = 2;

/// UDP's number in an IP header.
pub const PROTOCOL: u8 = 17;
/// Bytes of a header.
pub const LEN: usize = 8;

/// The port that the datagram at `offset` is from, in network order; `None` if
/// the frame ends before that.
#[inline(always)]
#[must_use]
pub fn source(frame: &Frame, offset: usize) -> Option<[u8; 2]> {
    frame.bytes(offset + SOURCE_AT)
}

/// The port that the datagram at `offset` is for, in network order; `None` if
/// the frame ends before that.
#[inline(always)]
#[must_use]
pub fn destination(frame: &Frame, offset: usize) -> Option<[u8; 2]> {
    frame.bytes(offset + DESTINATION_AT)
}
