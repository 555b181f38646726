//! The walls of the house: which room may not import which. A room is a file or a
//! folder of `vip-ctl/src`, or one of the packages `engine`, `lease` and `common`;
//! what lies in a folder is part of its room.

use std::{collections::BTreeSet, path::Path};

use super::arrows::Arrow;

/// A wall around a room.
pub(super) struct Wall {
    pub(super) room: &'static str,
    pub(super) rule: Rule,
    pub(super) why: &'static str,
}

/// What a wall holds back.
pub(super) enum Rule {
    /// The room imports none of these.
    Never(&'static [&'static str]),
    /// The room imports nothing but itself and these.
    Only(&'static [&'static str]),
    /// Nobody imports the room but itself and these.
    KnownBy(&'static [&'static str]),
}
use Rule::{KnownBy, Never, Only};

/// All walls. A new room needs a line here that says who may import it.
pub(super) const WALLS: &[Wall] = &[
    Wall {
        room: "agent",
        rule: Never(&["daemon", "http", "cli"]),
        why: "threads know neither the process around them nor who asks them",
    },
    Wall {
        room: "agent/messages",
        rule: Never(&[
            "agent/lease_loop",
            "agent/keeper",
            "agent/judge",
            "agent/announcer",
            "agent/checks",
            "agent/hooks",
            "agent/control",
        ]),
        why: "what threads tell each other belongs to none of them",
    },
    Wall {
        room: "report",
        rule: Never(&["agent"]),
        why: "it formats what it is given, and does not ask for more",
    },
    Wall {
        room: "doctor",
        rule: Never(&["agent"]),
        why: "it looks at a host on which no agent may be running",
    },
    Wall { room: "host", rule: Never(&["dataplane"]), why: "addresses and routes need no map" },
    Wall {
        room: "records",
        rule: Only(&["config", "engine", "lease", "common", "clock", "paths", "mutant"]),
        why: "every room that keeps records builds on it",
    },
    Wall {
        room: "outbound",
        rule: Only(&["config", "lease", "common"]),
        why: "every room that runs a program or speaks TLS builds on it",
    },
    Wall { room: "engine", rule: Only(&["common"]), why: "the engine decides, and is simulated alone" },
    Wall {
        room: "lease",
        rule: Only(&["engine", "common"]),
        why: "the simulation runs it without threads and configuration files",
    },
    Wall { room: "common", rule: Only(&[]), why: "the kernel's side is built with it" },
    Wall { room: "daemon", rule: KnownBy(&["cli"]), why: "it is above all threads" },
    Wall { room: "cli", rule: KnownBy(&["main"]), why: "no other room calls the command line" },
];

/// One arrow through a wall, as a sentence without its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hole<'a> {
    pub(super) arrow: &'a Arrow,
    pub(super) rule: String,
}

/// Whether a room, as `room_of` in `imports.rs` says it, is this room or inside of it.
pub(super) fn is_in(inner: &str, room: &str) -> bool {
    inner.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All arrows that go through a wall. `room` says where a file is.
pub(super) fn holes<'a>(
    walls: &[Wall],
    arrows: &'a [Arrow],
    room: impl Fn(&Path) -> Option<String>,
) -> Vec<Hole<'a>> {
    let mut found = Vec::new();
    for arrow in arrows {
        let (Some(from), Some(to)) = (room(&arrow.from), room(&arrow.to)) else { continue };
        for wall in walls {
            let one_of =
                |room: &str, rooms: &[&'static str]| rooms.iter().copied().find(|one| is_in(room, one));
            let leaves = is_in(&from, wall.room) && !is_in(&to, wall.room);
            let enters = is_in(&to, wall.room) && !is_in(&from, wall.room);
            let broken = match wall.rule {
                Never(rooms) if leaves => one_of(&to, rooms).map(|other| (wall.room, other)),
                Only(rooms) if leaves && one_of(&to, rooms).is_none() => Some((wall.room, &*to)),
                KnownBy(rooms) if enters && one_of(&from, rooms).is_none() => Some((&*from, wall.room)),
                Never(_) | Only(_) | KnownBy(_) => None,
            };
            if let Some((one, other)) = broken {
                let rule = format!("{one} must not import {other} ({}): {}", arrow.name, wall.why);
                found.push(Hole { arrow, rule });
            }
        }
    }
    found
}

/// Rooms that the table names and the tree does not have: a wall around nothing
/// holds nothing back.
pub(super) fn missing(walls: &[Wall], rooms: &BTreeSet<String>) -> BTreeSet<&'static str> {
    let named = walls.iter().flat_map(|wall| {
        let (Never(others) | Only(others) | KnownBy(others)) = wall.rule;
        others.iter().copied().chain([wall.room])
    });
    named.filter(|name| !rooms.iter().any(|room| is_in(room, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The holes that an arrow from one room to another makes in the walls of the house.
    fn between(from: &str, to: &str) -> Vec<String> {
        let arrow = Arrow { from: from.into(), to: to.into(), name: "A".into(), line: 1 };
        let room = |file: &Path| Some(file.to_str()?.to_owned());
        holes(WALLS, &[arrow], room).into_iter().map(|hole| hole.rule).collect()
    }

    #[test]
    fn every_wall_of_the_house_holds() {
        for wall in WALLS {
            let inside = format!("{}/a/b", wall.room);
            assert_eq!(between(&inside, wall.room), [""; 0], "{inside}");
            let (from, to) = match wall.rule {
                Never(rooms) => (inside, format!("{}/c", rooms[0])),
                Only(rooms) => {
                    for room in rooms {
                        assert_eq!(between(&inside, room), [""; 0], "{inside}");
                    }
                    (inside, "attic".into())
                }
                KnownBy(rooms) => {
                    for room in rooms {
                        assert_eq!(between(room, &inside), [""; 0], "{room}");
                    }
                    ("attic".into(), inside)
                }
            };
            let holes = between(&from, &to);
            assert!(holes.iter().any(|hole| hole.ends_with(wall.why)), "{from} to {to}: {holes:?}");
        }
    }

    #[test]
    fn a_room_is_not_the_one_whose_name_it_begins_with() {
        assert_eq!(between("report", "agents/a"), [""; 0]);
        assert_eq!(
            between("report", "agent"),
            ["report must not import agent (A): it formats what it is given, and does not ask for more"]
        );
    }
}
