//! Messages between the lease loop and other threads. Nothing here decides.

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

/// The judge's verdict on a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// This node can serve it, and is well.
    Yes,
    /// It can't, or is not well.
    No,
    /// It can, but is not well: it keeps the group if no other node is ready to
    /// take it.
    Unwell,
}

/// What the lease loop tells the keeper.
#[derive(Debug)]
pub enum LeaseNotice {
    /// Another node claims a VIP that this node holds.
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
        /// Does the fence stay shut until `pre_promote` has ended?
        promoting: bool,
        /// The time without a holder that this change has ended.
        gap: Option<Duration>,
    },
    /// A person has given a command.
    Asked {
        /// The command.
        command: Command,
        /// The node that it was given at.
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
        /// Does the peer take part in that membership (or only ask to)?
        is_member: bool,
    },
    /// The loop accepts no grant beyond this epoch until it is on disk.
    RaiseCeiling(Epoch),
    /// What shall outlive this incarnation has changed.
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
        /// The peer that it claims to be from.
        from: Option<NodeId>,
        /// The address that it came from.
        source: SocketAddr,
    },
    /// The lease loop has gone on to the new groups: its notices from here on are
    /// about those.
    Regrouped,
    /// From here on, all leases of a group include all of its VIPs.
    Covered {
        /// Its label.
        label: Label,
    },
}

/// What the lease loop asks of the thread that runs hooks.
#[derive(Debug)]
pub enum HookAsk {
    /// A group's state has changed: run the hooks that follow from that.
    Turned(Turned),
    /// Run a hook in the midst of a grant, if there is one.
    Run(HookOrder),
    /// The reason for this run is gone: end it.
    Cancel(Ticket),
    /// The lease loop no longer waits for this run: do not begin it any more.
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
    /// The node has become unable to serve the group.
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
    /// Does the fence stay shut until `pre_promote` has ended?
    pub promoting: bool,
    /// The ticket of `pre_promote`, if it has to run now.
    pub pre_promote: Option<Ticket>,
    /// The latest grant that this node knows of, as the cluster counts them.
    pub epoch: Epoch,
    /// What brought the change about.
    pub reason: Reason,
    /// Who holds the group.
    pub holder: Option<NodeId>,
}

/// A hook to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOrder {
    /// The group that it runs for.
    pub group: Arc<str>,
    /// Which hook.
    pub hook: Hook,
    /// The ticket, if the lease loop waits for it.
    pub ticket: Option<Ticket>,
    /// This node's state, by a name that `status` uses.
    pub state: String,
    /// The grant that it is about, by this node's count.
    pub grant: Grant,
    /// The same grant by the cluster's count.
    pub epoch: u64,
    /// What brought the change about.
    pub reason: String,
    /// Who holds the group.
    pub holder: Option<NodeId>,
}

impl HookOrder {
    /// The run of `hook` for this change.
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
    /// The digest of the groups that the view is about.
    pub table: u64,
    /// Nodes that have other groups, by what they last said.
    pub differing: Vec<NodeId>,
    /// Groups of which this node would answer none of the VIPs, see
    /// [`crate::Core::mute`].
    pub mute: BTreeSet<GroupId>,
    /// The engine's view.
    pub engine: Status,
    /// When that was.
    pub now: BootNs,
    /// What was counted.
    pub counts: Counts,
    /// Rejected datagrams by reason, without those that are zero.
    pub rejected: Vec<(&'static str, u64)>,
    /// How late renewals began.
    pub lateness: Lateness,
    /// Groups that this node holds while their fence is shut.
    pub promoting: Vec<GroupId>,
    /// Groups that this node stays away from, and until when.
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
