//! The mistakes of a configuration, and their places. The checks that find the
//! mistakes write the sentences.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub path: PathBuf,
    /// The place; `None` if the mistake is about the file as a whole.
    pub place: Option<Place>,
    /// The line that it begins in; empty if the mistake is about the file as a
    /// whole.
    pub line: String,
    /// The offending text, as far as it is in that line; empty if something is
    /// missing there.
    pub text: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl ConfigError {
    /// A mistake in the file as a whole.
    fn whole_file(path: &Path, message: String) -> Self {
        Self { path: path.to_owned(), place: None, line: String::new(), text: String::new(), message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// All mistakes of a configuration, at least one, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// EX_CONFIG of sysexits(3): the exit code of a program that stops at the
    /// mistakes.
    pub const EXIT_CODE: u8 = 78;

    /// A mistake in the file as a whole.
    pub(in crate::config) fn whole_file(path: &Path, message: String) -> Self {
        Self(vec![ConfigError::whole_file(path, message)])
    }

    /// The mistakes, one by one.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One file of a configuration.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Source<'t> {
    pub(in crate::config) path: &'t Path,
    pub(in crate::config) text: &'t str,
}

/// A file among those that are read together. Its first byte has the number
/// `start`, so that a span also tells which file it is in.
struct Numbered<'t> {
    source: Source<'t>,
    start: usize,
    /// Where each line begins, in bytes of the file.
    lines: Vec<usize>,
}

/// Collects the mistakes of all files.
pub(in crate::config) struct Report<'t> {
    files: Vec<Numbered<'t>>,
    /// By the file's index; a mistake without a place comes first.
    found: Vec<(usize, ConfigError)>,
}

impl<'t> Report<'t> {
    /// A report on these files, of which there is at least one.
    pub(in crate::config) fn new(sources: &[Source<'t>]) -> Self {
        let mut start = 0;
        let files = sources.iter().map(|source| {
            let bytes = source.text.bytes().enumerate();
            let after_newline = bytes.filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
            let lines = std::iter::once(0).chain(after_newline).collect();
            let file = Numbered { source: *source, start, lines };
            // One more, so that the end of a text differs from the beginning of the next.
            start += source.text.len() + 1;
            file
        });
        Self { files: files.collect(), found: Vec::new() }
    }

    /// The number of a file's first byte.
    pub(in crate::config) fn start(&self, file: usize) -> usize {
        self.files.get(file).map_or(0, |file| file.start)
    }

    /// Adds a mistake at the bytes `span`.
    pub(in crate::config) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        let (index, place) = self.place(&span);
        let file = &self.files[index];
        let line = self.line_text(&span).to_owned();
        let text = self.text(span).lines().next().unwrap_or_default().to_owned();
        let path = file.source.path.to_owned();
        let error = ConfigError { path, place: Some(place), line, text, message: message.into() };
        self.found.push((index, error));
    }

    /// Adds a mistake about a file as a whole.
    pub(in crate::config) fn add_file(&mut self, file: usize, message: String) {
        let path = self.files[file].source.path;
        self.found.push((file, ConfigError::whole_file(path, message)));
    }

    /// The text at `span`.
    pub(in crate::config) fn text(&self, span: Range<usize>) -> &'t str {
        let file = &self.files[self.file(&span)];
        let own = span.start - file.start..span.end.saturating_sub(file.start);
        file.source.text.get(own).unwrap_or_default()
    }

    /// The whole line that `span` begins in.
    pub(in crate::config) fn line_text(&self, span: &Range<usize>) -> &'t str {
        let (index, place) = self.place(span);
        let file = &self.files[index];
        file.source.text[file.lines[place.line - 1]..].lines().next().unwrap_or_default()
    }

    /// The word around the beginning of `span`, up to the next space or TOML
    /// punctuation.
    pub(in crate::config) fn word(&self, span: &Range<usize>) -> Range<usize> {
        let file = &self.files[self.file(span)];
        let at = span.start - file.start;
        let text = file.source.text;
        let ends = |c: char| c.is_whitespace() || ",[]{}\"'=#".contains(c);
        let before = text.get(..at).unwrap_or_default();
        let begin =
            before.char_indices().rev().find(|(_, c)| ends(*c)).map_or(0, |(at, c)| at + c.len_utf8());
        let after = text.get(at..).unwrap_or_default();
        let end = at + after.find(ends).unwrap_or(after.len());
        file.start + begin..file.start + end
    }

    /// The line that `span` begins in, from 1.
    pub(in crate::config) fn line(&self, span: &Range<usize>) -> usize {
        self.place(span).1.line
    }

    /// Where `span` is, as seen from `other`: the line, and the file if that
    /// is another one.
    pub(in crate::config) fn whereabouts(&self, span: &Range<usize>, other: &Range<usize>) -> String {
        let (file, place) = self.place(span);
        if file == self.file(other) {
            return format!("line {}", place.line);
        }
        format!("{}, line {}", self.files[file].source.path.display(), place.line)
    }

    pub(in crate::config) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The file that `span` is in.
    fn file(&self, span: &Range<usize>) -> usize {
        self.files.partition_point(|file| file.start <= span.start).saturating_sub(1)
    }

    fn place(&self, span: &Range<usize>) -> (usize, Place) {
        let index = self.file(span);
        let file = &self.files[index];
        let at = span.start - file.start;
        let line = file.lines.partition_point(|start| *start <= at).max(1);
        let before = file.source.text.get(file.lines[line - 1]..at).unwrap_or_default();
        (index, Place { line, column: before.chars().count() + 1 })
    }

    /// The mistakes, file by file, in the order of the text.
    pub(in crate::config) fn into_errors(mut self) -> ConfigErrors {
        let key = |(file, error): &(usize, ConfigError)| (*file, error.place, error.message.clone());
        self.found.sort_by_cached_key(key);
        ConfigErrors(self.found.into_iter().map(|(_, error)| error).collect())
    }
}
