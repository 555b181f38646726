//! The data plane as user space sees it: loading and pinning the programs,
//! adopting what an earlier process pinned, the lease store, groups and VIPs,
//! counters and events.
//!
//! The engine decides who may hold a lease; [`crate::host`] has the host's
//! addresses, routes and sysctls.

pub mod attach;
pub mod bpffs;
mod clock_check;
mod error;
mod filters;
pub mod former;
mod gateways;
pub mod groups;
pub mod heartbeat;
mod leases;
pub mod load;
pub mod local_in;
mod netlink;
mod nfnetlink;
mod object;
pub mod observe;
mod steer;
mod syscalls;
mod virtual_macs;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use vip_common::{
    GroupConfig, Heard, IfaceConfig, VipEntry,
    counter::Counters,
    layout::{GROUPS_MAX, Gateways, Hops, LAYOUT_VERSION, NodeConfig, VirtualMac, VirtualMacKey},
    names,
};

pub use self::{
    error::DataPlaneError,
    groups::{MapGroup, Site},
    leases::{LeaseTable, Mapped},
};

/// The pinned maps of one node, open for reading and writing.
pub struct DataPlane {
    dir: PathBuf,
    node: NodeConfig,
    /// The kernel's id of the map of leases.
    id: u32,
    leases: LeaseTable,
    groups_view: Mapped<GroupConfig>,
    groups: Array<MapData, GroupConfig>,
    vips: HashMap<MapData, [u8; 4], VipEntry>,
    counters: PerCpuArray<MapData, Counters>,
    heard: Array<MapData, Heard>,
    ifaces: HashMap<MapData, u32, IfaceConfig>,
    gateways: HashMap<MapData, u32, Gateways>,
    gateway_bits: Array<MapData, u64>,
    holders: steer::HolderTable,
    hops: HashMap<MapData, u32, Hops>,
    virtual_macs: HashMap<MapData, VirtualMacKey, VirtualMac>,
    virtual_mac_count: Array<MapData, u32>,
}

impl DataPlane {
    /// Opens the maps that are pinned below `dir`.
    ///
    /// # Errors
    /// [`DataPlaneError::NotLoaded`] if nothing is pinned there,
    /// [`DataPlaneError::Layout`] if those are of another layout.
    pub fn open(dir: &Path) -> Result<Self, DataPlaneError> {
        let node = pinned_node(dir)?.ok_or_else(|| DataPlaneError::NotLoaded { dir: dir.to_owned() })?;
        if node.layout_version != LAYOUT_VERSION {
            return Err(DataPlaneError::Layout { found: node.layout_version, ours: LAYOUT_VERSION });
        }
        let leases = pinned(dir, names::LEASES)?;
        let groups = pinned(dir, names::GROUPS)?;
        Ok(Self {
            dir: dir.to_owned(),
            node,
            id: id_of(&leases)?,
            leases: LeaseTable::new(&leases, GROUPS_MAX)?,
            groups_view: Mapped::new(&groups, GROUPS_MAX)?,
            groups: typed(names::GROUPS, Map::Array(groups))?,
            vips: typed(names::VIPS_V4, Map::HashMap(pinned(dir, names::VIPS_V4)?))?,
            counters: typed(names::COUNTERS, Map::PerCpuArray(pinned(dir, names::COUNTERS)?))?,
            heard: typed(names::HEARD, Map::Array(pinned(dir, names::HEARD)?))?,
            ifaces: typed(names::IFACES, Map::HashMap(pinned(dir, names::IFACES)?))?,
            gateways: typed(names::GATEWAYS, Map::HashMap(pinned(dir, names::GATEWAYS)?))?,
            gateway_bits: typed(names::GATEWAY_BITS, Map::Array(pinned(dir, names::GATEWAY_BITS)?))?,
            holders: steer::HolderTable::new(&pinned(dir, names::HOLDERS)?)?,
            hops: typed(names::HOPS, Map::HashMap(pinned(dir, names::HOPS)?))?,
            virtual_macs: typed(names::VIRTUAL_MACS, Map::HashMap(pinned(dir, names::VIRTUAL_MACS)?))?,
            virtual_mac_count: typed(
                names::VIRTUAL_MAC_COUNT,
                Map::Array(pinned(dir, names::VIRTUAL_MAC_COUNT)?),
            )?,
        })
    }

    /// Are these maps still the ones that are pinned where they were opened?
    ///
    /// # Errors
    /// [`DataPlaneError::Replaced`] if nothing or something else is pinned there.
    pub fn check_pinned(&self) -> Result<(), DataPlaneError> {
        let there =
            pinned_node(&self.dir)?.map(|_| pinned(&self.dir, names::LEASES).and_then(|map| id_of(&map)));
        match there.transpose()? {
            Some(id) if id == self.id => Ok(()),
            Some(_) | None => Err(DataPlaneError::Replaced { dir: self.dir.clone() }),
        }
    }

    /// The lease store.
    #[must_use]
    pub const fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// Where this data plane is pinned.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every VIP and its entry.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn vips(&self) -> Result<BTreeMap<IpAddr, VipEntry>, DataPlaneError> {
        let mut vips = BTreeMap::new();
        for entry in self.vips.iter() {
            let (address, entry) = entry.map_err(|e| DataPlaneError::map("read the VIPs", e))?;
            vips.insert(IpAddr::from(address), entry);
        }
        Ok(vips)
    }

    /// The entry of this VIP; `None` if it is none, or can't be read.
    #[must_use]
    pub fn vip(&self, vip: IpAddr) -> Option<VipEntry> {
        let IpAddr::V4(vip) = vip else { return None };
        self.vips.get(&vip.octets(), 0).ok()
    }

    /// Writes an interface into the map, with the MAC that it answers with.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be written.
    pub fn set_iface(&mut self, ifindex: u32, iface: IfaceConfig) -> Result<(), DataPlaneError> {
        self.ifaces.insert(ifindex, iface, 0).map_err(|e| DataPlaneError::map("write an interface's MAC", e))
    }

    /// Forgets the MACs of interfaces that are gone.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read or written.
    pub fn forget_ifaces(&mut self, is_gone: impl Fn(u32) -> bool) -> Result<(), DataPlaneError> {
        for ifindex in self.ifaces()?.into_keys().filter(|ifindex| is_gone(*ifindex)) {
            self.ifaces.remove(&ifindex).map_err(|e| DataPlaneError::map("forget an interface's MAC", e))?;
        }
        Ok(())
    }

    /// The interfaces, by index.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn ifaces(&self) -> Result<BTreeMap<u32, IfaceConfig>, DataPlaneError> {
        let mut ifaces = BTreeMap::new();
        for entry in self.ifaces.iter() {
            let (ifindex, iface) = entry.map_err(|e| DataPlaneError::map("read the interfaces", e))?;
            ifaces.insert(ifindex, iface);
        }
        Ok(ifaces)
    }
}

/// The `NODE` record pinned below `dir`; `None` if nothing is pinned there, or
/// pins are missing that belong to it.
fn pinned_node(dir: &Path) -> Result<Option<NodeConfig>, DataPlaneError> {
    let path = bpffs::map_path(dir, names::NODE);
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(source) => return Err(DataPlaneError::io(format!("look at {}", path.display()), source)),
    }
    let map: Array<MapData, NodeConfig> = typed(names::NODE, Map::Array(pinned(dir, names::NODE)?))?;
    let node = map.get(&0, 0).map_err(|e| DataPlaneError::map("read the node's record", e))?;
    let is_whole = || names::MAPS.iter().all(|name| bpffs::map_path(dir, name).exists());
    // This version does not know which maps another one has.
    Ok((node.layout_version != LAYOUT_VERSION || is_whole()).then_some(node))
}

fn id_of(map: &MapData) -> Result<u32, DataPlaneError> {
    map.info().map(|info| info.id()).map_err(|e| DataPlaneError::map("look at a map", e))
}

/// The map pinned under `name`.
fn pinned(dir: &Path, name: &'static str) -> Result<MapData, DataPlaneError> {
    MapData::from_pin(bpffs::map_path(dir, name)).map_err(|e| DataPlaneError::map(name, e))
}

/// The map with its key and value types.
fn typed<T>(name: &'static str, map: Map) -> Result<T, DataPlaneError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    T::try_from(map).map_err(|e| DataPlaneError::map(name, e))
}
