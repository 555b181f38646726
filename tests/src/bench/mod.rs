//! The benches of the agent. `agent`: three real agents in a lab with many
//! groups, and what that costs; `run` measures one row, `usage` reads the
//! kernel's figures, `floor` measures the cost of sending and receiving alone.
//! `hold`: is a lease lost where nothing is broken? `heal`: how long does a client that
//! missed a move go on without an answer? `route`: what does a
//! route lookup cost, by how many VIPs there are?

mod floor;
mod heal;
mod hold;
mod route;
mod run;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::lab::{self, cleanup};

/// Measure the agent on this machine, in network namespaces.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: What,
}

/// What can be measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// Measure agents with 1 to 10,000 groups: CPU, traffic, and how soon a failed check ends a lease
    Agent(AgentArgs),
    /// Measure how soon a client that missed a move's announcements is answered again
    Heal(heal::HealArgs),
    /// Measure what a host pays for a route lookup, with 1 to 10,000 VIPs
    Route(route::RouteArgs),
    /// Count leases lost although nothing is broken, on an idle machine and under several loads
    Hold(hold::HoldArgs),
}

/// How agents are measured.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// Write the rows as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure only a few rows, in about a minute
    #[arg(long)]
    pub quick: bool,
    /// Measure only rows with this many groups
    #[arg(long, value_name = "GROUPS")]
    pub groups: Option<u32>,
    /// Measure only rows with this lease (T_accept), e.g. 200ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub lease: Option<Duration>,
    /// The vip-ctl to run
    #[arg(long, value_name = "PATH", hide = true)]
    pub vip_ctl: Option<PathBuf>,
}

/// One cluster to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Groups, of one VIP each.
    pub groups: u32,
    /// T_accept.
    pub lease: Duration,
}

/// Groups of all rows.
const GROUPS: [u32; 4] = [1, 100, 1_000, 10_000];
/// T_accept of all rows, in milliseconds.
const LEASES_MS: [u64; 3] = [50, 200, 1_000];
/// The rows of `--quick`.
const QUICK: [(u32, u64); 3] = [(1, 200), (100, 50), (100, 200)];
/// Renewals a second on two cores, far more than ever measured: groups divided by
/// the lease in seconds. The bench tries no more.
const PER_SECOND_MAX: u64 = 20_000;

impl Case {
    /// Why the bench leaves this row out; `None` if it does not.
    fn is_too_much(self) -> Option<String> {
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = u64::from(self.groups) * 1_000 / lease_ms;
        (per_second > PER_SECOND_MAX)
            .then(|| format!("{per_second} renewals a second; the bench tries at most {PER_SECOND_MAX}"))
    }
}

/// The figures of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Groups, of one VIP each.
    pub groups: u32,
    /// T_accept.
    pub lease_ms: u64,
    /// Nodes, all of which vote and can hold.
    pub nodes: usize,
    /// CPU of the node that holds all groups, of one core.
    pub holder_cpu_percent: f64,
    /// CPU of a node that only votes, of one core.
    pub voter_cpu_percent: f64,
    /// CPU of a bare loop that sends and receives as much as the holder, of one core.
    pub floor_cpu_percent: f64,
    /// What the holder's interface sends and receives.
    pub bytes_per_s: f64,
    /// Datagrams that the nodes' kernels dropped.
    pub lost: u64,
    /// Of how many that were sent.
    pub sent: u64,
    /// From the failure of a check to the lease's end in the holder's kernel: the
    /// worse of the two figures below.
    pub check_heard_ms: f64,
    /// While nothing else happens.
    pub check_heard_idle_ms: f64,
    /// At once after a node has taken all groups of one that was lost.
    pub check_heard_failover_ms: f64,
    /// From the start of the agents until every group had a holder.
    pub start_ms: f64,
}

/// A row that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// Groups.
    pub groups: u32,
    /// T_accept.
    pub lease_ms: u64,
    /// Why.
    pub why: String,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured.
    pub rows: Vec<Row>,
    /// What was not.
    pub left_out: Vec<LeftOut>,
}

/// Runs the bench and prints its table.
///
/// # Errors
/// When nothing can be measured here: no privilege, a tool is missing. The report
/// names a row that can't be measured.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let args = match &args.what {
        What::Agent(args) => args,
        What::Heal(args) => {
            let vip_ctl = lab::begin("the bench", args.vip_ctl.as_deref())?;
            heal::run(args, &vip_ctl)?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Route(args) => {
            let vip_ctl = lab::begin("the bench", args.vip_ctl.as_deref())?;
            route::run(args, &vip_ctl)?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Hold(args) => {
            let vip_ctl = lab::begin("the bench", args.vip_ctl.as_deref())?;
            hold::run(args, &vip_ctl)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let vip_ctl = lab::begin("the bench", args.vip_ctl.as_deref())?;
    let mut report = Report::default();
    for case in cases(args) {
        let lease_ms = u64::try_from(case.lease.as_millis()).unwrap_or(u64::MAX);
        eprintln!("measuring {} groups at {lease_ms} ms", case.groups);
        let row = match case.is_too_much() {
            None => run::row(case, &vip_ctl).map_err(|e| format!("{e:#}")),
            Some(why) => Err(why),
        };
        if cleanup::interrupted() {
            bail!("interrupted");
        }
        match row {
            Ok(row) => report.rows.push(row),
            Err(why) => report.left_out.push(LeftOut { groups: case.groups, lease_ms, why }),
        }
        store(&report, args.json.as_deref())?;
    }
    print!("{}", table(&report));
    Ok(if report.rows.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes the rows so far, after each one: a later failure does not lose them.
fn store(report: &impl Serialize, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

fn cases(args: &AgentArgs) -> Vec<Case> {
    let all = GROUPS.iter().flat_map(|groups| LEASES_MS.iter().map(|lease| (*groups, *lease)));
    let all = all.filter(|case| !args.quick || QUICK.contains(case));
    all.map(|(groups, lease_ms)| Case { groups, lease: Duration::from_millis(lease_ms) })
        .filter(|case| args.groups.is_none_or(|groups| groups == case.groups))
        .filter(|case| args.lease.is_none_or(|lease| lease == case.lease))
        .collect()
}

fn table(report: &Report) -> String {
    let mut text = String::from(
        "groups  lease ms  holder CPU %  voter CPU %  floor CPU %   KB/s    lost of sent   check heard: idle, after failover, ms   start ms\n",
    );
    for row in &report.rows {
        text += &format!(
            "{:>6}  {:>8}  {:>12.1}  {:>11.1}  {:>11.1}  {:>5.0}  {:>6} of {:<8}  {:>17.0}  {:>19.0}  {:>9.0}\n",
            row.groups,
            row.lease_ms,
            row.holder_cpu_percent,
            row.voter_cpu_percent,
            row.floor_cpu_percent,
            row.bytes_per_s / 1_000.0,
            row.lost,
            row.sent,
            row.check_heard_idle_ms,
            row.check_heard_failover_ms,
            row.start_ms,
        );
    }
    for row in &report.left_out {
        text += &format!("left out: {} groups at {} ms: {}\n", row.groups, row.lease_ms, row.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn agent(args: &[&str]) -> AgentArgs {
        match BenchArgs::try_parse_from([&["bench", "agent"], args].concat()).unwrap().what {
            What::Agent(args) => args,
            What::Heal(_) | What::Hold(_) | What::Route(_) => panic!("another bench"),
        }
    }

    #[test]
    fn the_rows_are_those_of_the_page() {
        BenchArgs::command().debug_assert();
        assert_eq!(cases(&agent(&[])).len(), 12);
        assert_eq!(cases(&agent(&["--quick"])).len(), QUICK.len());
        let one = cases(&agent(&["--groups", "10000", "--lease", "1s"]));
        assert_eq!(one, [Case { groups: 10_000, lease: Duration::from_secs(1) }]);
        let left_out = cases(&agent(&[])).into_iter().filter(|case| case.is_too_much().is_some());
        assert_eq!(left_out.map(|case| case.groups).collect::<Vec<_>>(), [10_000, 10_000]);
    }

    #[test]
    fn the_json_has_the_documented_names() {
        let row = Row {
            groups: 100,
            lease_ms: 50,
            nodes: 3,
            holder_cpu_percent: 7.0,
            voter_cpu_percent: 3.5,
            floor_cpu_percent: 2.5,
            bytes_per_s: 1e6,
            lost: 0,
            sent: 10,
            check_heard_ms: 150.0,
            check_heard_idle_ms: 120.0,
            check_heard_failover_ms: 150.0,
            start_ms: 900.0,
        };
        let report = Report { rows: vec![row], left_out: Vec::new() };
        let json = serde_json::to_value(&report).unwrap();
        for name in [
            "groups",
            "lease_ms",
            "nodes",
            "holder_cpu_percent",
            "voter_cpu_percent",
            "floor_cpu_percent",
            "bytes_per_s",
            "lost",
            "check_heard_ms",
        ] {
            assert!(json["rows"][0][name].is_number(), "{name}");
        }
        assert!(table(&report).contains("   100        50           7.0"));
    }
}
