//! The seeded simulation of the shipped engine, and the proof that it can fail.

use vip_tests::sim::{self, Mutant, Summary, Violation};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 1500;
/// Seeds within which each mutant must have been caught.
const MUTANT_SEEDS: u64 = 300;

#[test]
fn every_seed_is_safe_and_live() {
    let mut summary = Summary::default();
    for seed in 0..SEEDS {
        let outcome = sim::run(seed);
        summary.add(&outcome);
        if outcome.result.is_err() {
            println!("{outcome}");
        }
    }
    println!("{summary}");
    assert!(summary.failed.is_empty(), "{} seeds failed; see above", summary.failed.len());
    // A simulation in which nothing happens would be safe, too.
    assert!(summary.moves > SEEDS, "hardly any failover was simulated");
    assert!(!summary.failovers.is_empty() && !summary.handovers.is_empty(), "no drill took place");
}

/// Found by long runs outside of [`SEEDS`].
///
/// 16,715: two candidates, a round trip longer than a slot; the loser of a duel
/// waited for nearly T_accept while what it had left with its own acceptor
/// kept the winner out, again and again.
///
/// 504,250: a process is stopped while it holds a command's answer in its hands;
/// the simulation itself was wrong to miss it.
const ONCE_FAILED: [u64; 2] = [16_715, 504_250];

#[test]
fn seeds_that_once_failed_pass() {
    for seed in ONCE_FAILED {
        let outcome = sim::run(seed);
        assert!(outcome.result.is_ok(), "{outcome}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(sim::run(seed), sim::run(seed));
    }
}

fn assert_caught(mutant: Mutant) {
    let caught = (0..MUTANT_SEEDS).find_map(|seed| {
        let failure = sim::run_mutant(seed, mutant).result.err()?;
        matches!(failure.violation, Violation::TwoHolders { .. }).then_some((seed, failure.violation))
    });
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutant:?} went unnoticed"));
    println!("{mutant:?}: seed {seed}: {violation}");
}

#[test]
fn clocks_beyond_the_margin_are_caught() {
    assert_caught(Mutant::ClockRate);
}

#[test]
fn a_release_before_the_map_write_is_caught() {
    assert_caught(Mutant::SendBeforeStore);
}

#[test]
fn a_start_without_silence_is_caught() {
    assert_caught(Mutant::NoSilence);
}

#[test]
fn acceptors_shorter_than_the_lease_are_caught() {
    assert_caught(Mutant::ShortAcceptor);
}
