//! The client's view: numbered UDP probes, a busy TCP connection, and ARP
//! requests for the VIP, each on threads inside the client's namespace. They
//! record what happened; what counts as good is for their reader to say.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use vip_common::BootNs;

use super::{Client, INTERFACE, clock};

/// An answer that comes later than this after its probe is no answer.
pub const LATE: Duration = Duration::from_millis(500);
/// After a stall that was longer than this, the probes that should have been
/// sent meanwhile are left out instead of being sent in one burst.
const CATCH_UP_MAX: Duration = Duration::from_millis(500);
/// Bytes of the UDP queues. The default for sending would block the prober
/// once a few hundred probes wait for an ARP answer.
const QUEUE_BYTES: usize = 8 << 20;
/// How often receiving threads look whether they shall stop.
const POLL: Duration = Duration::from_millis(50);
/// How long the TCP client waits for a connection or an answer before it
/// gives the connection up.
const TCP_PATIENCE: Duration = Duration::from_millis(500);
/// Pause between two exchanges of the TCP client.
const TCP_PAUSE: Duration = Duration::from_millis(1);

/// How long a probe may be on its way before its missing answer is taken for
/// an outage by [`UdpProber::steady_answerer`].
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// Threads that end when this is dropped.
#[derive(Debug)]
struct Background {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Background {
    fn new() -> Self {
        Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed by the thread; that entering the
            // namespace failed shows as missing answers.
            let _ended = thread.join();
        }
    }
}

/// Who answered a probe, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was received.
    pub at: BootNs,
    /// The name that the answer carried.
    pub by: Arc<str>,
}

/// One numbered probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it was sent.
    pub sent: BootNs,
    /// Its first answer, however late.
    pub answer: Option<Answer>,
}

impl Probe {
    /// Its answer, if that came within [`LATE`].
    #[must_use]
    pub fn answered(&self) -> Option<&Answer> {
        self.answer.as_ref().filter(|answer| answer.at.since(self.sent) <= LATE)
    }
}

#[derive(Debug, Default)]
struct Probes {
    list: Mutex<Vec<Probe>>,
    /// Slots that were left out because this process stalled.
    skipped: AtomicU64,
    /// Answers to a probe that another node has answered before.
    doubled: AtomicU64,
}

impl Probes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Probe>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends UDP probes to one address at a steady rate.
#[derive(Debug)]
pub struct UdpProber {
    probes: Arc<Probes>,
    _background: Background,
}

impl UdpProber {
    /// Starts to probe `target`, one probe every `period`.
    ///
    /// # Errors
    /// When sockets or threads are refused.
    pub fn start(client: &Client, target: SocketAddrV4, period: Duration) -> Result<Self> {
        let socket = client.ns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        setsockopt(&socket, sockopt::SndBufForce, &QUEUE_BYTES)?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
        socket.set_read_timeout(Some(POLL))?;
        let probes = Arc::new(Probes::default());
        let mut background = Background::new();
        let receiver = socket.try_clone()?;
        background.threads.push(client.ns.spawn("probe-receive", {
            let (probes, stop) = (probes.clone(), background.stop.clone());
            move || receive_probes(&receiver, target, &probes, &stop)
        })?);
        background.threads.push(client.ns.spawn("probe-send", {
            let (probes, stop) = (probes.clone(), background.stop.clone());
            move || send_probes(&socket, target, period, &probes, &stop)
        })?);
        Ok(Self { probes, _background: background })
    }

    /// Every probe so far, in the order of sending.
    #[must_use]
    pub fn probes(&self) -> Vec<Probe> {
        self.probes.lock().clone()
    }

    /// The last `count` probes, in the order of sending.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Probe> {
        let probes = self.probes.lock();
        probes[probes.len().saturating_sub(count)..].to_vec()
    }

    /// How many were sent, and how many of those older than [`LATE`] were not answered.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let now = clock::now();
        let probes = self.probes.lock();
        let lost = probes.iter().filter(|p| p.answered().is_none() && now.since(p.sent) > LATE);
        (probes.len(), lost.count())
    }

    /// Probes that were left out because this process itself was stalled.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.probes.skipped.load(Ordering::Relaxed)
    }

    /// How many probes were answered by two nodes.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.probes.doubled.load(Ordering::Relaxed)
    }

    /// Who answered all of the probes sent within the last `window` up to the
    /// newest answered one; `None` while any is missing or names differ.
    #[must_use]
    pub fn steady_answerer(&self, window: Duration) -> Option<Arc<str>> {
        let now = clock::now();
        let probes = self.probes.lock();
        // Probes still on their way say nothing yet, unless that takes too long.
        let settled = probes.iter().rposition(|probe| probe.answered().is_some())?;
        let newest = &probes[settled];
        if probes.get(settled + 1).is_some_and(|next| now.since(next.sent) > ON_THE_WAY) {
            return None;
        }
        let by = newest.answered()?.by.clone();
        let from = BootNs(newest.sent.0.saturating_sub(u64::try_from(window.as_nanos()).ok()?));
        if probes.first()?.sent > from {
            return None; // not enough of them yet
        }
        let within = probes[..=settled].iter().rev().take_while(|probe| probe.sent >= from);
        let steady = within.into_iter().all(|probe| probe.answered().is_some_and(|a| a.by == by));
        steady.then_some(by)
    }
}

fn send_probes(
    socket: &UdpSocket,
    target: SocketAddrV4,
    period: Duration,
    probes: &Probes,
    stop: &AtomicBool,
) {
    run_promptly();
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    let start = clock::now();
    let mut slot = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // Each slot's time follows from the start alone: lateness does not add up.
        let due = BootNs(start.0.saturating_add(slot.saturating_mul(period_ns)));
        clock::sleep_until(due);
        let sent = clock::now();
        let behind = sent.since(due);
        if behind > CATCH_UP_MAX {
            let missed = u64::try_from(behind.as_nanos()).unwrap_or(u64::MAX) / period_ns;
            probes.skipped.fetch_add(missed, Ordering::Relaxed);
            slot = slot.saturating_add(missed);
        }
        let number = {
            let mut list = probes.lock();
            list.push(Probe { sent, answer: None });
            (list.len() - 1) as u64
        };
        // A probe that the client's own kernel refuses is a lost one.
        let _sent = socket.send_to(&number.to_be_bytes(), target);
        slot += 1;
    }
}

/// Puts the calling thread before ordinary ones (SCHED_FIFO, its lowest
/// priority), so that a busy machine does not read as an outage. Where that is
/// refused the thread stays as it is: catching up still keeps the rate.
fn run_promptly() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 names the calling thread, and the parameter outlives the call.
    let _refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}

fn receive_probes(socket: &UdpSocket, target: SocketAddrV4, probes: &Probes, stop: &AtomicBool) {
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut bytes = [0_u8; 256];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let at = clock::now();
        let Some((number, name)) = bytes[..length].split_first_chunk::<8>() else { continue };
        if from != SocketAddr::V4(target) {
            continue; // an answer from another address than the VIP is none
        }
        let name = String::from_utf8_lossy(name);
        let by = names.iter().find(|known| ***known == *name).cloned().unwrap_or_else(|| {
            let new: Arc<str> = Arc::from(&*name);
            names.push(new.clone());
            new
        });
        let mut list = probes.lock();
        let probe = usize::try_from(u64::from_be_bytes(*number)).ok().and_then(|n| list.get_mut(n));
        let Some(probe) = probe else { continue };
        match &probe.answer {
            None => probe.answer = Some(Answer { at, by }),
            Some(answer) if answer.by != by => {
                probes.doubled.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        }
    }
}

/// What happened to the TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// It was made, and this node answered first on it.
    Connected(String),
    /// The other end reset or closed it.
    Reset,
    /// Nothing came back in time; the client gave it up.
    TimedOut,
}

/// The history of the TCP connection.
#[derive(Clone, Debug, Default)]
pub struct TcpHistory {
    /// Requests that were answered.
    pub exchanges: u64,
    /// Attempts to connect that failed.
    pub failed_attempts: u64,
    /// What happened, and when.
    pub events: Vec<(BootNs, TcpEvent)>,
}

impl TcpHistory {
    /// How often the connection was made anew.
    #[must_use]
    pub fn reconnects(&self) -> usize {
        let made = self.events.iter().filter(|(_, e)| matches!(e, TcpEvent::Connected(_)));
        made.count().saturating_sub(1)
    }

    /// How often the other end reset or closed it.
    #[must_use]
    pub fn resets(&self) -> usize {
        self.events.iter().filter(|(_, event)| *event == TcpEvent::Reset).count()
    }
}

/// Keeps one TCP connection busy and makes it anew when it breaks.
#[derive(Debug)]
pub struct TcpProber {
    history: Arc<Mutex<TcpHistory>>,
    _background: Background,
}

impl TcpProber {
    /// Starts to talk to `target`.
    ///
    /// # Errors
    /// When the thread is refused.
    pub fn start(client: &Client, target: SocketAddrV4) -> Result<Self> {
        let history = Arc::new(Mutex::new(TcpHistory::default()));
        let mut background = Background::new();
        background.threads.push(client.ns.spawn("tcp-client", {
            let (history, stop) = (history.clone(), background.stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    talk(target, &history, &stop);
                }
            }
        })?);
        Ok(Self { history, _background: background })
    }

    /// The history so far.
    #[must_use]
    pub fn history(&self) -> TcpHistory {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection, from its making to its end.
fn talk(target: SocketAddrV4, history: &Mutex<TcpHistory>, stop: &AtomicBool) {
    let record = |change: &dyn Fn(&mut TcpHistory)| {
        change(&mut history.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let opened = TcpStream::connect_timeout(&target.into(), TCP_PATIENCE).and_then(|stream| {
        stream.set_read_timeout(Some(TCP_PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok((stream.try_clone()?, BufReader::new(stream)))
    });
    let Ok((mut writer, mut reader)) = opened else {
        record(&|h| h.failed_attempts += 1);
        std::thread::sleep(Duration::from_millis(10));
        return;
    };
    let mut number = 0_u64;
    let mut line = String::new();
    let end = loop {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        line.clear();
        let exchanged =
            writer.write_all(format!("{number}\n").as_bytes()).and_then(|()| reader.read_line(&mut line));
        match exchanged {
            Ok(0) => break TcpEvent::Reset,
            Ok(_) => {
                let by = line.split_ascii_whitespace().next().unwrap_or_default();
                record(&|h| {
                    h.exchanges += 1;
                    if number == 0 {
                        h.events.push((clock::now(), TcpEvent::Connected(by.to_owned())));
                    }
                });
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break TcpEvent::TimedOut;
            }
            Err(_) => break TcpEvent::Reset,
        }
        number += 1;
        std::thread::sleep(TCP_PAUSE);
    };
    record(&|h| h.events.push((clock::now(), end.clone())));
}

/// Asks for an address by ARP, again and again.
#[derive(Debug)]
pub struct ArpProber {
    sent: Arc<AtomicU64>,
    _background: Background,
}

impl ArpProber {
    /// Starts to broadcast a request for `target` every `period`.
    ///
    /// # Errors
    /// When the packet socket or the thread is refused.
    pub fn start(client: &Client, target: Ipv4Addr, period: Duration) -> Result<Self> {
        let (socket, mac) = client.ns.enter(|| open_link(INTERFACE))?.context("opening a socket for ARP")?;
        let request = arp_request(mac, client.address, target);
        let sent = Arc::new(AtomicU64::new(0));
        let mut background = Background::new();
        background.threads.push(client.ns.spawn("arp-client", {
            let (sent, stop) = (sent.clone(), background.stop.clone());
            move || {
                let mut due = clock::now();
                while !stop.load(Ordering::Relaxed) {
                    clock::sleep_until(due);
                    if nix::unistd::write(&socket, &request).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    // Requests missed in a stall need no catching up: each is like the other.
                    due = due.plus(period).max(clock::now());
                }
            }
        })?);
        Ok(Self { sent, _background: background })
    }

    /// How many requests were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A packet socket that sends on `interface` and receives nothing, and the
/// interface's hardware address.
fn open_link(interface: &str) -> Result<(OwnedFd, [u8; 6])> {
    // Protocol 0: nothing is queued for a socket that never reads.
    let link = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(if_nametoindex(interface)?)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address is a sockaddr_ll of the length that is passed.
    Errno::result(unsafe { libc::bind(link.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: the kernel writes at most `length` bytes into the sockaddr_ll,
    // among them the interface's hardware address.
    Errno::result(unsafe {
        libc::getsockname(link.as_raw_fd(), (&raw mut address).cast(), &raw mut length)
    })?;
    let mac =
        *address.sll_addr.first_chunk().with_context(|| format!("{interface} has no hardware address"))?;
    Ok((link, mac))
}

/// An Ethernet frame with an ARP request, RFC 826.
fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06]);
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]); // Ethernet, IPv4, lengths, request
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_none() {
        let answer = |ms| Probe {
            sent: BootNs(1_000),
            answer: Some(Answer { at: BootNs(1_000).plus(Duration::from_millis(ms)), by: Arc::from("db-a") }),
        };
        assert!(answer(499).answered().is_some());
        assert!(answer(501).answered().is_none());
    }

    #[test]
    fn an_arp_request_is_42_bytes_and_names_both() {
        let frame = arp_request([2; 6], Ipv4Addr::new(10, 77, 0, 201), Ipv4Addr::new(10, 77, 0, 100));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], [10, 77, 0, 201]);
        assert_eq!(frame[38..42], [10, 77, 0, 100]);
    }
}
