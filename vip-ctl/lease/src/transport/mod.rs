//! Datagram security between the nodes of a cluster: proves who sealed a payload
//! and for which incarnation, and delivers it only once. Sans-IO: no socket,
//! clock or randomness here ([`keyfile`] alone touches the system), and no
//! meaning of a payload.
//!
//! A node draws a new random incarnation at every start, and a payload is
//! sealed for one incarnation by one incarnation. A node adopts a peer's
//! incarnation only on a response that echoes the nonce of its own
//! outstanding challenge. Hence a recorded datagram can make a node send one
//! challenge, or one response to the peer's configured address, and nothing
//! else. Both sides challenge on their own account, and each goes on until it
//! is answered, so a pair is never one-sided for longer than the network
//! loses its datagrams.
//!
//! The cost of a flood is bounded before any tag is checked: a datagram from no
//! peer's address is dropped ([`Transport::receive_from`]), one that was checked
//! before is dropped by its counter, and there are limits on the derivation of
//! keys and on responses ([`limit`]).
//!
//! The rules are those of "Transport" in docs/protocol.md: see
//! [`handshake`] for the round trip, [`key`] for the keys.

pub mod handshake;
pub mod header;
pub mod key;
pub mod keyfile;
pub mod limit;
mod reject;
mod session;
#[cfg(test)]
mod tests;
pub mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use vip_common::{
    BootNs,
    heartbeat::{HEADER_LEN, SessionBounds},
};

use self::{
    handshake::{ChallengeNonce, Handshake},
    header::{Header, Kind, TAG_LEN},
    limit::Limits,
    session::Session,
};
pub use self::{
    key::{KeyId, KeyRing, Psk},
    reject::{Counters, Rejected},
};
use crate::mutant::{self, Mutant};

/// Bytes that sealing adds to a payload.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The longest payload: what a UDP datagram over IPv4 has room for.
pub const PAYLOAD_LEN_MAX: usize = 65_507 - OVERHEAD;
/// Challenges and responses that can wait for [`Transport::poll_transmit`].
/// When full, the newest is dropped and counted; the peer or the next
/// [`Transport::wake`] repeats it.
pub const OUTBOX_LEN_MAX: usize = 64;

/// Keeps the derivation of challenge nonces apart from all others.
const NONCES_CONTEXT: &str = "vip-ctl transport wire 1 challenge nonces";

/// Who this node and its peers are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This node's index in the configuration.
    pub me: u8,
    /// Random, and new for every [`Transport`] there ever is: counters start
    /// afresh with it, so a reused incarnation would reuse nonces.
    pub incarnation: u64,
    /// The cluster's name; another cluster has other keys.
    pub cluster: String,
    /// The digest of what all nodes must agree on; this node rejects datagrams
    /// with another one.
    pub config_digest: u64,
    /// Number of this node's membership. Peers of the same one must have the same
    /// nodes; this node also hears peers of the one before and after, and no
    /// others.
    pub generation: u64,
    /// The digest of the membership's nodes.
    pub nodes_digest: u64,
    /// Does this node take part in it? A node that is joining only asks the
    /// others for their incarnation and their membership.
    pub is_member: bool,
    /// Indices of the other nodes; this node's own is ignored.
    pub peers: Vec<u8>,
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A payload, delivered for the first time.
    Payload {
        /// The peer that sealed it, in its adopted incarnation.
        from: u8,
        /// What it sealed.
        payload: Vec<u8>,
    },
    /// Part of a handshake that changed no peer's incarnation.
    Handshake,
    /// The peer's incarnation is proven and adopted: from now on it gets and
    /// sends payloads.
    Adopted {
        /// The peer's index.
        peer: u8,
        /// The adopted incarnation.
        incarnation: u64,
        /// True if this is the peer's first incarnation that we know; false
        /// if it takes the place of another one, so the peer has restarted.
        fresh: bool,
        /// Number of its membership.
        generation: u64,
        /// Does the peer take part in that membership (or only ask to)?
        is_member: bool,
    },
    /// Dropped and counted.
    Rejected {
        /// Why.
        reason: Rejected,
        /// The peer that the header names. Only a claim, unless the reason
        /// says that the datagram is genuine.
        from: Option<u8>,
    },
}

/// Why a payload was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No such peer.
    #[error("node {0} is none of this node's peers")]
    UnknownPeer(u8),
    /// The peer's incarnation is not adopted yet, so the payload is lost.
    #[error("node {0} is not connected yet")]
    NotConnected(u8),
    /// Longer than a datagram has room for.
    #[error("the payload has {len} bytes and must not exceed {PAYLOAD_LEN_MAX}")]
    TooLong {
        /// Bytes of the payload.
        len: usize,
    },
    /// This incarnation has sealed 2^64 datagrams for that peer.
    #[error("no counter is left for node {0}: restart the agent")]
    CounterExhausted(u8),
}

/// The counter of the last datagram sealed for one peer. It serves all keys of
/// that direction and never falls, so no nonce is used twice under any of them.
#[derive(Debug, Default)]
struct SendCounter(u64);

impl SendCounter {
    /// A counter never used before; `None` when there is none left.
    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.checked_add(1)?;
        Some(self.0)
    }
}

/// What this node knows of one peer.
#[derive(Debug, Default)]
struct Peer {
    counter: SendCounter,
    handshake: Handshake,
    session: Option<Session>,
}

impl Peer {
    fn due(&self) -> Option<BootNs> {
        self.handshake.due(self.session.is_some())
    }
}

/// Seals and opens datagrams, and keeps up with the peers' incarnations.
///
/// Not `Clone`: two copies would use the same nonces.
pub struct Transport {
    identity: Identity,
    keys: KeyRing,
    nonces: blake3::OutputReader,
    peers: BTreeMap<u8, Peer>,
    limits: BTreeMap<u8, Limits>,
    outbox: VecDeque<(u8, Vec<u8>)>,
    counters: Counters,
}

impl Transport {
    /// A transport that knows no peer's incarnation yet. `entropy` must come
    /// from a cryptographic source; challenge nonces are drawn from it.
    #[must_use]
    pub fn new(identity: Identity, keys: KeyRing, entropy: [u8; 32]) -> Self {
        let nonces = blake3::Hasher::new_derive_key(NONCES_CONTEXT).update(&entropy).finalize_xof();
        let others = || identity.peers.iter().copied().filter(|peer| *peer != identity.me);
        let peers = others().map(|peer| (peer, Peer::default())).collect();
        let limits = others().map(|peer| (peer, Limits::default())).collect();
        let (outbox, counters) = (VecDeque::new(), Counters::default());
        Self { identity, keys, nonces, peers, limits, outbox, counters }
    }

    /// The datagram that carries `payload` to `to`'s adopted incarnation.
    ///
    /// # Errors
    /// See [`SealError`]; after [`SealError::NotConnected`] the caller drops
    /// the payload.
    pub fn seal(&mut self, to: u8, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let too_long = SealError::TooLong { len: payload.len() };
        let peer = self.peers.get_mut(&to).ok_or(SealError::UnknownPeer(to))?;
        if payload.len() > PAYLOAD_LEN_MAX {
            return Err(too_long);
        }
        let session = peer.session.as_ref().ok_or(SealError::NotConnected(to))?;
        let counter = peer.counter.next().ok_or(SealError::CounterExhausted(to))?;
        let header = header(&self.identity, &self.keys, Kind::Data, (to, session.incarnation), counter);
        let datagram = session.send.seal(&header, payload).ok_or(too_long)?;
        self.counters.sealed += 1;
        Ok(datagram)
    }

    /// Takes a datagram that came from the address of `sender`; `None`: from no
    /// peer's address. A datagram from another peer's address than its header
    /// names is rejected.
    ///
    /// Afterwards [`Self::poll_transmit`] may have something to send.
    pub fn receive_from(&mut self, sender: Option<u8>, datagram: &[u8], now: BootNs) -> Received {
        let claimed = header::sender(datagram);
        if sender.is_none() || claimed.is_some_and(|claimed| Some(claimed) != sender) {
            let reason = Rejected::ForeignAddress;
            self.counters.rejected[reason as usize] += 1;
            return Received::Rejected { reason, from: None };
        }
        self.receive(datagram, now)
    }

    /// Takes a datagram from the network, received at `now`; the caller has
    /// checked the address that it came from.
    ///
    /// Afterwards [`Self::poll_transmit`] may have something to send.
    pub fn receive(&mut self, datagram: &[u8], now: BootNs) -> Received {
        self.open(datagram, now).unwrap_or_else(|(reason, from)| {
            self.counters.rejected[reason as usize] += 1;
            Received::Rejected { reason, from }
        })
    }

    /// Queues the challenges that are due at `now`.
    pub fn wake(&mut self, now: BootNs) {
        let due: Vec<u8> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.due().is_some_and(|due| due <= now))
            .map(|(&index, _)| index)
            .collect();
        for peer in due {
            self.challenge(peer, now);
        }
    }

    /// The next datagram to send, and the peer that it is for.
    pub fn poll_transmit(&mut self) -> Option<(u8, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// When to call [`Self::wake`] next; it may lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNs> {
        self.peers.values().filter_map(Peer::due).min()
    }

    /// The transport's counters since [`Self::new`].
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// True once an incarnation of `peer` is adopted. It says nothing about
    /// whether that incarnation is still alive.
    #[must_use]
    pub fn connected(&self, peer: u8) -> bool {
        self.incarnation(peer).is_some()
    }

    /// The adopted incarnation of `peer`.
    #[must_use]
    pub fn incarnation(&self, peer: u8) -> Option<u64> {
        self.peers.get(&peer)?.session.as_ref().map(|session| session.incarnation)
    }

    /// What tells a new payload of `peer` from all else: the incarnations that it
    /// is from and for, the highest counter received, and the keys of headers'
    /// tags.
    #[must_use]
    pub fn session_bounds(&self, peer: u8) -> Option<SessionBounds> {
        let session = self.peers.get(&peer)?.session.as_ref()?;
        Some(SessionBounds {
            from: session.incarnation,
            to: self.identity.incarnation,
            highest: session.window.highest(),
            keys: session.header_keys(),
        })
    }

    /// Everything that `receive` does except for counting the rejections.
    fn open(&mut self, datagram: &[u8], now: BootNs) -> Result<Received, (Rejected, Option<u8>)> {
        let (header, aad, sealed) = Header::decode(datagram).map_err(|reason| (reason, None))?;
        let me = self.identity.me;
        if header.dst != me {
            return Err((Rejected::NotForMe, None));
        }
        let peer = self.peers.get(&header.src).ok_or((Rejected::UnknownPeer, None))?;
        let rejected = |reason| (reason, Some(header.src));
        let psk = self.keys.get(header.key).ok_or(rejected(Rejected::UnknownKey))?;

        let cluster = &self.identity.cluster;
        let src = (header.src, header.src_incarnation);
        let known = peer
            .session
            .as_ref()
            .filter(|session| session.incarnation == header.src_incarnation)
            .filter(|_| header.dst_incarnation == self.identity.incarnation)
            .and_then(|session| Some((session, session.receive_key(header.key)?)));
        let is_known = known.is_some();
        // A datagram that is known to be useless costs no check of its tag.
        match (header.kind, known) {
            (Kind::Data, Some((session, _))) if session.window.has(header.counter) => {
                return Err(rejected(Rejected::Replayed));
            }
            (Kind::Data, Some(_)) => {}
            (Kind::Challenge | Kind::Response, _) | (Kind::Data, None) => {
                let limits = self.limits.get_mut(&header.src).ok_or((Rejected::UnknownPeer, None))?;
                if limits.is_old(&header) {
                    return Err(rejected(Rejected::Replayed));
                }
                if !limits.may_derive(header.kind, now) {
                    return Err(rejected(Rejected::RateLimited));
                }
            }
        }
        let opened = match (header.kind, known) {
            (Kind::Challenge, _) => {
                psk.handshake(cluster, src.0, me, src.1).open(header.counter, aad, sealed)
            }
            (Kind::Response | Kind::Data, Some((_, key))) => key.open(header.counter, aad, sealed),
            // Verifies the tag even for incarnations that are not current, so that
            // nothing forged is counted or answered below.
            (Kind::Response | Kind::Data, None) => {
                psk.pair(cluster, src, (me, header.dst_incarnation)).open(header.counter, aad, sealed)
            }
        };
        if mutant::is(Mutant::WindowBeforeTag)
            && let Some(session) = self.peers.get_mut(&header.src).and_then(|peer| peer.session.as_mut())
            && opened.is_none()
        {
            session.window.accept(header.counter);
        }
        let payload = opened.ok_or(rejected(Rejected::BadTag))?;
        // The window knows those of the adopted incarnation.
        if (header.kind != Kind::Data || !is_known)
            && let Some(limits) = self.limits.get_mut(&header.src)
        {
            limits.note(&header);
        }
        if header.config_digest != self.identity.config_digest && !mutant::is(Mutant::AnyConfig) {
            return Err(rejected(Rejected::ConfigMismatch));
        }
        // Rule 10: majorities of neighbouring generations overlap, others need not.
        let Identity { generation, nodes_digest, .. } = self.identity;
        let apart = header.generation.abs_diff(generation);
        if (apart > 1 && !mutant::is(Mutant::AnyDistance))
            || (apart == 0 && header.nodes_digest != nodes_digest && !mutant::is(Mutant::AnyNodes))
        {
            return Err(rejected(Rejected::GenerationMismatch));
        }
        match header.kind {
            Kind::Challenge => self.on_challenge(&header, &payload, now),
            Kind::Response => self.on_response(&header, &payload, now),
            Kind::Data => self.on_data(&header, payload, now),
        }
        .map_err(rejected)
    }

    /// Answers, and challenges in turn if the sender is not the adopted incarnation.
    fn on_challenge(&mut self, header: &Header, payload: &[u8], now: BootNs) -> Result<Received, Rejected> {
        let nonce: ChallengeNonce = payload.try_into().map_err(|_| Rejected::Malformed)?;
        self.counters.challenges_received += 1;
        let may_respond = self.limits.get_mut(&header.src).is_some_and(|limits| limits.may_respond(now));
        if may_respond {
            self.respond(header.src, header.src_incarnation, nonce);
        }
        if self.incarnation(header.src) != Some(header.src_incarnation) {
            self.suspect(header.src, now);
        }
        if may_respond { Ok(Received::Handshake) } else { Err(Rejected::RateLimited) }
    }

    /// Adopts the sender if it echoes the outstanding nonce.
    fn on_response(&mut self, header: &Header, payload: &[u8], now: BootNs) -> Result<Received, Rejected> {
        let Identity { me, incarnation, ref cluster, .. } = self.identity;
        if header.dst_incarnation != incarnation {
            return Err(Rejected::StaleIncarnation);
        }
        let peer = self.peers.get_mut(&header.src).ok_or(Rejected::UnknownPeer)?;
        if !peer.handshake.echoed(payload) && !mutant::is(Mutant::AnyEcho) {
            return Err(Rejected::Unsolicited);
        }
        self.counters.responses_received += 1;
        let before = peer.session.as_ref().map(|session| session.incarnation);
        if before != Some(header.src_incarnation) {
            peer.session = Some(Session::new(
                &self.keys,
                cluster,
                (me, incarnation),
                (header.src, header.src_incarnation),
                header.counter,
            ));
            self.counters.adoptions += 1;
        }
        if peer.due().is_some_and(|due| due <= now) {
            self.challenge(header.src, now);
        }
        if before == Some(header.src_incarnation) {
            return Ok(Received::Handshake);
        }
        Ok(Received::Adopted {
            peer: header.src,
            incarnation: header.src_incarnation,
            fresh: before.is_none(),
            generation: header.generation,
            is_member: header.is_member,
        })
    }

    /// Hands the payload over if both incarnations are current and it is new.
    fn on_data(&mut self, header: &Header, payload: Vec<u8>, now: BootNs) -> Result<Received, Rejected> {
        let peer = self.peers.get_mut(&header.src).ok_or(Rejected::UnknownPeer)?;
        match &mut peer.session {
            Some(session) if session.incarnation == header.src_incarnation => {
                if header.dst_incarnation != self.identity.incarnation && !mutant::is(Mutant::FormerMe) {
                    return Err(Rejected::StaleIncarnation);
                }
                if !session.window.accept(header.counter) {
                    return Err(Rejected::Replayed);
                }
            }
            Some(_) | None => {
                self.suspect(header.src, now);
                return Err(Rejected::StaleIncarnation);
            }
        }
        self.counters.delivered += 1;
        Ok(Received::Payload { from: header.src, payload })
    }

    /// Takes note of evidence of an unknown incarnation; challenges at once if
    /// the last challenge was long enough ago.
    fn suspect(&mut self, index: u8, now: BootNs) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.handshake.suspect();
        if peer.due().is_some_and(|due| due <= now) {
            self.challenge(index, now);
        }
    }

    fn challenge(&mut self, to: u8, now: BootNs) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let nonce = peer.handshake.send(now, || {
            let mut nonce = ChallengeNonce::default();
            self.nonces.fill(&mut nonce);
            nonce
        });
        let Some(counter) = peer.counter.next() else { return };
        let counter = if mutant::is(Mutant::CounterAgain) { counter - 1 } else { counter };
        let Identity { me, incarnation, ref cluster, .. } = self.identity;
        let header = header(&self.identity, &self.keys, Kind::Challenge, (to, 0), counter);
        let key = self.keys.primary().handshake(cluster, me, to, incarnation);
        if let Some(datagram) = key.seal(&header, &nonce)
            && self.queue(to, datagram)
        {
            self.counters.challenges_sent += 1;
        }
    }

    fn respond(&mut self, to: u8, to_incarnation: u64, nonce: ChallengeNonce) {
        let Some(counter) = self.peers.get_mut(&to).and_then(|peer| peer.counter.next()) else { return };
        let Identity { me, incarnation, ref cluster, .. } = self.identity;
        let to = (to, to_incarnation);
        let header = header(&self.identity, &self.keys, Kind::Response, to, counter);
        let key = self.keys.primary().pair(cluster, (me, incarnation), to);
        if let Some(datagram) = key.seal(&header, &nonce)
            && self.queue(to.0, datagram)
        {
            self.counters.responses_sent += 1;
        }
    }

    fn queue(&mut self, to: u8, datagram: Vec<u8>) -> bool {
        if self.outbox.len() >= OUTBOX_LEN_MAX {
            self.counters.outbox_full += 1;
            return false;
        }
        self.outbox.push_back((to, datagram));
        true
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Leaves out the nonces: anybody who knows them can fake that a peer is alive.
        f.debug_struct("Transport")
            .field("identity", &self.identity)
            .field("keys", &self.keys)
            .field("peers", &self.peers.keys())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The header of a datagram from this node to an incarnation of another.
fn header(
    identity: &Identity,
    keys: &KeyRing,
    kind: Kind,
    (dst, dst_incarnation): session::End,
    counter: u64,
) -> Header {
    Header {
        kind,
        key: keys.primary_id(),
        src: identity.me,
        dst,
        config_digest: identity.config_digest,
        generation: identity.generation,
        nodes_digest: identity.nodes_digest,
        src_incarnation: identity.incarnation,
        dst_incarnation,
        counter,
        is_member: identity.is_member,
    }
}
