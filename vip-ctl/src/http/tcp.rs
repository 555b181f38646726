//! HTTP over TCP: with TLS unless it stays on this host, and always with tokens.
//! Reads certificates and tokens again when their files change, so that neither a
//! renewal nor a new token needs a restart.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use super::{
    App,
    access::Peer,
    serve::{ACCEPT_PAUSE, connection},
    tls::{self, TlsError},
    token::{TokenError, Tokens},
};
use crate::config::Api;

/// Connections at once, all peers' together.
const CONNECTIONS_MAX: usize = 64;
/// Connections at once of one peer.
const PEER_CONNECTIONS_MAX: usize = 16;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before trying again to listen.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
/// How often to check whether the files have changed.
const FILES_POLL: Duration = Duration::from_secs(5);

/// Why a file of `[api]` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiFileError {
    /// The tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The content of the files of `[api]`.
struct Files {
    tokens: Tokens,
    tls: Option<TlsAcceptor>,
}

impl Files {
    fn load(api: &Api) -> Result<Self, ApiFileError> {
        let tls = api.tls.as_ref().map(|files| tls::acceptor(&files.cert, &files.key)).transpose()?;
        Ok(Self { tokens: Tokens::load(&api.tokens)?, tls })
    }
}

/// Protects the listener.
struct Gate {
    /// Existing connections have it too: a token that is removed is void at once.
    tokens: watch::Sender<Arc<Tokens>>,
    tls: Option<TlsAcceptor>,
}

impl Gate {
    fn new(files: Files) -> Self {
        Self { tokens: watch::Sender::new(Arc::new(files.tokens)), tls: files.tls }
    }

    fn renew(&mut self, files: Files) {
        self.tls = files.tls;
        self.tokens.send_if_modified(|tokens| {
            let is_new = **tokens != files.tokens;
            if is_new {
                *tokens = Arc::new(files.tokens);
            }
            is_new
        });
    }
}

/// Can the files that `[api]` names be used?
///
/// # Errors
/// [`ApiFileError`], with the file and the mend.
pub fn check(api: &Api) -> Result<(), ApiFileError> {
    Files::load(api).map(drop)
}

/// What tells a file from the one before it: its time, length and number.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The files of `[api]` as they are now.
fn stamps(api: &Api) -> Vec<Stamp> {
    let files = api.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]).chain([&api.tokens]);
    files.map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Stamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Serves over TCP, for ever.
pub(super) async fn serve(api: Api, app: Arc<App>) {
    let listener = listen(&api).await;
    let slots = Arc::new(Slots::default());
    let mut gate: Option<Gate> = None;
    let mut read: Option<Vec<Stamp>> = None;
    let mut look = interval(FILES_POLL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The first tick comes at once, before the first client.
            biased;
            _ = look.tick() => {
                let now = stamps(&api);
                if read.as_ref() != Some(&now) {
                    if read.is_some() {
                        info!("a file of [api] has changed and is read again");
                    }
                    match (Files::load(&api), &mut gate) {
                        (Ok(files), Some(gate)) => gate.renew(files),
                        (Ok(files), None) => gate = Some(Gate::new(files)),
                        (Err(e), gate) => error!("[api] {}: {e}", if gate.is_some() { "goes on with what it had" } else { "lets nobody in" }),
                    }
                    read = Some(now);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let address = from.ip().to_canonical();
                    if let (Some(gate), Some(slot)) = (&gate, slots.take(address)) {
                        let peer = Peer { address: Some(address), tokens: Some(gate.tokens.subscribe()) };
                        tokio::spawn(client(stream, peer, gate.tls.clone(), slot, Arc::clone(&app)));
                    }
                }
                Err(e) => {
                    warn!("an HTTP client was not accepted: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Listens as soon as possible. An address that is missing or in use must not
/// keep the agent from its lease, so this tries again.
async fn listen(api: &Api) -> TcpListener {
    let mut said = None;
    loop {
        match TcpListener::bind(api.listen).await {
            Ok(listener) => {
                info!(listen = %api.listen, tls = api.tls.is_some(), "HTTP is served by TCP");
                return listener;
            }
            Err(e) if said != Some(e.kind()) => {
                error!(
                    "HTTP can't be served on {} ({e}): free it, or change listen under [api]; the agent tries again",
                    api.listen
                );
                said = Some(e.kind());
            }
            Err(_) => {}
        }
        sleep(LISTEN_PAUSE).await;
    }
}

async fn client(stream: TcpStream, peer: Peer, tls: Option<TlsAcceptor>, slot: Slot, app: Arc<App>) {
    let _slot = slot;
    // Answers are small, and waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    match tls {
        None => connection(stream, peer, &app).await,
        Some(tls) => {
            // A client that fails the handshake is no error of ours.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                connection(stream, peer, &app).await;
            }
        }
    }
}

/// How many connections each peer has.
#[derive(Debug, Default)]
struct Slots {
    by_peer: Mutex<HashMap<IpAddr, usize>>,
}

impl Slots {
    /// A slot for one more; `None` if the peer, or all together, have enough.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if by_peer.values().sum::<usize>() >= CONNECTIONS_MAX {
            return None;
        }
        let count = by_peer.entry(peer).or_insert(0);
        if *count >= PEER_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Slot { slots: Arc::clone(self), peer })
    }
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_peer = self.slots.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn no_peer_takes_all_connections() {
        let slots = Arc::new(Slots::default());
        let peer = |number| IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
        let mut taken: Vec<_> = std::iter::from_fn(|| slots.take(peer(1))).collect();
        assert_eq!(taken.len(), PEER_CONNECTIONS_MAX);
        for number in 2..=9 {
            taken.extend(std::iter::from_fn(|| slots.take(peer(number))));
        }
        assert_eq!(taken.len(), CONNECTIONS_MAX);
        taken.remove(0);
        assert!(slots.take(peer(200)).is_some());
        drop(taken);
        assert!(slots.by_peer.lock().unwrap().is_empty());
    }
}
