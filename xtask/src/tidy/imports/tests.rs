//! Small trees with and without a broken wall or a circle.

use super::*;
use crate::tidy::tree::Sources;

/// These files, and those that declare them.
fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources: Sources =
        files.iter().map(|(file, text)| (PathBuf::from(file), (*text).to_owned())).collect();
    for file in sources.keys().cloned().collect::<Vec<_>>() {
        declare(&file, &mut sources);
    }
    sources
}

/// A file is declared by its folder's `mod.rs` or `lib.rs`, or by the file that opens the folder.
fn declare(file: &Path, sources: &mut Sources) {
    if ["lib.rs", "main.rs"].iter().any(|root| file.ends_with(root)) {
        return;
    }
    let opened = if file.ends_with("mod.rs") { file.parent().expect("a folder") } else { file };
    let folder = opened.parent().expect("a folder");
    let name = opened.file_stem().and_then(|name| name.to_str()).expect("a name");
    let parents = [folder.with_extension("rs"), folder.join("mod.rs"), folder.join("lib.rs")];
    let root = if folder.ends_with("src") { 2 } else { 1 };
    let parent = parents.iter().find(|parent| sources.contains_key(*parent)).unwrap_or(&parents[root]);
    let is_new = !sources.contains_key(parent);
    let text = sources.entry(parent.clone()).or_default();
    if !text.contains(&format!("mod {name};")) {
        text.push_str(&format!("\npub mod {name};"));
    }
    if is_new {
        declare(parent, sources);
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::of(&sources(files)).expect("they can be parsed")
}

/// What is found in these files, behind these walls.
fn found(files: &[(&str, &str)], walls: &[Wall]) -> Vec<String> {
    let report = check_walls(&tree(files), walls);
    report.findings.iter().map(ToString::to_string).collect()
}

fn arrows_of(files: &[(&str, &str)]) -> Vec<String> {
    let arrows = arrows::arrows(&tree(files));
    let short = |file: &Path| file.strip_prefix(CONTROL).unwrap_or(file).display().to_string();
    arrows
        .iter()
        .map(|arrow| format!("{} {} {} {}", short(&arrow.from), arrow.line, short(&arrow.to), arrow.name))
        .collect()
}

const NEVER: &[Wall] = &[Wall { room: "report", rule: walls::Rule::Never(&["agent"]), why: "it is below" }];
const ONLY: &[Wall] = &[Wall { room: "engine", rule: walls::Rule::Only(&["common"]), why: "it is pure" }];
const KNOWN: &[Wall] = &[Wall { room: "cli", rule: walls::Rule::KnownBy(&["main"]), why: "it is on top" }];

#[test]
fn a_room_that_imports_what_it_never_may_is_found() {
    let agent = ("vip-ctl/src/agent/board.rs", "pub struct Board;");
    for (line, text) in [
        (1, "use crate::agent::board::Board;"),
        (1, "use crate::agent::{board::{self, Board as Other}};"),
        (2, "use crate::agent;\nfn a() -> agent::board::Board { todo() }"),
        (2, "use super::agent::board;\nfn a() { board::Board::new(); }"),
        (2, "\nfn a() { let _: Vec<crate::agent::board::Board> = Vec::new(); }"),
        (2, "\nfn a() { use crate::agent::board as there; println!(\"{}\", there::Board); }"),
        (1, "#[arg(value_parser = crate::agent::board::Board::parse)] struct A;"),
        (1, "impl crate::agent::board::Board { fn a() {} }"),
        (1, "#[cfg(any(test, feature = \"x\"))] use crate::agent::board::Board;"),
    ] {
        let found = found(&[agent, ("vip-ctl/src/report.rs", text)], NEVER);
        let rule = format!("vip-ctl/src/report.rs:{line}: report must not import agent (");
        assert!(found.len() == 1 && found[0].starts_with(&rule), "{text}: {found:?}");
        assert!(found[0].ends_with("): it is below"), "{found:?}");
    }
}

#[test]
fn a_wall_is_open_to_what_is_no_import() {
    let agent = ("vip-ctl/src/agent/board.rs", "use crate::report::Report; pub struct Board;");
    for text in [
        "pub struct Report;",
        "//! [`crate::agent::board::Board`]\npub struct Report; // use crate::agent::board::Board;",
        "pub struct Report; const A: &str = \"crate::agent::board::Board\";",
        "pub struct Report; #[cfg(test)] mod tests { use crate::agent::board::Board; }",
        "pub struct Report; #[cfg(all(test, unix))] use crate::agent::board::Board;",
        "pub struct Report; impl Report { #[cfg(test)] fn a() { crate::agent::board::Board; } }",
        "pub struct Report; pub(in crate::agent) fn a() {}",
        "pub struct Report; use agent::board; mod agent { pub mod board { pub struct Board; } }",
    ] {
        assert_eq!(found(&[agent, ("vip-ctl/src/report.rs", text)], NEVER), [""; 0], "{text}");
    }
}

#[test]
fn a_package_imports_nothing_but_what_it_may() {
    let files = [
        ("vip-common/src/lib.rs", "pub struct BootNs;"),
        ("vip-ctl/engine/src/lib.rs", "use vip_common::BootNs; use std::time::Duration;"),
        ("vip-ctl/engine/src/vote.rs", "use crate::BootNs; use vip_ctl::paths::Paths;"),
        ("vip-ctl/src/paths.rs", "pub struct Paths;"),
    ];
    let rule =
        "vip-ctl/engine/src/vote.rs:1: engine must not import paths (vip_ctl::paths::Paths): it is pure";
    assert_eq!(found(&files, ONLY), [rule]);
}

#[test]
fn a_room_that_others_know_than_those_who_may_is_found() {
    let files = [
        ("vip-ctl/src/main.rs", "fn main() { vip_ctl::cli::main() }"),
        ("vip-ctl/src/cli/mod.rs", "pub fn main() { crate::cli::walk::walk() }"),
        ("vip-ctl/src/cli/walk.rs", "pub fn walk() {}"),
        ("vip-ctl/src/http.rs", "\n\nuse crate::cli::walk;\nfn a() { walk::walk() }"),
    ];
    assert_eq!(
        found(&files, KNOWN),
        ["vip-ctl/src/http.rs:4: http must not import cli (walk::walk): it is on top"]
    );
    assert_eq!(found(&files[..3], KNOWN), [""; 0]);
}

#[test]
fn a_wall_around_nothing_is_found() {
    let files = [("vip-ctl/src/report.rs", "")];
    let rule = "xtask/src/tidy/imports/walls.rs:1: WALLS names the room agent, which does not exist";
    assert_eq!(found(&files, NEVER), [rule]);
}

#[test]
fn what_is_passed_on_is_imported_from_its_home() {
    let arrows = arrows_of(&[
        ("vip-ctl/src/host/mod.rs", "pub use self::local::Place as Spot; mod local;"),
        ("vip-ctl/src/host/local.rs", "pub enum Place { Here }"),
        ("vip-ctl/src/all.rs", "pub use crate::host::*;"),
        ("vip-ctl/src/a.rs", "use crate::host::Spot;"),
        ("vip-ctl/src/b.rs", "use crate::all::Spot::Here;"),
        ("vip-ctl/src/c.rs", "use crate::host; fn c() { host::Spot::Here; }"),
        ("vip-ctl/src/d.rs", "use crate::host::*; fn d(_: Spot) {}"),
        ("vip-ctl/src/e.rs", "use crate::host::made_by_a_macro;"),
    ]);
    assert_eq!(
        arrows,
        [
            "a.rs 1 host/local.rs host::Spot",
            "b.rs 1 host/local.rs all::Spot::Here",
            "c.rs 1 host/local.rs host::Spot::Here",
            "d.rs 1 host/local.rs Spot",
            "e.rs 1 host/mod.rs host::made_by_a_macro",
            "host/mod.rs 1 host/local.rs local::Place",
        ]
    );
}

#[test]
fn names_that_lead_to_each_other_lead_nowhere() {
    let arrows = arrows_of(&[
        ("vip-ctl/src/a.rs", "pub use crate::b::Name; pub use crate::b::*; use log;"),
        ("vip-ctl/src/b.rs", "pub use crate::a::Name; pub use crate::a::*; fn b() { log::info!() }"),
    ]);
    assert_eq!(arrows, [""; 0]);
}

/// The circles among files, each as the names of its files.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let report = check_walls(&tree(files), &[]);
    let circles: Vec<String> = report
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.contains("->")))
        .map(|file| file.trim_start_matches("vip-ctl/src/").to_owned())
        .collect();
    assert_eq!(report.findings.is_empty(), circles.is_empty(), "{}", report.text);
    assert_eq!(
        report.text.contains("\ncircles: 0\n") || report.text.starts_with("circles: 0\n"),
        circles.is_empty()
    );
    circles
}

#[test]
fn two_files_of_different_folders_make_a_circle() {
    let files = [
        ("vip-ctl/src/agent/judge.rs", "use super::keeper::turn::Turn; pub struct Judge;"),
        ("vip-ctl/src/agent/keeper/turn.rs", "use crate::agent::judge::Judge; pub struct Turn;"),
    ];
    assert_eq!(circles_of(&files), ["agent/judge.rs", "agent/keeper/turn.rs"]);
    let report = check_walls(&tree(&files), &[]);
    assert!(
        report.text.contains(
            "  vip-ctl/src/agent/judge.rs -> vip-ctl/src/agent/keeper/turn.rs: keeper::turn::Turn\n"
        ),
        "{}",
        report.text
    );
    assert!(
        report.text.ends_with("circles: 1\nimports: 0 arrows between 1 rooms of vip-ctl/src\n"),
        "{}",
        report.text
    );
}

#[test]
fn a_circle_goes_through_who_passes_names_on() {
    let files = [
        ("vip-ctl/src/host/mod.rs", "pub use self::local::Place; mod local;"),
        ("vip-ctl/src/host/local.rs", "use crate::node::Node; pub struct Place;"),
        ("vip-ctl/src/node.rs", "use crate::report::Place; pub struct Node;"),
        ("vip-ctl/src/report.rs", "pub use crate::host::Place;"),
    ];
    assert_eq!(circles_of(&files), ["host/local.rs", "node.rs"]);
}

#[test]
fn a_circle_is_found_by_a_path_of_files() {
    let files = [
        ("vip-ctl/src/agent/a.rs", "use crate::host::b::B; pub struct A;"),
        ("vip-ctl/src/host/b.rs", "use crate::node::c::C; pub struct B;"),
        ("vip-ctl/src/node/c.rs", "use crate::agent::d::D; pub struct C;"),
        ("vip-ctl/src/agent/d.rs", "use super::a::A; pub struct D;"),
        ("vip-ctl/src/agent/e.rs", "use super::a::A; pub struct E;"),
    ];
    assert_eq!(circles_of(&files), ["agent/a.rs", "agent/d.rs", "host/b.rs", "node/c.rs"]);
}

#[test]
fn a_file_that_opens_a_folder_belongs_to_it() {
    let files = [
        ("vip-ctl/src/agent/keeper.rs", "use super::judge::Judge; pub struct Keeper;"),
        ("vip-ctl/src/agent/judge.rs", "use super::keeper::Keeper; pub struct Judge;"),
        ("vip-ctl/src/agent/keeper/turn.rs", ""),
    ];
    assert_eq!(circles_of(&files[..2]), [""; 0], "both are in agent");
    assert_eq!(circles_of(&files), ["agent/judge.rs", "agent/keeper.rs"], "one is in agent/keeper");
}

#[test]
fn a_tree_of_modules_is_no_circle() {
    let files = [
        ("vip-ctl/src/agent/mod.rs", "pub mod keeper; pub struct Agent; fn a() { keeper::turn::Turn; }"),
        ("vip-ctl/src/agent/keeper/mod.rs", "pub mod turn; pub struct Keeper; use turn::Turn;"),
        ("vip-ctl/src/agent/keeper/turn.rs", "use super::Keeper; use crate::agent::Agent; pub struct Turn;"),
        ("vip-ctl/src/agent/keeper/batch.rs", "use super::turn::Turn as _; pub struct Batch;"),
        ("vip-ctl/src/report.rs", "use crate::agent::Agent;"),
    ];
    assert_eq!(circles_of(&files), [""; 0]);
}
