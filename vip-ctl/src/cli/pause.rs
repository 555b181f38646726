//! `vip-ctl pause` and `resume`: automatic moves in the whole cluster.

use serde_json::json;

use super::{Failure, Format, client, print, print_json};
use crate::{
    agent::api::{Request, Response},
    exit::Exit,
    paths::Paths,
};

/// Example: vip-ctl pause
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn pause(paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(true, paths, format)
}

pub(super) fn resume(paths: &Paths, format: Format) -> Result<Exit, Failure> {
    run(false, paths, format)
}

fn run(on: bool, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let Response::Pause { on } = client::ask_agent(paths, &Request::Pause { on }, "a pause")? else {
        return Err(client::strange());
    };
    match format {
        Format::Json => print_json(&json!({ "paused": on }))?,
        Format::Text if on => {
            print("paused: leases go on, and nothing moves by itself until `vip-ctl resume`\n");
        }
        Format::Text => print("resumed: groups move by themselves again\n"),
    }
    Ok(Exit::Ok)
}
