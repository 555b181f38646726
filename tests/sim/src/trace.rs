//! The trace: what happened, line by line, in words that a person can follow
//! next to the rules of docs/protocol.md. Nothing here is ever read back.

use std::{collections::VecDeque, fmt::Write as _, time::Duration};

use vip_common::BootNs;
use vip_engine::{About, Ballot, Claim, Command, Message, Packet, Refused, RequestId, Transition, Verdict};
use vip_lease::{Eligible, LeaseNotice};

use super::{
    agent::{Act, Ask},
    clock::SimNs,
    names::Names,
};

/// The lines of one run, or its last ones.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: VecDeque<String>,
    keep: usize,
}

impl Trace {
    /// A trace of the last `keep` lines; of none, if that is 0.
    pub fn new(keep: usize) -> Self {
        Self { lines: VecDeque::new(), keep }
    }

    pub fn wanted(&self) -> bool {
        self.keep > 0
    }

    pub fn push(&mut self, at: SimNs, line: &str) {
        if self.lines.len() >= self.keep {
            self.lines.pop_front();
        }
        let ms = Duration::from_nanos(at.0).as_secs_f64() * 1e3;
        self.lines.push_back(format!("{ms:>12.6} ms  {line}"));
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// A ballot as round, node, and the end of the incarnation: `17.b~3f2c`.
fn ballot(of: Ballot, names: &Names) -> String {
    format!("{}.{}~{:04x}", of.round, names.node(of.node), of.incarnation.0 & 0xffff)
}

fn request(of: RequestId) -> String {
    format!("#{}~{:04x}", of.command.0, of.incarnation.0 & 0xffff)
}

/// A packet as its messages.
pub(super) fn packet(packet: &Packet, names: &Names) -> String {
    let messages: Vec<_> = packet.messages.iter().map(|said| message(said, names)).collect();
    messages.join("; ")
}

fn message(message: &Message, names: &Names) -> String {
    match message {
        Message::Heartbeat { first, ready } => {
            let bits: String = ready.iter().map(|&ready| if ready { '+' } else { '-' }).collect();
            format!("heartbeat from {} {bits}", names.group(*first))
        }
        Message::Node { standby, pause, highest } => {
            let standby = if *standby { ", standby" } else { "" };
            let paused = if pause.on { "on" } else { "off" };
            format!("node, pause v{} {paused}{standby}, to e{}", pause.version, highest.0)
        }
        Message::Request { request: id, epoch, command } => {
            format!("request {} e{}: {}", request(*id), epoch.0, self::command(*command, names))
        }
        Message::Verdict { request: id, verdict } => {
            let said = match verdict {
                Verdict::Started { successor: None } => "started".to_owned(),
                Verdict::Started { successor: Some(successor) } => {
                    format!("started, successor {}", names.node(*successor))
                }
                Verdict::Refused(refusal) => format!("refused, {refusal}"),
            };
            format!("verdict {}: {said}", request(*id))
        }
        Message::Paths(paths) => format!("paths, {} interfaces", paths.ends.len()),
        Message::Group { group, about } => {
            let group = names.group(*group);
            match *about {
                About::Prepare { ballot: b } => format!("prepare {group} {}", ballot(b, names)),
                About::Promise { ballot: b, epoch, yours } => {
                    let yours = yours.map_or(String::new(), |yours| format!(" yours e{}", yours.0));
                    format!("promise {group} {} e{}{yours}", ballot(b, names), epoch.0)
                }
                About::Propose { ballot: b, epoch, claim } => {
                    let held = match claim {
                        Claim::Asked => "",
                        Claim::Held => " held",
                        Claim::Forced => " forced",
                    };
                    format!("propose {group} {} e{}{held}", ballot(b, names), epoch.0)
                }
                About::Accept { ballot: b } => format!("accept {group} {}", ballot(b, names)),
                About::Holding { ballot: b } => format!("holding {group} {}", ballot(b, names)),
                About::Refuse { ballot: b, because } => {
                    format!("refuse {group} {}: {}", ballot(b, names), refused(because, names))
                }
                About::Release { ballot: b, successor } => {
                    let to = successor.map_or(String::new(), |to| format!(" for {}", names.node(to)));
                    format!("release {group} {}{to}", ballot(b, names))
                }
                About::Released { ballot: b } => format!("released {group} {}", ballot(b, names)),
                About::AskReady { ask } => format!("ask-ready {group} ?{}", ask.0),
                About::Ready { ask, ready } => {
                    format!("ready {group} ?{}: {}", ask.0, if ready { "yes" } else { "no" })
                }
                About::Stale { client } => format!("stale {group} {}", client.vip),
                About::Unheard { vip } => format!("unheard {group} {vip}"),
            }
        }
    }
}

fn refused(because: Refused, names: &Names) -> String {
    match because {
        Refused::Held { ballot: b, epoch, claim, remaining } => {
            let how = match claim {
                Claim::Asked => "asked for",
                Claim::Held => "held",
                Claim::Forced => "held by force",
            };
            format!("e{} {how} under {} for {remaining:.1?}", epoch.0, ballot(b, names))
        }
        Refused::Promised { ballot: b } => format!("promised {}", ballot(b, names)),
        Refused::Reserved { successor, remaining } => {
            format!("kept for {} for {remaining:.1?}", names.node(successor))
        }
        Refused::Silent { remaining } => format!("silent for {remaining:.1?}"),
    }
}

/// A command as scenarios write it.
pub(super) fn command(command: Command, names: &Names) -> String {
    let group = command.group().map_or_else(String::new, |group| names.group(group));
    match command {
        Command::Promote { to, .. } => format!("promote {group} to {}", names.node(to)),
        Command::Demote { .. } => format!("demote {group}"),
        Command::Switchover { to: None, .. } => format!("switchover {group}"),
        Command::Switchover { to: Some(to), .. } => format!("switchover {group} to {}", names.node(to)),
        Command::Force { .. } => format!("force {group}"),
        Command::Standby { node, on, force } => {
            let verb = if on { "standby" } else { "unstandby" };
            format!("{verb} {}{}", names.node(node), if force { " force" } else { "" })
        }
        Command::Pause { on } => if on { "pause" } else { "resume-cluster" }.to_owned(),
    }
}

/// What a node is asked.
pub(super) fn ask(ask: &Ask, names: &Names) -> String {
    match ask {
        Ask::Ceiling(ceiling) => format!("has e{} on disk", ceiling.0),
        Ask::Eligible { group, word } => {
            let word = match word {
                Eligible::Yes => "eligible",
                Eligible::No => "ineligible",
                Eligible::Unwell => "unwell",
            };
            format!("{word} {}", names.group(*group))
        }
        Ask::Command { id, command: given } => format!("command {}: {}", id.0, command(*given, names)),
        Ask::Regroup(regroup) => format!("goes on with table {}", regroup.table),
        Ask::HookEnded { hook, ticket, well } => {
            format!("{hook} {} has {}", ticket.0, if *well { "ended" } else { "failed" })
        }
        Ask::Stop => "asked to stop".to_owned(),
    }
}

/// What a node does when its clock shows `now`; empty if that is not worth a
/// line.
pub(super) fn act(act: &Act, now: BootNs, names: &Names) -> Option<String> {
    Some(match act {
        Act::Store { group, lease } => {
            let group = names.group(*group);
            match lease.expiry() {
                Some(until) => format!("== map    {group} open for {:.3?}", until.since(now)),
                None => format!("== map    {group} closed"),
            }
        }
        Act::Send { to, said, .. } => {
            let said = said.as_ref().map_or_else(|| "a handshake".to_owned(), |said| packet(said, names));
            format!("-> {:<6} {said}", names.node(*to))
        }
        Act::Takeover { group } => format!("announces {}", names.group(*group)),
        Act::Tell(notice) => return notice_line(notice, names),
        Act::Hook { hook, ticket, group } => {
            format!("runs {hook} {} of {}", ticket.0, names.group(*group))
        }
        Act::Reply { id, outcome: Ok(completed) } => format!("command {} done: {completed:?}", id.0),
        Act::Reply { id, outcome: Err(refusal) } => format!("command {} refused: {refusal}", id.0),
    })
}

fn notice_line(notice: &LeaseNotice, names: &Names) -> Option<String> {
    Some(match notice {
        LeaseNotice::Changed { transition, .. } => {
            let Transition { group, state, epoch, reason, holder } = transition;
            let mut line = format!("{} is {state} ({reason}), e{}", names.group(*group), epoch.0);
            if let Some(holder) = holder {
                // Writing to a string does not fail.
                let _ = write!(line, ", held by {}", names.node(*holder));
            }
            line
        }
        LeaseNotice::RaiseCeiling(ceiling) => format!("wants e{} on disk", ceiling.0),
        LeaseNotice::Remember { standby, pause } => {
            format!("remembers standby {standby}, pause v{} {}", pause.version, pause.on)
        }
        LeaseNotice::Connected { node, restarted: true, .. } => {
            format!("{} has restarted", names.node(*node))
        }
        LeaseNotice::Connected { node, restarted: false, .. } => {
            format!("{} is connected", names.node(*node))
        }
        LeaseNotice::Claim { .. }
        | LeaseNotice::Asked { .. }
        | LeaseNotice::Late { .. }
        | LeaseNotice::Rejected { .. } => return None,
        LeaseNotice::Regrouped => "has gone on with other groups".to_owned(),
        LeaseNotice::Covered { label } => format!("has leases of all VIPs of {:04x}", label.0 & 0xffff),
    })
}
