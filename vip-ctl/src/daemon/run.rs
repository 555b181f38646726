//! The agent from start to end, in stages: each hands a struct on to the next.

use std::{
    collections::BTreeMap,
    io,
    net::UdpSocket,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{info, warn};
use vip_common::BootNs;
use vip_lease::{Parts, gate::Gates, table::Table};

use super::{
    AgentError,
    join::{self, take_part},
    signals::{self, Aside},
    start::{self, Follow, bring_up, decide, follow_table, held, start_announcer, start_judge},
    successor::{self, Ended},
    systemd,
};
use crate::{
    agent::{
        checks::{Board, Checks},
        control::Server,
        heartbeat::{self, WatchedThread},
        hooks::{self, People},
        judge::Listeners,
        keeper::{self, Keeper, chronicle::Chronicle, pins::Pins},
        lease_loop::{LeaseLoop, Plane, SourceGuard},
        messages::{Ask, Asker, Heard, Notice, PeerWord, RunnerAsk},
        names::Names,
        prober,
        setup::node_setup,
        threads::{self, abort_on_panic, spawn},
    },
    clock,
    config::{Config, LEASE_MAX},
    dataplane::{DataPlane, observe::Events},
    engine::{GroupId, NodeId, PeerLoss, Timing},
    http,
    lock::Lock,
    node::{Node, Setup, is_in_maps, plan},
    outbound::runnable,
    paths::Paths,
    realtime,
    records::{
        groups,
        membership::{Admission, Membership},
        memory::Memory,
        votes,
    },
    transport::KeyRing,
};

/// How long the agent waits at its end for a keeper that shows no sign of life.
const KEEPER_MAX: Duration = Duration::from_secs(5);

/// Runs an agent until it is told to stop. With `hold`, a signal ends it without
/// a release; the next agent goes on with the leases if it starts in time.
///
/// # Errors
/// [`AgentError`]; mistakes that can be known beforehand, before it touches the
/// node.
pub fn run(config_path: &Path, paths: &Paths, hold: bool) -> Result<(), AgentError> {
    let begun = clock::now();
    let prepared = prepare(config_path, paths)?;
    let claimed = claim(prepared, paths)?;
    let once = claimed.once;
    let leasing = start_lease(claimed, paths)?;
    let start = clock::now().since(begun).saturating_sub(once);
    let running = start_rest(leasing, paths)?;
    running.tell_start(start);
    let served = running.serve(config_path, paths);
    running.wind_down(served, start, hold, paths)
}

/// Everything that the agent reads and locks before it touches the node.
struct Prepared {
    config: Config,
    keys: KeyRing,
    lock: Lock,
    membership: Membership,
    /// Does the record have this membership?
    is_recorded: bool,
    memory: Memory,
    socket: UdpSocket,
    guard: SourceGuard,
    /// How long this node asked other voters whether it may take part.
    asked: Duration,
}

fn prepare(config_path: &Path, paths: &Paths) -> Result<Prepared, AgentError> {
    let config = Config::load(config_path)?;
    let keys = KeyRing::load(&config.cluster.key_file)?;
    if let Some(api) = &config.api {
        http::check(api)?;
    }
    let lock = Lock::take(paths, true)?;
    let Admission { membership, is_recorded, doubt } = take_part(&config, config_path, paths)?;
    let memory = Memory::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read what this node remembers in {} (move a broken memory.json away)",
        paths.state_dir.display()
    )))?;
    let address = config.this_node().address;
    let socket =
        UdpSocket::bind(address).and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).map_err(
            AgentError::system(format!("listen on {address} (this node's address in the configuration)")),
        )?;
    let guard = SourceGuard::set_up(&config, &socket, &paths.bpf_dir);
    start::make_room(&socket, &config);
    let asked = clock::now();
    if let Some(doubt) = doubt {
        join::ask(&config, config_path, &keys, (&socket, &guard), doubt)?;
    }
    let asked = clock::now().since(asked);
    Ok(Prepared { config, keys, lock, membership, is_recorded, memory, socket, guard, asked })
}

/// The node, as far as leases need it, and what the former process left.
struct Claimed {
    prepared: Prepared,
    table: Table,
    setup: Setup,
    /// `None` on a node that never holds, and where programs and addresses can
    /// wait.
    node: Option<Node>,
    names: Names,
    plane: Option<Plane>,
    /// For how long votes of former processes may still count.
    silence: Duration,
    /// Leases that the former process left.
    found: Vec<(GroupId, BootNs)>,
    /// The part of this start's time that the next start does not need.
    once: Duration,
}

fn claim(mut prepared: Prepared, paths: &Paths) -> Result<Claimed, AgentError> {
    let config = &prepared.config;
    let Follow { table, ended, is_recorded: is_known } = follow_table(config, paths)?;
    let setup = node_setup(config, &table);
    let can_hold = config.this_node().can_hold();
    let before = clock::now();
    let mut node = None;
    // If the former process left everything complete, the agent leaves it alone
    // for now: leases come first, and the kernel takes long to check programs.
    if can_hold && !(ended.is_empty() && is_in_maps(paths, &setup)) {
        node = Some(bring_up(paths, &setup, &ended)?);
    }
    // The next process does not have to do this first.
    let once = prepared.asked + if node.is_some() { clock::now().since(before) } else { Duration::ZERO };
    // Only now, when groups that have ended have no lease any more.
    if !is_known && let Err(e) = groups::store(&table, &paths.state_dir) {
        warn!("the record of the groups could not be written to {}: {e}", paths.state_dir.display());
    }
    abort_on_panic();

    let maps = if can_hold { Some(DataPlane::open(&paths.bpf_dir)?) } else { None };
    let names = Names::with_places(config, maps.as_ref());
    if can_hold {
        prepared.guard.watch_way_in(config, &prepared.socket, &paths.bpf_dir)?;
    }
    let plane = match maps {
        Some(maps) => Some(Plane::new(maps, names.index.clone(), Events::open(&paths.bpf_dir)?)),
        None => None,
    };
    // Doesn't write again what is there: a full disk must not keep an agent from
    // coming back.
    if !prepared.is_recorded {
        prepared.membership.store(&paths.state_dir).map_err(AgentError::system(format!(
            "keep the record of the membership in {}",
            paths.state_dir.display()
        )))?;
    }
    let silence = votes::begin(&paths.run_dir, config.cluster.lease).map_err(AgentError::system(format!(
        "keep the record of votes in {} (remove a broken votes.json {}s after this node's last agent ended)",
        paths.run_dir.display(),
        LEASE_MAX.as_secs()
    )))?;
    let found = held(plane.as_ref(), clock::now());
    Ok(Claimed { prepared, table, setup, node, names, plane, silence, found, once })
}

/// The lease loop runs; nothing else does.
struct Leasing {
    config: Config,
    lock: Lock,
    membership: Membership,
    memory: Memory,
    table: Table,
    setup: Setup,
    node: Option<Node>,
    names: Names,
    silence: Duration,
    found: Vec<(GroupId, BootNs)>,
    lease: JoinHandle<io::Result<()>>,
    asker: Asker,
    notices: (Sender<Notice>, Receiver<Notice>),
    hooks: (Sender<RunnerAsk>, Receiver<RunnerAsk>),
    /// To the prober.
    ways: Receiver<PeerWord>,
}

fn start_lease(claimed: Claimed, paths: &Paths) -> Result<Leasing, AgentError> {
    let Claimed { prepared, table, setup, node, names, plane, silence, found, once: _ } = claimed;
    let Prepared { config, keys, lock, membership, memory, socket, guard, .. } = prepared;
    let notices = channel();
    let (asks, asks_rx) = channel();
    let wake = Arc::new(
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| AgentError::system("make an eventfd")(e.into()))?,
    );
    let asker = Asker::new(asks, Arc::clone(&wake));
    let gates = Gates::new(hooks::rules(&config), &found);
    let (engine, labels, transport) = decide(&config, &table, keys, &found, silence, &memory)?;
    let (hooks, (prober, ways)) = (channel(), channel());
    let (me, uncovered, mute) = (NodeId(config.me), table.uncovered(), table.mute());
    let lease_loop = LeaseLoop {
        parts: Parts { engine, labels, uncovered, mute, transport, gates, me },
        socket,
        guard,
        addresses: config.cluster.nodes.iter().map(|n| (NodeId(n.id), n.address)).collect(),
        plane,
        asks: asks_rx,
        wake,
        tell: notices.0.clone(),
        announcer: start_announcer(paths, config.this_node().can_hold(), config.garp)?,
        hooks: hooks.0.clone(),
        prober,
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
    Ok(Leasing {
        config,
        lock,
        membership,
        memory,
        table,
        setup,
        node,
        names,
        silence,
        found,
        lease,
        asker,
        notices,
        hooks,
        ways,
    })
}

/// Everything that runs besides the lease loop.
struct Rest {
    keeper: JoinHandle<()>,
    people: People,
    board: Arc<Board>,
    checks: Option<Checks>,
    listeners: Listeners,
}

/// The whole agent.
struct Agent {
    config: Config,
    lock: Lock,
    silence: Duration,
    lease: JoinHandle<io::Result<()>>,
    asker: Asker,
    rest: Rest,
}

fn prober_links(
    config: &Config,
    asker: &Asker,
    inbox: Receiver<PeerWord>,
    judge: Sender<Heard>,
) -> prober::Links {
    let others = config.cluster.nodes.iter().filter(|node| node.id != config.this_node().id);
    let nodes = others.map(|node| (NodeId(node.id), node.name.clone())).collect();
    let (self_test, steer) = (config.self_test, config.steer);
    prober::Links { asker: asker.clone(), inbox, judge, nodes, self_test, steer }
}

/// From here on there are leases: if a step fails, the agent hands them over.
fn start_rest(leasing: Leasing, paths: &Paths) -> Result<Agent, AgentError> {
    let Leasing { config, lock, membership, memory, table, setup, node, names, .. } = leasing;
    let Leasing { silence, found, lease, asker, notices, hooks, ways, .. } = leasing;
    lock_memory();
    let rest = || -> Result<Rest, AgentError> {
        let node = match node {
            None if config.this_node().can_hold() => Some(bring_up(paths, &setup, &[])?),
            node => node,
        };
        let (hooks, hooks_rx) = hooks;
        let people = hooks::start(&config, paths, &asker, hooks, hooks_rx)?;
        let board = Arc::new(Board::default());
        let (tell, notices) = notices;
        let judge = match node {
            Some(_) => Some(start_judge(&config, &setup, paths, &asker, &board, &tell, found.is_empty())?),
            None => None,
        };
        let (judge, heard) = judge.unzip();
        if let Some(judge) = heard.clone()
            && let Err(e) =
                prober::start(paths, &board, tell.clone(), prober_links(&config, &asker, ways, judge))
        {
            warn!("this node can't tell whether other holders answer: {e}");
        }
        let checks = Checks::of_node(&config, &board, heard.as_ref())
            .map_err(AgentError::system("start the checks"))?;
        let keeper = Keeper {
            node,
            pins: Pins::set_up(&config, paths),
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
            carriers: keeper::carriers::Carriers::default(),
            chronicle: Chronicle::new(people.events.clone(), people.hooks.clone()),
            stray: None,
            is_deaf: false,
        };
        systemd::start(&asker)?;
        let keeper = spawn("keeper", move || keeper.run(&notices))?;
        Ok(Rest { keeper, people, board, checks, listeners: Listeners { keeper: tell, judge: heard } })
    };
    match rest() {
        Ok(rest) => Ok(Agent { config, lock, silence, lease, asker, rest }),
        Err(e) => {
            start::give_up(&asker, &found, Timing::new(config.cluster.lease).hold);
            // Its result matters less than the first error.
            let _ = lease.join();
            Err(e)
        }
    }
}

/// Locks the agent's memory: paging must not delay the lease, not even at the
/// first takeover.
fn lock_memory() {
    if let Err(e) = realtime::lock_memory() {
        warn!("memory is not locked ({e}): paging can delay the lease; run as root or with CAP_IPC_LOCK");
    }
    // In any case: the first takeover must not read code from a disk.
    if let Err(e) = realtime::page_in_program() {
        warn!("the program's own pages could not be read before they are needed: {e}");
    }
}

impl Agent {
    /// Logs the start, which took `start`.
    fn tell_start(&self, start: Duration) {
        let cluster = &self.config.cluster;
        if let Some(loss) = cluster.pair {
            warn_of_pair(loss);
        }
        runnable::warn_aside(&self.config);
        info!(
            node = self.config.node_name,
            start_ms = u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
            cluster = cluster.name,
            lease_ms = u64::try_from(cluster.lease.as_millis()).unwrap_or(u64::MAX),
            "the agent runs"
        );
    }

    fn serve(&self, config_path: &Path, paths: &Paths) -> Result<Ended, AgentError> {
        let Rest { people, board, listeners, .. } = &self.rest;
        let aside = Aside {
            api: self.config.api.clone(),
            pinned: Pins::watched(&self.config),
            listeners: listeners.clone(),
            accept: self.config.cluster.lease,
            silence: self.silence,
        };
        let server = Server::new(
            self.config.clone(),
            config_path,
            paths,
            &self.asker,
            &listeners.keeper,
            Arc::clone(board),
            people.events.clone(),
        );
        let (has_ended, has_hooks) = (|| self.lease.is_finished(), || people.has_hooks_at_work());
        signals::serve(server, aside, paths, has_ended, has_hooks)
    }

    /// However serving ended, releases the leases in good order if possible,
    /// unless the next agent shall find them.
    fn wind_down(
        self,
        served: Result<Ended, AgentError>,
        start: Duration,
        hold: bool,
        paths: &Paths,
    ) -> Result<(), AgentError> {
        let Self { config, lock, lease, asker, rest, .. } = self;
        let Rest { keeper, people, board: _, checks, listeners } = rest;
        let lease_hold = Timing::new(config.cluster.lease).hold;
        let ended = served.as_ref().unwrap_or(&Ended::Stop);
        if matches!(ended, Ended::Replace(_)) {
            systemd::replaced();
        } else {
            systemd::stopping();
        }
        // A hook that runs now would have no agent, and the group's next hook would not
        // wait for it.
        let has_hooks = people.has_hooks_at_work() && *ended != Ended::Restart;
        let leave = !has_hooks && (hold || ended.can_be_back(start, lease_hold));
        if has_hooks && (hold || *ended != Ended::Stop) {
            info!("hooks are running, so this agent hands its leases over");
        } else if !leave && *ended != Ended::Stop {
            info!(?start, hold = ?lease_hold, "the leases would not outlast the next start, so this agent hands them over");
        }
        let _ = asker.ask(if leave { Ask::Leave } else { Ask::Stop });
        let ended = lease.join();
        drop(checks);
        drop((listeners, asker));
        // The keeper ends when it has handled the last notice: routes follow the release.
        // But the agent does not wait for a disk that hangs; and if a next process takes
        // over, hardly at all.
        let ended_well = if leave {
            threads::ends_within(&keeper, lease_hold / 8)
        } else {
            threads::ends_while(&keeper, || heartbeat::idle_for(WatchedThread::Keeper) < KEEPER_MAX)
        };
        if !ended_well {
            warn!("the keeper hangs, maybe on a slow disk: this agent ends without it");
        }
        // Then the last hooks; but a next process that takes over does not wait for them.
        if !leave {
            people.finish();
            if let Err(e) = Pins::release(paths) {
                warn!("peers' neighbour entries could not be put back: {e}");
            }
        }
        drop(lock);
        match ended {
            Ok(Ok(())) => match served? {
                Ended::Stop | Ended::Restart => Ok(()),
                Ended::Replace(program) => {
                    let what = format!("go on as {}", program.display());
                    successor::become_it(&program)
                        .map(|never| match never {})
                        .map_err(AgentError::system(what))
                }
            },
            Ok(Err(e)) => Err(AgentError::LeaseLoop(e.to_string())),
            Err(_) => Err(AgentError::LeaseLoop("it panicked".into())),
        }
    }
}

/// Could an agent start here now, beside the one that runs? Changes nothing.
///
/// # Errors
/// Why it could not, as far as that can be known beforehand.
pub fn try_out(config_path: &Path, paths: &Paths) -> Result<(), AgentError> {
    let config = Config::load(config_path)?;
    KeyRing::load(&config.cluster.key_file)?;
    // The running agent has the port; but whether this host has the address can
    // be checked.
    let mut address = config.this_node().address;
    address.set_port(0);
    UdpSocket::bind(address).map_err(AgentError::system(format!("listen on {}", address.ip())))?;
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

/// Rule 13: warns of pair mode.
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
