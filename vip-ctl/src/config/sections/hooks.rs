//! `[hooks]` and `[group.hooks]`: programs to run, and a webhook to tell, when a
//! group moves. They are a node's own business: nodes may differ.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use crate::config::text::{report::Report, section::Section};
use crate::events::Hook;

/// How long a hook may take if nothing else is configured; `pre_demote` has a
/// limit of its own.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long `pre_demote` may take if nothing else is configured: a person waits
/// for it.
pub const PRE_DEMOTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// How long a node stays away from a group after its `pre_promote` has failed, if
/// nothing else is configured.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(30);

/// The longest limit that can be configured.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);

pub(crate) const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=TIMEOUT_MAX;
pub(crate) const PRE_DEMOTE_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(10);
pub(crate) const RETRIES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// What to do when `pre_promote` fails or takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Release the lease, and stay away from the group for a while.
    #[default]
    Release,
    /// Open the fence all the same.
    Ignore,
}

/// Where to post changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Over TLS?
    pub tls: bool,
    /// Host and, if the URL has one, port: the Host header.
    pub authority: String,
    /// The host alone.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl OnFailure {
    /// The URL, as it is configured.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Ignore => "ignore",
        }
    }
}

/// Hooks and webhook of a group; [`Default`]: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The program and its arguments.
    pub commands: BTreeMap<Hook, Vec<String>>,
    /// How long each may take, except for `pre_demote`.
    pub timeout: Duration,
    /// How long `pre_demote` may take.
    pub pre_demote_timeout: Duration,
    /// What to do when `pre_promote` fails.
    pub on_failure: OnFailure,
    /// How long the node then stays away from the group.
    pub retry_after: Duration,
    /// Where to post each change.
    pub webhook: Option<Webhook>,
}

impl Default for Hooks {
    fn default() -> Self {
        Draft::default().over(&Draft::default())
    }
}

impl Hooks {
    /// How long this hook may take.
    #[must_use]
    pub fn limit(&self, hook: Hook) -> Duration {
        match hook {
            Hook::PreDemote => self.pre_demote_timeout,
            Hook::PrePromote | Hook::PostPromote | Hook::PostDemote | Hook::OnFault => self.timeout,
        }
    }
}

/// One of the two tables, as far as the file has it.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Draft {
    commands: BTreeMap<Hook, Vec<String>>,
    timeout: Option<Duration>,
    pre_demote_timeout: Option<Duration>,
    on_failure: Option<OnFailure>,
    retry_after: Option<Duration>,
    webhook: Option<Told>,
}

/// The webhook that the file names.
#[derive(Clone, Debug)]
enum Told {
    /// None, whatever the other table says.
    Nobody,
    /// This one.
    By(Webhook),
}

impl Draft {
    /// A group's own table over the node's: key by key, the group's takes
    /// precedence.
    pub(in crate::config) fn over(&self, node: &Self) -> Hooks {
        let mut commands = node.commands.clone();
        commands.extend(self.commands.clone());
        // An empty array in the group switches the node's hook off.
        commands.retain(|_, command| !command.is_empty());
        Hooks {
            commands,
            timeout: self.timeout.or(node.timeout).unwrap_or(TIMEOUT_DEFAULT),
            pre_demote_timeout: self
                .pre_demote_timeout
                .or(node.pre_demote_timeout)
                .unwrap_or(PRE_DEMOTE_TIMEOUT_DEFAULT),
            on_failure: self.on_failure.or(node.on_failure).unwrap_or_default(),
            retry_after: self.retry_after.or(node.retry_after).unwrap_or(RETRY_AFTER_DEFAULT),
            webhook: match self.webhook.as_ref().or(node.webhook.as_ref()) {
                Some(Told::By(webhook)) => Some(webhook.clone()),
                Some(Told::Nobody) | None => None,
            },
        }
    }
}

/// Reads the table `name` under `hooks` of `parent`.
pub(in crate::config) fn read(parent: &Section<'_>, name: &'static str, report: &mut Report<'_>) -> Draft {
    let Some((table, span)) = parent.table("hooks", name, report) else { return Draft::default() };
    let section = Section::new(name, table, span, report);
    let mut commands = BTreeMap::new();
    for hook in Hook::ALL {
        if let Some(command) = command(&section, hook, report) {
            commands.insert(hook, command);
        }
    }
    Draft {
        commands,
        timeout: time(&section, "timeout", "10s", &TIMEOUTS, report),
        pre_demote_timeout: time(&section, "pre_demote_timeout", "2s", &PRE_DEMOTE_TIMEOUTS, report),
        on_failure: on_failure(&section, report),
        retry_after: time(&section, "retry_after", "30s", &RETRIES, report),
        webhook: webhook(&section, report),
    }
}

fn command(section: &Section<'_>, hook: Hook, report: &mut Report<'_>) -> Option<Vec<String>> {
    let key = hook.name();
    let example = format!("[\"/usr/local/bin/{key}\", \"argument\"]");
    let words = section.strings(key, &example, report)?;
    if let Some(program) = words.first()
        && !program.get_ref().starts_with('/')
    {
        let message = format!(
            "{key} runs \"{}\", which is no absolute path, and no shell looks for it: write {key} = {example}",
            program.get_ref()
        );
        report.add(program.span(), message);
        return None;
    }
    if let Some(word) = words.iter().find(|word| word.get_ref().contains('\0')) {
        report
            .add(word.span(), format!("{key} has a NUL in a word, which no program can be given: remove it"));
        return None;
    }
    Some(words.into_iter().map(|word| word.into_inner().to_owned()).collect())
}

fn time(
    section: &Section<'_>,
    key: &str,
    example: &str,
    range: &RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let text = section.string(key, &format!("\"{example}\""), report)?;
    let message = match humantime::parse_duration(text.get_ref()) {
        Ok(time) if range.contains(&time) => return Some(time),
        Ok(_) => format!(
            "{key} = \"{}\" is out of range: write one from {} to {}",
            text.get_ref(),
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        ),
        Err(_) => format!(
            "\"{}\" is no time: write a number and its unit, such as {key} = \"{example}\"",
            text.get_ref()
        ),
    };
    report.add(text.span(), message);
    None
}

fn on_failure(section: &Section<'_>, report: &mut Report<'_>) -> Option<OnFailure> {
    let text = section.string("on_failure", "\"release\"", report)?;
    match *text.get_ref() {
        "release" => Some(OnFailure::Release),
        "ignore" => Some(OnFailure::Ignore),
        other => {
            let message = format!(
                "on_failure = \"{other}\" is no choice: write \"release\" (another node takes over when pre_promote \
                 fails) or \"ignore\" (this one goes on)"
            );
            report.add(text.span(), message);
            None
        }
    }
}

fn webhook(section: &Section<'_>, report: &mut Report<'_>) -> Option<Told> {
    let text = section.string("webhook", "\"http://10.0.1.5:8080/vip\"", report)?;
    if text.get_ref().is_empty() {
        return Some(Told::Nobody);
    }
    match Webhook::parse(text.get_ref()) {
        Some(webhook) => Some(Told::By(webhook)),
        None => {
            let message = format!(
                "\"{}\" is no address to post to: write one such as webhook = \"https://alerts.example/vip\"",
                text.get_ref()
            );
            report.add(text.span(), message);
            None
        }
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.tls { "s" } else { "" }, self.authority, self.path)
    }
}

impl Webhook {
    /// Parses `http(s)://host[:port][/path]`; `None` for any other text.
    fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (tls, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // A name or IPv4 address, or an IPv6 address in brackets.
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if after.is_empty() { Some("") } else { after.strip_prefix(':') })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = match port? {
            "" if authority.ends_with(':') => return None,
            "" if tls => 443,
            "" => 80,
            port => port.parse().ok().filter(|port| *port > 0)?,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) {
            return None;
        }
        Some(Self { tls, authority: authority.to_owned(), host: host.to_owned(), port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_post_to_are_taken_apart() {
        let parsed = |text| Webhook::parse(text).map(|w| (w.tls, w.host, w.port, w.path, w.authority));
        let of = |tls, host: &str, port, path: &str, authority: &str| {
            Some((tls, host.to_owned(), port, path.to_owned(), authority.to_owned()))
        };
        assert_eq!(parsed("http://a.example"), of(false, "a.example", 80, "/", "a.example"));
        assert_eq!(parsed("https://a/b?c=d#e"), of(true, "a", 443, "/b?c=d", "a"));
        assert_eq!(parsed("https://10.0.0.1:8443?x"), of(true, "10.0.0.1", 8443, "/?x", "10.0.0.1:8443"));
        assert_eq!(parsed("http://[fd00::1]:80/"), of(false, "fd00::1", 80, "/", "[fd00::1]:80"));
        assert_eq!(parsed("http://[fd00::1]"), of(false, "fd00::1", 80, "/", "[fd00::1]"));
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:70000",
            "http://a:",
            "http://user@a/",
            "http://[fd00::1/",
            "http://[fd00::1]x/",
            "http://a b/",
            "http://a\r\nX: y/",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
