//! Decides who may send to the agent's socket: the peers, from their addresses.
//! While one of these addresses is flooded, only new payloads of its peer come
//! in, and a few others, so that useless datagrams cost the lease loop no time.
//! The transport tells what each datagram was worth.
//!
//! Anybody on the nodes' network can forge a datagram's source address; a right
//! address proves nothing. The guard only keeps out the many datagrams that forge
//! nothing.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use tracing::warn;
use vip_common::{
    BootNs, Counter, VipSlot,
    heartbeat::{Admits, Endpoint, SessionBounds},
};

use super::{
    Running, socket,
    source_filter::{self, Source},
};
use crate::{
    clock,
    config::Config,
    dataplane::{
        DataPlaneError,
        heartbeat::{HeartbeatGuard, endpoint},
    },
    socket_filter,
    transport::{Received, Rejected},
};

/// This many useless datagrams from one address within [`SPAN`] are a flood: ten
/// times what a misconfigured peer sends, and little to read.
const FLOOD: u32 = 500;
const SPAN: Duration = Duration::from_millis(100);
/// The same while the address counts as flooded, and few of them come in.
const FLOOD_GOES_ON: u32 = 4;
/// How long after its last flood an address still counts as flooded.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What came from one peer's address.
#[derive(Debug)]
struct Load {
    address: SocketAddr,
    /// Useless datagrams since then.
    useless: u32,
    since: BootNs,
    flooded_until: Option<BootNs>,
}

/// See the module. The default knows no peers.
#[derive(Default)]
pub struct SourceGuard {
    peers: BTreeMap<Endpoint, u8>,
    loads: BTreeMap<u8, Load>,
    /// This node's address, and the program on the way in that drops unwanted
    /// datagrams to it; a witness has none.
    way_in: Option<(SocketAddr, HeartbeatGuard)>,
}

impl SourceGuard {
    /// A guard for the nodes of this configuration; no address is flooded.
    fn new(config: &Config) -> Self {
        let others = || config.cluster.nodes.iter().filter(|node| node.id != config.me);
        let load = |address| Load { address, useless: 0, since: BootNs(0), flooded_until: None };
        Self {
            peers: others().map(|node| (endpoint(node.address), node.id)).collect(),
            loads: others().map(|node| (node.id, load(node.address))).collect(),
            way_in: None,
        }
    }

    /// Marks the socket, and lets in the nodes of this configuration. The program
    /// on the way in that is pinned below `dir` keeps nobody out for now. Warns
    /// if it can't have its way: then the agent reads more, and drops it all the
    /// same.
    #[must_use]
    pub fn set_up(config: &Config, socket: &UdpSocket, dir: &Path) -> Self {
        // What the former process left is about other peers, or other incarnations.
        if let Ok(mut left) = HeartbeatGuard::open(dir) {
            let _ = left.lift();
        }
        if let Err(e) = socket::mark(socket) {
            warn!("heartbeats are not marked DSCP CS6 or with a priority ({e}): a busy link can delay them");
        }
        let mut guard = Self::new(config);
        if let Err(e) = guard.apply(socket, |_| None) {
            warn!("the kernel keeps no datagrams of strangers out ({e}): a flood of them costs time");
        }
        guard
    }

    /// From now on, has the program on the way in drop what the socket would.
    ///
    /// # Errors
    /// [`DataPlaneError`] if that program is not pinned below `dir`.
    pub fn watch_way_in(
        &mut self,
        config: &Config,
        socket: &UdpSocket,
        dir: &Path,
    ) -> Result<(), DataPlaneError> {
        self.way_in = Some((config.this_node().address, HeartbeatGuard::open(dir)?));
        // Without the filter, the transport drops those datagrams.
        let _ = self.apply(socket, |_| None);
        Ok(())
    }

    /// Has the program on the way in keep nobody out any more.
    pub fn lift(&mut self) {
        if let Some((_, guard)) = &mut self.way_in {
            // A leftover concerns a port where nobody listens.
            let _ = guard.lift();
        }
    }

    /// The peer that has this address.
    #[must_use]
    pub fn peer_at(&self, source: SocketAddr) -> Option<u8> {
        self.peers.get(&endpoint(source)).copied()
    }

    /// Takes note of what a datagram from that peer's address was worth. Returns
    /// whether to change what comes in.
    fn note(&mut self, from: u8, received: &Received, now: BootNs) -> bool {
        let Some(load) = self.loads.get_mut(&from) else { return false };
        let is_flooded = load.flooded_until.is_some();
        match received {
            // The filter has the bounds of the adopted incarnation.
            Received::Adopted { .. } => return is_flooded,
            Received::Payload { .. } | Received::Handshake => return false,
            Received::Rejected { reason, .. } if !is_useless(*reason) => return false,
            Received::Rejected { .. } => {}
        }
        if now.since(load.since) > SPAN {
            (load.useless, load.since) = (0, now);
        }
        load.useless += 1;
        // Once in a span: by then more came in, and older counters are kept out.
        let is_flood = load.useless == if is_flooded { FLOOD_GOES_ON } else { FLOOD };
        if is_flood {
            load.flooded_until = Some(now.plus(AFTERWARDS));
        }
        is_flood
    }

    /// Takes note of floods that are over; returns whether there were any.
    fn calm_down(&mut self, now: BootNs) -> bool {
        let mut is_over = false;
        for load in
            self.loads.values_mut().filter(|load| load.flooded_until.is_some_and(|until| until <= now))
        {
            load.flooded_until = None;
            is_over = true;
        }
        is_over
    }

    /// What to let in.
    fn sources(&self, bounds: impl Fn(u8) -> Option<SessionBounds>) -> Vec<Source> {
        let admits = |(peer, load): (&u8, &Load)| match (load.flooded_until, bounds(*peer)) {
            (None, _) => Admits::All,
            (Some(_), Some(bounds)) => Admits::Payloads(bounds),
            (Some(_), None) => Admits::Few,
        };
        self.loads.iter().map(|of| Source { address: of.1.address, admits: admits(of) }).collect()
    }

    fn apply(
        &mut self,
        socket: &UdpSocket,
        bounds: impl Fn(u8) -> Option<SessionBounds>,
    ) -> std::io::Result<()> {
        let sources = self.sources(bounds);
        if let Some((me, guard)) = &mut self.way_in {
            // If that fails, the socket keeps out the same.
            let _ = guard.admit(*me, sources.iter().map(|source| (source.address, source.admits)));
        }
        let program = source_filter::program(&sources);
        let program = program.ok_or(std::io::ErrorKind::ArgumentListTooLong)?;
        socket_filter::attach(socket, &program)
    }
}

/// Is such a datagram useless? One from a peer that is misconfigured or has
/// restarted is not, and the transport limits those.
const fn is_useless(reason: Rejected) -> bool {
    match reason {
        Rejected::Truncated
        | Rejected::Kind
        | Rejected::NotForMe
        | Rejected::UnknownPeer
        | Rejected::UnknownKey
        | Rejected::BadTag
        | Rejected::Replayed
        | Rejected::ForeignAddress
        | Rejected::RateLimited
        | Rejected::Version
        | Rejected::Malformed => true,
        Rejected::ConfigMismatch
        | Rejected::GenerationMismatch
        | Rejected::StaleIncarnation
        | Rejected::Unsolicited => false,
    }
}

impl Running {
    /// Takes a datagram that came from `source`.
    pub(super) fn receive(&mut self, bytes: &[u8], source: SocketAddr) -> Received {
        let now = clock::now();
        let peer = self.guard.peer_at(source);
        let received = self.core.transport.receive_from(peer, bytes, now);
        if let Some(peer) = peer
            && self.guard.note(peer, &received, now)
        {
            self.let_in();
        }
        received
    }

    /// Lets everything in again after a flood.
    pub(super) fn calm_down(&mut self) {
        if self.guard.calm_down(clock::now()) {
            self.let_in();
        }
    }

    fn let_in(&mut self) {
        let bounds = |peer| self.core.transport.session_bounds(peer);
        // If that fails, the former filter stays.
        let _ = self.guard.apply(&self.core.io.socket, bounds);
    }

    /// How many datagrams the kernel has dropped at the socket and on the way in.
    pub(super) fn dropped(&self) -> u64 {
        let plane = self.core.io.plane.as_ref();
        let way_in = plane.and_then(|plane| plane.maps.counters(VipSlot::NODE).ok()).map_or(0, |counted| {
            counted.get(Counter::HeartbeatStranger) + counted.get(Counter::HeartbeatFlood)
        });
        way_in + socket::dropped(&self.core.io.socket).map_or(0, u64::from)
    }
}

#[cfg(test)]
mod tests {
    use vip_common::heartbeat::{SESSION_KEYS, SessionKey};

    use super::*;

    const T0: BootNs = BootNs(1_000_000_000);
    const BOUNDS: SessionBounds =
        SessionBounds { from: 1, to: 2, highest: 3, keys: [SessionKey::NONE; SESSION_KEYS] };

    fn guard() -> SourceGuard {
        let text = r#"
            [node]
            interface = "eth0"
            [cluster]
            name = "shop"
            key_file = "key"
            [[cluster.node]]
            name = "a"
            address = "10.0.0.1:7077"
            [[cluster.node]]
            name = "b"
            address = "10.0.0.2:7077"
            [[cluster.node]]
            name = "c"
            address = "10.0.0.3:7078"
            [[group]]
            name = "db"
            vips = ["10.0.0.9"]
        "#;
        SourceGuard::new(&Config::parse(text, std::path::Path::new("vip.toml"), "a").expect("right"))
    }

    fn rejected(reason: Rejected) -> Received {
        Received::Rejected { reason, from: None }
    }

    fn admits(guard: &SourceGuard) -> Vec<Admits> {
        let bounds = |peer| (peer == 1).then_some(BOUNDS);
        guard.sources(bounds).into_iter().map(|source| source.admits).collect()
    }

    #[test]
    fn a_peer_is_known_by_address_and_port() {
        let guard = guard();
        let at = |text: &str| guard.peer_at(text.parse().expect("an address"));
        assert_eq!((at("10.0.0.2:7077"), at("10.0.0.3:7078")), (Some(1), Some(2)));
        assert_eq!(at("[::ffff:10.0.0.2]:7077"), Some(1), "as a socket of both families says it");
        assert_eq!((at("10.0.0.2:7078"), at("10.0.0.4:7077"), at("10.0.0.1:7077")), (None, None, None));
    }

    #[test]
    fn a_flooded_address_lets_in_payloads_alone_until_it_is_over() {
        let mut guard = guard();
        let mut notes = |from, reason, at| guard.note(from, &rejected(reason), at);
        assert!((1..FLOOD).all(|_| !notes(1, Rejected::BadTag, T0)));
        assert!(notes(1, Rejected::Replayed, T0), "that is a flood");
        assert!(!notes(1, Rejected::Replayed, T0), "once in a span");
        assert!((0..2 * FLOOD).all(|_| !notes(2, Rejected::ConfigMismatch, T0)), "of use, and limited");
        assert_eq!(admits(&guard), [Admits::Payloads(BOUNDS), Admits::All]);
        let adopted =
            Received::Adopted { peer: 1, incarnation: 9, fresh: false, generation: 1, is_member: true };
        assert!(guard.note(1, &adopted, T0), "what comes in is about another life");
        assert!(!guard.note(2, &adopted, T0));
        assert!(!guard.calm_down(T0.plus(AFTERWARDS / 2)));
        assert!(guard.calm_down(T0.plus(AFTERWARDS)) && !guard.calm_down(T0.plus(AFTERWARDS)));
        assert_eq!(admits(&guard), [Admits::All, Admits::All]);
    }

    #[test]
    fn a_flood_goes_on_as_long_as_a_little_of_it_comes_in() {
        let mut guard = guard();
        let bad = rejected(Rejected::BadTag);
        assert!((0..FLOOD).any(|_| guard.note(1, &bad, T0)));
        // By now the kernel lets in one of many.
        for ms in (0..4 * 5_000).step_by(20) {
            let now = T0.plus(Duration::from_millis(ms));
            guard.note(1, &bad, now);
            assert!(!guard.calm_down(now), "after {ms} ms");
        }
        assert!(guard.calm_down(T0.plus(Duration::from_secs(20) + AFTERWARDS)));
    }

    #[test]
    fn a_trickle_is_no_flood_and_one_without_a_session_lets_in_few() {
        let mut guard = guard();
        for ms in 0..10_000 {
            assert!(!guard.note(1, &rejected(Rejected::BadTag), T0.plus(Duration::from_millis(ms))));
        }
        let now = T0.plus(Duration::from_secs(60));
        assert!((0..FLOOD).any(|_| guard.note(2, &rejected(Rejected::BadTag), now)));
        assert_eq!(admits(&guard), [Admits::All, Admits::Few]);
    }
}
