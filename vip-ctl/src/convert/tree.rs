//! keepalived's format as a tree: lines of words, some of them with a block in
//! braces. It does not know what the words mean.

use std::collections::BTreeMap;

use super::ConvertError;

/// Blocks in blocks, at most; keepalived has five.
const DEPTH_MAX: usize = 32;
/// The longest value of a definition, in bytes; definitions may contain others.
const VALUE_LEN_MAX: usize = 1024;

/// A line, and the block after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// Its words, without quotes and backslashes; never empty.
    pub(super) words: Vec<String>,
    /// The same words with their backslashes: a command is split once more.
    pub(super) escaped: Vec<String>,
    /// The lines in its braces.
    pub(super) block: Option<Vec<Entry>>,
}

impl Entry {
    /// The first word.
    pub(super) fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The word after the key.
    pub(super) fn value(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }

    /// All words after the key, as the file might have them.
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
    Word(Word),
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
    // Further words belong to the entry that their line began; a brace may come
    // later.
    let mut begun = false;
    while let Some((line, token)) = tokens.next() {
        match token {
            Token::Newline => begun = false,
            Token::Word(word) => {
                if !begun {
                    entries.push(Entry { line, words: Vec::new(), escaped: Vec::new(), block: None });
                    begun = true;
                }
                if let Some(last) = entries.last_mut() {
                    last.words.push(word.text);
                    last.escaped.push(word.escaped);
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
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (line, text) in whole_lines(text) {
        let text = written_out(&text, &known);
        if let Some((name, value)) = definition(&text).filter(|(_, value)| value.len() <= VALUE_LEN_MAX) {
            known.insert(name.to_owned(), value.to_owned());
        }
        let mut rest = text.trim_start();
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

/// The lines, those that a backslash continues put together, each with the
/// number of its first.
fn whole_lines(text: &str) -> Vec<(usize, String)> {
    let mut whole: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (line, text) in (1..).zip(text.lines()) {
        let trimmed = text.trim_end();
        let is_comment = trimmed.trim_start().starts_with(['#', '!']);
        let backslashes = trimmed.chars().rev().take_while(|c| *c == '\\').count();
        let ends_so = backslashes % 2 == 1 && !is_comment;
        let part = if ends_so { &trimmed[..trimmed.len() - 1] } else { text };
        match whole.last_mut().filter(|_| goes_on) {
            Some((_, begun)) => begun.push_str(part.trim_start()),
            None => whole.push((line, part.to_owned())),
        }
        goes_on = ends_so;
    }
    whole
}

/// The name and the value of a line `$NAME=VALUE`.
pub(super) fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('$')?.split_once('=')?;
    let value = value.split(['#', '!']).next().unwrap_or_default().trim();
    (!name.is_empty() && name.chars().all(in_a_name)).then_some((name, value))
}

fn in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The line with the values of definitions in the place of `$NAME` and `${NAME}`.
/// Unknown names stay, as in keepalived.
fn written_out(line: &str, known: &BTreeMap<String, String>) -> String {
    let Some(first) = line.find('$').filter(|_| !known.is_empty()) else { return line.to_owned() };
    // The name of a definition must not be replaced by its former value.
    let first = if definition(line).is_some() { first + 1 } else { first };
    let (mut out, mut rest) = (line[..first].to_owned(), &line[first..]);
    while let Some(at) = rest.find('$') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let bare = after.split_at(after.find(|c| !in_a_name(c)).unwrap_or(after.len()));
        let (name, behind) = braced.unwrap_or(bare);
        match known.get(name) {
            Some(value) => {
                out.push_str(value);
                rest = behind;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

/// A word, with and without its backslashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    escaped: String,
}

impl Word {
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.escaped.push(c);
    }
}

/// The first word, without quotes, and the text after it. `None` if a quote is
/// not closed.
fn word(text: &str) -> Option<(Word, &str)> {
    let mut word = Word::default();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        let is_closed = || text[at + 1..].contains(c);
        match (quote, c) {
            (None, '"') => quote = Some(c),
            // One alone is an apostrophe.
            (None, '\'') if is_closed() => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (_, '\\') => {
                word.escaped.push(c);
                if let Some((_, next)) = characters.next() {
                    word.push(next);
                }
            }
            // An unknown definition.
            (None, '{') if word.text.ends_with('$') => {
                let whole = text[at..].split_inclusive('}').next().unwrap_or_default();
                whole.chars().for_each(|c| word.push(c));
                for _ in whole.chars().skip(1) {
                    characters.next();
                }
            }
            // A comment can begin anywhere but in quotes.
            (None, '{' | '}' | '#' | '!') => return Some((word, &text[at..])),
            (None, _) if c.is_whitespace() => return Some((word, &text[at..])),
            (None | Some(_), _) => word.push(c),
        }
    }
    quote.is_none().then_some((word, ""))
}
