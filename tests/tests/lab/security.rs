//! What attackers without the key can do: flood the agents' port, forge ARP for the nodes'
//! addresses, and fill a firewall's table of connections. `docs/security.md` has the claims.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::flood::{Load, RESPONSE, Target};
use vip_tests::lab::capture::FrameKind;
use vip_tests::lab::flood::{AgentFrame, Flood, RawFrames, Recorder, mac_of};
use vip_tests::lab::load::nft;
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{AGENT_PORT, GROUP, LEASE, Lab, LabSpec, Node, clock, find_vip_ctl, wait_until};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a load or an attack lasts: longer than the lease.
const LASTS: Duration = Duration::from_secs(3);
/// Datagrams a second: enough for a flood, and few enough for a busy machine.
const RATE: u32 = 20_000;
/// How often a neighbour claims the VIP.
const CLAIMS_PER_SECOND: u32 = 100;
/// The most responses that a peer can get: some at once, and then one every 10 ms.
const RESPONSES_MAX: u64 = 16 + 100 * (LASTS.as_secs() + 2);
/// The DSCP CS6, in the place that it has in an IPv4 header.
const CS6: u8 = 0xc0;

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

#[lab_test]
fn no_flood_costs_a_lease_or_is_answered_beyond_the_limit() -> Result<()> {
    let target = Target::start(&spec()?)?;
    let victim = target.holder()?;
    let epoch =
        |node: &Node| Ok::<_, anyhow::Error>(node.status()?.group(GROUP).and_then(|group| group.epoch));
    let before = epoch(victim)?;
    let peers: Vec<Ipv4Addr> = target.lab.nodes().iter().map(Node::address).collect();
    for load in Load::ALL.into_iter().filter(|load| *load != Load::Nothing) {
        let frames = target.frames(load, victim)?;
        let named: Vec<Ipv4Addr> = frames.iter().map(AgentFrame::source).collect();
        let recorder = Recorder::start(&target.lab, &[victim])?;
        Flood { frames, per_second: RATE, lasts: LASTS }.send(target.lab.client()?)?;
        let said = recorder.frames();
        ensure!(!said.is_empty(), "{}: the holder says nothing", load.name());
        for frame in &said {
            ensure!(peers.contains(&frame.target()), "{}: an answer to a stranger: {frame:?}", load.name());
            ensure!(frame.traffic_class() == CS6, "heartbeats are marked: {frame:?}");
        }
        for peer in &peers {
            let is_answer = |frame: &&AgentFrame| frame.payload()[1] == RESPONSE && frame.target() == *peer;
            let answers = said.iter().filter(is_answer).count() as u64;
            ensure!(answers <= RESPONSES_MAX, "{}: {answers} answers to {peer}", load.name());
            ensure!(
                answers == 0 || named.contains(peer),
                "{}: {answers} answers to {peer}, which is not named",
                load.name()
            );
        }
        ensure!(target.holder()?.name() == victim.name(), "{}: it moved", load.name());
        ensure!(epoch(victim)? == before, "{}: the lease was lost", load.name());
    }
    let status = victim.status()?;
    for reason in ["foreign_address", "replayed"] {
        ensure!(status.rejected.contains_key(reason), "{reason} is counted: {:?}", status.rejected);
    }
    let dropped = status.agent.get("heartbeats_dropped").copied();
    ensure!(dropped > Some(0), "what the kernel drops is counted: {:?}", status.agent);
    // The XDP program drops nearly all of it before the host's network stack.
    for reason in ["heartbeat_drop_stranger", "heartbeat_drop_flood"] {
        let frames = status.counters.get(reason).copied().unwrap_or(0);
        ensure!(frames > u64::from(RATE), "{reason}: {frames} of {:?}", status.counters);
    }
    // After the flood, the others hear an agent that restarts.
    let other = target.lab.nodes().iter().find(|node| node.name() != victim.name()).context("three nodes")?;
    other.kill_agent()?;
    other.start_agent()?;
    target.lab.wait_quorate(PATIENCE)
}

/// An ARP reply that says that `address` is at `mac`.
fn arp_reply(mac: [u8; 6], address: Ipv4Addr, to: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut bytes = [&to.0[..], &mac, &[0x08, 0x06]].concat();
    // Ethernet, IPv4, their lengths, a reply.
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    bytes.extend([&mac[..], &address.octets(), &to.0, &to.1.octets()].concat());
    bytes
}

/// The forged replies that give each node of a lab the client's hardware address for the others.
fn poison(rig: &Rig) -> Result<RawFrames> {
    let client = rig.lab.client()?;
    let attacker = mac_of(&client.ns)?;
    let mut frames = Vec::new();
    for to in rig.lab.nodes() {
        for other in rig.lab.nodes().iter().filter(|other| other.name() != to.name()) {
            frames.push(arp_reply(attacker, other.address(), (mac_of(to.ns())?, to.address())));
        }
    }
    Ok(RawFrames(frames))
}

/// Writes each node's hardware address into all configurations.
fn configure_macs(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let mut text = std::fs::read_to_string(node.config_file())?;
        for peer in lab.nodes() {
            let line = format!("address = \"{}:{AGENT_PORT}\"\n", peer.address());
            let mac = mac_of(peer.ns())?.map(|byte| format!("{byte:02x}")).join(":");
            text = text.replace(&line, &format!("{line}mac = \"{mac}\"\n"));
        }
        node.write_config(&text)?;
    }
    Ok(())
}

/// The findings of `vip-ctl doctor` about neighbours: the level and the node.
fn neighbours(node: &Node) -> Result<Vec<(String, String)>> {
    let config = node.config_file();
    let output = node.run(&["doctor", "-o", "json", "--config", config.to_str().context("a path")?])?;
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let found = said["findings"].as_array().context("findings")?.iter();
    let about = found.filter(|finding| finding["subject"] == "neighbour");
    Ok(about.map(|finding| (word(finding, "level"), word(finding, "of"))).collect())
}

fn permanent(node: &Node) -> Result<usize> {
    Ok(node.ns().ip("neigh show nud permanent")?.lines().filter(|line| line.contains("10.77.0.")).count())
}

#[lab_test]
fn forged_arp_moves_nothing_where_the_peers_are_pinned() -> Result<()> {
    let spec = spec()?;
    let lab = Lab::new(&spec)?;
    configure_macs(&lab)?;
    // An entry of the admin's own, which the agent must put back.
    let (first, second) = (&lab.nodes()[0], lab.nodes()[1].address());
    first.ns().ip(&format!("neigh replace {second} lladdr 02:00:00:00:00:77 nud permanent dev eth0"))?;
    let rig = Rig::start(lab, &spec, ArpProbes::On, |_| ())?;
    let holder = rig.holder()?;
    for node in rig.lab.nodes() {
        let said = neighbours(node)?;
        ensure!(said.len() == 2 && said.iter().all(|(level, _)| level == "ok"), "{said:?}");
    }
    let start = clock::now();
    let frames = poison(&rig)?;
    frames.send(rig.lab.client()?, 600, LASTS)?;
    rig.expect_calm(start, holder.name())?;

    // The agent restores the entries that somebody removes.
    for node in rig.lab.nodes() {
        node.ns().ip("neigh flush nud permanent")?;
        let is_back = || permanent(node).is_ok_and(|entries| entries == 2);
        ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}:\n{}", node.name(), node.log_tail());
    }
    // An agent that ends puts back what was there; one that is killed leaves its entries.
    let node = rig.lab.node("db-a")?;
    node.stop_agent()?;
    let left = node.ns().ip("neigh show nud permanent")?;
    ensure!(left.contains("02:00:00:00:00:77") && permanent(node)? == 1, "{left}");
    let node = rig.lab.node("db-b")?;
    node.kill_agent()?;
    ensure!(permanent(node)? == 2);
    node.succeed(&["unload"])?;
    ensure!(permanent(node)? == 0);
    Ok(())
}

#[lab_test]
fn without_pins_each_peer_is_warned_of() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let said = neighbours(rig.holder()?)?;
    ensure!(said.len() == 2 && said.iter().all(|(level, _)| level == "warning"), "{said:?}");
    Ok(())
}

#[lab_test("nft")]
fn doctor_tells_of_heartbeats_that_a_firewall_tracks() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let node = rig.holder()?;
    let finding = || {
        let config = node.config_file();
        let output = node.run(&["doctor", "-o", "json", "--config", config.to_str().context("a path")?])?;
        let said: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        let mut found = said["findings"].as_array().context("findings")?.iter();
        found.rfind(|finding| finding["subject"] == "conntrack").cloned().context("a finding")
    };
    ensure!(finding()?["level"] == "ok", "{}", finding()?);
    nft(
        node.ns(),
        "table inet fw { chain in { type filter hook input priority 0; ct state established accept; }; }",
    )?;
    let is_tracked = || finding().is_ok_and(|finding| finding["level"] == "warning");
    ensure!(wait_until(clock::now().plus(PATIENCE), is_tracked), "{}", finding()?);
    // Apply the rules that doctor suggests: the holder keeps its lease, although its heartbeats
    // were tracked.
    let says = finding()?["says"].as_str().context("a sentence")?.to_owned();
    let start = clock::now();
    nft(node.ns(), says.split('\'').nth(1).context("rules")?)?;
    rig.expect_calm(start, node.name())
}

/// Fills the table with connections that the kernel does not evict.
fn fill_connection_table(node: &Node) -> Result<()> {
    let number = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/{name}");
        let text = node.ns().enter(|| std::fs::read_to_string(&path))??;
        text.trim().parse::<u32>().context("a number")
    };
    let max = number("nf_conntrack_max")?;
    let mut load = node.ns().command("conntrack")?;
    let mut child = load.args(["-R", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut entries = std::io::BufWriter::new(child.stdin.take().context("a pipe")?);
    for n in 0..max {
        let [a, b, c, d] = (u32::from(Ipv4Addr::new(10, 128, 0, 0)) + n).to_be_bytes();
        let from = Ipv4Addr::new(a, b, c, d);
        let line = format!(
            "-A -t 600 -u SEEN_REPLY,ASSURED -s {from} -d 10.2.2.2 -r 10.2.2.2 -q {from} -p udp \
             --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1"
        );
        if writeln!(entries, "{line}").is_err() {
            // `conntrack` ends at the first entry that does not fit.
            break;
        }
    }
    drop(entries);
    child.wait()?;
    let count = number("nf_conntrack_count")?;
    ensure!(count >= max - max / 100, "{count} of {max} entries");
    Ok(())
}

#[lab_test("nft", "conntrack")]
fn a_full_table_of_connections_costs_no_lease() -> Result<()> {
    let rig = Rig::new(&spec()?)?;
    let holder = rig.holder()?;
    let rules =
        "table inet fw { chain in { type filter hook input priority 0; ct state established accept; }; }";
    nft(holder.ns(), rules)?;
    // Wait until the kernel marks the entries of the heartbeats as assured, and so evicts none of
    // them.
    std::thread::sleep(LASTS);
    fill_connection_table(holder)?;
    let start = clock::now();
    std::thread::sleep(LASTS);
    rig.expect_calm(start, holder.name())
}

#[lab_test]
fn each_claim_of_the_vip_is_answered() -> Result<()> {
    let mut spec = spec()?;
    spec.clients.push("mallory".to_owned());
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    let mallory = &rig.lab.clients()[1];
    let mac = mac_of(&mallory.ns)?;
    // The form that Linux believes whatever entry it has: a broadcast about its own sender.
    let claim = RawFrames(vec![arp_reply(mac, rig.vip(), ([0xff; 6], rig.vip()))]);
    let announced = || rig.capture.frames().iter().filter(|frame| frame.kind == FrameKind::Arp).count();
    let (start, before) = (clock::now(), announced());
    claim.send(mallory, CLAIMS_PER_SECOND, LASTS)?;
    let account = rig.account(start, clock::now(), &holder)?;
    let answers = announced() - before;
    println!("{answers} announcements; of {} probes {} lost", account.probes_sent, account.probes_lost);
    ensure!(account.verdict.new_holder.is_none() && account.verdict.answered_by_two == 0, "{account:?}");
    // Each claim has two frames as its answer; a machine that stands still answers several claims
    // at once.
    let claims = u64::from(CLAIMS_PER_SECOND) * LASTS.as_secs();
    ensure!(answers as u64 >= claims / 4, "{answers} announcements for {claims} claims");
    Ok(())
}
