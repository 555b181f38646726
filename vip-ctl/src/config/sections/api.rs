//! `[api]`: where to serve HTTP over TCP, and the files that protect it.
//! [`crate::http`] finds out whether those files can be used.

use std::{
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::Spanned;

use crate::config::text::{report::Report, section::Section};

/// HTTP over TCP. (The agent always serves it on the unix socket.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The certificate and its key; `None`, which is allowed on a loopback
    /// address only, for plain HTTP.
    pub tls: Option<Tls>,
    /// The file with the tokens.
    pub tokens: PathBuf,
}

/// A certificate and its key, in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The values under `[api]`; those that were wrong were reported and left out.
pub(in crate::config) struct ApiDraft {
    listen: Option<SocketAddr>,
    tls: Option<(String, String)>,
    tokens: Option<String>,
}

/// Reads the section.
pub(in crate::config) fn read(section: &Section<'_>, report: &mut Report<'_>) -> ApiDraft {
    let listen = section.required("listen", "\"127.0.0.1:7078\"", report);
    let listen = listen.and_then(|listen| listen_of(&listen, report));
    let tokens =
        section.required("tokens", "\"/etc/vip/tokens\"", report).map(|path| path.into_inner().to_owned());
    let cert = section.string("tls_cert", "\"/etc/vip/tls.crt\"", report);
    let key = section.string("tls_key", "\"/etc/vip/tls.key\"", report);
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert.into_inner().to_owned(), key.into_inner().to_owned())),
        (Some(lonely), None) => half(&lonely.span(), "tls_key", section, report),
        (None, Some(lonely)) => half(&lonely.span(), "tls_cert", section, report),
        (None, None) => {
            if let Some((span, listen)) = &listen
                && !listen.ip().is_loopback()
                && !section.lacks_by_typo("tls_cert")
                && !section.lacks_by_typo("tls_key")
            {
                report.add(
                    span.clone(),
                    format!(
                        "without TLS, tokens would cross the network in the clear on {listen}: \
                         add tls_cert and tls_key, or listen on 127.0.0.1"
                    ),
                );
            }
            None
        }
    };
    ApiDraft { listen: listen.map(|(_, listen)| listen), tls, tokens }
}

/// Reports that one of certificate and key is there without the other.
fn half<T>(span: &Range<usize>, missing: &str, section: &Section<'_>, report: &mut Report<'_>) -> Option<T> {
    if !section.lacks_by_typo(missing) && section.get(missing).is_none() {
        report.add(span.clone(), format!("a certificate and its key belong together: add {missing}"));
    }
    None
}

fn listen_of(written: &Spanned<&str>, report: &mut Report<'_>) -> Option<(Range<usize>, SocketAddr)> {
    let text = written.get_ref();
    let problem = match text.parse::<SocketAddr>() {
        Ok(listen) if listen.port() == 0 => {
            format!("listen = \"{text}\" has port 0: write the port to listen on")
        }
        Ok(listen) if listen.ip().is_multicast() => {
            format!("listen = \"{text}\" is a multicast address: write one of this host's")
        }
        Ok(listen) => return Some((written.span(), listen)),
        Err(_) => {
            format!("\"{text}\" is no address: write an IP address and a port, such as \"127.0.0.1:7078\"")
        }
    };
    report.add(written.span(), problem);
    None
}

impl ApiDraft {
    /// The finished section; relative paths belong to the directory of the
    /// configuration at `path`. `None` if something was missing, which was
    /// reported.
    pub(in crate::config) fn finish(self, path: &Path) -> Option<Api> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let tls = self.tls.map(|(cert, key)| Tls { cert: dir.join(cert), key: dir.join(key) });
        Some(Api { listen: self.listen?, tls, tokens: dir.join(self.tokens?) })
    }
}
