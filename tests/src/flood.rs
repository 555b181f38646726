//! What floods of the agents' port cost a holder: the table of
//! `docs/security.md`. Each load runs for some seconds against a cluster in
//! network namespaces, from a host on its switch without the key.
//!
//! The lab sends and records; this module lists the loads and measures.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vip_common::heartbeat::{COUNTER_AT, HEADER_LEN, KIND_AT, KIND_DATA, SENDER_INCARNATION_AT};

use crate::lab::flood::{AgentFrame, Flood, Recorder, Sent, mac_of};
use crate::lab::leases::Leases;
use crate::lab::stall::StallWatch;
use crate::lab::{GROUP, Lab, LabSpec, Node, cleanup, clock, skip};

/// Kinds of datagrams (`vip-ctl/lease/src/transport/header.rs`), as [`KIND_DATA`] is one.
const CHALLENGE: u8 = 1;
/// A response to a challenge.
pub const RESPONSE: u8 = 2;
/// How many different frames a load has.
const FRAMES: usize = 1024;
/// Bytes of a made-up datagram: as many as a renewal has.
const PAYLOAD_LEN: usize = 200;
/// How long the cluster may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The agent's name for it.
const LEASE_THREAD: &str = "lease";
/// How often to check whether the lease is there: a new holder takes longer.
const LEASE_POLL: Duration = Duration::from_micros(200);
/// How long a cluster is left alone between two loads.
const PAUSE: Duration = Duration::from_secs(6);

/// `vip-flood`: arguments.
#[derive(Debug, Parser)]
#[command(name = "vip-flood", about = "Flood a holder in the lab and measure what it costs")]
pub struct FloodArgs {
    /// The `vip-ctl` to run; without this, the release build
    #[arg(long)]
    pub vip_ctl: Option<std::path::PathBuf>,
    /// How many datagrams to send a second
    #[arg(long, default_value_t = 500_000)]
    pub rate: u32,
    /// How long each load lasts
    #[arg(long, default_value = "10s")]
    pub lasts: humantime::Duration,
    /// `lease` in the cluster's configuration
    #[arg(long, default_value = "50ms")]
    pub lease: humantime::Duration,
    /// Send from a host on the switch; without this, two threads send straight
    /// out of the switch's port to the holder, which is faster
    #[arg(long)]
    pub from_host: bool,
    /// Run only loads whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Write the rows to this file as JSON
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

/// The datagrams of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// None: what the cluster does by itself.
    Nothing,
    /// Random bytes from an address that is no node's.
    RandomFromStranger,
    /// Random bytes with the other nodes' addresses.
    RandomFromPeers,
    /// The headers of genuine challenges, each of another incarnation, with
    /// made-up tags.
    ForgedChallenges,
    /// Recorded datagrams as they were.
    Recorded,
    /// The same with an address that is no node's.
    RecordedFromStranger,
    /// Recorded challenges of former incarnations.
    RecordedChallenges,
    /// The headers of new payloads of the running session, with made-up tags.
    ForgedPayloads,
    /// Recorded headers of payloads of the running session, with other payloads.
    AlteredPayloads,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::RandomFromStranger,
        Self::RandomFromPeers,
        Self::ForgedChallenges,
        Self::Recorded,
        Self::RecordedFromStranger,
        Self::RecordedChallenges,
        Self::ForgedPayloads,
        Self::AlteredPayloads,
    ];

    /// Its name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::RandomFromStranger => "random bytes, another host's address",
            Self::RandomFromPeers => "random bytes, the peers' addresses",
            Self::ForgedChallenges => "forged challenges, the peers' addresses",
            Self::Recorded => "recorded datagrams, the peers' addresses",
            Self::RecordedFromStranger => "recorded datagrams, another host's address",
            Self::RecordedChallenges => "recorded challenges, the peers' addresses",
            Self::ForgedPayloads => "forged payloads of the running session",
            Self::AlteredPayloads => "its recorded headers, other payloads",
        }
    }
}

/// A cluster that is about to be flooded, and its recorded datagrams.
#[derive(Debug)]
pub struct Target {
    /// The cluster.
    pub lab: Lab,
    recorded: Vec<AgentFrame>,
}

impl Target {
    /// Starts a cluster, records it, and restarts each agent for its challenges.
    ///
    /// # Errors
    /// When the cluster does not come up.
    pub fn start(spec: &LabSpec) -> Result<Self> {
        let lab = Lab::new(spec)?;
        let recorder = Recorder::start(&lab, &lab.nodes().iter().collect::<Vec<_>>())?;
        lab.start_agents(PATIENCE)?;
        for node in lab.nodes() {
            for _ in 0..2 {
                node.kill_agent()?;
                // Meanwhile the others challenge it, ten times a second.
                std::thread::sleep(Duration::from_millis(300));
                node.start_agent()?;
            }
            lab.wait_quorate(PATIENCE)?;
        }
        lab.wait_holder(GROUP, PATIENCE)?;
        std::thread::sleep(Duration::from_secs(1));
        let recorded = recorder.frames();
        Ok(Self { lab, recorded })
    }

    /// The frames of a load on `victim`.
    ///
    /// # Errors
    /// When nothing of the kind was recorded.
    pub fn frames(&self, load: Load, victim: &Node) -> Result<Vec<AgentFrame>> {
        let client = self.lab.client()?;
        let macs = (mac_of(&client.ns)?, mac_of(victim.ns())?);
        let peers: Vec<_> =
            self.lab.nodes().iter().filter(|node| node.name() != victim.name()).map(Node::address).collect();
        let to_victim = |kind: Option<u8>| {
            let is_it = move |frame: &&AgentFrame| {
                frame.target() == victim.address() && kind.is_none_or(|kind| frame.payload()[KIND_AT] == kind)
            };
            self.recorded.iter().filter(is_it)
        };
        let with = |source, payload: &[u8]| AgentFrame::new(macs, source, victim.address(), payload);
        let as_it_was = |frame: &AgentFrame| with(frame.source(), frame.payload());
        let random = |source| Ok::<_, anyhow::Error>(with(source, &draw::<PAYLOAD_LEN>()?));
        let sources = peers.iter().copied().cycle().take(FRAMES);
        let mut frames: Vec<AgentFrame> = match load {
            Load::Nothing => Vec::new(),
            Load::RandomFromStranger => (0..FRAMES).map(|_| random(client.address)).collect::<Result<_>>()?,
            Load::RandomFromPeers => sources.map(random).collect::<Result<_>>()?,
            Load::ForgedChallenges => {
                let mut forged = Vec::new();
                for frame in to_victim(Some(CHALLENGE)).cycle().take(FRAMES) {
                    let mut payload = frame.payload().to_vec();
                    payload[SENDER_INCARNATION_AT..SENDER_INCARNATION_AT + 8].copy_from_slice(&draw::<8>()?);
                    forged.push(with(frame.source(), &payload));
                }
                forged
            }
            Load::Recorded => to_victim(None).map(as_it_was).collect(),
            Load::RecordedFromStranger => {
                to_victim(None).map(|frame| with(client.address, frame.payload())).collect()
            }
            Load::RecordedChallenges => to_victim(Some(CHALLENGE)).map(as_it_was).collect(),
            Load::ForgedPayloads => {
                let last = |peer| to_victim(Some(KIND_DATA)).rfind(|frame| frame.source() == peer);
                let lasts: Vec<_> = peers.iter().filter_map(|peer| last(*peer)).collect();
                let mut forged = Vec::new();
                for frame in lasts.iter().cycle().take(if lasts.is_empty() { 0 } else { FRAMES }) {
                    let mut payload = frame.payload().to_vec();
                    // Far ahead of the session's counter.
                    payload[COUNTER_AT..COUNTER_AT + 8].copy_from_slice(&[0x7f; 8]);
                    let end = payload.len();
                    payload[end - 8..].copy_from_slice(&draw::<8>()?);
                    forged.push(with(frame.source(), &payload));
                }
                forged
            }
            Load::AlteredPayloads => {
                let altered = |frame: &AgentFrame| {
                    let header = &frame.payload()[..HEADER_LEN];
                    Ok(with(frame.source(), &[header, &draw::<PAYLOAD_LEN>()?].concat()))
                };
                to_victim(Some(KIND_DATA)).map(altered).collect::<Result<_>>()?
            }
        };
        // The last ones: a recorder may have filled its memory with more.
        frames.drain(..frames.len().saturating_sub(FRAMES));
        ensure!(
            load == Load::Nothing || !frames.is_empty(),
            "the lab has recorded no datagrams for: {}",
            load.name()
        );
        Ok(frames)
    }

    /// The node that holds the VIP.
    ///
    /// # Errors
    /// When there is none.
    pub fn holder(&self) -> Result<&Node> {
        self.lab.wait_holder(GROUP, PATIENCE)
    }
}

fn draw<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The load.
    pub load: &'static str,
    /// Datagrams a second that left the sender.
    pub per_second: f64,
    /// How much of a core the holder's lease thread used, in percent.
    pub lease_thread_percent: f64,
    /// How often no node had the lease any more.
    pub leases_lost: u64,
    /// The longest time that this machine kept a thread of higher priority than
    /// the agents' waiting, in milliseconds: a lease can be lost by that here,
    /// but not on another machine.
    pub stall_ms: f64,
    /// Datagrams a second that the holder's agent sent.
    pub sent_per_second: f64,
    /// Responses to challenges that it sent in all.
    pub responses: usize,
    /// Datagrams a second that it read and rejected, by reason.
    pub rejected_per_second: BTreeMap<String, f64>,
}

/// Counts how often the lease was lost, by the nodes' kernels, while `act` runs.
fn count_lost<T>(lab: &Lab, act: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let words = lab.nodes().iter().map(Leases::open).collect::<Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut lost, mut was_held) = (0, false);
            while !is_over.load(Ordering::Relaxed) {
                let is_held = words.iter().any(|words| words.is_valid(0));
                lost += u64::from(was_held && !is_held);
                was_held = is_held;
                std::thread::sleep(LEASE_POLL);
            }
            lost
        });
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        let lost = watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, lost))
    })
}

/// Sends a load at the holder and measures.
///
/// # Errors
/// When something ends that should not, or nothing could be measured.
pub fn measure(target: &Target, load: Load, args: &FloodArgs) -> Result<Row> {
    let lasts = args.lasts.into();
    let victim = target.holder()?;
    let frames = target.frames(load, victim)?;
    let recorder = Recorder::start(&target.lab, &[victim])?;
    let rejected_before = victim.status()?.rejected;
    let before = victim.thread_time(LEASE_THREAD)?;
    let flood = || {
        if frames.is_empty() {
            std::thread::sleep(lasts);
            return Ok(Sent { frames: 0, took: lasts });
        }
        let flood = Flood { frames, per_second: args.rate, lasts };
        if args.from_host {
            flood.send(target.lab.client()?)
        } else {
            flood.send_at_port(&target.lab, victim)
        }
    };
    let stall = StallWatch::start()?;
    let (sent, leases_lost) = count_lost(&target.lab, flood)?;
    let stall_ms = clock::millis(stall.finish()?.longest);
    let run = victim.thread_time(LEASE_THREAD)?.saturating_sub(before);
    let said = recorder.frames();
    victim.check_agent()?;
    let rejected = victim.status()?.rejected;
    let per_second = |count: u64| count as f64 / sent.took.as_secs_f64();
    let rejected_per_second = rejected.into_iter().map(|(reason, count)| {
        let before = rejected_before.get(&reason).copied().unwrap_or(0);
        (reason, per_second(count.saturating_sub(before)))
    });
    let rejected_per_second = rejected_per_second.filter(|(_, count)| *count > 0.0).collect();
    target.lab.wait_holder(GROUP, PATIENCE)?;
    let sent_per_second = said.len() as f64 / sent.took.as_secs_f64();
    Ok(Row {
        load: load.name(),
        per_second: sent.per_second(),
        lease_thread_percent: 100.0 * run.as_secs_f64() / sent.took.as_secs_f64(),
        leases_lost,
        stall_ms,
        sent_per_second,
        rejected_per_second,
        responses: said.iter().filter(|frame| frame.payload()[KIND_AT] == RESPONSE).count(),
    })
}

/// Runs all loads, prints the table, and writes it.
///
/// # Errors
/// When the lab does not come up, or something is not as it should be.
pub fn run(args: &FloodArgs) -> Result<()> {
    if let Some(why) = skip::lacking() {
        anyhow::bail!("{why}");
    }
    cleanup::catch_signals()?;
    let vip_ctl = args.vip_ctl.clone().map_or_else(crate::lab::find_vip_ctl, Ok)?;
    let target = Target::start(&LabSpec::three_nodes(args.lease.into(), Some(vip_ctl)))?;
    println!("| load | datagrams/s | lease thread | leases lost | longest stall, ms | sent/s | responses |");
    println!("|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    let is_wanted = |load: &Load| args.only.as_ref().is_none_or(|only| load.name().contains(only.as_str()));
    for load in Load::ALL.into_iter().filter(is_wanted) {
        clock::sleep_until(clock::now().plus(PAUSE));
        let row = measure(&target, load, args)?;
        println!(
            "| {} | {:.0} | {:.1} % | {} | {:.1} | {:.0} | {} |",
            row.load,
            row.per_second,
            row.lease_thread_percent,
            row.leases_lost,
            row.stall_ms,
            row.sent_per_second,
            row.responses
        );
        rows.push(row);
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
