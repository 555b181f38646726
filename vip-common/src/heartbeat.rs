//! Datagrams between agents as the kernel sees them: the offsets of the header's
//! fields, and which datagrams the data plane lets in while the agent's port is
//! flooded.
//!
//! The data plane believes nothing that it lets in: the agent checks the tag of
//! the whole datagram. The header's own tag is only a cheap test that drops what
//! nobody with the key has sent; its keys serve nothing else.

use core::fmt;

use crate::siphash;

/// Version of the datagram's layout and meaning. Agents reject datagrams of any
/// other version.
pub const WIRE_VERSION: u8 = 7;
/// The kind of a datagram that carries a payload.
pub const KIND_DATA: u8 = 3;
/// Offset of the version in a datagram, in bytes; the constants below are offsets
/// too.
pub const VERSION_AT: usize = 0;
/// Offset of the kind.
pub const KIND_AT: usize = 1;
/// Offset of the key's id.
pub const KEY_ID_AT: usize = 2;
/// Offset of the sender's incarnation.
pub const SENDER_INCARNATION_AT: usize = 30;
/// Offset of the receiver's incarnation.
pub const RECEIVER_INCARNATION_AT: usize = 38;
/// Offset of the counter.
pub const COUNTER_AT: usize = 46;
/// Offset of the header's tag, which covers everything before it.
pub const HEADER_TAG_AT: usize = 54;
/// Bytes of the header.
pub const HEADER_LEN: usize = HEADER_TAG_AT + 8;

/// Keys that a session accepts: one, and during a rotation another.
pub const SESSION_KEYS: usize = 2;

/// Of datagrams from no peer's address, the ingress program passes one in this
/// many on to the agent, so that the agent can report them.
pub const STRANGERS_PASSED: u32 = 16;
/// While a peer's address is flooded, the ingress program passes on one in this
/// many of the datagrams that the peer may have sent without a session.
pub const OTHERS_PASSED: u32 = 16;
/// While a peer's address is flooded, the ingress program passes on one in this
/// many of the datagrams that name the running session and are no new payload.
/// Nobody needs those.
pub const STALE_PASSED: u32 = 1024;
/// Peers that the `PEERS` map has room for.
pub const PEERS_MAX: u32 = 256;

/// An address and a port: the agent's own, as the only value of the
/// `HEARTBEAT` map, where all zeros is none; or a peer's, as key of `PEERS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Endpoint {
    /// IPv6, or IPv4 mapped into it (RFC 4291, 2.5.5.2), in network order.
    pub address: [u8; 16],
    /// The UDP port, in network order.
    pub port: [u8; 2],
    /// Always zero.
    pub pad: [u8; 2],
}

impl Endpoint {
    /// No endpoint.
    pub const NONE: Self = Self { address: [0; 16], port: [0; 2], pad: [0; 2] };

    /// An IPv4 address and a port, both in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: [u8; 4], port: [u8; 2]) -> Self {
        let [a, b, c, d] = address;
        Self::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port)
    }

    /// An IPv6 address and a port, both in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(address: [u8; 16], port: [u8; 2]) -> Self {
        Self { address, port, pad: [0; 2] }
    }
}

/// Which datagrams from a peer's address the data plane lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Everything.
    All,
    /// New payloads of this session, and a few of the rest.
    Payloads(SessionBounds),
    /// A few.
    Few,
}

/// The key of headers' tags: SipHash-2-4, as little-endian words. A forged tag
/// under it passes the data plane, and then fails at the agent.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct HeaderKey([u64; 2]);

impl HeaderKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        let [k0, k1] = [0, 8].map(|at| word(&bytes, at));
        Self([k0, k1])
    }

    /// The tag of a header; ignores the tag that the header already has.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self, header: &[u8; HEADER_LEN]) -> u64 {
        // The last word has the rest and, on top, the length.
        let rest = word(header, HEADER_TAG_AT - 8) >> 16 | (HEADER_TAG_AT as u64) << 56;
        siphash::State::new(self.0)
            .word(word(header, 0))
            .word(word(header, 8))
            .word(word(header, 16))
            .word(word(header, 24))
            .word(word(header, 32))
            .word(word(header, 40))
            .word(rest)
            .finish()
    }

    /// Does the header have the right tag?
    #[inline(always)]
    #[must_use]
    pub fn is_tagged(&self, header: &[u8; HEADER_LEN]) -> bool {
        word(header, HEADER_TAG_AT) == self.tag(header)
    }
}

/// Bytes from `at` on, as a little-endian word.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Without the key.
impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderKey(..)")
    }
}

/// A key by the id that headers name it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SessionKey {
    /// The id, 0 to 255; a higher number means that there is no key.
    id: u64,
    key: HeaderKey,
}

impl SessionKey {
    /// One that no header names.
    pub const NONE: Self = Self { id: u64::MAX, key: HeaderKey([0; 2]) };

    /// The key that headers name by `id`.
    #[must_use]
    pub fn new(id: u8, key: HeaderKey) -> Self {
        Self { id: id.into(), key }
    }
}

impl Default for SessionKey {
    fn default() -> Self {
        Self::NONE
    }
}

/// What tells a new payload of a session from all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SessionBounds {
    /// The peer's adopted incarnation.
    pub from: u64,
    /// This node's incarnation.
    pub to: u64,
    /// The highest counter received so far; every higher counter is new.
    pub highest: u64,
    /// The keys of the headers' tags.
    pub keys: [SessionKey; SESSION_KEYS],
}

impl SessionBounds {
    /// Does a header name this session?
    #[inline(always)]
    #[must_use]
    pub fn is_named(&self, header: &[u8; HEADER_LEN]) -> bool {
        header[VERSION_AT] == WIRE_VERSION
            && header[KIND_AT] == KIND_DATA
            && u64::from_be(word(header, SENDER_INCARNATION_AT)) == self.from
            && u64::from_be(word(header, RECEIVER_INCARNATION_AT)) == self.to
    }

    /// Does a header that names this session open a new payload of it?
    #[inline(always)]
    #[must_use]
    pub fn is_new(&self, header: &[u8; HEADER_LEN]) -> bool {
        if u64::from_be(word(header, COUNTER_AT)) <= self.highest {
            return false;
        }
        let [first, second] = &self.keys;
        let id = u64::from(header[KEY_ID_AT]);
        let key = if id == first.id {
            &first.key
        } else if id == second.id {
            &second.key
        } else {
            return false;
        };
        key.is_tagged(header)
    }
}

/// [`Admits`] as value of the `PEERS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Admission {
    /// 1: everything; 2: new payloads and a few of the rest; any other value: a
    /// few.
    pub admits: u32,
    /// Always zero.
    pub pad: u32,
    /// For payloads; else zeros.
    pub bounds: SessionBounds,
}

impl Admission {
    const ALL: u32 = 1;
    const PAYLOADS: u32 = 2;
    const FEW: u32 = 3;

    /// What the map's value stands for.
    #[inline(always)]
    #[must_use]
    pub const fn admits(&self) -> Admits {
        match self.admits {
            Self::ALL => Admits::All,
            Self::PAYLOADS => Admits::Payloads(self.bounds),
            _ => Admits::Few,
        }
    }
}

impl From<Admits> for Admission {
    fn from(admits: Admits) -> Self {
        let none = SessionBounds::default();
        let (admits, bounds) = match admits {
            Admits::All => (Self::ALL, none),
            Admits::Payloads(bounds) => (Self::PAYLOADS, bounds),
            Admits::Few => (Self::FEW, none),
        };
        Self { admits, pad: 0, bounds }
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use super::*;

    /// Header and key of a new payload of [`bounds`].
    fn header(counter: u64, id: u8, key: HeaderKey) -> [u8; HEADER_LEN] {
        let mut header = core::array::from_fn(|at| u8::try_from(at).unwrap_or(0) ^ 0x5a);
        (header[VERSION_AT], header[KIND_AT], header[KEY_ID_AT]) = (WIRE_VERSION, KIND_DATA, id);
        for (at, word) in
            [(SENDER_INCARNATION_AT, 1_u64), (RECEIVER_INCARNATION_AT, 2), (COUNTER_AT, counter)]
        {
            header[at..at + 8].copy_from_slice(&word.to_be_bytes());
        }
        let tag = key.tag(&header);
        header[HEADER_TAG_AT..].copy_from_slice(&tag.to_le_bytes());
        header
    }

    fn key(first: u8) -> HeaderKey {
        HeaderKey::new(core::array::from_fn(|at| first ^ u8::try_from(at).unwrap_or(0)))
    }

    fn bounds() -> SessionBounds {
        let keys = [SessionKey::new(7, key(1)), SessionKey::new(9, key(2))];
        SessionBounds { from: 1, to: 2, highest: 5, keys }
    }

    fn is_new(bounds: SessionBounds, header: &[u8; HEADER_LEN]) -> bool {
        bounds.is_named(header) && bounds.is_new(header)
    }

    #[test]
    #[expect(deprecated, reason = "core's SipHasher is SipHash-2-4, and will not become another")]
    fn a_tag_is_siphash_2_4_of_the_header_before_it() {
        for first in 0..=255 {
            let key = key(first);
            let header = header(u64::from(first) << 40, first, key);
            let mut known = core::hash::SipHasher::new_with_keys(key.0[0], key.0[1]);
            known.write(&header[..HEADER_TAG_AT]);
            assert_eq!(key.tag(&header), known.finish());
        }
    }

    #[test]
    fn a_header_of_a_new_payload_has_the_tag_of_its_key() {
        for (id, key) in [(7, key(1)), (9, key(2))] {
            assert!(is_new(bounds(), &header(6, id, key)));
            assert!(is_new(bounds(), &header(u64::MAX, id, key)));
            assert!(!is_new(bounds(), &header(5, id, key)), "not new");
        }
        for (id, key) in [(7, key(2)), (9, key(1)), (8, key(1)), (255, HeaderKey::default())] {
            assert!(!is_new(bounds(), &header(6, id, key)), "{id}");
        }
        let genuine = header(6, 7, key(1));
        for bit in 0..HEADER_LEN * 8 {
            let mut forged = genuine;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_new(bounds(), &forged), "bit {bit}");
        }
    }

    #[test]
    fn who_knows_no_key_gets_in_with_none() {
        let none = SessionBounds { from: 1, to: 2, ..SessionBounds::default() };
        for id in 0..=255 {
            assert!(!is_new(none, &header(6, id, HeaderKey::default())), "{id}");
        }
    }
}
