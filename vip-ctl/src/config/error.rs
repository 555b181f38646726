//! What is wrong with a configuration, and where. The sentences themselves
//! are written where the mistakes are found.

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
    /// Where in it; `None` if the mistake is the file itself.
    pub place: Option<Place>,
    /// What is wrong and how to mend it.
    pub message: String,
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
    /// EX_CONFIG of sysexits(3): what a program that gets no further exits with.
    pub const EXIT_CODE: u8 = 78;

    /// A mistake that concerns the file as a whole.
    pub(super) fn whole_file(path: &Path, message: String) -> Self {
        Self(vec![ConfigError { path: path.to_owned(), place: None, message }])
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

/// Collects the mistakes of one text.
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    found: Vec<(Place, String)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_newline = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(after_newline).collect(), found: Vec::new() }
    }

    /// Adds a mistake at the bytes `span` of the text.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push((self.place(&span), message.into()));
    }

    /// The text at `span`.
    pub(super) fn text(&self, span: Range<usize>) -> &'t str {
        self.text.get(span).unwrap_or_default()
    }

    /// The line that `span` begins in, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.place(span).line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let line = self.lines.partition_point(|start| *start <= span.start).max(1);
        let before = self.text.get(self.lines[line - 1]..span.start).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// The mistakes in the order of the text.
    pub(super) fn into_errors(mut self, path: &Path) -> ConfigErrors {
        self.found.sort();
        let error = |(place, message)| ConfigError { path: path.to_owned(), place: Some(place), message };
        ConfigErrors(self.found.into_iter().map(error).collect())
    }
}
