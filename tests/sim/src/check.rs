//! What must never be: the violations that a run can end with, and the check
//! for two holders.

use std::{fmt, time::Duration};

use vip_common::{GroupMode, fence_open};
use vip_engine::{CommandId, Epoch, GroupId, NodeId};

use super::{
    clock::nanos,
    names::{Names, group_id},
    world::World,
};

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
    /// A fence was to be opened before the group's `pre_promote` had ended well.
    Unprepared(NodeId, GroupId),
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
    /// The packet of an engine was too long, or did not decode to itself.
    BadPacket(NodeId),
    /// A node that can't serve a group keeps its lease (rule 12).
    KeepsUnfit(NodeId, GroupId),
    /// A node on standby keeps a lease for longer than it takes to hand it over.
    KeepsOnStandby(NodeId, GroupId),
    /// A node stands for a group that it can't serve (rule 12).
    StandsUnfit(NodeId, GroupId),
    /// A node on standby stands.
    StandsOnStandby(NodeId, GroupId),
    /// A node stands for a group of which it would answer nothing.
    StandsMute(NodeId, GroupId),
    /// A node stands against a holder whose word lies unread in its socket.
    StandsUnread(NodeId, GroupId),
    /// A group has moved by itself in a paused cluster.
    MovedInPause(GroupId),
    /// The first node has a group that the second, which is better, could have (rule 9).
    NotPreferred(GroupId, NodeId, NodeId),
    /// A new grant has no higher epoch than the one before.
    EpochStays(GroupId),
    /// Two grants of a group have the same epoch, or the later one a lower one.
    EpochRepeats(GroupId, Epoch, Epoch),
    /// Commands have left a group without a holder, and none of them was by
    /// force.
    LeftAlone(GroupId, String),
    /// The holder of a group does not answer for all of its VIPs.
    Unanswered(GroupId, NodeId),
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
        /// How long it took; `None` if it never ended.
        took: Option<Duration>,
        /// How long it may take.
        bound: Duration,
    },
    /// A command in a healed cluster came to nothing.
    Refused(&'static str, GroupId, String),
    /// An engine, or the simulator, has panicked.
    Panicked(String),
    /// A run failed, and its repetition did not: the simulator is to blame.
    NotReproducible,
}

impl Violation {
    /// What went wrong, in a cluster with these names.
    #[must_use]
    pub fn tell(&self, names: &Names) -> String {
        let (on, of) = (|node: &NodeId| names.node(*node), |group: &GroupId| names.group(*group));
        match self {
            Self::TwoHolders { group, nodes } => {
                let nodes: Vec<_> = nodes.iter().map(on).collect();
                format!("{}: two holders: open on {}", of(group), nodes.join(" and "))
            }
            Self::BadLease(node, group) => {
                format!("{}: {} was to store an impossible lease", of(group), on(node))
            }
            Self::Unprepared(node, group) => {
                format!("{}: {} opens it before its pre_promote has ended well", of(group), on(node))
            }
            Self::BadAnnouncement(node, group) => {
                format!("{}: {} announces without a lease", of(group), on(node))
            }
            Self::StoppedWithLease(node, group) => {
                format!("{}: {} has stopped with a lease", of(group), on(node))
            }
            Self::StrayAnswer(node, id) => format!("{} answers command {} unasked, or twice", on(node), id.0),
            Self::NoAnswer(node, id) => format!("{} does not answer command {}", on(node), id.0),
            Self::Spinning(node) => format!("{} spins", on(node)),
            Self::BadPacket(node) => format!("{} sends a bad packet", on(node)),
            Self::KeepsUnfit(node, group) => {
                format!("{}: {} can't serve it and keeps it", of(group), on(node))
            }
            Self::KeepsOnStandby(node, group) => {
                format!("{}: {} is on standby and keeps it", of(group), on(node))
            }
            Self::StandsUnfit(node, group) => {
                format!("{}: {} can't serve it and stands", of(group), on(node))
            }
            Self::StandsOnStandby(node, group) => {
                format!("{}: {} is on standby and stands", of(group), on(node))
            }
            Self::StandsMute(node, group) => {
                format!("{}: {} would answer nothing of it and stands", of(group), on(node))
            }
            Self::StandsUnread(node, group) => {
                format!("{}: {} stands, and the holder's word lies in its socket", of(group), on(node))
            }
            Self::MovedInPause(group) => format!("{}: moved by itself in a pause", of(group)),
            Self::NotPreferred(group, has, better) => {
                format!("{}: {} has it, and {} is better and could", of(group), on(has), on(better))
            }
            Self::EpochRepeats(group, was, is) => {
                format!("{}: a grant of epoch {} after one of {}", of(group), is.0, was.0)
            }
            Self::EpochStays(group) => format!("{}: a new grant with no higher epoch", of(group)),
            Self::LeftAlone(group, commands) => format!("{}: nobody holds it after {commands}", of(group)),
            Self::Unanswered(group, node) => {
                format!("{}: {} has it and does not answer for all of its VIPs", of(group), on(node))
            }
            Self::NoHolder(group) => format!("{}: no holder after healing", of(group)),
            Self::Unstable(group) => format!("{}: the holder changed without need", of(group)),
            Self::Slow { drill, group, took: Some(took), bound } => {
                format!("{}: {drill} took {took:.1?}, and may take {bound:.1?}", of(group))
            }
            Self::Slow { drill, group, took: None, bound } => {
                format!("{}: {drill} came to no end, and may take {bound:.1?}", of(group))
            }
            Self::Refused(drill, group, why) => format!("{}: {drill}: {why}", of(group)),
            Self::Panicked(message) => format!("panicked: {message}"),
            Self::NotReproducible => "the failure did not repeat under the same seed".to_owned(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(&Names::default()))
    }
}

impl World {
    /// The nodes that may answer for `group` now, by each node's kernel.
    pub(super) fn open_on(&self, group: GroupId) -> impl Iterator<Item = NodeId> + '_ {
        let open = self.nodes.iter().filter(move |node| {
            let lease = node.map[group.place()];
            let hold_ns_max = nanos(node.hold);
            fence_open(GroupMode::Cluster, lease, hold_ns_max, node.clock.at(self.now))
        });
        open.map(|node| node.id)
    }

    /// The rule that everything is about: at most one. Checked for a group
    /// whenever a lease of it is stored or ends: nothing else moves a fence.
    pub(super) fn check_fence(&mut self, group: GroupId) -> Result<(), Violation> {
        let mut open = self.open_on(group);
        let (first, second) = (open.next(), open.next());
        drop(open);
        if self.plan.versions.len() > 1 {
            // A group is its VIPs: two nodes may have different groups of one name.
            self.check_vips()?;
        } else if second.is_some() && !self.two_may_hold {
            return Err(Violation::TwoHolders { group, nodes: self.open_on(group).collect() });
        }
        self.note_holder(group, first);
        Ok(())
    }

    /// [`World::check_fence`] for every group.
    pub(super) fn check_fences(&mut self) -> Result<(), Violation> {
        (0..self.plan.groups.len()).try_for_each(|group| self.check_fence(group_id(group)))
    }
}
