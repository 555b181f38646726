//! The service behind the VIP: echoes over UDP and TCP that say which node
//! answered, and the questions to ask one. Measuring is `probe`'s business.
//!
//! UDP: the answer is the request followed by the node's name. TCP: each line
//! is answered by a line with the name, a blank and the request.

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    bind, listen, recvmsg, sendmsg, setsockopt, socket, sockopt,
};

use super::netns::Netns;

/// How often a server's threads look whether they shall stop.
const POLL: Duration = Duration::from_millis(50);
/// Longest datagram that is echoed in full.
const DATAGRAM_MAX: usize = 2048;
/// Bytes of the UDP queue, so that a stall of this process loses no probe.
const QUEUE_BYTES: usize = 8 << 20;
/// Most TCP connections one server serves at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// A UDP and a TCP echo in one namespace; stopped on drop.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts both at `at` in `ns`; they answer with `name`. The address need
    /// not be there yet (IP_FREEBIND), as for a service that starts before vip.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(ns: &Netns, name: &str, at: SocketAddrV4) -> Result<Self> {
        let bound = ns.enter(|| both(at))?;
        Self::of(bound.with_context(|| format!("binding the echo service of {name} to {at}"))?, name)
    }

    /// The same in the namespace of this process.
    ///
    /// # Errors
    /// As [`EchoServer::start`].
    pub fn start_here(name: &str, at: SocketAddrV4) -> Result<Self> {
        Self::of(both(at).with_context(|| format!("binding the echo service of {name} to {at}"))?, name)
    }

    fn of((udp, tcp): (OwnedFd, OwnedFd), name: &str) -> Result<Self> {
        setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&udp, sockopt::RcvBufForce, &QUEUE_BYTES)?;
        UdpSocket::from(udp.try_clone()?).set_read_timeout(Some(POLL))?;
        listen(&tcp, Backlog::new(128)?)?;
        let listener = TcpListener::from(tcp);
        listener.set_nonblocking(true)?;

        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Self { stop: stop.clone(), threads: Vec::new() };
        let (name_udp, name_tcp, stop_udp) = (name.to_owned(), name.to_owned(), stop.clone());
        server.threads.push(
            std::thread::Builder::new()
                .name(format!("udp-{name}"))
                .spawn(move || serve_udp(&udp, &name_udp, &stop_udp))?,
        );
        server.threads.push(
            std::thread::Builder::new()
                .name(format!("tcp-{name}"))
                .spawn(move || serve_tcp(&listener, &name_tcp, &stop))?,
        );
        Ok(server)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed by itself.
            let _ended = thread.join();
        }
    }
}

/// The sockets for UDP and for TCP.
fn both(at: SocketAddrV4) -> Result<(OwnedFd, OwnedFd), nix::Error> {
    Ok((bound(SockType::Datagram, at)?, bound(SockType::Stream, at)?))
}

fn bound(kind: SockType, at: SocketAddrV4) -> Result<OwnedFd, nix::Error> {
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(at))?;
    Ok(socket)
}

/// Answers from the very address that was asked, whatever the socket is bound
/// to: without that, a server on 0.0.0.0 would answer from the node's own.
fn serve_udp(socket: &OwnedFd, name: &str, stop: &AtomicBool) {
    let mut bytes = [0_u8; DATAGRAM_MAX];
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    while !stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        // A timeout, or an ICMP error of an earlier answer: look again.
        let Ok(message) = received else { continue };
        let asked = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|c| if let ControlMessageOwned::Ipv4PacketInfo(i) = c { Some(i) } else { None })
        });
        let (Some(mut info), Some(client), length) = (asked, message.address, message.bytes) else {
            continue;
        };
        // The way back is the routing table's choice; only the address is ours.
        info.ipi_ifindex = 0;
        info.ipi_spec_dst = info.ipi_addr;
        let answer = [IoSlice::new(&bytes[..length]), IoSlice::new(name.as_bytes())];
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        // A refused answer (the egress gate, no route) is for the client to miss.
        let _sent = sendmsg(socket.as_raw_fd(), &answer, &control, MsgFlags::empty(), Some(&client));
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, stop: &Arc<AtomicBool>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                connections.retain(|c| !c.is_finished());
                if connections.len() >= CONNECTIONS_MAX {
                    continue; // dropping the stream closes it
                }
                let (name, stop) = (name.to_owned(), stop.clone());
                connections.push(std::thread::spawn(move || serve_connection(stream, &name, &stop)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    for connection in connections {
        // A panic of the thread has been printed by itself.
        let _ended = connection.join();
    }
}

fn serve_connection(stream: TcpStream, name: &str, stop: &AtomicBool) {
    let prepared = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(POLL)))
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.try_clone());
    let Ok(mut writer) = prepared else { return };
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {
                let answer = format!("{name} {line}");
                line.clear();
                if writer.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            // What came before the timeout stays in `line` and is completed later.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Asks over a new TCP connection from inside `ns` who serves `at`.
///
/// # Errors
/// When nobody answers within `patience`, or not in the echo's way.
pub fn ask_tcp(ns: &Netns, at: SocketAddrV4, patience: Duration) -> Result<String> {
    ns.enter(|| {
        let mut stream = TcpStream::connect_timeout(&at.into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"who\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let Some(name) = line.trim_end().strip_suffix(" who") else {
            bail!("{at} answered {line:?}");
        };
        Ok(name.to_owned())
    })?
    .with_context(|| format!("asking {at} over TCP from {}", ns.name()))
}

/// Asks once over UDP from inside `ns` who serves `at`.
///
/// # Errors
/// When nobody answers within `patience`.
pub fn ask_udp(ns: &Netns, at: SocketAddrV4, patience: Duration) -> Result<String> {
    ns.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(at)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(b"who ")?;
        let mut bytes = [0_u8; DATAGRAM_MAX];
        let length = socket.recv(&mut bytes)?;
        let answer = String::from_utf8_lossy(&bytes[..length]);
        let Some(name) = answer.strip_prefix("who ") else { bail!("{at} answered {answer:?}") };
        Ok(name.to_owned())
    })?
    .with_context(|| format!("asking {at} over UDP from {}", ns.name()))
}
