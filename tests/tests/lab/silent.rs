//! Held but silent: a node has the lease, and nobody hears its answers. The other nodes on
//! the segment notice, and so it takes nothing over, and gives up what it has.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vip_tests::lab::load::nft;
use vip_tests::lab::rig::Rig;
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Nic, Node, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

use super::nics::mode;

const PATIENCE: Duration = Duration::from_secs(30);
/// Within what time an alarm comes: two seconds, on a machine of which others want their part.
const BOUND: Duration = Duration::from_secs(6);

/// Does the node say that the group is held but silent?
fn alarms(node: &Node) -> Result<bool> {
    let all = ["held but silent", &VIP.to_string(), GROUP];
    tells(node, "vip_held_but_silent", |said| all.iter().all(|part| said.contains(part)))
}

/// Does the node know that its peers hear its host, and not its data plane?
fn is_unheard(node: &Node) -> Result<bool> {
    let told = "this host and not its data plane";
    tells(node, "vip_interface_silent", |said| said.starts_with(INTERFACE) && said.contains(told))
}

/// Is there such a warning in the node's status? The metric has to say the same.
fn tells(node: &Node, metric: &str, is_it: impl Fn(&str) -> bool) -> Result<bool> {
    let said = node.status()?.warnings.iter().any(|said| is_it(said));
    let metrics = node.succeed(&["metrics"])?;
    let metric = metrics.lines().find(|line| line.starts_with(&format!("{metric}{{")));
    let is_one = metric.with_context(|| format!("no metric: {metrics}"))?.ends_with(" 1");
    ensure!(said == is_one, "status and metrics differ: {said}, {metric:?}");
    Ok(said)
}

/// Could the node take the group, as it says?
fn is_eligible(node: &Node) -> Result<bool> {
    let status = node.status()?;
    Ok(status.group(GROUP).context("the group")?.eligible == Some(true))
}

/// Adds these lines to `[node]`.
fn configure(node: &Node, lines: &str) -> Result<()> {
    let config = std::fs::read_to_string(node.config_file())?;
    let one = format!("interface = \"{INTERFACE}\"");
    node.write_config(&config.replace(&one, &format!("{one}\n{lines}")))
}

#[lab_test]
fn a_node_whose_answers_do_not_arrive_takes_nothing_over() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let (mute, others) = lab.nodes().split_first().context("a node")?;
    configure(mute, "mode = \"native\"")?;
    lab.start_agents(PATIENCE)?;
    let is_told = || is_unheard(mute).unwrap_or(false) && !is_eligible(mute).unwrap_or(true);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_told), "{}", mute.log_tail());
    let is_other = || lab.wait_holder(GROUP, PATIENCE).is_ok_and(|holder| holder.name() != mute.name());
    ensure!(wait_until(clock::now().plus(PATIENCE), is_other), "it keeps the group");
    ensure!(!mute.run(&["switchover", GROUP, "--to", mute.name()])?.status.success(), "it is ready");
    let finding = |node: &Node| -> Result<String> {
        let told = String::from_utf8(node.run(&["doctor"])?.stdout)?;
        let line = told.lines().find(|line| line.split_whitespace().nth(1) == Some("answers"));
        Ok(line.with_context(|| told.clone())?.to_owned())
    };
    ensure!(finding(mute)?.contains("hear this host and not its data plane"), "{}", finding(mute)?);
    for node in others {
        ensure!(is_eligible(node)? && !is_unheard(node)?, "{} is heard", node.name());
        ensure!(finding(node)?.contains("answers arrive at the peers"), "{}", finding(node)?);
    }
    // By a mode in which its answers arrive, it can.
    mute.stop_agent()?;
    let config = std::fs::read_to_string(mute.config_file())?;
    mute.write_config(&config.replace("mode = \"native\"", "mode = \"tc\""))?;
    mute.start_agent()?;
    let is_well = || is_eligible(mute).unwrap_or(false) && !is_unheard(mute).unwrap_or(true);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_well), "{}", mute.log_tail());
    mute.take(GROUP, PATIENCE)?;
    std::thread::sleep(BOUND);
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == mute.name() && is_well(), "it is heard");
    Ok(())
}

#[lab_test]
fn where_no_mode_was_asked_for_the_next_one_is_tried() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    // All hosts have the same card, whose driver sends nothing back.
    let plain: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| std::fs::read_to_string(node.config_file()))
        .collect::<Result<_, _>>()?;
    for node in lab.nodes() {
        configure(node, "mode = \"native\"\nself_test = \"off\"")?;
    }
    lab.start_agents(PATIENCE)?;
    for (node, plain) in lab.nodes().iter().zip(&plain) {
        ensure!(mode(node)? == "native" && !is_unheard(node)?, "nobody is asked");
        node.stop_agent()?;
        node.write_config(plain)?;
    }
    lab.start_agents(PATIENCE)?;
    for node in lab.nodes() {
        let is_well = || mode(node).is_ok_and(|mode| mode == "tc") && is_eligible(node).unwrap_or(false);
        ensure!(wait_until(clock::now().plus(PATIENCE), is_well), "{}: {}", node.name(), node.log_tail());
    }
    std::thread::sleep(BOUND);
    let is_heard = || lab.nodes().iter().all(|node| is_unheard(node).is_ok_and(|unheard| !unheard));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_heard), "the next mode is heard");
    ensure!(lab.nodes().iter().all(|node| alarms(node).is_ok_and(|alarms| !alarms)), "and the holder");
    Ok(())
}

#[lab_test]
fn a_holder_whose_answers_stop_gives_its_groups_up() -> Result<()> {
    let rig = Rig::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(Nic::Card))?;
    let holder = rig.holder()?;
    let name = holder.name().to_owned();
    rig.expect_calm(clock::now(), &name)?;
    // What comes in still does; what XDP sends back has no taker at the other end any more.
    let start = clock::now();
    rig.lab.switch().ip(&format!("link set {name} xdp off"))?;
    rig.expect_move(start, &name)?;
    ensure!(is_unheard(holder)? && !is_eligible(holder)?, "it is told: {}", holder.log_tail());
    Ok(())
}

#[lab_test]
fn a_holder_whose_answers_never_arrive_is_noticed_by_the_others() -> Result<()> {
    let lab = Lab::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let (mute, others) = lab.nodes().split_first().context("a node")?;
    // Native XDP on a veth whose peer runs none: its answers go nowhere, and all counters
    // say that they were sent.
    configure(mute, "mode = \"native\"\nself_test = \"alarm\"")?;
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
    ensure!(!alarms(mute)?, "it asks nobody for what it holds");
    ensure!(wait_until(clock::now().plus(PATIENCE), || is_unheard(mute).unwrap_or(false)), "it is not told");
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == mute.name(), "an alarm moves nothing");
    let events = |node: &Node| node.succeed(&["events", "-o", "json"]);
    ensure!(events(&others[0])?.contains("\"silent\""), "no event: {}", events(&others[0])?);
    // Who answers is no alarm, not even for the one who does not.
    mute.succeed(&["switchover", GROUP, "--to", others[0].name()])?;
    let is_over = || lab.nodes().iter().all(|node| alarms(node).is_ok_and(|alarms| !alarms));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_over), "the alarm goes on");
    std::thread::sleep(BOUND);
    ensure!(is_over(), "a false alarm");
    Ok(())
}

/// Drops the test answers that come in by these ports of the switch, as a network does that
/// knows which addresses are behind which port; those for the VIP pass.
fn snoop(lab: &Lab, ports: &[&str]) -> Result<()> {
    drop_from(lab, "snoop", ports, &["arp saddr ip 169.254.0.0/16".to_owned()])
}

/// Has the switch drop these frames where they come in by these ports.
fn drop_from(lab: &Lab, table: &str, ports: &[&str], frames: &[String]) -> Result<()> {
    let ports = ports.iter().map(|port| format!("\"{port}\"")).collect::<Vec<_>>().join(", ");
    let rule = |what: &String| format!("; add rule bridge {table} f iifname {{ {ports} }} {what} drop");
    nft(
        lab.switch(),
        &format!(
            "add table bridge {table}; \
             add chain bridge {table} f {{ type filter hook forward priority 0; }}{}",
            frames.iter().map(rule).collect::<String>()
        ),
    )
}

#[lab_test("nft")]
fn a_network_that_drops_test_answers_leaves_no_group_without_a_holder() -> Result<()> {
    let rig = Rig::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let lab = &rig.lab;
    let [one, two, free] = lab.nodes() else { bail!("a lab of three") };
    // Whoever is heard can hold nothing.
    free.succeed(&["standby"])?;
    snoop(lab, &[one.name(), two.name()])?;
    for node in [one, two] {
        ensure!(wait_until(clock::now().plus(PATIENCE), || is_unheard(node).unwrap_or(false)), "it is told");
        ensure!(!is_eligible(node)?, "{} is not well", node.name());
    }
    // The first of them that was told may have given it to the other.
    let holder = rig.holder()?.name().to_owned();
    ensure!(holder != free.name(), "{holder} is on standby");
    let start = clock::now();
    std::thread::sleep(BOUND);
    rig.expect_calm(start, &holder)?;
    // Who is well, and may, has it.
    let start = clock::now();
    free.succeed(&["unstandby"])?;
    let (after, _) = rig.expect_move(start, &holder)?;
    ensure!(after.name() == free.name(), "{} has it", after.name());
    Ok(())
}

/// Lets nothing with the VIP as its source in by these ports of the switch, as a cloud does
/// that was not told that the address may be behind them.
fn forbid(lab: &Lab, ports: &[&str]) -> Result<()> {
    drop_from(lab, "ports", ports, &["arp saddr ip", "ip saddr"].map(|what| format!("{what} {VIP}")))
}

/// Why the node can't take the group, as it says.
fn why(node: &Node) -> Result<String> {
    Ok(node.status()?.group(GROUP).context("the group")?.why.clone().unwrap_or_default())
}

#[lab_test("nft")]
fn a_port_that_the_vip_does_not_get_through_gives_it_back() -> Result<()> {
    let rig = Rig::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let (lab, first) = (&rig.lab, rig.holder()?.name().to_owned());
    // So it is in such networks: nobody's test answers arrive either.
    snoop(lab, &lab.nodes().iter().map(Node::name).collect::<Vec<_>>())?;
    let barred = lab.candidates().find(|node| node.name() != first).context("another node")?;
    forbid(lab, &[barred.name()])?;
    barred.take(GROUP, PATIENCE)?;
    let start = clock::now();
    let is_left = || lab.wait_holder(GROUP, PATIENCE).is_ok_and(|holder| holder.name() != barred.name());
    ensure!(wait_until(clock::now().plus(PATIENCE), is_left), "it keeps the group: {}", barred.log_tail());
    println!("given up after {:?}", clock::now().since(start));
    let after = lab.wait_holder(GROUP, PATIENCE)?.name().to_owned();
    rig.wait_answerer(Some(barred.name()), || ())?;
    ensure!(why(barred)?.contains(&format!("nobody answer for {VIP}")), "{}", why(barred)?);
    ensure!(!is_eligible(barred)?, "it would take it again");
    let refused = lab.node(&after)?.run(&["switchover", GROUP, "--to", barred.name()])?;
    ensure!(!refused.status.success(), "it takes it again");
    let start = clock::now();
    std::thread::sleep(BOUND);
    rig.expect_calm(start, &after)
}

#[lab_test("nft")]
fn where_the_vip_gets_through_nowhere_somebody_keeps_it() -> Result<()> {
    let rig = Rig::new(&LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))?;
    let lab = &rig.lab;
    forbid(lab, &lab.nodes().iter().map(Node::name).collect::<Vec<_>>())?;
    // Each of them tries it once, and no more within a minute.
    let all_know = || lab.nodes().iter().all(|node| why(node).is_ok_and(|why| why.contains("nobody answer")));
    ensure!(wait_until(clock::now().plus(PATIENCE), all_know), "{}", lab.nodes()[0].log_tail());
    let last = lab.wait_holder(GROUP, PATIENCE)?.name();
    std::thread::sleep(2 * BOUND);
    ensure!(lab.wait_holder(GROUP, PATIENCE)?.name() == last, "it goes round and round");
    Ok(())
}
