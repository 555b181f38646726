//! Maps of another layout than this version's, as far as all layouts are the same: the
//! record of the number, the words of the leases, and the keys of the VIPs
//! ([`LAYOUT_VERSION`] says so). Nobody goes on with what is in them: they are closed, and
//! taken off.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use vip_common::{GroupIndex, Lease, layout::LAYOUT_VERSION, names};

use super::{DataPlaneError, LeaseTable, pinned, pinned_node, syscalls};

/// What another version has pinned.
pub struct Former {
    dir: PathBuf,
    layout: u32,
}

impl Former {
    /// What is pinned below `dir`; `None` if that is nothing, or has this version's layout.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the record can't be read.
    pub fn find(dir: &Path) -> Result<Option<Self>, DataPlaneError> {
        let node = pinned_node(dir)?.filter(|node| node.layout_version != LAYOUT_VERSION);
        Ok(node.map(|node| Self { dir: dir.to_owned(), layout: node.layout_version }))
    }

    /// The number in its record.
    #[must_use]
    pub const fn layout(&self) -> u32 {
        self.layout
    }

    /// Is there a group that is promoted by hand, whose lease ends by hand only?
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the leases can't be read.
    pub fn is_promoted_by_hand(&self) -> Result<bool, DataPlaneError> {
        let (leases, len) = self.leases()?;
        Ok((0..len).any(|index| leases.load(GroupIndex(index)) == Lease::MANUAL))
    }

    /// Takes every lease away: from now on its programs let nothing through.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the leases can't be written.
    pub fn close(&self) -> Result<(), DataPlaneError> {
        let (leases, len) = self.leases()?;
        (0..len).for_each(|index| leases.clear(GroupIndex(index)));
        Ok(())
    }

    fn leases(&self) -> Result<(LeaseTable, u32), DataPlaneError> {
        let map = pinned(&self.dir, names::LEASES)?;
        let info = map.info().map_err(|e| DataPlaneError::map("look at the leases", e))?;
        if info.value_size() as usize != size_of::<Lease>() {
            return Err(self.unknown());
        }
        Ok((LeaseTable::new(&map, info.max_entries())?, info.max_entries()))
    }

    /// The VIPs that its gates guard.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if they can't be read.
    pub fn vips(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        let map = pinned(&self.dir, names::VIPS_V4)?;
        let info = map.info().map_err(|e| DataPlaneError::map("look at the VIPs", e))?;
        if info.key_size() as usize != size_of::<[u8; 4]>() {
            return Err(self.unknown());
        }
        let (mut vips, mut last) = (BTreeSet::new(), None);
        loop {
            let next = syscalls::next_key(map.fd().as_fd(), last);
            let Some(key) = next.map_err(|e| DataPlaneError::io("read the VIPs", e))? else {
                return Ok(vips);
            };
            vips.insert(IpAddr::from(key));
            last = Some(key);
        }
    }

    fn unknown(&self) -> DataPlaneError {
        DataPlaneError::Layout { found: self.layout, ours: LAYOUT_VERSION }
    }
}
