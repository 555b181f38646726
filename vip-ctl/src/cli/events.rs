//! `vip-ctl events`: what happens on this node, from its agent.

use std::io::{BufRead, BufReader};

use super::support::{
    client,
    output::{Failure, Format, print},
};
use crate::{
    agent::control::{Request, Response},
    events::{Event, text},
    exit::Exit,
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl events --follow db")]
pub(super) struct Args {
    /// Only this group (or the group of this VIP).
    #[arg(value_name = "GROUP|VIP")]
    group: Option<String>,
    /// Go on with new events, until interrupted.
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let request = Request::Events { group: args.group.clone(), follow: args.follow };
    if args.follow {
        // There may be days between two events, so silence says nothing later: ask now
        // whether the agent hangs.
        match client::ask(paths, &Request::Status) {
            Err(failure) if failure.exit == Exit::Timeout => return Err(failure),
            Ok(_) | Err(_) => {}
        }
    }
    let stream = client::open(paths, &request)?.ok_or_else(|| client::no_agent(paths, "events"))?;
    if args.follow {
        stream
            .set_read_timeout(None)
            .map_err(|e| Failure::new(Exit::System, format!("could not wait for the agent: {e}")))?;
    }
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| client::failed(paths, &e))?;
        match (serde_json::from_str::<Event>(&line), format) {
            (Ok(_), Format::Json) => print(&format!("{line}\n")),
            (Ok(event), Format::Text) => print(&format!("{}\n", text(&event))),
            (Err(_), _) => {
                return match serde_json::from_str(&line) {
                    Ok(Response::Error { code, message }) => Err(Failure::of_agent(code, message)),
                    Ok(_) | Err(_) => Err(client::strange()),
                };
            }
        }
    }
    if args.follow {
        return Err(Failure::new(Exit::NotLoaded, "the agent has ended, and its events with it"));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A stopped agent still has a socket that takes connections, but nobody
    /// answers.
    #[test]
    fn an_agent_that_hangs_is_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("vip-events-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("made");
        let paths = Paths { bpf_dir: dir.clone(), run_dir: dir.clone(), state_dir: dir.clone() };
        let _agent = UnixListener::bind(paths.socket()).expect("bound");
        for follow in [false, true] {
            let failure =
                run(&Args { group: None, follow }, &paths, Format::Text).expect_err("nobody answers");
            assert_eq!(failure.exit, Exit::Timeout, "{}", failure.message);
            assert!(failure.message.contains("did not answer in time"), "{}", failure.message);
        }
        std::fs::remove_dir_all(&dir).expect("there");
    }
}
