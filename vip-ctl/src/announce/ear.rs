//! Hears which hosts answer ARP requests. What comes in is not authenticated: anybody on
//! the segment can have sent it.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::arp::{ADDRESS_LEN, ETHERTYPE_ARP, link};
use crate::socket_filter::{attach, instruction};

/// Bytes of an ARP packet.
const PACKET_LEN: usize = 28;
/// Where it has its operation, as a big-endian `u16`, and the one of an answer.
const OPERATION_AT: u32 = 6;
const ANSWER: u32 = 2;
/// What it begins with: Ethernet, IPv4, and the lengths of their addresses.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A socket that receives the answers of other hosts to ARP requests, by any interface.
pub struct Ear {
    socket: OwnedFd,
}

/// A host says that it has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The interface that has received it.
    pub ifindex: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// At which hardware address.
    pub mac: [u8; 6],
}

impl Ear {
    /// Opens the socket.
    ///
    /// # Errors
    /// If the kernel refuses: CAP_NET_RAW is needed.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Without a protocol it receives nothing yet, and so nothing that the filter would
        // not let in.
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        filter(&socket)?;
        let address = link(ETHERTYPE_ARP);
        // SAFETY: the pointer and the length describe a live value.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { socket }) }
    }

    /// The next answer that waits in the socket.
    #[must_use]
    pub fn next(&self) -> Option<Answer> {
        loop {
            let (mut packet, mut from, mut len) = ([0_u8; PACKET_LEN], link(0), ADDRESS_LEN);
            // SAFETY: all pointers and lengths describe live values of this call.
            let got = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    packet.as_mut_ptr().cast(),
                    PACKET_LEN,
                    0,
                    (&raw mut from).cast(),
                    &raw mut len,
                )
            };
            if got < 0 {
                return None;
            }
            if let Some((address, mac)) = read(&packet[..got.cast_unsigned()]) {
                return Some(Answer { ifindex: from.sll_ifindex.cast_unsigned(), address, mac });
            }
        }
    }
}

/// Lets nothing in but answers.
fn filter(socket: &OwnedFd) -> io::Result<()> {
    let program = [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, OPERATION_AT)?,
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, ANSWER)?,
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX)?,
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)?,
    ];
    attach(socket, &program)
}

/// Who has which address, by an ARP packet about an IPv4 address.
fn read(packet: &[u8]) -> Option<(Ipv4Addr, [u8; 6])> {
    if packet.len() < PACKET_LEN || !packet.starts_with(&HEAD) {
        return None;
    }
    let mac = packet[8..14].try_into().ok()?;
    let address: [u8; 4] = packet[14..18].try_into().ok()?;
    Some((address.into(), mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_who_has_which_address() {
        let mut packet = [&HEAD[..], &[0, 2], &[2, 0, 0, 0, 0, 7], &[10, 0, 1, 12], &[0; 10]].concat();
        let expected = (Ipv4Addr::new(10, 0, 1, 12), [2, 0, 0, 0, 0, 7]);
        assert_eq!(read(&packet), Some(expected));
        assert_eq!(read(&packet[..27]), None, "cut off");
        packet[4] = 8;
        assert_eq!(read(&packet), None, "another kind of hardware address");
    }
}
