//! `vip-ctl monitor` on a terminal, with real agents behind it: what is seen,
//! what keys do, and that the terminal is given back however it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vip_tests::lab::rig::Rig;
use vip_tests::lab::terminal::Terminal;
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where to put the screen as the test saw it, for a person to look at.
const SHOW: &str = "VIP_MONITOR_SCREEN";

const DOWN: &str = "\x1b[B";
const ENTER: &str = "\r";
const CTRL_C: &str = "\x03";

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

fn monitor(node: &Node, (columns, rows): (u16, u16)) -> Result<Terminal> {
    let mut command = node.vip_ctl_session()?;
    command.arg("monitor");
    Terminal::start(command, columns, rows)
}

#[lab_test]
fn a_switchover_and_a_pause_are_done_from_the_terminal() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let mut terminal = monitor(old, (80, 24))?;
    let vip = VIP.to_string();
    terminal.wait("the cluster and its traffic", |screen| {
        let all = ["quorate", "db-a", "db-b", "db-c", "active", " ms", &vip, "passed/s", "q quit"];
        // The client asks a thousand times a second, and has its answers.
        let busy = screen
            .lines()
            .find(|line| line.contains(&vip))
            .and_then(|line| line.split_whitespace().nth(1).and_then(|rate| rate.parse::<u64>().ok()));
        all.iter().all(|part| screen.contains(part)) && busy.is_some_and(|rate| rate > 100)
    })?;
    if let Some(path) = std::env::var_os(SHOW) {
        std::thread::sleep(Duration::from_secs(6));
        std::fs::write(path, terminal.formatted())?;
    }

    let start = clock::now();
    terminal.press("s")?;
    let choice = terminal.wait("the choice", |screen| screen.contains("move db to"))?;
    ensure!(!choice.contains(&format!("> {}", old.name())), "the holder is no target:\n{choice}");
    terminal.press(DOWN)?;
    let chosen = terminal.wait("a marked node", |screen| screen.contains("> db-"))?;
    let target = chosen.split("> db-").nth(1).and_then(|rest| rest.get(..1)).context("a marked node")?;
    let target = rig.lab.node(&format!("db-{target}"))?;
    terminal.press(ENTER)?;
    terminal.wait("the question", |screen| screen.contains(&format!("Move db to {} now?", target.name())))?;
    // Nothing but y is a yes.
    terminal.press(ENTER)?;
    rig.expect_calm(start, old.name())?;
    let start = clock::now();
    terminal.press("y")?;
    terminal.wait("the outcome", |screen| screen.contains(&format!("{} holds db now", target.name())))?;
    let (new, _) = rig.expect_move(start, old.name())?;
    ensure!(new.name() == target.name(), "{} was asked for, {} has it", target.name(), new.name());
    terminal.wait("the state after it", |screen| {
        screen.lines().any(|line| line.contains("standby") && line.contains(target.name()))
    })?;

    terminal.press("p")?;
    terminal.wait("the question", |screen| screen.contains("Pause the whole cluster?"))?;
    terminal.press("y")?;
    // The command has ended then; before that there is no other one.
    terminal.wait("the pause", |screen| {
        screen.contains("PAUSED") && screen.contains("paused: nothing moves by itself")
    })?;
    ensure!(new.status()?.paused);
    terminal.press("p")?;
    terminal.wait("the question", |screen| screen.contains("Resume?"))?;
    terminal.press("y")?;
    terminal.wait("the end of the pause", |screen| !screen.contains("PAUSED"))?;

    terminal.press("q")?;
    ensure!(terminal.wait_end()?.success());
    ensure!(terminal.is_restored()?, "{}", terminal.screen());
    Ok(())
}

#[lab_test]
fn an_agent_that_is_gone_is_said_and_found_again() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    // Narrow, so that the sentence is broken into lines.
    let mut terminal = monitor(node, (40, 12))?;
    terminal.wait("the cluster", |screen| screen.contains("quorate"))?;
    let said =
        |screen: &str, what: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ").contains(what);
    node.kill_agent()?;
    terminal.wait("that it is gone", |screen| said(screen, "no agent answers at"))?;
    terminal.press("s")?;
    terminal.wait("a refusal", |screen| said(screen, "this key does nothing"))?;
    node.start_agent()?;
    terminal.wait("the agent again", |screen| {
        screen.contains("quorate") && !said(screen, "no agent answers at")
    })?;
    node.pause_agent()?;
    terminal.wait("that it hangs", |screen| said(screen, "did not answer in time"))?;
    node.resume_agent()?;
    terminal.wait("the agent again", |screen| !said(screen, "did not answer in time"))?;
    terminal.press(CTRL_C)?;
    ensure!(terminal.wait_end()?.success());
    ensure!(terminal.is_restored()?, "{}", terminal.screen());
    Ok(())
}

#[lab_test]
fn the_terminal_is_given_back_after_a_signal_and_is_needed_at_all() -> Result<()> {
    let lab = Lab::new(&LabSpec { nodes: spec()?.nodes.split_off(2), ..spec()? })?;
    let node = lab.nodes().first().context("a node")?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut terminal = monitor(node, (80, 24))?;
        terminal.wait("that there is nobody", |screen| screen.contains("no agent answers"))?;
        let taken = wait_until(clock::now().plus(PATIENCE), || terminal.is_taken());
        ensure!(taken, "it draws on a screen of its own:\n{}", terminal.screen());
        terminal.signal(signal)?;
        ensure!(terminal.wait_end()?.success());
        ensure!(terminal.is_restored()?, "after {signal}:\n{}", terminal.screen());
    }
    let piped = node.run(&["monitor"])?;
    ensure!(piped.status.code() == Some(64), "{piped:?}");
    let said = String::from_utf8_lossy(&piped.stderr);
    ensure!(said.lines().count() == 1 && said.contains("terminal"), "{said}");
    Ok(())
}
