//! `vip-ctl monitor`: a dashboard in the terminal. `state` has what it knows,
//! `keys` what a key does, `view` what it draws. Here are the terminal and the
//! threads, so that a slow agent never blocks the keys.

mod keys;
mod rates;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{self, BufRead, BufReader, IsTerminal},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self as terminal_event, Event as TerminalEvent, KeyEvent, KeyEventKind};

use self::{
    keys::Effect,
    state::{Monitor, Seen},
    view::Theme,
};
use super::{
    status,
    support::{client, output::Failure},
};
use crate::{
    agent::control::{Request, Response},
    events::Event,
    exit::Exit,
    paths::Paths,
};

/// Between two pictures, and between two questions to the agent: four a second.
const REFRESH: Duration = Duration::from_millis(250);

/// How long after the agent's events have ended to ask for them again.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);

/// How many messages of the threads one picture may take in.
const TOLD_PER_PICTURE: usize = 2000;

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl monitor")]
pub(super) struct Args {}

/// What the threads tell the one that draws.
enum Told {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal's size may have changed.
    Redraw,
    /// The terminal can no longer be read.
    Deaf(io::Error),
    /// The answer of the agent, or of the maps.
    Seen(Box<Seen>),
    /// The agent's events begin again with the oldest.
    Afresh,
    /// An event of the agent's.
    Happened(Box<Event>),
    /// A command ended.
    Done(Result<String, String>),
    /// A signal asks for the end.
    Signal,
}

pub(super) fn run(_args: &Args, paths: &Paths) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "monitor draws on a terminal, and stdout is none: run it in one, or use `vip-ctl status`",
        ));
    }
    let failed =
        |what: &str, e: io::Error| Failure::new(Exit::System, format!("could not {what} the terminal: {e}"));
    let (tell, told) = channel();
    // Blocks the signals before any other thread starts, so that only the one
    // that waits for them gets them.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|e| failed("set up signals for", e.into()))?;
    let mut terminal = ratatui::try_init().map_err(|e| failed("set up", e))?;
    let _restored = Restored;
    watch_signals(signals, tell.clone());
    read_keys(tell.clone());
    ask_again_and_again(paths.clone(), tell.clone());
    follow_events(paths.clone(), tell.clone());

    let theme = Theme::of_environment();
    let mut monitor = Monitor::default();
    loop {
        let now = Instant::now();
        terminal.draw(|frame| view::draw(frame, &monitor, theme, now)).map_err(|e| failed("draw on", e))?;
        let first = match told.recv_timeout(REFRESH) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(Exit::Software, "the threads of monitor have ended"));
            }
        };
        // Draws once for everything that waits.
        for told in std::iter::once(first).chain(told.try_iter().take(TOLD_PER_PICTURE)) {
            match told {
                Told::Key(key) => match monitor.key(key) {
                    Effect::Nothing => {}
                    Effect::Quit => return Ok(Exit::Ok),
                    Effect::Ask(request) => command(paths.clone(), request, tell.clone()),
                },
                Told::Redraw => {}
                Told::Seen(seen) => monitor.see(*seen, Instant::now()),
                Told::Afresh => monitor.events.clear(),
                Told::Happened(event) => monitor.happened(&event),
                Told::Done(outcome) => monitor.done(outcome),
                Told::Signal => return Ok(Exit::Ok),
                Told::Deaf(e) => return Err(failed("read keys from", e)),
            }
        }
    }
}

/// Puts the terminal back when dropped; after a panic, before the message
/// appears.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn watch_signals(signals: SigSet, tell: Sender<Told>) {
    thread::spawn(move || {
        // Nobody listens only when the process ends.
        if signals.wait().is_ok() {
            let _ = tell.send(Told::Signal);
        }
    });
}

fn read_keys(tell: Sender<Told>) {
    thread::spawn(move || {
        loop {
            let said = match terminal_event::read() {
                Ok(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => Told::Key(key),
                Ok(
                    TerminalEvent::Key(_)
                    | TerminalEvent::Resize(..)
                    | TerminalEvent::FocusGained
                    | TerminalEvent::FocusLost
                    | TerminalEvent::Mouse(_)
                    | TerminalEvent::Paste(_),
                ) => Told::Redraw,
                Err(e) => {
                    let _ = tell.send(Told::Deaf(e));
                    return;
                }
            };
            if tell.send(said).is_err() {
                return;
            }
        }
    });
}

fn ask_again_and_again(paths: Paths, tell: Sender<Told>) {
    thread::spawn(move || {
        loop {
            let next = Instant::now() + REFRESH;
            if tell.send(Told::Seen(Box::new(look(&paths)))).is_err() {
                return;
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
}

fn follow_events(paths: Paths, tell: Sender<Told>) {
    let request = Request::Events { group: None, follow: true };
    thread::spawn(move || {
        loop {
            // The question for the status tells why there are none.
            if let Ok(Some(stream)) = client::open(&paths, &request)
                && stream.set_read_timeout(None).is_ok()
            {
                if tell.send(Told::Afresh).is_err() {
                    return;
                }
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let Ok(event) = serde_json::from_str(&line) else { break };
                    if tell.send(Told::Happened(Box::new(event))).is_err() {
                        return;
                    }
                }
            }
            thread::sleep(FOLLOW_PAUSE);
        }
    });
}

/// What the agent says, or what the maps say without one.
fn look(paths: &Paths) -> Seen {
    let why = match client::ask(paths, &Request::Status) {
        Ok(Some(Response::Status(status))) => return Seen::Agent(*status),
        Ok(Some(_)) => client::strange().message,
        Ok(None) => format!("no agent answers at {}", paths.socket().display()),
        Err(failure) => failure.message,
    };
    match status::of_maps(paths) {
        Ok(status) => Seen::Maps(status, why),
        Err(_) => Seen::Nothing(why),
    }
}

/// Sends the agent a request, on a thread of its own.
fn command(paths: Paths, request: Request, tell: Sender<Told>) {
    thread::spawn(move || {
        let outcome = match client::ask_agent(&paths, &request, "this") {
            Ok(Response::Done { group, holder: Some(holder), .. }) => {
                Ok(format!("{holder} holds {group} now"))
            }
            Ok(Response::Done { group, holder: None, .. }) => Ok(format!("nobody holds {group} now")),
            Ok(Response::Pause { on: true }) => Ok("paused: nothing moves by itself".to_owned()),
            Ok(Response::Pause { on: false }) => Ok("resumed: groups move by themselves again".to_owned()),
            Ok(_) => Err(client::strange().message),
            Err(failure) => Err(failure.message),
        };
        let _ = tell.send(Told::Done(outcome));
    });
}
