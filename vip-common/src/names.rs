//! Names of maps and programs: the BPF object declares them, user space looks
//! them up and pins them under the same name.

/// Map: u32 group index → lease word. A memory-mapped array.
pub const LEASES: &str = "LEASES";
/// Map: u32 group index → [`crate::layout::GroupConfig`].
pub const GROUPS: &str = "GROUPS";
/// Map: IPv4 address in network order → [`crate::layout::VipEntry`].
pub const VIPS_V4: &str = "VIPS_V4";
/// Map: VIP slot → [`crate::counter::Counters`], per CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Map: VIP slot → [`crate::layout::Heard`].
pub const HEARD: &str = "HEARD";
/// Map: interface index → [`crate::layout::IfaceConfig`].
pub const IFACES: &str = "IFACES";
/// Map: interface index → [`crate::layout::Gateways`].
pub const GATEWAYS: &str = "GATEWAYS";
/// Map: u32 group index → [`crate::layout::Holder`]. A memory-mapped array.
pub const HOLDERS: &str = "HOLDERS";
/// Map: interface index → [`crate::layout::Hops`].
pub const HOPS: &str = "HOPS";
/// Map: 0 → the bits ([`crate::layout::Gateways::bit`]) of the interfaces in [`GATEWAYS`].
pub const GATEWAY_BITS: &str = "GATEWAY_BITS";
/// Map: [`crate::layout::VirtualMacKey`] → [`crate::layout::VirtualMac`].
pub const VIRTUAL_MACS: &str = "VIRTUAL_MACS";
/// Map: 0 → how many entries [`VIRTUAL_MACS`] has: the programs look there only if any.
pub const VIRTUAL_MAC_COUNT: &str = "VIRTUAL_MAC_COUNT";
/// Map: 0 → [`crate::layout::NodeConfig`].
pub const NODE: &str = "NODE";
/// Map: 0 → the agent's [`crate::heartbeat::Endpoint`].
pub const HEARTBEAT: &str = "HEARTBEAT";
/// Map: a peer's [`crate::heartbeat::Endpoint`] → [`crate::heartbeat::Admission`].
pub const PEERS: &str = "PEERS";
/// Map: ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "EVENTS";

/// Every map that is pinned.
pub const MAPS: &[&str] = &[
    LEASES,
    GROUPS,
    VIPS_V4,
    COUNTERS,
    HEARD,
    IFACES,
    GATEWAYS,
    GATEWAY_BITS,
    HOLDERS,
    HOPS,
    VIRTUAL_MACS,
    VIRTUAL_MAC_COUNT,
    HEARTBEAT,
    PEERS,
    NODE,
    EVENTS,
];

/// Program: the way in, on XDP.
pub const PROG_INGRESS: &str = "vip_ingress";
/// Program: the way in, which also logs what it looks up; for debugging.
pub const PROG_INGRESS_LOGGED: &str = "vip_ingress_logged";
/// Program: the way in, on tcx or clsact.
pub const PROG_INGRESS_TC: &str = "vip_ingress_tc";
/// Program: the way in there, which also logs what it looks up; for debugging.
pub const PROG_INGRESS_TC_LOGGED: &str = "vip_ingress_tc_logged";
/// The programs on the way in that XDP runs.
pub const WAY_IN_XDP: [&str; 2] = [PROG_INGRESS, PROG_INGRESS_LOGGED];
/// Those that tcx or clsact runs.
pub const WAY_IN_TC: [&str; 2] = [PROG_INGRESS_TC, PROG_INGRESS_TC_LOGGED];
/// Program: the egress gate, on tcx or clsact.
pub const PROG_EGRESS: &str = "vip_egress";
/// Program: the gate for local clients, on the loopback interface's egress.
pub const PROG_LOCAL: &str = "vip_local";
/// Program: the gate at IP level, on netfilter's hook for what the host takes as its
/// own.
pub const PROG_LOCAL_IN: &str = "vip_local_in";
/// Program: the same gate behind NAT, on netfilter's hook for what leaves: towards a
/// container, or to another address of this host.
pub const PROG_TRANSLATED: &str = "vip_translated";
/// Program: the gate at IP level where the kernel has no netfilter programs, for a rule of
/// nftables.
pub const PROG_LOCAL_IN_NFT: &str = "vip_in_nft";
/// Program: the same behind NAT.
pub const PROG_TRANSLATED_NFT: &str = "vip_nat_nft";
/// Program: tells the kernel's CLOCK_BOOTTIME through a test run.
pub const PROG_CLOCK: &str = "vip_clock";

/// Constant: [`crate::layout::SkbOffsets`], which user space fills in before it loads
/// the programs.
pub const SKB_OFFSETS: &str = "SKB_OFFSETS";
