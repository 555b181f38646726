//! Reads the configuration again while the agent runs, and checks it before the
//! keeper gets it. [`crate::agent::keeper::reload`] has the reload itself.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::{Response, Server, ending};
use crate::{
    agent::messages::{Changes, Notice, ReloadOrder, ReloadOutcome, ReloadRefused},
    config::Config,
    exit::Exit,
    outbound::runnable::{self, Unusable},
};

impl Server {
    /// The configuration as it is in the file now, if this agent can go on with
    /// it.
    pub(super) async fn read_again(&self) -> Result<Config, Response> {
        let path = self.config_path.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&path));
        let config = read.await.map_err(|e| Response::error(Exit::Software, e.to_string()))?;
        let config = config.map_err(|e| Response::error(Exit::Config, e.to_string()))?;
        let now = self.config();
        let fixed = now.needs_restart(&config);
        if !fixed.is_empty() {
            // A generation of its own is what nodes enter one after the other.
            let is_step = now.cluster.generation != config.cluster.generation;
            let same_nodes = is_step || now.nodes_digest() == config.nodes_digest();
            let how = if same_nodes && now.digest() == config.digest() {
                "which takes a restart of the agent (no VIP moves by that)"
            } else {
                "which takes a restart of the agent on every node: nodes that differ in it do not hear each other, and \
                 without a majority of the same nobody holds anything meanwhile"
            };
            let message = format!("{}: {} changed, {how}", self.config_path.display(), fixed.join(", "));
            return Err(Response::error(Exit::Config, message));
        }
        Ok(config)
    }

    /// Reads the configuration again, and goes on with its groups.
    pub(super) async fn reload(&self) -> Result<Changes, Response> {
        let config = self.read_again().await?;
        let (reply, answer) = oneshot::channel();
        let order = Box::new(ReloadOrder { config: config.clone(), reply });
        self.notices.send(Notice::Reload(order)).map_err(|_| ending())?;
        let outcome = answer.await.map_err(|_| ending())?;
        let error = |refused: ReloadRefused| Response::error(refused.exit, refused.message);
        let ReloadOutcome { changes, missing } = outcome.map_err(error)?;
        runnable::warn_aside(&config);
        // Whatever this node still lacks, the lease loop has these groups now.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        match missing {
            None => Ok(changes),
            Some(missing) => Err(error(missing)),
        }
    }

    /// What `next` needs and this host can't run, in sentences.
    pub(super) async fn unusable(next: Config) -> Result<Vec<String>, Response> {
        let look = move || runnable::unusable(&next).into_iter().map(|Unusable { says, .. }| says).collect();
        let found = tokio::task::spawn_blocking(look).await;
        found.map_err(|e| Response::error(Exit::Software, e.to_string()))
    }
}
