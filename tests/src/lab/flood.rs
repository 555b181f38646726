//! Floods of datagrams to the agents' port, limited in number and time, and their
//! datagrams: made-up bytes, and the nodes' own datagrams, recorded at the
//! switch. Frames are sent as they are, with any source.
//!
//! Nothing here leaves the lab's namespaces, and nothing judges the result.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{AGENT_PORT, Client, INTERFACE, Lab, Netns, Node};

/// Bytes of the recorder's queue.
const QUEUE_BYTES: usize = 64 << 20;
/// How often the recorder checks whether it shall stop, in microseconds.
const POLL_US: i64 = 20_000;
/// The longest frame that is recorded.
const FRAME_LEN_MAX: usize = 1514;
/// Frames that are sent by one system call.
const BATCH: usize = 64;
/// How long the sender sleeps at most when it is ahead.
const SLEEP: Duration = Duration::from_millis(1);
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const HEADERS: usize = ETHERNET + IPV4 + UDP;

/// An Ethernet frame with a UDP datagram in IPv4 for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFrame(Vec<u8>);

impl AgentFrame {
    /// A frame with this payload.
    #[must_use]
    pub fn new(macs: ([u8; 6], [u8; 6]), source: Ipv4Addr, target: Ipv4Addr, payload: &[u8]) -> Self {
        let (from, to) = macs;
        let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let port = AGENT_PORT.to_be_bytes();
        let mut bytes = [&to[..], &from, &[0x08, 0x00]].concat();
        bytes.extend([0x45, 0]);
        bytes.extend(length(IPV4 + UDP + payload.len()));
        // No identification, "don't fragment", 64 hops, UDP, the checksum below.
        bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(target.octets());
        bytes.extend(port);
        bytes.extend(port);
        bytes.extend(length(UDP + payload.len()));
        // IPv4 lets a datagram go without a checksum.
        bytes.extend([0, 0]);
        bytes.extend(payload);
        let sum = checksum(&bytes[ETHERNET..ETHERNET + IPV4]);
        bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        Self(bytes)
    }

    /// Reads a captured frame; `None` if it is another.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let port = AGENT_PORT.to_be_bytes();
        let is_one = bytes.len() > HEADERS
            && bytes[12..14] == [0x08, 0x00]
            && bytes[ETHERNET] == 0x45
            && bytes[ETHERNET + 9] == 17
            && bytes[ETHERNET + IPV4 + 2..ETHERNET + IPV4 + 4] == port;
        is_one.then(|| Self(bytes.to_vec()))
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        let octets: [u8; 4] = self.0[at..at + 4].try_into().unwrap_or_default();
        octets.into()
    }

    /// The sender that it names.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.address(ETHERNET + 12)
    }

    /// The receiver that it names.
    #[must_use]
    pub fn target(&self) -> Ipv4Addr {
        self.address(ETHERNET + 16)
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0[HEADERS..]
    }

    /// The DSCP and ECN bits of its IPv4 header.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.0[ETHERNET + 1]
    }
}

/// The checksum of an IPv4 header whose own is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<AgentFrame>>,
    stop: AtomicBool,
}

/// Records the agents' datagrams, at the switch.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Starts to record the datagrams that come in by the ports of these nodes.
    ///
    /// # Errors
    /// When a socket is refused.
    pub fn start(lab: &Lab, nodes: &[&Node]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut recorder = Self { shared: shared.clone(), readers: Vec::new() };
        for node in nodes {
            let socket = lab.switch().enter(|| {
                let socket = packet_socket()?;
                setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
                setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, POLL_US))?;
                // On that port alone: a flood on another one costs nothing here.
                bind(socket.as_raw_fd(), &link(if_nametoindex(node.name())?, libc::ETH_P_ALL)?)?;
                ignore_outgoing(&socket)?;
                Ok::<_, anyhow::Error>(socket)
            })??;
            let shared = shared.clone();
            let reader = std::thread::Builder::new().name("recorder".to_owned());
            recorder.readers.push(reader.spawn(move || record(&shared, &socket))?);
        }
        Ok(recorder)
    }

    /// What was recorded so far.
    #[must_use]
    pub fn frames(&self) -> Vec<AgentFrame> {
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for reader in self.readers.drain(..) {
            // A panic of the reader has been printed by the thread itself.
            let _ended = reader.join();
        }
    }
}

fn record(shared: &Shared, socket: &OwnedFd) {
    let mut bytes = [0_u8; FRAME_LEN_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty());
        let Ok(length) = message.map(|message| message.bytes) else { continue };
        if let Some(frame) = AgentFrame::parse(&bytes[..length]) {
            shared.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        }
    }
}

/// Only what comes in by the port.
fn ignore_outgoing(socket: &OwnedFd) -> Result<()> {
    let yes: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: the option takes an int, and gets one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            length,
        )
    };
    Errno::result(result).map(drop).context("telling the recorder to ignore outgoing frames")
}

fn packet_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("opening a packet socket")
}

/// The hardware address of a host's interface in the lab.
///
/// # Errors
/// When it has none.
pub fn mac_of(ns: &Netns) -> Result<[u8; 6]> {
    let mac = ns.enter(|| {
        let mut own = nix::ifaddrs::getifaddrs()?.filter(|one| one.interface_name == INTERFACE);
        Ok::<_, Errno>(own.find_map(|one| one.address?.as_link_addr()?.addr()))
    })?;
    mac?.with_context(|| format!("{INTERFACE} in {} has no hardware address", ns.name()))
}

/// Frames to be sent over and over.
#[derive(Clone, Debug)]
pub struct Flood {
    /// The frames, sent in turns.
    pub frames: Vec<AgentFrame>,
    /// How many a second at most.
    pub per_second: u32,
    /// For how long.
    pub lasts: Duration,
}

/// The size of a flood that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Frames that left.
    pub frames: u64,
    /// The time that took.
    pub took: Duration,
}

impl Sent {
    /// Frames a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let frames = self.frames as f64;
        frames / self.took.as_secs_f64()
    }
}

impl Flood {
    /// Sends it from `client`, to the end.
    ///
    /// # Errors
    /// When a socket is refused, or nothing can be sent.
    pub fn send(&self, client: &Client) -> Result<Sent> {
        let frames = self.frames.iter().map(|frame| frame.0.as_slice()).collect::<Vec<_>>();
        send(&socket_of(&client.ns, INTERFACE)?, &frames, self.per_second, self.lasts)
    }

    /// Sends it straight out of the switch's port of `node`, by two threads: as
    /// much as this machine can, with nothing of a sender's own way in between.
    ///
    /// # Errors
    /// As [`Flood::send`].
    pub fn send_at_port(&self, lab: &Lab, node: &Node) -> Result<Sent> {
        let frames = self.frames.iter().map(|frame| frame.0.as_slice()).collect::<Vec<_>>();
        let (one, two) = frames.split_at(frames.len().div_ceil(2));
        let two = if two.is_empty() { one } else { two };
        let sockets = [socket_of(lab.switch(), node.name())?, socket_of(lab.switch(), node.name())?];
        let half = |socket, frames| send(socket, frames, self.per_second / 2, self.lasts);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| half(&sockets[0], one));
            let second = half(&sockets[1], two)?;
            let first = first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(Sent { frames: first.frames + second.frames, took: first.took.max(second.took) })
        })
    }
}

/// Ethernet frames of any kind.
#[derive(Clone, Debug)]
pub struct RawFrames(pub Vec<Vec<u8>>);

impl RawFrames {
    /// Sends them from `client`, over and over, so many a second.
    ///
    /// # Errors
    /// As [`Flood::send`].
    pub fn send(&self, client: &Client, per_second: u32, lasts: Duration) -> Result<Sent> {
        let frames = self.0.iter().map(Vec::as_slice).collect::<Vec<_>>();
        send(&socket_of(&client.ns, INTERFACE)?, &frames, per_second, lasts)
    }
}

/// A socket that sends frames by an interface as they are.
fn socket_of(ns: &Netns, interface: &str) -> Result<OwnedFd> {
    ns.enter(|| {
        // It hears nothing: this one only sends.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .context("opening a packet socket")?;
        bind(socket.as_raw_fd(), &link(if_nametoindex(interface)?, 0)?)?;
        Ok::<_, anyhow::Error>(socket)
    })?
}

fn send(socket: &OwnedFd, frames: &[&[u8]], per_second: u32, lasts: Duration) -> Result<Sent> {
    ensure!(!frames.is_empty(), "the flood has no frames to send");
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_all(socket, frames, per_second, lasts));
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The thread that sends. Its priority is an ordinary one: a sender elsewhere
/// takes the victim's kernel no time to receive.
fn send_all(socket: &OwnedFd, frames: &[&[u8]], per_second: u32, lasts: Duration) -> Result<Sent> {
    let mut batches: Vec<Batch<'_>> = frames.chunks(BATCH).map(Batch::new).collect();
    let (begun, mut sent) = (Instant::now(), 0_u64);
    'time: loop {
        for batch in &mut batches {
            let due = Duration::from_secs_f64(sent as f64 / f64::from(per_second));
            while begun.elapsed() < due.min(lasts) {
                std::thread::sleep(SLEEP.min(due.saturating_sub(begun.elapsed())));
            }
            if begun.elapsed() >= lasts {
                break 'time;
            }
            sent += batch.send(socket)?;
        }
    }
    Ok(Sent { frames: sent, took: begun.elapsed() })
}

/// The address of an interface, for one protocol (`ETH_P_…`).
pub(super) fn link(ifindex: u32, protocol: libc::c_int) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: u16::try_from(protocol)?.to_be(),
        sll_ifindex: i32::try_from(ifindex)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the structure is a whole one of the family that it names.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    address.with_context(|| format!("making an address of interface {ifindex}"))
}

/// Frames for one system call.
struct Batch<'a> {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to.
    _parts: Vec<libc::iovec>,
    _frames: &'a [&'a [u8]],
}

impl<'a> Batch<'a> {
    fn new(frames: &'a [&'a [u8]]) -> Self {
        let part =
            |frame: &&[u8]| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        let mut parts: Vec<_> = frames.iter().map(part).collect();
        let header = |part: &mut libc::iovec| {
            // SAFETY: all zeros is a valid `mmsghdr`.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header
        };
        let headers = parts.iter_mut().map(header).collect();
        Self { headers, _parts: parts, _frames: frames }
    }

    /// Sends the frames once; returns how many left.
    fn send(&mut self, socket: &OwnedFd) -> Result<u64> {
        let length = u32::try_from(self.headers.len())?;
        // SAFETY: the headers and what they point to live in this value, and
        // the frames, which the kernel only reads, for as long.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), length, 0) };
        match Errno::result(sent) {
            Ok(sent) => Ok(u64::try_from(sent)?),
            // The interface's queue is full.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(e) => bail!("sending frames: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_made() {
        let (source, target) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        let frame = AgentFrame::new(([1; 6], [2; 6]), source, target, b"payload");
        assert_eq!((frame.source(), frame.target(), frame.payload()), (source, target, &b"payload"[..]));
        assert_eq!(AgentFrame::parse(&frame.0), Some(frame.clone()));
        // The checksum of a header that has its own is zero.
        assert_eq!(checksum(&frame.0[ETHERNET..ETHERNET + IPV4]), 0);
        for (at, byte) in [(13, 6), (ETHERNET + 9, 6), (ETHERNET + IPV4 + 3, 0)] {
            let mut other = frame.0.clone();
            other[at] = byte;
            assert_eq!(AgentFrame::parse(&other), None);
        }
    }
}
