//! Which modes suit an interface, and in which order to try them; and which interface can
//! answer nobody, whatever the mode.

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

/// Interfaces of the kernel's that take every frame of their ports for themselves. A bridge
/// brings what is for the host back to it, and a VRF's port keeps its own.
const TAKERS: [&str; 2] = ["bond", "team"];

/// The interface that takes this one's frames: the bond that it is a port of, or the card's
/// driver (netvsc, net_failover) that it is the VF of. Its program still sees frames, and
/// whoever it answers sends to a port that the one above may not use.
#[must_use]
pub fn taken_by<'a>(link: &Interface, present: &'a BTreeMap<u32, Interface>) -> Option<&'a str> {
    let upper = present.get(&link.controller?)?;
    let takes = upper.kind.as_deref().is_none_or(|kind| TAKERS.contains(&kind));
    takes.then_some(upper.name.as_str())
}

/// Does all that comes in by this interface come in by a guarded one above it? So it is for
/// the ports of a bond or a bridge.
#[must_use]
pub fn is_below_guarded(
    link: &Interface,
    present: &BTreeMap<u32, Interface>,
    is_guarded: &dyn Fn(u32) -> bool,
) -> bool {
    let Some(upper) = link.controller.and_then(|index| present.get(&index)) else { return false };
    let gives = taken_by(link, present).is_some() || upper.kind.as_deref() == Some("bridge");
    gives && (is_guarded(upper.index) || is_below_guarded(upper, present, is_guarded))
}

/// [`taken_by`] in a sentence: why no VIP is served on this interface.
#[must_use]
pub fn taken_text(link: &Interface, present: &BTreeMap<u32, Interface>) -> Option<String> {
    let upper = taken_by(link, present)?;
    let name = &link.name;
    Some(format!("{name} is a port of {upper}, which takes its frames: name {upper} instead of {name}"))
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
    fn a_bond_and_a_card_take_the_frames_of_their_ports() {
        let port = link(2, None, Some(4));
        let below = |upper: Interface| {
            let present = BTreeMap::from([(2, port.clone()), (upper.index, upper)]);
            taken_by(&port, &present).map(str::to_owned)
        };
        for kind in [Some("bond"), Some("team"), None] {
            assert_eq!(below(link(4, kind, None)).as_deref(), Some("eth4"), "{kind:?}");
        }
        for kind in ["bridge", "vrf"] {
            assert_eq!(below(link(4, Some(kind), None)), None, "{kind}");
        }
        assert_eq!(below(link(5, Some("bond"), None)), None, "that is another one's");
        assert_eq!(taken_by(&link(2, None, None), &BTreeMap::new()), None);
    }

    #[test]
    fn what_comes_in_below_a_guarded_interface_meets_its_program() {
        // A port of a bond that is a bridge's.
        let (port, bond) = (link(2, None, Some(4)), link(4, Some("bond"), Some(5)));
        let under = |kind| {
            let all = [port.clone(), bond.clone(), link(5, Some(kind), None)];
            let present = all.map(|link| (link.index, link)).into();
            [2, 4, 5].map(|guarded| is_below_guarded(&port, &present, &|index| index == guarded))
        };
        assert_eq!(under("bridge"), [false, true, true]);
        assert_eq!(under("vrf"), [false, true, false], "a VRF's port keeps its own");
        assert!(!is_below_guarded(&bond, &BTreeMap::new(), &|_| true), "what is above is not known");
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
