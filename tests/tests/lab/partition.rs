//! Cuts and losses with the real agent in the real kernel: who may answer when
//! nodes don't hear each other, with a majority and in pair mode.

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::lab::rig::{Rig, WATCH};
use vip_tests::lab::{GROUP, LEASE, LabSpec, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

#[lab_test]
fn a_holder_apart_from_the_others_loses_it_although_the_client_reaches_all() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let start = clock::now();
    rig.lab.separate(old, true)?;
    let (new, _) = rig.expect_move(start, old.name())?;
    let status = old.status()?;
    ensure!(status.quorate == Some(false), "{status:?}");
    let start = clock::now();
    rig.lab.separate(old, false)?;
    rig.expect_calm(start, new.name())?;
    rig.lab.wait_holder(GROUP, PATIENCE)?;
    Ok(())
}

#[lab_test]
fn a_lost_witness_is_not_missed_until_a_node_is_lost_too() -> Result<()> {
    let rig = Rig::new(&spec()?.with_witness())?;
    let holder = rig.holder()?;
    let start = clock::now();
    rig.lab.node("tie")?.kill_agent()?;
    rig.expect_calm(start, holder.name())?;
    // The other node is no majority: it must not take over.
    holder.kill_agent()?;
    rig.expect_silence(clock::now().plus(LEASE))?;
    // The witness comes back, and with it the majority.
    rig.lab.node("tie")?.start_agent()?;
    rig.wait_answerer(Some(holder.name()), || ())?;
    Ok(())
}

#[lab_test]
fn with_two_of_three_lost_nobody_answers() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?;
    let others: Vec<_> = rig.lab.nodes().iter().filter(|node| node.name() != holder.name()).collect();
    for other in &others {
        other.kill_agent()?;
    }
    rig.expect_silence(clock::now().plus(LEASE))?;
    let refused = holder.run(&["failover", GROUP])?;
    ensure!(refused.status.code() == Some(106), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains(others[0].name()) && said.contains("--force"), "it names what it risks: {said}");
    rig.expect_silence(clock::now())?;
    // An admin may, with `--force`. The node warns of it until the quorum is back.
    let forced = holder.run(&["failover", GROUP, "--force", "-o", "json"])?;
    let said = String::from_utf8_lossy(&forced.stderr).into_owned();
    ensure!(forced.status.success() && said.contains(others[0].name()), "it is named again: {forced:?}");
    let told: serde_json::Value = serde_json::from_slice(&forced.stdout)?;
    ensure!(told["risk"].as_str().is_some_and(|risk| said.contains(risk)), "{told}");
    rig.wait_answerer(None, || ())?;
    let status = holder.status()?;
    ensure!(status.warnings.iter().any(|warning| warning.contains("by force")), "{status:?}");
    let start = clock::now();
    others[0].start_agent()?;
    rig.expect_calm(start, holder.name())?;
    let calm = wait_until(clock::now().plus(PATIENCE), || {
        holder.status().is_ok_and(|status| !status.warnings.iter().any(|w| w.contains("by force")))
    });
    ensure!(calm, "still by force: {:?}", holder.status()?);
    Ok(())
}

#[lab_test]
fn a_cut_pair_has_two_holders_until_it_merges() -> Result<()> {
    let rig = Rig::new(&spec()?.pair("take"))?;
    let old = rig.holder()?;
    let loud = old.status()?.warnings;
    ensure!(loud.iter().any(|warning| warning.contains("pair mode")), "{loud:?}");
    let start = clock::now();
    rig.lab.partition(true)?;
    let active = |node: &vip_tests::lab::Node| {
        node.status().is_ok_and(|s| s.group(GROUP).is_some_and(|group| group.state == "active"))
    };
    let both = wait_until(clock::now().plus(PATIENCE), || rig.lab.nodes().iter().all(active));
    ensure!(both, "which is what pair mode costs");
    std::thread::sleep(WATCH);
    let account = rig.account(start, clock::now(), old.name())?;
    ensure!(account.verdict.answered_by_two > 0, "both answer: {account:?}");

    rig.lab.partition(false)?;
    let new = rig.lab.wait_holder(GROUP, PATIENCE)?;
    ensure!(new.name() != old.name(), "the higher epoch is the one that took over");
    // The network has to hear of it: the winner has announced itself again.
    rig.wait_answerer(Some(old.name()), || ())?;
    let start = clock::now();
    rig.expect_calm(start, new.name())
}

#[lab_test]
fn a_dead_agent_of_a_pair_is_fenced_and_replaced() -> Result<()> {
    let rig = Rig::new(&spec()?.pair("take"))?;
    let old = rig.holder()?;
    let start = clock::now();
    old.pause_agent()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    let start = clock::now();
    old.resume_agent()?;
    rig.expect_calm(start, new.name())?;
    // The new holder goes on alone.
    let start = clock::now();
    old.kill_agent()?;
    rig.expect_calm(start, new.name())?;
    let start = clock::now();
    old.start_agent()?;
    rig.expect_calm(start, new.name())
}

#[lab_test]
fn a_pair_that_holds_never_answers_twice_and_takes_over_only_by_force() -> Result<()> {
    let rig = Rig::new(&spec()?.pair("hold"))?;
    let old = rig.holder()?;
    let start = clock::now();
    rig.lab.partition(true)?;
    rig.expect_calm(start, old.name())?;
    rig.lab.partition(false)?;
    old.kill_agent()?;
    rig.expect_silence(clock::now().plus(LEASE))?;
    let other = rig.lab.nodes().iter().find(|node| node.name() != old.name());
    let Some(other) = other else { anyhow::bail!("a pair has two nodes") };
    ensure!(other.run(&["failover", GROUP])?.status.code() == Some(106));
    other.succeed(&["failover", GROUP, "--force"])?;
    let by = rig.wait_answerer(None, || ())?;
    ensure!(*by == *other.name(), "{by}");
    let start = clock::now();
    old.start_agent()?;
    rig.expect_calm(start, other.name())
}
