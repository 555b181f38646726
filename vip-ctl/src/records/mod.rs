//! Records below the run and state directories: the type of each, reading it, and
//! writing it whole or not at all. A record that is true for one boot only names
//! that boot.

pub mod groups;
pub mod membership;
pub mod memory;
pub mod votes;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
///
/// # Errors
/// If the kernel does not tell it.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Reads the record `name`; `None` if it was never written.
///
/// # Errors
/// If the file exists but cannot be read or parsed; the error names it.
pub fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    let path = dir.join(name);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    match fs::read(&path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).map_err(|e| named(e.into()))?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(e)),
    }
}

/// Writes the record `name`, replacing what was there.
///
/// # Errors
/// If it can't be written; then the former record stays.
pub fn write(dir: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    fs::create_dir_all(dir)?;
    fs::write(&new, serde_json::to_vec_pretty(record)?)?;
    fs::rename(new, dir.join(name))
}

/// [`write`], and the record is on disk when this returns.
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

/// [`write_durably`] for a record that must be written even on a full disk: the
/// file that it replaces stays as `name.new`, and the next record goes into its
/// blocks.
///
/// # Errors
/// As for [`write`]. On a full disk if the record has grown by more than
/// [`ROOM`] bytes, or was never written before.
pub fn rewrite_durably(dir: &Path, name: &str, record: &impl Serialize) -> io::Result<()> {
    let [path, new, old] = ["", ".new", ".old"].map(|suffix| dir.join(format!("{name}{suffix}")));
    fs::create_dir_all(dir)?;
    let is_first = !path.exists();
    write_over(&new, record)?;
    if !is_first {
        // Left by a crash between these lines.
        if old.exists() {
            fs::remove_file(&old)?;
        }
        // Without it, the next record has to find free space; the same goes for a file
        // system without links.
        let _spared = fs::hard_link(&path, &old);
    }
    fs::rename(&new, &path)?;
    let has_spare = fs::rename(&old, &new).is_ok();
    File::open(dir)?.sync_all()?;
    if !has_spare {
        // The record is written; this is for the next one.
        let _spared = write_over(&new, record);
    }
    Ok(())
}

/// By how many bytes a record may grow without new blocks.
pub const ROOM: usize = 1024;
/// Files have whole blocks.
const BLOCK: usize = 4096;

/// Writes the record over what the file has, in its blocks, and to the disk.
fn write_over(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(record)?;
    let padded = text.len().saturating_add(ROOM).next_multiple_of(BLOCK);
    text.resize(padded.saturating_sub(1), b' ');
    text.push(b'\n');
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(&text)?;
    file.set_len(u64::try_from(padded).map_err(io::Error::other)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_record_is_rewritten_in_the_blocks_of_the_one_before_the_last() {
        let dir = std::env::temp_dir().join(format!("vip-record-{}", std::process::id()));
        let read =
            |name: &str| serde_json::from_slice::<Vec<u32>>(&fs::read(dir.join(name)).unwrap()).unwrap();
        let node = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
        rewrite_durably(&dir, "it", &vec![0]).unwrap();
        let mut nodes = [node("it"), node("it.new")];
        // Longer and shorter ones.
        for length in [1, 900, 3, 0, 2000, 1] {
            rewrite_durably(&dir, "it", &vec![7; length]).unwrap();
            assert_eq!(read("it"), vec![7; length]);
            nodes.reverse();
            assert_eq!([node("it"), node("it.new")], nodes);
        }
        // A crash may leave each of the other two, and whatever is in them.
        fs::write(dir.join("it.new"), "torn").unwrap();
        fs::write(dir.join("it.old"), "torn").unwrap();
        rewrite_durably(&dir, "it", &vec![8]).unwrap();
        assert_eq!(read("it"), [8]);
        fs::remove_dir_all(dir).unwrap();
    }
}
