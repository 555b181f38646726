//! The gate at IP level: netfilter programs (Linux 6.4) at the hook for what the
//! host takes as its own, by whatever way it came in, and behind NAT. NAT gives a
//! packet for a VIP another destination (a container of this host's, when somebody
//! publishes a port), before any hook here sees it; the kernel's record of the
//! connection has the destination from before.
//!
//! aya-ebpf has no such program type: the context is read here by hand, and
//! `vip-ctl` loads the program with its type.
//!
//! Before Linux 6.4 a rule of nftables asks socket filters at the same two hooks, by
//! `xt_bpf`. Their context is the packet, whose fields of the kernel's own only a helper
//! reads, and what they return is whether the rule drops.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_probe_read_kernel, generated::bpf_skb_load_bytes},
};
use vip_common::{layout::SkbOffsets, verdict::Verdict};
use vip_ebpf::local_in;

use crate::maps::KernelMaps;

/// `NF_DROP`, of linux/netfilter.h.
const NF_DROP: i32 = 0;
/// `NF_ACCEPT`, of linux/netfilter.h: go on with the next hook.
const NF_ACCEPT: i32 = 1;
/// Where an IPv4 header has its destination, in bytes (RFC 791).
const DESTINATION_AT: u32 = 16;

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
        (destination(skb), former_destination(|at| connection(skb, at)))
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
    // SAFETY: as there; the verifier holds that `skb` has a field there.
    verdict(unsafe {
        let skb = (*context.cast::<Context>()).skb;
        former_destination(|at| connection(skb, at))
    })
}

/// The gate at IP level as a rule of nftables asks it: 1 for what it shall drop.
///
/// # Safety
/// For the kernel alone: `context` is a packet of IPv4, from its IP header on.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub unsafe fn vip_in_nft(context: *mut __sk_buff) -> i32 {
    // SAFETY: as above.
    let (destination, former) =
        unsafe { (loaded_destination(context), former_destination(|at| probed_connection(context, at))) };
    i32::from(verdict(destination).min(verdict(former)) == NF_DROP)
}

/// The gate behind NAT as a rule of nftables asks it: 1 for what it shall drop.
///
/// # Safety
/// As of [`vip_in_nft`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub unsafe fn vip_nat_nft(context: *mut __sk_buff) -> i32 {
    // SAFETY: as there.
    let former = unsafe { former_destination(|at| probed_connection(context, at)) };
    i32::from(verdict(former) == NF_DROP)
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
/// `None` if none did. `read` tells the packet's word about its connection, which is at
/// that offset.
///
/// # Safety
/// `read` reads from a `struct sk_buff` of IPv4.
#[inline(always)]
unsafe fn former_destination(read: impl FnOnce(usize) -> Option<u64>) -> Option<[u8; 4]> {
    let offsets = offsets();
    if offsets.status == 0 {
        return None;
    }
    let connection = read(offsets.connection as usize)? & !INFO_MASK;
    if connection == 0 {
        return None;
    }
    // SAFETY: the packet keeps its connection, and the helper checks the address.
    unsafe {
        let status: u64 =
            bpf_probe_read_kernel((connection + u64::from(offsets.status)) as *const u64).ok()?;
        if status & DESTINATION_NAT == 0 {
            return None;
        }
        bpf_probe_read_kernel((connection + u64::from(offsets.destination)) as *const [u8; 4]).ok()
    }
}

/// What a packet's field about its connection says, to a netfilter program.
///
/// # Safety
/// `skb` is a `struct sk_buff`, and has the field at this offset.
#[inline(always)]
unsafe fn connection(skb: *const u8, at: usize) -> Option<u64> {
    // SAFETY: as above; the verifier holds it, too.
    Some(unsafe { *skb.add(at).cast::<u64>() })
}

/// What a packet's field about its connection says, to a socket filter: its context is the
/// `struct sk_buff` itself, which the verifier lets no program read as that.
///
/// # Safety
/// `context` is what the kernel gives a socket filter.
#[inline(always)]
unsafe fn probed_connection(context: *mut __sk_buff, at: usize) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(context.cast::<u8>().add(at).cast::<u64>()).ok() }
}

/// The IPv4 destination of a packet, for a socket filter; `None` if the packet is shorter.
///
/// # Safety
/// `context` is what the kernel gives a socket filter, from the IP header on.
#[inline(always)]
unsafe fn loaded_destination(context: *mut __sk_buff) -> Option<[u8; 4]> {
    let mut destination = [0_u8; 4];
    // SAFETY: the helper writes four bytes, and checks the packet's length.
    let failed =
        unsafe { bpf_skb_load_bytes(context.cast(), DESTINATION_AT, destination.as_mut_ptr().cast(), 4) };
    (failed == 0).then_some(destination)
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
        let at = head + u64::from(header) + u64::from(DESTINATION_AT);
        bpf_probe_read_kernel(at as *const [u8; 4]).ok()
    }
}
