//! The state of the host before our changes, in a file that outlives the process:
//! written before each change, so that `unload` can undo an interrupted `load`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{HostError, LetIn, SavedNeighbour};
use crate::records;

const FILE: &str = "host.json";

/// The changes that `unload` takes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The boot that this record is about; it is worthless after the next boot.
    boot_id: String,
    /// The ARP settings that were changed, with the values that they had.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// VIPs that were put on `lo`.
    pub addresses: BTreeSet<IpAddr>,
    /// True if an earlier version moved the rule for the local table to 100.
    pub local_rule_moved: bool,
    /// Neighbour entries that were pinned.
    #[serde(default)]
    pub neighbours: BTreeMap<IpAddr, SavedNeighbour>,
    /// Hardware addresses that interfaces were made to let in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub let_in: BTreeSet<LetIn>,
}

impl Saved {
    /// Reads the file; empty if there is none of this boot, or a broken one: nobody shall be
    /// kept from guarding a VIP, or from taking it off, by what it was on the host before.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn read(run_dir: &Path) -> Result<Self, HostError> {
        let boot_id = records::boot_id().unwrap_or_default();
        let saved: Self = match records::read(run_dir, FILE) {
            Err(e) if is_broken(&e) => None,
            read => read.map_err(|e| HostError::io("read this host's former settings", e))?,
        }
        .unwrap_or_default();
        if saved.boot_id == boot_id { Ok(saved) } else { Ok(Self { boot_id, ..Self::default() }) }
    }

    /// What to tell of a file that can't be understood.
    #[must_use]
    pub fn trouble(run_dir: &Path) -> Option<String> {
        let e = records::read::<Self>(run_dir, FILE).err().filter(is_broken)?;
        Some(format!(
            "the record of this host's former settings is broken, so `vip-ctl unload` leaves arp_ignore and arp_announce as they are: {e}"
        ))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn write(&self, run_dir: &Path) -> Result<(), HostError> {
        records::write(run_dir, FILE, self)
            .map_err(|e| HostError::io(format!("write {}", run_dir.join(FILE).display()), e))
    }

    /// Removes the file: there are no changes left to undo.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn remove(run_dir: &Path) -> Result<(), HostError> {
        match fs::remove_file(run_dir.join(FILE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(HostError::io(format!("remove {}", run_dir.join(FILE).display()), e))
            }
            _ => Ok(()),
        }
    }
}

/// What serde_json says of a text that is not whole, or is none.
fn is_broken(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_version_reads_the_same() {
        let text = r#"{"boot_id":"b","settings":{},"addresses":["9.0.0.2","10.0.1.12"],"local_rule_moved":true,"neighbours":{}}"#;
        let saved: Saved = serde_json::from_str(text).unwrap();
        let addresses: Vec<_> = saved.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["9.0.0.2", "10.0.1.12"]);
        assert_eq!(serde_json::to_string(&saved).unwrap(), text);
    }
}
