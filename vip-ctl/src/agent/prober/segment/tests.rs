//! Nodes with one interface each, whose answers arrive or not.

use super::*;
use crate::engine::PathEnd;

const TICK: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, node)
}

/// What is wrong with the way from an interface to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The data plane's answers.
    Plane,
    /// All answers.
    All,
}

/// So many nodes, 1 to that number.
struct Cluster {
    nodes: BTreeMap<u8, Segment>,
    /// By who answers and who asks.
    lost: BTreeMap<(u8, u8), Lost>,
    now: BootNs,
    questions: usize,
}

impl Cluster {
    fn new(count: u8) -> Self {
        let nodes = (1..=count).map(|node| (node, Segment::default())).collect();
        Self { nodes, lost: BTreeMap::new(), now: BootNs(1_000_000_000_000), questions: 0 }
    }

    /// Loses what `from` answers to these.
    fn lose(mut self, from: u8, askers: &[u8], lost: Lost) -> Self {
        self.lost.extend(askers.iter().map(|asker| ((from, *asker), lost)));
        self
    }

    fn run(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while self.now < until {
            self.turn();
            self.now = self.now.plus(TICK);
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        let mut said = Vec::new();
        for (asker, segment) in &mut self.nodes {
            let questions = segment.turn(now);
            self.questions += questions.len();
            for question in questions {
                let node = question.mac[5];
                assert_eq!((question.mac, question.address), (mac(node), address(node)));
                let lost = self.lost.get(&(node, *asker));
                if lost.is_none() {
                    segment.answered(mac(node), IfaceConfig::test_address(mac(node)).into());
                }
                if lost != Some(&Lost::All) {
                    segment.answered(mac(node), address(node));
                }
            }
            let ends = vec![PathEnd { mac: mac(*asker), address: address(*asker).into() }];
            said.extend(segment.say(now).map(|seen| (*asker, ends, seen)));
        }
        for (from, ends, seen) in said {
            for (to, segment) in self.nodes.iter_mut().filter(|(to, _)| **to != from) {
                let seen = seen.get(&NodeId(*to)).cloned().unwrap_or_default();
                let paths = Paths { ends: ends.clone(), seen };
                segment.hear(NodeId(from), &paths, &[mac(*to)].into(), now);
            }
        }
    }

    /// The nodes that are told that they are not heard, and by whom.
    fn silent(&self) -> Vec<(u8, Vec<u8>)> {
        let told = self.nodes.iter().map(|(node, segment)| (*node, segment.silent_for(mac(*node), self.now)));
        let told = told.filter(|(_, peers)| !peers.is_empty());
        told.map(|(node, peers)| (node, peers.iter().map(|peer| peer.0).collect())).collect()
    }
}

#[test]
fn whose_answers_do_not_arrive_is_told_within_three_seconds_and_so_is_the_end() {
    for count in [2, 3, 5] {
        let peers: Vec<u8> = (2..=count).collect();
        let mut cluster = Cluster::new(count).lose(1, &peers, Lost::Plane);
        cluster.run(3 * SECOND);
        assert_eq!(cluster.silent(), [(1, peers.clone())], "from the start");
        cluster.lost.clear();
        cluster.run(3 * SECOND);
        assert_eq!(cluster.silent(), [], "it is mended");
        cluster = cluster.lose(1, &peers, Lost::Plane);
        cluster.run(4 * SECOND);
        assert_eq!(cluster.silent(), [(1, peers)], "it breaks");
    }
}

#[test]
fn one_peer_of_two_condemns_nobody() {
    let mut cluster = Cluster::new(3).lose(1, &[2], Lost::Plane);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.silent(), []);
}

#[test]
fn a_host_that_is_away_and_an_asker_that_hears_nothing_say_nothing() {
    let mut cluster = Cluster::new(3).lose(1, &[2, 3], Lost::All);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.silent(), []);
    let mut cluster = Cluster::new(2).lose(1, &[2], Lost::All);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.silent(), []);
}

#[test]
fn a_network_that_lets_no_test_answers_through_condemns_nobody() {
    let mut cluster = Cluster::new(2).lose(1, &[2], Lost::Plane).lose(2, &[1], Lost::Plane);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.silent(), []);
    // It may as well be the mode of all of them.
    let now = cluster.now;
    assert!(cluster.nodes.iter().all(|(node, segment)| segment.is_heard(mac(*node), now) == Some(false)));
}

#[test]
fn what_was_said_is_forgotten_and_questions_are_few() {
    let mut cluster = Cluster::new(3).lose(1, &[2, 3], Lost::Plane);
    cluster.run(5 * SECOND);
    assert!(!cluster.silent().is_empty());
    cluster.questions = 0;
    cluster.run(10 * SECOND);
    assert!(cluster.questions <= 6 * 11, "each asks each once a second: {}", cluster.questions);
    cluster.now = cluster.now.plus(2 * FRESH);
    assert_eq!(cluster.silent(), [], "all others have gone");
}

#[test]
fn interfaces_that_go_and_questions_that_could_not_be_asked_are_forgotten() {
    let mut segment = Segment::default();
    let (peer, own) = (NodeId(2), [mac(1)].into());
    let ends = vec![PathEnd { mac: mac(2), address: address(2).into() }];
    let now = BootNs(1_000_000_000_000);
    segment.hear(peer, &Paths { ends, seen: vec![PathSeen { mac: mac(9), arrives: false }] }, &own, now);
    assert_eq!(segment.turn(now).len(), 1);
    assert!(segment.silent_for(mac(9), now).is_empty(), "that is no interface of this node");
    segment.unasked(mac(2), now);
    assert_eq!(segment.turn(now.plus(TICK)).len(), 0);
    assert_eq!(segment.turn(now.plus(SECOND)).len(), 1);
    segment.hear(peer, &Paths::default(), &own, now);
    assert_eq!(segment.turn(now.plus(5 * SECOND)).len(), 0, "it has gone");
}
