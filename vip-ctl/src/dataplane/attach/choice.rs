//! Which modes suit an interface, and in which order to try them.

use std::collections::BTreeMap;

use crate::{host::Interface, mode::Mode};

/// The modes to try on an interface, the best first. `present` are all interfaces of
/// this host.
///
/// Automatically, XDP in the driver comes first on a network card. On whatever the kernel
/// makes (a bond, a VLAN, a bridge, a veth), tc does: XDP there runs on the lower
/// interfaces, or sends its answers to a peer that does not take them.
#[must_use]
pub fn modes(wanted: Mode, link: &Interface, present: &BTreeMap<u32, Interface>) -> Vec<Mode> {
    match wanted {
        Mode::Auto if is_made_of_others(link, present) => vec![Mode::Tc, Mode::Native, Mode::Generic],
        Mode::Auto => vec![Mode::Native, Mode::Tc, Mode::Generic],
        Mode::Native | Mode::Tc | Mode::Generic => vec![wanted],
    }
}

/// Is it made by the kernel, or on top of another interface, as netvsc on its VF?
fn is_made_of_others(link: &Interface, present: &BTreeMap<u32, Interface>) -> bool {
    link.kind.is_some() || present.values().any(|lower| lower.controller == Some(link.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_runs_xdp_and_what_the_kernel_makes_runs_tc() {
        let link = |index, kind: Option<&str>, controller| {
            let name = format!("eth{index}");
            Interface { index, name, kind: kind.map(str::to_owned), controller, ..Interface::default() }
        };
        let (card, vlan, bond) = (link(2, None, Some(4)), link(3, Some("vlan"), None), link(4, None, None));
        let all = [&card, &vlan, &bond].map(|link| (link.index, link.clone()));
        let (present, none) = (BTreeMap::from(all), BTreeMap::new());
        let first = |link, present| modes(Mode::Auto, link, present)[0];
        assert_eq!(first(&card, &present), Mode::Native, "also as a port of something");
        assert_eq!(first(&vlan, &present), Mode::Tc);
        assert_eq!(first(&bond, &present), Mode::Tc, "on top of another one");
        assert_eq!(first(&bond, &none), Mode::Native);
        for mode in [Mode::Native, Mode::Tc, Mode::Generic] {
            assert_eq!(modes(mode, &vlan, &present), [mode], "what was asked for, or nothing");
        }
    }
}
