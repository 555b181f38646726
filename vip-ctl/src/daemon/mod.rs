//! The agent's process, above all of its threads: how it begins, what signals do
//! to it, and how it ends. It knows everybody; only `cli` knows it.

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
