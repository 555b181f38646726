//! Property tests: three nodes on a network that loses, delays, reorders,
//! and repeats any datagram ever sent, while nodes restart at will.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// One event; its numbers are taken modulo what exists.
#[derive(Clone, Debug)]
enum Step {
    /// A node seals a payload for another.
    Send { from: u8, to: u8 },
    /// A datagram that was never delivered yet is delivered, in any order.
    Deliver { nth: usize },
    /// Any datagram ever sent is delivered, however often it was before.
    Replay { nth: usize },
    /// A node ends and starts with a new incarnation.
    Restart { node: u8 },
    /// Time goes on, and whoever has something due wakes.
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, 0_u8..3).prop_map(|(from, to)| Step::Send { from, to }),
        8 => any::<usize>().prop_map(|nth| Step::Deliver { nth }),
        6 => any::<usize>().prop_map(|nth| Step::Replay { nth }),
        1 => (0_u8..3).prop_map(|node| Step::Restart { node }),
        3 => (0_u64..150).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// A datagram that was sent, and what became of it.
struct Sent {
    to: u8,
    bytes: Vec<u8>,
    deliveries: u32,
}

/// The three nodes, everything they ever sent, and what was delivered.
struct World {
    nodes: Vec<Transport>,
    generations: Vec<u64>,
    sent: Vec<Sent>,
    payloads_sent: u64,
    payloads_received: BTreeSet<Vec<u8>>,
    /// For every ordered pair, the incarnation that is adopted.
    adopted: [[Option<u64>; 3]; 3],
    now: BootNs,
}

impl World {
    fn new() -> Self {
        let nodes = (0..3).map(|me| node(me, 1)).collect();
        let mut world = Self {
            nodes,
            generations: vec![1; 3],
            sent: Vec::new(),
            payloads_sent: 0,
            payloads_received: BTreeSet::new(),
            adopted: [[None; 3]; 3],
            now: T0,
        };
        world.wait(0);
        world
    }

    fn collect(&mut self) {
        for node in &mut self.nodes {
            while let Some((to, bytes)) = node.poll_transmit() {
                self.sent.push(Sent { to, bytes, deliveries: 0 });
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.plus(Duration::from_millis(ms));
        for node in &mut self.nodes {
            node.wake(self.now);
        }
        self.collect();
    }

    fn deliver(&mut self, nth: usize) -> Result<(), TestCaseError> {
        let sent = &mut self.sent[nth];
        sent.deliveries += 1;
        let (to, again) = (sent.to, sent.deliveries > 1);
        match self.nodes[usize::from(to)].receive(&sent.bytes, self.now) {
            Received::Payload { payload, .. } => {
                let (header, ..) = Header::decode(&sent.bytes).expect("our own");
                let live = identity(to, self.generations[usize::from(to)]).incarnation;
                prop_assert_eq!(header.dst_incarnation, live, "sealed for somebody else");
                prop_assert!(self.payloads_received.insert(payload), "a payload was delivered twice");
            }
            Received::Adopted { peer, incarnation, fresh, .. } => {
                prop_assert!(!again, "a replay changed an incarnation");
                let before = &mut self.adopted[usize::from(to)][usize::from(peer)];
                prop_assert_eq!(fresh, before.is_none());
                // Incarnations of these tests rise, so an adoption never goes back.
                prop_assert!(*before < Some(incarnation), "{:?} after {:?}", incarnation, before);
                *before = Some(incarnation);
            }
            Received::Handshake | Received::Rejected { .. } => {}
        }
        for me in 0..3_u8 {
            for peer in 0..3_u8 {
                let adopted = self.adopted[usize::from(me)][usize::from(peer)];
                prop_assert_eq!(self.nodes[usize::from(me)].incarnation(peer), adopted, "unannounced");
            }
        }
        self.collect();
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Send { from, to } => {
                if let Ok(bytes) = self.nodes[usize::from(from)].seal(to, &self.payloads_sent.to_be_bytes()) {
                    self.payloads_sent += 1;
                    self.sent.push(Sent { to, bytes, deliveries: 0 });
                }
            }
            Step::Deliver { nth } => {
                let waiting: Vec<_> =
                    (0..self.sent.len()).filter(|&n| self.sent[n].deliveries == 0).collect();
                if !waiting.is_empty() {
                    // Mostly the recent ones, so that handshakes get somewhere.
                    let recent = &waiting[waiting.len().saturating_sub(8)..];
                    self.deliver(recent[nth % recent.len()])?;
                }
            }
            Step::Replay { nth } => self.deliver(nth % self.sent.len())?,
            Step::Restart { node } => {
                let index = usize::from(node);
                self.generations[index] += 1;
                self.nodes[index] = super::node(node, self.generations[index]);
                self.adopted[index] = [None; 3];
                self.wait(0);
            }
            Step::Wait { ms } => self.wait(ms),
        }
        Ok(())
    }

    /// From now on nothing is lost, and nothing old turns up.
    fn heal(&mut self) -> Result<(), TestCaseError> {
        let mut next = self.sent.len();
        for _ in 0..30 {
            while next < self.sent.len() {
                self.deliver(next)?;
                next += 1;
            }
            self.wait(10);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_replay_displaces_an_incarnation_or_delivers_twice(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
        world.heal()?;
        for me in 0..3_u8 {
            for peer in (0..3_u8).filter(|&peer| peer != me) {
                let alive = identity(peer, world.generations[usize::from(peer)]).incarnation;
                prop_assert_eq!(world.nodes[usize::from(me)].incarnation(peer), Some(alive),
                    "{} is one-sided towards {}", me, peer);
                let bytes = world.nodes[usize::from(me)].seal(peer, b"alive").expect("connected");
                let outcome = world.nodes[usize::from(peer)].receive(&bytes, world.now);
                prop_assert_eq!(outcome, payload(me, b"alive"));
            }
        }
    }

    #[test]
    fn no_two_datagrams_share_key_and_nonce(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
        // One counter serves all keys of a direction, so it must be unique in
        // one life of a sender for one receiver.
        let mut seen = BTreeSet::new();
        for sent in &world.sent {
            let (header, ..) = Header::decode(&sent.bytes).expect("our own");
            let place = (header.src, header.src_incarnation, header.dst, header.counter);
            prop_assert!(seen.insert(place), "{:?} again", place);
        }
    }

    #[test]
    fn arbitrary_bytes_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
        let (_, mut b) = pair();
        let mut bytes = bytes;
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = WIRE_VERSION;
        }
        let outcome = b.receive(&bytes, T0);
        let is_rejected = matches!(outcome, Received::Rejected { .. });
        prop_assert!(is_rejected);
    }
}
