//! What outlives a node's incarnations and boots: the epochs, so that they go on
//! rising; a ceiling, beyond which the node votes for no grant; whether the node is
//! on standby, and the cluster's pause, which decide who stands and what moves. A
//! lost record costs a person's wish; if a majority of them is lost at once, epochs
//! begin anew.
//!
//! The agent writes epochs late. So the record has a ceiling, far above them, and
//! the engine accepts no grant beyond it: the next process takes the ceiling for
//! what was accepted. A process that ends in good order has written all epochs,
//! and leaves the ceiling that it found.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{Epoch, Pause, Remembered},
    mutant::{self, Mutant},
    records,
};

const FILE: &str = "memory.json";

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Is this node on standby?
    pub standby: bool,
    /// Version of the cluster's pause.
    pub pause_version: u64,
    /// Is the cluster paused?
    pub paused: bool,
    /// The highest epoch known, by the group's name.
    pub epochs: BTreeMap<String, u64>,
    /// Grants that are not among `epochs` may have been accepted up to this
    /// epoch; the engine accepts none beyond it before a higher ceiling is on
    /// disk.
    pub ceiling: u64,
    /// The ceiling that this process has found.
    #[serde(skip)]
    pub(crate) found: u64,
}

impl Memory {
    /// Reads the record; empty if it was never written.
    ///
    /// # Errors
    /// If the file exists but cannot be read or parsed.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let read = records::read(state_dir, FILE);
        let memory: Self =
            if mutant::is(Mutant::BrokenIsEmpty) { read.ok().flatten() } else { read? }.unwrap_or_default();
        Ok(Self { found: memory.ceiling, ..memory })
    }

    /// Writes the record, on disk when it returns.
    ///
    /// # Errors
    /// If it can't be written; then the former record stays.
    pub fn store(&self, state_dir: &Path) -> io::Result<()> {
        records::rewrite_durably(state_dir, FILE, self)
    }

    /// What an engine needs of this record at its start, with the groups in this
    /// order.
    #[must_use]
    pub fn remembered<'a>(&self, groups: impl Iterator<Item = &'a str>) -> Remembered {
        let ceiling = Epoch(self.ceiling);
        Remembered {
            standby: self.standby,
            pause: Pause { version: self.pause_version, on: self.paused },
            epochs: groups.map(|group| self.epoch(group)).collect(),
            floor: ceiling,
            ceiling,
        }
    }

    /// The highest epoch known of a group.
    #[must_use]
    pub fn epoch(&self, group: &str) -> Epoch {
        Epoch(self.epochs.get(group).copied().unwrap_or(0))
    }

    /// The process ends in good order: this record has everything that it has
    /// accepted.
    pub fn end(&mut self) {
        let found = if mutant::is(Mutant::EndForgetsFloor) { 0 } else { self.found };
        if !mutant::is(Mutant::EndKeepsCeiling) {
            self.ceiling = found;
        }
    }

    /// Takes note of a group's epoch. Returns whether it was news.
    pub fn note_epoch(&mut self, group: &str, epoch: Epoch) -> bool {
        if self.epochs.get(group).copied().unwrap_or(0) >= epoch.0 && !mutant::is(Mutant::EpochsFall) {
            return false;
        }
        self.epochs.insert(group.to_owned(), epoch.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_may_have_been_accepted_is_known_after_any_end() {
        let dir = std::env::temp_dir().join(format!("vip-memory-end-{}", std::process::id()));
        let next = |memory: &Memory| {
            memory.store(&dir).unwrap();
            let memory = Memory::load(&dir).unwrap();
            let remembered = memory.remembered(["db"].into_iter());
            assert_eq!(remembered.floor, remembered.ceiling, "nothing more is accepted yet");
            (memory, remembered.floor)
        };
        let mut memory = Memory { ceiling: 1_000, ..Memory::default() };
        memory.note_epoch("db", Epoch(7));
        memory.end();
        let (mut memory, floor) = next(&memory);
        assert_eq!(floor, Epoch(0), "it was what the record says");
        memory.ceiling = 1_007;
        let (mut memory, floor) = next(&memory);
        assert_eq!(floor, Epoch(1_007), "it may have been anything up to the ceiling");
        memory.ceiling = 2_008;
        memory.end();
        assert_eq!(
            next(&memory).1,
            Epoch(1_007),
            "the one that ended well has not learned what was forgotten"
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_stored_is_loaded_and_epochs_only_rise() {
        let dir = std::env::temp_dir().join(format!("vip-memory-{}", std::process::id()));
        assert_eq!(Memory::load(&dir).unwrap(), Memory::default());
        let mut memory = Memory { standby: true, pause_version: 3, paused: true, ..Memory::default() };
        assert!(memory.note_epoch("db", Epoch(7)));
        assert!(!memory.note_epoch("db", Epoch(6)));
        memory.store(&dir).unwrap();
        let loaded = Memory::load(&dir).unwrap();
        assert_eq!(loaded, memory);
        let remembered = loaded.remembered(["cache", "db"].into_iter());
        assert_eq!(remembered.epochs, [Epoch(0), Epoch(7)]);
        assert_eq!(remembered.pause, Pause { version: 3, on: true });
        assert_eq!(
            (remembered.floor, remembered.ceiling),
            (Epoch(0), Epoch(0)),
            "nothing may be accepted yet"
        );
        fs::write(dir.join(FILE), "{").unwrap();
        assert!(Memory::load(&dir).is_err(), "a broken record is not an empty one");
        fs::remove_dir_all(dir).unwrap();
    }
}
