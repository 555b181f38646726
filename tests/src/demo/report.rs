//! From probes and captured frames to the demo's timeline, table and JSON.
//! Pure: it reads no clock and asks nobody.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use vip_common::BootNs;

use super::steps::StepRecord;
use crate::lab::NodeIndex;
use crate::lab::account::Account;
use crate::lab::capture::Frame;
use crate::lab::probe::{Probe, TcpEvent, TcpHistory};

/// One step as users and scripts see it. The names are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StepReport {
    name: &'static str,
    holder_before: Option<String>,
    holder_after: Option<String>,
    gap_ms: f64,
    probes_sent: usize,
    probes_lost: usize,
    answered_by_two: u64,
}

#[derive(Debug, Serialize)]
struct Steps<'a> {
    steps: &'a [StepReport],
}

/// The account of a whole run.
#[derive(Debug)]
pub(super) struct Report {
    steps: Vec<StepReport>,
    events: Vec<(BootNs, String)>,
    start: BootNs,
    interface_changes: Vec<String>,
    complaints: Vec<String>,
}

impl Report {
    /// `nodes` are the nodes' names in the order of their index; `capture_lost`
    /// is `None` when the capture can't tell.
    pub(super) fn new(
        nodes: &[&str],
        history: &[StepRecord],
        probes: &[Probe],
        frames: &[Frame],
        tcp: &TcpHistory,
        capture_lost: Option<&u64>,
    ) -> Self {
        let mut report = Self {
            steps: Vec::new(),
            events: Vec::new(),
            start: probes.first().map_or(BootNs(0), |probe| probe.sent),
            interface_changes: Vec::new(),
            complaints: Vec::new(),
        };
        for record in history {
            report.add_step(nodes, record, probes, frames);
        }
        for (at, event) in &tcp.events {
            let text = match event {
                TcpEvent::Connected(by) => format!("TCP: connected, {by} answers"),
                TcpEvent::Reset => "TCP: the connection was reset".to_owned(),
                TcpEvent::TimedOut => "TCP: no answer, so the client closes the connection".to_owned(),
            };
            report.events.push((*at, text));
        }
        report.events.sort_by_key(|(at, _)| *at);
        if capture_lost != Some(&0) {
            report
                .complaints
                .push("the capture lost frames or failed, so `answered by two` proves nothing".to_owned());
        }
        report
    }

    fn add_step(&mut self, names: &[&str], record: &StepRecord, probes: &[Probe], frames: &[Frame]) {
        let before = names.iter().position(|name| *name == record.holder_before).map(NodeIndex);
        let account = Account::new(probes, frames, record.start, record.end, before);
        let step = StepReport {
            name: record.step.name(),
            holder_before: Some(record.holder_before.clone()),
            gap_ms: tenths(account.gap_ms()),
            probes_sent: account.probes_sent,
            probes_lost: account.probes_lost,
            answered_by_two: account.verdict.answered_by_two,
            holder_after: account.holder_after,
        };

        self.events.push((record.start, format!("{}: {}", step.name, record.what)));
        if let (Some(NodeIndex(node)), Some(since)) = (account.verdict.new_holder, account.verdict.since) {
            self.events.push((since, format!("first frame with the VIP as source from {}", names[node])));
        }
        if let Some(gap) = account.gap {
            self.events.push((gap.from, "last answered probe before the gap".to_owned()));
            self.events.push((gap.to, format!("first answered probe after {:.1} ms", gap.millis())));
        }
        self.interface_changes
            .extend(record.interface_changes.iter().map(|change| format!("{}: {change}", step.name)));
        if let Some(failure) = &record.failure {
            self.complaints.push(format!("step {}: {failure}", step.name));
        } else if step.holder_after.is_none() {
            self.complaints.push(format!("step {}: it ends without a holder", step.name));
        }
        if step.answered_by_two > 0 {
            self.complaints
                .push(format!("step {}: {} frames answered by two", step.name, step.answered_by_two));
        }
        self.steps.push(step);
    }

    /// Why the run was not a good one: one sentence each, none if it was.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.clone()
    }

    /// The JSON document, with a newline at its end.
    pub(super) fn json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(&Steps { steps: &self.steps }).context("writing JSON")?;
        text.push('\n');
        Ok(text)
    }

    /// When what happened, in seconds since the first probe.
    pub(super) fn timeline(&self) -> String {
        let mut text = String::from("\n      t/s  event\n");
        for (at, event) in &self.events {
            let seconds = at.since(self.start).as_secs_f64();
            // Writing to a String does not fail.
            let _written = writeln!(text, "{seconds:9.4}  {event}");
        }
        text
    }

    /// The table, and what was seen of the nodes' interfaces.
    pub(super) fn table(&self) -> String {
        let head = ["step", "before", "new holder", "gap ms", "probes sent", "lost", "answered by two"];
        let nobody = || "nobody".to_owned();
        let rows: Vec<[String; 7]> = self
            .steps
            .iter()
            .map(|step| {
                [
                    step.name.to_owned(),
                    step.holder_before.clone().unwrap_or_else(nobody),
                    step.holder_after.clone().unwrap_or_else(nobody),
                    format!("{:.1}", step.gap_ms),
                    step.probes_sent.to_string(),
                    step.probes_lost.to_string(),
                    step.answered_by_two.to_string(),
                ]
            })
            .collect();
        let mut text = format!("\n{}", aligned(&head, &rows));
        if self.interface_changes.is_empty() {
            text += "\n`ip addr` and `ip -d link` of every node: the same before and after each step\n";
        } else {
            text += "\n`ip addr` or `ip -d link` CHANGED:\n";
            for change in &self.interface_changes {
                text += &format!("  {change}\n");
            }
        }
        text
    }
}

/// Columns as wide as their widest cell; the first three to the left, numbers to the right.
fn aligned(head: &[&str; 7], rows: &[[String; 7]]) -> String {
    const NAMES: usize = 3;
    let mut text = String::new();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].len()).chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let heads = head.map(str::to_owned);
    for row in std::iter::once(&heads).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < NAMES { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn tenths(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::time::Duration;

    use super::super::steps::Step;
    use crate::lab::capture::FrameKind;
    use crate::lab::probe::Answer;

    const NODES: [&str; 2] = ["db-a", "db-b"];

    /// One step of 10 ms: a probe each ms, answered by the node at its place.
    fn run(answers: [Option<usize>; 10], senders: [usize; 3], lost: Option<u64>, fail: bool) -> Report {
        let at = |ms: u64| BootNs(1_000_000_000).plus(Duration::from_millis(ms));
        let probes: Vec<Probe> = answers
            .iter()
            .zip(0..)
            .map(|(node, ms)| Probe {
                sent: at(ms),
                answer: node.map(|node| Answer { at: at(ms), by: Arc::from(NODES[node]) }),
            })
            .collect();
        let frames: Vec<Frame> = senders
            .iter()
            .zip([0, 5, 6])
            .map(|(node, ms)| Frame { at: at(ms), from: NodeIndex(*node), kind: FrameKind::Arp })
            .collect();
        let record = StepRecord {
            step: Step::Cut,
            what: "cut off".to_owned(),
            start: at(0),
            end: at(10),
            holder_before: "db-a".to_owned(),
            failure: fail.then(|| "an agent ended".to_owned()),
            interface_changes: Vec::new(),
        };
        Report::new(&NODES, &[record], &probes, &frames, &TcpHistory::default(), lost.as_ref())
    }

    const A: Option<usize> = Some(0);
    const B: Option<usize> = Some(1);
    const MOVED: [Option<usize>; 10] = [A, A, None, None, None, B, B, B, B, B];

    #[test]
    fn a_clean_move_is_good() {
        let report = run(MOVED, [0, 1, 1], Some(0), false);
        assert_eq!(report.complaints(), Vec::<String>::new());
        let step = &report.steps[0];
        assert_eq!((step.holder_after.as_deref(), step.gap_ms), (Some("db-b"), 4.0));
        assert_eq!((step.probes_sent, step.probes_lost, step.answered_by_two), (10, 3, 0));
        assert!(report.timeline().contains("first frame with the VIP as source from db-b"));
        assert!(report.table().contains("the same before and after"));
    }

    #[test]
    fn every_flaw_makes_the_run_a_bad_one() {
        let cases = [
            (run(MOVED, [0, 1, 0], Some(0), false), "answered by two"),
            (run([None; 10], [0, 1, 1], Some(0), false), "without a holder"),
            (run(MOVED, [0, 1, 1], Some(3), false), "capture lost"),
            (run(MOVED, [0, 1, 1], None, false), "capture lost"),
            (run(MOVED, [0, 1, 1], Some(0), true), "an agent ended"),
        ];
        for (report, expected) in cases {
            let complaints = report.complaints();
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].contains(expected), "{complaints:?}");
        }
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let step = StepReport {
            name: "cut",
            holder_before: Some("db-a".to_owned()),
            holder_after: None,
            gap_ms: 12.3,
            probes_sent: 5,
            probes_lost: 2,
            answered_by_two: 0,
        };
        let json = serde_json::to_value(Steps { steps: &[step] }).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"steps": [{"name": "cut", "holder_before": "db-a", "holder_after": null,
                "gap_ms": 12.3, "probes_sent": 5, "probes_lost": 2, "answered_by_two": 0}]})
        );
    }

    #[test]
    fn columns_are_aligned() {
        let head = ["step", "b", "c", "d", "e", "f", "g"];
        let row = ["switchover", "x", "y", "1", "22", "3", "4"].map(str::to_owned);
        let text = aligned(&head, &[row]);
        assert_eq!(text, "step        b  c  d   e  f  g\nswitchover  x  y  1  22  3  4\n");
    }
}
