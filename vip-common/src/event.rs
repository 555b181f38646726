//! What the data plane tells the agent through the `EVENTS` ring buffer.

use crate::layout::GroupIndex;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// Another node claimed the VIP by ARP while this node holds it.
    ClaimConflict = 1,
    /// Another node claimed the VIP by ARP while this node does not hold it.
    ClaimSeen = 2,
    /// A client sent a packet for the VIP, or its unicast ARP request, to this node,
    /// which does not hold it: the client's neighbour entry is stale.
    Stale = 3,
}

/// One record of the `EVENTS` ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`] as a word.
    pub kind: u32,
    /// The group of the VIP.
    pub group: GroupIndex,
    /// The interface's index.
    pub ifindex: u32,
    /// The VIP, in network order.
    pub vip: [u8; 4],
    /// Who claimed it, the ARP sender's hardware address; or who sent the packet, the
    /// frame's source.
    pub mac: [u8; 6],
    /// Always zero.
    pub pad: [u8; 2],
}
