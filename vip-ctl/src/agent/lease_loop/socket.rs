//! The agent's UDP socket: its marks for routers and queues, and what the kernel has dropped
//! there. [`super::mail`] sends and receives.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use libc::{c_int, socklen_t};

/// DSCP CS6, network control, at its position in an IP header.
const TRAFFIC_CLASS: c_int = 0xc0;
/// `TC_PRIO_CONTROL` of linux/pkt_sched.h: the first band of every qdisc that
/// has bands.
const PRIORITY: c_int = 7;
/// The highest priority that needs no privilege; the same band.
const PRIORITY_FOR_ALL: c_int = 6;
/// The index of the number of dropped datagrams in the answer to `SO_MEMINFO`
/// (`SK_MEMINFO_DROPS`), and how many numbers that has.
const DROPS: usize = 8;
const MEMINFO_LEN: usize = 9;

/// Marks what this socket sends: DSCP CS6, and the highest priority in this
/// host's qdisc.
///
/// # Errors
/// What the kernel refused, which changes nothing else.
pub fn mark(socket: &UdpSocket) -> io::Result<()> {
    let class = match socket.local_addr()? {
        SocketAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_TOS, &TRAFFIC_CLASS),
        SocketAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &TRAFFIC_CLASS),
    };
    // After the class, which sets a priority of its own.
    let priority = |priority: c_int| set(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &priority);
    let priority = priority(PRIORITY).or_else(|_| priority(PRIORITY_FOR_ALL));
    class.and(priority)
}

/// How many datagrams the kernel has dropped at this socket so far: kept out, or
/// for lack of room.
///
/// # Errors
/// If the kernel does not tell (before 4.12).
pub(super) fn dropped(socket: &UdpSocket) -> io::Result<u32> {
    let mut told = [0_u32; MEMINFO_LEN];
    let mut len = len_of(&told)?;
    // SAFETY: the kernel writes no more than `len` bytes, all of which are there.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            told.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(told[DROPS]) } else { Err(io::Error::last_os_error()) }
}

fn set<T>(socket: &UdpSocket, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `value` during the call, as long as it is, and
    // what a program's pointer leads to, which its caller borrows.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len_of(value)?)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn len_of<T>(_: &T) -> io::Result<socklen_t> {
    socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_filter::attach;

    fn get(socket: &UdpSocket, level: c_int, name: c_int) -> c_int {
        let (mut value, mut len) = (0, len_of(&0_i32).expect("small"));
        // SAFETY: the option is an int, and the value is one.
        let result = unsafe {
            libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
        };
        assert_eq!(result, 0);
        value
    }

    #[test]
    fn both_families_are_marked() {
        for (own, level, name) in [
            ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_TOS),
            ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        ] {
            let socket = UdpSocket::bind(own).expect("a loopback address");
            mark(&socket).expect("marked");
            assert_eq!(get(&socket, level, name), TRAFFIC_CLASS);
            let priority = get(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY);
            assert!([PRIORITY, PRIORITY_FOR_ALL].contains(&priority), "{priority}");
        }
    }

    #[test]
    fn what_is_kept_out_is_counted() {
        let [socket, other] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a loopback address"));
        attach(&socket, &[libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }])
            .expect("a program that lets in nothing");
        for _ in 0..7 {
            other.send_to(b"x", socket.local_addr().expect("bound")).expect("sent");
        }
        assert_eq!(dropped(&socket).expect("told"), 7);
    }
}
