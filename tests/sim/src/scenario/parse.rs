//! From the text of a scenario to its steps. Every mistake names the file, the
//! line and the word, and says what to write.

use std::path::Path;

use super::{
    Broken, Line, Scenario, Wait,
    cluster::{Cluster, Draft, SETTINGS},
    verbs::VERBS,
    words::{Mistake, Words},
};

/// The most times that a step is repeated.
const REPEAT_MAX: u64 = 10_000;

/// A block that is repeated.
struct Repeat {
    line: usize,
    times: u64,
    /// Lines before its first one.
    before: usize,
}

/// Reads a scenario from `text`; `file` is only named.
///
/// # Errors
/// The first mistake.
pub fn parse(file: &Path, text: &str) -> Result<Scenario, Broken> {
    let mut draft = Draft::default();
    let mut cluster: Option<Cluster> = None;
    let mut lines: Vec<Line> = Vec::new();
    let mut repeats: Vec<Repeat> = Vec::new();
    for (number, written) in (1..).zip(text.lines()) {
        let text = written.split_once('#').map_or(written, |(text, _)| text).trim();
        let words: Vec<_> = text.split_whitespace().collect();
        let broken = |mistake: Mistake| Broken {
            file: file.to_owned(),
            line: number,
            text: if mistake.word.is_empty() { text.to_owned() } else { mistake.word },
            why: mistake.why,
        };
        let Some((&first, rest)) = words.split_first() else { continue };
        if SETTINGS.iter().any(|(name, _)| *name == first) {
            if cluster.is_some() {
                return Err(broken(Mistake::new("", "the cluster is described before the first step")));
            }
            draft.set(first, &mut Words(rest)).map_err(|mistake| broken(with_usage(mistake, first)))?;
            continue;
        }
        let cluster = match &mut cluster {
            Some(cluster) => cluster,
            None => cluster.insert(draft.finish().map_err(broken)?),
        };
        match first {
            "repeat" => {
                let mut words = Words(rest);
                let times = words.number().and_then(|times| words.end().map(|()| times)).map_err(broken)?;
                if times == 0 || times > REPEAT_MAX {
                    let why = format!("write a number from 1 to {REPEAT_MAX}");
                    return Err(broken(Mistake::new("", why)));
                }
                repeats.push(Repeat { line: number, times, before: lines.len() });
            }
            "end" => {
                let repeat =
                    repeats.pop().ok_or_else(|| broken(Mistake::new("", "there is no `repeat` to end")))?;
                let block = lines.split_off(repeat.before);
                for _ in 0..repeat.times {
                    lines.extend_from_slice(&block);
                }
            }
            _ => lines.push(line(number, text, &words, cluster).map_err(broken)?),
        }
    }
    let mistake = |line: usize, text: &str, why: &str| Broken {
        file: file.to_owned(),
        line,
        text: text.to_owned(),
        why: why.to_owned(),
    };
    if let Some(repeat) = repeats.first() {
        return Err(mistake(repeat.line, "repeat", "is not ended: write `end` after the last step of it"));
    }
    let cluster = cluster.ok_or_else(|| mistake(1, "", "nothing happens here: write steps"))?;
    Ok(Scenario { file: file.to_owned(), cluster, lines })
}

/// A line with a step, or a wait, or both.
fn line(number: usize, text: &str, words: &[&str], cluster: &Cluster) -> Result<Line, Mistake> {
    let mut words = Words(words);
    let wait = if words.take_if("at") {
        Wait::At(words.duration()?)
    } else if words.take_if("after") {
        Wait::After(words.duration()?)
    } else {
        Wait::No
    };
    let mut step = None;
    if let Some(first) = words.peek() {
        let verb = VERBS.iter().find(|verb| verb.name == first).ok_or_else(|| {
            let names: Vec<_> = VERBS.iter().map(|verb| verb.name).chain(["at", "after", "repeat"]).collect();
            let nearest = names.iter().min_by_key(|name| distance(name, first));
            let hint = nearest.filter(|name| distance(name, first) <= 2);
            let hint = hint.map_or(".".to_owned(), |name| format!("; did you mean `{name}`?"));
            Mistake::new(first, format!("is no step{hint} There are {}", names.join(", ")))
        })?;
        words.take("a step")?;
        let parsed = (verb.parse)(&mut words, cluster);
        let parsed = parsed.and_then(|step| words.end().map(|()| step));
        step = Some(parsed.map_err(|mistake| with_usage(mistake, verb.name))?);
    }
    Ok(Line { number, text: text.to_owned(), wait, step })
}

/// The mistake, with how the step is written.
fn with_usage(mistake: Mistake, word: &str) -> Mistake {
    let verb = VERBS.iter().map(|verb| (verb.name, verb.usage)).chain(SETTINGS.iter().copied());
    let usage = verb.into_iter().find(|(name, _)| *name == word).map_or(word, |(_, usage)| usage);
    if mistake.why.contains(usage) {
        return mistake;
    }
    Mistake { why: format!("{}; usage: {usage}", mistake.why), ..mistake }
}

/// How many letters have to be changed, added or left out to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<_> = b.chars().collect();
    let mut row: Vec<_> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "lease 50ms\nnodes a b c\ngroup db a=150\n";

    /// The only mistake of this line, as it is printed.
    fn mistake(line: &str) -> String {
        let text = format!("{CLUSTER}{line}\n");
        let broken = parse(Path::new("x.vip"), &text).expect_err(line).to_string();
        assert!(broken.starts_with("x.vip:4: `"), "{broken}");
        broken
    }

    #[test]
    fn mistakes_name_the_word_and_what_to_write() {
        for (line, word, hint) in [
            ("strat a", "`strat`", "did you mean `start`?"),
            ("start d", "`d`", "it has a, b, c"),
            ("after 5 start a", "`5`", "like `120ms`"),
            ("cut a => b", "`=>`", "write `->`"),
            ("cut a ->", "`cut a ->`", "a node is missing"),
            ("switchover web", "`web`", "it has db"),
            ("switchover db too b", "`too`", "usage: switchover GROUP [to NODE]"),
            ("hold prepares a -> b", "`prepares`", "prepare, promise"),
            ("expect state a db = activ", "`activ`", "standby, active"),
            ("expect leader a", "`leader`", "holder GROUP = NODE"),
            ("loss 120%", "`120%`", "like `20%`"),
            ("group web", "`group web`", "before the first step"),
            ("end", "`end`", "no `repeat`"),
            ("repeat 3", "`repeat`", "write `end`"),
            ("repeat 0", "`repeat 0`", "from 1 to"),
        ] {
            // A setting is too late only after a step.
            let line = if line.starts_with("group") { format!("at 0s\n{line}") } else { line.to_owned() };
            let text = format!("{CLUSTER}{line}\n");
            let broken = parse(Path::new("x.vip"), &text).expect_err(&line).to_string();
            assert!(broken.contains(word) && broken.contains(hint), "{line}: {broken}");
        }
        assert!(mistake("kill").contains("usage: kill NODE...|all"));
    }

    #[test]
    fn a_cluster_that_is_not_complete_is_refused() {
        for (text, hint) in [
            ("nodes a\ngroup db\nstart a", "`lease 200ms`"),
            ("lease 1s\ngroup db\nstart a", "`nodes a b c`"),
            ("lease 1s\nnodes a a", "is there already"),
            ("lease 1s\nnodes a\ngroup db b=1", "is no node"),
            ("lease 1s\nnodes a\ngroup db a=255", "`NODE=254`"),
            ("lease 1s\nnodes a\nclock a fast", "in ppm"),
            ("", "write steps"),
        ] {
            let broken = parse(Path::new("x.vip"), text).expect_err(text).to_string();
            assert!(broken.contains(hint), "{text}: {broken}");
        }
    }

    #[test]
    fn repeated_blocks_may_be_nested() {
        let text = format!("{CLUSTER}repeat 2\n kill a\n repeat 3\n  start a\n end\nend\n");
        let scenario = parse(Path::new("x.vip"), &text).expect("a scenario");
        let numbers: Vec<_> = scenario.lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [5, 7, 7, 7, 5, 7, 7, 7]);
    }
}
