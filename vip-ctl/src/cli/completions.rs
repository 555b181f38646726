//! `vip-ctl completions`: what a shell needs to complete our command lines.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use serde_json::json;

use super::{
    Cli,
    support::output::{Failure, Format, print, print_json},
};
use crate::exit::Exit;

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl completions bash  # into /etc/bash_completion.d/vip-ctl\n  vip-ctl completions zsh  # as _vip-ctl into a directory of $fpath\n  vip-ctl completions fish  # into /etc/fish/completions/vip-ctl.fish"
)]
pub(super) struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Known,
}

/// The shells that are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Known {
    /// Bourne-again shell.
    Bash,
    /// Z shell.
    Zsh,
    /// Friendly interactive shell.
    Fish,
}

impl From<Known> for Shell {
    fn from(known: Known) -> Self {
        match known {
            Known::Bash => Self::Bash,
            Known::Zsh => Self::Zsh,
            Known::Fish => Self::Fish,
        }
    }
}

pub(super) fn run(args: &Args, format: Format) -> Result<Exit, Failure> {
    let (shell, mut script) = (Shell::from(args.shell), Vec::new());
    generate(shell, &mut Cli::command(), "vip-ctl", &mut script);
    let script = String::from_utf8_lossy(&script);
    match format {
        Format::Text => print(&script),
        Format::Json => print_json(&json!({ "shell": shell.to_string(), "script": script }))?,
    }
    Ok(Exit::Ok)
}
