//! The data of `status` and `metrics`, read from the maps; an agent adds what
//! only it knows.

pub mod metrics;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vip_common::{BootNs, Fence, GroupMode, IfaceConfig, Lease, VipSlot, layout::ANYWHERE};
use vip_lease::lateness::Lateness;

pub use self::text::text;
use crate::{
    clock,
    dataplane::{
        DataPlane, DataPlaneError, MapGroup,
        attach::{self, Presence},
        observe,
    },
    events::Tally,
    host::{Host, HostError, beneath::port_text, stray_text},
};

/// One node's view of itself and of the cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// The version of vip that answers: the agent's, or `vip-ctl`'s own without
    /// one.
    #[serde(default)]
    pub version: Option<String>,
    /// The cluster's name; null without an agent.
    pub cluster: Option<String>,
    /// True if this node hears a majority of the voters; null without an agent.
    pub quorate: Option<bool>,
    /// `manual`, `cluster`, `witness` or `observer`.
    pub mode: String,
    /// Does the agent keep its silence after the start? It has no vote until that
    /// is over, so don't restart another agent meanwhile.
    #[serde(default)]
    pub silent: bool,
    /// Are automatic moves switched off in the cluster?
    #[serde(default)]
    pub paused: bool,
    /// Pair mode, `take` or `hold`; null where a majority decides.
    #[serde(default)]
    pub pair: Option<String>,
    /// Number of the membership; null without an agent.
    #[serde(default)]
    pub generation: Option<u32>,
    /// The nodes of the cluster, this one included; empty without an agent.
    pub nodes: Vec<NodeStatus>,
    /// The interfaces that the data plane is on.
    pub interfaces: Vec<InterfaceStatus>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// Frames that concern no VIP, by counter.
    pub counters: BTreeMap<String, u64>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// The agent's counters; empty without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent: BTreeMap<String, u64>,
    /// Datagrams that the agent rejected, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, u64>,
    /// How late the agent's renewals began; null without an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewals: Option<Lateness>,
    /// The counts of changes, gaps and hooks; null without an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
    /// The configured lease in milliseconds; null without an agent.
    #[serde(default)]
    pub lease_ms: Option<u64>,
}

/// A node of the cluster as the answering node sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where its agent listens.
    pub address: String,
    /// `node`, `witness` or `observer`.
    pub role: String,
    /// True if the answering node has recently heard its agent.
    pub heard: bool,
    /// True if it is on standby, as it last said.
    #[serde(default)]
    pub standby: bool,
    /// True if its configuration has other groups or VIPs than the answering
    /// node's: then only the node itself can tell whether it could take a group.
    #[serde(default)]
    pub differs: bool,
    /// How long ago the answering node last heard it, in milliseconds; null if
    /// never.
    #[serde(default)]
    pub last_heard_ms: Option<u64>,
}

/// A node that could hold a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// Its priority for the group.
    pub priority: u8,
    /// Its place among the nodes that could take the group, from 1.
    pub rank: usize,
    /// Could it take the lease? As it last said; for the answering node, as it
    /// knows.
    pub ready: bool,
}

/// An interface that the data plane is on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program on the way in runs: `native` or `generic` XDP, or `tc`; `unknown` if
    /// that can't be read; null if it is not there any more.
    pub mode: Option<String>,
    /// True if it is up and has a carrier.
    pub carrier: bool,
    /// False if it is guarded, and nothing more: no VIP is answered or announced there.
    #[serde(default = "announces")]
    pub announces: bool,
    /// Do the data plane's answers arrive at most of the peers on the segment that hear the
    /// host? Null while none has said so.
    #[serde(default)]
    pub heard: Option<bool>,
}

/// What an earlier version did with every interface.
const fn announces() -> bool {
    true
}

/// A group on the answering node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `active`, `promoting`, `standby`, `fault`, `init`, `paused`, `witness`, `observer` or `expired`.
    pub state: String,
    /// `manual` or `cluster`.
    pub mode: String,
    /// The holder, if this node knows one.
    pub holder: Option<String>,
    /// The number of the grant; null in manual mode.
    pub epoch: Option<u64>,
    /// True if this node holds it by force, without a quorum.
    #[serde(default)]
    pub forced: bool,
    /// Could this node take the group? Null without an agent.
    #[serde(default)]
    pub eligible: Option<bool>,
    /// Why not.
    #[serde(default)]
    pub why: Option<String>,
    /// Its health checks on this node.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// The nodes that could hold it, the first in rank first; empty without an agent.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// Who takes it if its holder dies, or now if it has none; null without an agent.
    #[serde(default)]
    pub heir: Option<Heir>,
    /// A VIP for which nobody answers on this node's segment, while another node holds the
    /// group: held but silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
    /// How much longer this node stays away from it because its `pre_promote` has
    /// failed, in milliseconds; null if it does not.
    #[serde(default)]
    pub stays_away_ms: Option<u64>,
    /// What is left of this node's lease, in milliseconds; null without one
    /// and in manual mode, where a lease does not end.
    pub lease_remaining_ms: Option<u64>,
    /// The VIPs.
    pub vips: Vec<VipStatus>,
}

/// Who takes a group if its holder dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Heir {
    /// The named node.
    Node {
        /// Its name.
        node: String,
    },
    /// The named node, if it is ready: it has other groups or VIPs than the
    /// answering one, so only it can tell.
    Perhaps {
        /// Its name.
        node: String,
    },
    /// Nobody: no other node is ready.
    NobodyReady,
    /// Nobody: the cluster is paused.
    Paused,
    /// Nobody: in pair mode with `hold`, a person has to promote a node.
    PairHolds,
    /// Nobody: too few voters would be left for a majority.
    NoMajority {
        /// How many.
        voters_left: usize,
    },
}

/// A health check on the answering node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckStatus {
    /// Its name.
    pub name: String,
    /// `tcp`, `http`, `exec`, `systemd`, `process` or `file`.
    pub kind: String,
    /// Does it pass? Null before the first verdict.
    pub ok: Option<bool>,
    /// For how many seconds it has had this verdict.
    pub since_s: u64,
    /// Its last error; null once it passes.
    pub last_error: Option<String>,
    /// How long the last run took, in milliseconds; null before the first one.
    pub took_ms: Option<f64>,
}

/// A VIP on the answering node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VipStatus {
    /// The address.
    pub address: String,
    /// The one interface that it is answered and announced on; absent if it is on all that
    /// announce, empty while its interface is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The length of its subnet's prefix in bits, if it brings its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u32>,
    /// Frames by counter, without those that are zero.
    pub counters: BTreeMap<String, u64>,
}

impl VipStatus {
    /// The address with its prefix and its interface, if it has any, in words.
    #[must_use]
    pub fn at_home(&self) -> String {
        let prefix = self.prefix.map_or(String::new(), |prefix| format!("/{prefix}"));
        let on = match self.interface.as_deref() {
            Some("") => ", whose interface is away".to_owned(),
            Some(name) => format!(" on {name}"),
            None => String::new(),
        };
        format!("{}{prefix}{on}", self.address)
    }
}

/// Why a status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The maps.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// The version of this program.
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

impl Status {
    /// Does this node have a data plane? A witness or observer has none.
    #[must_use]
    pub fn has_data_plane(&self) -> bool {
        matches!(self.mode.as_str(), "cluster" | "manual")
    }

    /// The status from the maps alone.
    ///
    /// # Errors
    /// [`DataPlaneError`] if they can't be read.
    pub fn of_maps(plane: &DataPlane, node: &str) -> Result<Self, DataPlaneError> {
        let now = clock::now();
        let mut vips = plane.vips_by_group()?;
        let mut groups = Vec::new();
        for group in plane.groups() {
            let lease = plane.leases().load(group.index);
            let mut status = group_status(&group, lease, node, now);
            for (address, entry) in vips.remove(&group.index).unwrap_or_default() {
                status.vips.push(VipStatus {
                    address: address.to_string(),
                    interface: (entry.home != ANYWHERE)
                        .then(|| attach::name_of(entry.home).unwrap_or_default()),
                    prefix: (entry.prefix > 0).then_some(entry.prefix.into()),
                    counters: observe::named(&plane.counters(entry.slot)?, false).into_iter().collect(),
                });
            }
            groups.push(status);
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            node: node.to_owned(),
            version: Some(version()),
            mode: "manual".into(),
            groups,
            counters: observe::named(&plane.counters(VipSlot::NODE)?, false).into_iter().collect(),
            ..Self::default()
        })
    }

    /// Adds the interfaces that the data plane is on, and warns of those that are
    /// in trouble and of a VIP that is an ordinary address.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn add_interfaces(&mut self, plane: &DataPlane, host: &Host) -> Result<(), ReportError> {
        let (present, known) = (host.interfaces()?, plane.ifaces()?);
        for (ifindex, name) in attach::interfaces(plane.dir())? {
            let interface = present.get(&ifindex);
            let announces = !known.get(&ifindex).is_some_and(|iface| iface.has(IfaceConfig::SILENT));
            if let Some(link) = interface.filter(|_| announces) {
                self.warnings.extend(attach::taken_text(link, &present));
                self.warnings.extend(port_text(link, &present));
            }
            let mode = match interface.map(|link| (link, attach::presence(plane.dir(), link))) {
                Some((link, Presence::Runs(mode))) => {
                    let misfit = attach::modes(mode, link, &present).err();
                    self.warnings.extend(misfit.map(|e| e.to_string()));
                    Some(mode.name().to_owned())
                }
                Some((_, Presence::Unknown)) => Some("unknown".to_owned()),
                Some((_, Presence::Gone)) | None => None,
            };
            if mode.is_none() {
                self.warnings.push(format!(
                    "no program is on the way in of {name} any more: its VIPs are not answered there; run `vip-ctl load` again or restart the agent"
                ));
            }
            let carrier = interface.is_some_and(|i| i.up && i.carrier);
            self.interfaces.push(InterfaceStatus { name, mode, carrier, announces, heard: None });
        }
        let vips = self.groups.iter().flat_map(|group| &group.vips);
        let vips = vips.filter_map(|vip| vip.address.parse().ok()).collect();
        self.warnings.extend(host.ordinary(&vips)?.map(|(vip, iface)| stray_text(vip, &iface)));
        if self.interfaces.is_empty() {
            self.warnings.push(
                "the data plane is on no interface: no VIP is answered; run `vip-ctl load --iface IFACE`"
                    .into(),
            );
        }
        Ok(())
    }
}

fn group_status(group: &MapGroup, lease: Lease, node: &str, now: BootNs) -> GroupStatus {
    let fence = group.fence(lease, now);
    let state = match fence {
        Fence::Open => "active",
        Fence::NoLease => "standby",
        Fence::Expired => "expired",
        Fence::Invalid => "fault",
    };
    let remaining = lease.expiry().map(|expiry| expiry.since(now));
    GroupStatus {
        name: group.name.clone(),
        state: state.into(),
        mode: match group.mode {
            GroupMode::Manual | GroupMode::Unused => "manual".into(),
            GroupMode::Cluster => "cluster".into(),
        },
        holder: fence.is_open().then(|| node.to_owned()),
        lease_remaining_ms: remaining.and_then(|r| u64::try_from(r.as_millis()).ok()),
        ..GroupStatus::default()
    }
}
