//! Reads the files that TCP needs: secrets, which only their owner may read, and
//! certificates.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Permission bits that a secret must not have: all of group's and others'.
const MODE_FORBIDDEN: u32 = 0o077;

/// Why a file is not read. The text says nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{what} {} can't be read: {source}", path.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, device or pipe, or far longer than it should be.
    #[error("{what} {} is no regular file of {len_max} bytes at most: name the right one", path.display())]
    NotRegular {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Bytes that it may have.
        len_max: u64,
    },
    /// Users other than its owner can read or change it.
    #[error(
        "{what} {} has mode {mode:04o}, so that others can get at it: run `chmod 600 {}`, and make new secrets if they may have",
        path.display(), path.display()
    )]
    Mode {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{what} {} belongs to user {uid}, who can change it: run `chown root {}`", path.display(), path.display())]
    Owner {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
}

/// The text of a file that only its owner can read or change; the owner must be
/// root or this process's user.
pub(super) fn secret(what: &'static str, path: &Path, len_max: u64) -> Result<String, FileError> {
    let (file, metadata) = open(what, path, len_max)?;
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(FileError::Mode { what, path: path.to_owned(), mode });
    }
    let uid = metadata.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(FileError::Owner { what, path: path.to_owned(), uid });
    }
    read(what, path, file, len_max)
}

/// The text of a file that anybody may read.
pub(super) fn public(what: &'static str, path: &Path, len_max: u64) -> Result<String, FileError> {
    let (file, _) = open(what, path, len_max)?;
    read(what, path, file, len_max)
}

fn open(what: &'static str, path: &Path, len_max: u64) -> Result<(File, std::fs::Metadata), FileError> {
    let failed = |source| FileError::Read { what, path: path.to_owned(), source };
    // A pipe in its place must not block this open.
    let file =
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    // Asks the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > len_max {
        return Err(FileError::NotRegular { what, path: path.to_owned(), len_max });
    }
    Ok((file, metadata))
}

fn read(what: &'static str, path: &Path, file: File, len_max: u64) -> Result<String, FileError> {
    let mut text = String::new();
    file.take(len_max).read_to_string(&mut text).map_err(|source| FileError::Read {
        what,
        path: path.to_owned(),
        source,
    })?;
    Ok(text)
}
