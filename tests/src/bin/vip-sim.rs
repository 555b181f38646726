//! The program behind `cargo xtask sim`: arguments in, exit code out. All it
//! does is in `vip_tests::sim`.

use std::process::ExitCode;

use clap::Parser;
use vip_tests::sim::{self, Summary};

/// Simulates the lease protocol of the shipped engine; a seed decides everything
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 3000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    start: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut summary = Summary::default();
    for seed in args.start..args.start.saturating_add(args.seeds) {
        let outcome = sim::run(seed);
        if outcome.result.is_err() {
            println!("{outcome}");
        }
        summary.add(&outcome);
    }
    println!("{summary}");
    // No seed run has shown nothing.
    if summary.failed.is_empty() && summary.schedules > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
