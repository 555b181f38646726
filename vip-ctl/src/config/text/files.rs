//! The files of a configuration: `vip.toml`, and next to it the directory
//! `conf.d`, whose `*.toml` files add groups. Here they are found and read;
//! what they say is read elsewhere.

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
/// What a file's name in it ends with.
const EXTENSION: &str = "toml";

/// One file, as far as it could be read.
pub(in crate::config) struct File {
    path: PathBuf,
    text: String,
    trouble: Option<Trouble>,
}

/// Why a file is not whole.
enum Trouble {
    Unreadable(String),
    /// After `text` comes a byte that is no UTF-8.
    NotUtf8,
}

impl File {
    /// A file with this text, wherever it is from.
    pub(in crate::config) fn new(path: &Path, text: &str) -> Self {
        // Some editors mark UTF-8 so; it is no part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { path: path.to_owned(), text: text.to_owned(), trouble: None }
    }

    fn unreadable(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), text: String::new(), trouble: Some(Trouble::Unreadable(why)) }
    }

    /// Reads the file at `path`; `mend` is what to do if it can't be read.
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

    /// The files of the directory that belongs to `main`, in the order of their names.
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

/// The files that add to `main`, in the order of their names. Hidden ones,
/// such as an editor's, are none.
///
/// # Errors
/// If the directory is there and can't be listed.
pub fn names(main: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = visible(main)?;
    paths.retain(|path| is_read(path));
    Ok(paths)
}

/// What else is in the directory, but for a README: it is not read, which
/// whoever put it there may not know.
///
/// # Errors
/// If the directory is there and can't be listed.
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

/// All that is in the directory and not hidden, in the order of the names.
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

/// Parses all files. A file that is no TOML is left out and reported; the
/// others come with their index, and their spans are those of the report.
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
                    // What is left of a broken text would raise errors that are none.
                    super::syntax::syntax(&syntax, start, report);
                }
            }
        }
    }
    tables
}

/// A report on these files, with nothing in it.
pub(in crate::config) fn report(files: &[File]) -> Report<'_> {
    let sources: Vec<_> = files.iter().map(|file| Source { path: &file.path, text: &file.text }).collect();
    Report::new(&sources)
}

/// A mistake that concerns `path` as a whole.
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
