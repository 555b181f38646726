//! The order in which the keeper handles its notices: many at a time, then
//! everything that they ask for together, and last what can take long.

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tracing::{error, warn};
use vip_common::BootNs;
use vip_lease::LeaseNotice;

use super::{Keeper, record_writer::Writer};
use crate::{
    agent::{
        heartbeat,
        messages::{Notice, Tell},
    },
    clock,
    engine::Epoch,
    host::Watched,
    mutant::{self, Mutant},
    records::memory::Memory,
};

/// How long a change of the memory may wait, to be written together with others:
/// ten thousand groups can move at once.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);
/// How many notices to take before doing what they ask for.
const BATCH: usize = 1024;
/// How long a repair may wait for more removals: each repair checks everything.
const REPAIR_WAIT: Duration = Duration::from_secs(1);
/// How often to look whether interfaces let in the virtual MACs.
const LET_IN_PAUSE: Duration = Duration::from_secs(1);
/// How often the watchdog hears of a keeper that has nothing to do.
const BEAT: Duration = Duration::from_millis(250);

/// Work that waits for its time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// When to write the memory.
    write: Option<BootNs>,
    /// Since when something may need a repair.
    disturbed: Option<BootNs>,
}

impl Due {
    /// Is it time for a repair? `is_drained`: no notice waits.
    fn repair(&self, is_drained: bool, now: BootNs) -> bool {
        self.disturbed.is_some_and(|since| {
            is_drained || (now.since(since) >= REPAIR_WAIT && !mutant::is(Mutant::RepairsLate))
        })
    }

    /// Is it time to write the memory?
    fn write(&self, now: BootNs) -> bool {
        self.write.is_some_and(|at| at <= now)
    }

    /// How long the keeper has nothing to do.
    fn pause(&self, now: BootNs) -> Duration {
        self.write.filter(|_| !mutant::is(Mutant::WritesLate)).map_or(BEAT, |at| at.since(now).min(BEAT))
    }
}

/// The keeper at work.
pub(super) struct KeeperLoop<T> {
    keeper: Keeper<T>,
    due: Due,
    /// When it last looked whether interfaces still let in the virtual MACs.
    let_in: BootNs,
    /// `None` if the thread could not be started: then the keeper writes itself.
    writer: Option<Writer>,
}

impl<T: Tell + Clone + Send + 'static> KeeperLoop<T> {
    pub(super) fn new(mut keeper: Keeper<T>) -> Self {
        if let Some(node) = &mut keeper.node {
            node.host.beat_with(heartbeat::keeper_beat);
        }
        let lease_loop = keeper.lease_loop.clone();
        let stored = move |memory: &Memory| {
            // A loop that has ended accepts nothing.
            let _ = lease_loop.ceiling(Epoch(memory.ceiling));
        };
        let writer = Writer::start(keeper.paths.state_dir.clone(), stored);
        let writer = writer.inspect_err(|e| warn!("no thread to write this node's memory: {e}")).ok();
        Self { keeper, due: Due::default(), let_in: BootNs(0), writer }
    }

    /// Runs until the channel closes.
    pub(super) fn run(mut self, notices: &Receiver<Notice>) {
        while self.turn(notices).is_continue() {}
        // The loop has ended, and all of its notices were handled.
        self.keeper.memory.end();
        self.write();
    }

    fn turn(&mut self, notices: &Receiver<Notice>) -> ControlFlow<()> {
        heartbeat::keeper_beat();
        let mut is_drained = false;
        match notices.recv_timeout(self.due.pause(clock::now())) {
            Ok(notice) => {
                self.take(notice);
                for _ in 1..BATCH {
                    let Ok(notice) = notices.try_recv() else {
                        is_drained = true;
                        break;
                    };
                    self.take(notice);
                }
            }
            Err(RecvTimeoutError::Timeout) => is_drained = true,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        }
        self.keeper.settle();
        // During a reload, a repair would bring back what has to go.
        if self.keeper.under_way.is_none() && self.due.repair(is_drained, clock::now()) {
            self.due.disturbed = None;
            self.keeper.repair();
        }
        self.let_in(clock::now());
        if self.due.write(clock::now()) {
            self.write();
        }
        ControlFlow::Continue(())
    }

    /// Looks once a second whether somebody has taken off what lets in a virtual MAC.
    fn let_in(&mut self, now: BootNs) {
        if now.since(self.let_in) >= LET_IN_PAUSE && self.keeper.under_way.is_none() {
            self.let_in = now;
            self.keeper.let_in();
        }
    }

    fn take(&mut self, notice: Notice) {
        heartbeat::keeper_beat();
        let now = clock::now();
        if let Notice::Lease(notice) = &notice
            && self.keeper.remember(notice)
        {
            // Votes wait for a ceiling.
            let is_urgent = matches!(notice, LeaseNotice::RaiseCeiling(_));
            let at = if is_urgent { now } else { now.plus(MEMORY_PAUSE) };
            self.due.write = Some(self.due.write.map_or(at, |due| due.min(at)));
        }
        if let Notice::Watched(watched) = &notice
            && self.disturbs(watched)
        {
            self.due.disturbed.get_or_insert(now);
        }
        self.keeper.notice(notice);
    }

    /// May this node lack something on its host now?
    fn disturbs(&self, watched: &Watched) -> bool {
        match watched {
            Watched::Disturbed | Watched::Missed => true,
            Watched::RouteGone(vip) => {
                self.keeper.node.as_ref().is_some_and(|node| node.host.needs_route(*vip))
            }
            // An interface that goes down takes its routes with it, and the kernel does
            // not say which.
            Watched::Link(link) => link.up && self.keeper.setup.interfaces.contains(&link.name),
            Watched::Gone(_) | Watched::Neighbour => false,
        }
    }

    fn write(&mut self) {
        self.due.write = None;
        let keeper = &self.keeper;
        if let Some(writer) = &self.writer {
            writer.write(&keeper.memory);
        } else {
            match keeper.memory.store(&keeper.paths.state_dir) {
                Ok(()) => {
                    // A loop that has ended accepts nothing.
                    let _ = keeper.lease_loop.ceiling(Epoch(keeper.memory.ceiling));
                }
                Err(e) => error!("this node's memory could not be written: {e}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootNs = BootNs(1_000_000_000);

    #[test]
    fn a_repair_waits_for_the_last_of_a_burst_but_not_for_ever() {
        let due = Due { disturbed: Some(START), ..Due::default() };
        assert!(due.repair(true, START));
        assert!(!due.repair(false, START.plus(REPAIR_WAIT / 2)));
        assert!(due.repair(false, START.plus(REPAIR_WAIT)));
        assert!(!Due::default().repair(true, START), "nothing was disturbed");
    }

    #[test]
    fn a_keeper_with_nothing_to_do_still_beats_and_writes_in_time() {
        let idle = Due::default();
        assert!(idle.pause(START) <= BEAT && !idle.write(START));
        let due = Due { write: Some(START.plus(MEMORY_PAUSE)), ..Due::default() };
        assert_eq!(due.pause(START), MEMORY_PAUSE);
        assert!(!due.write(START) && due.write(START.plus(MEMORY_PAUSE)));
    }
}
