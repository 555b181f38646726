//! How long a client that missed every announcement of a move goes on sending to the
//! node that had the VIP before: the switch keeps broadcasts from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::rig::{ArpProbes, Rig};
use crate::lab::{GROUP, Lab, LabSpec, Node, clock, wait_until};

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct HealArgs {
    /// Write the rows as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How many moves of each kind
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub rounds: usize,
    /// How long a lease is good for (T_accept)
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// The vip-ctl to run
    #[arg(long, value_name = "PATH", hide = true)]
    pub vip_ctl: Option<PathBuf>,
}

/// How the VIP moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Move {
    /// By command: the client never hears a broadcast. From the command until it is
    /// answered by the new holder.
    Planned,
    /// The holder is cut off: nobody gets the client's packets, and it hears no broadcast
    /// for some seconds. From the first that it could hear until it is answered.
    Lost,
}

/// The figures of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// How the VIP moved.
    pub how: Move,
    /// How many times.
    pub rounds: usize,
    /// The time without an answer in the middle, in milliseconds.
    pub median_ms: f64,
    /// The longest.
    pub longest_ms: f64,
    /// Each of them.
    pub all_ms: Vec<f64>,
    /// Frames that two nodes answered.
    pub answered_by_two: u64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured.
    pub rows: Vec<Row>,
}

/// For how long a client hears nothing after a node was lost: the announcements that
/// follow a takeover closely are over by then.
const DEAF: Duration = Duration::from_secs(4);
/// How long a move may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures both rows, prints each, and writes them.
///
/// # Errors
/// When something can't be measured here.
pub(super) fn run(args: &HealArgs, vip_ctl: &Path) -> Result<()> {
    let spec = LabSpec::three_nodes(args.lease, Some(vip_ctl.to_owned()));
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let mut report = Report::default();
    println!("move     rounds  median ms  longest ms  answered by two");
    for how in [Move::Planned, Move::Lost] {
        let row = row(how, args, &rig)?;
        println!(
            "{:<7}  {:>6}  {:>9.1}  {:>10.1}  {:>15}",
            format!("{how:?}").to_lowercase(),
            row.rounds,
            row.median_ms,
            row.longest_ms,
            row.answered_by_two
        );
        report.rows.push(row);
        super::store(&report, args.json.as_deref())?;
    }
    Ok(())
}

fn row(how: Move, args: &HealArgs, rig: &Rig) -> Result<Row> {
    let (mut all_ms, mut answered_by_two) = (Vec::new(), 0);
    for _ in 0..args.rounds {
        rig.check()?;
        let holder = rig.holder()?;
        let (name, lab) = (holder.name().to_owned(), &rig.lab);
        lab.keep_broadcasts_from_client(true)?;
        let start = clock::now();
        let begun = match how {
            Move::Planned => {
                let begun = clock::now();
                holder.succeed(&["switchover", GROUP])?;
                begun
            }
            Move::Lost => {
                holder.cut()?;
                let other = lab.candidates().find(|node| node.name() != name).context("another node")?;
                wait_until(clock::now().plus(PATIENCE), || has_left(other, &name));
                std::thread::sleep(DEAF);
                lab.keep_broadcasts_from_client(false)?;
                clock::now()
            }
        };
        rig.wait_answerer(Some(&name), || ())?;
        all_ms.push(first_answer_ms(rig, begun, &name)?);
        answered_by_two += rig.account(start, clock::now(), &name)?.verdict.answered_by_two;
        lab.keep_broadcasts_from_client(false)?;
        holder.heal()?;
        lab.wait_holder(GROUP, PATIENCE)?;
    }
    let mut sorted = all_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let median_ms = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let longest_ms = sorted.last().copied().unwrap_or_default();
    Ok(Row { how, rounds: args.rounds, median_ms, longest_ms, all_ms, answered_by_two })
}

/// Has the VIP gone to another node than this one, as `node` sees it?
fn has_left(node: &Node, former: &str) -> bool {
    let holder = node.status().ok().and_then(|status| status.group(GROUP)?.holder.clone());
    holder.is_some_and(|holder| holder != former)
}

/// From `begun` until another node than `former` answered first.
fn first_answer_ms(rig: &Rig, begun: vip_common::BootNs, former: &str) -> Result<f64> {
    let probes = rig.udp.probes();
    let answers = probes.iter().filter_map(|probe| probe.answer.as_ref());
    let first =
        answers.filter(|answer| answer.at > begun && &*answer.by != former).map(|answer| answer.at).min();
    Ok(clock::millis(first.context("nobody answers")?.since(begun)))
}
