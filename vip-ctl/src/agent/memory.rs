//! What a node keeps beyond its incarnations and boots: the epochs, so that
//! they go on rising, whether it is on standby, and the cluster's pause. No
//! vote depends on any of it; a record that is lost costs a person's wish and
//! makes epochs begin anew.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    engine::{Epoch, Pause, Remembered},
    mutant::{self, Mutant},
    record,
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
}

impl Memory {
    /// Reads the record; what was never written is empty.
    ///
    /// # Errors
    /// If it is there and can't be read, or is none.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        match fs::read(state_dir.join(FILE)) {
            Ok(_) if mutant::is(Mutant::BrokenIsEmpty) => Ok(Self::default()),
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    /// Writes the record, on disk when it returns.
    ///
    /// # Errors
    /// If it can't be written; the former one is still there.
    pub fn store(&self, state_dir: &Path) -> io::Result<()> {
        record::write_durably(state_dir, FILE, self)
    }

    /// What the engine is to be told, with the groups in this order.
    #[must_use]
    pub fn remembered<'a>(&self, groups: impl Iterator<Item = &'a str>) -> Remembered {
        Remembered {
            standby: self.standby,
            pause: Pause { version: self.pause_version, on: self.paused },
            epochs: groups.map(|group| Epoch(self.epochs.get(group).copied().unwrap_or(0))).collect(),
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
    use super::*;

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
        fs::write(dir.join(FILE), "{").unwrap();
        assert!(Memory::load(&dir).is_err(), "a broken record is not an empty one");
        fs::remove_dir_all(dir).unwrap();
    }
}
