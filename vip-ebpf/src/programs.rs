//! The programs: they take the kernel's context, ask the library for a
//! verdict and return it in the kernel's words.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_redirect, bpf_skb_change_type},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use vip_common::{heartbeat, verdict::Verdict};
use vip_ebpf::{
    Frame, Maps, egress,
    frame::{ETH_LEN, VLAN_LEN, VLAN_TAGS_MAX},
    ingress, local,
    packet::{arp, ipv4::Flow, ipv6, udp},
    virtual_mac::{self, Taken},
};

use crate::{logged::LoggedMaps, maps::KernelMaps, routes};

/// Go on with the next program of the chain (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const TC_NEXT: i32 = -1;
/// Drop (`TCX_DROP`, `TC_ACT_SHOT`).
const TC_DROP: i32 = 2;
/// Send it out by the interface that a helper was told (`TCX_REDIRECT`, `TC_ACT_REDIRECT`).
const TC_REDIRECT: i32 = 7;
/// The frame is for this host (linux/if_packet.h).
const PACKET_HOST: u32 = 0;
/// Linear bytes that the egress verdicts may need: Ethernet, its tags, ARP.
#[expect(clippy::cast_possible_truncation, reason = "50 bytes")]
const EGRESS_LINEAR: u32 = (ETH_LEN + VLAN_TAGS_MAX * VLAN_LEN + arp::LEN) as u32;
/// The same for the way in: Ethernet, its tags, and the headers of a datagram for
/// the agent, which are longer than ARP.
#[expect(clippy::cast_possible_truncation, reason = "132 bytes")]
const INGRESS_LINEAR: u32 =
    (ETH_LEN + VLAN_TAGS_MAX * VLAN_LEN + ipv6::LEN + udp::LEN + heartbeat::HEADER_LEN) as u32;

/// The way in. Reads headers alone, which are in a frame's first buffer.
#[xdp(frags)]
pub fn vip_ingress(ctx: XdpContext) -> u32 {
    incoming(&ctx, &KernelMaps)
}

/// The way in, with a frame log.
#[xdp(frags)]
pub fn vip_ingress_logged(ctx: XdpContext) -> u32 {
    incoming(&ctx, &LoggedMaps { ifindex: ifindex_of(&ctx) })
}

/// The way in at tcx or clsact, where XDP can't answer: on top of bonds, VLANs and
/// bridges, on a veth, and beside another XDP program. A VLAN tag that the NIC or
/// the stack has taken out stays beside the frame, in the answer too.
#[classifier]
pub fn vip_ingress_tc(ctx: TcContext) -> i32 {
    incoming_tc(&ctx, &KernelMaps)
}

/// The same, with a frame log.
#[classifier]
pub fn vip_ingress_tc_logged(ctx: TcContext) -> i32 {
    incoming_tc(&ctx, &LoggedMaps { ifindex: ifindex_of_tc(&ctx) })
}

/// The interface that the frame came in by.
#[inline(always)]
fn ifindex_of(ctx: &XdpContext) -> u32 {
    // SAFETY: the context outlives the call.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// The same at tc.
#[inline(always)]
fn ifindex_of_tc(ctx: &TcContext) -> u32 {
    // SAFETY: the context outlives the call.
    unsafe { (*ctx.skb.skb).ifindex }
}

#[inline(always)]
fn incoming_tc(ctx: &TcContext, maps: &impl Maps) -> i32 {
    if !is_linear(ctx, INGRESS_LINEAR) {
        // Without its headers nobody knows whom it is for.
        return TC_DROP;
    }
    let ifindex = ifindex_of_tc(ctx);
    // SAFETY: the kernel gives this program the frame for the time of the
    // call; the pointers are read after the last call that can move it.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    let context = ctx.skb.skb;
    // SAFETY: the context outlives the call.
    let (is_tagged, tag) = unsafe { ((*context).vlan_present != 0, (*context).vlan_tci) };
    let frame = if is_tagged { frame.with_tag(tag) } else { frame };
    match virtual_mac::take(&frame, &KernelMaps, ifindex) {
        Taken::Other => {}
        Taken::Drop => return TC_DROP,
        Taken::Ours => {
            // The kernel has looked at whom it is for before this program made it ours.
            // SAFETY: the context is what the kernel gave this program.
            if unsafe { bpf_skb_change_type(context, PACKET_HOST) } != 0 {
                return TC_DROP;
            }
        }
    }
    // SAFETY: it is what the kernel gave this program.
    let forwards = |flow: &Flow| unsafe { routes::forwards(context.cast(), ifindex, flow) };
    match ingress(&frame, maps, ifindex, forwards) {
        Verdict::Pass => TC_NEXT,
        Verdict::Drop => TC_DROP,
        Verdict::Answer | Verdict::Steer => {
            // SAFETY: a helper that takes numbers. Without flags it returns what follows.
            let _ = unsafe { bpf_redirect(ifindex, 0) };
            TC_REDIRECT
        }
    }
}

/// Makes the first `wanted` bytes of a frame readable, or all of a shorter one;
/// false if the kernel has no memory for that.
#[inline(always)]
fn is_linear(ctx: &TcContext, wanted: u32) -> bool {
    if ctx.data() + wanted as usize <= ctx.data_end() {
        return true;
    }
    let wanted = if ctx.len() < wanted { ctx.len() } else { wanted };
    ctx.data() + wanted as usize <= ctx.data_end() || ctx.pull_data(wanted).is_ok()
}

#[inline(always)]
fn incoming(ctx: &XdpContext, maps: &impl Maps) -> u32 {
    // SAFETY: the kernel gives this program the frame for the time of the call.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    let ifindex = ifindex_of(ctx);
    // The kernel looks at whom it is for after this program.
    if virtual_mac::take(&frame, &KernelMaps, ifindex) == Taken::Drop {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: it is what the kernel gave this program.
    let forwards = |flow: &Flow| unsafe { routes::forwards(ctx.ctx.cast(), ifindex, flow) };
    match ingress(&frame, maps, ifindex, forwards) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Answer | Verdict::Steer => xdp_action::XDP_TX,
    }
}

/// The egress gate of a network interface.
#[classifier]
pub fn vip_egress(ctx: TcContext) -> i32 {
    let ifindex = ifindex_of_tc(&ctx);
    outgoing(&ctx, |frame| match virtual_mac::leaves(frame, &KernelMaps, ifindex) {
        Verdict::Drop => Verdict::Drop,
        Verdict::Pass | Verdict::Answer | Verdict::Steer => egress(frame, &KernelMaps, ifindex),
    })
}

/// The gate of the loopback interface.
#[classifier]
pub fn vip_local(ctx: TcContext) -> i32 {
    outgoing(&ctx, |frame| local(frame, &KernelMaps))
}

#[inline(always)]
fn outgoing(ctx: &TcContext, verdict: impl Fn(&Frame) -> Verdict) -> i32 {
    // The headers may be in the frame's fragments. If this fails, the verdict sees
    // the linear part alone, and holds back what it can't read.
    let _ = is_linear(ctx, EGRESS_LINEAR);
    // SAFETY: the kernel gives this program the frame for the time of the
    // call; the pointers are read after the last call that can move it.
    let frame = unsafe { Frame::new(ctx.data(), ctx.data_end()) };
    match verdict(&frame) {
        Verdict::Pass | Verdict::Answer | Verdict::Steer => TC_NEXT,
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
