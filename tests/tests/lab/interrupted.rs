//! `kill -9` in the middle: whatever `load` and `unload` had done until then, the host
//! still hears, and the next of them mends the rest.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vip_tests::lab::killed::{self, Ended};
use vip_tests::lab::snapshot::Snapshot;
use vip_tests::lab::{INTERFACE, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// Every so many changes are tried: a record is two of them, a write and a rename.
const STEP: usize = 2;
/// The same of an agent, which brings the node up as `load` does.
const AGENT_STEP: usize = 7;
/// After so many changes it is up.
const AGENT_CHANGES: usize = 110;
/// More changes than any of the commands makes.
const CHANGES_MAX: usize = 1_000;

fn lab() -> Result<Lab> {
    Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Kills it before this change; false if it makes fewer.
fn interrupt(node: &Node, args: &[&str], number: usize) -> Result<bool> {
    let mut command = node.vip_ctl()?;
    command.args(args);
    let ended = killed::before_change(command, number)?;
    ensure!(matches!(ended, Ended::Killed | Ended::Idle | Ended::Itself(0)), "vip-ctl {args:?}: {ended:?}");
    let rules = node.ns().ip("rule")?;
    ensure!(rules.contains("lookup local"), "deaf after {number} changes of vip-ctl {args:?}: {rules}");
    Ok(ended == Ended::Killed)
}

/// What was done after a kill: it works as ever.
fn work_by_hand(node: &Node) -> Result<()> {
    node.load()?;
    node.succeed(&["promote"]).map(drop)
}

/// Takes everything off, after which the host is as it was before.
fn unload(node: &Node, before: &Snapshot, number: usize) -> Result<()> {
    node.succeed(&["unload"])?;
    let changes = before.all_changes(&node.snapshot()?);
    ensure!(changes.is_empty(), "after {number} changes: {changes:?}");
    ensure!(!node.bpf_dir().exists(), "pins are left after {number} changes");
    Ok(())
}

#[lab_test]
fn a_load_that_is_killed_is_mended_by_the_next_command() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    let args = ["load", "--iface", INTERFACE, "--vip", &VIP.to_string()];
    let mut tried = 0;
    for number in (0..CHANGES_MAX).step_by(STEP) {
        if !interrupt(node, &args, number)? {
            break;
        }
        tried += 1;
        if tried % 2 == 0 {
            work_by_hand(node)?;
        }
        unload(node, &before, number)?;
    }
    ensure!(tried > 10, "only {tried} places were tried");
    Ok(())
}

#[lab_test]
fn an_agent_that_is_killed_at_its_start_is_mended_by_the_next() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    lab.start_agents(PATIENCE)?;
    node.kill_agent()?;
    node.succeed(&["unload"])?;
    let config = node.config_file();
    let args = ["agent", "--config", config.to_str().context("a path that is no text")?];
    let mut tried = 0;
    for number in (0..AGENT_CHANGES).step_by(AGENT_STEP) {
        if !interrupt(node, &args, number)? {
            break;
        }
        tried += 1;
        if tried % 4 == 0 {
            node.start_agent()?;
            let is_up = || node.status().is_ok();
            ensure!(wait_until(clock::now().plus(PATIENCE), is_up), "{}", node.log_tail());
            node.kill_agent()?;
        }
        unload(node, &before, number)?;
    }
    ensure!(tried > 5, "only {tried} places were tried");
    Ok(())
}

#[lab_test]
fn an_unload_that_is_killed_is_mended_by_the_next_command() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    let mut tried = 0;
    for number in (0..CHANGES_MAX).step_by(STEP) {
        node.load()?;
        if !interrupt(node, &["unload"], number)? {
            break;
        }
        tried += 1;
        if tried % 2 == 0 {
            work_by_hand(node)?;
        }
        unload(node, &before, number)?;
    }
    ensure!(tried > 5, "only {tried} places were tried");
    Ok(())
}
