//! Requests of `vip-ctl` and HTTP to the agent, and the answers. The engine
//! decides what a request means for the cluster; this only carries it there.

mod candidates;
mod dry_run;
mod follow;
mod reload;
mod request;
mod served;
pub(crate) mod socket;
mod status;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc::Sender},
    time::Duration,
};

use tokio::sync::Semaphore;
use vip_lease::Snapshot;

pub use self::request::{Request, Response};
#[cfg(test)]
pub(crate) use self::status::counted;
use self::{follow::Follow, served::Moving};
use super::{
    checks::Board,
    messages::{Ask, Asker, Notice},
};
use crate::{
    config::{Config, Node},
    engine::{Command, Completed, GroupId, NodeId, Refusal},
    events::Events,
    exit::Exit,
    lookup::{self, Miss},
    paths::Paths,
};

/// How many requests may wait at once until a group is served; more wait for
/// their turn.
const WAITS_MAX: usize = 16;
/// How often, and how many times, to check whether a reload has ended.
const RELOAD_POLL: Duration = Duration::from_millis(20);
const RELOAD_POLLS: u32 = 50;

/// Answers requests, those of `vip-ctl` and those by HTTP.
pub(crate) struct Server {
    /// The configuration as of the last reload.
    current: RwLock<Arc<Config>>,
    config_path: PathBuf,
    paths: Paths,
    asker: Asker,
    notices: Sender<Notice>,
    board: Arc<Board>,
    follow: Follow,
    /// Why the installed version could not go on in this one's place, if it was asked to.
    refused: RwLock<Option<String>>,
    /// Places for requests that wait until a group is served.
    waits: Semaphore,
}

impl Server {
    /// A server for an agent that has this configuration.
    pub(crate) fn new(
        config: Config,
        config_path: &Path,
        paths: &Paths,
        asker: &Asker,
        notices: &Sender<Notice>,
        board: Arc<Board>,
        events: Events,
    ) -> Self {
        Self {
            current: RwLock::new(Arc::new(config)),
            config_path: config_path.to_owned(),
            paths: paths.clone(),
            asker: asker.clone(),
            notices: notices.clone(),
            board,
            follow: Follow::new(events),
            refused: RwLock::default(),
            waits: Semaphore::new(WAITS_MAX),
        }
    }

    /// The configuration as of the last reload.
    fn config(&self) -> Arc<Config> {
        // A thread that panicked while it had the lock has changed nothing.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, the status has this warning of the version that is installed.
    pub(crate) fn tell_of_successor(&self, why: String) {
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = Some(why);
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

    /// Does what the request asks, or says why not.
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

    /// Gives the engine a command, and waits for its outcome.
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

    /// The name of the group that a name or a VIP means.
    pub(crate) fn known_group(&self, name: String) -> Result<String, Response> {
        self.group(Some(name)).map(|group| self.group_name(group))
    }

    fn group_name(&self, group: GroupId) -> String {
        self.config().group(group).map_or_else(String::new, |g| g.name.clone())
    }

    /// The group that a name or a VIP means.
    fn group(&self, name: Option<String>) -> Result<GroupId, Response> {
        let place = lookup::group(name.as_deref(), &self.config().groups).map_err(missed)?;
        GroupId::at(place).ok_or_else(|| Response::error(Exit::Software, "no group has so high a number"))
    }

    fn node(&self, name: Option<String>) -> Result<Option<NodeId>, Response> {
        let Some(name) = name else { return Ok(None) };
        let nodes = &self.config().cluster.nodes;
        let place = lookup::node(&name, nodes, Node::can_hold).map_err(missed)?;
        Ok(Some(NodeId(nodes[place].id)))
    }

    fn node_name(&self, node: NodeId) -> String {
        self.config().cluster.node(node.0).map_or_else(String::new, |node| node.name.clone())
    }

    /// What the lease loop knows, with the configuration that it uses.
    async fn snapshot(&self) -> Result<(Arc<Config>, Snapshot), Response> {
        for _ in 0..RELOAD_POLLS {
            let config = self.config();
            let snapshot = self.asker.ask_for(Ask::Status).await.ok_or_else(ending)?;
            if snapshot.table == config.groups_digest() {
                return Ok((config, snapshot));
            }
            // A reload is under way.
            tokio::time::sleep(RELOAD_POLL).await;
        }
        Err(Response::error(Exit::Busy, "the agent is reloading its configuration: try again"))
    }
}

fn missed(miss: Miss) -> Response {
    Response::error(miss.exit, miss.message)
}

fn ending() -> Response {
    Response::error(Exit::NotLoaded, "the agent is ending")
}

/// The exit code for a refusal.
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
