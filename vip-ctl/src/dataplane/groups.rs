//! Groups and VIPs in the maps: adding, finding, removing.
//!
//! The order of writes makes it safe: a VIP is in the map only while its group
//! is, and a group's lease is zero before the group leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use aya::maps::PerCpuValues;
use vip_common::{
    BootNs, Fence, GroupConfig, GroupIndex, GroupMode, Heard, Lease, VipEntry, VipSlot,
    counter::Counters,
    fence,
    layout::{GROUP_NAME_LEN, GROUPS_MAX, Holder},
};

use super::{DataPlane, DataPlaneError};

/// A group as the maps have it.
#[derive(Clone, Debug)]
pub struct MapGroup {
    /// Its place.
    pub index: GroupIndex,
    /// Its name.
    pub name: String,
    /// Who writes its lease.
    pub mode: GroupMode,
    /// The longest lease it can have, in nanoseconds.
    pub hold_ns_max: u64,
}

/// Where a VIP belongs on this host, as the map of VIPs has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The index of its interface, or one of [`vip_common::layout`]'s.
    pub home: u32,
    /// The length of its subnet's prefix, in bits; 0 for none.
    pub prefix: u8,
    /// Is it a gateway for hosts there?
    pub is_gateway: bool,
    /// The MAC that moves with it, if it has one.
    pub virtual_mac: Option<[u8; 6]>,
}

impl Site {
    /// The entry of a VIP of this group that is counted there.
    #[must_use]
    pub fn entry(self, group: GroupIndex, slot: VipSlot) -> VipEntry {
        let flags = if self.is_gateway { VipEntry::GATEWAY } else { 0 };
        let mac = self.virtual_mac.unwrap_or_default();
        VipEntry { group, slot, home: self.home, prefix: self.prefix, flags, mac }
    }
}

impl MapGroup {
    /// What the kernel says of this group at `now`, with this lease.
    #[must_use]
    pub const fn fence(&self, lease: Lease, now: BootNs) -> Fence {
        fence(self.mode, lease, self.hold_ns_max, now)
    }
}

impl DataPlane {
    /// Every group.
    #[must_use]
    pub fn groups(&self) -> Vec<MapGroup> {
        (0..GROUPS_MAX).filter_map(|index| self.group_at(GroupIndex(index))).collect()
    }

    /// Every VIP and its entry, by group and in the order of the addresses.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn vips_by_group(&self) -> Result<BTreeMap<GroupIndex, Vec<(IpAddr, VipEntry)>>, DataPlaneError> {
        Ok(by_group(self.vips()?))
    }

    /// The group at this place.
    #[must_use]
    pub fn group_at(&self, index: GroupIndex) -> Option<MapGroup> {
        let config = self.groups_view.get(index.0)?;
        let mode = GroupMode::from_word(config.mode);
        if mode == GroupMode::Unused {
            return None;
        }
        let len = config.name.iter().position(|b| *b == 0).unwrap_or(GROUP_NAME_LEN);
        let name = String::from_utf8_lossy(&config.name[..len]).into_owned();
        Some(MapGroup { index, name, mode, hold_ns_max: config.hold_ns_max })
    }

    /// The group with this name, or the one that has this VIP.
    ///
    /// # Errors
    /// [`DataPlaneError::NoSuchGroup`].
    pub fn find_group(&self, name: &str) -> Result<MapGroup, DataPlaneError> {
        if let Some(group) = self.groups().into_iter().find(|g| g.name == name) {
            return Ok(group);
        }
        if let Ok(address) = name.parse::<IpAddr>()
            && let Some(entry) = self.vips()?.get(&address)
            && let Some(group) = self.group_at(entry.group)
        {
            return Ok(group);
        }
        Err(DataPlaneError::NoSuchGroup { name: name.to_owned() })
    }

    /// Adds a group, or changes the mode and the longest lease of one that is
    /// there: [`DataPlane::put_groups`] of one.
    ///
    /// # Errors
    /// As there.
    pub fn put_group(
        &mut self,
        name: &str,
        mode: GroupMode,
        hold: Duration,
    ) -> Result<GroupIndex, DataPlaneError> {
        let put = self.put_groups([(name, mode, hold)])?;
        put.first().copied().ok_or(DataPlaneError::Full { what: "group", limit: GROUPS_MAX })
    }

    /// Adds groups, or changes the mode and the longest lease of those that are
    /// there; returns their places. A group with a new mode starts without a
    /// lease: one writer's lease means nothing to the other. Reads the map once:
    /// there can be ten thousand groups.
    ///
    /// # Errors
    /// [`DataPlaneError::Full`] if there is no room; the groups before that are
    /// there.
    pub fn put_groups<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (&'a str, GroupMode, Duration)>,
    ) -> Result<Vec<GroupIndex>, DataPlaneError> {
        let groups = self.groups();
        let used: BTreeSet<_> = groups.iter().map(|group| group.index.0).collect();
        let mut there: BTreeMap<_, _> =
            groups.into_iter().map(|group| (group.name, (group.index, group.mode))).collect();
        let mut free = (0..GROUPS_MAX).filter(|index| !used.contains(index)).map(GroupIndex);
        let mut places = Vec::new();
        for (name, mode, hold) in wanted {
            let index = match there.get(name) {
                Some((index, known)) if *known == mode => *index,
                Some((index, _)) => {
                    self.leases.clear(*index);
                    *index
                }
                None => {
                    let index =
                        free.next().ok_or(DataPlaneError::Full { what: "group", limit: GROUPS_MAX })?;
                    self.leases.clear(index);
                    self.note_holder(index, Holder::NOBODY);
                    index
                }
            };
            there.insert(name.to_owned(), (index, mode));
            let hold_ns_max = u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX);
            let mut config =
                GroupConfig { mode: mode as u32, pad: 0, hold_ns_max, name: [0; GROUP_NAME_LEN] };
            let bytes = name.as_bytes();
            let len = bytes.len().min(GROUP_NAME_LEN);
            config.name[..len].copy_from_slice(&bytes[..len]);
            self.write_group(index, config)?;
            places.push(index);
        }
        Ok(places)
    }

    /// Removes groups and their VIPs; clears their leases first. Reads the map
    /// once.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if a map can't be written.
    pub fn remove_groups(&mut self, groups: &BTreeSet<GroupIndex>) -> Result<(), DataPlaneError> {
        if groups.is_empty() {
            return Ok(());
        }
        for group in groups {
            self.leases.clear(*group);
            self.note_holder(*group, Holder::NOBODY);
        }
        for (vip, entry) in self.vips()? {
            if groups.contains(&entry.group) {
                self.remove_vip(vip)?;
            }
        }
        for group in groups {
            self.write_group(*group, GroupConfig::default())?;
        }
        Ok(())
    }

    /// Adds VIPs to groups; their counters start at zero. Those that are there get their
    /// site. Returns those that are new. Reads the map once: there can be ten thousand.
    ///
    /// # Errors
    /// [`DataPlaneError::VipTaken`] if one is in another group,
    /// [`DataPlaneError::Ipv6Vip`] if one is IPv6, [`DataPlaneError::Full`] if
    /// there is no room; the VIPs before that are there.
    pub fn put_vips(
        &mut self,
        wanted: impl IntoIterator<Item = (IpAddr, GroupIndex, Site)>,
    ) -> Result<Vec<IpAddr>, DataPlaneError> {
        let mut there = self.vips()?;
        let used: BTreeSet<u32> = there.values().map(|e| e.slot.0).collect();
        // Slot 0 is the node's own.
        let mut free = (1..=self.node.vips_max).filter(|slot| !used.contains(slot));
        let cpus = aya::util::nr_cpus().map_err(|(_, e)| DataPlaneError::io("count the CPUs", e))?;
        let mut came = Vec::new();
        for (vip, group, site) in wanted {
            if let Some(entry) = there.get(&vip) {
                if entry.group == group {
                    self.settle_vip(vip, *entry, site)?;
                    continue;
                }
                let group = self.group_at(entry.group).map_or_else(String::new, |g| g.name);
                return Err(DataPlaneError::VipTaken { vip, group });
            }
            let key = key_of(vip)?;
            let slot = free.next().ok_or(DataPlaneError::Full { what: "VIP", limit: self.node.vips_max })?;
            let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
                .map_err(|e| DataPlaneError::io("clear counters", e))?;
            self.counters.set(slot, zero, 0).map_err(|e| DataPlaneError::map("clear counters", e))?;
            self.heard.set(slot, Heard::default(), 0).map_err(|e| DataPlaneError::map("write a VIP", e))?;
            let entry = site.entry(group, VipSlot(slot));
            self.vips.insert(key, entry, 0).map_err(|e| DataPlaneError::map("write a VIP", e))?;
            there.insert(vip, entry);
            came.push(vip);
        }
        Ok(came)
    }

    /// Gives a VIP that is there another site.
    fn settle_vip(&mut self, vip: IpAddr, entry: VipEntry, site: Site) -> Result<(), DataPlaneError> {
        let settled = site.entry(entry.group, entry.slot);
        if settled == entry {
            return Ok(());
        }
        self.vips.insert(key_of(vip)?, settled, 0).map_err(|e| DataPlaneError::map("write a VIP", e))
    }

    /// Is there room for this many VIPs in all?
    ///
    /// # Errors
    /// [`DataPlaneError::Full`] if there is not.
    pub fn has_room_for(&self, vips: usize) -> Result<(), DataPlaneError> {
        let limit = self.node.vips_max;
        if u32::try_from(vips).is_ok_and(|vips| vips <= limit) {
            return Ok(());
        }
        Err(DataPlaneError::Full { what: "VIP", limit })
    }

    /// Removes a VIP from the map. From then on nothing guards its address: the
    /// host must no longer have it.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be written,
    /// [`DataPlaneError::Ipv6Vip`] if it has no place for the address.
    pub fn remove_vip(&mut self, vip: IpAddr) -> Result<(), DataPlaneError> {
        self.vips.remove(&key_of(vip)?).map_err(|e| DataPlaneError::map("remove a VIP", e))
    }

    fn write_group(&mut self, group: GroupIndex, config: GroupConfig) -> Result<(), DataPlaneError> {
        self.groups.set(group.0, config, 0).map_err(|e| DataPlaneError::map("write a group", e))
    }
}

/// The VIPs of each group, in one pass: there may be ten thousand groups and ten
/// times as many VIPs.
fn by_group(vips: BTreeMap<IpAddr, VipEntry>) -> BTreeMap<GroupIndex, Vec<(IpAddr, VipEntry)>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (address, entry) in vips {
        groups.entry(entry.group).or_default().push((address, entry));
    }
    groups
}

/// A VIP's key in the map `VIPS_V4`: the address in network order.
fn key_of(vip: IpAddr) -> Result<[u8; 4], DataPlaneError> {
    match vip {
        IpAddr::V4(vip) => Ok(vip.octets()),
        IpAddr::V6(_) => Err(DataPlaneError::Ipv6Vip { vip }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn each_group_gets_its_own_vips_in_order() {
        let entry = |group: u32, slot: u32| VipEntry {
            group: GroupIndex(group),
            slot: VipSlot(slot),
            ..VipEntry::default()
        };
        let address = |last: u8| IpAddr::from([10, 0, 1, last]);
        let vips = [(address(9), entry(2, 1)), (address(3), entry(2, 2)), (address(5), entry(1, 3))];
        let groups = by_group(vips.into());
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[&GroupIndex(2)], [(address(3), entry(2, 2)), (address(9), entry(2, 1))]);
        assert_eq!(groups[&GroupIndex(1)], [(address(5), entry(1, 3))]);
    }

    #[test]
    fn an_ipv6_vip_is_refused_at_the_map() {
        assert_eq!(key_of([10, 0, 1, 12].into()).ok(), Some([10, 0, 1, 12]));
        // Also where an IPv4 address is in it: the frames to it would be IPv6.
        for vip in ["2001:db8::12", "::ffff:10.0.1.12"] {
            let error = key_of(vip.parse().unwrap()).expect_err("the map has no place for it");
            assert_eq!(error.exit(), Exit::Usage);
            assert!(error.to_string().contains(vip), "{error}");
        }
    }
}
