//! The program behind `cargo xtask sim`: arguments in, exit code out. Everything
//! else is in the library.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use vip_sim::{
    self as sim, Summary,
    scenario::{self, Replay},
};

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
    /// End after this time, however many seeds are left
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    at_most: Option<Duration>,
    /// Print everything that happens in each seed, on one core
    #[arg(long)]
    trace: bool,
    /// Replay this scenario instead, with everything that happens in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "start", "at_most", "json"])]
    scenario: Option<PathBuf>,
    /// Break the world around the agents on purpose, in each way, and require that it is noticed
    #[arg(long, conflicts_with_all = ["seeds", "start", "at_most", "json", "trace", "scenario"])]
    broken: bool,
    /// Write the summary there, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(file) = args.scenario {
        return replay(&file);
    }
    if args.broken {
        return Ok(broken());
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(Arc::clone(&stop)).context("cannot wait for Ctrl-C")?;
    if let Some(time) = args.at_most {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
    }
    let seeds = args.start..args.start.saturating_add(args.seeds);
    let mut summary = Summary::default();
    if args.trace {
        for seed in seeds.take_while(|_| !stop.load(Ordering::Relaxed)) {
            let (outcome, lines) = sim::trace(seed);
            print(&lines)?;
            println!("{outcome}");
            summary.add(&outcome);
        }
    } else {
        sim::run_all(seeds, &stop, |outcome| {
            if outcome.result.is_err() {
                println!("{outcome}");
            }
            summary.add(&outcome);
        });
    }
    println!("{summary}");
    if let Some(file) = args.json {
        let json = summary.to_json().context("cannot write the summary as JSON")?;
        fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // Without a seed, the run has shown nothing.
    let passed = summary.failed.is_empty() && summary.schedules > 0;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Breaks the world in each way; a line each.
fn broken() -> ExitCode {
    let mut are_good = true;
    for noticed in sim::look_for_all() {
        are_good &= noticed.is_good();
        let mutant = noticed.mutant;
        match (&noticed.wrong, &noticed.by) {
            (Some((seed, violation)), _) => println!("broken {mutant:?}: seed {seed} is worse: {violation}"),
            (None, Some((seed, violation))) => println!("broken {mutant:?}: seed {seed}: {violation}"),
            (None, None) => println!("broken {mutant:?}: missed"),
        }
    }
    if are_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(file: &Path) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let scenario = match scenario::parse(file, &text) {
        Ok(scenario) => scenario,
        Err(mistake) => {
            println!("{mistake}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let Replay { result, trace, stats } = scenario.run(usize::MAX);
    print(&trace)?;
    if let Err(broken) = result {
        println!("{broken}");
        return Ok(ExitCode::FAILURE);
    }
    println!("{}: as expected, {:?} simulated, {} moves", file.display(), stats.simulated, stats.moves);
    Ok(ExitCode::SUCCESS)
}

/// Prints a trace, which may be long: the reader may stop early.
fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).context("cannot print the trace")
}

/// Ctrl-C once ends the run with the summary so far; twice, the program.
fn stop_on_interrupt(stop: Arc<AtomicBool>) -> nix::Result<()> {
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    // Threads inherit the mask; one of them waits for the signal.
    interrupt.thread_block()?;
    thread::spawn(move || {
        if interrupt.wait().is_ok() {
            stop.store(true, Ordering::Relaxed);
            // The next Ctrl-C has its default effect again.
            let _ = interrupt.thread_unblock();
            loop {
                thread::park();
            }
        }
    });
    Ok(())
}
