//! A line of a scenario as words, and how to take values out of it. Every error
//! becomes a [`Mistake`] that names the offending word.

use std::time::Duration;

use super::{Link, cluster::Cluster};

/// What is wrong in a line: the word, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Empty: the whole line.
    pub word: String,
    pub why: String,
}

impl Mistake {
    pub fn new(word: &str, why: impl Into<String>) -> Self {
        Self { word: word.to_owned(), why: why.into() }
    }
}

/// What is left of a line.
pub(super) struct Words<'a>(pub &'a [&'a str]);

impl<'a> Words<'a> {
    pub fn peek(&self) -> Option<&'a str> {
        self.0.first().copied()
    }

    /// The next word, which must be there.
    pub fn take(&mut self, what: &str) -> Result<&'a str, Mistake> {
        let (first, rest) =
            self.0.split_first().ok_or_else(|| Mistake::new("", format!("{what} is missing")))?;
        self.0 = rest;
        Ok(first)
    }

    /// The next word if it is this one.
    pub fn take_if(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// The next word, which must be this one.
    pub fn expect(&mut self, word: &str) -> Result<(), Mistake> {
        let found = self.take(&format!("`{word}`"))?;
        if found == word { Ok(()) } else { Err(Mistake::new(found, format!("`{word}` is expected here"))) }
    }

    pub fn end(&self) -> Result<(), Mistake> {
        self.peek().map_or(Ok(()), |word| Err(Mistake::new(word, "is one word too many")))
    }

    pub fn duration(&mut self) -> Result<Duration, Mistake> {
        let word = self.take("a time")?;
        humantime::parse_duration(word)
            .map_err(|_| Mistake::new(word, "is no time: write a number with its unit, like `120ms` or `2s`"))
    }

    pub fn number(&mut self) -> Result<u64, Mistake> {
        let word = self.take("a number")?;
        word.parse().map_err(|_| Mistake::new(word, "is no number: write one like `20`"))
    }

    /// A percentage, in per mille.
    pub fn chance(&mut self) -> Result<u64, Mistake> {
        let word = self.take("a percentage")?;
        let per_cent = word.strip_suffix('%').and_then(|number| number.parse::<u64>().ok());
        match per_cent {
            Some(per_cent) if per_cent <= 100 => Ok(per_cent * 10),
            Some(_) | None => Err(Mistake::new(word, "is no percentage: write one like `20%`")),
        }
    }

    pub fn node(&mut self, cluster: &Cluster) -> Result<usize, Mistake> {
        let word = self.take("a node")?;
        cluster.node(word)
    }

    pub fn group(&mut self, cluster: &Cluster) -> Result<usize, Mistake> {
        let word = self.take("a group")?;
        cluster.group(word)
    }

    /// Nodes, up to a word that is not one; `all` means every node.
    pub fn nodes(&mut self, cluster: &Cluster) -> Result<Vec<usize>, Mistake> {
        if self.take_if("all") {
            return Ok((0..cluster.roles.len()).collect());
        }
        let mut nodes = vec![self.node(cluster)?];
        while self.peek().is_some_and(|word| cluster.node(word).is_ok()) {
            nodes.push(self.node(cluster)?);
        }
        Ok(nodes)
    }

    /// Groups, up to a word that is not one; without any, every group.
    pub fn groups_or_all(&mut self, cluster: &Cluster) -> Result<Vec<usize>, Mistake> {
        let mut groups = Vec::new();
        while self.peek().is_some() {
            groups.push(self.group(cluster)?);
        }
        Ok(if groups.is_empty() { (0..cluster.groups.len()).collect() } else { groups })
    }

    /// `A -> B`, `A <-> B`, with `*` for every node; nothing means every link.
    pub fn links_or_all(&mut self, cluster: &Cluster) -> Result<Vec<Link>, Mistake> {
        if self.peek().is_none() {
            let all: Vec<_> = (0..cluster.roles.len()).collect();
            return Ok(links(&all, &all));
        }
        self.links(cluster)
    }

    /// `A -> B`, `A <-> B`, with `*` for every node.
    pub fn links(&mut self, cluster: &Cluster) -> Result<Vec<Link>, Mistake> {
        let from = self.end_of_link(cluster)?;
        let arrow = self.take("an arrow, `->` or `<->`")?;
        let to = self.end_of_link(cluster)?;
        match arrow {
            "->" => Ok(links(&from, &to)),
            "<->" => Ok([links(&from, &to), links(&to, &from)].concat()),
            _ => Err(Mistake::new(arrow, "is no arrow: write `->` for one way, `<->` for both")),
        }
    }

    fn end_of_link(&mut self, cluster: &Cluster) -> Result<Vec<usize>, Mistake> {
        if self.take_if("*") {
            return Ok((0..cluster.roles.len()).collect());
        }
        self.node(cluster).map(|node| vec![node])
    }
}

fn links(from: &[usize], to: &[usize]) -> Vec<Link> {
    let pairs = from.iter().flat_map(|&from| to.iter().map(move |&to| (from, to)));
    pairs.filter(|(from, to)| from != to).collect()
}
