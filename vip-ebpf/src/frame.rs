//! Bounds-checked views into a frame, and where its network header starts.
//!
//! What a frame means for a VIP is decided in `verdict`, not here.

/// Bytes of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const VLAN_LEN: usize = 4;
/// The most VLAN tags that the programs look through.
pub const VLAN_TAGS_MAX: usize = 2;

/// The bits of a tag that say which VLAN a frame is in; in none, it is the interface's own.
const VLAN_ID: u16 = 0x0fff;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad.
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// A frame in memory: from its destination MAC to its last linear byte.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
    /// The VLAN of a tag that the kernel keeps beside the frame; 0 if there is none.
    beside: u32,
}

/// What follows the Ethernet header and its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// ARP at this offset.
    Arp(usize),
    /// IPv4 at this offset.
    Ipv4(usize),
    /// IPv6 at this offset.
    Ipv6(usize),
    /// Something else.
    Other,
    /// The frame ends within the link-layer header.
    Truncated,
    /// More than [`VLAN_TAGS_MAX`] tags.
    Tagged,
}

impl Frame {
    /// A frame that lies between two addresses.
    ///
    /// # Safety
    /// `start..end` must be readable and writable memory for as long as the
    /// frame is used, and nobody else may access it meanwhile.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        Self { start, end, beside: 0 }
    }

    /// The same frame, whose tag the kernel keeps beside it: its control information (IEEE
    /// 802.1Q).
    #[inline(always)]
    #[must_use]
    pub const fn with_tag(self, tag: u32) -> Self {
        Self { beside: tag & VLAN_ID as u32, ..self }
    }

    /// Is the frame, whose network header is at `offset`, in a VLAN? A tag without one only
    /// tells its priority.
    #[inline(always)]
    #[must_use]
    pub fn is_in_vlan(&self, offset: usize) -> bool {
        if self.beside != 0 || offset > ETH_LEN + VLAN_LEN {
            return true;
        }
        let inside = if offset > ETH_LEN { self.bytes::<2>(ETH_LEN) } else { None };
        inside.is_some_and(|tag| u16::from_be_bytes(tag) & VLAN_ID != 0)
    }

    /// A pointer to a `T` at `offset`, if all of it is within the frame.
    ///
    /// The verifier accepts this comparison in this form only.
    #[inline(always)]
    #[must_use]
    pub const fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        Some((self.start + offset) as *mut T)
    }

    /// The `N` bytes at `offset`, if they are within the frame.
    #[inline(always)]
    #[must_use]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let bytes = self.at::<[u8; N]>(offset)?;
        // SAFETY: `at` checked the bounds; a byte array has no alignment.
        Some(unsafe { *bytes })
    }

    /// What follows the Ethernet header and up to [`VLAN_TAGS_MAX`] tags.
    #[inline(always)]
    #[must_use]
    pub fn network(&self) -> Network {
        let Some(mut ethertype) = self.bytes::<2>(12) else { return Network::Truncated };
        let mut offset = ETH_LEN;
        let mut tags = 0;
        while is_tag(ethertype) {
            if tags == VLAN_TAGS_MAX {
                return Network::Tagged;
            }
            let Some(inner) = self.bytes::<2>(offset + 2) else { return Network::Truncated };
            ethertype = inner;
            offset += VLAN_LEN;
            tags += 1;
        }
        match u16::from_be_bytes(ethertype) {
            ETHERTYPE_ARP => Network::Arp(offset),
            ETHERTYPE_IPV4 => Network::Ipv4(offset),
            ETHERTYPE_IPV6 => Network::Ipv6(offset),
            _ => Network::Other,
        }
    }
}

#[inline(always)]
const fn is_tag(ethertype: [u8; 2]) -> bool {
    matches!(u16::from_be_bytes(ethertype), ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}
