//! The names of groups between nodes, and which groups a node may vote on.
//!
//! A lease is about a set of addresses. So a group's *label* is made of its name
//! and its VIPs, and a node that does not know a label has no vote on it. The
//! nodes of a cluster get another set of groups one after the other; meanwhile
//! these rules keep two nodes from answering for one VIP under two groups:
//!
//! - A voter votes on the sets that its groups have, and on the ones that a group
//!   had before its last changes. The caller names those only if none of their
//!   VIPs, nor of the new set's, has gone from one group to another; else the
//!   group is a new one to this node.
//! - A voter does not vote on a new or changed set until T_accept after the
//!   change: by then the lease that it voted for before, which may have had a VIP
//!   in another group, has run out.
//!
//! Two leases with a VIP in common would need two majorities. These have a voter
//! in common, and that voter never votes for both.
//!
//! A node that asks for leases goes on with the former set until a majority has
//! had the new one for long enough to vote on it. It answers for VIPs that are
//! new in a group only after its lease is one of the new set:
//! [`Labels::covered`].

use std::{collections::BTreeMap, time::Duration};

use vip_common::BootNs;

use super::{
    by_group::ByGroup,
    config::{EngineConfig, GroupId, NodeId, NodeSet, PeerLoss, Timing},
    message::About,
    mutant::{Broken, Mutant},
};

/// A group with a set of VIPs, on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u64);

/// A group's labels as a process finds them at its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSpec {
    /// The set that it has.
    pub current: Label,
    /// Sets that it had before its last changes, newest first, if voters may
    /// still vote on them.
    pub formers: Vec<Label>,
    /// The one of all these under which this node asks for leases.
    pub asks: Label,
}

impl LabelSpec {
    /// A group that has not changed, or is new here.
    #[must_use]
    pub const fn only(current: Label) -> Self {
        Self { current, formers: Vec::new(), asks: current }
    }
}

/// Former sets of a group that a node still votes on; it forgets older ones.
pub const FORMERS_MAX: usize = 3;

/// How a message about a group names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A request for a vote: Prepare and Propose.
    Vote,
    /// An answer, which names the group as the question did.
    Answer,
    /// Anything else.
    Other,
}

impl Use {
    pub const fn of(about: &About) -> Self {
        match about {
            About::Prepare { .. } | About::Propose { .. } => Self::Vote,
            About::Promise { .. }
            | About::Accept { .. }
            | About::Refuse { .. }
            | About::Released { .. }
            | About::Ready { .. } => Self::Answer,
            About::Holding { .. }
            | About::Release { .. }
            | About::AskReady { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => Self::Other,
        }
    }
}

/// Turns groups into labels and back, for one peer.
pub(super) trait Naming {
    /// The label of `group` in a message to the peer; `None` if no message to the
    /// peer can name it.
    fn label(&self, group: GroupId, usage: Use) -> Option<Label>;
    /// The group that the peer means; `None` if this node does not have it, or
    /// may not vote on it now.
    fn group(&mut self, label: Label, usage: Use) -> Option<GroupId>;
    /// May a message to the peer name `group` by its number? Only if the number
    /// is the same there, and stands for the label that [`Naming::label`] would
    /// give.
    fn by_number(&self, group: GroupId, usage: Use) -> bool;
    /// The peer, which has our table, has named `group` by its number. Does this
    /// node have that group, and may it vote on it now?
    fn numbered(&mut self, group: GroupId, usage: Use) -> bool;
    /// The digest of all groups and labels of this node.
    fn table(&self) -> u64;
    /// The peer has sent the digest of its table. Are its numbers of groups ours?
    fn hear_table(&mut self, table: u64) -> bool;
}

/// Names groups by their numbers: for clusters whose groups never change.
pub(super) struct ByNumber;

impl Naming for ByNumber {
    fn label(&self, group: GroupId, _usage: Use) -> Option<Label> {
        Some(Label(group.0.into()))
    }

    fn group(&mut self, label: Label, _usage: Use) -> Option<GroupId> {
        u16::try_from(label.0).ok().map(GroupId)
    }

    fn by_number(&self, _group: GroupId, _usage: Use) -> bool {
        true
    }

    fn numbered(&mut self, _group: GroupId, _usage: Use) -> bool {
        true
    }

    fn table(&self) -> u64 {
        0
    }

    fn hear_table(&mut self, table: u64) -> bool {
        table == 0
    }
}

/// One set of a group.
#[derive(Clone, Copy, Debug)]
struct Known {
    label: Label,
    /// From when on this node may vote on it.
    votes_from: BootNs,
}

/// One group.
#[derive(Clone, Debug)]
struct GroupLabels {
    current: Known,
    /// Newest first.
    formers: Vec<Known>,
    /// The label under which this node asks for leases; and since when, if it is
    /// the current one.
    asks: Label,
    asks_since: Option<BootNs>,
}

impl GroupLabels {
    fn new(spec: &LabelSpec, now: BootNs) -> Self {
        let known = |label| Known { label, votes_from: now };
        Self {
            current: known(spec.current),
            formers: spec.formers.iter().copied().map(known).collect(),
            asks: spec.asks,
            asks_since: (spec.asks == spec.current).then_some(now),
        }
    }

    /// The same group with other sets. A set that is new here gets its votes from
    /// `votes_from` on; one that was there before keeps its time.
    fn changed(&self, spec: &LabelSpec, votes_from: BootNs, now: BootNs) -> Self {
        let known = |label| self.known(label).unwrap_or(Known { label, votes_from });
        let went_on = self.current.label == spec.current && self.asks == spec.current;
        let asks = if went_on { spec.current } else { spec.asks };
        Self {
            current: known(spec.current),
            formers: spec.formers.iter().copied().map(known).collect(),
            asks,
            asks_since: if went_on { self.asks_since } else { (asks == spec.current).then_some(now) },
        }
    }

    fn known(&self, label: Label) -> Option<Known> {
        std::iter::once(&self.current).chain(&self.formers).copied().find(|known| known.label == label)
    }
}

/// What a peer has said of its groups.
#[derive(Clone, Debug, Default)]
struct PeerTable {
    /// The digest of its table, since when it has been this one, and when the
    /// peer last sent it.
    table: Option<(u64, BootNs, BootNs)>,
    /// The label by which it last named a group, where that is not the current
    /// one.
    formers: BTreeMap<GroupId, Label>,
}

/// All labels of a node, and what its peers have said of theirs.
#[derive(Clone, Debug)]
pub struct Labels {
    me: NodeId,
    voters: NodeSet,
    majority: usize,
    pair: Option<PeerLoss>,
    timing: Timing,
    entries: ByGroup<GroupLabels>,
    by_label: BTreeMap<Label, GroupId>,
    table: u64,
    /// Since when this node has had this table.
    since: BootNs,
    peers: BTreeMap<NodeId, PeerTable>,
    broken: Broken,
}

impl Labels {
    /// The labels of a node whose engine starts at `now`. The engine decides by
    /// its silence from when on the node votes.
    ///
    /// `table` is a digest of all groups and labels: equal on nodes that have the
    /// same ones, different on others.
    #[must_use]
    pub fn new(config: &EngineConfig, specs: &[LabelSpec], table: u64, now: BootNs) -> Self {
        let mut labels = Self {
            me: config.me,
            voters: config.voters(),
            majority: config.majority(),
            pair: config.pair,
            timing: Timing::new(config.accept),
            entries: ByGroup::new(),
            by_label: BTreeMap::new(),
            table,
            since: now,
            peers: BTreeMap::new(),
            broken: Broken::chosen(),
        };
        labels.set(specs.iter().map(|spec| GroupLabels::new(spec, now)).collect());
        labels
    }

    fn set(&mut self, entries: ByGroup<GroupLabels>) {
        self.by_label.clear();
        for (id, entry) in entries.with_ids() {
            for known in std::iter::once(&entry.current).chain(&entry.formers) {
                self.by_label.insert(known.label, id);
            }
        }
        self.entries = entries;
    }

    /// Takes over another set of groups: for each its sets, and the number that
    /// it had before. A group begins anew if it was not there, or if voters no
    /// longer vote on the set under which this node asks for its leases: the
    /// engine is silent about it at first.
    pub fn reload(&mut self, groups: &[(Option<GroupId>, LabelSpec)], table: u64, now: BootNs) {
        let votes_from = now.plus(self.timing.accept);
        let entry = |(was, spec): &(Option<GroupId>, LabelSpec)| {
            let was = was.and_then(|was| self.entries.get(was));
            was.map_or_else(|| GroupLabels::new(spec, votes_from), |was| was.changed(spec, votes_from, now))
        };
        let entries = groups.iter().map(entry).collect();
        self.set(entries);
        if self.table != table {
            self.table = table;
            self.since = now;
        }
        for peer in self.peers.values_mut() {
            peer.formers.clear();
        }
    }

    /// Goes on to the current set of each group on which a majority can vote by
    /// now.
    pub fn advance(&mut self, now: BootNs) {
        if self.entries.iter().all(|entry| entry.asks_since.is_some()) || !self.is_settled(now) {
            return;
        }
        for entry in &mut self.entries {
            if entry.asks_since.is_none() && entry.current.votes_from <= now {
                entry.asks = entry.current.label;
                entry.asks_since = Some(now);
            }
        }
    }

    /// Has a majority had this table for longer than T_accept, whichever clock
    /// counts it?
    fn is_settled(&self, now: BootNs) -> bool {
        let margin = self.timing.accept / 4;
        let margin = if self.broken.is(Mutant::AsksTooEarly) { Duration::ZERO } else { margin };
        let wait = self.timing.accept.saturating_add(margin);
        let has_it = |node: NodeId| {
            if node == self.me {
                return self.since.plus(wait) <= now;
            }
            let table = self.peers.get(&node).and_then(|peer| peer.table);
            table.is_some_and(|(table, since, last)| {
                table == self.table && since.plus(wait) <= now && now.since(last) <= self.timing.heard
            })
        };
        let heard = |node: NodeId| {
            let table = self.peers.get(&node).and_then(|peer| peer.table);
            table.is_some_and(|(_, _, last)| now.since(last) <= self.timing.heard)
        };
        let have_it = self.voters.into_iter().filter(|&node| has_it(node)).count();
        // A node of a pair that takes what it does not hear goes on by itself; one that
        // holds does not, since the other may answer for its VIPs for as long as it likes.
        let goes_on = self.pair == Some(PeerLoss::Take)
            || (self.pair == Some(PeerLoss::Hold) && self.broken.is(Mutant::PairHoldSettles));
        let alone = goes_on && !self.voters.into_iter().any(|node| node != self.me && heard(node));
        have_it >= self.majority || (alone && has_it(self.me))
    }

    /// Does every lease that this node has, or gets from now on, include the VIPs
    /// that are new in `group`? `lease` is the end of its lease in the map.
    ///
    /// A lease that this node asked for before it went on to the current set ends
    /// at most T_hold after that, and a candidacy takes some time.
    #[must_use]
    pub fn covered(&self, group: GroupId, lease: Option<BootNs>, now: BootNs) -> bool {
        let Some(entry) = self.entries.get(group) else { return false };
        let Some(since) = entry.asks_since else { return false };
        match lease.filter(|until| *until > now) {
            Some(until) => entry.formers.is_empty() || until > since.plus(self.timing.hold),
            None => entry.formers.is_empty() || now > since.plus(self.timing.patience),
        }
    }

    /// The label under which this node asks for leases of `group` at present, and
    /// the one that it should have.
    #[must_use]
    pub fn asked(&self, group: GroupId) -> Option<(Label, Label)> {
        self.entries.get(group).map(|entry| (entry.asks, entry.current.label))
    }

    /// The digest of all groups and labels of this node.
    #[must_use]
    pub const fn table(&self) -> u64 {
        self.table
    }

    /// The group that has this label.
    #[must_use]
    pub fn find(&self, label: Label) -> Option<GroupId> {
        self.by_label.get(&label).copied()
    }

    /// Voters other than this node that have other groups, as each last said.
    #[must_use]
    pub fn differing(&self) -> Vec<NodeId> {
        let differs = |peer: &PeerTable| peer.table.is_some_and(|(table, ..)| table != self.table);
        self.peers.iter().filter(|(_, peer)| differs(peer)).map(|(node, _)| *node).collect()
    }

    /// These labels, for messages to and from `peer` at `now`.
    pub(super) fn with(&mut self, peer: NodeId, now: BootNs) -> WithPeer<'_> {
        WithPeer { labels: self, peer, now }
    }
}

/// [`Labels`] in messages to and from one peer.
pub(super) struct WithPeer<'a> {
    labels: &'a mut Labels,
    peer: NodeId,
    now: BootNs,
}

impl WithPeer<'_> {
    /// The peer means `group`, by this label or by the current one: does this
    /// node have that one, and may it vote on it now? Takes note of the peer's
    /// label.
    fn takes(&mut self, group: GroupId, label: Option<Label>, usage: Use) -> bool {
        let Some(entry) = self.labels.entries.get(group) else { return false };
        let former = label.filter(|label| *label != entry.current.label);
        let Some(known) = former.map_or(Some(entry.current), |label| entry.known(label)) else {
            return false;
        };
        let is_new = self.now < known.votes_from && !self.labels.broken.is(Mutant::ChangedSetVotes);
        if usage == Use::Vote && is_new {
            return false;
        }
        if usage != Use::Answer {
            let formers = &mut self.labels.peers.entry(self.peer).or_default().formers;
            match former {
                None => formers.remove(&group),
                Some(label) => formers.insert(group, label),
            };
        }
        true
    }
}

impl Naming for WithPeer<'_> {
    fn label(&self, group: GroupId, usage: Use) -> Option<Label> {
        let entry = self.labels.entries.get(group)?;
        let asked_by = self.labels.peers.get(&self.peer).and_then(|peer| peer.formers.get(&group));
        match (usage, asked_by) {
            (Use::Answer, Some(label)) => Some(*label),
            (Use::Answer, None) => Some(entry.current.label),
            (Use::Vote | Use::Other, _) => Some(entry.asks),
        }
    }

    fn group(&mut self, label: Label, usage: Use) -> Option<GroupId> {
        let group = *self.labels.by_label.get(&label)?;
        self.takes(group, Some(label), usage).then_some(group)
    }

    fn by_number(&self, group: GroupId, usage: Use) -> bool {
        let peer = self.labels.peers.get(&self.peer).and_then(|peer| peer.table);
        let Some(entry) = self.labels.entries.get(group) else { return false };
        let is_same = peer.is_some_and(|(table, ..)| table == self.labels.table);
        (is_same || self.labels.broken.is(Mutant::NumbersToAnybody))
            && self.label(group, usage) == Some(entry.current.label)
    }

    fn numbered(&mut self, group: GroupId, usage: Use) -> bool {
        self.takes(group, None, usage)
    }

    fn table(&self) -> u64 {
        self.labels.table
    }

    fn hear_table(&mut self, table: u64) -> bool {
        let (now, same) = (self.now, table == self.labels.table);
        let peer = self.labels.peers.entry(self.peer).or_default();
        let since = match peer.table {
            Some((known, since, last)) if known == table && now.since(last) <= self.labels.timing.heard => {
                since
            }
            Some(_) | None => now,
        };
        peer.table = Some((table, since, now));
        same || self.labels.broken.is(Mutant::NumbersOfAnyTable)
    }
}
