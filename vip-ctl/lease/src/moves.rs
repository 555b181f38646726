//! Where hooks meet the lease loop: leases that wait for `pre_promote`, planned
//! moves that wait for `pre_demote`. The gates and departures decide; nothing
//! here blocks for a hook. All changes are reported from here, because only here
//! are they in order.

use std::time::Duration;

use vip_common::{BootNs, Lease};
use vip_engine::{
    ByGroup, Command, CommandId, Epoch, Foreseen, GroupId, GroupMove, GroupState, Input, Label, Message,
    NodeId, Packet, Refusal, Transition,
};

use crate::{
    gate::{GateRule, Promotion, Ticket},
    loop_core::{Core, Io},
    messages::{Eligible, Hook, HookAsk, HookOrder, LeaseNotice, Turned},
    mutant::{self, Mutant},
};

/// A planned move that the loop holds back.
pub(super) enum Move<R> {
    /// A command given at this node.
    Command(Command, R),
    /// A request from another node.
    Request { from: NodeId, message: Message },
    /// The agent is to stop.
    Stop,
}

impl<I: Io> Core<I> {
    /// The engine wants a word in the map.
    pub(super) fn word(&mut self, group: GroupId, lease: Lease, now: BootNs) {
        let step = self.gates.word(group, lease, now);
        if let Some(lease) = step.store {
            self.io.store(group, lease);
        }
        self.cancel(step.cancel);
    }

    /// A group has come here: announces it once its fence is open.
    pub(super) fn takeover(&mut self, group: GroupId) {
        if !self.gates.is_promoting(group) {
            self.io.takeover(group);
        }
    }

    /// Announces a group again, if it is here: it has new VIPs.
    pub fn announce_again(&mut self, label: Label) {
        let now = self.io.now();
        if let Some(group) = self.labels.find(label)
            && self.gates.until(group).is_some_and(|until| until > now)
        {
            self.io.takeover(group);
        }
    }

    /// State or holder has changed.
    pub(super) fn changed(&mut self, transition: Transition, now: BootNs) {
        let told = self.gates.changed(&transition, now);
        self.cancel(told.cancel);
        if transition.state != GroupState::Active {
            let (free, late) = self.departures.lost(transition.group);
            self.freed.extend(free);
            self.forget(late);
        }
        self.tell_change(transition, told.promoting, told.gap, told.begin);
    }

    /// Tells people of a change, and the hooks' thread; `pre_promote` is the
    /// ticket of that hook, if it has to run now.
    fn tell_change(
        &mut self,
        transition: Transition,
        promoting: bool,
        gap: Option<Duration>,
        pre_promote: Option<Ticket>,
    ) {
        let Transition { group, state, epoch, reason, holder } = transition;
        let grant = (state == GroupState::Active).then(|| self.gates.grant(group));
        let group = self.gates.name(group);
        let turned = Turned { group, state, grant, promoting, pre_promote, epoch, reason, holder };
        self.io.hook(HookAsk::Turned(turned));
        self.io.tell(LeaseNotice::Changed { transition, promoting, gap });
    }

    fn cancel(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.io.hook(HookAsk::Cancel(ticket));
        }
    }

    /// Forgets runs that nobody waits for any more and that have not begun.
    fn forget(&mut self, late: impl IntoIterator<Item = Ticket>) {
        for ticket in late {
            self.io.hook(HookAsk::Forget(ticket));
        }
    }

    /// A hook that the loop waited for has ended.
    pub fn hook_ended(&mut self, hook: Hook, ticket: Ticket, well: bool) {
        let now = self.io.now();
        if hook == Hook::PreDemote {
            let free = self.departures.ended(ticket, now);
            self.go_ahead(free);
            return;
        }
        match self.gates.ended(ticket, well, now) {
            Promotion::Stale => {}
            Promotion::Open { group, lease, epoch, reason, gap } => {
                self.io.store(group, lease);
                self.io.takeover(group);
                let (state, holder) = (GroupState::Active, Some(self.me));
                let transition = Transition { group, state, epoch, reason, holder };
                self.tell_change(transition, false, gap, None);
                self.input(Input::Serving { group });
            }
            Promotion::Release(group) => self.input(Input::PromoteFailed { group }),
        }
    }

    /// Takes the judge's verdict on a group, unless this node stays away from it.
    pub fn eligible(&mut self, group: GroupId, word: Eligible) {
        let word = match self.gates.eligible(group, word) {
            Eligible::Yes => Input::Eligible { group, eligible: true },
            Eligible::No => Input::Eligible { group, eligible: false },
            Eligible::Unwell => Input::Unwell { group },
        };
        self.input(word);
    }

    /// Does what is due: groups that this node need no longer stay away from, and
    /// moves that have waited long enough.
    pub(super) fn moves_due(&mut self) {
        let now = self.io.now();
        for (group, word) in self.gates.unbarred(now) {
            self.eligible(group, word);
        }
        let over = self.departures.overdue(now);
        self.go_ahead(over.free);
        self.forget(over.late);
        for group in over.stayed {
            // `pre_demote` told its service to get ready to leave, and the group stays.
            if self.gates.is_open(group, now) {
                self.order_for(group, Hook::PostPromote, None, "not_moved");
            }
        }
    }

    /// When [`Core::moves_due`] next has something to do.
    pub(super) fn moves_deadline(&self) -> Option<BootNs> {
        [self.gates.next_deadline(), self.departures.next_deadline()].into_iter().flatten().min()
    }

    fn order_for(&mut self, group: GroupId, hook: Hook, ticket: Option<Ticket>, reason: &str) {
        let order = HookOrder {
            group: self.gates.name(group),
            hook,
            ticket,
            state: "active".into(),
            grant: self.gates.grant(group),
            epoch: self.gates.epoch(group).0,
            reason: reason.into(),
            holder: Some(self.me),
        };
        self.io.hook(HookAsk::Run(order));
    }

    /// Does a command that was given at this node, or holds it back. It names
    /// groups by their numbers in `table`; if the loop has another table by now,
    /// the answer is "busy".
    pub fn command(&mut self, command: Command, table: u64, reply: I::Reply) {
        if table != self.labels.table() && !mutant::is(Mutant::OtherTable) {
            self.io.reply(reply, Err(Refusal::Busy));
            return;
        }
        self.io.tell(LeaseNotice::Asked { command, at: self.me });
        let waits_for = self.waits_for(command, None);
        if waits_for.is_empty() {
            let id = self.command_now(command, reply);
            // The holder may be another node, whose hooks are most likely the same.
            let is_move = matches!(
                command,
                Command::Promote { .. }
                    | Command::Demote { .. }
                    | Command::Switchover { .. }
                    | Command::Standby { on: true, .. }
            );
            if is_move {
                self.engine.wait_longer(id, self.gates.pre_demote_max(command.group()));
            }
        } else {
            self.departures.keep(Move::Command(command, reply), &waits_for);
        }
    }

    /// What a command would do, without doing it. It names groups by their
    /// numbers in `table`.
    ///
    /// # Errors
    /// The refusal that the command would meet, as far as this node can tell.
    pub fn foresee(&self, command: Command, table: u64) -> Result<Foreseen, Refusal> {
        if table == self.labels.table() {
            self.engine.foresee(command, self.io.now())
        } else {
            Err(Refusal::Busy)
        }
    }

    fn command_now(&mut self, command: Command, reply: I::Reply) -> CommandId {
        let id = self.number(reply);
        self.input(Input::Command { id, command });
        id
    }

    /// Stops the agent: releases everything, after the hooks of a planned move.
    pub fn stop(&mut self) {
        if mutant::is(Mutant::StopsAtOnce) {
            return self.leave();
        }
        let now = self.io.now();
        let open = self.gates.open(now);
        let waits_for = self.begin_departures(open, "stopping");
        if waits_for.is_empty() {
            self.input(Input::Stop);
        } else {
            self.departures.keep(Move::Stop, &waits_for);
        }
    }

    /// Ends the agent at once and leaves the leases as they are: the next agent
    /// adopts them, or they run out.
    pub const fn leave(&mut self) {
        self.stopped = true;
    }

    /// Takes requests out of a packet that have to wait for hooks.
    pub(super) fn keep_requests_back(&mut self, from: NodeId, packet: &mut Packet) {
        if !packet.messages.iter().any(|message| matches!(message, Message::Request { .. })) {
            return;
        }
        for message in std::mem::take(&mut packet.messages) {
            if !self.keeps_back(from, &message) {
                packet.messages.push(message);
            }
        }
    }

    fn keeps_back(&mut self, from: NodeId, message: &Message) -> bool {
        let Message::Request { request, epoch, command } = message else { return false };
        // The sender repeats its request until it has an answer.
        let is_same = |kept: &Move<I::Reply>| matches!(kept, Move::Request { message: Message::Request { request: other, .. }, .. } if other == request);
        if self.departures.kept().any(is_same) {
            return true;
        }
        if !request.command.is_own() {
            self.io.tell(LeaseNotice::Asked { command: *command, at: from });
        }
        let waits_for = self.waits_for(*command, Some(*epoch));
        if !waits_for.is_empty() {
            self.departures.keep(Move::Request { from, message: message.clone() }, &waits_for);
        }
        !waits_for.is_empty()
    }

    /// The groups whose `pre_demote` a command has to wait for; begins those
    /// hooks.
    fn waits_for(&mut self, command: Command, epoch: Option<Epoch>) -> Vec<GroupId> {
        if !self.gates.any_pre_demote() || self.departures.is_full() {
            return Vec::new();
        }
        // A request names the grant that it is about, if it is about one.
        let epoch = epoch.filter(|_| command.group().is_some());
        let Ok(foreseen) = self.engine.foresee(command, self.io.now()) else { return Vec::new() };
        let leaves = foreseen.moves().filter(|moves| moves.from == Some(self.me));
        let is_meant = |moves: &&GroupMove| epoch.is_none_or(|epoch| epoch == moves.epoch);
        let leaves = leaves.filter(is_meant).map(|moves| moves.group).collect();
        self.begin_departures(leaves, "asked_for")
    }

    fn begin_departures(&mut self, mut groups: Vec<GroupId>, reason: &str) -> Vec<GroupId> {
        let now = self.io.now();
        groups.retain(|group| self.gates.pre_demote(*group).is_some() && self.gates.is_open(*group, now));
        let waits_for = self.departures.waiting(&groups);
        for &group in &waits_for {
            let Some(limit) = self.gates.pre_demote(group) else { continue };
            if !self.departures.is_running(group) {
                let ticket = self.gates.ticket();
                self.departures.begin(group, ticket, limit, now);
                self.order_for(group, Hook::PreDemote, Some(ticket), reason);
            }
        }
        waits_for
    }

    /// Tells the engine which groups have a `pre_promote`, where that differs
    /// from `before`, by their former numbers.
    pub(super) fn prepare(&mut self, before: &ByGroup<Option<bool>>) {
        for (group, before) in before.with_ids() {
            let on = self.gates.prepares(group);
            if on != before.unwrap_or(false) {
                self.input(Input::Prepares { group, on });
            }
        }
    }

    /// Gives the gates the new numbers of groups. Moves that wait still name the
    /// old ones: refuses the commands, and drops the requests. Returns whether
    /// the agent has to stop.
    pub(super) fn regroup_moves(&mut self, was: &ByGroup<Option<GroupId>>, rules: ByGroup<GateRule>) -> bool {
        self.gates.regroup(was, rules);
        let mut stops = false;
        for each in self.departures.drain() {
            match each {
                Move::Command(_, reply) => self.io.reply(reply, Err(Refusal::Busy)),
                // The sender repeats it.
                Move::Request { .. } => {}
                Move::Stop => stops = true,
            }
        }
        stops
    }

    /// Does moves that were held back.
    pub(super) fn go_ahead(&mut self, moves: Vec<Move<I::Reply>>) {
        for each in moves {
            match each {
                Move::Command(command, reply) => {
                    self.command_now(command, reply);
                }
                Move::Request { from, message } => {
                    self.input(Input::Message { from, packet: Packet { messages: vec![message] } });
                }
                Move::Stop => self.input(Input::Stop),
            }
        }
    }
}
