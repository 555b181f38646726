//! A running cluster with everything that watches it: echo services on the
//! VIP, a capture at the switch, a client that probes. What the demo and the
//! tests begin with; what they break is theirs.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vip_common::BootNs;

use super::account::Account;
use super::capture::Capture;
use super::echo::EchoServer;
use super::probe::{ArpProber, LATE, TcpProber, UdpProber};
use super::{Lab, LabSpec, Node, NodeIndex, SERVICE_PORT, cleanup, clock, slow};

/// Between two UDP probes: 1,000 a second. A slower machine, which would do nothing
/// else, gets fewer, and [`Rig::account`] takes each for as many.
const PROBE_PERIOD: Duration = Duration::from_millis(1);
/// Between two ARP requests for the VIP.
const ARP_PERIOD: Duration = Duration::from_millis(5);
/// How long the cluster may take to come up, and a step to find a holder,
/// besides five leases.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long one node has to answer every probe to be the holder.
pub const STEADY: Duration = Duration::from_millis(200);

/// Whether the client asks for the VIP by ARP, besides its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpProbes {
    /// Every 5 ms.
    On,
    /// Never: its neighbour entry is as stale as vip leaves it.
    Off,
}

/// A cluster that serves its VIP, and a client that uses it.
#[derive(Debug)]
pub struct Rig {
    // In the order of dropping: the watchers before what they watch.
    /// The UDP probes.
    pub udp: UdpProber,
    /// The TCP connection.
    pub tcp: TcpProber,
    /// The ARP requests.
    pub arp: Option<ArpProber>,
    /// The capture on the switch.
    pub capture: Capture,
    echoes: Vec<EchoServer>,
    vip: Ipv4Addr,
    /// The nodes, the switch and the client.
    pub lab: Lab,
}

impl Rig {
    /// Starts agents, services and client in `lab`, and waits until one node
    /// answers every probe. `say` is told how far it is.
    ///
    /// # Errors
    /// When the cluster does not come up; the message has the end of a log.
    pub fn start(lab: Lab, spec: &LabSpec, arp: ArpProbes, mut say: impl FnMut(&str)) -> Result<Self> {
        let group = spec.groups.first().context("the lab has no group")?;
        let vip = *group.vips.first().context("the group has no VIP")?;
        let service = SocketAddrV4::new(vip, SERVICE_PORT);
        let echoes: Result<Vec<EchoServer>> =
            lab.candidates().map(|node| EchoServer::start(node.ns(), node.name(), service)).collect();
        let echoes = echoes?;
        let capture = Capture::start(&lab, &[vip])?;

        say(&format!("starting an agent on each node, lease {}", humantime::format_duration(lab.lease())));
        let patience = patience(&lab);
        lab.start_agents(patience)?;
        let first = lab.wait_holder(&group.name, patience)?;
        say(&format!("{} holds {vip}; the client starts to probe it", first.name()));

        let client = lab.client()?;
        let arp = match arp {
            ArpProbes::On => Some(ArpProber::start(client, vip, ARP_PERIOD * slow::factor())?),
            ArpProbes::Off => None,
        };
        let udp = UdpProber::start(client, service, PROBE_PERIOD * slow::factor())?;
        let tcp = TcpProber::start(client, service)?;
        let deadline = clock::now().plus(patience);
        while udp.steady_answerer(STEADY).is_none() || tcp.history().exchanges == 0 {
            first.check_agent()?;
            if clock::now() >= deadline || cleanup::interrupted() {
                bail!(
                    "{} says that it holds the VIP, but the client gets no steady answers; its log ends with:\n{}",
                    first.name(),
                    first.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { udp, tcp, arp, capture, echoes, vip, lab })
    }

    /// The lab of `spec` with a running cluster and ARP probes, quietly.
    ///
    /// # Errors
    /// As [`Lab::new`] and [`Rig::start`].
    pub fn new(spec: &LabSpec) -> Result<Self> {
        Self::start(Lab::new(spec)?, spec, ArpProbes::On, |_| ())
    }

    /// The VIP.
    #[must_use]
    pub fn vip(&self) -> Ipv4Addr {
        self.vip
    }

    /// Where the echo services are.
    #[must_use]
    pub fn service(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.vip, SERVICE_PORT)
    }

    /// How many echo services run.
    #[must_use]
    pub fn services(&self) -> usize {
        self.echoes.len()
    }

    /// The node that answers every probe, as soon as there is one.
    ///
    /// # Errors
    /// As [`Rig::wait_answerer`].
    pub fn holder(&self) -> Result<&Node> {
        self.lab.node(&self.wait_answerer(None, || ())?)
    }

    /// Waits until one node that is not `other_than` answers every probe.
    ///
    /// # Errors
    /// When that takes too long, or an agent ends meanwhile.
    pub fn wait_answerer(&self, other_than: Option<&str>, mut tick: impl FnMut()) -> Result<Arc<str>> {
        let deadline = clock::now().plus(patience(&self.lab));
        loop {
            self.check()?;
            tick();
            let steady = self.udp.steady_answerer(STEADY);
            if let Some(by) = steady.filter(|by| Some(&**by) != other_than) {
                return Ok(by);
            }
            if clock::now() >= deadline {
                let who = if other_than.is_some() { "no other node" } else { "no node" };
                bail!("{who} answers the client's probes within {:?}", patience(&self.lab));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails if an agent has ended by itself, or a signal asks for the end.
    ///
    /// # Errors
    /// See above.
    pub fn check(&self) -> Result<()> {
        ensure!(!cleanup::interrupted(), "interrupted");
        self.lab.nodes().iter().try_for_each(Node::check_agent)
    }

    /// Waits until the probes sent by now can no longer be answered in time,
    /// then accounts for the span.
    ///
    /// # Errors
    /// When the capture has lost frames and so proves nothing.
    pub fn account(&self, start: BootNs, end: BootNs, holder_before: &str) -> Result<Account> {
        clock::sleep_until(end.plus(LATE));
        let lost = self.capture.lost()?;
        ensure!(lost == 0, "the capture lost {lost} frames, so it proves nothing");
        let before = self.lab.nodes().iter().position(|n| n.name() == holder_before).map(NodeIndex);
        let mut account = Account::new(&self.udp.probes(), &self.capture.frames(), start, end, before);
        account.probes_sent *= slow::factor() as usize;
        account.probes_lost *= slow::factor() as usize;
        Ok(account)
    }
}

/// What a busy two-core machine may add to a gap at its worst.
const NOISE: Duration = Duration::from_secs(1);
/// How long to watch after a move, and at a moment when nothing may happen.
pub const WATCH: Duration = Duration::from_millis(1500);

/// What a test asks of a span of time.
impl Rig {
    /// Waits for a new holder, watches it for a while, and requires that the
    /// move was clean.
    ///
    /// # Errors
    /// When nobody takes over, two answered, or the gap was too long.
    pub fn expect_move(&self, start: BootNs, before: &str) -> Result<(&Node, Account)> {
        let after = self.wait_answerer(Some(before), || ())?;
        std::thread::sleep(WATCH);
        let account = self.account(start, clock::now(), before)?;
        ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
        ensure!(account.holder_after.as_deref() == Some(&*after), "the VIP moved once more: {account:?}");
        ensure!(
            account.gap_ms() <= clock::millis(self.lab.lease() + slow::patient(NOISE)),
            "the gap is too long: {account:?}"
        );
        Ok((self.lab.node(&after)?, account))
    }

    /// Watches for a while, and requires that the client has noticed nothing
    /// since `start`.
    ///
    /// # Errors
    /// When the VIP moved, or a probe was lost.
    pub fn expect_calm(&self, start: BootNs, holder: &str) -> Result<()> {
        std::thread::sleep(WATCH);
        let account = self.account(start, clock::now(), holder)?;
        ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
        ensure!(account.verdict.new_holder.is_none(), "the VIP moved: {account:?}");
        let excused = slow::excused(account.probes_sent);
        ensure!(
            account.probes_lost <= excused,
            "the client lost probes: {account:?}; the log of {holder} ends with:\n{}",
            self.lab.node(holder)?.log_tail()
        );
        self.check()
    }

    /// Requires that from `fenced` on, and for a while, no frame leaves a node
    /// in the VIP's name.
    ///
    /// # Errors
    /// When one did.
    pub fn expect_silence(&self, fenced: BootNs) -> Result<()> {
        clock::sleep_until(fenced.plus(WATCH));
        let lost = self.capture.lost()?;
        ensure!(lost == 0, "the capture lost {lost} frames, so it proves nothing");
        let late = self.capture.frames().iter().filter(|frame| frame.at > fenced).count();
        ensure!(late == 0, "nodes sent {late} frames with the VIP as source");
        Ok(())
    }
}

fn patience(lab: &Lab) -> Duration {
    slow::patient(PATIENCE) + 5 * lab.lease()
}
