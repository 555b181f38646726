//! `[node]`: this node, its interfaces and its startup delay.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use toml::{Spanned, de::DeValue};

use super::{
    delay_of,
    garp::{self, Garp},
    name_of,
};
use crate::{
    config::{
        INTERFACE_LEN_MAX,
        text::{
            report::Report,
            section::{Section, at, wrong_type},
        },
    },
    mode::{MODES, Mode},
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
    /// How the way in of each shall run, where that is said.
    pub(in crate::config) modes: BTreeMap<String, Mode>,
    pub(in crate::config) startup_delay: Duration,
    pub(in crate::config) garp: Garp,
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
    let garp = garp::read(section, report);
    let mut modes = BTreeMap::new();
    let interfaces = interfaces(section, &mut modes, report);
    ThisNode { name, interfaces, modes, startup_delay, garp, span: section.span.clone() }
}

/// The interface that only this host can reach.
const LOOPBACK: &str = "lo";

/// The interfaces: one, or several, each by its name or as a table with its mode.
fn interfaces(
    section: &Section<'_>,
    modes: &mut BTreeMap<String, Mode>,
    report: &mut Report<'_>,
) -> Option<Vec<String>> {
    let all = mode_of(section, report);
    let Some(value) = section.get("interface") else {
        if let Some(mode) = section.get("mode") {
            report
                .add(mode.span(), "mode is about the interface, and there is none: add interface = \"eth0\"");
        }
        return None;
    };
    let mut written = Vec::new();
    match value.get_ref() {
        DeValue::Array(array) => {
            if array.is_empty() {
                report.add(value.span(), "interface names none: write interface = \"eth0\"");
            }
            for element in array {
                let (name, mode) = one(element, report);
                let Some(name) = name else { continue };
                if let Some(mode) = mode.or(all) {
                    modes.insert((*name.get_ref()).to_owned(), mode);
                }
                written.push(name);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => {
            written.extend(section.string("interface", "\"eth0\"", report));
            modes.extend(written.iter().filter_map(|name| Some(((*name.get_ref()).to_owned(), all?))));
        }
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

/// An interface of several.
fn one<'a>(
    element: &'a Spanned<DeValue<'a>>,
    report: &mut Report<'_>,
) -> (Option<Spanned<&'a str>>, Option<Mode>) {
    match (element.get_ref().as_str(), element.get_ref().as_table()) {
        (Some(name), _) => (Some(at(element.span(), name)), None),
        (None, Some(table)) => {
            let section = Section::new("[[node.interface]]", table, element.span(), report);
            (section.required("name", "\"eth0\"", report), mode_of(&section, report))
        }
        (None, None) => {
            let example = "interface = [\"eth0\", { name = \"eth1\", mode = \"tc\" }]";
            wrong_type("interface", "an array of strings and tables", example, element, report);
            (None, None)
        }
    }
}

/// The mode that a table names.
fn mode_of(section: &Section<'_>, report: &mut Report<'_>) -> Option<Mode> {
    let written = section.string("mode", "\"tc\"", report)?;
    let mode = Mode::named(written.get_ref());
    if mode.is_none() {
        let names = MODES.map(Mode::name).join(", ");
        let message = format!("mode = \"{}\" is no choice: write one of {names}", written.get_ref());
        report.add(written.span(), message);
    }
    mode
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
