//! Command line and agent of vip, as a library: the data plane's user side, the
//! host's addresses and routes, and the loop that ties them to the sans-IO lease
//! engine, which is a package of its own ([`vip_engine`]).

pub mod agent;
pub mod announce;
pub mod cli;
pub mod config;
pub mod convert;
pub mod dataplane;
pub mod doctor;
pub mod event;
pub mod exit;
pub mod history;
pub mod host;
pub mod http;
pub mod lock;
pub mod metrics;
mod mutant;
pub mod node;
pub mod paths;
pub mod programs;
pub mod record;
#[cfg(test)]
mod reference;
pub mod report;
pub mod transport;

#[cfg(feature = "mutants")]
pub use mutant::choose as choose_mutant;
pub use vip_engine as engine;
