//! Messages between the agent's threads. This module imports none of them.

mod asker;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::oneshot;
use vip_common::GroupIndex;
use vip_lease::{Eligible, Hook, HookAsk, LeaseNotice, Regroup, gate::Ticket};

pub use self::asker::{Ask, Asker};
use crate::{
    config::Config,
    engine::{self, Epoch, GroupId, Label, NodeId, StaleClient},
    events::HookOutcome,
    exit::Exit,
    host::Watched,
    node::NodeError,
};

/// A message to the keeper, from the lease loop, the judge, netlink or people.
#[derive(Debug)]
pub enum Notice {
    /// From the lease loop.
    Lease(LeaseNotice),
    /// There is a new verdict on a health check.
    Checked {
        /// The group's name.
        group: String,
        /// The check's name.
        check: String,
        /// Why it fails; `None` if it passes.
        trouble: Option<String>,
    },
    /// This node has become able, or unable, to serve at all.
    CanServe {
        /// Why it can't.
        because: Option<String>,
    },
    /// Netlink has reported a change.
    Watched(Watched),
    /// Nobody answers for this VIP of a group that this node does not hold; `None`: somebody
    /// does again.
    Silent {
        /// The group's name.
        group: String,
        /// The VIP.
        vip: Option<IpAddr>,
    },
    /// Peers do not hear the data plane on these interfaces.
    Unheard(BTreeSet<String>),
    /// Go on with another configuration.
    Reload(Box<ReloadOrder>),
}

/// A message to the prober, from the lease loop: what a peer has said.
#[derive(Debug)]
pub enum PeerWord {
    /// Where answers arrive between its interfaces and this node's.
    Paths(NodeId, engine::Paths),
    /// That nobody answers for this VIP, which this node holds.
    Unheard(NodeId, IpAddr),
}

/// A message to the judge.
#[derive(Debug)]
pub enum Heard {
    /// There is a new verdict on a health check.
    Checked {
        /// The group's name.
        group: String,
        /// The check's name.
        check: String,
        /// Why it fails; `None` if it passes.
        trouble: Option<String>,
    },
    /// Netlink has reported a change.
    Watched(Watched),
    /// Peers have said something else of this node's interfaces.
    Silent(Silent),
    /// Groups, by name, of which peers hear no VIP while this node has them, with a sentence
    /// on each.
    Mute(BTreeMap<String, String>),
}

/// The interfaces whose answers do not arrive at the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silent {
    /// Those on which this node is unwell, with a sentence on each.
    pub unwell: BTreeMap<String, String>,
    /// Those that most peers say that of, whether they are believed or not: another mode may
    /// help.
    pub unheard: BTreeSet<String>,
}

/// Messages of the keeper and the judge to the lease loop.
pub trait Tell {
    /// Verdicts on groups; false if nobody listens any more.
    fn eligible(&self, groups: Vec<(GroupId, Eligible)>) -> bool;
    /// Go on with other groups; false if nobody listens any more.
    fn regroup(&self, regroup: Regroup) -> bool;
    /// This ceiling is on disk; false if nobody listens any more.
    fn ceiling(&self, ceiling: Epoch) -> bool;
    /// Announce the group with this label; false if nobody listens any more.
    fn announce(&self, label: Label) -> bool;
    /// Announce every group that is here; false if nobody listens any more.
    fn announce_all(&self) -> bool;
}

/// An order to the announcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The group has come here.
    Takeover(GroupIndex),
    /// Somebody else has claimed one of its VIPs.
    Defend(GroupIndex),
    /// Who was cut off is heard again: all groups that are here.
    Again,
    /// This client has missed where the VIP is.
    Correct(StaleClient),
}

/// A message to the hooks' thread.
#[derive(Debug)]
pub enum RunnerAsk {
    /// From the lease loop.
    Lease(HookAsk),
    /// Go on with the hooks of this configuration.
    Reload(Box<Config>),
    /// A run has ended.
    Ended(u64, HookEnded),
    /// No more will come: finish what is there, within limits.
    Close,
}

/// Tells the lease loop that a hook which it waits for has ended.
pub trait Report: Send {
    /// `well`: it has succeeded.
    fn ended(&self, hook: Hook, ticket: Ticket, well: bool);
}

/// How a run of a hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEnded {
    /// In one word.
    pub outcome: HookOutcome,
    /// Its exit code, if it exited by itself.
    pub exit: Option<i32>,
    /// How long it took.
    pub took: Duration,
    /// The first lines that it printed.
    pub output: Vec<String>,
}

/// What a reload has changed, by group names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Changes {
    /// Groups that are new.
    pub added: Vec<String>,
    /// Groups that are gone.
    pub removed: Vec<String>,
    /// Groups that go on with other VIPs or other settings.
    pub changed: Vec<String>,
    /// Groups that had to begin anew, because a VIP went from one group to another.
    pub anew: Vec<String>,
}

impl Changes {
    /// Has nothing changed?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.anew.is_empty()
    }
}

/// The outcome of a reload: the agent goes on with the new groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// What has changed.
    pub changes: Changes,
    /// What this node still lacks, and what to do about it.
    pub missing: Option<ReloadRefused>,
}

/// Why a reload changed nothing, or not everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadRefused {
    /// The exit code of `vip-ctl reload`.
    pub exit: Exit,
    /// One sentence.
    pub message: String,
}

impl From<NodeError> for ReloadRefused {
    fn from(e: NodeError) -> Self {
        Self { exit: e.exit(), message: e.to_string() }
    }
}

/// A configuration on its way to the keeper, with the channel for the outcome.
#[derive(Debug)]
pub struct ReloadOrder {
    /// The configuration, checked for this agent.
    pub config: Config,
    /// Where to send the outcome.
    pub reply: oneshot::Sender<Result<ReloadOutcome, ReloadRefused>>,
}
