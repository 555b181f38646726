//! Which group to announce next: groups that have just come here, in the order in
//! which they came; then repeats, by when they are due; all of it in bursts with
//! pauses.
//!
//! It goes by the times that it is given and touches no clock, map or socket. Its
//! caller knows which VIPs a group has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_common::{BootNs, GroupIndex};

use crate::{
    agent::messages::Announce,
    config::Garp,
    mutant::{self, Mutant},
};

/// When to announce a group again, for switch ports and clients that missed it:
/// each gap counts from the end of the announcement before, so that thousands of
/// repeats thin out instead of piling up.
const GAPS: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(400),
    Duration::from_millis(1500),
];
/// How long a refresh waits for each frame that goes into one round over all groups, so that
/// no number of VIPs makes more than a hundred frames a second.
const REFRESH_PER_FRAME: Duration = Duration::from_millis(10);
/// When a group without a refresh is announced by itself: not while anybody lives.
const NEVER: Duration = Duration::from_secs(1 << 32);
/// How long to wait at least before all groups are announced again because a peer is heard
/// again, and how long for each frame of that: no flapping peer makes more than a thousand
/// frames a second.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);
const AGAIN_PER_FRAME: Duration = Duration::from_millis(1);
/// How long the next claim waits after one was answered, for each frame of the
/// answer, and at most: this node defends a group with few VIPs at once, but with
/// many VIPs does not become the louder of two hosts that shout.
const DEFEND_PAUSE_PER_FRAME: Duration = Duration::from_micros(2_500);
const DEFEND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Frames to send before a pause while a group waits for its first announcement.
const FIRSTS_BURST: usize = 128;
/// The same for repeats: the thread has real-time priority, to be prompt for new
/// orders, and must leave nearly all of the processor to others.
const REPEATS_BURST: usize = 32;
/// The pause after a burst.
const PAUSE: Duration = Duration::from_millis(1);
/// The first announcement that asks, in place of one of its frames; after it every second
/// one does.
const ASKS_FIRST: u32 = 3;

/// How many tries, each after a pause, when no frame can leave. Then the repeats
/// have to do, for everything that follows too until a frame has left: an
/// interface that is stuck must not keep the others waiting.
const TRIES: u32 = 200;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send, and report by [`Queue::sent`] how far that went.
    Send(Turn),
    /// Wait until then.
    Wait(BootNs),
    /// Wait for the next order.
    Idle,
}

/// A part of one announcement of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The group.
    pub(super) group: GroupIndex,
    /// The turn goes on after this VIP; `None`: it begins with the first one.
    pub(super) after: Option<IpAddr>,
    /// How many frames may leave; those of one VIP in any case.
    pub(super) room: usize,
    /// Is it one that says it by a question, for bridges that keep announcements back?
    pub(super) asks: bool,
    /// When the group came here: an earlier reading of the maps may lack some of
    /// its VIPs.
    pub(super) ordered: BootNs,
}

/// How far a turn went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There are VIPs after this one.
    Partly(IpAddr),
    /// To the group's last VIP.
    All,
    /// The interfaces' queues are full: try the VIPs after this one again, or all
    /// of the group's if there is none.
    Held(Option<IpAddr>),
    /// The group is not here any more.
    Lost,
}

/// The stage of a group's announcements.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Waits for the end of its first announcement; its place among those.
    First(u64),
    /// Waits for a repeat.
    Repeat {
        /// The repeat's number, from 0; [`Queue::rounds`] for each after those.
        round: usize,
        /// When it begins.
        due: BootNs,
        /// Does it answer a claim, before the repeat of that number?
        defends: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stage: Stage,
    after: Option<IpAddr>,
    ordered: BootNs,
    /// Frames of this announcement that have left.
    frames: usize,
    /// Announcements before this one, since the group came here.
    before: u32,
}

impl Entry {
    const fn defends(&self) -> bool {
        matches!(self.stage, Stage::Repeat { defends: true, .. })
    }

    fn asks(&self) -> bool {
        let is_its_turn = self.before >= ASKS_FIRST && (self.before - ASKS_FIRST).is_multiple_of(2);
        is_its_turn && !self.defends() && !mutant::is(Mutant::NeverAsks)
    }
}

/// Groups to announce, each of them once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    garp: Garp,
    entries: BTreeMap<GroupIndex, Entry>,
    firsts: BTreeMap<u64, GroupIndex>,
    repeats: BTreeSet<(BootNs, GroupIndex)>,
    next_place: u64,
    /// When claims of a group's VIPs were last answered, or will be.
    defended: BTreeMap<GroupIndex, BootNs>,
    /// How long the next claim waits after that answer.
    pauses: BTreeMap<GroupIndex, Duration>,
    /// Frames of the last whole announcement of each group that is here, and of all.
    sizes: BTreeMap<GroupIndex, u32>,
    size: u64,
    /// When a peer that was heard again last had all groups announced.
    last_again: Option<BootNs>,
    /// Frames since the last pause.
    burst: usize,
    /// When the last frame left, or failed to.
    last_sent: BootNs,
    /// How many times in a row no frame could leave.
    held: u32,
}

impl Queue {
    /// An empty queue for an admin's choice of times.
    pub(super) fn new(garp: Garp) -> Self {
        Self { garp, ..Self::default() }
    }

    /// Takes an order.
    pub(super) fn order(&mut self, order: Announce, now: BootNs) {
        match order {
            Announce::Takeover(group) => self.takeover(group, now),
            Announce::Defend(group) => self.defend(group, now),
            Announce::Again => self.again(now),
            // Its caller paces those.
            Announce::Correct(_) => {}
        }
    }

    fn takeover(&mut self, group: GroupIndex, now: BootNs) {
        if let Some(Entry { stage: Stage::First(_), after: None, ordered, .. }) = self.entries.get_mut(&group)
        {
            // The group keeps its place.
            *ordered = now;
            return;
        }
        self.forget(group);
        let place = if mutant::is(Mutant::LastFirst) { u64::MAX - self.next_place } else { self.next_place };
        self.next_place += 1;
        self.put(
            group,
            Entry { stage: Stage::First(place), after: None, ordered: now, frames: 0, before: 0 },
        );
    }

    fn defend(&mut self, group: GroupIndex, now: BootNs) {
        let pause = self.pauses.get(&group).copied().unwrap_or(DEFEND_PAUSE_MAX);
        let last = self.defended.get(&group).filter(|_| !mutant::is(Mutant::DefendsAlways));
        let due = last.map_or(now, |last| last.plus(pause).max(now));
        let entry = match self.entries.get(&group) {
            // An announcement that is due anyhow answers the claim as well.
            Some(Entry { stage: Stage::First(_) | Stage::Repeat { defends: true, .. }, .. }) => return,
            Some(Entry { stage: Stage::Repeat { due: sooner, .. }, .. }) if *sooner <= due => return,
            Some(entry @ Entry { stage: Stage::Repeat { round, .. }, .. }) => {
                Entry { stage: Stage::Repeat { round: *round, due, defends: true }, ..*entry }
            }
            None => {
                let stage = Stage::Repeat { round: self.rounds(), due, defends: true };
                Entry { stage, after: None, ordered: BootNs(0), frames: 0, before: 0 }
            }
        };
        self.defended.insert(group, due);
        self.forget(group);
        self.put(group, entry);
    }

    /// Announces all groups once more that have had their first announcement, unless that
    /// was done a moment ago: in their turn, and behind what comes here now.
    fn again(&mut self, now: BootNs) {
        let frames = u32::try_from(self.size).unwrap_or(u32::MAX);
        let per_frame = AGAIN_PER_FRAME.max(self.garp.interval.unwrap_or_default());
        let pause = AGAIN_PAUSE.max(per_frame.saturating_mul(frames));
        if self.last_again.is_some_and(|last| now.since(last) < pause) {
            return;
        }
        self.last_again = Some(now);
        for (_, group) in std::mem::take(&mut self.repeats) {
            let Some(entry) = self.entries.get_mut(&group) else { continue };
            // All hear the plain one.
            entry.before += u32::from(entry.asks());
            if let Stage::Repeat { due, .. } = &mut entry.stage {
                *due = (*due).min(now);
                self.repeats.insert((*due, group));
            }
        }
    }

    fn put(&mut self, group: GroupIndex, entry: Entry) {
        match entry.stage {
            Stage::First(place) => {
                self.firsts.insert(place, group);
            }
            Stage::Repeat { due, .. } => {
                self.repeats.insert((due, group));
            }
        }
        self.entries.insert(group, entry);
    }

    fn forget(&mut self, group: GroupIndex) -> Option<Entry> {
        let entry = self.entries.remove(&group)?;
        match entry.stage {
            Stage::First(place) => {
                self.firsts.remove(&place);
            }
            Stage::Repeat { due, .. } => {
                self.repeats.remove(&(due, group));
            }
        }
        Some(entry)
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: BootNs) -> Next {
        let paused = self.last_sent.plus(self.pause());
        if now >= paused {
            self.burst = 0;
        }
        let first = self.firsts.first_key_value().map(|(_, group)| (*group, FIRSTS_BURST));
        let (group, burst) = match (first, self.repeats.first()) {
            (Some(first), _) => first,
            (None, Some((due, _))) if *due > now => return Next::Wait(*due),
            (None, Some((_, group))) => (*group, REPEATS_BURST),
            (None, None) => return Next::Idle,
        };
        let room = self.at_once(burst).saturating_sub(self.burst);
        match self.entries.get(&group) {
            Some(entry) if room > 0 => {
                let Entry { after, ordered, .. } = *entry;
                Next::Send(Turn { group, after, room, asks: entry.asks(), ordered })
            }
            Some(_) | None => Next::Wait(paused),
        }
    }

    /// Notes that this many frames of a group's turn have left by `now`, and how
    /// far it went.
    pub(super) fn sent(&mut self, group: GroupIndex, frames: usize, progress: Progress, now: BootNs) {
        if frames > 0 {
            self.burst += frames;
            if let Some(entry) = self.entries.get_mut(&group) {
                entry.frames += frames;
            }
            self.last_sent = now;
            self.held = 0;
        }
        match progress {
            Progress::Partly(vip) => self.go_on_after(group, Some(vip)),
            Progress::Held(after) if self.held < TRIES || mutant::is(Mutant::TriedForEver) => {
                self.held += 1;
                // Tries again after a pause, whatever room the burst still had.
                self.burst = self.burst.max(self.at_once(FIRSTS_BURST));
                self.last_sent = now;
                self.go_on_after(group, after);
            }
            Progress::Held(_) | Progress::All => self.repeat(group, now),
            // If the group comes back, there will be another order.
            Progress::Lost => {
                self.set_size(group, None);
                self.forget(group);
            }
        }
    }

    fn go_on_after(&mut self, group: GroupIndex, vip: Option<IpAddr>) {
        if let Some(entry) = self.entries.get_mut(&group) {
            entry.after = vip;
        }
    }

    /// One announcement of the group is over: sets when the next one is due.
    fn repeat(&mut self, group: GroupIndex, now: BootNs) {
        let Some(entry) = self.forget(group) else { return };
        let frames = u32::try_from(entry.frames).unwrap_or(u32::MAX);
        self.pauses.insert(group, DEFEND_PAUSE_PER_FRAME.saturating_mul(frames).min(DEFEND_PAUSE_MAX));
        if frames > 0 {
            self.set_size(group, Some(frames));
        }
        let round = match entry.stage {
            Stage::First(_) => 0,
            Stage::Repeat { round, defends: true, .. } => round,
            Stage::Repeat { round, defends: false, .. } => (round + 1).min(self.rounds()),
        };
        if mutant::is(Mutant::AnnouncedOnce) {
            return;
        }
        let gap = self.gap(round);
        let stage = Stage::Repeat { round, due: now.plus(gap), defends: false };
        let before = entry.before.saturating_add(u32::from(!entry.defends()));
        self.put(group, Entry { stage, after: None, frames: 0, before, ..entry });
    }

    /// How many repeats a takeover has.
    fn rounds(&self) -> usize {
        let repeat = self.garp.repeat as usize;
        if self.garp.delay.is_some() { repeat * 2 + 1 } else { repeat }
    }

    /// How long to wait before the repeat of this number.
    fn gap(&self, round: usize) -> Duration {
        let repeat = self.garp.repeat as usize;
        let repeated = |round: usize| GAPS[round.min(GAPS.len() - 1)];
        match self.garp.delay {
            _ if round < repeat => repeated(round),
            Some(delay) if round == repeat => delay,
            Some(_) if round < self.rounds() => repeated(round - repeat - 1),
            Some(_) | None => self.refresh(),
        }
    }

    /// How long to wait before a group that has had all of its repeats is announced again.
    fn refresh(&self) -> Duration {
        let Some(refresh) = self.garp.refresh else { return NEVER };
        let frames = u32::try_from(self.size).unwrap_or(u32::MAX);
        let per_frame = self.garp.interval.unwrap_or(REFRESH_PER_FRAME);
        refresh.max(per_frame.saturating_mul(frames))
    }

    /// How many frames may leave without a pause, where bursts have so many.
    fn at_once(&self, burst: usize) -> usize {
        self.garp.interval.filter(|_| !mutant::is(Mutant::BurstsAnyway)).map_or(burst, |_| 1)
    }

    /// The pause after the frames that have left without one.
    fn pause(&self) -> Duration {
        let frames = u32::try_from(self.burst).unwrap_or(u32::MAX);
        self.garp.interval.map_or(PAUSE, |interval| interval.saturating_mul(frames).max(PAUSE))
    }

    fn set_size(&mut self, group: GroupIndex, frames: Option<u32>) {
        let old = match frames {
            Some(frames) => self.sizes.insert(group, frames),
            None => self.sizes.remove(&group),
        };
        self.size = self.size + u64::from(frames.unwrap_or(0)) - u64::from(old.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;
