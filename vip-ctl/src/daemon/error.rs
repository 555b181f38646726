//! Why an agent did not start, or ended, and the exit code of each.

use std::{io, path::PathBuf};

use crate::{
    agent::threads::ThreadError, config::ConfigErrors, dataplane::DataPlaneError, exit::Exit,
    http::ApiFileError, lock::LockError, node::NodeError, records::membership::MembershipError,
    transport::keyfile::KeyFileError,
};

/// Why an agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The files of `[api]`.
    #[error(transparent)]
    Api(#[from] ApiFileError),
    /// The configured membership can't follow the one before.
    #[error("{path}: {source}", path = path.display())]
    Membership {
        /// The configuration's file.
        path: PathBuf,
        /// Why it can't.
        source: MembershipError,
    },
    /// This node can't tell by its own record that it may enter the configured
    /// membership, and heard no voter that takes part in it.
    #[error(
        "{path}: {source}; this node heard no voter that takes part in this generation within {waited}",
        path = path.display(),
        waited = humantime::format_duration(super::join::PATIENCE)
    )]
    Unvouched {
        /// The configuration's file.
        path: PathBuf,
        /// Why it can't tell.
        source: MembershipError,
    },
    /// Another agent or verb has the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data plane or the host.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A system call failed.
    #[error("could not {what}: {source}")]
    System {
        /// What the agent tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The lease loop has ended by itself; leases run out.
    #[error("the lease loop ended: {0}")]
    LeaseLoop(String),
}

impl AgentError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }

    /// The process's exit code for this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Key(_) | Self::Api(_) | Self::Membership { .. } => Exit::Config,
            // The other voters may still come up: worth another try, as systemd does.
            Self::Unvouched { .. } => Exit::NoQuorum,
            Self::Lock(LockError::Agent { .. } | LockError::Busy { .. }) => Exit::Busy,
            Self::Lock(LockError::Io { source, .. }) | Self::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NoPermission
            }
            Self::Lock(LockError::Io { .. }) | Self::System { .. } => Exit::System,
            Self::Node(e) => e.exit(),
            Self::LeaseLoop(_) => Exit::Software,
        }
    }
}

impl From<DataPlaneError> for AgentError {
    fn from(e: DataPlaneError) -> Self {
        Self::Node(e.into())
    }
}

impl From<ThreadError> for AgentError {
    fn from(ThreadError { name, source }: ThreadError) -> Self {
        Self::System { what: format!("start the thread {name}"), source }
    }
}
