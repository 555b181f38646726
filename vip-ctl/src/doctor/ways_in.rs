//! The ways by which packets to a VIP come in beside the guarded interfaces: is the
//! gate at IP level there, and what is open without it?

use super::{Findings, Level, Patient};
use crate::{
    dataplane::{
        attach, load,
        local_in::{self, LocalIn},
    },
    host::{Host, Interface, stray_text},
};

/// What the findings here are about.
const SUBJECT: &str = "way in";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    if patient.plane.is_none() && patient.config.is_none() {
        return;
    }
    strays(patient, found);
    // Whatever the kernel refuses, `programs` has told it.
    let Ok(possible) = load::possible_local_in(&patient.paths.bpf_dir) else {
        return open_interfaces(patient, found);
    };
    let guards_host = || local_in::guards_host(&patient.paths.bpf_dir).unwrap_or(false);
    let is_there = || local_in::is_attached(&patient.paths.bpf_dir).unwrap_or(false);
    match (possible, &patient.plane) {
        (LocalIn::Unavailable(why), _) => {
            found.warning(SUBJECT, format!("the host can't have the gate at IP level: {why}; tunnels, containers and interfaces that are not named stay unguarded"));
            open_interfaces(patient, found);
        }
        (LocalIn::Attached, None) => {
            found.ok(SUBJECT, "the kernel can have the gate at IP level, which guards every way in")
        }
        (LocalIn::Attached, Some(_)) if is_there() => match local_in::blind_to_nat() {
            None => found.ok(SUBJECT, guarded_text(patient)),
            Some(why) => found.warning(SUBJECT, why),
        },
        (LocalIn::OpenToNat(why), None) => found.warning(SUBJECT, local_in::nat_text(&why)),
        (LocalIn::OpenToNat(why), Some(_)) if guards_host() => {
            found.warning(SUBJECT, local_in::nat_text(&why))
        }
        (LocalIn::Attached, Some(_)) if guards_host() => found.warning(
            SUBJECT,
            local_in::nat_text("the agent's log, or the next `vip-ctl load`, says why; restart the agent to try again at once"),
        ),
        (LocalIn::Attached | LocalIn::OpenToNat(_), Some(_)) => {
            found.error(
                SUBJECT,
                "the gate at IP level is gone (somebody removed its pin, detached it or flushed its table), or was there before the kernel's record of connections and does not look behind NAT: run `vip-ctl load` again, or restart the agent",
            );
            open_interfaces(patient, found);
        }
    }
}

/// What guards every way in.
fn guarded_text(patient: &Patient<'_>) -> String {
    let gate = "the gate at IP level guards every way in";
    local_in::in_table(&patient.paths.bpf_dir).map_or_else(
        || gate.to_owned(),
        |table| {
            format!("{gate}, by nftables (table {table}): after `nft flush ruleset` the agent puts it back within a second")
        },
    )
}

/// A VIP that is an ordinary address of an interface.
fn strays(patient: &Patient<'_>, found: &mut Findings) {
    let in_maps = patient.plane.iter().flat_map(|plane| plane.vips().unwrap_or_default().into_keys());
    let configured = patient.config.iter().flat_map(|config| &config.groups).flat_map(|group| &group.vips);
    let vips = in_maps.chain(configured.copied()).collect();
    match Host::open(&patient.paths.run_dir).and_then(|host| host.ordinary(&vips)) {
        Ok(None) => found.ok("address", "no VIP is an ordinary address of an interface"),
        Ok(Some((vip, iface))) => found.error("address", stray_text(vip, &iface)),
        Err(e) => found.error("address", e.to_string()),
    }
}

/// Interfaces without a program, by which packets to a VIP come in too.
fn open_interfaces(patient: &Patient<'_>, found: &mut Findings) {
    let is_guarded = |interface: &Interface| {
        patient.guards(interface.index)
            || (patient.plane.is_none()
                && patient.config.is_some_and(|config| config.interfaces.contains(&interface.name)))
    };
    let by_index = patient.present.iter().map(|link| (link.index, link.clone())).collect();
    let is_guarded_at = |index| patient.present.iter().any(|link| link.index == index && is_guarded(link));
    let is_open = |link: &&Interface| {
        let is_held = is_guarded(link) || attach::is_below_guarded(link, &by_index, &is_guarded_at);
        !link.loopback && link.up && !is_held
    };
    let open = patient.present.iter().filter(is_open);
    for interface in open {
        found.add(
            Level::Warning,
            SUBJECT,
            Some(&interface.name),
            format!("not guarded: packets to a VIP that come in by it are accepted whatever the lease says; add it to interface in vip.toml or to `vip-ctl load --iface {}`, or drop them in the firewall", interface.name),
        );
    }
}
