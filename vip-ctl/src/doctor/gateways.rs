//! VIPs that are gateways: does the host forward for them, and are their clients fenced?

use std::{collections::BTreeMap, net::IpAddr};

use vip_common::layout::Gateways;

use super::{Findings, Level, Patient, settings};
use crate::{config::Config, home::is_on};

/// What the findings here are about.
const SUBJECT: &str = "gateway";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    let Some(config) = patient.config else { return };
    let known = match patient.plane.as_ref().map(|plane| plane.gateways()) {
        Some(Err(e)) => return found.warning(SUBJECT, format!("not checked: {e}")),
        Some(Ok(known)) => Some(known),
        None => None,
    };
    for (name, vips) in wanted(config) {
        // One that the host does not have is told of elsewhere.
        let Some(link) = patient.present.iter().find(|link| link.name == name) else { continue };
        let forwards = settings::value(&name, "forwarding").is_none_or(|value| value != 0);
        let fenced = known.as_ref().map(|known| known.get(&link.index));
        let (level, says) = told(&name, &vips, forwards, fenced);
        found.add(level, SUBJECT, Some(&name), says);
    }
}

/// The gateways of each interface that shall have any.
fn wanted(config: &Config) -> BTreeMap<String, Vec<IpAddr>> {
    let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for group in config.groups.iter().filter(|group| group.is_gateway) {
        for vip in &group.vips {
            for name in config.announcing().filter(|name| is_on(&group.homes, vip, name)) {
                wanted.entry(name.clone()).or_default().push(*vip);
            }
        }
    }
    wanted
}

/// What to tell of an interface with these gateways, of which the programs know `fenced`;
/// `None` without a data plane.
fn told(name: &str, vips: &[IpAddr], forwards: bool, fenced: Option<Option<&Gateways>>) -> (Level, String) {
    let knows = |vip: &&IpAddr| match (vip, fenced) {
        (IpAddr::V4(vip), Some(Some(known))) => known.vips.contains(&vip.octets()),
        (_, Some(None)) | (IpAddr::V6(_), _) => false,
        (_, None) => true,
    };
    if let Some(vip) = vips.iter().find(|vip| !knows(vip)) {
        return (
            Level::Error,
            format!(
                "{vip} is a gateway, and the programs don't know it: without the lease this host forwards all the same; run `vip-ctl reload`"
            ),
        );
    }
    if !forwards {
        return (
            Level::Warning,
            format!(
                "VIPs are gateways here, and the host forwards nothing that comes in by it: `sysctl -w net.ipv4.conf.{name}.forwarding=1`"
            ),
        );
    }
    (Level::Ok, "without a lease of its gateways, nothing that comes in by it is forwarded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_not_fenced_or_does_not_forward_is_told() {
        let vips = [IpAddr::from([10, 0, 1, 1]), IpAddr::from([10, 0, 1, 2])];
        let (both, one) = (Gateways::of([[10, 0, 1, 2], [10, 0, 1, 1]]), Gateways::of([[10, 0, 1, 1]]));
        let level = |forwards, fenced| told("lan0", &vips, forwards, fenced).0;
        assert_eq!(level(true, None), Level::Ok, "there is no data plane yet");
        assert_eq!(level(true, Some(both.as_ref())), Level::Ok);
        assert_eq!(level(false, Some(both.as_ref())), Level::Warning);
        assert_eq!(level(true, Some(one.as_ref())), Level::Error);
        assert_eq!(level(false, Some(None)), Level::Error);
        let says = told("lan0", &vips, true, Some(one.as_ref())).1;
        assert!(says.starts_with("10.0.1.2 is a gateway"), "{says}");
    }
}
