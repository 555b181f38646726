//! The header that every datagram opens with, and its bytes on the wire. This
//! module checks only its shape: the tag over the whole datagram decides whether
//! to believe a header. The header's own tag is for the kernel, which drops by it
//! what is not worth that check.
//!
//! ```text
//! 0        version                22..30  nodes digest
//! 1        kind                   30..38  sender's incarnation
//! 2        key id                 38..46  receiver's incarnation
//! 3        sender                 46..54  counter
//! 4        receiver               54..62  the header's tag
//! 5        1: takes part,         62..    sealed payload, then its 16-byte tag
//!          0: joining
//! 6..14    configuration digest   integers are big-endian, and the
//! 14..22   generation             header's tag is little-endian
//! ```

use vip_common::heartbeat::{HEADER_LEN, HEADER_TAG_AT, HeaderKey, KIND_DATA, WIRE_VERSION};

use super::{key::KeyId, reject::Rejected};

/// Bytes of the tag that ends every datagram.
pub const TAG_LEN: usize = 16;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// "Who lives there now?": carries a nonce, sealed under the sender's handshake key.
    Challenge = 1,
    /// The nonce of a challenge, sealed under the pair's key.
    Response = 2,
    /// A payload of the caller's, sealed under the pair's key.
    Data = KIND_DATA,
}

impl Kind {
    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Challenge),
            2 => Some(Self::Response),
            KIND_DATA => Some(Self::Data),
            _ => None,
        }
    }
}

/// A datagram's header, except for the version, which is always [`WIRE_VERSION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) key: KeyId,
    pub(super) src: u8,
    pub(super) dst: u8,
    /// Does the sender take part in its membership (or only ask to)?
    pub(super) is_member: bool,
    pub(super) config_digest: u64,
    /// Number of the sender's membership.
    pub(super) generation: u64,
    /// The digest of that membership's nodes.
    pub(super) nodes_digest: u64,
    pub(super) src_incarnation: u64,
    /// Zero in a challenge, which is for the incarnation that `dst` has now,
    /// whichever that is.
    pub(super) dst_incarnation: u64,
    pub(super) counter: u64,
}

/// The place of the sender.
const SENDER_AT: usize = 3;

/// The sender that a datagram of this version names; `None` if it is too short.
pub(super) fn sender(datagram: &[u8]) -> Option<u8> {
    datagram.first().filter(|version| **version == WIRE_VERSION)?;
    datagram.get(SENDER_AT).copied()
}

impl Header {
    pub(super) fn encode(&self, key: &HeaderKey) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let (kind, member) = (self.kind as u8, u8::from(self.is_member));
        bytes[..6].copy_from_slice(&[WIRE_VERSION, kind, self.key.0, self.src, self.dst, member]);
        let words = [
            self.config_digest,
            self.generation,
            self.nodes_digest,
            self.src_incarnation,
            self.dst_incarnation,
            self.counter,
        ];
        for (place, word) in bytes[6..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        let tag = key.tag(&bytes);
        bytes[HEADER_TAG_AT..].copy_from_slice(&tag.to_le_bytes());
        bytes
    }

    /// Splits a datagram into its header, the header's bytes and the sealed rest.
    ///
    /// Checks the version before the length, because another version's header may
    /// be shorter.
    pub(super) fn decode(datagram: &[u8]) -> Result<(Self, &[u8; HEADER_LEN], &[u8]), Rejected> {
        let version = *datagram.first().ok_or(Rejected::Truncated)?;
        if version != WIRE_VERSION {
            return Err(Rejected::Version);
        }
        let (bytes, sealed) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(Rejected::Truncated)?;
        if sealed.len() < TAG_LEN {
            return Err(Rejected::Truncated);
        }
        let [_, kind, key, src, dst, member, words @ ..] = bytes;
        let mut words = words.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
        let mut word = || words.next().ok_or(Rejected::Truncated);
        let header = Self {
            kind: Kind::from_wire(*kind).ok_or(Rejected::Kind)?,
            key: KeyId(*key),
            src: *src,
            dst: *dst,
            // Anything else claims nothing.
            is_member: *member == 1,
            config_digest: word()?,
            generation: word()?,
            nodes_digest: word()?,
            src_incarnation: word()?,
            dst_incarnation: word()?,
            counter: word()?,
        };
        Ok((header, bytes, sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HeaderKey {
        HeaderKey::new(*b"sixteen bytes of")
    }

    fn header() -> Header {
        Header {
            kind: Kind::Response,
            key: KeyId(9),
            src: 2,
            dst: 4,
            is_member: true,
            config_digest: 0x0102_0304_0506_0708,
            generation: 0x4142_4344_4546_4748,
            nodes_digest: 0x5152_5354_5556_5758,
            src_incarnation: 0x1112_1314_1516_1718,
            dst_incarnation: 0x2122_2324_2526_2728,
            counter: 0x3132_3334_3536_3738,
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let mut expected = vec![7, 2, 9, 2, 4, 1];
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        expected.extend(0x41..=0x48);
        expected.extend(0x51..=0x58);
        expected.extend(0x11..=0x18);
        expected.extend(0x21..=0x28);
        expected.extend(0x31..=0x38);
        let bytes = header().encode(&key());
        assert_eq!(bytes[..HEADER_TAG_AT], expected);
        assert!(key().is_tagged(&bytes));
    }

    #[test]
    fn decode_undoes_encode_for_every_kind() {
        for (kind, is_member) in [(Kind::Challenge, false), (Kind::Response, true), (Kind::Data, true)] {
            let header = Header { kind, is_member, ..header() };
            let mut datagram = header.encode(&key()).to_vec();
            datagram.extend([7; TAG_LEN]);
            let (decoded, bytes, sealed) = Header::decode(&datagram).expect("well-formed");
            assert_eq!(decoded, header);
            assert_eq!(bytes, &header.encode(&key()));
            assert_eq!(sealed, [7; TAG_LEN]);
        }
    }

    #[test]
    fn every_shorter_datagram_is_truncated() {
        let mut datagram = header().encode(&key()).to_vec();
        datagram.extend([7; TAG_LEN]);
        for len in 0..datagram.len() {
            assert_eq!(Header::decode(&datagram[..len]).map(|_| ()), Err(Rejected::Truncated), "{len} bytes");
        }
    }

    #[test]
    fn another_version_is_named_even_if_it_is_short() {
        for version in [0, WIRE_VERSION - 1, WIRE_VERSION + 1, 255] {
            assert_eq!(Header::decode(&[version]).map(|_| ()), Err(Rejected::Version));
        }
    }
}
