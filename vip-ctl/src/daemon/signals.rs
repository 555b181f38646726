//! The main thread while the agent runs: it serves the socket for `vip-ctl`,
//! watches netlink, and obeys signals.

use std::{fs, io, net::IpAddr, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{
    AgentError,
    successor::{self, Ended},
    systemd,
};
use crate::{
    agent::{
        control::{Request, Response, Server, socket},
        judge::Listeners,
    },
    config::Api,
    host,
    http::Http,
    paths::Paths,
    records::votes,
};

/// How often to check that the lease loop is still running.
const ALIVE_POLL: Duration = Duration::from_millis(200);

/// For how many polls in a row no hook may run before another program goes on.
const CALM_POLLS: u32 = 2;

/// What the main thread serves besides requests on the socket.
pub(super) struct Aside {
    /// HTTP by TCP, if it is configured.
    pub(super) api: Option<Api>,
    /// Peers whose neighbour entries netlink watches.
    pub(super) pinned: Vec<IpAddr>,
    /// Who gets netlink's messages.
    pub(super) listeners: Listeners,
    /// T_accept.
    pub(super) accept: Duration,
    /// For how long after the start votes of former processes may count.
    pub(super) silence: Duration,
}

/// Serves until a signal says to stop, or the lease loop `has_ended`. Another
/// program goes on only once no hook is at work: it would not know of that hook,
/// and would run the group's next one beside it.
///
/// # Errors
/// [`AgentError::System`] if a socket can't be made or a signal can't be watched.
pub(super) fn serve(
    server: Server,
    aside: Aside,
    paths: &Paths,
    has_ended: impl Fn() -> bool,
    has_hooks: impl Fn() -> bool,
) -> Result<Ended, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::system("start the runtime"))?;
    let server = Arc::new(server);
    let (path, http) = (paths.socket(), paths.http_socket());
    let _http = Http::start(Arc::clone(&server), http.clone(), aside.api)
        .map_err(AgentError::system(format!("listen on {}", http.display())))?;
    let served = runtime.block_on(async {
        let listener =
            socket::listen(&path).map_err(AgentError::system(format!("listen on {}", path.display())))?;
        let signals = Signals::watch()?;
        systemd::ready();
        tokio::spawn(watch_netlink(aside.pinned, aside.listeners));
        tokio::spawn(settle_votes(paths.run_dir.clone(), aside.accept, aside.silence));
        tokio::spawn(socket::serve(listener, Arc::clone(&server)));
        Ok(signals.obey(&server, has_ended, has_hooks).await)
    });
    // Removes the socket, so that nobody asks an agent that is about to end.
    let _ = fs::remove_file(&path);
    runtime.shutdown_background();
    served
}

/// The check whether the installed program could go on, and that program's path.
type Trial = Pin<Box<dyn Future<Output = io::Result<PathBuf>>>>;

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    fn watch() -> Result<Self, AgentError> {
        let of = |kind, name| signal(kind).map_err(AgentError::system(format!("watch {name}")));
        Ok(Self {
            term: of(SignalKind::terminate(), "SIGTERM")?,
            int: of(SignalKind::interrupt(), "SIGINT")?,
            hup: of(SignalKind::hangup(), "SIGHUP")?,
            usr2: of(SignalKind::user_defined2(), "SIGUSR2")?,
        })
    }

    /// Obeys signals, until one ends the agent.
    async fn obey(
        mut self,
        server: &Arc<Server>,
        has_ended: impl Fn() -> bool,
        has_hooks: impl Fn() -> bool,
    ) -> Ended {
        let mut poll = tokio::time::interval(ALIVE_POLL);
        // Tries the installed version, while everything else goes on.
        let mut trial: OptionFuture<Trial> = None.into();
        // For how many polls no hook has run since a signal asked for that version.
        let mut calm: Option<u32> = None;
        loop {
            tokio::select! {
                _ = self.term.recv() => return terminated().await,
                _ = self.int.recv() => { info!("SIGINT: ending"); return Ended::Stop }
                _ = self.hup.recv() => { tokio::spawn(reload(Arc::clone(server))); }
                _ = self.usr2.recv() => {
                    if has_hooks() {
                        info!("SIGUSR2: hooks are running: the installed version is to go on after them");
                    }
                    calm = Some(0);
                }
                Some(tried) = &mut trial => {
                    trial = None.into();
                    match tried {
                        Ok(_) if has_hooks() => calm = Some(0),
                        Ok(program) => {
                            info!(program = %program.display(), "SIGUSR2: going on as the installed version");
                            return Ended::Replace(program);
                        }
                        Err(e) => {
                            let why = format!("the installed vip-ctl can't go on, so this one does: {e}");
                            warn!("SIGUSR2: {why}");
                            server.tell_of_successor(why);
                        }
                    }
                }
                _ = poll.tick() => {
                    if has_ended() {
                        return Ended::Stop;
                    }
                    // The end of one hook may order another.
                    calm = calm.map(|polls| if has_hooks() { 0 } else { polls + 1 });
                    if calm.take_if(|polls| *polls >= CALM_POLLS).is_some() {
                        let find: Trial = Box::pin(successor::find());
                        trial = Some(find).into();
                    }
                }
            }
        }
    }
}

async fn reload(server: Arc<Server>) {
    info!("SIGHUP: reading the configuration again");
    if let Response::Error { message, .. } = server.answer(Request::Reload).await {
        warn!("not reloaded, and nothing was changed: {message}");
    }
}

/// SIGTERM: ends, or makes way for the next process if that could start in time.
async fn terminated() -> Ended {
    if !successor::is_restart().await {
        info!("SIGTERM: ending");
        return Ended::Stop;
    }
    match successor::find().await {
        Ok(_) => {
            info!("SIGTERM: ending, to be started again");
            Ended::Restart
        }
        Err(e) => {
            warn!("SIGTERM: ending, and handing over, since the next vip-ctl can't go on as things are: {e}");
            Ended::Stop
        }
    }
}

/// Records the end of the silence.
async fn settle_votes(run_dir: PathBuf, accept: Duration, silence: Duration) {
    tokio::time::sleep(silence).await;
    if let Err(e) = votes::settle(&run_dir, accept) {
        warn!("the record of votes was not written ({e}): the next start may be silent for {silence:?}");
    }
}

/// Passes netlink's messages to judge and keeper, for as long as they listen.
async fn watch_netlink(addresses: Vec<IpAddr>, listeners: Listeners) {
    let ended = host::watch(addresses, |watched| listeners.watched(watched)).await;
    if let Err(e) = ended {
        warn!("netlink can't be watched ({e}): loss of carrier will not be noticed");
    }
}
