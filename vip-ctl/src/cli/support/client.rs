//! Asking the agent through its socket.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use super::output::Failure;
use crate::{
    agent::control::{Request, Response},
    config::hooks::TIMEOUT_MAX,
    exit::Exit,
    paths::Paths,
};

/// How long to wait for a command: the longest `pre_demote`, and then the time
/// after which the agent gives up on a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait if the agent also waits for the longest `pre_promote`.
const WAIT_TIMEOUT: Duration =
    COMMAND_TIMEOUT.saturating_add(TIMEOUT_MAX).saturating_add(Duration::from_secs(20));
/// How long to wait for the status or the events: a healthy agent sends them at
/// once.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the empty line by which the agent confirms a request. It
/// does nothing for a client that is gone by then.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the agent of this node, which `what` needs.
pub(in crate::cli) fn ask_agent(paths: &Paths, request: &Request, what: &str) -> Result<Response, Failure> {
    ask(paths, request)?.ok_or_else(|| no_agent(paths, what))
}

/// There is no agent, and `what` needs one.
pub(in crate::cli) fn no_agent(paths: &Paths, what: &str) -> Failure {
    Failure::new(
        Exit::NotLoaded,
        format!(
            "no agent runs on this node (there is none at {}): {what} needs one; start it with `vip-ctl agent`",
            paths.socket().display()
        ),
    )
}

/// The agent's answer does not fit the request.
pub(in crate::cli) fn strange() -> Failure {
    Failure::new(Exit::Protocol, "the agent's answer does not fit the request: use the same version for both")
}

/// Asks the agent of this node; `None` if none runs.
pub(in crate::cli) fn ask(paths: &Paths, request: &Request) -> Result<Option<Response>, Failure> {
    let Some(stream) = open(paths, request)? else { return Ok(None) };
    let mut lines = BufReader::new(&stream);
    let mut line = read_line(paths, &mut lines)?;
    if line.trim_end().is_empty() {
        stream.set_read_timeout(Some(answer_timeout(request))).map_err(|e| failed(paths, &e))?;
        line = read_line(paths, &mut lines)?;
    }
    let response = serde_json::from_str(&line).map_err(|e| {
        Failure::new(
            Exit::Protocol,
            format!(
                "this vip-ctl does not understand the agent's answer ({e}): use the same version for both"
            ),
        )
    })?;
    match response {
        Response::Error { code, message } => Err(Failure::of_agent(code, message)),
        Response::Status(_)
        | Response::Standby { .. }
        | Response::Pause { .. }
        | Response::Reloaded(_)
        | Response::Would { .. }
        | Response::Done { .. } => Ok(Some(response)),
    }
}

fn read_line(paths: &Paths, lines: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let ended = || {
        let at = paths.socket();
        let message = format!(
            "the agent at {} ended before it answered: see `vip-ctl status` for what has come of it",
            at.display()
        );
        Failure::new(Exit::NotLoaded, message)
    };
    match lines.read_line(&mut line) {
        Ok(0) => Err(ended()),
        Ok(_) => Ok(line),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Err(ended()),
        Err(e) => Err(failed(paths, &e)),
    }
}

/// How long the answer to a request may take once the agent has taken it.
fn answer_timeout(request: &Request) -> Duration {
    match request {
        _ if request.waits() => WAIT_TIMEOUT,
        Request::Status | Request::Events { .. } => STATUS_TIMEOUT,
        Request::Promote { .. }
        | Request::Demote { .. }
        | Request::Switchover { .. }
        | Request::Failover { .. }
        | Request::Standby { .. }
        | Request::Pause { .. }
        | Request::Reload
        | Request::DryRun { .. } => COMMAND_TIMEOUT,
    }
}

/// Sends a request to the agent of this node, and leaves the answer to be read.
/// `None` if no agent runs.
pub(in crate::cli) fn open(paths: &Paths, request: &Request) -> Result<Option<UnixStream>, Failure> {
    let timeout = answer_timeout(request).min(TAKEN_TIMEOUT);
    let path = paths.socket();
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(Failure::new(
                Exit::NoPermission,
                format!("not allowed to ask the agent at {}: run it as root", path.display()),
            ));
        }
        Err(e) => {
            return Err(Failure::new(
                Exit::System,
                format!("could not reach the agent at {}: {e}", path.display()),
            ));
        }
    };
    let failed = |e| failed(paths, &e);
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let mut text = serde_json::to_vec(request)
        .map_err(|e| Failure::new(Exit::Software, format!("could not write the request: {e}")))?;
    text.push(b'\n');
    (&stream).write_all(&text).map_err(failed)?;
    Ok(Some(stream))
}

/// The agent was there, but could not be asked or did not answer.
pub(in crate::cli) fn failed(paths: &Paths, e: &std::io::Error) -> Failure {
    let timed_out = matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    let exit = if timed_out { Exit::Timeout } else { Exit::System };
    let said = if timed_out {
        "did not answer in time: it may be stopped or hung".to_owned()
    } else {
        e.to_string()
    };
    Failure::new(exit, format!("the agent at {} {said}", paths.socket().display()))
}
