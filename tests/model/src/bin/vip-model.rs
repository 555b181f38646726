//! `cargo xtask model`: explores every schedule of small clusters of the shipped
//! engine, then shows that the same exploration finds the faults of broken
//! engines. Everything else is in `vip_model`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use vip_model::{self as model, Scope, explore, explore_to, mutants};

/// Checks the lease protocol of the shipped engine exhaustively, within stated bounds
#[derive(Parser)]
#[command(name = "cargo xtask model", bin_name = "cargo xtask model")]
struct Args {
    /// Larger bounds as well; takes long and much memory
    #[arg(long)]
    full: bool,
    /// Only what has this in its name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Show how the mutants are caught
    #[arg(long)]
    traces: bool,
    /// How many seconds one exploration may take; what is not exhausted by then fails
    #[arg(long, default_value_t = 3600)]
    limit: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let begin = Instant::now();
    let limit = Duration::from_secs(args.limit);
    let wanted = |name: &str| args.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let (mut good, mut states, mut done) = (true, 0, 0);
    for scope in if args.full { model::full() } else { model::standard() } {
        if wanted(scope.name) {
            let outcome = explore(scope, limit);
            say(&outcome.to_string());
            good &= outcome.is_good();
            states += outcome.states;
            done += 1;
        }
    }
    let engines = mutants::MUTANTS.into_iter().map(|(mutant, whole)| {
        let broken = Scope { mutant: Some(mutant), ..whole };
        (mutant.name(), broken, whole)
    });
    let memberships = model::LEAPS.into_iter().map(|leap| (leap.name, leap.broken, leap.whole));
    for (name, broken, whole) in engines.chain(memberships) {
        if wanted(name) {
            good &= is_caught(name, broken, whole, limit, args.traces);
            done += 1;
        }
    }
    // Without an exploration, the run has shown nothing.
    good &= done > 0;
    let verdict = if good { "passed" } else { "FAILED" };
    say(&format!("model {verdict}: {states} states besides the mutants', {:.1?}", begin.elapsed()));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Requires that the exploration finds the fault of `broken`, and nothing up to
/// there in `whole`; prints the result.
fn is_caught(name: &str, broken: Scope, whole: Scope, limit: Duration, traces: bool) -> bool {
    let outcome = explore(broken, limit);
    let (verdict, depth) = match outcome.two_holders() {
        Some(violation) => ("caught", violation.depth),
        None => ("missed", outcome.depth),
    };
    let (scope, states) = (broken.name, outcome.states);
    say(&format!("mutant {name}: {verdict} ({scope}: states {states}, depth {depth})"));
    if traces || verdict == "missed" {
        say(&outcome.to_string());
    }
    let clean = explore_to(whole, limit, Some(depth));
    let is_clean = clean.violated.is_none() && clean.took < limit;
    let word = if is_clean { "clean" } else { "NOT CLEAN" };
    say(&format!("  without it {word} to depth {depth} ({} states)", clean.states));
    is_clean && verdict == "caught"
}

/// Shows a line at once: an exploration may take long.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    // A reader that went away is no reason to stop.
    let _unread = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
