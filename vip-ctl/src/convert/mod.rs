//! `keepalived.conf` to `vip.toml`: carries over what it can, and notes
//! everything else with its line and the reason. keepalived's file describes one
//! node only, so a person has to fill in parts of the result; until then vip
//! refuses the configuration.
//!
//! Nothing here touches a file: text comes in, text and notes go out.

mod command;
mod garp;
mod group;
mod out;
mod read;
mod tree;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use self::out::Out;
use crate::config::Config;

/// The placeholder for what only a person knows. vip refuses it everywhere: no
/// address, path or number begins so, and no name has the colon that follows.
const BLANK: &str = "FILL-IN";
/// An interface that a person has to fill in.
const UNKNOWN_INTERFACE: &str = "FILL-IN:iface";

/// What kind of attention a line of the old file needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The old file does not tell it: a person has to fill it in.
    FillIn,
    /// It has no counterpart and was left out.
    Lost,
    /// It was carried over, but vip refuses it as it is.
    Mend,
    /// It works in another way here.
    Changed,
}

impl Kind {
    /// The word that `convert` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FillIn => "fill in",
            Self::Lost => "left out",
            Self::Mend => "mend",
            Self::Changed => "changed",
        }
    }
}

/// Something that a person has to know about the result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// The line of the old file that it is about, from 1; `None` if it is about
    /// none.
    pub line: Option<usize>,
    /// What kind of attention it needs.
    pub kind: Kind,
    /// What it is, and what to do.
    pub says: String,
}

/// A configuration that was carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The text of `vip.toml`.
    pub toml: String,
    /// Notes about it, in the order of the old file.
    pub notes: Vec<Note>,
}

/// Why a text can't be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {says}")]
pub struct ConvertError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub says: String,
}

/// Collects notes.
#[derive(Debug, Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, kind: Kind, line: impl Into<Option<usize>>, says: impl Into<String>) {
        let note = Note { line: line.into(), kind, says: says.into() };
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    fn lost(&mut self, line: usize, says: impl Into<String>) {
        self.add(Kind::Lost, line, says);
    }

    fn changed(&mut self, line: usize, says: impl Into<String>) {
        self.add(Kind::Changed, line, says);
    }

    /// Adds a note only at the first line that it applies to.
    fn changed_once(&mut self, line: usize, says: &str) {
        if !self.0.iter().any(|note| note.says == says) {
            self.changed(line, says);
        }
    }

    fn fill_in(&mut self, line: impl Into<Option<usize>>, says: impl Into<String>) {
        self.add(Kind::FillIn, line, says);
    }
}

/// Converts the text of a `keepalived.conf`. `node` is this node's name in
/// the new cluster; else it is keepalived's `router_id`, or `host_name`.
///
/// # Errors
/// If the text is not keepalived's, or it has no `vrrp_instance` of which
/// anything could be carried over.
pub fn convert(text: &str, node: Option<&str>, host_name: &str) -> Result<Converted, ConvertError> {
    let tree = tree::parse(text)?;
    let mut notes = Notes::default();
    let old = read::read(&tree, &mut notes);
    if old.instances.is_empty() {
        return Err(ConvertError {
            line: 1,
            says: "there is no vrrp_instance in it, and so no VIP: name the file that has one".into(),
        });
    }
    let out = write::write(&old, node, host_name, &mut notes)?;
    mistakes(&out, &mut notes);
    let mut notes = notes.0;
    // Notes without a line come last.
    notes.sort_by_key(|note| (note.line.unwrap_or(usize::MAX), note.kind));
    Ok(Converted { toml: out.text, notes })
}

/// Notes the mistakes that the configuration would have once it is filled in:
/// better now than then.
fn mistakes(out: &Out, notes: &mut Notes) {
    let Err(errors) = Config::parse(&out::filled_in(&out.text), Path::new("vip.toml"), "") else { return };
    for error in errors.errors() {
        let line = error.place.and_then(|place| out.origin(place.line));
        let (text, message) = (out::as_written(error.line.trim()), out::as_written(&error.message));
        notes.add(Kind::Mend, line, format!("in the new file, {text} is refused: {message}"));
    }
}
