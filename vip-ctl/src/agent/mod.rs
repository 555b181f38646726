//! The agent's threads, a module each, and what they share. [`crate::daemon`] is
//! the process around them.
//!
//! - `lease_loop` owns engine, transport and lease store, and does nothing else.
//! - `judge` says which groups this node can serve, and waits for nobody.
//! - `keeper` owns the host's side: routes, repairs, the log.
//! - `announcer` sends gratuitous ARP.
//! - `hooks` runs hooks when a group moves.
//! - `checks` runs the health checks.
//! - `control` answers `vip-ctl` and HTTP, on their threads.
//!
//! If one of the first five panics, the process aborts, and the kernel fences the
//! node.

pub mod announcer;
pub mod checks;
pub mod control;
pub mod heartbeat;
pub mod hooks;
pub mod judge;
pub mod keeper;
pub mod lease_loop;
pub mod messages;
pub mod names;
pub mod prober;
pub mod setup;
pub mod threads;
