//! Commands: any node takes one, forwards it to the node that can do it, and
//! answers when it has seen the outcome itself. [`super::group`] has what the
//! holder does with a command.

use std::{collections::BTreeMap, time::Duration};

use vip_common::BootNs;

use super::{
    Engine,
    config::{COMMAND_TIMEOUT, CommandId, Epoch, GroupId, NodeId, Pause},
    group::{Group, Wish},
    io::{Command, Completed, Output, Refusal},
    message::{Message, RequestId, Verdict},
    mutant::Mutant,
    node::{Leaving, Requester},
};

/// The most commands that may be under way at one node; a node refuses more with
/// [`Refusal::Busy`].
pub const COMMANDS_MAX: usize = 64;
/// The most verdicts that a node remembers for repeated requests. It refuses
/// further requests with [`Refusal::Busy`] until it has forgotten old ones.
pub const VERDICTS_MAX: usize = 256;

/// How long a node remembers a verdict: longer than anybody repeats a request,
/// also one that waits for a hook ([`Engine::wait_longer`]).
const SERVED_MAX: Duration = COMMAND_TIMEOUT.saturating_mul(8);

/// A command given at this node, not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    command: Command,
    /// The grant that the command is about, once known. The command leaves later
    /// grants alone: a repeated request would otherwise move the group twice.
    bound: Option<(NodeId, Epoch)>,
    /// The verdict's successor, once there is a verdict.
    started: Option<Option<NodeId>>,
    resend: BootNs,
    until: BootNs,
}

/// What this node has made of a request; `verdict` is `None` while the request is
/// under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Served {
    verdict: Option<Verdict>,
    until: BootNs,
}

/// The commands of a node, its own and those forwarded to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Commands {
    pending: BTreeMap<CommandId, Pending>,
    served: BTreeMap<Requester, Served>,
    /// How many commands this engine has given itself.
    wishes: u64,
}

impl Commands {
    pub fn next_deadline(&self) -> Option<BootNs> {
        self.pending.values().map(|pending| pending.resend.min(pending.until)).min()
    }
}

impl Engine {
    /// A command has been given at this node.
    pub(super) fn command(&mut self, id: CommandId, command: Command) {
        let command = self.as_meant(command);
        if let Err(refusal) = self.check_command(id, command) {
            self.done(id, Err(refusal));
            return;
        }
        let now = self.node.now;
        let until = now.plus(COMMAND_TIMEOUT);
        if let Command::Pause { on } = command
            && self.node.pause.on != on
        {
            let version = self.node.pause.version.saturating_add(1);
            self.node.set_pause(Pause { version, on });
            self.on_pause();
        }
        self.commands.pending.insert(id, Pending { command, bound: None, started: None, resend: now, until });
    }

    /// Gives a command that is under way this much more time: its holder has
    /// something to do first. Call it once, after giving the command.
    pub fn wait_longer(&mut self, id: CommandId, by: Duration) {
        if let Some(pending) = self.commands.pending.get_mut(&id) {
            pending.until = pending.until.plus(by);
        }
    }

    /// Commands that the groups want, as if a person had given them.
    pub(super) fn take_wishes(&mut self) {
        while let Some(command) = self.node.wishes.pop_front() {
            self.commands.wishes = self.commands.wishes.wrapping_add(1);
            self.command(CommandId(CommandId::OWN | self.commands.wishes), command);
        }
    }

    /// Groups have new numbers: drops the commands about groups that have none.
    pub(super) fn renumber_commands(&mut self, new_number: impl Fn(GroupId) -> Option<GroupId>) {
        for (id, mut pending) in std::mem::take(&mut self.commands.pending) {
            match pending.command.group().map(&new_number) {
                Some(None) => self.done(id, Err(Refusal::NoSuchGroup)),
                Some(Some(group)) => {
                    pending.command.set_group(group);
                    self.commands.pending.insert(id, pending);
                }
                None => {
                    self.commands.pending.insert(id, pending);
                }
            }
        }
    }

    /// A command has come to its end.
    fn done(&mut self, id: CommandId, outcome: Result<Completed, Refusal>) {
        if !id.is_own() {
            self.node.outputs.push_back(Output::Done { id, outcome });
        }
    }

    fn check_command(&self, id: CommandId, command: Command) -> Result<(), Refusal> {
        if self.node.stopping {
            return Err(Refusal::Stopping);
        }
        if self.commands.pending.len() >= COMMANDS_MAX || self.commands.pending.contains_key(&id) {
            return Err(Refusal::Busy);
        }
        self.admit(command)
    }

    /// Sends commands on their way, takes in verdicts, and answers commands whose
    /// outcome is seen. A command times out only when `is_judged`, that is when
    /// this node has read everything that has arrived.
    pub(super) fn drive_commands(&mut self, is_judged: bool) {
        let now = self.node.now;
        self.commands.served.retain(|_, served| served.until > now);
        // A command whose outcome is there already needs nobody.
        self.answer_commands(is_judged);
        let due = self.commands.pending.iter().filter(|(_, pending)| pending.resend <= now);
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.dispatch(id);
        }
        self.take_verdicts();
        self.answer_commands(is_judged);
    }

    fn answer_commands(&mut self, is_judged: bool) {
        let answers = self.commands.pending.iter().filter_map(|(&id, pending)| {
            let outcome = self.outcome_of(pending, is_judged)?;
            Some((id, outcome))
        });
        for (id, outcome) in answers.collect::<Vec<_>>() {
            self.commands.pending.remove(&id);
            self.done(id, outcome);
        }
    }

    fn view(&self, group: GroupId) -> Option<(NodeId, Option<Epoch>)> {
        self.group(group).and_then(|group| group.view(&self.node, self.node.now))
    }

    /// Sends a command to the node that has to do it, again if it was sent
    /// before.
    fn dispatch(&mut self, id: CommandId) {
        let request = RequestId { incarnation: self.node.config.incarnation, command: id };
        let (now, retry) = (self.node.now, self.node.timing.heartbeat);
        let Some(mut pending) = self.commands.pending.get(&id).copied() else { return };
        pending.resend = now.plus(retry);
        let command = pending.command;
        let view = command.group().and_then(|group| self.view(group));
        if let Some((holder, Some(epoch))) = view
            && pending.bound.is_none_or(|(bound, old)| bound == holder && epoch > old)
        {
            pending.bound = Some((holder, epoch));
        }
        self.commands.pending.insert(id, pending);
        if pending.started.is_some() {
            return;
        }
        let (to, epoch) = match (pending.bound, command) {
            (_, Command::Force { .. }) => (self.node.me(), Epoch::default()),
            (_, Command::Standby { node, .. }) => (node, Epoch::default()),
            // Heartbeats carry it.
            (_, Command::Pause { .. }) => return,
            (Some(bound), _) => bound,
            (None, Command::Promote { to, .. }) if view.is_none() => (to, Epoch::default()),
            // Our own lease, adopted, its epoch not told yet: it will be, soon.
            (None, Command::Promote { .. } | Command::Demote { .. } | Command::Switchover { .. }) => return,
        };
        if to == self.node.me() {
            self.serve(Requester { origin: to, request }, epoch, command);
        } else {
            self.node.send(to, Message::Request { request, epoch, command });
        }
    }

    /// A request has arrived (or is this node's own): does it once.
    pub(super) fn serve(&mut self, requester: Requester, epoch: Epoch, command: Command) {
        if let Some(served) = self.commands.served.get(&requester)
            && !self.node.broken.is(Mutant::ServesTwice)
        {
            if let Some(verdict) = served.verdict {
                self.answer(requester, verdict);
            }
            return;
        }
        if self.commands.served.len() >= VERDICTS_MAX {
            self.answer(requester, Verdict::Refused(Refusal::Busy));
            return;
        }
        let until = self.node.now.plus(SERVED_MAX);
        let Some(group) = command.group() else {
            if self.serve_node(requester, command) {
                self.commands.served.insert(requester, Served { verdict: None, until });
            }
            return;
        };
        if self.serve_group(requester, group, epoch, command) {
            self.commands.served.insert(requester, Served { verdict: None, until });
            self.note(group);
        }
    }

    /// Does what a request wants of this node's group. Returns whether this node
    /// was the one to do it; if not, the sender looks for another.
    fn serve_group(&mut self, requester: Requester, group: GroupId, epoch: Epoch, command: Command) -> bool {
        let me = self.node.me();
        let Some(group) = self.groups.get_mut(group) else { return false };
        // A lease by force ignores any other holder, so only a person at this very node
        // may ask for it.
        if matches!(command, Command::Force { .. }) {
            if requester.origin == me {
                group.force(&mut self.node);
                self.node.decide(Some(requester), Verdict::Started { successor: Some(me) });
            }
            return requester.origin == me;
        }
        group.run_out_own(&mut self.node);
        if let Some(lease) = group.lease {
            if lease.epoch != Some(epoch) && !self.node.broken.is(Mutant::AnyGrant) {
                return false;
            }
            let wish = match command {
                Command::Promote { to, .. } | Command::Switchover { to: Some(to), .. } => Wish::To(to),
                Command::Switchover { to: None, .. } => Wish::Best,
                Command::Demote { .. } => Wish::Away,
                Command::Force { .. } | Command::Standby { .. } | Command::Pause { .. } => return false,
            };
            group.begin_handover(Some(requester), wish, &mut self.node);
            return true;
        }
        // Not the holder: only a promotion of this very node makes sense, and
        // only while nobody holds.
        let Command::Promote { to, .. } = command else { return false };
        if to != me || group.holder(&self.node, self.node.now).is_some() {
            return false;
        }
        let verdict = if group.able(&self.node) {
            group.stand_by_hand(&self.node);
            Verdict::Started { successor: Some(me) }
        } else {
            Verdict::Refused(Refusal::TargetNotReady)
        };
        self.node.decide(Some(requester), verdict);
        true
    }

    /// Does what a request wants of this node as a whole. Returns whether this
    /// node could do it now; if not, the sender asks again.
    fn serve_node(&mut self, requester: Requester, command: Command) -> bool {
        let Command::Standby { node, on, force } = command else { return false };
        if node != self.node.me() {
            return false;
        }
        if on && !force && !self.node.standby {
            return self.leave(requester);
        }
        self.end_leaving(Verdict::Refused(Refusal::Busy));
        self.go_on_standby(on);
        self.node.decide(Some(requester), Verdict::Started { successor: None });
        true
    }

    /// Standby that leaves no group without a holder if one is possible: this
    /// node hands over first, and goes on standby when others have everything.
    fn leave(&mut self, requester: Requester) -> bool {
        // Other nodes count on this one for the groups that they are about to hand over
        // to it.
        if self.groups.iter().any(|group| group.is_expected(&self.node)) {
            return false;
        }
        let refusal = if self.node.leaving.is_some() {
            Some(Refusal::Busy)
        } else if self.groups.iter().all(|group| group.is_covered(&self.node)) {
            None
        } else {
            Some(Refusal::NoTarget)
        };
        match refusal {
            Some(refusal) => self.node.decide(Some(requester), Verdict::Refused(refusal)),
            None => {
                let until = self.node.now.plus(COMMAND_TIMEOUT);
                self.node.leaving = Some(Leaving { requester, until, failed: false });
                self.note_all();
            }
        }
        true
    }

    fn go_on_standby(&mut self, on: bool) {
        if self.node.standby == on {
            return;
        }
        self.node.set_standby(on);
        for group in &mut self.groups {
            group.on_standby(&mut self.node);
        }
        self.note_all();
    }

    /// Puts a leaving node on standby when others have all that it held. If that
    /// does not happen in time, the node stays, with what it still has.
    pub(super) fn drive_leaving(&mut self) {
        let Some(leaving) = self.node.leaving else { return };
        let is_done = |group: &Group| group.lease.is_none() && group.is_covered(&self.node);
        if self.groups.iter().all(is_done) {
            self.node.leaving = None;
            self.go_on_standby(true);
            self.node.decide(Some(leaving.requester), Verdict::Started { successor: None });
        } else if leaving.failed || leaving.until <= self.node.now {
            self.end_leaving(Verdict::Refused(Refusal::NoTarget));
        }
    }

    /// This node gives up leaving.
    fn end_leaving(&mut self, verdict: Verdict) {
        let Some(leaving) = self.node.leaving.take() else { return };
        for group in &mut self.groups {
            group.stay();
        }
        self.node.decide(Some(leaving.requester), verdict);
        self.note_all();
    }

    fn take_verdicts(&mut self) {
        while let Some((requester, verdict)) = self.node.decided.pop_front() {
            if let Some(served) = self.commands.served.get_mut(&requester) {
                served.verdict = Some(verdict);
            }
            self.answer(requester, verdict);
        }
    }

    fn answer(&mut self, requester: Requester, verdict: Verdict) {
        let Requester { origin, request } = requester;
        if origin == self.node.me() {
            self.on_verdict(request, verdict);
        } else {
            self.node.send(origin, Message::Verdict { request, verdict });
        }
    }

    /// A verdict on a command of this node.
    pub(super) fn on_verdict(&mut self, request: RequestId, verdict: Verdict) {
        if request.incarnation != self.node.config.incarnation {
            return;
        }
        let Some(pending) = self.commands.pending.get_mut(&request.command) else { return };
        match verdict {
            Verdict::Started { successor } => pending.started = Some(successor),
            Verdict::Refused(refusal) if pending.started.is_none() => {
                self.commands.pending.remove(&request.command);
                self.done(request.command, Err(refusal));
            }
            Verdict::Refused(_) => {}
        }
    }

    /// Has a command come to its end? This node's own acceptor decides that, not
    /// a promise of another node.
    fn outcome_of(&self, pending: &Pending, is_judged: bool) -> Option<Result<Completed, Refusal>> {
        let outcome = match pending.command {
            Command::Pause { on } => {
                let pause = self.node.pause;
                (pause.on == on && self.node.all_know(pause)).then_some(Completed::Paused(on))
            }
            Command::Standby { node, on, .. } => {
                let holds = |group: &Group| on && group.holder(&self.node, self.node.now) == Some(node);
                let is_so = self.node.on_standby(node) == on && !self.groups.iter().any(holds);
                is_so.then_some(Completed::Standby(on))
            }
            Command::Force { group } => {
                let me = self.node.me();
                let holder = self.view(group).map(|(holder, _)| holder);
                (holder == Some(me)).then_some(Completed::HeldBy(me))
            }
            Command::Promote { group, .. }
            | Command::Demote { group }
            | Command::Switchover { group, .. } => self.judge_move(group, pending),
        };
        let is_open = pending.until > self.node.now || self.node.broken.is(Mutant::NoTimeout);
        if outcome.is_some() || is_open || !is_judged {
            return outcome.map(Ok);
        }
        let quorate = self.node.quorate || pending.command.group().is_none();
        Some(Err(if quorate { Refusal::Timeout } else { Refusal::NoQuorum }))
    }

    fn judge_move(&self, group: GroupId, pending: &Pending) -> Option<Completed> {
        let holder = self.view(group).map(|(holder, _)| holder);
        let wanted = pending.command.to().or(pending.started.flatten());
        if holder.is_some() && holder == wanted {
            return holder.map(Completed::HeldBy);
        }
        let moved = pending.bound.is_some_and(|(bound, _)| Some(bound) != holder);
        match (holder, pending.command) {
            // The group moved on without the verdict having reached us.
            (Some(holder), Command::Demote { .. } | Command::Switchover { to: None, .. }) if moved => {
                Some(Completed::HeldBy(holder))
            }
            (None, Command::Demote { .. }) if moved && pending.started == Some(None) => {
                Some(Completed::Released)
            }
            _ => None,
        }
    }
}
