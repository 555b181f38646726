//! A netlink socket that nobody waits at for ever, and the messages of its datagrams, for
//! what is read by hand: nftables ([`super::nfnetlink`]) and filters ([`super::filters`]).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::NetlinkBuffer;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
    time::TimeVal,
};

/// `NLMSG_ERROR` and `NLMSG_DONE`, of linux/netlink.h.
pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
/// `struct nlmsghdr`, of linux/netlink.h.
pub(super) const HEADER_BYTES: usize = 16;
/// How long to wait for the kernel, in seconds: it answers at once.
const PATIENCE_S: i64 = 2;
/// What the kernel puts into one datagram of a dump, at most.
const DATAGRAM_BYTES: usize = 32 << 10;

/// A message: kind, number of the question, and what it says.
pub(super) type Answer = (u16, u32, Vec<u8>);

/// A socket on which this question has been sent.
///
/// # Errors
/// What the kernel says.
pub(super) fn asked(protocol: SockProtocol, question: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // A lost end must not stop the thread that looks after the gates.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
    send(socket.as_raw_fd(), question, MsgFlags::empty())?;
    Ok(socket)
}

/// The messages of the next datagram.
///
/// # Errors
/// What the kernel says, also if none comes in two seconds.
pub(super) fn received(socket: &OwnedFd) -> io::Result<Vec<Answer>> {
    let mut bytes = vec![0; DATAGRAM_BYTES];
    let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    let mut rest = bytes.get(..length).unwrap_or_default();
    let mut messages = Vec::new();
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        messages.push((message.message_type(), message.sequence_number(), message.payload().to_vec()));
        let next = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(messages)
}

/// What an `NLMSG_ERROR` says: an error, or that all is well.
///
/// # Errors
/// That error.
pub(super) fn said(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
