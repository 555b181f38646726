//! The digest by which nodes notice that their configurations differ. What is
//! a node's own business (its name, interfaces, the key file's path) is not in it.

use std::net::IpAddr;

use super::{Cluster, Config};

const CONTEXT: &str = "vip-ctl configuration digest";

pub(super) fn digest(config: &Config) -> u64 {
    let mut encoder = Encoder(blake3::Hasher::new_derive_key(CONTEXT));
    let Config { node_name: _, me: _, interfaces: _, cluster, groups } = config;
    let Cluster { name, key_file: _, lease, nodes } = cluster;
    encoder.text(name).bytes(&lease.as_nanos().to_be_bytes()).length(nodes.len());
    for node in nodes {
        encoder.text(&node.name).text(&node.address.to_string()).bytes(&[u8::from(node.witness)]);
    }
    encoder.length(groups.len());
    for group in groups {
        encoder.text(&group.name).length(group.vips.len());
        for vip in &group.vips {
            match vip {
                IpAddr::V4(vip) => encoder.bytes(&[4]).bytes(&vip.octets()),
                IpAddr::V6(vip) => encoder.bytes(&[6]).bytes(&vip.octets()),
            };
        }
        encoder.length(group.priorities.len());
        for (node, priority) in &group.priorities {
            encoder.text(node).bytes(&[*priority]);
        }
    }
    encoder.finish()
}

/// Feeds a hash so that different configurations never feed it the same bytes:
/// what varies in length is preceded by its length.
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
