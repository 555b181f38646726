//! What a client wants of the agent, and what it gets: one JSON object each.

use serde::{Deserialize, Serialize};

use crate::{agent::messages::Changes, exit::Exit, report::Status};

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// The status.
    Status,
    /// The events that are kept; answered by one [`crate::events::Event`] a line.
    Events {
        /// Of which group only.
        group: Option<String>,
        /// Also those that come.
        follow: bool,
    },
    /// Give this node, or `to`, the lease.
    Promote {
        /// The group or a VIP of it; may be left out where there is one.
        group: Option<String>,
        /// Answer when the group is served, and not as soon as its lease has
        /// moved. Likewise with the others.
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
        /// Release also what nobody else can take.
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
    /// Say what another request would bring about, and do nothing.
    DryRun {
        /// The request.
        of: Box<Request>,
    },
}

impl Request {
    /// May its answer take as long as a hook?
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

/// What a client gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Standby`]: it is so.
    Standby {
        /// The node.
        node: String,
        /// Is it on standby?
        on: bool,
    },
    /// To [`Request::Pause`]: it is so.
    Pause {
        /// Is the cluster paused?
        on: bool,
    },
    /// To [`Request::Reload`]: what has changed.
    Reloaded(Changes),
    /// To [`Request::DryRun`]: what would happen.
    Would {
        /// In sentences; none if it is so already.
        happen: Vec<String>,
    },
    /// To the others: it is done.
    Done {
        /// The group.
        group: String,
        /// Who holds it now; null for nobody.
        holder: Option<String>,
        /// What was risked by that: a failover by force, without a quorum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        risk: Option<String>,
    },
    /// It was not done.
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
