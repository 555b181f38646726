//! `vip-ctl metrics`: for Prometheus as text, for other programs as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    status,
    support::output::{Failure, Format, print, print_json},
};
use crate::{exit::Exit, paths::Paths, report::metrics};

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vip-ctl metrics\n  vip-ctl metrics -o json")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let status = status::read(paths)?;
    let text = metrics::text(&status)
        .map_err(|e| Failure::new(Exit::Software, format!("could not write the metrics: {e}")))?;
    match format {
        Format::Text => print(&text),
        Format::Json => {
            let samples: Vec<_> = text.lines().filter_map(sample).collect();
            print_json(&serde_json::json!({ "metrics": samples }))?;
        }
    }
    Ok(Exit::Ok)
}

/// One line of the text format.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    /// As it is in the text: JSON has no infinity, and no integers above 2^53.
    value: String,
}

/// The sample in a line; comments have none.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    let value = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            if let Some(after) = rest.strip_prefix('}') {
                break after;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (text, after) = quoted(after)?;
            labels.insert(label.to_owned(), text);
            rest = after.strip_prefix(',').unwrap_or(after);
        },
    };
    Some(Sample { name: name.to_owned(), labels, value: value.trim().to_owned() })
}

/// A label's value up to its closing quote, and the text after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_text_is_a_sample_or_a_comment() {
        let status = crate::report::Status {
            node: "db \"a\" \\".into(),
            rejected: [("bad_tag".to_owned(), 7)].into(),
            ..crate::report::Status::default()
        };
        let text = metrics::text(&status).expect("formatted");
        let samples: Vec<_> = text.lines().filter_map(sample).collect();
        let comments = text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(samples.len() + comments, text.lines().count(), "{text}");
        let rejected =
            samples.iter().find(|s| s.name == "vip_heartbeats_rejected_total").expect("it is there");
        assert_eq!(rejected.value, "7");
        assert_eq!(rejected.labels["reason"], "bad_tag");
        assert_eq!(rejected.labels["node"], "db \"a\" \\", "escapes are undone");
    }
}
