//! Clients that missed the news: their switch keeps broadcasts from them, so that they go
//! on sending to the node that held the VIP before.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::echo::{EchoServer, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Nic, SERVICE_PORT, VIP, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// In how much time a client is healed: a kernel by itself takes 23 s and more.
const BOUND: Duration = Duration::from_secs(5);
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

/// A planned move that the client is told nothing of.
fn planned(nic: Nic) -> Result<()> {
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic);
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
    let has_moved = || {
        let holder = other.status().ok().and_then(|status| status.group(GROUP)?.holder.clone());
        holder.is_some_and(|holder| holder != before)
    };
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
fn who_was_cut_off_with_the_former_holder_hears_of_the_move_when_the_cut_heals() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let echoes: Result<Vec<_>> =
        lab.candidates().map(|node| EchoServer::start(node.ns(), node.name(), AT_VIP)).collect();
    let _echoes = echoes?;
    lab.start_agents(PATIENCE)?;
    let before = lab.wait_holder(GROUP, PATIENCE)?;
    // The node itself, as a client: it answers nobody, and knows nobody who does.
    before.cut()?;
    let has_moved = || {
        lab.candidates().any(|node| {
            node.name() != before.name()
                && node.status().is_ok_and(|s| s.group(GROUP).is_some_and(|group| group.state == "active"))
        })
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), has_moved), "nobody took it");
    before.heal()?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let answer = ask_udp(before.ns(), AT_VIP, PATIENCE)?;
    ensure!(answer == holder.name(), "{answer} answers, {} holds", holder.name());
    Ok(())
}
