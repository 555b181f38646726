//! Nodes with one interface each, whose answers arrive or not.

use super::*;
use crate::engine::PathEnd;

const TICK: Duration = Duration::from_millis(250);
/// By which all ask.
const IFINDEX: u32 = 7;
const SECOND: Duration = Duration::from_secs(1);

fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn own(node: u8) -> IpAddr {
    address(node).into()
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
                segment.asked(question.of, vec![IFINDEX], now);
                let lost = self.lost.get(&(node, *asker));
                if lost.is_none() {
                    segment.answered(IFINDEX, mac(node), IfaceConfig::test_address(mac(node)).into());
                }
                if lost != Some(&Lost::All) {
                    segment.answered(IFINDEX, mac(node), address(node));
                }
            }
            let ends = vec![PathEnd { mac: mac(*asker), address: address(*asker).into() }];
            said.extend(segment.say(now).map(|seen| (*asker, ends, seen)));
        }
        for (from, ends, seen) in said {
            for (to, segment) in self.nodes.iter_mut().filter(|(to, _)| **to != from) {
                let seen = seen.get(&NodeId(*to)).cloned().unwrap_or_default();
                let paths = Paths { ends: ends.clone(), seen };
                segment.hear(NodeId(from), &paths, &[own(*to)].into(), now);
            }
        }
    }

    /// The nodes that are told that they are not heard, and by whom.
    fn silent(&self) -> Vec<(u8, Vec<u8>)> {
        let told =
            self.nodes.iter().map(|(node, segment)| (*node, segment.silent_for((own(*node), 24), self.now)));
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
    assert!(cluster.nodes.iter().all(|(node, segment)| segment.is_heard(own(*node), now) == Some(false)));
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
    let (peer, ours) = (NodeId(2), [own(1)].into());
    let ends = vec![PathEnd { mac: mac(2), address: address(2).into() }];
    let now = BootNs(1_000_000_000_000);
    segment.hear(peer, &Paths { ends, seen: vec![PathSeen { address: own(9), arrives: false }] }, &ours, now);
    assert!(segment.silent_for((own(9), 24), now).is_empty(), "that is no interface of this node");
    let [question] = segment.turn(now)[..] else { panic!("there is one to ask") };
    segment.asked(question.of, Vec::new(), now);
    assert_eq!(segment.turn(now.plus(TICK)).len(), 0);
    assert_eq!(segment.turn(now.plus(SECOND)).len(), 1);
    segment.hear(peer, &Paths::default(), &ours, now);
    assert_eq!(segment.turn(now.plus(5 * SECOND)).len(), 0, "it has gone");
}

#[test]
fn interfaces_with_one_hardware_address_are_not_taken_for_each_other() {
    // As a VLAN's and the one below it, both asked by interfaces of their own.
    let mut segment = Segment::default();
    let ends = [2, 3].map(|last| PathEnd { mac: mac(2), address: own(last) }).to_vec();
    let mut now = BootNs(1_000_000_000_000);
    for _ in 0..8 {
        segment.hear(NodeId(2), &Paths { ends: ends.clone(), seen: Vec::new() }, &BTreeSet::new(), now);
        for question in segment.turn(now) {
            let last = question.address.octets()[3];
            segment.asked(question.of, vec![u32::from(last)], now);
            segment.answered(u32::from(last), mac(2), question.address);
            if last == 2 {
                segment.answered(2, mac(2), IfaceConfig::test_address(mac(2)).into());
            }
        }
        now = now.plus(TICK);
    }
    let seen = segment.say(now).unwrap().remove(&NodeId(2)).unwrap();
    let expected = [(2, true), (3, false)].map(|(last, arrives)| PathSeen { address: own(last), arrives });
    assert_eq!(seen, expected);
}

#[test]
fn who_says_nothing_any_more_is_asked_no_longer() {
    let mut cluster = Cluster::new(2);
    cluster.run(5 * SECOND);
    let segment = cluster.nodes.get_mut(&1).unwrap();
    assert!(
        segment.turn(cluster.now.plus(KNOWN / 2)).len() == 1
            && segment.turn(cluster.now.plus(2 * KNOWN)).is_empty()
    );
}

#[test]
fn whose_answers_arrive_in_one_network_is_not_believed_of_another() {
    let mut segment = Segment::default();
    let (lan, wan): (IpAddr, IpAddr) = (own(2), [203, 0, 113, 2].into());
    let ours: IpAddr = [203, 0, 113, 1].into();
    let ends = [(lan, mac(2)), (wan, mac(3))].map(|(address, mac)| PathEnd { mac, address }).to_vec();
    let paths = Paths { ends, seen: vec![PathSeen { address: ours, arrives: false }] };
    let mut now = BootNs(1_000_000_000_000);
    for _ in 0..8 {
        segment.hear(NodeId(2), &paths, &[ours].into(), now);
        for question in segment.turn(now) {
            segment.asked(question.of, vec![IFINDEX], now);
            segment.answered(IFINDEX, question.mac, question.address);
            if question.of.1 == lan {
                segment.answered(IFINDEX, mac(2), IfaceConfig::test_address(mac(2)).into());
            }
        }
        now = now.plus(TICK);
    }
    assert_eq!(segment.silent_for((ours, 24), now), [], "that network lets no test answers through");
    assert_eq!(segment.silent_for((ours, 0), now), [NodeId(2)], "unless it is the same one");
    assert_eq!(segment.is_heard(ours, now), Some(false));
}

#[test]
fn what_was_found_of_a_former_process_is_forgotten() {
    let mut cluster = Cluster::new(2).lose(1, &[2], Lost::Plane);
    cluster.run(5 * SECOND);
    let now = cluster.now;
    let peer = cluster.nodes.get_mut(&2).unwrap();
    // As the lease loop says when the node has a new incarnation.
    peer.hear(NodeId(1), &Paths::default(), &BTreeSet::new(), now);
    assert_eq!(peer.say(now.plus(SAY)).unwrap().get(&NodeId(1)), None);
}

#[test]
fn frames_go_on_to_nodes_whose_data_plane_is_heard() {
    let mut cluster = Cluster::new(4);
    cluster.run(SECOND * 3);
    let of_first = |cluster: &Cluster| -> Vec<_> {
        cluster.nodes[&1].neighbours(cluster.now).map(|(by, node, mac)| (by, node.0, mac)).collect()
    };
    let all = [2, 3, 4].map(|node| (IFINDEX, node, mac(node)));
    assert_eq!(of_first(&cluster), all);
    let mut cluster = cluster.lose(2, &[1], Lost::Plane).lose(3, &[1], Lost::All);
    cluster.run(FRESH + SECOND * 2);
    assert_eq!(of_first(&cluster), all[2..]);
}
