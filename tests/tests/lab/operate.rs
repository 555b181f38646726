//! What an admin does to a running cluster, with the real agent in the real
//! kernel: standby, pause, an agent that holds, keys and members exchanged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::rig::{Rig, WATCH};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// Probes at 1 kHz that a planned move may cost on a machine that stalls.
const PLANNED_LOSS_MAX: usize = 100;

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Waits until all agents name the node that answers the client as the holder.
fn holder(rig: &Rig) -> Result<&Node> {
    rig.lab.wait_quorate(PATIENCE)?;
    rig.lab.wait_holder(GROUP, PATIENCE)
}

#[lab_test]
fn a_node_on_standby_holds_nothing_until_it_is_taken_off() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let start = clock::now();
    // Another node is asked.
    let asked = rig.lab.nodes().iter().find(|node| node.name() != old.name()).context("three nodes")?;
    asked.succeed(&["standby", old.name()])?;
    let (new, account) = rig.expect_move(start, old.name())?;
    ensure!(account.probes_lost < PLANNED_LOSS_MAX, "{account:?}");
    let back = new.run(&["switchover", GROUP, "--to", old.name()])?;
    ensure!(back.status.code() == Some(107), "{back:?}");
    // The next agent remembers it.
    old.kill_agent()?;
    old.start_agent()?;
    holder(&rig)?;
    ensure!(new.run(&["switchover", GROUP, "--to", old.name()])?.status.code() == Some(107));
    old.succeed(&["unstandby"])?;
    let start = clock::now();
    old.take(GROUP, PATIENCE)?;
    rig.expect_move(start, new.name())?;
    Ok(())
}

#[lab_test]
fn epochs_go_on_after_all_agents_have_ended() -> Result<()> {
    let spec = spec()?;
    let lab = Lab::new(&spec)?;
    lab.start_agents(PATIENCE)?;
    let epoch = |node: &Node| -> Result<u64> {
        node.status()?.group(GROUP).and_then(|group| group.epoch).context("an epoch")
    };
    let first = lab.wait_holder(GROUP, PATIENCE)?;
    first.succeed(&["switchover", GROUP])?;
    let before = epoch(lab.wait_holder(GROUP, PATIENCE)?)?;
    for node in lab.nodes() {
        ensure!(node.stop_agent()?.success());
    }
    lab.start_agents(PATIENCE)?;
    let after = epoch(lab.wait_holder(GROUP, PATIENCE)?)?;
    ensure!(after > before, "epoch {before} was followed by {after}");
    Ok(())
}

#[lab_test]
fn a_paused_cluster_moves_nothing_by_itself() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let start = clock::now();
    old.succeed(&["pause"])?;
    ensure!(rig.lab.nodes().iter().all(|node| node.status().is_ok_and(|status| status.paused)));
    rig.expect_calm(start, old.name())?;
    old.kill_agent()?;
    rig.expect_silence(clock::now().plus(LEASE))?;
    let other = rig.lab.nodes().iter().find(|node| node.name() != old.name()).context("three nodes")?;
    other.succeed(&["resume"])?;
    rig.wait_answerer(Some(old.name()), || ())?;
    Ok(())
}

/// Ends the agent without a release, and starts it anew within its lease.
fn restart_held(node: &Node) -> Result<()> {
    let status = node.stop_agent()?;
    ensure!(status.success(), "the agent ended with {status}: {}", node.log_tail());
    node.start_agent_with(&["--hold"])
}

#[lab_test]
fn an_agent_that_holds_is_replaced_unnoticed() -> Result<()> {
    // A longer lease, since a start may be slow on a busy machine.
    let spec = LabSpec { lease: LEASE * 3, ..spec()? };
    let rig = Rig::new(&spec)?;
    let node = rig.holder()?;
    // The first agent runs without `--hold`, so kill it and start one that has it.
    let start = clock::now();
    node.kill_agent()?;
    node.start_agent_with(&["--hold"])?;
    rig.expect_calm(start, node.name())?;
    // Up, so that SIGTERM asks it to hold and does not just end it.
    ensure!(holder(&rig)?.name() == node.name());
    for _ in 0..3 {
        let start = clock::now();
        restart_held(node)?;
        rig.expect_calm(start, node.name())?;
        ensure!(holder(&rig)?.name() == node.name());
    }
    Ok(())
}

#[lab_test]
fn an_agent_that_can_not_come_up_again_hands_over_what_it_has() -> Result<()> {
    // The lease is so long that a release is clearly earlier than its end.
    let rig = Rig::new(&LabSpec { lease: LEASE * 5, ..spec()? })?;
    let node = rig.holder()?;
    // Somebody has put the VIP on an ordinary interface meanwhile.
    node.ns().ip("link add other type veth peer name other-end")?;
    node.ns().ip(&format!("addr add {}/32 dev other", rig.vip()))?;
    let start = clock::now();
    node.kill_agent()?;
    let config = node.config_file();
    let refused = node.run(&["agent", "--config", config.to_str().context("a path")?])?;
    ensure!(refused.status.code() == Some(107), "{refused:?}");
    let handed_over = clock::now().since(start) < LEASE * 4;
    let (_, account) = rig.expect_move(start, node.name())?;
    ensure!(handed_over && account.gap_ms() < 500.0, "it was not released: {account:?}");
    Ok(())
}

#[lab_test]
fn keys_are_exchanged_one_node_at_a_time_and_nobody_notices() -> Result<()> {
    let spec = spec()?;
    let rig = Rig::new(&spec)?;
    let node = rig.holder()?;
    let start = clock::now();
    let old = std::fs::read_to_string(rig.lab.key_file())?;
    let made = rig.lab.id().dir().join("new.key");
    node.succeed(&["keygen", made.to_str().context("a path")?, "--id", "2"])?;
    let new = std::fs::read_to_string(&made)?;
    // First every node knows the new key, then sends with it, then has no other.
    for keys in [format!("{old}{new}"), format!("{new}{old}"), new] {
        std::fs::write(rig.lab.key_file(), keys)?;
        for node in rig.lab.nodes() {
            node.kill_agent()?;
            node.start_agent_with(&["--hold"])?;
            rig.lab.wait_quorate(PATIENCE)?;
            rig.check()?;
        }
    }
    rig.expect_calm(start, node.name())
}

#[lab_test]
fn a_node_with_another_key_is_counted_and_gets_no_answer() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?;
    let stranger = rig.lab.nodes().iter().find(|node| node.name() != holder.name()).context("three nodes")?;
    let (start, other) = (clock::now(), rig.lab.id().dir().join("other.key"));
    let (key, other) = (rig.lab.key_file().display().to_string(), other.display().to_string());
    stranger.succeed(&["keygen", &other])?;
    let text = std::fs::read_to_string(stranger.config_file())?;
    stranger.write_config(&text.replace(&key, &other))?;
    stranger.kill_agent()?;
    stranger.start_agent()?;
    let counted = wait_until(clock::now().plus(PATIENCE), || {
        holder.status().is_ok_and(|status| status.rejected.get("bad_tag").is_some_and(|count| *count > 0))
    });
    ensure!(counted, "{:?}", holder.status()?.rejected);
    rig.expect_calm(start, holder.name())?;
    let alone = stranger.status()?;
    ensure!(alone.quorate == Some(false), "{alone:?}");
    ensure!(stranger.run(&["promote", GROUP])?.status.code() == Some(106));
    Ok(())
}

/// Gives `node` the configuration of `from`, under its own name.
fn share_cluster(from: &Node, node: &Node) -> Result<()> {
    let text = std::fs::read_to_string(from.config_file())?;
    let own = format!("[node]\nname = \"{}\"", node.name());
    node.write_config(&text.replacen(&format!("[node]\nname = \"{}\"", from.name()), &own, 1))
}

#[lab_test]
fn a_voter_is_added_one_agent_at_a_time_and_the_next_change_waits_for_all() -> Result<()> {
    let mut spec = spec()?;
    let fourth = vip_tests::lab::NodeSpec { name: "db-d".to_owned(), witness: false, priority: 50 };
    spec.nodes.push(fourth);
    let lab = Lab::new(&spec)?;
    let (first, new) = (lab.node("db-a")?, lab.node("db-d")?);
    let address = format!("{}:7077", new.address());
    let member = |node: &Node, args: &[&str]| {
        let config = node.config_file();
        let mut all = vec!["member", "--config", config.to_str().unwrap_or_default()];
        all.extend(args);
        node.run(&all)
    };
    // Three nodes at first, written by hand, as before any agent has started.
    let all = std::fs::read_to_string(first.config_file())?;
    let of_new = format!("[[cluster.node]]\nname = \"db-d\"\naddress = \"{address}\"\n");
    ensure!(all.contains(&of_new) && all.contains(", db-d = 50"), "{all}");
    first.write_config(&all.replace(&of_new, "").replace(", db-d = 50", ""))?;
    for node in lab.nodes().iter().filter(|node| node.name() != "db-a") {
        share_cluster(first, node)?;
    }
    // This node does not know whether other nodes have had agents.
    let unknown = member(first, &["remove", "db-c"])?;
    ensure!(unknown.status.code() == Some(107), "no agent has run here: {unknown:?}");
    let key = lab.key_file();
    first.succeed(&["keygen", key.to_str().context("a path")?])?;
    for node in lab.nodes().iter().filter(|node| node.name() != "db-d") {
        node.start_agent()?;
    }
    lab.wait_quorate(PATIENCE)?;
    let mut old = lab.wait_holder(GROUP, PATIENCE)?;
    let confirmed = wait_until(clock::now().plus(PATIENCE), || {
        member(first, &["list"]).is_ok_and(|o| !String::from_utf8_lossy(&o.stdout).contains("not confirmed"))
    });
    ensure!(confirmed);

    let added = member(first, &["add", "db-d", &address])?;
    ensure!(added.status.success(), "{added:?}");
    let again = member(first, &["add", "db-e", "10.77.0.9:7077"])?;
    ensure!(again.status.code() == Some(107), "two at once would part majorities: {again:?}");
    for node in lab.nodes().iter().filter(|node| node.name() != "db-a") {
        share_cluster(first, node)?;
    }
    // Restart one agent at a time: the holder last, after a switchover to a node that has the
    // change.
    let mut order: Vec<_> =
        lab.nodes().iter().filter(|n| n.name() != old.name() && n.name() != "db-d").collect();
    order.push(old);
    for node in order {
        if node.name() == old.name() {
            node.succeed(&["switchover", GROUP])?;
        }
        node.kill_agent()?;
        node.start_agent()?;
        lab.wait_quorate(PATIENCE)?;
        let now = lab.wait_holder(GROUP, PATIENCE)?;
        ensure!(node.name() == old.name() || now.name() == old.name(), "{} lost it", old.name());
        if node.name() == old.name() {
            old = now;
            break;
        }
    }
    let early = member(first, &["add", "db-e", "10.77.0.9:7077"])?;
    ensure!(early.status.code() == Some(107), "db-d has not confirmed it: {early:?}");
    // Nor can db-d go ahead of them: it knows nothing of the generation before.
    let leap = member(new, &["remove", "db-c"])?;
    ensure!(leap.status.code() == Some(107), "{leap:?}");
    let joined = std::fs::read_to_string(new.config_file())?;
    ensure!(joined.contains("generation = 2"), "{joined}");
    let of_fifth = "[[cluster.node]]\nname = \"db-e\"\naddress = \"10.77.0.9:7077\"\nid = 4\n\n[[group]]";
    new.write_config(&joined.replace("generation = 2", "generation = 3").replacen("[[group]]", of_fifth, 1))?;
    let config = new.config_file();
    let config = config.to_str().context("a path")?;
    let alone = new.run(&["agent", "--config", config])?;
    let said = String::from_utf8_lossy(&alone.stderr);
    ensure!(alone.status.code() == Some(106) && said.contains("no record of the membership"), "{alone:?}");
    new.write_config(&joined)?;
    new.start_agent()?;
    let confirmed = wait_until(clock::now().plus(PATIENCE), || {
        member(first, &["list"]).is_ok_and(|o| !String::from_utf8_lossy(&o.stdout).contains("not confirmed"))
    });
    ensure!(confirmed, "{:?}", member(first, &["list"])?);
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == old.name());
    // An earlier generation is refused: another node may have gone on from it.
    let text = std::fs::read_to_string(new.config_file())?;
    new.write_config(&text.replacen("generation = 2", "generation = 1", 1))?;
    new.kill_agent()?;
    let refused = new.run(&["agent", "--config", config])?;
    ensure!(refused.status.code() == Some(78), "{refused:?}");
    std::thread::sleep(WATCH);
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == old.name());
    Ok(())
}

#[lab_test]
fn an_agent_that_is_stopped_is_told_from_one_that_is_not_there() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.nodes().first().context("three nodes")?;
    node.pause_agent()?;
    let asked: &[&[&str]] = &[&["events"], &["events", "--follow"], &["explain", GROUP]];
    for args in asked {
        let out = node.run(args)?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(
            out.status.code() == Some(124) && said.contains("did not answer in time"),
            "{args:?}: {out:?}"
        );
    }
    // The agent drops the command of a client that has given up.
    for args in [&["standby"][..], &["pause"]] {
        let out = node.run(args)?;
        ensure!(out.status.code() == Some(124), "{args:?}: {out:?}");
    }
    node.resume_agent()?;
    lab.wait_quorate(PATIENCE)?;
    node.succeed(&["events", GROUP])?;
    let status: serde_json::Value = serde_json::from_str(&node.succeed(&["-o", "json", "status"])?)?;
    let nodes = status["nodes"].as_array().context("the nodes")?;
    let is_away = nodes.iter().any(|known| known["standby"] == true);
    ensure!(status["paused"] != true && !is_away, "{status}");
    node.kill_agent()?;
    for args in [["events", GROUP], ["explain", GROUP]] {
        let out = node.run(&args)?;
        ensure!(out.status.code() == Some(69), "{args:?}: {out:?}");
    }
    Ok(())
}
