//! One GET over HTTP/1.1, over TLS where the URL says so. Makes a new connection
//! each time, as a new client would; follows no redirection.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::blocking::{Aside, too_slow};
use crate::{config::Url, outbound::tls};

/// Bytes of a response's body to search.
const BODY_MAX: usize = 65_536;

/// A page to request again and again.
#[derive(Debug)]
pub(super) struct Http {
    url: Url,
    statuses: Vec<u16>,
    body: Option<String>,
    insecure: bool,
    /// Certificates to trust besides the system's.
    trusted: Vec<CertificateDer<'static>>,
    aside: Aside,
}

impl Http {
    pub(super) const fn new(url: Url, statuses: Vec<u16>, body: Option<String>, insecure: bool) -> Self {
        Self { url, statuses, body, insecure, trusted: Vec::new(), aside: Aside { hanging: None } }
    }

    /// Requests the page once.
    ///
    /// # Errors
    /// Why the request failed.
    pub(super) async fn get(&mut self, limit: Duration) -> Result<(), String> {
        let begun = tokio::time::Instant::now();
        let (addresses, tls) = self.prepare(limit).await?;
        let rest = limit.saturating_sub(begun.elapsed());
        timeout(rest, self.ask(&addresses, tls)).await.unwrap_or_else(|_| Err(too_slow(limit)))
    }

    /// The address, and the TLS configuration. A resolver and the system's
    /// certificates may be slow, so this reads them on a thread of their own.
    async fn prepare(
        &mut self,
        limit: Duration,
    ) -> Result<(Vec<SocketAddr>, Option<Arc<ClientConfig>>), String> {
        let Url { tls, host, port, .. } = self.url.clone();
        if let (Ok(ip), false) = (host.parse::<IpAddr>(), tls) {
            return Ok((vec![SocketAddr::new(ip, port)], None));
        }
        let (insecure, trusted) = (self.insecure, self.trusted.clone());
        let work = move || {
            let found = (host.as_str(), port).to_socket_addrs();
            let addresses = found.map_err(|e| format!("{host} can't be resolved: {e}"))?.collect();
            let config = if tls { Some(tls::client(trusted, insecure)?) } else { None };
            Ok((addresses, config))
        };
        self.aside.run(limit, work).await
    }

    async fn ask(&self, addresses: &[SocketAddr], tls: Option<Arc<ClientConfig>>) -> Result<(), String> {
        let mut refused = format!("{} has no address", self.url.host);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let Some(tls) = tls else { return self.exchange(stream).await };
                    let name = ServerName::try_from(self.url.host.clone());
                    let name = name.map_err(|e| format!("{} is no name for TLS: {e}", self.url.host))?;
                    let stream = TlsConnector::from(tls).connect(name, stream).await;
                    return self.exchange(stream.map_err(|e| format!("TLS: {e}"))?).await;
                }
                Err(e) => refused = e.to_string(),
            }
        }
        Err(refused)
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<(), String> {
        let said = |e: hyper::Error| format!("HTTP: {e}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        let request = Request::get(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::USER_AGENT, concat!("vip-ctl/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| format!("HTTP: {e}"))?;
        let answer = async { self.judge(sender.send_request(request).await.map_err(said)?).await };
        // The end of the connection is no answer: what it has read may still be on the
        // way here.
        let driver = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            result = answer => result,
            () = driver => Err("HTTP: the connection has ended".to_owned()),
        }
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<(), String> {
        let status = answer.status();
        let as_wanted = match &self.statuses[..] {
            [] => status.is_success(),
            wanted => wanted.contains(&status.as_u16()),
        };
        if !as_wanted {
            return Err(self.wrong_status(status));
        }
        let Some(wanted) = &self.body else { return Ok(()) };
        let mut body = answer.into_body();
        let mut seen = Vec::new();
        while seen.len() < BODY_MAX {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(|e| format!("HTTP: {e}"))?;
            let data = frame.into_data().unwrap_or_default();
            seen.extend_from_slice(&data[..data.len().min(BODY_MAX - seen.len())]);
            if contains(&seen, wanted.as_bytes()) {
                return Ok(());
            }
        }
        if contains(&seen, wanted.as_bytes()) {
            return Ok(());
        }
        Err(format!("{status}, and {wanted:?} is not in the first {} bytes of the body", seen.len()))
    }

    fn wrong_status(&self, status: StatusCode) -> String {
        if self.statuses.is_empty() {
            return format!("{status}, which is none from 200 to 299");
        }
        let wanted: Vec<_> = self.statuses.iter().map(u16::to_string).collect();
        format!("{status}, and not {}", wanted.join(" or "))
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Answers every request with these bytes and closes; never, if there are none.
    async fn server(answer: &'static str, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                if answer.is_empty() {
                    silent.push(stream);
                    continue;
                }
                match &tls {
                    None => reply(stream, answer).await,
                    // A client that does not trust this server goes away.
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => reply(stream, answer).await,
                        Err(_) => continue,
                    },
                }
            }
        });
        address
    }

    async fn reply(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte).await {
                Ok(1) => request.push(byte[0]),
                Ok(_) | Err(_) => return,
            }
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        assert!(request.starts_with("GET /health?full HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("\r\nhost: "), "{request}");
        // The client may have closed the connection after it had seen enough.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn of(scheme: &str, host: &str, address: SocketAddr) -> Http {
        let url = Url::parse(&format!("{scheme}://{host}:{}/health?full", address.port())).expect("a URL");
        Http::new(url, Vec::new(), None, false)
    }

    #[tokio::test]
    async fn an_answer_passes_by_its_status_and_body() {
        let ok = server("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n", None).await;
        let mut http = of("http", "127.0.0.1", ok);
        assert_eq!(http.get(LIMIT).await, Ok(()));
        assert_eq!(of("http", "localhost", ok).get(LIMIT).await, Ok(()));
        http.body = Some("is well".into());
        assert_eq!(http.get(LIMIT).await, Ok(()));
        http.body = Some("is ill".into());
        let error = http.get(LIMIT).await.expect_err("another body");
        assert_eq!(error, "200 OK, and \"is ill\" is not in the first 12 bytes of the body");
        http.body = None;
        http.statuses = vec![204, 301];
        assert_eq!(http.get(LIMIT).await, Err("200 OK, and not 204 or 301".into()));

        let away =
            server("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", None);
        let mut http = of("http", "127.0.0.1", away.await);
        let error = http.get(LIMIT).await.expect_err("not followed");
        assert!(error.ends_with("which is none from 200 to 299"), "{error}");
        http.statuses = vec![204, 301];
        assert_eq!(http.get(LIMIT).await, Ok(()));
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_not_read_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let endless = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            // A response before the request is none.
            let mut question = [0; 4096];
            assert_ne!(stream.read(&mut question).await.expect("asked"), 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let mut http = of("http", "127.0.0.1", address);
        http.body = Some("is well".into());
        let error = http.get(LIMIT).await.expect_err("not in it");
        assert!(error.ends_with("not in the first 65536 bytes of the body"), "{error}");
        endless.await.expect("it noticed that nobody reads");
    }

    #[tokio::test]
    async fn what_is_no_http_and_who_never_answers_fail() {
        let ssh = server("SSH-2.0-OpenSSH_9.2\r\n", None).await;
        let error = of("http", "127.0.0.1", ssh).get(LIMIT).await.expect_err("no HTTP");
        assert!(error.starts_with("HTTP: "), "{error}");
        let silent = server("", None).await;
        let limit = Duration::from_millis(200);
        let begun = std::time::Instant::now();
        assert_eq!(of("http", "127.0.0.1", silent).get(limit).await, Err("no result within 200ms".into()));
        assert_eq!(of("https", "127.0.0.1", silent).get(limit).await, Err("no result within 200ms".into()));
        assert!(begun.elapsed() < LIMIT);
    }

    #[tokio::test]
    async fn certificates_are_verified_unless_that_is_not_wanted() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a pair");
        let tls = TlsAcceptor::from(Arc::new(config));
        let at = server("HTTP/1.1 204 No Content\r\n\r\n", Some(tls)).await;
        let mut http = of("https", "localhost", at);
        http.trusted = vec![certificate.clone()];
        assert_eq!(http.get(LIMIT).await, Ok(()));
        let mut by_address = of("https", "127.0.0.1", at);
        by_address.trusted = vec![certificate];
        let error = by_address.get(LIMIT).await.expect_err("another name");
        assert!(error.starts_with("TLS: invalid peer certificate"), "{error}");
        by_address.insecure = true;
        assert_eq!(by_address.get(LIMIT).await, Ok(()));
        http.trusted = Vec::new();
        let error = http.get(LIMIT).await.expect_err("nobody trusts it");
        assert!(error.starts_with("TLS: "), "{error}");
        http.insecure = true;
        assert_eq!(http.get(LIMIT).await, Ok(()));
    }
}
