//! The interfaces: driver and XDP mode, MTU, offloads, and other programs on the
//! hooks.

use std::{collections::BTreeMap, fs};

use super::{Findings, Level, Patient, ethtool};
use crate::{
    dataplane::attach::{self, Presence},
    host::Interface,
    mode::Mode,
};

/// The largest MTU that fits into one page with XDP's headroom; most drivers run
/// XDP natively up to that.
const NATIVE_MTU: u32 = 3498;
/// Drivers in Linux that run XDP themselves, by the name that they report.
const NATIVE_DRIVERS: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "dpaa2-eth",
    "dpaa_eth",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_enetc",
    "funeth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_eth_soc",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "octeontx2-nicpf",
    "otx2-nicpf",
    "qede",
    "rvu_nicpf",
    "sfc",
    "st_gmac",
    "stmmac",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "vif",
    "vmxnet3",
];

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    if let Some(config) = patient.config {
        for name in &config.interfaces {
            if !patient.present.iter().any(|interface| interface.name == *name) {
                found.add(
                    Level::Error,
                    "interface",
                    Some(name),
                    "it is configured and not there: `ip link` lists those that there are",
                );
            }
        }
    }
    let present = patient.present.iter().map(|link| (link.index, link.clone())).collect();
    for interface in patient.interfaces() {
        let is_silent = patient.config.is_some_and(|config| config.silent.contains(&interface.name));
        link(interface, is_silent, found);
        let taken = attach::taken_text(interface, &present).filter(|_| !is_silent);
        if let Some(says) = taken {
            found.add(Level::Error, "port", Some(&interface.name), says);
        }
        mode((patient, &present), interface, found);
        mtu(patient, interface, found);
        offloads(patient, interface, found);
        egress(patient, interface, found);
    }
}

fn link(interface: &Interface, is_silent: bool, found: &mut Findings) {
    if is_silent {
        let says = "it is only guarded, and its carrier counts for no group";
        return found.add(Level::Ok, "link", Some(&interface.name), says);
    }
    let (level, says) = match (interface.up, interface.carrier) {
        (true, true) => (Level::Ok, "up, with carrier"),
        (true, false) => {
            (Level::Error, "it has no carrier, so no VIP is served here: see to the cable or the switch")
        }
        (false, _) => (Level::Error, "it is down, so no VIP is served here: run `ip link set IFACE up`"),
    };
    found.add(level, "link", Some(&interface.name), says.replace("IFACE", &interface.name));
}

/// How the program on the way in runs, or would run.
fn mode(
    (patient, present): (&Patient<'_>, &BTreeMap<u32, Interface>),
    interface: &Interface,
    found: &mut Findings,
) {
    let name = &interface.name;
    let driver = ethtool::driver(name).unwrap_or_else(|_| "unknown".into());
    let wanted = patient.config.and_then(|config| config.modes.get(name)).copied().unwrap_or_default();
    let running = match patient.presence(interface) {
        Some(Presence::Runs(mode)) => attach::modes(mode, interface, present).map(drop),
        Some(Presence::Gone | Presence::Unknown) | None => Ok(()),
    };
    let modes = match running.and_then(|()| attach::modes(wanted, interface, present)) {
        Ok(modes) => modes,
        Err(e) => return found.add(Level::Error, "mode", Some(name), e.to_string()),
    };
    let best = modes.first().copied().unwrap_or_default();
    let other = interface.xdp.map(|(_, id)| attach::program_name(id));
    let (level, says) = match (patient.presence(interface), other) {
        (Some(Presence::Runs(Mode::Tc)), Some(other)) => (
            Level::Warning,
            format!("tc mode, behind another XDP program, {other}: what that one takes never reaches this node's VIPs"),
        ),
        (Some(Presence::Runs(Mode::Tc)), None) if best == Mode::Native && NATIVE_DRIVERS.contains(&driver.as_str()) => (
            Level::Ok,
            format!("tc mode; its driver {driver} is known to run XDP itself, which is cheaper (`vip-ctl load --iface {name}:native`)"),
        ),
        (Some(Presence::Runs(Mode::Generic)), _) => (
            Level::Warning,
            format!("generic mode, driver {driver}: it works, and is slower than native or tc mode"),
        ),
        (Some(Presence::Runs(mode)), _) => (Level::Ok, format!("{} mode, driver {driver}", mode.name())),
        (Some(Presence::Unknown), _) => (Level::Warning, "whether its program runs there can't be read".into()),
        (Some(Presence::Gone), _) => (
            Level::Error,
            "somebody removed its program, so this node answers for no VIP here: run `vip-ctl load` again or restart the agent".into(),
        ),
        (None, Some(other)) if matches!(wanted, Mode::Native | Mode::Generic) => (
            Level::Error,
            format!("another XDP program is on it, {other}: detach that one first (`ip link set {name} xdp off`), or write mode = \"tc\""),
        ),
        (None, Some(other)) => (Level::Warning, format!("another XDP program is on it, {other}: expect tc mode, behind it")),
        (None, None) if best == Mode::Tc => (Level::Ok, "nothing is on it; the way in will be at tc".into()),
        (None, None) if NATIVE_DRIVERS.contains(&driver.as_str()) => {
            (Level::Ok, format!("nothing is on it; its driver {driver} is known to run XDP natively"))
        }
        (None, None) if wanted == Mode::Native => (
            Level::Warning,
            format!("nothing is on it; its driver {driver} is not known to run XDP natively, and mode = \"native\" may be refused"),
        ),
        (None, None) if wanted == Mode::Generic => (Level::Ok, "nothing is on it; generic mode runs on any driver".into()),
        (None, None) => (
            Level::Ok,
            format!("nothing is on it; its driver {driver} is not known to run XDP natively, so expect tc mode"),
        ),
    };
    found.add(level, "mode", Some(name), says);
}

fn mtu(patient: &Patient<'_>, interface: &Interface, found: &mut Findings) {
    let Ok(mtu) = ethtool::mtu(&interface.name) else { return };
    let wants_native =
        patient.config.is_some_and(|config| config.modes.get(&interface.name) == Some(&Mode::Native));
    if mtu > NATIVE_MTU && wants_native && patient.presence(interface) != Some(Presence::Runs(Mode::Native)) {
        found.add(
            Level::Warning,
            "mtu",
            Some(&interface.name),
            format!(
                "{mtu}: many drivers refuse native XDP above {NATIVE_MTU}; lower it, or write mode = \"tc\""
            ),
        );
    } else {
        found.add(Level::Ok, "mtu", Some(&interface.name), mtu.to_string());
    }
}

fn offloads(patient: &Patient<'_>, interface: &Interface, found: &mut Findings) {
    let name = &interface.name;
    let Ok(offloads) = ethtool::offloads(name) else {
        found.add(Level::Ok, "offloads", Some(name), "its driver tells of none");
        return;
    };
    let is_xdp = match patient.presence(interface) {
        Some(presence) => matches!(presence, Presence::Runs(Mode::Native | Mode::Generic)),
        // What will be.
        None => interface.kind.is_none(),
    };
    // At tc, a bond's flag is not its ports', and what is merged is one packet.
    let has_lro = offloads.lro && is_xdp;
    if has_lro {
        found.add(
            Level::Error,
            "offloads",
            Some(name),
            format!("LRO merges frames before XDP sees them, and most drivers refuse XDP then: run `ethtool -K {name} lro off`"),
        );
    }
    if is_xdp && offloads.vlan_rx && has_vlans(name) {
        found.add(
            Level::Warning,
            "offloads",
            Some(name),
            format!("the NIC takes VLAN tags out before XDP sees them, so frames of all VLANs on it look alike, and answers leave without a tag: if a VIP is in one of them, name that VLAN's interface, write mode = \"tc\", or run `ethtool -K {name} rxvlan off`"),
        );
    } else if !has_lro {
        let lro = if offloads.lro { "LRO is on, which matters to XDP alone" } else { "LRO is off" };
        found.add(Level::Ok, "offloads", Some(name), format!("{lro}, and no VLAN tag is lost"));
    }
}

/// Does a VLAN interface sit on top of this one? The kernel lists them as
/// `name | id | lower`.
fn has_vlans(name: &str) -> bool {
    let vlans = fs::read_to_string("/proc/net/vlan/config").unwrap_or_default();
    vlans.lines().any(|line| line.rsplit('|').next().is_some_and(|lower| lower.trim() == name))
}

/// Other programs that decide about outgoing packets before our gate does.
fn egress(patient: &Patient<'_>, interface: &Interface, found: &mut Findings) {
    let Ok(others) = attach::before_gate(&patient.paths.bpf_dir, interface) else { return };
    let is_wrong = patient.guards(interface.index) && attach::is_displaced(&patient.paths.bpf_dir, interface);
    if others.is_empty() && is_wrong {
        let says = "a gate of vip's at tc is gone from it, so that frames of a VIP may leave without a lease: run `vip-ctl load` again or restart the agent";
        found.add(Level::Error, "egress", Some(&interface.name), says);
    }
    if !others.is_empty() {
        found.add(
            Level::Warning,
            "egress",
            Some(&interface.name),
            format!(
                "{} runs before our gate on the way out: if it redirects or accepts a frame of a VIP, that leaves without a lease; the agent puts its gate first again within seconds, and so does `vip-ctl load`; see `bpftool net`",
                others.join(", ")
            ),
        );
    }
}
