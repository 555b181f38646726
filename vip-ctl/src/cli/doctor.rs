//! `vip-ctl doctor`: what [`crate::doctor`] finds, as lines or as JSON.

use std::path::PathBuf;

use serde_json::json;

use super::support::{
    client,
    output::{Failure, Format, print, print_json},
};
use crate::{
    agent::control::{Request, Response},
    doctor::{Findings, Level, examine},
    exit::Exit,
    paths::Paths,
};

/// Where to look for the configuration unless the command line names another.
const CONFIG: &str = "/etc/vip/vip.toml";

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Each line is `ok`, `warning` or `error`. Exit code 0 if there is no error, 1 if there is one.\n\nExamples:\n  vip-ctl doctor\n  vip-ctl doctor --config /etc/vip/vip.toml -o json"
)]
pub(super) struct Args {
    /// The configuration; /etc/vip/vip.toml if that is there, and else none.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only tell of warnings and errors.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    // An agent that does not answer is a finding, not a failure.
    let status = match client::ask(paths, &Request::Status) {
        Ok(Some(Response::Status(status))) => Some(*status),
        Ok(_) | Err(_) => None,
    };
    let config = args.config.clone().unwrap_or_else(|| CONFIG.into());
    let found = examine(&config, args.config.is_some(), paths, status.as_ref());
    let (errors, warnings) = (found.count(Level::Error), found.count(Level::Warning));
    match format {
        Format::Json => {
            print_json(
                &json!({ "errors": errors, "warnings": warnings, "findings": shown(&found, args.quiet) }),
            )?;
        }
        Format::Text => {
            for finding in shown(&found, args.quiet) {
                let of = finding.of.as_ref().map(|of| format!("{of}: ")).unwrap_or_default();
                print(&format!("{:<8} {:<14} {of}{}\n", finding.level.name(), finding.subject, finding.says));
            }
            print(&format!("{errors} errors, {warnings} warnings\n"));
        }
    }
    Ok(if errors == 0 { Exit::Ok } else { Exit::Unwell })
}

fn shown(found: &Findings, quiet: bool) -> Vec<&crate::doctor::Finding> {
    found.all().iter().filter(|finding| !quiet || finding.level > Level::Ok).collect()
}
