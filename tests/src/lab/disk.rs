//! A disk that hangs: a named pipe in place of a file, which whoever opens it waits for.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};

/// Puts a pipe at `path` in one step, whatever is or just comes there.
///
/// # Errors
/// If the pipe can't be made, or `path` is a directory.
pub fn hang(path: &Path) -> Result<()> {
    let mut beside = OsString::from(path);
    beside.push(".pipe");
    let beside = PathBuf::from(beside);
    mkfifo(&beside, Mode::S_IRWXU).with_context(|| format!("making {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("putting a pipe at {}", path.display()))
}

/// Whether the pipe is there still: who was about to write may have put its file in place of it.
#[must_use]
pub fn is_hanging(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}
