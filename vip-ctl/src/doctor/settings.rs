//! The network settings by which the host's own stack answers and routes.

use std::fs;

use super::{Findings, Patient};

const CONF: &str = "/proc/sys/net/ipv4/conf";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    for (name, wanted, otherwise) in [
        ("arp_ignore", 1, "the host answers ARP for the VIP on every interface that is not guarded"),
        ("arp_announce", 2, "a standby asks for its clients' addresses in the VIP's name"),
    ] {
        let setting = format!("net.ipv4.conf.all.{name}");
        match value("all", name) {
            None => found.warning("sysctl", format!("{setting} can't be read")),
            Some(value) if value >= wanted => found.ok("sysctl", format!("{setting} is {value}")),
            Some(value) if patient.plane.is_none() => {
                found.ok("sysctl", format!("{setting} is {value}; load and agent set it to {wanted}"));
            }
            Some(value) => found.error(
                "sysctl",
                format!("{setting} is {value} again, and {otherwise}: find who set it (`sysctl -w {setting}={wanted}` mends it)"),
            ),
        }
    }
    let all = value("all", "rp_filter").unwrap_or(0);
    for interface in patient.interfaces() {
        // The higher of the two is in force (ip-sysctl).
        let filter = value(&interface.name, "rp_filter").unwrap_or(0).max(all);
        let means = match filter {
            0 => "no source is checked",
            1 => "strict, which the rules for local clients are made for",
            _ => "loose",
        };
        found.add(super::Level::Ok, "rp_filter", Some(&interface.name), format!("{filter}: {means}"));
    }
}

/// A setting of an interface, or of all.
pub(super) fn value(interface: &str, name: &str) -> Option<u32> {
    // An interface's dot is a slash for sysctl(8), but not in /proc.
    fs::read_to_string(format!("{CONF}/{interface}/{name}")).ok()?.trim().parse().ok()
}
