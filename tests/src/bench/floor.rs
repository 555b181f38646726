//! The cost of sending and receiving alone: a bare loop on the holder that sends
//! as many datagrams of the same size to the other nodes as its agent did, at the
//! same pace, and reads as many answers. It seals, decides and stores nothing; no
//! agent on this machine can take less, since on virtual links the sender also
//! pays for the receiver's side.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use vip_common::BootNs;

use super::usage::Spent;
use crate::lab::{Lab, clock};

/// Nobody else uses it here.
const PORT: u16 = 7099;
/// How long to measure.
const WINDOW: Duration = Duration::from_secs(5);
/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 42;
/// The least and the most that a datagram has.
const LEN: std::ops::RangeInclusive<usize> = 1..=1_400;

/// CPU of the loop, of one core, for as much as the holder has sent in `window`.
/// No agent may be running.
///
/// # Errors
/// When it can't be run.
pub(super) fn floor(lab: &Lab, holder: &Spent, window: Duration) -> Result<f64> {
    let [first, others @ ..] = lab.nodes() else { bail!("the lab has no nodes") };
    // One to each other node, and as many back.
    let rounds = holder.sent as f64 / others.len() as f64;
    if rounds < 1.0 {
        bail!("{} has sent too few datagrams to measure the floor", first.name());
    }
    let bytes = usize::try_from(holder.bytes / (2 * holder.sent))?;
    let len = bytes.saturating_sub(HEADERS).clamp(*LEN.start(), *LEN.end());
    let pause = window.div_f64(rounds);
    let end = clock::now().plus(WINDOW);
    let peers: Vec<_> = others.iter().map(|node| SocketAddrV4::new(node.address(), PORT)).collect();
    let mut echoes = Vec::new();
    for (node, at) in others.iter().zip(&peers) {
        let at = *at;
        echoes.push(node.ns().spawn("echo", move || echo(at, end))?);
    }
    let from = SocketAddrV4::new(first.address(), PORT);
    let spent = joined(first.ns().spawn("floor", move || send(from, &peers, len, pause, end))?)?;
    for echo in echoes {
        joined(echo)?;
    }
    Ok(100.0 * spent.as_secs_f64() / WINDOW.as_secs_f64())
}

fn joined<T>(thread: JoinHandle<Result<Result<T>>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Sends each datagram back to where it came from.
fn echo(at: SocketAddrV4, end: BootNs) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("binding {at}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = [0; 2048];
    while clock::now() < end {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // Lost is lost.
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
    Ok(())
}

/// The CPU time that this thread takes for it.
fn send(
    from: SocketAddrV4,
    peers: &[SocketAddrV4],
    len: usize,
    pause: Duration,
    end: BootNs,
) -> Result<Duration> {
    let socket = UdpSocket::bind(from).with_context(|| format!("binding {from}"))?;
    socket.set_nonblocking(true)?;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK)?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(pause)), TimerSetTimeFlags::empty())?;
    let (datagram, mut buffer) = (vec![0; len], [0; 2048]);
    let before = cpu()?;
    while clock::now() < end {
        let mut fds = [socket.as_fd(), timer.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(100_u8))?;
        if fds[1].any() == Some(true) {
            timer.wait()?;
            for peer in peers {
                // Lost is lost.
                let _ = socket.send_to(&datagram, peer);
            }
        }
        while socket.recv_from(&mut buffer).is_ok() {}
    }
    Ok(cpu()?.saturating_sub(before))
}

/// The CPU time that this thread has had.
fn cpu() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::from(time))
}
