//! Health checks and tracked interfaces: the conditions of a group for a node
//! that holds it. The agent runs the checks.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hyper::Uri;
use toml::{Spanned, de::DeValue};

use super::{checked_name, interface_names};
use crate::config::{
    NAME_LEN_MAX,
    text::{
        report::Report,
        section::{Section, wrong_type},
    },
};

/// The shortest and the longest pause between two runs of a check.
pub(crate) const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The pause between two runs if none is configured.
pub(crate) const INTERVAL_DEFAULT: Duration = Duration::from_secs(2);
/// The shortest timeout of a check.
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// The timeout of a check if none is configured; its interval if that is shorter.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// Passes in a row after which a failed check passes again.
pub(crate) const RISE_DEFAULT: u32 = 2;
/// Failures in a row after which a check fails.
pub(crate) const FALL_DEFAULT: u32 = 3;
/// The most passes or failures that can be configured.
pub(crate) const COUNT_MAX: u32 = 1000;
/// The most checks of a group.
pub(crate) const CHECKS_MAX: usize = 32;
/// The longest name of a process, in bytes: the kernel's TASK_COMM_LEN less its NUL.
pub const COMM_LEN_MAX: usize = 15;
/// The keys that say what a check looks at; a check has exactly one of them.
const KINDS: [&str; 6] = ["tcp", "http", "exec", "systemd", "process", "file"];

/// The conditions of a group for a node that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// All have to pass.
    pub checks: Vec<Check>,
    /// Interfaces that have to be up, with a carrier.
    pub track_interface: Vec<String>,
    /// What a holder does if its checks fail and no other node is ready.
    pub when_all_fail: WhenAllFail,
}

impl Health {
    /// Does the group have no conditions?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.track_interface.is_empty()
    }
}

/// What a holder does if its checks fail while no other node is ready to take the
/// group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllFail {
    /// It releases the lease: nobody answers.
    #[default]
    Release,
    /// It keeps the lease until another node is ready.
    Keep,
}

/// One health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, unique in its group.
    pub name: String,
    /// What it looks at.
    pub kind: CheckKind,
    /// The time from the beginning of one run to that of the next.
    pub interval: Duration,
    /// How long a run may take; at most `interval`.
    pub timeout: Duration,
    /// Passes in a row after which a failed check passes again.
    pub rise: u32,
    /// Failures in a row after which it fails.
    pub fall: u32,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP port that accepts connections.
    Tcp(SocketAddr),
    /// A page whose response to a GET is right. The check follows no redirection.
    Http {
        /// The page.
        url: Url,
        /// Status codes that pass; if empty, 200 to 299.
        statuses: Vec<u16>,
        /// Text that the body has to contain.
        body: Option<String>,
        /// Accept any certificate.
        insecure: bool,
    },
    /// A program, with its arguments, that ends with exit code 0.
    Exec(Vec<String>),
    /// A unit of systemd that is active.
    Systemd(String),
    /// A process with that name (`/proc/PID/comm`) that is not a zombie.
    Process(String),
    /// A file, or its absence.
    File {
        /// Its path.
        path: PathBuf,
        /// Must it exist?
        present: bool,
    },
}

impl CheckKind {
    /// The key that it is configured by.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http { .. } => "http",
            Self::Exec(_) => "exec",
            Self::Systemd(_) => "systemd",
            Self::Process(_) => "process",
            Self::File { .. } => "file",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Tcp(address) => write!(f, "{name} {address}"),
            Self::Http { url, .. } => write!(f, "{name} {url}"),
            Self::Exec(command) => write!(f, "{name} {}", command.join(" ")),
            Self::Systemd(what) | Self::Process(what) => write!(f, "{name} {what}"),
            Self::File { path, present } => {
                write!(f, "{name} {}{}", path.display(), if *present { "" } else { ", absent" })
            }
        }
    }
}

/// Where an HTTP request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Over TLS?
    pub tls: bool,
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port, also if the URL leaves it out.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Host and port as they are written.
    pub authority: String,
}

impl Url {
    /// Parses a URL; `None` if it is neither http nor https, or has a user in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?.as_str().to_owned();
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.contains('@') || uri.port_u16() == Some(0) {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { tls, host, port, path, authority })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.tls { "s" } else { "" }, self.authority, self.path)
    }
}

/// Reads a group's conditions.
pub(in crate::config) fn of_group(
    section: &Section<'_>,
    vips: &[Spanned<IpAddr>],
    report: &mut Report<'_>,
) -> Health {
    let track = section.strings("track_interface", "[\"eth1\"]", report).unwrap_or_default();
    let track_interface = interface_names(track, report);
    let sections = section.sections("check", "[[group.check]]", report);
    if let Some(over) = sections.get(CHECKS_MAX) {
        let message =
            format!("{} checks are too many for a group: keep {CHECKS_MAX} at most", sections.len());
        report.add(over.span.clone(), message);
    }
    let mut checks = Vec::new();
    let mut names = BTreeMap::new();
    for check in &sections {
        let written = check;
        let Some((name, check)) = check_of(check, report) else { continue };
        own_vip(written, &check.kind, vips, report);
        if let Some(first) = names.get(&check.name) {
            let place = report.whereabouts(first, &name);
            let message = format!(
                "the group has a check \"{}\" already ({place}): give this one another name = \"...\"",
                check.name
            );
            report.add(name, message);
            continue;
        }
        names.insert(check.name.clone(), name);
        checks.push(check);
    }
    let when_all_fail = when_all_fail(section, report);
    if let Some(written) = section.get("when_all_fail")
        && section.lacks("check")
        && section.lacks("track_interface")
    {
        let message = format!(
            "when_all_fail = {} does nothing without a check: add a [[group.check]], or remove when_all_fail",
            report.text(written.span())
        );
        report.add(written.span(), message);
    }
    Health { checks, track_interface, when_all_fail }
}

/// Reports a check that asks one of the group's own VIPs. On a node that does not
/// hold the group, it would reach the holder over the wire and say nothing about
/// the node; and while nobody holds it, no node could ever pass.
fn own_vip(section: &Section<'_>, kind: &CheckKind, vips: &[Spanned<IpAddr>], report: &mut Report<'_>) {
    let asked = match kind {
        CheckKind::Tcp(address) => Some(address.ip()),
        CheckKind::Http { url, .. } => url.host.parse().ok(),
        CheckKind::Exec(_) | CheckKind::Systemd(_) | CheckKind::Process(_) | CheckKind::File { .. } => None,
    };
    let asked = asked.map(|address| address.to_canonical());
    let Some(vip) = asked.filter(|asked| vips.iter().any(|vip| vip.get_ref() == asked)) else { return };
    let key = kind.name();
    let place = section.get(key).map_or_else(|| section.span.clone(), Spanned::span);
    let message = format!(
        "{key} = {} asks the group's own VIP {vip}, which only its holder answers for, so that no node could pass \
         before one holds it: ask 127.0.0.1 or this node's own address",
        report.text(place.clone())
    );
    report.add(place, message);
}

fn when_all_fail(section: &Section<'_>, report: &mut Report<'_>) -> WhenAllFail {
    let Some(choice) = section.string("when_all_fail", "\"keep\"", report) else {
        return WhenAllFail::default();
    };
    match *choice.get_ref() {
        "release" => WhenAllFail::Release,
        "keep" => WhenAllFail::Keep,
        other => {
            let message = format!(
                "when_all_fail = \"{other}\" is no choice: write \"release\" (a holder whose checks fail lets go, \
                 and nobody answers) or \"keep\" (it goes on until another node is ready)"
            );
            report.add(choice.span(), message);
            WhenAllFail::default()
        }
    }
}

/// One check, and where the file has its name, or the key that the name comes
/// from.
fn check_of(section: &Section<'_>, report: &mut Report<'_>) -> Option<(std::ops::Range<usize>, Check)> {
    let written: Vec<_> = KINDS.iter().filter(|kind| section.get(kind).is_some()).collect();
    let interval = time_of(section, "interval", INTERVAL, INTERVAL_DEFAULT, report);
    let most = interval.unwrap_or(INTERVAL.1);
    let timeout = time_of(section, "timeout", (TIMEOUT_MIN, most), TIMEOUT_DEFAULT.min(most), report);
    let rise = section.integer("rise", 1..=COUNT_MAX, report).map_or(RISE_DEFAULT, Spanned::into_inner);
    let fall = section.integer("fall", 1..=COUNT_MAX, report).map_or(FALL_DEFAULT, Spanned::into_inner);
    let given = section.string("name", "\"mysql\"", report).and_then(|name| {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        checked_name("check", &name, NAME_LEN_MAX, "letters, digits", valid, report)
    });
    let key = match written[..] {
        [key] => *key,
        [] => {
            if KINDS.iter().all(|kind| section.lacks(kind)) {
                let message = format!(
                    "the check does not say what to look at: add one of {}, such as tcp = \"127.0.0.1:3306\"",
                    KINDS.join(", ")
                );
                report.add(section.span.clone(), message);
            }
            return None;
        }
        [first, second, ..] => {
            let place = section.get(second).map_or_else(|| section.span.clone(), Spanned::span);
            let message = format!(
                "the check has {first} and {second}: keep one, and write a [[group.check]] of its own for the other"
            );
            report.add(place, message);
            return None;
        }
    };
    only_with(section, key, report);
    let kind = kind_of(section, key, report)?;
    let place = given
        .as_ref()
        .map(Spanned::span)
        .or_else(|| section.get(key).map(Spanned::span))
        .unwrap_or_else(|| section.span.clone());
    let name = given.map_or_else(|| default_name(&kind), Spanned::into_inner);
    Some((place, Check { name, kind, interval: interval?, timeout: timeout?, rise, fall }))
}

/// The default name of a check: what it looks at, without spaces.
fn default_name(kind: &CheckKind) -> String {
    let name = kind.name();
    match kind {
        CheckKind::Tcp(address) => format!("{name}-{address}"),
        CheckKind::Http { url, .. } => format!("{name}-{}{}", url.authority, url.path),
        CheckKind::Exec(command) => {
            let program = command.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
            format!("{name}-{program}")
        }
        CheckKind::Systemd(what) | CheckKind::Process(what) => format!("{name}-{what}"),
        CheckKind::File { path, .. } => format!("{name}-{}", path.display()),
    }
}

/// Reports keys that belong to another kind of check.
fn only_with(section: &Section<'_>, key: &str, report: &mut Report<'_>) {
    for (option, home) in [("status", "http"), ("body", "http"), ("insecure", "http"), ("present", "file")] {
        if let Some(value) = section.get(option).filter(|_| key != home) {
            let message = format!("{option} is for {home}, and this check is {key}: remove it");
            report.add(value.span(), message);
        }
    }
}

/// A time within `range`; the default if there is none, `None` if it is wrong.
fn time_of(
    section: &Section<'_>,
    key: &str,
    range: (Duration, Duration),
    default: Duration,
    report: &mut Report<'_>,
) -> Option<Duration> {
    if section.get(key).is_none() {
        return Some(default);
    }
    let text = section.string(key, "\"1s\"", report)?;
    let (min, max) = range;
    let problem = match humantime::parse_duration(text.get_ref()) {
        Ok(time) if (min..=max).contains(&time) => return Some(time),
        Ok(_) => {
            let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
            let text = text.get_ref();
            let whose = if key == "timeout" { ", the interval" } else { "" };
            format!("{key} = \"{text}\" is out of range: write one from {min} to {max}{whose}")
        }
        Err(_) => {
            format!("\"{}\" is no time: write a number and its unit, such as {key} = \"1s\"", text.get_ref())
        }
    };
    report.add(text.span(), problem);
    None
}

fn kind_of(section: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<CheckKind> {
    match key {
        "tcp" => tcp(section, report),
        "http" => http(section, report),
        "exec" => exec(section, report),
        "systemd" => {
            let example = "\"postgresql.service\"";
            let unit = section.string(key, example, report)?;
            let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            let text = *unit.get_ref();
            if text.is_empty() || text.starts_with('-') || !text.chars().all(valid) {
                let message = format!(
                    "\"{text}\" is no unit of systemd: write it as `systemctl` shows it, such as {example}"
                );
                report.add(unit.span(), message);
                return None;
            }
            Some(CheckKind::Systemd(text.to_owned()))
        }
        "process" => {
            let name = section.string(key, "\"mysqld\"", report)?;
            let text = *name.get_ref();
            if text.is_empty() || text.contains('/') {
                let message = format!(
                    "\"{text}\" is no name of a process: write it as `ps -o comm` shows it, such as \"mysqld\""
                );
                report.add(name.span(), message);
                return None;
            }
            if text.len() > COMM_LEN_MAX {
                let mut end = COMM_LEN_MAX;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let message = format!(
                    "Linux cuts names of processes after {COMM_LEN_MAX} bytes, and \"{text}\" has {}: write \"{}\"",
                    text.len(),
                    &text[..end]
                );
                report.add(name.span(), message);
                return None;
            }
            Some(CheckKind::Process(text.to_owned()))
        }
        _ => {
            let path = section.string("file", "\"/run/maintenance\"", report)?;
            let present = section.boolean("present", report).is_none_or(Spanned::into_inner);
            let path = absolute("file", &path, report)?;
            Some(CheckKind::File { path: path.into(), present })
        }
    }
}

fn absolute<'a>(key: &str, path: &Spanned<&'a str>, report: &mut Report<'_>) -> Option<&'a str> {
    let text = *path.get_ref();
    if text.starts_with('/') {
        return Some(text);
    }
    report.add(path.span(), format!("{key}: \"{text}\" is no absolute path: write it from / on"));
    None
}

fn tcp(section: &Section<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    let address = section.string("tcp", "\"127.0.0.1:3306\"", report)?;
    let text = *address.get_ref();
    let problem = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(socket), _) if socket.port() != 0 && !socket.ip().is_multicast() => {
            return Some(CheckKind::Tcp(socket));
        }
        (Ok(_), _) => format!("nothing can listen on {text}: write the service's address and port"),
        (Err(_), Ok(ip)) => {
            format!("{text} has no port: write \"{}\" with the service's", SocketAddr::new(ip, 3306))
        }
        (Err(_), Err(_)) => {
            format!("\"{text}\" is no address: write an IP address and a port, such as \"127.0.0.1:3306\"")
        }
    };
    report.add(address.span(), problem);
    None
}

fn http(section: &Section<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    let example = "\"http://127.0.0.1:8080/health\"";
    let url = section.string("http", example, report);
    let statuses = statuses(section, report);
    let body = section.string("body", "\"ok\"", report).map(|body| body.into_inner().to_owned());
    let insecure = section.boolean("insecure", report);
    let url = url?;
    let Some(parsed) = Url::parse(url.get_ref()) else {
        let message = format!(
            "\"{}\" is no address of a page: write http = {example}, with http or https and without a user",
            url.get_ref()
        );
        report.add(url.span(), message);
        return None;
    };
    if let Some(written) = insecure.as_ref().filter(|_| !parsed.tls) {
        report.add(written.span(), "insecure is for https, and this is http: remove it");
    }
    let insecure = insecure.is_some_and(Spanned::into_inner);
    Some(CheckKind::Http { url: parsed, statuses: statuses?, body, insecure })
}

/// One status, or several; `None` if any is wrong.
fn statuses(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<u16>> {
    let Some(value) = section.get("status") else { return Some(Vec::new()) };
    let one = std::slice::from_ref(value);
    let written = value.get_ref().as_array().map_or(one, |array| &array[..]);
    if written.is_empty() {
        report.add(value.span(), "status names none: write status = 200, or remove it");
        return None;
    }
    let statuses: Vec<_> = written.iter().filter_map(|value| status(value, report)).collect();
    (statuses.len() == written.len()).then_some(statuses)
}

fn status(value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<u16> {
    let Some(integer) = value.get_ref().as_integer() else {
        wrong_type("status", "an integer, or several", "status = 200, or status = [200, 204]", value, report);
        return None;
    };
    let status = u16::from_str_radix(integer.as_str(), integer.radix()).ok();
    let status = status.filter(|status| (100..=599).contains(status));
    if status.is_none() {
        report.add(value.span(), format!("status = {integer} is none of HTTP: write one from 100 to 599"));
    }
    status
}

fn exec(section: &Section<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    let example = "[\"/usr/local/bin/check\", \"argument\"]";
    let command = section.strings("exec", example, report)?;
    let value = section.get("exec")?;
    let array = value.get_ref().as_array()?;
    let Some(program) = command.first() else {
        if array.is_empty() {
            report.add(value.span(), format!("exec names no program: write exec = {example}"));
        }
        return None;
    };
    absolute("exec", program, report)?;
    if let Some(wrong) = command.iter().find(|word| word.get_ref().contains('\0')) {
        report.add(wrong.span(), "an argument can't have a NUL in it: remove it");
        return None;
    }
    (command.len() == array.len())
        .then(|| CheckKind::Exec(command.into_iter().map(|word| word.into_inner().to_owned()).collect()))
}
