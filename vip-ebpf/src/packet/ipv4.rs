//! IPv4 (RFC 791): the addresses of a packet, where its UDP header is, and one step on its way.

use super::udp;
use crate::frame::Frame;

const FRAGMENT_AT: usize = 6;
const TTL_AT: usize = 8;
const PROTOCOL_AT: usize = 9;
const CHECKSUM_AT: usize = 10;
const SOURCE_AT: usize = 12;
const DESTINATION_AT: usize = 16;

/// Bytes of a header without options.
const PLAIN_LEN: usize = 20;
/// The first byte of such a header.
const PLAIN: u8 = 0x45;
/// The high part of a fragment's offset, without the flags that share its byte.
const FRAGMENT_HIGH: u8 = 0x1f;
/// The flag there of all fragments but the last.
const MORE_FRAGMENTS: u8 = 0x20;

/// Protocols with ports where UDP has them, by their IANA numbers.
const TCP: u8 = 6;
const DCCP: u8 = 33;
const SCTP: u8 = 132;

/// Who sent the packet at `offset`; `None` if the frame ends before that.
#[inline(always)]
#[must_use]
pub fn source(frame: &Frame, offset: usize) -> Option<[u8; 4]> {
    frame.bytes(offset + SOURCE_AT)
}

/// Who the packet at `offset` is for; `None` if the frame ends before that.
#[inline(always)]
#[must_use]
pub fn destination(frame: &Frame, offset: usize) -> Option<[u8; 4]> {
    frame.bytes(offset + DESTINATION_AT)
}

/// Is this address that of a group of hosts (224.0.0.0/4, RFC 1112), of all on a link, or
/// of none (RFC 1122, section 3.2.1.3)? Routes don't say so: the one that leads everywhere has
/// them, too.
#[inline(always)]
#[must_use]
pub const fn is_for_many(address: [u8; 4]) -> bool {
    address[0] & 0xf0 == 0xe0 || matches!(address, [255, 255, 255, 255] | [0, 0, 0, 0])
}

/// What a host's rules and routes go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sent it.
    pub source: [u8; 4],
    /// Who it is for.
    pub destination: [u8; 4],
    /// The type of service (RFC 791), as it stands in the header.
    pub tos: u8,
    /// The protocol above, by its IANA number.
    pub protocol: u8,
    /// The ports of both, as they stand behind the header; zero where the packet is a
    /// fragment, has options, or no ports.
    pub ports: u32,
}

/// The flow that the packet at `offset` is of; `None` if the frame ends before that.
#[inline(always)]
#[must_use]
pub fn flow(frame: &Frame, offset: usize) -> Option<Flow> {
    let header: [u8; PLAIN_LEN] = frame.bytes(offset)?;
    let [first, tos, _, _, _, _, high, low, _, protocol, _, _, a, b, c, d, e, f, g, h] = header;
    // As the kernel does where a rule asks for ports.
    let is_whole = first == PLAIN && high & (MORE_FRAGMENTS | FRAGMENT_HIGH) == 0 && low == 0;
    let has_ports = is_whole && matches!(protocol, TCP | udp::PROTOCOL | DCCP | SCTP);
    let ports = if has_ports { frame.bytes(offset + PLAIN_LEN) } else { None };
    let ports = u32::from_ne_bytes(ports.unwrap_or_default());
    Some(Flow { source: [a, b, c, d], destination: [e, f, g, h], tos, protocol, ports })
}

/// Where the UDP header of the packet at `offset` begins. `None` for another
/// protocol, for a header with options, and for any fragment but the first,
/// which alone has ports.
#[inline(always)]
#[must_use]
pub fn udp(frame: &Frame, offset: usize) -> Option<usize> {
    let is_plain = frame.bytes(offset + PROTOCOL_AT) == Some([udp::PROTOCOL])
        && frame.bytes(offset) == Some([PLAIN])
        && frame.bytes(offset + FRAGMENT_AT).is_some_and(|[high, low]| high & FRAGMENT_HIGH == 0 && low == 0);
    is_plain.then_some(offset + PLAIN_LEN)
}

/// Takes one from the time to live of the packet at `offset` (RFC 1812, 5.3.1), with the
/// header's checksum (RFC 1624); false, and nothing is changed, if none would be left.
#[inline(always)]
#[must_use]
pub fn step(frame: &Frame, offset: usize) -> bool {
    let (Some(ttl), Some(checksum)) =
        (frame.at::<u8>(offset + TTL_AT), frame.at::<[u8; 2]>(offset + CHECKSUM_AT))
    else {
        return false;
    };
    // SAFETY: `at` checked the bounds; bytes have no alignment.
    unsafe {
        if *ttl <= 1 {
            return false;
        }
        *ttl -= 1;
        // The time to live is the high byte of its word; all ones are zero.
        let sum = u16::from_be_bytes(*checksum) as u32 + 0x0100;
        *checksum = (((sum + (sum >= 0xffff) as u32) & 0xffff) as u16).to_be_bytes();
    }
    true
}
