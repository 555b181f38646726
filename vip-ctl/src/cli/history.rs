//! `vip-ctl history`: what moved when and why. It reads the state directory, and
//! needs no agent.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::support::{
    client,
    output::{Failure, Format, print, print_json},
};
use crate::{
    agent::control::{Request, Response},
    events::{Change, Event, Hook, HookRun, Kind, history},
    exit::Exit,
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl history db --since 1h")]
pub(super) struct Args {
    /// Only this group.
    #[arg(value_name = "GROUP")]
    group: Option<String>,
    /// At most this many changes, the latest ones.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only changes that are not older than this, such as 1h or 7d.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

/// A change, and the hooks that ran for it.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(flatten)]
    event: Event,
    hooks: Vec<HookRun>,
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let entries = entries(read(paths)?);
    if let Some(group) = &args.group {
        let of_history = entries.iter().filter_map(|entry| entry.event.group.clone()).collect();
        known(group, of_history, || of_agent(paths))?;
    }
    let is_wanted = |entry: &Entry| {
        args.group.as_ref().is_none_or(|group| entry.event.group.as_ref() == Some(group))
            && args.since.is_none_or(|since| entry.event.time.age() <= since)
    };
    let mut wanted: Vec<_> = entries.into_iter().filter(is_wanted).collect();
    wanted.drain(..wanted.len().saturating_sub(args.limit));
    match format {
        Format::Json => print_json(&serde_json::json!({ "history": wanted }))?,
        Format::Text => print(&text(&wanted)),
    }
    Ok(Exit::Ok)
}

/// Does this group exist, as far as this node can tell? Only the agent knows a
/// group that has never moved. Without an agent, a name that the history does not
/// have counts as a typo.
fn known(
    group: &str,
    mut known: BTreeSet<String>,
    of_agent: impl FnOnce() -> Option<Vec<String>>,
) -> Result<(), Failure> {
    if !known.contains(group) {
        known.extend(of_agent().unwrap_or_default());
    }
    if known.is_empty() || known.contains(group) {
        return Ok(());
    }
    let known: Vec<_> = known.into_iter().collect();
    Err(Failure::new(
        Exit::NoSuch,
        format!("there is no group {group:?}, and none in the history: name one of {}", known.join(", ")),
    ))
}

/// The groups of this node's agent; `None` if none answers.
fn of_agent(paths: &Paths) -> Option<Vec<String>> {
    match client::ask(paths, &Request::Status) {
        Ok(Some(Response::Status(status))) => {
            Some(status.groups.into_iter().map(|group| group.name).collect())
        }
        // The history needs no agent.
        Ok(_) | Err(_) => None,
    }
}

/// The history's records.
pub(super) fn read(paths: &Paths) -> Result<Vec<Event>, Failure> {
    history::read(&paths.state_dir).map_err(|e| {
        let is_forbidden = e.kind() == std::io::ErrorKind::PermissionDenied;
        let exit = if is_forbidden { Exit::NoPermission } else { Exit::System };
        let dir = paths.state_dir.display();
        Failure::new(
            exit,
            format!("the history in {dir} can't be read ({e}): run it as root, or name --state-dir"),
        )
    })
}

/// Puts the hooks to the changes that they ran for: `pre_demote` to the change
/// that came after it, others to the change that they followed from. Another
/// thread records changes, so a hook's record may come before that of its change.
fn entries(events: Vec<Event>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut before: Vec<(Option<String>, HookRun)> = Vec::new();
    for event in events {
        match &event.kind {
            Kind::Changed(change) => {
                let is_of = |(group, run): &(Option<String>, HookRun)| {
                    *group == event.group && may_be_of(change, run)
                };
                let (hooks, rest) = before.into_iter().partition(is_of);
                before = rest;
                let hooks: Vec<(Option<String>, HookRun)> = hooks;
                entries.push(Entry { event, hooks: hooks.into_iter().map(|(_, run)| run).collect() });
            }
            Kind::Hook(run) => {
                let caused = |entry: &Entry, is_exact: bool| {
                    entry.event.group == event.group
                        && matches!(&entry.event.kind, Kind::Changed(change)
                            if is_cause(change, run) && (!is_exact || change.epoch == run.epoch))
                };
                let place = entries.iter().rposition(|entry| caused(entry, true));
                let place = place.or_else(|| entries.iter().rposition(|entry| caused(entry, false)));
                match place.and_then(|place| entries.get_mut(place)) {
                    Some(entry) => entry.hooks.push(run.clone()),
                    None => before.push((event.group.clone(), run.clone())),
                }
            }
            Kind::Connected { .. }
            | Kind::Rejected { .. }
            | Kind::Claim { .. }
            | Kind::Silent { .. }
            | Kind::Late { .. }
            | Kind::Eligible { .. }
            | Kind::Check { .. }
            | Kind::Mode { .. }
            | Kind::Missed { .. } => {}
        }
    }
    entries
}

/// Does a hook that was recorded before this change belong to it? Not if its own
/// change is still to come; but if that never came, this is better than dropping
/// it.
fn may_be_of(change: &Change, run: &HookRun) -> bool {
    run.hook == Hook::PreDemote || is_cause(change, run) || change.epoch > run.epoch
}

/// Did this hook run because of that change?
fn is_cause(change: &Change, run: &HookRun) -> bool {
    let (from, to) = (change.from.as_deref(), change.to.as_str());
    let is_up = |state: Option<&str>| matches!(state, Some("active" | "promoting"));
    // A node that loses a lease may already know of a later grant.
    let is_epoch = change.epoch == run.epoch || run.hook == Hook::PostDemote && change.epoch > run.epoch;
    is_epoch
        && match run.hook {
            Hook::PreDemote => false,
            Hook::PrePromote => to == "promoting",
            Hook::PostPromote => to == "active" && from != Some("active"),
            // The first change after a start follows from the state before the start.
            Hook::PostDemote => !is_up(Some(to)) && (from.is_none() || is_up(from)),
            Hook::OnFault => to == "fault" && from != Some("fault"),
        }
}

fn text(entries: &[Entry]) -> String {
    let mut out = String::new();
    for Entry { event, hooks } in entries {
        // Writing to a string does not fail.
        let group = event.group.as_deref().unwrap_or("-");
        let _ = writeln!(out, "{} {group}: {}", event.time, event.message);
        for run in hooks {
            let outcome = serde_json::to_value(run.outcome).unwrap_or_default();
            let outcome = outcome.as_str().unwrap_or("?").replace('_', " ");
            let exit = run.exit.filter(|code| *code != 0).map(|code| format!(", exit code {code}"));
            let exit = exit.unwrap_or_default();
            let _ = write!(out, "    {}: {outcome}{exit}, {} ms", run.hook, run.duration_ms);
            match run.output.first() {
                Some(line) => _ = writeln!(out, ": {line}"),
                None => _ = writeln!(out),
            }
        }
    }
    if out.is_empty() {
        out.push_str("nothing has moved here yet, or not in that time\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Events, HookOutcome};

    fn run(hook: Hook) -> Kind {
        let (outcome, exit, output) = (HookOutcome::Failed, Some(3), vec!["no".into(), "why".into()]);
        Kind::Hook(HookRun { hook, outcome, exit, duration_ms: 12, output, epoch: 1 })
    }

    #[test]
    fn a_group_that_has_never_moved_is_none_that_is_not_there() {
        let history = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let agent = || Some(vec!["db".to_owned(), "new".to_owned()]);
        assert!(known("db", history(&["db"]), || panic!("nobody has to be asked")).is_ok());
        assert!(known("new", history(&["db"]), agent).is_ok());
        let failure = known("dbb", history(&["old"]), agent).unwrap_err();
        assert_eq!(failure.exit, Exit::NoSuch);
        assert!(failure.message.contains("name one of db, new, old"), "{}", failure.message);
        assert_eq!(known("dbb", history(&["db"]), || None).unwrap_err().exit, Exit::NoSuch);
        assert!(known("dbb", history(&[]), || None).is_ok(), "nothing is known at all");
    }

    #[test]
    fn hooks_that_are_told_of_first_wait_for_their_change() {
        let events = Events::new("db-a", None);
        let change = |from: &str, to: &str, epoch| {
            Kind::Changed(Change { from: Some(from.into()), to: to.into(), epoch, ..Change::default() })
        };
        events.publish(Some("db"), run(Hook::PrePromote), "");
        events.publish(Some("db"), run(Hook::PostPromote), "");
        events.publish(Some("db"), change("standby", "promoting", 1), "won");
        events.publish(Some("db"), change("promoting", "active", 1), "open");
        events.publish(Some("db"), run(Hook::PostDemote), "");
        // By then this node knows of another node's grant.
        events.publish(Some("db"), change("active", "standby", 2), "lost");
        let recent = events.recent().iter().map(|event| Event::clone(event)).collect();
        let entries = entries(recent);
        let hooks: Vec<Vec<_>> =
            entries.iter().map(|entry| entry.hooks.iter().map(|run| run.hook).collect()).collect();
        assert_eq!(hooks, [vec![Hook::PrePromote], vec![Hook::PostPromote], vec![Hook::PostDemote]]);
    }

    #[test]
    fn hooks_are_put_to_the_change_that_they_ran_for() {
        let events = Events::new("db-a", None);
        let change = |from: &str, to: &str| {
            Kind::Changed(Change { from: Some(from.into()), to: to.into(), epoch: 1, ..Change::default() })
        };
        events.publish(Some("db"), change("standby", "active"), "active");
        events.publish(Some("db"), run(Hook::PostPromote), "");
        events.publish(Some("web"), change("init", "standby"), "standby");
        events.publish(Some("db"), run(Hook::PreDemote), "");
        events.publish(Some("db"), change("active", "standby"), "released");
        events.publish(Some("db"), change("standby", "standby"), "held by another");
        events.publish(Some("db"), run(Hook::PostDemote), "");
        let recent = events.recent().iter().map(|event| Event::clone(event)).collect();
        let entries = entries(recent);
        let hooks: Vec<Vec<_>> =
            entries.iter().map(|entry| entry.hooks.iter().map(|run| run.hook).collect()).collect();
        assert_eq!(hooks, [vec![Hook::PostPromote], vec![], vec![Hook::PreDemote, Hook::PostDemote], vec![]]);
        let text = text(&entries);
        assert!(text.contains("    post_demote: failed, exit code 3, 12 ms: no\n"), "{text}");
        let json = serde_json::to_value(&entries[0]).unwrap();
        assert_eq!(json["hooks"][0]["hook"], "post_promote");
        assert_eq!(json["kind"], "changed");
    }
}
