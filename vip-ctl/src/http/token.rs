//! The tokens by which clients identify themselves over TCP: reads their file,
//! and compares. Keeps only hashes, and compares them in constant time.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::secret_files::{self, FileError};

/// The shortest token, in bytes.
const TOKEN_LEN_MIN: usize = 32;
/// The longest file of tokens that is read, in bytes.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Read.
    Read,
    /// Read, and change.
    Operate,
}

/// The tokens of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    known: Vec<(Access, blake3::Hash)>,
}

/// What is wrong with a file of tokens. The text has no token in it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line of it.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong, and what to write.
        problem: Problem,
    },
    /// No line of it has a token.
    #[error("{}: there is no token in it: write a line `operate TOKEN`, or `read TOKEN`", .0.display())]
    Empty(PathBuf),
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not two words of which the first one is known.
    Form,
    /// Too short to be safe.
    Short,
    /// The same token a second time.
    Twice,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("this line is no token: write `read TOKEN` or `operate TOKEN`"),
            Self::Short => write!(
                f,
                "this token is too short to be safe: take {TOKEN_LEN_MIN} characters or more, as `openssl rand -hex 32` makes them"
            ),
            Self::Twice => f.write_str("this token is there already: give each line its own"),
        }
    }
}

impl Tokens {
    /// Reads a file that only its owner can read or change: one token a line,
    /// after `read` or `operate`. Skips empty lines and lines that begin with
    /// `#`.
    pub(super) fn load(path: &Path) -> Result<Self, TokenError> {
        let text = secret_files::secret("the file of tokens", path, FILE_LEN_MAX)?;
        let mut known = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |problem| TokenError::Line { path: path.to_owned(), line: index + 1, problem };
            let mut words = line.split_ascii_whitespace();
            let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let access = match first {
                "read" => Access::Read,
                "operate" => Access::Operate,
                _ => return Err(wrong(Problem::Form)),
            };
            let (Some(token), None) = (words.next(), words.next()) else { return Err(wrong(Problem::Form)) };
            if token.len() < TOKEN_LEN_MIN {
                return Err(wrong(Problem::Short));
            }
            let hash = blake3::hash(token.as_bytes());
            if known.iter().any(|(_, before)| *before == hash) {
                return Err(wrong(Problem::Twice));
            }
            known.push((access, hash));
        }
        if known.is_empty() {
            return Err(TokenError::Empty(path.to_owned()));
        }
        Ok(Self { known })
    }

    /// What a token allows; `None` if the file does not have it. Takes the same
    /// time for all tokens of the same length.
    pub(super) fn access(&self, token: &str) -> Option<Access> {
        let hash = blake3::hash(token.as_bytes());
        // Compares each one, and each comparison looks at every byte.
        self.known
            .iter()
            .fold(None, |found, (access, known)| if *known == hash { Some(*access) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const READ: &str = "0123456789abcdef0123456789abcdef";
    const OPERATE: &str = "fedcba9876543210fedcba9876543210";

    /// What becomes of a file with this text and mode.
    fn load(name: &str, text: &str, mode: u32) -> Result<Tokens, String> {
        let path = std::env::temp_dir().join(format!("vip-tokens-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Tokens::load(&path).map_err(|e| e.to_string().replace(&*path.to_string_lossy(), "FILE"));
        fs::remove_file(path).unwrap();
        loaded
    }

    #[test]
    fn a_token_allows_what_its_line_says() {
        let text = format!("# for Prometheus\nread {READ}\n\n  operate\t{OPERATE}\n");
        let tokens = load("good", &text, 0o600).unwrap();
        assert_eq!(tokens.access(READ), Some(Access::Read));
        assert_eq!(tokens.access(OPERATE), Some(Access::Operate));
        for wrong in ["", "read", &READ[1..], &READ.to_uppercase(), &format!("{READ} ")] {
            assert_eq!(tokens.access(wrong), None, "{wrong:?}");
        }
        assert!(!format!("{tokens:?}").contains(READ));
    }

    #[test]
    fn what_is_unsafe_or_unclear_is_refused() {
        let refused = |name: &str, text: &str| {
            let message = load(name, text, 0o600).expect_err("must be refused");
            assert!(!message.contains(READ), "no token in a message: {message}");
            message
        };
        insta::assert_snapshot!(refused("word", &format!("write {READ}\n")), @"FILE:1: this line is no token: write `read TOKEN` or `operate TOKEN`");
        insta::assert_snapshot!(refused("bare", &format!("\n{READ}\n")), @"FILE:2: this line is no token: write `read TOKEN` or `operate TOKEN`");
        insta::assert_snapshot!(refused("three", &format!("read {READ} x\n")), @"FILE:1: this line is no token: write `read TOKEN` or `operate TOKEN`");
        insta::assert_snapshot!(refused("short", &format!("read {}\n", &READ[1..])), @"FILE:1: this token is too short to be safe: take 32 characters or more, as `openssl rand -hex 32` makes them");
        insta::assert_snapshot!(refused("twice", &format!("read {READ}\noperate {READ}\n")), @"FILE:2: this token is there already: give each line its own");
        insta::assert_snapshot!(refused("empty", "# none\n"), @"FILE: there is no token in it: write a line `operate TOKEN`, or `read TOKEN`");
        let open = load("open", &format!("read {READ}\n"), 0o640).expect_err("must be refused");
        insta::assert_snapshot!(open, @"the file of tokens FILE has mode 0640, so that others can get at it: run `chmod 600 FILE`, and make new secrets if they may have");
    }
}
