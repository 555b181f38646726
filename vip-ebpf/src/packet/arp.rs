//! ARP for IPv4 over Ethernet (RFC 826): reading a packet, and turning a
//! request into its reply in place.

use crate::frame::Frame;

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// The operations, in network order.
const OP_REQUEST: [u8; 2] = [0, 1];
const OP_REPLY: [u8; 2] = [0, 2];

/// The fields of an ARP packet that verdicts depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Does it ask who has the target address?
    pub is_request: bool,
    /// Sender hardware address.
    pub sender_mac: [u8; 6],
    /// Sender protocol address; zero in an address probe (RFC 5227).
    pub sender: [u8; 4],
    /// Target hardware address, of which a request says nothing (RFC 826).
    pub target_mac: [u8; 6],
    /// Target protocol address.
    pub target: [u8; 4],
}

/// Why an ARP packet was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The frame ends before the packet does.
    Truncated,
    /// Not IPv4 over Ethernet.
    Foreign,
}

/// Reads the ARP packet at `offset`.
///
/// # Errors
/// [`Unread`] when the packet is cut short or not IPv4 over Ethernet.
#[inline(always)]
pub fn read(frame: &Frame, offset: usize) -> Result<Arp, Unread> {
    let Some(packet) = frame.at::<[u8; LEN]>(offset) else { return Err(Unread::Truncated) };
    // SAFETY: `at` checked that all of it is within the frame; bytes have no alignment.
    let packet = unsafe { &*packet };
    if packet[0] != HEADER[0]
        || packet[1] != HEADER[1]
        || packet[2] != HEADER[2]
        || packet[3] != HEADER[3]
        || packet[4] != HEADER[4]
        || packet[5] != HEADER[5]
    {
        return Err(Unread::Foreign);
    }
    Ok(Arp {
        is_request: [packet[6], packet[7]] == OP_REQUEST,
        sender_mac: [packet[8], packet[9], packet[10], packet[11], packet[12], packet[13]],
        sender: [packet[14], packet[15], packet[16], packet[17]],
        target_mac: [packet[18], packet[19], packet[20], packet[21], packet[22], packet[23]],
        target: [packet[24], packet[25], packet[26], packet[27]],
    })
}

/// Makes `address` the sender of the ARP packet at `offset`. `false` if the frame is too
/// short, and then it is untouched.
#[inline(always)]
#[must_use]
pub fn rename(frame: &Frame, offset: usize, address: [u8; 4]) -> bool {
    let Some(packet) = frame.at::<[u8; LEN]>(offset) else { return false };
    let mut i = 0;
    while i < 4 {
        // SAFETY: `at` checked the bounds; bytes have no alignment.
        unsafe { (*packet)[14 + i] = address[i] };
        i += 1;
    }
    true
}

/// Makes `mac` the source of the frame, and the sender of its ARP packet at `offset`. A request
/// keeps the former sender as its target, of which it says nothing else; the target of a
/// gratuitous reply is its sender. `false` if the frame is too short, and then it is
/// untouched.
#[inline(always)]
#[must_use]
pub fn set_sender_mac(frame: &Frame, offset: usize, packet: &Arp, mac: [u8; 6]) -> bool {
    let Some(ethernet) = frame.at::<[u8; 12]>(0) else { return false };
    let Some(written) = frame.at::<[u8; LEN]>(offset) else { return false };
    let is_gratuitous_reply = !packet.is_request && packet.target == packet.sender;
    let mut i = 0;
    while i < 6 {
        // SAFETY: `at` checked the bounds of both; bytes have no alignment.
        unsafe {
            (*ethernet)[6 + i] = mac[i];
            (*written)[8 + i] = mac[i];
            if packet.is_request {
                (*written)[18 + i] = packet.sender_mac[i];
            } else if is_gratuitous_reply {
                (*written)[18 + i] = mac[i];
            }
        }
        i += 1;
    }
    true
}

/// Turns the request in `frame`, with its ARP packet at `offset`, into the
/// reply that says `vip` is at `mac`, addressed to whoever asked.
///
/// Answers an address probe, too (its sender address of zero becomes the
/// target), so that nobody who probes first takes the VIP for free. VLAN tags
/// stay as they are. `false` if the frame is too short, and then it is untouched.
#[inline(always)]
#[must_use]
pub fn answer(frame: &Frame, offset: usize, request: &Arp, vip: [u8; 4], mac: [u8; 6]) -> bool {
    let Some(ethernet) = frame.at::<[u8; 12]>(0) else { return false };
    let Some(packet) = frame.at::<[u8; LEN]>(offset) else { return false };
    let to = request.sender_mac;
    let back = request.sender;
    // SAFETY: `at` checked the bounds of both; bytes have no alignment, and no
    // reference is made, so that the two may overlap. Written byte by byte, so
    // that the program calls no memcpy.
    unsafe {
        let mut i = 0;
        while i < 6 {
            (*ethernet)[i] = to[i];
            (*ethernet)[6 + i] = mac[i];
            (*packet)[8 + i] = mac[i];
            (*packet)[18 + i] = to[i];
            i += 1;
        }
        (*packet)[6] = OP_REPLY[0];
        (*packet)[7] = OP_REPLY[1];
        i = 0;
        while i < 4 {
            (*packet)[14 + i] = vip[i];
            (*packet)[24 + i] = back[i];
            i += 1;
        }
    }
    true
}
