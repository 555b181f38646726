//! The loop's socket: receives and sends many datagrams at a time, one system
//! call for each batch, in buffers that are made once. It does not look into
//! them.

use std::{
    io::{self, ErrorKind},
    mem,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    ptr,
};

use nix::sys::socket::{SockaddrLike as _, SockaddrStorage, getsockopt, setsockopt, sockopt};

use crate::{engine::PAYLOAD_MAX, transport::OVERHEAD};

/// Datagrams to take or send in one system call.
pub(super) const BATCH: usize = 64;
/// Room for a datagram: twice what an agent of this version sends. A longer one
/// is cut off, and its tag is then wrong.
const ROOM: usize = 2 * (PAYLOAD_MAX + OVERHEAD);
/// The most that the kernel counts for one datagram: a page (skb truesize).
const KERNEL_BYTES: usize = 4096;
/// Groups that one datagram has room for, at least.
const GROUPS_PER_DATAGRAM: usize = 8;
/// Datagrams that a peer sends about each group while this thread is late:
/// questions of both phases and answers to ours.
const ROUNDS: usize = 4;
/// The least and the most to ask the kernel for, in bytes.
const BUFFER: std::ops::RangeInclusive<usize> = (1 << 20)..=(256 << 20);

/// How much receive buffer the socket should have, and has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What a cluster of this size can need.
    pub wanted: usize,
    /// What the kernel has given.
    pub given: usize,
}

/// The bytes that a cluster of so many groups and peers can send while this
/// thread is late.
const fn wanted(groups: usize, peers: usize) -> usize {
    let datagrams = groups.div_ceil(GROUPS_PER_DATAGRAM) + GROUPS_PER_DATAGRAM;
    let bytes = datagrams * ROUNDS * KERNEL_BYTES * if peers > 0 { peers } else { 1 };
    if bytes < *BUFFER.start() {
        *BUFFER.start()
    } else if bytes > *BUFFER.end() {
        *BUFFER.end()
    } else {
        bytes
    }
}

/// Asks for receive buffer: beyond the host's limit where that is allowed
/// (CAP_NET_ADMIN), else up to it. The send buffer gets the same.
#[must_use]
pub fn make_room(socket: &UdpSocket, groups: usize, peers: usize) -> Room {
    let wanted = wanted(groups, peers);
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        // The result is read below.
        let _ = setsockopt(socket, sockopt::RcvBuf, &wanted);
    }
    // A burst that does not fit into the interface's queue waits in the send
    // buffer.
    if setsockopt(socket, sockopt::SndBufForce, &wanted).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &wanted);
    }
    // The kernel reports twice what can be used.
    let given = getsockopt(socket, sockopt::RcvBuf).unwrap_or(0) / 2;
    Room { wanted, given }
}

/// Buffers for received datagrams.
pub(super) struct Inbox {
    bytes: Box<[[u8; ROOM]; BATCH]>,
    lens: [usize; BATCH],
    sources: [Option<SocketAddr>; BATCH],
}

impl Inbox {
    pub(super) fn new() -> Self {
        let bytes = vec![[0; ROOM]; BATCH].into_boxed_slice();
        // As many as it was made with.
        let Ok(bytes) = bytes.try_into() else { unreachable!("a batch has {BATCH} buffers") };
        Self { bytes, lens: [0; BATCH], sources: [None; BATCH] }
    }

    /// Takes what waits in the socket, as far as it fits; returns how many
    /// datagrams.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: ROOM }; BATCH];
        for (part, buffer) in parts.iter_mut().zip(self.bytes.iter_mut()) {
            part.iov_base = buffer.as_mut_ptr().cast();
        }
        let mut headers = headers(&mut parts);
        // SAFETY: an address of all zeros is one, of no family.
        let mut names: [libc::sockaddr_storage; BATCH] = unsafe { mem::zeroed() };
        for (header, name) in headers.iter_mut().zip(&mut names) {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        }
        for _ in 0..BATCH {
            for header in &mut headers {
                header.msg_hdr.msg_namelen = NAME_LEN;
            }
            // SAFETY: each header has one part, each part is a buffer of `self`
            // with its length, each name is one of `names` with its length, and
            // all of them live through the call. The system
            // call itself: musl sends one by one.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_recvmmsg,
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    BATCH,
                    0,
                    ptr::null_mut::<libc::timespec>(),
                )
            };
            match usize::try_from(result) {
                Ok(count) => {
                    for (len, header) in self.lens.iter_mut().zip(&headers).take(count) {
                        *len = usize::try_from(header.msg_len).unwrap_or(ROOM).min(ROOM);
                    }
                    for (source, name) in self.sources.iter_mut().zip(&names).take(count) {
                        *source = address(name);
                    }
                    return Ok(count.min(BATCH));
                }
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == ErrorKind::WouldBlock => return Ok(0),
                    // An earlier datagram met a closed port: the peer is down.
                    e if is_passing(&e) => {}
                    e => return Err(e),
                },
            }
        }
        Ok(0)
    }

    /// One of the datagrams that were received last, and where it came from.
    pub(super) fn datagram(&self, place: usize) -> Option<(&[u8], SocketAddr)> {
        let source = self.sources.get(place).copied().flatten()?;
        Some((&self.bytes[place][..self.lens[place]], source))
    }
}

/// Room for an address of any family.
#[expect(clippy::cast_possible_truncation, reason = "128 bytes")]
const NAME_LEN: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// The address of a datagram, if it is one of IP.
fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: it lives through the call and has the length that is named.
    let name = unsafe { SockaddrStorage::from_raw(ptr::from_ref(name).cast(), Some(NAME_LEN)) }?;
    let v4 = name.as_sockaddr_in().map(|name| SocketAddr::from(SocketAddrV4::from(*name)));
    v4.or_else(|| name.as_sockaddr_in6().map(|name| SocketAddr::from(SocketAddrV6::from(*name))))
}

/// Datagrams that wait to be sent together.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Vec<(SockaddrStorage, Vec<u8>)>,
}

/// How many datagrams were sent, and how many were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sent: u64,
    pub(super) unsent: u64,
}

impl Outbox {
    /// Puts a datagram in. Returns true if there is no room for another one.
    #[must_use]
    pub(super) fn put(&mut self, to: SocketAddr, datagram: Vec<u8>) -> bool {
        self.waiting.push((SockaddrStorage::from(to), datagram));
        self.waiting.len() >= BATCH
    }

    /// Sends all, in their order, or loses them: the protocol is made for loss.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> Sent {
        let mut told = Sent::default();
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH);
            let done = send_some(socket, &mut self.waiting[..count]);
            told.sent += done as u64;
            if done == 0 {
                // The first one is the one that could not be sent.
                told.unsent += 1;
            }
            self.waiting.drain(..done.max(1));
        }
        told
    }
}

/// Sends the first of these, and those after it until one can't be sent; returns
/// how many.
fn send_some(socket: &UdpSocket, waiting: &mut [(SockaddrStorage, Vec<u8>)]) -> usize {
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    for (part, (_, datagram)) in parts.iter_mut().zip(waiting.iter_mut()) {
        part.iov_base = datagram.as_mut_ptr().cast();
        part.iov_len = datagram.len();
    }
    let mut headers = headers(&mut parts);
    for (header, (to, _)) in headers.iter_mut().zip(waiting.iter()) {
        header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = to.len();
    }
    // SAFETY: as many headers as there are datagrams, each with one part and an
    // address that live through the call, which reads them. The system call
    // itself: musl sends one by one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            waiting.len().min(BATCH),
            0,
        )
    };
    usize::try_from(result).unwrap_or(0).min(waiting.len())
}

/// A header for each part.
fn headers(parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: plain numbers and pointers, for which zero is a value; it also
    // clears what musl pads them with.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for (header, part) in headers.iter_mut().zip(parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    headers
}

/// Is this an error that a UDP socket reports about an earlier datagram?
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::agent::lease_loop::socket::dropped;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn datagram(number: u16) -> Vec<u8> {
        let mut bytes = vec![0x5a; usize::from(number) % PAYLOAD_MAX];
        bytes.extend(number.to_be_bytes());
        bytes
    }

    /// All that waits in the socket.
    fn all(inbox: &mut Inbox, socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        loop {
            let count = inbox.receive(socket).unwrap();
            if count == 0 {
                return found;
            }
            found.extend((0..count).map(|place| inbox.datagram(place).unwrap().0.to_vec()));
        }
    }

    #[test]
    fn what_is_put_in_comes_out_in_its_order_and_whole() {
        let (from, to) = (socket(), socket());
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new());
        assert!(make_room(&to, 1_000, 2).given > 0);
        let address = to.local_addr().unwrap();
        let sent: Vec<_> = (0..200).map(datagram).collect();
        for bytes in &sent {
            if outbox.put(address, bytes.clone()) {
                assert_eq!(outbox.send(&from), Sent { sent: BATCH as u64, unsent: 0 });
            }
        }
        assert_eq!(outbox.send(&from), Sent { sent: 200 % BATCH as u64, unsent: 0 });
        assert_eq!(outbox.send(&from), Sent::default());
        assert_eq!(all(&mut inbox, &to), sent);
        assert_eq!(dropped(&to).unwrap(), 0);
    }

    #[test]
    fn one_that_can_not_be_sent_keeps_no_other_back() {
        let (from, to) = (socket(), socket());
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new());
        let address = to.local_addr().unwrap();
        let _ = outbox.put(address, datagram(1));
        // Longer than any datagram can be.
        let _ = outbox.put(address, vec![0; 1 << 17]);
        let _ = outbox.put(address, datagram(2));
        assert_eq!(outbox.send(&from), Sent { sent: 2, unsent: 1 });
        assert_eq!(all(&mut inbox, &to), [datagram(1), datagram(2)]);
    }

    #[test]
    fn a_peer_that_is_down_hides_no_datagram_of_another() {
        let (here, other) = (socket(), socket());
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::new());
        let gone = socket().local_addr().unwrap();
        for _ in 0..3 {
            let _ = outbox.put(gone, datagram(1));
        }
        let _ = outbox.send(&here);
        other.send_to(&datagram(7), here.local_addr().unwrap()).unwrap();
        assert_eq!(all(&mut inbox, &here), [datagram(7)]);
    }

    #[test]
    fn what_is_too_long_is_cut_off() {
        let (from, to) = (socket(), socket());
        from.send_to(&vec![1; ROOM + 1], to.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&to).unwrap(), 1);
        assert_eq!(inbox.datagram(0).unwrap().0.len(), ROOM);
    }

    #[test]
    fn what_the_kernel_drops_is_counted_and_room_keeps_it_from_that() {
        let (from, narrow, wide) = (socket(), socket(), socket());
        // The kernel's least.
        setsockopt(&narrow, sockopt::RcvBuf, &1).unwrap();
        let _ = make_room(&wide, 1, 2);
        for to in [&narrow, &wide] {
            for number in 0..200 {
                from.send_to(&datagram(number), to.local_addr().unwrap()).unwrap();
            }
        }
        let arrived = all(&mut Inbox::new(), &narrow).len();
        assert!(arrived < 200);
        assert_eq!(dropped(&narrow).unwrap(), 200 - u32::try_from(arrived).unwrap());
        if make_room(&wide, 1, 2).given >= *BUFFER.start() {
            assert_eq!((all(&mut Inbox::new(), &wide).len(), dropped(&wide).unwrap()), (200, 0));
        }
    }

    #[test]
    fn room_goes_by_the_size_of_the_cluster_within_bounds() {
        assert_eq!(wanted(1, 2), *BUFFER.start());
        assert!(wanted(10_000, 2) > 9 * wanted(1_000, 2));
        assert_eq!(wanted(16_384, 31), *BUFFER.end());
    }
}
