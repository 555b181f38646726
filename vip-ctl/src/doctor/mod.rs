//! `vip-ctl doctor`: everything on this host that decides whether a VIP works
//! here, looked at one by one, each finding with what to do about it.
//!
//! Nothing is changed, and nothing of it is needed to run: what can't be seen,
//! for want of privilege, agent or configuration, is said to be unseen.

mod agent;
mod clock;
mod conntrack;
mod ethtool;
mod files;
mod interfaces;
mod kernel;
mod neighbours;
mod others;
mod settings;

use std::path::Path;

use serde::Serialize;

use crate::{
    config::Config,
    dataplane::DataPlane,
    host::{Host, Interface},
    paths::Paths,
    report::Status,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and could fail or be slower than need be.
    Warning,
    /// It does not work, or is not safe.
    Error,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `kernel`, `xdp`, `key` and so on.
    pub subject: &'static str,
    /// Which one, where there are several: an interface, a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What was found, and what to do.
    pub says: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, subject: &'static str, of: Option<&str>, says: impl Into<String>) {
        self.0.push(Finding { level, subject, of: of.map(str::to_owned), says: says.into() });
    }

    fn ok(&mut self, subject: &'static str, says: impl Into<String>) {
        self.add(Level::Ok, subject, None, says);
    }

    fn warning(&mut self, subject: &'static str, says: impl Into<String>) {
        self.add(Level::Warning, subject, None, says);
    }

    fn error(&mut self, subject: &'static str, says: impl Into<String>) {
        self.add(Level::Error, subject, None, says);
    }

    /// How many there are of a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// All of them, in the order in which they were looked at.
    #[must_use]
    pub fn all(&self) -> &[Finding] {
        &self.0
    }
}

/// What is known of this host and node before anything is judged.
struct Patient<'a> {
    paths: &'a Paths,
    /// The configuration, if there is a right one.
    config: Option<&'a Config>,
    /// The agent's status, if one runs and answers.
    status: Option<&'a Status>,
    /// The data plane, if one is loaded and can be opened.
    plane: Option<DataPlane>,
    /// Every interface; none if netlink can't be asked.
    present: Vec<Interface>,
}

impl Patient<'_> {
    /// The interfaces that matter: those configured, or guarded, or else all
    /// Ethernet ones that are up.
    fn interfaces(&self) -> Vec<&Interface> {
        let named = |interface: &&Interface| match self.config {
            Some(config) if !config.interfaces.is_empty() => config.interfaces.contains(&interface.name),
            Some(_) => false,
            None if self.plane.is_some() => self.guards(interface.index),
            None => interface.up && !interface.loopback && interface.mac.is_some(),
        };
        self.present.iter().filter(named).collect()
    }

    /// Is our program pinned for this interface?
    fn guards(&self, ifindex: u32) -> bool {
        crate::dataplane::attach::is_attached(&self.paths.bpf_dir, ifindex)
    }

    /// Can this node hold, and so has a data plane, as far as is known?
    fn can_hold(&self) -> bool {
        self.config.is_none_or(|config| config.this_node().can_hold())
    }
}

/// Looks at everything. `named` says that the configuration was asked for by
/// name, so that its absence is an error.
#[must_use]
pub fn examine(config_path: &Path, named: bool, paths: &Paths, status: Option<&Status>) -> Findings {
    let mut found = Findings::default();
    kernel::examine(&mut found);
    clock::examine(&mut found);
    let config = files::configuration(config_path, named, &mut found);
    let present = match Host::open(&paths.run_dir).and_then(|host| host.interfaces()) {
        Ok(present) => present.into_values().collect(),
        Err(e) => {
            found.error("interfaces", e.to_string());
            Vec::new()
        }
    };
    let plane = DataPlane::open(&paths.bpf_dir).ok();
    let patient = Patient { paths, config: config.as_ref(), status, plane, present };
    files::examine(&patient, &mut found);
    if patient.can_hold() {
        interfaces::examine(&patient, &mut found);
        settings::examine(&patient, &mut found);
        others::examine(&patient, &mut found);
    }
    agent::examine(&patient, &mut found);
    neighbours::examine(&patient, &mut found);
    conntrack::examine(&patient, &mut found);
    found
}
