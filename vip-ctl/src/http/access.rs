//! The checks that every request passes before its answer: the site that it comes
//! from, the rate, the host, the header of a POST, and a time limit; and the
//! headers of every response.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;
use tracing::{debug, info};

use super::{
    App,
    error::ApiError,
    limit::WRONG_TOKEN_COST,
    token::{Access, Tokens},
};

/// The header that a POST needs. A page of another site can't send it: the
/// browser would first ask this server for permission, and gets none.
pub(super) const MARKER: &str = "x-vip-request";
/// Longer than the agent takes to give up on a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The header in which a browser names the site that a request comes from, and
/// its value for a page of another site.
const SITE: &str = "sec-fetch-site";
const OTHER_SITE: &str = "cross-site";
/// Characters of a path that go into a log line.
const PATH_LEN_TOLD: usize = 120;

/// Headers of every response: browsers must not store, guess, frame or pass on
/// anything.
const HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];
/// What a response may load, unless its handler says otherwise.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The panel, which shows nothing without a token, and so needs none itself.
const PAGE: &str = "/";
/// The paths for load balancers, which need no token.
const HEALTH: &[&str] = &["/healthz", "/readyz"];

/// The client.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address; `None` on the unix socket.
    pub(super) address: Option<IpAddr>,
    /// The tokens that count, now and after each later reading of the file;
    /// `None` on the unix socket, which only root can use.
    pub(super) tokens: Option<watch::Receiver<Arc<Tokens>>>,
}

/// Lets a request through, or refuses it.
pub(super) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let mut peer = request.extensions().get::<Peer>().cloned();
    let method = request.method().clone();
    let path = told(request.uri().path());
    let admitted = admit(&app, peer.as_mut(), &request);
    if let Some(peer) = &peer {
        // With the tokens that it was checked by, so that a long response notices when
        // they change.
        request.extensions_mut().insert(peer.clone());
    }
    let from =
        || peer.as_ref().and_then(|peer| peer.address).map_or("the unix socket".into(), |a| a.to_string());
    let mut response = match admitted {
        Ok(()) => {
            let response = match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => ApiError::timeout("the agent saw no outcome; it may still come").into_response(),
            };
            if method == Method::POST {
                app.forget().await;
                // The log has each change with its client, but not the request's content.
                info!(path, from = from(), status = response.status().as_u16(), "asked by HTTP");
            }
            response
        }
        Err(e) => {
            let response = e.into_response();
            // Anybody can cause this, as often as the network allows.
            debug!(path, from = from(), status = response.status().as_u16(), "refused by HTTP");
            response
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    response
}

/// A path as the log has it: a client may send one of many thousands of
/// characters.
fn told(path: &str) -> String {
    // A valid path is ASCII.
    match path.get(..PATH_LEN_TOLD) {
        Some(begin) if begin.len() < path.len() => format!("{begin}..."),
        Some(_) | None => path.to_owned(),
    }
}

fn admit(app: &App, peer: Option<&mut Peer>, request: &Request) -> Result<(), ApiError> {
    let Some(peer) = peer else { return Err(ApiError::failed("a connection without a peer")) };
    let is_health = HEALTH.contains(&request.uri().path());
    // Before it costs anything: a page on another site, in a browser that reaches
    // this port, must not use up the allowance of others.
    if !is_health && request.headers().get(SITE).is_some_and(|site| site.as_bytes() == OTHER_SITE.as_bytes())
    {
        return Err(ApiError::other_site());
    }
    // A client that shares the socket with one that asks too often still has to
    // learn whether the agent is well; that answer is cached.
    let is_look = peer.address.is_none() && is_health;
    if !is_look && !app.buckets.take(peer.address, Instant::now()) {
        return Err(ApiError::too_many());
    }
    match &mut peer.tokens {
        Some(tokens) => may(app, peer.address, &tokens.borrow_and_update(), request)?,
        // A person who forwards the socket to a port of their own machine shows no token:
        // a page that binds its own name to that port must not get through.
        None if !is_own_host(request.headers()) => return Err(ApiError::wrong_host()),
        None => {}
    }
    if request.method() == Method::POST && !request.headers().contains_key(MARKER) {
        return Err(ApiError::no_marker(MARKER));
    }
    Ok(())
}

/// Does the request's token allow it?
fn may(app: &App, address: Option<IpAddr>, tokens: &Tokens, request: &Request) -> Result<(), ApiError> {
    let path = request.uri().path();
    if path == PAGE || HEALTH.contains(&path) {
        return Ok(());
    }
    let needed = if request.method().is_safe() { Access::Read } else { Access::Operate };
    let value = request.headers().get(header::AUTHORIZATION);
    let Some(value) = value else {
        return Err(ApiError::no_token("a token is needed: send Authorization: Bearer TOKEN"));
    };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    let access = token
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, token)| tokens.access(token.trim()));
    match access {
        Some(access) if access >= needed => Ok(()),
        Some(_) => Err(ApiError::weak_token()),
        None => {
            app.buckets.charge(address, WRONG_TOKEN_COST);
            Err(ApiError::no_token("the token is not known here"))
        }
    }
}

/// Is the host `localhost` or an address, which no other site can have?
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_as_long_as_it_is_worth() {
        assert_eq!(told("/api/v1/pause"), "/api/v1/pause");
        let just = format!("/{}", "x".repeat(PATH_LEN_TOLD - 1));
        assert_eq!(told(&just), just);
        assert_eq!(told(&format!("{just}y")), format!("{just}..."));
    }

    #[test]
    fn only_names_that_nobody_can_bind_are_hosts() {
        let of = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_own_host(&headers)
        };
        for host in ["localhost", "LOCALHOST:7078", "127.0.0.1:80", "[::1]:7078", "::1", "10.0.1.10"] {
            // A bare IPv6 address is no valid host; what is before its colon is no address.
            assert_eq!(of(host), host != "::1", "{host}");
        }
        for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com", "", "[example.com]"] {
            assert!(!of(host), "{host}");
        }
        assert!(is_own_host(&HeaderMap::new()), "HTTP/1.0 has none, and no browser speaks that");
    }
}
