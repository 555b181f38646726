//! The connected routes that VIPs with a prefix bring: their subnet is on their
//! interface's link, also where this host has no address in it. They are there on every
//! node, whoever holds, and so no move changes them.
//!
//! They are in the main table, under a metric of our own: by that we know them again,
//! and a route of an administrator's to the same subnet comes first.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::RouteMessageBuilder;

use super::{
    Host, HostError, Tried,
    local_clients::{ABSENT, SPARED, TABLE, all_routes, table_of, unless},
};

/// The metric of our routes, which is the number of our table ("VIP" in ASCII).
const METRIC: u32 = TABLE;

/// A subnet on the link of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
    ifindex: u32,
}

impl Subnet {
    /// The subnet of a VIP, with the length of its prefix in bits. That of an address of
    /// IPv6 is empty.
    #[must_use]
    pub fn of(vip: IpAddr, prefix: u8, ifindex: u32) -> Self {
        let IpAddr::V4(v4) = vip else { return Self { address: Ipv4Addr::UNSPECIFIED, prefix: 32, ifindex } };
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        Self { address: Ipv4Addr::from_bits(v4.to_bits() & !hosts), prefix, ifindex }
    }

    fn route(self) -> RouteMessage {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(self.address, self.prefix);
        let route = route.output_interface(self.ifindex).scope(RouteScope::Link).protocol(SPARED);
        route.priority(METRIC).build()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Host {
    /// The subnets that VIPs have made reachable here.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn connected(&self) -> Result<BTreeSet<Subnet>, HostError> {
        let all = self.runtime.block_on(all_routes(&self.handle))?;
        Ok(all.iter().filter_map(subnet_of).collect())
    }

    /// Makes these subnets, and no others, reachable on their interfaces' links. Returns
    /// what was done, in words; none if everything was there.
    ///
    /// # Errors
    /// [`HostError::Netlink`], of the first that failed; the others were tried.
    pub fn connect(&self, wanted: &BTreeSet<Subnet>) -> Result<Vec<String>, HostError> {
        let there = self.connected()?;
        self.runtime.block_on(async {
            let (mut done, mut failed) = (Vec::new(), None);
            let mut note = |tried: Result<bool, HostError>, what: String| match tried {
                Ok(true) => done.push(what),
                Ok(false) => {}
                // The other subnets shall be there all the same.
                Err(e) => drop(failed.get_or_insert(e)),
            };
            for subnet in there.difference(wanted) {
                let deleted = self.handle.route().del(subnet.route()).execute().await;
                let deleted = unless(deleted, &ABSENT).tried(|| format!("delete the route to {subnet}"));
                note(deleted, format!("deleted the route to {subnet}"));
            }
            for subnet in wanted.difference(&there) {
                let added = self.handle.route().add(subnet.route()).execute().await;
                // An interface that is down, or away, has no routes; the keeper hears of it.
                let added = unless(added, &[libc::EEXIST, libc::ENETDOWN, libc::ENODEV]);
                let added = added.tried(|| format!("add a route to {subnet}"));
                note(added, format!("added a route to {subnet}"));
            }
            failed.map_or(Ok(done), Err)
        })
    }
}

/// The subnet that this route of ours is for.
pub(super) fn subnet_of(route: &RouteMessage) -> Option<Subnet> {
    let (mut metric, mut ifindex, mut address) = (0, None, None);
    for attribute in &route.attributes {
        if let RouteAttribute::Priority(number) = attribute {
            metric = *number;
        } else if let RouteAttribute::Oif(index) = attribute {
            ifindex = Some(*index);
        } else if let RouteAttribute::Destination(RouteAddress::Inet(to)) = attribute {
            address = Some(*to);
        }
    }
    let is_ours = metric == METRIC && table_of(route) == Some(RouteHeader::RT_TABLE_MAIN.into());
    let prefix = route.header.destination_prefix_length;
    is_ours.then_some(Subnet { address: address?, prefix, ifindex: ifindex? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_ours_is_known_again_and_no_other() {
        let vip = IpAddr::from([203, 0, 113, 5]);
        let subnet = Subnet::of(vip, 29, 7);
        assert_eq!(subnet.to_string(), "203.0.113.0/29");
        assert_eq!(Subnet::of(vip, 1, 7).to_string(), "128.0.0.0/1");
        let mut route = subnet.route();
        route.attributes.push(RouteAttribute::Table(254));
        assert_eq!(subnet_of(&route), Some(subnet));
        route.attributes.retain(|a| !matches!(a, RouteAttribute::Priority(_)));
        assert_eq!(subnet_of(&route), None, "the kernel's own");
    }
}
