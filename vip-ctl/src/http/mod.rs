//! The agent's HTTP API: always on a unix socket, and over TCP if `[api]` says
//! so. It sends the same requests as `vip-ctl` through
//! [`crate::agent::control::Server`] and decides nothing.
//!
//! It has a thread and a runtime of its own, so that a slow or hostile client
//! costs neither the lease loop nor `vip-ctl` anything: `serve`, `limit` and
//! `access` bound who may connect, how often and with how much.

mod access;
mod error;
mod events;
mod limit;
mod listen;
mod openapi;
mod operate;
mod panel;
mod read;
mod secret_files;
mod serve;
mod tcp;
mod tls;
mod token;

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tokio::sync::{Mutex, Semaphore, oneshot};

use self::{error::ApiError, limit::Buckets};
use crate::{
    agent::control::{Request, Response, Server},
    config::Api,
    report::Status,
};

pub use self::{
    openapi::document,
    tcp::{ApiFileError, check},
};

/// For how long an answer is used again before the lease loop and the maps are
/// asked anew: so any number of clients cost ten readings a second.
const FRESH: Duration = Duration::from_millis(100);
/// Threads that may read maps and netlink at once, and one that may read the history.
const READERS_MAX: usize = 3;

/// The state that every handler has.
pub(crate) struct App {
    server: Arc<Server>,
    /// The last status and when it was read. Locked while it is being read, so
    /// that all clients that wait get the same one.
    status: Mutex<Option<(Instant, Arc<Status>)>>,
    /// When the lease loop last answered.
    alive: Mutex<Option<Instant>>,
    buckets: Buckets,
    /// For reading the history: one at a time, so that a disk that hangs holds up
    /// one thread and not all readers.
    history: Arc<Semaphore>,
}

impl App {
    fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            status: Mutex::new(None),
            alive: Mutex::new(None),
            buckets: Buckets::default(),
            history: Arc::new(Semaphore::new(1)),
        }
    }

    /// The status, at most [`FRESH`] old.
    async fn status(&self) -> Result<Arc<Status>, ApiError> {
        let mut last = self.status.lock().await;
        if let Some((read, status)) = &*last
            && read.elapsed() < FRESH
        {
            return Ok(Arc::clone(status));
        }
        let response = self.server.answer(Request::Status).await;
        let Response::Status(status) = response else { return Err(response.into()) };
        let status = Arc::new(*status);
        *last = Some((Instant::now(), Arc::clone(&status)));
        Ok(status)
    }

    /// Does the lease loop answer, or did it within the last [`FRESH`]? Waits for
    /// as long as that takes.
    async fn is_alive(&self) -> bool {
        let mut last = self.alive.lock().await;
        if last.is_some_and(|answered| answered.elapsed() < FRESH) {
            return true;
        }
        let is_alive = self.server.is_alive().await;
        *last = is_alive.then(Instant::now);
        is_alive
    }

    /// A client has changed something: the next status must be a new one.
    async fn forget(&self) {
        *self.status.lock().await = None;
    }
}

/// All paths.
fn router(app: &Arc<App>) -> Router {
    let api = Router::new()
        .route("/status", get(read::status))
        .route("/groups", get(read::groups))
        .route("/groups/{name}", get(read::group))
        .route("/nodes", get(read::nodes))
        .route("/events", get(events::events))
        .route("/history", get(events::history))
        .route("/openapi.json", get(openapi::serve))
        .route("/groups/{name}/switchover", post(operate::switchover))
        .route("/groups/{name}/promote", post(operate::promote))
        .route("/groups/{name}/demote", post(operate::demote))
        .route("/groups/{name}/failover", post(operate::failover))
        .route("/nodes/{name}/standby", post(operate::standby))
        .route("/nodes/{name}/unstandby", post(operate::unstandby))
        .route("/pause", post(operate::pause))
        .route("/resume", post(operate::resume));
    Router::new()
        .route("/", get(panel::serve))
        .nest("/api/v1", api)
        .route("/metrics", get(read::metrics))
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(app), access::guard))
        .with_state(Arc::clone(app))
}

/// The running API. Dropped, it takes no more requests.
pub(crate) struct Http {
    socket: PathBuf,
    // Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Http {
    /// Starts the thread `http`, which serves on `socket`, and over TCP if `api`
    /// says so.
    ///
    /// # Errors
    /// If the socket or the thread can't be made.
    pub(crate) fn start(server: Arc<Server>, socket: PathBuf, api: Option<Api>) -> io::Result<Self> {
        let listener = listen::unix(&socket)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(READERS_MAX)
            .thread_name("http-reader")
            .build()?;
        thread::Builder::new().name("http".into()).spawn(move || {
            let app = Arc::new(App::new(server));
            runtime.block_on(async {
                if let Some(api) = api {
                    tokio::spawn(tcp::serve(api, Arc::clone(&app)));
                }
                tokio::select! {
                    () = serve::unix(listener, Arc::clone(&app)) => {}
                    // A message and a dropped sender both mean the end.
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { socket, _stop: stop })
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // Removes the socket, so that nobody asks an agent that is about to end.
        let _ = fs::remove_file(&self.socket);
    }
}
