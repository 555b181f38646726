//! `vip-ctl doctor` and `--dry-run` on real nodes: what is broken is found,
//! with its exit code, and nothing is changed by looking.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::lab::{GROUP, INTERFACE, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

fn lab() -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// The findings of a run, and its exit code.
fn doctor(node: &Node, args: &[&str]) -> Result<(Vec<Value>, i32)> {
    let mut all = vec!["doctor", "-o", "json"];
    all.extend(args);
    read(&node.run(&all)?)
}

fn read(output: &std::process::Output) -> Result<(Vec<Value>, i32)> {
    let code = output.status.code().context("an exit code")?;
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let findings = said["findings"].as_array().context("findings")?.clone();
    ensure!((code == 1) == (said["errors"] != 0), "exit code {code} of {said}");
    Ok((findings, code))
}

/// The sentence of the finding of this level and subject, about `of` if that is not empty.
fn says<'f>(findings: &'f [Value], level: &str, subject: &str, of: &str) -> Result<&'f str> {
    let found = findings.iter().find(|finding| {
        finding["level"] == level
            && finding["subject"] == subject
            && (of.is_empty() || finding["of"].as_str() == Some(of))
    });
    let found = found.with_context(|| format!("no {level} about {subject} {of} in {findings:#?}"))?;
    found["says"].as_str().context("a sentence")
}

/// Requires that the text, with and without `--quiet`, has the same findings as the JSON, a line
/// each, their numbers below and the same exit code.
fn agrees_as_text(node: &Node, args: &[&str]) -> Result<()> {
    let (found, code) = doctor(node, args)?;
    let number = |level| found.iter().filter(|finding| finding["level"] == level).count();
    let numbers = format!("{} errors, {} warnings", number("error"), number("warning"));
    for quiet in [&[][..], &["--quiet"]] {
        let output = node.run(&[&["doctor"], args, quiet].concat())?;
        let text = String::from_utf8(output.stdout)?;
        let shown = |finding: &&Value| quiet.is_empty() || finding["level"] != "ok";
        let line = |finding: &Value| {
            let word = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let of = finding["of"].as_str().map(|of| format!("{of}: ")).unwrap_or_default();
            // The free space on the disk changes meanwhile.
            let says = if finding["subject"] == "state" { String::new() } else { word("says") };
            format!("{:<8} {:<14} {of}{says}", word("level"), word("subject"))
        };
        let wanted: Vec<_> = found.iter().filter(shown).map(line).chain([numbers.clone()]).collect();
        let is_told = text.lines().count() == wanted.len()
            && text.lines().zip(&wanted).all(|(line, wanted)| line.starts_with(wanted));
        ensure!(is_told && output.status.code() == Some(code), "{wanted:#?} is told as\n{text}");
    }
    Ok(())
}

#[lab_test]
fn a_host_by_hand_is_well_until_somebody_meddles() -> Result<()> {
    let lab = lab()?;
    let node = lab.node("db-a")?;
    let vip = VIP.to_string();
    let (found, code) = doctor(node, &[])?;
    ensure!(code == 0, "{found:#?}");
    for subject in ["kernel", "programs", "boot clock", "privileges", "time namespace", "state"] {
        says(&found, "ok", subject, "")?;
    }
    says(&found, "ok", "mode", INTERFACE)?;

    node.succeed(&["load", "--iface", INTERFACE, "--vip", &vip])?;
    let (found, code) = doctor(node, &[])?;
    ensure!(code == 0, "{found:#?}");
    ensure!(says(&found, "ok", "mode", INTERFACE)?.contains("tc mode"));
    says(&found, "ok", "data plane", INTERFACE)?;

    // Add an interface without a program, change the ARP setting back, and pull the cable.
    node.ns().ip("link add extra type veth peer name extra1")?;
    node.ns().ip("link set extra up")?;
    node.ns().enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "0"))??;
    node.cut()?;
    let (found, code) = doctor(node, &[])?;
    ensure!(code == 1, "{found:#?}");
    says(&found, "ok", "way in", "")?;
    ensure!(says(&found, "error", "sysctl", "")?.contains("arp_ignore"));
    let found = wait_until(clock::now().plus(PATIENCE), || {
        doctor(node, &[]).is_ok_and(|(found, _)| says(&found, "error", "link", INTERFACE).is_ok())
    });
    ensure!(found, "the lost carrier was not found");
    // Without the gate at IP level, that interface is a way in.
    std::fs::remove_file(node.bpf_dir().join("links").join(vip_common::names::PROG_LOCAL_IN))?;
    let (found, _) = doctor(node, &[])?;
    ensure!(says(&found, "error", "way in", "")?.contains("gate at IP level is gone"));
    says(&found, "warning", "way in", "extra")?;
    node.succeed(&["unload"])?;
    Ok(())
}

#[lab_test]
fn an_occupied_hook_is_named_and_a_dry_run_meets_it() -> Result<()> {
    let lab = lab()?;
    let (node, stranger) = (lab.node("db-a")?, lab.node("db-b")?);
    let vip = VIP.to_string();
    // A data plane that is pinned elsewhere is somebody else's.
    let mut elsewhere = node.vip_ctl()?;
    elsewhere.args(["load", "--iface", INTERFACE, "--vip", &vip, "--mode", "native"]);
    elsewhere.env("VIP_BPF_DIR", stranger.bpf_dir()).env("VIP_RUN_DIR", stranger.run_dir());
    ensure!(elsewhere.status()?.success());
    let (found, code) = doctor(node, &[])?;
    ensure!(code == 0, "{found:#?}");
    ensure!(says(&found, "warning", "mode", INTERFACE)?.contains(vip_common::names::PROG_INGRESS));
    let load = ["load", "--iface", INTERFACE, "--vip", &vip, "--dry-run"];
    let refused = node.run(&[&load[..], &["--mode", "native"]].concat())?;
    ensure!(refused.status.code() == Some(73), "{refused:?}");
    ensure!(node.succeed(&load)?.contains("in tc mode"), "tc works beside it");
    let mut away = node.vip_ctl()?;
    away.arg("unload").env("VIP_BPF_DIR", stranger.bpf_dir()).env("VIP_RUN_DIR", stranger.run_dir());
    ensure!(away.status()?.success());

    // A dry run changes nothing.
    let before = node.snapshot()?;
    let said = node.succeed(&load)?;
    ensure!(said.contains(&format!("{vip} would be put on lo")), "{said}");
    ensure!(node.snapshot()? == before && !node.bpf_dir().exists());
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &vip])?;
    ensure!(node.succeed(&load)?.lines().count() == 1, "only the programs would be replaced");
    ensure!(node.succeed(&["promote", "--dry-run"])?.contains("would be active"));
    ensure!(node.status()?.group("default").is_some_and(|group| group.state == "standby"));
    let said = node.succeed(&["unload", "--dry-run"])?;
    ensure!(said.contains("would be taken off eth0"), "{said}");
    node.status()?;
    node.succeed(&["unload"])?;
    ensure!(node.snapshot()? == before);
    Ok(())
}

#[lab_test]
fn a_time_namespace_is_an_error() -> Result<()> {
    let lab = lab()?;
    let node = lab.node("db-a")?;
    let mut command = node.ns().command("unshare")?;
    command.args(["--time", "--boottime", "1000"]).arg(find_vip_ctl()?).args(["doctor", "-o", "json"]);
    command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", node.run_dir());
    let (found, code) = read(&command.output().context("unshare")?)?;
    ensure!(code == 1);
    ensure!(says(&found, "error", "time namespace", "")?.contains("1000 s"));
    says(&found, "error", "boot clock", "")?;
    Ok(())
}

#[lab_test]
fn configuration_key_agent_and_peers_are_looked_at() -> Result<()> {
    let lab = lab()?;
    let node = lab.node("db-a")?;
    let config = node.config_file();
    let config = ["--config", config.to_str().context("a path")?];
    let (found, code) = doctor(node, &config)?;
    ensure!(code == 1 && says(&found, "error", "key", "")?.contains("keygen"), "{found:#?}");
    says(&found, "warning", "agent", "")?;
    agrees_as_text(node, &config)?;

    lab.start_agents(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE)?;
    let (found, code) = doctor(node, &config)?;
    ensure!(code == 0, "{found:#?}");
    // On a busy machine a peer may come or go between the two.
    if !wait_until(clock::now().plus(PATIENCE), || agrees_as_text(node, &config).is_ok()) {
        agrees_as_text(node, &config)?;
    }
    says(&found, "ok", "agent", "")?;
    says(&found, "ok", "quorum", "")?;
    says(&found, "ok", "peer", "db-c")?;

    let key = lab.key_file();
    let mode = |mode| std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o644)?;
    lab.node("db-b")?.kill_agent()?;
    lab.node("db-c")?.kill_agent()?;
    let lost = wait_until(clock::now().plus(PATIENCE), || {
        doctor(node, &config).is_ok_and(|(found, _)| says(&found, "error", "quorum", "").is_ok())
    });
    ensure!(lost, "{:#?}", doctor(node, &config)?);
    let (found, code) = doctor(node, &config)?;
    ensure!(code == 1);
    says(&found, "error", "peer", "db-b")?;
    ensure!(says(&found, "error", "key", "")?.contains("chmod 600"));
    mode(0o600)?;

    node.pause_agent()?;
    let (found, _) = doctor(node, &config)?;
    ensure!(says(&found, "error", "agent", "")?.contains("does not answer"));
    node.resume_agent()?;

    node.write_config("[node]\nnmae = \"db-a\"\n")?;
    let (found, code) = doctor(node, &config)?;
    let named =
        found.iter().any(|finding| finding["says"].as_str().is_some_and(|says| says.contains("nmae")));
    ensure!(code == 1 && named, "{found:#?}");
    Ok(())
}

#[lab_test]
fn dry_runs_of_a_cluster_name_what_would_move_and_move_nothing() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).with_witness())?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let other = lab.candidates().find(|node| node.name() != holder.name()).context("a second node")?;
    let dry = |node: &Node, args: &[&str]| {
        let mut all = args.to_vec();
        all.push("--dry-run");
        node.run(&all)
    };
    let would = format!("group {GROUP} would go from {} to {}, which is ready", holder.name(), other.name());
    // It may take a heartbeat or two until this node hears that the other one is ready.
    let ready = wait_until(clock::now().plus(PATIENCE), || {
        dry(holder, &["switchover", GROUP]).is_ok_and(|output| output.status.success())
    });
    ensure!(ready, "{:?}", dry(holder, &["switchover", GROUP])?);
    for args in [
        &["switchover", GROUP][..],
        &["switchover", GROUP, "--to", other.name()],
        &["failover", GROUP, "--to", other.name()],
        &["demote", GROUP],
        &["standby", holder.name()],
    ] {
        let output = dry(holder, args)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && text.contains(&would), "{args:?}: {output:?}");
    }
    ensure!(dry(other, &["promote", GROUP])?.status.success());
    let json = dry(holder, &["switchover", "-o", "json"])?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    ensure!(json["dry_run"] == true && json["would"][0] == would.as_str(), "{json}");
    ensure!(dry(holder, &["switchover", GROUP, "--to", "tie"])?.status.code() == Some(107));
    ensure!(dry(holder, &["switchover", GROUP, "--to", "db-z"])?.status.code() == Some(105));
    ensure!(dry(holder, &["unload"])?.status.code() == Some(75), "the agent has the node");
    ensure!(dry(holder, &["pause"])?.status.success());
    let config = holder.config_file();
    let before = std::fs::read_to_string(&config)?;
    let member = ["member", "--config", config.to_str().context("a path")?, "add", "db-d", "10.77.0.9:7077"];
    // A record of this membership that not everybody has confirmed yet refuses the change.
    let tried = dry(holder, &member)?;
    ensure!(
        tried.status.success() || tried.status.code() == Some(107) || tried.status.code() == Some(78),
        "{tried:?}"
    );
    ensure!(std::fs::read_to_string(&config)? == before);
    let status = holder.status()?;
    ensure!(!status.paused && lab.wait_holder(GROUP, PATIENCE)?.name() == holder.name());

    other.kill_agent()?;
    lab.node("tie")?.kill_agent()?;
    let alone = wait_until(clock::now().plus(PATIENCE), || {
        dry(holder, &["promote", GROUP]).is_ok_and(|output| output.status.code() == Some(106))
    });
    ensure!(alone, "{:?}", dry(holder, &["promote", GROUP])?);
    ensure!(dry(holder, &["failover", GROUP])?.status.code() == Some(106));
    let forced = dry(holder, &["failover", GROUP, "--force"])?;
    ensure!(String::from_utf8_lossy(&forced.stdout).contains("BY FORCE"), "{forced:?}");
    Ok(())
}

#[lab_test]
fn a_vip_that_nothing_guards_is_an_error() -> Result<()> {
    let lab = lab()?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    node.kill_agent()?;
    for entry in std::fs::read_dir(node.bpf_dir())? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    let config = node.config_file();
    let args = ["--config", config.to_str().context("a path")?];
    for args in [&args[..], &[]] {
        let (found, code) = doctor(node, args)?;
        let said = says(&found, "error", "data plane", "")?;
        ensure!(code == 1 && said.contains(&format!("lo has {VIP}")), "{code}: {said}");
    }
    node.succeed(&["unload"])?;
    let (found, _) = doctor(node, &args)?;
    says(&found, "ok", "data plane", "")?;
    Ok(())
}
