//! How often a holder loses its lease although nothing is broken: on an idle
//! machine, and on a busy one.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::usage::Usage;
use crate::lab::load::{Hog, Sender, conntrack, fill_conntrack, fill_link};
use crate::lab::stall::StallWatch;
use crate::lab::status::metric;
use crate::lab::{GROUP, Lab, LabSpec, Node, SERVICE_PORT, cleanup, clock};

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct HoldArgs {
    /// Write the rows as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How long a lease is good for (T_accept)
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// How long to watch each row
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub time: Duration,
    /// Measure only this load
    #[arg(long, value_enum)]
    pub load: Option<Load>,
    /// The vip-ctl to run
    #[arg(long, value_name = "PATH", hide = true)]
    pub vip_ctl: Option<PathBuf>,
}

/// The load on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// No load
    Idle,
    /// Two processes that use a whole core each
    Hogs2,
    /// Sixteen processes that use a whole core each
    Hogs16,
    /// The holder's link of 100 Mbit/s is full
    Link,
    /// The holder's table of connections is full
    Conntrack,
}

/// Lines to keep of each agent's log.
const LOG_MAX: usize = 100;
const LOADS: [Load; 5] = [Load::Idle, Load::Hogs2, Load::Hogs16, Load::Link, Load::Conntrack];

/// The figures of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The load on the machine.
    pub load: Load,
    /// T_accept.
    pub lease_ms: u64,
    /// How long it was watched.
    pub seconds: u64,
    /// Grants after the first one: each is a lease that was lost.
    pub lost: u64,
    /// Renewals.
    pub renewals: u64,
    /// Renewals that began later than half of the margin.
    pub late: u64,
    /// Heartbeats that kernels dropped.
    pub dropped: u64,
    /// The longest time that the machine itself stood still, as a thread of
    /// higher priority than the agents' saw it.
    pub stall_ms: f64,
    /// The size of the load.
    pub told: String,
    /// When the machine stood still, and the agents' log about lost leases.
    pub log: Vec<String>,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Measures all rows, prints each, and writes them.
///
/// # Errors
/// When something can't be measured here.
pub(super) fn run(args: &HoldArgs, vip_ctl: &Path) -> Result<()> {
    let mut report = Report::default();
    println!("load       lease ms  seconds  lost  renewals    late  dropped  longest stall, ms");
    for load in LOADS.into_iter().filter(|load| args.load.is_none_or(|only| only == *load)) {
        let row = row(load, args, vip_ctl)?;
        println!("{}", line(&row));
        row.log.iter().for_each(|line| println!("    {line}"));
        report.rows.push(row);
        super::store(&report, args.json.as_deref())?;
    }
    Ok(())
}

fn line(row: &Row) -> String {
    format!(
        "{:<9}  {:>8}  {:>7}  {:>4}  {:>8}  {:>6}  {:>7}  {:>17.1}   {}",
        format!("{:?}", row.load).to_lowercase(),
        row.lease_ms,
        row.seconds,
        row.lost,
        row.renewals,
        row.late,
        row.dropped,
        row.stall_ms,
        row.told
    )
}

/// Everything that must stay until the measurement ends.
#[derive(Default)]
struct Running {
    _hogs: Vec<Hog>,
    senders: Vec<Sender>,
}

impl Running {
    fn start(load: Load, lab: &Lab, holder: &Node, at_most: Duration) -> Result<Self> {
        let hogs = |number: usize| (0..number).map(|_| Hog::start(at_most)).collect::<Result<_>>();
        let client = lab.client()?;
        Ok(match load {
            Load::Idle => Self::default(),
            Load::Hogs2 => Self { _hogs: hogs(2)?, ..Self::default() },
            Load::Hogs16 => Self { _hogs: hogs(16)?, ..Self::default() },
            Load::Link => {
                let to = SocketAddrV4::new(client.address, SERVICE_PORT);
                Self { senders: vec![fill_link(holder, to, at_most)?], ..Self::default() }
            }
            Load::Conntrack => {
                Self { senders: vec![fill_conntrack(holder, &client.ns, at_most)?], ..Self::default() }
            }
        })
    }

    fn told(&self, load: Load, holder: &Node) -> Result<String> {
        let sent: u64 = self.senders.iter().map(Sender::sent).sum();
        Ok(match load {
            Load::Idle | Load::Hogs2 | Load::Hogs16 => String::new(),
            Load::Link => format!("{sent} datagrams of 1400 bytes"),
            Load::Conntrack => {
                let (count, max) = conntrack(holder)?;
                format!("{sent} connections opened, {count} of {max} tracked at the end")
            }
        })
    }
}

fn row(load: Load, args: &HoldArgs, vip_ctl: &Path) -> Result<Row> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let lab = Lab::new(&LabSpec::three_nodes(args.lease, Some(vip_ctl.to_owned())))?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let running = Running::start(load, &lab, holder, args.time + PATIENCE)?;
    let usage = || lab.nodes().iter().map(|node| Ok(Usage::of(node)?.lost)).sum::<Result<u64>>();
    let (epoch, dropped, watch) = (epoch(&lab)?, usage()?, StallWatch::start()?);
    let (renewals, late) = renewals(&lab)?;
    let logs = |node: &Node| std::fs::read_to_string(node.log_file()).unwrap_or_default();
    let said: Vec<usize> = lab.nodes().iter().map(|node| logs(node).lines().count()).collect();
    let end = clock::now().plus(args.time);
    while clock::now() < end {
        ensure!(!cleanup::interrupted(), "interrupted");
        lab.nodes().iter().try_for_each(Node::check_agent)?;
        clock::sleep_until(clock::now().plus(Duration::from_millis(200)).min(end));
    }
    let stalls = watch.finish()?;
    let told = running.told(load, holder)?;
    let dropped = usage()?.saturating_sub(dropped);
    drop(running);
    let after = self::renewals(&lab)?;
    let log = lab.nodes().iter().zip(said).flat_map(|(node, said)| {
        let lines: Vec<_> =
            logs(node).lines().skip(said).map(|line| format!("{}: {line}", node.name())).collect();
        lines.into_iter().take(LOG_MAX)
    });
    let stood_still = stalls.long.iter().map(|(at, stall)| {
        format!("machine: {} stood still for {stall:.1?}", humantime::format_rfc3339_millis(*at))
    });
    let log = stood_still.take(LOG_MAX).chain(log).collect();
    Ok(Row {
        load,
        lease_ms: u64::try_from(args.lease.as_millis())?,
        seconds: args.time.as_secs(),
        lost: self::epoch(&lab)?.saturating_sub(epoch),
        renewals: after.0.saturating_sub(renewals),
        late: after.1.saturating_sub(late),
        dropped,
        stall_ms: clock::millis(stalls.longest),
        told,
        log,
    })
}

/// The number of the latest grant.
fn epoch(lab: &Lab) -> Result<u64> {
    let statuses = lab.nodes().iter().map(Node::status).collect::<Result<Vec<_>>>()?;
    let groups = statuses.iter().filter_map(|status| status.group(GROUP)?.epoch);
    groups.max().context("no node has seen a grant")
}

/// Of all nodes: renewals, and those that began late.
fn renewals(lab: &Lab) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for node in lab.nodes() {
        let text = node.succeed(&["metrics"])?;
        let metric = |name: &str| -> Result<u64> {
            metric(&text, name)
                .with_context(|| format!("`vip-ctl metrics` on {} prints no {name}", node.name()))
        };
        sum.0 += metric("vip_lease_renew_lateness_seconds_count")?;
        sum.1 += metric("vip_lease_renew_late_total")?;
    }
    Ok(sum)
}
