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
    /// The same where nodes send nothing on to the holder (`steer = false`).
    Unsteered,
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
    /// How many datagrams of the client were lost each time; it sends one each millisecond.
    pub lost: Vec<usize>,
    /// The number in the middle.
    pub median_lost: usize,
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

/// Measures all rows, prints each, and writes them. Planned moves take turns, with and
/// without steering.
///
/// # Errors
/// When something can't be measured here.
pub(super) fn run(args: &HealArgs, vip_ctl: &Path) -> Result<()> {
    let spec = LabSpec::three_nodes(args.lease, Some(vip_ctl.to_owned()));
    let rig = |spec: LabSpec| Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ());
    let (steered, plain) = (rig(spec.clone())?, rig(spec.without_steering())?);
    let mut rows = [Move::Planned, Move::Unsteered, Move::Lost].map(Row::new);
    let [planned, unsteered, lost] = &mut rows;
    for _ in 0..args.rounds {
        planned.add(&steered)?;
        unsteered.add(&plain)?;
    }
    drop(plain);
    for _ in 0..args.rounds {
        lost.add(&steered)?;
    }
    println!("move       rounds  median ms  longest ms  median lost  answered by two");
    for row in &mut rows {
        row.finish();
        println!(
            "{:<9}  {:>6}  {:>9.1}  {:>10.1}  {:>11}  {:>15}",
            format!("{:?}", row.how).to_lowercase(),
            row.all_ms.len(),
            row.median_ms,
            row.longest_ms,
            row.median_lost,
            row.answered_by_two
        );
    }
    super::store(&Report { rows: rows.into() }, args.json.as_deref())
}

impl Row {
    fn new(how: Move) -> Self {
        let (all_ms, lost) = (Vec::new(), Vec::new());
        Self {
            how,
            rounds: 0,
            median_ms: 0.0,
            longest_ms: 0.0,
            all_ms,
            lost,
            median_lost: 0,
            answered_by_two: 0,
        }
    }

    /// Moves the VIP once.
    fn add(&mut self, rig: &Rig) -> Result<()> {
        rig.check()?;
        let holder = rig.holder()?;
        let (name, lab) = (holder.name().to_owned(), &rig.lab);
        lab.keep_broadcasts_from_client(true)?;
        let start = clock::now();
        let begun = match self.how {
            Move::Planned | Move::Unsteered => {
                holder.succeed(&["switchover", GROUP])?;
                start
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
        self.all_ms.push(first_answer_ms(rig, begun, &name)?);
        let account = rig.account(start, clock::now(), &name)?;
        self.lost.push(account.probes_lost);
        self.answered_by_two += account.verdict.answered_by_two;
        self.rounds += 1;
        lab.keep_broadcasts_from_client(false)?;
        holder.heal()?;
        lab.wait_holder(GROUP, PATIENCE)?;
        Ok(())
    }

    fn finish(&mut self) {
        let mut sorted = self.all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        self.median_ms = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        self.longest_ms = sorted.last().copied().unwrap_or_default();
        let mut lost = self.lost.clone();
        lost.sort_unstable();
        self.median_lost = lost.get(lost.len() / 2).copied().unwrap_or_default();
    }
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
