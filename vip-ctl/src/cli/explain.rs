//! `vip-ctl explain`: why a group is where it is and not elsewhere, and what
//! would happen next. It uses this node's status and history.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    history,
    support::{
        client,
        output::{Failure, Format, print, print_json},
    },
};
use crate::{
    agent::control::{Request, Response},
    events::{Event, Kind, Timestamp},
    exit::Exit,
    lookup,
    paths::Paths,
    report::{Candidate, GroupStatus, Heir, Status, VipStatus},
};

/// How many VIPs with an interface of their own the text lists.
const HOMES_SHOWN: usize = 8;

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl explain db")]
pub(super) struct Args {
    /// The group, or one of its VIPs; may be left out where there is one group.
    #[arg(value_name = "GROUP|VIP")]
    group: Option<String>,
}

/// Everything that `explain` says of one group.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Explanation {
    group: String,
    /// The node that says all this.
    node: String,
    /// The answering node's state for the group.
    state: String,
    holder: Option<String>,
    /// Since when, as far as this node's history goes.
    since: Option<Timestamp>,
    /// Why the group came there.
    reason: Option<String>,
    command: Option<String>,
    gap_ms: Option<u64>,
    epoch: Option<u64>,
    quorate: bool,
    paused: bool,
    vips: Vec<Address>,
    nodes: Vec<Standing>,
    /// What would happen next, in sentences.
    next: Vec<String>,
}

/// A VIP as `status` has it, without its counters.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Address {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<u32>,
    /// All of it in words.
    #[serde(skip)]
    at_home: String,
}

/// A node that could hold it, and why it does or does not.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Standing {
    #[serde(flatten)]
    candidate: Candidate,
    heard: bool,
    standby: bool,
    because: String,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    // Asks only the agent: the maps know no cluster.
    let Response::Status(status) = client::ask_agent(paths, &Request::Status, "explain")? else {
        return Err(client::strange());
    };
    let group = &status.groups[lookup::group(args.group.as_deref(), &status.groups)?];
    let explanation = explain(&status, group, &history::read(paths)?);
    match format {
        Format::Json => print_json(&explanation)?,
        Format::Text => print(&text(&explanation)),
    }
    Ok(Exit::Ok)
}

fn explain(status: &Status, group: &GroupStatus, history: &[Event]) -> Explanation {
    let quorate = status.quorate.unwrap_or(false);
    let change = history.iter().find_map(|event| {
        let Kind::Changed(change) = &event.kind else { return None };
        let is_it = event.group.as_ref() == Some(&group.name)
            && group.holder.is_some()
            && change.holder == group.holder
            && Some(change.epoch) == group.epoch;
        is_it.then_some((event.time, change))
    });
    let gap = history.iter().rev().find_map(|event| {
        let Kind::Changed(change) = &event.kind else { return None };
        let is_it = event.group.as_ref() == Some(&group.name) && Some(change.epoch) == group.epoch;
        is_it.then_some(change.gap_ms).flatten()
    });
    Explanation {
        group: group.name.clone(),
        node: status.node.clone(),
        state: group.state.clone(),
        holder: group.holder.clone(),
        since: change.map(|(time, _)| time),
        reason: change.map(|(_, change)| change.reason.clone()),
        command: change.and_then(|(_, change)| change.command.clone()),
        gap_ms: gap,
        epoch: group.epoch,
        quorate,
        paused: status.paused,
        vips: group.vips.iter().map(address).collect(),
        nodes: group.candidates.iter().map(|candidate| standing(status, group, candidate)).collect(),
        next: next(status, group),
    }
}

fn address(vip: &VipStatus) -> Address {
    Address {
        address: vip.address.clone(),
        interface: vip.interface.clone(),
        prefix: vip.prefix,
        at_home: vip.at_home(),
    }
}

fn standing(status: &Status, group: &GroupStatus, candidate: &Candidate) -> Standing {
    let known = status.nodes.iter().find(|node| node.name == candidate.node);
    let (heard, standby) = (known.is_some_and(|node| node.heard), known.is_some_and(|node| node.standby));
    let name = &candidate.node;
    let is_here = *name == status.node;
    let holder =
        group.holder.as_deref().and_then(|holder| group.candidates.iter().find(|c| c.node == holder));
    let because = if holder.is_some_and(|holder| holder.node == *name) {
        if is_here && group.state == "promoting" {
            "has the lease; its fence stays shut until pre_promote has ended".to_owned()
        } else {
            "holds it".to_owned()
        }
    } else if !heard {
        match known.and_then(|node| node.last_heard_ms) {
            Some(ms) => {
                // Whole seconds are enough for a node that is gone.
                let ago = Duration::from_secs(ms / 1000);
                format!(
                    "has not been heard for {}",
                    humantime::format_duration(ago.max(Duration::from_secs(1)))
                )
            }
            None => "has never been heard by this node's agent".to_owned(),
        }
    } else if standby {
        format!("is on standby until `vip-ctl unstandby {name}`")
    } else if let (true, Some(ms)) = (is_here, group.stays_away_ms) {
        format!("stays away for {} s more, because its pre_promote failed", ms.div_ceil(1000))
    } else if !is_here && known.is_some_and(|node| node.differs) {
        "has other groups or VIPs in its configuration than this node, and is asked before it gets it: give both \
         the same, and run `vip-ctl reload`"
            .to_owned()
    } else if !candidate.ready {
        match (is_here, group.state.as_str()) {
            (true, "fault") => match &group.why {
                Some(why) => format!("can't serve the group: {why}"),
                None => "can't serve the group: `vip-ctl events` says why".to_owned(),
            },
            (true, "standby") if group.eligible == Some(false) => {
                format!("can't serve the group: {}", group.why.as_deref().unwrap_or("it says no more"))
            }
            (true, "init") => "has just started".to_owned(),
            (true, "standby") => "could take it, but hears no majority of the voters".to_owned(),
            (true, "paused") => "was demoted by hand, and nobody else has held it since".to_owned(),
            _ => format!("says that it is not ready: run `vip-ctl explain {}` on it", group.name),
        }
    } else {
        match holder {
            Some(holder) if candidate.rank < holder.rank => {
                "is ready and comes first, but a holder keeps the lease unless preempt = true".to_owned()
            }
            Some(holder) if candidate.priority < holder.priority => {
                format!("is ready; its priority is lower ({} < {})", candidate.priority, holder.priority)
            }
            Some(holder) => format!("is ready; {} has it, of the same priority", holder.node),
            None => "is ready".to_owned(),
        }
    };
    Standing { candidate: candidate.clone(), heard, standby, because }
}

/// What happens if the holder dies, or why nobody holds.
fn next(status: &Status, group: &GroupStatus) -> Vec<String> {
    let voters: Vec<_> = status.nodes.iter().filter(|node| node.role != "observer").collect();
    let (all, majority) = (voters.len(), voters.len() / 2 + 1);
    let heard = voters.iter().filter(|node| node.heard).count();
    let mut sentences = Vec::new();
    let Some(holder) = group.holder.as_deref() else {
        sentences.push(if status.silent {
            "nobody is known to hold it: this agent has just started".to_owned()
        } else if status.quorate == Some(false) {
            format!("nobody is known to hold it: this node hears {heard} of {all} voters and needs {majority}")
        } else {
            match &group.heir {
                Some(Heir::Node { node }) => {
                    format!("nobody holds it at this moment: {node} is about to take it")
                }
                Some(Heir::Perhaps { node }) => format!(
                    "nobody holds it: {node} takes it if it is ready, which only {node} can tell; run `vip-ctl explain {}` on it",
                    group.name
                ),
                Some(Heir::Paused) => "nobody holds it: the cluster is paused; `vip-ctl resume` lets a node take it, \
                     `vip-ctl promote` makes this one"
                    .to_owned(),
                Some(Heir::PairHolds) => {
                    "nobody holds it: pair mode, hold; run `vip-ctl failover --force` if the other node is off".to_owned()
                }
                Some(Heir::NobodyReady | Heir::NoMajority { .. }) => {
                    "nobody holds it: no node is ready to take it".to_owned()
                }
                // An agent of another version does not say who could.
                None => "nobody holds it".to_owned(),
            }
        });
        return sentences;
    };
    let about_ms = status.lease_ms.map(|lease| (lease + lease / 20).next_multiple_of(10));
    let within = about_ms.map(|ms| format!(" within about {ms} ms")).unwrap_or_default();
    let follows = match &group.heir {
        // An agent of another version does not say.
        None => return sentences,
        Some(Heir::Node { node }) => format!("{node} takes over{within}"),
        Some(Heir::Perhaps { node }) => {
            format!("{node} takes over{within} if it is ready, which only {node} can tell")
        }
        Some(Heir::Paused) => {
            "nobody takes over by itself: the cluster is paused until `vip-ctl resume`".to_owned()
        }
        Some(Heir::PairHolds) => {
            "nobody takes over by itself: pair mode, hold; run `vip-ctl failover --force` then".to_owned()
        }
        Some(Heir::NoMajority { voters_left }) => {
            format!(
                "nobody takes over: only {voters_left} of {all} voters would be left, and {majority} are needed"
            )
        }
        Some(Heir::NobodyReady) => "nobody takes over: no other node is ready".to_owned(),
    };
    sentences.push(format!("if {holder} dies, {follows}"));
    let others: Vec<_> = group.candidates.iter().filter(|candidate| candidate.node != holder).collect();
    for other in others.iter().filter(|candidate| !candidate.ready) {
        let known = status.nodes.iter().find(|node| node.name == other.node);
        let why = match known {
            Some(node) if !node.heard => "is not heard",
            Some(node) if node.standby => "is on standby",
            Some(_) | None => "is not ready",
        };
        sentences.push(format!("{} {why}", other.node));
    }
    sentences
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    let e = explanation;
    // Writing to a string does not fail.
    let _ = match &e.holder {
        Some(holder) => write!(out, "group {} is held by {holder}", e.group),
        None => write!(out, "group {} is held by nobody that {} knows of", e.group, e.node),
    };
    if let Some(epoch) = e.epoch.filter(|_| e.holder.is_some()) {
        let _ = write!(out, ", epoch {epoch}");
    }
    let _ = writeln!(out);
    if let (Some(since), Some(reason)) = (e.since, &e.reason) {
        let _ = write!(out, "  since {since}: {reason}");
        if let Some(command) = &e.command {
            let _ = write!(out, ", by {command}");
        }
        if let Some(gap) = e.gap_ms {
            let _ = write!(out, ", gap {gap} ms");
        }
        let _ = writeln!(out);
    }
    let _ = writeln!(
        out,
        "  {} {}{}",
        e.node,
        if e.quorate { "hears a majority of the voters" } else { "HEARS NO MAJORITY of the voters" },
        if e.paused { "; the cluster is PAUSED" } else { "" }
    );
    let mut homed = e.vips.iter().filter(|vip| vip.interface.is_some());
    for vip in homed.by_ref().take(HOMES_SHOWN) {
        let _ = writeln!(out, "  {}", vip.at_home);
    }
    let more = homed.count();
    if more > 0 {
        let _ = writeln!(out, "  and {more} more VIPs with an interface of their own");
    }
    for node in &e.nodes {
        let (candidate, because) = (&node.candidate, &node.because);
        let _ = writeln!(
            out,
            "  {}. {:<16} priority {:<3} {because}",
            candidate.rank, candidate.node, candidate.priority
        );
    }
    for sentence in &e.next {
        let _ = writeln!(out, "{sentence}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::{Change, Events},
        report::NodeStatus,
    };

    fn node(name: &str, role: &str) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            address: "10.0.0.1:7077".into(),
            role: role.into(),
            heard: true,
            standby: false,
            differs: false,
            last_heard_ms: Some(20),
        }
    }

    fn candidate(node: &str, rank: usize, priority: u8) -> Candidate {
        Candidate { node: node.into(), priority, rank, ready: true }
    }

    fn status() -> Status {
        let mut group: GroupStatus = serde_json::from_value(serde_json::json!({
            "name": "db", "state": "standby", "mode": "cluster", "holder": "db-a", "epoch": 4,
            "lease_remaining_ms": null, "vips": [{ "address": "10.0.0.9", "counters": {} }]
        }))
        .unwrap();
        group.candidates =
            vec![candidate("db-a", 1, 150), candidate("db-b", 2, 120), candidate("db-c", 3, 100)];
        Status {
            node: "db-b".into(),
            cluster: Some("shop".into()),
            quorate: Some(true),
            lease_ms: Some(200),
            nodes: vec![node("db-a", "node"), node("db-b", "node"), node("db-c", "node")],
            groups: vec![group],
            ..Status::default()
        }
    }

    fn said(status: &Status, history: &[Event]) -> String {
        let text = text(&explain(status, &status.groups[0], history));
        // The time differs in each run.
        text.lines()
            .map(|line| {
                line.split_once("since ").map_or(line.to_owned(), |(before, after)| {
                    format!("{before}since T:{}", after.split_once("Z:").map_or("", |(_, rest)| rest))
                })
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_group_in_order_and_one_with_a_node_on_standby() {
        let events = Events::new("db-b", None);
        let change = |epoch, holder: &str, reason: &str| {
            Kind::Changed(Change {
                to: "standby".into(),
                holder: Some(holder.into()),
                epoch,
                reason: reason.into(),
                command: Some("switchover (at db-c)".into()),
                ..Change::default()
            })
        };
        events.publish(Some("db"), change(3, "db-b", "elected"), "");
        events.publish(Some("db"), change(4, "db-a", "holder_seen"), "");
        events.publish(Some("db"), change(4, "db-a", "started"), "a restart since");
        let history: Vec<Event> = events.recent().iter().map(|event| Event::clone(event)).collect();
        let mut status = status();
        status.nodes[2].standby = true;
        status.groups[0].candidates[2].ready = false;
        status.groups[0].heir = Some(Heir::Node { node: "db-b".into() });
        insta::assert_snapshot!(said(&status, &history), @r"
        group db is held by db-a, epoch 4
          since T: holder_seen, by switchover (at db-c)
          db-b hears a majority of the voters
          1. db-a             priority 150 holds it
          2. db-b             priority 120 is ready; its priority is lower (120 < 150)
          3. db-c             priority 100 is on standby until `vip-ctl unstandby db-c`
        if db-a dies, db-b takes over within about 210 ms
        db-c is on standby
        ");
    }

    #[test]
    fn vips_with_an_interface_of_their_own_are_listed() {
        let mut status = status();
        let vip = |number: u8, interface: Option<&str>| VipStatus {
            address: format!("203.0.113.{number}"),
            interface: interface.map(str::to_owned),
            prefix: interface.map(|_| 24),
            ..VipStatus::default()
        };
        status.groups[0].vips = vec![vip(1, None), vip(2, Some("wan0")), vip(3, Some(""))];
        let said_of = |status: &Status| {
            let said = said(status, &[]);
            said.lines()
                .filter(|line| line.contains("VIP") || line.contains("203."))
                .map(str::to_owned)
                .collect()
        };
        let said: Vec<String> = said_of(&status);
        assert_eq!(said, ["  203.0.113.2/24 on wan0", "  203.0.113.3/24, whose interface is away"]);
        status.groups[0].vips = (1..=10).map(|number| vip(number, Some("wan0"))).collect();
        let said: Vec<String> = said_of(&status);
        assert_eq!(
            said[7..],
            ["  203.0.113.8/24 on wan0", "  and 2 more VIPs with an interface of their own"]
        );
    }

    #[test]
    fn what_keeps_anybody_from_taking_over_is_named() {
        let mut status = status();
        status.nodes[2].heard = false;
        status.nodes[2].last_heard_ms = Some(65_400);
        status.groups[0].candidates[2].ready = false;
        status.groups[0].heir = Some(Heir::NoMajority { voters_left: 1 });
        insta::assert_snapshot!(said(&status, &[]), @r"
        group db is held by db-a, epoch 4
          db-b hears a majority of the voters
          1. db-a             priority 150 holds it
          2. db-b             priority 120 is ready; its priority is lower (120 < 150)
          3. db-c             priority 100 has not been heard for 1m 5s
        if db-a dies, nobody takes over: only 1 of 3 voters would be left, and 2 are needed
        db-c is not heard
        ");
        let mut nobody = status.clone();
        nobody.groups[0].holder = None;
        nobody.quorate = Some(false);
        nobody.nodes[0].heard = false;
        assert_eq!(
            next(&nobody, &nobody.groups[0]),
            ["nobody is known to hold it: this node hears 1 of 3 voters and needs 2"]
        );
    }

    #[test]
    fn an_agent_that_hangs_is_told_from_one_that_is_not_there() {
        let dir = std::env::temp_dir().join(format!("vip-explain-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let paths = Paths { bpf_dir: dir.clone(), run_dir: dir.clone(), state_dir: dir.clone() };
        let args = Args { group: None };
        assert_eq!(run(&args, &paths, Format::Text).unwrap_err().exit, Exit::NotLoaded);
        // A stopped agent still has a socket that takes connections, but nobody answers.
        let _agent = std::os::unix::net::UnixListener::bind(paths.socket()).unwrap();
        let failure = run(&args, &paths, Format::Text).unwrap_err();
        assert_eq!(failure.exit, Exit::Timeout, "{}", failure.message);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
