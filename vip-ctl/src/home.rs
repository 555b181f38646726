//! Where a VIP belongs on this host.

use std::{collections::BTreeMap, net::IpAddr};

/// Its interface and subnet, as far as somebody says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// The one interface that it is answered and announced on; `None` for all that
    /// announce.
    pub interface: Option<String>,
    /// The length of its subnet's prefix, in bits: the subnet is on the interface's link,
    /// also where this host has no address in it.
    pub prefix: Option<u8>,
}

/// Is this VIP answered and announced on the interface with this name, if that announces any?
#[must_use]
pub fn is_on(homes: &BTreeMap<IpAddr, Home>, vip: &IpAddr, name: &str) -> bool {
    homes.get(vip).and_then(|home| home.interface.as_deref()).is_none_or(|own| own == name)
}
