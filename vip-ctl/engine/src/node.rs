//! What all groups of a node share: configuration, the time of the current input,
//! what this node knows of its peers, and what waits to go out. Nothing here
//! decides about a lease.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use vip_common::BootNs;

use super::{
    by_group::ByGroup,
    config::{EngineConfig, Epoch, GroupId, NodeId, NodeSet, Pause, PeerLoss, Role, Timing},
    io::{Command, Output, Refusal},
    message::{About, AskId, Message, Packet, RequestId, Verdict},
    mutant::{Broken, Mutant},
};

/// Where a command's verdict goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Requester {
    pub origin: NodeId,
    pub request: RequestId,
}

/// A node that is to go on standby once others have what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    /// Who waits for the verdict.
    pub requester: Requester,
    /// If others do not have everything by then, the node stays.
    pub until: BootNs,
    /// Nobody can take one of its groups.
    pub failed: bool,
}

/// What this node knows of its peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    heard: Option<BootNs>,
    /// As it last said of itself.
    ready: ByGroup<bool>,
    /// The peer has other groups than this node, so that this node can't
    /// understand what it says of its own: the holder has to ask it whether it is
    /// ready.
    differs: bool,
    /// What it last said of itself and the cluster.
    standby: bool,
    pause: Pause,
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
    /// Until then the node does not stand by itself: the silence, or the
    /// startup delay where that is longer.
    pub starts_at: BootNs,
    pub stopping: bool,
    /// Put on standby by a person: holds nothing.
    pub standby: bool,
    /// To be on standby once others have what it holds.
    pub leaving: Option<Leaving>,
    /// No automatic moves while it is on.
    pub pause: Pause,
    /// [`Node::quorate_at`] now.
    pub quorate: bool,
    /// Pair mode: the other node has not been heard for T_accept.
    pub alone: bool,
    /// When it becomes so, unless this node hears the other.
    alone_at: BootNs,
    /// When this node first noticed that it should have heard the other.
    overdue_at: Option<BootNs>,
    /// The highest round that an attempt of this node has had, in any group.
    pub round: u64,
    /// The round of the renewals that begin by this input.
    pub renewal_round: Option<u64>,
    /// A renewal has begun, and others that are due soon may join it.
    pub renewing: bool,
    pub heartbeat_at: BootNs,
    pub outputs: VecDeque<Output>,
    /// Verdicts of this input, on their way to whoever asked.
    pub decided: VecDeque<(Requester, Verdict)>,
    /// What this node itself wants of the cluster.
    pub wishes: VecDeque<Command>,
    outbox: BTreeMap<NodeId, Vec<Message>>,
    peers: Vec<Peer>,
    asks: u64,
    /// This epoch is on disk: the node accepts no grant beyond it.
    ceiling: Epoch,
    /// The ceiling that this node has asked its disk for.
    ceiling_asked: Epoch,
    /// The highest epoch that this node may have accepted, in any group.
    highest: Epoch,
    pub broken: Broken,
}

impl Node {
    pub fn new(config: EngineConfig, now: BootNs, broken: Broken) -> Self {
        let mut timing = Timing::new(config.accept);
        if broken.is(Mutant::NoMargin) {
            timing.hold = timing.accept;
        }
        let mut silence = timing.accept.max(config.silence);
        if broken.is(Mutant::ShortSilence) {
            silence /= 2;
        }
        let peer = Peer {
            heard: None,
            ready: ByGroup::from_fn(config.groups.len(), |_| false),
            differs: false,
            standby: false,
            pause: Pause::default(),
        };
        let silent_until = now.plus(silence);
        let mut node = Self {
            timing,
            now,
            silent_until,
            silent: true,
            starts_at: silent_until.max(now.plus(config.startup_delay)),
            stopping: false,
            standby: config.remembered.standby,
            leaving: None,
            pause: config.remembered.pause,
            quorate: false,
            alone: false,
            alone_at: now.plus(timing.accept),
            overdue_at: None,
            round: 0,
            renewal_round: None,
            renewing: false,
            heartbeat_at: now,
            outputs: VecDeque::new(),
            decided: VecDeque::new(),
            wishes: VecDeque::new(),
            outbox: BTreeMap::new(),
            peers: vec![peer; config.nodes.len()],
            asks: 0,
            ceiling: config.remembered.ceiling,
            ceiling_asked: config.remembered.ceiling,
            highest: config.remembered.epochs.iter().copied().fold(config.remembered.floor, Epoch::max),
            broken,
            config,
        };
        node.advance(now);
        let highest = node.highest;
        node.see_epoch(highest);
        node
    }

    pub fn me(&self) -> NodeId {
        self.config.me
    }

    /// Has this node a vote?
    pub fn votes(&self) -> bool {
        self.config.votes(self.config.me)
    }

    /// This node's place among those that can hold `group`; `None` if it never
    /// stands.
    pub fn own_rank(&self, group: GroupId) -> Option<u32> {
        let rank = self.config.rank(group, self.config.me);
        rank.or_else(|| self.broken.is(Mutant::WitnessesStand).then_some(0))
    }

    /// A new input at `now`: concludes nothing about others from it.
    pub fn pass(&mut self, now: BootNs) {
        self.now = self.now.max(now);
    }

    /// A new input at `now`, after everything that has arrived was read. Returns
    /// whether this node is alone from now on.
    pub fn advance(&mut self, now: BootNs) -> bool {
        self.pass(now);
        let became_alone = self.look_whether_alone();
        self.quorate = self.quorate_at(self.now);
        became_alone
    }

    fn look_whether_alone(&mut self) -> bool {
        if self.config.pair.is_none() || self.alone || self.now < self.alone_at {
            return false;
        }
        // This process may have been stopped. Then what the other node said meanwhile
        // waits in the socket; this node reads that, and checks again a little later.
        let slot = self.timing.slot;
        match self.overdue_at {
            Some(at) if self.now < at.plus(slot) => {}
            Some(at) if self.now <= at.plus(self.timing.accept / 2) => self.alone = true,
            Some(_) | None => self.overdue_at = Some(self.now),
        }
        self.alone
    }

    /// When [`Node::advance`] has to check again whether this node is alone.
    pub fn alone_deadline(&self) -> Option<BootNs> {
        let look_at = self.overdue_at.map_or(self.alone_at, |at| at.plus(self.timing.slot));
        (self.config.pair.is_some() && !self.alone).then_some(look_at)
    }

    /// Takes note that `peer` was heard now. Returns whether that brought the
    /// quorum back.
    pub fn hear(&mut self, peer: NodeId) -> bool {
        if let Some(peer) = self.peers.get_mut(usize::from(peer.0)) {
            peer.heard = Some(self.now);
        }
        if self.config.pair.is_some() && self.config.votes(peer) {
            self.alone = false;
            self.alone_at = self.now.plus(self.timing.accept);
            self.overdue_at = None;
        }
        // Its loss is judged after everything is read.
        let is_back = !self.quorate && self.quorate_at(self.now);
        self.quorate |= is_back;
        is_back
    }

    /// Takes note of what `peer` said about itself, and of a newer word on the
    /// cluster's pause. Returns whether the pause has changed.
    pub fn hear_node(&mut self, peer: NodeId, standby: bool, pause: Pause, highest: Epoch) -> bool {
        if !self.broken.is(Mutant::CeilingsLag) {
            self.see_epoch(highest);
        }
        if let Some(peer) = self.peers.get_mut(usize::from(peer.0)) {
            peer.standby = standby;
            peer.pause = pause;
        }
        let is_newer = pause > self.pause || (self.broken.is(Mutant::OlderPauseWins) && pause != self.pause);
        if is_newer {
            self.set_pause(pause);
        }
        is_newer
    }

    /// Sets the pause, and has it sent to the peers and remembered.
    pub fn set_pause(&mut self, pause: Pause) {
        self.pause = pause;
        self.remember();
    }

    /// Sets standby, and has it sent to the peers and remembered.
    pub fn set_standby(&mut self, standby: bool) {
        self.standby = standby;
        self.remember();
    }

    fn remember(&mut self) {
        self.outputs.push_back(Output::Remember { standby: self.standby, pause: self.pause });
        self.heartbeat_soon();
    }

    /// Is `node` on standby, by what it last said?
    pub fn on_standby(&self, node: NodeId) -> bool {
        if node == self.config.me {
            return self.standby;
        }
        self.peer(node).is_some_and(|peer| peer.standby)
    }

    /// Has every voter that is present taken note of this pause?
    pub fn all_know(&self, pause: Pause) -> bool {
        let mut present = self.config.voting_peers().into_iter().filter(|&node| self.present(node, self.now));
        self.broken.is(Mutant::PauseUnconfirmed)
            || present.all(|node| self.peer(node).is_some_and(|peer| peer.pause >= pause))
    }

    /// How many votes make a lease, for a candidate (`stands`) or for its holder.
    /// Pair mode counts this node's own vote alone where it can't ask the other.
    /// A holder may always go on by its own vote, because the other node takes
    /// nothing without this one's vote while it hears this one (rule 13).
    pub fn votes_needed(&self, stands: bool) -> usize {
        match self.config.pair {
            None => self.config.majority(),
            Some(_) if !stands && !self.broken.is(Mutant::PairHolderAsks) => 1,
            Some(PeerLoss::Hold) if self.alone && self.broken.is(Mutant::PairHoldTakes) => 1,
            Some(PeerLoss::Take) if self.alone || self.broken.is(Mutant::PairTakesHearing) => 1,
            Some(PeerLoss::Take | PeerLoss::Hold) => self.config.majority(),
        }
    }

    /// Takes note of what `peer` said about its readiness; ignores it if the peer
    /// has other groups.
    pub fn hear_ready(&mut self, peer: NodeId, first: GroupId, ready: &[bool]) {
        let Some(peer) = self.peers.get_mut(usize::from(peer.0)) else { return };
        if first == GroupId(0) && !self.config.groups.is_empty() {
            peer.differs = ready.is_empty();
        }
        let known = peer.ready.iter_mut().skip(first.place());
        for (known, &said) in known.zip(ready) {
            *known = said;
        }
    }

    /// [`super::Input::PeerStarted`]: a process that has just started is ready for nothing.
    pub fn forget_ready(&mut self, peer: NodeId) {
        if let Some(peer) =
            self.peers.get_mut(usize::from(peer.0)).filter(|_| !self.broken.is(Mutant::TrustsTheDead))
        {
            peer.ready.iter_mut().for_each(|ready| *ready = false);
            peer.differs = false;
        }
    }

    /// Groups have new numbers: `was` has the former number of each, if it had
    /// one.
    pub fn renumber(&mut self, was: &ByGroup<Option<GroupId>>) {
        for peer in &mut self.peers {
            let ready =
                |was: &Option<GroupId>| was.and_then(|was| peer.ready.get(was)).copied().unwrap_or(false);
            peer.ready = was.iter().map(ready).collect();
        }
    }

    fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(usize::from(node.0))
    }

    /// When `node` was last heard; this node hears itself always.
    pub fn last_heard(&self, node: NodeId, now: BootNs) -> Option<BootNs> {
        if node == self.config.me {
            return Some(now);
        }
        self.peer(node).and_then(|peer| peer.heard)
    }

    fn heard_within(&self, node: NodeId, window: Duration, now: BootNs) -> bool {
        self.last_heard(node, now).is_some_and(|heard| now.since(heard) <= window)
    }

    /// Does `node` count for the quorum at `now`?
    pub fn present(&self, node: NodeId, now: BootNs) -> bool {
        self.heard_within(node, self.timing.heard, now)
    }

    /// Is a majority of the voters heard at `now`, this node included? In
    /// pair mode: may this node act, with the other's vote or without it?
    ///
    /// A node that hears no majority can't win one either: it keeps quiet, so
    /// that its ever higher ballots don't disturb nodes that can.
    pub fn quorate_at(&self, now: BootNs) -> bool {
        match self.config.pair {
            Some(PeerLoss::Take) => return true,
            Some(PeerLoss::Hold) => return !self.alone || self.broken.is(Mutant::PairHoldTakes),
            None => {}
        }
        self.present_voters(now).len() >= self.config.majority()
    }

    /// The voters that count for the quorum at `now`.
    pub fn present_voters(&self, now: BootNs) -> NodeSet {
        let mut present = NodeSet::default();
        let voters = self.config.voters().into_iter();
        voters.filter(|&voter| self.present(voter, now)).for_each(|voter| present.insert(voter));
        present
    }

    /// Peers that said they could take `group`, and were heard within T_accept
    /// (so not missing more than a few heartbeats).
    pub fn ready_peers(&self, group: GroupId, now: BootNs) -> impl Iterator<Item = NodeId> + '_ {
        self.config.peers().into_iter().filter(move |&node| {
            self.config.role(node) == Some(Role::Node)
                && self.heard_within(node, self.timing.accept, now)
                && self.peer(node).is_some_and(|peer| {
                    let is_ready = peer.ready.get(group).copied().unwrap_or(false);
                    (is_ready && !peer.differs) || self.broken.is(Mutant::AnyTarget)
                })
        })
    }

    /// Does `node` have other groups than this node, by what it last said?
    pub fn differs(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.differs)
    }

    /// Peers that can't announce that they are ready for a group, because they
    /// have other groups than this node.
    fn differing_peers(&self, now: BootNs) -> impl Iterator<Item = NodeId> + '_ {
        self.config.peers().into_iter().filter(move |&node| {
            self.config.role(node) == Some(Role::Node)
                && self.heard_within(node, self.timing.accept, now)
                && self.differs(node)
        })
    }

    /// The first of `nodes` by rank in `group`: highest priority, then lowest id.
    fn first(&self, group: GroupId, nodes: impl Iterator<Item = NodeId>, except: NodeSet) -> Option<NodeId> {
        nodes
            .filter(|&node| !except.contains(node))
            .min_by_key(|&node| (Reverse(self.config.priority(group, node)), node))
    }

    /// The best node that is ready for `group`, except for `except`; `me` is this
    /// node if it shall count too.
    pub fn best_ready(
        &self,
        group: GroupId,
        except: NodeSet,
        me: Option<NodeId>,
        now: BootNs,
    ) -> Option<NodeId> {
        self.first(group, self.ready_peers(group, now).chain(me), except)
    }

    /// The best node to ask whether it takes `group`: one that is ready, or else
    /// one with other groups, which can't announce that.
    pub fn best_target(
        &self,
        group: GroupId,
        except: NodeSet,
        me: Option<NodeId>,
        now: BootNs,
    ) -> Option<NodeId> {
        let differing = || self.first(group, self.differing_peers(now), except);
        if self.broken.is(Mutant::AsksDifferingFirst) {
            return differing().or_else(|| self.best_ready(group, except, me, now));
        }
        self.best_ready(group, except, me, now).or_else(differing)
    }

    /// The best peer that is ready for `group`.
    pub fn best_peer(&self, group: GroupId) -> Option<NodeId> {
        self.best_ready(group, NodeSet::default(), None, self.now)
    }

    /// Can `node` ever hold a group?
    ///
    /// # Errors
    /// Why not.
    pub fn can_hold(&self, node: NodeId) -> Result<(), Refusal> {
        match self.config.role(node) {
            None => Err(Refusal::NoSuchNode),
            Some(Role::Witness | Role::Observer | Role::Vacant) => Err(Refusal::TargetNeverHolds),
            Some(Role::Node) => Ok(()),
        }
    }

    /// Notes a verdict for the requester.
    pub fn decide(&mut self, requester: Option<Requester>, verdict: Verdict) {
        self.decided.extend(requester.map(|requester| (requester, verdict)));
    }

    /// How long this node's acceptors keep what they accept (rule 3).
    pub fn keep(&self) -> Duration {
        if self.broken.is(Mutant::ShortAcceptor) {
            return self.timing.hold / 2;
        }
        self.timing.accept
    }

    /// May this node accept a grant of this epoch? Only if its next incarnation
    /// will know that it may have, even if the host forgets all else.
    pub fn is_below_ceiling(&mut self, epoch: Epoch) -> bool {
        self.see_epoch(epoch);
        self.is_on_disk(epoch)
    }

    /// Is the epoch below the ceiling now? A pair promises nothing about epochs
    /// (rule 13), so it never waits.
    pub fn is_on_disk(&self, epoch: Epoch) -> bool {
        epoch <= self.ceiling || self.config.pair.is_some() || self.broken.is(Mutant::BeyondCeiling)
    }

    /// There is, or may have been, a grant of this epoch somewhere: asks for a
    /// higher ceiling in time for the next ones.
    fn see_epoch(&mut self, epoch: Epoch) {
        if self.ceiling == Epoch(u64::MAX) {
            return;
        }
        self.highest = self.highest.max(epoch);
        let margin = self.config.epoch_margin;
        if self.highest.0.saturating_add(margin / 2) > self.ceiling_asked.0 {
            self.ceiling_asked = Epoch(self.highest.0.saturating_add(margin));
            self.outputs.push_back(Output::RaiseCeiling { ceiling: self.ceiling_asked });
        }
    }

    /// How many epochs are left up to the ceiling.
    pub fn grants_left(&self) -> u64 {
        self.ceiling.0.saturating_sub(self.highest.0)
    }

    /// The highest epoch that this node may have accepted, in any group. Its
    /// peers learn it, so that their disks are ahead of the next grant.
    pub fn highest(&self) -> Epoch {
        self.highest
    }

    /// [`super::Input::Ceiling`].
    pub fn ceiling_is(&mut self, ceiling: Epoch) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    /// A number for a question, never used before.
    pub fn next_ask(&mut self) -> AskId {
        self.asks = self.asks.saturating_add(1);
        AskId(self.asks)
    }

    /// Makes the next heartbeat due soon, to tell of a change. Not at once, so
    /// that many changes together make one heartbeat.
    pub fn heartbeat_soon(&mut self) {
        self.heartbeat_at = self.heartbeat_at.min(self.now.plus(self.timing.slot));
    }

    /// Is anything queued for anybody?
    pub fn says_something(&self) -> bool {
        !self.outbox.is_empty()
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

    /// Queues a message about `group` for every peer that has a vote.
    pub fn tell_voters(&mut self, group: GroupId, about: About) {
        for to in self.config.voting_peers() {
            self.tell(to, group, about);
        }
    }

    /// Queues a message about `group` for every peer.
    pub fn tell_all(&mut self, group: GroupId, about: About) {
        self.send_all(&Message::Group { group, about });
    }

    /// Turns what is queued into a packet for each peer, with all groups. They
    /// come after all other outputs of this input, so that a map write is always
    /// done before the message that tells of it (rule 7).
    pub fn flush(&mut self) {
        for (to, messages) in std::mem::take(&mut self.outbox) {
            self.outputs.push_back(Output::Send { to, packet: Packet { messages } });
        }
        if self.broken.is(Mutant::ReleaseBeforeStore) {
            self.outputs.make_contiguous().sort_by_key(|output| !matches!(output, Output::Send { .. }));
        }
    }
}
