//! Bonds under real agents: a bond is one interface to vip, and whatever happens below it
//! (a cable is pulled, a card comes or goes, the MAC changes) moves no VIP. A card that
//! somebody makes a port of a bond gives its frames to the bond, and its node says so.
//!
//! Not every kernel has bonds: `cargo xtask vm` boots some that have.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::BootNs;
use vip_tests::lab::echo::ask_udp;
use vip_tests::lab::rig::{ArpProbes, Rig, WATCH};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, Node, VIP, clock, find_vip_ctl, slow, wait_until,
};
use vip_tests_macros::lab_test;

use super::nics::mode;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a change below the interface may cost a client: the bond looks every 10 ms, and a
/// busy two-core machine takes its part.
const GAP: Duration = Duration::from_secs(2);

fn spec(nic: Nic) -> Result<LabSpec> {
    // Frames are lost while ports come and go, on an emulated machine for seconds.
    Ok(LabSpec::three_nodes(slow::patient(LEASE), Some(find_vip_ctl()?)).on(nic))
}

/// The port that carries the bond's frames now.
fn active_port(ns: &Netns) -> Result<String> {
    let said = ns.ip(&format!("-d link show {INTERFACE}"))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "active_slave");
    Ok(words.nth(1).unwrap_or("none").to_owned())
}

/// The switch's end of the cable that carries the bond's frames now.
fn active_cable(node: &Node) -> Result<String> {
    let at = match active_port(node.ns())?.as_str() {
        "lower0" => 0,
        "lower1" => 1,
        other => anyhow::bail!("{other} carries the frames of {}", node.name()),
    };
    Ok(node.ports()[at].clone())
}

/// Requires that the client goes on with the same node, after a short gap at most.
fn expect_the_same_holder(rig: &Rig, start: BootNs, holder: &str) -> Result<()> {
    std::thread::sleep(WATCH);
    let account = rig.account(start, clock::now(), holder)?;
    let log = || rig.lab.node(holder).map(Node::log_tail).unwrap_or_default();
    ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
    ensure!(account.verdict.new_holder.is_none(), "the VIP moved: {account:?}: {}", log());
    ensure!(
        account.gap_ms() <= clock::millis(slow::patient(GAP)),
        "the gap is too long: {account:?}: {}",
        log()
    );
    ensure!(account.holder_after.as_deref() == Some(holder), "nobody answers: {account:?}: {}", log());
    println!("below the interface of {holder}: gap {} ms, {} lost", account.gap_ms(), account.probes_lost);
    rig.check()
}

/// What a node counts of somebody else who claims its VIP.
fn claims(node: &Node) -> Result<BTreeMap<String, u64>> {
    let status = node.status()?;
    let vips = status.groups.iter().flat_map(|group| &group.vips);
    let counted = vips.flat_map(|vip| vip.counters.clone());
    let claims = counted.filter(|(name, _)| name.starts_with("arp_claim"));
    Ok(claims
        .filter_map(|(name, count)| Some((name, count.as_u64()?)))
        .filter(|(_, count)| *count > 0)
        .collect())
}

/// Requires that no node has noticed a rival, or has something to say of its interface; and
/// what `doctor` says on one of them.
fn are_content(lab: &Lab, examined: &str) -> Result<()> {
    for node in lab.nodes().iter().filter(|node| node.has_agent()) {
        let conflicts = claims(node)?.into_iter().find(|(name, _)| name.contains("conflict"));
        ensure!(conflicts.is_none(), "{} has met a rival: {conflicts:?}", node.name());
        ensure!(!node.has_logged("claims a VIP"), "{}", node.log_tail());
        let status = node.status()?;
        let about = |said: &&String| said.contains(INTERFACE) || said.contains(&VIP.to_string());
        let warning = status.warnings.iter().find(about);
        ensure!(warning.is_none(), "{}: {warning:?}", node.name());
    }
    let (is_well, said) = doctor(lab.node(examined)?)?;
    ensure!(is_well, "{examined}: {said}");
    Ok(())
}

/// The nodes without the client, which leaves them no time on an emulated machine.
fn quiet(rig: Rig) -> Lab {
    rig.lab
}

/// What `doctor` says besides what is well, and whether it finds no error. It has the kernel
/// check all programs, for which an emulated machine takes half a minute.
fn doctor(node: &Node) -> Result<(bool, String)> {
    let output = node.vip_ctl()?.args(["doctor", "--quiet"]).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The neighbour entry that the client has for the VIP.
fn known_to(client: &Netns) -> Result<String> {
    let said = client.ip(&format!("neigh show {VIP} dev {INTERFACE}"))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "lladdr");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

fn wait_for(what: &str, ready: impl FnMut() -> bool) -> Result<()> {
    ensure!(wait_until(clock::now().plus(slow::patient(PATIENCE)), ready), "{what}");
    Ok(())
}

#[lab_test("link bond")]
fn a_pulled_cable_of_two_moves_no_vip() -> Result<()> {
    let rig = Rig::new(&spec(Nic::Bond)?)?;
    let (holder, switch) = (rig.holder()?, rig.lab.switch());
    let name = holder.name().to_owned();
    ensure!(mode(holder)? == "tc", "{}", mode(holder)?);
    // Each of the two in turn, so that the second time no port is the one it began with.
    for _ in 0..2 {
        let (before, cable) = (active_port(holder.ns())?, active_cable(holder)?);
        let start = clock::now();
        switch.ip(&format!("link set {cable} down"))?;
        wait_for("the bond goes on with the same port", || {
            active_port(holder.ns()).is_ok_and(|now| now != before && now != "none")
        })?;
        expect_the_same_holder(&rig, start, &name).context("a cable is pulled")?;
        let start = clock::now();
        switch.ip(&format!("link set {cable} up"))?;
        expect_the_same_holder(&rig, start, &name).context("it is back")?;
    }
    are_content(&quiet(rig), &name)
}

/// Makes the bond take the MAC of the port that carries its frames, as some clouds' networks
/// want it.
fn follow_the_ports_mac(ns: &Netns) -> Result<()> {
    ns.ip_batch(&format!(
        "link set {INTERFACE} down\nlink set lower0 nomaster\nlink set lower1 nomaster\n\
         link set {INTERFACE} type bond fail_over_mac active\n\
         {}link set {INTERFACE} up\n",
        to_the_bond()
    ))
}

/// Lines for `ip` that make both cards ports of the bond.
fn to_the_bond() -> String {
    ["lower0", "lower1"]
        .map(|port| format!("link set {port} down\nlink set {port} master {INTERFACE}\n"))
        .concat()
}

#[lab_test("link bond")]
fn a_mac_that_changes_with_the_port_is_announced() -> Result<()> {
    let spec = spec(Nic::Bond)?;
    let lab = Lab::new(&spec)?;
    for node in lab.nodes() {
        follow_the_ports_mac(node.ns())?;
    }
    // The client is told by announcements alone.
    let rig = Rig::start(lab, &spec, ArpProbes::Off, |_| ())?;
    let (holder, client) = (rig.holder()?, &rig.lab.client()?.ns);
    let name = holder.name().to_owned();
    let before = holder.ns().mac(INTERFACE)?;
    wait_for("the client has another MAC", || known_to(client).is_ok_and(|mac| mac == before))?;

    let start = clock::now();
    rig.lab.switch().ip(&format!("link set {} down", active_cable(holder)?))?;
    wait_for("the bond keeps its MAC", || holder.ns().mac(INTERFACE).is_ok_and(|mac| mac != before))?;
    let after = holder.ns().mac(INTERFACE)?;
    expect_the_same_holder(&rig, start, &name)?;
    ensure!(known_to(client)? == after, "the client was told {}, and it is {after}", known_to(client)?);

    // Who sends to another node is sent on to the new MAC, and that node is heard by the new one.
    let other = rig.lab.candidates().find(|node| node.name() != name).context("another node")?;
    let to_other = other.ns().mac(INTERFACE)?;
    client.ip(&format!("neigh replace {VIP} lladdr {to_other} dev {INTERFACE} nud permanent"))?;
    let served = || ask_udp(client, rig.service(), PATIENCE / 10).is_ok_and(|by| by == name);
    wait_for("what is sent to another node does not reach the holder", served)?;
    client.ip(&format!("neigh replace {VIP} lladdr {after} dev {INTERFACE} nud reachable"))?;
    let start = clock::now();
    std::thread::sleep(slow::patient(Duration::from_secs(3)).min(Duration::from_secs(10)));
    expect_the_same_holder(&rig, start, &name).context("later")?;
    are_content(&quiet(rig), &name)
}

#[lab_test("link bond")]
fn a_card_that_comes_and_goes_below_moves_no_vip() -> Result<()> {
    let rig = Rig::new(&spec(Nic::Bond)?)?;
    let (holder, switch) = (rig.holder()?, rig.lab.switch());
    let name = holder.name().to_owned();
    let start = clock::now();
    switch.ip_batch(&format!(
        "link add third type veth peer name lower2 netns {}\nlink set third master br0 up\n",
        holder.ns().name()
    ))?;
    holder.ns().ip(&format!("link set lower2 master {INTERFACE}"))?;
    expect_the_same_holder(&rig, start, &name).context("a third card is there")?;

    let start = clock::now();
    holder.ns().ip("link set lower0 nomaster")?;
    holder.ns().ip("link set lower1 nomaster")?;
    wait_for("the third does not carry", || active_port(holder.ns()).is_ok_and(|port| port == "lower2"))?;
    expect_the_same_holder(&rig, start, &name).context("the third one carries alone")?;

    let start = clock::now();
    holder.ns().ip_batch(&to_the_bond())?;
    wait_for("no other port is up", || {
        holder.ns().ip("link show lower0").is_ok_and(|l| l.contains("LOWER_UP"))
    })?;
    holder.ns().ip("link set lower2 nomaster")?;
    expect_the_same_holder(&rig, start, &name).context("the third one is gone")?;
    are_content(&quiet(rig), &name)
}

/// Why a node can't take the group, as it says.
fn why_not(node: &Node) -> Result<String> {
    let status = node.status()?;
    let group = status.group(GROUP).context("the group")?;
    Ok(if group.eligible == Some(true) { String::new() } else { group.why.clone().unwrap_or_default() })
}

/// Moves the address of a node, which its agent is bound to.
fn move_address(node: &Node, from: &str, to: &str) -> Result<()> {
    let address = node.address();
    node.ns().ip_batch(&format!("addr flush dev {from}\naddr add {address}/24 dev {to}\n"))
}

/// A guarded interface becomes a port of a bond while its node holds the VIP.
fn becomes_a_port(nic: Nic) -> Result<()> {
    let rig = Rig::new(&spec(nic)?)?;
    let name = rig.holder()?.name().to_owned();
    let node = rig.lab.node(&name)?;
    ensure!(mode(node)? == nic.mode(), "{}", mode(node)?);
    let start = clock::now();
    node.ns().ip_batch(&format!(
        "link add bond0 type bond mode active-backup miimon 10\nlink set {INTERFACE} down\n\
         link set {INTERFACE} master bond0\nlink set bond0 up\n"
    ))?;
    move_address(node, INTERFACE, "bond0")?;
    rig.expect_move(start, &name).context("it became a port")?;

    let told = format!("{INTERFACE} is a port of bond0");
    wait_for("it does not say why it can't serve", || why_not(node).is_ok_and(|why| why.contains(&told)))?;
    rig.lab.wait_quorate(PATIENCE)?;
    ensure!(why_not(node)?.contains(&told), "{:?}: {}", why_not(node)?, node.log_tail());
    ensure!(node.has_logged(&told), "{}", node.log_tail());
    let (is_well, said) = doctor(node)?;
    ensure!(!is_well && said.contains(&told), "{said}");
    ensure!(!node.run(&["switchover", GROUP, "--to", &name])?.status.success(), "it takes the group");
    let next = rig.holder()?.name().to_owned();
    ensure!(next != name, "it serves as a port");
    expect_the_same_holder(&rig, clock::now(), &next).context("while it is a port")?;

    node.ns()
        .ip_batch(&format!("link set {INTERFACE} nomaster\nlink del bond0\nlink set {INTERFACE} up\n"))?;
    node.ns().ip_batch(&format!("addr add {}/24 dev {INTERFACE}\n", node.address()))?;
    wait_for("it can't serve after all", || why_not(node).is_ok_and(|why| why.is_empty()))?;
    let start = clock::now();
    node.take(GROUP, slow::patient(PATIENCE))?;
    let (back, _) = rig.expect_move(start, &next).context("it is no port any more")?;
    ensure!(back.name() == name, "{} has it", back.name());
    are_content(&quiet(rig), &name)
}

#[lab_test("link bond")]
fn an_interface_that_becomes_a_port_serves_nobody() -> Result<()> {
    becomes_a_port(Nic::Veth)
}

#[lab_test("link bond")]
fn so_it_is_where_xdp_runs_in_its_driver() -> Result<()> {
    becomes_a_port(Nic::Card)
}

/// XDP in the driver of a bond that has no ports yet: as on a netvsc before its VF is there.
fn gets_its_ports_later(asked: bool) -> Result<()> {
    let lab = Lab::new(&spec(Nic::Bond)?)?;
    let [node, ..] = lab.nodes() else { anyhow::bail!("a lab of three") };
    node.ns().ip_batch("link set lower0 nomaster\nlink set lower1 nomaster\n")?;
    let config = std::fs::read_to_string(node.config_file())?;
    let one = format!("interface = \"{INTERFACE}\"\n");
    let native = config.replace(&one, &format!("{one}mode = \"native\"\n"));
    node.succeed(&["keygen", lab.key_file().to_str().context("the key file's path")?])?;
    node.write_config(&native)?;
    node.start_agent()?;
    wait_for("no agent", || mode(node).is_ok_and(|mode| mode == "native"))?;
    if !asked {
        // What an earlier process chose goes on.
        node.stop_agent()?;
        node.write_config(&config)?;
        node.start_agent()?;
        wait_for("no agent", || mode(node).is_ok_and(|mode| mode == "native"))?;
    }
    node.ns().ip_batch(&to_the_bond())?;
    for other in lab.nodes().iter().filter(|other| !other.has_agent()) {
        other.start_agent()?;
    }
    lab.wait_holder(GROUP, PATIENCE)?;
    if asked {
        let told = "native mode";
        wait_for("it does not say why", || why_not(node).is_ok_and(|why| why.contains(told)))?;
        let (is_well, said) = doctor(node)?;
        ensure!(!is_well && said.contains("on top of lower0 and lower1"), "{said}");
        ensure!(node.has_logged("on top of lower0"), "{}", node.log_tail());
        ensure!(
            !node.run(&["switchover", GROUP, "--to", node.name()])?.status.success(),
            "it takes the group"
        );
        return Ok(());
    }
    wait_for("it goes on where nobody is answered", || mode(node).is_ok_and(|mode| mode == "tc"))?;
    node.take(GROUP, slow::patient(PATIENCE))?;
    are_content(&lab, node.name())
}

#[lab_test("link bond")]
fn a_bond_whose_ports_come_later_goes_on_at_tc() -> Result<()> {
    gets_its_ports_later(false)
}

#[lab_test("link bond")]
fn a_bond_in_native_mode_whose_ports_come_later_is_told() -> Result<()> {
    gets_its_ports_later(true)
}

#[lab_test("link bond")]
fn a_bond_that_the_switch_knows_serves_and_moves() -> Result<()> {
    let rig = Rig::new(&spec(Nic::Lacp)?)?;
    let name = rig.holder()?.name().to_owned();
    let holder = rig.lab.node(&name)?;
    ensure!(mode(holder)? == "tc", "{}", mode(holder)?);
    // Either of its ports carries alone.
    for port in [format!("t-{name}"), format!("s-{name}")] {
        let start = clock::now();
        rig.lab.switch().ip(&format!("link set {port} down"))?;
        expect_the_same_holder(&rig, start, &name).with_context(|| format!("{port} is down"))?;
        rig.lab.switch().ip(&format!("link set {port} up"))?;
        let joined = || {
            let said = rig.lab.switch().ip(&format!("-d link show {port}")).unwrap_or_default();
            let words: Vec<_> = said.split_whitespace().collect();
            words.windows(2).any(|pair| pair[0] == "ad_partner_oper_port_state" && pair[1] == "63")
        };
        wait_for("the port does not join again", joined)?;
        expect_the_same_holder(&rig, start, &name).with_context(|| format!("{port} is back"))?;
    }
    let start = clock::now();
    holder.succeed(&["switchover", GROUP])?;
    let (next, _) = rig.expect_move(start, &name).context("the VIP is moved")?;
    let next = next.name().to_owned();
    let start = clock::now();
    rig.lab.node(&next)?.kill_agent()?;
    let (last, _) = rig.expect_move(start, &next).context("the agent is killed")?;
    let last = last.name().to_owned();
    rig.lab.node(&next)?.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    are_content(&quiet(rig), &last)
}
