//! VIPs that this node holds, and that nobody answers for as far as peers hear: a network
//! may let this node's host be heard, and not the VIP. A group of which most of those who
//! could hear it say so goes to another node, and does not come back at once: it would
//! be as silent here as before. Touches no clock or socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vip_common::BootNs;

use crate::{
    engine::NodeId,
    mutant::{self, Mutant},
};

/// For how long what a peer said is true: it says it again each second.
const SAID: Duration = Duration::from_millis(2_500);
/// For how long a peer has to say so before it counts. What was said while this node stood
/// still arrives all at once.
const SUSTAINED: Duration = Duration::from_secs(2);
/// For how long this node leaves the group to others, the first time.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// And if it is unheard time and again: twice as long each time, but no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// After so long without a complaint a group that is here is heard again.
const HEARD: Duration = Duration::from_secs(10);

/// What peers say, and what follows.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    said: BTreeMap<IpAddr, BTreeMap<NodeId, Complaint>>,
    groups: BTreeMap<String, Silence>,
}

/// When a peer said it first, and last.
#[derive(Clone, Copy, Debug)]
struct Complaint {
    first: BootNs,
    last: BootNs,
}

/// Of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// A VIP that nobody hears.
    pub(super) vip: IpAddr,
    /// The peers that said so.
    pub(super) peers: Vec<NodeId>,
    /// For how long this node takes the group no more, once another one has it.
    pub(super) pause: Duration,
    until: BootNs,
    /// When it was last said.
    last: BootNs,
    /// Since when the group is here.
    here: Option<BootNs>,
}

impl Unheard {
    /// A peer hears nobody answer for this VIP.
    pub(super) fn hear(&mut self, by: NodeId, vip: IpAddr, now: BootNs) {
        let said = self.said.entry(vip).or_default();
        let goes_on = said.get(&by).filter(|said| now.since(said.last) <= SAID);
        let first = goes_on.map_or(now, |said| said.first);
        said.insert(by, Complaint { first, last: now });
    }

    /// Judges what was said of late. `here` names the group of a VIP that this node answers
    /// for; `near` are the peers on its segment, that could hear it. What was said before it
    /// did so, as while `pre_promote` ran, is forgotten.
    pub(super) fn turn<'a>(
        &mut self,
        now: BootNs,
        here: impl Fn(IpAddr) -> Option<&'a str>,
        near: impl Fn(IpAddr) -> BTreeSet<NodeId>,
    ) {
        self.said.retain(|vip, by| {
            by.retain(|_, said| now.since(said.last) <= SAID);
            let counts = here(*vip).is_some() || mutant::is(Mutant::SilentBeforehand);
            counts && !by.is_empty()
        });
        for (vip, by) in &self.said {
            let Some(group) = here(*vip) else { continue };
            let hearing = near(*vip).into_iter().filter(|peer| !by.contains_key(peer)).count();
            let counts = |said: &Complaint| {
                said.last.since(said.first) >= SUSTAINED || mutant::is(Mutant::OneWordSilences)
            };
            let peers: Vec<_> = by.iter().filter(|(_, said)| counts(said)).map(|(peer, _)| *peer).collect();
            if peers.len() > hearing || (!peers.is_empty() && mutant::is(Mutant::OneSilences)) {
                condemn(
                    &mut self.groups,
                    group,
                    Silence { vip: *vip, peers, pause: PAUSE_FIRST, until: now, last: now, here: None },
                );
            }
        }
    }

    /// The groups that this node had better not have. One that it has nevertheless, since
    /// nobody else could take it, is well again once nobody complains any more.
    pub(super) fn groups(
        &mut self,
        now: BootNs,
        is_here: impl Fn(&str, IpAddr) -> bool,
    ) -> BTreeMap<&str, &Silence> {
        self.groups.retain(|name, silence| {
            let here = is_here(name, silence.vip).then(|| *silence.here.get_or_insert(now));
            silence.here = here;
            let is_heard = here.is_some_and(|here| now.since(here.max(silence.last)) > HEARD);
            // How long it was is remembered for as long again.
            !is_heard && now <= silence.until.plus(silence.pause)
        });
        let is_paused = |silence: &Silence| now < silence.until || mutant::is(Mutant::SilentForEver);
        let paused = self.groups.iter().filter(|(_, silence)| is_paused(silence));
        paused.map(|(name, silence)| (name.as_str(), silence)).collect()
    }
}

/// Leaves a group to others from now on, for as long as this time takes.
fn condemn(groups: &mut BTreeMap<String, Silence>, group: &str, new: Silence) {
    let now = new.last;
    let known = groups.get(group);
    let pause = match known {
        // It was left to others for that long, and came back no better.
        Some(known) if known.until < now => known.pause.saturating_mul(2).min(PAUSE_MAX),
        Some(known) => known.pause,
        None => new.pause,
    };
    let here = known.and_then(|known| known.here);
    groups.insert(group.to_owned(), Silence { pause, until: now.plus(pause), here, ..new });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// Long enough for complaints to count.
    const LONG: Duration = Duration::from_secs(4);
    const START: BootNs = BootNs(1_000_000_000_000);

    /// A node that holds a group or does not, and its peers.
    struct Node {
        unheard: Unheard,
        now: BootNs,
        is_here: bool,
        near: BTreeSet<NodeId>,
    }

    impl Node {
        fn new(near: &[u8]) -> Self {
            let near = near.iter().copied().map(NodeId).collect();
            Self { unheard: Unheard::default(), now: START, is_here: true, near }
        }

        /// Runs for so long, in which these peers complain; returns whether the node had
        /// better not have the group at the end.
        fn run(&mut self, time: Duration, peers: &[u8]) -> bool {
            let (end, vip) = (self.now.plus(time), IpAddr::from([10, 0, 0, 9]));
            let mut is_silent = false;
            while self.now <= end {
                for peer in peers {
                    self.unheard.hear(NodeId(*peer), vip, self.now);
                }
                let is_here = self.is_here;
                self.unheard.turn(self.now, |_| is_here.then_some("db"), |_| self.near.clone());
                is_silent = self.unheard.groups(self.now, |_, _| is_here).contains_key("db");
                self.now = self.now.plus(SECOND);
            }
            is_silent
        }
    }

    #[test]
    fn most_of_those_who_could_hear_it_have_to_say_so() {
        assert!(Node::new(&[2]).run(LONG, &[2]), "one of one");
        assert!(Node::new(&[2, 3]).run(LONG, &[2, 3]));
        assert!(!Node::new(&[2, 3]).run(LONG, &[2]), "one of two");
        assert!(Node::new(&[2, 3, 4]).run(LONG, &[2, 4]));
        // One that is on the segment, and of which this node has heard nothing.
        assert!(Node::new(&[]).run(LONG, &[2]));
        // What a peer has said before is over soon.
        let mut node = Node::new(&[2, 3]);
        node.run(LONG, &[2]);
        node.now = node.now.plus(4 * SECOND);
        assert!(!node.run(LONG, &[3]));
    }

    #[test]
    fn what_was_said_while_this_node_stood_still_costs_nothing() {
        let mut node = Node::new(&[2, 3]);
        for _ in 0..5 {
            assert!(!node.run(Duration::ZERO, &[2, 3, 2, 3]), "all at once");
            node.now = node.now.plus(5 * SECOND);
        }
    }

    #[test]
    fn it_is_left_to_others_for_a_minute_and_longer_each_time() {
        let mut node = Node::new(&[2, 3]);
        let mut pause = PAUSE_FIRST;
        for _ in 0..9 {
            node.is_here = true;
            assert!(node.run(LONG, &[2, 3]));
            node.is_here = false;
            assert!(node.run(pause.saturating_sub(5 * SECOND), &[]), "before {pause:?}");
            assert!(!node.run(10 * SECOND, &[]), "after {pause:?}");
            pause = (pause * 2).min(PAUSE_MAX);
        }
        // After as long again all is as in the beginning.
        node.run(2 * PAUSE_MAX, &[]);
        node.is_here = true;
        assert!(node.run(LONG, &[2, 3]));
        node.is_here = false;
        assert!(!node.run(PAUSE_FIRST + 5 * SECOND, &[]));
    }

    #[test]
    fn what_stayed_here_is_well_once_nobody_complains() {
        let mut node = Node::new(&[2, 3]);
        assert!(node.run(100 * SECOND, &[2, 3]), "for as long as they complain");
        assert!(node.run(5 * SECOND, &[]), "they may have stood still");
        assert!(!node.run(10 * SECOND, &[]));
    }

    #[test]
    fn what_was_said_before_it_came_here_counts_for_nothing() {
        let mut node = Node { is_here: false, ..Node::new(&[2, 3]) };
        node.run(10 * SECOND, &[2, 3]);
        node.is_here = true;
        assert!(!node.run(Duration::ZERO, &[2, 3]), "they will hear it in a moment");
        assert!(!node.run(10 * SECOND, &[]));
    }

    #[test]
    fn what_is_said_of_a_group_that_is_not_here_is_another_nodes_matter() {
        let mut node = Node { is_here: false, ..Node::new(&[2]) };
        assert!(!node.run(10 * SECOND, &[2]));
    }
}
