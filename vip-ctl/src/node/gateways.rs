//! On which interfaces VIPs are gateways: the programs ask there for their leases before the
//! host forwards anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vip_common::{GroupIndex, IfaceConfig, VipEntry, VipSlot, layout::Gateways};

use super::{GroupSetup, Node, NodeError, sites};
use crate::dataplane::{DataPlane, Site};

/// The gateways of each interface that has any. A configuration with too many of them is
/// refused.
fn by_interface(
    vips: &BTreeMap<IpAddr, VipEntry>,
    ifaces: &BTreeMap<u32, IfaceConfig>,
) -> BTreeMap<u32, Gateways> {
    let mut gateways = BTreeMap::new();
    for (ifindex, iface) in ifaces {
        let is_here = |entry: &VipEntry| entry.is_gateway() && entry.is_at_home(*ifindex, *iface);
        let here = vips.iter().filter(|(_, entry)| is_here(entry)).filter_map(|(vip, _)| match vip {
            IpAddr::V4(vip) => Some(vip.octets()),
            IpAddr::V6(_) => None,
        });
        gateways.extend(Gateways::of(here).map(|here| (*ifindex, here)));
    }
    gateways
}

/// The gateways of these groups, with those that no lease covers yet: as long as the programs
/// don't know a gateway, they forward nothing for it.
pub(super) fn of_groups(groups: &[GroupSetup]) -> BTreeMap<IpAddr, VipEntry> {
    let mut gateways = BTreeMap::new();
    for group in groups.iter().filter(|group| group.is_gateway) {
        let mut all = group.clone();
        all.vips.extend(&group.waiting);
        let entry = |site: Site| site.entry(GroupIndex::default(), VipSlot::NODE);
        let sites = sites::of_group(&all, sites::index_of);
        gateways.extend(sites.into_iter().map(|(vip, site)| (vip, entry(site))));
    }
    gateways
}

/// These VIPs of the map but those that are about to go, and the gateways.
fn with(
    vips: &BTreeMap<IpAddr, VipEntry>,
    going: &BTreeSet<IpAddr>,
    gateways: &BTreeMap<IpAddr, VipEntry>,
) -> BTreeMap<IpAddr, VipEntry> {
    let stays = |(vip, _): &(&IpAddr, &VipEntry)| !going.contains(vip);
    let mut all: BTreeMap<_, _> = vips.iter().filter(stays).map(|(vip, entry)| (*vip, *entry)).collect();
    for (vip, entry) in gateways {
        all.entry(*vip).and_modify(|there| there.flags |= entry.flags).or_insert(*entry);
    }
    all
}

/// First of a change to these groups: their gateways are fenced from now on, and VIPs that are
/// about to go are gateways no more. In between, nothing is let through.
pub(super) fn prepare(
    plane: &mut DataPlane,
    vips: &BTreeMap<IpAddr, VipEntry>,
    going: &BTreeSet<IpAddr>,
    groups: &[GroupSetup],
) -> Result<(), NodeError> {
    let gateways = of_groups(groups);
    if gateways.is_empty() && !vips.values().any(|entry| entry.is_gateway()) {
        return Ok(());
    }
    let wanted = by_interface(&with(vips, going, &gateways), &plane.ifaces()?);
    Ok(plane.set_gateways(&wanted)?)
}

impl Node {
    /// Writes which of these VIPs are gateways on which interface, where it differs.
    pub(super) fn write_gateways(&mut self, vips: &BTreeMap<IpAddr, VipEntry>) -> Result<(), NodeError> {
        let ifaces = self.plane.ifaces()?;
        let wanted = if self.gateways.is_empty() {
            by_interface(vips, &ifaces)
        } else {
            by_interface(&with(vips, &BTreeSet::new(), &self.gateways), &ifaces)
        };
        Ok(self.plane.set_gateways(&wanted)?)
    }
}

#[cfg(test)]
mod tests {
    use vip_common::layout::ANYWHERE;

    use super::*;

    #[test]
    fn a_vip_is_a_gateway_where_it_is_announced() {
        let vip = |last: u8| [10, 0, 1, last];
        let entry = |home, flags| VipEntry { home, flags, ..VipEntry::default() };
        let vips = BTreeMap::from([
            (vip(1).into(), entry(3, VipEntry::GATEWAY)),
            (vip(2).into(), entry(ANYWHERE, VipEntry::GATEWAY)),
            (vip(3).into(), entry(4, 0)),
        ]);
        let silent = IfaceConfig { flags: IfaceConfig::SILENT, ..IfaceConfig::default() };
        let plain = IfaceConfig::default();
        let ifaces = BTreeMap::from([(2, silent), (3, plain), (4, plain)]);
        let found = by_interface(&vips, &ifaces);
        let of = |vips: &[[u8; 4]]| Gateways::of(vips.iter().copied()).expect("some");
        assert_eq!(found, [(3, of(&[vip(1), vip(2)])), (4, of(&[vip(2)]))].into());
        let none = BTreeMap::from([(vip(3).into(), entry(4, 0))]);
        assert_eq!(by_interface(&none, &ifaces), BTreeMap::new());
    }

    #[test]
    fn a_gateway_that_no_lease_covers_is_one_and_a_vip_that_goes_for_good_is_none() {
        let vip = |last: u8| IpAddr::from([10, 0, 1, last]);
        let entry = |flags| VipEntry { flags, ..VipEntry::default() };
        let all = [(1, VipEntry::GATEWAY), (2, VipEntry::GATEWAY), (3, VipEntry::GATEWAY), (4, 0), (5, 0)];
        let vips = all.map(|(last, flags)| (vip(last), entry(flags))).into();
        let group = |is_gateway, vips, waiting| GroupSetup {
            name: "g".into(),
            mode: vip_common::GroupMode::Cluster,
            hold: std::time::Duration::ZERO,
            vips,
            homes: BTreeMap::new(),
            is_gateway,
            waiting,
            virtual_mac: None,
        };
        // 1 goes to another group, 2 for good; 4 becomes a gateway, 6 waits for a lease.
        let groups = [group(true, vec![vip(1), vip(4)], vec![vip(6)]), group(false, vec![vip(5)], vec![])];
        let after = with(&vips, &[vip(1), vip(2)].into(), &of_groups(&groups));
        let are: Vec<_> = after.iter().map(|(vip, entry)| (*vip, entry.is_gateway())).collect();
        let expected = [(1, true), (3, true), (4, true), (5, false), (6, true)];
        assert_eq!(are, expected.map(|(last, is_gateway)| (vip(last), is_gateway)));
    }
}
