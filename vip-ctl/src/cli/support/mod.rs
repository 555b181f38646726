//! What the verbs share: the client for the agent, dry runs, the log, and output.

pub(super) mod client;
pub(super) mod dry_run;
pub(super) mod log;
pub(super) mod output;
