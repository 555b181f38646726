//! What else a machine has to do: processes that use a whole core, a link with
//! more to send than it can, a table of connections with no room. All of it is
//! bounded in time, in namespaces of the lab, and ends when it is dropped.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{INTERFACE, Netns, Node, clock};

/// Nobody listens there.
const DISCARD: u16 = 9;

/// A process that uses a whole core at nice 0.
#[derive(Debug)]
pub struct Hog(Child);

impl Hog {
    /// Starts one that ends by itself after `at_most`, should this process be killed.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(at_most: Duration) -> Result<Self> {
        let mut command = Command::new("timeout");
        command.arg(at_most.as_secs().max(1).to_string());
        command.args(["sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
        Ok(Self(command.spawn().context("starting a process that uses a whole core")?))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // SIGTERM: timeout passes it on to the shell that it runs.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // Ended already is as good.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// A thread that sends datagrams until it is dropped, or its time is over.
#[derive(Debug)]
pub struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sender {
    fn start(
        ns: &Netns,
        at_most: Duration,
        mut send: impl FnMut(&mut UdpSocket) -> std::io::Result<usize> + Send + 'static,
    ) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let end = clock::now().plus(at_most);
        let body = move || {
            let mut socket = UdpSocket::bind("0.0.0.0:0").context("opening a socket to send from")?;
            while !is_over.load(Ordering::Relaxed) && clock::now() < end {
                // A queue without room, or nobody there: it is a load all the same.
                count.fetch_add(u64::from(send(&mut socket).is_ok()), Ordering::Relaxed);
            }
            Ok(())
        };
        let thread = ns.spawn("load", body)?;
        let thread = std::thread::spawn(move || match thread.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// How many it has sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // That it could not send shows in what it has sent.
            let _ended = thread.join();
        }
    }
}

/// Gives the node a link of 100 Mbit/s with the kernel's usual three bands, and
/// more to send than that.
///
/// # Errors
/// When `tc` is missing or refuses it.
pub fn fill_link(node: &Node, to: SocketAddrV4, at_most: Duration) -> Result<Sender> {
    tc(
        node,
        &["qdisc", "add", "dev", INTERFACE, "root", "handle", "1:", "tbf"],
        &["rate", "100mbit", "burst", "16kb", "limit", "1mb"],
    )?;
    tc(node, &["qdisc", "add", "dev", INTERFACE, "parent", "1:1", "handle", "2:", "pfifo_fast"], &[])?;
    Sender::start(node.ns(), at_most, move |socket| socket.send_to(&[0; 1400], to))
}

fn tc(node: &Node, args: &[&str], more: &[&str]) -> Result<()> {
    let output = node.ns().command("tc")?.args(args).args(more).output().context("running tc")?;
    ensure!(output.status.success(), "tc {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Gives a host these rules of a firewall.
///
/// # Errors
/// When `nft` is missing or refuses the rules.
pub fn nft(ns: &Netns, rules: &str) -> Result<()> {
    let output = ns.command("nft")?.arg(rules).output().context("running nft")?;
    ensure!(output.status.success(), "nft refuses the rules: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// New connections a second: the table is full after ten seconds and stays so,
/// and the machine has time for other things.
const CONNECTIONS_PER_SECOND: u32 = 25_000;

/// Has the node track connections, and has a client open more of them than the
/// table has room for: an entry that was not answered stays for 30 s.
///
/// # Errors
/// When `nft` is missing or refuses the rules.
pub fn fill_conntrack(node: &Node, client: &Netns, at_most: Duration) -> Result<Sender> {
    let rules = "table inet load { chain in { type filter hook input priority 0; ct state invalid drop; }; }";
    nft(node.ns(), rules)?;
    let (address, mut port, begun, mut sent) = (node.address(), DISCARD, clock::now(), 0_u32);
    Sender::start(client, at_most, move |socket| {
        let due = begun.plus(Duration::from_secs(1) * sent / CONNECTIONS_PER_SECOND);
        sent += 1;
        if due > clock::now() {
            clock::sleep_until(due.plus(Duration::from_millis(1)));
        }
        // Each port is another connection, and then each socket.
        port = port.wrapping_add(1).max(DISCARD);
        if port == DISCARD {
            *socket = UdpSocket::bind("0.0.0.0:0")?;
        }
        socket.send_to(&[0], SocketAddrV4::new(address, port))
    })
}

/// How many connections the node's kernel tracks, and how many it could.
///
/// # Errors
/// When it tracks none.
pub fn conntrack(node: &Node) -> Result<(u64, u64)> {
    let read = |name: &str| -> Result<u64> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        Ok(std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?.trim().parse()?)
    };
    node.ns().enter(|| Ok((read("count")?, read("max")?)))?
}
