//! Files in which proptest keeps the cases that failed once: each lies where
//! proptest looks for it. One that lies elsewhere is never replayed, and nothing says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{Finding, tree::Sources};

/// What proptest calls their directory, and their extension where it finds no root of a crate.
const NAME: &str = "proptest-regressions";

/// The files that no property test reads.
pub(super) fn check(files: &[PathBuf], sources: &Sources) -> Vec<Finding> {
    let with_properties = sources.iter().filter(|(_, text)| text.contains("proptest!"));
    let read: BTreeMap<PathBuf, &Path> =
        with_properties.map(|(source, _)| (read_by(source, sources), &**source)).collect();
    let kept = files.iter().filter(|file| {
        let is_below = file.components().any(|part| part.as_os_str() == NAME);
        is_below || file.extension().is_some_and(|extension| extension == NAME)
    });
    let mut findings = Vec::new();
    for file in kept.filter(|file| !read.contains_key(*file)) {
        let stem = file.file_stem();
        let namesakes: BTreeSet<_> = read.iter().filter(|(_, source)| source.file_stem() == stem).collect();
        let mut rule = "no property test reads it".to_owned();
        for (place, source) in namesakes {
            rule.push_str(&format!("; {} reads {}", source.display(), place.display()));
        }
        findings.push(Finding::new(file, 1, rule));
    }
    findings
}

/// Where proptest keeps failures of a source, unless told otherwise
/// (`FileFailurePersistence::SourceParallel("proptest-regressions")`): upwards from
/// the source, the first directory with a `lib.rs` or a `main.rs` has a sibling of
/// that name, and there the file has the source's path. Without such a directory,
/// it is beside the source.
fn read_by(source: &Path, sources: &Sources) -> PathBuf {
    let is_root =
        |dir: &&Path| ["lib.rs", "main.rs"].iter().any(|root| sources.contains_key(&dir.join(root)));
    let root = source.ancestors().skip(1).find(is_root);
    let place = root.and_then(|root| {
        let inside = source.strip_prefix(root).ok()?;
        Some(root.parent().unwrap_or(Path::new("")).join(NAME).join(inside).with_extension("txt"))
    });
    place.unwrap_or_else(|| source.with_extension(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [&str; 5] = [
        "ctl/src/lib.rs",
        "ctl/engine/src/lib.rs",
        "ctl/engine/src/tests/wire.rs",
        "ctl/src/a.rs",
        "ctl/tests/it.rs",
    ];

    /// The errors for such a file in a tree in which all sources but `a.rs` have
    /// properties.
    fn found(file: &str) -> Vec<String> {
        let text = |source: &str| if source.ends_with("a.rs") { "" } else { "proptest! {}" };
        let sources = SOURCES.iter().map(|source| (PathBuf::from(source), text(source).to_owned())).collect();
        let files: Vec<_> = SOURCES.iter().chain([&file]).map(PathBuf::from).collect();
        check(&files, &sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_that_is_replayed_is_fine() {
        for file in [
            "ctl/engine/proptest-regressions/tests/wire.txt",
            "ctl/proptest-regressions/lib.txt",
            "ctl/tests/it.proptest-regressions",
            "ctl/engine/notes/tests/wire.txt",
        ] {
            assert_eq!(found(file), [""; 0], "{file}");
        }
    }

    #[test]
    fn a_file_that_nobody_reads_is_found_with_its_place() {
        let lost = "ctl/proptest-regressions/engine/tests/wire.txt";
        let place = "ctl/engine/src/tests/wire.rs reads ctl/engine/proptest-regressions/tests/wire.txt";
        assert_eq!(found(lost), [format!("{lost}:1: no property test reads it; {place}")]);
        for lost in [
            "ctl/proptest-regressions/a.txt",
            "ctl/proptest-regressions/gone.txt",
            "ctl/proptest-regressions/lib.txt.old",
            "ctl/proptest-regressions/tests/it.txt",
            "ctl/src/a.proptest-regressions",
        ] {
            assert_eq!(found(lost).len(), 1, "{lost}");
        }
    }
}
