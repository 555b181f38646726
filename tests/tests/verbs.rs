//! Every verb of `vip-ctl`: what it says and exits with, where nothing runs
//! and in a cluster that is well. What it does is tested where that belongs.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use vip_tests::lab::{GROUP, Lab, LabSpec, Node, VIP, find_vip_ctl, skip};

const LEASE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments, exit code, and what stands in stdout or, if it failed, stderr.
type Case<'a> = (&'a [&'a str], i32, &'a str);

/// Runs the cases in their order. Where `json` is, each has to say JSON as well.
fn run(node: &Node, cases: &[Case<'_>]) -> Result<()> {
    let mut wrong = Vec::new();
    for (args, code, said) in cases {
        let out = node.run(args)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let told = if *code == 0 { &stdout } else { &stderr };
        let json: Option<serde_json::Value> = serde_json::from_str(&stdout).ok();
        let code_told = json.as_ref().and_then(|json| json.pointer("/error/code")?.as_i64());
        let json_is_right =
            !args.contains(&"json") || (json.is_some() && (*code == 0 || code_told == Some((*code).into())));
        if out.status.code() != Some(*code) || !told.contains(said) || !json_is_right {
            wrong.push(format!("{args:?}: expected {code} and {said:?}, got {out:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The verbs that `vip-ctl help` names.
fn verbs(node: &Node) -> Result<BTreeSet<String>> {
    let help = node.succeed(&["help"])?;
    let (_, list) = help.split_once("Commands:").context("a list of verbs")?;
    let verb = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let lines = list.lines().skip(1).take_while(|line| !line.is_empty());
    Ok(lines.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(verb).collect())
}

const ALONE: &[Case<'_>] = &[
    (&["status"], 69, "vip-ctl load"),
    (&["-o", "json", "status"], 69, "vip-ctl load"),
    (&["metrics"], 69, "vip-ctl load"),
    (&["promote", "db"], 69, "vip-ctl load"),
    (&["demote", "db"], 69, "vip-ctl load"),
    (&["switchover", "db"], 69, "no agent runs on this node"),
    (&["failover", "db"], 69, "no agent runs on this node"),
    (&["standby"], 69, "no agent runs on this node"),
    (&["unstandby"], 69, "no agent runs on this node"),
    (&["pause"], 69, "no agent runs on this node"),
    (&["-o", "json", "resume"], 69, "no agent runs on this node"),
    (&["reload"], 69, "no agent runs on this node"),
    (&["frame-log"], 69, "vip-ctl load"),
    (&["load", "--iface", "nowhere0", "--vip", "10.77.0.100"], 66, "nowhere0"),
    (&["unload"], 0, ""),
    (&["agent", "--config", "/nonexistent/vip.toml"], 78, "/nonexistent/vip.toml"),
    (&["check", "--config", "/nonexistent/vip.toml"], 78, "/nonexistent/vip.toml"),
    (&["member", "list", "--config", "/nonexistent/vip.toml"], 66, "/nonexistent/vip.toml"),
    (&["monitor"], 64, "terminal"),
    (&["switchovr"], 64, "switchover"),
    (&["events"], 69, "no agent runs on this node"),
    (&["explain", "db"], 69, ""),
    (&["history"], 0, ""),
    (&["-o", "json", "history"], 0, "\"history\": []"),
    (&["convert", "/nonexistent/keepalived.conf"], 66, "keepalived.conf"),
    (&["completions", "bash"], 0, "vip-ctl"),
    (&["completions", "tcsh"], 64, "bash"),
    (&["man"], 0, ".TH VIP-CTL 8"),
];

#[test]
fn every_verb_says_what_is_missing_where_nothing_runs() -> Result<()> {
    if skip::skipped("every_verb_says_what_is_missing_where_nothing_runs") {
        return Ok(());
    }
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let node = lab.nodes().first().context("three nodes")?;
    run(node, ALONE)
}

#[test]
fn every_verb_does_what_it_says_in_a_cluster() -> Result<()> {
    if skip::skipped("every_verb_does_what_it_says_in_a_cluster") {
        return Ok(());
    }
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let other = lab.nodes().iter().find(|node| node.name() != holder.name()).context("three nodes")?;
    let (vip, config, key) = (VIP.to_string(), holder.config_file(), holder.run_dir().join("new.key"));
    let (config, key) = (config.to_str().context("UTF-8")?, key.to_str().context("UTF-8")?);
    let (me, you) = (holder.name(), other.name());
    let held_by_you = format!("group {GROUP} is held by {you}");
    let held_by_me = format!("group {GROUP} is held by {me}");
    let cases: &[Case<'_>] = &[
        (&["status"], 0, "quorate"),
        (&["-o", "json", "status"], 0, "\"quorate\": true"),
        (&["metrics"], 0, "vip_up{"),
        (&["promote", GROUP], 0, &held_by_me),
        (&["-o", "json", "promote", &vip], 0, me),
        (&["promote", "nothing"], 105, "name one of db"),
        (&["switchover", GROUP, "--to", you], 0, &held_by_you),
        (&["-o", "json", "switchover", GROUP, "--to", me], 0, me),
        (&["switchover", GROUP, "--to", "nobody"], 105, "there is no node"),
        (&["failover", GROUP, "--to", you], 0, &held_by_you),
        (&["-o", "json", "failover", GROUP], 0, me),
        (&["-o", "json", "pause"], 0, "true"),
        (&["status"], 0, "PAUSED"),
        (&["resume"], 0, ""),
        (&["-o", "json", "standby", you], 0, you),
        (&["switchover", GROUP, "--to", you], 107, "not ready"),
        (&["unstandby", you], 0, "is not on standby"),
        (&["demote", GROUP], 0, "group db"),
        (&["-o", "json", "demote", "nothing"], 105, "there is no group"),
        (&["promote", GROUP], 0, &held_by_me),
        (&["reload"], 0, "no group has changed"),
        (&["-o", "json", "reload"], 0, "\"added\": []"),
        (&["check", "--config", config], 0, GROUP),
        (&["-o", "json", "check", "--config", config], 0, GROUP),
        (&["member", "list", "--config", config], 0, you),
        (&["-o", "json", "member", "list", "--config", config], 0, you),
        (&["member", "add", "--config", config, you, "10.77.0.9:7077"], 78, you),
        (&["member", "remove", "--config", config, "nobody"], 105, "nobody"),
        (&["keygen", key], 0, ""),
        (&["keygen", key], 73, "new.key"),
        (&["agent", "--config", config], 75, "agent"),
        (&["load", "--iface", "eth0", "--vip", &vip], 75, "agent"),
        (&["unload"], 75, "agent"),
        (&["frame-log"], 69, "--frame-log"),
        (&["monitor"], 64, "terminal"),
        (&["doctor"], 0, "ok"),
        (&["history", GROUP], 0, "elected"),
        (&["-o", "json", "history", GROUP, "--limit", "1"], 0, "\"history\""),
        (&["events", GROUP], 0, GROUP),
        (&["explain", GROUP], 0, me),
        (&["-o", "json", "explain", GROUP], 0, me),
        (&["explain", "nothing"], 105, "there is no group"),
        (&["switchover", GROUP, "--to", you, "--dry-run"], 0, you),
    ];
    run(holder, cases)?;
    // No verb without a case, here or where nothing runs.
    let named = |args: &[&str], verb: &str| args.contains(&verb);
    for verb in verbs(holder)?.iter().filter(|verb| *verb != "help") {
        ensure!(cases.iter().chain(ALONE).any(|(args, ..)| named(args, verb)), "no case for {verb}");
    }
    Ok(())
}
