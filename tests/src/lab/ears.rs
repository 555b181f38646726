//! What a host, or a switch's port, hears of who has which address.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, setsockopt, socket,
    sockopt,
};

use super::{Netns, flood};

/// Bytes of the socket's queue: every frame of a move of some thousand VIPs.
const QUEUE_BYTES: usize = 256 << 20;

/// Hears what arrives by one interface.
#[derive(Debug)]
pub struct Ears {
    socket: OwnedFd,
}

/// A packet of ARP for IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// The hardware address that its sender says is its own.
    pub mac: [u8; 6],
    /// The address that its sender says is its own.
    pub sender: Ipv4Addr,
    /// The address that it is about.
    pub target: Ipv4Addr,
    /// Is it a request?
    pub is_request: bool,
}

impl Arp {
    /// The address that it announces, in the one of the two forms that is a request.
    #[must_use]
    pub fn announced(&self) -> Option<Ipv4Addr> {
        (self.is_request && self.sender == self.target).then_some(self.sender)
    }
}

impl Ears {
    /// Listens from here on.
    ///
    /// # Errors
    /// When the socket is refused, or there is no such interface.
    pub fn open(ns: &Netns, interface: &str) -> Result<Self> {
        ns.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
            ignore_vlans(&socket)?;
            bind(socket.as_raw_fd(), &flood::link(if_nametoindex(interface)?, libc::ETH_P_ALL)?)?;
            Ok(Self { socket })
        })?
    }

    /// What came in since the last look, in the order of arrival.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn hear(&self) -> Result<Vec<Arp>> {
        let mut heard = Vec::new();
        let mut bytes = [0_u8; 64];
        loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let message = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, None, MsgFlags::empty());
            let (from, length) = match message {
                Ok(message) => (message.address, message.bytes),
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(e) => return Err(e).context("listening on a network"),
            };
            let is_in = from.is_some_and(|from| from.pkttype() != libc::PACKET_OUTGOING);
            heard.extend(read(&bytes[..length.min(64)]).filter(|_| is_in));
        }
    }
}

/// Hears nothing of VLANs, which are other networks: the kernel keeps a frame's tag beside it.
fn ignore_vlans(socket: &OwnedFd) -> Result<()> {
    /// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT` of linux/filter.h.
    const TAG_PRESENT: u32 = (-0x1000_i32 + 48).cast_unsigned();
    let step = |code: u32, jf, k| -> Result<_> {
        Ok(libc::sock_filter { code: u16::try_from(code)?, jt: 0, jf, k })
    };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, TAG_PRESENT)?,
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0)?,
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX)?,
        step(libc::BPF_RET | libc::BPF_K, 0, 0)?,
    ];
    let program = libc::sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a program that lives until the call returns, and gets one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>())?,
        )
    };
    Errno::result(set).map(drop).context("asking for what has no tag")
}

fn read(frame: &[u8]) -> Option<Arp> {
    let at = |from: usize| <[u8; 4]>::try_from(frame.get(from..from + 4)?).ok().map(Ipv4Addr::from);
    let is_request = frame.get(20..22)? == [0, 1];
    let mac = <[u8; 6]>::try_from(frame.get(22..28)?).ok()?;
    let arp = Arp { mac, sender: at(28)?, target: at(38)?, is_request };
    (frame.get(12..14)? == [8, 6]).then_some(arp)
}
