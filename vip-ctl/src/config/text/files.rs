//! The files of a configuration: `vip.toml`, and next to it the directory
//! `conf.d`, whose `*.toml` files add groups. This module finds and reads them,
//! and parses their TOML.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::report::{Report, Source};
use crate::config::ConfigErrors;

/// The directory next to `vip.toml`.
const DIRECTORY: &str = "conf.d";
/// The extension of the files to read in it.
const EXTENSION: &str = "toml";

/// One file, as far as it could be read.
pub(in crate::config) struct File {
    path: PathBuf,
    text: String,
    trouble: Option<Trouble>,
}

/// Why a file is incomplete.
enum Trouble {
    Unreadable(String),
    /// After `text` comes a byte that is not UTF-8.
    NotUtf8,
}

impl File {
    /// A file with this text, wherever that comes from.
    pub(in crate::config) fn new(path: &Path, text: &str) -> Self {
        // Some editors begin UTF-8 with this mark, which is not part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { path: path.to_owned(), text: text.to_owned(), trouble: None }
    }

    fn unreadable(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), text: String::new(), trouble: Some(Trouble::Unreadable(why)) }
    }

    /// Reads the file at `path`; `mend` is the advice if it can't be read.
    pub(in crate::config) fn read(path: &Path, mend: &str) -> Self {
        match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => Self::new(path, &text),
            Ok(Err(error)) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let text = String::from_utf8_lossy(valid).into_owned();
                Self { path: path.to_owned(), text, trouble: Some(Trouble::NotUtf8) }
            }
            Err(error) => Self::unreadable(path, format!("can't be read ({error}): {mend}")),
        }
    }

    /// The files in the directory that belongs to `main`, in the order of their
    /// names.
    pub(in crate::config) fn read_more(main: &Path) -> Vec<Self> {
        match names(main) {
            Ok(paths) => {
                paths.iter().map(|path| Self::read(path, "make it readable, or remove it")).collect()
            }
            Err(error) => {
                let directory = directory(main);
                vec![Self::unreadable(&directory, format!("can't be listed ({error}): make it a directory"))]
            }
        }
    }
}

/// The directory that belongs to `main`.
fn directory(main: &Path) -> PathBuf {
    main.with_file_name(DIRECTORY)
}

/// The names of the files that add to `main`, sorted. Leaves out hidden files,
/// such as an editor's.
///
/// # Errors
/// If the directory exists but cannot be listed.
pub fn names(main: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = visible(main)?;
    paths.retain(|path| is_read(path));
    Ok(paths)
}

/// All other files in the directory, except for a README: the agent does not read
/// them, which may surprise the person who put them there.
///
/// # Errors
/// If the directory exists but cannot be listed.
pub fn unread(main: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = visible(main)?;
    let is_readme =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"README"));
    paths.retain(|path| !is_read(path) && !is_readme(path));
    Ok(paths)
}

fn is_read(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Everything in the directory that is not hidden, sorted by name.
fn visible(main: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory(main)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Parses all files. Reports and leaves out a file that is not TOML; the others
/// come with their index, and their spans are those of the report.
pub(in crate::config) fn parse<'f>(files: &'f [File], report: &mut Report<'f>) -> Vec<(usize, DeTable<'f>)> {
    let mut tables = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let start = report.start(index);
        match &file.trouble {
            Some(Trouble::Unreadable(why)) => report.add_file(index, why.clone()),
            Some(Trouble::NotUtf8) => {
                let end = start + file.text.len();
                report.add(end..end, "this byte is no UTF-8: save the file as UTF-8");
            }
            None => {
                let (document, syntax) = DeTable::parse_recoverable(&file.text);
                if syntax.is_empty() {
                    tables.push((index, table(document.into_inner(), start)));
                } else {
                    // The rest of a broken text would cause errors that are not real.
                    super::syntax::syntax(&syntax, start, report);
                }
            }
        }
    }
    tables
}

/// An empty report on these files.
pub(in crate::config) fn report(files: &[File]) -> Report<'_> {
    let sources: Vec<_> = files.iter().map(|file| Source { path: &file.path, text: &file.text }).collect();
    Report::new(&sources)
}

/// A mistake in the file at `path` as a whole.
pub(in crate::config) fn refused(path: &Path, message: String) -> ConfigErrors {
    ConfigErrors::whole_file(path, message)
}

fn moved(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

/// `table` with all its spans moved.
fn table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    if by == 0 {
        return table;
    }
    let entry = |(key, entry): (Spanned<_>, Spanned<_>)| {
        let span = moved(key.span(), by);
        (Spanned::new(span, key.into_inner()), value(entry, by))
    };
    table.into_iter().map(entry).collect()
}

fn value(spanned: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(spanned.span(), by);
    let inner = match spanned.into_inner() {
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|element| value(element, by)).collect())
        }
        DeValue::Table(inner) => DeValue::Table(table(inner, by)),
        scalar @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => scalar,
    };
    Spanned::new(span, inner)
}
