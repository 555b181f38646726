//! The agent's socket: one JSON object a line in, one out. What a request
//! means for the cluster is the engine's business; this only carries it there.

mod again;
mod rehearse;
mod request;
mod served;
pub(crate) mod told;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc::Sender},
    time::Duration,
};

use futures_util::future::OptionFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{info, warn};
use vip_lease::Snapshot;

pub use self::request::{Request, Response};
use self::{served::Moving, told::role_name};
use super::{
    AgentError, Notice,
    checks::Board,
    follow::Follow,
    judge::Lanes,
    lease_loop::{Ask, Asker},
    notify,
    pins::Pins,
    replace::{self, Ended},
    settle_votes, standing, watch_netlink,
};
use crate::{
    config::Config,
    engine::{Command, Completed, GroupId, NodeId, Refusal},
    event::Events,
    exit::Exit,
    http::Http,
    paths::Paths,
    report::{self, GroupStatus, NodeStatus, Status, VipStatus},
};

/// Bytes that a request may have.
const REQUEST_LEN_MAX: u64 = 4096;
/// Requests served at once; more wait.
const REQUESTS_MAX: usize = 16;
/// Who may wait at once until a group is served; more wait for their turn.
const WAITS_MAX: usize = 16;
/// How long a client may take to send its request, and to fetch the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a client could not be accepted: a process without a
/// descriptor left is not helped by more tries.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether the lease loop still runs.
const LOOK: Duration = Duration::from_millis(200);

/// How often, and how many times, it is looked whether a reload has come to its end.
const RELOAD_LOOK: Duration = Duration::from_millis(20);
const RELOAD_LOOKS: u32 = 50;

/// What requests are answered from, those of `vip-ctl` and those by HTTP.
pub(crate) struct Server {
    /// As of the last reload.
    current: RwLock<Arc<Config>>,
    config_path: PathBuf,
    paths: Paths,
    asker: Asker,
    notices: Sender<Notice>,
    board: Arc<Board>,
    follow: Follow,
    /// Places for those who wait until a group is served.
    waits: Semaphore,
}

/// Serves until a signal says to stop, or the lease loop has ended.
///
/// # Errors
/// [`AgentError::System`] if the socket can't be made.
#[expect(clippy::too_many_arguments, reason = "all that the agent has is handed over here, once")]
pub(super) fn serve(
    config: Config,
    config_path: &Path,
    paths: &Paths,
    asker: &Asker,
    lanes: &Lanes,
    board: Arc<Board>,
    silence: Duration,
    events: Events,
    has_ended: impl Fn() -> bool,
) -> Result<Ended, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::system("start the runtime"))?;
    let (accept, http_by_tcp) = (config.cluster.lease, config.api.clone());
    let pinned = Pins::watched(&config);
    let server = Arc::new(Server {
        current: RwLock::new(Arc::new(config)),
        config_path: config_path.to_owned(),
        paths: paths.clone(),
        asker: asker.clone(),
        notices: lanes.keeper.clone(),
        board,
        follow: Follow::new(events),
        waits: Semaphore::new(WAITS_MAX),
    });
    let socket = paths.socket();
    let http = paths.http_socket();
    let _http = Http::start(Arc::clone(&server), http.clone(), http_by_tcp)
        .map_err(AgentError::system(format!("listen on {}", http.display())))?;
    let served = runtime.block_on(async {
        let listener =
            listen(&socket).map_err(AgentError::system(format!("listen on {}", socket.display())))?;
        let mut term = signal(SignalKind::terminate()).map_err(AgentError::system("watch SIGTERM"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(AgentError::system("watch SIGINT"))?;
        let mut hup = signal(SignalKind::hangup()).map_err(AgentError::system("watch SIGHUP"))?;
        let mut usr2 = signal(SignalKind::user_defined2()).map_err(AgentError::system("watch SIGUSR2"))?;
        notify::ready();
        tokio::spawn(watch_netlink(pinned, lanes.clone()));
        tokio::spawn(settle_votes(paths.run_dir.clone(), accept, silence));
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut look = tokio::time::interval(LOOK);
        // The trial of the installed version, beside everything else.
        let mut trial = OptionFuture::from(None);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (server, permits) = (Arc::clone(&server), Arc::clone(&permits));
                        tokio::spawn(async move {
                            // The semaphore is never closed.
                            let permit = permits.acquire_owned().await.ok();
                            // A client that went away is no concern of ours.
                            let _ = server.client(stream, permit).await;
                        });
                    }
                    Err(e) => {
                        warn!("a client was not accepted: {e}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = term.recv() => {
                    return Ok(terminated().await);
                }
                _ = int.recv() => { info!("SIGINT: ending"); return Ok(Ended::Stop) }
                _ = hup.recv() => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        info!("SIGHUP: reading the configuration again");
                        if let Response::Error { message, .. } = server.answer(Request::Reload).await {
                            warn!("not reloaded, and nothing was changed: {message}");
                        }
                    });
                }
                _ = usr2.recv() => trial = OptionFuture::from(Some(Box::pin(replace::successor()))),
                Some(tried) = &mut trial => match tried {
                    Ok(program) => {
                        info!(program = %program.display(), "SIGUSR2: going on as the installed version");
                        return Ok(Ended::Replace(program));
                    }
                    Err(e) => {
                        warn!("SIGUSR2: the installed vip-ctl can't go on, so this one does: {e}");
                        trial = OptionFuture::from(None);
                    }
                },
                _ = look.tick() => if has_ended() { return Ok(Ended::Stop) },
            }
        }
    });
    // So that nobody asks an agent that is about to end.
    let _ = fs::remove_file(&socket);
    runtime.shutdown_background();
    served
}

/// SIGTERM: to end, or to make way for the next process, if that could start.
async fn terminated() -> Ended {
    if !replace::is_restart().await {
        info!("SIGTERM: ending");
        return Ended::Stop;
    }
    match replace::successor().await {
        Ok(_) => {
            info!("SIGTERM: ending, to be started again");
            Ended::Restart
        }
        Err(e) => {
            warn!(
                "SIGTERM: ending, and handing over, since vip-ctl can't be started again as things are: {e}"
            );
            Ended::Stop
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The lock is ours, so a socket that is there is a dead agent's.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Server {
    async fn client(&self, stream: UnixStream, permit: Option<OwnedSemaphorePermit>) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(read.take(REQUEST_LEN_MAX));
        timeout(CLIENT_TIMEOUT, reader.read_line(&mut line)).await??;
        let response = match serde_json::from_str(&line) {
            Ok(Request::Events { group, follow }) => match group.map(|g| self.known_group(g)).transpose() {
                Ok(group) => {
                    // Followers have places of their own.
                    drop(permit);
                    let read = reader.into_inner().into_inner();
                    return self.follow.serve(group.as_deref(), follow, read, write).await;
                }
                Err(response) => response,
            },
            Ok(request) => {
                // Who waits for a hook keeps nobody else from asking.
                let _permit = permit.filter(|_| !request.waits());
                self.answer(request).await
            }
            Err(e) => {
                Response::error(Exit::Protocol, format!("the agent does not understand the request: {e}"))
            }
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        // One that hangs must not keep its place from the others.
        timeout(CLIENT_TIMEOUT, write.write_all(&text)).await??;
        write.shutdown().await
    }

    /// The configuration as of the last reload.
    fn config(&self) -> Arc<Config> {
        // Whoever panicked with it had changed nothing.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where events come from.
    pub(crate) fn events(&self) -> &Events {
        self.follow.events()
    }

    /// Where the history is.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.paths.state_dir
    }

    /// Does the lease loop answer? Waits for as long as it takes.
    pub(crate) async fn is_alive(&self) -> bool {
        self.asker.ask_for(Ask::Status).await.is_some()
    }

    /// Does what is asked, or says why not.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let result = match request {
            Request::Status | Request::Events { .. } => {
                self.status().await.map(|status| Response::Status(Box::new(status)))
            }
            Request::Promote { group, wait } => {
                let to = NodeId(self.config().me);
                self.command(group, wait, |group| Ok(Command::Promote { group, to })).await
            }
            Request::Demote { group, wait } => {
                self.command(group, wait, |group| Ok(Command::Demote { group })).await
            }
            Request::Switchover { group, to, wait } => {
                self.command(group, wait, |group| Ok(Command::Switchover { group, to: self.node(to)? })).await
            }
            Request::Failover { group, to, force, wait } => self.failover(group, to, force, wait).await,
            Request::Standby { node, on, force, wait } => self.standby(node, on, force, wait).await,
            Request::DryRun { of } => self.rehearse(*of).await,
            Request::Pause { on } => match self.order(Command::Pause { on }).await {
                Ok(Ok(_)) => Ok(Response::Pause { on }),
                Ok(Err(refusal)) => Err(Response::error(exit_of(refusal), refusal.to_string())),
                Err(response) => Err(response),
            },
            Request::Reload => self.reload().await.map(Response::Reloaded),
        };
        result.unwrap_or_else(|response| response)
    }

    /// Lets the engine do it.
    async fn order(&self, command: Command) -> Result<Result<Completed, Refusal>, Response> {
        let table = self.config().groups_digest();
        self.asker.ask_for(|reply| Ask::Command(command, table, reply)).await.ok_or_else(ending)
    }

    async fn command(
        &self,
        group: Option<String>,
        wait: bool,
        command: impl FnOnce(GroupId) -> Result<Command, Response>,
    ) -> Result<Response, Response> {
        let group = self.group(group)?;
        let outcome = self.order(command(group)?).await?;
        let name = self.group_name(group);
        match outcome {
            Ok(Completed::HeldBy(node)) => {
                if wait {
                    self.wait_until_served(Moving::from([(name.clone(), Some(node))])).await?;
                }
                Ok(Response::Done { group: name, holder: Some(self.node_name(node)), risk: None })
            }
            Ok(Completed::Released | Completed::Standby(_) | Completed::Paused(_)) => {
                Ok(Response::Done { group: name, holder: None, risk: None })
            }
            Err(refusal) => Err(Response::error(exit_of(refusal), format!("group {name}: {refusal}"))),
        }
    }

    async fn standby(
        &self,
        node: Option<String>,
        on: bool,
        force: bool,
        wait: bool,
    ) -> Result<Response, Response> {
        let node = self.node(node)?.unwrap_or(NodeId(self.config().me));
        let name = self.node_name(node);
        let held = if on && wait { self.held_by(node).await? } else { Moving::new() };
        match self.order(Command::Standby { node, on, force: on && force }).await? {
            Ok(_) => {
                self.wait_until_served(held).await?;
                Ok(Response::Standby { node: name, on })
            }
            Err(Refusal::NoTarget) => Err(Response::error(
                Exit::Unsafe,
                format!(
                    "no other node is ready to take what {name} holds, so nobody would answer: mend that first, or use --force"
                ),
            )),
            Err(refusal) => Err(Response::error(exit_of(refusal), format!("node {name}: {refusal}"))),
        }
    }

    /// The name of the group that is meant by a name or a VIP.
    pub(crate) fn known_group(&self, name: String) -> Result<String, Response> {
        self.group(Some(name)).map(|group| self.group_name(group))
    }

    fn group_name(&self, group: GroupId) -> String {
        self.config().groups.get(usize::from(group.0)).map_or_else(String::new, |g| g.name.clone())
    }

    /// The group that is meant.
    fn group(&self, name: Option<String>) -> Result<GroupId, Response> {
        let groups = &self.config().groups;
        let place = match &name {
            Some(name) => groups
                .iter()
                .position(|g| g.name == *name || g.vips.iter().any(|vip| vip.to_string() == *name))
                .ok_or_else(|| {
                    let known: Vec<_> = groups.iter().map(|g| g.name.as_str()).collect();
                    Response::error(
                        Exit::NoSuch,
                        format!("there is no group or VIP {name:?}: name one of {}", known.join(", ")),
                    )
                })?,
            None if groups.len() == 1 => 0,
            None => {
                let known: Vec<_> = groups.iter().map(|g| g.name.as_str()).collect();
                return Err(Response::error(
                    Exit::Usage,
                    format!("there are several groups: name one of {}", known.join(", ")),
                ));
            }
        };
        u16::try_from(place).map(GroupId).map_err(|e| Response::error(Exit::Software, e.to_string()))
    }

    fn node(&self, name: Option<String>) -> Result<Option<NodeId>, Response> {
        let Some(name) = name else { return Ok(None) };
        let nodes = &self.config().cluster.nodes;
        match nodes.iter().find(|node| node.name == name) {
            Some(node) => Ok(Some(NodeId(node.id))),
            None => {
                let known: Vec<_> = nodes.iter().filter(|n| n.can_hold()).map(|n| n.name.as_str()).collect();
                Err(Response::error(
                    Exit::NoSuch,
                    format!("there is no node {name:?}: name one of {}", known.join(", ")),
                ))
            }
        }
    }

    fn node_name(&self, node: NodeId) -> String {
        self.config().cluster.node(node.0).map_or_else(String::new, |node| node.name.clone())
    }

    async fn status(&self) -> Result<Status, Response> {
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
        self.overlay(&config, &mut status, &snapshot);
        Ok(status)
    }

    /// What the lease loop knows, with the configuration that it has.
    async fn snapshot(&self) -> Result<(Arc<Config>, Snapshot), Response> {
        for _ in 0..RELOAD_LOOKS {
            let config = self.config();
            let snapshot = self.asker.ask_for(Ask::Status).await.ok_or_else(ending)?;
            if snapshot.table == config.groups_digest() {
                return Ok((config, snapshot));
            }
            // A reload is under way.
            tokio::time::sleep(RELOAD_LOOK).await;
        }
        Err(Response::error(Exit::Busy, "the agent is reloading its configuration: try again"))
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
                last_heard_ms: known
                    .and_then(|known| known.last_heard)
                    .and_then(|heard| u64::try_from(snapshot.now.since(heard).as_millis()).ok()),
            });
        }
        let places = told::places(&status.groups);
        for (id, (group, known)) in (0..).map(GroupId).zip(config.groups.iter().zip(&snapshot.engine.groups))
        {
            let place = places.get(&group.name).copied().unwrap_or_else(|| {
                status.groups.push(bare(group));
                status.groups.len() - 1
            });
            let entry = &mut status.groups[place];
            let missing = told::missing(group, entry);
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
            }
            standing::add(entry, config, id, group, known, snapshot);
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
        status.agent = told::counted(&snapshot.counts);
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

/// A group of which this node has no maps.
fn bare(group: &crate::config::Group) -> GroupStatus {
    GroupStatus {
        name: group.name.clone(),
        state: String::new(),
        mode: "cluster".into(),
        holder: None,
        epoch: None,
        forced: false,
        eligible: None,
        why: None,
        checks: Vec::new(),
        candidates: Vec::new(),
        stays_away_ms: None,
        lease_remaining_ms: None,
        vips: group
            .vips
            .iter()
            .map(|vip| VipStatus { address: vip.to_string(), counters: std::collections::BTreeMap::new() })
            .collect(),
    }
}

fn ending() -> Response {
    Response::error(Exit::NotLoaded, "the agent is ending")
}

/// The exit code that a refusal means.
const fn exit_of(refusal: Refusal) -> Exit {
    match refusal {
        Refusal::NoQuorum => Exit::NoQuorum,
        Refusal::NoSuchGroup | Refusal::NoSuchNode => Exit::NoSuch,
        Refusal::Timeout => Exit::Timeout,
        Refusal::Busy | Refusal::Starting | Refusal::Stopping => Exit::Busy,
        Refusal::NotHeld
        | Refusal::TargetNeverHolds
        | Refusal::TargetNotReady
        | Refusal::TargetSilent
        | Refusal::NoTarget
        | Refusal::NotHolder => Exit::Unsafe,
    }
}
