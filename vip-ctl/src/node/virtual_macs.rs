//! Virtual MACs of groups: on which interfaces the programs take what is for them, and which
//! interfaces let it in. Those that can't are refused: a node that is deaf to the VIP's clients
//! must not look as if it could serve them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use vip_common::{
    IfaceConfig, VipEntry,
    layout::{VirtualMac, VirtualMacKey},
};

use super::{Node, NodeError, Setup};
use crate::{
    dataplane::attach::{self, Presence},
    home::is_on,
    host::{Interface, LetIn},
    mode::Mode,
    mutant::{self, Mutant},
};

/// The virtual MACs of each interface, and whose they are.
fn by_interface(
    vips: &BTreeMap<IpAddr, VipEntry>,
    ifaces: &BTreeMap<u32, IfaceConfig>,
) -> BTreeMap<VirtualMacKey, VirtualMac> {
    let mut found = BTreeMap::new();
    for (vip, entry) in vips {
        let (IpAddr::V4(vip), Some(mac)) = (vip, entry.virtual_mac()) else { continue };
        let is_home = |(ifindex, iface): &(&u32, &IfaceConfig)| {
            entry.is_at_home(**ifindex, **iface) || mutant::is(Mutant::MacEverywhere)
        };
        for (ifindex, _) in ifaces.iter().filter(is_home) {
            let key = VirtualMacKey { ifindex: *ifindex, mac, pad: [0; 2] };
            let of = VirtualMac { group: entry.group, slot: entry.slot, vip: vip.octets() };
            found.entry(key).or_insert(of);
        }
    }
    found
}

/// Refuses groups with a virtual MAC on interfaces that could not receive what is for it.
///
/// # Errors
/// [`NodeError::Deaf`].
pub(super) fn refuse_deaf(
    dir: &Path,
    setup: &Setup,
    present: &BTreeMap<u32, Interface>,
) -> Result<(), NodeError> {
    for group in setup.groups.iter().filter(|group| group.virtual_mac.is_some()) {
        for iface in setup.interfaces.iter().filter(|name| !setup.silent.contains(*name)) {
            let is_announced = group.vips.iter().any(|vip| is_on(&group.homes, vip, iface));
            let Some(link) = present.values().find(|link| link.name == *iface && is_announced) else {
                continue;
            };
            if let Some(why) = deaf(dir, link, setup.mode(iface)) {
                return Err(NodeError::Deaf { group: group.name.clone(), iface: iface.clone(), why });
            }
        }
    }
    Ok(())
}

/// Why an interface, whose way in shall run in this mode, can't receive what is for another
/// hardware address than its own. `dir`: where what runs is pinned.
#[must_use]
pub fn deaf(dir: &Path, link: &Interface, mode: Mode) -> Option<&'static str> {
    let is_native = match mode {
        Mode::Native => true,
        Mode::Auto => attach::presence(dir, link) == Presence::Runs(Mode::Native),
        Mode::Tc | Mode::Generic => false,
    };
    deaf_as(link.kind.as_deref(), is_native)
}

/// The same of an interface of this kind; `is_native`: XDP runs in its driver.
fn deaf_as(kind: Option<&str>, is_native: bool) -> Option<&'static str> {
    match kind.filter(|_| !mutant::is(Mutant::DeafServes))? {
        "bridge" => Some("a bridge would keep it from its own ports on nodes that do not hold it"),
        "macvlan" | "macvtap" => Some("a macvlan receives what is for its own hardware address alone"),
        "ipvlan" | "ipvtap" => Some("an ipvlan has the hardware address of the interface below it"),
        "vxlan" => Some("the kernel takes such an entry of a VXLAN for a way to another host"),
        "veth" if is_native => {
            Some("a veth takes it for another host's in native mode: choose mode = \"tc\" there")
        }
        _ => None,
    }
}

impl Node {
    /// Writes which virtual MACs are on which interface, and makes those let them in. Returns
    /// in words what that changed.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn write_virtual_macs(
        &mut self,
        vips: &BTreeMap<IpAddr, VipEntry>,
    ) -> Result<Vec<String>, NodeError> {
        let wanted = by_interface(vips, &self.plane.ifaces()?);
        self.plane.set_virtual_macs(&wanted)?;
        self.let_in_again()
    }

    /// Makes the interfaces let in the virtual MACs of the map: netlink does not tell when
    /// somebody takes one off. Returns in words what that changed.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn let_in_again(&self) -> Result<Vec<String>, NodeError> {
        let known = self.plane.virtual_macs()?;
        let let_in: BTreeSet<_> =
            known.keys().map(|key| LetIn { ifindex: key.ifindex, mac: key.mac }).collect();
        Ok(self.host.let_in(&let_in)?)
    }
}

#[cfg(test)]
mod tests {
    use vip_common::{GroupIndex, layout::ANYWHERE};

    use super::*;

    #[test]
    fn it_is_where_the_groups_vips_are_announced() {
        let (one, other) = ([0, 0, 0x5e, 0, 1, 1], [0, 0, 0x5e, 0, 1, 2]);
        let vip = |last: u8| [10, 0, 1, last];
        let entry =
            |home, group, mac| VipEntry { home, group: GroupIndex(group), mac, ..VipEntry::default() };
        let vips = BTreeMap::from([
            (vip(1).into(), entry(3, 1, one)),
            (vip(2).into(), entry(3, 1, one)),
            (vip(3).into(), entry(ANYWHERE, 2, other)),
            (vip(4).into(), entry(3, 3, [0; 6])),
        ]);
        let silent = IfaceConfig { flags: IfaceConfig::SILENT, ..IfaceConfig::default() };
        let ifaces = BTreeMap::from([(2, silent), (3, IfaceConfig::default()), (4, IfaceConfig::default())]);
        let found = by_interface(&vips, &ifaces);
        let found: Vec<_> =
            found.iter().map(|(key, of)| (key.ifindex, key.mac, of.group.0, of.vip)).collect();
        assert_eq!(found, [(3, one, 1, vip(1)), (3, other, 2, vip(3)), (4, other, 2, vip(3))]);
    }

    #[test]
    fn what_can_not_receive_it_is_told() {
        for kind in ["bridge", "macvlan", "vxlan", "ipvlan"] {
            assert!(deaf_as(Some(kind), false).is_some(), "{kind}");
        }
        assert!(deaf_as(Some("veth"), true).is_some_and(|why| why.contains("tc")));
        for (kind, is_native) in
            [(None, true), (Some("veth"), false), (Some("bond"), false), (Some("vlan"), false)]
        {
            assert_eq!(deaf_as(kind, is_native), None, "{kind:?}");
        }
    }
}
