//! What the host's routes say of a packet, asked of the kernel.

use core::mem;

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup as FibLookup},
    cty::c_void,
    helpers::generated::bpf_fib_lookup,
};
use vip_ebpf::packet::ipv4::Flow;

/// `AF_INET`, of linux/socket.h.
const IPV4: u8 = 2;
/// Bytes of the question.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "64 bytes")]
const LEN: i32 = size_of::<FibLookup>() as i32;

/// Would the host forward an IPv4 packet of this flow that came in by this interface? Not if
/// it is for the host itself, or for nobody that a route leads to, or if the host is no router.
///
/// # Safety
/// `context` is what the kernel gave a program of XDP or tc, for the time of the call.
#[inline(always)]
pub unsafe fn forwards(context: *mut c_void, ifindex: u32, flow: &Flow) -> bool {
    // SAFETY: numbers, for which zero is a value.
    let mut question: FibLookup = unsafe { mem::zeroed() };
    question.family = IPV4;
    question.ifindex = ifindex;
    question.__bindgen_anon_2.tos = flow.tos;
    question.l4_protocol = flow.protocol;
    let [a, b, c, d] = flow.ports.to_ne_bytes();
    question.sport = u16::from_ne_bytes([a, b]);
    question.dport = u16::from_ne_bytes([c, d]);
    question.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(flow.source);
    question.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(flow.destination);
    // SAFETY: the question is as long as it says, and the caller vouches for the context.
    let answer = unsafe { bpf_fib_lookup(context, &raw mut question, LEN, 0) };
    // Anything else is a way out, or why there is none just now. An error is of the
    // question's form.
    answer >= 0
        && answer != i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
        && answer != i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
}
