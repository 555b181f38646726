//! Reports why a text is not TOML, with the offending text and a mend: the parser
//! gives neither.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use toml::de::Error;

use super::{report::Report, section::truth_of};

/// The parser's message for a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// The beginning of its message for a missing or invalid value.
const UNQUOTED: &str = "string values must be quoted";

/// The mend for each message of the parser, by the message's beginning.
const MENDS: &[(&str, &str)] = &[
    ("unclosed array table", "close it with ]]"),
    ("unclosed table", "close it with ]"),
    ("unclosed array", "close it with ]"),
    ("unclosed inline table", "close it with }"),
    ("invalid basic string", "close the string with \" in its line, and write \\\\ for a \\ in it"),
    ("invalid literal string", "close the string with ' in its line"),
    ("key with no value", "write it as key = value"),
    ("missing value", "write a value after the ="),
    ("missing comma between array elements", "put a comma between the two values"),
    (
        "missing comma between key-value pairs",
        "put a comma before it, or close the table that began before with }",
    ),
    ("extra comma", "remove one comma"),
    ("extra `=`", "remove one ="),
    ("unexpected key or value", "put what comes after the value on a line of its own"),
    ("invalid unquoted key", "write the key with letters, digits, - and _ only"),
    ("invalid integer", "write a number, or put quotes around it if it is a string"),
    ("invalid float", "write a number, or put quotes around it if it is a string"),
    (
        "unexpected leading zero",
        "write the number without the zero, or put quotes around it if it is a string",
    ),
    ("`_` may only", "write the number with its digits alone"),
    ("missing escaped value", "write \\\\ for a \\ in a string"),
];

/// The mend for any other message.
const MEND: &str = "write key = value, with quotes around strings";

/// Reports why a text is not TOML: the first mistake of each line, no duplicates
/// after a table's header that may have been misread, and of an inline table that
/// is not closed only the first line, because the others mostly follow from it.
pub(in crate::config) fn syntax(errors: &[Error], start: usize, report: &mut Report<'_>) {
    let mut lines = Vec::new();
    let mut only_duplicates = true;
    let mut in_inline_table = false;
    let place = |span: Range<usize>| span.start + start..span.end + start;
    let mut errors: Vec<_> =
        errors.iter().map(|error| (place(error.span().unwrap_or(0..0)), error.message())).collect();
    errors.sort_by_key(|(span, _)| report.line(span));
    for (span, message) in errors {
        let line = report.line(&span);
        let duplicate = message == DUPLICATE;
        let inline = message.contains("inline table") || message.contains("key-value pairs");
        if lines.contains(&line) || (duplicate && !only_duplicates) || (inline && in_inline_table) {
            continue;
        }
        in_inline_table |= inline;
        lines.push(line);
        only_duplicates &= duplicate;
        let (span, message) = told(span, message, report);
        report.add(span, message);
    }
}

/// The message for a mistake, and its place.
fn told(span: Range<usize>, message: &str, report: &Report<'_>) -> (Range<usize>, String) {
    let text = report.text(span.clone());
    if message == DUPLICATE {
        return (span, format!("\"{text}\" is there a second time: keep one of the two"));
    }
    let word = report.word(&span);
    let written = report.text(word.clone());
    if is_address(written) {
        let message = format!("{written} is no value of TOML: put quotes around it, \"{written}\"");
        return (word, message);
    }
    let is_value = message.starts_with("invalid") || message.starts_with(UNQUOTED);
    // A right one has something else beside it, and a number is its own business.
    let is_spelled_so = !matches!(written, "true" | "false") && written.chars().all(char::is_alphabetic);
    if let Some(truth) = truth_of(written).filter(|_| is_value && is_spelled_so) {
        let message =
            format!("{written} is no value of TOML: write {truth}, or \"{written}\" if it is a string");
        return (word, message);
    }
    let line = report.line_text(&span).trim();
    if message.starts_with(UNQUOTED) {
        let message = if text.is_empty() {
            format!("{line} has no value: write one after the =")
        } else {
            format!("{text} is no value of TOML: if it is a string, write \"{text}\"")
        };
        return (span, message);
    }
    let message = message.trim_end_matches(", expected nothing");
    let what = if line.is_empty() { "the end of the text" } else { line };
    let mend = MENDS.iter().find(|(begins, _)| message.starts_with(begins)).map_or(MEND, |(_, mend)| mend);
    (span, format!("{what} is not TOML ({message}): {mend}"))
}

/// Is it an address, around which people forget quotes: with or without a port or
/// prefix length?
fn is_address(text: &str) -> bool {
    let without_prefix = text.split_once('/').map_or(text, |(address, _)| address);
    without_prefix.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}
