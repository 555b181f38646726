//! Do answers arrive between the interfaces of two nodes? Each node asks each interface of
//! its peers for two addresses: one that the host's own stack answers for, and one that the
//! data plane does, under any lease. Where the first is answered and the second is not, the
//! asker can hear, and the data plane's answers get lost. Touches no clock or socket.
//!
//! A node is told so by its peers, since it sees its own answers leave. It believes those
//! whose own test answers arrive here: a network that lets none through, because it knows
//! who may have which address, condemns nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use vip_common::{BootNs, IfaceConfig};

use crate::{
    engine::{NodeId, PathSeen, Paths},
    host::is_on_link,
    mutant::{self, Mutant},
};

/// How long a round of questions takes.
const ROUND: Duration = Duration::from_secs(1);
/// And how long while the host is heard, and its data plane is not, or not yet.
const ROUND_IN_DOUBT: Duration = Duration::from_millis(250);
/// How long to wait for an answer, which comes within a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);
/// After so many rounds in a row the data plane's answers do not arrive.
const MISSES: u8 = 3;
/// For how long what was found is true: a round, and three that bring no answer.
const FRESH: Duration = Duration::from_secs(4);
/// For how long what was said is: twice as long as a peer waits to say it again, and some.
const SAID: Duration = Duration::from_millis(2_500);
/// How often the peers hear of this node's interfaces and of their own.
const SAY: Duration = Duration::from_secs(1);

/// For how long a peer is asked that has said nothing more.
const KNOWN: Duration = Duration::from_secs(10);

/// The interface of a peer, by its address.
pub(super) type Place = (NodeId, IpAddr);
/// An interface of this node, by its address and the length of that one's prefix.
pub(super) type Own = (IpAddr, u8);

/// What this node has found, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Segment {
    tests: BTreeMap<Place, Test>,
    /// When each peer has last told of its interfaces.
    heard: BTreeMap<NodeId, BootNs>,
    /// What peers say of this node's interfaces, by their addresses.
    votes: BTreeMap<IpAddr, BTreeMap<NodeId, (bool, BootNs)>>,
    said: Option<BootNs>,
    is_news: bool,
}

/// Of one interface of a peer.
#[derive(Debug)]
struct Test {
    mac: [u8; 6],
    /// The interfaces of this node that asked in the current round.
    by: Vec<u32>,
    /// When the current round began; `None` between two.
    asked: Option<BootNs>,
    /// When the next one begins.
    next: BootNs,
    /// Has the host's stack answered in this round, and has the data plane?
    stack: bool,
    plane: bool,
    /// The interfaces by which the data plane answered in the last round that it did.
    via: BTreeSet<u32>,
    misses: u8,
    /// What was found last, and when.
    found: Option<(bool, BootNs)>,
}

/// Both addresses of this interface are to be asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) of: Place,
    pub(super) mac: [u8; 6],
    /// The one that the host's stack answers for.
    pub(super) address: Ipv4Addr,
}

impl Segment {
    /// A peer has told of its interfaces, and what it has found about this node's, which
    /// have these addresses.
    pub(super) fn hear(&mut self, from: NodeId, paths: &Paths, own: &BTreeSet<IpAddr>, now: BootNs) {
        self.heard.insert(from, now);
        let ends: BTreeMap<_, _> = paths.ends.iter().map(|end| (end.address, end.mac)).collect();
        self.tests.retain(|(node, address), _| *node != from || ends.contains_key(address));
        for (address, mac) in ends {
            let test = self.tests.entry((from, address)).or_insert_with(|| Test::new(mac, now));
            if test.mac != mac {
                *test = Test::new(mac, now);
            }
        }
        for PathSeen { address, arrives } in &paths.seen {
            if own.contains(address) {
                self.votes.entry(*address).or_default().insert(from, (*arrives, now));
            }
        }
        self.votes.retain(|address, _| own.contains(address));
    }

    /// Who is to be asked now: [`Segment::asked`] says by which interfaces. Ends the rounds
    /// that are over.
    pub(super) fn turn(&mut self, now: BootNs) -> Vec<Question> {
        self.heard.retain(|_, heard| now.since(*heard) <= KNOWN);
        self.tests.retain(|(node, _), _| self.heard.contains_key(node));
        let mut questions = Vec::new();
        for (of, test) in &mut self.tests {
            self.is_news |= test.end_round(now);
            let (_, IpAddr::V4(address)) = *of else { continue };
            if test.asked.is_none() && test.next <= now {
                questions.push(Question { of: *of, mac: test.mac, address });
            }
        }
        questions
    }

    /// The question has left by these interfaces; where by none, silence means nothing.
    pub(super) fn asked(&mut self, of: Place, by: Vec<u32>, now: BootNs) {
        let Some(test) = self.tests.get_mut(&of) else { return };
        if by.is_empty() {
            (test.next, test.misses) = (now.plus(ROUND), 0);
        } else {
            (test.asked, test.stack, test.plane, test.by) = (Some(now), false, false, by);
        }
    }

    /// A host has answered, to this interface, that `address` is at `mac`.
    pub(super) fn answered(&mut self, by: u32, mac: [u8; 6], address: Ipv4Addr) {
        for ((_, own), test) in &mut self.tests {
            if test.mac == mac && test.by.contains(&by) {
                test.stack |= *own == address;
                if IfaceConfig::test_address(mac) == address.octets() {
                    if !std::mem::replace(&mut test.plane, true) {
                        test.via.clear();
                    }
                    test.via.insert(by);
                }
            }
        }
    }

    /// What the peers are to hear now, each of its own interfaces; `None` if it is not time.
    pub(super) fn say(&mut self, now: BootNs) -> Option<BTreeMap<NodeId, Vec<PathSeen>>> {
        let is_due = self.said.is_none_or(|said| now.since(said) >= SAY);
        if !is_due && !std::mem::take(&mut self.is_news) {
            return None;
        }
        (self.said, self.is_news) = (Some(now), false);
        let mut seen: BTreeMap<NodeId, Vec<PathSeen>> = BTreeMap::new();
        for ((node, address), test) in &self.tests {
            if let Some(arrives) = test.arrives(now) {
                seen.entry(*node).or_default().push(PathSeen { address: *address, arrives });
            }
        }
        Some(seen)
    }

    /// The peers that hear nothing of the data plane on this interface of this node, where
    /// they are more than those that do.
    pub(super) fn silent_for(&self, own: Own, now: BootNs) -> Vec<NodeId> {
        self.silent_by(own.0, now, |peer| self.hears(peer, own, now) || mutant::is(Mutant::DeafBelieved))
    }

    /// Do most peers hear the data plane there, also those whose own answers do not arrive
    /// here? `None` where none says anything.
    pub(super) fn is_heard(&self, own: IpAddr, now: BootNs) -> Option<bool> {
        let is_told = self.votes.get(&own)?.values().any(|(_, said)| now.since(*said) <= SAID);
        is_told.then(|| self.silent_by(own, now, |_| true).is_empty())
    }

    /// The peers whose data plane is heard by each interface, and where: a frame that is
    /// sent there arrives.
    pub(super) fn neighbours(&self, now: BootNs) -> impl Iterator<Item = (u32, NodeId, [u8; 6])> {
        let is_heard =
            move |test: &Test| test.arrives(now) == Some(true) || mutant::is(Mutant::SteersUnheard);
        let heard = self.tests.iter().filter(move |(_, test)| is_heard(test));
        heard.flat_map(|((node, _), test)| test.via.iter().map(|by| (*by, *node, test.mac)))
    }

    /// The peers that have said something of this interface of late: they are on its segment.
    pub(super) fn on_segment(&self, own: IpAddr, now: BootNs) -> impl Iterator<Item = NodeId> {
        let votes = self.votes.get(&own).into_iter().flatten();
        votes.filter(move |(_, (_, said))| now.since(*said) <= SAID).map(|(peer, _)| *peer)
    }

    /// The nodes whose hosts answer, each with an interface that hears them.
    pub(super) fn hosts(&self, now: BootNs) -> BTreeSet<(u32, NodeId)> {
        let heard = self.tests.iter().filter(|(_, test)| test.arrives(now).is_some());
        heard.flat_map(|((node, _), test)| test.by.iter().map(|by| (*by, *node))).collect()
    }

    /// Do the test answers of this peer arrive, in the subnet of that interface? Another
    /// network says nothing of this one.
    fn hears(&self, peer: NodeId, own: Own, now: BootNs) -> bool {
        let is_near = |address| is_on_link(&[own], address) || mutant::is(Mutant::FarBelieved);
        let mut tests = self.tests.iter().filter(|((node, address), _)| *node == peer && is_near(*address));
        tests.any(|(_, test)| test.arrives(now) == Some(true))
    }

    fn silent_by(&self, own: IpAddr, now: BootNs, is_believed: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let is_fresh = |since: BootNs| now.since(since) <= SAID;
        let votes = self.votes.get(&own).into_iter().flatten();
        let votes = votes.filter(|(peer, (_, said))| is_fresh(*said) && is_believed(**peer));
        let (well, silent): (Vec<_>, Vec<_>) = votes.partition(|(_, (arrives, _))| *arrives);
        let is_most = silent.len() > well.len() || mutant::is(Mutant::OneCondemns);
        if is_most { silent.into_iter().map(|(peer, _)| *peer).collect() } else { Vec::new() }
    }
}

impl Test {
    const fn new(mac: [u8; 6], next: BootNs) -> Self {
        Self {
            mac,
            by: Vec::new(),
            asked: None,
            next,
            stack: false,
            plane: false,
            via: BTreeSet::new(),
            misses: 0,
            found: None,
        }
    }

    fn arrives(&self, now: BootNs) -> Option<bool> {
        self.found.filter(|(_, at)| now.since(*at) <= FRESH).map(|(arrives, _)| arrives)
    }

    /// Ends the round if it is over; true if something else is known than before.
    fn end_round(&mut self, now: BootNs) -> bool {
        let Some(asked) = self.asked else { return false };
        if !self.plane && now.since(asked) < PATIENCE {
            return false;
        }
        let before = self.arrives(now);
        if self.plane {
            (self.misses, self.found) = (0, Some((true, now)));
        } else if self.stack || mutant::is(Mutant::HostMissed) {
            self.misses = (self.misses + 1).min(MISSES);
            if self.misses == MISSES {
                self.found = Some((false, now));
            }
        }
        // Who is away, or on another segment, has its turn as those have of whom all is known.
        let is_in_doubt = self.stack && !self.plane && self.misses < MISSES;
        self.asked = None;
        self.next = asked.plus(if is_in_doubt { ROUND_IN_DOUBT } else { ROUND });
        self.arrives(now) != before
    }
}

#[cfg(test)]
mod tests;
