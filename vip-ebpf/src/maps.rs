//! The maps, and [`KernelMaps`], which shows them to the verdicts.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use vip_common::{
    BootNs, Counter, Fence, GroupConfig, GroupIndex, GroupMode, Heard, IfaceConfig, Lease, VipEntry, VipSlot,
    counter::Counters,
    event::Event,
    fence,
    heartbeat::{Admission, Admits, Endpoint, PEERS_MAX},
    layout::{
        EVENTS_BYTES, GROUPS_MAX, Gateways, Holder, Hops, IFACES_MAX, NodeConfig, VIPS_DEFAULT,
        VIRTUAL_MACS_MAX, VirtualMac, VirtualMacKey, mac_word,
    },
};
use vip_ebpf::Maps;

#[map]
static LEASES: Array<Lease> = Array::with_max_entries(GROUPS_MAX, BPF_F_MMAPABLE);

#[map]
static GROUPS: Array<GroupConfig> = Array::with_max_entries(GROUPS_MAX, BPF_F_MMAPABLE);

#[map]
static VIPS_V4: HashMap<[u8; 4], VipEntry> = HashMap::with_max_entries(VIPS_DEFAULT, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(VIPS_DEFAULT + 1, 0);

#[map]
static HEARD: Array<Heard> = Array::with_max_entries(VIPS_DEFAULT + 1, 0);

#[map]
static IFACES: HashMap<u32, IfaceConfig> = HashMap::with_max_entries(IFACES_MAX, 0);

#[map]
static GATEWAYS: HashMap<u32, Gateways> = HashMap::with_max_entries(IFACES_MAX, 0);

/// Where no VIP is a gateway, a packet for elsewhere costs a look at this word alone.
#[map]
static GATEWAY_BITS: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static HOLDERS: Array<Holder> = Array::with_max_entries(GROUPS_MAX, BPF_F_MMAPABLE);

#[map]
static HOPS: HashMap<u32, Hops> = HashMap::with_max_entries(IFACES_MAX, 0);

#[map]
static HEARTBEAT: Array<Endpoint> = Array::with_max_entries(1, 0);

#[map]
static PEERS: HashMap<Endpoint, Admission> = HashMap::with_max_entries(PEERS_MAX, 0);

#[map]
static VIRTUAL_MACS: HashMap<VirtualMacKey, VirtualMac> = HashMap::with_max_entries(VIRTUAL_MACS_MAX, 0);

#[map]
static VIRTUAL_MAC_COUNT: Array<u32> = Array::with_max_entries(1, 0);

/// No program reads it. `vip-ctl` does, before it adopts pinned maps.
#[map]
static NODE: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// When the agent was last told of a client that sends to the wrong node: by VIP and
/// client, and by this CPU (with key 0 of its own map). Of this load of the programs alone.
#[map]
static STALE: LruHashMap<StaleKey, u64> = LruHashMap::with_max_entries(STALE_MAX, 0);
#[map]
static STALE_LAST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Clients that send to the wrong node, of which it is known when the agent was told.
const STALE_MAX: u32 = 1024;
/// How often the agent hears of one of them, in nanoseconds: the next telling comes when
/// the holder is known, if it was not yet.
const STALE_PAUSE_NS: u64 = 20_000_000;
/// How often it hears of any, for each CPU, in nanoseconds.
const STALE_PAUSE_ALL_NS: u64 = 2_000_000;

/// A client of a VIP.
#[repr(C)]
#[derive(Clone, Copy)]
struct StaleKey {
    slot: u32,
    mac: [u8; 6],
    pad: [u8; 2],
}

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// The pinned maps.
pub struct KernelMaps;

impl Maps for KernelMaps {
    #[inline(always)]
    fn vip(&self, address: [u8; 4]) -> Option<VipEntry> {
        // SAFETY: the value is numbers. The kernel may reuse a deleted entry for
        // another VIP between the lookup and this copy, some nanoseconds later:
        // then one frame for a VIP that has left this host is judged by the group
        // of another one. Its address has left `lo` by then.
        unsafe { VIPS_V4.get(address) }.copied()
    }

    #[inline(always)]
    fn fence(&self, group: GroupIndex) -> Fence {
        let (Some(config), Some(lease)) = (GROUPS.get_ptr(group.0), LEASES.get_ptr(group.0)) else {
            return Fence::Invalid;
        };
        // SAFETY: both point into array maps, which live as long as the
        // program; the lease is an aligned word that is only ever stored whole.
        let (mode, hold_ns_max, lease) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*config).mode),
                core::ptr::read_volatile(&raw const (*config).hold_ns_max),
                core::ptr::read_volatile(lease),
            )
        };
        // SAFETY: a helper without arguments. The clock is read after the lease,
        // so that a lease can't look younger than it is.
        let now = BootNs(unsafe { bpf_ktime_get_boot_ns() });
        fence(GroupMode::from_word(mode), lease, hold_ns_max, now)
    }

    #[inline(always)]
    fn iface(&self, ifindex: u32) -> Option<IfaceConfig> {
        // SAFETY: the value is bytes; a concurrent update can at worst mix an
        // interface's old and new MAC for one frame.
        unsafe { IFACES.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn gateways(&self, ifindex: u32) -> Option<&Gateways> {
        if GATEWAY_BITS.get(0)? & Gateways::bit(ifindex) == 0 {
            return None;
        }
        // SAFETY: the value is addresses. The kernel may reuse an entry that was deleted or
        // replaced while a frame is looked at: then that frame is judged by an
        // interface's old gateways, or by another interface's.
        unsafe { GATEWAYS.get(ifindex) }
    }

    #[inline(always)]
    fn next_hop(&self, group: GroupIndex, ifindex: u32, from: [u8; 6]) -> Option<[u8; 6]> {
        match vip_next_hop(group.0, ifindex, mac_word(from)).to_be_bytes() {
            [0, 0, 0, 0, 0, 0, 0, 0] => None,
            [_, _, mac @ ..] => Some(mac),
        }
    }

    #[inline(always)]
    fn has_virtual_macs(&self) -> bool {
        VIRTUAL_MAC_COUNT.get(0).is_some_and(|count| *count > 0)
    }

    #[inline(always)]
    fn virtual_mac(&self, ifindex: u32, mac: [u8; 6]) -> Option<VirtualMac> {
        // SAFETY: the value is numbers. The kernel may reuse a deleted entry for another
        // virtual MAC between the lookup and this copy: then one frame is judged by the group
        // of another one.
        unsafe { VIRTUAL_MACS.get(VirtualMacKey { ifindex, mac, pad: [0; 2] }) }.copied()
    }

    #[inline(always)]
    fn is_agent(&self, endpoint: &Endpoint) -> bool {
        HEARTBEAT.get(0) == Some(endpoint)
    }

    #[inline(always)]
    fn admits(&self, endpoint: &Endpoint) -> Option<Admits> {
        // SAFETY: the value is numbers; a concurrent update can at worst mix an
        // old and a new one for one datagram, which the agent looks at again.
        unsafe { PEERS.get(endpoint) }.map(Admission::admits)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn may_tell(&self, slot: VipSlot, mac: [u8; 6]) -> bool {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let Some(last) = STALE_LAST.get_ptr_mut(0) else { return false };
        let key = StaleKey { slot: slot.0, mac, pad: [0; 2] };
        // SAFETY: this CPU's own number.
        if now < unsafe { *last } + STALE_PAUSE_ALL_NS {
            return false;
        }
        // SAFETY: a number that is copied: at worst one client is told of twice.
        if now < unsafe { STALE.get(key) }.copied().unwrap_or(0) + STALE_PAUSE_NS {
            return false;
        }
        // SAFETY: as above.
        unsafe { *last = now };
        STALE.insert(key, now, 0).is_ok()
    }

    #[inline(always)]
    fn heard(&self, slot: VipSlot, ifindex: u32, mac: [u8; 6], is_answer: bool) {
        let Some(heard) = HEARD.get_ptr_mut(slot.0) else { return };
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        // SAFETY: numbers in an array map, which lives as long as the program; whoever
        // reads them knows that they can be of two frames.
        unsafe {
            (*heard).claimed_ns = now;
            (*heard).ifindex = ifindex;
            (*heard).mac = mac;
            if is_answer {
                (*heard).answered_ns = now;
            }
        }
    }

    #[inline(always)]
    fn count(&self, slot: VipSlot, counter: Counter) {
        if let Some(counters) = COUNTERS.get_ptr_mut(slot.0) {
            // SAFETY: the counters of this CPU, and programs on one CPU do
            // not interrupt each other within a packet.
            unsafe { (*counters).frames[counter as usize] += 1 };
        }
    }

    #[inline(always)]
    fn event(&self, event: Event) {
        if EVENTS.output::<Event>(&event, 0).is_err() {
            self.count(VipSlot::NODE, Counter::EventLost);
        }
    }
}

/// [`Maps::next_hop`], with MACs as numbers, of which zero is none. A global function, which
/// the verifier looks at once, and not again in each state of each program.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vip_next_hop(group: u32, ifindex: u32, from: u64) -> u64 {
    let (Some(holder), Some(hops)) = (HOLDERS.get_ptr(group), HOPS.get_ptr(ifindex)) else { return 0 };
    // SAFETY: it points into an array map, which lives as long as the program; an aligned
    // word that is only ever stored whole.
    let holder = unsafe { core::ptr::read_volatile(holder) };
    // SAFETY: a helper without arguments.
    let now = BootNs(unsafe { bpf_ktime_get_boot_ns() });
    // SAFETY: the value is numbers; a concurrent update can at worst mix a node's old and
    // new MAC for one frame.
    unsafe { &*hops }.towards(holder, from, now)
}
