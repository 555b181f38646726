//! How local clients of groups that are held elsewhere leave this host.

use std::{collections::BTreeMap, net::Ipv4Addr};

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
    /// The address that their packets carry; `None` leaves the choice to the
    /// kernel. A group without a VIP is not in here.
    pub sources: BTreeMap<GroupIndex, Option<Ipv4Addr>>,
}

impl Ways {
    /// The way out of a group's local clients; those without any stay here.
    #[must_use]
    pub fn out(&self, group: GroupIndex) -> Place {
        match (self.ifindex, self.sources.get(&group)) {
            (Some(ifindex), Some(source)) => Place::Out { ifindex, source: *source },
            (None, _) | (_, None) => Place::Here,
        }
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
        // By the lowest VIP of each group.
        let by_group: BTreeMap<_, _> = vips.iter().rev().map(|(vip, group)| (*group, *vip)).collect();
        let source = |(group, vip)| (group, source_among(&addresses, vip, &vips));
        Ok(Ways { ifindex, sources: by_group.into_iter().map(source).collect() })
    }
}
