//! Groups with a virtual MAC: can their interfaces receive what is for it, and do the programs
//! take it?

use super::{Findings, Level, Patient};
use crate::{
    config::{Config, Group},
    home::is_on,
    host::mac_text,
    node::virtual_macs::deaf,
};

/// What the findings here are about.
const SUBJECT: &str = "virtual MAC";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    let Some(config) = patient.config else { return };
    let known = match patient.plane.as_ref().map(|plane| plane.virtual_macs()) {
        Some(Err(e)) => return found.warning(SUBJECT, format!("not checked: {e}")),
        Some(Ok(known)) => Some(known),
        None => None,
    };
    for (group, mac, name) in wanted(config) {
        // One that the host does not have is told of elsewhere.
        let Some(link) = patient.present.iter().find(|link| link.name == *name) else { continue };
        let is_taken =
            known.as_ref().map(|known| known.keys().any(|key| (key.ifindex, key.mac) == (link.index, mac)));
        let mode = config.modes.get(name).copied().unwrap_or_default();
        let (level, says) = told(group, mac, deaf(&patient.paths.bpf_dir, link, mode), is_taken);
        found.add(level, SUBJECT, Some(name), says);
    }
}

/// The groups with a virtual MAC, and the interfaces that they are announced on.
fn wanted(config: &Config) -> impl Iterator<Item = (&Group, [u8; 6], &String)> {
    let is_here = |group: &Group, name: &str| group.vips.iter().any(|vip| is_on(&group.homes, vip, name));
    let of = move |group| {
        config.announcing().filter(move |name| is_here(group, name)).map(move |name| (group, name))
    };
    let all = config.groups.iter().flat_map(of);
    all.filter_map(|(group, name)| Some((group, group.virtual_mac?, name)))
}

/// What to tell of a group's virtual MAC on an interface, which is `deaf` to it for a reason, and
/// on which the programs take what is for it; `None` without a data plane.
fn told(group: &Group, mac: [u8; 6], deaf: Option<&str>, is_taken: Option<bool>) -> (Level, String) {
    let (group, mac) = (&group.name, mac_text(mac));
    match (deaf, is_taken) {
        (Some(why), _) => (Level::Error, format!("group {group} can't have its virtual_mac here: {why}")),
        (None, Some(false)) => (
            Level::Error,
            format!("the programs don't take what is for {mac}, of group {group}: run `vip-ctl reload`"),
        ),
        (None, Some(true) | None) => (Level::Ok, format!("what is for {mac} follows the lease of {group}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_deaf_interface_and_one_that_takes_nothing_are_told() {
        let text = "[node]\nname = \"a\"\ninterface = [\"lan0\", \"wan0\"]\n[cluster]\nname = \"c\"\n\
            key_file = \"k\"\n[[cluster.node]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n\
            [[group]]\nname = \"db\"\ninterface = \"lan0\"\nvips = [\"10.0.1.12\"]\n\
            virtual_mac = \"00:00:5e:00:01:33\"\n[[group]]\nname = \"web\"\nvips = [\"10.0.1.13\"]\n";
        let config = Config::parse(text, Path::new("vip.toml"), "a").unwrap();
        let found: Vec<_> = wanted(&config).collect();
        let [(group, mac, name)] = found[..] else { panic!("{found:?}") };
        assert_eq!((group.name.as_str(), name.as_str()), ("db", "lan0"));
        let level = |deaf, is_taken| told(group, mac, deaf, is_taken).0;
        assert_eq!(level(None, None), Level::Ok, "there is no data plane yet");
        assert_eq!(level(None, Some(true)), Level::Ok);
        assert_eq!(level(None, Some(false)), Level::Error);
        assert_eq!(level(Some("a bridge"), Some(true)), Level::Error);
        assert!(told(group, mac, None, Some(false)).1.contains("00:00:5e:00:01:33"));
    }
}
