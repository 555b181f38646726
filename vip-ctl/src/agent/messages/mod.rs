//! What the agent's threads tell each other. It knows none of them.

mod asker;

use std::time::Duration;

use tokio::sync::oneshot;
use vip_common::GroupIndex;
use vip_lease::{Eligible, Hook, HookAsk, LeaseNotice, Regroup, gate::Ticket};

pub use self::asker::{Ask, Asker};
use crate::{
    config::Config,
    engine::{Epoch, GroupId, Label},
    events::HookOutcome,
    exit::Exit,
    host::Watched,
    node::NodeError,
};

/// What the lease loop, the judge, netlink and people tell the keeper.
#[derive(Debug)]
pub enum Notice {
    /// What the lease loop tells.
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
    /// Whether this node can serve at all has changed.
    CanServe {
        /// Why it can't.
        because: Option<String>,
    },
    /// Netlink said something.
    Watched(Watched),
    /// There are to be other groups.
    Reload(Box<ReloadOrder>),
}

/// What the judge is told.
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
    /// Netlink said something.
    Watched(Watched),
}

/// What the keeper tells the lease loop.
pub trait Tell {
    /// Whether this node can serve groups; false if nobody listens any more.
    fn eligible(&self, groups: Vec<(GroupId, Eligible)>) -> bool;
    /// To go on with other groups; false if nobody listens any more.
    fn regroup(&self, regroup: Regroup) -> bool;
    /// The memory on disk has this ceiling; false if nobody listens any more.
    fn ceiling(&self, ceiling: Epoch) -> bool;
    /// To tell the network where the group with this label is; false if nobody
    /// listens any more.
    fn announce(&self, label: Label) -> bool;
}

/// Why to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The group has come here.
    Takeover(GroupIndex),
    /// Somebody else claimed one of its VIPs.
    Defend(GroupIndex),
}

/// What the thread of the hooks is told.
#[derive(Debug)]
pub enum RunnerAsk {
    /// What the lease loop asks.
    Lease(HookAsk),
    /// Go on with the hooks of this configuration.
    Reload(Box<Config>),
    /// A run has ended.
    Ended(u64, HookEnded),
    /// No more will come: finish what is there, but not for ever.
    Close,
}

/// Tells the lease loop that a hook it waits for has ended, and whether well.
pub trait Report: Send {
    /// See above.
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

/// What a reload has changed, by names.
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
    /// Is everything as it was?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.anew.is_empty()
    }
}

/// What became of a reload: the agent goes on with the new groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// What is different.
    pub changes: Changes,
    /// What of it could not be brought about on this node, and how to go on.
    pub missing: Option<ReloadRefused>,
}

/// Why nothing was changed, or not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadRefused {
    /// What `vip-ctl reload` exits with.
    pub exit: Exit,
    /// One sentence.
    pub message: String,
}

impl From<NodeError> for ReloadRefused {
    fn from(e: NodeError) -> Self {
        Self { exit: e.exit(), message: e.to_string() }
    }
}

/// A configuration on its way to the keeper, and what becomes of it on its way back.
#[derive(Debug)]
pub struct ReloadOrder {
    /// The configuration, fit for this agent.
    pub config: Config,
    /// For whoever waits.
    pub reply: oneshot::Sender<Result<ReloadOutcome, ReloadRefused>>,
}
