//! A host on a trunk: asks by ARP within a VLAN, and hears in which VLAN it is answered.
//! Needs no VLAN interface, which not every kernel has.

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, sendmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::{Client, INTERFACE, clock, flood};

/// `PACKET_AUXDATA` and `TP_STATUS_VLAN_VALID`, of linux/if_packet.h.
const PACKET_AUXDATA: libc::c_int = 8;
const VLAN_VALID: u32 = 1 << 4;
/// A tag's Ethernet type, and the VLAN.
pub type Tag = (u16, u16);
/// The Ethernet types of a tag of 802.1Q, and of an outer one of 802.1ad.
pub const C_TAG: u16 = 0x8100;
/// See [`C_TAG`].
pub const S_TAG: u16 = 0x88a8;
/// Who asks: nobody else's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 1];

/// `struct tpacket_auxdata` of linux/if_packet.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Asks for `vip` in a VLAN (or in none), and returns the VLAN of the first answer within
/// `patience`: `Some(None)` for one without a tag, `None` if nobody answers.
///
/// # Errors
/// When the socket is refused.
pub fn ask(
    client: &Client,
    vip: Ipv4Addr,
    vlan: Option<u16>,
    patience: Duration,
) -> Result<Option<Option<u16>>> {
    let tags: Vec<_> = vlan.map(|vlan| (C_TAG, vlan)).into_iter().collect();
    let answer = ask_in(client, vip, &tags, patience)?;
    Ok(answer.map(|tags| tags.first().map(|(_, vlan)| *vlan)))
}

/// Asks for `vip` behind these tags, the outer one first. Returns those of the first answer within `patience`.
///
/// # Errors
/// When the socket is refused.
pub fn ask_in(client: &Client, vip: Ipv4Addr, tags: &[Tag], patience: Duration) -> Result<Option<Vec<Tag>>> {
    let socket = client.ns.enter(open)??;
    let mut frame = vec![0xff; 6];
    frame.extend(MAC);
    for (kind, vlan) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend(client.address.octets());
    frame.extend([0; 6]);
    frame.extend(vip.octets());
    frame.resize(64, 0);
    sendmsg::<LinkAddr>(socket.as_raw_fd(), &[IoSlice::new(&frame)], &[], MsgFlags::empty(), None)?;
    let deadline = clock::now().plus(patience);
    while clock::now() < deadline {
        let Some((bytes, tag)) = receive(&socket)? else { continue };
        let mut tags: Vec<_> = tag.into_iter().collect();
        let mut rest = bytes.get(12..).unwrap_or_default();
        while let Some(inner) = tag_at(rest) {
            tags.push(inner);
            rest = &rest[4..];
        }
        let is_answer = rest.get(..2) == Some(&[8, 6]) && rest.get(8..10) == Some(&[0, 2]);
        if is_answer && rest.get(16..20) == Some(&vip.octets()[..]) {
            return Ok(Some(tags));
        }
    }
    Ok(None)
}

/// The tag that these bytes begin with.
fn tag_at(bytes: &[u8]) -> Option<Tag> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let kind = word(0).filter(|kind| [C_TAG, S_TAG].contains(kind))?;
    Some((kind, word(2)? & 0xfff))
}

/// A socket on the client's interface.
fn open() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    let yes: libc::c_int = 1;
    // SAFETY: the option takes an int, and gets one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_AUXDATA,
            (&raw const yes).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>())?,
        )
    };
    nix::errno::Errno::result(set).context("asking for VLAN tags")?;
    bind(socket.as_raw_fd(), &flood::link(if_nametoindex(INTERFACE)?, libc::ETH_P_ALL)?)?;
    Ok(socket)
}

/// A frame without its outer tag, and that; `None` if none comes for a while.
fn receive(socket: &OwnedFd) -> Result<Option<(Vec<u8>, Option<Tag>)>> {
    let mut bytes = vec![0_u8; 128];
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control) as _);
    // SAFETY: the message points to buffers that live until the call returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    ensure!(length <= bytes.len(), "a frame of {length} bytes");
    bytes.truncate(length);
    // SAFETY: the kernel has filled the message in.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return Ok(Some((bytes, None)));
    }
    // SAFETY: the one control message that was asked for is this one.
    let data = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<AuxData>()) };
    let tag = (data.status & VLAN_VALID != 0).then_some((data.vlan_tpid, data.vlan_tci & 0xfff));
    Ok(Some((bytes, tag)))
}
