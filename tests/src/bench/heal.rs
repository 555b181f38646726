//! How long a client that missed every announcement of a move goes on sending to the
//! node that had the VIP before: the switch keeps broadcasts from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::rig::{ArpProbes, Rig};
use crate::lab::{GROUP, Lab, LabSpec, clock, wait_until};

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

/// What one move took.
struct Moved {
    ms: f64,
    lost: usize,
    answered_by_two: u64,
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
    let (mut planned, mut unsteered, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        planned.push(moved(Move::Planned, &steered)?);
        unsteered.push(moved(Move::Unsteered, &plain)?);
    }
    drop(plain);
    for _ in 0..args.rounds {
        lost.push(moved(Move::Lost, &steered)?);
    }
    let rows = [(Move::Planned, planned), (Move::Unsteered, unsteered), (Move::Lost, lost)];
    let rows = rows.map(|(how, moves)| Row::of(how, &moves));
    println!("move       rounds  median ms  longest ms  median lost  answered by two");
    for row in &rows {
        println!(
            "{:<9}  {:>6}  {:>9.1}  {:>10.1}  {:>11}  {:>15}",
            format!("{:?}", row.how).to_lowercase(),
            row.rounds,
            row.median_ms,
            row.longest_ms,
            row.median_lost,
            row.answered_by_two
        );
    }
    super::store(&Report { rows: rows.into() }, args.json.as_deref())
}

impl Row {
    fn of(how: Move, moves: &[Moved]) -> Self {
        let all_ms: Vec<_> = moves.iter().map(|moved| moved.ms).collect();
        let lost: Vec<_> = moves.iter().map(|moved| moved.lost).collect();
        let (mut sorted_ms, mut sorted_lost) = (all_ms.clone(), lost.clone());
        sorted_ms.sort_by(f64::total_cmp);
        sorted_lost.sort_unstable();
        Self {
            how,
            rounds: moves.len(),
            median_ms: sorted_ms.get(moves.len() / 2).copied().unwrap_or_default(),
            longest_ms: sorted_ms.last().copied().unwrap_or_default(),
            all_ms,
            median_lost: sorted_lost.get(moves.len() / 2).copied().unwrap_or_default(),
            lost,
            answered_by_two: moves.iter().map(|moved| moved.answered_by_two).sum(),
        }
    }
}

/// Moves the VIP once.
fn moved(how: Move, rig: &Rig) -> Result<Moved> {
    rig.check()?;
    let holder = rig.holder()?;
    let (name, lab) = (holder.name().to_owned(), &rig.lab);
    lab.keep_broadcasts_from_client(true)?;
    let start = clock::now();
    let begun = match how {
        Move::Planned | Move::Unsteered => {
            holder.succeed(&["switchover", GROUP])?;
            start
        }
        Move::Lost => {
            holder.cut()?;
            let other = lab.candidates().find(|node| node.name() != name).context("another node")?;
            wait_until(clock::now().plus(PATIENCE), || other.sees_it_leave(GROUP, &name));
            std::thread::sleep(DEAF);
            lab.keep_broadcasts_from_client(false)?;
            clock::now()
        }
    };
    rig.wait_answerer(Some(&name), || ())?;
    let ms = first_answer_ms(rig, begun, &name)?;
    let account = rig.account(start, clock::now(), &name)?;
    lab.keep_broadcasts_from_client(false)?;
    holder.heal()?;
    lab.wait_holder(GROUP, PATIENCE)?;
    Ok(Moved { ms, lost: account.probes_lost, answered_by_two: account.verdict.answered_by_two })
}

/// From `begun` until another node than `former` answered first.
fn first_answer_ms(rig: &Rig, begun: vip_common::BootNs, former: &str) -> Result<f64> {
    let probes = rig.udp.probes();
    let answers = probes.iter().filter_map(|probe| probe.answer.as_ref());
    let first =
        answers.filter(|answer| answer.at > begun && &*answer.by != former).map(|answer| answer.at).min();
    Ok(clock::millis(first.context("nobody answers")?.since(begun)))
}
