//! Citations of the protocol's rules: each cited rule has to be on its page, and
//! each rule there has to be broken by a mutant, whose documentation cites it.

use std::{collections::BTreeSet, path::Path};

use super::Finding;

/// The page with the rules.
pub(super) const PAGE: &str = "docs/protocol.md";

/// What a file is called that lists mutants.
const MUTANTS: &str = "mutant.rs";

/// The wrong citations in these texts, and rules that no mutant breaks. `page` is the text of [`PAGE`], if that
/// exists.
pub(super) fn check<'a>(
    texts: impl Iterator<Item = (&'a Path, &'a str)>,
    page: Option<&str>,
) -> Vec<Finding> {
    let rules = page.map(rules_of);
    let mut cited = 0;
    // Of the mutants, if these texts list any.
    let mut broken: Option<BTreeSet<u32>> = None;
    let mut findings = Vec::new();
    for (file, text) in texts {
        if file.file_name().is_some_and(|name| name == MUTANTS) {
            let docs = cited_in(&docs_of(text)).into_iter().map(|(number, _)| number);
            broken.get_or_insert_default().extend(docs);
        }
        for (number, line) in cited_in(text) {
            cited += 1;
            if rules.as_ref().is_some_and(|rules| !rules.contains(&number)) {
                findings.push(Finding::new(file, line, format!("{PAGE} has no rule {number}")));
            }
        }
    }
    if let (Some(rules), Some(broken)) = (&rules, &broken) {
        for number in rules.difference(broken) {
            let rule = format!("no mutant breaks rule {number}, or none says so in a {MUTANTS}");
            findings.push(Finding::new(Path::new(PAGE), 1, rule));
        }
    }
    if rules.is_none() && cited > 0 {
        let rule = format!("this page is missing: {cited} places cite its rules");
        findings.push(Finding::new(Path::new(PAGE), 1, rule));
    }
    findings
}

/// The rules of a page: headings `## Rule 7: …`, and below a heading that speaks of
/// rules also `7. …` and `**Rule 7**`, in a list or not.
fn rules_of(page: &str) -> BTreeSet<u32> {
    let mut rules = BTreeSet::new();
    let mut among_rules = false;
    for line in page.lines() {
        let text = line.trim_start_matches('#');
        let is_heading = text.len() < line.len() && text.starts_with(' ');
        let text = text.trim_start();
        let titled = text.trim_start_matches("- ").trim_start_matches("**").strip_prefix("Rule ");
        if let Some(number) = titled.and_then(number_at).filter(|_| is_heading || among_rules) {
            rules.insert(number);
        } else if is_heading {
            among_rules = text.split(' ').any(|word| word.eq_ignore_ascii_case("rules"));
        } else if let Some(number) = number_at(text).filter(|_| among_rules) {
            let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
            if digits.starts_with(". ") {
                rules.insert(number);
            }
        }
    }
    rules
}

/// The number that a text begins with.
fn number_at(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// Numbers of rules that a text cites, each with its line: "rule 7", "rules 3, 4 and
/// 10", "rules 1–13".
fn cited_in(text: &str) -> Vec<(u32, usize)> {
    let text = without_markers(text);
    let words = words(&text);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_many = word.text.eq_ignore_ascii_case("rules");
        if !(is_many || word.text.eq_ignore_ascii_case("rule")) {
            continue;
        }
        let mut before = word;
        for word in words.iter().skip(at + 1) {
            if !before.goes_on {
                break;
            }
            if let Ok(number) = word.text.parse() {
                found.push((number, word.line));
                if !is_many {
                    break;
                }
            } else if !(is_many && ["and", "or", "to"].contains(&word.text)) {
                break;
            }
            before = word;
        }
    }
    found
}

/// The documentation of what is in a source; the other lines are empty.
fn docs_of(source: &str) -> String {
    let docs = source.lines().map(|line| if line.trim_start().starts_with("///") { line } else { "" });
    docs.collect::<Vec<_>>().join("\n")
}

/// A text without comment markers, so that a sentence continues on the next line.
fn without_markers(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!', '#']).trim());
    lines.collect::<Vec<_>>().join("\n")
}

/// A word, and whether the next one belongs to it.
struct Word<'a> {
    text: &'a str,
    /// 1-based.
    line: usize,
    /// Between this number and the next there is only punctuation or a word that
    /// joins numbers, and no empty line.
    goes_on: bool,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut line, mut rest) = (1, text);
    while let Some(start) = rest.find(char::is_alphanumeric) {
        let (before, from) = rest.split_at(start);
        line += before.matches('\n').count();
        let end = from.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(from.len());
        let (text, after) = from.split_at(end);
        let between = after.split(char::is_alphanumeric).next().unwrap_or(after);
        let goes_on =
            between.chars().all(|c| matches!(c, ' ' | ',' | '–' | '\n')) && !between.contains("\n\n");
        words.push(Word { text, line, goes_on });
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors for a text if the page says this.
    fn found(text: &str, page: Option<&str>) -> Vec<String> {
        let texts = [(Path::new("a.rs"), text)];
        check(texts.into_iter(), page).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_that_is_on_no_page_is_found() {
        let page = "# Protocol\n\n## Rules\n\n1. Ballots.\n2. The lease.\n";
        let (two, three) = (format!("/// ({} 2)", "rule"), format!("//! A.\n/// ({} 3)", "rule"));
        assert_eq!(found(&two, Some(page)), [""; 0]);
        assert_eq!(found(&three, Some(page)), ["a.rs:2: docs/protocol.md has no rule 3"]);
    }

    #[test]
    fn a_rule_that_no_mutant_breaks_is_found() {
        let page = "## Rules\n1. A.\n2. B.\n3. C.\n";
        let list = |docs: &str| {
            let text = format!("//! Not ({0} 3).\n// Nor {0} 3.\n{docs}\n", "rule");
            let texts = [(Path::new("a/mutant.rs"), text.as_str()), (Path::new("a.rs"), "/// None.")];
            check(texts.into_iter(), Some(page)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (rule, rules) = ("rule", "rules");
        let missed = "docs/protocol.md:1: no mutant breaks rule 3, or none says so in a mutant.rs";
        assert_eq!(
            list(&format!("    /// It votes twice ({rules} 1\n    /// and 2).\n    A = \"a\";")),
            [missed]
        );
        assert_eq!(list(&format!("/// A ({rules} 1 and 2).\nA = \"a\";\n/// B ({rule} 3).")), [""; 0]);
    }

    #[test]
    fn a_page_that_is_missing_is_one_finding() {
        let text = format!("{0} 1, {0} 2", "rule");
        let missing = "docs/protocol.md:1: this page is missing: 2 places cite its rules";
        assert_eq!(found(&text, None), [missing]);
        assert_eq!(found("no word of any", None), [""; 0]);
    }

    #[test]
    fn rules_are_headings_or_items_below_a_heading_about_them() {
        let rules = |page| rules_of(page).into_iter().collect::<Vec<_>>();
        assert_eq!(rules("### Rule 1: ballots\n## Rule 12\ntext\n"), [1, 12]);
        assert_eq!(
            rules("## The rules\n1. A.\n 2. B.\n**Rule 3** C.\n- **Rule 4**: D.\nRule 5. E\n"),
            [1, 2, 3, 4, 5]
        );
        assert_eq!(rules("1. A.\n## Rules\n### Rule 7: a\n8. B.\n9 C\n10.5 D\n## Words\n11. E.\n"), [7, 8]);
    }

    #[test]
    fn citations_are_read_across_lines_and_one_after_the_other() {
        let (rule, rules) = ("rule", "rules");
        assert_eq!(cited_in(&format!("({rule} 7). 200 ms, {rule} 3, 4 times")), [(7, 1), (3, 1)]);
        assert_eq!(cited_in(&format!("//! By ({rule}\n//! 8), and\n# {rule}\n# 9\n")), [(8, 2), (9, 4)]);
        assert_eq!(cited_in(&format!("{rules} 3, 4 and 10; 5")), [(3, 1), (4, 1), (10, 1)]);
        assert_eq!(cited_in(&format!("{rules} 1–13, {rules} 2 to 4")), [(1, 1), (13, 1), (2, 1), (4, 1)]);
        assert_eq!(
            cited_in("a rule of 7, rulers 8, rule_9, the rule. 10 nodes, rule\n\n11. Next, rule\n- 12"),
            []
        );
    }
}
