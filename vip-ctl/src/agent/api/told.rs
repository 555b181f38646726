//! Parts of the status: what the maps and netlink say of this node, what the
//! lease loop counts, and the warnings of pair mode.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vip_lease::{Counts, Snapshot};

use super::{Response, Server};
use crate::{
    config,
    dataplane::DataPlane,
    engine::{EPOCH_MARGIN, PeerLoss, Role},
    exit::Exit,
    host::Host,
    report::{GroupStatus, Status},
};

impl Server {
    /// What the maps and netlink say; read aside, since that blocks.
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

    /// Rule 13 asks for it to be loud.
    pub(super) fn tell_of_pair(&self, loss: PeerLoss, status: &mut Status, snapshot: &Snapshot) {
        let (mode, means) = match loss {
            PeerLoss::Take => ("take", "a cut between the nodes makes both answer"),
            PeerLoss::Hold => ("hold", "nobody takes over from a dead node by itself"),
        };
        status.pair = Some(mode.into());
        status.warnings.push(format!("pair mode ({mode}): {means}; a third voter rules that out"));
        if snapshot.engine.alone {
            status.warnings.push("the other node of the pair is not heard: this one acts alone".into());
        }
    }

    /// A ceiling is asked for while half of the room is left.
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
}

/// Where each group is in a status, by its name.
pub(super) fn places(groups: &[GroupStatus]) -> HashMap<String, usize> {
    groups.iter().enumerate().map(|(place, group)| (group.name.clone(), place)).collect()
}

/// The configured VIPs of a group that the maps don't have.
pub(super) fn missing(group: &config::Group, entry: &GroupStatus) -> Vec<String> {
    let there: BTreeSet<_> = entry.vips.iter().map(|vip| vip.address.as_str()).collect();
    let wanted = group.vips.iter().map(ToString::to_string);
    wanted.filter(|vip| !there.contains(vip.as_str())).collect()
}

/// What the lease loop counts, under the names that metrics have for it.
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
