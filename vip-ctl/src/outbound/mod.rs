//! What leaves this process towards others: the programs of checks and hooks,
//! and TLS connections of checks and webhooks.

pub(crate) mod process;
pub mod runnable;
pub(crate) mod tls;
