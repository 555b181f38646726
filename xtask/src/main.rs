//! Entry point of `cargo xtask`: the command line and nothing else. Each verb
//! lives in a file of its own name; [`place`] and [`process`] are what they
//! share.
//!
//! This program is compiled before the BPF object exists, so it must not depend
//! on `vip-ctl`: verbs that need it build it and run it.

mod bench;
mod build;
mod ci;
mod demo;
mod dist;
mod load;
mod model;
mod mutants;
mod place;
mod process;
mod setup;
mod sim;
mod stall;
mod tally;
mod test;
mod tidy;
mod unload;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::place::Place;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, test and package vip", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find the tools that building needs; install what is missing
    Setup,
    /// Build the BPF object, then vip-ctl with the object embedded
    Build(build::BuildArgs),
    /// Build, then put the data plane on an interface (arguments of `vip-ctl load`)
    #[command(disable_help_flag = true)]
    Load(PassThrough),
    /// Build, then take the data plane away (arguments of `vip-ctl unload`)
    #[command(disable_help_flag = true)]
    Unload(PassThrough),
    /// Run a cluster in network namespaces, break it, show what happened
    #[command(disable_help_flag = true)]
    Demo(PassThrough),
    /// Measure agents in network namespaces: `agent` their cost, `hold` the leases that they lose
    #[command(disable_help_flag = true)]
    Bench(PassThrough),
    /// Simulate the lease protocol from seeds (`--seeds N`, `--start S`)
    #[command(disable_help_flag = true)]
    Sim(PassThrough),
    /// Check the lease protocol exhaustively for small clusters, and that the check catches mutants
    #[command(disable_help_flag = true)]
    Model(PassThrough),
    /// Break the code on purpose, one mutant at a time, and report which check notices it
    Mutants(mutants::MutantsArgs),
    /// Run all tests
    Test(test::TestArgs),
    /// Run tests of the lab on Debian's kernels 6.1 and 6.12, in a virtual machine
    Vm(vm::VmArgs),
    /// Make the Debian package and the tarball
    Dist(dist::DistArgs),
    /// Check the house rules that clippy does not know: file lengths, imports, citations
    Tidy,
    /// Check formatting, run tidy, build, clippy and all tests, some on other kernels, too; a warning is an error
    Ci,
}

/// Arguments that belong to the program that the verb runs, `--help` included.
#[derive(clap::Args)]
pub(crate) struct PassThrough {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<std::ffi::OsString>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.verb) {
        Ok(code) => code,
        Err(error) => {
            if let Some(stop) = error.downcast_ref::<process::Interrupted>() {
                eprintln!("xtask: {stop}");
                return stop.exit_code();
            }
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    process::catch_signals()?;
    let place = Place::find()?;
    match verb {
        Verb::Setup => setup::run(&place),
        Verb::Build(args) => build::run(&place, &args),
        Verb::Load(pass) => load::run(&place, &pass.args),
        Verb::Unload(pass) => unload::run(&place, &pass.args),
        Verb::Demo(pass) => demo::run(&place, &pass.args),
        Verb::Bench(pass) => bench::run(&place, &pass.args),
        Verb::Sim(pass) => sim::run(&place, &pass.args),
        Verb::Model(pass) => model::run(&place, &pass.args),
        Verb::Mutants(args) => mutants::run(&place, &args),
        Verb::Test(args) => test::run(&place, &args),
        Verb::Vm(args) => vm::run(&place, &args),
        Verb::Dist(args) => dist::run(&place, &args),
        Verb::Tidy => tidy::run(&place),
        Verb::Ci => ci::run(&place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_a_passed_through_verb_is_not_ours() {
        let cli = Cli::try_parse_from(["xtask", "demo", "--help", "--lease", "200ms"]).expect("parses");
        match cli.verb {
            Verb::Demo(pass) => assert_eq!(pass.args, ["--help", "--lease", "200ms"]),
            Verb::Setup
            | Verb::Build(_)
            | Verb::Load(_)
            | Verb::Unload(_)
            | Verb::Bench(_)
            | Verb::Sim(_)
            | Verb::Model(_)
            | Verb::Mutants(_)
            | Verb::Test(_)
            | Verb::Vm(_)
            | Verb::Dist(_)
            | Verb::Tidy
            | Verb::Ci => panic!("another verb was parsed"),
        }
    }
}
