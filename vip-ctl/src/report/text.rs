//! A status as text.

use std::fmt::Write as _;

use super::{CheckStatus, GroupStatus, Status};

fn check_text(check: &CheckStatus) -> String {
    let CheckStatus { name, kind, ok, since_s, last_error, took_ms: _ } = check;
    let state = match ok {
        None => "no result yet".to_owned(),
        Some(true) => format!("passes since {since_s} s"),
        Some(false) => format!("FAILS since {since_s} s"),
    };
    let error = last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    format!("check {name} ({kind}) {state}{error}")
}

/// A status as text.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match (&status.cluster, status.quorate) {
        (Some(cluster), Some(quorate)) => writeln!(
            out,
            "node {} ({}) of cluster {cluster}, {}",
            status.node,
            status.mode,
            if quorate { "quorate" } else { "NO QUORUM" }
        ),
        _ => writeln!(out, "node {}, from its maps alone (no agent answers)", status.node),
    };
    if status.silent {
        let _ = writeln!(out, "this agent has just started and has no vote yet");
    }
    if status.paused {
        let _ = writeln!(out, "PAUSED: no automatic moves until `vip-ctl resume`");
    }
    for node in &status.nodes {
        let _ = writeln!(
            out,
            "  {:<16} {:<22} {}{}{}",
            node.name,
            node.address,
            if node.heard { "heard" } else { "silent" },
            if node.role == "node" { String::new() } else { format!(", {}", node.role) },
            if node.standby { ", on standby" } else { "" }
        );
    }
    for interface in &status.interfaces {
        let _ = writeln!(
            out,
            "interface {}: {}, {}{}{}",
            interface.name,
            interface.mode.as_ref().map_or("not attached".to_owned(), |mode| format!("{mode} mode")),
            if interface.carrier { "carrier" } else { "no carrier" },
            if interface.announces { "" } else { ", only guarded" },
            if interface.heard == Some(false) { ", answers lost" } else { "" }
        );
    }
    for group in &status.groups {
        write_group(&mut out, group);
    }
    for warning in &status.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn write_group(out: &mut String, group: &GroupStatus) {
    let _ = write!(
        out,
        "group {}: {}, holder {}",
        group.name,
        group.state,
        group.holder.as_deref().unwrap_or("unknown")
    );
    if let Some(epoch) = group.epoch {
        let _ = write!(out, ", epoch {epoch}");
    }
    if group.forced {
        let _ = write!(out, ", BY FORCE");
    }
    if group.state == "promoting" {
        let _ = write!(out, ", SHUT until pre_promote has ended");
    }
    if let Some(rest) = group.stays_away_ms {
        let _ = write!(out, ", pre_promote failed: stays away for {} s", rest.div_ceil(1000));
    }
    if let Some(remaining) = group.lease_remaining_ms {
        let _ = write!(out, ", lease {remaining} ms");
    }
    let _ = writeln!(out);
    if let (Some(false), Some(why)) = (group.eligible, &group.why) {
        let _ = writeln!(out, "  not eligible on this node: {why}");
    }
    for check in &group.checks {
        let _ = writeln!(out, "  {}", check_text(check));
    }
    for vip in &group.vips {
        let _ = writeln!(out, "  {}", vip.at_home());
        for (name, frames) in &vip.counters {
            let _ = writeln!(out, "    {name:<32} {frames:>12}");
        }
    }
}
