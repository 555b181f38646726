//! An adopted incarnation of a peer: the keys of the pair and the window of
//! received counters. [`super::handshake`] decides which incarnation to adopt.

use vip_common::heartbeat::{SESSION_KEYS, SessionKey};

use super::{
    key::{DirectionKey, KeyId, KeyRing},
    window::Window,
};
use crate::mutant::{self, Mutant};

/// One end of a pair: a node's index and its incarnation.
pub(super) type End = (u8, u64);

/// What this node needs to talk to one incarnation of a peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) incarnation: u64,
    pub(super) send: DirectionKey,
    receive: Vec<(KeyId, DirectionKey)>,
    pub(super) window: Window,
}

impl Session {
    /// A session between `me` and `peer` that receives what was sealed after
    /// the response numbered `counter`.
    ///
    /// A peer never uses a counter twice in its life. Whatever it sealed before
    /// that response counts as seen, so that nothing is delivered twice even if
    /// this node leaves one incarnation and adopts it again.
    pub(super) fn new(keys: &KeyRing, cluster: &str, me: End, peer: End, counter: u64) -> Self {
        Self {
            incarnation: peer.1,
            send: keys.primary().pair(cluster, me, peer),
            receive: keys.iter().map(|(id, psk)| (id, psk.pair(cluster, peer, me))).collect(),
            window: Window::starting_after(counter),
        }
    }

    /// The keys of the header tags of received datagrams.
    pub(super) fn header_keys(&self) -> [SessionKey; SESSION_KEYS] {
        let known = if mutant::is(Mutant::OneHeaderKey) { 1 } else { SESSION_KEYS };
        let mut keys = self.receive.iter().take(known).map(|(id, key)| SessionKey::new(id.0, key.header()));
        std::array::from_fn(|_| keys.next().unwrap_or_default())
    }

    pub(super) fn receive_key(&self, id: KeyId) -> Option<&DirectionKey> {
        self.receive.iter().find(|(candidate, _)| *candidate == id).map(|(_, key)| key)
    }
}
