//! What the lease loop does with its inputs, and in which order: between the
//! datagrams, the engine, the gates and the map. Sans-IO: it asks an [`Io`] for
//! the time and acts on the world through it alone, so that the simulation runs
//! this same code.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use vip_common::{BootNs, Lease};
use vip_engine::{
    ByGroup, CommandId, Completed, Engine, Epoch, GroupId, Input, Labels, Message, NodeId, Output, Packet,
    PathEnd, PathSeen, Paths, Refusal, StaleClient,
};

use crate::{
    departures::Departures,
    gate::Gates,
    lateness::Lateness,
    messages::{Counts, HookAsk, LeaseNotice, Snapshot},
    moves::Move,
    mutant::{self, Mutant},
    transport::{Received, Rejected, Transport},
};

/// After this many turns the loop judges what follows from silence, however much
/// is left unread: a flood of this socket must not keep a node from standing.
const UNREAD_TURNS_MAX: u32 = 16;
/// How often at most the loop tells the keeper of the same trouble: anybody who
/// can send frames or datagrams here could otherwise fill its queue, or the log.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Troubles that the loop reports only now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// The transport rejects datagrams in this node's name; `None`: from an
    /// address that is no peer's.
    Rejected(Option<NodeId>),
    /// Another node claims a VIP of this group.
    Claim(GroupId),
    /// Renewals begin late.
    Late,
}

/// The world around the core. Each method has done its work when it returns, in
/// the order of the calls: a word is in the map before a datagram leaves that
/// follows from it (rule 7).
pub trait Io {
    /// Where the answer to a command goes.
    type Reply;

    /// The time, by the clock that leases are counted by.
    fn now(&self) -> BootNs;

    /// Puts a group's word into the map.
    fn store(&mut self, group: GroupId, lease: Lease);

    /// For observers such as tests: a packet is about to leave in the datagrams
    /// that come next.
    fn says(&mut self, _to: NodeId, _packet: &Packet) {}

    /// Sends a datagram, by the next [`Io::flush`] at the latest.
    fn send(&mut self, to: NodeId, datagram: Vec<u8>);

    /// Sends everything that is still queued.
    fn flush(&mut self);

    /// Tells the network that a group has come here.
    fn takeover(&mut self, group: GroupId);

    /// Tells the network again of all groups that are here.
    fn announce_all(&mut self);

    /// Tells a client where a VIP is that this node holds.
    fn correct(&mut self, client: StaleClient);

    /// A peer has said where answers arrive.
    fn paths(&mut self, _from: NodeId, _paths: &Paths) {}

    /// A peer hears nobody answer for a VIP that this node holds.
    fn unheard(&mut self, _by: NodeId, _vip: IpAddr) {}

    /// Tells the keeper of something.
    fn tell(&mut self, notice: LeaseNotice);

    /// Asks something of the thread that runs hooks.
    fn hook(&mut self, ask: HookAsk);

    /// Answers a command.
    fn reply(&mut self, reply: Self::Reply, outcome: Result<Completed, Refusal>);
}

/// The state of the lease loop. See the module.
pub struct Core<I: Io> {
    /// Decides about leases.
    pub engine: Engine,
    /// The names of groups between nodes.
    pub labels: Labels,
    /// The groups whose leases may not have all of their VIPs yet.
    pub uncovered: Vec<GroupId>,
    /// Those of them of which this node would answer none of the VIPs.
    pub mute: BTreeSet<GroupId>,
    /// Seals and opens.
    pub transport: Transport,
    /// Holds back new leases from the map until their `pre_promote` has
    /// succeeded.
    pub gates: Gates,
    /// This node.
    pub me: NodeId,
    /// The world.
    pub io: I,
    /// The loop's counters.
    counts: Counts,
    waiting: Vec<(CommandId, I::Reply)>,
    next_command: u64,
    pub(super) stopped: bool,
    /// Planned moves that wait for hooks.
    pub(super) departures: Departures<Move<I::Reply>>,
    /// Planned moves that no longer wait, to be done after the current input.
    pub(super) freed: Vec<Move<I::Reply>>,
    troubles: BTreeMap<Trouble, BootNs>,
    /// When each peer was last heard.
    heard: BTreeMap<NodeId, BootNs>,
    lateness: Lateness,
    /// Turns in a row that have left something unread.
    unread_turns: u32,
}

/// The parts of a new [`Core`].
pub struct Parts {
    /// See [`Core::engine`].
    pub engine: Engine,
    /// See [`Core::labels`].
    pub labels: Labels,
    /// See [`Core::uncovered`].
    pub uncovered: Vec<GroupId>,
    /// See [`Core::mute`].
    pub mute: Vec<GroupId>,
    /// See [`Core::transport`].
    pub transport: Transport,
    /// See [`Core::gates`].
    pub gates: Gates,
    /// See [`Core::me`].
    pub me: NodeId,
}

impl<I: Io> Core<I> {
    /// A core that has only told its engine which groups have a `pre_promote`.
    #[must_use]
    pub fn new(parts: Parts, io: I) -> Self {
        let Parts { engine, labels, uncovered, mute, transport, gates, me } = parts;
        let mut core = Self {
            engine,
            labels,
            uncovered,
            mute: BTreeSet::new(),
            transport,
            gates,
            me,
            io,
            counts: Counts::default(),
            waiting: Vec::new(),
            next_command: 0,
            stopped: false,
            departures: Departures::default(),
            freed: Vec::new(),
            troubles: BTreeMap::new(),
            lateness: Lateness::default(),
            unread_turns: 0,
            heard: BTreeMap::new(),
        };
        core.prepare(&ByGroup::from_fn(core.gates.len(), |_| None));
        core.set_mute(mute);
        core
    }

    /// Has the core released everything, or been told to end?
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The loop's counters.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// When something is next due here; this may lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNs> {
        [self.engine.next_deadline(), self.transport.next_deadline(), self.moves_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// First this node's own leases: one that ran out while the process slept has
    /// run out, whatever waits in the socket. After this, receive what waits
    /// there, and then call [`Core::judge`].
    pub fn begin_turn(&mut self) {
        self.note_lateness();
        self.input(Input::Clock);
        self.transport.wake(self.io.now());
        self.transmit();
    }

    /// Mail before judgement: a node that was late itself would otherwise believe
    /// a peer gone whose renewal waits in the socket. `is_drained`: was all mail
    /// read?
    pub fn judge(&mut self, is_drained: bool) {
        self.unread_turns = if is_drained { 0 } else { self.unread_turns + 1 };
        let is_enough = self.unread_turns >= UNREAD_TURNS_MAX && !mutant::is(Mutant::JudgesWhenDrained);
        if is_drained || is_enough || mutant::is(Mutant::JudgesUnread) {
            self.unread_turns = 0;
            self.input(Input::Wake);
        }
        self.moves_due();
    }

    /// Takes what [`Transport::receive_from`] made of a datagram from `source`.
    pub fn receive(&mut self, received: Received, source: SocketAddr) {
        match received {
            Received::Payload { from, payload } => {
                let from = NodeId(from);
                match Packet::decode_from(&payload, from, &mut self.labels, self.io.now()) {
                    Ok(packet) => {
                        self.counts.received += 1;
                        self.message(from, packet);
                    }
                    Err(_) => self.counts.undecoded += 1,
                }
            }
            Received::Adopted { peer, fresh, generation, is_member, .. } => {
                let (node, restarted) = (NodeId(peer), !fresh);
                self.input(Input::PeerStarted { peer: node });
                // What was found of its interfaces was found of another process.
                self.io.paths(node, &Paths::default());
                self.io.tell(LeaseNotice::Connected { node, restarted, generation, is_member });
            }
            Received::Handshake => {}
            Received::Rejected { reason, from } => {
                let from = from.map(NodeId);
                if self.is_due(Trouble::Rejected(from)) {
                    self.io.tell(LeaseNotice::Rejected { reason, from, source });
                }
            }
        }
        self.transmit();
    }

    /// Takes a packet that the transport has authenticated as that peer's.
    pub fn message(&mut self, from: NodeId, mut packet: Packet) {
        self.note_heard(from);
        for message in &packet.messages {
            if let Message::Paths(paths) = message {
                self.io.paths(from, paths);
            }
        }
        self.keep_requests_back(from, &mut packet);
        self.input(Input::Message { from, packet });
    }

    /// A peer that was silent for longer than a lease is heard again: who was cut off with
    /// it has missed what this node announced meanwhile.
    fn note_heard(&mut self, from: NodeId) {
        let now = self.io.now();
        let last = self.heard.insert(from, now);
        if last.is_none_or(|last| now.since(last) > self.engine.accept()) && !mutant::is(Mutant::HealsUntold)
        {
            self.io.announce_all();
        }
    }

    /// Has VIPs that were added to a group answered as soon as its lease covers
    /// them.
    pub fn look_at_uncovered(&mut self) {
        if self.uncovered.is_empty() {
            return;
        }
        let now = self.io.now();
        self.labels.advance(now);
        // Also for a lease whose word the gate holds back.
        let is_covered = |group: &GroupId| self.labels.covered(*group, self.gates.until(*group), now);
        let (covered, uncovered): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.uncovered).into_iter().partition(is_covered);
        self.uncovered = uncovered;
        for group in covered {
            if self.mute.remove(&group) {
                self.input(Input::Mute { group, on: false });
            }
            if let Some((_, label)) = self.labels.asked(group) {
                self.io.tell(LeaseNotice::Covered { label });
            }
        }
    }

    /// Has this node take no lease of these groups until their VIPs are covered.
    pub(super) fn set_mute(&mut self, groups: Vec<GroupId>) {
        for group in &groups {
            self.input(Input::Mute { group: *group, on: true });
        }
        self.mute = groups.into_iter().collect();
    }

    /// Another node claims a VIP of this group. The announcer answers each claim;
    /// this tells people of it now and then.
    pub fn claimed(&mut self, group: GroupId, notice: LeaseNotice) {
        if self.is_due(Trouble::Claim(group)) {
            self.io.tell(notice);
        }
    }

    /// A client sends packets for a VIP of this group to this node, which may not answer.
    pub fn stale(&mut self, group: GroupId, client: StaleClient) {
        self.input(Input::Stale { group, client });
    }

    /// Nobody on this node's segment answers for these VIPs, each with its group.
    pub fn unheard(&mut self, vips: Vec<(GroupId, IpAddr)>) {
        self.input(Input::Unheard { vips });
    }

    /// Tells every peer which interfaces of this node to ask, and what this node has found
    /// about the peer's.
    pub fn say_paths(&mut self, ends: &[PathEnd], mut seen: BTreeMap<NodeId, Vec<PathSeen>>) {
        for to in self.engine.peers() {
            let paths = Paths { ends: ends.to_vec(), seen: seen.remove(&to).unwrap_or_default() };
            self.send(to, &Packet { messages: vec![Message::Paths(paths)] });
        }
        self.io.flush();
    }

    /// What the core knows at this moment; the caller adds what the socket
    /// counted.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.io.now();
        let rejected = |reason: &Rejected| {
            let count = self.transport.counters().rejected(*reason);
            (count > 0).then_some((reason.label(), count))
        };
        let mut rejected: Vec<_> = Rejected::ALL.iter().filter_map(rejected).collect();
        rejected.extend((self.counts.undecoded > 0).then_some(("undecoded", self.counts.undecoded)));
        Snapshot {
            table: self.labels.table(),
            differing: self.labels.differing(),
            mute: self.mute.clone(),
            engine: self.engine.status(now),
            now,
            counts: self.counts,
            rejected,
            lateness: self.lateness.clone(),
            promoting: self.gates.promoting(),
            barred: self.gates.barred().clone(),
        }
    }

    /// This ceiling is on disk now.
    pub fn ceiling(&mut self, ceiling: Epoch) {
        self.input(Input::Ceiling { ceiling });
    }

    /// Reports late renewals: a busy host makes them late before it costs a
    /// lease.
    fn note_lateness(&mut self) {
        let Some(by) = self.engine.lateness(self.io.now()) else { return };
        let margin = self.engine.margin();
        if self.lateness.note(by, margin) && self.is_due(Trouble::Late) {
            self.io.tell(LeaseNotice::Late { by, margin });
        }
    }

    /// Gives the engine an input, and does all of its outputs before anything
    /// else.
    pub(super) fn input(&mut self, input: Input) {
        let now = self.io.now();
        self.engine.handle(input, now);
        self.outputs(now);
    }

    pub(super) fn outputs(&mut self, now: BootNs) {
        if mutant::is(Mutant::SendsFirst) {
            let mut outputs: Vec<_> = std::iter::from_fn(|| self.engine.poll_output()).collect();
            outputs.sort_by_key(|output| !matches!(output, Output::Send { .. }));
            outputs.into_iter().for_each(|output| self.output(output, now));
        }
        while let Some(output) = self.engine.poll_output() {
            self.output(output, now);
        }
        self.io.flush();
        let freed = std::mem::take(&mut self.freed);
        self.go_ahead(freed);
    }

    /// Does one output; `now` is when the engine was given the input.
    fn output(&mut self, output: Output, now: BootNs) {
        match output {
            Output::StoreLease { group, lease } => self.word(group, lease, now),
            Output::Send { to, packet } => self.send(to, &packet),
            Output::Announce { group } => self.takeover(group),
            Output::Changed(transition) => self.changed(transition, now),
            Output::RaiseCeiling { ceiling } => self.io.tell(LeaseNotice::RaiseCeiling(ceiling)),
            Output::Remember { standby, pause } => self.io.tell(LeaseNotice::Remember { standby, pause }),
            Output::Done { id, outcome } => {
                if let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
                    let (_, reply) = self.waiting.swap_remove(place);
                    self.io.reply(reply, outcome);
                }
            }
            Output::Correct { client } => self.io.correct(client),
            Output::Unheard { vip, by } => self.io.unheard(by, vip),
            Output::Stopped => self.stopped = true,
        }
    }

    /// Sends a packet together with the others of the same input, in the order of
    /// the engine's outputs: a word that came before is in the map.
    fn send(&mut self, to: NodeId, packet: &Packet) {
        self.io.says(to, packet);
        for payload in packet.encode_for(to, &mut self.labels, self.io.now()) {
            match self.transport.seal(to.0, &payload) {
                Ok(datagram) => self.io.send(to, datagram),
                Err(_) => self.counts.unsent += 1,
            }
        }
    }

    fn transmit(&mut self) {
        while let Some((to, datagram)) = self.transport.poll_transmit() {
            self.io.send(NodeId(to), datagram);
        }
        self.io.flush();
    }

    /// Gives a command a number and hands it to the engine.
    pub(super) fn number(&mut self, reply: I::Reply) -> CommandId {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.waiting.push((id, reply));
        id
    }

    /// Forgets which troubles were reported, because groups have new numbers.
    pub(super) fn forget_troubles(&mut self) {
        self.troubles.clear();
    }

    /// True if this trouble has not been reported for a while: then report it
    /// now.
    fn is_due(&mut self, trouble: Trouble) -> bool {
        let now = self.io.now();
        let is_due = self.troubles.get(&trouble).is_none_or(|told| now.since(*told) >= TROUBLE_PAUSE);
        if is_due {
            self.troubles.insert(trouble, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests;
