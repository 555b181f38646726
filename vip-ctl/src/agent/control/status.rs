//! Parts of the status: what the maps and netlink tell of this node, the lease
//! loop's counters, and the warnings of pair mode.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::PoisonError,
};

use vip_lease::{Counts, Snapshot};

use super::{Response, Server, candidates};
use crate::{
    config::{self, Config},
    dataplane::{DataPlane, local_in},
    engine::{EPOCH_MARGIN, NodeId, PeerLoss, Role},
    exit::Exit,
    host::Host,
    report::{self, GroupStatus, NodeStatus, Status, VipStatus},
};

/// Why a node takes no lease of a group that has only new VIPs.
const MUTE: &str = "none of its VIPs here is in the configuration of a majority of the voters yet";

impl Server {
    /// The whole status.
    pub(super) async fn status(&self) -> Result<Status, Response> {
        let (config, snapshot) = self.snapshot().await?;
        let mut status = self.maps_status().await?;
        status.node.clone_from(&config.node_name);
        status.version = Some(report::version());
        status.cluster = Some(config.cluster.name.clone());
        status.quorate = Some(snapshot.engine.quorate);
        status.paused = snapshot.engine.paused;
        status.silent = snapshot.engine.silent;
        status.generation = Some(config.cluster.generation);
        if let Some(loss) = config.cluster.pair {
            self.tell_of_pair(loss, &mut status, &snapshot);
        }
        self.tell_of_disk(&config, &mut status, &snapshot);
        status.warnings.extend(local_in::open_to_nat());
        status.warnings.extend(self.refused.read().unwrap_or_else(PoisonError::into_inner).clone());
        self.overlay(&config, &mut status, &snapshot);
        Ok(status)
    }

    /// The status from the maps and netlink; read on a blocking thread.
    pub(super) async fn maps_status(&self) -> Result<Status, Response> {
        let config = self.config();
        let me = config.this_node();
        if !me.can_hold() {
            return Ok(Status { mode: role_name(me.role).into(), ..Status::default() });
        }
        let (paths, name) = (self.paths.clone(), me.name.clone());
        let read = tokio::task::spawn_blocking(move || {
            let plane = DataPlane::open(&paths.bpf_dir)?;
            let mut status = Status::of_maps(&plane, &name)?;
            status.mode = "cluster".into();
            status.add_interfaces(&plane, &Host::open(&paths.run_dir)?)?;
            Ok::<_, crate::report::ReportError>(status)
        });
        match read.await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(e)) => Err(Response::error(Exit::System, e.to_string())),
            Err(e) => Err(Response::error(Exit::Software, e.to_string())),
        }
    }

    /// Rule 13: warns of pair mode.
    pub(super) fn tell_of_pair(&self, loss: PeerLoss, status: &mut Status, snapshot: &Snapshot) {
        let (mode, means) = match loss {
            PeerLoss::Take => ("take", "a cut between the nodes makes both answer"),
            PeerLoss::Hold => ("hold", "nobody takes over from a dead node by itself"),
        };
        status.pair = Some(mode.into());
        status.warnings.push(format!("pair mode ({mode}): {means}; a third voter rules that out"));
        if snapshot.engine.alone {
            status.warnings.push("this node does not hear the other one of the pair, and acts alone".into());
        }
    }

    /// Warns of the disk: a node asks for a new ceiling while half of its grants
    /// are left, so few left means that the disk does not answer.
    pub(super) fn tell_of_disk(&self, config: &config::Config, status: &mut Status, snapshot: &Snapshot) {
        let left = snapshot.engine.grants_left;
        if config.this_node().role == Role::Observer || left >= EPOCH_MARGIN / 4 {
            return;
        }
        let dir = self.paths.state_dir.display();
        status.warnings.push(match left {
            0 => format!("this node votes for no new holder: its epochs can't be written to {dir}; make room there"),
            left => format!(
                "this node's epochs can't be written to {dir}: it votes for {left} more moves at most; make room there"
            ),
        });
    }

    /// Adds what peers say of the interfaces, and warns of those whose answers do not arrive.
    fn tell_of_hearing(&self, status: &mut Status) {
        for (name, hearing) in self.board.heard() {
            let found = status.interfaces.iter_mut().find(|interface| interface.name == name);
            found.into_iter().for_each(|interface| interface.heard = Some(hearing.is_heard()));
            status.warnings.extend(hearing.trouble);
        }
    }

    /// Adds what only the engine knows.
    fn overlay(&self, config: &Config, status: &mut Status, snapshot: &Snapshot) {
        for node in &config.cluster.nodes {
            let known = snapshot.engine.nodes.get(usize::from(node.id));
            status.nodes.push(NodeStatus {
                name: node.name.clone(),
                address: node.address.to_string(),
                role: role_name(node.role).into(),
                heard: known.is_some_and(|known| known.present),
                standby: known.is_some_and(|known| known.standby),
                differs: known.is_some_and(|known| known.differs),
                last_heard_ms: known
                    .and_then(|known| known.last_heard)
                    .and_then(|heard| u64::try_from(snapshot.now.since(heard).as_millis()).ok()),
            });
        }
        self.tell_of_hearing(status);
        let has_carrier = status.interfaces.iter().all(|interface| interface.carrier);
        let places = places(&status.groups);
        for (group, (id, known)) in config.groups.iter().zip(snapshot.engine.groups.with_ids()) {
            let place = places.get(&group.name).copied().unwrap_or_else(|| {
                status.groups.push(bare(group));
                status.groups.len() - 1
            });
            let entry = &mut status.groups[place];
            let missing = missing(group, entry);
            if !missing.is_empty() {
                status.warnings.push(format!(
                    "group {}: {} not answered yet: a majority of the voters must have it in their configuration first",
                    group.name,
                    missing.join(", ")
                ));
            }
            entry.state = known.state.to_string();
            entry.holder = known.holder.map(|node| self.node_name(node));
            entry.epoch = Some(known.epoch.0);
            entry.forced = known.forced;
            if config.this_node().can_hold() {
                let seen = self.board.see(&group.name);
                (entry.eligible, entry.why, entry.checks) = (Some(seen.eligible), seen.why, seen.checks);
                // Without a carrier nobody is heard.
                if let (Some(vip), Some(holder), true) = (seen.unheard, &entry.holder, has_carrier)
                    && known.holder != Some(NodeId(config.me))
                {
                    status.warnings.push(format!(
                        "group {}: held but silent: {holder} holds it, and nobody answers for {vip} on this node's segment; see `vip-ctl doctor` there",
                        group.name
                    ));
                    entry.silent = Some(vip.to_string());
                }
                if snapshot.mute.contains(&id) {
                    entry.eligible = Some(false);
                    entry.why.get_or_insert_with(|| MUTE.to_owned());
                }
            }
            candidates::add(entry, config, id, group, known, snapshot);
            if known.forced {
                status.warnings.push(format!(
                    "group {} is held by force, without a quorum: other nodes may answer for it too",
                    group.name
                ));
            }
            entry.lease_remaining_ms = known
                .expiry
                .filter(|expiry| *expiry > snapshot.now)
                .and_then(|expiry| u64::try_from(expiry.since(snapshot.now).as_millis()).ok());
        }
        status.agent = counted(&snapshot.counts);
        let rejected = snapshot.rejected.iter();
        status.rejected = rejected.map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        status.renewals = Some(snapshot.lateness.clone());
        for node in &snapshot.differing {
            status.warnings.push(format!(
                "node {} has other groups or VIPs in its configuration than this node: give both the same and run `vip-ctl reload` there",
                self.node_name(*node)
            ));
        }
        status.tally = Some(self.follow.events().tally());
        status.lease_ms = u64::try_from(config.cluster.lease.as_millis()).ok();
    }
}

/// The status of a group for which this node has no maps.
fn bare(group: &crate::config::Group) -> GroupStatus {
    GroupStatus {
        name: group.name.clone(),
        mode: "cluster".into(),
        vips: group
            .vips
            .iter()
            .map(|vip| VipStatus { address: vip.to_string(), ..VipStatus::default() })
            .collect(),
        ..GroupStatus::default()
    }
}

/// Where each group is in a status, by its name.
pub(super) fn places(groups: &[GroupStatus]) -> HashMap<String, usize> {
    groups.iter().enumerate().map(|(place, group)| (group.name.clone(), place)).collect()
}

/// The configured VIPs of a group that the maps lack.
pub(super) fn missing(group: &config::Group, entry: &GroupStatus) -> Vec<String> {
    let there: BTreeSet<_> = entry.vips.iter().map(|vip| vip.address.as_str()).collect();
    let wanted = group.vips.iter().map(ToString::to_string);
    wanted.filter(|vip| !there.contains(vip.as_str())).collect()
}

/// The lease loop's counters, under their names in the metrics.
pub(crate) fn counted(counts: &Counts) -> BTreeMap<String, u64> {
    let named = [
        ("heartbeats_sent", counts.sent),
        ("heartbeats_unsent", counts.unsent),
        ("heartbeats_received", counts.received),
        ("heartbeats_dropped", counts.dropped),
    ];
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Witness => "witness",
        Role::Observer => "observer",
        Role::Vacant => "vacant",
    }
}
