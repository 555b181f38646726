//! The thread "webhook": posts each change of a group, as the JSON object that
//! `vip-ctl events` prints, to the address in the configuration. It follows the
//! agent's events like any other follower: if an address does not answer, its
//! changes are not posted, and nothing else suffers.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};

use crate::{
    config::{Config, hooks::Webhook},
    events::{Event, Events, Kind, Subscription},
    outbound::tls,
};

/// How long one try may take, from resolving the name to the response.
const TRY_MAX: Duration = Duration::from_secs(5);
/// When to post a change again that was not accepted, counted from the try
/// before.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// The address for each group.
type Addresses = BTreeMap<String, Webhook>;

/// A handle to the thread.
pub struct Webhooks {
    addresses: Arc<Mutex<Addresses>>,
    begin: tokio::sync::mpsc::UnboundedSender<(Webhook, Subscription)>,
    begun: Mutex<Vec<Webhook>>,
    events: Events,
    done: Receiver<()>,
}

impl Webhooks {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(config: &Config, events: &Events) -> io::Result<Self> {
        let addresses = Arc::new(Mutex::new(Addresses::new()));
        let (begin, begins) = tokio::sync::mpsc::unbounded_channel();
        let (done, is_done) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = {
            let addresses = Arc::clone(&addresses);
            move || runtime.block_on(serve(begins, &addresses, done))
        };
        thread::Builder::new().name("webhook".into()).spawn(body)?;
        let webhooks =
            Self { addresses, begin, begun: Mutex::default(), events: events.clone(), done: is_done };
        webhooks.reload(config);
        Ok(webhooks)
    }

    /// Takes over the addresses of this configuration.
    pub fn reload(&self, config: &Config) {
        let groups = config.groups.iter();
        let addresses: Addresses =
            groups.filter_map(|group| Some((group.name.clone(), group.hooks.webhook.clone()?))).collect();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for webhook in addresses.values() {
            if !begun.contains(webhook) {
                begun.push(webhook.clone());
                // The thread ends after this handle.
                let _ = self.begin.send((webhook.clone(), self.events.subscribe()));
            }
        }
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Waits, for a limited time, until all published changes are posted. All
    /// other handles on the events must be gone.
    pub fn finish(self, limit: Duration) {
        let Self { begin, events, done, .. } = self;
        drop((begin, events));
        // Either it is done, or it takes too long.
        let _ = done.recv_timeout(limit);
    }
}

/// One task for each address, so that one that hangs holds up no other.
async fn serve(
    mut begins: tokio::sync::mpsc::UnboundedReceiver<(Webhook, Subscription)>,
    addresses: &Arc<Mutex<Addresses>>,
    done: Sender<()>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Some((webhook, subscription)) = begins.recv().await {
        tasks.spawn(follow(webhook, subscription, Arc::clone(addresses)));
    }
    tasks.join_all().await;
    // Nobody may be waiting.
    let _ = done.send(());
}

async fn follow(webhook: Webhook, mut events: Subscription, addresses: Arc<Mutex<Addresses>>) {
    let mut tls = None;
    while let Some(event) = events.next().await {
        if let Kind::Missed { events } = event.kind {
            warn!(webhook = webhook.authority, "{events} events came too fast to be posted");
            continue;
        }
        let is_ours = matches!(event.kind, Kind::Changed(_)) && {
            let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            event.group.as_ref().and_then(|group| addresses.get(group)) == Some(&webhook)
        };
        if !is_ours {
            continue;
        }
        if webhook.tls && tls.is_none() {
            match tls::client(Vec::new(), false) {
                Ok(config) => tls = Some(TlsConnector::from(config)),
                Err(e) => {
                    warn!(webhook = webhook.authority, "no TLS, and nothing is posted: {e}");
                    continue;
                }
            }
        }
        tell(&webhook, tls.as_ref(), &event).await;
    }
}

/// Posts an event, with some retries.
async fn tell(webhook: &Webhook, tls: Option<&TlsConnector>, event: &Event) {
    let body = match serde_json::to_vec(event) {
        Ok(body) => Bytes::from(body),
        Err(e) => return warn!("an event could not be written as JSON: {e}"),
    };
    let mut retries = RETRIES.into_iter();
    loop {
        let posted = timeout(TRY_MAX, post(webhook, tls, body.clone())).await;
        let why = match posted {
            Ok(Ok(())) => return debug!(webhook = webhook.authority, seq = event.seq, "posted"),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {TRY_MAX:?}"),
        };
        let Some(pause) = retries.next() else {
            let group = event.group.as_deref();
            return warn!(webhook = webhook.authority, group, "a change could not be posted: {why}");
        };
        tokio::time::sleep(pause).await;
    }
}

async fn post(webhook: &Webhook, tls: Option<&TlsConnector>, body: Bytes) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let stream = TcpStream::connect((webhook.host.as_str(), webhook.port)).await.map_err(|e| text(&e))?;
    match tls {
        None => send(webhook, stream, body).await,
        Some(tls) => {
            let name = ServerName::try_from(webhook.host.clone()).map_err(|e| text(&e))?;
            let stream = tls.connect(name, stream).await.map_err(|e| text(&e))?;
            send(webhook, stream, body).await
        }
    }
}

async fn send(
    webhook: &Webhook,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    body: Bytes,
) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&webhook.path)
        .header(HOST, &webhook.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("vip-ctl/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await;
    // The rest of the response does not matter.
    connection.abort();
    let status = answer.map_err(|e| text(&e))?.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream as StdStream},
        path::Path,
    };

    use super::*;
    use crate::events::Change;

    fn config(webhook: &str) -> Config {
        let text = format!(
            r#"
            node = {{ name = "a", interface = "eth0" }}
            cluster = {{ name = "one", key_file = "k", node = [{{ name = "a", address = "10.0.0.1:7077" }}] }}
            group = [{{ name = "db", vips = ["10.0.0.8"] }}, {{ name = "web", vips = ["10.0.0.9"], hooks = {{ webhook = "{webhook}" }} }}]
            "#
        );
        Config::parse(&text, Path::new("vip.toml"), "a").unwrap()
    }

    /// Reads one request; returns its first line and its body.
    fn read(stream: impl Read) -> (String, String) {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (first.trim().to_owned(), String::from_utf8(body).unwrap())
    }

    fn answer(stream: &mut impl Write, status: &str) {
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
    }

    fn publish(events: &Events, group: &str, message: &str) {
        events.publish(Some(group), Kind::Changed(Change::default()), message);
    }

    #[test]
    fn each_change_of_its_group_is_posted_and_again_if_it_was_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
        let events = Events::new("a", None);
        let webhooks = Webhooks::start(&config(&address), &events).unwrap();
        publish(&events, "db", "another group's");
        publish(&events, "web", "one");
        publish(&events, "web", "two");
        drop(events);
        let mut seen = Vec::new();
        for status in ["503 Busy", "200 OK", "204 No Content"] {
            let (mut stream, _) = listener.accept().unwrap();
            let (first, body) = read(&stream);
            assert_eq!(first, "POST /hook?x=1 HTTP/1.1");
            seen.push(serde_json::from_str::<Event>(&body).unwrap().message);
            answer(&mut stream, status);
        }
        assert_eq!(seen, ["one", "one", "two"]);
        webhooks.finish(Duration::from_secs(30));
    }

    #[test]
    fn an_address_that_hangs_holds_up_nobody_who_publishes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let events = Events::new("a", None);
        let webhooks = Webhooks::start(&config(&address), &events).unwrap();
        for _ in 0..10_000 {
            publish(&events, "web", "");
        }
        drop(events);
        let before = std::time::Instant::now();
        webhooks.finish(Duration::from_millis(300));
        assert!(before.elapsed() < Duration::from_secs(30));
        drop(StdStream::connect(listener.local_addr().unwrap()));
    }

    #[tokio::test]
    async fn tls_is_spoken_with_whom_this_host_trusts_alone() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).await.unwrap();
                assert!(bytes[..count].starts_with(b"POST / HTTP/1.1"));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        });
        let (host, authority) = ("localhost".to_owned(), format!("localhost:{port}"));
        let webhook = Webhook { tls: true, authority, host, port, path: "/".into() };
        let trusting = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
            TlsConnector::from(tls::client(vec![made.cert.der().clone()], false).unwrap())
        };
        post(&webhook, Some(&trusting(&made)), Bytes::from_static(b"{}")).await.unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let refused = post(&webhook, Some(&trusting(&other)), Bytes::from_static(b"{}")).await;
        assert!(refused.unwrap_err().contains("certificate"));
    }
}
