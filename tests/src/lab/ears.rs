//! What a host on a network hears of who has which address there.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use super::Netns;

/// Bytes of the socket's queue.
const QUEUE_BYTES: usize = 16 << 20;

/// Hears what arrives by one interface.
#[derive(Debug)]
pub struct Ears {
    socket: OwnedFd,
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
            bind(socket.as_raw_fd(), &at(if_nametoindex(interface)?)?)?;
            Ok(Self { socket })
        })?
    }

    /// The addresses that senders of ARP had since the last look.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn senders(&self) -> Result<BTreeSet<Ipv4Addr>> {
        let mut heard = BTreeSet::new();
        let mut bytes = [0_u8; 64];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => heard.extend(sender(&bytes[..length.min(64)])),
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(e) => return Err(e).context("listening on a network"),
            }
        }
    }
}

/// All protocols at an interface.
fn at(ifindex: u32) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: i32::try_from(ifindex)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address is a sockaddr_ll, as its family says, of this length.
    let made = unsafe {
        <LinkAddr as nix::sys::socket::SockaddrLike>::from_raw((&raw const address).cast(), Some(length))
    };
    made.context("an address of a packet socket")
}

fn sender(frame: &[u8]) -> Option<Ipv4Addr> {
    let is_arp = frame.get(12..14)? == [8, 6];
    let sender = <[u8; 4]>::try_from(frame.get(28..32)?).ok()?;
    is_arp.then_some(Ipv4Addr::from(sender))
}
