//! The names of the nodes and groups of a simulation: those of a scenario, or
//! their numbers.

use vip_engine::{GroupId, NodeId};

/// Names by [`NodeId`] and [`GroupId`]; without one, it is `n0` or `g0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By [`NodeId`].
    pub nodes: Vec<String>,
    /// By [`GroupId`].
    pub groups: Vec<String>,
}

impl Names {
    /// The name of `node`.
    #[must_use]
    pub fn node(&self, node: NodeId) -> String {
        self.nodes.get(usize::from(node.0)).cloned().unwrap_or_else(|| format!("n{}", node.0))
    }

    /// The name of `group`.
    #[must_use]
    pub fn group(&self, group: GroupId) -> String {
        self.groups.get(group.place()).cloned().unwrap_or_else(|| format!("g{}", group.0))
    }
}

/// The id of the node at `index`.
pub(super) fn node_id(index: usize) -> NodeId {
    NodeId(u8::try_from(index).unwrap_or(u8::MAX))
}

/// The id of the group at `index`.
pub(super) fn group_id(index: usize) -> GroupId {
    GroupId(u16::try_from(index).unwrap_or(u16::MAX))
}
