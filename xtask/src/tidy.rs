//! `cargo xtask tidy`: the house rules that plain text shows, and those about the
//! tree as a whole: who imports whom, what is cited, what is replayed. What needs to
//! understand types is clippy's (the lints in the workspace's Cargo.toml).

mod functions;
mod imports;
mod regressions;
mod rules;
mod tree;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::place::Place;

use self::tree::{Sources, Tree};

/// Files stay below this many lines: one that does more has two subjects.
const LINES: usize = 600;

/// Where the sans-IO engine lives, and what would bring IO, a clock, chance or an
/// order that differs from run to run into it: what ships is what is simulated
/// and explored (docs/lease.md).
const ENGINE: &str = "vip-ctl/engine";
/// Its tests may be told from outside which mutant to catch.
const ENGINE_TESTS: &str = "vip-ctl/engine/src/tests";
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "aya",
    "fastrand",
    "getrandom",
    "libc",
    "nix",
    "rand",
    "socket2",
    "tokio",
];
const IMPURE_STD: &[&str] = &["std::env", "std::fs", "std::net", "std::process", "std::thread"];

/// Where names of maps and programs are spelled out.
const NAMES: &str = "vip-common/src/names.rs";

/// Words that mark unfinished work; put together here so that this file passes.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Directories of somebody's own machine.
const HOMES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// A rule that a line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl Finding {
    fn new(file: &Path, line: usize, rule: String) -> Self {
        Self { file: file.to_owned(), line, rule }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// `cargo xtask tidy`.
///
/// # Errors
/// When the tree cannot be read.
pub(crate) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    Ok(if check(place)?.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks the tree and prints what it found.
///
/// # Errors
/// When the tree cannot be read.
pub(crate) fn check(place: &Place) -> anyhow::Result<Vec<Finding>> {
    let files = files_below(place.root())?;
    let names_file = place.root().join(NAMES);
    let names =
        fs::read_to_string(&names_file).with_context(|| format!("cannot read {}", names_file.display()))?;
    let names = literals_of(&names);
    let mut findings = Vec::new();
    let mut sources = Sources::new();
    let mut pages = Sources::new();
    for file in &files {
        let path = place.root().join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // What is no text (an object, an image) has no lines to check.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            findings.extend(check_file(file, text, &names));
            if is_rust(file) {
                sources.insert(file.clone(), text.to_owned());
            } else if ["md", "vip"].iter().any(|extension| has_extension(file, extension)) {
                pages.insert(file.clone(), text.to_owned());
            }
        }
    }
    let texts = sources.iter().chain(&pages).map(|(file, text)| (&**file, &**text));
    findings.extend(rules::check(texts, pages.get(Path::new(rules::PAGE)).map(String::as_str)));
    findings.extend(regressions::check(&files, &sources));
    let tree = Tree::of(&sources)?;
    findings.extend(functions::check(&tree));
    let imports = imports::check(&tree);
    findings.extend(imports.findings);
    print!("{}", imports.text);
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", files.len(), findings.len());
    Ok(findings)
}

fn is_rust(file: &Path) -> bool {
    has_extension(file, "rs")
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

/// All files of the tree, relative to its root, without build results and
/// without what tools keep for themselves.
fn files_below(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let path = root.join(&dir);
        for entry in fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            // In a linked work tree, .git is a file.
            if ["target", ".git", "Cargo.lock"].iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let relative = dir.join(entry.file_name());
            let kind = entry.file_type().with_context(|| format!("cannot look at {}", relative.display()))?;
            if kind.is_dir() {
                dirs.push(relative);
            } else if kind.is_file() {
                files.push(relative);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The string literals that constants are given in this source.
fn literals_of(source: &str) -> Vec<String> {
    source
        .lines()
        .filter_map(|line| line.split_once("= \"")?.1.strip_suffix("\";"))
        .map(|name| format!("\"{name}\""))
        .collect()
}

fn check_file(file: &Path, text: &str, names: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, rule: String| findings.push(Finding { file: file.to_owned(), line, rule });
    let rust = is_rust(file);
    if rust {
        if !opens_with_docs(text) {
            find(1, "a module opens with `//!`: what lives here, and what does not".into());
        }
        let lines = text.lines().count();
        if lines >= LINES {
            find(lines, format!("{lines} lines: split the file, which must stay below {LINES}"));
        }
    }
    for (number, line) in (1..).zip(text.lines()) {
        for word in UNFINISHED {
            if words(line).any(|found| found == *word) {
                find(number, format!("{word}: finish it or open an issue"));
            }
        }
        for home in HOMES {
            if names_directory(line, home) {
                find(number, format!("{home}…: a path that exists on one machine only"));
            }
        }
        if rust {
            let code = without_comment(line);
            if code.contains(concat!("#[al", "low(")) || code.contains(concat!("#![al", "low(")) {
                find(number, "write expect instead of allow, with a reason".into());
            }
            if file.starts_with(ENGINE) && !file.starts_with(ENGINE_TESTS) {
                for impurity in impurities(code) {
                    find(
                        number,
                        format!(
                            "{impurity}: not in the engine, which is sans-IO and runs the same each time"
                        ),
                    );
                }
            }
            // clap calls arguments as it likes.
            if file != Path::new(NAMES) && !code.contains("value_name") {
                for name in names.iter().filter(|name| code.contains(name.as_str())) {
                    find(
                        number,
                        format!("{name}: use its constant in {NAMES}, the only file that spells it"),
                    );
                }
            }
        }
    }
    findings
}

/// Whether the first thing in a source, after attributes of the whole file, is
/// documentation of the whole file.
fn opens_with_docs(text: &str) -> bool {
    let mut rest = text.trim_start();
    while rest.starts_with("#![") {
        // An attribute ends where a line ends with its bracket.
        let Some(end) = rest.find("]\n") else { return false };
        rest = rest.get(end + 1..).unwrap_or_default().trim_start();
    }
    rest.starts_with("//!")
}

/// The line up to a comment. A `//` inside a string cuts too much, which can
/// only hide the rest of that line.
fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

fn impurities(code: &str) -> Vec<&str> {
    let found = words(code).filter(|word| IMPURE.contains(word));
    found.chain(IMPURE_STD.iter().copied().filter(|path| code.contains(path))).collect()
}

/// Whether the line names a directory that starts at the file system's root, as
/// opposed to `something/home/…` or `https://host/home/…`.
fn names_directory(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | '*')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<String> {
        let names = literals_of("pub const LEASES: &str = \"LEASES\";\n");
        check_file(Path::new(file), text, &names).into_iter().map(|finding| finding.rule).collect()
    }

    /// The text breaks exactly one rule, whose message contains `message`.
    fn breaks(file: &str, text: &str, message: &str) {
        let found = rules(file, text);
        assert!(found.len() == 1 && found.iter().all(|rule| rule.contains(message)), "{text:?}: {found:?}");
    }

    fn passes(file: &str, text: &str) {
        assert_eq!(rules(file, text), [""; 0], "{text:?}");
    }

    #[test]
    fn a_module_opens_with_its_documentation() {
        passes("a.rs", "//! What lives here.\nfn a() {}\n");
        passes("a.rs", "#![no_std]\n#![cfg_attr(\n    test,\n    no_main\n)]\n\n//! What lives here.\n");
        breaks("a.rs", "// A comment.\n//! Too late.\n", "opens with");
        breaks("a.rs", "use std::fmt;\n", "opens with");
        breaks("a.rs", "", "opens with");
        passes("a.toml", "[package]\n");
    }

    #[test]
    fn a_file_has_one_subject() {
        let long = format!("//! Long.\n{}", "\n".repeat(LINES - 1));
        breaks("a.rs", &long, "600 lines");
        passes("a.rs", &long[..long.len() - 1]);
    }

    #[test]
    fn unfinished_work_is_found_in_any_text() {
        for word in UNFINISHED {
            breaks("README.md", &format!("- {word}: later\n"), word);
            passes("README.md", &format!("{word}S and my{word}\n"));
        }
    }

    #[test]
    fn paths_of_one_machine_are_found_and_addresses_are_not() {
        let [home, root, ..] = HOMES else { panic!("there are some") };
        breaks("a.toml", &format!("path = \"{home}me/vip\"\n"), "one machine");
        breaks("a.md", &format!("{root}x\n"), "one machine");
        passes("a.md", &format!("https://example.org{home}page, ../shared{home}, ~{root}\n"));
    }

    #[test]
    fn lints_are_expected_not_allowed() {
        breaks("a.rs", &format!("//! A.\n{}dead_code)]\n", concat!("#[al", "low(")), "expect");
        breaks("a.rs", &format!("//! A.\n{}dead_code)]\n", concat!("#![al", "low(")), "expect");
        passes("a.rs", "//! A.\n#[expect(dead_code, reason = \"shown\")]\n");
    }

    #[test]
    fn the_engine_knows_no_clock_chance_socket_or_random_order() {
        let file = "vip-ctl/engine/src/vote.rs";
        for line in [
            "use std::time::Instant;",
            "let t = SystemTime::now();",
            "use std::net::IpAddr;",
            "let x = rand::random::<u64>();",
            "let m: HashMap<u8, u8> = HashMap::new();",
        ] {
            assert!(!rules(file, &format!("//! A.\n{line}\n")).is_empty(), "{line}");
            passes("vip-ctl/src/io/udp.rs", &format!("//! A.\n{line}\n"));
        }
        passes("vip-ctl/engine/src/tests/mod.rs", "//! A.\nuse std::env;\n");
        passes(file, "//! Not an Instant, and no rand.\nlet operand = brand; // SystemTime\n");
    }

    #[test]
    fn names_of_maps_are_spelled_once() {
        breaks("vip-ctl/src/a.rs", "//! A.\nbpf.map(\"LEASES\")\n", "names.rs");
        passes("vip-ctl/src/a.rs", "//! A.\nbpf.map(names::LEASES) // \"LEASES\"\n");
        passes("vip-common/src/names.rs", "//! A.\npub const LEASES: &str = \"LEASES\";\n");
        passes("a.rs", "//! A.\n#[arg(value_name = \"LEASES\")]\n");
    }

    #[test]
    fn this_tree_is_tidy() {
        let place = Place::find().expect("the workspace is there");
        assert_eq!(check(&place).expect("it can be read"), []);
    }
}
