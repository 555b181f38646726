//! Interfaces that somebody named where the one on top of them is meant: a port of a
//! bridge, or what a VLAN or a macvlan is on. Clients beyond the wire are served there all
//! the same, so that nobody may notice at first who is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Interface, is_on_link};

/// Does the interface `upper` get its frames by `lower`, as a VLAN's or a bridge does?
#[must_use]
pub fn is_on_top(upper: u32, lower: u32, present: &BTreeMap<u32, Interface>) -> bool {
    let (mut reached, mut next) = (BTreeSet::from([upper]), vec![upper]);
    while let Some(here) = next.pop() {
        let below = present.get(&here).and_then(|link| link.below);
        let ports = present.values().filter(|link| link.controller == Some(here)).map(|link| link.index);
        next.extend(below.into_iter().chain(ports).filter(|index| reached.insert(*index)));
    }
    upper != lower && reached.contains(&lower)
}

/// What to tell of an interface that is a port of a bridge: hosts on its other ports ask
/// past the programs on this one, and what this host sends by it gets no answer, since the
/// kernel gives what comes in there to the bridge. `None` if it is no such port.
#[must_use]
pub fn port_text(link: &Interface, present: &BTreeMap<u32, Interface>) -> Option<String> {
    let bridge = present.get(&link.controller?)?;
    let (name, of, instead) = match bridge.kind.as_deref() {
        Some("bridge") => (&link.name, format!("the bridge {}", bridge.name), bridge.name.clone()),
        // Its one datapath is not what has the host's address.
        Some("openvswitch") => {
            let instead = format!("that switch's own interface (`ovs-vsctl port-to-br {}`)", link.name);
            (&link.name, "an Open vSwitch".to_owned(), instead)
        }
        Some(_) | None => return None,
    };
    Some(format!(
        "{name} is a port of {of}: guests on its other ports and this host's own processes do not reach a VIP's holder \
         by it: name {instead} in its place"
    ))
}

/// A VIP, and the interfaces that it is announced on, by name.
pub type Named<'a> = (IpAddr, Vec<&'a str>);

/// What to tell of the interfaces that `vips` are announced on, and which of these VIPs are
/// thereby explained. A VIP that brings its own subnet does not belong here.
#[must_use]
pub fn told(
    named: &[&str],
    vips: &[Named<'_>],
    present: &BTreeMap<u32, Interface>,
    addresses: &BTreeMap<u32, Vec<(IpAddr, u8)>>,
) -> (Vec<String>, BTreeSet<IpAddr>) {
    let link = |name: &str| present.values().find(|link| link.name == name);
    let covers = |link: &Interface, vip| addresses.get(&link.index).is_some_and(|a| is_on_link(a, vip));
    let ports: BTreeMap<_, _> =
        named.iter().filter_map(|name| Some((*name, port_text(link(name)?, present)?))).collect();
    let mut explained = BTreeSet::new();
    let mut above: BTreeMap<(&str, &str), (IpAddr, usize)> = BTreeMap::new();
    for (vip, names) in vips {
        let links: Vec<_> = names.iter().filter_map(|name| link(name)).collect();
        if links.iter().any(|link| covers(link, *vip)) {
            continue;
        }
        let on_top = |lower: &&Interface| {
            present.values().find(|upper| covers(upper, *vip) && is_on_top(upper.index, lower.index, present))
        };
        let Some((lower, upper)) = links.iter().find_map(|lower| Some((*lower, on_top(lower)?))) else {
            continue;
        };
        explained.insert(*vip);
        if !ports.contains_key(lower.name.as_str()) {
            above.entry((&lower.name, &upper.name)).or_insert((*vip, 0)).1 += 1;
        }
    }
    let above = above.into_iter().map(|((lower, upper), (vip, count))| {
        let more = if count > 1 { format!(" (and {} more VIPs)", count - 1) } else { String::new() };
        format!(
            "{vip}{more} is in a subnet of {upper}, which is on top of {lower}: name {upper} for it in place of {lower}"
        )
    });
    (ports.into_values().chain(above).collect(), explained)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, controller: u32, below: u32) -> (u32, Interface) {
        let some = |index: u32| (index > 0).then_some(index);
        let (controller, below) = (some(controller), some(below));
        let kind = (!kind.is_empty()).then(|| kind.to_owned());
        (index, Interface { index, name: name.to_owned(), kind, controller, below, ..Interface::default() })
    }

    fn vip(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    #[test]
    fn a_port_is_told_of_its_bridge_and_of_no_other_controller() {
        let present = BTreeMap::from([
            link(2, "eno1", "", 9, 0),
            link(3, "eno2", "", 10, 0),
            link(4, "eno3", "", 11, 0),
            link(9, "vmbr0", "bridge", 0, 0),
            link(10, "ovs-system", "openvswitch", 0, 0),
            link(11, "blue", "vrf", 0, 0),
        ]);
        let says = |index: u32| port_text(&present[&index], &present);
        assert!(says(2).is_some_and(|says| says.ends_with(": name vmbr0 in its place")));
        assert!(says(3).is_some_and(|says| says.contains("Open vSwitch") && !says.contains("ovs-system")));
        assert_eq!((says(4), says(9)), (None, None));
        let addresses = BTreeMap::from([(9, vec![(vip(3), 24)])]);
        let (says, explained) = told(&["eno1"], &[(vip(12), vec!["eno1"])], &present, &addresses);
        assert!(says.len() == 1 && explained == [vip(12)].into(), "one sentence: {says:?}");
    }

    #[test]
    fn a_vip_of_an_interface_on_top_is_told_once_and_only_where_no_named_one_has_its_subnet() {
        let present = BTreeMap::from([
            link(2, "eno1", "", 0, 0),
            link(3, "eno1.5", "vlan", 4, 2),
            link(4, "vmbr5", "bridge", 0, 0),
            link(5, "other", "", 0, 0),
        ]);
        let on = |ifindex: u32| BTreeMap::from([(ifindex, vec![(vip(3), 24)])]);
        let of = |names: &[&'static str], ifindex: u32| {
            let vips = [vip(12), vip(13)].map(|vip| (vip, names.to_vec()));
            told(names, &vips, &present, &on(ifindex))
        };
        let both = BTreeSet::from([vip(12), vip(13)]);
        let wanted = "10.0.1.12 (and 1 more VIPs) is in a subnet of vmbr5, which is on top of eno1: name vmbr5 for it in \
                      place of eno1";
        assert_eq!(of(&["eno1"], 4), (vec![wanted.to_owned()], both));
        let nothing = (Vec::new(), BTreeSet::new());
        assert_eq!(of(&["eno1"], 2), nothing, "it has the address itself");
        assert_eq!(of(&["eno1", "vmbr5"], 4), nothing, "the one on top is named, too");
        assert_eq!(of(&["eno1"], 5), nothing, "no interface on top has it");
        assert_eq!(of(&["other"], 4), nothing);
    }
}
