//! What leaves in which order, and how fast, in simulated time.

use std::collections::BTreeSet;

use super::*;

/// Frames for each VIP of a node with one interface.
const FRAMES_PER_VIP: usize = 2;
/// How long it takes to send a frame here.
const FRAME_TIME: Duration = Duration::from_micros(10);

fn at(ms: u64) -> BootNs {
    BootNs(1_000_000_000 + ms * 1_000_000)
}

fn takeover(group: u32) -> Announce {
    Announce::Takeover(GroupIndex(group))
}

fn defend(group: u32) -> Announce {
    Announce::Defend(GroupIndex(group))
}

/// The sender: it sends what the queue says, in simulated time.
struct Sender {
    queue: Queue,
    now: BootNs,
    /// How many VIPs each group has, by its number; a group beyond the end has one.
    sizes: Vec<u8>,
    lost: BTreeSet<GroupIndex>,
    /// What was sent: when, of which group, and the number of the VIP.
    sent: Vec<(BootNs, u32, u8)>,
    /// Of each turn, whether it said it by a question.
    asked: Vec<bool>,
}

impl Sender {
    fn new(sizes: &[u8]) -> Self {
        let sizes = sizes.to_vec();
        Self {
            queue: Queue::default(),
            now: at(0),
            sizes,
            lost: BTreeSet::new(),
            sent: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn order(&mut self, order: Announce) {
        self.queue.order(order, self.now);
    }

    fn vip(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn number(vip: IpAddr) -> u8 {
        if let IpAddr::V4(vip) = vip { vip.octets()[3] } else { panic!("{vip} is no VIP of this test") }
    }

    fn turn(&mut self, turn: &Turn) {
        if self.lost.contains(&turn.group) {
            self.queue.sent(turn.group, 0, Progress::Lost, self.now);
            return;
        }
        self.asked.push(turn.asks);
        let group = turn.group.0;
        let size = self.sizes.get(group as usize).copied().unwrap_or(1);
        let first = turn.after.map_or(0, |after| Self::number(after) + 1);
        let fit = u8::try_from((turn.room / FRAMES_PER_VIP).max(1)).unwrap();
        let end = size.min(first.saturating_add(fit));
        for number in first..end {
            self.now = self.now.plus(FRAME_TIME * 2);
            self.sent.push((self.now, group, number));
        }
        let progress = if end < size { Progress::Partly(Self::vip(end - 1)) } else { Progress::All };
        self.queue.sent(turn.group, usize::from(end - first) * FRAMES_PER_VIP, progress, self.now);
    }

    /// Sends what there is to send until `until`.
    fn run(&mut self, until: BootNs) {
        while self.now < until {
            match self.queue.next(self.now) {
                Next::Send(turn) => self.turn(&turn),
                Next::Wait(due) => {
                    assert!(due > self.now, "to wait for what has been");
                    self.now = due.min(until);
                }
                Next::Idle => self.now = until,
            }
        }
    }

    /// The groups of what was sent, in order.
    fn groups(&self) -> Vec<u32> {
        self.sent.iter().map(|(_, group, _)| *group).collect()
    }

    /// The longest run without a pause, in VIPs.
    fn longest_burst(&self) -> usize {
        let mut longest = 0;
        let mut burst = 0;
        let mut last = BootNs(0);
        for (when, _, _) in &self.sent {
            // The time that a frame takes is no pause.
            burst = if when.since(last) >= PAUSE + FRAME_TIME * 2 { 1 } else { burst + 1 };
            longest = longest.max(burst);
            last = *when;
        }
        longest
    }
}

#[test]
fn a_thousand_groups_are_each_announced_once_before_any_is_again() {
    let mut sender = Sender::new(&[]);
    // Not in the order of their numbers.
    let arrival: Vec<u32> = (0..1000).map(|n| n * 7 % 1000).collect();
    for group in &arrival {
        sender.order(takeover(*group));
    }
    sender.run(at(10_000));
    let groups = sender.groups();
    assert_eq!(groups[..1000], arrival);
    let last_first = sender.sent[999].0;
    assert!(last_first < at(40), "16 bursts with pauses took until {last_first:?}");
    // The repeats of the early ones were due by then.
    assert!(last_first > at(20), "a repeat was never due before: {last_first:?}");
    for round in groups.chunks(1000) {
        assert_eq!(round, arrival, "each round in the same order");
    }
    assert_eq!(groups.len(), 5 * 1000);
}

#[test]
fn a_group_is_repeated_four_times_within_two_seconds_and_then_each_second() {
    let mut sender = Sender::new(&[]);
    sender.order(takeover(0));
    sender.run(at(6_000));
    let when: Vec<_> = sender.sent.iter().map(|(when, _, _)| when.since(at(0)).as_millis()).collect();
    assert_eq!(when, [0, 20, 100, 500, 2000, 3000, 4000, 5000]);
    sender.lost.insert(GroupIndex(0));
    sender.run(at(20_000));
    assert_eq!(sender.sent.len(), 8, "it is not here any more");
    assert_eq!((sender.queue.next(sender.now), sender.queue.size), (Next::Idle, 0));
}

#[test]
fn no_number_of_vips_makes_more_than_a_hundred_frames_a_second_for_long() {
    let mut sender = Sender::new(&[200; 50]);
    (0..50).for_each(|group| sender.order(takeover(group)));
    sender.run(at(60_000));
    let before = sender.sent.len();
    sender.run(at(660_000));
    let frames = (sender.sent.len() - before) * FRAMES_PER_VIP;
    assert!((30_000..=60_000).contains(&frames), "{frames} in 600 s");
}

#[test]
fn a_group_that_comes_now_goes_before_the_repeats_of_others() {
    let mut sender = Sender::new(&[200, 200, 3]);
    sender.order(takeover(0));
    sender.order(takeover(1));
    // Run into the middle of the repeats.
    sender.run(at(35));
    let before = sender.sent.len();
    assert!(before > 400 && before < 800, "{before} are no part of the repeats");
    sender.order(takeover(2));
    let ordered = sender.now;
    sender.run(at(60));
    assert_eq!(sender.groups()[before..before + 3], [2, 2, 2]);
    // The takeover does not even wait for the end of the pause between repeats.
    let waited = sender.sent[before].0.since(ordered);
    assert!(waited < PAUSE, "it waited {waited:?}");
    // Then the repeats go on where they were interrupted.
    let (_, group, number) = sender.sent[before - 1];
    let (_, next_group, next_number) = sender.sent[before + 3];
    assert_eq!((next_group, next_number), (group, number + 1));
}

#[test]
fn bursts_are_bounded_whatever_the_groups() {
    for sizes in [vec![1; 1000], vec![250; 10], vec![40; 100], vec![3; 1000]] {
        let mut sender = Sender::new(&sizes);
        for group in 0..u32::try_from(sizes.len()).unwrap() {
            sender.order(takeover(group));
        }
        let firsts: usize = sizes.iter().map(|size| usize::from(*size)).sum();
        sender.run(at(20_000));
        assert_eq!(sender.sent.len(), 5 * firsts, "all of them");
        let all = std::mem::take(&mut sender.sent);
        sender.sent = all[..firsts].to_vec();
        assert_eq!(sender.longest_burst(), FIRSTS_BURST / FRAMES_PER_VIP);
        sender.sent = all[firsts..].to_vec();
        assert_eq!(sender.longest_burst(), REPEATS_BURST / FRAMES_PER_VIP);
    }
}

#[test]
fn each_vip_of_a_large_group_has_its_turn_in_each_round() {
    let mut sender = Sender::new(&[255]);
    sender.order(takeover(0));
    sender.run(at(5_000));
    let numbers: Vec<_> = sender.sent.iter().map(|(_, _, number)| *number).collect();
    let round: Vec<_> = (0..255).collect();
    assert_eq!(numbers, round.repeat(5));
}

#[test]
fn more_frames_than_a_burst_has_are_sent_all_the_same() {
    // A VIP on 100 interfaces.
    let mut queue = Queue::default();
    queue.order(takeover(0), at(0));
    let turn = Turn { group: GroupIndex(0), after: None, room: FIRSTS_BURST, asks: false, ordered: at(0) };
    assert_eq!(queue.next(at(0)), Next::Send(turn));
    queue.sent(GroupIndex(0), 200, Progress::Partly(Sender::vip(0)), at(0));
    assert_eq!(queue.next(at(0)), Next::Wait(at(1)));
    assert_eq!(queue.next(at(1)), Next::Send(Turn { after: Some(Sender::vip(0)), ..turn }));
}

#[test]
fn what_can_not_leave_now_is_tried_again_after_a_pause() {
    let mut queue = Queue::default();
    let group = GroupIndex(0);
    queue.order(takeover(0), at(0));
    let Next::Send(turn) = queue.next(at(0)) else { panic!("it is due") };
    // A few have left.
    queue.sent(group, 6, Progress::Held(Some(Sender::vip(2))), at(0));
    assert_eq!(queue.next(at(0)), Next::Wait(at(1)));
    let rest = Turn { after: Some(Sender::vip(2)), ..turn };
    for ms in 1..50 {
        assert_eq!(queue.next(at(ms)), Next::Send(rest));
        queue.sent(group, 0, Progress::Held(rest.after), at(ms));
        assert_eq!(queue.next(at(ms)), Next::Wait(at(ms + 1)));
    }
    assert_eq!(queue.next(at(50)), Next::Send(rest));
    queue.sent(group, 4, Progress::All, at(50));
    assert_eq!(queue.next(at(50)), Next::Wait(at(70)), "the first repeat");
}

#[test]
fn what_can_not_leave_at_all_is_left_to_the_repeats() {
    let mut queue = Queue::default();
    for group in 0..3 {
        queue.order(takeover(group), at(0));
    }
    let mut now = at(0);
    let mut tries = Vec::new();
    while now < at(2_900) {
        match queue.next(now) {
            Next::Send(turn) => {
                tries.push(turn.group.0);
                queue.sent(turn.group, 0, Progress::Held(None), now);
            }
            Next::Wait(until) => now = until,
            Next::Idle => break,
        }
    }
    // The groups after the first have fewer tries: the patience is spent.
    let first = usize::try_from(TRIES).unwrap() + 1;
    assert_eq!(tries[..first], vec![0; first]);
    assert_eq!(tries[first..], [[1, 2].as_slice(), &[0, 1, 2].repeat(4)].concat());
    // Once a frame has left, the queue is as patient as before.
    queue.order(takeover(0), now);
    queue.sent(GroupIndex(0), 2, Progress::Held(Some(Sender::vip(0))), now);
    assert_eq!(queue.next(now), Next::Wait(now.plus(PAUSE)));
}

#[test]
fn a_group_that_is_lost_is_not_tried_again() {
    let mut sender = Sender::new(&[200, 1]);
    sender.order(takeover(0));
    sender.order(takeover(1));
    sender.run(at(1));
    sender.lost.insert(GroupIndex(0));
    sender.run(at(2_900));
    let groups = sender.groups();
    assert_eq!(groups.iter().filter(|group| **group == 0).count(), FIRSTS_BURST / FRAMES_PER_VIP);
    assert_eq!(groups.iter().filter(|group| **group == 1).count(), 5);
    // When the group comes back, it is announced from its first VIP on.
    sender.lost.clear();
    sender.order(takeover(0));
    let before = sender.sent.len();
    let all = |sender: &Sender| sender.groups()[before..].iter().filter(|group| **group == 0).count();
    sender.run(at(5_500));
    assert_eq!(all(&sender), 5 * 200);
}

#[test]
fn a_takeover_that_is_ordered_again_begins_anew_or_keeps_its_place() {
    let mut sender = Sender::new(&[1, 1, 200]);
    for group in [2, 0, 1] {
        sender.order(takeover(group));
    }
    sender.run(at(1));
    let before = sender.sent.len();
    assert!(sender.groups().iter().all(|group| *group == 2));
    // A takeover that has begun goes to the end of the queue; one that has not stays in its
    // place.
    sender.order(takeover(0));
    sender.order(takeover(2));
    let Next::Wait(pause) = sender.queue.next(sender.now) else { panic!("after a burst there is a pause") };
    let Next::Send(turn) = sender.queue.next(pause) else { panic!("then it goes on") };
    assert_eq!((turn.group, turn.ordered), (GroupIndex(0), sender.now), "whose VIPs are read again");
    sender.run(at(15));
    assert_eq!(sender.groups()[before..before + 3], [0, 1, 2]);
    assert_eq!(sender.sent[before + 2].2, 0, "from its first VIP on");
    assert_eq!(sender.sent.len(), before + 202);
}

#[test]
fn a_claim_is_answered_at_once_and_then_after_a_pause_that_the_size_decides() {
    for (vips, pause) in [(1, 5), (20, 100), (255, 1000)] {
        let mut sender = Sender::new(&[vips]);
        // A claim each millisecond.
        for ms in 0..3500 {
            sender.order(defend(0));
            sender.run(at(ms + 1));
        }
        let firsts = sender.sent.iter().filter(|(_, _, vip)| *vip == 0);
        let when: Vec<_> = firsts.map(|(when, _, _)| when.since(at(0)).as_millis()).collect();
        let wanted: Vec<_> = (0..3500_u128).step_by(pause).collect();
        assert_eq!(when, wanted, "{vips} VIPs");
    }
}

#[test]
fn claims_cost_a_small_part_of_the_time_however_many_there_are() {
    let groups = 20;
    let mut sender = Sender::new(&[1; 20]);
    for ms in 0..1000 {
        (0..groups).for_each(|group| sender.order(defend(group)));
        sender.run(at(ms + 1));
    }
    let frames = sender.sent.len() * FRAMES_PER_VIP;
    assert!(frames <= 20 * 2 * 201, "{frames} frames in a second");
    assert!(sender.longest_burst() <= REPEATS_BURST);
}

#[test]
fn a_claim_takes_no_repeat_away_and_none_that_is_due_is_doubled() {
    let mut sender = Sender::new(&[]);
    sender.order(takeover(0));
    // The takeover will announce the VIP anyhow.
    sender.order(defend(0));
    sender.run(at(600));
    assert_eq!(sender.sent.len(), 4);
    // A claim long before the last repeat.
    sender.order(defend(0));
    sender.run(at(601));
    assert_eq!(sender.sent.len(), 5);
    sender.run(at(2_900));
    assert_eq!(sender.sent.len(), 6, "and the last of them");
}

#[test]
fn claims_wait_for_the_first_announcements_of_others() {
    let mut sender = Sender::new(&[1, 200]);
    sender.order(defend(0));
    sender.order(takeover(1));
    sender.run(at(15));
    let groups = sender.groups();
    assert_eq!((groups[..200].iter().all(|group| *group == 1), groups[200]), (true, 0));
}

#[test]
fn a_peer_that_comes_and_goes_makes_no_storm_and_holds_up_nobody() {
    let mut sender = Sender::new(&[100; 20]);
    (0..10).for_each(|group| sender.order(takeover(group)));
    sender.run(at(4_000));
    let before = sender.sent.len();
    sender.order(Announce::Again);
    sender.order(takeover(10));
    sender.run(at(4_005));
    assert_eq!(sender.sent[before].1, 10, "a group that comes now is first");
    sender.run(at(4_200));
    let again = sender.sent[before..].iter().filter(|(_, group, _)| *group < 10).count();
    assert_eq!(again, 10 * 100, "each VIP once");
    // Heard again every 300 ms for a minute.
    let before = sender.sent.len();
    for step in 1..200 {
        sender.order(Announce::Again);
        sender.run(at(4_200 + step * 300));
    }
    let frames = (sender.sent.len() - before) * FRAMES_PER_VIP;
    assert!(frames <= 75_000, "{frames} in a minute");
}

/// When each frame of the first VIP left, in milliseconds.
fn times(garp: Garp, until: u64) -> Vec<u128> {
    let mut sender = Sender { queue: Queue::new(garp), ..Sender::new(&[]) };
    sender.order(takeover(0));
    sender.run(at(until));
    sender.sent.iter().map(|(when, _, _)| when.since(at(0)).as_millis()).collect()
}

#[test]
fn repeats_delay_and_refresh_are_an_admins_choice() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let once = Garp { repeat: 0, refresh: None, ..Garp::default() };
    assert_eq!(times(once, 1_000_000), [0]);
    assert_eq!(times(Garp { repeat: 6, ..once }, 1_000_000), [0, 20, 100, 500, 2_000, 3_500, 5_000]);
    assert_eq!(times(Garp { refresh: Some(minute), ..once }, 200_000), [0, 60_000, 120_000, 180_000]);
    let again = Garp { repeat: 2, delay: Some(second * 5), ..once };
    assert_eq!(times(again, 1_000_000), [0, 20, 100, 5_100, 5_120, 5_200]);
    // A peer that is heard again is told all the same, and so is a rival.
    let mut sender = Sender { queue: Queue::new(once), ..Sender::new(&[]) };
    sender.order(takeover(0));
    sender.run(at(1_000));
    sender.order(Announce::Again);
    sender.run(at(2_000));
    sender.order(defend(0));
    sender.run(at(3_000));
    assert_eq!(sender.sent.len(), 3);
}

#[test]
fn a_switch_that_limits_arp_gets_no_two_frames_within_the_interval() {
    let interval = Duration::from_millis(10);
    let garp = Garp { interval: Some(interval), ..Garp::default() };
    let mut sender = Sender { queue: Queue::new(garp), ..Sender::new(&[20; 5]) };
    (0..5).for_each(|group| sender.order(takeover(group)));
    sender.run(at(2_000));
    sender.order(Announce::Again);
    sender.run(at(20_000));
    // The two forms for one VIP leave together.
    let pair = interval * u32::try_from(FRAMES_PER_VIP).unwrap();
    let gaps = sender.sent.windows(2).map(|two| two[1].0.since(two[0].0));
    assert!(gaps.min().is_some_and(|gap| gap >= pair), "two VIPs are closer than {pair:?}");
    assert!(sender.sent.len() > 500, "{} in 20 s", sender.sent.len());
}

#[test]
fn from_the_third_repeat_on_every_second_announcement_asks() {
    let mut sender = Sender::new(&[]);
    sender.order(takeover(0));
    sender.run(at(7_000));
    assert_eq!(sender.asked[..9], [false, false, false, true, false, true, false, true, false]);
    // An answer to a claim is none of them.
    sender.asked.clear();
    for _ in 0..4 {
        sender.order(defend(0));
        sender.run(sender.now.plus(Duration::from_millis(100)));
    }
    assert_eq!(sender.asked, [false; 4]);
    // Nor is what all are told after a cut, whichever is next.
    for _ in 0..2 {
        sender.asked.clear();
        sender.order(Announce::Again);
        sender.run(sender.now.plus(Duration::from_millis(100)));
        assert_eq!(sender.asked, [false]);
        sender.run(sender.now.plus(Duration::from_secs(2)));
    }
    sender.asked.clear();
    sender.order(takeover(0));
    sender.run(sender.now.plus(Duration::from_millis(300)));
    assert_eq!(sender.asked, [false; 3], "it begins anew");
}
