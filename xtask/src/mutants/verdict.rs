//! The verdict on a mutant from its checkers' answers, and its text.
//! [`super::ask`] runs the checkers.

use std::{fmt, path::PathBuf};

/// The package that a mutant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// The lease engine.
    Engine,
    /// The core of the lease thread around it: vip-lease.
    Lease,
    /// The code that connects that to sockets, files and the data plane: vip-ctl.
    Glue,
}

/// A way to be broken, as the code lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutant {
    pub(super) home: Home,
    pub(super) name: String,
    /// Why no check can notice it; `None` if one can.
    pub(super) harmless: Option<String>,
}

/// Reads a list: `HOME<tab>NAME<tab>WHY` a line, with nothing for WHY if the
/// mutant does harm. Ignores other lines that the program prints.
pub(super) fn parse_list(text: &str) -> Vec<Mutant> {
    let parse = |line: &str| {
        let mut fields = line.split('\t');
        let home = match fields.next()? {
            "engine" => Home::Engine,
            "lease" => Home::Lease,
            "glue" => Home::Glue,
            _ => return None,
        };
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let harmless = fields.next().filter(|why| !why.is_empty()).map(str::to_owned);
        Some(Mutant { home, name, harmless })
    };
    text.lines().filter_map(parse).collect()
}

/// The mutants with these names, or all; the error names one that does not exist,
/// and similar ones.
pub(super) fn choose(all: Vec<Mutant>, names: &[String]) -> Result<Vec<Mutant>, String> {
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|mutant| mutant.name == **name)) {
        let mut near: Vec<_> = all
            .iter()
            .map(|mutant| (unlikeness(unknown, &mutant.name), mutant.name.as_str()))
            .filter(|(unlikeness, _)| *unlikeness <= unknown.len() / 2)
            .collect();
        near.sort_unstable();
        near.truncate(3);
        let near: Vec<_> = near.into_iter().map(|(_, name)| name).collect();
        let hint = if near.is_empty() {
            "leave the name out to check all of them".to_owned()
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        return Err(format!("there is no mutant {unknown:?}: {hint}"));
    }
    Ok(all.into_iter().filter(|mutant| names.is_empty() || names.contains(&mutant.name)).collect())
}

/// How many letters have to be changed, put in or taken out; nothing, where
/// one is a part of the other.
fn unlikeness(a: &str, b: &str) -> usize {
    if !a.is_empty() && (a.contains(b) || b.contains(a)) {
        return 0;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in (1..).zip(a.chars()) {
        let mut diagonal = std::mem::replace(&mut row[0], i);
        for (j, y) in (1..).zip(&b) {
            let other = diagonal + usize::from(x != *y);
            diagonal = row[j];
            row[j] = other.min(diagonal + 1).min(row[j - 1] + 1);
        }
    }
    row[b.len()]
}

/// A checker that may notice a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checker {
    /// The engine's unit tests, but for the slow ones.
    UnitTests,
    /// The slow ones.
    SlowUnitTests,
    /// The scenarios.
    Scenarios,
    /// This many seeds of the simulation.
    Simulation(u64),
    /// The model check.
    Model,
    /// Those of vip-lease's unit tests that run engines.
    GroupTests,
    /// vip-lease's unit tests of the module that a mutant's name begins with.
    NearLeaseTests,
    /// All of vip-lease's unit tests, but for the slow ones.
    LeaseTests,
    /// The slow ones.
    SlowLeaseTests,
    /// vip-ctl's unit tests that run code of vip-lease.
    LoopTests,
    /// vip-ctl's unit tests of the module that a mutant's name begins with.
    NearGlueTests,
    /// All of vip-ctl's unit tests, but for the slow ones.
    GlueTests,
    /// The slow ones.
    SlowGlueTests,
}

/// The least part of a checker that gives the same answer again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// This test.
    Test(String),
    /// This scenario.
    Scenario(PathBuf),
    /// This seed.
    Seed(u64),
    /// All of it.
    All,
}

/// The answer of a checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All is well.
    Well,
    /// Something is wrong: which part says so, and the part to run again; `None`
    /// if that part was seen to pass without the mutant.
    Wrong(String, Option<Again>),
}

/// The verdict on a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This one noticed it.
    Caught(String),
    /// Nobody can notice it, and nobody did.
    Harmless(String),
    /// Nobody should be able to notice it, and this one did.
    SaidHarmless(String),
    /// This one says the same without the mutant.
    NoJudge(String),
    /// Nobody noticed it.
    Missed,
}

impl Verdict {
    pub(super) const fn is_good(&self) -> bool {
        match self {
            Self::Caught(_) | Self::Harmless(_) => true,
            Self::SaidHarmless(_) | Self::NoJudge(_) | Self::Missed => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(who) => write!(f, "caught by {who}"),
            Self::Harmless(why) => write!(f, "harmless, {why}"),
            Self::SaidHarmless(who) => write!(f, "said to be harmless, caught by {who}"),
            Self::NoJudge(who) => write!(f, "missed, since {who} fails without it, too"),
            Self::Missed => f.write_str("missed"),
        }
    }
}

/// Runs one checker after the other until one notices the mutant. Runs that one
/// again without the mutant: a test that fails anyway has caught nothing.
pub(super) fn judge<E>(
    mutant: &Mutant,
    checkers: &[Checker],
    mut ask: impl FnMut(Checker, Option<&str>, &Again) -> Result<Answer, E>,
) -> Result<Verdict, E> {
    for &checker in checkers {
        let Answer::Wrong(who, again) = ask(checker, Some(&mutant.name), &Again::All)? else { continue };
        if let Some(again) = again
            && let Answer::Wrong(..) = ask(checker, None, &again)?
        {
            return Ok(Verdict::NoJudge(who));
        }
        return Ok(match mutant.harmless {
            Some(_) => Verdict::SaidHarmless(who),
            None => Verdict::Caught(who),
        });
    }
    Ok(mutant.harmless.clone().map_or(Verdict::Missed, Verdict::Harmless))
}

/// The counts of all verdicts; the last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    caught: usize,
    harmless: usize,
    missed: usize,
    bad: usize,
}

impl Sum {
    pub(super) fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Caught(_) | Verdict::SaidHarmless(_) => self.caught += 1,
            Verdict::Harmless(_) => self.harmless += 1,
            Verdict::NoJudge(_) | Verdict::Missed => self.missed += 1,
        }
        self.bad += usize::from(!verdict.is_good());
    }

    /// Good if nothing is wrong with any of them, and there were some.
    pub(super) const fn is_good(self) -> bool {
        self.bad == 0 && self.caught > 0
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} caught, {} harmless, {} missed", self.caught, self.harmless, self.missed)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn mutant(name: &str, harmless: Option<&str>) -> Mutant {
        Mutant { home: Home::Engine, name: name.to_owned(), harmless: harmless.map(str::to_owned) }
    }

    fn test(name: &str) -> Answer {
        Answer::Wrong(format!("unit test {name}"), Some(Again::Test(name.to_owned())))
    }

    const BOTH: [Checker; 2] = [Checker::UnitTests, Checker::Simulation(10)];

    /// Who was asked what, and the verdict, where each answers by `answer`.
    fn asked(
        mutant: &Mutant,
        answer: impl Fn(Checker, Option<&str>) -> Answer,
    ) -> (Vec<(Checker, bool, Again)>, Verdict) {
        let mut asked = Vec::new();
        let verdict = judge(mutant, &BOTH, |checker, mutant, again| {
            asked.push((checker, mutant.is_some(), again.clone()));
            Ok::<_, Infallible>(answer(checker, mutant))
        });
        let Ok(verdict) = verdict;
        (asked, verdict)
    }

    #[test]
    fn the_first_to_notice_is_asked_the_same_without_the_mutant_and_no_other() {
        let (asked, verdict) = asked(&mutant("x", None), |_, mutant| match mutant {
            Some(_) => test("a"),
            None => Answer::Well,
        });
        let again = Again::Test("a".into());
        assert_eq!(asked, [(BOTH[0], true, Again::All), (BOTH[0], false, again)]);
        assert_eq!(verdict.to_string(), "caught by unit test a");
        assert!(verdict.is_good());
    }

    #[test]
    fn who_fails_anyway_has_caught_nothing() {
        let (_, verdict) = asked(&mutant("x", None), |_, _| test("a"));
        assert_eq!(verdict.to_string(), "missed, since unit test a fails without it, too");
        assert!(!verdict.is_good());
    }

    #[test]
    fn nobody_noticing_is_a_miss_unless_nobody_can() {
        let well = |_: Checker, _: Option<&str>| Answer::Well;
        let (all, verdict) = asked(&mutant("x", None), well);
        assert_eq!((all.len(), verdict), (2, Verdict::Missed));
        let (_, verdict) = asked(&mutant("x", Some("it is asked twice")), well);
        assert_eq!(verdict.to_string(), "harmless, it is asked twice");
        let (_, verdict) = asked(&mutant("x", Some("it is asked twice")), |_, mutant| match mutant {
            Some(_) => test("a"),
            None => Answer::Well,
        });
        assert_eq!(verdict.to_string(), "said to be harmless, caught by unit test a");
        assert!(!verdict.is_good());
    }

    #[test]
    fn the_sum_counts_each_once_and_is_good_only_if_all_are() {
        let mut sum = Sum::default();
        assert!(!sum.is_good(), "nobody was asked");
        sum.add(&Verdict::Caught("model".into()));
        sum.add(&Verdict::Harmless("so".into()));
        assert!(sum.is_good());
        assert_eq!(sum.to_string(), "1 caught, 1 harmless, 0 missed");
        for bad in [Verdict::Missed, Verdict::NoJudge("sim".into()), Verdict::SaidHarmless("sim".into())] {
            let mut sum = sum;
            sum.add(&bad);
            assert!(!sum.is_good(), "{bad}");
        }
    }

    #[test]
    fn a_list_is_read_among_other_lines() {
        let text = "running 1 test\nengine\tno-margin\t\nglue\tasks-twice\tthe second is dropped\nengine\n";
        let glue = Mutant { home: Home::Glue, ..mutant("asks-twice", Some("the second is dropped")) };
        assert_eq!(parse_list(text), [mutant("no-margin", None), glue]);
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_are_like_it() {
        let all =
            || ["silence-too-short", "stands-in-its-silence", "no-margin"].map(|n| mutant(n, None)).to_vec();
        let choose =
            |names: &[&str]| choose(all(), &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(choose(&[]).map(|chosen| chosen.len()), Ok(3));
        assert_eq!(choose(&["no-margin"]), Ok(vec![mutant("no-margin", None)]));
        let told = |name| choose(&["no-margin", name]).expect_err("there is none");
        assert_eq!(told("no-magrin"), "there is no mutant \"no-magrin\": did you mean no-margin?");
        assert!(told("silence").ends_with("did you mean silence-too-short or stands-in-its-silence?"));
        assert!(told("zzzz").ends_with("leave the name out to check all of them"));
    }
}
