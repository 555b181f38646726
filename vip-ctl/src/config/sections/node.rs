//! `[node]`: this node, its interfaces and its startup delay.

use std::{ops::Range, time::Duration};

use toml::Spanned;

use super::{delay_of, name_of};
use crate::config::{
    INTERFACE_LEN_MAX,
    text::{report::Report, section::Section},
};

/// The node's name, as far as `[node]` gives it.
pub(in crate::config) enum ThisName {
    /// Not given: it is the host's name.
    Host,
    Given(Spanned<String>),
    /// Given, but wrong.
    Wrong,
}

pub(in crate::config) struct ThisNode {
    pub(in crate::config) name: ThisName,
    /// `None` if there is no such key; empty if it is wrong, which was reported.
    pub(in crate::config) interfaces: Option<Vec<String>>,
    pub(in crate::config) startup_delay: Duration,
    pub(in crate::config) span: Range<usize>,
}

pub(super) fn this_node(section: &Section<'_>, report: &mut Report<'_>) -> ThisNode {
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

/// The interface that only this host can reach.
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
pub(in crate::config) fn interface_names(
    written: Vec<Spanned<&str>>,
    report: &mut Report<'_>,
) -> Vec<String> {
    let mut interfaces: Vec<String> = Vec::new();
    for interface in written {
        let name = *interface.get_ref();
        // The kernel's dev_valid_name() refuses all others.
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
