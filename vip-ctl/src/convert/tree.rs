//! keepalived's format, as a tree: lines of words, some of them with a block
//! in braces. What the words mean is not known here.

use super::ConvertError;

/// Blocks in blocks, at most; keepalived has five.
const DEPTH_MAX: usize = 32;

/// A line, and the block behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Its words, quotes taken off; never empty.
    pub(super) words: Vec<String>,
    /// What stands in its braces.
    pub(super) block: Option<Vec<Entry>>,
}

impl Entry {
    /// The first word.
    pub(super) fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The word behind the key.
    pub(super) fn value(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }

    /// All words behind the key, as they might have been written.
    pub(super) fn rest(&self) -> String {
        self.words.get(1..).unwrap_or_default().join(" ")
    }

    /// The entries of its block; none if there is no block.
    pub(super) fn entries(&self) -> &[Entry] {
        self.block.as_deref().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    Newline,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, ConvertError> {
    let tokens = tokens(text)?;
    let mut tokens = tokens.into_iter().peekable();
    let entries = block(&mut tokens, None, 0)?;
    Ok(entries)
}

fn block(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = (usize, Token)>>,
    opened: Option<usize>,
    depth: usize,
) -> Result<Vec<Entry>, ConvertError> {
    let mut entries: Vec<Entry> = Vec::new();
    // Words go on with the entry begun on their line; a brace may come later.
    let mut begun = false;
    while let Some((line, token)) = tokens.next() {
        match token {
            Token::Newline => begun = false,
            Token::Word(word) => {
                if let Some(last) = entries.last_mut().filter(|_| begun) {
                    last.words.push(word);
                } else {
                    entries.push(Entry { line, words: vec![word], block: None });
                    begun = true;
                }
            }
            Token::Open => {
                if depth >= DEPTH_MAX {
                    return Err(wrong(line, "blocks are nested too deeply"));
                }
                let inside = block(tokens, Some(line), depth + 1)?;
                match entries.last_mut() {
                    Some(last) if last.block.is_none() => last.block = Some(inside),
                    Some(_) | None => {
                        return Err(wrong(line, "this { belongs to nothing: write a keyword before it"));
                    }
                }
                begun = false;
            }
            Token::Close => {
                return if opened.is_some() {
                    Ok(entries)
                } else {
                    Err(wrong(line, "this } closes nothing: remove it"))
                };
            }
        }
    }
    match opened {
        None => Ok(entries),
        Some(line) => Err(wrong(line, "this { is never closed: add the }")),
    }
}

fn wrong(line: usize, says: &str) -> ConvertError {
    ConvertError { line, says: says.to_owned() }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ConvertError> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let mut rest = text.trim_start();
        // A comment begins where a word would.
        while let Some(first) = rest.chars().next().filter(|c| !matches!(c, '#' | '!')) {
            let token = match first {
                '{' => Token::Open,
                '}' => Token::Close,
                _ => {
                    let (word, after) =
                        word(rest).ok_or_else(|| wrong(line, "a quote is never closed: add it"))?;
                    found.push((line, Token::Word(word)));
                    rest = after.trim_start();
                    continue;
                }
            };
            found.push((line, token));
            rest = rest[1..].trim_start();
        }
        found.push((line, Token::Newline));
    }
    Ok(found)
}

/// The word at the front, quotes taken off, and what comes after it. `None`
/// if a quote is not closed.
fn word(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (_, '\\') => word.extend(characters.next().map(|(_, escaped)| escaped)),
            (None, '{' | '}') => return Some((word, &text[at..])),
            (None, _) if c.is_whitespace() => return Some((word, &text[at..])),
            (None | Some(_), _) => word.push(c),
        }
    }
    quote.is_none().then_some((word, ""))
}
