//! Which modes suit an interface, and in which order to try them.

use std::collections::BTreeMap;

use crate::{dataplane::DataPlaneError, host::Interface, mode::Mode};

/// The modes to try on an interface, the best first. `present` are all interfaces of
/// this host.
///
/// Automatically, XDP in the driver comes first on a network card. On whatever the kernel
/// makes (a bond, a VLAN, a bridge, a veth), tc does: XDP there runs on the lower
/// interfaces, or sends its answers to a peer that does not take them.
///
/// # Errors
/// [`DataPlaneError::OnTop`] if native mode is wanted where it would run on others.
pub fn modes(
    wanted: Mode,
    link: &Interface,
    present: &BTreeMap<u32, Interface>,
) -> Result<Vec<Mode>, DataPlaneError> {
    // A bond's ports, or the VF below a netvsc.
    let lower: Vec<_> = present.values().filter(|lower| lower.controller == Some(link.index)).collect();
    match wanted {
        Mode::Native if !lower.is_empty() => {
            let lower = lower.iter().map(|lower| lower.name.as_str()).collect::<Vec<_>>().join(" and ");
            Err(DataPlaneError::OnTop { iface: link.name.clone(), lower })
        }
        Mode::Auto if !lower.is_empty() => Ok(vec![Mode::Tc, Mode::Generic]),
        Mode::Auto if link.kind.is_some() => Ok(vec![Mode::Tc, Mode::Native, Mode::Generic]),
        Mode::Auto => Ok(vec![Mode::Native, Mode::Tc, Mode::Generic]),
        Mode::Native | Mode::Tc | Mode::Generic => Ok(vec![wanted]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<&str>, controller: Option<u32>) -> Interface {
        let name = format!("eth{index}");
        Interface { index, name, kind: kind.map(str::to_owned), controller, ..Interface::default() }
    }

    #[test]
    fn a_card_runs_xdp_and_what_the_kernel_makes_runs_tc() {
        let (card, vlan, netvsc) = (link(2, None, Some(4)), link(3, Some("vlan"), None), link(4, None, None));
        let all = [&card, &vlan, &netvsc].map(|link| (link.index, link.clone()));
        let (present, none) = (BTreeMap::from(all), BTreeMap::new());
        let of = |mode, link, present| modes(mode, link, present).expect("possible");
        let card_first = [Mode::Native, Mode::Tc, Mode::Generic];
        assert_eq!(of(Mode::Auto, &card, &present), card_first, "also as a port of something");
        assert_eq!(of(Mode::Auto, &netvsc, &none), card_first);
        assert_eq!(of(Mode::Auto, &vlan, &present), [Mode::Tc, Mode::Native, Mode::Generic]);
        assert_eq!(of(Mode::Auto, &netvsc, &present), [Mode::Tc, Mode::Generic], "on top of another one");
        for mode in [Mode::Native, Mode::Tc, Mode::Generic] {
            assert_eq!(of(mode, &vlan, &present), [mode], "what was asked for, or nothing");
        }
    }

    #[test]
    fn native_mode_is_refused_where_it_would_run_on_others() {
        let bond = link(4, Some("bond"), None);
        let all = [link(2, None, Some(4)), link(3, None, Some(4)), bond.clone()];
        let present = all.map(|link| (link.index, link)).into();
        let refused = modes(Mode::Native, &bond, &present).expect_err("its answers would be lost");
        assert!(refused.to_string().contains("eth2 and eth3"), "{refused}");
        assert!(modes(Mode::Generic, &bond, &present).is_ok(), "that one runs on the bond itself");
    }
}
