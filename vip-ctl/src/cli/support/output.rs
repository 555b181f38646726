//! How verbs report and end: one failure type, one way to print, two formats.

use std::io::{self, Write as _};

use clap::ValueEnum;

use crate::{
    dataplane::DataPlaneError, exit::Exit, host::HostError, lock::LockError, lookup::Miss, node::NodeError,
    report::ReportError,
};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// For a person.
    Text,
    /// For a program: one JSON object.
    Json,
}

/// Why a verb failed: a sentence and an exit code.
#[derive(Debug)]
pub(in crate::cli) struct Failure {
    pub(in crate::cli) exit: Exit,
    pub(in crate::cli) message: String,
}

impl Failure {
    pub(in crate::cli) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A failure that the agent answered with.
    pub(in crate::cli) fn of_agent(code: u8, message: String) -> Self {
        Self { exit: Exit::from_code(code), message }
    }
}

impl From<DataPlaneError> for Failure {
    fn from(e: DataPlaneError) -> Self {
        Self::new(e.exit(), e.to_string())
    }
}

impl From<NodeError> for Failure {
    fn from(e: NodeError) -> Self {
        Self::new(e.exit(), e.to_string())
    }
}

impl From<HostError> for Failure {
    fn from(e: HostError) -> Self {
        NodeError::from(e).into()
    }
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        Self::new(miss.exit, miss.message)
    }
}

impl From<ReportError> for Failure {
    fn from(e: ReportError) -> Self {
        match e {
            ReportError::DataPlane(e) => e.into(),
            ReportError::Host(e) => e.into(),
        }
    }
}

impl From<LockError> for Failure {
    fn from(e: LockError) -> Self {
        let exit = match &e {
            LockError::Agent { .. } | LockError::Busy { .. } => Exit::Busy,
            LockError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::NoPermission
            }
            LockError::Io { .. } => Exit::System,
        };
        Self::new(exit, e.to_string())
    }
}

/// A failure as JSON.
pub(in crate::cli) fn as_json(failure: &Failure) -> String {
    let error = serde_json::json!({
        "error": { "code": failure.exit as u8, "message": failure.message }
    });
    format!("{error}\n")
}

/// The exit code for a file that can't be created or written.
pub(in crate::cli) fn exit_of_write(e: &io::Error) -> Exit {
    let in_the_way = [
        io::ErrorKind::AlreadyExists,
        io::ErrorKind::NotFound,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::InvalidFilename,
    ];
    if e.kind() == io::ErrorKind::PermissionDenied {
        Exit::NoPermission
    } else if in_the_way.contains(&e.kind()) {
        Exit::Occupied
    } else {
        Exit::System
    }
}

/// Refuses `-o json` for a verb that has no JSON.
pub(in crate::cli) fn text_only(format: Format, verb: &str, instead: &str) -> Result<(), Failure> {
    match format {
        Format::Text => Ok(()),
        Format::Json => {
            Err(Failure::new(Exit::Usage, format!("{verb} prints no JSON: leave -o json out, or {instead}")))
        }
    }
}

/// Prints to stdout; if the reader went away, that is no error of the verb.
pub(in crate::cli) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a value as one JSON object.
pub(in crate::cli) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(Exit::Software, format!("could not write JSON: {e}")))?;
    print(&format!("{json}\n"));
    Ok(())
}

/// The host's name, which is the node's name unless an agent says otherwise.
pub(in crate::cli) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_writing_have_their_exit_codes() {
        for (kind, exit) in [
            (io::ErrorKind::PermissionDenied, Exit::NoPermission),
            (io::ErrorKind::ReadOnlyFilesystem, Exit::Occupied),
            (io::ErrorKind::NotFound, Exit::Occupied),
            (io::ErrorKind::StorageFull, Exit::System),
        ] {
            assert_eq!(exit_of_write(&kind.into()), exit, "{kind}");
        }
    }
}
