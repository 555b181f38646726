//! Clients that missed the news: their switch keeps broadcasts from them, so that they go
//! on sending to the node that held the VIP before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::ears::Ears;
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::status::Status;
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Nic, Node, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// In how much time a client is healed: a kernel by itself takes 23 s and more.
const BOUND: Duration = Duration::from_secs(5);

/// A planned move that the client is told nothing of.
fn planned(nic: Nic) -> Result<()> {
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic).without_steering();
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let before = rig.holder()?.name().to_owned();
    rig.lab.keep_broadcasts_from_client(true)?;
    let start = clock::now();
    rig.lab.node(&before)?.succeed(&["switchover", GROUP])?;
    rig.wait_answerer(Some(&before), || ())?;
    let healed = clock::now().since(start);
    ensure!(healed <= BOUND, "healed after {healed:?}");
    // From the node that had it, and no other, did the holder hear of the client.
    let account = rig.account(start, clock::now(), &before)?;
    ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
    Ok(())
}

#[lab_test]
fn a_client_that_missed_a_planned_move_is_corrected_at_once() -> Result<()> {
    planned(Nic::Veth)
}

#[lab_test]
fn so_it_is_where_xdp_drops_its_packets() -> Result<()> {
    planned(Nic::Card)
}

#[lab_test]
fn a_client_that_was_away_when_a_node_was_lost_hears_of_it_within_seconds() -> Result<()> {
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?));
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let before = rig.holder()?.name().to_owned();
    rig.lab.keep_broadcasts_from_client(true)?;
    rig.lab.node(&before)?.cut()?;
    let other = rig.lab.candidates().find(|node| node.name() != before).context("another node")?;
    let has_moved = || other.sees_it_leave(GROUP, &before);
    ensure!(wait_until(clock::now().plus(PATIENCE), has_moved), "{}", other.log_tail());
    // By now it has missed all announcements that follow a takeover closely.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(rig.udp.steady_answerer(Duration::from_millis(200)).is_none(), "it has missed nothing");
    rig.lab.keep_broadcasts_from_client(false)?;
    let heard = clock::now();
    rig.wait_answerer(Some(&before), || ())?;
    let healed = clock::now().since(heard);
    ensure!(healed <= BOUND, "healed after {healed:?}");
    Ok(())
}

#[lab_test]
fn a_cut_that_heals_makes_the_holder_announce_once_more() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    for node in lab.nodes() {
        // Only what the cut brings about shall be heard.
        let config = std::fs::read_to_string(node.config_file())?;
        node.write_config(&config.replace("[node]\n", "[node]\ngarp_master_refresh = \"0s\"\n"))?;
    }
    lab.start_agents(PATIENCE)?;
    let before = lab.wait_holder(GROUP, PATIENCE)?;
    before.cut()?;
    let is_holder = |node: &Node| {
        let active = |s: Status| s.group(GROUP).is_some_and(|group| group.state == "active");
        node.name() != before.name() && node.status().is_ok_and(active)
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), || lab.candidates().any(is_holder)), "nobody took it");
    // All announcements that follow a takeover closely.
    std::thread::sleep(Duration::from_secs(4));
    let ears = Ears::open(&lab.client()?.ns, INTERFACE)?;
    let announced = || Ok::<_, anyhow::Error>(ears.hear()?.iter().any(|arp| arp.announced() == Some(VIP)));
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!announced()?, "it is announced again and again");
    before.heal()?;
    let is_told = || announced().unwrap_or(false);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_told), "who was cut off is told nothing");
    Ok(())
}
