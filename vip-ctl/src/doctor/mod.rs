//! `vip-ctl doctor`: checks everything on this host that decides whether a VIP
//! works here; each finding says what to do about it.
//!
//! It changes nothing, and needs nothing to run: what it can't check, for lack of
//! privilege, agent or configuration, it reports as not checked.

mod agent;
mod clock;
mod conntrack;
mod ethtool;
mod files;
mod gateways;
pub mod homes;
mod interfaces;
mod kernel;
mod neighbours;
mod others;
mod settings;
mod virtual_macs;
mod ways_in;

use std::path::Path;

use serde::Serialize;

use crate::{
    config::Config,
    dataplane::{
        DataPlane,
        attach::{self, Presence},
    },
    host::{Host, Interface},
    paths::Paths,
    report::Status,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but could fail, or be slower than necessary.
    Warning,
    /// It does not work, or is not safe.
    Error,
}

impl Level {
    /// The word that `doctor` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was checked: `kernel`, `xdp`, `key` and so on.
    pub subject: &'static str,
    /// Which one, if there are several: an interface, a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What was found, and what to do.
    pub says: String,
}

/// The findings so far.
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

    /// How many findings have this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// All findings, in the order of the checks.
    #[must_use]
    pub fn all(&self) -> &[Finding] {
        &self.0
    }
}

/// What the doctor knows of this host and node before it judges anything.
struct Patient<'a> {
    paths: &'a Paths,
    /// The configuration, if there is a valid one.
    config: Option<&'a Config>,
    /// The agent's status, if one runs and answers.
    status: Option<&'a Status>,
    /// The data plane, if one is loaded and can be opened.
    plane: Option<DataPlane>,
    /// Every interface; empty if netlink does not answer.
    present: Vec<Interface>,
}

impl Patient<'_> {
    /// The interfaces that matter: those that are configured, or guarded; without
    /// any, all Ethernet ones that are up.
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
        attach::is_attached(&self.paths.bpf_dir, ifindex)
    }

    /// Does our program run on the way in of this interface? `None` if none is pinned.
    fn presence(&self, link: &Interface) -> Option<Presence> {
        self.guards(link.index).then(|| attach::presence(&self.paths.bpf_dir, link))
    }

    /// Can this node hold, so that it has a data plane, as far as is known?
    fn can_hold(&self) -> bool {
        self.config.is_none_or(|config| config.this_node().can_hold())
    }
}

/// Checks everything. `named`: the command line names the configuration, so its
/// absence is an error.
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
        homes::examine(&patient, &mut found);
        gateways::examine(&patient, &mut found);
        virtual_macs::examine(&patient, &mut found);
        ways_in::examine(&patient, &mut found);
        settings::examine(&patient, &mut found);
        others::examine(&patient, &mut found);
    }
    agent::examine(&patient, &mut found);
    neighbours::examine(&patient, &mut found);
    conntrack::examine(&patient, &mut found);
    found
}
