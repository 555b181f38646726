//! Records below the run directory that are true for one boot only: written
//! whole or not at all, and known by the boot that they are about.

use std::{fs, io, path::Path};

use serde::Serialize;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
///
/// # Errors
/// If the kernel does not tell.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Writes the record `name`, replacing what was there.
///
/// # Errors
/// If it can't be written; then the former record is still there.
pub fn write(run_dir: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let new = run_dir.join(format!("{name}.new"));
    fs::create_dir_all(run_dir)?;
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(new, run_dir.join(name))
}
