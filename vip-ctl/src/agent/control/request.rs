//! Requests of a client to the agent, and the responses: one JSON object each.

use serde::{Deserialize, Serialize};

use crate::{agent::messages::Changes, exit::Exit, report::Status};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// The status.
    Status,
    /// The events that the agent keeps; answered by one [`crate::events::Event`]
    /// a line.
    Events {
        /// Only those of this group.
        group: Option<String>,
        /// Go on with new events.
        follow: bool,
    },
    /// Give this node, or `to`, the lease.
    Promote {
        /// The group or a VIP of it; may be left out where there is one.
        group: Option<String>,
        /// Answer only when the group is served, not as soon as its lease has moved. The
        /// same for the requests below.
        #[serde(default)]
        wait: bool,
    },
    /// Take the lease from its holder.
    Demote {
        /// The group or a VIP of it.
        group: Option<String>,
        /// See [`Request::Promote`].
        #[serde(default)]
        wait: bool,
    },
    /// Move the lease.
    Switchover {
        /// The group or a VIP of it.
        group: Option<String>,
        /// To which node; the holder chooses if left out.
        to: Option<String>,
        /// See [`Request::Promote`].
        #[serde(default)]
        wait: bool,
    },
    /// Give the lease to this node or `to`, whether or not the holder is there.
    Failover {
        /// The group or a VIP of it.
        group: Option<String>,
        /// To which node; this one if left out.
        to: Option<String>,
        /// Also without a quorum, by this node's vote alone.
        force: bool,
        /// See [`Request::Promote`].
        #[serde(default)]
        wait: bool,
    },
    /// Put a node on standby, or take it off.
    Standby {
        /// Which node; this one if left out.
        node: Option<String>,
        /// True to put it on standby.
        on: bool,
        /// Release groups too that no other node can take.
        force: bool,
        /// See [`Request::Promote`]; about all groups that the node held.
        #[serde(default)]
        wait: bool,
    },
    /// Pause the cluster, or let it go on.
    Pause {
        /// True to pause.
        on: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Say what another request would do, and do nothing.
    DryRun {
        /// The request.
        of: Box<Request>,
    },
}

impl Request {
    /// Can its answer take as long as a hook?
    #[must_use]
    pub const fn waits(&self) -> bool {
        match self {
            Self::Promote { wait, .. }
            | Self::Demote { wait, .. }
            | Self::Switchover { wait, .. }
            | Self::Failover { wait, .. }
            | Self::Standby { wait, .. } => *wait,
            Self::Status | Self::Events { .. } | Self::Pause { .. } | Self::Reload | Self::DryRun { .. } => {
                false
            }
        }
    }
}

/// The response to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Standby`]: done.
    Standby {
        /// The node.
        node: String,
        /// Is it on standby?
        on: bool,
    },
    /// To [`Request::Pause`]: done.
    Pause {
        /// Is the cluster paused?
        on: bool,
    },
    /// To [`Request::Reload`]: what has changed.
    Reloaded(Changes),
    /// To [`Request::DryRun`]: what would happen.
    Would {
        /// In sentences; none if there is nothing to do.
        happen: Vec<String>,
    },
    /// To the others: done.
    Done {
        /// The group.
        group: String,
        /// Who holds it now; null for nobody.
        holder: Option<String>,
        /// The risk that it took: a failover by force, without a quorum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        risk: Option<String>,
    },
    /// Not done.
    Error {
        /// An exit code.
        code: u8,
        /// A sentence.
        message: String,
    },
}

impl Response {
    pub(super) fn error(exit: Exit, message: impl Into<String>) -> Self {
        Self::Error { code: exit as u8, message: message.into() }
    }
}
