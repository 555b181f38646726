//! What a configuration needs from the node under the agent.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vip_common::GroupMode;
use vip_lease::table::Table;

use crate::{
    config::{Config, Group},
    dataplane::attach,
    engine::Timing,
    node::{GroupSetup, Setup},
};

/// How many times the configured VIPs the maps have room for, for VIPs that come
/// later.
const VIPS_HEADROOM: u32 = 2;

/// The node that a configuration needs, with the VIPs that it may answer for now.
pub fn node_setup(config: &Config, table: &Table) -> Setup {
    let hold = Timing::new(config.cluster.lease).hold;
    let written: BTreeMap<_, _> = config.groups.iter().map(|group| (&group.name, group)).collect();
    let groups = table.groups().iter();
    let groups = groups
        .map(|group| group_setup(&group.name, hold, group.answered(), written.get(&group.name).copied()));
    let groups: Vec<_> = groups.collect();
    let all = config.groups.iter().map(|group| group.vips.len()).sum::<usize>();
    let vips = u32::try_from(all).unwrap_or(u32::MAX);
    Setup {
        interfaces: config.interfaces.clone(),
        modes: config.modes.clone(),
        silent: config.silent.clone(),
        how: attach::How::default(),
        groups,
        vips_max: vips
            .saturating_mul(VIPS_HEADROOM)
            .clamp(vip_common::layout::VIPS_DEFAULT, vip_common::layout::VIPS_MAX),
    }
}

/// The groups of a configuration with all of their VIPs.
pub fn whole_groups(config: &Config) -> Vec<GroupSetup> {
    let hold = Timing::new(config.cluster.lease).hold;
    let whole = |group: &Group| group_setup(&group.name, hold, group.vips.iter().copied(), Some(group));
    config.groups.iter().map(whole).collect()
}

fn group_setup(
    name: &str,
    hold: Duration,
    vips: impl Iterator<Item = IpAddr>,
    written: Option<&Group>,
) -> GroupSetup {
    let vips: Vec<_> = vips.collect();
    let gateway = written.filter(|group| group.is_gateway);
    let later = gateway.into_iter().flat_map(|group| &group.vips).copied();
    let waiting: Vec<_> = later.filter(|vip| !vips.contains(vip)).collect();
    let home = |vip: &IpAddr| Some((*vip, written?.homes.get(vip)?.clone()));
    let homes = vips.iter().chain(&waiting).filter_map(home).collect();
    let (name, is_gateway) = (name.to_owned(), gateway.is_some());
    let virtual_mac = written.and_then(|group| group.virtual_mac);
    GroupSetup { name, mode: GroupMode::Cluster, hold, vips, homes, is_gateway, waiting, virtual_mac }
}
