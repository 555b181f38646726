//! Command line and agent of vip, as a library: the data plane's user side, the
//! host's addresses and routes, and the threads around the lease engine
//! ([`vip_engine`]) and the core of the lease thread ([`vip_lease`]), which are
//! packages of their own.

pub mod agent;
pub mod announce;
pub mod cli;
pub mod clock;
pub mod config;
pub mod convert;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod home;
pub mod host;
pub mod http;
pub mod lock;
pub mod lookup;
pub mod mode;
mod mutant;
pub mod node;
mod outbound;
pub mod paths;
mod realtime;
pub mod records;
#[cfg(test)]
mod reference;
pub mod report;
pub mod socket_filter;

pub use vip_engine as engine;
pub use vip_lease::transport;
