//! The socket for `vip-ctl`: one JSON object a line in, one out. An empty line
//! between them confirms that the agent has taken the request.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;

use super::{Request, Response, Server};
use crate::exit::Exit;

/// Bytes that a request may have.
const REQUEST_LEN_MAX: u64 = 4096;
/// Requests served at once; more wait.
const REQUESTS_MAX: usize = 16;
/// How long a client may take to send its request, and to fetch the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the agent sends a client as soon as it has taken the request.
const TAKEN: &[u8] = b"\n";
/// How long to wait after a client could not be accepted: more tries do not help
/// a process that has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the socket that `vip-ctl` uses.
///
/// # Errors
/// If the socket can't be made.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    // This process has the lock, so a socket that is there is a dead agent's.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves clients, for ever.
pub(crate) async fn serve(listener: UnixListener, server: Arc<Server>) {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (server, permits) = (Arc::clone(&server), Arc::clone(&permits));
                tokio::spawn(async move {
                    // The semaphore is never closed.
                    let permit = permits.acquire_owned().await.ok();
                    // If the client goes away, that is no error of the agent.
                    let _ = server.client(stream, permit).await;
                });
            }
            Err(e) => {
                warn!("a client was not accepted: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
                // This fails if the client is gone, for instance after a Ctrl-C while the
                // agent was stopped: then the agent does nothing.
                timeout(CLIENT_TIMEOUT, write.write_all(TAKEN)).await??;
                // A request that waits for a hook must not keep others from asking.
                let _permit = permit.filter(|_| !request.waits());
                self.answer(request).await
            }
            Err(e) => {
                Response::error(Exit::Protocol, format!("the agent does not understand the request: {e}"))
            }
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        // A client that hangs must not keep its place from the others.
        timeout(CLIENT_TIMEOUT, write.write_all(&text)).await??;
        write.shutdown().await
    }
}
