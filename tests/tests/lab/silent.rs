//! Held but silent: a node has the lease, and nobody hears its answers. The other nodes on
//! the segment notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_tests::lab::{GROUP, INTERFACE, LEASE, Lab, LabSpec, Node, VIP, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// Within what time an alarm comes: two seconds, on a machine of which others want their part.
const BOUND: Duration = Duration::from_secs(6);

/// Does the node say that the group is held but silent?
fn alarms(node: &Node) -> Result<bool> {
    let said = node.status()?.warnings.iter().any(|said| {
        said.contains("held but silent") && said.contains(&VIP.to_string()) && said.contains(GROUP)
    });
    let metrics = node.succeed(&["metrics"])?;
    let metric = metrics.lines().find(|line| line.starts_with("vip_held_but_silent{"));
    let is_one = metric.with_context(|| format!("no metric: {metrics}"))?.ends_with(" 1");
    ensure!(said == is_one, "status and metrics differ: {said}, {metric:?}");
    Ok(said)
}

#[lab_test]
fn a_holder_whose_answers_never_arrive_is_noticed_by_the_others() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let (mute, others) = lab.nodes().split_first().context("a node")?;
    // Native XDP on a veth whose peer runs none: its answers go nowhere, and all counters
    // say that they were sent.
    let config = std::fs::read_to_string(mute.config_file())?;
    let one = format!("interface = \"{INTERFACE}\"");
    mute.write_config(&config.replace(&one, &format!("{one}\nmode = \"native\"")))?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    if holder.name() != mute.name() {
        holder.succeed(&["switchover", GROUP, "--to", mute.name()])?;
    }
    let start = clock::now();
    for node in others {
        let is_told = || alarms(node).unwrap_or(false);
        ensure!(wait_until(clock::now().plus(PATIENCE), is_told), "{} tells nothing", node.name());
    }
    let took = clock::now().since(start);
    ensure!(took <= BOUND, "told after {took:?}");
    ensure!(!alarms(mute)?, "the holder can't know");
    // Who answers is no alarm, not even for the one who does not.
    mute.succeed(&["switchover", GROUP, "--to", others[0].name()])?;
    let is_over = || lab.nodes().iter().all(|node| alarms(node).is_ok_and(|alarms| !alarms));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_over), "the alarm goes on");
    std::thread::sleep(BOUND);
    ensure!(is_over(), "a false alarm");
    Ok(())
}
