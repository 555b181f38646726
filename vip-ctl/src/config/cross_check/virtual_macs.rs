//! The groups' virtual MACs: those that are made of names, and that no two hosts or groups
//! have the same.

use std::collections::BTreeMap;

use crate::{
    config::{
        sections::{ClusterDraft, GroupDraft},
        text::report::Report,
    },
    host::mac_text,
};

const CONTEXT: &str = "vip-ctl virtual mac";
/// Of the first byte: a group of hosts, and locally administered (IEEE 802).
const MULTICAST: u8 = 1;
const LOCAL: u8 = 2;

/// The virtual MACs, by the groups' names; reports those that somebody else has.
pub(super) fn resolve(
    cluster: Option<&ClusterDraft>,
    groups: &[GroupDraft],
    report: &mut Report<'_>,
) -> BTreeMap<String, [u8; 6]> {
    let mut macs = BTreeMap::new();
    // What is missing was reported.
    let Some(cluster) = cluster else { return macs };
    let mut owners = BTreeMap::new();
    for node in &cluster.nodes {
        if let (Some(name), Some(mac)) = (&node.name, &node.mac) {
            owners.insert(*mac.get_ref(), format!("the node {}", name.get_ref()));
        }
    }
    for group in groups {
        let (Some(name), Some(written)) = (&group.name, &group.virtual_mac) else { continue };
        let name = name.get_ref();
        let made = || Some(made_of(cluster.name.as_ref()?, name));
        let Some(mac) = written.get_ref().or_else(made) else { continue };
        if let Some(owner) = owners.insert(mac, format!("the group {name}")) {
            let message = format!(
                "{owner} has the virtual_mac {} of the group {name}: write another one",
                mac_text(mac)
            );
            report.add(written.span(), message);
        }
        macs.insert(name.clone(), mac);
    }
    macs
}

/// A unicast MAC, locally administered, that is the same on all nodes.
fn made_of(cluster: &str, group: &str) -> [u8; 6] {
    let mut hash = blake3::Hasher::new_derive_key(CONTEXT);
    for text in [cluster, group] {
        hash.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
    }
    let [first, b, c, d, e, f, ..] = *hash.finalize().as_bytes();
    [first & !MULTICAST | LOCAL, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::made_of;

    #[test]
    fn a_made_one_is_the_same_for_ever_and_nobody_elses() {
        let mac = made_of("main", "db");
        // All nodes have to agree on it, whatever their versions.
        assert_eq!(mac, MAIN_DB);
        for (cluster, group) in [("main", "web"), ("other", "db"), ("maind", "b")] {
            let other = made_of(cluster, group);
            assert_ne!(other, mac);
            assert_eq!(other[0] & 3, 2, "unicast and local");
        }
    }

    const MAIN_DB: [u8; 6] = [174, 60, 15, 232, 98, 1];
}
