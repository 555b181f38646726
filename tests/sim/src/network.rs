//! The network between the nodes: what happens to a datagram on its way, and the
//! taps with which a scenario keeps datagrams of a kind for later.

use vip_engine::{About, Message, Packet};

use super::{
    Mutant, Violation,
    agent::Mail,
    clock::{SimNs, nanos},
    hosts::SimNode,
    names::node_id,
    trace,
    world::{Event, World},
};

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub from: usize,
    pub to: usize,
    /// What the transport would check of its sender, where there is none.
    generation: u64,
    is_later: bool,
    /// Its packet; `None` if it is part of a handshake.
    said: Option<Packet>,
    bytes: Option<Vec<u8>>,
}

impl Datagram {
    pub fn new(world: &World, from: usize, to: usize, said: Option<Packet>, bytes: Option<Vec<u8>>) -> Self {
        let SimNode { generation, is_later, .. } = world.nodes[from];
        Self { from, to, generation, is_later, said, bytes }
    }
}

/// What a datagram is about, for taps. One datagram may be of many kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Heartbeat,
    Node,
    Request,
    Verdict,
    Prepare,
    Promise,
    Propose,
    Accept,
    Holding,
    Refuse,
    Release,
    Released,
    AskReady,
    Ready,
    Stale,
    Unheard,
    Paths,
}

impl MessageKind {
    /// All of them, as scenarios call them.
    pub const NAMED: &[(&str, Self)] = &[
        ("heartbeat", Self::Heartbeat),
        ("request", Self::Request),
        ("node", Self::Node),
        ("verdict", Self::Verdict),
        ("prepare", Self::Prepare),
        ("promise", Self::Promise),
        ("propose", Self::Propose),
        ("accept", Self::Accept),
        ("holding", Self::Holding),
        ("refuse", Self::Refuse),
        ("release", Self::Release),
        ("released", Self::Released),
        ("ask-ready", Self::AskReady),
        ("ready", Self::Ready),
        ("stale", Self::Stale),
        ("unheard", Self::Unheard),
        ("paths", Self::Paths),
    ];

    fn of(message: &Message) -> Self {
        match message {
            Message::Heartbeat { .. } => Self::Heartbeat,
            Message::Request { .. } => Self::Request,
            Message::Node { .. } => Self::Node,
            Message::Verdict { .. } => Self::Verdict,
            Message::Paths(_) => Self::Paths,
            Message::Group { about, .. } => match about {
                About::Prepare { .. } => Self::Prepare,
                About::Promise { .. } => Self::Promise,
                About::Propose { .. } => Self::Propose,
                About::Accept { .. } => Self::Accept,
                About::Holding { .. } => Self::Holding,
                About::Refuse { .. } => Self::Refuse,
                About::Release { .. } => Self::Release,
                About::Released { .. } => Self::Released,
                About::AskReady { .. } => Self::AskReady,
                About::Ready { .. } => Self::Ready,
                About::Stale { .. } => Self::Stale,
                About::Unheard { .. } => Self::Unheard,
            },
        }
    }
}

/// What a tap does with the datagrams that it picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// They don't arrive until a scenario delivers them.
    Hold,
    /// They arrive, and a copy is kept.
    Record,
}

/// Picks datagrams of one link that contain a message of some kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub keep: Keep,
    /// Empty means every kind.
    pub kinds: Vec<MessageKind>,
    pub from: usize,
    pub to: usize,
}

impl Tap {
    fn picks(&self, datagram: &Datagram) -> bool {
        let contains = |kind: &MessageKind| {
            let mut messages = datagram.said.iter().flat_map(|packet| &packet.messages);
            messages.any(|message| MessageKind::of(message) == *kind)
        };
        (self.from, self.to) == (datagram.from, datagram.to)
            && (self.kinds.is_empty() || self.kinds.iter().any(contains))
    }
}

impl World {
    /// A node has sent a datagram; fate decides whether and when it arrives.
    pub(super) fn transmit(&mut self, datagram: Datagram) {
        let Datagram { from, to, .. } = datagram;
        if self.cut[from][to] || self.rng.chance(self.plan.loss) {
            self.note(|world| format!("{:<6}    lost on the way to {}", world.name(from), world.name(to)));
            return;
        }
        let keep = self.taps.iter().find(|tap| tap.picks(&datagram)).map(|tap| tap.keep);
        if let Some(keep) = keep {
            self.note(|world| {
                let how = match keep {
                    Keep::Hold => "held back on the way to",
                    Keep::Record => "recorded on the way to",
                };
                format!("{:<6}    {how} {}", world.name(from), world.name(to))
            });
            self.kept.push((keep, datagram.clone()));
        }
        if keep != Some(Keep::Hold) {
            self.travel(datagram);
        }
    }

    fn travel(&mut self, datagram: Datagram) {
        if self.rng.chance(self.plan.duplicates) {
            self.arrive_later(datagram.clone());
        }
        self.arrive_later(datagram);
    }

    fn arrive_later(&mut self, datagram: Datagram) {
        let least = self.plan.delay_ns[datagram.from][datagram.to];
        let mut delay_ns = least + self.rng.below(self.plan.jitter_ns + 1);
        if self.rng.chance(self.plan.late) {
            delay_ns += self.rng.below(nanos(self.plan.timing.accept) * 3);
        }
        self.push(SimNs(self.now.0 + delay_ns), Event::Deliver(datagram));
    }

    /// Delivers what taps have kept on this link: removes what was held back, and
    /// keeps what was recorded for another replay. Returns how many datagrams
    /// there were.
    pub(super) fn send_kept(&mut self, keep: Keep, from: usize, to: usize) -> usize {
        let chosen = |kept: &(Keep, Datagram)| kept.0 == keep && (kept.1.from, kept.1.to) == (from, to);
        let datagrams: Vec<_> =
            self.kept.iter().filter(|kept| chosen(kept)).map(|kept| kept.1.clone()).collect();
        if keep == Keep::Hold {
            self.kept.retain(|kept| !chosen(kept));
        }
        let count = datagrams.len();
        for datagram in datagrams {
            self.note(|world| {
                let names = &world.plan.names;
                let said = datagram.said.as_ref().map(|packet| trace::packet(packet, names));
                let said = said.unwrap_or_else(|| "a handshake".to_owned());
                format!("{:<6} .. {:<6} sent on: {said}", world.name(from), world.name(to))
            });
            self.arrive_later(datagram);
        }
        count
    }

    /// A datagram has arrived. Without a transport, this drops what it would drop
    /// because of another configuration.
    pub(super) fn deliver(&mut self, datagram: Datagram) -> Result<(), Violation> {
        let Datagram { from, to, generation, is_later, said, bytes } = datagram;
        let is_mixed = self.mutant == Mutant::MixedLeases;
        let node = &self.nodes[to];
        let is_strange = node.generation.abs_diff(generation) > 1 || (node.is_later != is_later && !is_mixed);
        if bytes.is_none() && is_strange {
            self.note(|world| {
                format!("{:<6} <- {:<6} dropped: another configuration", world.name(to), world.name(from))
            });
            return Ok(());
        }
        self.post(to, Mail { from, said, bytes })
    }

    /// What the node at `index` is called.
    pub(super) fn name(&self, index: usize) -> String {
        self.plan.names.node(node_id(index))
    }
}
