//! Programs and connections that the agent starts: the programs of checks and
//! hooks, and TLS connections of checks and webhooks.

pub(crate) mod process;
pub mod runnable;
pub(crate) mod tls;
