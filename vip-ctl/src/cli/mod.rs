//! The command line: one file per verb. A verb asks the agent if one runs,
//! and else works on the pinned maps alone.

mod agent;
mod check;
mod client;
mod completions;
mod convert;
mod doctor;
mod dry_run;
mod events;
mod explain;
mod failover;
mod frame_log;
mod history;
mod keygen;
mod lease;
mod load;
mod logs;
mod man;
mod member;
mod metrics;
mod monitor;
mod pause;
mod reload;
mod standby;
mod status;
mod switchover;
mod unload;
#[cfg(test)]
mod walk;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    dataplane::DataPlaneError, exit::Exit, host::HostError, lock::LockError, node::NodeError, paths::Paths,
    report::ReportError,
};

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

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a person.
    Text,
    /// For a program: one JSON object.
    Json,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Put the data plane on this host's interfaces and VIPs under its guard.
    Load(load::Args),
    /// Take the data plane off and put the host back as it was.
    Unload(unload::Args),
    /// Give this node the lease.
    #[command(after_help = "Examples:\n  vip-ctl promote db\n  vip-ctl promote 10.0.1.12")]
    Promote(lease::Args),
    /// Take the lease from its holder.
    #[command(after_help = "Example:\n  vip-ctl demote db")]
    Demote(lease::Args),
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
    /// Let this node's agent read its configuration again, and go on with its groups.
    Reload(reload::Args),
    /// Run this node's agent, in the foreground.
    Agent(agent::Args),
    /// Say what a configuration means, or everything that is wrong with it.
    Check(check::Args),
    /// Make a key for a cluster.
    Keygen(keygen::Args),
    /// Follow what the way in looks up; for debugging.
    FrameLog(frame_log::Args),
    /// Watch the cluster in the terminal, and move groups from there.
    Monitor(monitor::Args),
    /// Print the metrics in Prometheus's text format.
    Metrics(metrics::Args),
    /// Make a vip.toml of a keepalived.conf, and tell what could not be carried over.
    Convert(convert::Args),
    /// Look at everything on this host that decides whether a VIP works here.
    Doctor(doctor::Args),
    /// Print what completes vip-ctl's command lines in a shell.
    Completions(completions::Args),
    /// Print the manual page, or write those of all verbs into a directory.
    Man(man::Args),
}

/// Why a verb failed: a sentence and an exit code.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// What an agent answered.
    fn of_agent(code: u8, message: String) -> Self {
        Self { exit: Exit::from_code(code), message }
    }
}

impl From<DataPlaneError> for Failure {
    fn from(e: DataPlaneError) -> Self {
        Self::new(e.exit(), e.to_string())
    }
}

impl From<NodeError> for Failure {
    fn from(e: NodeError) -> Self {
        Self::new(e.exit(), e.to_string())
    }
}

impl From<HostError> for Failure {
    fn from(e: HostError) -> Self {
        NodeError::from(e).into()
    }
}

impl From<ReportError> for Failure {
    fn from(e: ReportError) -> Self {
        match e {
            ReportError::DataPlane(e) => e.into(),
            ReportError::Host(e) => e.into(),
        }
    }
}

impl From<LockError> for Failure {
    fn from(e: LockError) -> Self {
        let exit = match &e {
            LockError::Agent { .. } | LockError::Busy { .. } => Exit::Busy,
            LockError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::NoPermission
            }
            LockError::Io { .. } => Exit::System,
        };
        Self::new(exit, e.to_string())
    }
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
            // Help and version go to stdout and are no error.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let format = cli.output;
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if format == Format::Json {
                let error = serde_json::json!({
                    "error": { "code": failure.exit as u8, "message": failure.message }
                });
                print(&format!("{error}\n"));
            }
            let _ = writeln!(std::io::stderr(), "vip-ctl: {}", failure.message);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let (paths, format) = (&cli.paths, cli.output);
    match cli.verb {
        Verb::Load(args) => load::run(&args, paths, format),
        Verb::Unload(args) => unload::run(&args, paths, format),
        Verb::Promote(args) => lease::promote(&args, paths, format),
        Verb::Demote(args) => lease::demote(&args, paths, format),
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
        Verb::Agent(args) => agent::run(&args, paths),
        Verb::Check(args) => check::run(&args, format),
        Verb::Keygen(args) => keygen::run(&args, format),
        Verb::FrameLog(args) => frame_log::run(&args, paths),
        Verb::Monitor(args) => monitor::run(&args, paths),
        Verb::Metrics(args) => metrics::run(&args, paths, format),
        Verb::Convert(args) => convert::run(&args, paths, format),
        Verb::Doctor(args) => doctor::run(&args, paths, format),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args, format),
    }
}

/// Prints to stdout; a reader that went away is no error of ours.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a value as one JSON object.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(Exit::Software, format!("could not write JSON: {e}")))?;
    print(&format!("{json}\n"));
    Ok(())
}

/// The host's name, which is the node's name where no agent says otherwise.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}
