//! Who could hold a group, in order, for `status` and `explain`.

use vip_lease::Snapshot;

use crate::{
    config::{self, Config},
    engine::{self, GroupId, GroupStatus as Known, NodeId},
    report::{Candidate, GroupStatus, Heir},
};

/// Adds to a group's status the nodes that could hold it, and what hooks do to it
/// here.
pub fn add(
    entry: &mut GroupStatus,
    config: &Config,
    id: GroupId,
    group: &config::Group,
    known: &Known,
    snapshot: &Snapshot,
) {
    entry.candidates = candidates(config, group, &known.ready);
    entry.heir = Some(heir(config, known.heir));
    if snapshot.promoting.contains(&id) {
        entry.state = "promoting".into();
    }
    entry.stays_away_ms =
        snapshot.barred.get(&id).and_then(|until| u64::try_from(until.since(snapshot.now).as_millis()).ok());
}

fn heir(config: &Config, heir: engine::Heir) -> Heir {
    let name = |id: NodeId| config.cluster.node(id.0).map_or_else(String::new, |node| node.name.clone());
    match heir {
        engine::Heir::Node(id) => Heir::Node { node: name(id) },
        engine::Heir::Perhaps(id) => Heir::Perhaps { node: name(id) },
        engine::Heir::NobodyReady => Heir::NobodyReady,
        engine::Heir::Paused => Heir::Paused,
        engine::Heir::PairHolds => Heir::PairHolds,
        engine::Heir::NoMajority(voters_left) => Heir::NoMajority { voters_left },
    }
}

/// By priority, then by the node's number on the wire: the order of the engine's
/// ranks.
fn candidates(config: &Config, group: &config::Group, ready: &[NodeId]) -> Vec<Candidate> {
    let nodes = config.cluster.nodes.iter().filter(|node| node.can_hold());
    let mut nodes: Vec<_> =
        nodes.map(|node| (group.priorities.get(&node.name).copied().unwrap_or(0), node)).collect();
    nodes.sort_by_key(|(priority, node)| (std::cmp::Reverse(*priority), node.id));
    let ranked = (1..).zip(nodes).map(|(rank, (priority, node))| Candidate {
        node: node.name.clone(),
        priority,
        rank,
        ready: ready.contains(&NodeId(node.id)),
    });
    ranked.collect()
}
