//! Names for the numbers of nodes and groups.

use std::collections::BTreeMap;

use vip_common::GroupIndex;

use crate::{
    config::Config,
    dataplane::DataPlane,
    engine::{ByGroup, GroupId, NodeId},
};

/// Names for ids.
#[derive(Clone, Debug)]
pub struct Names {
    pub(super) nodes: BTreeMap<NodeId, String>,
    pub(super) groups: ByGroup<String>,
    /// Where the groups are in the maps; empty without maps.
    pub index: ByGroup<GroupIndex>,
}

impl Names {
    /// The names of a configuration, without places in the maps.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            nodes: config.cluster.nodes.iter().map(|n| (NodeId(n.id), n.name.clone())).collect(),
            groups: config.groups.iter().map(|g| g.name.clone()).collect(),
            index: ByGroup::new(),
        }
    }

    /// [`Self::of`], with the places in these maps; a witness has none.
    #[must_use]
    pub fn with_places(config: &Config, maps: Option<&DataPlane>) -> Self {
        let known = maps.map(DataPlane::groups).unwrap_or_default();
        let known: BTreeMap<_, _> = known.iter().map(|known| (known.name.as_str(), known.index)).collect();
        // Every configured group was put into the maps before.
        let index =
            config.groups.iter().filter_map(|group| known.get(group.name.as_str()).copied()).collect();
        Self { index, ..Self::of(config) }
    }

    /// The node's name, or `?`.
    #[must_use]
    pub fn node(&self, node: NodeId) -> &str {
        self.nodes.get(&node).map_or("?", String::as_str)
    }

    /// The group's name, or `?`.
    #[must_use]
    pub fn group(&self, group: GroupId) -> &str {
        self.groups.get(group).map_or("?", String::as_str)
    }

    /// Where the group is in the maps.
    #[must_use]
    pub fn index(&self, group: GroupId) -> Option<GroupIndex> {
        self.index.get(group).copied()
    }
}
