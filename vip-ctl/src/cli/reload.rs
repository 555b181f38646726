//! `vip-ctl reload`: the agent reads its configuration again.

use super::{Failure, Format, client, print, print_json};
use crate::{
    agent::api::{Request, Response},
    exit::Exit,
    paths::Paths,
};

/// Example: vip-ctl reload
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let Response::Reloaded(changes) = client::ask_agent(paths, &Request::Reload, "reload")? else {
        return Err(client::strange());
    };
    if format == Format::Json {
        print_json(&changes)?;
        return Ok(Exit::Ok);
    }
    let mut said = String::new();
    for (what, names) in [
        ("added", &changes.added),
        ("removed", &changes.removed),
        ("changed", &changes.changed),
        ("begun anew, since a VIP went from one group to another", &changes.anew),
    ] {
        if !names.is_empty() {
            said.push_str(&format!("{what}: {}\n", names.join(", ")));
        }
    }
    print(if said.is_empty() { "no group has changed\n" } else { &said });
    Ok(Exit::Ok)
}
