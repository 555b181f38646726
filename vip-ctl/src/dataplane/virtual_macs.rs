//! Virtual MACs in the maps.

use std::collections::BTreeMap;

use vip_common::layout::{VirtualMac, VirtualMacKey};

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

    /// Makes these the virtual MACs. Writes what differs: the programs look at the map from
    /// before the first is there until after the last has gone.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if a map can't be read or written; the call can be made
    /// again.
    pub fn set_virtual_macs(
        &mut self,
        wanted: &BTreeMap<VirtualMacKey, VirtualMac>,
    ) -> Result<(), DataPlaneError> {
        let there = self.virtual_macs()?;
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if count > 0 {
            self.count_virtual_macs(count)?;
        }
        for key in there.keys().filter(|key| !wanted.contains_key(key)) {
            self.virtual_macs.remove(key).map_err(|e| DataPlaneError::map("forget a virtual MAC", e))?;
        }
        for (key, of) in wanted.iter().filter(|(key, of)| there.get(key) != Some(of)) {
            self.virtual_macs
                .insert(key, of, 0)
                .map_err(|e| DataPlaneError::map("write a virtual MAC", e))?;
        }
        self.count_virtual_macs(count)
    }

    fn count_virtual_macs(&mut self, count: u32) -> Result<(), DataPlaneError> {
        let failed = |e| DataPlaneError::map("count the virtual MACs", e);
        if self.virtual_mac_count.get(&0, 0).map_err(failed)? == count {
            return Ok(());
        }
        self.virtual_mac_count.set(0, count, 0).map_err(failed)
    }
}
