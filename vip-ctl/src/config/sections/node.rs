//! `[node]`: this node, its interfaces and its startup delay.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use toml::{Spanned, de::DeValue};

use super::{
    delay_of,
    garp::{self, Garp},
    name_of,
    self_test::{self, SelfTest},
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
    pub(in crate::config) written: Written,
    pub(in crate::config) startup_delay: Duration,
    pub(in crate::config) garp: Garp,
    pub(in crate::config) self_test: SelfTest,
    pub(in crate::config) steer: bool,
    pub(in crate::config) span: Range<usize>,
}

/// What is said of single interfaces.
#[derive(Default)]
pub(in crate::config) struct Written {
    /// How the way in of each shall run, where that is said.
    pub(in crate::config) modes: BTreeMap<String, Mode>,
    /// Those that only guard.
    pub(in crate::config) silent: BTreeSet<String>,
    /// By label, the interface that has it.
    pub(in crate::config) labels: BTreeMap<String, String>,
    /// Was any of them refused?
    pub(in crate::config) is_short: bool,
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
    let self_test = self_test::read(section, report).unwrap_or_default();
    let steer = self_test::read_steer(section, self_test, report);
    let mut written = Written::default();
    let interfaces = interfaces(section, &mut written, report);
    ThisNode { name, interfaces, written, startup_delay, garp, self_test, steer, span: section.span.clone() }
}

/// The interface that only this host can reach.
const LOOPBACK: &str = "lo";

/// The interfaces: one, or several, each by its name or as a table with what else there
/// is to say of it.
fn interfaces(section: &Section<'_>, of_each: &mut Written, report: &mut Report<'_>) -> Option<Vec<String>> {
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
                let (name, mode) = one(element, of_each, report);
                let Some(name) = name else { continue };
                if let Some(mode) = mode.or(all) {
                    of_each.modes.insert((*name.get_ref()).to_owned(), mode);
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
            let modes = written.iter().filter_map(|name| Some(((*name.get_ref()).to_owned(), all?)));
            of_each.modes.extend(modes);
        }
    }
    let interfaces = interface_names(written.clone(), report);
    of_each.is_short = interfaces.len() < written.len();
    for name in written.iter().filter(|name| of_each.labels.contains_key(*name.get_ref())) {
        let message = format!(
            "\"{}\" is an interface here, and the label of another one: choose another label",
            name.get_ref()
        );
        report.add(name.span(), message);
    }
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
    of_each: &mut Written,
    report: &mut Report<'_>,
) -> (Option<Spanned<&'a str>>, Option<Mode>) {
    match (element.get_ref().as_str(), element.get_ref().as_table()) {
        (Some(name), _) => (Some(at(element.span(), name)), None),
        (None, Some(table)) => {
            let section = Section::new("[[node.interface]]", table, element.span(), report);
            let name = section.required("name", "\"eth0\"", report);
            let label = section.string("label", "\"wan\"", report);
            let label = label.and_then(|label| name_of("label", &label, report));
            let announces = section.boolean("announce", report).is_none_or(Spanned::into_inner);
            if let Some(name) = &name {
                let name = (*name.get_ref()).to_owned();
                if let Some(label) = label
                    && let Some(other) = of_each.labels.insert(label.get_ref().clone(), name.clone())
                {
                    let message =
                        format!("{other} has the label \"{}\" already: give each its own", label.get_ref());
                    report.add(label.span(), message);
                }
                of_each.silent.extend((!announces).then_some(name));
            }
            (name, mode_of(&section, report))
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
