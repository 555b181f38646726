//! The gate at IP level: a netfilter program (Linux 6.4) at the hook for what the
//! host takes as its own. It sees packets by whatever way they came in.
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
static SKB_OFFSETS: SkbOffsets = SkbOffsets { head: 0, network_header: 0 };

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
    // the call.
    let skb = unsafe { (*context.cast::<Context>()).skb };
    // SAFETY: as above, for its packet.
    match unsafe { destination(skb) } {
        Some(destination) if local_in(destination, &KernelMaps) == Verdict::Drop => NF_DROP,
        // The host has read the header before this hook: it is there.
        Some(_) | None => NF_ACCEPT,
    }
}

/// The IPv4 destination of a packet; `None` if the kernel refuses to read it.
///
/// # Safety
/// `skb` is a `struct sk_buff` with an IPv4 header.
#[inline(always)]
unsafe fn destination(skb: *const u8) -> Option<[u8; 4]> {
    // SAFETY: a constant of this object, aligned; volatile, since the compiler
    // knows only its value in the file.
    let offsets = unsafe { core::ptr::read_volatile(&raw const SKB_OFFSETS) };
    // SAFETY: the verifier holds that `skb` has fields there; the IP header is in the
    // linear part of a packet at this hook, and the helper checks the address.
    unsafe {
        let head = *skb.add(offsets.head as usize).cast::<u64>();
        let header = *skb.add(offsets.network_header as usize).cast::<u16>();
        let at = head + u64::from(header) + DESTINATION_AT;
        bpf_probe_read_kernel(at as *const [u8; 4]).ok()
    }
}
