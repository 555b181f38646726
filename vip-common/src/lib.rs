//! What the kernel side and the user side must agree on: leases and the one
//! definition of "may I answer?" ([`lease::fence`]), map keys and values,
//! counters, events, the table of verdicts ([`verdict::ruling`]), datagrams
//! between agents as the kernel sees them, and the names of maps and programs.
//!
//! Nothing here does IO, reads a clock or allocates: the crate is `no_std` and
//! is compiled into the XDP program, the agent and the simulator alike.
#![no_std]

pub mod counter;
pub mod event;
pub mod heartbeat;
pub mod layout;
pub mod lease;
pub mod names;
#[cfg(feature = "user")]
mod pod;
mod siphash;
pub mod verdict;

pub use counter::Counter;
pub use layout::{GroupConfig, GroupIndex, GroupMode, Heard, IfaceConfig, VipEntry, VipSlot};
pub use lease::{BootNs, Fence, Lease, fence, fence_open};
