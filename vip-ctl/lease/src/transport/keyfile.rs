//! The key file: its text form, the checks on who may read it, and making a new
//! one. This is the only part of the transport that touches the system.
//!
//! One key a line, as `<id> <64 hexadecimal digits>` with an id of 0 to 255;
//! empty lines and lines that begin with `#` are skipped. The first key is
//! the one used for sending, and there are two at most.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::key::{KeyId, KeyRing, PSK_LEN, Psk, SameKeyId};
use crate::mutant::{self, Mutant};

/// The longest key file that is read, in bytes.
const FILE_LEN_MAX: u64 = 4_096;
/// Keys that a file can have.
const KEYS_MAX: usize = 2;
/// Permission bits that must not be set: all of group's and others'.
const MODE_FORBIDDEN: u32 = 0o077;

/// Why a key file cannot be used or made. The text has no byte of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("there is no key file {}: make one with `vip-ctl keygen {}` on one node and copy it to the others", .0.display(), .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("the key file {} can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, device or pipe.
    #[error("{} is not a regular file: name the key file itself", .0.display())]
    NotRegular(PathBuf),
    /// Users other than its owner can read or change it.
    #[error("the key file {} has mode {mode:04o}, so that others can get at the cluster's key: run `chmod 600 {}`, and make a new key if they may have", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("the key file {} belongs to user {uid}, who can change it: run `chown root {}`", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Its text is not that of a key file.
    #[error("{}:{}", path.display(), source)]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyTextError,
    },
    /// It is there already.
    #[error("{} exists already, and a key is never overwritten: move it away, or name another file", .0.display())]
    Exists(PathBuf),
    /// It cannot be made.
    #[error("the key file {} can't be made: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("no random bytes for a key: {0}")]
    Randomness(getrandom::Error),
}

/// Why a text is not that of a key file. It begins with the line number, and has
/// no byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// A line of another form.
    #[error("{line}: this line is no key: write `<id> <64 hexadecimal digits>`, with an id of 0 to 255")]
    Line {
        /// Where, from 1.
        line: usize,
    },
    /// All bytes of the key are the same.
    #[error("{line}: this key is not random: make one with `vip-ctl keygen`")]
    Weak {
        /// Where, from 1.
        line: usize,
    },
    /// More than two keys.
    #[error(
        "{line}: this is one key too many: keep the {KEYS_MAX} that are in use, first the one to send with"
    )]
    TooMany {
        /// Where, from 1.
        line: usize,
    },
    /// Two keys under one id.
    #[error("{line}: {source}")]
    SameId {
        /// Where, from 1.
        line: usize,
        /// Which id.
        source: SameKeyId,
    },
    /// Nothing but comments.
    #[error("1: there is no key in it: make one with `vip-ctl keygen`")]
    Empty,
    /// Far longer than a key file is.
    #[error("1: longer than {FILE_LEN_MAX} bytes, so it is no key file: name the right one")]
    TooLong,
}

impl KeyRing {
    /// The keys in the file at `path`, which must be a regular file that only its
    /// owner can read or change; the owner must be root or this process's user.
    ///
    /// # Errors
    /// What is wrong with the file and how to mend it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let read = |source| KeyFileError::Read { path: path.to_owned(), source };
        let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyFileError::Missing(path.to_owned()));
            }
            Err(error) => return Err(read(error)),
        };
        // Asks the open file, so that what is checked is what is read.
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(KeyFileError::NotRegular(path.to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & MODE_FORBIDDEN != 0 && !mutant::is(Mutant::OpenKeyFile) {
            return Err(KeyFileError::Mode { path: path.to_owned(), mode });
        }
        let uid = metadata.uid();
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return Err(KeyFileError::Owner { path: path.to_owned(), uid });
        }
        let mut bytes = Vec::new();
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        Self::parse(&bytes).map_err(|source| KeyFileError::Text { path: path.to_owned(), source })
    }

    /// The keys in the text of a key file.
    ///
    /// # Errors
    /// Which line is wrong and how to mend it.
    pub fn parse(text: &[u8]) -> Result<Self, KeyTextError> {
        if text.len() as u64 > FILE_LEN_MAX {
            return Err(KeyTextError::TooLong);
        }
        let mut keys = Vec::new();
        for (index, bytes) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = index + 1;
            let content = bytes.trim_ascii();
            if content.is_empty() || content.starts_with(b"#") {
                continue;
            }
            let (id, psk) = parse_line(content).ok_or(KeyTextError::Line { line })?;
            if psk.iter().all(|byte| *byte == psk[0]) {
                return Err(KeyTextError::Weak { line });
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyTextError::TooMany { line });
            }
            keys.push((line, (id, Psk::new(psk))));
        }
        let mut keys = keys.into_iter();
        let (_, primary) = keys.next().ok_or(KeyTextError::Empty)?;
        let (line, secondary) = keys.next().unzip();
        Self::new(primary, secondary)
            .map_err(|source| KeyTextError::SameId { line: line.unwrap_or(1), source })
    }
}

fn parse_line(content: &[u8]) -> Option<(KeyId, [u8; PSK_LEN])> {
    let mut words = str::from_utf8(content).ok()?.split_ascii_whitespace();
    let (id, digits, None) = (words.next()?, words.next()?, words.next()) else { return None };
    if digits.len() != 2 * PSK_LEN || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut psk = [0; PSK_LEN];
    for (byte, pair) in psk.iter_mut().zip(digits.as_bytes().as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some((KeyId(id.parse().ok()?), psk))
}

/// Makes a key file with one new random key of this id, readable by its owner
/// alone.
///
/// The file appears under its name complete and on disk, or not at all.
///
/// # Errors
/// If there is a file of that name already, or the system refuses.
pub fn generate(path: &Path, id: KeyId) -> Result<(), KeyFileError> {
    let mut psk = [0; PSK_LEN];
    getrandom::fill(&mut psk).map_err(KeyFileError::Randomness)?;
    let text = render(id, &Psk::new(psk));
    write_new(path, &text).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            KeyFileError::Exists(path.to_owned())
        } else {
            KeyFileError::Write { path: path.to_owned(), source }
        }
    })
}

fn render(id: KeyId, psk: &Psk) -> String {
    let mut text = format!("# Cluster key of vip: the same on every node, and nobody else's.\n{id} ");
    for byte in psk.bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text
}

/// Writes `text` to a draft beside `path`, and gives it that name by a hard
/// link, which fails if the name is taken.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let draft = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            io::Error::other(format!("{} was left behind by another run: remove it", draft.display()))
        } else {
            error
        }
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path));
    // The draft is ours in any case, and must not stay behind with a key in it.
    let removed = fs::remove_file(&draft);
    written.and(removed).and_then(|()| File::open(directory)?.sync_all())
}
