//! In whose name a node asks for hardware addresses in subnets in which it has no
//! address.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use vip_common::{GroupIndex, IfaceConfig, VipEntry, layout::ASKS_MAX};

use super::{Node, NodeError, sites};
use crate::{
    dataplane::attach,
    host::{Subnet, is_on_link},
};

/// A VIP that brings its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    address: [u8; 4],
    group: GroupIndex,
    pub(super) subnet: Subnet,
    ifindex: u32,
}

/// Groups for which there is no room among those in whose name an interface asks.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// A sentence for each interface.
    says: BTreeSet<String>,
    /// Those of them that nobody was told yet.
    news: Vec<String>,
}

impl LeftOut {
    fn set(&mut self, says: BTreeSet<String>) {
        self.news.retain(|told| says.contains(told));
        self.news.extend(says.difference(&self.says).cloned());
        self.says = says;
    }
}

/// The VIPs in whose name an interface asks, one of each group and subnet, and those of
/// groups for which there is no room.
fn share(ifindex: u32, foreign: &[Foreign]) -> (IfaceConfig, Vec<Foreign>) {
    let mut seen = BTreeSet::new();
    let here = foreign.iter().filter(|vip| vip.ifindex == ifindex);
    let mut firsts = here.filter(|vip| seen.insert((vip.subnet, vip.group)));
    let mut iface = IfaceConfig::default();
    for (ask, vip) in iface.asks.iter_mut().zip(&mut firsts) {
        *ask = vip.address;
    }
    let left_out = firsts.copied().collect();
    (iface, left_out)
}

/// What to tell of the groups that an interface leaves out.
fn told(iface: &str, left_out: &[Foreign], name: impl Fn(GroupIndex) -> String) -> Option<String> {
    let (first, more) = left_out.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
    let (group, subnet) = (name(first.group), first.subnet);
    Some(format!(
        "{iface}: group {group}{more} is one too many in {subnet}, where this host asks for addresses in the name of \
         {ASKS_MAX} groups' VIPs: routers may not answer a node that holds no other group there; give {iface} an address \
         in that subnet, or put the VIPs into fewer groups"
    ))
}

impl Node {
    /// Writes in whose name the programs ask in these subnets.
    pub(super) fn write_asks(&mut self, foreign: &[Foreign]) -> Result<(), NodeError> {
        for (ifindex, iface) in self.plane.ifaces()? {
            let asks = share(ifindex, foreign).0.asks;
            if iface.asks != asks {
                self.plane.set_iface(ifindex, IfaceConfig { asks, ..iface })?;
            }
        }
        let says = self.left_out_of(foreign)?;
        self.left_out.set(says);
        Ok(())
    }

    /// What to tell of groups with VIPs in subnets without an address of this host's for
    /// which there is no room, an interface each.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn left_out(&self) -> Result<BTreeSet<String>, NodeError> {
        self.left_out_of(&self.foreign(&self.plane.vips()?)?)
    }

    /// The same, as far as it is new since the last call.
    pub fn newly_left_out(&mut self) -> Vec<String> {
        mem::take(&mut self.left_out.news)
    }

    fn left_out_of(&self, foreign: &[Foreign]) -> Result<BTreeSet<String>, NodeError> {
        if foreign.len() <= ASKS_MAX {
            return Ok(BTreeSet::new());
        }
        let names: BTreeMap<_, _> = self.plane.groups().into_iter().map(|g| (g.index, g.name)).collect();
        let name = |group| names.get(&group).cloned().unwrap_or_default();
        let interfaces = attach::interfaces(self.plane.dir())?;
        let says = |(ifindex, iface): (&u32, &String)| told(iface, &share(*ifindex, foreign).1, name);
        Ok(interfaces.iter().filter_map(says).collect())
    }

    /// VIPs with a prefix, in whose subnets this host has no address.
    pub(super) fn foreign(&self, vips: &BTreeMap<IpAddr, VipEntry>) -> Result<Vec<Foreign>, NodeError> {
        let mut with_prefix = vips.iter().filter(|(_, entry)| entry.prefix > 0).peekable();
        if with_prefix.peek().is_none() {
            return Ok(Vec::new());
        }
        let exits = self.exits()?;
        let of = |(vip, entry): (&IpAddr, &VipEntry)| {
            let ifindex = exits.of(*vip, entry)?;
            let has_address = is_on_link(exits.addresses(ifindex), *vip);
            let IpAddr::V4(v4) = vip else { return None };
            let subnet = Subnet::of(*vip, sites::of_entry(entry).prefix, ifindex);
            let foreign = Foreign { address: v4.octets(), group: entry.group, subnet, ifindex };
            (!has_address).then_some(foreign)
        };
        Ok(with_prefix.filter_map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// VIPs of these groups, in a subnet each of an interface.
    fn foreign(ifindex: u32, groups: impl Iterator<Item = u8>) -> Vec<Foreign> {
        let of = |group: u8| {
            let address = [203, 0, 113, group];
            let subnet = Subnet::of(address.into(), 24, ifindex);
            Foreign { address, group: GroupIndex(group.into()), subnet, ifindex }
        };
        groups.map(of).collect()
    }

    #[test]
    fn eight_groups_have_room_and_the_ninth_is_told() {
        let name = |group: GroupIndex| format!("g{}", group.0);
        let says = |vips: &[Foreign]| told("wan0", &share(7, vips).1, name);
        // Another VIP of a group takes no room, and another interface has its own.
        let eight = [foreign(7, 1..9), foreign(7, 1..9), foreign(8, 1..9)].concat();
        assert_eq!(share(7, &eight).0.asks.map(|ask| ask[3]), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(says(&eight), None);
        let ten = foreign(7, 1..11);
        assert_eq!(share(7, &ten).0.asks.map(|ask| ask[3]), [1, 2, 3, 4, 5, 6, 7, 8]);
        let said = says(&ten).unwrap();
        assert!(
            said.starts_with("wan0: ") && said.contains("group g9 (and 1 more) is one too many"),
            "{said}"
        );
        assert!(said.contains("give wan0 an address"), "{said}");
    }

    #[test]
    fn it_is_told_once_until_it_is_mended() {
        let says = |text: &str| BTreeSet::from([text.to_owned()]);
        let mut left_out = LeftOut::default();
        let mut news = |now| {
            left_out.set(now);
            mem::take(&mut left_out.news)
        };
        assert_eq!(news(says("wan0: g9")), ["wan0: g9"]);
        assert_eq!(news(says("wan0: g9")), [""; 0]);
        assert_eq!(news(says("wan0: g10")), ["wan0: g10"]);
        assert_eq!((news(BTreeSet::new()), news(says("wan0: g10"))), (vec![], vec!["wan0: g10".to_owned()]));
    }
}
