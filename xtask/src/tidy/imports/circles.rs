//! Circles of files across folders.
//!
//! A file's folder is the directory that it lies in, and for one that opens a
//! directory of its own, as `keeper.rs` or `keeper/mod.rs` opens `keeper/`, that
//! directory. A circle is a largest set of files of several folders from each of
//! which a way of arrows leads to each other one. Files that know each other
//! inside one folder are its own business.
//!
//! A module and what it is made of are one thing: it calls its children, and they
//! use what it defines. So an arrow from a file to one that it is inside of (to
//! `keeper.rs` from `keeper/batch.rs`, to `lib.rs` from anywhere in its package)
//! closes no circle; two children that meet each other by any other way do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::arrows::Arrow;

/// Files of several folders that need each other, and the arrows among them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle {
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) arrows: Vec<Arrow>,
}

/// All circles that arrows among these files make, in the order of their first files.
pub(super) fn circles<'a>(files: impl Iterator<Item = &'a Path>, arrows: &[Arrow]) -> Vec<Circle> {
    let folders = Folders(files.filter_map(Path::parent).map(Path::to_owned).collect());
    let counted: Vec<&Arrow> = arrows.iter().filter(|arrow| !folders.leads_up(arrow)).collect();
    let mut next: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for arrow in &counted {
        next.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        next.keys().map(|from| (*from, reached_from(from, &next))).collect();
    let leads = |from: &Path, to: &Path| reached.get(from).is_some_and(|reached| reached.contains(to));
    let mut seen: BTreeSet<&Path> = BTreeSet::new();
    let mut found = Vec::new();
    for (from, reached) in &reached {
        if seen.contains(from) {
            continue;
        }
        let files: BTreeSet<&Path> = reached.iter().copied().filter(|to| leads(to, from)).collect();
        seen.extend(&files);
        let across: BTreeSet<_> = files.iter().map(|file| folders.folder(file)).collect();
        if across.len() > 1 {
            let among = counted
                .iter()
                .filter(|arrow| files.contains(&*arrow.from) && files.contains(&*arrow.to))
                .map(|arrow| (*arrow).clone());
            found.push(Circle {
                arrows: among.collect(),
                files: files.into_iter().map(Path::to_owned).collect(),
            });
        }
    }
    found
}

fn reached_from<'a>(from: &Path, next: &BTreeMap<&'a Path, BTreeSet<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Path> = next.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(next.get(file).into_iter().flatten());
        }
    }
    reached
}

/// Which folder each file belongs to.
struct Folders(BTreeSet<PathBuf>);

impl Folders {
    fn folder(&self, file: &Path) -> PathBuf {
        let opened = file.with_extension("");
        if self.0.contains(&opened) { opened } else { file.parent().unwrap_or(file).to_owned() }
    }

    /// Whether an arrow leads to a file that the other one is inside of.
    fn leads_up(&self, arrow: &Arrow) -> bool {
        let opens = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| arrow.to.ends_with(name))
            || self.0.contains(&arrow.to.with_extension(""));
        opens && arrow.from.starts_with(self.folder(&arrow.to))
    }
}
