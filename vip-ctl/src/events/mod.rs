//! What happens on a node, for people: the event type that `vip-ctl events`, the
//! history file and webhooks share, and the bus on which the agent's threads
//! publish. Nothing here decides anything. The lease thread never publishes: it
//! tells the keeper, and the keeper does.

mod bus;
pub mod history;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::bus::{EVENTS_KEPT, Events, GAP_BOUNDS_MS, Subscription, Tally};
pub use vip_lease::Hook;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in this run of the agent, from 1, rising by one.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// The node that reports it.
    pub node: String,
    /// The group that it is about; null if it is about a node.
    pub group: Option<String>,
    /// What happened, in one sentence.
    pub message: String,
    /// What happened, for programs: a `kind` and what belongs to it.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// A group's state on this node, or its holder, has changed.
    Changed(Change),
    /// A hook has ended.
    Hook(HookRun),
    /// This node hears a peer for the first time, or again after a restart.
    Connected {
        /// The peer.
        peer: String,
        /// Was it connected before?
        restarted: bool,
    },
    /// This node rejected a datagram in a peer's name; reported at most once a
    /// second and peer.
    Rejected {
        /// The peer that the datagram names; null for a stranger.
        peer: Option<String>,
        /// The reason, as in the metric `vip_heartbeats_rejected_total`.
        reason: String,
    },
    /// Another machine claims a VIP that this node holds (a conflict).
    Claim {
        /// The VIP.
        vip: String,
        /// The machine's MAC address.
        mac: String,
    },
    /// This node hears nobody answer for a VIP of a group that it does not hold, or hears
    /// somebody again.
    Silent {
        /// The VIP; null once somebody answers, or the group is here.
        vip: Option<String>,
    },
    /// A renewal began late.
    Late {
        /// How late, in milliseconds.
        by_ms: u64,
        /// How late a renewal may begin before the lease runs out, in milliseconds.
        margin_ms: u64,
    },
    /// This node has become able, or unable, to serve.
    Eligible {
        /// Can it serve?
        eligible: bool,
        /// What keeps it from serving; null if nothing does.
        because: Option<String>,
    },
    /// A health check has changed its verdict.
    Check {
        /// The check's name.
        check: String,
        /// Does it pass?
        ok: bool,
        /// Its last error; null if it passes.
        error: Option<String>,
    },
    /// Standby of this node, or the cluster's pause, has changed.
    Mode {
        /// Is this node on standby?
        standby: bool,
        /// Are automatic moves switched off in the cluster?
        paused: bool,
    },
    /// This follower was too slow, and has lost the events before this one.
    Missed {
        /// How many.
        events: u64,
    },
}

impl Kind {
    /// The word that `kind` has in JSON.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Changed(_) => "changed",
            Self::Hook(_) => "hook",
            Self::Connected { .. } => "connected",
            Self::Rejected { .. } => "rejected",
            Self::Claim { .. } => "claim",
            Self::Silent { .. } => "silent",
            Self::Late { .. } => "late",
            Self::Eligible { .. } => "eligible",
            Self::Check { .. } => "check",
            Self::Mode { .. } => "mode",
            Self::Missed { .. } => "missed",
        }
    }

    /// Is it part of the history?
    #[must_use]
    pub const fn is_history(&self) -> bool {
        match self {
            Self::Changed(_) | Self::Hook(_) => true,
            Self::Connected { .. }
            | Self::Rejected { .. }
            | Self::Claim { .. }
            | Self::Silent { .. }
            | Self::Late { .. }
            | Self::Eligible { .. }
            | Self::Check { .. }
            | Self::Mode { .. }
            | Self::Missed { .. } => false,
        }
    }
}

/// A change of a group's state on a node, or of its holder: the engine's
/// `Transition` with names instead of numbers, and what was before. It is the
/// public format of events and of the history, so it is a type of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// This node's state before; null at the first one after a start.
    pub from: Option<String>,
    /// This node's state now: those of `status`, `promoting` among them.
    pub to: String,
    /// Who held it before, as far as this node knew.
    pub holder_before: Option<String>,
    /// Who holds it now, as far as this node knows.
    pub holder: Option<String>,
    /// The number of the grant.
    pub epoch: u64,
    /// What brought it about: `elected`, `expired`, `handed_over` and so on.
    pub reason: String,
    /// The command that a person gave at this node, if that caused the change.
    pub command: Option<String>,
    /// On the node that took over: the time from the end of the former lease, as
    /// far as this node knew of it (released, or run out at this node's own
    /// acceptor), to this node's write into the map, in milliseconds rounded up.
    /// Clients of a dead holder see a longer gap, by the rest of its lease. Null
    /// if no group was taken over, or if the end is not known.
    pub gap_ms: Option<u64>,
}

/// How a hook has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOutcome {
    /// With exit code 0.
    Done,
    /// With another exit code, or by a signal that was not ours.
    Failed,
    /// Killed at its time limit.
    TimedOut,
    /// Killed because the lease that it ran for is lost.
    Cancelled,
    /// It could not be started.
    NotStarted,
}

impl HookOutcome {
    /// Is it anything but success?
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Done | Self::Cancelled => false,
            Self::Failed | Self::TimedOut | Self::NotStarted => true,
        }
    }
}

/// One run of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    /// Which.
    pub hook: Hook,
    /// How it ended.
    pub outcome: HookOutcome,
    /// Its exit code; null if it did not exit by itself.
    pub exit: Option<i32>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The first lines that it printed, on either stream.
    pub output: Vec<String>,
    /// The grant that it ran for.
    pub epoch: u64,
}

/// A moment of the wall clock, RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Timestamp {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    /// The time since this moment; zero if it is in the future.
    #[must_use]
    pub fn age(self) -> Duration {
        SystemTime::now().duration_since(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.0).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// An event as a person reads it, without a line's end.
#[must_use]
pub fn text(event: &Event) -> String {
    let group = event.group.as_deref().map(|group| format!(" {group}:")).unwrap_or_default();
    format!("{} {:<9}{group} {}", event.time, event.kind.label(), event.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_that_reads_back() {
        let event = Event {
            seq: 7,
            time: Timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_802_305_123)),
            node: "db-b".into(),
            group: Some("db".into()),
            message: "standby -> active".into(),
            kind: Kind::Changed(Change {
                from: Some("standby".into()),
                to: "active".into(),
                holder: Some("db-b".into()),
                epoch: 4,
                reason: "elected".into(),
                gap_ms: Some(3),
                ..Change::default()
            }),
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], "changed");
        assert_eq!(json["time"], "2025-11-22T09:05:05.123Z");
        assert_eq!(json["to"], "active");
        assert_eq!(json["gap_ms"], 3);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        assert_eq!(text(&event), "2025-11-22T09:05:05.123Z changed   db: standby -> active");
    }

    #[test]
    fn a_hook_has_one_name_everywhere() {
        for hook in Hook::ALL {
            assert_eq!(serde_json::to_value(hook).unwrap(), hook.name());
        }
    }
}
