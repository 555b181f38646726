//! The agent: reads the configuration, brings the node up, and starts the
//! threads.
//!
//! - `lease` owns engine, transport and lease store, and does nothing else.
//! - `judge` says which groups this node can serve, and waits for nobody.
//! - `keeper` owns the host's side: routes, repairs, the log.
//! - `announcer` sends gratuitous ARP.
//! - `hooks` runs what is to be run when a group moves, `history` writes it down.
//! - `checks` runs the health checks.
//! - the main thread runs the socket for `vip-ctl`, signals and netlink.
//!
//! Where one of the first five panics the process aborts: the kernel fences.

mod announcer;
pub mod api;
pub mod checks;
mod child;
mod chronicle;
pub mod eligibility;
mod error;
mod follow;
pub mod hooks;
mod join;
mod judge;
mod keeper;
pub mod lease_loop;
mod notify;
mod pins;
pub(crate) mod realtime;
pub mod reload;
mod replace;
mod standing;
mod start;
mod threads;
mod trust;

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, mpsc::channel},
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{info, warn};
use vip_common::GroupIndex;
use vip_lease::{Eligible, LeaseNotice, Parts, Regroup, gate::Gates};

pub use self::error::AgentError;
use self::{
    checks::{Board, Checks},
    join::take_part,
    judge::Lanes,
    lease_loop::{Ask, Asker, LeaseLoop, Plane, SourceGuard},
    replace::Ended,
    start::{Follow, bring_up, decide, follow_table, held, names, node_setup, start_announcer, start_judge},
    threads::{abort_on_panic, spawn},
};
use crate::{
    config::Config,
    dataplane::{DataPlane, clock, observe::Events},
    engine::{Epoch, GroupId, Label, NodeId, PeerLoss, Timing},
    host::{self, Watched},
    http,
    lock::Lock,
    node::{is_in_maps, plan},
    paths::Paths,
    programs,
    records::{groups, membership::Entry, memory::Memory, votes},
    transport::KeyRing,
};

/// What the lease loop, the judge, netlink and people tell the keeper.
#[derive(Debug)]
pub enum Notice {
    /// What the lease loop tells.
    Lease(LeaseNotice),
    /// There is a new verdict on a health check.
    Checked {
        /// The group's name.
        group: String,
        /// The check's name.
        check: String,
        /// Why it fails; `None` if it passes.
        trouble: Option<String>,
    },
    /// Whether this node can serve at all has changed.
    CanServe {
        /// Why it can't.
        because: Option<String>,
    },
    /// Netlink said something.
    Watched(Watched),
    /// There are to be other groups.
    Reload(Box<reload::Order>),
}

/// What the keeper tells the lease loop.
pub trait Tell {
    /// Whether this node can serve groups; false if nobody listens any more.
    fn eligible(&self, groups: Vec<(GroupId, Eligible)>) -> bool;
    /// To go on with other groups; false if nobody listens any more.
    fn regroup(&self, regroup: Regroup) -> bool;
    /// The memory on disk has this ceiling; false if nobody listens any more.
    fn ceiling(&self, ceiling: Epoch) -> bool;
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

/// How long an agent that ends waits for a keeper that does nothing.
const KEEPER_MAX: Duration = Duration::from_secs(5);

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
    let Entry { membership, is_recorded, doubt } = take_part(&config, config_path, paths)?;
    let memory = Memory::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read what this node remembers in {} (move a broken memory.json away)",
        paths.state_dir.display()
    )))?;
    let address = config.this_node().address;
    let socket =
        UdpSocket::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).map_err(
            AgentError::system(format!("listen on {address} (this node's address in the configuration)")),
        )?;
    let mut guard = SourceGuard::set_up(&config, &socket, &paths.bpf_dir);
    start::make_room(&socket, &config);
    let asked = clock::now();
    if let Some(doubt) = doubt {
        join::ask(&config, config_path, &keys, (&socket, &guard), doubt)?;
    }
    let asked = clock::now().since(asked);

    let Follow { table, ended, is_recorded: is_known } = follow_table(&config, paths)?;
    let setup = node_setup(&config, &table);
    let can_hold = config.this_node().can_hold();
    let before = clock::now();
    let mut node = None;
    // What the process before has left complete stays as it is for now: leases
    // come first, and the kernel takes long to look at programs.
    if can_hold && !(ended.is_empty() && is_in_maps(paths, &setup)) {
        node = Some(bring_up(paths, &setup, &ended)?);
    }
    // Who comes after this process has nothing of that to do first.
    let once = asked + if node.is_some() { clock::now().since(before) } else { Duration::ZERO };
    // Only now: what has ended has no lease any more.
    if !is_known && let Err(e) = groups::store(&table, &paths.state_dir) {
        warn!("the record of the groups could not be written to {}: {e}", paths.state_dir.display());
    }
    abort_on_panic();

    let (notices, notices_rx) = channel();
    let (asks, asks_rx) = channel();
    let wake = Arc::new(
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| AgentError::system("make an eventfd")(e.into()))?,
    );
    let asker = Asker::new(asks, Arc::clone(&wake));
    let maps = if can_hold { Some(DataPlane::open(&paths.bpf_dir)?) } else { None };
    let names = names(&config, maps.as_ref());
    if can_hold {
        guard.watch_way_in(&config, &socket, &paths.bpf_dir)?;
    }
    let plane = match maps {
        Some(maps) => Some(Plane::new(maps, names.index.clone(), Events::open(&paths.bpf_dir)?)),
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
    let gates = Gates::new(hooks::rules(&config), &found);
    let (engine, labels, transport) = decide(&config, &table, keys, &found, silence, &memory)?;
    let (hooks, hooks_rx) = channel();
    let (me, uncovered) = (NodeId(config.me), table.uncovered());
    let lease_loop = LeaseLoop {
        parts: Parts { engine, labels, uncovered, transport, gates, me },
        socket,
        guard,
        addresses: config.cluster.nodes.iter().map(|n| (NodeId(n.id), n.address)).collect(),
        plane,
        asks: asks_rx,
        wake,
        tell: notices.clone(),
        announcer: start_announcer(paths, can_hold)?,
        hooks: hooks.clone(),
    };
    let lease = spawn("lease", move || {
        if let Err(e) = realtime::prioritise(realtime::Role::Lease) {
            warn!(
                "no real-time priority ({e}): a busy host can delay the lease; run as root or with CAP_SYS_NICE"
            );
        }
        realtime::touch_stack();
        lease_loop.run()
    })?;
    let start = clock::now().since(begun).saturating_sub(once);

    // From here on there are leases: who fails hands them over.
    let the_others = || -> Result<_, AgentError> {
        if let Err(e) = realtime::lock_memory() {
            warn!("memory is not locked ({e}): paging can delay the lease; run as root or with CAP_IPC_LOCK");
        }
        // Locked or not: the first takeover reads no code from a disk.
        if let Err(e) = realtime::page_in_program() {
            warn!("the program's own pages could not be read before they are needed: {e}");
        }
        if can_hold && node.is_none() {
            node = Some(bring_up(paths, &setup, &[])?);
        }
        let people = hooks::start(&config, paths, &asker, hooks, hooks_rx)?;
        let board = Arc::new(Board::default());
        let judge = match node {
            Some(_) => Some(start_judge(&config, &setup, paths, &asker, &board, &notices)?),
            None => None,
        };
        let (judge, heard) = judge.unzip();
        let checks = Checks::of_node(&config, &board, heard.as_ref())
            .map_err(AgentError::system("start the checks"))?;
        let chronicle = chronicle::Chronicle::new(people.events.clone(), people.hooks.clone());
        let keeper = keeper::Keeper {
            node,
            pins: pins::Pins::set_up(&config, paths),
            setup,
            paths: paths.clone(),
            names,
            lease_loop: asker.clone(),
            judge,
            routes: keeper::Routes::default(),
            covered: Vec::new(),
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
        notify::start(&asker)?;
        Ok((spawn("keeper", move || keeper.run(&notices_rx))?, people, board, checks, heard))
    };
    let (keeper, people, board, checks, heard) = match the_others() {
        Ok(started) => started,
        Err(e) => {
            start::give_up(&asker, &found, Timing::new(config.cluster.lease).hold);
            // What has become of it matters less than what went wrong first.
            let _ = lease.join();
            return Err(e);
        }
    };
    if let Some(loss) = config.cluster.pair {
        warn_of_pair(loss);
    }
    programs::warn_aside(&config);
    let lease_hold = Timing::new(config.cluster.lease).hold;
    info!(
        node = config.node_name,
        start_ms = u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
        cluster = config.cluster.name,
        lease_ms = u64::try_from(config.cluster.lease.as_millis()).unwrap_or(u64::MAX),
        "the agent runs"
    );

    let people_events = people.events.clone();
    let lanes = Lanes { keeper: notices, judge: heard };
    let served =
        api::serve(config, config_path, paths, &asker, &lanes, board, silence, people_events, || {
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
    drop((lanes, asker));
    // The keeper ends when the last notice is dealt with: routes follow the
    // release. But a disk that hangs under what it writes is not waited for,
    // and who takes over from this agent waits for nothing.
    let ended_well = if leave {
        threads::ends_within(&keeper, lease_hold / 8)
    } else {
        let is_at_work = || notify::idle_for() < KEEPER_MAX;
        threads::ends_while(&keeper, is_at_work)
    };
    if !ended_well {
        warn!("the keeper hangs, as with a disk that is too slow, and is not waited for");
    }
    // Then the last hooks; but who takes over from this agent is not kept waiting.
    if !leave {
        people.finish();
        if let Err(e) = pins::Pins::release(paths) {
            warn!("peers' neighbour entries could not be put back: {e}");
        }
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

/// Could an agent start here now, where another one runs? Changes nothing.
///
/// # Errors
/// Why it could not, as far as that can be known before.
pub fn try_out(config_path: &Path, paths: &Paths) -> Result<(), AgentError> {
    let config = Config::load(config_path)?;
    KeyRing::load(&config.cluster.key_file)?;
    if let Some(api) = &config.api {
        http::check(api)?;
    }
    let entry = take_part(&config, config_path, paths)?;
    if let Some(source) = entry.doubt {
        return Err(AgentError::Membership { path: config_path.to_owned(), source });
    }
    let Follow { table, .. } = follow_table(&config, paths)?;
    if config.this_node().can_hold() {
        let setup = node_setup(&config, &table);
        plan::of_set_up(paths, &setup)?;
        if let Some(plane) = plan::opened(paths)? {
            plane.has_room_for(config.groups.iter().map(|group| group.vips.len()).sum())?;
        }
    }
    Ok(())
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

/// Notes the end of the silence.
async fn settle_votes(run_dir: PathBuf, accept: Duration, silence: Duration) {
    tokio::time::sleep(silence).await;
    if let Err(e) = votes::settle(&run_dir, accept) {
        warn!("the record of votes was not written ({e}): the next start may be silent for {silence:?}");
    }
}

/// Tells judge and keeper what netlink says, for as long as they listen.
async fn watch_netlink(addresses: Vec<IpAddr>, lanes: Lanes) {
    let ended = host::watch(addresses, |watched| lanes.watched(watched)).await;
    if let Err(e) = ended {
        warn!("netlink can't be watched ({e}): loss of carrier will not be noticed");
    }
}
