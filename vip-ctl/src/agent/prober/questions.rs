//! When to ask for which VIP of a group that another node may hold, and what silence
//! means. It touches no map, clock or socket.
//!
//! One VIP of each group is asked for in each round, the next one in the next: they share
//! the lease and the program that answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use vip_common::{BootNs, GroupIndex, Heard};

use crate::mutant::{self, Mutant};

/// How long a round takes at least.
const ROUND: Duration = Duration::from_secs(1);
/// And how long for each group: no number of them makes more than so many questions.
const ROUND_PER_GROUP: Duration = Duration::from_millis(20);
/// How long to wait for an answer, which comes within a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);
/// After so many questions in a row without an answer nobody answers. With the pauses
/// between them that is within two seconds.
const MISSES: u8 = 3;

/// For how long silence is news to its holder: it is asked again each second, unless there
/// are many such groups.
const FRESH: Duration = Duration::from_secs(2);

/// How many questions are asked at once, at most.
const AT_ONCE: usize = 16;
/// How many groups are looked after at once, at most; and half as many silent ones.
const LOOKS: usize = 64;

/// What is known of each group.
#[derive(Debug, Default)]
pub(super) struct Questions {
    groups: BTreeMap<GroupIndex, State>,
    /// When to look after each: what a look costs does not grow with their number.
    schedule: BTreeSet<(BootNs, GroupIndex)>,
    /// Those that nobody answers for: they are asked for more often than the others, so that
    /// their holders hear soon when it is over.
    silent: BTreeSet<GroupIndex>,
}

#[derive(Debug, Default)]
struct State {
    /// When to look after it.
    look: BootNs,
    /// The VIP to ask for next, by its place.
    next: usize,
    /// The VIP that was asked for, and when.
    asked: Option<(usize, BootNs)>,
    misses: u8,
    /// The VIP that nobody answered for, and when it was asked for.
    missed: usize,
    missed_at: BootNs,
    /// The holder that was asked.
    holder: Option<u8>,
    /// Has anybody claimed a VIP of the group on this node's segment? Else this node may
    /// be on another one, and knows nothing.
    can_hear: bool,
    /// Or is the holder's host heard there?
    is_near: bool,
}

/// What is so of a group now.
pub(super) struct Now<F, N> {
    /// Does this node hold it?
    pub(super) is_here: bool,
    /// The node that does, as far as is known.
    pub(super) holder: Option<u8>,
    /// How many VIPs it has.
    pub(super) vips: usize,
    /// What is known of a VIP, by its place.
    pub(super) heard: F,
    /// Does this node hear the holder's host on the segment of a VIP, by its place?
    pub(super) is_near: N,
}

impl Questions {
    /// These are the groups from here on.
    pub(super) fn keep(&mut self, groups: &BTreeSet<GroupIndex>) {
        self.groups.retain(|group, _| groups.contains(group));
        self.silent.retain(|group| groups.contains(group));
        for group in groups {
            self.groups.entry(*group).or_default();
        }
        self.schedule = self.groups.iter().map(|(group, state)| (state.look, *group)).collect();
    }

    /// Looks after the groups for which it is time: `at` tells what is so of one. Returns
    /// those that were looked after, each with the VIP to ask for now, by its place.
    pub(super) fn turn<F: Fn(usize) -> Option<Heard>, N: Fn(usize) -> bool>(
        &mut self,
        now: BootNs,
        at: impl Fn(GroupIndex) -> Now<F, N>,
    ) -> Vec<(GroupIndex, Option<usize>)> {
        let round = |count| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            ROUND_PER_GROUP.saturating_mul(count).max(ROUND)
        };
        let rounds = (round(self.groups.len()), round(self.silent.len()));
        let first = self.silent.iter().filter_map(|group| Some((self.groups.get(group)?.look, *group)));
        let mut due: Vec<_> = first.filter(|(look, _)| *look <= now).take(LOOKS / 2).collect();
        let others = self.schedule.iter().take_while(|(look, _)| *look <= now);
        let others = others.filter(|(_, group)| !self.silent.contains(group));
        due.extend(others.take(LOOKS));
        let mut room = AT_ONCE;
        let mut looked = Vec::new();
        for (look, group) in due {
            self.schedule.remove(&(look, group));
            let Some(state) = self.groups.get_mut(&group) else { continue };
            let vip = state.turn(now, rounds, room > 0, &at(group));
            if state.misses == MISSES {
                self.silent.insert(group);
            } else {
                self.silent.remove(&group);
            }
            room -= usize::from(vip.is_some());
            self.schedule.insert((state.look, group));
            looked.push((group, vip));
        }
        looked
    }

    /// Nothing could be asked of this group, so that silence means nothing; nor is what was
    /// known of it of any use if it is another one now.
    pub(super) fn unasked(&mut self, group: GroupIndex) {
        if let Some(state) = self.groups.get_mut(&group) {
            (state.asked, state.misses, state.can_hear, state.is_near) = (None, 0, false, false);
            self.silent.remove(&group);
        }
    }

    /// The holder that this group's silence is about, if that was heard of late.
    pub(super) fn silent_of(&self, group: GroupIndex, now: BootNs) -> Option<u8> {
        let state = self.groups.get(&group)?;
        let is_fresh = now.since(state.missed_at) <= FRESH;
        state.holder.filter(|_| state.misses == MISSES && is_fresh)
    }

    /// A VIP of the group that nobody answers for, by its place.
    pub(super) fn unheard(&self, group: GroupIndex) -> Option<usize> {
        let state = self.groups.get(&group)?;
        let can_hear = state.can_hear || state.is_near || mutant::is(Mutant::DeafAlarms);
        let misses = if mutant::is(Mutant::AlarmsEarly) { 1 } else { MISSES };
        (can_hear && state.misses >= misses).then_some(state.missed)
    }
}

impl State {
    /// Returns the VIP to ask for now, and sets when to look again.
    fn turn<F: Fn(usize) -> Option<Heard>, N: Fn(usize) -> bool>(
        &mut self,
        now: BootNs,
        (round, silent_round): (Duration, Duration),
        has_room: bool,
        group: &Now<F, N>,
    ) -> Option<usize> {
        if group.is_here || group.vips == 0 {
            *self = Self { next: self.next, look: now.plus(round), ..Self::default() };
            return None;
        }
        if self.holder != group.holder && !mutant::is(Mutant::SilenceInherited) {
            // Its predecessor's silence is none of its own.
            (self.holder, self.asked, self.misses) = (group.holder, None, 0);
        }
        if let Some((vip, at)) = self.asked {
            let heard = if vip < group.vips { (group.heard)(vip) } else { None };
            self.can_hear |= heard.is_some_and(|heard| heard.claimed_ns > 0);
            self.is_near = vip < group.vips && (group.is_near)(vip);
            if heard.is_some_and(|heard| heard.answered_ns >= at.0) {
                (self.asked, self.misses, self.look) = (None, 0, at.plus(round));
            } else if now.since(at) < PATIENCE {
                self.look = at.plus(PATIENCE);
            } else {
                (self.asked, self.missed, self.missed_at) = (None, vip, at);
                self.misses = (self.misses + 1).min(MISSES);
                // A frame can be lost: asks again at once. Who is known to be silent has its
                // turn as all of those have.
                self.look = if self.misses < MISSES { now } else { at.plus(silent_round) };
            }
        }
        if self.look > now || !has_room {
            return None;
        }
        let vip = self.next % group.vips;
        self.next = vip + 1;
        self.asked = Some((vip, now));
        self.look = now.plus(PATIENCE);
        Some(vip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// A group on a segment.
    struct Segment {
        questions: Questions,
        now: BootNs,
        /// Does the holder answer, and did it ever claim the VIPs?
        answers: bool,
        claims: bool,
        is_here: bool,
        holder: u8,
        /// Is the holder's host heard?
        is_near: bool,
        /// So many questions are lost on the way.
        lost: usize,
        answered: BTreeMap<usize, u64>,
        asked: Vec<usize>,
    }

    const GROUP: GroupIndex = GroupIndex(3);

    impl Segment {
        fn new() -> Self {
            let mut questions = Questions::default();
            questions.keep(&[GROUP].into());
            Self {
                questions,
                now: BootNs(1_000_000_000_000),
                answers: true,
                claims: true,
                is_here: false,
                holder: 1,
                is_near: false,
                lost: 0,
                answered: BTreeMap::new(),
                asked: Vec::new(),
            }
        }

        /// Runs for so long; returns when the group was first unheard, and whether it is at the end.
        fn run(&mut self, time: Duration) -> (Option<Duration>, bool) {
            let (begin, mut first) = (self.now, None);
            while self.now.since(begin) < time {
                let (answered, claims, is_here) = (&self.answered, self.claims, self.is_here);
                let (holder, is_near) = (self.holder, self.is_near);
                let heard = |vip: usize| {
                    let answered_ns = answered.get(&vip).copied().unwrap_or(0);
                    Some(Heard { answered_ns, claimed_ns: u64::from(claims), ..Heard::default() })
                };
                let asked = self.questions.turn(self.now, |_| Now {
                    is_here,
                    holder: Some(holder),
                    vips: 3,
                    heard,
                    is_near: |_| is_near,
                });
                for vip in asked.into_iter().filter_map(|(_, vip)| vip) {
                    self.asked.push(vip);
                    let is_lost = self.lost > 0;
                    self.lost -= usize::from(is_lost);
                    if self.answers && !is_lost {
                        self.answered.insert(vip, self.now.0 + 100_000);
                    }
                }
                if self.questions.unheard(GROUP).is_some() {
                    first = first.or(Some(self.now.since(begin)));
                }
                self.now = self.now.plus(TICK);
            }
            (first, self.questions.unheard(GROUP).is_some())
        }
    }

    #[test]
    fn each_vip_has_its_turn_and_who_answers_is_asked_once_a_second() {
        let mut segment = Segment::new();
        assert_eq!(segment.run(Duration::from_secs(6)), (None, false));
        assert_eq!(segment.asked, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn silence_is_noticed_within_two_seconds_and_so_is_its_end() {
        let mut segment = Segment::new();
        segment.run(Duration::from_secs(10));
        segment.answers = false;
        let (first, is_unheard) = segment.run(Duration::from_secs(10));
        assert!(is_unheard && first.is_some_and(|first| first <= Duration::from_secs(2)), "{first:?}");
        segment.answers = true;
        assert!(!segment.run(Duration::from_secs(2)).1);
    }

    #[test]
    fn a_question_or_two_that_are_lost_are_no_silence() {
        for lost in 1..usize::from(MISSES) {
            let mut segment = Segment::new();
            segment.run(Duration::from_secs(3));
            segment.lost = lost;
            assert_eq!(segment.run(Duration::from_secs(5)), (None, false));
            assert_eq!(segment.lost, 0, "it was asked");
        }
    }

    #[test]
    fn who_is_known_to_be_silent_has_its_turn_as_others_have() {
        let mut segment = Segment { answers: false, ..Segment::new() };
        assert!(segment.run(Duration::from_secs(3)).1);
        let asked = segment.asked.len();
        segment.run(Duration::from_secs(10));
        assert_eq!(segment.asked.len() - asked, 10);
        // What could not be asked is no silence, nor is what was known of another group.
        segment.questions.unasked(GROUP);
        assert_eq!(segment.questions.unheard(GROUP), None);
        assert!(segment.run(Duration::from_secs(5)).1);
    }

    #[test]
    fn who_has_never_heard_of_it_and_who_holds_it_knows_nothing() {
        let mut segment = Segment { answers: false, claims: false, ..Segment::new() };
        assert_eq!(segment.run(Duration::from_secs(10)), (None, false), "on another segment");
        let mut segment = Segment { answers: false, ..Segment::new() };
        assert!(segment.run(Duration::from_secs(10)).1);
        segment.is_here = true;
        assert!(!segment.run(Duration::from_secs(2)).1, "it came here");
        let asked = segment.asked.len();
        segment.run(Duration::from_secs(5));
        assert_eq!(segment.asked.len(), asked, "a holder asks nobody");
    }

    #[test]
    fn who_hears_the_holders_host_could_hear_its_answers() {
        let mut segment = Segment { answers: false, claims: false, is_near: true, ..Segment::new() };
        assert!(segment.run(Duration::from_secs(3)).1, "though nobody has ever claimed it there");
        segment.is_near = false;
        assert!(!segment.run(Duration::from_secs(3)).1, "its host is away");
    }

    #[test]
    fn a_holders_silence_is_not_its_successors() {
        let mut segment = Segment::new();
        segment.run(Duration::from_secs(5));
        segment.answers = false;
        assert!(segment.run(Duration::from_secs(3)).1);
        (segment.holder, segment.answers) = (2, true);
        assert_eq!(segment.questions.silent_of(GROUP, segment.now), Some(1), "until it is asked");
        segment.run(ROUND);
        assert_eq!(segment.questions.silent_of(GROUP, segment.now), None);
        assert_eq!(segment.run(Duration::from_secs(3)), (None, false));
    }

    #[test]
    fn silence_is_no_news_for_long_and_asked_for_each_second_among_any_number_of_groups() {
        let mut questions = Questions::default();
        questions.keep(&(0..10_000).map(GroupIndex).collect());
        let (silent, mut asked) = (GroupIndex(7), Vec::new());
        let mut now = BootNs(1_000_000_000_000);
        for _ in 0..1_200 {
            let heard = |group, now: BootNs| {
                let answered_ns = if group == silent { 0 } else { now.0 + 1 };
                move |_| Some(Heard { answered_ns, claimed_ns: 1, ..Heard::default() })
            };
            let turn = questions.turn(now, |group| Now {
                is_here: false,
                holder: Some(1),
                vips: 1,
                heard: heard(group, now),
                is_near: |_| true,
            });
            asked.extend(turn.iter().filter(|(at, vip)| *at == silent && vip.is_some()).map(|_| now));
            now = now.plus(TICK);
        }
        // It takes a whole round until it is known to be silent.
        let gaps: Vec<_> = asked.windows(2).map(|two| two[1].since(two[0])).skip(1).collect();
        assert!(gaps.len() > 20 && gaps.iter().all(|gap| *gap < FRESH), "{gaps:?}");
        assert_eq!(questions.silent_of(silent, now), Some(1));
        assert_eq!(questions.silent_of(silent, now.plus(2 * FRESH)), None);
    }

    #[test]
    fn no_number_of_groups_makes_a_storm() {
        let (mut questions, mut asked, mut looked) = (Questions::default(), 0, 0);
        questions.keep(&(0..10_000).map(GroupIndex).collect());
        let mut now = BootNs(1_000_000_000_000);
        for _ in 0..400 {
            let heard = |_| Some(Heard { answered_ns: u64::MAX, claimed_ns: 1, ..Heard::default() });
            let turn = questions.turn(now, |_| Now {
                is_here: false,
                holder: None,
                vips: 2,
                heard,
                is_near: |_| false,
            });
            looked += turn.len();
            asked += turn.iter().filter(|(_, vip)| vip.is_some()).count();
            now = now.plus(TICK);
        }
        assert!((4_000..=6_400).contains(&asked), "{asked} in 100 s");
        assert!(looked <= 400 * LOOKS, "{looked}");
    }
}
