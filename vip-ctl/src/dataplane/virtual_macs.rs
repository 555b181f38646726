//! Virtual MACs in the maps.

use std::collections::BTreeMap;

use vip_common::layout::{NodeConfig, VirtualMac, VirtualMacKey};

use super::{DataPlane, DataPlaneError};

impl DataPlane {
    /// The virtual MACs, and whose they are.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn virtual_macs(&self) -> Result<BTreeMap<VirtualMacKey, VirtualMac>, DataPlaneError> {
        let entries = self.virtual_macs.iter();
        entries.map(|entry| entry.map_err(|e| DataPlaneError::map("read the virtual MACs", e))).collect()
    }

    /// Makes these the virtual MACs. Writes what differs.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if a map can't be read or written.
    pub fn set_virtual_macs(
        &mut self,
        wanted: &BTreeMap<VirtualMacKey, VirtualMac>,
    ) -> Result<(), DataPlaneError> {
        let there = self.virtual_macs()?;
        for key in there.keys().filter(|key| !wanted.contains_key(key)) {
            self.virtual_macs.remove(key).map_err(|e| DataPlaneError::map("forget a virtual MAC", e))?;
        }
        for (key, of) in wanted.iter().filter(|(key, of)| there.get(key) != Some(of)) {
            self.virtual_macs
                .insert(key, of, 0)
                .map_err(|e| DataPlaneError::map("write a virtual MAC", e))?;
        }
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if self.node.virtual_macs != count || there.len() != wanted.len() {
            let node = NodeConfig { virtual_macs: count, ..self.node };
            self.nodes.set(0, node, 0).map_err(|e| DataPlaneError::map("write the node's record", e))?;
            self.node = node;
        }
        Ok(())
    }
}
