//! Where VIPs belong: is each in a subnet of its interface?

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vip_common::IfaceConfig;

use super::{Findings, Patient};
use crate::{
    config::{Config, Group},
    dataplane::DataPlane,
    home::is_on,
    host::{
        Host, HostError, Interface,
        beneath::{self, port_text},
        is_on_link,
    },
    node::{Node, NodeError},
};

/// What the findings here are about.
const SUBJECT: &str = "subnets";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    if patient.plane.is_some() {
        match left_out(patient) {
            Ok(says) => says.into_iter().for_each(|says| found.warning(SUBJECT, says)),
            Err(e) => found.warning(SUBJECT, format!("not checked: {e}")),
        }
    }
    let Some(config) = patient.config else { return by_hand(patient, found) };
    match Host::open(&patient.paths.run_dir).and_then(|host| off_link(config, &host)) {
        Ok(says) if says.is_empty() => {
            found.ok(SUBJECT, "each VIP is in a subnet of its interface, or brings its own");
        }
        Ok(says) => says.into_iter().for_each(|says| found.warning(SUBJECT, says)),
        Err(e) => found.warning(SUBJECT, format!("not checked: {e}")),
    }
}

/// Of what was loaded by hand, the interfaces alone are known.
fn by_hand(patient: &Patient<'_>, found: &mut Findings) {
    let Some(known) = patient.plane.as_ref().and_then(|plane| plane.ifaces().ok()) else { return };
    let announces = |link: &&Interface| {
        known.get(&link.index).is_some_and(|iface| !iface.has(IfaceConfig::SILENT))
            && patient.guards(link.index)
    };
    let present = patient.present.iter().map(|link| (link.index, link.clone())).collect();
    let ports = patient.present.iter().filter(announces).filter_map(|link| port_text(link, &present));
    ports.for_each(|says| found.warning(SUBJECT, says));
}

/// What to tell of groups in whose name the programs can't ask.
fn left_out(patient: &Patient<'_>) -> Result<BTreeSet<String>, NodeError> {
    let (plane, host) = (DataPlane::open(&patient.paths.bpf_dir)?, Host::open(&patient.paths.run_dir)?);
    Node::new(plane, host).left_out()
}

/// What to tell of interfaces that are named in place of the one on top of them, and of VIPs
/// that are in no subnet of their interface and have no prefix. Says nothing of interfaces
/// that this host does not have.
///
/// # Errors
/// [`HostError`] if the host's addresses can't be read.
pub fn off_link(config: &Config, host: &Host) -> Result<Vec<String>, HostError> {
    Ok(told(config, &host.interfaces()?, &host.all_addresses()?))
}

/// The same, with the interfaces and their addresses.
fn told(
    config: &Config,
    present: &BTreeMap<u32, Interface>,
    addresses: &BTreeMap<u32, Vec<(IpAddr, u8)>>,
) -> Vec<String> {
    let named: Vec<_> = config.announcing().map(String::as_str).collect();
    let on = |group: &Group, vip: &IpAddr| -> Vec<_> {
        named.iter().copied().filter(|name| is_on(&group.homes, vip, name)).collect()
    };
    let has_prefix = |group: &Group, vip| group.homes.get(vip).is_some_and(|home| home.prefix.is_some());
    let vips = config.groups.iter().flat_map(|group| group.vips.iter().map(move |vip| (group, vip)));
    let vips: Vec<_> = vips.filter(|(group, vip)| !has_prefix(group, *vip)).collect();
    let homes: Vec<_> = vips.iter().map(|(group, vip)| (**vip, on(group, vip))).collect();
    let (mut says, explained) = beneath::told(&named, &homes, present, addresses);
    let link = |name: &str| present.values().find(|link| link.name == name);
    let covers = |name: &str, vip| {
        link(name).is_none_or(|link| addresses.get(&link.index).is_some_and(|a| is_on_link(a, vip)))
    };
    let off = vips.iter().zip(homes).filter(|(_, (vip, names))| {
        !explained.contains(vip) && !names.is_empty() && !names.iter().any(|name| covers(name, *vip))
    });
    says.extend(off_text(off.map(|((group, vip), _)| (*group, *vip))));
    says
}

/// What to tell of these VIPs, that are in no subnet of their interfaces.
fn off_text<'a>(mut off: impl Iterator<Item = (&'a Group, &'a IpAddr)>) -> Option<String> {
    let (group, first) = off.next()?;
    let more = match off.count() {
        0 => String::new(),
        more => format!(" (and {more} more VIPs)"),
    };
    Some(format!(
        "group {}: {first}{more} is in no subnet of its interface, so this host's routes decide how answers leave: if \
         that subnet is on the interface's link, write the VIP with the length of its prefix, such as \"{first}/24\"",
        group.name
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_vip_that_is_in_no_subnet_is_told_unless_it_has_a_prefix() {
        let text = |vips: &str| {
            format!(
                "[node]\nname = \"a\"\ninterface = [\"lan0\", \"wan0\"]\n[cluster]\nname = \"c\"\nkey_file = \"k\"\n\
                 [[cluster.node]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n[[group]]\nname = \"g\"\nvips = [{vips}]\n"
            )
        };
        let addresses =
            BTreeMap::from([(2, vec![([10, 0, 1, 3].into(), 24)]), (3, vec![([192, 0, 2, 3].into(), 24)])]);
        let link =
            |index, name: &str| (index, Interface { index, name: name.to_owned(), ..Interface::default() });
        let present = BTreeMap::from([link(2, "lan0"), link(3, "wan0")]);
        let told = |vips: &str| {
            let config = Config::parse(&text(vips), Path::new("vip.toml"), "a").unwrap();
            let mut says = told(&config, &present, &addresses);
            assert!(says.len() < 2, "{says:?}");
            says.pop()
        };
        assert_eq!(told("\"10.0.1.12\", \"192.0.2.9\""), None);
        let wan = |address: &str| format!("{{ address = \"{address}\", interface = \"wan0\" }}");
        assert_eq!(told(&format!("{}, {}", wan("192.0.2.9"), wan("203.0.113.5/29"))), None);
        let says = told(&format!("{}, \"198.51.100.1\"", wan("10.0.1.12"))).unwrap();
        assert!(says.starts_with("group g: 10.0.1.12 (and 1 more VIPs) is in no subnet"), "{says}");
    }
}
