//! `vip-ctl check`: what a configuration means, or everything that is wrong
//! with it. Nothing is changed, and no agent is asked.

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Failure, Format, print, print_json};
use crate::{
    config::{Check, CheckKind, Config, ConfigError, Group, WhenAllFail, more_files},
    engine::{PeerLoss, Role},
    exit::Exit,
    http,
    transport::KeyRing,
};

/// VIPs of a group that are shown to a person.
const VIPS_SHOWN: usize = 8;
/// Permission bits of whoever may run a program.
const MODE_EXECUTE: u32 = 0o111;

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vip-ctl check --config /etc/vip/vip.toml")]
pub(super) struct Args {
    /// The configuration; the files of conf.d next to it belong to it.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vip.toml")]
    config: PathBuf,
    /// Don't look at this host: the key file, the interfaces, the programs.
    #[arg(long)]
    no_host: bool,
}

/// What this host has to say about a configuration.
#[derive(Default)]
struct Findings {
    /// What keeps an agent from starting.
    errors: Vec<String>,
    /// What it starts with all the same.
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<Exit, Failure> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            match format {
                Format::Json => {
                    let errors: Vec<_> = errors.errors().iter().map(mistake).collect();
                    print_json(&json!({ "ok": false, "errors": errors, "warnings": [] }))?;
                }
                Format::Text => eprint!("{}", errors.errors().iter().map(shown).collect::<String>()),
            }
            return Ok(Exit::Config);
        }
    };
    let findings = if args.no_host { Findings::default() } else { of_host(&config) };
    let files = files(&args.config)?;
    match format {
        Format::Json => {
            let errors: Vec<_> =
                findings.errors.iter().map(|message| json!({ "message": message })).collect();
            print_json(&json!({
                "ok": errors.is_empty(),
                "errors": errors,
                "warnings": findings.warnings,
                "configuration": meaning(&config, &files),
            }))?;
        }
        Format::Text => {
            print(&text(&config, &files));
            for warning in &findings.warnings {
                print(&format!("warning: {warning}\n"));
            }
            for error in &findings.errors {
                eprintln!("{error}");
            }
        }
    }
    Ok(if findings.errors.is_empty() { Exit::Ok } else { Exit::Config })
}

/// The files that the configuration is made of.
fn files(main: &Path) -> Result<Vec<String>, Failure> {
    let more =
        more_files(main).map_err(|e| Failure::new(Exit::Config, format!("conf.d can't be listed: {e}")))?;
    let all = std::iter::once(main.to_owned()).chain(more);
    Ok(all.map(|path| path.display().to_string()).collect())
}

/// A mistake for a program.
fn mistake(error: &ConfigError) -> Value {
    json!({
        "file": error.path.display().to_string(),
        "line": error.place.map(|place| place.line),
        "column": error.place.map(|place| place.column),
        "text": error.text,
        "message": error.message,
    })
}

/// A mistake for a person, with the line that it is in.
fn shown(error: &ConfigError) -> String {
    let mut out = format!("{error}\n");
    if let Some(place) = error.place.filter(|_| !error.line.trim().is_empty()) {
        let line = error.line.replace('\t', " ");
        let marks = "^".repeat(error.text.chars().count().max(1));
        // Writing to a string does not fail.
        let _ = writeln!(out, "    {line}\n    {}{marks}", " ".repeat(place.column - 1));
    }
    out
}

/// What an agent would meet on this host.
fn of_host(config: &Config) -> Findings {
    let mut findings = Findings::default();
    if let Err(e) = KeyRing::load(&config.cluster.key_file) {
        findings.errors.push(e.to_string());
    }
    if let Some(Err(e)) = config.api.as_ref().map(http::check) {
        findings.errors.push(e.to_string());
    }
    let is_there = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
    for name in config.interfaces.iter().filter(|name| !is_there(name)) {
        findings.warnings.push(format!(
            "there is no interface {name} on this host: until there is, this node answers for nothing"
        ));
    }
    for group in &config.groups {
        for name in group.health.track_interface.iter().filter(|name| !is_there(name)) {
            findings.warnings.push(format!(
                "group {}: there is no interface {name} on this host: until there is, this node is not eligible",
                group.name
            ));
        }
        for check in &group.health.checks {
            let CheckKind::Exec(words) = &check.kind else { continue };
            let program = words.first().map_or("", String::as_str);
            if let Some(why) = not_runnable(Path::new(program)) {
                findings
                    .warnings
                    .push(format!("group {}, check {}: {program} {why}", group.name, check.name));
            }
        }
    }
    findings
}

fn not_runnable(program: &Path) -> Option<String> {
    match fs::metadata(program) {
        Err(e) => Some(format!("can't be run: {e}")),
        Ok(found) if !found.is_file() => Some("is no file".to_owned()),
        Ok(found) if found.permissions().mode() & MODE_EXECUTE == 0 => {
            Some("may not be run: set its mode to 0755".to_owned())
        }
        Ok(_) => None,
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Witness => "witness",
        Role::Observer => "observer",
        Role::Vacant => "vacant",
    }
}

const fn pair(loss: PeerLoss) -> &'static str {
    match loss {
        PeerLoss::Take => "take",
        PeerLoss::Hold => "hold",
    }
}

const fn when_all_fail(choice: WhenAllFail) -> &'static str {
    match choice {
        WhenAllFail::Release => "release",
        WhenAllFail::Keep => "keep",
    }
}

fn voters(config: &Config) -> usize {
    config.cluster.nodes.iter().filter(|node| node.role.votes()).count()
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// What the configuration means, for a program.
fn meaning(config: &Config, files: &[String]) -> Value {
    let check = |check: &Check| {
        json!({
            "name": check.name,
            "kind": check.kind.name(),
            "what": check.kind.to_string(),
            "interval_ms": check.interval.as_millis(),
            "timeout_ms": check.timeout.as_millis(),
            "rise": check.rise,
            "fall": check.fall,
        })
    };
    let group = |group: &Group| {
        json!({
            "name": group.name,
            "vips": group.vips.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "priority": group.priorities,
            "preempt_delay_ms": group.preempt.map(|delay| delay.as_millis()),
            "checks": group.health.checks.iter().map(check).collect::<Vec<_>>(),
            "track_interface": group.health.track_interface,
            "when_all_fail": when_all_fail(group.health.when_all_fail),
        })
    };
    let nodes = config.cluster.nodes.iter().map(|node| {
        json!({ "name": node.name, "id": node.id, "address": node.address.to_string(), "role": role(node.role) })
    });
    json!({
        "files": files,
        "node": config.node_name,
        "interfaces": config.interfaces,
        "startup_delay_ms": config.startup_delay.as_millis(),
        "cluster": config.cluster.name,
        "key_file": config.cluster.key_file.display().to_string(),
        "lease_ms": config.cluster.lease.as_millis(),
        "generation": config.cluster.generation,
        "pair": config.cluster.pair.map(pair),
        "voters": voters(config),
        "nodes": nodes.collect::<Vec<_>>(),
        "groups": config.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

/// What the configuration means, for a person.
fn text(config: &Config, files: &[String]) -> String {
    let cluster = &config.cluster;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} {} right: node {} of cluster {}, lease {}, generation {}",
        files.join(", "),
        if files.len() == 1 { "is" } else { "are" },
        config.node_name,
        cluster.name,
        time(cluster.lease),
        cluster.generation
    );
    if !config.interfaces.is_empty() {
        let _ = writeln!(out, "interfaces: {}", config.interfaces.join(", "));
    }
    for node in &cluster.nodes {
        let own = if node.id == config.me { ", this one" } else { "" };
        let _ =
            writeln!(out, "  {:<16} {:<22} {}{own}", node.name, node.address.to_string(), role(node.role));
    }
    let voters = voters(config);
    let _ = match cluster.pair {
        Some(loss) => writeln!(out, "pair mode ({}): no majority decides", pair(loss)),
        None => writeln!(out, "{voters} voters, of which {} may fail", (voters.max(1) - 1) / 2),
    };
    for group in &config.groups {
        group_text(&mut out, group);
    }
    let vips: usize = config.groups.iter().map(|group| group.vips.len()).sum();
    let checks: usize = config.groups.iter().map(|group| group.health.checks.len()).sum();
    let _ = writeln!(out, "in all: groups {}, VIPs {vips}, checks {checks}", config.groups.len());
    out
}

fn group_text(out: &mut String, group: &Group) {
    let mut vips: Vec<_> = group.vips.iter().take(VIPS_SHOWN).map(IpAddr::to_string).collect();
    if group.vips.len() > VIPS_SHOWN {
        vips.push(format!("and {} more", group.vips.len() - VIPS_SHOWN));
    }
    let priorities: Vec<_> = group.priorities.iter().map(|(node, rank)| format!("{node} {rank}")).collect();
    let preempt = group
        .preempt
        .map_or_else(|| "no preemption".to_owned(), |delay| format!("preemption after {}", time(delay)));
    // Writing to a string does not fail.
    let _ = writeln!(out, "group {}: {}", group.name, vips.join(", "));
    let _ = writeln!(out, "  priority {}; {preempt}", priorities.join(", "));
    for check in &group.health.checks {
        let Check { name, kind, interval, timeout, rise, fall } = check;
        let (interval, timeout) = (time(*interval), time(*timeout));
        let _ = writeln!(
            out,
            "  check {name}: {kind}; every {interval}, timeout {timeout}, rise {rise}, fall {fall}"
        );
    }
    if !group.health.track_interface.is_empty() {
        let _ = writeln!(out, "  tracks {}", group.health.track_interface.join(", "));
    }
    if !group.health.is_empty() {
        let _ = writeln!(out, "  when all fail: {}", when_all_fail(group.health.when_all_fail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"
node = { name = "db-a", interface = "lo" }
[cluster]
name = "shop"
key_file = "cluster.key"
node = [
  { name = "db-a", address = "10.0.1.10:7077" },
  { name = "db-b", address = "10.0.1.11:7077" },
  { name = "tie", address = "10.0.2.5:7077", witness = true },
]
[[group]]
name = "db"
vips = ["10.0.1.12"]
priority = { db-a = 150 }
preempt = true
when_all_fail = "keep"
track_interface = ["eth1"]
[[group.check]]
tcp = "127.0.0.1:3306"
[[group.check]]
exec = ["/nowhere/check"]
"#;

    #[test]
    fn a_right_configuration_is_told_in_words() {
        let config = Config::parse(RIGHT, Path::new("vip.toml"), "host").expect("right");
        let files = ["vip.toml".to_owned(), "conf.d/web.toml".to_owned()];
        insta::assert_snapshot!(text(&config, &files), @"
    vip.toml, conf.d/web.toml are right: node db-a of cluster shop, lease 200ms, generation 1
    interfaces: lo
      db-a             10.0.1.10:7077         node, this one
      db-b             10.0.1.11:7077         node
      tie              10.0.2.5:7077          witness
    3 voters, of which 1 may fail
    group db: 10.0.1.12
      priority db-a 150, db-b 100; preemption after 30s
      check tcp-127.0.0.1:3306: tcp 127.0.0.1:3306; every 2s, timeout 1s, rise 2, fall 3
      check exec-check: exec /nowhere/check; every 2s, timeout 1s, rise 2, fall 3
      tracks eth1
      when all fail: keep
    in all: groups 1, VIPs 1, checks 2
    ");
        let json = meaning(&config, &files);
        assert_eq!(json["groups"][0]["checks"][0]["kind"], "tcp");
        assert_eq!(json["groups"][0]["preempt_delay_ms"], 30_000);
        assert_eq!(json["voters"], 3);
    }

    #[test]
    fn mistakes_come_with_their_lines() {
        let text = RIGHT.replace("\"10.0.1.12\"", "\"10.0.1\"").replace("cluster.key", "");
        let errors = Config::parse(&text, Path::new("vip.toml"), "host").expect_err("wrong");
        let said: String = errors.errors().iter().map(shown).collect();
        insta::assert_snapshot!(said, @r#"
    vip.toml:5:12: key_file is empty: write key_file = "/etc/vip/cluster.key"
        key_file = ""
                   ^^
    vip.toml:13:9: "10.0.1" is no IPv4 address: write one, such as "10.0.1.12"
        vips = ["10.0.1"]
                ^^^^^^^^
    "#);
        let json = mistake(&errors.errors()[1]);
        assert_eq!((&json["line"], &json["column"]), (&json!(13), &json!(9)));
        assert_eq!(json["text"], "\"10.0.1\"");
    }

    #[test]
    fn the_host_is_looked_at() {
        let mut config = Config::parse(RIGHT, Path::new("/nowhere/vip.toml"), "host").expect("right");
        config.groups[0].health.track_interface = vec!["vip-none0".to_owned()];
        let findings = of_host(&config);
        assert_eq!(findings.errors.len(), 1, "{:?}", findings.errors);
        assert!(findings.errors[0].starts_with("there is no key file /nowhere/cluster.key"));
        assert_eq!(findings.warnings.len(), 2, "{:?}", findings.warnings);
        assert!(findings.warnings[0].contains("no interface vip-none0"));
        assert!(findings.warnings[1].contains("/nowhere/check can't be run"));
        assert_eq!(not_runnable(Path::new("/bin/sh")), None);
        assert_eq!(
            not_runnable(Path::new("/etc/passwd")),
            Some("may not be run: set its mode to 0755".into())
        );
        assert_eq!(not_runnable(Path::new("/etc")), Some("is no file".into()));
    }
}
