//! Records below the run and state directories: written whole or not at all.
//! Those that are true for one boot only are known by the boot that they are about.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

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
pub fn write(dir: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    fs::create_dir_all(dir)?;
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(new, dir.join(name))
}

/// [`write`], and on disk when it returns.
///
/// # Errors
/// As for [`write`].
pub fn write_durably(dir: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    fs::create_dir_all(dir)?;
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(record)?)?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    File::open(dir)?.sync_all()
}
