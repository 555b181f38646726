//! A test over every verb, by what clap knows of it: there is help, the examples
//! parse, and a verb that changes something has `--dry-run`.

use clap::{Command, CommandFactory as _, Parser as _};

use crate::cli::Cli;

/// Verbs without `--dry-run`: they change nothing, or only `check` can tell
/// beforehand (`agent`), or they print unless told where to write (`man`,
/// `convert`).
const CHANGE_NOTHING: &[&str] = &[
    "agent",
    "check",
    "completions",
    "convert",
    "doctor",
    "events",
    "explain",
    "frame-log",
    "history",
    "list",
    "man",
    "metrics",
    "monitor",
    "status",
];

/// Every verb with its words, including those of `member`.
fn verbs() -> Vec<(String, Command)> {
    fn add(command: &Command, words: &str, all: &mut Vec<(String, Command)>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let words = format!("{words} {}", verb.get_name());
            add(verb, &words, all);
            all.push((words, verb.clone()));
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut all = Vec::new();
    add(&command, "vip-ctl", &mut all);
    all
}

/// The command lines in a help text.
fn examples(help: &str) -> Vec<&str> {
    help.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("vip-ctl "))
        .map(|line| line.split_once("  #").map_or(line, |(line, _)| line))
        .collect()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_help_and_an_example_that_parses() {
    for (words, verb) in verbs() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.len() > 10, "{words} has no help");
        for argument in verb.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{words}: {} has no help", argument.get_id());
        }
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{words} has no example: #[command(after_help = \"Example:\\n  …\")]");
        assert!(
            examples.iter().any(|example| example.starts_with(&words)),
            "none of {words}'s examples is its own: {examples:?}"
        );
        for example in examples {
            let line = example.split_once(" > ").map_or(example, |(line, _)| line);
            if let Err(e) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("the example {line:?} of {words} does not parse:\n{e}");
            }
        }
    }
}

#[test]
fn what_changes_something_can_be_tried_out() {
    for (words, verb) in verbs() {
        let dry = verb.get_arguments().any(|argument| argument.get_long() == Some("dry-run"));
        let changes = !CHANGE_NOTHING.contains(&verb.get_name()) && !verb.has_subcommands();
        assert_eq!(dry, changes, "{words}: --dry-run belongs to what changes something, and to nothing else");
    }
}

#[test]
fn every_verb_takes_the_output_format() {
    for (words, verb) in verbs() {
        let output = verb.get_arguments().any(|argument| argument.get_long() == Some("output"));
        assert!(output, "{words} has no -o");
    }
}

#[test]
fn the_help_of_help_is_plain() {
    let help = Cli::try_parse_from(["vip-ctl", "--help"]).expect_err("help is told").to_string();
    for verb in ["switchover", "doctor", "convert", "completions", "man"] {
        assert!(help.contains(verb), "{verb} is not in\n{help}");
    }
}
