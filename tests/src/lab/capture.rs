//! The independent witness: every frame that comes into the switch from a
//! node with a VIP as its source, with the kernel's own timestamp. It sees the
//! wire and asks no agent. What a good sequence of frames is, is judged by
//! [`judge`] alone.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};
use nix::time::{ClockId, clock_gettime};
use vip_common::BootNs;

use super::{Lab, Node, NodeIndex, clock};

/// Bytes of the capture socket's queue: a minute of the demo's traffic, so
/// that no stall of this process loses a frame.
const QUEUE_BYTES: usize = 256 << 20;
/// Bytes of a frame that are looked at: Ethernet, then ARP or IPv4's fixed part.
const SNAP_LEN: usize = 64;
/// How much two readings of the wall clock's offset may differ without a step.
const OFFSET_JITTER_NS: u64 = 1_000_000;
/// How often the reader looks whether it shall stop, in microseconds.
const POLL_US: i64 = 20_000;

/// What carried the VIP as source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// ARP whose sender protocol address is a VIP.
    Arp,
    /// IPv4 whose source is a VIP.
    Ip,
}

/// One frame with a VIP as its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel took it in at the switch.
    pub at: BootNs,
    /// The node on whose port it came in.
    pub from: NodeIndex,
    /// What it was.
    pub kind: FrameKind,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    failure: Mutex<Option<Errno>>,
    stop: AtomicBool,
    seen: AtomicU64,
}

/// A running capture on all ports of a lab's switch.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    socket: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
    lost: AtomicU64,
}

impl Capture {
    /// Starts to capture frames of these VIPs.
    ///
    /// # Errors
    /// When the capture socket is refused.
    pub fn start(lab: &Lab, vips: &[Ipv4Addr]) -> Result<Self> {
        let (socket, ports) = lab.switch().enter(|| {
            let of = |(index, node): (usize, &Node)| {
                node.ports().into_iter().map(move |port| (port, NodeIndex(index))).collect::<Vec<_>>()
            };
            let ports: Result<BTreeMap<usize, NodeIndex>> = lab
                .nodes()
                .iter()
                .enumerate()
                .flat_map(of)
                .map(|(port, node)| Ok((if_nametoindex(port.as_str())? as usize, node)))
                .collect();
            Ok::<_, anyhow::Error>((open_socket()?, ports.context("finding the switch's ports")?))
        })??;
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared::default());
        let reader = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn({
                let (shared, socket, vips) = (shared.clone(), socket.clone(), vips.to_vec());
                move || read_frames(&shared, &socket, &ports, &vips)
            })
            .context("starting the capture")?;
        Ok(Self { shared, socket, reader: Some(reader), lost: AtomicU64::new(0) })
    }

    /// Every frame with a VIP as source so far, in the order of arrival: two
    /// ports may be served by two CPUs, so the order of delivery is not it.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).clone();
        frames.sort_by_key(|frame| frame.at);
        frames
    }

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> Option<Frame> {
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    /// How many frames of any kind came in on the nodes' ports.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// How many frames the kernel could not hand over since the start. Unless
    /// this is 0, the frames prove nothing.
    ///
    /// # Errors
    /// When the kernel doesn't tell, or the capture has ended with an error.
    pub fn lost(&self) -> Result<u64> {
        if let Some(e) = *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            bail!("the capture ended early: {e}");
        }
        let mut statistics = PacketStatistics { packets: 0, drops: 0 };
        let mut length = libc::socklen_t::try_from(size_of::<PacketStatistics>())?;
        // SAFETY: the buffer is as long as said and laid out as struct tpacket_stats.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        Errno::result(result).context("asking how many frames the capture has lost")?;
        // The kernel starts again at 0 with every look.
        let drops = u64::from(statistics.drops);
        Ok(self.lost.fetch_add(drops, Ordering::Relaxed) + drops)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // A panic of the reader has been printed by the thread itself.
            let _ended = reader.join();
        }
    }
}

/// `struct tpacket_stats` of linux/if_packet.h.
#[repr(C)]
struct PacketStatistics {
    packets: u32,
    drops: u32,
}

fn open_socket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        .context("opening a packet socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)
        .context("setting the size of the capture's queue")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("turning kernel timestamps on")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, POLL_US))?;
    let yes: libc::c_int = 1;
    // SAFETY: the option takes an int, and gets one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>())?,
        )
    };
    Errno::result(result).context("telling the capture to ignore outgoing frames")?;
    Ok(socket)
}

fn read_frames(shared: &Shared, socket: &OwnedFd, ports: &BTreeMap<usize, NodeIndex>, vips: &[Ipv4Addr]) {
    let mut bytes = [0_u8; SNAP_LEN];
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut offset = WallOffset::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let (port, stamp, length) = match message {
            Ok(message) => {
                let stamp = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(
                        |c| if let ControlMessageOwned::ScmTimestampns(t) = c { Some(t) } else { None },
                    )
                });
                (message.address.map(|a| a.ifindex()), stamp, message.bytes)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            // A port that is set down ends nothing for the others.
            Err(Errno::ENETDOWN) => continue,
            Err(e) => {
                *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                return;
            }
        };
        let Some(from) = port.and_then(|port| ports.get(&port)).copied() else { continue };
        shared.seen.fetch_add(1, Ordering::Relaxed);
        if let Some((source, kind)) = source(&bytes[..length.min(SNAP_LEN)])
            && vips.contains(&source)
        {
            let frame = Frame { at: offset.boot_time(stamp), from, kind };
            shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        }
    }
}

/// What to take from the wall clock's nanoseconds to get CLOCK_BOOTTIME's.
#[derive(Debug, Default)]
struct WallOffset(u64);

impl WallOffset {
    /// A kernel timestamp (wall clock) on CLOCK_BOOTTIME; without one, now.
    ///
    /// The offset is measured anew for each, since the wall clock may be
    /// stepped, but a difference that two reads of the clocks explain is not
    /// taken over: it would only shuffle frames.
    fn boot_time(&mut self, stamp: Option<TimeSpec>) -> BootNs {
        let boot = clock::now();
        let (Some(stamp), Ok(wall)) = (stamp, clock_gettime(ClockId::CLOCK_REALTIME)) else {
            return boot;
        };
        let offset = clock::timespec_ns(wall).saturating_sub(boot.0);
        if offset.abs_diff(self.0) > OFFSET_JITTER_NS {
            self.0 = offset;
        }
        BootNs(clock::timespec_ns(stamp).saturating_sub(self.0).min(boot.0))
    }
}

/// The IPv4 address that a frame claims to come from, by ARP or by IP.
fn source(frame: &[u8]) -> Option<(Ipv4Addr, FrameKind)> {
    let ethertype = frame.get(12..14)?;
    let (at, kind) = if ethertype == [0x08, 0x06] {
        // ARP over Ethernet for IPv4: the sender's protocol address is at 14.
        (14 + 14, FrameKind::Arp)
    } else if ethertype == [0x08, 0x00] {
        (14 + 12, FrameKind::Ip)
    } else {
        return None;
    };
    let address: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some((Ipv4Addr::from(address), kind))
}

/// What the capture says about one span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first node other than the holder before that sent a frame with the VIP as source.
    pub new_holder: Option<NodeIndex>,
    /// When that was.
    pub since: Option<BootNs>,
    /// Frames from any other node after that.
    pub answered_by_two: u64,
}

/// Judges frames in the order of arrival: after the first one with the VIP as
/// source from a new holder, every such frame from another node is one too many.
///
/// A second move within the same span counts as well, on purpose: nothing
/// that the caller did in it explains two.
#[must_use]
pub fn judge<'a>(frames: impl IntoIterator<Item = &'a Frame>, holder_before: Option<NodeIndex>) -> Verdict {
    let mut verdict = Verdict { new_holder: None, since: None, answered_by_two: 0 };
    for frame in frames {
        if verdict.new_holder.is_none() && Some(frame.from) != holder_before {
            verdict.new_holder = Some(frame.from);
            verdict.since = Some(frame.at);
        } else if verdict.new_holder.is_some_and(|holder| holder != frame.from) {
            verdict.answered_by_two += 1;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(senders: &[usize]) -> Vec<Frame> {
        senders
            .iter()
            .zip(1..)
            .map(|(node, at)| Frame { at: BootNs(at), from: NodeIndex(*node), kind: FrameKind::Ip })
            .collect()
    }

    #[test]
    fn a_clean_move_counts_nothing() {
        let verdict = judge(&frames(&[0, 0, 0, 1, 1, 1]), Some(NodeIndex(0)));
        assert_eq!(verdict.new_holder, Some(NodeIndex(1)));
        assert_eq!(verdict.since, Some(BootNs(4)));
        assert_eq!(verdict.answered_by_two, 0);
    }

    #[test]
    fn the_old_holder_after_the_new_one_counts() {
        assert_eq!(judge(&frames(&[0, 1, 0, 1, 0]), Some(NodeIndex(0))).answered_by_two, 2);
    }

    #[test]
    fn one_stray_frame_makes_the_holders_own_count() {
        assert_eq!(judge(&frames(&[0, 2, 0, 0, 0]), Some(NodeIndex(0))).answered_by_two, 3);
    }

    #[test]
    fn a_third_node_counts() {
        assert_eq!(judge(&frames(&[0, 1, 2, 1]), Some(NodeIndex(0))).answered_by_two, 1);
    }

    #[test]
    fn without_a_holder_before_the_first_sender_is_the_holder() {
        let verdict = judge(&frames(&[1, 1, 0]), None);
        assert_eq!((verdict.new_holder, verdict.answered_by_two), (Some(NodeIndex(1)), 1));
        assert_eq!(judge(&frames(&[]), None).new_holder, None);
    }

    #[test]
    fn the_source_is_read_from_arp_and_ip_and_nothing_else() {
        let mut arp = vec![0_u8; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        arp[28..32].copy_from_slice(&[10, 77, 0, 100]);
        let vip = Ipv4Addr::new(10, 77, 0, 100);
        assert_eq!(source(&arp), Some((vip, FrameKind::Arp)));
        let mut ip = vec![0_u8; 34];
        ip[12..14].copy_from_slice(&[8, 0]);
        ip[26..30].copy_from_slice(&[10, 77, 0, 100]);
        assert_eq!(source(&ip), Some((vip, FrameKind::Ip)));
        assert_eq!(source(&ip[..28]), None);
        ip[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(source(&ip), None);
    }
}
