//! Where VIPs belong: from names of interfaces to their indices, and the subnets that
//! VIPs make reachable on their interfaces' links.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use vip_common::{
    IfaceConfig, VipEntry,
    layout::{ANYWHERE, NOWHERE},
};

use super::{GroupSetup, Home, NodeError, Setup};
use crate::{
    dataplane::{Site, attach},
    home::is_on,
    host::{Host, HostError, Interface, Subnet, beneath},
};

/// The site of an entry of the map.
pub(super) fn of_entry(entry: &VipEntry) -> Site {
    Site {
        home: entry.home,
        prefix: entry.prefix,
        is_gateway: entry.is_gateway(),
        virtual_mac: entry.virtual_mac(),
    }
}

/// The index that an interface has now.
pub(super) fn index_of(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// What a home means, in a sentence.
pub(super) fn told(vip: IpAddr, home: &Home) -> Vec<String> {
    let answered = |name| format!("{vip} would be answered on {name} alone");
    let subnet =
        |prefix| format!("{} would be reachable on its interface's link", Subnet::of(vip, prefix, ANYWHERE));
    home.interface.iter().map(answered).chain(home.prefix.map(subnet)).collect()
}

/// Refuses a VIP whose interface is none that the programs are on, or shall be.
///
/// # Errors
/// [`NodeError::NotGuarded`], or if the pins can't be read.
pub(super) fn refuse_unguarded(dir: &Path, setup: &Setup) -> Result<(), NodeError> {
    let named = setup.groups.iter().flat_map(|group| group.homes.values());
    let named = named.filter_map(|home| home.interface.as_ref());
    let mut unnamed = named.filter(|name| !setup.interfaces.contains(name)).peekable();
    if unnamed.peek().is_none() {
        return Ok(());
    }
    let guarded: Vec<_> = attach::interfaces(dir)?.into_values().collect();
    match unnamed.find(|name| !guarded.contains(name)) {
        Some(name) => Err(NodeError::NotGuarded { name: name.clone() }),
        None => Ok(()),
    }
}

/// What to tell of interfaces that are named in place of the one on top of them, in words.
///
/// # Errors
/// If the host's addresses can't be read.
pub(super) fn beneath(
    host: &Host,
    setup: &Setup,
    present: &BTreeMap<u32, Interface>,
) -> Result<Vec<String>, HostError> {
    let announcing = || setup.interfaces.iter().filter(|name| !setup.silent.contains(*name));
    let named: Vec<_> = announcing().map(String::as_str).collect();
    let of = |group: &GroupSetup, vip: &IpAddr| {
        let brings_its_own = group.homes.get(vip).is_some_and(|home| home.prefix.is_some());
        let on = named.iter().copied().filter(|name| is_on(&group.homes, vip, name)).collect();
        (!brings_its_own).then_some((*vip, on))
    };
    let vips = setup.groups.iter().flat_map(|group| group.vips.iter().filter_map(move |vip| of(group, vip)));
    Ok(beneath::told(&named, &vips.collect::<Vec<_>>(), present, &host.all_addresses()?).0)
}

/// The sites of a group's VIPs.
pub(super) fn of_group(group: &GroupSetup, index_of: impl Fn(&str) -> Option<u32>) -> BTreeMap<IpAddr, Site> {
    let (is_gateway, virtual_mac) = (group.is_gateway, group.virtual_mac);
    let anywhere = Site { is_gateway, virtual_mac, ..Site::default() };
    let mut known = BTreeMap::new();
    let mut site = |home: &Home| {
        let home_index = home.interface.as_deref().map_or(ANYWHERE, |name| {
            *known.entry(name.to_owned()).or_insert_with(|| index_of(name).unwrap_or(NOWHERE))
        });
        Site { home: home_index, prefix: home.prefix.unwrap_or(0), ..anywhere }
    };
    let of = |vip: &IpAddr| (*vip, group.homes.get(vip).map_or(anywhere, &mut site));
    group.vips.iter().map(of).collect()
}

/// The interface by which packets to a VIP leave this host; `None` while its own is away.
/// `ifaces` are those with the data plane on them, `is_on_link`: has one an address in
/// this VIP's subnet?
pub(super) fn exit_of(
    vip: IpAddr,
    entry: &VipEntry,
    ifaces: &BTreeMap<u32, IfaceConfig>,
    is_on_link: impl Fn(u32, IpAddr) -> bool,
) -> Option<u32> {
    if entry.home != ANYWHERE {
        return ifaces.contains_key(&entry.home).then_some(entry.home);
    }
    let announcing =
        || ifaces.iter().filter(|(_, iface)| !iface.has(IfaceConfig::SILENT)).map(|(ifindex, _)| *ifindex);
    announcing().find(|ifindex| is_on_link(*ifindex, vip)).or_else(|| announcing().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_vip_whose_interface_is_away_is_nowhere() {
        let (lan, wan, gone) = (address("10.0.1.12"), address("203.0.113.5"), address("192.0.2.9"));
        let home = |name: &str, prefix| Home { interface: Some(name.to_owned()), prefix };
        let mut group = GroupSetup {
            name: "g".into(),
            mode: vip_common::GroupMode::Cluster,
            hold: std::time::Duration::ZERO,
            vips: vec![lan, wan, gone],
            homes: [(wan, home("wan0", Some(29))), (gone, home("gone", None))].into(),
            is_gateway: false,
            waiting: Vec::new(),
            virtual_mac: None,
        };
        for is_gateway in [false, true] {
            group.is_gateway = is_gateway;
            group.virtual_mac = is_gateway.then_some([2, 0, 0, 0, 0, 7]);
            let sites = of_group(&group, |name| (name == "wan0").then_some(7));
            let site = |home, prefix| Site { home, prefix, is_gateway, virtual_mac: group.virtual_mac };
            let expected = [(lan, site(ANYWHERE, 0)), (wan, site(7, 29)), (gone, site(NOWHERE, 0))];
            assert_eq!(sites, expected.into());
        }
    }

    #[test]
    fn packets_leave_by_the_vips_own_interface_or_by_that_of_its_subnet() {
        let silent = IfaceConfig { flags: IfaceConfig::SILENT, ..IfaceConfig::default() };
        let plain = IfaceConfig::default();
        let ifaces = BTreeMap::from([(2, silent), (3, plain), (4, plain)]);
        let vip = address("10.0.1.12");
        let exit = |home, on_link: u32| {
            let entry = VipEntry { home, ..VipEntry::default() };
            exit_of(vip, &entry, &ifaces, |ifindex, _| ifindex == on_link)
        };
        assert_eq!(exit(4, 3), Some(4), "its own");
        assert_eq!((exit(9, 3), exit(NOWHERE, 3)), (None, None), "which is away");
        assert_eq!((exit(ANYWHERE, 4), exit(ANYWHERE, 3)), (Some(4), Some(3)), "its subnet's");
        assert_eq!((exit(ANYWHERE, 0), exit(ANYWHERE, 2)), (Some(3), Some(3)), "the first that announces");
    }
}
