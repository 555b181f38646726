//! Hooks in a running cluster, with the real agent in the real kernel: what
//! the wire sees while a hook runs, what follows when one fails, hangs or loses
//! its lease, and what the history, the events and `explain` tell of it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use vip_common::BootNs;
use vip_tests::lab::rig::{ArpProbes, Rig, STEADY, WATCH};
use vip_tests::lab::{GROUP, GroupSpec, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// Probes at 1 kHz that a planned move may cost on a machine that stalls.
const PLANNED_LOSS_MAX: usize = 100;

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// A rig whose nodes run these scripts as their hooks. Each writes a line with the uptime to
/// `$D/$VIP_NODE.hooks` before and after what it does.
fn rig(spec: &LabSpec, more: &str, hooks: &[(&str, &str)]) -> Result<Rig> {
    rig_of(spec, "hooks", more, hooks)
}

/// [`rig`], with the hooks in `table`: `hooks`, or `group.hooks` of the last group.
fn rig_of(spec: &LabSpec, table: &str, more: &str, hooks: &[(&str, &str)]) -> Result<Rig> {
    let lab = Lab::new(spec)?;
    let mut text = format!("\n[{table}]\n{more}\n");
    for (hook, script) in hooks {
        let dir = lab.id().dir();
        let note =
            |when| format!("read up rest < /proc/uptime; echo $VIP_HOOK {when} $up >> $D/$VIP_NODE.hooks");
        writeln!(
            text,
            "{hook} = [\"/bin/sh\", \"-c\", '''D={}; {}; {script}; {}''', \"sh\"]",
            dir.display(),
            note("begin"),
            note("end")
        )?;
    }
    for node in lab.nodes() {
        let config = std::fs::read_to_string(node.config_file())?;
        node.write_config(&(config + &text))?;
    }
    Rig::start(lab, spec, ArpProbes::On, |_| ())
}

/// Creates the file `$D/NAME`, which scripts look for.
fn flag(rig: &Rig, name: &str) -> Result<()> {
    Ok(std::fs::write(rig.lab.id().dir().join(name), "")?)
}

/// The lines that a node's hooks have written, in order: hook, `begin` or `end`, and the time,
/// rounded down to 10 ms.
fn noted(rig: &Rig, node: &Node) -> Vec<(String, String, BootNs)> {
    let file = rig.lab.id().dir().join(format!("{}.hooks", node.name()));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (hook, when, up) = (words.next()?, words.next()?, words.next()?);
        let (seconds, hundredths) = up.split_once('.')?;
        let ms = seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10;
        Some((hook, when, BootNs(ms * 1_000_000)))
    };
    text.lines().filter_map(line).collect()
}

/// The time of the last line of this kind from a node's hook.
fn last_noted(rig: &Rig, node: &Node, hook: &str, when: &str) -> Option<BootNs> {
    noted(rig, node).iter().rev().find(|(h, w, _)| h == hook && w == when).map(|(_, _, at)| *at)
}

fn wait_noted(rig: &Rig, node: &Node, hook: &str, when: &str, after: BootNs) -> Result<BootNs> {
    // Rounded down, as the times in the lines are.
    let after = BootNs(after.0.saturating_sub(10_000_000));
    let mut found = None;
    wait_until(clock::now().plus(PATIENCE), || {
        found = last_noted(rig, node, hook, when).filter(|at| *at >= after);
        found.is_some()
    });
    found.with_context(|| format!("{hook} {when} on {}:\n{}", node.name(), node.log_tail()))
}

/// The holder, the node that would take over first, and the third node.
fn roles(rig: &Rig) -> Result<(&Node, &Node, &Node)> {
    let holder = rig.holder()?;
    let mut others = rig.lab.nodes().iter().filter(|node| node.name() != holder.name());
    let (heir, third) = (others.next().context("an heir")?, others.next().context("a third node")?);
    Ok((holder, heir, third))
}

fn json(node: &Node, args: &[&str]) -> Result<Value> {
    let args: Vec<_> = args.iter().copied().chain(["-o", "json"]).collect();
    Ok(serde_json::from_str(&node.succeed(&args)?)?)
}

/// Waits for an entry as wanted in a node's history; returns all entries, and that one.
fn history(node: &Node, is_there: impl Fn(&Value) -> bool) -> Result<(Vec<Value>, Value)> {
    let mut entries = Vec::new();
    let mut found = None;
    wait_until(clock::now().plus(PATIENCE), || {
        entries = json(node, &["history", GROUP])
            .ok()
            .and_then(|json| json["history"].as_array().cloned())
            .unwrap_or_default();
        found = entries.iter().rev().find(|entry| is_there(entry)).cloned();
        found.is_some()
    });
    let found = found.with_context(|| format!("not in the history of {}: {entries:#?}", node.name()))?;
    Ok((entries, found))
}

fn has_hook(entry: &Value, hook: &str, outcome: &str) -> bool {
    let hooks = entry["hooks"].as_array();
    hooks.is_some_and(|hooks| hooks.iter().any(|run| run["hook"] == hook && run["outcome"] == outcome))
}

/// How many frames with the VIP as source a node has sent from `after` on.
fn frames(rig: &Rig, node: &Node, after: BootNs) -> usize {
    frames_between(rig, node, after, BootNs(u64::MAX))
}

/// How many it has sent from `after` on and before `before`.
fn frames_between(rig: &Rig, node: &Node, after: BootNs, before: BootNs) -> usize {
    let place = rig.lab.nodes().iter().position(|other| other.name() == node.name());
    let frames = rig.capture.frames();
    let of_node = frames.iter().filter(|frame| Some(frame.from.0) == place);
    of_node.filter(|frame| (after..before).contains(&frame.at)).count()
}

#[lab_test]
fn traffic_is_dropped_until_pre_promote_has_ended() -> Result<()> {
    let hold = "[ -e $D/slow ] && sleep 2";
    let rig = rig(&spec()?, "", &[("pre_promote", hold), ("post_promote", ":"), ("post_demote", ":")])?;
    let (old, new, _) = roles(&rig)?;
    flag(&rig, "slow")?;
    let start = clock::now();
    old.kill_agent()?;
    let begin = wait_noted(&rig, new, "pre_promote", "begin", start)?;
    let during = new.status()?.group(GROUP).cloned().context("the group")?;
    ensure!(during.state == "promoting" && during.holder.as_deref() == Some(new.name()), "{during:?}");
    let end = wait_noted(&rig, new, "pre_promote", "end", begin)?;
    // Ten leases later the grant is still the same, and from here on the node answers.
    rig.wait_answerer(Some(old.name()), || ())?;
    let after = new.status()?.group(GROUP).cloned().context("the group")?;
    ensure!(after.state == "active" && after.epoch == during.epoch, "{during:?}, then {after:?}");
    // Before that it sent no ARP answer, no reset and no other packet with the VIP as source.
    let early = frames_between(&rig, new, start, end);
    ensure!(early == 0, "{early} frames while the hook ran");
    ensure!(frames(&rig, new, end) > 0, "and then it is answered");
    wait_noted(&rig, new, "post_promote", "end", end)?;

    let (_, entry) =
        history(new, |entry| entry["to"] == "active" && has_hook(entry, "post_promote", "done"))?;
    let gap = entry["gap_ms"].as_u64().context("a gap")?;
    ensure!((1_900..60_000).contains(&gap), "the gap ends with the hook: {entry}");
    ensure!(entry["reason"] == "elected" && entry["holder"] == new.name(), "{entry}");
    // The old holder's next agent runs the `post_demote` that the killed one owed.
    old.start_agent()?;
    wait_noted(&rig, old, "post_demote", "end", end)?;
    Ok(())
}

/// Every grant's `post_demote` has ended before the next `pre_promote` begins.
fn check_order(notes: &[(String, String, BootNs)]) -> Result<()> {
    let is = |note: &(String, String, BootNs), hook: &str, when: &str| note.0 == hook && note.1 == when;
    for (place, note) in notes.iter().enumerate().skip(1) {
        if is(note, "pre_promote", "begin") {
            ensure!(is(&notes[place - 1], "post_demote", "end"), "note {place} of {notes:#?}");
        }
    }
    Ok(())
}

#[lab_test]
fn a_lease_that_is_lost_and_won_at_once_runs_its_hooks_in_order() -> Result<()> {
    let mut spec = LabSpec { lease: Duration::from_millis(200), ..spec()?.with_witness() };
    // So many groups that the news of the last one arrives late.
    spec.groups.extend(
        (101..=160)
            .map(|last| GroupSpec { name: format!("g{last}"), vips: vec![Ipv4Addr::new(10, 77, 0, last)] }),
    );
    let hooks = [("pre_promote", ":"), ("post_promote", ":"), ("post_demote", "sleep 0.1")];
    let rig = rig_of(&spec, "group.hooks", "", &hooks)?;
    let node = rig.holder()?;
    let (_, other, _) = roles(&rig)?;
    let other = if other.is_witness() { roles(&rig)?.2 } else { other };
    // No other node takes the group, so it comes back as soon as its agent goes on.
    other.succeed(&["standby"])?;
    for _ in 0..6 {
        let grants = || noted(&rig, node).iter().filter(|note| note.0 == "post_promote").count();
        let before = grants();
        node.pause_agent()?;
        std::thread::sleep(Duration::from_millis(300));
        node.resume_agent()?;
        let is_back = wait_until(clock::now().plus(PATIENCE), || grants() > before + 1);
        ensure!(is_back, "it has not come back: {:#?}\n{}", noted(&rig, node), node.log_tail());
    }
    check_order(&noted(&rig, node))
}

/// Whether the service runs, which `pre_promote` starts and `pre_demote` and `post_demote` stop,
/// as a database: a file exists meanwhile.
fn service(rig: &Rig, node: &Node) -> bool {
    rig.lab.id().dir().join(format!("{}.runs", node.name())).exists()
}

#[lab_test]
fn a_planned_move_whose_target_can_not_get_ready_says_so_and_comes_back() -> Result<()> {
    let start = ": > $D/$VIP_NODE.runs; [ -e $D/slow.$VIP_NODE ] && sleep 1000; true";
    let stop = "rm -f $D/$VIP_NODE.runs";
    let hooks = [("pre_promote", start), ("pre_demote", stop), ("post_demote", stop)];
    let rig = rig(&spec()?.with_witness(), "timeout = \"1s\"\nretry_after = \"1s\"", &hooks)?;
    let old = rig.holder()?;
    let witness = rig.lab.nodes().iter().find(|node| node.is_witness()).context("a witness")?;
    let others = rig.lab.nodes().iter().filter(|node| node.name() != old.name());
    let new = others.clone().find(|node| !node.is_witness()).context("another node")?;
    flag(&rig, &format!("slow.{}", new.name()))?;
    // Whichever node is asked.
    for asked in [new, old, witness] {
        let start = clock::now();
        let is_ready = || {
            let status = asked.status().ok();
            let group = status.as_ref().and_then(|status| status.group(GROUP));
            group.is_some_and(|group| group.holder.as_deref() == Some(old.name()))
                && json(asked, &["explain"]).is_ok_and(|told| {
                    let nodes = told["nodes"].as_array().cloned().unwrap_or_default();
                    nodes.iter().any(|node| node["node"] == new.name() && node["ready"] == true)
                })
        };
        ensure!(wait_until(start.plus(PATIENCE), is_ready), "{} is never ready again", new.name());
        let output = asked.run(&["switchover", GROUP, "--to", new.name()])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(9), "{}: {output:?}", asked.name());
        ensure!(said.contains("pre_promote") && said.contains(new.name()), "{said}");
        ensure!(said.contains(&format!("{} holds it now", old.name())), "{said}");
        // Its service was stopped for the move, and is started again for the way back.
        let serves = || service(&rig, old) && rig.udp.steady_answerer(STEADY).as_deref() == Some(old.name());
        ensure!(wait_until(clock::now().plus(PATIENCE), serves), "{} does not serve again", old.name());
        ensure!(!service(&rig, new), "what is not served is stopped");
        ensure!(frames(&rig, new, BootNs(0)) == 0, "{} has answered", new.name());
    }
    history(new, |entry| entry["reason"] == "pre_promote_failed" && has_hook(entry, "post_demote", "done"))?;
    history(new, |entry| has_hook(entry, "pre_promote", "timed_out"))?;
    check_order(&noted(&rig, old))?;
    check_order(&noted(&rig, new))
}

#[lab_test]
fn a_planned_move_is_answered_when_the_target_serves() -> Result<()> {
    let rig = rig(&spec()?, "", &[("pre_promote", "[ -e $D/slow ] && sleep 1.5; true")])?;
    let (old, new, third) = roles(&rig)?;
    flag(&rig, "slow")?;
    // The target is asked, then the old holder, then a node that is neither.
    for (asked, from, to) in [(new, old, new), (new, new, old), (third, old, new)] {
        let start = clock::now();
        asked.succeed(&["switchover", GROUP, "--to", to.name()])?;
        let end = last_noted(&rig, to, "pre_promote", "end").filter(|at| *at >= start);
        ensure!(end.is_some(), "from {} to {}: {:?}", from.name(), to.name(), noted(&rig, to));
    }
    // A node that goes on standby has its groups served elsewhere.
    let start = clock::now();
    third.succeed(&["standby", new.name()])?;
    let now = third.status()?.group(GROUP).and_then(|group| group.holder.clone()).context("a holder")?;
    let ended = last_noted(&rig, rig.lab.node(&now)?, "pre_promote", "end").filter(|at| *at >= start);
    ensure!(now != new.name() && ended.is_some(), "{now}: {ended:?}");
    third.succeed(&["unstandby", new.name()])?;
    third.succeed(&["switchover", GROUP, "--to", new.name()])?;
    // With `--no-wait`, a script need not wait.
    let start = clock::now();
    third.succeed(&["switchover", GROUP, "--to", old.name(), "--no-wait"])?;
    let state = old.status()?.group(GROUP).map(|group| group.state.clone());
    ensure!(state.as_deref() == Some("promoting") || clock::now().since(start) > Duration::from_secs(1));
    Ok(())
}

/// The node that wins the lease cannot get ready: another one takes over, and the first never
/// sends a frame.
fn another_takes_over(script: &str, outcome: &str) -> Result<()> {
    let script = format!("[ -e $D/bad.$VIP_NODE ] && {script}");
    let rig = rig(&spec()?, "timeout = \"700ms\"", &[("pre_promote", &format!("{script}; true"))])?;
    let (old, heir, third) = roles(&rig)?;
    flag(&rig, &format!("bad.{}", heir.name()))?;
    let start = clock::now();
    old.kill_agent()?;
    let after = rig.wait_answerer(Some(old.name()), || ())?;
    ensure!(*after == *third.name(), "{after} answers");
    std::thread::sleep(WATCH);
    ensure!(frames(&rig, heir, start) == 0, "{} has answered", heir.name());
    history(heir, |entry| has_hook(entry, "pre_promote", outcome))?;
    // The node leaves the group alone, says so, and counts the failure.
    let explained = heir.succeed(&["explain", GROUP])?;
    ensure!(explained.contains("because its pre_promote failed"), "{explained}");
    let line = format!(
        "vip_hook_failures_total{{cluster=\"lab\",group=\"{GROUP}\",node=\"{}\",hook=\"pre_promote\"}} 1",
        heir.name()
    );
    let metrics = heir.succeed(&["metrics"])?;
    ensure!(metrics.contains(&line), "no {line} in\n{metrics}");
    rig.check()
}

#[lab_test]
fn a_node_whose_pre_promote_fails_releases() -> Result<()> {
    another_takes_over("exit 3", "failed")
}

#[lab_test]
fn a_node_whose_pre_promote_hangs_releases() -> Result<()> {
    another_takes_over("sleep 1000", "timed_out")
}

#[lab_test]
fn a_lease_lost_while_pre_promote_runs_is_never_answered() -> Result<()> {
    let script = "[ -e $D/slow.$VIP_NODE ] && trap '' TERM && sleep 1";
    let rig = rig(&spec()?, "", &[("pre_promote", &format!("{script}; true"))])?;
    let (old, heir, _) = roles(&rig)?;
    flag(&rig, &format!("slow.{}", heir.name()))?;
    let start = clock::now();
    old.succeed(&["switchover", GROUP, "--to", heir.name(), "--no-wait"])?;
    wait_noted(&rig, heir, "pre_promote", "begin", start)?;
    // The node is cut off from the others, but the capture sees its frames. Its lease runs out
    // long before its hook succeeds.
    heir.isolate()?;
    let after = rig.wait_answerer(None, || ())?;
    ensure!(*after != *heir.name());
    std::thread::sleep(WATCH);
    heir.rejoin()?;
    rig.lab.wait_quorate(PATIENCE)?;
    std::thread::sleep(WATCH);
    ensure!(frames(&rig, heir, start) == 0, "{} has answered", heir.name());
    rig.check()
}

#[lab_test]
fn an_agent_killed_while_pre_promote_runs_leaves_the_fence_shut() -> Result<()> {
    let script = "[ -e $D/slow.$VIP_NODE ] && sleep 3";
    let rig = rig(&spec()?, "", &[("pre_promote", &format!("{script}; true"))])?;
    let (old, heir, third) = roles(&rig)?;
    flag(&rig, &format!("slow.{}", heir.name()))?;
    let start = clock::now();
    old.succeed(&["switchover", GROUP, "--to", heir.name(), "--no-wait"])?;
    wait_noted(&rig, heir, "pre_promote", "begin", start)?;
    heir.kill_agent()?;
    // The agent is back within its lease, but cannot adopt it: the lease was never in the map.
    heir.start_agent()?;
    let after = rig.wait_answerer(None, || ())?;
    ensure!([old.name(), third.name()].contains(&&*after), "{after} answers");
    // Nor does the node answer after the old hook has ended by itself.
    wait_noted(&rig, heir, "pre_promote", "end", start)?;
    std::thread::sleep(WATCH);
    ensure!(frames(&rig, heir, start) == 0, "{} has answered", heir.name());
    rig.check()
}

#[lab_test]
fn a_replaced_agent_promotes_nothing() -> Result<()> {
    // A longer lease, since a start may be slow on a busy machine.
    let spec = LabSpec { lease: LEASE * 6, ..spec()? };
    let hooks = [("pre_promote", ":"), ("post_promote", ":"), ("post_demote", ":")];
    let rig = rig(&spec, "", &hooks)?;
    let node = rig.holder()?;
    wait_noted(&rig, node, "post_promote", "end", BootNs(0))?;
    let before = noted(&rig, node);
    let start = clock::now();
    node.kill_agent()?;
    node.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    rig.expect_calm(start, node.name())?;
    assert_eq!(noted(&rig, node), before, "no hook was run");
    let (_, entry) = history(node, |entry| entry["reason"] == "adopted")?;
    ensure!(entry["to"] == "active" && entry["gap_ms"].is_null(), "{entry}");
    Ok(())
}

#[lab_test]
fn another_program_goes_on_when_no_hook_runs_any_more() -> Result<()> {
    let hooks = [("pre_promote", "[ -e $D/slow ] && sleep 3"), ("post_demote", ":")];
    let rig = rig(&LabSpec { lease: LEASE * 6, ..spec()? }, "", &hooks)?;
    let (old, new, _) = roles(&rig)?;
    flag(&rig, "slow")?;
    let start = clock::now();
    old.succeed(&["switchover", GROUP, "--to", new.name(), "--no-wait"])?;
    wait_noted(&rig, new, "pre_promote", "begin", start)?;
    kill(new.agent_pid()?, Signal::SIGUSR2)?;
    wait_noted(&rig, new, "pre_promote", "end", start)?;
    let goes_on = || {
        std::fs::read_to_string(new.log_file()).is_ok_and(|log| log.matches("the agent runs").count() == 2)
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), goes_on), "{}", new.log_tail());
    rig.lab.wait_quorate(PATIENCE)?;
    // Ten times as long as a `post_demote` beside it would have taken.
    std::thread::sleep(WATCH);
    ensure!(rig.holder()?.name() == new.name(), "{}", new.log_tail());
    check_order(&noted(&rig, new))?;
    ensure!(last_noted(&rig, new, "post_demote", "begin").is_none_or(|at| at < start), "{}", new.log_tail());
    Ok(())
}

#[lab_test]
fn a_move_to_a_node_with_other_groups_waits_for_pre_demote() -> Result<()> {
    let rig = rig(&spec()?, "pre_demote_timeout = \"8s\"", &[("pre_demote", "sleep 1")])?;
    let (old, new, _) = roles(&rig)?;
    let more = new.config_file().with_file_name("conf.d");
    std::fs::create_dir_all(&more)?;
    std::fs::write(more.join("app.toml"), "[[group]]\nname = \"app\"\nvips = [\"10.77.0.160\"]\n")?;
    new.succeed(&["reload"])?;
    // Give the others time to hear of it.
    std::thread::sleep(WATCH);
    let start = clock::now();
    old.succeed(&["switchover", GROUP, "--to", new.name()])?;
    wait_noted(&rig, old, "pre_demote", "end", start)?;
    let (taken, _) = rig.expect_move(start, old.name())?;
    ensure!(taken.name() == new.name(), "{}", taken.name());
    Ok(())
}

#[lab_test]
fn who_asks_elsewhere_is_answered_after_a_long_pre_demote() -> Result<()> {
    // The hook takes longer than a command may take without one.
    let rig = rig(&spec()?, "pre_demote_timeout = \"6s\"", &[("pre_demote", "sleep 3.5")])?;
    let (old, new, third) = roles(&rig)?;
    let start = clock::now();
    let said = third.succeed(&["switchover", GROUP, "--to", new.name()])?;
    ensure!(said.contains(&format!("held by {}", new.name())), "{said}");
    rig.expect_move(start, old.name())?;
    Ok(())
}

#[lab_test]
fn a_planned_move_waits_for_pre_demote_and_a_loss_does_not() -> Result<()> {
    let hooks = [
        ("pre_demote", "sleep 1.5"),
        ("post_demote", "echo left"),
        ("post_promote", ":"),
        ("pre_promote", ":"),
    ];
    let rig = rig(&spec()?, "pre_demote_timeout = \"8s\"", &hooks)?;
    let (old, new, third) = roles(&rig)?;
    let mut follower = third.vip_ctl()?;
    let mut follower =
        follower.args(["events", "--follow", "-o", "json", GROUP]).stdout(Stdio::piped()).spawn()?;
    let events = BufReader::new(follower.stdout.take().context("its output")?);

    // A third node is asked, which repeats its request until the hook has ended.
    let before = noted(&rig, old).len();
    let start = clock::now();
    third.succeed(&["switchover", GROUP, "--to", new.name()])?;
    let end = wait_noted(&rig, old, "pre_demote", "end", start)?;
    let (_, account) = rig.expect_move(start, old.name())?;
    ensure!(account.probes_lost < PLANNED_LOSS_MAX, "the lease was renewed meanwhile: {account:?}");
    let early = frames_between(&rig, new, start, end);
    ensure!(early == 0, "{early} frames of the next holder before pre_demote had ended");
    wait_noted(&rig, old, "post_demote", "end", end)?;
    // Skip the older lines by their number, not by their time, which is rounded.
    let runs: Vec<_> = noted(&rig, old).into_iter().skip(before).map(|n| (n.0, n.1)).collect();
    let run = |hook: &str, when: &str| (hook.to_owned(), when.to_owned());
    assert_eq!(
        runs,
        [
            run("pre_demote", "begin"),
            run("pre_demote", "end"),
            run("post_demote", "begin"),
            run("post_demote", "end")
        ],
        "each once"
    );

    let (_, entry) = history(old, |entry| has_hook(entry, "post_demote", "done"))?;
    ensure!(entry["reason"] == "handed_over" && has_hook(&entry, "pre_demote", "done"), "{entry}");
    let asked = format!("switchover --to {} (at {})", new.name(), third.name());
    ensure!(entry["command"] == asked.as_str(), "{entry}");
    let (_, entry) = history(new, |entry| entry["to"] == "active")?;
    let gap = entry["gap_ms"].as_u64().context("a gap")?;
    ensure!(gap < 1_000, "{entry}");
    let explained = json(new, &["explain"])?;
    ensure!(explained["holder"] == new.name() && explained["gap_ms"] == gap, "{explained}");
    // The follower has seen the change on a node that takes no part in it.
    let mut lines = events.lines();
    let seen = lines.by_ref().map_while(Result::ok).any(|line| {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        event["kind"] == "changed" && event["holder"] == new.name() && event["command"] == asked.as_str()
    });
    follower.kill()?;
    follower.wait()?;
    ensure!(seen, "the change is among the events of {}", third.name());

    // An agent that is stopped hands over by plan, too.
    let start = clock::now();
    ensure!(new.stop_agent()?.success());
    let end = wait_noted(&rig, new, "pre_demote", "end", start)?;
    let (last, _) = rig.expect_move(start, new.name())?;
    let early = frames_between(&rig, last, start, end);
    ensure!(early == 0, "{early} frames of the last holder before pre_demote had ended");
    ensure!(
        last_noted(&rig, new, "post_demote", "end").is_some_and(|at| at >= end),
        "before the agent ended"
    );
    new.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    // When a cable is pulled, nothing waits for a hook.
    let start = clock::now();
    last.cut()?;
    rig.expect_move(start, last.name())?;
    ensure!(
        last_noted(&rig, last, "pre_demote", "begin").is_none_or(|at| at < start),
        "no plan, no pre_demote"
    );
    Ok(())
}
