//! `vip-ctl completions`: what a shell needs to complete our command lines.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::{Cli, Failure, print};
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

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(Shell::from(args.shell), &mut Cli::command(), "vip-ctl", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
