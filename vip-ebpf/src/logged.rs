//! The maps, with a line in the frame log for every lookup: for debugging. Only
//! two programs use them, so that the ordinary ones contain no code for the log.
//!
//! In a flood the log loses nearly every line: what matters is a counter or an
//! event as well.

use aya_log_ebpf::info;
use vip_common::{
    Counter, Fence, GroupIndex, IfaceConfig, VipEntry, VipSlot,
    event::Event,
    heartbeat::{Admits, Endpoint},
    layout::{Gateways, VirtualMac},
};
use vip_ebpf::Maps;

use crate::maps::KernelMaps;

/// [`KernelMaps`], which write to the frame log.
pub struct LoggedMaps {
    /// The interface that the frame came in by.
    pub ifindex: u32,
}

// Global functions, which the verifier looks at once, and not again wherever a program
// writes a line. The kernel wants a number back.

// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vip_log_frame(ifindex: u32, address: u32) -> u64 {
    info!((), "interface {}: a frame for {:i}", ifindex, address);
    0
}

// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vip_log_fence(group: u32, fence: u32) -> u64 {
    match fence {
        OPEN => info!((), "group {}: open", group),
        NO_LEASE => info!((), "group {}: no lease", group),
        EXPIRED => info!((), "group {}: the lease has run out", group),
        _ => info!((), "group {}: the lease can't be one", group),
    }
    0
}

const OPEN: u32 = Fence::Open as u32;
const NO_LEASE: u32 = Fence::NoLease as u32;
const EXPIRED: u32 = Fence::Expired as u32;

impl Maps for LoggedMaps {
    #[inline(always)]
    fn vip(&self, address: [u8; 4]) -> Option<VipEntry> {
        let found = KernelMaps.vip(address);
        if found.is_some() {
            vip_log_frame(self.ifindex, u32::from_be_bytes(address));
        }
        found
    }

    #[inline(always)]
    fn fence(&self, group: GroupIndex) -> Fence {
        let fence = KernelMaps.fence(group);
        vip_log_fence(group.0, fence as u32);
        fence
    }

    /// Writes no line: of several gateways, the verifier would look at too many ways
    /// through the log.
    #[inline(always)]
    fn is_here(&self, address: [u8; 4]) -> bool {
        KernelMaps.is_here(address)
    }

    #[inline(always)]
    fn iface(&self, ifindex: u32) -> Option<IfaceConfig> {
        KernelMaps.iface(ifindex)
    }

    #[inline(always)]
    fn next_hop(&self, group: GroupIndex, ifindex: u32, from: [u8; 6]) -> Option<[u8; 6]> {
        KernelMaps.next_hop(group, ifindex, from)
    }

    #[inline(always)]
    fn gateways(&self, ifindex: u32) -> Option<&Gateways> {
        KernelMaps.gateways(ifindex)
    }

    #[inline(always)]
    fn has_virtual_macs(&self) -> bool {
        KernelMaps.has_virtual_macs()
    }

    #[inline(always)]
    fn virtual_mac(&self, ifindex: u32, mac: [u8; 6]) -> Option<VirtualMac> {
        KernelMaps.virtual_mac(ifindex, mac)
    }

    #[inline(always)]
    fn is_agent(&self, endpoint: &Endpoint) -> bool {
        KernelMaps.is_agent(endpoint)
    }

    #[inline(always)]
    fn admits(&self, endpoint: &Endpoint) -> Option<Admits> {
        KernelMaps.admits(endpoint)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        KernelMaps.random()
    }

    #[inline(always)]
    fn may_tell(&self, slot: VipSlot, mac: [u8; 6]) -> bool {
        KernelMaps.may_tell(slot, mac)
    }

    #[inline(always)]
    fn heard(&self, slot: VipSlot, ifindex: u32, mac: [u8; 6], is_answer: bool) {
        KernelMaps.heard(slot, ifindex, mac, is_answer);
    }

    #[inline(always)]
    fn count(&self, slot: VipSlot, counter: Counter) {
        KernelMaps.count(slot, counter);
    }

    #[inline(always)]
    fn event(&self, event: Event) {
        KernelMaps.event(event);
    }
}
