//! The digests by which nodes notice that their configurations differ. They leave
//! out what may differ between nodes (a node's name, its interfaces, the key
//! file's path, its checks and hooks).

use std::net::IpAddr;

use super::{Cluster, Config, Group, Node, PRIORITY_DEFAULT};
use crate::engine::{PeerLoss, Role};

const CONTEXT: &str = "vip-ctl configuration digest";
const NODES_CONTEXT: &str = "vip-ctl nodes digest";
const GROUPS_CONTEXT: &str = "vip-ctl groups digest";

pub(super) fn digest(config: &Config) -> u64 {
    let mut encoder = Encoder(blake3::Hasher::new_derive_key(CONTEXT));
    // The nodes and the groups have digests of their own.
    let Config {
        node_name: _,
        me: _,
        startup_delay: _,
        garp: _,
        self_test: _,
        steer: _,
        interfaces: _,
        modes: _,
        silent: _,
        cluster,
        groups: _,
        api: _,
    } = config;
    let Cluster { name, key_file: _, lease, pair, generation: _, nodes: _ } = cluster;
    let pair = match pair {
        None => 0,
        Some(PeerLoss::Take) => 1,
        Some(PeerLoss::Hold) => 2,
    };
    encoder.text(name).bytes(&lease.as_nanos().to_be_bytes()).bytes(&[pair]);
    encoder.finish()
}

/// The groups, as far as all nodes must have the same once each has reloaded.
/// Leaves out default priorities, so that a node that comes or goes changes
/// nothing here.
pub(super) fn groups(groups: &[Group]) -> u64 {
    let mut encoder = Encoder(blake3::Hasher::new_derive_key(GROUPS_CONTEXT));
    encoder.length(groups.len());
    for group in groups {
        // Interfaces may have other names on each node.
        let Group {
            name,
            vips,
            homes: _,
            is_gateway: _,
            virtual_mac: _,
            priorities,
            preempt,
            health: _,
            hooks: _,
        } = group;
        let delay = preempt.map_or(u128::MAX, |delay| delay.as_nanos());
        encoder.text(name).bytes(&delay.to_be_bytes()).length(vips.len());
        for vip in vips {
            match vip {
                IpAddr::V4(vip) => encoder.bytes(&[4]).bytes(&vip.octets()),
                IpAddr::V6(vip) => encoder.bytes(&[6]).bytes(&vip.octets()),
            };
        }
        let chosen = priorities.iter().filter(|(_, priority)| **priority != PRIORITY_DEFAULT);
        encoder.length(chosen.clone().count());
        for (node, priority) in chosen {
            encoder.text(node).bytes(&[*priority]);
        }
    }
    // Without any, the digest is that of versions that know none.
    for group in groups.iter().filter(|group| group.is_gateway) {
        encoder.text(&group.name);
    }
    for group in groups {
        if let Some(mac) = group.virtual_mac {
            encoder.bytes(b"virtual_mac").text(&group.name).bytes(&mac);
        }
    }
    encoder.finish()
}

/// The nodes.
pub(super) fn nodes(config: &Config) -> u64 {
    let mut encoder = Encoder(blake3::Hasher::new_derive_key(NODES_CONTEXT));
    encoder.length(config.cluster.nodes.len());
    // Hardware gets replaced, and does not concern the cluster.
    for Node { id, name, address, role, mac: _ } in &config.cluster.nodes {
        let role = match role {
            Role::Node | Role::Vacant => 0,
            Role::Witness => 1,
            Role::Observer => 2,
        };
        encoder.text(name).text(&address.to_string()).bytes(&[role, *id]);
    }
    encoder.finish()
}

/// Feeds a hash so that different configurations never feed it the same bytes:
/// puts its length before each value of variable length.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn length(&mut self, length: usize) -> &mut Self {
        self.bytes(&(length as u64).to_be_bytes())
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.length(text.len()).bytes(text.as_bytes())
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        self.0.finalize_xof().fill(&mut first);
        u64::from_be_bytes(first)
    }
}
