//! The lease engine: which groups this node may answer for, and until when.
//!
//! Sans-IO: inputs and the time go in, outputs come out. Without a clock,
//! randomness, socket or map in here, the simulation runs exactly the code that
//! ships. A comment that says "rule N" means rule N of `docs/protocol.md`.
//!
//! Every node runs an acceptor per group, which votes. Every node that can hold
//! also asks for leases and hands them over ([`group`]). A lease counts from the
//! moment at which its attempt's first message was sent, lasts T_hold on the
//! holder's clock, and takes a majority of acceptors, each of which keeps it for
//! the longer T_accept.

mod by_group;
mod command;
mod config;
mod foresight;
mod group;
mod group_set;
mod io;
mod label;
mod message;
mod mutant;
mod node;
mod reload;
mod timers;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

use vip_common::BootNs;

pub use self::{
    by_group::ByGroup,
    command::{COMMANDS_MAX, VERDICTS_MAX},
    config::{
        COMMAND_TIMEOUT, CommandId, EPOCH_MARGIN, EngineConfig, Epoch, GROUPS_MAX, GroupId, GroupSpec,
        HEARD_MIN, Incarnation, MEMBERS_MAX, NodeId, NodeSet, NodeSpec, PRIORITY_DEFAULT, Pause, PeerLoss,
        RANK_SLOT_MIN, RESERVE_MIN, RETRY_MIN, Remembered, Role, STOP_GRACE, Timing, VOTERS_MAX,
    },
    io::{
        Command, Completed, Foreseen, GroupMove, GroupState, GroupStatus, Heir, Input, NodeStatus, Output,
        Reason, Refusal, Status, Transition,
    },
    label::{FORMERS_MAX, Label, LabelSpec, Labels},
    message::{
        About, AskId, Ballot, Claim, Message, PATHS_MAX, PAYLOAD_MAX, Packet, PathEnd, PathSeen, Paths,
        Refused, RequestId, StaleClient, Verdict,
    },
    reload::Reloaded,
    wire::DecodeError,
};

#[cfg(feature = "mutants")]
pub use self::mutant::{Mutant, choose};

#[cfg(not(feature = "mutants"))]
use self::mutant::Mutant;

use self::{
    command::Commands, group::Group, group_set::GroupSet, mutant::Broken, node::Node, node::Requester,
    timers::Timers,
};

/// Groups that one heartbeat message covers.
const HEARTBEAT_GROUPS: u16 = 2048;

/// The engine of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Engine {
    node: Node,
    groups: ByGroup<Group>,
    /// When each group's tick is due.
    timers: Timers,
    /// Groups about which something was heard since they were last judged.
    unjudged: GroupSet,
    commands: Commands,
    /// Is the startup delay over?
    started: bool,
    /// While the node is stopping: when it leaves at the latest.
    stop_at: Option<BootNs>,
}

impl Engine {
    /// An engine that starts at `now`, and keeps silent for T_accept (rule 5).
    ///
    /// `held` are the leases that a former incarnation on this host left in
    /// the map. They go on if the other acceptors still know of them. Those
    /// that have run out, or can't be ours, are cleared.
    ///
    /// # Panics
    /// If there are more than [`VOTERS_MAX`] voters or [`MEMBERS_MAX`] members,
    /// if `me` is none of them, if there are more than [`GROUPS_MAX`] groups,
    /// or if a pair is not two nodes that can hold.
    #[must_use]
    pub fn new(config: EngineConfig, held: &[(GroupId, BootNs)], now: BootNs) -> Self {
        Self::build(config, held, now, Broken::chosen())
    }

    /// [`Engine::new`], broken on purpose, for checks that must notice.
    ///
    /// # Panics
    /// As [`Engine::new`].
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn mutated(mutant: Mutant, config: EngineConfig, held: &[(GroupId, BootNs)], now: BootNs) -> Self {
        Self::build(config, held, now, Broken::by(mutant))
    }

    fn build(config: EngineConfig, held: &[(GroupId, BootNs)], now: BootNs, broken: Broken) -> Self {
        assert!(config.nodes.len() <= MEMBERS_MAX, "more than {MEMBERS_MAX} members");
        assert!(config.voters().len() <= VOTERS_MAX, "more than {VOTERS_MAX} voters");
        let is_pair = config.voters().len() == 2
            && config.voters().into_iter().all(|node| config.role(node) == Some(Role::Node));
        assert!(config.pair.is_none() || is_pair, "a pair is two nodes that can hold");
        assert!(config.role(config.me).is_some(), "this node is not in the configuration");
        assert!(config.groups.len() <= GROUPS_MAX, "more than {GROUPS_MAX} groups");
        let mut node = Node::new(config, now, broken);
        let mut groups: ByGroup<_> =
            node.config.group_ids().map(|id| Group::new(id, node.silent_until, &node)).collect();
        for &(id, expiry) in held {
            if let Some(group) = groups.get_mut(id) {
                group.adopt(expiry, &mut node);
            }
        }
        // Each group reports its first state with the first input.
        let count = groups.len();
        let timers = Timers::new(count, now);
        Self {
            node,
            groups,
            timers,
            unjudged: GroupSet::none_of(count),
            commands: Commands::default(),
            started: false,
            stop_at: None,
        }
    }

    /// Takes an input at `now`. Its consequences besides the answer, such as a
    /// candidacy, wait for the next [`Input::Wake`], which is then due at once.
    ///
    /// Read `now` *after* the input came in. An acceptor that counts from an
    /// earlier moment would forget a lease before its holder does.
    pub fn handle(&mut self, input: Input, now: BootNs) {
        let is_clock = matches!(input, Input::Clock);
        let input =
            if is_clock && self.node.broken.is(Mutant::TimersBeforeMail) { Input::Wake } else { input };
        let is_judged = matches!(input, Input::Wake);
        if is_judged {
            self.judge(now);
        } else {
            self.node.pass(now);
        }
        match input {
            Input::Clock => self.run_out(),
            Input::Wake => {}
            Input::Message { from, packet } => self.receive(from, packet),
            Input::Ceiling { ceiling } => self.node.ceiling_is(ceiling),
            Input::PeerStarted { peer } => self.node.forget_ready(peer),
            Input::Eligible { group, eligible } => self.set_eligible(group, eligible, false),
            Input::Unwell { group } => self.set_eligible(group, false, true),
            Input::Mute { group, on } => self.on_group(group, |group, node| group.set_mute(on, node)),
            Input::Prepares { group, on } => self.on_group(group, |group, _| group.prepares = on),
            Input::Serving { group } => self.on_group(group, |group, _| group.preparing = false),
            Input::PromoteFailed { group } => self.on_group(group, Group::promote_failed),
            Input::Stale { group, client } => {
                self.on_group(group, |group, node| group.tell_holder(About::Stale { client }, node));
            }
            Input::Unheard { vips } => {
                for (group, vip) in vips {
                    self.on_group(group, |group, node| group.tell_holder(About::Unheard { vip }, node));
                }
            }
            Input::Command { id, command } => self.command(id, command),
            Input::Stop => self.stop(),
        }
        self.settle(is_judged);
    }

    /// [`Input::Wake`]: judges what follows from silence.
    fn judge(&mut self, now: BootNs) {
        let became_alone = self.node.advance(now);
        self.advance();
        if became_alone {
            self.touch_all();
        }
    }

    /// The next thing to do; the caller does it before asking again.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.node.outputs.pop_front()
    }

    /// When [`Input::Wake`] is due at the latest; the time of the last input if
    /// it is due at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<BootNs> {
        let group = self.timers.first();
        let node = &self.node;
        let silence = node.silent.then_some(node.silent_until);
        let start = (!self.started).then_some(node.starts_at);
        let (heartbeat, commands) = (Some(node.heartbeat_at), self.commands.next_deadline());
        let unjudged = (!self.unjudged.is_empty()).then_some(node.now);
        let leaving = node.leaving.map(|leaving| leaving.until);
        [group, silence, start, node.alone_deadline(), heartbeat, commands, unjudged, leaving, self.stop_at]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(node.now))
    }

    /// What is known at `now`.
    #[must_use]
    pub fn status(&self, now: BootNs) -> Status {
        let now = now.max(self.node.now);
        let node = &self.node;
        let nodes = (0..=u8::MAX).map(NodeId).zip(&node.config.nodes).map(|(id, spec)| NodeStatus {
            role: spec.role,
            last_heard: node.last_heard(id, now),
            present: node.present(id, now),
            standby: node.on_standby(id),
            differs: node.differs(id),
        });
        let present = node.present_voters(now);
        let majority = node.config.majority();
        let groups = self.groups.iter().map(|group| {
            let mut ready: Vec<_> = node.ready_peers(group.id, now).collect();
            if group.ready(node) {
                ready.push(node.me());
                ready.sort_unstable();
            }
            GroupStatus {
                state: group.state(node, now),
                holder: group.holder(node, now),
                epoch: group.epoch(),
                expiry: group.lease.map(|lease| lease.until).filter(|&until| until > now),
                forced: group.lease.is_some() && group.forced.is_some(),
                ready,
                heir: self.heir(group, present, majority, now),
            }
        });
        Status {
            quorate: node.quorate_at(now),
            silent: node.silent,
            paused: node.pause.on,
            alone: node.alone,
            grants_left: node.grants_left(),
            nodes: nodes.collect(),
            groups: groups.collect(),
        }
    }

    /// Of the renewals that are due at `now` and have not begun, how late the
    /// latest one is; `None` if none is due.
    #[must_use]
    pub fn lateness(&self, now: BootNs) -> Option<Duration> {
        if self.timers.first().is_none_or(|at| at > now) {
            return None;
        }
        let due = self.groups.iter().filter_map(|group| group.renewal_due());
        due.filter(|at| *at <= now).min().map(|at| now.since(at))
    }

    /// All other nodes.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.node.config.peers().into_iter()
    }

    /// How late a renewal may begin and still leave the lease a chance: T_hold -
    /// r.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.node.timing.hold.saturating_sub(self.node.timing.renew)
    }

    /// T_accept: how long a vote for a holder counts.
    #[must_use]
    pub const fn accept(&self) -> Duration {
        self.node.timing.accept
    }

    /// Forgets the delays between candidates, when the next heartbeat is due, and
    /// what was last reported.
    ///
    /// For the model check: engines that differ in nothing else become equal. No
    /// vote and no lease depends on any of it. Slots and back-offs only keep
    /// candidates from disturbing each other: without them a candidate may stand
    /// at every moment at which it might have stood with them, and at others too.
    pub fn forget_courtesies(&mut self) {
        self.node.heartbeat_at = self.node.now.plus(self.node.timing.heartbeat);
        for group in &mut self.groups {
            group.forget_courtesies(&self.node);
            self.timers.set(group.id, group.next_deadline(&self.node));
        }
    }

    /// T_hold: the longest lease that this engine stores.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.node.timing.hold
    }

    fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    fn set_eligible(&mut self, id: GroupId, eligible: bool, clings: bool) {
        self.on_group(id, |group, node| group.set_eligible(eligible, clings, node));
    }

    fn on_group(&mut self, id: GroupId, does: impl FnOnce(&mut Group, &mut Node)) {
        if let Some(group) = self.groups.get_mut(id) {
            group.run_out_own(&mut self.node);
            does(group, &mut self.node);
            self.note(id);
        }
    }

    /// Does everything whose time has come.
    fn advance(&mut self) {
        let now = self.node.now;
        if self.node.silent && self.node.silent_until <= now {
            self.node.silent = false;
            self.touch_all();
        }
        if !self.started && self.node.starts_at <= now {
            self.started = true;
            self.touch_all();
        }
        // Each group once: what comes due by its own tick waits for the next wake-up, so
        // that one input always takes a bounded time.
        let unjudged = self.unjudged.take();
        for id in self.timers.due(now) {
            if unjudged.binary_search(&id).is_err() {
                self.touch(id);
            }
        }
        for id in unjudged {
            self.touch(id);
        }
        self.renew_together();
    }

    /// [`Input::Clock`]: handles this node's own leases, and nothing else.
    fn run_out(&mut self) {
        for id in self.timers.due(self.node.now) {
            let Some(group) = self.groups.get_mut(id) else { continue };
            group.run_out_own(&mut self.node);
            group.drive_renewal(&mut self.node);
            group.report(&mut self.node);
            let next = group.next_deadline(&self.node);
            self.timers.set(id, next);
        }
        self.renew_together();
    }

    /// Something was heard about a group: the engine judges it when everything
    /// that has arrived is read.
    fn note(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(id) {
            group.report(&mut self.node);
            self.unjudged.insert(id);
        }
    }

    fn note_all(&mut self) {
        for id in self.node.config.group_ids() {
            self.note(id);
        }
    }

    /// Begins renewals that are due soon together with those that were due
    /// now, so that all groups to one peer share a datagram (rule 6).
    fn renew_together(&mut self) {
        if !std::mem::take(&mut self.node.renewing) {
            return;
        }
        let (now, soon) = (self.node.now, self.node.now.plus(self.node.timing.renew / 2));
        let waiting = |group: &&Group| {
            group.attempt.is_none()
                && group.lease.is_some_and(|lease| lease.renew_at > now && lease.renew_at <= soon)
        };
        for id in self.groups.iter().filter(waiting).map(|group| group.id).collect::<Vec<_>>() {
            if let Some(lease) = self.groups.get_mut(id).and_then(|group| group.lease.as_mut()) {
                lease.renew_at = now;
            }
            self.touch(id);
        }
        self.node.renewing = false;
    }

    /// Lets a group do what is due, then notes when it is due next and what changed.
    fn touch(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.recount(&mut self.node);
        group.tick(&mut self.node);
        group.report(&mut self.node);
        let next = group.next_deadline(&self.node);
        self.timers.set(id, next);
    }

    fn touch_all(&mut self) {
        for id in self.node.config.group_ids() {
            self.touch(id);
        }
    }

    fn receive(&mut self, from: NodeId, packet: Packet) {
        if from == self.node.me() || self.node.config.role(from).is_none() {
            return;
        }
        let quorum_is_back = self.node.hear(from);
        for message in packet.messages {
            match message {
                Message::Heartbeat { first, ready } => self.node.hear_ready(from, first, &ready),
                Message::Node { standby, pause, highest } => {
                    if self.node.hear_node(from, standby, pause, highest) {
                        self.on_pause();
                    }
                }
                Message::Request { request, epoch, command } => {
                    self.serve(Requester { origin: from, request }, epoch, command);
                }
                Message::Verdict { request, verdict } => self.on_verdict(request, verdict),
                Message::Paths(_) => {}
                Message::Group { group: id, about } => {
                    if let Some(group) = self.groups.get_mut(id)
                        && group.waits_for(&about, &self.node)
                    {
                        group.run_out_own(&mut self.node);
                        group.receive(from, about, &mut self.node);
                        self.note(id);
                    }
                }
            }
        }
        if quorum_is_back {
            self.note_all();
        }
    }

    /// The cluster's pause has begun or ended.
    fn on_pause(&mut self) {
        for group in &mut self.groups {
            group.leave_if_ineligible(&mut self.node);
        }
        self.note_all();
    }

    fn stop(&mut self) {
        if self.node.stopping {
            return;
        }
        self.node.stopping = true;
        self.stop_at = Some(self.node.now.plus(STOP_GRACE));
        self.node.heartbeat_at = self.node.now;
        for group in &mut self.groups {
            if group.lease.is_some() && !self.node.broken.is(Mutant::StopKeeps) {
                let successor = self.node.best_peer(group.id);
                group.release(successor, Reason::Stopping, &mut self.node);
            } else {
                group.attempt = None;
                group.clean_up(&mut self.node);
            }
        }
        self.note_all();
    }

    /// The end of every input: what follows for the node as a whole.
    fn settle(&mut self, is_judged: bool) {
        let now = self.node.now;
        if is_judged {
            self.drive_leaving();
        }
        self.take_wishes();
        self.drive_commands(is_judged);
        if is_judged {
            for id in self.unjudged.take() {
                self.touch(id);
            }
        }
        // A heartbeat that is due soon goes now, in the same datagram.
        let soon = if self.node.says_something() { self.node.timing.heartbeat / 2 } else { Duration::ZERO };
        if self.node.heartbeat_at <= now.plus(soon) {
            self.node.heartbeat_at = now.plus(self.node.timing.heartbeat);
            self.heartbeat();
        }
        self.node.renewal_round = None;
        self.node.flush();
        if let Some(at) = self.stop_at
            && (at <= now || self.groups.iter().all(|group| group.given_up(&self.node)))
        {
            self.stop_at = None;
            self.node.outputs.push_back(Output::Stopped);
        }
    }

    fn heartbeat(&mut self) {
        let node = &mut self.node;
        let (standby, pause, highest) = (node.standby, node.pause, node.highest());
        node.send_all(&Message::Node { standby, pause, highest });
        let mut first = 0u16;
        loop {
            let rest = self.groups.iter().skip(usize::from(first)).take(usize::from(HEARTBEAT_GROUPS));
            let ready: Vec<_> = rest.map(|group| group.ready(node)).collect();
            let last = ready.len() < usize::from(HEARTBEAT_GROUPS);
            node.send_all(&Message::Heartbeat { first: GroupId(first), ready });
            if last {
                return;
            }
            first += HEARTBEAT_GROUPS;
        }
    }
}
