//! How local clients of groups that other nodes hold leave this host, and the subnets
//! that VIPs bring with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use vip_common::{GroupIndex, IfaceConfig, VipEntry};

use super::{Node, NodeError, sites};
use crate::{
    dataplane::attach,
    host::{Host, Place, Reach, is_on_link, source_among},
};

/// The ways out, for all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The VIPs of each group, and where their local clients go while another node holds
    /// them; if there is no way out, they stay here.
    pub outs: BTreeMap<GroupIndex, Vec<(IpAddr, Place)>>,
}

impl Ways {
    /// Where local clients of a group's VIPs shall go, depending on whether the
    /// group is here.
    pub fn places(&self, group: GroupIndex, is_here: bool) -> impl Iterator<Item = (IpAddr, Place)> {
        let vips = self.outs.get(&group).into_iter().flatten();
        vips.map(move |(vip, out)| (*vip, if is_here { Place::Here } else { *out }))
    }
}

/// Whose packets our routing rule is for: all but what comes in by the guarded interfaces.
/// It is for the host's own processes alone where packets for a VIP may come in by others,
/// too: by those above, as of a VLAN, where a guarded interface has neither an address nor a
/// VIP of its own, or where a VIP is in no subnet of one and names none.
///
/// # Errors
/// [`NodeError`].
pub fn reach(host: &Host, dir: &Path, vips: &BTreeMap<IpAddr, VipEntry>) -> Result<Reach, NodeError> {
    let guarded = attach::interfaces(dir)?;
    let (present, mut addresses) = (host.interfaces()?, host.all_addresses()?);
    addresses.retain(|ifindex, _| guarded.contains_key(ifindex));
    let is_home = |ifindex: &u32| vips.values().any(|entry| entry.home == *ifindex);
    // As a port of a bridge its packets come in by that one, though it has an address.
    let is_way_in = |ifindex: &u32| {
        present.get(ifindex).is_some_and(|link| link.controller.is_none())
            && (addresses.contains_key(ifindex) || is_home(ifindex))
    };
    let is_here = |(vip, entry): (&IpAddr, &VipEntry)| {
        guarded.contains_key(&entry.home) || addresses.values().any(|own| is_on_link(own, *vip))
    };
    let is_all = !guarded.is_empty() && guarded.keys().all(is_way_in) && vips.iter().all(is_here);
    Ok(if is_all { Reach::AllBut(guarded.into_values().collect()) } else { Reach::Processes })
}

/// The interfaces with the data plane on them, and their addresses.
pub(super) struct Exits {
    ifaces: BTreeMap<u32, IfaceConfig>,
    addresses: BTreeMap<u32, Vec<(IpAddr, u8)>>,
    /// Those that are ports of a VRF.
    in_vrfs: BTreeSet<u32>,
}

impl Exits {
    pub(super) fn addresses(&self, ifindex: u32) -> &[(IpAddr, u8)] {
        self.addresses.get(&ifindex).map_or(&[], Vec::as_slice)
    }

    /// The source of packets that leave by this interface. The kernel takes an address of a
    /// VRF for none of this host in a table outside of that, and finds the right one itself.
    fn source<T>(&self, ifindex: u32, vip: IpAddr, vips: &BTreeMap<IpAddr, T>) -> Option<IpAddr> {
        let is_outside = !self.in_vrfs.contains(&ifindex);
        is_outside.then(|| source_among(self.addresses(ifindex), vip, vips)).flatten()
    }

    pub(super) fn of(&self, vip: IpAddr, entry: &VipEntry) -> Option<u32> {
        let is_on_link = |ifindex, vip| is_on_link(self.addresses(ifindex), vip);
        sites::exit_of(vip, entry, &self.ifaces, is_on_link)
    }
}

impl Node {
    /// Puts on the host what it needs for the VIPs in the map; see [`Host::ensure`].
    pub(super) fn ensure_host(&mut self) -> Result<Vec<String>, NodeError> {
        let vips = self.plane.vips()?;
        self.write_gateways(&vips)?;
        let let_in = self.write_virtual_macs(&vips);
        let mut done = self.host.ensure(&vips, &reach(&self.host, self.plane.dir(), &vips)?)?;
        done.extend(let_in?);
        let foreign = self.foreign(&vips)?;
        let connected = self.host.connect(&foreign.iter().map(|vip| vip.subnet).collect());
        self.write_asks(&foreign)?;
        done.extend(connected?);
        Ok(done)
    }

    pub(super) fn exits(&self) -> Result<Exits, NodeError> {
        let guarded = attach::interfaces(self.plane.dir())?;
        let mut ifaces = self.plane.ifaces()?;
        ifaces.retain(|ifindex, _| guarded.contains_key(ifindex));
        let mut addresses = self.host.all_addresses()?;
        addresses.retain(|ifindex, _| ifaces.contains_key(ifindex));
        let present = self.host.interfaces()?;
        let is_vrf = |index: &u32| present.get(index).is_some_and(|link| link.kind.as_deref() == Some("vrf"));
        let ports = present.values().filter(|link| link.controller.as_ref().is_some_and(is_vrf));
        let in_vrfs = ports.map(|link| link.index).collect();
        Ok(Exits { ifaces, addresses, in_vrfs })
    }

    /// The ways out as they are now. Reads all VIPs of the map, the pins and the
    /// interfaces' addresses: ask once for many groups.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn ways(&self) -> Result<Ways, NodeError> {
        let (vips, exits) = (self.plane.vips()?, self.exits()?);
        let mut outs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (vip, entry) in &vips {
            let out = exits.of(*vip, entry).map_or(Place::Here, |ifindex| {
                let source = exits.source(ifindex, *vip, &vips);
                Place::Out { ifindex, source }
            });
            outs.entry(entry.group).or_default().push((*vip, out));
        }
        Ok(Ways { outs })
    }

    /// Makes a group's local clients go to the group's holder.
    ///
    /// # Errors
    /// [`NodeError`]; then some of the group's VIPs may be unchanged.
    pub fn place_group(&self, group: GroupIndex, is_here: bool) -> Result<(), NodeError> {
        for (vip, place) in self.ways()?.places(group, is_here) {
            self.host.place_local_clients(vip, place)?;
        }
        Ok(())
    }
}
