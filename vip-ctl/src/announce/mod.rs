//! Tells the network, and the neighbours' tables, where a VIP is now.

pub mod arp;
pub mod ear;
