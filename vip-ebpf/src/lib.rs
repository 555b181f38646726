//! The data plane: parsing, verdicts and the ARP answer, as ordinary Rust that
//! is unit-tested on the host and compiled into the BPF programs.
//!
//! The maps are behind [`Maps`]; the programs, the map definitions and
//! everything that only exists in the kernel are in the binary.
#![cfg_attr(not(test), no_std)]

pub mod frame;
mod gateway;
pub mod heartbeat;
pub mod packet;
mod steer;
pub mod verdict;
pub mod virtual_mac;

pub use frame::Frame;
pub use verdict::{Maps, egress, ingress, local, local_in};
