//! `vip-ctl status -o json` and `vip-ctl metrics`, read back: the part of its shape that users and
//! tests rely on. Fields that are not named here are ignored on purpose.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// One node's view.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node that was asked.
    pub node: String,
    /// The cluster's name; none on a node that is worked by hand.
    pub cluster: Option<String>,
    /// Whether the node hears a majority; none where there is no cluster.
    pub quorate: Option<bool>,
    /// Whether the agent has just started and has no vote yet.
    #[serde(default)]
    pub silent: bool,
    /// Whether automatic moves are switched off in the cluster.
    #[serde(default)]
    pub paused: bool,
    /// What a person should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Datagrams that the agent rejected, by reason.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
    /// What the agent counted since its start, by the metric's name.
    #[serde(default)]
    pub agent: BTreeMap<String, u64>,
    /// Frames that concern no particular VIP, by class, verdict and reason.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Every group that the node knows.
    pub groups: Vec<GroupStatus>,
}

/// One group as one node sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct GroupStatus {
    /// The group's name.
    pub name: String,
    /// `active`, `standby` and so on.
    pub state: String,
    /// The node that holds the lease, as far as this node knows.
    pub holder: Option<String>,
    /// The number of the grant.
    pub epoch: Option<u64>,
    /// Whether the node could take it; none without an agent.
    #[serde(default)]
    pub eligible: Option<bool>,
    /// Why not.
    #[serde(default)]
    pub why: Option<String>,
    /// The group's health checks on that node.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// Milliseconds that the lease still has.
    pub lease_remaining_ms: Option<f64>,
    /// The group's VIPs.
    pub vips: Vec<VipStatus>,
}

/// One health check of a group.
#[derive(Clone, Debug, Deserialize)]
pub struct CheckStatus {
    /// The check's name.
    pub name: String,
    /// Whether it passes; none before the first verdict.
    pub ok: Option<bool>,
    /// Why it failed last.
    pub last_error: Option<String>,
}

/// One VIP of a group.
#[derive(Clone, Debug, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub address: IpAddr,
    /// Frames by reason.
    #[serde(default)]
    pub counters: BTreeMap<String, serde_json::Value>,
}

/// The number behind a line of `vip-ctl metrics` that begins with `name`.
#[must_use]
pub fn metric<T: FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

impl Status {
    /// Has it just started, so that it waits until its peers say that they hear it?
    #[must_use]
    pub fn waits_for_word(&self) -> bool {
        let mut whys = self.groups.iter().filter_map(|group| group.why.as_deref());
        whys.any(|why| why.contains("no peer has heard it yet"))
    }

    /// The group `name`, if the node knows it.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupStatus> {
        self.groups.iter().find(|group| group.name == name)
    }
}
