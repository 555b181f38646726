//! The agent: reads the configuration, brings the node up, and starts the
//! threads.
//!
//! - `lease` owns engine, transport and lease store, and does nothing else.
//! - `keeper` owns the host's side: routes, repairs, eligibility, the log.
//! - `announcer` sends gratuitous ARP.
//! - `hooks` runs what is to be run when a group moves, `history` writes it down.
//! - `checks` runs the health checks.
//! - the main thread runs the socket for `vip-ctl`, signals and netlink.
//!
//! Where one of the first four panics the process aborts: the kernel fences.

mod announcer;
pub mod api;
pub mod checks;
mod child;
mod chronicle;
mod eligibility;
mod error;
mod follow;
mod gate;
mod hooks;
mod keeper;
pub mod lateness;
mod lease_loop;
pub mod membership;
mod memory;
mod notify;
mod parting;
pub(crate) mod realtime;
pub mod reload;
mod replace;
mod standing;
pub mod table;
mod threads;
mod trust;
mod votes;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{info, warn};
use vip_common::{BootNs, GroupIndex, GroupMode};

pub use self::error::AgentError;
use self::{
    checks::{Board, Checks},
    eligibility::{Eligible, Judge},
    lease_loop::{Ask, Asker, LeaseLoop, Plane},
    membership::take_part,
    memory::Memory,
    replace::Ended,
    table::{Table, TableGroup},
    threads::{abort_on_panic, spawn},
};
use crate::{
    config::Config,
    dataplane::{DataPlane, DataPlaneError, attach, clock, observe::Events},
    engine::{
        Command, Engine, EngineConfig, Epoch, GroupId, GroupState, Incarnation, Label, Labels, NodeId,
        NodeSpec, Pause, PeerLoss, Reason, Role, Timing,
    },
    host::{self, Watched},
    http,
    lock::Lock,
    node::{GroupSetup, Node, Setup, prune, set_up},
    paths::Paths,
    transport::{Identity, KeyRing, Rejected, Transport},
};

/// Room in the maps for VIPs that come later, as a multiple of those configured.
const VIPS_HEADROOM: u32 = 2;

/// What the lease loop, the checks and netlink tell the keeper.
#[derive(Debug)]
pub enum Notice {
    /// Another node claims a VIP that is held here.
    Claim {
        /// The group.
        group: GroupId,
        /// The VIP.
        vip: Ipv4Addr,
        /// Who claims it.
        mac: [u8; 6],
    },
    /// A group's state or holder has changed.
    Changed {
        /// The group.
        group: GroupId,
        /// This node's state.
        state: GroupState,
        /// The grant.
        epoch: Epoch,
        /// Why.
        reason: Reason,
        /// Who holds it.
        holder: Option<NodeId>,
        /// Is the fence kept shut until `pre_promote` has ended?
        promoting: bool,
        /// The gap that it has ended.
        gap: Option<Duration>,
    },
    /// A person wants something.
    Asked {
        /// What.
        command: Command,
        /// At which node.
        at: NodeId,
    },
    /// A peer's incarnation was adopted.
    Connected {
        /// The peer.
        node: NodeId,
        /// True if it was connected before.
        restarted: bool,
        /// Number of its membership.
        generation: u64,
    },
    /// What is to outlive this incarnation has changed.
    Remember {
        /// Is this node on standby?
        standby: bool,
        /// The cluster's pause.
        pause: Pause,
    },
    /// A renewal began later than half of the margin.
    Late {
        /// How late.
        by: Duration,
        /// How late it could have been before the lease ran out.
        margin: Duration,
    },
    /// A datagram was rejected.
    Rejected {
        /// Why.
        reason: Rejected,
        /// Who it claims to be from.
        from: Option<NodeId>,
    },
    /// There is a new verdict on a health check.
    Checked {
        /// The group's name.
        group: String,
        /// The check's name.
        check: String,
        /// Why it fails; `None` if it passes.
        trouble: Option<String>,
    },
    /// Netlink said something.
    Watched(Watched),
    /// There are to be other groups.
    Reload(Box<reload::Order>),
    /// The lease loop has gone on to the other groups: what it says from here
    /// on is about those.
    Regrouped,
    /// A group's leases have all of its VIPs from here on.
    Covered {
        /// Its label.
        label: Label,
    },
}

/// What the keeper tells the lease loop.
pub trait Tell {
    /// Whether this node can serve groups; false if nobody listens any more.
    fn eligible(&self, groups: Vec<(GroupId, Eligible)>) -> bool;
    /// To go on with other groups; false if nobody listens any more.
    fn regroup(&self, regroup: lease_loop::Regroup) -> bool;
    /// To tell the network where the group with this label is; false if nobody
    /// listens any more.
    fn announce(&self, label: Label) -> bool;
}

/// Names for ids.
#[derive(Clone, Debug)]
pub struct Names {
    nodes: BTreeMap<NodeId, String>,
    groups: Vec<String>,
    index: Vec<GroupIndex>,
}

impl Names {
    /// The names of a configuration, without places in the maps.
    fn of(config: &Config) -> Self {
        Self {
            nodes: config.cluster.nodes.iter().map(|n| (NodeId(n.id), n.name.clone())).collect(),
            groups: config.groups.iter().map(|g| g.name.clone()).collect(),
            index: Vec::new(),
        }
    }

    fn node(&self, node: NodeId) -> &str {
        self.nodes.get(&node).map_or("?", String::as_str)
    }

    fn group(&self, group: GroupId) -> &str {
        self.groups.get(usize::from(group.0)).map_or("?", String::as_str)
    }

    fn index(&self, group: GroupId) -> Option<GroupIndex> {
        self.index.get(usize::from(group.0)).copied()
    }
}

/// Runs an agent until it is told to stop. With `hold`, a signal ends it
/// without a release, for the next agent to go on with the leases in time.
///
/// # Errors
/// [`AgentError`]; before the node was touched for anything that can be known before.
pub fn run(config_path: &Path, paths: &Paths, hold: bool) -> Result<(), AgentError> {
    let begun = clock::now();
    let config = Config::load(config_path)?;
    let keys = KeyRing::load(&config.cluster.key_file)?;
    if let Some(api) = &config.api {
        http::check(api)?;
    }
    let lock = Lock::take(paths, true)?;
    let (membership, is_recorded) = take_part(&config, config_path, paths)?;
    let memory = Memory::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read what this node remembers in {} (move a broken memory.json away)",
        paths.state_dir.display()
    )))?;
    let address = config.this_node().address;
    let socket =
        UdpSocket::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).map_err(
            AgentError::system(format!("listen on {address} (this node's address in the configuration)")),
        )?;

    let (table, ended) = follow_table(&config, paths)?;
    let setup = node_setup(&config, &table);
    let node = if config.this_node().can_hold() { Some(bring_up(paths, &setup, &ended)?) } else { None };
    // Only now: what has ended has no lease any more.
    if let Err(e) = table.store(&paths.state_dir) {
        warn!("the record of the groups could not be written to {}: {e}", paths.state_dir.display());
    }
    let names = names(&config, node.as_ref());
    abort_on_panic();

    let (notices, notices_rx) = channel();
    let (asks, asks_rx) = channel();
    let wake = Arc::new(
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| AgentError::system("make an eventfd")(e.into()))?,
    );
    let asker = Asker::new(asks, Arc::clone(&wake));
    let plane = match &node {
        Some(_) => Some(Plane {
            maps: DataPlane::open(&paths.bpf_dir)?,
            index: names.index.clone(),
            events: Events::open(&paths.bpf_dir)?,
        }),
        None => None,
    };
    // Not again what is there: a full disk must not keep an agent from coming back.
    if !is_recorded {
        membership.store(&paths.state_dir).map_err(AgentError::system(format!(
            "keep the record of the membership in {}",
            paths.state_dir.display()
        )))?;
    }
    let silence = votes::begin(&paths.run_dir, config.cluster.lease)
        .map_err(AgentError::system(format!("keep the record of votes in {}", paths.run_dir.display())))?;
    let found = held(plane.as_ref(), clock::now());
    let gates = gate::Gates::new(hooks::rules(&config), &found);
    let (engine, labels, transport) = decide(&config, &table, keys, &found, silence, &memory)?;
    let people = hooks::start(&config, paths, &asker)?;
    let lease_loop = LeaseLoop {
        engine,
        labels,
        uncovered: reload::uncovered(&table),
        transport,
        socket,
        addresses: config.cluster.nodes.iter().map(|n| (NodeId(n.id), n.address)).collect(),
        plane,
        asks: asks_rx,
        wake,
        tell: notices.clone(),
        announcer: start_announcer(paths, node.is_some())?,
        gates,
        hooks: people.hooks.clone(),
        me: NodeId(config.me),
    };
    let board = Arc::new(Board::default());
    let checks =
        Checks::of_node(&config, &board, &notices).map_err(AgentError::system("start the checks"))?;
    let chronicle = chronicle::Chronicle::new(people.events.clone(), people.hooks.clone(), &people.before);
    let keeper = keeper::Keeper {
        node,
        setup,
        paths: paths.clone(),
        names,
        lease_loop: asker.clone(),
        can_serve: None,
        judge: Judge::new(&config.groups),
        unjudged: false,
        board: Arc::clone(&board),
        checks: checks.as_ref().map(Checks::applier),
        complained: BTreeMap::new(),
        memory,
        membership,
        config: config.clone(),
        table,
        under_way: None,
        postponed: Vec::new(),
        chronicle,
    };
    let keeper = spawn("keeper", move || keeper.run(&notices_rx))?;
    if let Err(e) = realtime::lock_memory() {
        warn!("memory is not locked ({e}): paging can delay the lease; run as root or with CAP_IPC_LOCK");
    }
    let lease = spawn("lease", move || {
        if let Err(e) = realtime::prioritise(realtime::Role::Lease) {
            warn!(
                "no real-time priority ({e}): a busy host can delay the lease; run as root or with CAP_SYS_NICE"
            );
        }
        lease_loop.run()
    })?;
    if let Some(loss) = config.cluster.pair {
        warn_of_pair(loss);
    }
    let (lease_hold, start) = (Timing::new(config.cluster.lease).hold, clock::now().since(begun));
    info!(
        node = config.node_name,
        start_ms = u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
        cluster = config.cluster.name,
        lease_ms = u64::try_from(config.cluster.lease.as_millis()).unwrap_or(u64::MAX),
        "the agent runs"
    );

    notify::start(&asker)?;
    let people_events = people.events.clone();
    let served =
        api::serve(config, config_path, paths, &asker, &notices, board, silence, people_events, || {
            lease.is_finished()
        });
    // However serving ended, the leases are released in good order if they
    // can be, unless the next agent is to find them.
    let ended = served.as_ref().unwrap_or(&Ended::Stop);
    if matches!(ended, Ended::Replace(_)) {
        notify::replaced();
    } else {
        notify::stopping();
    }
    let leave = hold || ended.can_be_back(start, lease_hold);
    if !leave && *ended != Ended::Stop {
        info!(?start, hold = ?lease_hold, "a start takes too long for the leases to last: handing over");
    }
    let _ = asker.ask(if leave { Ask::Leave } else { Ask::Stop });
    let ended = lease.join();
    drop(checks);
    drop((notices, asker));
    // The keeper ends when the last notice is dealt with: routes follow the release.
    let _ = keeper.join();
    // Then the last hooks; but who takes over from this agent is not kept waiting.
    if !leave {
        people.finish();
    }
    drop(lock);
    match ended {
        Ok(Ok(())) => match served? {
            Ended::Stop | Ended::Restart => Ok(()),
            Ended::Replace(program) => {
                let what = format!("go on as {}", program.display());
                replace::become_successor(&program)
                    .map(|never| match never {})
                    .map_err(AgentError::system(what))
            }
        },
        Ok(Err(e)) => Err(AgentError::LeaseLoop(e.to_string())),
        Err(_) => Err(AgentError::LeaseLoop("it panicked".into())),
    }
}

/// Rule 13 asks for it to be loud.
fn warn_of_pair(loss: PeerLoss) {
    match loss {
        PeerLoss::Take => warn!(
            "PAIR MODE: a cut between the two nodes makes both answer for the VIPs, until they hear each other again; a third voter (witness = true) rules that out"
        ),
        PeerLoss::Hold => warn!(
            "PAIR MODE, hold: when a holder dies nobody takes its VIPs until a person says `vip-ctl failover --force`; a third voter (witness = true) makes that automatic"
        ),
    }
}

fn bring_up(paths: &Paths, setup: &Setup, ended: &[String]) -> Result<Node, AgentError> {
    prune(paths, &setup.groups, ended)?;
    let node = set_up(paths, setup)?;
    for (name, attached) in &node.attached {
        info!(interface = name, xdp = ?attached.xdp, gate = ?attached.gate, adopted = node.adopted, "attached");
    }
    for change in &node.changes {
        info!("{change}");
    }
    for warning in &node.warnings {
        warn!("{warning}");
    }
    Ok(node)
}

/// The groups as they follow from those of the process before, and the names
/// of those that have ended, whether or not others begin by them.
fn follow_table(config: &Config, paths: &Paths) -> Result<(Table, Vec<String>), AgentError> {
    let recorded = Table::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read the record of the groups in {} (move a broken groups.json away)",
        paths.state_dir.display()
    )))?;
    let before = match recorded {
        Some(table) => Some(table),
        // The maps may have leases of groups by the same names with other VIPs.
        None => DataPlane::open(&paths.bpf_dir).ok().map(|plane| groups_in_maps(&plane)).transpose()?,
    };
    let Some(before) = before else { return Ok((Table::of(&config.groups), Vec::new())) };
    let next = before.next(&config.groups);
    let ended = next.ended_names(&before);
    Ok((next.table, ended))
}

fn groups_in_maps(plane: &DataPlane) -> Result<Table, DataPlaneError> {
    let vips = plane.vips()?;
    let of = |index| {
        let own = vips.iter().filter(|(_, entry)| entry.group == index);
        own.map(|(vip, _)| IpAddr::V4(*vip)).collect()
    };
    Ok(Table::of_maps(plane.groups().into_iter().map(|group| (group.name, of(group.index))).collect()))
}

/// What the configuration asks of the node, with the VIPs that it may answer
/// for by now.
fn node_setup(config: &Config, table: &Table) -> Setup {
    let hold = Timing::new(config.cluster.lease).hold;
    let groups: Vec<_> = table
        .groups()
        .iter()
        .map(|group| GroupSetup {
            name: group.name.clone(),
            mode: GroupMode::Cluster,
            hold,
            vips: group
                .answered()
                .filter_map(|vip| if let IpAddr::V4(vip) = vip { Some(vip) } else { None })
                .collect(),
        })
        .collect();
    let all = config.groups.iter().map(|group| group.vips.len()).sum::<usize>();
    let vips = u32::try_from(all).unwrap_or(u32::MAX);
    Setup {
        interfaces: config.interfaces.clone(),
        how: attach::How::default(),
        groups,
        vips_max: vips
            .saturating_mul(VIPS_HEADROOM)
            .clamp(vip_common::layout::VIPS_DEFAULT, vip_common::layout::VIPS_MAX),
    }
}

fn names(config: &Config, node: Option<&Node>) -> Names {
    let known = node.map(|node| node.plane.groups()).unwrap_or_default();
    // Every configured group was put into the maps before; a witness has none.
    let index = config.groups.iter();
    let index = index.filter_map(|g| known.iter().find(|k| k.name == g.name).map(|k| k.index)).collect();
    Names { index, ..Names::of(config) }
}

/// The engine, its labels and the transport, in a new incarnation.
fn decide(
    config: &Config,
    table: &Table,
    keys: KeyRing,
    held: &[(GroupId, BootNs)],
    silence: Duration,
    memory: &Memory,
) -> Result<(Engine, Labels, Transport), AgentError> {
    let mut incarnation = [0; 8];
    let mut entropy = [0; 32];
    for buffer in [&mut incarnation[..], &mut entropy[..]] {
        getrandom::fill(buffer)
            .map_err(|e| AgentError::system("draw random numbers")(io::Error::other(e)))?;
    }
    let incarnation = u64::from_ne_bytes(incarnation);
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
        remembered: memory.remembered(config.groups.iter().map(|group| group.name.as_str())),
    };
    let now = clock::now();
    let specs: Vec<_> = table.groups().iter().map(TableGroup::labels).collect();
    let labels = Labels::new(&engine_config, &specs, config.groups_digest(), now);
    let engine = Engine::new(engine_config, held, now);
    let identity = Identity {
        me: config.me,
        incarnation,
        cluster: cluster.name.clone(),
        config_digest: config.digest(),
        generation: cluster.generation.into(),
        nodes_digest: config.nodes_digest(),
        peers: cluster.nodes.iter().map(|node| node.id).collect(),
    };
    Ok((engine, labels, Transport::new(identity, keys, entropy)))
}

/// The leases of an earlier incarnation that still run.
fn held(plane: Option<&Plane>, now: BootNs) -> Vec<(GroupId, BootNs)> {
    let Some(plane) = plane else { return Vec::new() };
    (0_u16..)
        .zip(&plane.index)
        .filter_map(|(group, index)| Some((GroupId(group), plane.maps.leases().load(*index).expiry()?)))
        .filter(|(_, expiry)| *expiry > now)
        .collect()
}

fn start_announcer(paths: &Paths, has_plane: bool) -> Result<Sender<announcer::Announce>, AgentError> {
    let (orders, orders_rx): (_, Receiver<announcer::Announce>) = channel();
    if has_plane {
        let plane = DataPlane::open(&paths.bpf_dir)?;
        spawn("announcer", move || {
            // The lease loop has warned if it is not allowed.
            let _ = realtime::prioritise(realtime::Role::Announcer);
            if let Err(e) = announcer::run(&plane, &orders_rx) {
                tracing::error!("VIPs are not announced: {e}");
            }
        })?;
    }
    Ok(orders)
}

/// Notes the end of the silence.
async fn settle_votes(run_dir: PathBuf, accept: Duration, silence: Duration) {
    tokio::time::sleep(silence).await;
    if let Err(e) = votes::settle(&run_dir, accept) {
        warn!("the record of votes was not written ({e}): the next start may be silent for {silence:?}");
    }
}

/// Tells the keeper what netlink says, for as long as it listens.
async fn watch_netlink(notices: Sender<Notice>) {
    let ended = host::watch(|watched| notices.send(Notice::Watched(watched)).is_ok()).await;
    if let Err(e) = ended {
        warn!("netlink can't be watched ({e}): loss of carrier will not be noticed");
    }
}
