//! What somebody takes off a host while its agent runs is put back within a second or so: by
//! the time, not only at all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::wire::detach_link;
use vip_tests::lab::{GROUP, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, slow, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// A second, and three on a machine of which others want their part.
const BOUND: Duration = Duration::from_secs(4);
/// After a repair of a gate the next one waits some seconds.
const TURN: Duration = Duration::from_secs(6);

/// The pinned links of a node, and which file each of them is.
fn pins(node: &Node) -> Result<Vec<(PathBuf, u64)>> {
    let there = fs::read_dir(node.bpf_dir().join("links")).context("the pins of links")?;
    let pin = |entry: fs::DirEntry| Ok((entry.path(), entry.metadata()?.ino()));
    let mut pins = there.map(|entry| pin(entry?)).collect::<Result<Vec<_>>>()?;
    pins.sort();
    Ok(pins)
}

/// What the doctor finds wrong there.
fn findings(node: &Node) -> Result<String> {
    Ok(String::from_utf8(node.run(&["doctor", "-q"])?.stdout)?)
}

/// Waits until it is so, and requires that it does not take long.
fn soon(node: &Node, what: &str, is_so: impl FnMut() -> bool) -> Result<()> {
    let start = clock::now();
    ensure!(wait_until(start.plus(PATIENCE), is_so), "{what}: never\n{}", node.log_tail());
    let took = clock::now().since(start);
    println!("{what}: {took:?}");
    ensure!(took <= slow::patient(BOUND), "{what}: after {took:?}\n{}", node.log_tail());
    Ok(())
}

fn standby(lab: &Lab) -> Result<&Node> {
    let holder = lab.wait_holder(GROUP, PATIENCE)?.name();
    lab.nodes().iter().find(|node| node.name() != holder).context("a standby")
}

#[lab_test]
fn a_link_that_is_detached_or_loses_its_pin_is_back_within_a_second() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    lab.start_agents(PATIENCE)?;
    let node = standby(&lab)?;
    let (well, all) = (findings(node)?, pins(node)?);
    ensure!(all.len() >= 3, "the way in, and the gates: {all:?}");
    for (pin, file) in &all {
        let is_back = || fs::metadata(pin).is_ok_and(|now| now.ino() != *file);
        let name = pin.file_name().context("a pin's name")?.to_string_lossy().into_owned();
        detach_link(pin)?;
        soon(node, &format!("{name} is detached"), is_back)?;
        ensure!(wait_until(clock::now().plus(PATIENCE), || findings(node).is_ok_and(|now| now == well)));
        std::thread::sleep(TURN);
    }
    let (pin, file) = pins(node)?.swap_remove(0);
    fs::remove_file(&pin)?;
    soon(node, &format!("{} is removed", pin.display()), || {
        fs::metadata(&pin).is_ok_and(|now| now.ino() != file)
    })?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || findings(node).is_ok_and(|now| now == well)));
    Ok(())
}

#[lab_test]
fn what_is_set_on_a_host_is_set_again_within_a_second() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    lab.start_agents(PATIENCE)?;
    let node = standby(&lab)?;
    let before = node.snapshot()?;
    let is_back = || node.snapshot().is_ok_and(|now| before.all_changes(&now).is_empty());
    let setting = "/proc/sys/net/ipv4/conf/all/arp_ignore";
    node.ns().enter(|| fs::write(setting, "0"))??;
    soon(node, "arp_ignore", is_back)?;
    node.ns().ip("rule del pref 0")?;
    soon(node, "the rule", is_back)?;
    node.ns().ip(&format!("addr del {VIP}/32 dev lo"))?;
    soon(node, "the address", is_back)
}
