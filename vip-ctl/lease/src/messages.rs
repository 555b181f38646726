//! What the lease loop tells other threads, and what it is told. Nothing is
//! decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use vip_common::BootNs;
use vip_engine::{Command, Epoch, GroupId, GroupState, Label, NodeId, Pause, Reason, Status, Transition};

use crate::{
    gate::{Grant, Ticket},
    lateness::Lateness,
    transport::Rejected,
};

/// The word on a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// This node can serve it, and is well.
    Yes,
    /// It can't, or is not well.
    No,
    /// It can, but is not well, and keeps what nobody else is ready to take.
    Unwell,
}

/// What the lease loop tells the keeper.
#[derive(Debug)]
pub enum LeaseNotice {
    /// Another node claims a VIP that is held here.
    Claim {
        /// The group.
        group: GroupId,
        /// The VIP.
        vip: IpAddr,
        /// Who claims it.
        mac: [u8; 6],
    },
    /// A group's state or holder has changed.
    Changed {
        /// What the engine says of it.
        transition: Transition,
        /// Is the fence kept shut until `pre_promote` has ended?
        promoting: bool,
        /// The gap that it has ended.
        gap: Option<Duration>,
    },
    /// A person wants something.
    Asked {
        /// What.
        command: Command,
        /// At which node.
        at: NodeId,
    },
    /// A peer's incarnation was adopted.
    Connected {
        /// The peer.
        node: NodeId,
        /// True if it was connected before.
        restarted: bool,
        /// Number of its membership.
        generation: u64,
        /// Does it take part in that, or ask to?
        is_member: bool,
    },
    /// No grant beyond this epoch is accepted before that is on disk.
    RaiseCeiling(Epoch),
    /// What is to outlive this incarnation has changed.
    Remember {
        /// Is this node on standby?
        standby: bool,
        /// The cluster's pause.
        pause: Pause,
    },
    /// A renewal began later than half of the margin.
    Late {
        /// How late.
        by: Duration,
        /// How late it could have been before the lease ran out.
        margin: Duration,
    },
    /// A datagram was rejected.
    Rejected {
        /// Why.
        reason: Rejected,
        /// Who it claims to be from.
        from: Option<NodeId>,
        /// The address that it came from.
        source: SocketAddr,
    },
    /// The lease loop has gone on to the other groups: what it says from here
    /// on is about those.
    Regrouped,
    /// A group's leases have all of its VIPs from here on.
    Covered {
        /// Its label.
        label: Label,
    },
}

/// What the lease loop asks of the thread that runs hooks.
#[derive(Debug)]
pub enum HookAsk {
    /// A group's state has changed: what follows from it is to be run.
    Turned(Turned),
    /// Run a hook in the midst of a grant, if there is one.
    Run(HookOrder),
    /// What this run was for is over.
    Cancel(Ticket),
    /// What this run was for goes on without it: it is not begun any more.
    Forget(Ticket),
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// The lease is won, and the fence stays closed until the hook has ended.
    PrePromote,
    /// The fence is open.
    PostPromote,
    /// A planned move is about to release the lease.
    PreDemote,
    /// The lease is gone.
    PostDemote,
    /// The node can't serve the group.
    OnFault,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::PrePromote, Self::PostPromote, Self::PreDemote, Self::PostDemote, Self::OnFault];

    /// Its name, in the configuration and everywhere else.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrePromote => "pre_promote",
            Self::PostPromote => "post_promote",
            Self::PreDemote => "pre_demote",
            Self::PostDemote => "post_demote",
            Self::OnFault => "on_fault",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A group's state on this node, as it has just become, for its hooks. That is
/// a [`Transition`] by the group's name: hooks wait longer than a number of a
/// group is good for, which is until the next reload.
#[derive(Clone, Debug)]
pub struct Turned {
    /// The group.
    pub group: Arc<str>,
    /// This node's state.
    pub state: GroupState,
    /// This node's grant, if it has the lease.
    pub grant: Option<Grant>,
    /// Is the fence kept shut until `pre_promote` has ended?
    pub promoting: bool,
    /// Who waits for `pre_promote`, if it is to be run now.
    pub pre_promote: Option<Ticket>,
    /// The latest grant that this node knows of, as the cluster counts them.
    pub epoch: Epoch,
    /// What brought the change about.
    pub reason: Reason,
    /// Who holds the group.
    pub holder: Option<NodeId>,
}

/// A hook to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOrder {
    /// For which group.
    pub group: Arc<str>,
    /// Which.
    pub hook: Hook,
    /// Who waits for it.
    pub ticket: Option<Ticket>,
    /// This node's state: one of `status`.
    pub state: String,
    /// The grant that it is about, by this node's count.
    pub grant: Grant,
    /// The same by the cluster's count.
    pub epoch: u64,
    /// What brought the change about.
    pub reason: String,
    /// Who holds the group.
    pub holder: Option<NodeId>,
}

impl HookOrder {
    /// What follows from a change.
    #[must_use]
    pub fn of(turned: &Turned, hook: Hook) -> Self {
        let state = if turned.promoting { "promoting".to_owned() } else { turned.state.to_string() };
        Self {
            group: Arc::clone(&turned.group),
            hook,
            ticket: None,
            state,
            grant: turned.grant.unwrap_or_default(),
            epoch: turned.epoch.0,
            reason: turned.reason.to_string(),
            holder: turned.holder,
        }
    }
}

/// What the loop knows at one moment.
pub struct Snapshot {
    /// The digest of the groups that the view is of.
    pub table: u64,
    /// Nodes that have other groups, by what they last said.
    pub differing: Vec<NodeId>,
    /// Groups of which this node would answer nothing, see [`crate::Core::mute`].
    pub mute: BTreeSet<GroupId>,
    /// The engine's view.
    pub engine: Status,
    /// When that was.
    pub now: BootNs,
    /// What was counted.
    pub counts: Counts,
    /// Rejected datagrams by reason, those that are zero left out.
    pub rejected: Vec<(&'static str, u64)>,
    /// How late renewals began.
    pub lateness: Lateness,
    /// Groups that are held here while their fence is kept shut.
    pub promoting: Vec<GroupId>,
    /// Groups that this node stays away from, until when.
    pub barred: BTreeMap<GroupId, BootNs>,
}

/// What the loop counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that could not be sent, or had no session to be sealed for.
    pub unsent: u64,
    /// Authentic datagrams received.
    pub received: u64,
    /// Authentic datagrams whose packet was not understood.
    pub undecoded: u64,
    /// Datagrams that the kernel dropped before this agent could take them.
    pub dropped: u64,
}
