//! Puts the programs on this node's interfaces, each in the mode that suits it.

use std::collections::BTreeSet;

use aya::Ebpf;
use vip_common::IfaceConfig;

use super::{Node, NodeError, Setup, chosen, gateways, sites};
use crate::{
    dataplane::{
        DataPlaneError,
        attach::{self, Gate, Presence},
        load::load_under,
    },
    host::{Host, Interface, beneath::is_on_top},
    mode::Mode,
};

impl Setup {
    /// How the way in of this interface shall run.
    #[must_use]
    pub fn mode(&self, interface: &str) -> Mode {
        self.modes.get(interface).copied().unwrap_or_default()
    }
}

/// Names the owner of a hook that is occupied.
pub(super) fn owner_of(host: &Host, error: DataPlaneError) -> NodeError {
    let DataPlaneError::Occupied { iface, .. } = &error else { return error.into() };
    let id = host
        .interfaces()
        .ok()
        .and_then(|present| present.into_values().find(|i| i.name == *iface))
        .and_then(|interface| interface.xdp)
        .map(|(_, id)| id);
    let Some(id) = id else { return error.into() };
    DataPlaneError::Occupied { iface: iface.clone(), owner: attach::program_name(id) }.into()
}

impl Node {
    /// Attaches again to those of the node's interfaces that exist, with the maps
    /// that this node has open and no others.
    ///
    /// # Errors
    /// [`NodeError`]; whatever could be attached is, and nothing is removed.
    pub fn attach_again(&mut self, setup: &Setup) -> Result<(), NodeError> {
        let mut ebpf = load_under(&self.plane)?;
        let present = self.host.interfaces()?;
        let is_there = |name: &&String| present.values().any(|interface| interface.name == **name);
        let there: Vec<_> = setup.interfaces.iter().filter(is_there).cloned().collect();
        // An interface that was made again has another index.
        let settled = self.settle_again(setup);
        let attached = self.attach(&mut ebpf, setup, &chosen(&there, &present)?);
        // Repairs the host even if an interface is in trouble.
        let repaired = self.repair();
        attached.and(settled).and(repaired.map(drop))
    }

    /// Writes the sites of VIPs that are in the map.
    fn settle_again(&mut self, setup: &Setup) -> Result<(), NodeError> {
        self.gateways = gateways::of_groups(&setup.groups);
        let vips = self.plane.vips()?;
        let sites = setup.groups.iter().flat_map(|group| sites::of_group(group, sites::index_of));
        let there: Vec<_> =
            sites.filter_map(|(vip, site)| Some((vip, vips.get(&vip)?.group, site))).collect();
        self.plane.put_vips(there)?;
        Ok(())
    }

    /// Makes VIPs follow the names of their interfaces, which somebody may have given to other
    /// devices. One whose interface has no device now is answered nowhere. Returns which VIPs
    /// have moved; routes, gateways and questions follow by a repair.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn follow_names(&mut self, setup: &Setup) -> Result<Vec<String>, NodeError> {
        let vips = self.plane.vips()?;
        let sites = setup.groups.iter().flat_map(|group| sites::of_group(group, sites::index_of));
        let moved: Vec<_> = sites
            .filter_map(|(vip, site)| Some((vip, vips.get(&vip)?, site)))
            .filter(|(_, entry, site)| sites::of_entry(entry) != *site)
            .map(|(vip, entry, site)| (vip, entry.group, site))
            .collect();
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let names = moved.iter().map(|(vip, ..)| vip.to_string()).collect();
        self.plane.put_vips(moved)?;
        Ok(names)
    }

    /// Attaches to these interfaces, and replaces the programs on all others that
    /// have them. Goes on after an interface in trouble, so that the others get
    /// their gates; returns the first error.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        setup: &Setup,
        interfaces: &[(Interface, [u8; 6])],
    ) -> Result<(), NodeError> {
        // What this call does, and no former one.
        self.attached.clear();
        self.warnings.clear();
        attach::sweep(&mut self.plane)?;
        let mut result = Ok(());
        let named = interfaces.iter().map(|(interface, _)| interface.index).collect();
        result = result.and(self.write_ifaces(setup, &named));
        // Before the programs are there, so that they let nothing through at first.
        let vips = self.plane.vips()?;
        result = result.and(self.write_gateways(&vips));
        let dir = self.plane.dir().to_owned();
        attach::attach_local(ebpf, &dir, setup.how.gate)?;
        result = result.and(self.attach_local_in(ebpf));
        let mut names: Vec<String> = attach::interfaces(&dir)?.into_values().collect();
        names.extend(interfaces.iter().map(|(interface, _)| interface.name.clone()));
        names.sort();
        names.dedup();
        for name in names {
            result = result.and(self.attach_to(ebpf, setup, &name));
        }
        result
    }

    /// Writes into the map what the programs need to know of the interfaces that have
    /// them, and of those in `named`, where it differs.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn write_ifaces(&mut self, setup: &Setup, named: &BTreeSet<u32>) -> Result<(), NodeError> {
        let present = self.host.interfaces()?;
        let mut guarded: BTreeSet<u32> = attach::interfaces(self.plane.dir())?.into_keys().collect();
        guarded.extend(named);
        let known = self.plane.ifaces()?;
        for link in guarded.iter().filter_map(|ifindex| present.get(ifindex)) {
            let Some(mac) = link.mac else { continue };
            let is_below = guarded.iter().any(|other| is_on_top(*other, link.index, &present));
            let before = known.get(&link.index);
            // One that left the configuration answers nothing: see `keep_only`.
            let has_left =
                !named.contains(&link.index) && before.is_some_and(|before| before.has(IfaceConfig::SILENT));
            let is_silent = has_left || setup.silent.contains(&link.name);
            let flags = if is_silent { IfaceConfig::SILENT } else { 0 }
                | if is_below { IfaceConfig::BELOW } else { 0 };
            let iface = IfaceConfig { mac, flags, ..before.copied().unwrap_or_default() };
            if before != Some(&iface) {
                self.plane.set_iface(link.index, iface)?;
            }
        }
        Ok(())
    }

    fn attach_to(&mut self, ebpf: &mut Ebpf, setup: &Setup, name: &str) -> Result<(), NodeError> {
        let (host, dir) = (&self.host, self.plane.dir());
        let present = host.interfaces()?;
        let link = present.values().find(|link| link.name == name);
        let link = link.ok_or_else(|| DataPlaneError::NoInterface { name: name.to_owned() })?;
        let wanted = setup.mode(name);
        let mut modes = attach::modes(wanted, link, &present)?;
        if let Presence::Runs(mode) = attach::presence(dir, link)
            && wanted == Mode::Auto
            && modes.contains(&mode)
        {
            // What an earlier process has chosen goes on where nobody asks for another mode.
            modes = vec![mode];
        }
        let attached = attach::attach(ebpf, dir, name, (&modes, setup.how), attach::xdp_on(link));
        let attached = attached.map_err(|e| owner_of(host, e))?;
        if wanted == Mode::Auto && !attached.is_kept {
            self.warnings.extend(second_best(attached.mode, link));
        }
        let is_silent = setup.silent.contains(name);
        self.warnings.extend(attach::taken_text(link, &present).filter(|_| !is_silent));
        if attached.gate == Gate::Clsact {
            // The kernel asks all programs of tcx before it asks the first filter.
            let before = attach::before_gate(dir, link).unwrap_or_default();
            self.warnings.extend((!before.is_empty()).then(|| format!(
                "{name}: {} runs before our gate: if it accepts a frame of a VIP, that leaves without a lease; where that is a program of tcx, load without --gate clsact",
                before.join(", ")
            )));
        }
        self.attached.push((name.to_owned(), attached));
        Ok(())
    }
}

/// What to tell of a mode that vip-ctl had to choose.
fn second_best(mode: Mode, link: &Interface) -> Option<String> {
    let name = &link.name;
    match (mode, link.xdp) {
        (Mode::Tc, Some((_, id))) => Some(format!(
            "{name} has another XDP program on it, {}: the way in is at tc, behind it; what that program takes never comes there",
            attach::program_name(id)
        )),
        (Mode::Generic, _) => Some(format!(
            "{name} can run the way in neither in its driver nor at tc: generic mode is used, which is slower"
        )),
        (Mode::Auto | Mode::Native | Mode::Tc, _) => None,
    }
}
