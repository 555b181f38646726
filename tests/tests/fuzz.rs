//! Fuzz targets for what comes from the network. Under `cargo test` they run
//! for a few seconds on random bytes; `cargo bolero test -p vip-tests NAME`
//! runs one with a fuzzer, for as long as wanted.
//!
//! [`packets_of_peers`]: whatever authenticated peers send, an engine neither panics nor spins,
//! and sends a bounded number of messages.
//! [`packets_by_labels`]: the decoder that agents use, which finds groups by their labels,
//! survives any bytes, and decodes what a peer with the same groups encodes.
//! [`datagrams_of_strangers`]: the transport drops whatever no peer has sealed. It sends no
//! answer and changes nothing.

use std::{collections::VecDeque, time::Duration};

use vip_common::{BootNs, Lease};
use vip_ctl::{
    engine::{
        About, AskId, Ballot, Claim, Command, CommandId, Engine, EngineConfig, Epoch, GroupId, GroupSpec,
        Incarnation, Input, Label, LabelSpec, Labels, Message, NodeId, NodeSpec, Output, PAYLOAD_MAX, Packet,
        Pause, Refused, RequestId, Role, Verdict,
    },
    transport::{Identity, KeyId, KeyRing, Psk, Received, Transport},
};

/// How long each target runs in an ordinary test run.
const TEST_TIME: Duration = Duration::from_secs(3);
/// Bytes of one input: room for some dozens of packets.
const INPUT_MAX: usize = 2048;

const T0: BootNs = BootNs(10_000_000_000);
const ACCEPT: Duration = Duration::from_millis(100);
const GROUPS: u16 = 3;
/// Two nodes and a witness that talk to this one.
const PEERS: u8 = 3;
/// The most outputs of an engine that handles no message: what is due for each group, and what
/// the node does as a whole.
const OUTPUTS_MAX: usize = 64;
/// How many questions of the engine wait for an answer; older ones count as lost.
const ASKED_MAX: usize = 48;
/// Wake-ups that an engine may ask for at one moment.
const WAKES_MAX: u32 = 8;

/// The input, taken byte by byte; zeros when it is used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.u8() % end
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn claim(&mut self) -> Claim {
        match self.below(3) {
            0 => Claim::Asked,
            1 => Claim::Held,
            _ => Claim::Forced,
        }
    }

    /// Mostly a small number, so that equal ones are common; sometimes one near the maximum.
    fn u64(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=247 => u64::from(small),
            high => u64::MAX - u64::from(high - 248),
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head.to_vec()
    }

    fn ballot(&mut self) -> Ballot {
        let incarnation = Incarnation(u64::from(self.below(3)));
        Ballot { round: self.u64(), incarnation, node: self.node() }
    }

    /// This node, a peer, or somebody who does not exist.
    fn node(&mut self) -> NodeId {
        NodeId(self.below(PEERS + 2))
    }

    fn maybe_node(&mut self) -> Option<NodeId> {
        self.flag().then(|| self.node())
    }

    /// A group; the last one does not exist.
    fn group(&mut self) -> GroupId {
        GroupId(u16::from(self.u8()) % (GROUPS + 1))
    }

    fn epoch(&mut self) -> Epoch {
        Epoch(self.u64())
    }

    fn duration(&mut self) -> Duration {
        match self.u8() {
            255 => Duration::from_nanos(u64::MAX),
            ms => Duration::from_millis(u64::from(ms)),
        }
    }

    fn request(&mut self) -> RequestId {
        let incarnation = Incarnation(u64::from(self.below(3)));
        RequestId { incarnation, command: CommandId(self.u64()) }
    }

    fn command(&mut self) -> Command {
        let group = self.group();
        match self.below(6) {
            0 => Command::Promote { group, to: self.node() },
            1 => Command::Demote { group },
            2 => Command::Switchover { group, to: self.maybe_node() },
            3 => Command::Force { group },
            4 => {
                let on = self.flag();
                Command::Standby { node: self.node(), on, force: on && self.flag() }
            }
            _ => Command::Pause { on: self.flag() },
        }
    }

    fn message(&mut self) -> Message {
        match self.below(14) {
            13 => {
                let pause = Pause { version: self.u64(), on: self.flag() };
                Message::Node { standby: self.flag(), pause, highest: Epoch(self.u64()) }
            }
            0 => {
                let (first, count) = (self.group(), self.below(10));
                Message::Heartbeat { first, ready: (0..count).map(|_| self.flag()).collect() }
            }
            1 => Message::Request { request: self.request(), epoch: self.epoch(), command: self.command() },
            2 => {
                let verdict = Verdict::Started { successor: self.maybe_node() };
                Message::Verdict { request: self.request(), verdict }
            }
            kind => Message::Group { group: self.group(), about: self.about(kind) },
        }
    }

    fn about(&mut self, kind: u8) -> About {
        match kind {
            3 => About::Prepare { ballot: self.ballot() },
            4 => {
                let yours = self.flag().then(|| self.epoch());
                About::Promise { ballot: self.ballot(), epoch: self.epoch(), yours }
            }
            5 => About::Propose { ballot: self.ballot(), epoch: self.epoch(), claim: self.claim() },
            6 => About::Accept { ballot: self.ballot() },
            7 => About::Holding { ballot: self.ballot() },
            8 => {
                let because = match self.below(4) {
                    0 => {
                        let (ballot, epoch) = (self.ballot(), self.epoch());
                        Refused::Held { ballot, epoch, claim: self.claim(), remaining: self.duration() }
                    }
                    1 => Refused::Promised { ballot: self.ballot() },
                    2 => Refused::Reserved { successor: self.node(), remaining: self.duration() },
                    _ => Refused::Silent { remaining: self.duration() },
                };
                About::Refuse { ballot: self.ballot(), because }
            }
            9 => About::Release { ballot: self.ballot(), successor: self.maybe_node() },
            10 => About::Released { ballot: self.ballot() },
            11 => About::AskReady { ask: AskId(self.u64()) },
            _ => About::Ready { ask: AskId(self.u64()), ready: self.flag() },
        }
    }
}

/// The configuration of every engine in these tests.
fn config(bytes: &mut Bytes<'_>) -> EngineConfig {
    let mut nodes = vec![NodeSpec { role: Role::Node }; usize::from(PEERS) + 1];
    nodes[usize::from(PEERS)].role = Role::Witness;
    let priorities = (0..=PEERS).map(|_| bytes.below(254) + 1).collect();
    let groups = vec![GroupSpec { priorities, preempt: Some(ACCEPT) }; usize::from(GROUPS)];
    EngineConfig::new(NodeId(bytes.below(PEERS + 1)), Incarnation(1), nodes, groups, ACCEPT)
}

/// An engine, and what its map would hold.
struct Subject {
    engine: Engine,
    now: BootNs,
    /// Its questions that no peer has answered yet, oldest first.
    asked: VecDeque<(NodeId, GroupId, About)>,
    /// Leases that it won or renewed.
    leases: u64,
}

impl Subject {
    /// Gives an input and takes all outputs, which must be few and sound.
    fn give(&mut self, input: Input, messages: usize) {
        self.engine.handle(input, self.now);
        let mut outputs = 0;
        while let Some(output) = self.engine.poll_output() {
            outputs += 1;
            self.look_at(output);
        }
        let bound = OUTPUTS_MAX + messages * usize::from(PEERS) * 4;
        assert!(outputs <= bound, "{outputs} outputs after {messages} messages");
    }

    fn look_at(&mut self, output: Output) {
        match output {
            Output::Send { to, packet } => {
                let mut read = Vec::new();
                for payload in packet.encode() {
                    assert!(payload.len() <= PAYLOAD_MAX);
                    read.extend(Packet::decode(&payload).expect("one of ours").messages);
                }
                assert_eq!(read, packet.messages);
                for message in packet.messages {
                    if let Message::Group { group, about } = message {
                        self.asked.push_back((to, group, about));
                    }
                }
                while self.asked.len() > ASKED_MAX {
                    self.asked.pop_front();
                }
            }
            Output::StoreLease { lease, .. } => {
                let until = lease.expiry().unwrap_or(self.now);
                assert!(lease == Lease::NONE || until > self.now, "a lease of the past");
                assert!(until.since(self.now) <= self.engine.hold(), "a lease beyond T_hold");
                self.leases += u64::from(lease != Lease::NONE);
            }
            Output::Announce { .. }
            | Output::Changed(_)
            | Output::RaiseCeiling { .. }
            | Output::Remember { .. }
            | Output::Done { .. }
            | Output::Correct { .. }
            | Output::Unheard { .. }
            | Output::Stopped => {}
        }
    }

    /// Lets time pass, and wakes the engine when it wants.
    fn wait(&mut self, how_long: Duration) {
        let end = self.now.plus(how_long);
        let mut wakes = 0;
        while let Some(due) = self.engine.next_deadline().filter(|&due| due <= end) {
            wakes = if due <= self.now { wakes + 1 } else { 0 };
            assert!(wakes <= WAKES_MAX, "it spins");
            self.now = self.now.max(due);
            self.give(Input::Wake, 0);
        }
        self.now = end;
    }

    /// Answers the oldest question, as a peer would that knows of no other node.
    fn answer(&mut self) {
        let Some((from, group, about)) = self.asked.pop_front() else { return };
        let about = match about {
            About::Prepare { ballot } => About::Promise { ballot, epoch: Epoch(1), yours: None },
            About::Propose { ballot, .. } => About::Accept { ballot },
            About::Release { ballot, .. } => About::Released { ballot },
            About::AskReady { ask } => About::Ready { ask, ready: true },
            About::Promise { .. }
            | About::Accept { .. }
            | About::Holding { .. }
            | About::Refuse { .. }
            | About::Released { .. }
            | About::Ready { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => return,
        };
        let packet = Packet { messages: vec![Message::Group { group, about }] };
        self.give(Input::Message { from, packet }, 1);
    }
}

/// Plays an input; returns how many leases were won or renewed.
fn play(input: &[u8]) -> u64 {
    let mut bytes = Bytes(input);
    let config = config(&mut bytes);
    let held = [(GroupId(0), T0.plus(Duration::from_millis(u64::from(bytes.u8()))))];
    let engine = Engine::new(config, &held, T0);
    let mut subject = Subject { engine, now: T0, asked: VecDeque::new(), leases: 0 };
    for group in 0..GROUPS {
        subject.give(Input::Eligible { group: GroupId(group), eligible: true }, 0);
    }
    while !bytes.is_empty() {
        match bytes.below(16) {
            0..4 => {
                let (from, count) = (bytes.node(), bytes.below(4) + 1);
                let packet = Packet { messages: (0..count).map(|_| bytes.message()).collect() };
                let messages = packet.messages.len();
                subject.give(Input::Message { from, packet }, messages);
            }
            4..8 => (0..bytes.below(16)).for_each(|_| subject.answer()),
            8 => {
                let (from, len) = (bytes.node(), usize::from(bytes.u8()));
                if let Ok(packet) = Packet::decode(&bytes.take(len)) {
                    let messages = packet.messages.len();
                    subject.give(Input::Message { from, packet }, messages);
                }
            }
            9..14 => {
                // Mostly less than a renewal takes, sometimes more than a lease lasts.
                let how_long = match bytes.u8() {
                    short @ 0..250 => Duration::from_micros(u64::from(short) * 100),
                    long => ACCEPT * u32::from(long - 249),
                };
                subject.wait(how_long);
            }
            14 => {
                let (id, command) = (CommandId(bytes.u64()), bytes.command());
                subject.give(Input::Command { id, command }, 0);
            }
            _ => {
                let input = match bytes.below(8) {
                    0 => Input::Stop,
                    1..5 => Input::Eligible { group: bytes.group(), eligible: true },
                    5 => Input::Unwell { group: bytes.group() },
                    _ => Input::Eligible { group: bytes.group(), eligible: false },
                };
                subject.give(input, 0);
            }
        }
    }
    subject.wait(ACCEPT * 20);
    let _ = subject.engine.status(subject.now);
    subject.leases
}

#[test]
fn packets_of_peers() {
    let target = bolero::check!().with_test_time(TEST_TIME).with_max_len(INPUT_MAX);
    target.for_each(|input: &[u8]| {
        play(input);
    });
}

/// If engines never won a lease in the target, it would test little.
#[test]
fn packets_of_peers_win_leases() {
    let inputs = (0_u64..300).map(|seed| {
        let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes = std::iter::repeat_with(move || {
            // Xorshift (Marsaglia).
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            bits.to_be_bytes()[0]
        });
        bytes.take(INPUT_MAX).collect::<Vec<_>>()
    });
    let leases: u64 = inputs.map(|input| play(&input)).sum();
    println!("{leases} leases");
    assert!(leases > 0);
}

#[test]
fn packets_by_labels() {
    let target = bolero::check!().with_test_time(TEST_TIME).with_max_len(INPUT_MAX);
    target.for_each(|input: &[u8]| {
        let mut bytes = Bytes(input);
        let (mut config, table) = (config(&mut bytes), 7);
        let sets: Vec<_> = (0..GROUPS).map(|group| LabelSpec::only(Label(u64::from(group) + 100))).collect();
        let me = config.me;
        let peer = NodeId(u8::from(me == NodeId(0)));
        let mut own = Labels::new(&config, &sets, table, T0);
        config.me = peer;
        let mut theirs = Labels::new(&config, &sets, table, T0);
        let mut now = T0;
        while !bytes.is_empty() {
            let packet = Packet { messages: (0..bytes.below(6)).map(|_| bytes.message()).collect() };
            let payloads = packet.encode_for(me, &mut theirs, now);
            if bytes.flag() {
                // An intact packet decodes, and may lose only messages about groups that this
                // node must not vote on.
                let received = payloads.iter().map(|sent| {
                    let received = Packet::decode_from(sent, peer, &mut own, now);
                    received.expect("what a peer encodes").messages.len()
                });
                assert!(received.sum::<usize>() <= packet.messages.len());
            } else {
                let mut sent = payloads.concat();
                let place = usize::from(bytes.u8()) % sent.len().max(1);
                if bytes.flag() {
                    sent.truncate(place);
                } else if let Some(byte) = sent.get_mut(place) {
                    *byte ^= bytes.u8();
                }
                let len = usize::from(bytes.u8());
                sent.extend(bytes.take(len));
                // It may be no packet any more: decoding it must not panic.
                let _ = Packet::decode_from(&sent, peer, &mut own, now);
            }
            now = now.plus(bytes.duration());
        }
    });
}

fn transport(me: u8, life: u64) -> Transport {
    let keys = KeyRing::new((KeyId(1), Psk::new([7; 32])), None).expect("one key");
    let identity = Identity {
        me,
        incarnation: u64::from(me) * 1000 + life,
        cluster: "shop".to_owned(),
        config_digest: 77,
        generation: 1,
        nodes_digest: 7,
        is_member: true,
        peers: vec![0, 1],
    };
    let byte = u8::try_from(life).unwrap_or(0);
    Transport::new(identity, keys, [byte.wrapping_mul(16) + me; 32])
}

/// Two transports that know each other, and everything that was said.
fn connected() -> (Transport, Transport, Vec<Vec<u8>>) {
    let (mut a, mut b) = (transport(0, 1), transport(1, 1));
    let mut said = Vec::new();
    a.wake(T0);
    for _ in 0..6 {
        while let Some((_, datagram)) = a.poll_transmit() {
            b.receive(&datagram, T0);
            said.push(datagram);
        }
        while let Some((_, datagram)) = b.poll_transmit() {
            a.receive(&datagram, T0);
            said.push(datagram);
        }
    }
    assert!(a.connected(1) && b.connected(0));
    said.push(a.seal(1, b"a payload").expect("connected"));
    (a, b, said)
}

fn receive(input: &[u8]) {
    let (_, connected, said) = connected();
    let mut bytes = Bytes(input);
    let mut b = if bytes.flag() { connected } else { transport(1, 2) };
    let mut datagram = said[usize::from(bytes.u8()) % said.len()].clone();
    match bytes.below(3) {
        0 => datagram.iter_mut().for_each(|byte| *byte ^= bytes.u8()),
        1 => datagram.truncate(usize::from(bytes.u8())),
        _ => datagram = bytes.take(INPUT_MAX),
    }
    if said.contains(&datagram) {
        return;
    }
    let standing = |of: &Transport| (of.incarnation(0), of.next_deadline());
    let before = standing(&b);
    let outcome = b.receive(&datagram, T0);
    assert!(matches!(outcome, Received::Rejected { .. }), "{outcome:?}");
    assert_eq!(standing(&b), before);
    assert_eq!(b.poll_transmit(), None, "it was answered");
}

#[test]
fn datagrams_of_strangers() {
    bolero::check!()
        .with_test_time(TEST_TIME)
        .with_max_len(INPUT_MAX)
        .for_each(|input: &[u8]| receive(input));
}
