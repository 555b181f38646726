//! The programs: they take the kernel's context, ask the library for a
//! verdict and return it in the kernel's words.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use vip_common::verdict::Verdict;
use vip_ebpf::{
    Frame, Maps, egress,
    frame::{ETH_LEN, VLAN_LEN, VLAN_TAGS_MAX},
    ingress, local,
    packet::arp,
};

use crate::{logged::LoggedMaps, maps::KernelMaps};

/// Go on with the next program of the chain (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const TC_NEXT: i32 = -1;
/// Drop (`TCX_DROP`, `TC_ACT_SHOT`).
const TC_DROP: i32 = 2;
/// Linear bytes that the egress verdicts may need: Ethernet, its tags, ARP.
#[expect(clippy::cast_possible_truncation, reason = "50 bytes")]
const EGRESS_LINEAR: u32 = (ETH_LEN + VLAN_TAGS_MAX * VLAN_LEN + arp::LEN) as u32;

/// The way in.
#[xdp]
pub fn vip_ingress(ctx: XdpContext) -> u32 {
    incoming(&ctx, &KernelMaps)
}

/// The way in, with a frame log.
#[xdp]
pub fn vip_ingress_logged(ctx: XdpContext) -> u32 {
    incoming(&ctx, &LoggedMaps(&ctx))
}

#[inline(always)]
fn incoming(ctx: &XdpContext, maps: &impl Maps) -> u32 {
    // SAFETY: the kernel gives this program the frame for the time of the call.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    // SAFETY: the context outlives the call.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    match ingress(&frame, maps, ifindex) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Answer => xdp_action::XDP_TX,
    }
}

/// The egress gate of a network interface.
#[classifier]
pub fn vip_egress(ctx: TcContext) -> i32 {
    outgoing(&ctx, |frame| egress(frame, &KernelMaps))
}

/// The gate of the loopback interface.
#[classifier]
pub fn vip_local(ctx: TcContext) -> i32 {
    outgoing(&ctx, |frame| local(frame, &KernelMaps))
}

#[inline(always)]
fn outgoing(ctx: &TcContext, verdict: impl Fn(&Frame) -> Verdict) -> i32 {
    if ctx.data() + EGRESS_LINEAR as usize > ctx.data_end() {
        // The headers may be in the frame's fragments. If this fails, the verdict
        // sees the linear part alone, and holds back what it can't read.
        let wanted = if ctx.len() < EGRESS_LINEAR { ctx.len() } else { EGRESS_LINEAR };
        let _ = ctx.pull_data(wanted);
    }
    // SAFETY: the kernel gives this program the frame for the time of the
    // call; the pointers are read after the last call that can move it.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    match verdict(&frame) {
        Verdict::Pass | Verdict::Answer => TC_NEXT,
        Verdict::Drop => TC_DROP,
    }
}

/// Writes the time on the fence's clock over the first eight bytes of a frame.
/// Only for a test run (`BPF_PROG_TEST_RUN`): `vip-ctl` never attaches it.
#[xdp]
pub fn vip_clock(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel gives this program the frame for the time of the call.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    let Some(out) = frame.at::<[u8; 8]>(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: `at` checked the bounds; the helper takes no arguments.
    unsafe { *out = bpf_ktime_get_boot_ns().to_ne_bytes() };
    xdp_action::XDP_PASS
}
