//! The agent's process, above all of its threads: its start, its signals, and its
//! end. It knows every other module; only `cli` knows it.

mod error;
mod join;
mod run;
mod signals;
mod start;
mod successor;
mod systemd;

pub use self::{
    error::AgentError,
    run::{run, try_out},
};
