//! Scenarios: text files in which a person wrote what happens to a cluster
//! and what must come of it. They run in the simulator's world (the shipped
//! engine, a clock per node, the data plane's own fence), without any chance.
//!
//! A file first describes the cluster, then tells a story, a step a line:
//!
//! ```text
//! # What this shows, and which rule (of docs/protocol.md) it is about.
//! lease 200ms
//! nodes a b
//! witnesses w
//! group db a=150 b=100
//!
//! start all
//! expect holder db = a within 500ms
//! after 50ms crash a
//! expect holder db = b within 300ms
//! ```
//!
//! `#` begins a comment. Each step is done before the next one; `at TIME` (since
//! the beginning) and `after TIME` (since the step before) let time pass first,
//! also alone on a line. `repeat N` … `end` repeats lines N times. Whatever a
//! scenario expects, two holders at any moment make it fail, as does everything
//! else that [`Violation`](super::Violation) lists.
//!
//! `verbs.rs` has every word with its usage, which the error for a misspelt step
//! prints. [`parse`] reads a scenario, [`Scenario::run`] plays it.

mod cluster;
mod expect;
mod parse;
mod run;
mod verbs;
mod words;

use std::{fmt, path::PathBuf, time::Duration};

use vip_engine::Command;

use self::{cluster::Cluster, expect::Expect};
use super::network::{Keep, Tap};

pub use self::{parse::parse, run::Replay};

/// A scenario, read and understood.
#[derive(Clone, Debug)]
pub struct Scenario {
    file: PathBuf,
    cluster: Cluster,
    lines: Vec<Line>,
}

/// One step, and its line.
#[derive(Clone, Debug)]
struct Line {
    number: usize,
    text: String,
    wait: Wait,
    /// `None`: only let time pass.
    step: Option<Step>,
}

/// When a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    No,
    /// Since the beginning.
    At(Duration),
    /// Since the step before.
    After(Duration),
}

/// From a node to a node.
type Link = (usize, usize);

/// What a step does. Nodes and groups are indices.
#[derive(Clone, Debug)]
enum Step {
    Start {
        nodes: Vec<usize>,
        generation: Option<u64>,
    },
    Kill {
        nodes: Vec<usize>,
        host: bool,
    },
    Stall {
        nodes: Vec<usize>,
        how_long: Option<Duration>,
        with_output: bool,
    },
    Resume {
        nodes: Vec<usize>,
    },
    Stop {
        nodes: Vec<usize>,
    },
    Eligible {
        nodes: Vec<usize>,
        groups: Vec<usize>,
        eligible: bool,
    },
    Delay {
        links: Vec<Link>,
        by: Duration,
    },
    Jitter {
        by: Duration,
    },
    /// Per mille.
    Loss {
        chance: u64,
    },
    /// Per mille.
    Duplicates {
        chance: u64,
    },
    Cut {
        links: Vec<Link>,
        cut: bool,
    },
    Tap {
        taps: Vec<Tap>,
    },
    Untap {
        keep: Keep,
    },
    SendKept {
        keep: Keep,
        links: Vec<Link>,
    },
    Command {
        command: Command,
        via: Option<usize>,
        label: Option<String>,
    },
    Expect(Expect),
}

/// A mistake in a scenario, or a step of it that did not come out as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The text there, or the part of it that is wrong.
    pub text: String,
    /// What is wrong, and what to write instead.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.file.display(), self.line, self.text, self.why)
    }
}

impl std::error::Error for Broken {}
