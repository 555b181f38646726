//! How local clients of groups that other nodes hold leave this host.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use vip_common::GroupIndex;

use super::{Node, NodeError};
use crate::{
    dataplane::attach,
    host::{Host, Place, Reach, is_on_link, source_among},
};

/// The ways out, for all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The first interface that the data plane is on.
    pub ifindex: Option<u32>,
    /// The VIPs of each group, and the source address of their local clients'
    /// packets; `None` leaves the choice to the kernel.
    pub sources: BTreeMap<GroupIndex, Vec<(IpAddr, Option<IpAddr>)>>,
}

impl Ways {
    /// Where local clients of a group's VIPs shall go, depending on whether the
    /// group is here; if there is no way out, they stay here.
    pub fn places(&self, group: GroupIndex, is_here: bool) -> impl Iterator<Item = (IpAddr, Place)> {
        let out = self.ifindex.filter(|_| !is_here);
        let place = move |source| out.map_or(Place::Here, |ifindex| Place::Out { ifindex, source });
        let vips = self.sources.get(&group).into_iter().flatten();
        vips.map(move |(vip, source)| (*vip, place(*source)))
    }
}

/// Whose packets our routing rule is for. With one guarded interface, all but what
/// comes in by that. With several, the host's own processes' alone, since a rule
/// names only one interface; likewise where a VIP is in no subnet of the interface:
/// then its packets may come in by one above it, as for a VLAN.
///
/// # Errors
/// [`NodeError`].
pub fn reach<T>(host: &Host, dir: &Path, vips: &BTreeMap<IpAddr, T>) -> Result<Reach, NodeError> {
    let mut guarded = attach::interfaces(dir)?.into_iter();
    let (Some((ifindex, name)), None) = (guarded.next(), guarded.next()) else {
        return Ok(Reach::Processes);
    };
    // As a port of a bridge its packets come in by that one, though it has an address.
    let is_port = host.interface(&name)?.is_none_or(|link| link.controller.is_some());
    if is_port {
        return Ok(Reach::Processes);
    }
    let addresses = host.addresses(ifindex)?;
    let is_way_in = !addresses.is_empty() && vips.keys().all(|vip| is_on_link(&addresses, *vip));
    Ok(if is_way_in { Reach::AllBut(name) } else { Reach::Processes })
}

impl Node {
    /// Puts on the host what it needs for the VIPs in the map; see [`Host::ensure`].
    pub(super) fn ensure_host(&self) -> Result<Vec<String>, NodeError> {
        let vips = self.vip_groups()?;
        Ok(self.host.ensure(&vips, &reach(&self.host, self.plane.dir(), &vips)?)?)
    }

    /// The ways out as they are now. Reads all VIPs of the map, the pins and the
    /// interface's addresses: ask once for many groups.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn ways(&self) -> Result<Ways, NodeError> {
        let vips = self.vip_groups()?;
        let ifindex = attach::interfaces(self.plane.dir())?.into_keys().next();
        let addresses = ifindex.map(|ifindex| self.host.addresses(ifindex)).transpose()?.unwrap_or_default();
        let mut sources: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (vip, group) in &vips {
            sources.entry(*group).or_default().push((*vip, source_among(&addresses, *vip, &vips)));
        }
        Ok(Ways { ifindex, sources })
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
