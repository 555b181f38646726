//! Clients that have missed a move, and whatever they send to the wrong node goes on to the
//! holder: those here never learn, and are served all the same.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::layout::{Holder, Hops, mac_word};
use vip_ctl::dataplane::DataPlane;
use vip_tests::lab::echo::{ask_tcp, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Netns, Nic, Node, SERVICE_PORT, VIP, clock, find_vip_ctl,
    wait_until, wire,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);
const COUNTER: &str = "ip_in_steer_other_node";
/// How long a question may stay unanswered where no answer is expected.
const BRIEF: Duration = Duration::from_millis(300);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// The client takes `node` for the VIP's, and lets nobody tell it better.
fn insists(client: &Netns, node: &Node) -> Result<()> {
    let mac = node.ns().mac(INTERFACE)?;
    client.ip(&format!("neigh replace {VIP} lladdr {mac} dev {INTERFACE} nud permanent")).map(drop)
}

/// How many frames the data plane of this node has sent on.
fn steered(node: &Node) -> Result<u64> {
    let status = node.status()?;
    let vips = status.groups.iter().flat_map(|group| &group.vips);
    let counts = vips.filter_map(|vip| vip.counters.get(COUNTER)?.as_u64());
    Ok(counts.sum())
}

/// Is the client served by `holder`, once that is known?
fn is_served(client: &Netns, holder: &Node) -> Result<()> {
    for ask in [ask_udp, ask_tcp] {
        let mut said = String::new();
        let mut is_answered = || ask(client, SERVICE, BRIEF).map(|answer| said = answer).is_ok();
        ensure!(wait_until(clock::now().plus(PATIENCE), &mut is_answered), "nobody answers");
        ensure!(said == holder.name(), "{said} answers");
    }
    Ok(())
}

/// Through each node in turn, to whichever node holds.
fn served_through_any_node(nic: Nic) -> Result<()> {
    let spec = spec()?.on(nic);
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let client = &rig.lab.client()?.ns;
    if nic == Nic::Card {
        // What a host sends to a card has its checksum.
        wire::disable_tx_checksum_offload(client, INTERFACE)?;
    }
    for holder in rig.lab.candidates() {
        let (start, before) = (clock::now(), rig.lab.wait_holder(GROUP, PATIENCE)?.name());
        if holder.name() != before {
            holder.take(GROUP, PATIENCE)?;
        }
        for through in rig.lab.candidates() {
            insists(client, through)?;
            let count = steered(through)?;
            is_served(client, holder).with_context(|| format!("through {}", through.name()))?;
            ensure!((steered(through)? > count) == (through.name() != holder.name()), "{}", through.name());
        }
        let account = rig.account(start, clock::now(), before)?;
        ensure!(account.verdict.answered_by_two == 0, "answered by two: {account:?}");
    }
    Ok(())
}

#[lab_test]
fn a_client_that_never_learns_is_served_through_any_node() -> Result<()> {
    served_through_any_node(Nic::Veth)
}

#[lab_test]
fn so_it_is_where_xdp_sends_its_packets_on() -> Result<()> {
    served_through_any_node(Nic::Card)
}

#[lab_test("cards")]
fn so_it_is_on_a_virtual_machines_card() -> Result<()> {
    served_through_any_node(Nic::Virtio)
}

#[lab_test]
fn a_connection_made_through_another_node_goes_on() -> Result<()> {
    let spec = spec()?;
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    let other = rig.lab.candidates().find(|node| node.name() != holder).context("another node")?;
    let before = rig.tcp.history();
    let start = clock::now();
    insists(&rig.lab.client()?.ns, other)?;
    rig.expect_calm(start, &holder)?;
    let after = rig.tcp.history();
    ensure!(after.exchanges > before.exchanges && after.resets() == before.resets(), "{after:?}");
    Ok(())
}

#[lab_test]
fn a_planned_move_that_a_client_never_hears_of_is_a_short_gap() -> Result<()> {
    let spec = spec()?;
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let before = rig.holder()?.name().to_owned();
    insists(&rig.lab.client()?.ns, rig.lab.node(&before)?)?;
    let start = clock::now();
    rig.lab.node(&before)?.succeed(&["switchover", GROUP])?;
    let (after, account) = rig.expect_move(start, &before)?;
    println!(
        "to {} without a word: gap {} ms, {} probes lost",
        after.name(),
        account.gap_ms(),
        account.probes_lost
    );
    Ok(())
}

#[lab_test]
fn what_a_dead_agent_knew_is_soon_forgotten() -> Result<()> {
    let spec = spec()?;
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let holder = rig.holder()?;
    let other = rig.lab.candidates().find(|node| node.name() != holder.name()).context("another node")?;
    let client = &rig.lab.client()?.ns;
    insists(client, other)?;
    is_served(client, holder)?;
    other.kill_agent()?;
    let is_over = || ask_udp(client, SERVICE, BRIEF).is_err();
    ensure!(wait_until(clock::now().plus(PATIENCE), is_over), "{} sends on and on", other.name());
    other.start_agent()?;
    is_served(client, holder)
}

#[lab_test]
fn nothing_is_sent_on_where_nobody_wants_that() -> Result<()> {
    let spec = spec()?.without_steering();
    let rig = Rig::start(Lab::new(&spec)?, &spec, ArpProbes::Off, |_| ())?;
    let holder = rig.holder()?.name().to_owned();
    let other = rig.lab.candidates().find(|node| node.name() != holder).context("another node")?;
    let client = &rig.lab.client()?.ns;
    insists(client, other)?;
    let said = ask_udp(client, SERVICE, LEASE * 3);
    ensure!(said.is_err() && steered(other)? == 0, "{said:?}");
    Ok(())
}

/// A MAC as the maps have it.
fn mac_of(node: &Node) -> Result<[u8; 6]> {
    let text = node.ns().mac(INTERFACE)?;
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes?.try_into().map_err(|_| anyhow::anyhow!("no MAC: {text}"))
}

/// Each node takes the next one for the holder, and knows of the nodes that `knows` says.
fn in_a_circle(lab: &Lab, knows: impl Fn(usize, usize) -> bool) -> Result<()> {
    let nodes: Vec<_> = lab.candidates().collect();
    for (place, node) in nodes.iter().enumerate() {
        node.load()?;
        let mut plane = DataPlane::open(node.bpf_dir())?;
        let index = plane.find_group(&VIP.to_string())?.index;
        let mut hops = Hops { until_ns: clock::now().plus(PATIENCE).0, ..Hops::default() };
        for (number, peer) in nodes.iter().enumerate().filter(|(number, _)| knows(place, *number)) {
            hops.macs[number] = mac_word(mac_of(peer)?);
        }
        plane.note_holder(index, Holder::node(u8::try_from((place + 1) % nodes.len())?));
        let ifindex = *plane.ifaces()?.keys().next().context("no interface")?;
        plane.set_hops(&[(ifindex, hops)].into())?;
    }
    Ok(())
}

#[lab_test]
fn nodes_that_take_each_other_for_the_holder_keep_no_frame_going() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let client = &lab.client()?.ns;
    let sum = || lab.candidates().map(steered).sum::<Result<u64>>();
    // Each knows the others: no frame goes on twice.
    in_a_circle(&lab, |own, other| own != other)?;
    insists(client, lab.node("db-a")?)?;
    ensure!(ask_udp(client, SERVICE, BRIEF).is_err());
    let by_first = steered(lab.node("db-a")?)?;
    ensure!(by_first > 0 && sum()? == by_first, "{} of {}", by_first, sum()?);
    // Each knows the next alone, and nobody who has sent it: then it dies of its age.
    in_a_circle(&lab, |own, other| other == (own + 1) % 3)?;
    let before = sum()?;
    let asked = steered(lab.node("db-a")?)?;
    ensure!(ask_udp(client, SERVICE, BRIEF).is_err());
    std::thread::sleep(BRIEF);
    let after = sum()?;
    std::thread::sleep(LEASE);
    ensure!(after > before && sum()? == after, "frames go round: {before}, {after}, {}", sum()?);
    let rounds = steered(lab.node("db-a")?)? - asked;
    println!("{} times sent on, {rounds} of them by the first", after - before);
    Ok(())
}
