//! From TOML to values, each judged on its own: types, forms and ranges, and
//! what is not there yet. What values mean to each other is `check`'s business.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use toml::{Spanned, de::DeTable};
use vip_common::layout::GROUP_NAME_LEN;

use super::{
    DELAY_MAX, INTERFACE_LEN_MAX, LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, NAME_LEN_MAX, NODES_MAX,
    PREEMPT_DELAY_DEFAULT, PRIORITY_MAX,
    api::{self, ApiDraft},
    error::Report,
    health::{self, Health},
    hooks,
    mac::mac_of,
    section::{Section, TOP, at, wrong_type},
};
use crate::engine::{PeerLoss, Role};

/// What was written, with the place of everything; what was wrong is left out
/// and reported.
pub(super) struct Draft {
    pub(super) node: ThisNode,
    pub(super) cluster: Option<ClusterDraft>,
    pub(super) groups: Vec<GroupDraft>,
    pub(super) api: Option<ApiDraft>,
    pub(super) hooks: hooks::Draft,
}

/// The node's name, as far as `[node]` tells it.
pub(super) enum ThisName {
    /// Not given: it is the host's.
    Host,
    Given(Spanned<String>),
    /// Given, and wrong.
    Wrong,
}

pub(super) struct ThisNode {
    pub(super) name: ThisName,
    /// `None` if there is no such key; empty if it is wrong, which is reported.
    pub(super) interfaces: Option<Vec<String>>,
    pub(super) startup_delay: Duration,
    pub(super) span: Range<usize>,
}

pub(super) struct ClusterDraft {
    pub(super) name: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) lease: Duration,
    /// Where it is asked for, and what for.
    pub(super) pair: Option<Spanned<PeerLoss>>,
    pub(super) generation: u32,
    pub(super) nodes: Vec<NodeDraft>,
    pub(super) span: Range<usize>,
}

pub(super) struct NodeDraft {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<SocketAddr>>,
    pub(super) role: Role,
    pub(super) id: Option<Spanned<u8>>,
    pub(super) mac: Option<Spanned<[u8; 6]>>,
    pub(super) span: Range<usize>,
}

pub(super) struct GroupDraft {
    pub(super) name: Option<Spanned<String>>,
    pub(super) vips: Vec<Spanned<IpAddr>>,
    /// By node: where its name is, and its priority.
    pub(super) priorities: Vec<(Spanned<String>, u8)>,
    pub(super) preempt: Option<Duration>,
    pub(super) health: Health,
    pub(super) hooks: hooks::Draft,
    pub(super) span: Range<usize>,
}

/// Reads a file of `conf.d`, which has groups and nothing else.
pub(super) fn groups(table: &DeTable<'_>, report: &mut Report<'_>) -> Vec<GroupDraft> {
    let top = Section::more(table, report);
    let groups = top.sections("group", "[[group]]", report);
    groups.iter().map(|section| group_draft(section, report)).collect()
}

/// Reads the whole main file; `has_more` says that other files have groups.
pub(super) fn document(table: &DeTable<'_>, has_more: bool, report: &mut Report<'_>) -> Draft {
    let top = Section::new(TOP, table, 0..0, report);
    let node =
        top.table("node", "[node]", report).map(|(table, span)| Section::new("[node]", table, span, report));
    let node = match node {
        Some(section) => this_node(&section, report),
        None => {
            ThisNode { name: ThisName::Host, interfaces: None, startup_delay: Duration::ZERO, span: 0..0 }
        }
    };
    if top.lacks("cluster") {
        report.add(0..0, "there is no [cluster]: add it, with a [[cluster.node]] for each node");
    }
    let cluster = top
        .table("cluster", "[cluster]", report)
        .map(|(table, span)| Section::new("[cluster]", table, span, report));
    let cluster = cluster.map(|section| cluster_draft(&section, report));
    if top.lacks("group") && !has_more {
        report.add(0..0, "there is no [[group]]: add one, with its name and vips");
    }
    let groups = top.sections("group", "[[group]]", report);
    let groups = groups.iter().map(|section| group_draft(section, report)).collect();
    let api = top.table("api", "[api]", report);
    let api = api.map(|(table, span)| api::read(&Section::new("[api]", table, span, report), report));
    let hooks = hooks::read(&top, "[hooks]", report);
    Draft { node, cluster, groups, api, hooks }
}

fn this_node(section: &Section<'_>, report: &mut Report<'_>) -> ThisNode {
    let name = match section.get("name") {
        None => ThisName::Host,
        Some(_) => section
            .string("name", "\"db-a\"", report)
            .and_then(|name| name_of("node", &name, report))
            .map_or(ThisName::Wrong, ThisName::Given),
    };
    let startup_delay = delay_of(section, "startup_delay", report).unwrap_or_default();
    ThisNode { name, interfaces: interfaces(section, report), startup_delay, span: section.span.clone() }
}

/// A time to wait, at most [`DELAY_MAX`].
fn delay_of(section: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let text = section.string(key, "\"30s\"", report)?;
    match humantime::parse_duration(text.get_ref()) {
        Ok(delay) if delay <= DELAY_MAX => Some(delay),
        Ok(_) => {
            let max = humantime::format_duration(DELAY_MAX);
            report
                .add(text.span(), format!("{key} = \"{}\" is too long: write {max} at most", text.get_ref()));
            None
        }
        Err(_) => {
            let message = format!(
                "\"{}\" is no time: write a number and its unit, such as {key} = \"30s\"",
                text.get_ref()
            );
            report.add(text.span(), message);
            None
        }
    }
}

/// The interface that only this host reaches.
const LOOPBACK: &str = "lo";

fn interfaces(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let value = section.get("interface")?;
    let written = if value.get_ref().is_array() {
        section.strings("interface", "[\"eth0\", \"eth1\"]", report)?
    } else {
        section.string("interface", "\"eth0\"", report).into_iter().collect()
    };
    if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        report.add(value.span(), "interface names none: write interface = \"eth0\"");
    }
    let interfaces = interface_names(written.clone(), report);
    if let Some(loopback) = written.iter().find(|name| *name.get_ref() == LOOPBACK) {
        let message = format!(
            "{LOOPBACK} is the loopback interface, and no other host's traffic comes in by it: write the one that \
             clients reach this node by, such as \"eth0\""
        );
        report.add(loopback.span(), message);
    }
    Some(interfaces)
}

/// Interfaces, each once and with a name that Linux can have.
pub(super) fn interface_names(written: Vec<Spanned<&str>>, report: &mut Report<'_>) -> Vec<String> {
    let mut interfaces: Vec<String> = Vec::new();
    for interface in written {
        let name = *interface.get_ref();
        // What the kernel's dev_valid_name() refuses.
        let valid = !name.is_empty()
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        let several: Vec<_> = name
            .split([',', ' '])
            .filter(|part| !part.is_empty())
            .map(|part| format!("\"{part}\""))
            .collect();
        let are_names = several.iter().all(|part| part[1..].starts_with(|c: char| c.is_ascii_alphabetic()));
        if several.len() > 1 && are_names {
            let message = format!("\"{name}\" is more than one interface: write [{}]", several.join(", "));
            report.add(interface.span(), message);
        } else if name.len() > INTERFACE_LEN_MAX {
            let message = format!(
                "the interface \"{name}\" has {} bytes, and Linux has names of {INTERFACE_LEN_MAX} at most: write it as `ip link` shows it",
                name.len()
            );
            report.add(interface.span(), message);
        } else if !valid {
            let message = format!("\"{name}\" can't be an interface: write one as `ip link` shows it");
            report.add(interface.span(), message);
        } else if interfaces.iter().any(|known| known == name) {
            report.add(interface.span(), format!("the interface \"{name}\" is named twice: remove one"));
        } else {
            interfaces.push(name.to_owned());
        }
    }
    interfaces
}

fn cluster_draft(section: &Section<'_>, report: &mut Report<'_>) -> ClusterDraft {
    let name = section
        .required("name", "\"shop\"", report)
        .and_then(|name| name_of("cluster", &name, report))
        .map(Spanned::into_inner);
    let key_file = section.required("key_file", "\"/etc/vip/cluster.key\"", report).and_then(|path| {
        if path.get_ref().is_empty() {
            report.add(path.span(), "key_file is empty: write key_file = \"/etc/vip/cluster.key\"");
            return None;
        }
        Some(path.into_inner().to_owned())
    });
    let lease = section.string("lease", "\"200ms\"", report);
    let lease = lease.and_then(|lease| lease_of(&lease, report)).unwrap_or(LEASE_DEFAULT);
    if section.lacks("node") {
        report.add(section.span.clone(), "[cluster] has no nodes: add a [[cluster.node]] for each");
    }
    let nodes = section.sections("node", "[[cluster.node]]", report);
    let nodes = nodes.iter().map(|section| node_draft(section, report)).collect();
    let pair = section.string("pair", "\"take\"", report).and_then(|pair| pair_of(&pair, report));
    let generation = section.integer("generation", 1..=u32::MAX, report).map_or(1, Spanned::into_inner);
    ClusterDraft { name, key_file, lease, pair, generation, nodes, span: section.span.clone() }
}

fn pair_of(pair: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<PeerLoss>> {
    let choice = match *pair.get_ref() {
        "take" => PeerLoss::Take,
        "hold" => PeerLoss::Hold,
        other => {
            let message = format!(
                "pair = \"{other}\" is no choice: write \"take\" (a node that does not hear the other takes over; \
                 a cut between them makes two holders) or \"hold\" (it takes nothing by itself)"
            );
            report.add(pair.span(), message);
            return None;
        }
    };
    Some(at(pair.span(), choice))
}

fn lease_of(lease: &Spanned<&str>, report: &mut Report<'_>) -> Option<Duration> {
    let text = lease.get_ref();
    let Ok(duration) = humantime::parse_duration(text) else {
        let message = format!("\"{text}\" is no time: write a number and its unit, such as \"200ms\"");
        report.add(lease.span(), message);
        return None;
    };
    if !(LEASE_MIN..=LEASE_MAX).contains(&duration) {
        let (min, max) = (humantime::format_duration(LEASE_MIN), humantime::format_duration(LEASE_MAX));
        let message = format!("the lease {text} is out of range: write one from {min} to {max}");
        report.add(lease.span(), message);
        return None;
    }
    Some(duration)
}

fn node_draft(section: &Section<'_>, report: &mut Report<'_>) -> NodeDraft {
    let name = section.required("name", "\"db-a\"", report).and_then(|name| name_of("node", &name, report));
    let address = section
        .required("address", "\"10.0.1.10:7077\"", report)
        .and_then(|address| address_of(&address, report));
    let witness = section.boolean("witness", report).is_some_and(Spanned::into_inner);
    let observer = section.boolean("observer", report).filter(|observer| *observer.get_ref());
    let role = match (witness, observer) {
        (false, None) => Role::Node,
        (true, None) => Role::Witness,
        (false, Some(_)) => Role::Observer,
        (true, Some(observer)) => {
            report.add(
                observer.span(),
                "a witness votes and an observer does not: remove observer = true, or witness = true",
            );
            Role::Witness
        }
    };
    let last = u32::try_from(NODES_MAX - 1).unwrap_or(u32::MAX);
    let id = section.integer("id", 0..=last, report);
    let id = id.and_then(|id| Some(at(id.span(), u8::try_from(*id.get_ref()).ok()?)));
    let mac = section.string("mac", "\"02:00:5e:10:00:01\"", report).and_then(|mac| mac_of(&mac, report));
    NodeDraft { name, address, role, id, mac, span: section.span.clone() }
}

fn address_of(address: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<SocketAddr>> {
    let text = address.get_ref();
    let problem = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(socket), _) => {
            let ip = socket.ip();
            if socket.port() == 0 {
                format!("the address {text} has port 0: write the port that the agent listens on")
            } else if ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip) {
                format!(
                    "the address {text} is no single host's: write the one that the other nodes reach it by"
                )
            } else {
                return Some(at(address.span(), socket));
            }
        }
        (Err(_), Ok(ip)) => {
            format!("the address {text} has no port: write \"{}\"", SocketAddr::new(ip, 7077))
        }
        (Err(_), Err(_)) if text.trim().parse::<SocketAddr>().is_ok() => {
            format!("\"{text}\" has a blank beside the address: write \"{}\"", text.trim())
        }
        (Err(_), Err(_)) => {
            format!("\"{text}\" is no address: write an IP address and a port, such as \"10.0.1.10:7077\"")
        }
    };
    report.add(address.span(), problem);
    None
}

fn group_draft(section: &Section<'_>, report: &mut Report<'_>) -> GroupDraft {
    let name = section.required("name", "\"db\"", report).and_then(|name| group_name_of(&name, report));
    let example = "[\"10.0.1.12\"]";
    section.require("vips", example, report);
    let written = section.strings("vips", example, report).unwrap_or_default();
    if let Some(vips) = section.get("vips")
        && vips.get_ref().as_array().is_some_and(|array| array.is_empty())
    {
        report.add(vips.span(), format!("the group has no VIP: write vips = {example}, or remove the group"));
    }
    let vips: Vec<_> = written.iter().filter_map(|vip| vip_of(vip, report)).collect();
    let preempts = section.boolean("preempt", report).is_some_and(Spanned::into_inner);
    let delay = delay_of(section, "preempt_delay", report);
    // A preempt that is wrong, or misspelt, is reported already.
    let is_told = section.get("preempt").is_some_and(|written| written.get_ref().as_bool().is_none())
        || section.lacks_by_typo("preempt");
    if let Some(written) = section.get("preempt_delay").filter(|_| !preempts && !is_told) {
        let text = report.text(written.span());
        let message = format!(
            "preempt_delay = {text} does nothing without preempt = true: add that, or remove preempt_delay"
        );
        report.add(written.span(), message);
    }
    let preempt = preempts.then(|| delay.unwrap_or(PREEMPT_DELAY_DEFAULT));
    let (priorities, health) = (priorities(section, report), health::of_group(section, &vips, report));
    let hooks = hooks::read(section, "[group.hooks]", report);
    GroupDraft { name, vips, priorities, preempt, health, hooks, span: section.span.clone() }
}

fn vip_of(vip: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<IpAddr>> {
    let text = vip.get_ref();
    let problem = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => {
            format!("the VIP {text} is IPv6, which isn't there yet: remove it, or write an IPv4 address")
        }
        Ok(IpAddr::V4(v4)) => {
            let kind = if v4.is_unspecified() {
                "the unspecified address"
            } else if v4.is_loopback() {
                "a loopback address"
            } else if v4.is_multicast() {
                "a multicast address"
            } else if v4.is_broadcast() {
                "the broadcast address"
            } else if v4.octets()[0] == 0 {
                "an address of the unused network 0.0.0.0/8"
            } else {
                return Some(at(vip.span(), IpAddr::V4(v4)));
            };
            format!("the VIP {text} is {kind}, which no server can take over: write another")
        }
        Err(_) => no_vip(text),
    };
    report.add(vip.span(), problem);
    None
}

/// What is wrong with a VIP that is no address, and the address that it has in it.
fn no_vip(text: &str) -> String {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    if is_address(text.trim()) {
        return format!("\"{text}\" has a blank beside the address: write \"{}\"", text.trim());
    }
    if let Some((address, _)) = text.split_once('/').filter(|(address, _)| is_address(address)) {
        return format!("the VIP {text} has a prefix length, and a VIP has none: write \"{address}\"");
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return format!("the VIP {text} has a port, and a VIP has none: write \"{}\"", socket.ip());
    }
    let first = text.split_once('-').and_then(|(first, _)| first.trim().parse::<Ipv4Addr>().ok());
    if let Some(first) = first {
        let second = Ipv4Addr::from_bits(first.to_bits().wrapping_add(1));
        return format!(
            "\"{text}\" is a range: write each address by itself, \"{first}\", \"{second}\" and so on"
        );
    }
    let several: Vec<_> = text.split([',', ' ']).filter(|part| !part.is_empty()).collect();
    if several.len() > 1 && several.iter().all(|part| is_address(part)) {
        return format!("\"{text}\" is more than one address: write \"{}\"", several.join("\", \""));
    }
    format!("\"{text}\" is no IPv4 address: write one, such as \"10.0.1.12\"")
}

fn priorities(section: &Section<'_>, report: &mut Report<'_>) -> Vec<(Spanned<String>, u8)> {
    let example = "priority = { db-a = 150, db-b = 100 }";
    let Some((table, _)) = section.table("priority", example, report) else { return Vec::new() };
    let mut priorities = Vec::new();
    for (node, value) in table {
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type("a priority", "an integer", example, value, report);
            continue;
        };
        let priority = u8::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|priority| (1..=PRIORITY_MAX).contains(priority));
        match priority {
            Some(priority) => priorities.push((at(node.span(), node.get_ref().to_string()), priority)),
            None => {
                let message =
                    format!("the priority {integer} is out of range: write one from 1 to {PRIORITY_MAX}");
                report.add(value.span(), message);
            }
        }
    }
    priorities
}

/// A node's or cluster's name.
fn name_of(what: &str, name: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    checked_name(what, name, NAME_LEN_MAX, "letters, digits", valid, report)
}

fn group_name_of(name: &Spanned<&str>, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    checked_name("group", name, GROUP_NAME_LEN, "small letters, digits", valid, report)
}

pub(super) fn checked_name(
    what: &str,
    name: &Spanned<&str>,
    len_max: usize,
    characters: &str,
    valid: impl Fn(char) -> bool,
    report: &mut Report<'_>,
) -> Option<Spanned<String>> {
    let text = *name.get_ref();
    let problem = if text.is_empty() {
        format!("the {what}'s name is empty: write one of {characters} and - _ .")
    } else if text.len() > len_max {
        format!("the {what}'s name \"{text}\" has {} bytes: shorten it to {len_max} at most", text.len())
    } else if let Some(wrong) = text.chars().find(|c| !valid(*c)) {
        format!("the {what}'s name \"{text}\" has a {wrong:?}: use only {characters} and - _ .")
    } else {
        return Some(at(name.span(), text.to_owned()));
    };
    report.add(name.span(), problem);
    None
}

pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}
