//! Every scenario of `tests/sim/scenarios` comes out as it is written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vip_sim::scenario::{self, Broken};

/// Trace lines that are shown of a scenario that fails.
const TRACE_LINES: usize = 200;

fn scenarios() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(&dir).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Plays one; on failure, prints the end of its trace.
fn play(file: &Path) -> Result<(), Broken> {
    let text = fs::read_to_string(file).expect("it can be read");
    let scenario = scenario::parse(file, &text)?;
    let replay = scenario.run(TRACE_LINES);
    if replay.result.is_err() {
        replay.trace.iter().for_each(|line| println!("{line}"));
    }
    replay.result
}

#[test]
fn every_scenario_comes_out_as_written() {
    let files = scenarios();
    assert!(!files.is_empty(), "there are no scenarios");
    let mut broken = Vec::new();
    for file in &files {
        assert_eq!(
            file.extension().and_then(|extension| extension.to_str()),
            Some("vip"),
            "{}",
            file.display()
        );
        let result = play(file);
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        println!("{name}: {}", if result.is_ok() { "ok" } else { "FAILED" });
        broken.extend(result.err());
    }
    let reasons: Vec<_> = broken.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "\n{}", reasons.join("\n"));
}

#[test]
fn every_scenario_says_what_it_shows_and_expects_something() {
    for file in scenarios() {
        let text = fs::read_to_string(&file).expect("it can be read");
        let opening: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(opening.join(" ").contains("rule"), "{}: which rule is it about?", file.display());
        assert!(text.contains("\nexpect "), "{}: it expects nothing", file.display());
    }
}

#[test]
fn a_replay_is_the_same_every_time() {
    for file in scenarios() {
        let text = fs::read_to_string(&file).expect("it can be read");
        let play = || scenario::parse(&file, &text).expect("it is well written").run(usize::MAX).trace;
        assert!(play() == play(), "{}", file.display());
    }
}

/// A scenario that expects the wrong thing fails where it does.
#[test]
fn what_is_not_so_is_told_with_file_and_line() {
    let text = "lease 100ms\nnodes a b c\ngroup db a=150\nstart all\nexpect holder db = b within 400ms\n";
    let scenario = scenario::parse(Path::new("wrong.vip"), text).expect("it is well written");
    let broken = scenario.run(0).result.expect_err("a is preferred").to_string();
    assert_eq!(broken, "wrong.vip:5: `expect holder db = b within 400ms`: at 400.0ms, a holds db");
}
