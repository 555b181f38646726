//! What the dashboard knows and what a person is doing with it. No clock of
//! its own, no terminal.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::rates::Rates;
use crate::{
    events::Event,
    report::{GroupStatus, Status},
};

/// Events that it keeps; no terminal is higher.
const EVENTS_KEPT: usize = 200;

/// What a look at the node has shown.
#[derive(Debug)]
pub(super) enum Seen {
    /// The agent's status.
    Agent(Status),
    /// No agent answers, and why; the status from the maps alone.
    Maps(Status, String),
    /// Neither answers, and why.
    Nothing(String),
}

/// A change that waits for a person's confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Move a group.
    Switchover {
        /// The group.
        group: String,
        /// To which node; the holder chooses if left out.
        to: Option<String>,
    },
    /// Pause the cluster, or let it go on.
    Pause {
        /// True to pause.
        on: bool,
    },
}

/// What the person is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Doing {
    /// Looking.
    #[default]
    Watch,
    /// Choosing where a group shall go.
    Choose {
        /// The group.
        group: String,
        /// The nodes that could take it; `None` lets the holder choose.
        targets: Vec<Option<String>>,
        /// Which one is marked.
        marked: usize,
    },
    /// Asked whether to go ahead.
    Confirm(Action),
}

/// Everything that the dashboard shows.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    /// The last status.
    pub(super) status: Option<Status>,
    /// When it was read.
    pub(super) read: Option<Instant>,
    /// Why there is no newer one, or none of the agent's.
    pub(super) trouble: Option<String>,
    /// Rates per VIP.
    pub(super) rates: Rates,
    /// The group that is marked, by its place.
    pub(super) marked: usize,
    /// What the person is doing.
    pub(super) doing: Doing,
    /// The request to the agent that has not ended.
    pub(super) waiting: Option<String>,
    /// The result of the last command: did it succeed, and a sentence.
    pub(super) outcome: Option<(bool, String)>,
    /// The last events, a line each, oldest first.
    pub(super) events: VecDeque<String>,
    /// The longest remaining lease of each group so far, in milliseconds: a full
    /// bar.
    full: BTreeMap<String, u64>,
}

impl Monitor {
    /// Takes note of what was seen at `now`.
    pub(super) fn see(&mut self, seen: Seen, now: Instant) {
        let status = match seen {
            Seen::Agent(status) => {
                self.trouble = None;
                status
            }
            Seen::Maps(status, why) => {
                self.trouble =
                    Some(format!("{why}; this is the status from the maps alone, and monitor tries again"));
                status
            }
            Seen::Nothing(why) => {
                let old = if self.status.is_some() { "; what is shown is old" } else { "" };
                self.trouble = Some(format!("{why}{old}; monitor tries again"));
                return;
            }
        };
        self.rates.note(&status, now);
        for group in &status.groups {
            if let Some(ms) = group.lease_remaining_ms {
                let full = self.full.entry(group.name.clone()).or_insert(ms);
                *full = ms.max(*full);
            }
        }
        self.marked = self.marked.min(status.groups.len().saturating_sub(1));
        self.status = Some(status);
        self.read = Some(now);
    }

    /// Takes note of an event.
    pub(super) fn happened(&mut self, event: &Event) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        // The time of day in `2026-11-22T09:05:05.123Z`.
        let time = event.time.to_string();
        let time = time.get(11..19).unwrap_or_default();
        let group = event.group.as_deref().map(|group| format!("{group}: ")).unwrap_or_default();
        self.events.push_back(format!("{time} {group}{}", event.message));
    }

    /// Takes note of a command's result.
    pub(super) fn done(&mut self, outcome: Result<String, String>) {
        self.waiting = None;
        self.outcome = Some(match outcome {
            Ok(done) => (true, done),
            Err(why) => (false, why),
        });
    }

    /// The group that is marked.
    pub(super) fn group(&self) -> Option<&GroupStatus> {
        self.status.as_ref()?.groups.get(self.marked)
    }

    /// What is left of this node's lease at `now`, and how much a full one has,
    /// in milliseconds; `None` if the node holds none or that is not known.
    pub(super) fn lease(&self, group: &GroupStatus, now: Instant) -> Option<(u64, u64)> {
        let age = now.saturating_duration_since(self.read?).as_millis();
        let left = group.lease_remaining_ms?.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        Some((left, self.full.get(&group.name).copied().unwrap_or(left).max(1)))
    }

    /// The nodes that a group could go to, the holder's own choice first.
    pub(super) fn targets(&self, group: &GroupStatus) -> Vec<Option<String>> {
        let Some(status) = &self.status else { return Vec::new() };
        let others = status.nodes.iter().filter(|node| {
            node.role == "node" && node.heard && !node.standby && group.holder.as_ref() != Some(&node.name)
        });
        std::iter::once(None).chain(others.map(|node| Some(node.name.clone()))).collect()
    }
}
