//! The text of the new configuration as it grows, and the line of the old file
//! that each of its lines comes from.

use std::collections::VecDeque;

use super::BLANK;

/// The port that agents listen on, unless told otherwise.
pub(super) const PORT: u16 = 7077;

/// A text with the origin of each line.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) text: String,
    /// One for each line; `None` if nothing in the old file led to it.
    lines: Vec<Option<usize>>,
}

impl Out {
    /// Adds a line, or several, that come from `line` of the old file.
    pub(super) fn say(&mut self, line: impl Into<Option<usize>>, text: impl AsRef<str>) {
        let (line, text) = (line.into(), text.as_ref());
        self.lines.extend(text.split('\n').map(|_| line));
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Where the line with this number, from 1, comes from.
    pub(super) fn origin(&self, line: usize) -> Option<usize> {
        self.lines.get(line.checked_sub(1)?).copied().flatten()
    }
}

/// The text with an example value in every place that a person has to fill in, so
/// that all other mistakes show. Its lines stay the same.
pub(super) fn filled_in(text: &str) -> String {
    // Addresses that nobody has (RFC 1112, section 4), each another one.
    let mut spare: VecDeque<_> = (1..=u8::MAX).map(|number| format!("240.0.0.{number}")).collect();
    let mut next = || spare.pop_front().unwrap_or_default();
    let blank_address = format!("address = \"{BLANK}:{PORT}\"");
    let blank_vips = format!("vips = [\"{BLANK}\"]");
    let mut out = String::new();
    for line in text.lines() {
        let line = if line == blank_address {
            format!("address = \"{}:{PORT}\"", next())
        } else if line == blank_vips {
            format!("vips = [\"{}\"]", next())
        } else {
            line.replace(&format!("\" = \"{BLANK}\""), "\" = 100")
                .replace(&format!("\"{BLANK}:"), &format!("\"{BLANK}-"))
                .replace(&format!("\"{BLANK}/"), &format!("\"/{BLANK}/"))
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Undoes [`filled_in`] in a message.
pub(super) fn as_written(text: &str) -> String {
    text.replace(&format!("{BLANK}-"), &format!("{BLANK}:"))
}

/// The placeholder for the name of a node, by its number.
pub(super) fn stand_in(number: usize) -> String {
    format!("{BLANK}:node-{number}")
}

/// The placeholder for the address of a node's agent.
pub(super) fn blank_address() -> String {
    format!("{BLANK}:{PORT}")
}

/// A string of TOML.
pub(super) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// An array of strings.
pub(super) fn array<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let texts = texts.into_iter().map(|text| quoted(text.as_ref()));
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}
