//! What other threads ask of the loop, done on the loop's own thread.

use super::{Ask, Counts, Regroup, Running, Snapshot, mail::make_room};
use crate::{
    agent::{Notice, announcer::Announce},
    dataplane::clock,
    engine::{Input, Refusal},
    mutant::{self, Mutant},
    transport::Rejected,
};

impl Running {
    /// Does what another thread asks.
    pub(super) fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Command(_, table, reply)
                if table != self.inner.labels.table() && !mutant::is(Mutant::OtherTable) =>
            {
                // Whoever asked may have gone away.
                let _ = reply.send(Err(Refusal::Busy));
            }
            Ask::Regroup(regroup) => self.regroup(*regroup),
            Ask::Announce(label) => {
                let now = clock::now();
                if let Some(group) = self.inner.labels.find(label)
                    && self.inner.gates.until(group).is_some_and(|until| until > now)
                {
                    self.announce(group, Announce::Takeover);
                }
            }
            Ask::Command(command, _, reply) => self.command(command, reply),
            Ask::Status(reply) => {
                let now = clock::now();
                let rejected = |reason: &Rejected| {
                    let count = self.inner.transport.counters().rejected(*reason);
                    (count > 0).then_some((reason.label(), count))
                };
                let mut rejected: Vec<_> = Rejected::ALL.iter().filter_map(rejected).collect();
                rejected.extend((self.counts.undecoded > 0).then_some(("undecoded", self.counts.undecoded)));
                let dropped = self.dropped();
                let snapshot = Snapshot {
                    table: self.inner.labels.table(),
                    differing: self.inner.labels.differing(),
                    engine: self.inner.engine.status(now),
                    now,
                    counts: Counts { dropped, ..self.counts },
                    rejected,
                    lateness: self.lateness.clone(),
                    promoting: self.inner.gates.promoting(),
                    barred: self.inner.gates.barred().clone(),
                };
                // Whoever asked may have gone away.
                let _ = reply.send(snapshot);
            }
            Ask::Ceiling(ceiling) => self.input(Input::Ceiling { ceiling }),
            Ask::Eligible(groups) => {
                for (group, word) in groups {
                    self.eligible(group, word);
                }
            }
            Ask::HookEnded(hook, ticket, well) => self.hook_ended(hook, ticket, well),
            Ask::Stop if mutant::is(Mutant::StopsAtOnce) => self.stopped = true,
            Ask::Stop => self.stop(),
            Ask::Leave => self.stopped = true,
        }
    }

    /// Leases of groups that end are given up before anything else changes.
    fn regroup(&mut self, regroup: Regroup) {
        let Regroup { ended, groups, labels, table, index, uncovered, rules } = regroup;
        for group in ended.into_iter().filter(|_| !mutant::is(Mutant::NotRetired)) {
            let now = clock::now();
            self.inner.engine.retire(group, now);
            self.outputs(now);
        }
        let now = clock::now();
        let labels: Vec<_> = groups.iter().map(|group| group.was).zip(labels).collect();
        self.inner.labels.reload(&labels, table, now);
        if let Some(plane) = &mut self.inner.plane {
            plane.regroup(index);
        }
        // What is lost for want of room is counted.
        let _ = make_room(&self.inner.socket, groups.len(), self.inner.addresses.len());
        let was: Vec<_> = groups.iter().map(|group| group.was).collect();
        let prepared: Vec<_> = was.iter().map(|was| was.map(|was| self.inner.gates.prepares(was))).collect();
        let stops = self.regroup_moves(&was, rules);
        self.inner.engine.reload(groups, now);
        self.inner.uncovered = uncovered;
        self.troubles.clear();
        // What is said of groups from here on goes by their new numbers.
        self.say(Notice::Regrouped);
        self.outputs(now);
        self.prepare(&prepared);
        if stops {
            self.stop();
        }
    }
}
