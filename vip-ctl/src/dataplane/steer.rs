//! Where frames go on to that clients send to this node by mistake: who holds which group,
//! and where that node is. No fence asks for it.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use aya::maps::MapData;
use vip_common::{
    GroupIndex,
    layout::{GROUPS_MAX, Holder, Hops},
};

use super::{DataPlane, DataPlaneError, Mapped};

/// The holders of all groups, as this node's agent sees them.
pub(super) struct HolderTable(Mapped<Holder>);

impl HolderTable {
    pub(super) fn new(map: &MapData) -> Result<Self, DataPlaneError> {
        Ok(Self(Mapped::new(map, GROUPS_MAX)?))
    }
}

impl DataPlane {
    /// The node that holds the group, as far as is known.
    pub fn note_holder(&self, group: GroupIndex, holder: Holder) {
        self.holders.0.word(group.0).store(holder.0, Ordering::Relaxed);
    }

    /// The node that holds the group, as far as this node's agent knows.
    #[must_use]
    pub fn holder(&self, group: GroupIndex) -> Option<u8> {
        Holder(self.holders.0.word(group.0).load(Ordering::Relaxed)).number()
    }

    /// Makes these the ways to the other nodes, by the indices of interfaces.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read or written.
    pub fn set_hops(&mut self, wanted: &BTreeMap<u32, Hops>) -> Result<(), DataPlaneError> {
        let there: Result<Vec<_>, _> = self.hops.keys().collect();
        let there = there.map_err(|e| DataPlaneError::map("read the ways to other nodes", e))?;
        for ifindex in there.iter().filter(|ifindex| !wanted.contains_key(ifindex)) {
            self.hops.remove(ifindex).map_err(|e| DataPlaneError::map("forget a way to other nodes", e))?;
        }
        for (ifindex, hops) in wanted {
            self.hops
                .insert(ifindex, hops, 0)
                .map_err(|e| DataPlaneError::map("write a way to other nodes", e))?;
        }
        Ok(())
    }
}
