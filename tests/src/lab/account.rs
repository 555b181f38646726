//! From probes and captured frames to figures for one span of time. Pure: it
//! reads no clock and asks nobody. What figure is good enough is not said here.

use std::ops::Range;

use vip_common::BootNs;

use super::capture::{Frame, Verdict, judge};
use super::probe::Probe;
use super::{NodeIndex, clock};

/// Probes at the end of a span of which at least one must be answered for the
/// span to end with a holder.
const TAIL: usize = 200;

/// What happened between two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Who answered last, if anybody did near the end.
    pub holder_after: Option<String>,
    /// The longest time without an answered probe; none if no probe was lost.
    pub gap: Option<Gap>,
    /// Probes sent.
    pub probes_sent: usize,
    /// Those of them that were not answered in time.
    pub probes_lost: usize,
    /// What the capture says.
    pub verdict: Verdict,
}

impl Account {
    /// Accounts for `start..end`, both lists being in the order of time.
    #[must_use]
    pub fn new(
        probes: &[Probe],
        frames: &[Frame],
        start: BootNs,
        end: BootNs,
        holder_before: Option<NodeIndex>,
    ) -> Self {
        let within = span(probes, start, end, |probe| probe.sent);
        let captured = span(frames, start, end, |frame| frame.at);
        let mine = &probes[within.clone()];
        let tail = &mine[mine.len().saturating_sub(TAIL)..];
        Self {
            holder_after: tail.iter().rev().find_map(|p| p.answered()).map(|answer| answer.by.to_string()),
            gap: longest_gap(probes, within, end),
            probes_sent: mine.len(),
            probes_lost: mine.iter().filter(|probe| probe.answered().is_none()).count(),
            verdict: judge(&frames[captured], holder_before),
        }
    }

    /// The gap in milliseconds, 0 if no probe was lost.
    #[must_use]
    pub fn gap_ms(&self) -> f64 {
        self.gap.map_or(0.0, Gap::millis)
    }
}

/// The indices of those entries of a sorted list that lie in a span of time.
fn span<T>(list: &[T], start: BootNs, end: BootNs, at: impl Fn(&T) -> BootNs) -> Range<usize> {
    let first = list.partition_point(|entry| at(entry) < start);
    let last = list.partition_point(|entry| at(entry) < end);
    first..last.max(first)
}

/// A time in which no probe was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last answered probe before it was sent.
    pub from: BootNs,
    /// When the first answered probe after it was sent.
    pub to: BootNs,
}

impl Gap {
    /// Its length in milliseconds.
    #[must_use]
    pub fn millis(self) -> f64 {
        clock::millis(self.to.since(self.from))
    }
}

/// The longest time without an answered probe in a step: from the sending of
/// the last answered one before to the sending of the first answered one
/// after. `None` if no probe was lost.
///
/// A run of lost probes that reaches over the step's beginning or end counts
/// from or up to there; the neighbouring step has its own share.
fn longest_gap(probes: &[Probe], within: Range<usize>, end: BootNs) -> Option<Gap> {
    let lost = |index: usize| probes[index].answered().is_none();
    let mut longest: Option<Gap> = None;
    let mut index = within.start;
    while index < within.end {
        if !lost(index) {
            index += 1;
            continue;
        }
        let from = match index.checked_sub(1) {
            Some(before) if !lost(before) => probes[before].sent,
            Some(_) | None => probes[index].sent,
        };
        while index < within.end && lost(index) {
            index += 1;
        }
        let to = match probes.get(index) {
            Some(after) if after.answered().is_some() => after.sent,
            Some(_) | None => end,
        };
        let gap = Gap { from, to };
        if longest.is_none_or(|other| gap.millis() > other.millis()) {
            longest = Some(gap);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lab::capture::FrameKind;
    use crate::lab::probe::Answer;

    /// One probe a millisecond from t = 0 on; `.` was lost, a letter answered.
    fn probes(pattern: &str) -> Vec<Probe> {
        let answer = |sent: BootNs, by: char| Answer {
            at: sent.plus(Duration::from_micros(200)),
            by: Arc::from(by.to_string()),
        };
        pattern
            .chars()
            .zip(0_u64..)
            .map(|(c, ms)| {
                let sent = BootNs(ms * 1_000_000);
                Probe { sent, answer: (c != '.').then(|| answer(sent, c)) }
            })
            .collect()
    }

    fn gap_ms(pattern: &str, within: Range<usize>) -> Option<f64> {
        let end = BootNs(within.end as u64 * 1_000_000);
        longest_gap(&probes(pattern), within, end).map(Gap::millis)
    }

    #[test]
    fn no_lost_probe_is_no_gap() {
        assert_eq!(gap_ms("aaaa", 0..4), None);
    }

    #[test]
    fn a_gap_reaches_from_answered_to_answered() {
        assert_eq!(gap_ms("aa...bb", 0..7), Some(4.0));
        assert_eq!(gap_ms("a.a...b.b", 0..9), Some(4.0));
        // The last answered probe and the next one may lie in the steps beside.
        assert_eq!(gap_ms("aa...bb", 2..5), Some(4.0));
    }

    #[test]
    fn an_outage_over_a_boundary_is_shared_out() {
        assert_eq!(gap_ms("aa....", 0..6), Some(5.0));
        assert_eq!(gap_ms("aa......bb", 0..5), Some(4.0));
        assert_eq!(gap_ms("aa......bb", 5..10), Some(3.0));
        assert_eq!(gap_ms("......", 0..6), Some(6.0));
    }

    #[test]
    fn spans_are_half_open() {
        let list = probes("aaaaa");
        let at = |ms: u64| BootNs(ms * 1_000_000);
        assert_eq!(span(&list, at(1), at(3), |p| p.sent), 1..3);
        assert_eq!(span(&list, at(9), at(12), |p| p.sent), 5..5);
    }

    #[test]
    fn an_account_counts_its_own_span_only() {
        let list = probes("aaa..bbbb...");
        let frame =
            |ms: u64, node| Frame { at: BootNs(ms * 1_000_000), from: NodeIndex(node), kind: FrameKind::Ip };
        let frames = [frame(0, 1), frame(2, 0), frame(5, 1), frame(6, 0), frame(9, 0)];
        let at = |ms: u64| BootNs(ms * 1_000_000);
        let account = Account::new(&list, &frames, at(1), at(9), Some(NodeIndex(0)));
        assert_eq!(account.holder_after.as_deref(), Some("b"));
        assert_eq!((account.probes_sent, account.probes_lost), (8, 2));
        assert_eq!(account.gap_ms(), 3.0);
        assert_eq!(account.verdict.new_holder, Some(NodeIndex(1)));
        assert_eq!(account.verdict.answered_by_two, 1);
    }
}
