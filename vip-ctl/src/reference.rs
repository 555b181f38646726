//! `docs/reference.md`, made from the code: every key of the configuration,
//! every metric, every exit code and verb. These tests fail when the file is
//! not what the code says; `VIP_UPDATE_DOCS=1 cargo test -p vip-ctl reference`
//! writes it anew.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf, time::Duration};

use clap::Command;

use crate::{
    agent::lateness::Lateness,
    cli,
    config::{
        DELAY_MAX, LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, PREEMPT_DELAY_DEFAULT, PRIORITY_DEFAULT,
        PRIORITY_MAX, keys,
    },
    exit::Exit,
    metrics,
    report::Status,
};

/// What each key is. One of a table that this version does not have is left out.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("[node]", "name", "This node's name, as under `[[cluster.node]]`; default: the host's name."),
    (
        "[node]",
        "interface",
        "The interface, or an array of them, that the VIPs' traffic comes in by. A witness or observer needs none.",
    ),
    (
        "[node]",
        "startup_delay",
        "How long after its start this node takes nothing by itself; default: `\"0s\"`, at most {DELAY_MAX}.",
    ),
    ("[cluster]", "name", "The cluster's name; datagrams of another one are rejected."),
    (
        "[cluster]",
        "key_file",
        "The file with the cluster's key, mode 0600; a relative path is taken from the configuration's directory.",
    ),
    (
        "[cluster]",
        "lease",
        "How long a vote for a holder counts, from {LEASE_MIN} to {LEASE_MAX}; default: {LEASE_DEFAULT}. A dead holder's groups are elsewhere after about that.",
    ),
    (
        "[cluster]",
        "pair",
        "For two voters only, what a node does that does not hear the other: `\"take\"` or `\"hold\"`; see [lease.md](lease.md#pair-mode).",
    ),
    ("[cluster]", "generation", "Number of the membership, which `vip-ctl member` raises; default: 1."),
    ("[cluster]", "node", "The nodes, each a `[[cluster.node]]`."),
    ("[[cluster.node]]", "name", "The node's name: letters, digits and `-_.`."),
    ("[[cluster.node]]", "address", "IP address and UDP port that its agent listens on."),
    ("[[cluster.node]]", "witness", "`true`: it votes, and never holds."),
    ("[[cluster.node]]", "observer", "`true`: it looks on, and neither votes nor holds."),
    (
        "[[cluster.node]]",
        "id",
        "Its number on the wire, which `vip-ctl member` gives; default: its place among the names.",
    ),
    (
        "[api]",
        "listen",
        "IP address and TCP port for HTTPS; without it there is only the unix socket. See [http.md](http.md).",
    ),
    ("[api]", "tls_cert", "The certificate chain, PEM."),
    ("[api]", "tls_key", "Its private key, PEM, mode 0600."),
    ("[api]", "tokens", "The file with the bearer tokens, mode 0600."),
    ("[[group]]", "name", "The group's name: small letters, digits and `-_.`."),
    ("[[group]]", "vips", "The addresses that move together, without prefix length."),
    (
        "[[group]]",
        "priority",
        "By node, 1 to {PRIORITY_MAX}, higher is preferred; default: {PRIORITY_DEFAULT}.",
    ),
    ("[[group]]", "preempt", "`true`: a node of higher priority takes the group back; default: `false`."),
    (
        "[[group]]",
        "preempt_delay",
        "How long it must have been ready before that; default: {PREEMPT_DELAY_DEFAULT}.",
    ),
    (
        "[[group]]",
        "check",
        "Health checks, each a `[[group.check]]`: a node that fails one does not hold the group.",
    ),
    (
        "[[group]]",
        "track_interface",
        "Interfaces that have to be up, with carrier, for a node to hold the group.",
    ),
    (
        "[[group]]",
        "when_all_fail",
        "What happens when the checks fail on every node: `\"release\"` (the default), nobody answers; `\"keep\"`, the holder keeps it until another node is ready.",
    ),
    ("[[group]]", "hooks", "Programs that are run when this group moves: `[group.hooks]`."),
    ("[[group.check]]", "name", "Its name in status, log and metrics; default: what it checks."),
    ("[[group.check]]", "tcp", "Address and port that has to accept a connection."),
    ("[[group.check]]", "http", "URL (`http://` or `https://`) that has to answer well."),
    ("[[group.check]]", "status", "The HTTP status that is expected."),
    ("[[group.check]]", "body", "What the answer has to contain."),
    ("[[group.check]]", "insecure", "`true`: the server's certificate is not verified."),
    ("[[group.check]]", "exec", "Program and arguments, run without a shell; 0 is well."),
    ("[[group.check]]", "systemd", "Unit that has to be active."),
    ("[[group.check]]", "process", "Name of a process that has to be there, as in /proc/PID/comm."),
    ("[[group.check]]", "file", "File that has to be there."),
    ("[[group.check]]", "present", "With `file`; `false`: it must not be there."),
    ("[[group.check]]", "interval", "How often it is run."),
    ("[[group.check]]", "timeout", "How long it may take; at most the interval."),
    ("[[group.check]]", "rise", "How many good runs in a row make it well."),
    ("[[group.check]]", "fall", "How many bad runs in a row make it fail."),
    (
        "[hooks]",
        "pre_promote",
        "Program and arguments, run when this node has won the lease; traffic is dropped until it returns.",
    ),
    ("[hooks]", "post_promote", "Run when this node answers."),
    ("[hooks]", "pre_demote", "Run before a planned move away from this node; the lease is kept meanwhile."),
    ("[hooks]", "post_demote", "Run when this node does not answer any more."),
    ("[hooks]", "on_fault", "Run when this node can't serve the group any more."),
    ("[hooks]", "timeout", "How long each may take, `pre_demote` excepted; then it is killed."),
    ("[hooks]", "pre_demote_timeout", "How long `pre_demote` may take."),
    ("[hooks]", "on_failure", "What follows when `pre_promote` fails: `\"release\"` or `\"ignore\"`."),
    (
        "[hooks]",
        "retry_after",
        "How long this node stays away from a group after its `pre_promote` has failed.",
    ),
    ("[hooks]", "webhook", "URL that gets a JSON object by POST for each change; `\"\"`: nobody is told."),
];

/// The tables whose keys are those of another one.
const SAME: &[(&str, &str)] = &[("[group.hooks]", "[hooks]")];

fn meaning(table: &str, key: &str) -> Option<String> {
    let table = SAME.iter().find(|(same, _)| *same == table).map_or(table, |(_, as_in)| as_in);
    let (.., text) = MEANINGS.iter().find(|(t, k, _)| *t == table && *k == key)?;
    let time = |duration: Duration| format!("`\"{}\"`", humantime::format_duration(duration));
    Some(
        text.replace("{DELAY_MAX}", &time(DELAY_MAX))
            .replace("{LEASE_MIN}", &time(LEASE_MIN))
            .replace("{LEASE_MAX}", &time(LEASE_MAX))
            .replace("{LEASE_DEFAULT}", &time(LEASE_DEFAULT))
            .replace("{PREEMPT_DELAY_DEFAULT}", &time(PREEMPT_DELAY_DEFAULT))
            .replace("{PRIORITY_MAX}", &PRIORITY_MAX.to_string())
            .replace("{PRIORITY_DEFAULT}", &PRIORITY_DEFAULT.to_string()),
    )
}

/// A status in which everything is there, so that every metric is. As JSON, so
/// that what is added to it and may be left out, may be left out here.
fn full() -> Status {
    let status = serde_json::json!({
        "node": "db-a", "cluster": "shop", "quorate": true, "mode": "cluster", "pair": "take", "generation": 1,
        "nodes": [{ "name": "db-a", "address": "10.0.1.10:7077", "role": "node", "heard": true }],
        "interfaces": [{ "name": "eth0", "xdp": "native", "carrier": true }],
        "groups": [{
            "name": "db", "state": "active", "mode": "cluster", "holder": "db-a", "epoch": 1,
            "lease_remaining_ms": 100, "eligible": true,
            "checks": [{ "name": "port", "kind": "tcp", "ok": true, "since_s": 1, "took_ms": 1.0 }],
            "vips": [{ "address": "10.0.1.12", "counters": { "arp_request_answer_lease": 1 } }],
        }],
        "counters": {}, "warnings": [],
        "agent": { "heartbeats_sent": 1, "heartbeats_unsent": 1, "heartbeats_received": 1, "transitions": 1 },
        "rejected": { "bad_tag": 1 },
        "renewals": Lateness::default(),
    });
    serde_json::from_value(status).expect("a status")
}

fn reference() -> String {
    let mut out = String::from(
        "# Reference\n\nMade from the code by its tests; change it there (`vip-ctl/src/reference.rs` says how).\n\n\
         ## Configuration\n\n`/etc/vip/vip.toml`. Unknown keys are refused. A time is a number and its unit, such as `\"200ms\"`.\n",
    );
    for (table, keys) in keys() {
        // Writing to a string does not fail.
        let _ = write!(out, "\n### `{table}`\n\n| key | meaning |\n|---|---|\n");
        for key in *keys {
            let _ = writeln!(out, "| `{key}` | {} |", meaning(table, key).unwrap_or_default());
        }
    }
    out.push_str("\n## Metrics\n\n`vip-ctl metrics`. Counters end in `_total`, as Prometheus shows them.\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    let text = metrics::text(&full()).expect("formatted");
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind =
            text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap_or("unknown");
        let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let _ = writeln!(out, "| `{shown}` | {kind} | {} | {help} |", labels(&text, name).join(", "));
    }
    out.push_str("\n## Exit codes\n\n| code | name | meaning |\n|---|---|---|\n");
    for (exit, says) in exits() {
        let _ = writeln!(out, "| {} | `{exit:?}` | {says} |", exit as u8);
    }
    out.push_str("\n## Verbs\n\n`vip-ctl help VERB` and `man vip-ctl-VERB` tell the rest.\n\n| verb | does |\n|---|---|\n");
    let command = cli::command();
    let mut verbs: Vec<&Command> =
        command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
    verbs.sort_by_key(|verb| verb.get_name());
    for verb in verbs {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "| `{}` | {about} |", verb.get_name());
    }
    out
}

/// The labels of a metric's samples, each once.
fn labels(text: &str, metric: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let is_its = name == metric
            || name
                .strip_prefix(metric)
                .is_some_and(|end| ["_total", "_bucket", "_sum", "_count"].contains(&end));
        if !is_its {
            continue;
        }
        let inside = rest.split_once('}').map_or(rest, |(inside, _)| inside);
        for label in inside.split("\",").filter_map(|pair| pair.split_once('=')) {
            let label = format!("`{}`", label.0);
            if label != "`le`" && !found.contains(&label) {
                found.push(label);
            }
        }
    }
    found
}

/// Every exit code with the first sentence of its documentation in exit.rs.
fn exits() -> Vec<(Exit, String)> {
    let source = include_str!("exit.rs");
    let mut docs = Vec::new();
    let mut found = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// ") {
            docs.push(doc);
        } else if let Some(code) =
            line.strip_suffix(',').and_then(|line| line.split_once(" = ")?.1.parse().ok())
        {
            found.push((Exit::from_code(code), docs.join(" ")));
            docs.clear();
        } else {
            docs.clear();
        }
    }
    found
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md")
}

#[test]
fn every_key_has_a_meaning() {
    for (table, keys) in keys() {
        for key in *keys {
            assert!(meaning(table, key).is_some(), "MEANINGS has nothing about {key} of {table}");
        }
    }
}

#[test]
fn the_reference_is_what_the_code_says() {
    let wanted = reference();
    if std::env::var_os("VIP_UPDATE_DOCS").is_some() {
        fs::write(path(), &wanted).expect("written");
    }
    let found = fs::read_to_string(path()).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/reference.md is not what the code says: run VIP_UPDATE_DOCS=1 cargo test -p vip-ctl reference"
    );
}

/// The words that begin with `vip_`, which is what our metrics are called.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("vip_"))
        .collect()
}

#[test]
fn dashboard_and_alerts_use_metrics_that_there_are() {
    let text = metrics::text(&full()).expect("formatted");
    let there: BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let dashboard = include_str!("../../packaging/grafana-dashboard.json");
    let alerts = include_str!("../../packaging/alerts.yaml");
    for (file, used) in [("the dashboard", dashboard), ("the alerts", alerts)] {
        let used = metrics_in(used);
        assert!(used.len() > 5, "{file} uses hardly any metric: {used:?}");
        for name in used {
            assert!(there.contains(name), "{file} uses {name}, which is not among {there:?}");
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../packaging/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
            "{title} asks nothing"
        );
        assert!(panel["gridPos"]["w"].as_u64().is_some_and(|w| w <= 24), "{title} is too wide");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts = include_str!("../../packaging/alerts.yaml");
    let operations = include_str!("../../docs/operations.md");
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            operations.lines().any(|line| line == format!("### {name}")),
            "docs/operations.md has no section {name}"
        );
        let anchor = format!("runbook: docs/operations.md#{}", name.to_lowercase());
        assert!(alerts.contains(&anchor), "{name} names no section to read");
    }
}
