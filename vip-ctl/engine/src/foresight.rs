//! Predicts what a command would do, and who would take a group. One answer
//! serves the engine's own check of a command, the hooks that a planned move has
//! to wait for, and the texts for people. Nothing here changes anything.
//!
//! The prediction uses what this node knows now. Another node may know better,
//! and has the last word about itself.

use vip_common::BootNs;

use super::{
    Engine,
    config::{GroupId, NodeId, NodeSet, PeerLoss},
    group::Group,
    io::{Command, Foreseen, GroupMove, Heir, Refusal},
};

impl Engine {
    /// What `command` would do if a person gave it at this node at `now`.
    ///
    /// # Errors
    /// The refusal that the command would meet, as far as this node can tell.
    pub fn foresee(&self, command: Command, now: BootNs) -> Result<Foreseen, Refusal> {
        let now = now.max(self.node.now);
        let command = self.as_meant(command);
        self.admit(command)?;
        match command {
            Command::Promote { group, to } | Command::Switchover { group, to: Some(to) } => {
                self.foresee_move_to(group, to, now)
            }
            Command::Switchover { group, to: None } => {
                let moves = self.foresee_leaving(self.known(group)?, now).ok_or(Refusal::NotHeld)?;
                if moves.to.is_some() { Ok(Foreseen::Moves(moves)) } else { Err(Refusal::NoTarget) }
            }
            Command::Demote { group } => {
                self.foresee_leaving(self.known(group)?, now).map(Foreseen::Moves).ok_or(Refusal::NotHeld)
            }
            Command::Force { group } => {
                let is_so = self.known(group)?.holder(&self.node, now) == Some(self.node.me());
                Ok(if is_so { Foreseen::Nothing } else { Foreseen::Forced(group) })
            }
            Command::Standby { node, on, .. } if self.node.on_standby(node) == on => Ok(Foreseen::Nothing),
            Command::Standby { node, on: false, .. } => Ok(Foreseen::Unstandby(node)),
            Command::Standby { node, on: true, force } => {
                let held = self.groups.iter().filter(|group| group.holder(&self.node, now) == Some(node));
                let moves: Vec<_> = held.filter_map(|group| self.foresee_leaving(group, now)).collect();
                // A node leaves by itself only if others say that they are ready.
                if !force && moves.iter().any(|foreseen| foreseen.to.is_none() || foreseen.is_asked) {
                    return Err(Refusal::NoTarget);
                }
                Ok(Foreseen::Standby(node, moves))
            }
            Command::Pause { on } if on == self.node.pause.on => Ok(Foreseen::Nothing),
            Command::Pause { on } => Ok(Foreseen::Paused(on)),
        }
    }

    /// With a quorum nothing needs force: such a command becomes an ordinary
    /// promotion.
    pub(super) fn as_meant(&self, command: Command) -> Command {
        match command {
            Command::Force { group }
                if self.node.quorate && !self.node.broken.is(super::Mutant::ForcesWithQuorum) =>
            {
                Command::Promote { group, to: self.node.me() }
            }
            Command::Promote { .. }
            | Command::Demote { .. }
            | Command::Switchover { .. }
            | Command::Force { .. }
            | Command::Standby { .. }
            | Command::Pause { .. } => command,
        }
    }

    /// Refuses a command if this node knows for sure that nobody can do it.
    pub(super) fn admit(&self, command: Command) -> Result<(), Refusal> {
        if let Some(to) = command.to() {
            self.node.can_hold(to)?;
        }
        match command {
            Command::Promote { group, .. }
            | Command::Demote { group }
            | Command::Switchover { group, .. } => self.admit_move(group, command),
            Command::Force { group } => {
                let group = self.known(group)?;
                if self.node.silent {
                    Err(Refusal::Starting)
                } else if group.lease.is_some() || group.able(&self.node) {
                    Ok(())
                } else {
                    Err(Refusal::TargetNotReady)
                }
            }
            Command::Standby { node, .. } => {
                self.node.can_hold(node)?;
                if self.node.present(node, self.node.now) { Ok(()) } else { Err(Refusal::TargetSilent) }
            }
            // A node that has just started may not know the latest pause yet.
            Command::Pause { .. } if self.node.silent => Err(Refusal::Starting),
            Command::Pause { .. } => Ok(()),
        }
    }

    /// Can the group be moved, as far as this node can tell?
    fn admit_move(&self, group: GroupId, command: Command) -> Result<(), Refusal> {
        let group = self.known(group)?;
        // A node can always give away what it holds, whoever else is there.
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
            Command::Demote { .. }
            | Command::Switchover { .. }
            | Command::Force { .. }
            | Command::Standby { .. }
            | Command::Pause { .. } => Err(Refusal::NotHeld),
        }
    }

    fn known(&self, group: GroupId) -> Result<&Group, Refusal> {
        self.group(group).ok_or(Refusal::NoSuchGroup)
    }

    /// To a node that was named.
    fn foresee_move_to(&self, id: GroupId, to: NodeId, now: BootNs) -> Result<Foreseen, Refusal> {
        let group = self.known(id)?;
        let from = group.holder(&self.node, now);
        if from == Some(to) {
            return Ok(Foreseen::Nothing);
        }
        if !self.node.present(to, now) {
            return Err(Refusal::TargetSilent);
        }
        let is_asked = self.node.differs(to);
        // A node that was demoted by hand takes the group only when a person names it.
        // This node knows that only about itself.
        let can_take = if to == self.node.me() {
            group.able(&self.node)
        } else {
            is_asked || self.node.ready_peers(id, now).any(|ready| ready == to)
        };
        if !can_take {
            return Err(Refusal::TargetNotReady);
        }
        Ok(Foreseen::Moves(GroupMove { group: id, epoch: group.epoch(), from, to: Some(to), is_asked }))
    }

    /// A move from the holder to the best node; `None` if nobody holds the group.
    fn foresee_leaving(&self, group: &Group, now: BootNs) -> Option<GroupMove> {
        let from = group.holder(&self.node, now)?;
        let mut except = NodeSet::default();
        except.insert(from);
        let to = self.best_for(group, except, now);
        let is_asked = to.is_some_and(|to| self.node.differs(to));
        Some(GroupMove { group: group.id, epoch: group.epoch(), from: Some(from), to, is_asked })
    }

    /// The node that the holder would ask first to take this group; this node
    /// counts too.
    fn best_for(&self, group: &Group, except: NodeSet, now: BootNs) -> Option<NodeId> {
        let me = group.ready(&self.node).then(|| self.node.me());
        self.node.best_target(group.id, except, me, now)
    }

    /// Who takes this group if its holder dies, or takes it now if nobody holds
    /// it.
    ///
    /// `present` are the voters that count for the quorum, and `majority` is how many
    /// it takes: both are the same for all groups.
    pub(super) fn heir(&self, group: &Group, present: NodeSet, majority: usize, now: BootNs) -> Heir {
        let node = &self.node;
        if node.pause.on {
            return Heir::Paused;
        }
        let holder = group.holder(node, now);
        if node.config.pair == Some(PeerLoss::Hold) && (holder.is_some() || node.alone) {
            return Heir::PairHolds;
        }
        let mut left = present;
        holder.into_iter().for_each(|holder| left.remove(holder));
        let left = left.len();
        if node.config.pair.is_none() && left < majority {
            return Heir::NoMajority(left);
        }
        let mut except = NodeSet::default();
        holder.into_iter().for_each(|holder| except.insert(holder));
        match self.best_for(group, except, now) {
            Some(heir) if node.differs(heir) => Heir::Perhaps(heir),
            Some(heir) => Heir::Node(heir),
            None => Heir::NobodyReady,
        }
    }
}
