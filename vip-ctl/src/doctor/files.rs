//! Files: the configuration, the key, and the directory of what outlives a boot.

use std::path::Path;

use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::{AccessFlags, access},
};

use super::{Findings, Patient};
use crate::{
    config::Config,
    outbound::runnable::{self, Unusable},
    transport::KeyRing,
};

/// The least space that the state directory's file system should have left.
const ROOM_MIN: u64 = 16 << 20;

/// The configuration, if it is valid; `named`: the command line names it.
pub(super) fn configuration(path: &Path, named: bool, found: &mut Findings) -> Option<Config> {
    if !path.exists() && !named {
        found.ok(
            "configuration",
            format!("there is no {}: doctor takes this host for one without an agent", path.display()),
        );
        return None;
    }
    match Config::load(path) {
        Ok(config) => {
            found.ok("configuration", format!("{} is right, seen from {}", path.display(), config.node_name));
            Some(config)
        }
        Err(errors) => {
            for error in errors.errors() {
                found.error("configuration", error.to_string());
            }
            None
        }
    }
}

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    if let Some(config) = patient.config {
        let file = config.cluster.key_file.display();
        match KeyRing::load(&config.cluster.key_file) {
            Ok(keys) => {
                let ids: Vec<_> = keys.ids().map(|id| id.to_string()).collect();
                if let [_] = ids[..] {
                    found.ok("key", format!("{file}, with key {}", ids.join(", ")));
                } else {
                    found.ok(
                        "key",
                        format!(
                            "{file}, with keys {}: the first is sent with; a rotation is under way",
                            ids.join(", ")
                        ),
                    );
                }
            }
            Err(e) => found.error("key", e.to_string()),
        }
        of_programs(config, found);
    }
    state_dir(&patient.paths.state_dir, found);
}

/// The programs of checks and hooks.
fn of_programs(config: &Config, found: &mut Findings) {
    const SUBJECT: &str = "programs";
    let (all, unusable) = (runnable::count(config), runnable::unusable(config));
    if unusable.is_empty() && all > 0 {
        found.ok(SUBJECT, format!("those of checks and hooks, {all}, can be run"));
    }
    for Unusable { says, releases } in unusable {
        if releases { found.error(SUBJECT, says) } else { found.warning(SUBJECT, says) }
    }
}

fn state_dir(dir: &Path, found: &mut Findings) {
    const SUBJECT: &str = "state";
    // If the directory does not exist, the agent creates it in the nearest one
    // that does.
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = match statvfs(there) {
        Ok(stat) => stat,
        Err(e) => return found.error(SUBJECT, format!("{} can't be looked at: {e}", there.display())),
    };
    let room = stat.blocks_available().saturating_mul(stat.fragment_size());
    let dir = dir.display();
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        found.error(SUBJECT, format!("{dir} is on a file system that is read-only: the agent can't keep its membership there; set --state-dir"));
    } else if access(there, AccessFlags::W_OK).is_err() {
        found.error(
            SUBJECT,
            format!("{dir} can't be written by this user: run it as root, or set --state-dir"),
        );
    } else if room < ROOM_MIN || (stat.files() > 0 && stat.files_available() == 0) {
        found.warning(SUBJECT, format!("{dir} has {} KiB left: an agent that can't write forgets standby and pause when it restarts; make room", room >> 10));
    } else {
        found.ok(SUBJECT, format!("{dir} can be written, {} MiB are free", room >> 20));
    }
}
