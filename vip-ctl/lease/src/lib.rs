//! The decisions of a node's lease thread: who sent a datagram, what the engine
//! makes of it, and what waits for a hook. Sans-IO: the thread, the simulation
//! and the tests of hooks run this same code, each with an [`Io`] of its own.
//!
//! It knows no sockets, maps or configuration files ([`transport::keyfile`] alone
//! reads a file), and none of the other threads.

mod departures;
pub mod gate;
pub mod histogram;
pub mod lateness;
mod loop_core;
pub mod messages;
mod moves;
mod mutant;
mod regroup;
pub mod table;
pub mod transport;

pub use self::{
    departures::RUNS_MAX,
    loop_core::{Core, Io, Parts},
    messages::{Counts, Eligible, Hook, HookAsk, HookOrder, LeaseNotice, Snapshot, Turned},
    regroup::Regroup,
};
#[cfg(feature = "mutants")]
pub use mutant::{choose as choose_mutant, is_one as is_mutant};
