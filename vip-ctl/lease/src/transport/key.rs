//! Pre-shared keys, and the keys for one direction of one pair that are derived
//! from them. [`super::keyfile`] reads the files, and no `Debug` output has any
//! byte of a key.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use vip_common::heartbeat::{HEADER_LEN, HeaderKey};

use super::header::{Header, TAG_LEN};
use crate::mutant::{self, Mutant};

/// Bytes of a pre-shared key.
pub const PSK_LEN: usize = 32;

/// Keeps keys derived for a challenge apart from all others.
const HANDSHAKE_CONTEXT: &str = "vip-ctl transport wire 1 handshake key";
/// Keeps keys derived for a pair of incarnations apart from all others.
const PAIR_CONTEXT: &str = "vip-ctl transport wire 1 pair key";

/// The number by which datagrams name the pre-shared key they were sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct KeyId(pub u8);

impl KeyId {
    /// The id that a first key gets.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 32-byte pre-shared key.
#[derive(Clone)]
pub struct Psk([u8; PSK_LEN]);

impl Psk {
    /// A key of these bytes, which must come from a cryptographic source.
    #[must_use]
    pub const fn new(bytes: [u8; PSK_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the key file and for nothing else.
    pub(super) const fn bytes(&self) -> &[u8; PSK_LEN] {
        &self.0
    }

    /// The key under which this incarnation of `src` challenges `dst`.
    pub(super) fn handshake(&self, cluster: &str, src: u8, dst: u8, src_incarnation: u64) -> DirectionKey {
        let mut kdf = self.kdf(HANDSHAKE_CONTEXT, cluster, src, dst);
        kdf.update(&src_incarnation.to_be_bytes());
        DirectionKey::new(&kdf)
    }

    /// The key under which `src` sends to `dst`, for these two incarnations.
    pub(super) fn pair(
        &self,
        cluster: &str,
        (src, src_incarnation): (u8, u64),
        (dst, dst_incarnation): (u8, u64),
    ) -> DirectionKey {
        let mut kdf = self.kdf(PAIR_CONTEXT, cluster, src, dst);
        kdf.update(&src_incarnation.to_be_bytes()).update(&dst_incarnation.to_be_bytes());
        DirectionKey::new(&kdf)
    }

    fn kdf(&self, context: &str, cluster: &str, src: u8, dst: u8) -> blake3::Hasher {
        let mut kdf = blake3::Hasher::new_derive_key(context);
        // Only the name has a length of its own, so its length is enough to
        // keep different inputs from running together.
        kdf.update(&self.0).update(&(cluster.len() as u64).to_be_bytes()).update(cluster.as_bytes()).update(
            &if mutant::is(Mutant::SameBothWays) { [src.min(dst), src.max(dst)] } else { [src, dst] },
        );
        kdf
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// The pre-shared keys that are accepted: one that is also used for sending,
/// and during a rotation a second one.
///
/// A rotation takes three steps, each on every node before the next: add the
/// new key second, make it first, remove the old one.
#[derive(Clone, Debug)]
pub struct KeyRing {
    primary: (KeyId, Psk),
    secondary: Option<(KeyId, Psk)>,
}

/// Two keys cannot have one id: datagrams could not say which is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("both keys have the id {0}: give the new one another id (0 to 255)")]
pub struct SameKeyId(pub KeyId);

impl KeyRing {
    /// A ring that sends under `primary` and accepts both.
    ///
    /// # Errors
    /// If both have the same id.
    pub fn new(primary: (KeyId, Psk), secondary: Option<(KeyId, Psk)>) -> Result<Self, SameKeyId> {
        match &secondary {
            Some((id, _)) if *id == primary.0 => Err(SameKeyId(*id)),
            Some(_) | None => Ok(Self { primary, secondary }),
        }
    }

    /// The id of the key that is used for sending.
    #[must_use]
    pub const fn primary_id(&self) -> KeyId {
        self.primary.0
    }

    /// The ids of the accepted keys, first the one that is used for sending.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.iter().map(|(id, _)| id)
    }

    pub(super) const fn primary(&self) -> &Psk {
        &self.primary.1
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&Psk> {
        self.iter().find(|(candidate, _)| *candidate == id || mutant::is(Mutant::AnyKey)).map(|(_, psk)| psk)
    }

    /// The accepted keys, the one for sending first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyId, &Psk)> {
        std::iter::once(&self.primary).chain(&self.secondary).map(|(id, psk)| (*id, psk))
    }
}

/// ChaCha20-Poly1305 (RFC 8439) under a derived key, with the header as
/// associated data and its counter as nonce; and the key of the header's tag.
pub(super) struct DirectionKey {
    sealing: LessSafeKey,
    header: HeaderKey,
}

impl DirectionKey {
    fn new(kdf: &blake3::Hasher) -> Self {
        let (mut sealing, mut header) = ([0; 32], [0; 16]);
        let mut derived = kdf.finalize_xof();
        derived.fill(&mut sealing);
        derived.fill(&mut header);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &sealing);
        let Ok(key) = key else { unreachable!("a key has 32 bytes") };
        Self { sealing: LessSafeKey::new(key), header: HeaderKey::new(header) }
    }

    /// The key of the headers' tags.
    pub(super) const fn header(&self) -> HeaderKey {
        self.header
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// The datagram of `header` and `payload`; `None` only if the payload is
    /// longer than the cipher can take (256 GiB).
    ///
    /// The caller never passes one counter twice under one key.
    pub(super) fn seal(&self, header: &Header, payload: &[u8]) -> Option<Vec<u8>> {
        let aad = header.encode(&self.header);
        let mut datagram = Vec::with_capacity(HEADER_LEN + payload.len() + TAG_LEN);
        datagram.extend(aad);
        datagram.extend(payload);
        let (nonce, sealed) = (Self::nonce(header.counter), &mut datagram[HEADER_LEN..]);
        let tag = self.sealing.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed).ok()?;
        datagram.extend(tag.as_ref());
        Some(datagram)
    }

    /// The payload, if the tag over it and the header's bytes is right.
    pub(super) fn open(&self, counter: u64, aad: &[u8; HEADER_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        // In a flood, most datagrams that get this far fail here already.
        if !self.header.is_tagged(aad) {
            return None;
        }
        let mut bytes = sealed.to_vec();
        let len = self.sealing.open_in_place(Self::nonce(counter), Aad::from(aad), &mut bytes).ok()?.len();
        bytes.truncate(len);
        Some(bytes)
    }
}

impl fmt::Debug for DirectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::header::Kind, *};

    fn header(counter: u64) -> Header {
        Header {
            kind: Kind::Data,
            key: KeyId::FIRST,
            src: 0,
            dst: 1,
            config_digest: 3,
            generation: 1,
            nodes_digest: 6,
            is_member: true,
            src_incarnation: 4,
            dst_incarnation: 5,
            counter,
        }
    }

    /// Seals the same payload under each key: keys that differ give different bytes.
    fn fingerprint(key: &DirectionKey) -> Vec<u8> {
        key.seal(&header(1), b"the same for all").expect("short")
    }

    #[test]
    fn every_input_of_the_derivation_changes_the_key() {
        let psk = Psk::new([1; 32]);
        let keys = [
            psk.pair("shop", (0, 10), (1, 20)),
            Psk::new([2; 32]).pair("shop", (0, 10), (1, 20)),
            psk.pair("shoq", (0, 10), (1, 20)),
            psk.pair("sho", (0, 10), (1, 20)),
            psk.pair("shop", (2, 10), (1, 20)),
            psk.pair("shop", (0, 10), (2, 20)),
            psk.pair("shop", (0, 11), (1, 20)),
            psk.pair("shop", (0, 10), (1, 21)),
            psk.pair("shop", (1, 20), (0, 10)),
            psk.handshake("shop", 0, 1, 10),
            psk.handshake("shop", 1, 0, 10),
            psk.handshake("shop", 0, 1, 11),
        ];
        let mut seen: Vec<_> = keys.iter().map(fingerprint).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), keys.len());
        assert_eq!(fingerprint(&psk.pair("shop", (0, 10), (1, 20))), fingerprint(&keys[0]));
    }

    #[test]
    fn the_counter_is_the_nonce() {
        let key = Psk::new([1; 32]).handshake("shop", 0, 1, 10);
        let one = key.seal(&header(1), b"payload").expect("short");
        let two = key.seal(&header(2), b"payload").expect("short");
        assert_ne!(one[HEADER_LEN..], two[HEADER_LEN..]);
        let aad = header(1).encode(&key.header());
        assert_eq!(key.open(1, &aad, &one[HEADER_LEN..]).as_deref(), Some(b"payload".as_slice()));
        assert_eq!(key.open(2, &aad, &one[HEADER_LEN..]), None);
    }

    #[test]
    fn no_key_byte_is_in_debug_output() {
        let psk = Psk::new([0xab; 32]);
        let ring = KeyRing::new((KeyId(1), psk.clone()), Some((KeyId(2), psk.clone()))).expect("two ids");
        let shown = format!("{ring:?} {ring:#?} {:?}", psk.handshake("shop", 0, 1, 10));
        assert!(shown.contains("Psk(..)") && shown.contains("KeyId"));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab"), "{shown}");
    }

    #[test]
    fn two_keys_with_one_id_are_refused() {
        let refused = KeyRing::new((KeyId(7), Psk::new([1; 32])), Some((KeyId(7), Psk::new([2; 32]))));
        assert_eq!(refused.map(|_| ()), Err(SameKeyId(KeyId(7))));
    }
}
