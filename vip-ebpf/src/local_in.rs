//! The gate at IP level: netfilter programs (Linux 6.4) at the hook for what the
//! host takes as its own, by whatever way it came in, and behind NAT. NAT gives a
//! packet for a VIP another destination (a container of this host's, when somebody
//! publishes a port), before any hook here sees it; the kernel's record of the
//! connection has the destination from before.
//!
//! aya-ebpf has no such program type: the context is read here by hand, and
//! `vip-ctl` loads the program with its type.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel};
use vip_common::{layout::SkbOffsets, verdict::Verdict};
use vip_ebpf::local_in;

use crate::maps::KernelMaps;

/// `NF_DROP`, of linux/netfilter.h.
const NF_DROP: i32 = 0;
/// `NF_ACCEPT`, of linux/netfilter.h: go on with the next hook.
const NF_ACCEPT: i32 = 1;
/// Where an IPv4 header has its destination, in bytes (RFC 791).
const DESTINATION_AT: u64 = 16;

/// `vip-ctl` writes it before it loads the program. The kernel's verifier then
/// knows it as a number, and checks what is read against `struct sk_buff`.
#[unsafe(no_mangle)]
static SKB_OFFSETS: SkbOffsets =
    SkbOffsets { head: 0, network_header: 0, connection: 0, status: 0, destination: 0 };
/// The bits of `_nfct` that are no part of the pointer: `NFCT_INFOMASK`, of linux/skbuff.h.
const INFO_MASK: u64 = 7;
/// `IPS_DST_NAT`, of linux/netfilter/nf_conntrack_common.h.
const DESTINATION_NAT: u64 = 1 << 5;

/// `struct bpf_nf_ctx`, of linux/netfilter.h.
#[repr(C)]
struct Context {
    state: *const u8,
    skb: *const u8,
}

/// The gate at IP level. Its section is one that aya's loader knows; that loader
/// never loads it.
///
/// # Safety
/// For the kernel alone: `context` is what it gives a netfilter program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub unsafe fn vip_local_in(context: *mut __sk_buff) -> i32 {
    // SAFETY: the kernel gives this program a `struct bpf_nf_ctx` for the time of
    // the call, with a packet whose header it has read.
    let (destination, former) = unsafe {
        let skb = (*context.cast::<Context>()).skb;
        (destination(skb), former_destination(skb))
    };
    verdict(destination).min(verdict(former))
}

/// The gate behind NAT, in the same section for the same reason. A packet to a VIP that no
/// NAT has touched may leave: to whoever holds it.
///
/// # Safety
/// As of [`vip_local_in`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub unsafe fn vip_translated(context: *mut __sk_buff) -> i32 {
    // SAFETY: as there.
    verdict(unsafe { former_destination((*context.cast::<Context>()).skb) })
}

/// What the fence says of a packet that is, or was, for this address.
#[inline(always)]
fn verdict(destination: Option<[u8; 4]>) -> i32 {
    match destination {
        Some(destination) if local_in(destination, &KernelMaps) == Verdict::Drop => NF_DROP,
        Some(_) | None => NF_ACCEPT,
    }
}

/// The constant, as it is when the program is loaded.
#[inline(always)]
fn offsets() -> SkbOffsets {
    // SAFETY: a constant of this object, aligned; volatile, since the compiler
    // knows only its value in the file.
    unsafe { core::ptr::read_volatile(&raw const SKB_OFFSETS) }
}

/// The IPv4 destination that the connection of a packet had before NAT gave it another;
/// `None` if none did.
///
/// # Safety
/// `skb` is a `struct sk_buff` of IPv4.
#[inline(always)]
unsafe fn former_destination(skb: *const u8) -> Option<[u8; 4]> {
    let offsets = offsets();
    if offsets.status == 0 {
        return None;
    }
    // SAFETY: the verifier holds that `skb` has a field there; the packet keeps its
    // connection, and the helper checks the address.
    unsafe {
        let connection = *skb.add(offsets.connection as usize).cast::<u64>() & !INFO_MASK;
        if connection == 0 {
            return None;
        }
        let status: u64 =
            bpf_probe_read_kernel((connection + u64::from(offsets.status)) as *const u64).ok()?;
        if status & DESTINATION_NAT == 0 {
            return None;
        }
        bpf_probe_read_kernel((connection + u64::from(offsets.destination)) as *const [u8; 4]).ok()
    }
}

/// The IPv4 destination of a packet; `None` if the kernel refuses to read it.
///
/// # Safety
/// `skb` is a `struct sk_buff` with an IPv4 header.
#[inline(always)]
unsafe fn destination(skb: *const u8) -> Option<[u8; 4]> {
    let offsets = offsets();
    // SAFETY: the verifier holds that `skb` has fields there; the IP header is in the
    // linear part of a packet at this hook, and the helper checks the address.
    unsafe {
        let head = *skb.add(offsets.head as usize).cast::<u64>();
        let header = *skb.add(offsets.network_header as usize).cast::<u16>();
        let at = head + u64::from(header) + DESTINATION_AT;
        bpf_probe_read_kernel(at as *const [u8; 4]).ok()
    }
}
