//! On which interfaces VIPs are gateways: the programs ask there for their leases before the
//! host forwards anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vip_common::{IfaceConfig, VipEntry, layout::Gateways};

use super::{GroupSetup, Node, NodeError};
use crate::dataplane::DataPlane;

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

/// The VIPs without those that are about to go and that none of these groups has for a
/// gateway afterwards. One that goes from one group to another is a gateway all the time: as
/// long as the programs don't know a gateway, they forward nothing for it.
fn staying(
    vips: &BTreeMap<IpAddr, VipEntry>,
    going: &BTreeSet<IpAddr>,
    groups: &[GroupSetup],
) -> BTreeMap<IpAddr, VipEntry> {
    let after = groups.iter().filter(|group| group.is_gateway).flat_map(|group| &group.vips);
    let after: BTreeSet<_> = after.collect();
    let stays = |(vip, _): &(&IpAddr, &VipEntry)| !going.contains(vip) || after.contains(vip);
    vips.iter().filter(stays).map(|(vip, entry)| (*vip, *entry)).collect()
}

/// Takes VIPs off the gateways before they go.
pub(super) fn forget(
    plane: &mut DataPlane,
    vips: &BTreeMap<IpAddr, VipEntry>,
    going: &BTreeSet<IpAddr>,
    groups: &[GroupSetup],
) -> Result<(), NodeError> {
    if !going.iter().any(|vip| vips.get(vip).is_some_and(|entry| entry.is_gateway())) {
        return Ok(());
    }
    let wanted = by_interface(&staying(vips, going, groups), &plane.ifaces()?);
    Ok(plane.set_gateways(&wanted)?)
}

impl Node {
    /// Writes which of these VIPs are gateways on which interface, where it differs.
    pub(super) fn write_gateways(&mut self, vips: &BTreeMap<IpAddr, VipEntry>) -> Result<(), NodeError> {
        let wanted = by_interface(vips, &self.plane.ifaces()?);
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
    fn a_vip_that_goes_is_no_gateway_unless_it_goes_to_another_group() {
        let vip = |last: u8| IpAddr::from([10, 0, 1, last]);
        let entry = |flags| VipEntry { flags, ..VipEntry::default() };
        let all = [(1, VipEntry::GATEWAY), (2, VipEntry::GATEWAY), (3, VipEntry::GATEWAY), (4, 0)];
        let vips = all.map(|(last, flags)| (vip(last), entry(flags))).into();
        let group = |is_gateway, vips| GroupSetup {
            name: "g".into(),
            mode: vip_common::GroupMode::Cluster,
            hold: std::time::Duration::ZERO,
            vips,
            homes: BTreeMap::new(),
            is_gateway,
        };
        let groups = [group(true, vec![vip(1)]), group(false, vec![vip(2)])];
        let left = staying(&vips, &[vip(1), vip(2)].into(), &groups);
        assert_eq!(left.into_keys().collect::<Vec<_>>(), [vip(1), vip(3), vip(4)]);
    }
}
