//! The demo's steps, one test each: the VIP moves once, in time, and no frame
//! is answered by two. All with the real agent in the real kernel.

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::lab::rig::{ArpProbes, Rig, WATCH};
use vip_tests::lab::snapshot::{Carrier, Snapshot};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

fn snapshots(rig: &Rig) -> Result<Vec<Snapshot>> {
    rig.lab.nodes().iter().map(Node::snapshot).collect()
}

/// Asserts that no node's `ip addr` and `ip -d link` have changed.
fn assert_same_interfaces(rig: &Rig, before: &[Snapshot], carrier: Carrier) -> Result<()> {
    for ((node, old), new) in rig.lab.nodes().iter().zip(before).zip(snapshots(rig)?) {
        assert_eq!(old.interface_changes(&new, carrier), Vec::<String>::new(), "{}", node.name());
    }
    Ok(())
}

#[lab_test]
fn a_cut_holder_is_replaced_and_returns_quietly() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let before = snapshots(&rig)?;
    let start = clock::now();
    old.cut()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    assert_same_interfaces(&rig, &before, Carrier::Ignored)?;

    let start = clock::now();
    old.heal()?;
    rig.expect_calm(start, new.name())?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_eq!(rig.lab.wait_holder(GROUP, PATIENCE)?.name(), new.name());
    assert_same_interfaces(&rig, &before, Carrier::Compared)
}

#[lab_test]
fn a_holder_cut_off_with_its_carrier_up_falls_silent() -> Result<()> {
    // The capture still sees the node's frames: only the fence can keep it silent here.
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let before = snapshots(&rig)?;
    let start = clock::now();
    old.isolate()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    let start = clock::now();
    old.rejoin()?;
    rig.expect_calm(start, new.name())?;
    assert_same_interfaces(&rig, &before, Carrier::Compared)
}

#[lab_test]
fn a_killed_agents_host_is_fenced_and_its_restart_unnoticed() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let before = snapshots(&rig)?;
    let start = clock::now();
    old.kill_agent()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    assert_same_interfaces(&rig, &before, Carrier::Compared)?;

    let start = clock::now();
    old.start_agent()?;
    rig.expect_calm(start, new.name())?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_same_interfaces(&rig, &before, Carrier::Compared)
}

#[lab_test]
fn a_stopped_agents_host_is_fenced_and_its_return_unnoticed() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let before = snapshots(&rig)?;
    let start = clock::now();
    old.pause_agent()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    assert_same_interfaces(&rig, &before, Carrier::Compared)?;

    let start = clock::now();
    old.resume_agent()?;
    rig.expect_calm(start, new.name())?;
    rig.lab.wait_quorate(PATIENCE)?;
    assert_same_interfaces(&rig, &before, Carrier::Compared)
}

#[lab_test]
fn a_switchover_loses_next_to_nothing() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let before = snapshots(&rig)?;
    let mut lost = Vec::new();
    for asked in rig.lab.nodes() {
        // Any node may be asked, whether it holds the VIP or not.
        let old = rig.holder()?;
        let start = clock::now();
        asked.succeed(&["switchover", GROUP])?;
        lost.push(rig.expect_move(start, old.name())?.1.probes_lost);
    }
    let asked = rig.holder()?;
    for target in rig.lab.nodes().iter().filter(|node| node.name() != asked.name()) {
        let old = rig.holder()?;
        let start = clock::now();
        asked.succeed(&["switchover", GROUP, "--to", target.name()])?;
        let (new, account) = rig.expect_move(start, old.name())?;
        assert_eq!(new.name(), target.name());
        lost.push(account.probes_lost);
    }
    lost.sort_unstable();
    // The machine may stall during one move, but no move waits until a lease runs out.
    ensure!(lost[lost.len() / 2] <= 5 && lost.iter().all(|lost| *lost < 500), "lost probes: {lost:?}");
    assert_same_interfaces(&rig, &before, Carrier::Compared)
}

#[lab_test]
fn a_holder_that_ends_on_sigterm_releases() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let old = rig.holder()?;
    let start = clock::now();
    let status = old.stop_agent()?;
    ensure!(status.success(), "the agent ended with {status}");
    let (_, account) = rig.expect_move(start, old.name())?;
    // Without a release, its lease of 1 s, renewed every 200 ms, would have to run out. Count the
    // lost probes (1,000 a second) and not the gap, which grows when the client stalls.
    ensure!(account.probes_lost < 600, "{account:?}");
    Ok(())
}

#[lab_test]
fn without_agents_nobody_answers_after_one_lease() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?.name().to_owned();
    for node in rig.lab.nodes() {
        node.kill_agent()?;
    }
    let fenced = clock::now().plus(LEASE);
    clock::sleep_until(fenced.plus(WATCH));
    let account = rig.account(fenced, clock::now(), &holder)?;
    ensure!(account.probes_sent > 100, "nothing was asked: {account:?}");
    assert_eq!(account.probes_lost, account.probes_sent, "{account:?}");
    let late = rig.capture.frames().iter().filter(|frame| frame.at > fenced).count();
    assert_eq!(late, 0, "frames with the VIP as source after the lease");

    for node in rig.lab.nodes() {
        node.start_agent()?;
    }
    rig.wait_answerer(None, || ())?;
    Ok(())
}

#[lab_test]
fn without_a_majority_nobody_answers_although_the_client_reaches_all() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?.name().to_owned();
    let start = clock::now();
    rig.lab.partition(true)?;
    let fenced = clock::now().plus(LEASE);
    clock::sleep_until(fenced.plus(WATCH));
    let late = rig.capture.frames().iter().filter(|frame| frame.at > fenced).count();
    assert_eq!(late, 0, "frames with the VIP as source after the lease");
    rig.lab.partition(false)?;
    rig.wait_answerer(None, || ())?;
    std::thread::sleep(WATCH);
    let account = rig.account(start, clock::now(), &holder)?;
    assert_eq!(account.verdict.answered_by_two, 0, "{account:?}");
    rig.lab.wait_holder(GROUP, PATIENCE)?;
    Ok(())
}

#[lab_test]
fn a_witness_votes_and_never_answers() -> Result<()> {
    let spec = spec()?.with_witness();
    let rig = Rig::new(&spec)?;
    let first = rig.holder()?;
    let start = clock::now();
    first.kill_agent()?;
    // The witness's vote is the second of the majority.
    let (second, _) = rig.expect_move(start, first.name())?;
    ensure!(!second.is_witness());
    second.kill_agent()?;
    let fenced = clock::now().plus(LEASE);
    clock::sleep_until(fenced.plus(WATCH));
    let late = rig.capture.frames().iter().filter(|frame| frame.at > fenced).count();
    assert_eq!(late, 0, "frames with the VIP as source after the lease");
    rig.check()
}

#[lab_test]
fn a_client_without_arp_probes_is_not_left_with_a_stale_neighbour() -> Result<()> {
    let spec = spec()?;
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let old = rig.holder()?;
    let start = clock::now();
    old.kill_agent()?;
    let (new, _) = rig.expect_move(start, old.name())?;
    let start = clock::now();
    old.start_agent()?;
    rig.expect_calm(start, new.name())?;
    let start = clock::now();
    rig.holder()?.pause_agent()?;
    let (newer, _) = rig.expect_move(start, new.name())?;
    let start = clock::now();
    new.resume_agent()?;
    rig.expect_calm(start, newer.name())
}

#[lab_test]
fn two_clusters_side_by_side_do_not_meet() -> Result<()> {
    let spec = spec()?;
    let second = std::thread::spawn({
        let spec = spec.clone();
        move || Rig::new(&spec)
    });
    let first = Rig::new(&spec)?;
    let Ok(second) = second.join() else { anyhow::bail!("the second cluster panicked") };
    let second = second?;
    let (old, start) = (first.holder()?, clock::now());
    let bystander = second.holder()?;
    old.kill_agent()?;
    first.expect_move(start, old.name())?;
    second.expect_calm(start, bystander.name())
}
