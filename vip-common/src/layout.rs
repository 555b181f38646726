//! Keys and values of the BPF maps, with explicit padding and no implicit one.
//!
//! Addresses are big-endian byte arrays, as on the wire.

use crate::lease::BootNs;

/// Raised whenever a map's key, value or meaning changes. Programs are only
/// replaced under maps of the same number. Whatever its number, the record in `NODE` has
/// the same fields, `LEASES` is an array of [`crate::Lease`], and `VIPS_V4` has IPv4 addresses as keys: by
/// that one version takes off what another has pinned.
pub const LAYOUT_VERSION: u32 = 7;

/// Groups that the `LEASES` map has room for.
pub const GROUPS_MAX: u32 = 16_384;
/// Interfaces that one node can have the data plane on.
pub const IFACES_MAX: u32 = 64;
/// VIPs that the maps have room for, unless `load` is given another number.
pub const VIPS_DEFAULT: u32 = 1_024;
/// The most VIPs that `load` can be asked to make room for.
pub const VIPS_MAX: u32 = 1_048_576;
/// Bytes of the events ring buffer (a power of two, and of pages).
pub const EVENTS_BYTES: u32 = 65_536;
/// VIPs of an interface in whose name a node asks for others in their subnets.
pub const ASKS_MAX: usize = 8;
/// VIPs of an interface that can be gateways.
pub const GATEWAYS_MAX: usize = 8;
/// Nodes that a cluster can have (a power of two).
pub const NODES_MAX: usize = 32;
/// Virtual MACs of all interfaces of a node together.
pub const VIRTUAL_MACS_MAX: u32 = 4_096;
/// Bytes that a group's name can have.
pub const GROUP_NAME_LEN: usize = 32;

/// A group's place in the `LEASES` and `GROUPS` maps of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GroupIndex(pub u32);

/// A VIP's place in the `COUNTERS` map of one node.
///
/// Slot 0 belongs to no VIP: it counts frames that belong to no particular VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VipSlot(pub u32);

impl VipSlot {
    /// The slot for frames that concern no particular VIP.
    pub const NODE: Self = Self(0);
}

/// Value of the `VIPS_V4` map, whose key is the address in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VipEntry {
    /// The group that this VIP moves with.
    pub group: GroupIndex,
    /// Where this VIP's frames are counted.
    pub slot: VipSlot,
    /// The index of the interface that it is answered and announced on; [`ANYWHERE`]
    /// for all that announce, [`NOWHERE`] while its interface is away.
    pub home: u32,
    /// The length of its subnet's prefix, in bits, where that shall be a connected route
    /// of its interface; else 0.
    pub prefix: u8,
    /// [`VipEntry::GATEWAY`]; other bits are zero.
    pub flags: u8,
    /// Its group's virtual MAC, which it is announced and answered with; zeros for that of
    /// each interface.
    pub mac: [u8; 6],
}

/// The home of a VIP that every interface answers for which announces.
pub const ANYWHERE: u32 = 0;
/// The home of a VIP whose interface is away: no interface has this index.
pub const NOWHERE: u32 = u32::MAX;

/// Who writes a group's lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum GroupMode {
    /// No such group: nothing is open.
    #[default]
    Unused = 0,
    /// `vip-ctl promote` and `demote`, by hand or by somebody's script.
    Manual = 1,
    /// The agent, with a lease from a majority.
    Cluster = 2,
}

impl GroupMode {
    /// The mode that the map's word stands for; a word that no version of
    /// this project writes is [`GroupMode::Unused`], so that it opens nothing.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Manual,
            2 => Self::Cluster,
            _ => Self::Unused,
        }
    }
}

/// Value of the `GROUPS` map, at the group's [`GroupIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupConfig {
    /// A [`GroupMode`] as a word; read with [`GroupMode::from_word`].
    pub mode: u32,
    /// Always zero.
    pub pad: u32,
    /// The longest lease this group can have, in nanoseconds.
    pub hold_ns_max: u64,
    /// UTF-8, zero-padded.
    pub name: [u8; GROUP_NAME_LEN],
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { mode: GroupMode::Unused as u32, pad: 0, hold_ns_max: 0, name: [0; GROUP_NAME_LEN] }
    }
}

/// Value of the `IFACES` map, whose key is the interface's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IfaceConfig {
    /// The interface's own MAC, which ARP replies carry.
    pub mac: [u8; 6],
    /// [`IfaceConfig::SILENT`], [`IfaceConfig::BELOW`]; other bits are zero.
    pub flags: u16,
    /// VIPs with a prefix on this interface, in whose name this host asks for hardware
    /// addresses in their subnets, where it has no address of its own: one of each group
    /// and subnet. Zeros follow the last.
    pub asks: [[u8; 4]; ASKS_MAX],
}

impl IfaceConfig {
    /// Guarded, and nothing more: no VIP is answered or announced there.
    pub const SILENT: u16 = 1;
    /// Another interface with the data plane is on top of it, as a VLAN's is: what is
    /// for a VIP of that one comes by here first, and that one judges it.
    pub const BELOW: u16 = 2;

    /// The address, of no host, that the data plane answers for whoever holds which lease:
    /// so peers on the segment learn whether answers of this interface arrive. It is one of
    /// RFC 3927's, by the MAC: hosts with several interfaces are not taken for one another.
    #[inline(always)]
    #[must_use]
    pub const fn test_address(mac: [u8; 6]) -> [u8; 4] {
        // The first and the last 256 are reserved, and clouds keep 169.254.169.0/24 for
        // themselves.
        let third = match mac[4] ^ mac[2] ^ mac[0] {
            0 => 1,
            169 => 168,
            u8::MAX => 254,
            other => other,
        };
        [169, 254, third, mac[5] ^ mac[3] ^ mac[1]]
    }

    /// Has it this flag?
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl VipEntry {
    /// Hosts send through it: without the lease, nothing of theirs is forwarded.
    pub const GATEWAY: u8 = 1;

    /// Is it a gateway?
    #[inline(always)]
    #[must_use]
    pub const fn is_gateway(self) -> bool {
        self.flags & Self::GATEWAY != 0
    }

    /// The virtual MAC, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn virtual_mac(self) -> Option<[u8; 6]> {
        let [a, b, c, d, e, f] = self.mac;
        if a | b | c | d | e | f == 0 { None } else { Some(self.mac) }
    }

    /// The MAC that this VIP is at on an interface.
    #[inline(always)]
    #[must_use]
    pub const fn mac_on(self, iface: IfaceConfig) -> [u8; 6] {
        match self.virtual_mac() {
            Some(mac) => mac,
            None => iface.mac,
        }
    }

    /// Is the address in the subnet of this VIP, which is `vip`? Without a prefix, none is.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_subnet(self, vip: [u8; 4], address: [u8; 4]) -> bool {
        let differs = u32::from_be_bytes(vip) ^ u32::from_be_bytes(address);
        // A prefix of 0 would be all addresses, and a shift by 32 has no meaning.
        self.prefix != 0 && (self.prefix >= 32 || differs >> (32 - self.prefix) == 0)
    }

    /// Is this VIP answered and announced on the interface with this index and entry?
    #[inline(always)]
    #[must_use]
    pub const fn is_at_home(self, ifindex: u32, iface: IfaceConfig) -> bool {
        self.home == ifindex || (self.home == ANYWHERE && !iface.has(IfaceConfig::SILENT))
    }
}

/// Value of the `GATEWAYS` map, whose key is an interface's index: the VIPs that are
/// gateways for hosts on this interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Gateways {
    /// How many there are, from 1 to [`GATEWAYS_MAX`].
    pub count: u32,
    /// They, and zeros.
    pub vips: [[u8; 4]; GATEWAYS_MAX],
}

impl Gateways {
    /// These, up to [`GATEWAYS_MAX`]; `None` if there are none.
    #[must_use]
    pub fn of(vips: impl IntoIterator<Item = [u8; 4]>) -> Option<Self> {
        let mut all = Self::default();
        for (place, vip) in all.vips.iter_mut().zip(vips) {
            *place = vip;
            all.count += 1;
        }
        (all.count > 0).then_some(all)
    }

    /// One of them, by a number that is any.
    #[inline(always)]
    #[must_use]
    pub const fn any(&self, number: u32) -> [u8; 4] {
        let count = if self.count == 0 { 1 } else { self.count };
        // The mask is for the verifier, which does not know that they are so few.
        self.vips[(number % count) as usize & (GATEWAYS_MAX - 1)]
    }

    /// The bit of the `GATEWAY_BITS` map that an interface shares with those whose indices
    /// are the same modulo 64. It is set as long as one of them has an entry in `GATEWAYS`.
    #[inline(always)]
    #[must_use]
    pub const fn bit(ifindex: u32) -> u64 {
        1 << (ifindex & 63)
    }
}

/// Value of the `HOLDERS` map, whose key is the [`GroupIndex`]: the node that holds the
/// group, as this node's agent sees it. No fence asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Holder(pub u64);

impl Holder {
    /// Nobody, as far as is known.
    pub const NOBODY: Self = Self(0);

    /// The node with this number, below [`NODES_MAX`].
    #[must_use]
    pub const fn node(number: u8) -> Self {
        Self(number as u64 + 1)
    }

    /// Its number; `None` if nobody is known.
    #[must_use]
    pub fn number(self) -> Option<u8> {
        u8::try_from(self.0.checked_sub(1)?).ok()
    }
}

/// A hardware address as a number: zero is none.
#[inline(always)]
#[must_use]
pub const fn mac_word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Value of the `HOPS` map, whose key is an interface's index: where the cluster's other
/// nodes are on its segment. Written anew all the time while the agent lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hops {
    /// Until when it is true, in nanoseconds of CLOCK_BOOTTIME.
    pub until_ns: u64,
    /// The [`mac_word`] of each node, by its number; zero where it has none there.
    pub macs: [u64; NODES_MAX],
}

impl Hops {
    /// Where to send a frame on that `from` has sent to this node by mistake, both as a
    /// [`mac_word`]; zero where nobody knows. One of the nodes has sent it on already, if it
    /// is from there: none goes from node to node.
    #[inline(always)]
    #[must_use]
    pub const fn towards(&self, holder: Holder, from: u64, now: BootNs) -> u64 {
        if holder.0 == 0 || now.0 > self.until_ns {
            return 0;
        }
        // Without a branch: the verifier would go each way each time.
        let (mut is_node, mut i) = (0, 0);
        while i < NODES_MAX {
            is_node |= (self.macs[i] ^ from).wrapping_sub(1) >> 63;
            i += 1;
        }
        // The mask is for the verifier, which does not know that there are no more nodes.
        let number = (holder.0 - 1) & (NODES_MAX as u64 - 1);
        #[expect(clippy::cast_possible_truncation, reason = "below 32")]
        let mac = self.macs[number as usize];
        if is_node == 0 { mac } else { 0 }
    }
}

/// Key of the `VIRTUAL_MACS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VirtualMacKey {
    /// The interface on which a group with this MAC is announced, by its index.
    pub ifindex: u32,
    /// The virtual MAC.
    pub mac: [u8; 6],
    /// Always zero.
    pub pad: [u8; 2],
}

/// Value of the `VIRTUAL_MACS` map: whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VirtualMac {
    /// The group under whose lease this node takes frames for it.
    pub group: GroupIndex,
    /// Where those that it does not take are counted: with the group's first VIP there.
    pub slot: VipSlot,
    /// That VIP, in network order.
    pub vip: [u8; 4],
}

/// Value of the `HEARD` map, at the VIP's [`VipSlot`]: what a node without the lease has
/// heard of the VIP from other hosts. Written by several CPUs at once: it can mix two
/// frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Heard {
    /// When one last answered a request of this very interface for it, in nanoseconds of
    /// CLOCK_BOOTTIME; 0: never.
    pub answered_ns: u64,
    /// When one last claimed it at all: by an answer or an announcement.
    pub claimed_ns: u64,
    /// The interface by which that claim came in.
    pub ifindex: u32,
    /// The MAC that it claimed the VIP for.
    pub mac: [u8; 6],
    /// Always zero.
    pub pad: [u8; 6],
}

/// The only value of the `NODE` map: what an agent that adopts the pinned
/// maps must find before it touches anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NodeConfig {
    /// [`LAYOUT_VERSION`] of whoever created the maps.
    pub layout_version: u32,
    /// How many VIPs the maps have room for.
    pub vips_max: u32,
}

/// Where the running kernel's `struct sk_buff` and `struct nf_conn` have their fields, in
/// bytes, as the kernel's own BTF tells: a constant of the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SkbOffsets {
    /// `head`, a pointer to the packet's buffer.
    pub head: u16,
    /// `network_header`, a `u16`: where in the buffer the IP header begins.
    pub network_header: u16,
    /// `_nfct`, a pointer to the packet's connection, and three bits.
    pub connection: u16,
    /// `status` of a connection: what NAT does to it. 0 where the kernel does not tell, or
    /// tracks no connections.
    pub status: u16,
    /// The IPv4 destination that the first packet of a connection had before NAT.
    pub destination: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another version reads it, as an array's value of this size.
    const _: () = assert!(size_of::<NodeConfig>() == 8);

    const NOW: BootNs = BootNs(1_000);
    const CLIENT: u64 = mac_word([2, 0, 0, 0, 0, 9]);

    fn mac(number: u8) -> u64 {
        mac_word([2, 0, 0, 0, 1, number])
    }

    /// Of nodes 0, 2 and the last that there can be.
    fn hops() -> Hops {
        let mut hops = Hops { until_ns: NOW.0, ..Hops::default() };
        for number in [0, 2, 31] {
            hops.macs[usize::from(number)] = mac(number);
        }
        hops
    }

    #[test]
    fn a_frame_goes_to_the_holder_as_long_as_that_is_known() {
        for number in [0, 2, 31] {
            assert_eq!(hops().towards(Holder::node(number), CLIENT, NOW), mac(number));
        }
        let unknown = [Holder::NOBODY, Holder::node(1), Holder::node(30)];
        assert!(unknown.iter().all(|holder| hops().towards(*holder, CLIENT, NOW) == 0));
        assert_eq!(hops().towards(Holder::node(2), CLIENT, BootNs(NOW.0 + 1)), 0);
        assert_eq!(Hops::default().towards(Holder::node(2), CLIENT, BootNs(0)), 0);
    }

    #[test]
    fn none_goes_from_node_to_node() {
        for from in [0, 2, 31] {
            assert_eq!(hops().towards(Holder::node(2), mac(from), NOW), 0);
        }
    }
}
