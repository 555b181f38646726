//! The model check of the shipped engine: every schedule of a small cluster,
//! not some of them.
//!
//! The nodes are [`vip_engine::Engine`]s themselves ([`local`]), the network is a
//! set of messages that may come at any time or never ([`network`]), time is part
//! of the state ([`world`]), and [`vip_common::fence_open`] decides whether a
//! fence is open ([`claims`]). [`catalogue`] lists the explorations, and
//! [`mutants`] the faults that they must find.
//!
//! Everything happens at ticks of true time, of which a run has a few; a process
//! may be late with everything. As far as the quorum is concerned, nodes hear
//! each other at all times, which is more than real nodes do.
//!
//! There are up to five voters, and while a step of the membership lasts, each
//! has its own generation's ([`Membership`]).

mod catalogue;
mod claims;
mod local;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod report;
mod scope;
mod table;
mod world;

use vip_engine::NodeId;

pub use self::{
    catalogue::{LEAPS, Leap, full, smallest, standard},
    claims::{Claim, ONE_HOLDER},
    report::{Outcome, Violation, explore, explore_to},
    scope::{Membership, Order, PLACES, Rate, Scope, Start, Tick},
};

/// The id of the node at `index`.
fn node_id(index: usize) -> NodeId {
    NodeId(place(index))
}

/// A place in a list of a few, small.
fn place(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}
