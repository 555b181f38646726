//! Connection tracking: does this host's firewall keep an entry for each peer's
//! heartbeats? With a full table it could not make one, and would drop them. The
//! doctor changes nothing in the firewall.

use std::{collections::BTreeSet, fs, net::IpAddr};

use super::{Findings, Patient};
use crate::config::Config;

const SUBJECT: &str = "conntrack";
const DIR: &str = "/proc/sys/net/netfilter";
/// The tracked connections, a line each.
const TABLE: &str = "/proc/net/nf_conntrack";

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    let Some(config) = patient.config else { return };
    let number = |name: &str| fs::read_to_string(format!("{DIR}/{name}")).ok()?.trim().parse::<u64>().ok();
    let (Some(count), Some(max)) = (number("nf_conntrack_count"), number("nf_conntrack_max")) else {
        return found.ok(SUBJECT, "this kernel tracks no connections");
    };
    if count == 0 {
        return found.ok(SUBJECT, "nothing is tracked here");
    }
    let rules = rules(config);
    let Ok(table) = fs::read_to_string(TABLE) else {
        return found.ok(
            SUBJECT,
            format!("whether heartbeats are tracked can't be seen here ({TABLE}); these rules exempt them: {rules}"),
        );
    };
    let ports: BTreeSet<u16> = config.cluster.nodes.iter().map(|node| node.address.port()).collect();
    let peers = config.cluster.nodes.iter().filter(|node| node.id != config.me);
    let peers: Vec<_> = peers.map(|node| node.address.ip().to_canonical()).collect();
    if table.lines().any(|line| is_heartbeat(line, &peers, &ports)) {
        found.warning(
            SUBJECT,
            format!(
                "heartbeats are tracked, and {count} of {max} entries are in use: when the table is full, this node does not hear a peer again that was silent for some minutes; exempt them, unless your firewall lets them in by `ct state` alone: {rules}"
            ),
        );
    } else {
        found.ok(SUBJECT, format!("heartbeats are not tracked; {count} of {max} entries are in use"));
    }
}

/// Is this line of the table about datagrams between an agent here and a peer's?
fn is_heartbeat(line: &str, peers: &[IpAddr], ports: &BTreeSet<u16>) -> bool {
    let words = || line.split_ascii_whitespace();
    let value = |name: &str| words().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let is_peer = |name| {
        value(name).and_then(|address| address.parse().ok()).is_some_and(|address| peers.contains(&address))
    };
    let is_port =
        |name| value(name).and_then(|port| port.parse().ok()).is_some_and(|port| ports.contains(&port));
    words().any(|word| word == "udp")
        && (is_peer("src") || is_peer("dst"))
        && is_port("sport")
        && is_port("dport")
}

/// Rules that exempt heartbeats, as arguments of nft(8), in a table of their own.
fn rules(config: &Config) -> String {
    let ports: BTreeSet<u16> = config.cluster.nodes.iter().map(|node| node.address.port()).collect();
    let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let chain = |hook: &str| {
        format!(
            "chain {hook} {{ type filter hook {hook} priority raw; udp sport {{ {ports} }} udp dport {{ {ports} }} notrack; }}"
        )
    };
    format!("nft 'table inet vip_heartbeats {{ {}; {}; }}'", chain("prerouting"), chain("output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_told_from_other_entries() {
        let peers = [IpAddr::from([10, 77, 0, 2])];
        let ports = BTreeSet::from([7077]);
        let is_it = |line: &str| is_heartbeat(line, &peers, &ports);
        let entry = "ipv4     2 udp      17 119 src=10.77.0.1 dst=10.77.0.2 sport=7077 dport=7077 \
                     src=10.77.0.2 dst=10.77.0.1 sport=7077 dport=7077 [ASSURED] mark=0 zone=0 use=2";
        assert!(is_it(entry));
        assert!(!is_it(&entry.replace("10.77.0.2", "10.77.0.9")), "nobody's");
        assert!(!is_it(&entry.replace("udp", "tcp")));
        assert!(!is_it(&entry.replacen("sport=7077", "sport=53", 1)));
        assert!(!is_it(""));
    }
}
