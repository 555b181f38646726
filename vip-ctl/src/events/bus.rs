//! Where the agent publishes events: the bus keeps the last ones, passes each new
//! one to followers, gives the history its part, and counts for the metrics.
//! Publishing never waits: a slow reader loses events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};
use vip_lease::histogram::{Bounds, Buckets, Histogram};

use super::{Event, Kind, Timestamp};

/// Events that an agent keeps, and that a follower may lag behind.
pub const EVENTS_KEPT: usize = 1000;

/// Upper bounds of the buckets of gaps, in milliseconds; longer ones are in no
/// bucket.
pub const GAP_BOUNDS_MS: Bounds = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// Counters of events, for the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Tally {
    /// Changes of state or holder, by group and reason.
    pub transitions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Hooks that failed, by group and hook.
    pub hook_failures: BTreeMap<String, BTreeMap<String, u64>>,
    /// Measured gaps by bucket, not cumulative; one more than
    /// [`GAP_BOUNDS_MS`] for the rest.
    #[schema(value_type = Vec<u64>)]
    pub gaps: Buckets,
    /// The sum of all gaps, in milliseconds.
    pub gaps_sum_ms: u64,
    /// Records that the history did not get because its disk was too slow.
    pub history_lost: u64,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of gaps stay far below 2^52")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Tally {
    /// The measured gaps, for the metrics.
    #[must_use]
    pub fn gaps(&self) -> Histogram {
        Histogram { bounds: GAP_BOUNDS_MS.map(seconds), buckets: self.gaps, sum: seconds(self.gaps_sum_ms) }
    }

    fn note(&mut self, event: &Event) {
        let group = || event.group.clone().unwrap_or_default();
        if let Kind::Changed(change) = &event.kind {
            *self.transitions.entry(group()).or_default().entry(change.reason.clone()).or_default() += 1;
            if let Some(gap) = change.gap_ms {
                self.gaps.note(gap, &GAP_BOUNDS_MS);
                self.gaps_sum_ms = self.gaps_sum_ms.saturating_add(gap);
            }
        } else if let Kind::Hook(run) = &event.kind
            && run.outcome.is_failure()
        {
            let of_group = self.hook_failures.entry(group()).or_default();
            *of_group.entry(run.hook.name().to_owned()).or_default() += 1;
        }
    }
}

/// The state that all handles share.
#[derive(Debug)]
struct Shared {
    node: String,
    /// A random number of this run: the numbers of events begin anew with each
    /// run.
    run: u64,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Event>>,
    history: Option<SyncSender<Arc<Event>>>,
    history_lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    events: VecDeque<Arc<Event>>,
    tally: Tally,
}

/// A handle to the agent's events, cheap to clone. Not for the lease thread:
/// publishing takes a lock.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

impl Events {
    /// A bus for the events of the node `node`; `history` gets its part.
    #[must_use]
    pub fn new(node: &str, history: Option<SyncSender<Arc<Event>>>) -> Self {
        Self(Arc::new(Shared {
            node: node.to_owned(),
            run: fastrand::u64(..),
            kept: Mutex::default(),
            live: broadcast::Sender::new(EVENTS_KEPT),
            history,
            history_lost: AtomicU64::new(0),
        }))
    }

    /// A random number that tells this run of the agent from others.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.0.run
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an event.
    pub fn publish(&self, group: Option<&str>, kind: Kind, message: impl Into<String>) -> Arc<Event> {
        let mut kept = self.kept();
        kept.next += 1;
        let event = Arc::new(Event {
            seq: kept.next,
            time: Timestamp::now(),
            node: self.0.node.clone(),
            group: group.map(str::to_owned),
            message: message.into(),
            kind,
        });
        kept.tally.note(&event);
        if kept.events.len() == EVENTS_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&event));
        // Under the lock, so that all see the same order. There may be no follower.
        let _ = self.0.live.send(Arc::clone(&event));
        if let Some(history) = self.0.history.as_ref().filter(|_| event.kind.is_history())
            && let Err(TrySendError::Full(_)) = history.try_send(Arc::clone(&event))
        {
            self.0.history_lost.fetch_add(1, Ordering::Relaxed);
        }
        event
    }

    /// The events that are kept, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<Event>> {
        self.kept().events.iter().cloned().collect()
    }

    /// The events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { node: self.0.node.clone(), receiver: self.0.live.subscribe() }
    }

    /// The events that are kept, and those after them, without a gap or a
    /// repetition.
    #[must_use]
    pub fn recent_and_subscribe(&self) -> (Vec<Arc<Event>>, Subscription) {
        let kept = self.kept();
        (kept.events.iter().cloned().collect(), self.subscribe())
    }

    /// The counters so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let tally = self.kept().tally.clone();
        Tally { history_lost: self.0.history_lost.load(Ordering::Relaxed), ..tally }
    }
}

/// Events as they come.
#[derive(Debug)]
pub struct Subscription {
    node: String,
    receiver: broadcast::Receiver<Arc<Event>>,
}

impl Subscription {
    /// The next event. It is a [`Kind::Missed`] if this follower was too slow and
    /// lost some, and `None` when the agent ends.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(events)) => Some(Arc::new(Event {
                seq: 0,
                time: Timestamp::now(),
                node: self.node.clone(),
                group: None,
                message: format!("{events} events were dropped: this follower was too slow"),
                kind: Kind::Missed { events },
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::events::{Change, Hook, HookOutcome, HookRun};

    fn changed(gap_ms: Option<u64>) -> Kind {
        Kind::Changed(Change { to: "active".into(), reason: "elected".into(), gap_ms, ..Change::default() })
    }

    fn late(by_ms: u64) -> Kind {
        Kind::Late { by_ms, margin_ms: 120 }
    }

    #[test]
    fn the_last_events_are_kept_in_order() {
        let events = Events::new("db-a", None);
        for by in 0..1_500 {
            events.publish(None, late(by), "");
        }
        let seqs: Vec<_> = events.recent().iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (501..=1_500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_slow_follower_loses_the_oldest_and_is_told_so() {
        let events = Events::new("db-a", None);
        let (recent, mut follower) = events.recent_and_subscribe();
        assert!(recent.is_empty());
        for by in 0..1_500 {
            events.publish(None, late(by), "");
        }
        // The channel rounds its capacity up to a power of two.
        let Kind::Missed { events: missed } = follower.next().await.unwrap().kind else { panic!() };
        assert!((1..=500).contains(&missed), "{missed}");
        assert_eq!(follower.next().await.unwrap().seq, missed + 1);
        drop(events);
        for _ in missed + 1..1_500 {
            follower.next().await.unwrap();
        }
        assert_eq!(follower.next().await, None);
    }

    #[test]
    fn a_history_that_does_not_keep_up_costs_only_its_records() {
        let (sender, history) = sync_channel(1);
        let events = Events::new("db-a", Some(sender));
        events.publish(None, late(1), "not for the history");
        for _ in 0..3 {
            events.publish(Some("db"), changed(None), "");
        }
        assert_eq!(events.tally().history_lost, 2);
        assert_eq!(history.try_recv().unwrap().seq, 2);
        assert_eq!(events.recent().len(), 4);
    }

    #[test]
    fn changes_gaps_and_failed_hooks_are_counted() {
        let events = Events::new("db-a", None);
        for gap in [None, Some(1), Some(3), Some(60_000)] {
            events.publish(Some("db"), changed(gap), "");
        }
        for outcome in [HookOutcome::Done, HookOutcome::Failed, HookOutcome::TimedOut, HookOutcome::Cancelled]
        {
            let run = HookRun {
                hook: Hook::PrePromote,
                outcome,
                exit: None,
                duration_ms: 1,
                output: Vec::new(),
                epoch: 1,
            };
            events.publish(Some("db"), Kind::Hook(run), "");
        }
        let tally = events.tally();
        assert_eq!(tally.transitions["db"]["elected"], 4);
        assert_eq!(tally.hook_failures["db"]["pre_promote"], 2);
        assert_eq!((tally.gaps.0[0], tally.gaps.0[2], tally.gaps.0[12]), (1, 1, 1));
        assert_eq!(tally.gaps_sum_ms, 60_004);
    }
}
