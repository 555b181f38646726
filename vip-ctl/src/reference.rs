//! `docs/reference.md`, made from the code: every key of the configuration, every
//! metric, every exit code and verb. These tests fail if the file differs from
//! the code; `VIP_UPDATE_DOCS=1 cargo test -p vip-ctl reference` writes it anew.

mod rules;

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use clap::Command;
use vip_lease::lateness::Lateness;

use crate::{
    agent::control::counted,
    cli,
    config::{
        CHECK_COUNT_MAX, CHECK_INTERVAL, CHECK_INTERVAL_DEFAULT, CHECK_TIMEOUT_DEFAULT, CHECK_TIMEOUT_MIN,
        CHECKS_MAX, COMM_LEN_MAX, DELAY_MAX, FALL_DEFAULT, Hooks, LEASE_DEFAULT, LEASE_MAX, LEASE_MIN,
        PREEMPT_DELAY_DEFAULT, PRIORITY_DEFAULT, PRIORITY_MAX, RISE_DEFAULT, hooks, keys,
    },
    events::{Change, Events, Hook, HookOutcome, HookRun, Kind, Tally},
    exit::Exit,
    report::{self, Status, metrics},
    transport::Rejected,
};

/// What each key means. A key of a table that this version does not have is left
/// out.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("[node]", "name", "This node's name, as under `[[cluster.node]]`; default: the host's name."),
    (
        "[node]",
        "interface",
        "The interface that the VIPs' traffic comes in by, or an array of them, each by its name or as a table. A witness or observer needs none.",
    ),
    (
        "[node]",
        "mode",
        "How the program on the way in runs on all of them: `\"native\"` (XDP in the driver), `\"tc\"`, `\"generic\"` (XDP behind the driver) or `\"auto\"`, the default; see [interfaces.md](interfaces.md).",
    ),
    (
        "[[node.interface]]",
        "name",
        "An interface of several; a table in the array of `interface` is the same, shorter.",
    ),
    ("[[node.interface]]", "mode", "As in `[node]`, for this interface."),
    (
        "[[node.interface]]",
        "label",
        "A name by which groups can mean this interface, where nodes have other names for theirs; letters, digits and `-_.`.",
    ),
    (
        "[[node.interface]]",
        "announce",
        "`false`: the interface is guarded, and nothing more. No VIP is answered or announced there, and its carrier counts for no group; default: `true`.",
    ),
    (
        "[node]",
        "startup_delay",
        "How long after its start this node takes nothing by itself; default: `\"0s\"`, at most {DELAY_MAX}.",
    ),
    (
        "[node]",
        "garp_master_repeat",
        "How many more times a VIP is announced right after the takeover, within some seconds; default: 4.",
    ),
    (
        "[node]",
        "garp_master_delay",
        "How long after that all of these are sent once more; default: `\"0s\"`, not at all.",
    ),
    (
        "[node]",
        "garp_master_refresh",
        "How often a VIP is announced for as long as it is here; default: `\"1s\"`, and not so often where there are more than a hundred frames to send. `\"0s\"`: not at all.",
    ),
    (
        "[node]",
        "garp_interval",
        "For switches that limit ARP: the time between two frames, at a takeover too; at most `\"1s\"`. Default: `\"0s\"`, bursts of 128 frames at a takeover, and later a hundred frames a second.",
    ),
    (
        "[node]",
        "self_test",
        "What follows where most peers on the segment hear this host and not its data plane: `\"release\"` (the default), it takes nothing over on that interface, and gives what it holds there to a node that is heard, or a group of which no VIP is heard; `\"alarm\"`, it is told; `\"off\"`, nobody is asked. See [interfaces.md](interfaces.md#do-answers-arrive).",
    ),
    (
        "[node]",
        "steer",
        "`true` (the default): what a client that has missed a move sends to this node goes on to the holder; `false`: it is dropped. See [frames.md](frames.md).",
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
        "T_accept: how long a vote for a holder counts, from {LEASE_MIN} to {LEASE_MAX}; default: {LEASE_DEFAULT}. Another node has a dead holder's groups after about that; see [protocol.md](protocol.md#times).",
    ),
    (
        "[cluster]",
        "pair",
        "For two voters only, what a node does while it does not hear the other: `\"take\"` or `\"hold\"`; see [lease.md](lease.md#pair-mode).",
    ),
    ("[cluster]", "generation", "Number of the membership, which `vip-ctl member` raises; default: 1."),
    ("[cluster]", "node", "The nodes, each a `[[cluster.node]]`."),
    ("[[cluster.node]]", "name", "The node's name: letters, digits and `-_.`."),
    ("[[cluster.node]]", "address", "IP address and UDP port that its agent listens on."),
    ("[[cluster.node]]", "witness", "`true`: it votes, and never holds."),
    ("[[cluster.node]]", "observer", "`true`: it looks on, and neither votes nor holds."),
    (
        "[[cluster.node]]",
        "mac",
        "Its interface's hardware address, such as `\"02:00:5e:10:00:01\"`: the other nodes on its link pin it, so that no stranger can take its place by ARP ([security.md](security.md#pinning)).",
    ),
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
    (
        "[[group]]",
        "vips",
        "The addresses that move together; each a string, or a table with its interface: `[[group.vips]]`. With a prefix length, such as `\"203.0.113.5/29\"`, the host needs no address in the VIP's subnet; see [interfaces.md](interfaces.md#where-a-vip-belongs).",
    ),
    (
        "[[group]]",
        "interface",
        "The interface of this node, by name or label, that the group's VIPs are answered and announced on; default: all but those with `announce = false`.",
    ),
    (
        "[[group]]",
        "gateway",
        "`true`: hosts send through the group's VIPs to elsewhere, and a node without the lease forwards nothing that comes in by the VIPs' interface; default: `false`. See [interfaces.md](interfaces.md#a-vip-that-is-a-gateway).",
    ),
    (
        "[[group]]",
        "virtual_mac",
        "The MAC that the group's VIPs are announced and answered with, on whichever node: `\"auto\"` (made of the names of cluster and group), one of VRRP's range such as `\"00:00:5e:00:01:33\"`, or a locally administered one; default: that of the holder's interface. See [interfaces.md](interfaces.md#a-mac-that-moves-with-the-vip).",
    ),
    ("[[group.vips]]", "address", "The VIP, with or without the length of its subnet's prefix."),
    ("[[group.vips]]", "interface", "As in `[[group]]`, for this VIP."),
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
        "Health checks, each a `[[group.check]]`, {CHECKS_MAX} at most: a node that fails one does not hold the group; see [checks.md](checks.md).",
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
    (
        "[[group]]",
        "hooks",
        "Programs that run when this group moves: `[group.hooks]`; see [hooks.md](hooks.md).",
    ),
    ("[[group.check]]", "name", "Its name in status, log and metrics; default: what it checks."),
    (
        "[[group.check]]",
        "tcp",
        "Address and port that has to accept a connection. A check has exactly one of the keys from this one to `file`.",
    ),
    (
        "[[group.check]]",
        "http",
        "URL (`http://` or `https://`) that has to answer with `status` and `body`. The check follows no redirection.",
    ),
    (
        "[[group.check]]",
        "status",
        "With `http`: the status that is expected, or an array of several, from 100 to 599; default: any from 200 to 299.",
    ),
    ("[[group.check]]", "body", "With `http`: what the answer has to contain; default: anything."),
    ("[[group.check]]", "insecure", "With `https`; `true`: accept any certificate; default: `false`."),
    ("[[group.check]]", "exec", "Program and arguments, run without a shell; it passes with exit code 0."),
    ("[[group.check]]", "systemd", "Unit that has to be active."),
    (
        "[[group.check]]",
        "process",
        "Name of a process that has to run, as in /proc/PID/comm: {COMM_LEN_MAX} bytes at most.",
    ),
    ("[[group.check]]", "file", "File that has to be there; an absolute path."),
    ("[[group.check]]", "present", "With `file`; `false`: it must not be there; default: `true`."),
    (
        "[[group.check]]",
        "interval",
        "How often it runs, from {CHECK_INTERVAL_MIN} to {CHECK_INTERVAL_MAX}; default: {CHECK_INTERVAL_DEFAULT}.",
    ),
    (
        "[[group.check]]",
        "timeout",
        "How long it may take, from {CHECK_TIMEOUT_MIN} to the interval; default: {CHECK_TIMEOUT_DEFAULT}, or the interval if that is shorter.",
    ),
    (
        "[[group.check]]",
        "rise",
        "After how many passes in a row a failed check passes again, from 1 to {CHECK_COUNT_MAX}; default: {RISE_DEFAULT}.",
    ),
    (
        "[[group.check]]",
        "fall",
        "After how many failures in a row the check fails, from 1 to {CHECK_COUNT_MAX}; default: {FALL_DEFAULT}.",
    ),
    (
        "[hooks]",
        "pre_promote",
        "Program and arguments, run when this node has won the lease; traffic is dropped until it returns.",
    ),
    ("[hooks]", "post_promote", "Run when this node answers."),
    ("[hooks]", "pre_demote", "Run before a planned move away from this node; the lease is kept meanwhile."),
    ("[hooks]", "post_demote", "Run when this node no longer answers."),
    ("[hooks]", "on_fault", "Run when this node can no longer serve the group."),
    (
        "[hooks]",
        "timeout",
        "How long each hook but `pre_demote` may take before the agent kills it, from {HOOK_TIMEOUT_MIN} to {HOOK_TIMEOUT_MAX}; default: {HOOK_TIMEOUT_DEFAULT}.",
    ),
    (
        "[hooks]",
        "pre_demote_timeout",
        "How long `pre_demote` may take, from {PRE_DEMOTE_TIMEOUT_MIN} to {PRE_DEMOTE_TIMEOUT_MAX}; default: {PRE_DEMOTE_TIMEOUT_DEFAULT}.",
    ),
    (
        "[hooks]",
        "on_failure",
        "What follows when `pre_promote` fails: `\"release\"` (the default), another node takes over; `\"ignore\"`, this one goes on.",
    ),
    (
        "[hooks]",
        "retry_after",
        "How long this node stays away from a group after its `pre_promote` has failed, from {RETRY_AFTER_MIN} to {RETRY_AFTER_MAX}; default: {RETRY_AFTER_DEFAULT}.",
    ),
    ("[hooks]", "webhook", "URL that gets a JSON object by POST for each change; `\"\"`: none."),
];

/// Tables that have the keys of another one, and the sentence for that.
const SAME: &[(&str, &str, &str)] = &[(
    "[group.hooks]",
    "[hooks]",
    "The keys of `[hooks]`, for this group alone: each key here counts instead of the same key there. \
     An empty array switches a hook off.",
)];

fn meaning(table: &str, key: &str) -> Option<String> {
    let (.., text) = MEANINGS.iter().find(|(t, k, _)| *t == table && *k == key)?;
    let text =
        limits().into_iter().fold((*text).to_owned(), |text, (name, value)| text.replace(name, &value));
    assert!(!text.contains('{'), "nothing is known for a place in {text:?}");
    Some(text)
}

/// The code's defaults and limits, by their keys in [`MEANINGS`].
fn limits() -> Vec<(&'static str, String)> {
    let time = |duration: Duration| format!("`\"{}\"`", humantime::format_duration(duration));
    let of = Hooks::default();
    vec![
        ("{DELAY_MAX}", time(DELAY_MAX)),
        ("{LEASE_MIN}", time(LEASE_MIN)),
        ("{LEASE_MAX}", time(LEASE_MAX)),
        ("{LEASE_DEFAULT}", time(LEASE_DEFAULT)),
        ("{PREEMPT_DELAY_DEFAULT}", time(PREEMPT_DELAY_DEFAULT)),
        ("{PRIORITY_MAX}", PRIORITY_MAX.to_string()),
        ("{PRIORITY_DEFAULT}", PRIORITY_DEFAULT.to_string()),
        ("{CHECKS_MAX}", CHECKS_MAX.to_string()),
        ("{COMM_LEN_MAX}", COMM_LEN_MAX.to_string()),
        ("{CHECK_INTERVAL_MIN}", time(CHECK_INTERVAL.0)),
        ("{CHECK_INTERVAL_MAX}", time(CHECK_INTERVAL.1)),
        ("{CHECK_INTERVAL_DEFAULT}", time(CHECK_INTERVAL_DEFAULT)),
        ("{CHECK_TIMEOUT_MIN}", time(CHECK_TIMEOUT_MIN)),
        ("{CHECK_TIMEOUT_DEFAULT}", time(CHECK_TIMEOUT_DEFAULT)),
        ("{CHECK_COUNT_MAX}", CHECK_COUNT_MAX.to_string()),
        ("{RISE_DEFAULT}", RISE_DEFAULT.to_string()),
        ("{FALL_DEFAULT}", FALL_DEFAULT.to_string()),
        ("{HOOK_TIMEOUT_MIN}", time(*hooks::TIMEOUTS.start())),
        ("{HOOK_TIMEOUT_MAX}", time(*hooks::TIMEOUTS.end())),
        ("{HOOK_TIMEOUT_DEFAULT}", time(of.timeout)),
        ("{PRE_DEMOTE_TIMEOUT_MIN}", time(*hooks::PRE_DEMOTE_TIMEOUTS.start())),
        ("{PRE_DEMOTE_TIMEOUT_MAX}", time(*hooks::PRE_DEMOTE_TIMEOUTS.end())),
        ("{PRE_DEMOTE_TIMEOUT_DEFAULT}", time(of.pre_demote_timeout)),
        ("{RETRY_AFTER_MIN}", time(*hooks::RETRIES.start())),
        ("{RETRY_AFTER_MAX}", time(*hooks::RETRIES.end())),
        ("{RETRY_AFTER_DEFAULT}", time(of.retry_after)),
    ]
}

/// A status that has everything, so that every metric appears. Made from JSON, so
/// that a new field that may be left out there may be left out here.
pub(crate) fn full() -> Status {
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
    });
    let status: Status = serde_json::from_value(status).expect("a status");
    // The agent's counters come from its code, under the names that they have
    // there.
    Status {
        version: Some(report::version()),
        agent: counted(&Default::default()),
        rejected: [(Rejected::BadTag.label().to_owned(), 1)].into(),
        renewals: Some(Lateness::default()),
        tally: Some(tally()),
        ..status
    }
}

/// The counts of a takeover and a hook that failed.
fn tally() -> Tally {
    let events = Events::new("db-a", None);
    let change =
        Change { to: "active".into(), reason: "elected".into(), gap_ms: Some(3), ..Change::default() };
    events.publish(Some("db"), Kind::Changed(change), "");
    let run = HookRun {
        hook: Hook::PrePromote,
        outcome: HookOutcome::Failed,
        exit: Some(1),
        duration_ms: 1,
        output: Vec::new(),
        epoch: 1,
    };
    events.publish(Some("db"), Kind::Hook(run), "");
    events.tally()
}

fn reference() -> String {
    let mut out = String::from(
        "# Reference\n\nMade from the code by its tests; change it there (`vip-ctl/src/reference.rs` says how).\n\n\
         ## Configuration\n\n`/etc/vip/vip.toml`. Unknown keys are refused. A time is a number and its unit, such as `\"200ms\"`.\n",
    );
    for (table, keys) in keys() {
        // Writing to a string does not fail.
        let _ = write!(out, "\n### `{table}`\n\n");
        if let Some((.., says)) = SAME.iter().find(|(same, ..)| same == table) {
            let _ = writeln!(out, "{says}");
            continue;
        }
        out.push_str("| key | meaning |\n|---|---|\n");
        for key in *keys {
            let _ = writeln!(out, "| `{key}` | {} |", meaning(table, key).unwrap_or_default());
        }
    }
    out.push_str("\n## Metrics\n\n`vip-ctl metrics`. Counters end in `_total`, as Prometheus shows them. Metrics have the label `cluster` where an agent answers; the maps alone do not know it.\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
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
    out.push_str("\n## Exit codes\n\n[exit-codes.md](exit-codes.md) says what to do about each.\n\n| code | name | meaning |\n|---|---|---|\n");
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
            let table = SAME.iter().find(|(same, ..)| same == table).map_or(table, |(_, as_in, _)| as_in);
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
