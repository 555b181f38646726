//! The peers' entries in this host's neighbour table: could a stranger on the
//! link take a peer's place by ARP?

use super::{Findings, Level, Patient};
use crate::host::{Host, Neighbour, mac_text};

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    let Some(config) = patient.config else { return };
    let host = match Host::open(&patient.paths.run_dir) {
        Ok(host) => host,
        Err(e) => return found.error("neighbour", e.to_string()),
    };
    let runs = patient.status.is_some();
    for peer in config.cluster.nodes.iter().filter(|node| node.id != config.me) {
        let there = match host.neighbour(peer.address.ip().to_canonical()) {
            Ok(there) => there,
            Err(e) => return found.error("neighbour", e.to_string()),
        };
        let (level, says) = judge(there, peer.mac, runs);
        found.add(level, "neighbour", Some(&peer.name), says);
    }
}

fn judge(there: Neighbour, wanted: Option<[u8; 6]>, runs: bool) -> (Level, String) {
    match (there, wanted) {
        (Neighbour::Routed, _) => (Level::Ok, "it is behind a router, and has no entry here to pin".into()),
        (Neighbour::Unreachable, _) => (Level::Ok, "there is no link to it, and so no entry to pin".into()),
        (Neighbour::Pinned(mac), Some(wanted)) if mac == wanted => {
            (Level::Ok, format!("its entry is pinned to {}", mac_text(mac)))
        }
        (Neighbour::Pinned(mac), None) => {
            (Level::Ok, format!("its entry is pinned to {}, by somebody else", mac_text(mac)))
        }
        (Neighbour::Pinned(mac), Some(wanted)) => (
            Level::Error,
            format!(
                "its entry is pinned to {}, and the configuration says {}: if its interface was exchanged, write the new mac on all nodes and restart the agents",
                mac_text(mac),
                mac_text(wanted)
            ),
        ),
        (Neighbour::Learned(_), Some(wanted)) if runs => (
            Level::Error,
            format!(
                "its entry is not pinned to {}, although the agent runs: see its log for why, and restart it",
                mac_text(wanted)
            ),
        ),
        (Neighbour::Learned(_), Some(wanted)) => {
            (Level::Ok, format!("the agent pins its entry to {}", mac_text(wanted)))
        }
        (Neighbour::Learned(mac), None) => {
            let now = mac.map_or_else(String::new, |mac| format!(" (here it is {} now)", mac_text(mac)));
            (
                Level::Warning,
                format!(
                    "its entry is not pinned, so any host on the link can cut it off by forged ARP: write mac = \"…\" in its [[cluster.node]], as `ip link` shows it there{now}"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_poisoned_is_warned_of_and_what_is_pinned_is_not() {
        let mac = [2, 0, 0, 0, 0, 1];
        let level = |there, wanted, runs| judge(there, wanted, runs).0;
        assert_eq!(level(Neighbour::Learned(Some(mac)), None, true), Level::Warning);
        assert_eq!(level(Neighbour::Learned(None), Some(mac), true), Level::Error);
        assert_eq!(level(Neighbour::Learned(None), Some(mac), false), Level::Ok);
        assert_eq!(level(Neighbour::Pinned(mac), Some(mac), true), Level::Ok);
        assert_eq!(level(Neighbour::Pinned([2; 6]), Some(mac), true), Level::Error);
        assert_eq!(level(Neighbour::Routed, Some(mac), true), Level::Ok);
        assert!(judge(Neighbour::Learned(Some(mac)), None, true).1.contains("02:00:00:00:00:01"));
    }
}
