//! `[cluster]` and `[[cluster.node]]`: the members, their addresses and the lease.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use toml::Spanned;

use super::{is_broadcast, mac::mac_of, name_of};
use crate::{
    config::{
        LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, NODES_MAX,
        text::{
            report::Report,
            section::{Section, at},
        },
    },
    engine::{PeerLoss, Role},
};

pub(in crate::config) struct ClusterDraft {
    pub(in crate::config) name: Option<String>,
    pub(in crate::config) key_file: Option<String>,
    pub(in crate::config) lease: Duration,
    /// Where the file asks for pair mode, and with which behaviour.
    pub(in crate::config) pair: Option<Spanned<PeerLoss>>,
    pub(in crate::config) generation: u32,
    pub(in crate::config) nodes: Vec<NodeDraft>,
    pub(in crate::config) span: Range<usize>,
}

pub(in crate::config) struct NodeDraft {
    pub(in crate::config) name: Option<Spanned<String>>,
    pub(in crate::config) address: Option<Spanned<SocketAddr>>,
    pub(in crate::config) role: Role,
    pub(in crate::config) id: Option<Spanned<u8>>,
    pub(in crate::config) mac: Option<Spanned<[u8; 6]>>,
    pub(in crate::config) span: Range<usize>,
}

pub(super) fn cluster_draft(section: &Section<'_>, report: &mut Report<'_>) -> ClusterDraft {
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
