//! The agent on a node: the shipped core of its lease loop, with the shipped
//! transport, and an [`Io`](vip_lease::Io) that only records what the core wants
//! done. The world then does it, one act after the other, since a process may be
//! stopped in between.

use std::{collections::VecDeque, net::SocketAddr};

use vip_common::{BootNs, Lease};
use vip_engine::{
    ByGroup, Command, CommandId, Completed, Engine, EngineConfig, Epoch, GroupId, Labels, NodeId, Packet,
    Refusal, Role, StaleClient,
};
use vip_lease::{
    Core, Eligible, Hook, HookAsk, Io, LeaseNotice, Parts, Regroup,
    gate::{GateRule, Gates, Ticket},
    transport::{Identity, KeyId, KeyRing, Psk, Received, Transport},
};

use super::groups::Told;

/// An act of a process on its world.
#[derive(Debug)]
pub(super) enum Act {
    /// Put a word into the map.
    Store { group: GroupId, lease: Lease },
    /// Send a datagram: its packet, if it is no part of a handshake, and its
    /// bytes, if there is a transport.
    Send { to: NodeId, said: Option<Packet>, bytes: Option<Vec<u8>> },
    /// Tell the network that a group is here.
    Takeover { group: GroupId },
    /// Tell the keeper.
    Tell(LeaseNotice),
    /// Run a hook that the lease loop waits for.
    Hook { hook: Hook, ticket: Ticket, group: GroupId },
    /// Answer a command.
    Reply { id: CommandId, outcome: Result<Completed, Refusal> },
}

/// A request of others on the host to a process.
pub(super) enum Ask {
    Command { id: CommandId, command: Command },
    Eligible { group: GroupId, word: Eligible },
    Ceiling(Epoch),
    Regroup(Box<Regroup>),
    HookEnded { hook: Hook, ticket: Ticket, well: bool },
    Stop,
}

/// A datagram in a process's socket.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub from: usize,
    /// See [`Act::Send`].
    pub said: Option<Packet>,
    /// See [`Act::Send`].
    pub bytes: Option<Vec<u8>>,
}

/// Records what the core wants done.
#[derive(Debug)]
pub(super) struct Hands {
    pub now: BootNs,
    pub acts: VecDeque<Act>,
    is_sealed: bool,
    /// The packet of the next datagrams to this node.
    said: Option<(NodeId, Packet)>,
}

impl Io for Hands {
    type Reply = CommandId;

    fn now(&self) -> BootNs {
        self.now
    }

    fn store(&mut self, group: GroupId, lease: Lease) {
        self.acts.push_back(Act::Store { group, lease });
    }

    fn says(&mut self, to: NodeId, packet: &Packet) {
        if self.is_sealed {
            self.said = Some((to, packet.clone()));
        } else {
            self.acts.push_back(Act::Send { to, said: Some(packet.clone()), bytes: None });
        }
    }

    fn send(&mut self, to: NodeId, datagram: Vec<u8>) {
        let said = self.said.as_ref().filter(|(of, _)| *of == to).map(|(_, packet)| packet.clone());
        self.acts.push_back(Act::Send { to, said, bytes: Some(datagram) });
    }

    fn flush(&mut self) {
        self.said = None;
    }

    fn takeover(&mut self, group: GroupId) {
        self.acts.push_back(Act::Takeover { group });
    }

    fn announce_all(&mut self) {}

    fn correct(&mut self, _client: StaleClient) {}

    fn tell(&mut self, notice: LeaseNotice) {
        self.acts.push_back(Act::Tell(notice));
    }

    fn hook(&mut self, ask: HookAsk) {
        let (hook, ticket, group) = match ask {
            HookAsk::Turned(turned) => (Hook::PrePromote, turned.pre_promote, turned.group),
            HookAsk::Run(order) => (order.hook, order.ticket, order.group),
            // Its end comes late, and means nothing any more.
            HookAsk::Cancel(_) | HookAsk::Forget(_) => return,
        };
        if let (Some(ticket), Ok(group)) = (ticket, group.parse()) {
            self.acts.push_back(Act::Hook { hook, ticket, group: GroupId(group) });
        }
    }

    fn reply(&mut self, id: CommandId, outcome: Result<Completed, Refusal>) {
        self.acts.push_back(Act::Reply { id, outcome });
    }
}

/// How far a node is with the rotation of keys: each step is taken when no
/// node is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keys {
    /// It has the first key only.
    #[default]
    First,
    /// It accepts the second one, too.
    SecondAccepted,
    /// It sends under the second one.
    SecondUsed,
    /// It has the second key only.
    Second,
}

impl Keys {
    /// The next step.
    pub const fn next(self) -> Self {
        match self {
            Self::First => Self::SecondAccepted,
            Self::SecondAccepted => Self::SecondUsed,
            Self::SecondUsed | Self::Second => Self::Second,
        }
    }

    fn ring(self) -> KeyRing {
        let key = |id: u8| (KeyId(id), Psk::new([id; 32]));
        let (primary, secondary) = match self {
            Self::First => (key(1), None),
            Self::SecondAccepted => (key(1), Some(key(2))),
            Self::SecondUsed => (key(2), Some(key(1))),
            Self::Second => (key(2), None),
        };
        // Two ids.
        KeyRing::new(primary, secondary).unwrap_or_else(|same| unreachable!("{same}"))
    }
}

/// What a process begins with, besides its engine's configuration.
#[derive(Debug)]
pub(super) struct Beginning<'a> {
    /// Leases that were found in the map.
    pub held: &'a [(GroupId, BootNs)],
    pub generation: u64,
    /// The digest of what all nodes must agree on.
    pub config_digest: u64,
    pub keys: Keys,
    /// The entropy for nonces.
    pub entropy: [u8; 32],
    /// Does it seal what it sends?
    pub is_sealed: bool,
    pub groups: Told,
    pub rules: ByGroup<GateRule>,
}

/// A process.
pub(super) type Agent = Core<Hands>;

/// A process that starts at `now`.
pub(super) fn start(config: EngineConfig, beginning: Beginning<'_>, now: BootNs) -> Agent {
    let Beginning { held, generation, config_digest, keys, entropy, is_sealed, groups: told, rules } =
        beginning;
    let me = config.me;
    let members = (0_u8..).zip(&config.nodes).filter(|(_, spec)| spec.role != Role::Vacant);
    let identity = Identity {
        me: me.0,
        incarnation: config.incarnation.0,
        cluster: "simulated".into(),
        config_digest,
        generation,
        nodes_digest: generation,
        is_member: true,
        peers: members.map(|(id, _)| id).filter(|_| is_sealed).collect(),
    };
    let parts = Parts {
        labels: Labels::new(&config, &told.labels, told.digest, now),
        engine: Engine::new(config, held, now),
        uncovered: told.uncovered,
        mute: told.mute,
        transport: Transport::new(identity, keys.ring(), entropy),
        gates: Gates::new(rules, held),
        me,
    };
    Core::new(parts, Hands { now, acts: VecDeque::new(), is_sealed, said: None })
}

/// Has the process's loop take a datagram. Returns why it was dropped, if it was.
pub(super) fn read(agent: &mut Agent, mail: Mail) -> Option<&'static str> {
    // No address is ever forged here.
    let source = SocketAddr::from(([0, 0, 0, 0], 0));
    let from = u8::try_from(mail.from).ok();
    let Some(bytes) = mail.bytes else {
        if let (Some(from), Some(packet)) = (from, mail.said) {
            agent.message(NodeId(from), packet);
        }
        return None;
    };
    let received = agent.transport.receive_from(from, &bytes, agent.io.now);
    let dropped = if let Received::Rejected { reason, .. } = &received { Some(reason.label()) } else { None };
    agent.receive(received, source);
    dropped
}
