//! HTTP by TCP, with a real certificate and real tokens: who gets in, who may
//! do what, and that neither a bad file nor a busy port costs a lease.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use vip_tests::lab::http::{Answer, Ask};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 7078;
const READ: &str = "0123456789abcdef0123456789abcdef";
const OPERATE: &str = "fedcba9876543210fedcba9876543210";
const NEW: &str = "00112233445566778899aabbccddeeff";

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Writes a file that only root can read.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    // Puts another file in its place, as an editor or a certificate renewal does.
    let made = path.with_extension("new");
    std::fs::write(&made, text)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    Ok(std::fs::rename(made, path)?)
}

/// Makes a self-signed certificate for `node`, at the paths that the configuration names.
fn write_certificate(node: &Node, dir: &Path) -> Result<CertificateDer<'static>> {
    let made = rcgen::generate_simple_self_signed([node.address().to_string(), "localhost".to_owned()])?;
    write_secret(&dir.join("tls.key"), &made.signing_key.serialize_pem())?;
    std::fs::write(dir.join("tls.crt"), made.cert.pem())?;
    Ok(made.cert.der().clone())
}

/// Adds `[api]` to a node's configuration; returns the directory of its files.
fn configure(node: &Node, listen: SocketAddr, tls: bool) -> Result<PathBuf> {
    let file = node.config_file();
    let dir = file.parent().context("a directory")?.to_owned();
    let tls = if tls { "tls_cert = \"tls.crt\"\ntls_key = \"tls.key\"\n" } else { "" };
    let text = std::fs::read_to_string(&file)?;
    node.write_config(&format!("{text}\n[api]\nlisten = \"{listen}\"\ntokens = \"tokens\"\n{tls}"))?;
    write_secret(&dir.join("tokens"), &format!("read {READ}\noperate {OPERATE}\n"))?;
    Ok(dir)
}

fn connect(node: &Node, at: SocketAddr) -> Result<TcpStream> {
    let stream =
        node.ns().enter(|| TcpStream::connect(at))?.with_context(|| format!("connecting to {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks by TLS, trusting `certificate` alone.
fn ask_tls(
    node: &Node,
    at: SocketAddr,
    certificate: &CertificateDer<'static>,
    ask: &Ask<'_>,
) -> Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::from(at.ip()))?;
    ask.over(StreamOwned::new(connection, connect(node, at)?))
}

#[lab_test]
fn tokens_and_tls_guard_what_is_served_by_tcp() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = lab.node("db-a")?;
    let client = lab.node("db-b")?;
    let at = SocketAddr::new(node.address().into(), PORT);
    let dir = configure(node, at, true)?;
    let certificate = write_certificate(node, &dir)?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?.name();
    let other = if holder == "db-c" { "db-b" } else { "db-c" };
    let ask = |ask: &Ask<'_>| ask_tls(client, at, &certificate, ask);
    let listens = wait_until(clock::now().plus(PATIENCE), || ask(&Ask::get("/healthz")).is_ok());
    ensure!(listens, "{}", node.log_tail());

    // Without a token the agent serves only health checks and the page that asks for a token.
    for path in ["/healthz", "/readyz"] {
        ensure!(ask(&Ask::get(path))?.status == 200, "{path}");
    }
    let page = ask(&Ask::get("/"))?;
    let policy = page.headers.get("content-security-policy").context("a policy")?;
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).context("a nonce")?;
    ensure!(nonce.len() == 32 && page.body.matches(&format!("nonce=\"{nonce}\"")).count() == 2, "{page:?}");
    ensure!(!ask(&Ask::get("/"))?.body.contains(nonce), "a nonce is used once");
    for path in ["/api/v1/status", "/metrics", "/api/v1/openapi.json", "/nosuch"] {
        let refused = ask(&Ask::get(path))?;
        ensure!(refused.status == 401 && refused.error()? == ("unauthorized".to_owned(), 77), "{refused:?}");
        ensure!(refused.headers.get("www-authenticate").is_some_and(|scheme| scheme == "Bearer"));
    }
    // With a token.
    let status = ask(&Ask::get("/api/v1/status").token(READ))?;
    ensure!(status.status == 200 && status.json()?["node"] == "db-a", "{status:?}");
    let path = format!("/api/v1/groups/{GROUP}/switchover");
    let to = |token: &str| ask(&Ask::post(&path, &json!({ "to": other })).token(token));
    let refused = to(READ)?;
    ensure!(refused.status == 403 && refused.error()? == ("forbidden".to_owned(), 77), "{refused:?}");
    ensure!(to("guessed")?.status == 401);
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == holder);
    let unmarked = Ask { headers: Vec::new(), ..Ask::post(&path, &Value::Null) }.token(OPERATE);
    ensure!(ask(&unmarked)?.status == 403);
    let moved = to(OPERATE)?;
    ensure!(moved.status == 200 && moved.json()?["holder"] == other, "{moved:?}");
    // The token is in no log.
    let log = std::fs::read_to_string(node.log_file())?;
    ensure!(log.contains("asked by HTTP") && !log.contains(OPERATE) && !log.contains(READ), "{log}");
    // The agent logs no refused request, or anybody could fill the log; it shortens a long path.
    ensure!(log.matches("asked by HTTP").count() == 1 && !log.contains("refused by HTTP"), "{log}");
    let long = format!("/api/v1/{}", "x".repeat(10_000));
    ensure!(ask(&Ask::post(&long, &Value::Null))?.status == 401);
    ensure!(ask(&Ask::post(&long, &Value::Null).token(OPERATE))?.status == 404);
    let log = std::fs::read_to_string(node.log_file())?;
    let told: Vec<_> = log.lines().filter(|line| line.contains("asked by HTTP")).collect();
    ensure!(told.len() == 2 && told.iter().all(|line| line.len() < 500), "{told:?}");
    // Plain HTTP gets nothing.
    ensure!(Ask::get("/healthz").over(connect(client, at)?).is_err());

    // The agent takes new tokens and a new certificate without a restart, but no bad ones.
    write_secret(&dir.join("tokens"), "read tooshort\n")?;
    std::thread::sleep(Duration::from_secs(7));
    ensure!(ask(&Ask::get("/api/v1/status").token(READ))?.status == 200, "goes on with what it had");
    write_secret(&dir.join("tokens"), &format!("read {NEW}\n"))?;
    let renewed = write_certificate(node, &dir)?;
    let taken = wait_until(clock::now().plus(PATIENCE), || {
        std::thread::sleep(Duration::from_millis(500));
        ask_tls(client, at, &renewed, &Ask::get("/api/v1/status").token(NEW)).is_ok_and(|a| a.status == 200)
    });
    ensure!(taken, "{}", node.log_tail());
    ensure!(ask(&Ask::get("/healthz")).is_err(), "the former certificate is not used any more");

    // The agent slows down a client that guesses tokens.
    let guesses = (0..20).map(|_| ask_tls(client, at, &renewed, &Ask::get("/metrics").token("guessed")));
    let guesses: Vec<Answer> = guesses.collect::<Result<_>>()?;
    ensure!(guesses.iter().any(|answer| answer.status == 429), "{guesses:?}");
    Ok(())
}

#[lab_test]
fn plain_http_is_for_loopback_and_a_busy_port_costs_no_lease() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = lab.node("db-a")?;
    node.ns().ip("link set lo up")?;
    let at: SocketAddr = format!("127.0.0.1:{PORT}").parse()?;
    let dir = configure(node, at, false)?;
    let taken = node.ns().enter(|| TcpListener::bind(at))??;
    lab.start_agents(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE)?;
    let holds = || node.run(&["promote", GROUP]).is_ok_and(|output| output.status.success());
    ensure!(wait_until(clock::now().plus(PATIENCE), holds), "it holds although the port of its API is busy");
    ensure!(node.has_logged("HTTP can't be served"), "{}", node.log_tail());
    drop(taken);
    let served = wait_until(clock::now().plus(PATIENCE), || {
        connect(node, at)
            .and_then(|stream| Ask::get("/metrics").token(READ).over(stream))
            .is_ok_and(|a| a.status == 200)
    });
    ensure!(served, "{}", node.log_tail());
    ensure!(Ask::get("/metrics").over(connect(node, at)?)?.status == 401);

    // The agent checks its files before it changes anything on the node.
    node.stop_agent()?;
    std::fs::set_permissions(dir.join("tokens"), std::fs::Permissions::from_mode(0o644))?;
    let config = node.config_file();
    let refused = node.run(&["agent", "--config", config.to_str().context("a path")?])?;
    ensure!(refused.status.code() == Some(78), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("chmod 600") && !said.contains(READ), "{said}");
    Ok(())
}

/// Asks over a connection that stays open, and reads the beginning of the answer.
fn ask_on(mut stream: &TcpStream, path: &str, token: &str) -> Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = vec![0; 65_536];
    let len = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

#[lab_test]
fn a_token_that_is_taken_away_counts_nowhere() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = lab.node("db-a")?;
    node.ns().ip("link set lo up")?;
    let at: SocketAddr = format!("127.0.0.1:{PORT}").parse()?;
    let dir = configure(node, at, false)?;
    lab.start_agents(PATIENCE)?;
    let served = wait_until(clock::now().plus(PATIENCE), || {
        connect(node, at).and_then(|stream| Ask::get("/healthz").over(stream)).is_ok_and(|a| a.status == 200)
    });
    ensure!(served, "{}", node.log_tail());
    let (kept, mut follower) = (connect(node, at)?, connect(node, at)?);
    let first = ask_on(&kept, "/api/v1/nodes", READ)?;
    ensure!(first.starts_with("HTTP/1.1 200"), "{first}");
    let events = ask_on(&follower, "/api/v1/events", READ)?;
    ensure!(events.starts_with("HTTP/1.1 200"), "{events}");

    write_secret(&dir.join("tokens"), &format!("read {NEW}\n"))?;
    // The agent ends the stream of a follower, who has to come back with a valid token ...
    let mut rest = Vec::new();
    while !rest.ends_with(b"0\r\n\r\n") {
        let mut bytes = [0; 4096];
        let len = follower.read(&mut bytes)?;
        ensure!(len > 0, "closed in the middle of a chunk");
        rest.extend_from_slice(&bytes[..len]);
    }
    // ... and a connection that stays open needs one, too.
    let refused = ask_on(&kept, "/api/v1/nodes", READ)?;
    ensure!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let told = ask_on(&kept, "/api/v1/nodes", NEW)?;
    ensure!(told.contains("HTTP/1.1 200"), "{told}");
    Ok(())
}
