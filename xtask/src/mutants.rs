//! `cargo xtask mutants`: does any check notice when the engine, or the code
//! around it, is broken on purpose? Each mutant is one line of the code; the
//! programs that check the code are built once, and told which mutant to be.
//!
//! [`ask`] runs them, and [`verdict`] judges their answers.

mod ask;
mod verdict;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

use self::{
    ask::Programs,
    verdict::{Checker, Home, Mutant, Sum, choose, judge},
};
use crate::{place::Place, process};

/// Seeds of the simulation for a mutant that no other check has noticed.
const SEEDS: u64 = 2_000;
/// The same in CI.
const SEEDS_IN_CI: u64 = 200;
/// How long CI runs; it leaves the remaining mutants to a run of the whole list.
const CI_LIMIT: Duration = Duration::from_secs(180);
/// How long before that end CI begins no simulation and no model check any more: they can
/// take so long each.
const CI_REST: Duration = Duration::from_secs(60);

/// Arguments of `cargo xtask mutants`.
#[derive(clap::Args, Default)]
pub(crate) struct MutantsArgs {
    /// Check only these mutants
    names: Vec<String>,
    /// How many seeds to simulate for a mutant that no test or scenario has noticed
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
}

/// `cargo xtask mutants`.
///
/// # Errors
/// When something does not build, or there is no mutant of a name. A mutant
/// that is missed is no error, but an exit code.
pub(crate) fn run(place: &Place, args: &MutantsArgs) -> anyhow::Result<ExitCode> {
    let is_good = ask(place, &args.names, args.seeds, None)?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part that fits in a few minutes: each mutant as by default, with fewer
/// seeds. Returns whether all mutants that it got to were caught.
///
/// # Errors
/// When something does not build.
pub(crate) fn check(place: &Place) -> anyhow::Result<bool> {
    ask(place, &[], SEEDS_IN_CI, Some(CI_LIMIT))
}

fn ask(place: &Place, names: &[String], seeds: u64, limit: Option<Duration>) -> anyhow::Result<bool> {
    let programs = Programs::build(place)?;
    let mutants = choose(programs.list()?, names).map_err(anyhow::Error::msg)?;
    let (begin, next) = (Instant::now(), AtomicUsize::new(0));
    let (sum, failed) = (Mutex::new(Sum::default()), Mutex::new(None));
    let left = AtomicUsize::new(0);
    let is_late = |checker| {
        let rest = if takes_long(checker) { CI_REST } else { Duration::ZERO };
        limit.is_some_and(|limit| begin.elapsed() + rest > limit)
    };
    let work = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let asked = |checker, name: Option<&str>, again: &_| {
                // What one has noticed is looked at to the end.
                if name.is_some() && is_late(checker) {
                    return Err(Stop::Late);
                }
                programs.ask(checker, name, again).map_err(Stop::Failed)
            };
            match judge(mutant, &checkers(mutant, seeds), asked) {
                Ok(verdict) => {
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(&verdict);
                    say(&format!("mutant {}: {verdict}", mutant.name));
                }
                Err(Stop::Late) => {
                    left.fetch_add(1, Ordering::Relaxed);
                }
                Err(Stop::Failed(error)) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    process::check_stop()?;
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        bail!(error.context("cannot check all mutants"));
    }
    eprintln!("mutants: checked for {:.0?}", begin.elapsed());
    let left = left.into_inner();
    if left > 0 {
        say(&format!("{left} mutants not checked within {CI_LIMIT:?}: `cargo xtask mutants` checks all"));
    }
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(&sum.to_string());
    Ok(sum.is_good())
}

/// Why a mutant has no verdict.
enum Stop {
    /// There was no time for it.
    Late,
    /// A checker could not be run.
    Failed(anyhow::Error),
}

/// Can this one take a minute for a mutant?
const fn takes_long(checker: Checker) -> bool {
    match checker {
        Checker::Simulation(_) | Checker::Model => true,
        Checker::UnitTests
        | Checker::SlowUnitTests
        | Checker::Scenarios
        | Checker::GroupTests
        | Checker::NearLeaseTests
        | Checker::LeaseTests
        | Checker::SlowLeaseTests
        | Checker::LoopTests
        | Checker::NearGlueTests
        | Checker::GlueTests
        | Checker::SlowGlueTests => false,
    }
}

/// The checkers to run, the quick ones first.
fn checkers(mutant: &Mutant, seeds: u64) -> Vec<Checker> {
    let (unit_tests, others): (&[_], &[_]) = match mutant.home {
        Home::Engine => (
            &[Checker::UnitTests, Checker::SlowUnitTests],
            &[Checker::Scenarios, Checker::Simulation(seeds), Checker::Model, Checker::GroupTests],
        ),
        Home::Lease => (
            &[Checker::NearLeaseTests, Checker::SlowLeaseTests, Checker::LeaseTests, Checker::LoopTests],
            &[Checker::Simulation(seeds)],
        ),
        Home::Glue => (&[Checker::NearGlueTests, Checker::SlowGlueTests, Checker::GlueTests], &[]),
    };
    // A harmless mutant is not worth a long search.
    let others = if mutant.harmless.is_some() { &[] } else { others };
    [unit_tests, others].concat()
}

/// Shows a line at once.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    // A reader that went away is no reason to stop.
    let _unread = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_is_asked_of_the_unit_tests_only() {
        let mutant = |home, harmless: Option<&str>| Mutant {
            home,
            name: "x".into(),
            harmless: harmless.map(str::to_owned),
        };
        let whole = checkers(&mutant(Home::Engine, None), 7);
        assert_eq!(whole.first(), Some(&Checker::UnitTests));
        assert!(whole.contains(&Checker::Simulation(7)) && whole.contains(&Checker::Model));
        let unit_tests = [Checker::UnitTests, Checker::SlowUnitTests];
        assert_eq!(checkers(&mutant(Home::Engine, Some("so")), 7), unit_tests);
        for harmless in [None, Some("so")] {
            let asked = checkers(&mutant(Home::Glue, harmless), 7);
            assert_eq!(asked, [Checker::NearGlueTests, Checker::SlowGlueTests, Checker::GlueTests]);
            let asked = checkers(&mutant(Home::Lease, harmless), 7);
            assert_eq!(asked.contains(&Checker::Simulation(7)), harmless.is_none());
        }
    }

    #[test]
    fn what_does_not_ask_for_mutants_is_built_without() {
        let place = Place::find().expect("it is run in the workspace");
        let built = |args: &[&str]| {
            let mut command = place.cargo();
            command.args(["tree", "--locked", "--offline", "-e", "features", "--prefix", "none"]);
            let tree = process::output_of(command.args(["-f", "{p} [{f}]"]).args(args)).expect("cargo tells");
            let features = tree.lines().filter(|line| line.starts_with("vip-")).filter_map(|line| {
                let (package, features) = line.trim_end_matches(" (*)").rsplit_once(" [")?;
                Some((package.split(' ').next()?.to_owned(), features.contains("mutants")))
            });
            features.collect::<std::collections::BTreeSet<_>>()
        };
        for args in [&["-p", "vip-ctl"][..], &["--workspace"], &[]] {
            let built = built(args);
            assert!(built.contains(&("vip-ctl".into(), false)), "{built:?}");
            assert!(built.iter().all(|(_, is_broken)| !is_broken), "{built:?}");
        }
        // It would be seen.
        assert!(built(&["-p", "vip-ctl", "--features", "mutants"]).contains(&("vip-ctl".into(), true)));
    }
}
