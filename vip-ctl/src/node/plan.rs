//! The dry run of `load` and `unload`. It checks the same things in the same
//! order as bringing a node up and down does, and meets the same refusals.

use super::{
    DataPlane, DataPlaneError, Host, Interface, Mode, NodeError, Setup, attach, attaching::owner_of, chosen,
    refuse_mixing, refuse_ordinary_addresses, refuse_taken,
};
use crate::{
    dataplane::{attach::Presence, former::Former, load},
    paths::Paths,
};

/// What [`super::set_up`] would change, in sentences.
///
/// # Errors
/// What `set_up` would refuse, as far as that can be known without trying.
pub fn of_set_up(paths: &Paths, setup: &Setup) -> Result<Vec<String>, NodeError> {
    let host = Host::open(&paths.run_dir)?;
    let present = host.interfaces()?;
    let interfaces = chosen(&setup.interfaces, &present)?;
    refuse_ordinary_addresses(&host, setup)?;
    super::sites::refuse_unguarded(&paths.bpf_dir, setup)?;
    let plane = opened(paths)?;
    if let Some(plane) = &plane {
        refuse_mixing(plane, setup)?;
        refuse_taken(plane, setup)?;
    }
    // Asks the kernel's verifier, which costs nothing.
    load::try_out()?;
    let dir = paths.bpf_dir.display();
    let mut happen = vec![match &plane {
        Some(_) => format!("the programs pinned at {dir} would be replaced by this version's, without a gap"),
        None => format!("programs and maps would be loaded and pinned at {dir}"),
    }];
    let guarded = attach::interfaces(&paths.bpf_dir)?;
    for (interface, _) in &interfaces {
        if guarded.contains_key(&interface.index) {
            happen.extend(other_mode(paths, interface, setup.mode(&interface.name)));
            continue;
        }
        let mut modes = attach::modes(setup.mode(&interface.name), interface, &present)?;
        if interface.xdp.is_some() {
            modes.retain(|mode| *mode == Mode::Tc);
            if modes.is_empty() {
                let error = DataPlaneError::Occupied { iface: interface.name.clone(), owner: String::new() };
                return Err(owner_of(&host, error));
            }
        }
        let modes: Vec<_> = modes.iter().map(|mode| mode.name()).collect();
        happen.push(format!(
            "a program in {} mode and an egress gate would go on {}",
            modes.join(" or else "),
            interface.name
        ));
    }
    let vips = match &plane {
        Some(plane) => plane.vips()?,
        None => std::collections::BTreeMap::new(),
    };
    let mut wanted = std::collections::BTreeSet::new();
    for group in &setup.groups {
        for vip in &group.vips {
            if !vips.contains_key(vip) {
                happen.push(format!("{vip} would be guarded, in group {}", group.name));
            }
            if let Some(home) = group.homes.get(vip) {
                happen.extend(super::sites::told(*vip, home));
            }
            wanted.insert(*vip);
        }
    }
    happen.extend(super::sites::beneath(&host, setup, &present)?);
    happen.extend(host.missing(&wanted, &super::ways::reach(&host, &paths.bpf_dir, &vips)?)?);
    Ok(happen)
}

/// What becomes of the way in of an interface that has one, in a sentence.
fn other_mode(paths: &Paths, interface: &Interface, wanted: Mode) -> Option<String> {
    let Presence::Runs(mode) = attach::presence(&paths.bpf_dir, interface) else { return None };
    let (name, mode, to) = (&interface.name, mode.name(), wanted.name());
    let is_other = wanted != Mode::Auto && mode != to;
    is_other.then(|| format!("the way in of {name} would change from {mode} to {to} mode, without a gap"))
}

/// What [`super::tear_down`] would change, in sentences.
///
/// # Errors
/// [`NodeError`] if this node can't be read.
pub fn of_tear_down(paths: &Paths) -> Result<Vec<String>, NodeError> {
    let host = Host::open(&paths.run_dir)?;
    let mut happen = Vec::new();
    if let Some(former) = Former::find(&paths.bpf_dir)? {
        happen.extend(host.saved_changes()?);
        happen.push(format!(
            "programs and maps of layout {}, pinned at {} by another version, would be removed",
            former.layout(),
            paths.bpf_dir.display()
        ));
    } else if let Some(plane) = opened(paths)? {
        for group in plane.groups() {
            let lease = plane.leases().load(group.index);
            if group.fence(lease, super::clock::now()).is_open() {
                happen.push(format!(
                    "group {} is active here and would end: nobody answers until another node takes it",
                    group.name
                ));
            }
        }
        happen.extend(host.saved_changes()?);
        for (_, name) in attach::interfaces(&paths.bpf_dir)? {
            happen.push(format!("the programs would be taken off {name}"));
        }
        happen.push(format!("programs and maps pinned at {} would be removed", paths.bpf_dir.display()));
    } else {
        // An interrupted load or unload may have left the host changed.
        happen.extend(host.saved_changes()?);
    }
    Ok(happen)
}

/// The data plane, if one is loaded.
///
/// # Errors
/// [`NodeError`] if it is there and can't be opened, for instance because another
/// version pinned it.
pub fn opened(paths: &Paths) -> Result<Option<DataPlane>, NodeError> {
    match DataPlane::open(&paths.bpf_dir) {
        Ok(plane) => Ok(Some(plane)),
        Err(DataPlaneError::NotLoaded { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
