//! On which interfaces VIPs are gateways: the programs ask there for their leases before the
//! host forwards anything.

use std::{collections::BTreeMap, net::IpAddr};

use vip_common::{IfaceConfig, VipEntry, layout::Gateways};

use super::{Node, NodeError};

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
}
