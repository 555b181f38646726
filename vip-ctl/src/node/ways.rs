//! How local clients of groups that are held elsewhere leave this host.

use std::{collections::BTreeMap, net::IpAddr};

use vip_common::GroupIndex;

use super::{Node, NodeError};
use crate::{
    dataplane::attach,
    host::{Place, source_among},
};

/// The ways out, for all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The first interface that the data plane is on.
    pub ifindex: Option<u32>,
    /// The VIPs of each group, and the address that packets of their local
    /// clients carry; `None` leaves the choice to the kernel.
    pub sources: BTreeMap<GroupIndex, Vec<(IpAddr, Option<IpAddr>)>>,
}

impl Ways {
    /// Where local clients of a group's VIPs are to go, if the group is here
    /// and if it is not; those without a way out stay here.
    pub fn places(&self, group: GroupIndex, is_here: bool) -> impl Iterator<Item = (IpAddr, Place)> {
        let out = self.ifindex.filter(|_| !is_here);
        let place = move |source| out.map_or(Place::Here, |ifindex| Place::Out { ifindex, source });
        let vips = self.sources.get(&group).into_iter().flatten();
        vips.map(move |(vip, source)| (*vip, place(*source)))
    }
}

impl Node {
    /// The ways out as they are now. Reads all VIPs of the map, the pins and
    /// the interface's addresses: to be asked once for many groups.
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

    /// Lets a group's local clients go where it is.
    ///
    /// # Errors
    /// [`NodeError`]; then some of its VIPs may have been left out.
    pub fn place_group(&self, group: GroupIndex, is_here: bool) -> Result<(), NodeError> {
        for (vip, place) in self.ways()?.places(group, is_here) {
            self.host.place_local_clients(vip, place)?;
        }
        Ok(())
    }
}
