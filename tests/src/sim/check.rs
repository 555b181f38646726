//! What must never be: the violations that a run can end with, and the check
//! for two holders.

use std::{fmt, time::Duration};

use vip_common::{GroupMode, fence_open};
use vip_ctl::engine::{CommandId, GroupId, NodeId};

use super::{clock::nanos, world::World};

/// What went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Several nodes may answer for a group at once.
    TwoHolders {
        /// The group.
        group: GroupId,
        /// Who may answer.
        nodes: Vec<NodeId>,
    },
    /// A lease word that ends in the past, or too far in the future, was to be stored.
    BadLease(NodeId, GroupId),
    /// A takeover was to be announced without a lease.
    BadAnnouncement(NodeId, GroupId),
    /// A node said that it has stopped, with a lease in its map.
    StoppedWithLease(NodeId, GroupId),
    /// A command was answered twice, or without having been given.
    StrayAnswer(NodeId, CommandId),
    /// A command was not answered in time.
    NoAnswer(NodeId, CommandId),
    /// A node asked to be woken without end at one moment.
    Spinning(NodeId),
    /// A packet that an engine made did not decode to what it was, or is too long.
    BadPacket(NodeId),
    /// A healed cluster has no holder for a group.
    NoHolder(GroupId),
    /// A holder in a healed cluster lost its lease.
    Unstable(GroupId),
    /// A drill took longer than it may.
    Slow {
        /// Which drill.
        drill: &'static str,
        /// For which group.
        group: GroupId,
        /// How long it took, if it came to an end at all.
        took: Option<Duration>,
        /// How long it may take.
        bound: Duration,
    },
    /// A command in a healed cluster came to nothing.
    Refused(&'static str, GroupId, String),
    /// A run failed, and its repetition did not: the simulator is to blame.
    NotReproducible,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoHolders { group, nodes } => {
                write!(f, "group {}: open on nodes", group.0)?;
                nodes.iter().try_for_each(|node| write!(f, " {}", node.0))
            }
            Self::BadLease(node, group) => write!(f, "node {}, group {}: impossible lease", node.0, group.0),
            Self::BadAnnouncement(node, group) => {
                write!(f, "node {}, group {}: announcement without lease", node.0, group.0)
            }
            Self::StoppedWithLease(node, group) => {
                write!(f, "node {}, group {}: stopped with a lease", node.0, group.0)
            }
            Self::StrayAnswer(node, id) => write!(f, "node {}, command {}: stray answer", node.0, id.0),
            Self::NoAnswer(node, id) => write!(f, "node {}, command {}: no answer", node.0, id.0),
            Self::Spinning(node) => write!(f, "node {} spins", node.0),
            Self::BadPacket(node) => write!(f, "node {} sent a bad packet", node.0),
            Self::NoHolder(group) => write!(f, "group {}: no holder after healing", group.0),
            Self::Unstable(group) => write!(f, "group {}: holder changed without need", group.0),
            Self::Slow { drill, group, took, bound } => {
                write!(f, "{drill}, group {}: took {took:?}, at most {bound:?} expected", group.0)
            }
            Self::Refused(drill, group, why) => write!(f, "{drill}, group {}: {why}", group.0),
            Self::NotReproducible => f.write_str("the failure did not repeat under the same seed"),
        }
    }
}

impl World {
    /// Who may answer for `group` now, by what each node's kernel would say.
    pub(super) fn open_on(&self, group: GroupId) -> Vec<NodeId> {
        let open = self.nodes.iter().filter(|node| {
            let lease = node.map[usize::from(group.0)];
            let hold_ns_max = nanos(node.hold);
            fence_open(GroupMode::Cluster, lease, hold_ns_max, node.clock.at(self.now))
        });
        open.map(|node| node.id).collect()
    }

    /// The rule that everything is about: at most one.
    pub(super) fn check_fences(&mut self) -> Result<(), Violation> {
        for index in 0..self.plan.groups.len() {
            let group = GroupId(u16::try_from(index).unwrap_or(u16::MAX));
            let nodes = self.open_on(group);
            if nodes.len() > 1 {
                return Err(Violation::TwoHolders { group, nodes });
            }
            self.note_holder(group, nodes.first().copied());
        }
        Ok(())
    }
}
