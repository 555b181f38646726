//! The command line: a file for each verb, or for a verb and its opposite. A verb
//! asks the agent if one runs, and else works on the pinned maps alone.

mod agent;
mod check;
mod completions;
mod convert;
mod doctor;
mod events;
mod explain;
mod failover;
mod frame_log;
mod history;
mod keygen;
mod load;
mod man;
mod member;
mod metrics;
mod monitor;
mod pause;
mod promote;
mod reload;
mod standby;
mod status;
mod support;
mod switchover;
mod unload;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use self::support::output::{Failure, Format, as_json, print, text_only};
use crate::{exit::Exit, paths::Paths};

/// Moves an IP address between servers in milliseconds, fenced by the kernel.
#[derive(Parser, Debug)]
#[command(name = "vip-ctl", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Examples:\n  vip-ctl status\n  vip-ctl switchover db --to db-b\n  vip-ctl help switchover"
)]
struct Cli {
    #[command(flatten)]
    paths: Paths,
    /// How to print what there is to say.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Put the data plane on this host's interfaces and VIPs under its guard.
    Load(load::Args),
    /// Take the data plane off and put the host back as it was.
    Unload(unload::Args),
    /// Give this node the lease.
    #[command(after_help = "Examples:\n  vip-ctl promote db\n  vip-ctl promote 10.0.1.12")]
    Promote(promote::Args),
    /// Take the lease from its holder.
    #[command(after_help = "Example:\n  vip-ctl demote db")]
    Demote(promote::Args),
    /// Show who holds what, and what was answered, passed and dropped.
    Status(status::Args),
    /// Move the lease to another node of the cluster, as planned.
    Switchover(switchover::Args),
    /// Give the lease to a node, whether or not the holder is there.
    Failover(failover::Args),
    /// Hand over what a node holds, and keep it from taking more.
    Standby(standby::StandbyArgs),
    /// Let a node that was on standby take leases again.
    Unstandby(standby::UnstandbyArgs),
    /// Switch automatic moves off in the whole cluster; leases go on.
    #[command(after_help = "Example:\n  vip-ctl pause")]
    Pause(pause::Args),
    /// Switch automatic moves on again.
    #[command(after_help = "Example:\n  vip-ctl resume")]
    Resume(pause::Args),
    /// Show what happens on this node: changes, hooks, rejected peers, claims.
    Events(events::Args),
    /// Show what moved when and why, and how long it took.
    History(history::Args),
    /// Say why a group is where it is, and what would happen next.
    Explain(explain::Args),
    /// Add or remove a node of the cluster, one at a time.
    Member(member::Args),
    /// Let this node's agent read its configuration again and take its groups
    /// over.
    Reload(reload::Args),
    /// Run this node's agent, in the foreground.
    Agent(agent::Args),
    /// Say what a configuration means, or everything that is wrong with it.
    Check(check::Args),
    /// Make a key for a cluster.
    Keygen(keygen::Args),
    /// Follow what the program on the way in looks up; for debugging.
    FrameLog(frame_log::Args),
    /// Watch the cluster in the terminal, and move groups from there.
    Monitor(monitor::Args),
    /// Print the metrics in Prometheus's text format.
    Metrics(metrics::Args),
    /// Make a vip.toml of a keepalived.conf, and tell what could not be carried over.
    Convert(convert::Args),
    /// Look at everything on this host that decides whether a VIP works here.
    Doctor(doctor::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual page, or write those of all verbs into a directory.
    Man(man::Args),
}

/// The command line, as clap knows it.
#[cfg(test)]
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            if !e.use_stderr() {
                // Help and version go to stdout and are no error.
                let _ = e.print();
                return Exit::Ok.into();
            }
            let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
            if asks_for_json(args) {
                print(&as_json(&Failure::new(Exit::Usage, usage(&e))));
            }
            let _ = e.print();
            return Exit::Usage.into();
        }
    };
    let format = cli.output;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if format == Format::Json {
                print(&as_json(&failure));
            }
            let _ = writeln!(std::io::stderr(), "vip-ctl: {}", failure.message);
            failure.exit.into()
        }
    }
}

/// What is wrong with a command line, without clap's usage text.
fn usage(e: &clap::Error) -> String {
    let no_verb = [ErrorKind::MissingSubcommand, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if no_verb.contains(&e.kind()) {
        return "a verb is missing: `vip-ctl help` names them".to_owned();
    }
    let text = e.render().to_string();
    let paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let what = paragraphs.take_while(|text| !text.starts_with("Usage:") && !text.starts_with("For more"));
    let what = what.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    what.collect::<Vec<_>>().join("; ")
}

/// Does a command line that could not be understood ask for JSON?
fn asks_for_json(args: impl Iterator<Item = String>) -> bool {
    let mut before = String::new();
    for arg in args.take_while(|arg| arg != "--") {
        let is_value = matches!(before.as_str(), "-o" | "--output") && arg == "json";
        if is_value || matches!(arg.as_str(), "-ojson" | "-o=json" | "--output=json") {
            return true;
        }
        before = arg;
    }
    false
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let (paths, format) = (&cli.paths, cli.output);
    match cli.verb {
        Verb::Load(args) => load::run(&args, paths, format),
        Verb::Unload(args) => unload::run(&args, paths, format),
        Verb::Promote(args) => promote::promote(&args, paths, format),
        Verb::Demote(args) => promote::demote(&args, paths, format),
        Verb::Status(args) => status::run(&args, paths, format),
        Verb::Switchover(args) => switchover::run(&args, paths, format),
        Verb::Failover(args) => failover::run(&args, paths, format),
        Verb::Standby(args) => standby::standby(&args, paths, format),
        Verb::Unstandby(args) => standby::unstandby(&args, paths, format),
        Verb::Pause(args) => pause::pause(&args, paths, format),
        Verb::Resume(args) => pause::resume(&args, paths, format),
        Verb::Events(args) => events::run(&args, paths, format),
        Verb::History(args) => history::run(&args, paths, format),
        Verb::Explain(args) => explain::run(&args, paths, format),
        Verb::Member(args) => member::run(&args, paths, format),
        Verb::Reload(args) => reload::run(&args, paths, format),
        Verb::Agent(args) => {
            text_only(format, "agent", "follow it by `vip-ctl events --follow -o json`")?;
            agent::run(&args, paths)
        }
        Verb::Check(args) => check::run(&args, paths, format),
        Verb::Keygen(args) => keygen::run(&args, format),
        Verb::FrameLog(args) => {
            text_only(format, "frame-log", "count frames by `vip-ctl status -o json`")?;
            frame_log::run(&args, paths)
        }
        Verb::Monitor(args) => {
            text_only(format, "monitor", "use `vip-ctl status -o json`")?;
            monitor::run(&args, paths)
        }
        Verb::Metrics(args) => metrics::run(&args, paths, format),
        Verb::Convert(args) => convert::run(&args, paths, format),
        Verb::Doctor(args) => doctor::run(&args, paths, format),
        Verb::Completions(args) => completions::run(&args, format),
        Verb::Man(args) => man::run(&args, format),
    }
}

#[cfg(test)]
mod tests {
    mod walk;

    use super::*;

    #[test]
    fn json_is_asked_for_in_every_spelling() {
        let asks = |line: &str| asks_for_json(line.split_whitespace().map(str::to_owned));
        for line in ["-o json switchovr", "switchovr -ojson", "x --output=json", "x --output json", "-o=json"]
        {
            assert!(asks(line), "{line}");
            assert!(Cli::try_parse_from(format!("vip-ctl {line}").split_whitespace()).is_err(), "{line}");
        }
        for line in ["json", "-o text switchovr", "switchovr -- -o json", "--output json5", "-o"] {
            assert!(!asks(line), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_one_sentence_in_json() {
        let said = |line: &str| {
            let words = line.split_whitespace();
            usage(&Cli::try_parse_from(words).expect_err("wrong"))
        };
        let all = [
            "vip-ctl",
            "vip-ctl -o json",
            "vip-ctl switchovr",
            "vip-ctl completions tcsh",
            "vip-ctl member add",
            "vip-ctl status --no",
        ];
        insta::assert_snapshot!(all.map(said).join("\n"), @"
    a verb is missing: `vip-ctl help` names them
    a verb is missing: `vip-ctl help` names them
    unrecognized subcommand 'switchovr'; tip: a similar subcommand exists: 'switchover'
    invalid value 'tcsh' for '<SHELL>' [possible values: bash, zsh, fish]; tip: a similar value exists: 'zsh'
    the following required arguments were not provided: <NAME> <ADDRESS:PORT>
    unexpected argument '--no' found
    ");
    }

    #[test]
    fn verbs_without_json_refuse_it() {
        assert!(text_only(Format::Text, "monitor", "").is_ok());
        for verb in ["agent --config /nonexistent/vip.toml", "monitor", "frame-log"] {
            let line = format!("vip-ctl {verb} -o json");
            let failure =
                run(Cli::try_parse_from(line.split_whitespace()).expect("right")).expect_err("refused");
            assert_eq!(failure.exit, Exit::Usage, "{verb}");
            assert!(failure.message.contains("leave -o json out"), "{}", failure.message);
        }
    }
}
