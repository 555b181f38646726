//! Commands: given at any node, forwarded to the one that can do them, and
//! answered when the outcome has been seen here. What the holder does with
//! one is in [`super::handover`].

use std::collections::BTreeMap;

use vip_common::BootNs;

use super::{
    Engine,
    config::{COMMAND_TIMEOUT, CommandId, Epoch, GroupId, NodeId, Role},
    handover::Wish,
    io::{Command, Completed, Output, Refusal},
    message::{Message, RequestId, Verdict},
    node::Requester,
};

/// The most commands that may be under way at one node; more are [`Refusal::Busy`].
pub const COMMANDS_MAX: usize = 64;
/// The most verdicts that are remembered for repeated requests; further
/// requests are [`Refusal::Busy`] until old ones are forgotten.
pub const VERDICTS_MAX: usize = 256;

/// A command given at this node, not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    command: Command,
    /// The grant that it is about, once it is known: a later one is not
    /// touched, or a repeated request would move the group twice.
    bound: Option<(NodeId, Epoch)>,
    /// The verdict's successor, once there is a verdict.
    started: Option<Option<NodeId>>,
    resend: BootNs,
    until: BootNs,
}

/// What was made of a request; `verdict` is `None` while it is under way.
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
}

impl Commands {
    pub fn next_deadline(&self) -> Option<BootNs> {
        self.pending.values().map(|pending| pending.resend.min(pending.until)).min()
    }
}

impl Engine {
    /// A command has been given at this node.
    pub(super) fn command(&mut self, id: CommandId, command: Command) {
        if let Err(refusal) = self.check_command(id, command) {
            self.node.outputs.push_back(Output::Done { id, outcome: Err(refusal) });
            return;
        }
        let now = self.node.now;
        let until = now.plus(COMMAND_TIMEOUT);
        self.commands.pending.insert(id, Pending { command, bound: None, started: None, resend: now, until });
    }

    fn check_command(&self, id: CommandId, command: Command) -> Result<(), Refusal> {
        let group = self.group(command.group()).ok_or(Refusal::NoSuchGroup)?;
        if let Some(to) = command.to() {
            match self.node.config.role(to).ok_or(Refusal::NoSuchNode)? {
                Role::Witness => return Err(Refusal::TargetIsWitness),
                Role::Node => {}
            }
        }
        if self.node.stopping {
            return Err(Refusal::Stopping);
        }
        if self.commands.pending.len() >= COMMANDS_MAX || self.commands.pending.contains_key(&id) {
            return Err(Refusal::Busy);
        }
        // What this node holds it can give away, whoever else is there.
        if group.lease.is_some() {
            return Ok(());
        }
        if self.node.silent {
            return Err(Refusal::Starting);
        }
        if !self.node.quorate {
            return Err(Refusal::NoQuorum);
        }
        if group.holder(&self.node, self.node.now).is_some() {
            return Ok(());
        }
        match command {
            Command::Demote { .. } | Command::Switchover { .. } => Err(Refusal::NotHeld),
            Command::Promote { to, .. } if to == self.node.me() => {
                if group.able(&self.node) {
                    Ok(())
                } else {
                    Err(Refusal::TargetNotReady)
                }
            }
            Command::Promote { to, .. } => {
                if self.node.present(to, self.node.now) {
                    Ok(())
                } else {
                    Err(Refusal::TargetSilent)
                }
            }
        }
    }

    /// Sends commands on their way, takes in verdicts, and answers what has come about.
    pub(super) fn drive_commands(&mut self) {
        let now = self.node.now;
        self.commands.served.retain(|_, served| served.until > now);
        // What is so already needs nobody's doing.
        self.answer_commands();
        let due = self.commands.pending.iter().filter(|(_, pending)| pending.resend <= now);
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.dispatch(id);
        }
        self.take_verdicts();
        self.answer_commands();
    }

    fn answer_commands(&mut self) {
        let answers = self.commands.pending.iter().filter_map(|(&id, pending)| {
            let outcome = self.judge(pending)?;
            Some((id, outcome))
        });
        for (id, outcome) in answers.collect::<Vec<_>>() {
            self.commands.pending.remove(&id);
            self.node.outputs.push_back(Output::Done { id, outcome });
        }
    }

    fn view(&self, group: GroupId) -> Option<(NodeId, Option<Epoch>)> {
        self.group(group).and_then(|group| group.view(&self.node, self.node.now))
    }

    /// Sends a command to whom it concerns, again if it was sent before.
    fn dispatch(&mut self, id: CommandId) {
        let request = RequestId { incarnation: self.node.config.incarnation, command: id };
        let (now, retry) = (self.node.now, self.node.timing.heartbeat);
        let Some(mut pending) = self.commands.pending.get(&id).copied() else { return };
        pending.resend = now.plus(retry);
        let command = pending.command;
        let view = self.view(command.group());
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

    /// A request has arrived (or is this node's own): does it, once.
    pub(super) fn serve(&mut self, requester: Requester, epoch: Epoch, command: Command) {
        if let Some(served) = self.commands.served.get(&requester) {
            if let Some(verdict) = served.verdict {
                self.answer(requester, verdict);
            }
            return;
        }
        if self.commands.served.len() >= VERDICTS_MAX {
            self.answer(requester, Verdict::Refused(Refusal::Busy));
            return;
        }
        let me = self.node.me();
        let Some(group) = self.groups.get_mut(usize::from(command.group().0)) else { return };
        if let Some(lease) = group.lease {
            if lease.epoch != Some(epoch) {
                return;
            }
            let wish = match command {
                Command::Promote { to, .. } | Command::Switchover { to: Some(to), .. } => Wish::To(to),
                Command::Switchover { to: None, .. } => Wish::Best,
                Command::Demote { .. } => Wish::Away,
            };
            group.begin_handover(requester, wish, &mut self.node);
        } else {
            // Not the holder: only a promotion of this very node makes sense,
            // and only while nobody holds. Else the sender looks again.
            match command {
                Command::Promote { to, .. }
                    if to == me && group.holder(&self.node, self.node.now).is_none() =>
                {
                    let verdict = if group.able(&self.node) {
                        group.stand_by_hand(&self.node);
                        Verdict::Started { successor: Some(me) }
                    } else {
                        Verdict::Refused(Refusal::TargetNotReady)
                    };
                    self.node.decided.push_back((requester, verdict));
                }
                Command::Promote { .. } | Command::Demote { .. } | Command::Switchover { .. } => return,
            }
        }
        let until = self.node.now.plus(COMMAND_TIMEOUT * 2);
        self.commands.served.insert(requester, Served { verdict: None, until });
        self.touch(command.group());
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
                self.node.outputs.push_back(Output::Done { id: request.command, outcome: Err(refusal) });
            }
            Verdict::Refused(_) => {}
        }
    }

    /// Has a command come to its end? By what this node's own acceptor says,
    /// not by what anybody promised.
    fn judge(&self, pending: &Pending) -> Option<Result<Completed, Refusal>> {
        let holder = self.view(pending.command.group()).map(|(holder, _)| holder);
        let wanted = pending.command.to().or(pending.started.flatten());
        if let Some(holder) = holder
            && Some(holder) == wanted
        {
            return Some(Ok(Completed::HeldBy(holder)));
        }
        let moved = pending.bound.is_some_and(|(bound, _)| Some(bound) != holder);
        match (holder, pending.command) {
            // The group moved on without the verdict having reached us.
            (Some(holder), Command::Demote { .. } | Command::Switchover { to: None, .. }) if moved => {
                return Some(Ok(Completed::HeldBy(holder)));
            }
            (None, Command::Demote { .. }) if moved && pending.started == Some(None) => {
                return Some(Ok(Completed::Released));
            }
            (
                Some(_) | None,
                Command::Promote { .. } | Command::Demote { .. } | Command::Switchover { .. },
            ) => {}
        }
        if pending.until > self.node.now {
            return None;
        }
        let quorate = self.node.quorate;
        Some(Err(if quorate { Refusal::Timeout } else { Refusal::NoQuorum }))
    }
}
