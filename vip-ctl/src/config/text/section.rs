//! Reads the values of one TOML table by their types, and reports a mistake for
//! each key that is unknown, missing or of another type. It does not know what
//! the values mean.

use std::ops::{Range, RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{keepalived, report::Report, suggest::nearest};

/// The tables of the file, and the keys that each of them has.
pub(in crate::config) const KEYS: &[(&str, &[&str])] = &[
    (
        "[node]",
        &[
            "name",
            "interface",
            "mode",
            "startup_delay",
            "garp_master_repeat",
            "garp_master_delay",
            "garp_master_refresh",
            "garp_interval",
            "self_test",
            "steer",
        ],
    ),
    ("[[node.interface]]", &["name", "mode", "label", "announce"]),
    ("[cluster]", &["name", "key_file", "lease", "pair", "generation", "node"]),
    ("[[cluster.node]]", &["name", "address", "witness", "observer", "id", "mac"]),
    ("[api]", &["listen", "tls_cert", "tls_key", "tokens"]),
    (
        "[[group]]",
        &[
            "name",
            "vips",
            "interface",
            "gateway",
            "virtual_mac",
            "priority",
            "preempt",
            "preempt_delay",
            "when_all_fail",
            "track_interface",
            "check",
            "hooks",
        ],
    ),
    ("[[group.vips]]", &["address", "interface"]),
    (
        "[[group.check]]",
        &[
            "name", "tcp", "http", "exec", "systemd", "process", "file", "interval", "timeout", "rise",
            "fall", "status", "body", "insecure", "present",
        ],
    ),
    ("[hooks]", HOOKS_KEYS),
    ("[group.hooks]", HOOKS_KEYS),
];

/// The keys of both tables of hooks.
const HOOKS_KEYS: &[&str] = &[
    "pre_promote",
    "post_promote",
    "pre_demote",
    "post_demote",
    "on_fault",
    "timeout",
    "pre_demote_timeout",
    "on_failure",
    "retry_after",
    "webhook",
];

/// The name of the top level of the file where a message names a table.
pub(in crate::config) const TOP: &str = "the file";
const TOP_KEYS: &[&str] = &["node", "cluster", "group", "api", "hooks"];
/// A file of `conf.d`, and the tables that it may have.
const MORE: &str = "a file of conf.d";
const MORE_KEYS: &[&str] = &["group"];

/// A value with the bytes of the text where it stands.
pub(in crate::config) fn at<T>(span: Range<usize>, value: T) -> Spanned<T> {
    Spanned::new(span, value)
}

/// One table, under its name in [`KEYS`].
pub(in crate::config) struct Section<'a> {
    name: &'static str,
    table: &'a DeTable<'a>,
    /// The table's header.
    pub(in crate::config) span: Range<usize>,
    /// The keys that its unknown keys were most likely meant to be.
    misspelt: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// A table; reports its unknown keys at once.
    pub(in crate::config) fn new(
        name: &'static str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        report: &mut Report<'_>,
    ) -> Self {
        let keys = KEYS.iter().find(|(section, _)| *section == name).map_or(TOP_KEYS, |(_, keys)| keys);
        Self::with_keys(name, keys, table, span, report)
    }

    /// A whole file of `conf.d`: groups, and no table that exists only once.
    pub(in crate::config) fn more(table: &'a DeTable<'a>, report: &mut Report<'_>) -> Self {
        let once = |key: &&str| TOP_KEYS.contains(key) && !MORE_KEYS.contains(key);
        for (key, _) in table.iter().filter(|(key, _)| once(&key.get_ref().as_ref())) {
            let message = format!(
                "{MORE} has groups only, and \"{}\" is there once for all: move it to the main file",
                key.get_ref()
            );
            report.add(key.span(), message);
        }
        Self::with_keys(MORE, MORE_KEYS, table, 0..0, report)
    }

    fn with_keys(
        name: &'static str,
        keys: &'static [&'static str],
        table: &'a DeTable<'a>,
        span: Range<usize>,
        report: &mut Report<'_>,
    ) -> Self {
        let mut misspelt = Vec::new();
        for (key, _) in table {
            let typed = key.get_ref().as_ref();
            let told = name == MORE && TOP_KEYS.contains(&typed);
            if !keys.contains(&typed) && !told {
                if let Some(word) = keepalived::word(typed) {
                    misspelt.extend(word.means);
                    let mend = word.mend;
                    report.add(
                        key.span(),
                        format!("{name} has no key \"{typed}\", which is keepalived's: {mend}"),
                    );
                    continue;
                }
                let meant = nearest(typed, keys.iter().copied());
                misspelt.extend(meant);
                report.add(key.span(), unknown_key(name, keys, typed, meant));
            }
        }
        Self { name, table, span, misspelt }
    }

    pub(in crate::config) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// True if there is nothing under `key`, or an empty array, and no typo that
    /// explains it: the typo was reported already.
    pub(in crate::config) fn lacks(&self, key: &str) -> bool {
        let empty = self
            .get(key)
            .is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()));
        empty && !self.misspelt.contains(&key)
    }

    /// True if a typo explains that there is nothing under `key`.
    pub(in crate::config) fn lacks_by_typo(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
    }

    /// Reports `key`, with an example of it, if there is nothing under it.
    pub(in crate::config) fn require(&self, key: &str, example: &str, report: &mut Report<'_>) {
        if self.get(key).is_none() && self.lacks(key) {
            let message = format!("{} has no {key}: add {key} = {example}", self.name);
            report.add(self.span.clone(), message);
        }
    }

    /// The string under `key`; `None` if there is none; reports any other type.
    pub(in crate::config) fn string(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Spanned<&'a str>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(string) => Some(at(value.span(), string)),
            None => {
                wrong_type(key, "a string", &format!("{key} = {example}"), value, report);
                None
            }
        }
    }

    /// The string under `key`; reports if there is none.
    pub(in crate::config) fn required(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Spanned<&'a str>> {
        self.require(key, example, report);
        self.string(key, example, report)
    }

    /// The strings of the array under `key`; `None` if there is no such key;
    /// reports any other type.
    pub(in crate::config) fn strings(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Vec<Spanned<&'a str>>> {
        let value = self.get(key)?;
        let example = format!("{key} = {example}");
        let Some(array) = value.get_ref().as_array() else {
            wrong_type(key, "an array of strings", &example, value, report);
            return Some(Vec::new());
        };
        let mut strings = Vec::new();
        for element in array {
            match element.get_ref().as_str() {
                Some(string) => strings.push(at(element.span(), string)),
                None => wrong_type(key, "an array of strings", &example, element, report),
            }
        }
        Some(strings)
    }

    /// The boolean under `key`; reports any other type.
    pub(in crate::config) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<Spanned<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(boolean) => Some(at(value.span(), boolean)),
            None => {
                let truth = match value.get_ref() {
                    DeValue::String(text) => truth_of(text),
                    DeValue::Integer(integer) => truth_of(integer.as_str()),
                    DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_)
                    | DeValue::Table(_) => None,
                };
                let example = match truth {
                    Some(truth) => format!("{key} = {truth}"),
                    None => format!("{key} = true, or {key} = false"),
                };
                wrong_type(key, "true or false", &example, value, report);
                None
            }
        }
    }

    /// The integer under `key`; reports one outside of `range`.
    pub(in crate::config) fn integer(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        report: &mut Report<'_>,
    ) -> Option<Spanned<u32>> {
        let value = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type(key, "an integer", &format!("{key} = {}", range.start()), value, report);
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let Some(number) = number.filter(|number| range.contains(number)) else {
            let (min, max) = (range.start(), range.end());
            report.add(
                value.span(),
                format!("{key} = {integer} is out of range: write one from {min} to {max}"),
            );
            return None;
        };
        Some(at(value.span(), number))
    }

    /// The table under `key`; reports any other type.
    pub(in crate::config) fn table(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<(&'a DeTable<'a>, Range<usize>)> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some((table, value.span())),
            None => {
                let elements = value.get_ref().as_array().map(|array| array.iter());
                let header = elements.and_then(|mut elements| elements.find(|e| e.get_ref().is_table()));
                match header.filter(|header| report.text(header.span()).starts_with("[[")) {
                    Some(header) => {
                        let message = format!(
                            "{} is one of several tables, and {key} is there once: write {example}",
                            report.text(header.span())
                        );
                        report.add(header.span(), message);
                    }
                    None => wrong_type(key, "a table", example, value, report),
                }
                None
            }
        }
    }

    /// The sections under `key`, one for each `[[name]]`; reports any other type.
    pub(in crate::config) fn sections(
        &self,
        key: &str,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            wrong_type(key, "an array of tables", name, value, report);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in array {
            match element.get_ref().as_table() {
                Some(table) => sections.push(Section::new(name, table, element.span(), report)),
                None => wrong_type(key, "an array of tables", name, element, report),
            }
        }
        sections
    }
}

/// The boolean that people mean by other spellings than TOML's.
pub(in crate::config) fn truth_of(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Reports a value of another type than `key` has.
pub(in crate::config) fn wrong_type(
    key: &str,
    expected: &str,
    example: &str,
    value: &Spanned<DeValue<'_>>,
    report: &mut Report<'_>,
) {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    let text = report.text(value.span()).lines().next().unwrap_or_default();
    report.add(value.span(), format!("{key} is {expected}, and {text} is {found}: write {example}"));
}

fn unknown_key(section: &str, keys: &[&str], typed: &str, meant: Option<&str>) -> String {
    let unknown = format!("{section} has no key \"{typed}\"");
    if let Some(meant) = meant {
        return format!("{unknown}: did you mean \"{meant}\"?");
    }
    if let Some((home, _)) = KEYS.iter().find(|(_, keys)| keys.contains(&typed)) {
        return format!("{unknown}: move it to {home}");
    }
    format!("{unknown}: remove it, or write one of {}", keys.join(", "))
}
