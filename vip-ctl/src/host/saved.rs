//! What the host looked like before us, in a file that outlives the process:
//! written before each change, so that an interrupted `load` can be undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::HostError;

const FILE: &str = "host.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The changes that `unload` takes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The boot that this is about; after another one nothing of it is true.
    boot_id: String,
    /// The ARP settings that were changed, with the values that they had.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// VIPs that were put on `lo`.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// True if the rule for the local table was moved behind ours.
    pub local_rule_moved: bool,
}

impl Saved {
    /// Reads the file; empty if there is none of this boot.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn read(run_dir: &Path) -> Result<Self, HostError> {
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let path = run_dir.join(FILE);
        let saved = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str::<Self>(&text)
                .map_err(|e| HostError::io(format!("understand {}", path.display()), io::Error::other(e)))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(HostError::io(format!("read {}", path.display()), e)),
        };
        if saved.boot_id == boot_id { Ok(saved) } else { Ok(Self { boot_id, ..Self::default() }) }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub fn write(&self, run_dir: &Path) -> Result<(), HostError> {
        let path = run_dir.join(FILE);
        let new = run_dir.join("host.json.new");
        let write = || {
            fs::create_dir_all(run_dir)?;
            fs::write(&new, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(|e| HostError::io(format!("write {}", path.display()), e))
    }

    /// Removes the file: nothing is changed any more.
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
