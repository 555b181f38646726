//! The order in which the core does things, on a node that is its cluster's only
//! voter: another one only learns. The world is a list of what was done to it.

use std::net::{Ipv4Addr, SocketAddrV4};

use vip_engine::{
    About, EngineConfig, GroupSpec, Incarnation, Label, LabelSpec, Message, NodeSpec, Role, StaleClient,
};

use super::*;
use crate::{
    gate::GateRule,
    messages::Eligible,
    transport::{Identity, KeyId, KeyRing, Psk},
};

const ACCEPT: Duration = Duration::from_millis(200);
const START: BootNs = BootNs(1_000_000_000);
const DB: GroupId = GroupId(0);
const ME: NodeId = NodeId(0);
const OBSERVER: NodeId = NodeId(1);
const FROM_OBSERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// Something that was done to the world.
#[derive(Debug)]
enum Done {
    Stored(Lease),
    Sent(Vec<u8>),
}

struct World {
    now: BootNs,
    done: Vec<Done>,
    /// How many times all groups were announced.
    announced: usize,
}

impl Io for World {
    type Reply = ();

    fn now(&self) -> BootNs {
        self.now
    }

    fn store(&mut self, _group: GroupId, lease: Lease) {
        self.done.push(Done::Stored(lease));
    }

    fn send(&mut self, to: NodeId, datagram: Vec<u8>) {
        assert_eq!(to, OBSERVER, "there is nobody else");
        self.done.push(Done::Sent(datagram));
    }

    fn flush(&mut self) {}

    fn takeover(&mut self, _group: GroupId) {}

    fn announce_all(&mut self) {
        self.announced += 1;
    }

    fn correct(&mut self, _client: StaleClient) {}

    fn tell(&mut self, _notice: LeaseNotice) {}

    fn hook(&mut self, _ask: HookAsk) {}

    fn reply(&mut self, _reply: (), _outcome: Result<Completed, Refusal>) {}
}

fn transport(me: NodeId) -> Transport {
    let identity = Identity {
        me: me.0,
        incarnation: u64::from(me.0) + 1,
        cluster: "shop".into(),
        config_digest: 1,
        generation: 1,
        nodes_digest: 1,
        is_member: true,
        peers: vec![ME.0, OBSERVER.0],
    };
    let keys = KeyRing::new((KeyId(1), Psk::new([1; 32])), None).expect("one key");
    Transport::new(identity, keys, [me.0; 32])
}

fn labels(config: &EngineConfig) -> Labels {
    Labels::new(config, &[LabelSpec::only(Label(7))], 1, START)
}

fn config(me: NodeId) -> EngineConfig {
    let nodes = [Role::Node, Role::Observer].map(|role| NodeSpec { role }).to_vec();
    EngineConfig::new(me, Incarnation(1), nodes, vec![GroupSpec::default()], ACCEPT)
}

/// A core that has just started, and can serve the group.
fn started() -> Core<World> {
    #[cfg(feature = "mutants")]
    crate::mutant::choose();
    let config = config(ME);
    let parts = Parts {
        labels: labels(&config),
        engine: Engine::new(config, &[], START),
        uncovered: Vec::new(),
        mute: Vec::new(),
        transport: transport(ME),
        gates: Gates::new(vec![GateRule::default()].into(), &[]),
        me: ME,
    };
    let mut core = Core::new(parts, World { now: START, done: Vec::new(), announced: 0 });
    core.eligible(DB, Eligible::Yes);
    core
}

/// One turn of the loop, in which it read all mail or not. Does the node hold
/// by it?
fn takes_the_lease(core: &mut Core<World>, is_drained: bool) -> bool {
    core.begin_turn();
    core.judge(is_drained);
    core.io.done.iter().any(|done| matches!(done, Done::Stored(lease) if *lease != Lease::NONE))
}

#[test]
fn a_flood_keeps_no_node_from_standing_for_longer_than_16_turns() {
    let mut core = started();
    assert!(!takes_the_lease(&mut core, true), "it is silent at first");
    core.io.now = START.plus(ACCEPT * 2);
    for turn in 1..16 {
        assert!(!takes_the_lease(&mut core, false), "a holder's word may lie unread: turn {turn}");
    }
    assert!(takes_the_lease(&mut core, false), "it waits for ever");
}

#[test]
fn turns_that_leave_mail_unread_count_in_a_row_only() {
    let mut core = started();
    for _ in 0..15 {
        takes_the_lease(&mut core, false);
    }
    takes_the_lease(&mut core, true);
    core.io.now = START.plus(ACCEPT * 2);
    for turn in 1..16 {
        assert!(!takes_the_lease(&mut core, false), "turn {turn}");
    }
    assert!(takes_the_lease(&mut core, true), "all is read");
}

/// Takes out what was sent.
fn sent(core: &mut Core<World>) -> Vec<Vec<u8>> {
    let sent = |done| match done {
        Done::Sent(datagram) => Some(datagram),
        Done::Stored(_) => None,
    };
    std::mem::take(&mut core.io.done).into_iter().filter_map(sent).collect()
}

/// Connects the observer's transport.
fn connected(core: &mut Core<World>) -> Transport {
    let mut observer = transport(OBSERVER);
    core.begin_turn();
    while !(observer.connected(ME.0) && core.transport.connected(OBSERVER.0)) {
        let datagrams = sent(core);
        assert!(!datagrams.is_empty(), "they fall silent");
        for datagram in datagrams {
            observer.receive(&datagram, core.io.now);
        }
        while let Some((_, datagram)) = observer.poll_transmit() {
            let received = core.transport.receive(&datagram, core.io.now);
            core.receive(received, FROM_OBSERVER);
        }
    }
    observer
}

/// Rule 7: whoever hears of a release may answer for the group at once.
#[test]
fn a_word_is_in_the_map_before_the_datagrams_that_follow_from_it() {
    let mut core = started();
    let mut observer = connected(&mut core);
    core.io.now = START.plus(ACCEPT * 2);
    assert!(takes_the_lease(&mut core, true));
    core.io.done.clear();
    core.stop();
    let cleared = |done: &Done| matches!(done, Done::Stored(lease) if *lease == Lease::NONE);
    let done = &core.io.done;
    let (stored, first) = (done.iter().position(cleared), done.iter().position(|done| !cleared(done)));
    assert!(stored.is_some() && stored < first, "{done:?}");
    // And it was the release that followed.
    let mut labels = labels(&config(OBSERVER));
    let now = core.io.now;
    let told = sent(&mut core).into_iter().any(|datagram| {
        let Received::Payload { payload, .. } = observer.receive(&datagram, now) else { return false };
        let packet = Packet::decode_from(&payload, ME, &mut labels, now).expect("it is understood");
        let is_release =
            |message: &Message| matches!(message, Message::Group { about: About::Release { .. }, .. });
        packet.messages.iter().any(is_release)
    });
    assert!(told);
}

#[test]
fn all_is_announced_again_when_a_peer_is_heard_after_a_cut() {
    let mut core = started();
    connected(&mut core);
    let hears = |core: &mut Core<World>, after: Duration| {
        core.io.now = core.io.now.plus(after);
        core.io.announced = 0;
        core.message(OBSERVER, Packet::default());
        core.io.announced
    };
    assert_eq!(hears(&mut core, ACCEPT), 1, "for the first time");
    assert_eq!(hears(&mut core, ACCEPT / 2), 0, "a lost heartbeat is no cut");
    assert_eq!(hears(&mut core, ACCEPT * 2), 1);
    assert_eq!(hears(&mut core, Duration::ZERO), 0);
}
