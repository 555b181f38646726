//! Where a VIP belongs on this host.

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
