//! Reading packets, a file for each protocol: the fields that verdicts depend on,
//! out of a [`Frame`](crate::Frame) at an offset that its network header gave.
//!
//! What a packet means for a VIP is decided in `verdict`, not here.

pub mod arp;
pub mod ipv4;
pub mod ipv6;
pub mod udp;
