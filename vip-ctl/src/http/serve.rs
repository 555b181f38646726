//! Accepts connections and limits them: how many there are, how long a header may
//! take to arrive, how long a client may take to fetch a response.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixListener,
    sync::Semaphore,
    time::{Sleep, sleep},
};
use tracing::warn;

use super::{App, access::Peer, router};

/// Connections at once through the unix socket.
const UNIX_CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send a request's head, or the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take to fetch what waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that a request's head may have.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Headers that a request may have.
const HEADERS_MAX: usize = 64;
/// How long to wait after a connection could not be accepted.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves on the unix socket, for ever.
pub(super) async fn unix(listener: std::os::unix::net::UnixListener, app: Arc<App>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return warn!("HTTP is not served on the unix socket: {e}"),
    };
    let slots = Arc::new(Semaphore::new(UNIX_CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = Arc::clone(&app);
                tokio::spawn(async move {
                    let _slot = slot;
                    connection(stream, Peer { address: None, tokens: None }, &app).await;
                });
            }
            Err(e) => {
                warn!("an HTTP client was not accepted: {e}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until it ends.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: Peer,
    app: &Arc<App>,
) {
    let service = TowerToHyperService::new(router(app).layer(Extension(peer)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT)), service);
    // A client that went away, or sent no HTTP, is no error of ours.
    let _ = served.await;
}

/// A stream that fails if the client fetches nothing for some time.
struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// Set while something waits for the client.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    const fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, patience: None }
    }
}

impl<S: Unpin> Impatient<S> {
    /// Passes on the result of a write, unless that has waited for too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let limit = self.limit;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.judge(written, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.judge(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.judge(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_fetches_nothing_is_left_and_a_slow_one_is_not() {
        let limit = Duration::from_millis(300);
        let (near, far) = tokio::io::duplex(1024);
        let mut stream = Impatient::new(near, limit);
        let failed = stream.write_all(&[0; 4096]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(far);

        let (near, mut far) = tokio::io::duplex(1024);
        let reader = tokio::spawn(async move {
            let mut bytes = [0; 1024];
            for _ in 0..4 {
                sleep(limit / 4).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        });
        Impatient::new(near, limit * 20).write_all(&[0; 4096]).await.unwrap();
        reader.await.unwrap();
    }
}
