//! What a host's network configuration looks like to its owner, so that two
//! moments can be compared: a failover must not touch it, `unload` must
//! restore it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::netns::Netns;

/// A host's configuration at one moment. Every value is text as `ip` prints
/// it; nothing in it changes by itself (no counters, no lifetimes: the lab has
/// no leased addresses).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `ip addr`.
    pub addresses: String,
    /// `ip -d link`.
    pub links: String,
    /// `ip rule`.
    pub rules: String,
    /// `ip route show table all`.
    pub routes: String,
    /// Everything under /proc/sys/net/ipv4/conf.
    pub sysctls: BTreeMap<String, String>,
}

impl Snapshot {
    /// Takes one of `ns`.
    ///
    /// # Errors
    /// When `ip` fails or the namespace is gone.
    pub fn take(ns: &Netns) -> Result<Self> {
        Ok(Self {
            addresses: ns.ip("addr")?,
            links: without_values(&ns.ip("-d link")?, &TIMERS),
            rules: ns.ip("rule")?,
            routes: ns.ip("route show table all")?,
            sysctls: ns.enter(|| read_tree(Path::new("/proc/sys/net/ipv4/conf")))?,
        })
    }

    /// What `ip addr` and `ip -d link` show differently in `later`, as lines
    /// with `-` and `+`. The carrier is left out where the lab itself pulled
    /// the cable: see [`Carrier`].
    #[must_use]
    pub fn interface_changes(&self, later: &Self, carrier: Carrier) -> Vec<String> {
        let mut changes = line_changes(&carrier.view(&self.addresses), &carrier.view(&later.addresses));
        changes.extend(line_changes(&carrier.view(&self.links), &carrier.view(&later.links)));
        changes
    }

    /// Everything that is different in `later`, as lines with `-` and `+`.
    #[must_use]
    pub fn all_changes(&self, later: &Self) -> Vec<String> {
        let mut changes = self.interface_changes(later, Carrier::Compared);
        changes.extend(line_changes(&self.rules, &later.rules));
        changes.extend(line_changes(&self.routes, &later.routes));
        let listed = |sysctls: &BTreeMap<String, String>| {
            sysctls.iter().map(|(key, value)| format!("{key} = {value}\n")).collect::<String>()
        };
        changes.extend(line_changes(&listed(&self.sysctls), &listed(&later.sysctls)));
        changes
    }
}

/// Whether the carrier is part of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A change of the carrier is a change.
    Compared,
    /// The cable was pulled or put back in between, which is no change of configuration.
    Ignored,
}

impl Carrier {
    fn view(self, text: &str) -> String {
        match self {
            Self::Compared => text.to_owned(),
            Self::Ignored => {
                without_values(&text.replace("NO-CARRIER,", "").replace(",LOWER_UP", ""), &CARRIERS)
            }
        }
    }
}

/// What of a bridge changes by itself.
const TIMERS: [&str; 7] = [
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
];
/// What follows the carrier: of each interface, of a bond, and of its ports.
const CARRIERS: [&str; 4] = ["state", "active_slave", "mii_status", "link_failure_count"];

/// The text with a `-` after each of these words, in the place of what is there.
fn without_values(text: &str, words: &[&str]) -> String {
    let line = |line: &str| {
        let mut kept = Vec::new();
        for word in line.split_whitespace() {
            let is_value = kept.last().is_some_and(|last| words.contains(last));
            kept.push(if is_value { "-" } else { word });
        }
        kept.join(" ")
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn line_changes(before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let gone = before.lines().filter(|line| !after.lines().any(|l| l == *line));
    let new = after.lines().filter(|line| !before.lines().any(|l| l == *line));
    let mut changes: Vec<String> =
        gone.map(|l| format!("- {}", l.trim())).chain(new.map(|l| format!("+ {}", l.trim()))).collect();
    if changes.is_empty() {
        changes.push("~ the same lines, in another order or number".to_owned());
    }
    changes
}

/// Every readable file below `dir`, by its path.
fn read_tree(dir: &Path) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return values };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            values.extend(read_tree(&path));
        } else if let Ok(value) = std::fs::read_to_string(&path) {
            values.insert(path.display().to_string(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_both_ways() {
        let changes = line_changes("a\n  b\n", "a\n  c\n");
        assert_eq!(changes, ["- b", "+ c"]);
        assert!(line_changes("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(line_changes("a\nb\n", "b\na\n").len(), 1);
    }

    #[test]
    fn only_the_carrier_is_ignored() {
        let up = "2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT";
        let cut =
            "2: eth0: <NO-CARRIER,BROADCAST,UP> mtu 1500 qdisc noqueue state LOWERLAYERDOWN mode DEFAULT";
        let other = "2: eth0: <NO-CARRIER,BROADCAST,UP> mtu 1400 qdisc noqueue state DOWN mode DEFAULT";
        assert_eq!(Carrier::Ignored.view(up), Carrier::Ignored.view(cut));
        assert_ne!(Carrier::Ignored.view(up), Carrier::Ignored.view(other));
        assert_ne!(Carrier::Compared.view(up), Carrier::Compared.view(cut));
    }
}
