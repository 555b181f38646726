//! Where VIPs belong: is each in a subnet of its interface?

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Findings, Patient};
use crate::{
    config::{Config, Group},
    dataplane::DataPlane,
    home::is_on,
    host::{Host, HostError, is_on_link},
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
    let Some(config) = patient.config else { return };
    match Host::open(&patient.paths.run_dir).and_then(|host| off_link(config, &host)) {
        Ok(None) => found.ok(SUBJECT, "each VIP is in a subnet of its interface, or brings its own"),
        Ok(Some(says)) => found.warning(SUBJECT, says),
        Err(e) => found.warning(SUBJECT, format!("not checked: {e}")),
    }
}

/// What to tell of groups in whose name the programs can't ask.
fn left_out(patient: &Patient<'_>) -> Result<BTreeSet<String>, NodeError> {
    let (plane, host) = (DataPlane::open(&patient.paths.bpf_dir)?, Host::open(&patient.paths.run_dir)?);
    Node::new(plane, host).left_out()
}

/// What to tell of VIPs that are in no subnet of their interface and have no prefix;
/// `None` if there are none. Says nothing of interfaces that this host does not have.
///
/// # Errors
/// [`HostError`] if the host's addresses can't be read.
pub fn off_link(config: &Config, host: &Host) -> Result<Option<String>, HostError> {
    let mut all = host.all_addresses()?;
    let ours = host.interfaces()?.into_values().filter(|link| config.interfaces.contains(&link.name));
    let addresses = ours.map(|link| (link.name, all.remove(&link.index).unwrap_or_default()));
    Ok(told(config, &addresses.collect()))
}

/// The same, with the addresses of each interface.
fn told(config: &Config, addresses: &BTreeMap<String, Vec<(IpAddr, u8)>>) -> Option<String> {
    let is_off = |group: &Group, vip: &IpAddr| {
        let home = group.homes.get(vip);
        let mut names = config.announcing().filter(|name| is_on(&group.homes, vip, name)).peekable();
        let covers = |name: &String| addresses.get(name).is_none_or(|addresses| is_on_link(addresses, *vip));
        home.is_none_or(|home| home.prefix.is_none()) && names.peek().is_some() && !names.any(covers)
    };
    let vips = config.groups.iter().flat_map(|group| group.vips.iter().map(move |vip| (group, vip)));
    let mut off = vips.filter(|(group, vip)| is_off(group, vip));
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
        let addresses = BTreeMap::from([
            ("lan0".to_owned(), vec![([10, 0, 1, 3].into(), 24)]),
            ("wan0".to_owned(), vec![([192, 0, 2, 3].into(), 24)]),
        ]);
        let told =
            |vips: &str| told(&Config::parse(&text(vips), Path::new("vip.toml"), "a").unwrap(), &addresses);
        assert_eq!(told("\"10.0.1.12\", \"192.0.2.9\""), None);
        let wan = |address: &str| format!("{{ address = \"{address}\", interface = \"wan0\" }}");
        assert_eq!(told(&format!("{}, {}", wan("192.0.2.9"), wan("203.0.113.5/29"))), None);
        let says = told(&format!("{}, \"198.51.100.1\"", wan("10.0.1.12"))).unwrap();
        assert!(says.starts_with("group g: 10.0.1.12 (and 1 more VIPs) is in no subnet"), "{says}");
    }
}
