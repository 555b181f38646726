//! `cargo xtask ci`: everything that a change has to pass. `.ci/run` calls it.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use crate::{
    build::{self, Warnings},
    model, mutants,
    place::Place,
    process,
    setup::{self, Need, Tools},
    sim,
    tally::Tally,
    test::{self, TestArgs},
    tidy,
    vm::{self, VmArgs},
};

/// `cargo xtask ci`: all checks, also after one has failed, so that one run
/// tells everything, how long each took included. Each check before the tests counts as one in the last line.
///
/// # Errors
/// When a tool is missing.
pub(crate) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let tools = setup::ensure(place, Need::Ci)?;
    let mut report = Report::default();
    report.check("fmt", || succeeds(place.cargo().args(["fmt", "--all", "--check"])))?;
    report.check("tidy", || Ok(tidy::check(place)?.is_empty()))?;
    let built = report.check("build", || build_all(place, &tools))?;
    if built {
        report.check("clippy", || succeeds(&mut clippy(place)))?;
        if let Some(status) = build::clippy_object(place, &tools)? {
            report.check("clippy for BPF", || Ok(status.success()))?;
        } else {
            eprintln!("ci: skips clippy for BPF: {} comes without clippy", tools.rustc.path.display());
            report.tally.skipped += 1;
        }
        report.check("simulation", || sim::check(place))?;
        report.check("model", || model::check(place))?;
        report.check("mutants", || mutants::check(place))?;
        let begun = Instant::now();
        report.tally.add(test::all(place, &TestArgs::default())?);
        report.took.push(("tests", begun.elapsed()));
        println!("\n=== vm");
        let begun = Instant::now();
        report.tally.add(vm::all(place, &VmArgs::default())?);
        report.took.push(("vm", begun.elapsed()));
    }
    println!();
    for (name, took) in &report.took {
        println!("{:>5.0} s  {name}", took.as_secs_f64());
    }
    for line in &report.failures {
        println!("failed: {line}");
    }
    println!("{}", report.tally);
    Ok(if report.tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Report {
    tally: Tally,
    failures: Vec<&'static str>,
    took: Vec<(&'static str, Duration)>,
}

impl Report {
    fn check(
        &mut self,
        name: &'static str,
        check: impl FnOnce() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        println!("\n=== {name}");
        let begun = Instant::now();
        let good = check().or_else(|error| {
            process::check_stop()?;
            eprintln!("ci: {error:#}");
            anyhow::Ok(false)
        })?;
        self.took.push((name, begun.elapsed()));
        self.tally.check(good);
        if !good {
            self.failures.push(name);
        }
        Ok(good)
    }
}

fn build_all(place: &Place, tools: &Tools) -> anyhow::Result<bool> {
    build::object(place, tools, Warnings::Deny)?;
    build::host_programs(place, "release", [["vip-ctl", "vip-ctl"]])?;
    Ok(true)
}

fn clippy(place: &Place) -> Command {
    let mut command = place.cargo();
    command.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    command
}

fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    Ok(process::run(command)?.success())
}
