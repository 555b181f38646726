//! The first steps of an agent: the groups as they follow from those of the
//! former process, the node under them, the engine.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use tracing::{info, warn};
use vip_common::BootNs;
use vip_lease::table::{Table, TableGroup};

use super::AgentError;
use crate::{
    agent::{
        announcer,
        checks::Board,
        judge::{self, HostLinks, Serving, eligibility::Judge},
        keeper::reload,
        lease_loop::{self, Plane, Room},
        messages::{Announce, Ask, Asker, Heard, Notice},
        threads::spawn,
    },
    announce::arp::Announcer,
    clock,
    config::{Config, Garp, SelfTest},
    dataplane::{DataPlane, DataPlaneError},
    engine::{EPOCH_MARGIN, Engine, EngineConfig, GroupId, Incarnation, Labels, NodeId, NodeSpec, Role},
    host::Host,
    node::{Node, NodeError, Setup, prune, set_up, take_off_former},
    paths::Paths,
    realtime,
    records::{groups, memory::Memory},
    transport::{Identity, KeyRing, Transport},
};

/// How often to check whether the leases can be handed over.
const HANDOVER_POLL: Duration = Duration::from_millis(5);

/// Brings the node up, or changes one that is up, and logs what was done.
pub(super) fn bring_up(paths: &Paths, setup: &Setup, ended: &[String]) -> Result<Node, AgentError> {
    if let Some(taken) = take_off_former(paths)? {
        warn!("{taken}");
    }
    prune(paths, &setup.groups, ended)?;
    let mut node = set_up(paths, setup)?;
    let left = node.keep_only(&setup.interfaces)?;
    for (name, attached) in &node.attached {
        info!(interface = name, mode = attached.mode.name(), gate = ?attached.gate, adopted = node.adopted, "attached");
    }
    for change in node.changes.iter().chain(&left) {
        info!("{change}");
    }
    for warning in &node.warnings {
        warn!("{warning}");
    }
    Ok(node)
}

/// The groups as they follow from those of the former process.
pub(super) struct Follow {
    pub(super) table: Table,
    /// The names of the groups that have ended, even if a new group has the same
    /// name.
    pub(super) ended: Vec<String>,
    /// Does the record have this table already?
    pub(super) is_recorded: bool,
}

/// See [`Follow`].
pub(super) fn follow_table(config: &Config, paths: &Paths) -> Result<Follow, AgentError> {
    let recorded = groups::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read the record of the groups in {} (move a broken groups.json away)",
        paths.state_dir.display()
    )))?;
    let before = match recorded.clone() {
        Some(table) => Some(table),
        // The maps may have leases of groups with the same names and other VIPs.
        None => DataPlane::open(&paths.bpf_dir).ok().map(|plane| groups_in_maps(&plane)).transpose()?,
    };
    let Some(before) = before else {
        return Ok(Follow { table: Table::of(&config.groups), ended: Vec::new(), is_recorded: false });
    };
    let next = before.next(&config.groups);
    let is_recorded = recorded.as_ref() == Some(&next.table);
    Ok(Follow { ended: next.ended_names(&before), table: next.table, is_recorded })
}

fn groups_in_maps(plane: &DataPlane) -> Result<Table, DataPlaneError> {
    let mut own = plane.vips_by_group()?;
    let mut of = |index| own.remove(&index).unwrap_or_default().into_iter().map(|(vip, _)| vip).collect();
    Ok(Table::of_maps(plane.groups().into_iter().map(|group| (group.name, of(group.index))).collect()))
}

/// The engine, its labels and the transport, in a new incarnation.
pub(super) fn decide(
    config: &Config,
    table: &Table,
    keys: KeyRing,
    held: &[(GroupId, BootNs)],
    silence: Duration,
    memory: &Memory,
) -> Result<(Engine, Labels, Transport), AgentError> {
    let (incarnation, entropy) = draw()?;
    let cluster = &config.cluster;
    let ids = cluster.nodes.iter().map(|node| usize::from(node.id) + 1).max().unwrap_or(0);
    let mut nodes = vec![NodeSpec { role: Role::Vacant }; ids];
    for node in &cluster.nodes {
        nodes[usize::from(node.id)] = NodeSpec { role: node.role };
    }
    let engine_config = EngineConfig {
        me: NodeId(config.me),
        incarnation: Incarnation(incarnation),
        nodes,
        groups: reload::specs(config),
        accept: cluster.lease,
        silence,
        startup_delay: config.startup_delay,
        pair: cluster.pair,
        epoch_margin: EPOCH_MARGIN,
        remembered: memory.remembered(config.groups.iter().map(|group| group.name.as_str())),
    };
    let now = clock::now();
    let specs: Vec<_> = table.groups().iter().map(TableGroup::labels).collect();
    let labels = Labels::new(&engine_config, &specs, config.groups_digest(), now);
    let engine = Engine::new(engine_config, held, now);
    Ok((engine, labels, Transport::new(identity(config, incarnation, true), keys, entropy)))
}

/// A new incarnation, and the entropy for challenge nonces.
pub(super) fn draw() -> Result<(u64, [u8; 32]), AgentError> {
    let mut incarnation = [0; 8];
    let mut entropy = [0; 32];
    for buffer in [&mut incarnation[..], &mut entropy[..]] {
        getrandom::fill(buffer)
            .map_err(|e| AgentError::system("draw random numbers")(io::Error::other(e)))?;
    }
    Ok((u64::from_ne_bytes(incarnation), entropy))
}

/// This node's identity for the transport.
pub(super) fn identity(config: &Config, incarnation: u64, is_member: bool) -> Identity {
    let cluster = &config.cluster;
    Identity {
        me: config.me,
        incarnation,
        cluster: cluster.name.clone(),
        config_digest: config.digest(),
        generation: cluster.generation.into(),
        nodes_digest: config.nodes_digest(),
        is_member,
        peers: cluster.nodes.iter().map(|node| node.id).collect(),
    }
}

/// The leases of an earlier incarnation that still run.
pub(super) fn held(plane: Option<&Plane>, now: BootNs) -> Vec<(GroupId, BootNs)> {
    let Some(plane) = plane else { return Vec::new() };
    plane
        .index()
        .with_ids()
        .filter_map(|(group, index)| Some((group, plane.maps.leases().load(*index).expiry()?)))
        .filter(|(_, expiry)| *expiry > now)
        .collect()
}

pub(super) fn start_announcer(
    paths: &Paths,
    has_plane: bool,
    garp: Garp,
) -> Result<Sender<Announce>, AgentError> {
    let (orders, orders_rx): (_, Receiver<Announce>) = channel();
    if has_plane {
        let plane = DataPlane::open(&paths.bpf_dir)?;
        // A node that can't announce must not take a lease: clients would go on sending
        // to the former holder.
        let socket = Announcer::open().map_err(AgentError::system(
            "open a packet socket to announce VIPs by (run as root or with CAP_NET_RAW)",
        ))?;
        spawn("announcer", move || {
            // The lease loop has already warned if real-time priority is not allowed.
            let _ = realtime::prioritise(realtime::Role::Announcer);
            realtime::touch_stack();
            announcer::run(&plane, &socket, &orders_rx, garp);
        })?;
    }
    Ok(orders)
}

/// Asks the kernel for socket buffers that fit a cluster of this size.
pub(super) fn make_room(socket: &UdpSocket, config: &Config) {
    let Room { wanted, given } =
        lease_loop::make_room(socket, config.groups.len(), config.cluster.nodes.len());
    if given < wanted {
        warn!(
            "heartbeats may be lost when this host is busy: the kernel gave the agent's socket {given} bytes to receive into, and this cluster can need {wanted}; run as root or with CAP_NET_ADMIN, or set net.core.rmem_max to {wanted}"
        );
    }
}

/// Starts the judge: returns the keeper's handle to it, and where the checks send
/// verdicts. `is_new`: no lease of a former process goes on.
pub(super) fn start_judge(
    config: &Config,
    setup: &Setup,
    paths: &Paths,
    asker: &Asker,
    board: &Arc<Board>,
    notices: &Sender<Notice>,
    is_new: bool,
) -> Result<(judge::Handle<Asker, HostLinks>, Sender<Heard>), AgentError> {
    let host = Host::open(&paths.run_dir).map_err(NodeError::from)?;
    // Who goes on with leases is proved by its former process, and peers that never hold
    // ask nobody.
    let mut others = config.cluster.nodes.iter().filter(|node| node.id != config.me);
    let waits = is_new && config.self_test == SelfTest::Release && others.any(|node| node.can_hold());
    let serving = Serving {
        lease_loop: asker.clone(),
        links: HostLinks { host, bpf_dir: paths.bpf_dir.clone(), had_local_in: Cell::new(false) },
        interfaces: setup.interfaces.clone(),
        announcing: config.announcing().cloned().collect(),
        judge: Judge::new(&config.groups, &config.announcing().cloned().collect::<Vec<_>>()),
        board: Arc::clone(board),
        silent: BTreeMap::new(),
        unproved_until: waits.then(|| clock::now().plus(judge::PROOF_MAX)),
        unprogrammed: BTreeMap::new(),
        polls_without: 0,
        told: None,
        is_held: false,
    };
    let serving = Arc::new(Mutex::new(serving));
    let (heard, heard_rx) = channel();
    let (handle, tell) = (judge::Handle::new(&serving), notices.clone());
    spawn("judge", move || judge::run(&serving, &heard_rx, &tell))?;
    Ok((handle, heard))
}

/// Hands over the leases of a lease loop that has already started, when the start
/// fails. First waits until the leases that the loop `found` are renewed: only
/// then does this process have them by the others' votes, and acceptors end no
/// lease on a stranger's release. Waits for at most half of `hold`, while they
/// last.
pub(super) fn give_up(asker: &Asker, found: &[(GroupId, BootNs)], hold: Duration) {
    let until = clock::now().plus(hold / 2);
    let are_own = || {
        let snapshot = asker.ask_for_blocking(Ask::Status);
        snapshot.is_none_or(|snapshot| {
            let expiry = |group: GroupId| snapshot.engine.groups[group].expiry;
            found.iter().all(|(group, expiry_found)| expiry(*group) != Some(*expiry_found))
        })
    };
    while clock::now() < until && !are_own() {
        std::thread::sleep(HANDOVER_POLL);
    }
    let _ = asker.ask(Ask::Stop);
}
