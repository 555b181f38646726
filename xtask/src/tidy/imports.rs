//! Who imports whom: the walls between rooms, and circles of files.
//!
//! Sources are parsed, and each path in them is followed through `use` and `pub
//! use` to the file that defines the item: what a `mod.rs` re-exports is imported
//! from where it really lives. Nobody imports a module as such, only the items
//! inside of it. Code that is compiled for tests only may import everything.

mod arrows;
mod circles;
mod walls;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{
    Finding,
    tree::{CONTROL, PACKAGES, Tree},
};

use self::{
    arrows::Arrow,
    circles::{Circle, circles},
    walls::{WALLS, Wall, holes, is_in, missing},
};

/// The file with the table of walls, for errors in the table itself.
const TABLE: &str = "xtask/src/tidy/imports/walls.rs";

/// What was found about imports.
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    /// The lines that are always printed: circles, and how many arrows there are.
    pub(super) text: String,
}

/// Checks all modules of the tree.
pub(super) fn check(tree: &Tree) -> Report {
    check_walls(tree, WALLS)
}

fn check_walls(tree: &Tree, walls: &[Wall]) -> Report {
    let arrows = arrows::arrows(tree);
    let rooms: BTreeSet<String> = tree.modules.iter().filter_map(|module| room_of(&module.file)).collect();

    let mut findings: Vec<Finding> = missing(walls, &rooms)
        .into_iter()
        .map(|room| {
            Finding::new(Path::new(TABLE), 1, format!("WALLS names the room {room}, which does not exist"))
        })
        .collect();
    for hole in holes(walls, &arrows, room_of) {
        findings.push(Finding::new(&hole.arrow.from, hole.arrow.line, hole.rule));
    }
    let circles = circles(tree.modules.iter().map(|module| &*module.file), &arrows);
    let mut text = String::new();
    for circle in &circles {
        describe(circle, &mut text);
        if let Some(first) = circle.arrows.first() {
            let rule =
                format!("{} files of different folders import each other in a circle", circle.files.len());
            findings.push(Finding::new(&first.from, first.line, rule));
        }
    }
    let _ = writeln!(text, "circles: {}", circles.len());
    let (arrows, rooms) = between_rooms(&arrows, &rooms);
    let _ = writeln!(text, "imports: {arrows} arrows between {rooms} rooms of {CONTROL}");
    Report { findings, text }
}

/// The room that a file is in, or is: `agent/keeper/turn`, `engine/wire`, `lib`.
fn room_of(file: &Path) -> Option<String> {
    let package = PACKAGES.iter().find(|package| file.starts_with(package.sources))?;
    let inside = file.strip_prefix(package.sources).ok()?.with_extension("");
    let inside = if inside.ends_with("mod") { inside.parent()?.to_owned() } else { inside };
    let room = match package.room {
        None => inside,
        Some(room) if inside == Path::new("lib") => PathBuf::from(room),
        Some(room) => Path::new(room).join(inside),
    };
    Some(room.to_str()?.to_owned())
}

/// How many pairs of rooms of `vip-ctl` there are of which the first imports the
/// second, and how many rooms. The file that declares the rooms is not one.
fn between_rooms(arrows: &[Arrow], rooms: &BTreeSet<String>) -> (usize, usize) {
    let room = |room: &str| {
        let elsewhere = PACKAGES.iter().filter_map(|package| package.room).any(|other| is_in(room, other));
        let first = room.split('/').next().unwrap_or(room);
        (!elsewhere && !["lib", "main"].contains(&first)).then(|| first.to_owned())
    };
    let pairs: BTreeSet<_> = arrows
        .iter()
        .filter_map(|arrow| Some((room(&room_of(&arrow.from)?)?, room(&room_of(&arrow.to)?)?)))
        .filter(|(from, to)| from != to)
        .collect();
    (pairs.len(), rooms.iter().filter_map(|one| room(one)).collect::<BTreeSet<_>>().len())
}

/// A circle as lines: its files, and which file names which item of another.
fn describe(circle: &Circle, text: &mut String) {
    let _ = writeln!(text, "circle of {} files:", circle.files.len());
    for file in &circle.files {
        let _ = writeln!(text, "  {}", file.display());
    }
    let mut names: BTreeMap<(&Path, &Path), BTreeSet<&str>> = BTreeMap::new();
    for arrow in &circle.arrows {
        names.entry((&arrow.from, &arrow.to)).or_default().insert(&arrow.name);
    }
    for ((from, to), names) in names {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  {} -> {}: {names}", from.display(), to.display());
    }
}
