//! What all groups of a node share: configuration, the time of the current
//! input, what is known of the peers, and what waits to go out. Nothing here
//! decides about a lease.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use vip_common::BootNs;

use super::{
    config::{EngineConfig, GroupId, NodeId, NodeSet, Role, Timing},
    io::Output,
    message::{About, AskId, Message, Packet, RequestId, Verdict},
    wire,
};

/// Whom a command's verdict goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Requester {
    pub origin: NodeId,
    pub request: RequestId,
}

/// What is known of the peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    heard: Option<BootNs>,
    /// By group, as it last said of itself.
    ready: Vec<bool>,
}

/// What all groups share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub config: EngineConfig,
    pub timing: Timing,
    /// The time of the current input; never goes back.
    pub now: BootNs,
    /// End of the silence after the start (rule 5).
    pub silent_until: BootNs,
    pub silent: bool,
    pub stopping: bool,
    /// [`Node::quorate_at`] now.
    pub quorate: bool,
    /// A renewal has begun, and others that are due soon may join it.
    pub renewing: bool,
    pub heartbeat_at: BootNs,
    pub outputs: VecDeque<Output>,
    /// Verdicts of this input, on their way to whoever asked.
    pub decided: VecDeque<(Requester, Verdict)>,
    outbox: BTreeMap<NodeId, Vec<Message>>,
    peers: Vec<Peer>,
    asks: u64,
}

impl Node {
    pub fn new(config: EngineConfig, now: BootNs) -> Self {
        let timing = Timing::new(config.accept);
        let peer = Peer { heard: None, ready: vec![false; config.groups.len()] };
        let mut node = Self {
            timing,
            now,
            silent_until: now.plus(timing.accept.max(config.silence)),
            silent: true,
            stopping: false,
            quorate: false,
            renewing: false,
            heartbeat_at: now,
            outputs: VecDeque::new(),
            decided: VecDeque::new(),
            outbox: BTreeMap::new(),
            peers: vec![peer; config.nodes.len()],
            asks: 0,
            config,
        };
        node.advance(now);
        node
    }

    pub fn me(&self) -> NodeId {
        self.config.me
    }

    /// A new input at `now`.
    pub fn advance(&mut self, now: BootNs) {
        self.now = self.now.max(now);
        self.quorate = self.quorate_at(self.now);
    }

    /// Takes note that `peer` was heard now. Returns whether the quorum is back by that.
    pub fn hear(&mut self, peer: NodeId) -> bool {
        if let Some(peer) = self.peers.get_mut(usize::from(peer.0)) {
            peer.heard = Some(self.now);
        }
        let before = self.quorate;
        self.quorate = self.quorate_at(self.now);
        self.quorate && !before
    }

    /// Takes note of what `peer` said about its readiness.
    pub fn hear_ready(&mut self, peer: NodeId, first: GroupId, ready: &[bool]) {
        let Some(peer) = self.peers.get_mut(usize::from(peer.0)) else { return };
        let known = peer.ready.iter_mut().skip(usize::from(first.0));
        for (known, &said) in known.zip(ready) {
            *known = said;
        }
    }

    /// When `node` was last heard; this node hears itself always.
    pub fn last_heard(&self, node: NodeId, now: BootNs) -> Option<BootNs> {
        if node == self.config.me {
            return Some(now);
        }
        self.peers.get(usize::from(node.0)).and_then(|peer| peer.heard)
    }

    fn heard_within(&self, node: NodeId, window: Duration, now: BootNs) -> bool {
        self.last_heard(node, now).is_some_and(|heard| now.since(heard) <= window)
    }

    /// Does `node` count for the quorum at `now`?
    pub fn present(&self, node: NodeId, now: BootNs) -> bool {
        self.heard_within(node, self.timing.heard, now)
    }

    /// Is a majority of the voters heard at `now`, this node included?
    ///
    /// A node that hears no majority can't win one either: it keeps quiet, so
    /// that its ever higher ballots don't disturb those who can.
    pub fn quorate_at(&self, now: BootNs) -> bool {
        let present = self.config.voters().filter(|&node| self.present(node, now));
        present.count() >= self.config.majority()
    }

    /// Peers that said they could take `group`, and are present.
    pub fn ready_peers(&self, group: GroupId, now: BootNs) -> impl Iterator<Item = NodeId> + '_ {
        self.config.peers().filter(move |&node| {
            self.config.role(node) == Some(Role::Node)
                && self.present(node, now)
                && self
                    .peers
                    .get(usize::from(node.0))
                    .is_some_and(|peer| peer.ready.get(usize::from(group.0)).copied().unwrap_or(false))
        })
    }

    /// The best node to hand `group` to: ready, and heard within T_accept (so
    /// not missing more than a few heartbeats); highest priority, then lowest id.
    pub fn best_target(&self, group: GroupId, except: NodeSet) -> Option<NodeId> {
        self.ready_peers(group, self.now)
            .filter(|&node| !except.contains(node) && self.heard_within(node, self.timing.accept, self.now))
            .min_by_key(|&node| self.config.rank(group, node))
    }

    /// A number for a question, never used before.
    pub fn next_ask(&mut self) -> AskId {
        self.asks = self.asks.saturating_add(1);
        AskId(self.asks)
    }

    /// Puts the next heartbeat on the way soon, to tell of a change. Not at
    /// once, so that many changes together make one heartbeat.
    pub fn heartbeat_soon(&mut self) {
        self.heartbeat_at = self.heartbeat_at.min(self.now.plus(self.timing.slot));
    }

    /// Queues `message` for `to`; it leaves when the input has been handled.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.outbox.entry(to).or_default().push(message);
    }

    /// Queues `message` for every peer.
    pub fn send_all(&mut self, message: &Message) {
        for to in self.config.peers() {
            self.send(to, message.clone());
        }
    }

    /// Queues a message about `group` for `to`.
    pub fn tell(&mut self, to: NodeId, group: GroupId, about: About) {
        self.send(to, Message::Group { group, about });
    }

    /// Queues a message about `group` for every peer.
    pub fn tell_all(&mut self, group: GroupId, about: About) {
        self.send_all(&Message::Group { group, about });
    }

    /// Turns what is queued into packets: all groups to one peer together.
    /// They come after everything else that this input has caused, so that a
    /// map write is always done before the message that tells of it (rule 7).
    pub fn flush(&mut self) {
        for (to, messages) in std::mem::take(&mut self.outbox) {
            for packet in wire::split(messages) {
                self.outputs.push_back(Output::Send { to, packet: Packet { messages: packet } });
            }
        }
    }
}
