//! The members of a cluster and its times: ids, roles, priorities and the
//! durations that follow from T_accept. The caller reads and checks the
//! configuration file.

use std::time::Duration;

use super::by_group::ByGroup;

/// The most voters that a cluster can have.
pub const VOTERS_MAX: usize = 7;
/// The most members that a cluster can have, observers among them (the room of the `HOPS` map).
pub const MEMBERS_MAX: usize = vip_common::layout::NODES_MAX;
/// The most groups that a cluster can have (the room of the `LEASES` map).
pub const GROUPS_MAX: usize = vip_common::layout::GROUPS_MAX as usize;
/// Priority of a node for a group that sets none (the usual range is 1–254).
pub const PRIORITY_DEFAULT: u8 = 100;
/// What each place in the ranking delays candidacy by, at least (rule 9).
pub const RANK_SLOT_MIN: Duration = Duration::from_millis(3);
/// How long acceptors keep a released group for the named successor, at least (rule 8).
pub const RESERVE_MIN: Duration = Duration::from_millis(20);
/// The shortest pause between an attempt that failed and the next one.
pub const RETRY_MIN: Duration = Duration::from_millis(1);
/// How far above the highest epoch a node sets its ceiling: a group can have this
/// many grants before the disk has to answer, and a crash skips at most this many
/// numbers.
pub const EPOCH_MARGIN: u64 = 1_000;
/// How long a candidate waits for an acceptor's disk before it asks again.
pub const CEILING_WAIT: Duration = Duration::from_millis(5);
/// How long a command may take before this node answers it with a timeout.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping node waits for its releases to be confirmed.
pub const STOP_GRACE: Duration = Duration::from_millis(50);
/// The shortest time after which a silent node counts as gone for the quorum.
pub const HEARD_MIN: Duration = Duration::from_millis(500);

/// Index into the name-sorted node list of the configuration, the same on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u8);

/// Index into the name-sorted group list of the configuration, the same on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// Random number drawn at each start of an agent (rule 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Number of the grant: rises with every new grant, a renewal keeps it.
///
/// It tells people and services which grant they see. No vote rests on it:
/// ballots and expiries decide those. But a holder gives way to a later grant
/// that a refusal names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The number of the next grant.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Number that a node's event loop gives a command, unique within one
/// incarnation. The upper half of the numbers is the engine's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

impl CommandId {
    /// Marks the numbers of commands that the engine gives itself.
    pub(super) const OWN: u64 = 1 << 63;

    /// Did an engine give itself this command (and not a person)?
    #[must_use]
    pub const fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }
}

/// What a member of the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Votes and can hold leases.
    Node,
    /// Votes and never stands (rule 11).
    Witness,
    /// Learns who holds what, and neither votes nor stands (rule 11).
    Observer,
    /// No member has this id, or no longer (rule 10).
    Vacant,
}

impl Role {
    /// Does it have a vote?
    #[must_use]
    pub const fn votes(self) -> bool {
        matches!(self, Self::Node | Self::Witness)
    }
}

/// One member of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSpec {
    /// What it does.
    pub role: Role,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSpec {
    /// By [`NodeId`], 1..=254; the highest stands first. A missing entry means
    /// [`PRIORITY_DEFAULT`]; the engine ignores that of a node that never stands.
    pub priorities: Vec<u8>,
    /// How long a node of higher priority must have been ready before it asks the
    /// holder for the lease; with `None` it never asks (rule 9).
    pub preempt: Option<Duration>,
}

/// What a node of a pair does when it does not hear the other one (rule 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerLoss {
    /// It takes the leases that it does not have. A cut between the two nodes
    /// then makes two holders, as in VRRP.
    Take,
    /// It keeps what it has and takes nothing by itself. A cut then makes no
    /// second holder; the death of a holder waits for a person.
    Hold,
}

/// The cluster's pause: no automatic moves while it is on. The higher version
/// is the newer word; between two of one version the pause wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pause {
    /// Rises with every pause and resume.
    pub version: u64,
    /// Is it on?
    pub on: bool,
}

/// What a node has kept from its former incarnations. `standby` and `pause` say
/// who stands; that no epoch is given twice depends on `floor` and `ceiling`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remembered {
    /// Was the node put on standby?
    pub standby: bool,
    /// The cluster's pause as last known.
    pub pause: Pause,
    /// The highest epoch known of each group.
    pub epochs: ByGroup<Epoch>,
    /// Former incarnations may have accepted a grant of any group up to this
    /// epoch and forgotten it; zero if `epochs` has all of them.
    pub floor: Epoch,
    /// What is on disk as the floor of the next incarnation: this one accepts
    /// no grant beyond it before [`super::Input::Ceiling`] has raised it.
    pub ceiling: Epoch,
}

impl Default for Remembered {
    /// Nothing is known, and nothing will be forgotten: there is no ceiling.
    fn default() -> Self {
        Self {
            standby: false,
            pause: Pause::default(),
            epochs: ByGroup::new(),
            floor: Epoch(0),
            ceiling: Epoch(u64::MAX),
        }
    }
}

/// Everything that an engine needs to know at its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineConfig {
    /// This node.
    pub me: NodeId,
    /// This start of it.
    pub incarnation: Incarnation,
    /// All members, by [`NodeId`].
    pub nodes: Vec<NodeSpec>,
    /// All groups.
    pub groups: ByGroup<GroupSpec>,
    /// T_accept: how long an acceptor keeps what it accepted. The same on every
    /// node. Made for 20 ms to 75 s: below, timers are too coarse; above, the
    /// data plane does not believe the lease
    /// ([`vip_common::lease::LEASE_NS_MAX`]).
    pub accept: Duration,
    /// How long this node is silent after this start (rule 5), if that is longer
    /// than `accept`: as long as any vote of its former incarnations may still
    /// count, whatever T_accept they were configured with.
    pub silence: Duration,
    /// How long after its start this node waits before it stands by itself.
    pub startup_delay: Duration,
    /// Pair mode (rule 13), for exactly two voters that both can hold; `None`
    /// for the rule of the majority.
    pub pair: Option<PeerLoss>,
    /// How far a ceiling is set above the highest epoch: [`EPOCH_MARGIN`].
    pub epoch_margin: u64,
    /// What former incarnations knew.
    pub remembered: Remembered,
}

impl EngineConfig {
    /// A configuration with every default: silence for T_accept, no startup
    /// delay, the rule of the majority, no memory.
    #[must_use]
    pub fn new(
        me: NodeId,
        incarnation: Incarnation,
        nodes: Vec<NodeSpec>,
        groups: Vec<GroupSpec>,
        accept: Duration,
    ) -> Self {
        Self {
            me,
            incarnation,
            nodes,
            groups: groups.into(),
            accept,
            silence: accept,
            startup_delay: Duration::ZERO,
            pair: None,
            epoch_margin: EPOCH_MARGIN,
            remembered: Remembered::default(),
        }
    }

    /// How many votes decide: more than half of all voters.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters().len() / 2 + 1
    }

    /// Does every lease need the vote of every voter, this node included? With
    /// one or two voters it does. In pair mode, a lease without the other node's
    /// vote still has this node's own.
    #[must_use]
    pub fn needs_all(&self) -> bool {
        self.majority() == self.voters().len()
    }

    /// Every member.
    #[must_use]
    pub fn members(&self) -> NodeSet {
        self.those(|role| role != Role::Vacant)
    }

    /// Every voter.
    #[must_use]
    pub fn voters(&self) -> NodeSet {
        self.those(Role::votes)
    }

    /// Does `node` have a vote?
    #[must_use]
    pub fn votes(&self, node: NodeId) -> bool {
        self.role(node).is_some_and(Role::votes)
    }

    /// Every member but this node.
    #[must_use]
    pub fn peers(&self) -> NodeSet {
        let mut peers = self.members();
        peers.remove(self.me);
        peers
    }

    /// Every voter but this node.
    #[must_use]
    pub fn voting_peers(&self) -> NodeSet {
        let mut peers = self.voters();
        peers.remove(self.me);
        peers
    }

    fn those(&self, is_one: impl Fn(Role) -> bool) -> NodeSet {
        let mut set = NodeSet::default();
        for (id, spec) in (0..=u8::MAX).zip(&self.nodes) {
            if is_one(spec.role) {
                set.insert(NodeId(id));
            }
        }
        set
    }

    /// Every group.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> + use<> {
        self.groups.ids()
    }

    /// The role of `node`; `None` if there is no such node.
    #[must_use]
    pub fn role(&self, node: NodeId) -> Option<Role> {
        self.nodes.get(usize::from(node.0)).map(|spec| spec.role).filter(|role| *role != Role::Vacant)
    }

    /// The priority of `node` for `group`.
    #[must_use]
    pub fn priority(&self, group: GroupId, node: NodeId) -> u8 {
        self.groups
            .get(group)
            .and_then(|spec| spec.priorities.get(usize::from(node.0)))
            .copied()
            .unwrap_or(PRIORITY_DEFAULT)
    }

    /// How long after it is ready a node of higher priority asks for `group`;
    /// `None` if it never asks.
    #[must_use]
    pub fn preempt(&self, group: GroupId) -> Option<Duration> {
        self.groups.get(group).and_then(|spec| spec.preempt)
    }

    /// The place of `node` among those that can hold `group`: 0 stands first.
    ///
    /// By priority, ties by id; nodes that never stand have no rank and do not
    /// count (rule 9).
    #[must_use]
    pub fn rank(&self, group: GroupId, node: NodeId) -> Option<u32> {
        if self.role(node) != Some(Role::Node) {
            return None;
        }
        let mine = self.priority(group, node);
        let ahead = self.members().into_iter().filter(|&other| {
            let theirs = self.priority(group, other);
            self.role(other) == Some(Role::Node) && (theirs > mine || (theirs == mine && other < node))
        });
        u32::try_from(ahead.count()).ok()
    }
}

/// The times that follow from T_accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// T_accept.
    pub accept: Duration,
    /// T_hold = 0.8·T_accept: how long a lease lasts from the sending of its
    /// attempt's first message (rules 2 and 4). Clocks may differ in rate by up to 11 %.
    pub hold: Duration,
    /// r = T_hold/4: a lease this old is renewed (rule 6).
    pub renew: Duration,
    /// r/2: after this a voter that has not answered is asked again, under the
    /// same ballot.
    pub retry: Duration,
    /// 2·r: an attempt this old gives way to a new ballot.
    ///
    /// With a round trip of up to r, both phases fit, and the renewal after
    /// them still ends within T_hold; anything slower can't be held.
    pub patience: Duration,
    /// T_accept/4: each peer hears at least this often.
    pub heartbeat: Duration,
    /// max(2·T_accept, [`HEARD_MIN`]): a peer that was silent for longer does not
    /// count for the quorum.
    pub heard: Duration,
    /// T_accept·3/200, at least [`RANK_SLOT_MIN`], so 3 ms at the default of 200
    /// ms: each place in the ranking delays candidacy by this. It grows with the
    /// lease because slower networks have longer leases and need longer slots.
    pub slot: Duration,
    /// 2·r, at least [`RESERVE_MIN`], so 80 ms at the default of 200 ms: the
    /// successor has the group to itself for as long as an attempt may take.
    pub reserve: Duration,
    /// How long the holder waits for a target to say that it is ready.
    pub ask: Duration,
}

impl Timing {
    /// All times from T_accept.
    #[must_use]
    pub fn new(accept: Duration) -> Self {
        let hold = accept / 5 * 4;
        let renew = hold / 4;
        Self {
            accept,
            hold,
            renew,
            retry: renew / 2,
            patience: renew * 2,
            heartbeat: accept / 4,
            heard: (accept * 2).max(HEARD_MIN),
            slot: (accept * 3 / 200).max(RANK_SLOT_MIN),
            reserve: (renew * 2).max(RESERVE_MIN),
            ask: accept.clamp(Duration::from_millis(50), Duration::from_millis(500)),
        }
    }
}

/// A set of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSet(u32);

impl NodeSet {
    /// Adds `node`, unless its id is [`MEMBERS_MAX`] or more: no member has such
    /// an id.
    pub fn insert(&mut self, node: NodeId) {
        if usize::from(node.0) < MEMBERS_MAX {
            self.0 |= 1 << node.0;
        }
    }

    /// Takes `node` out.
    pub fn remove(&mut self, node: NodeId) {
        if usize::from(node.0) < MEMBERS_MAX {
            self.0 &= !(1 << node.0);
        }
    }

    /// Is `node` in it?
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        usize::from(node.0) < MEMBERS_MAX && self.0 & (1 << node.0) != 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Is nobody in it?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl IntoIterator for NodeSet {
    type Item = NodeId;
    type IntoIter = Nodes;

    fn into_iter(self) -> Nodes {
        Nodes(self)
    }
}

/// The members of a [`NodeSet`], by id.
#[derive(Clone, Copy, Debug)]
pub struct Nodes(NodeSet);

impl Iterator for Nodes {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        // At most 32, so it fits.
        let first = NodeId(u8::try_from(self.0.0.trailing_zeros()).ok()?);
        if self.0.is_empty() {
            return None;
        }
        self.0.remove(first);
        Some(first)
    }
}
