//! What verbs share: asking the agent, a dry run, the log, and what is printed.

pub(super) mod client;
pub(super) mod dry_run;
pub(super) mod log;
pub(super) mod output;
