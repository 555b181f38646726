//! `--dry-run`: says what a verb would do, and does nothing.

use serde_json::json;

use super::client;
use super::output::{Failure, Format, print, print_json};
use crate::{
    agent::control::{Request, Response},
    exit::Exit,
    paths::Paths,
};

/// Asks the agent what `request` would do; `None` if none runs.
pub(in crate::cli) fn ask(paths: &Paths, request: &Request) -> Result<Option<Vec<String>>, Failure> {
    let request = Request::DryRun { of: Box::new(request.clone()) };
    match client::ask(paths, &request)? {
        Some(Response::Would { happen }) => Ok(Some(happen)),
        Some(_) => Err(client::strange()),
        None => Ok(None),
    }
}

/// The dry run of a verb that needs an agent.
pub(in crate::cli) fn of_agent(
    paths: &Paths,
    request: &Request,
    what: &str,
    format: Format,
) -> Result<Exit, Failure> {
    let happen = ask(paths, request)?.ok_or_else(|| client::no_agent(paths, what))?;
    tell(&happen, format)
}

/// Prints what would happen.
pub(in crate::cli) fn tell(happen: &[String], format: Format) -> Result<Exit, Failure> {
    match format {
        Format::Json => print_json(&json!({ "dry_run": true, "would": happen }))?,
        Format::Text if happen.is_empty() => print("dry run: nothing would change\n"),
        Format::Text => {
            for sentence in happen {
                print(&format!("dry run: {sentence}\n"));
            }
        }
    }
    Ok(Exit::Ok)
}
