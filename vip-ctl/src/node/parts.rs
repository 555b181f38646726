//! Takes single VIPs and interfaces off a node, by hand or because they left the
//! configuration; the rest stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vip_common::{GroupIndex, GroupMode, IfaceConfig};

use super::{DataPlane, DataPlaneError, Host, Node, NodeError, attach, local_in};
use crate::paths::Paths;

/// What shall go.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// VIPs; a group that loses its last one goes with it.
    pub vips: BTreeSet<IpAddr>,
    /// Interfaces, by name.
    pub interfaces: BTreeSet<String>,
}

/// A node, and what of it goes.
struct Parting {
    node: Node,
    /// By VIP, its group.
    vips: BTreeMap<IpAddr, GroupIndex>,
    /// Groups that lose their last VIP.
    groups: BTreeSet<GroupIndex>,
    interfaces: BTreeMap<u32, String>,
}

/// What [`remove`] would change, in sentences.
///
/// # Errors
/// As [`remove`].
pub fn plan(paths: &Paths, parts: &Parts) -> Result<Vec<String>, NodeError> {
    let parting = Parting::of(paths, parts)?;
    let named: BTreeMap<_, _> =
        parting.node.plane.groups().into_iter().map(|group| (group.index, group.name)).collect();
    let name = |group| named.get(group).map_or("", String::as_str);
    let vips =
        parting.vips.iter().map(|(vip, group)| format!("{vip} of group {} would be taken off", name(group)));
    let groups = parting.groups.iter().map(|group| format!("group {} would end", name(group)));
    let interfaces =
        parting.interfaces.values().map(|name| format!("the programs would be taken off {name}"));
    Ok(vips.chain(groups).chain(interfaces).collect())
}

/// Takes these VIPs and interfaces off this node. Returns what a person should know, in
/// words.
///
/// # Errors
/// [`NodeError`] if one of them is not there, belongs to an agent, or is the last interface:
/// then nothing was changed. Or if the host or the maps can't be changed.
pub fn remove(paths: &Paths, parts: &Parts) -> Result<Vec<String>, NodeError> {
    let Parting { mut node, vips, groups, interfaces } = Parting::of(paths, parts)?;
    let going: BTreeSet<_> = vips.into_keys().collect();
    // The addresses first: as long as the VIPs are in the map, the gates guard them.
    node.host.remove_vips(&going)?;
    for vip in going {
        node.plane.remove_vip(vip)?;
    }
    node.plane.remove_groups(&groups)?;
    for (ifindex, name) in &interfaces {
        attach::detach(&paths.bpf_dir, *ifindex, name)?;
    }
    node.plane.forget_ifaces(|ifindex| interfaces.contains_key(&ifindex))?;
    // Local clients may have left by an interface that is no longer one of ours.
    node.repair()?;
    let mut present = node.host.interfaces()?;
    present.retain(|ifindex, _| interfaces.contains_key(ifindex));
    node.warn_of_ways_in(&present);
    Ok(node.warnings)
}

impl Node {
    /// Takes off interfaces that are not among these: they left the configuration. Returns
    /// what that changed and what failed, in words. Where this kernel has no gate at IP level,
    /// or one that NAT gets past, their programs stay and guard the way in, but nothing is
    /// answered or announced there.
    ///
    /// # Errors
    /// [`NodeError`] if the interfaces can't be read.
    pub fn keep_only(&mut self, interfaces: &[String]) -> Result<Vec<String>, NodeError> {
        let dir = self.plane.dir().to_owned();
        let mut others = attach::interfaces(&dir)?;
        others.retain(|_, name| !interfaces.contains(name));
        let is_guarded =
            self.has_local_in && local_in::blind_to_nat().is_none() && local_in::open_to_nat().is_none();
        let mut done = Vec::new();
        for (ifindex, name) in &others {
            let left = if is_guarded { self.leave(*ifindex, name) } else { self.silence(*ifindex) };
            done.push(match left {
                Ok(()) if is_guarded => format!("took the programs off {name}, which is not named any more"),
                Ok(()) => format!("{name} is not named any more: its programs stay, and answer nothing"),
                // Nothing depends on that interface.
                Err(e) => format!("{name} is not named any more, and could not be left: {e}"),
            });
        }
        Ok(done)
    }

    fn leave(&mut self, ifindex: u32, name: &str) -> Result<(), NodeError> {
        attach::detach(self.plane.dir(), ifindex, name)?;
        Ok(self.plane.forget_ifaces(|other| other == ifindex)?)
    }

    fn silence(&mut self, ifindex: u32) -> Result<(), NodeError> {
        let Some(iface) = self.plane.ifaces()?.remove(&ifindex) else { return Ok(()) };
        let flags = iface.flags | IfaceConfig::SILENT;
        Ok(self.plane.set_iface(ifindex, IfaceConfig { flags, ..iface })?)
    }
}

impl Parting {
    fn of(paths: &Paths, parts: &Parts) -> Result<Self, NodeError> {
        let plane = DataPlane::open(&paths.bpf_dir)?;
        let (there, mut left) = (plane.vips()?, BTreeMap::<GroupIndex, usize>::new());
        there.values().for_each(|entry| *left.entry(entry.group).or_default() += 1);
        let mut vips = BTreeMap::new();
        for vip in &parts.vips {
            let entry = there.get(vip);
            let group = entry.ok_or_else(|| DataPlaneError::NoSuchGroup { name: vip.to_string() })?.group;
            if let Some(of) = plane.group_at(group).filter(|of| of.mode == GroupMode::Cluster) {
                return Err(NodeError::BelongsToAgent { group: of.name });
            }
            left.entry(group).and_modify(|left| *left -= 1);
            vips.insert(*vip, group);
        }
        let groups = left.into_iter().filter(|(_, left)| *left == 0).map(|(group, _)| group).collect();
        let guarded = attach::interfaces(&paths.bpf_dir)?;
        let mut interfaces = BTreeMap::new();
        for name in &parts.interfaces {
            let found = guarded.iter().find(|(_, guarded)| *guarded == name);
            let (ifindex, _) = found.ok_or_else(|| NodeError::NotGuarded { name: name.clone() })?;
            interfaces.insert(*ifindex, name.clone());
        }
        let stays = |vip: &&IpAddr| !vips.contains_key(*vip);
        let home = |vip: &IpAddr| interfaces.get(&there.get(vip)?.home).cloned();
        if let Some((vip, iface)) = there.keys().filter(stays).find_map(|vip| Some((*vip, home(vip)?))) {
            return Err(NodeError::HomeOf { vip, iface });
        }
        if !interfaces.is_empty() && interfaces.len() == guarded.len() {
            return Err(NodeError::LastInterface);
        }
        Ok(Self { node: Node::new(plane, Host::open(&paths.run_dir)?), vips, groups, interfaces })
    }
}
