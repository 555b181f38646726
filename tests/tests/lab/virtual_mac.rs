//! A MAC that moves with the VIP: a client's neighbour entry stays right whoever holds it, and
//! switches alone learn anew. The client's entry is locked here, so that nothing corrects it.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use vip_tests::lab::echo::{EchoServer, ask_udp};
use vip_tests::lab::rig::{ArpProbes, Rig};
use vip_tests::lab::snapshot::{Carrier, Snapshot};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Nic, Node, SERVICE_PORT, VIP, clock, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

use super::gateway::{Routers, SERVER, counts};

const PATIENCE: Duration = Duration::from_secs(30);
/// In how much time a switch has learned anew.
const BOUND: Duration = Duration::from_secs(1);
/// One of VRRP's.
const MAC: &str = "00:00:5e:00:01:33";

/// A lab whose group has a virtual MAC, and lines of `[node]` for its nodes.
fn lab(nic: Nic, node: &str) -> Result<(Lab, LabSpec)> {
    let spec = LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)).on(nic);
    let lab = Lab::new(&spec)?;
    for member in lab.nodes() {
        let text = std::fs::read_to_string(member.config_file())?;
        let (group, begin) = (format!("name = \"{GROUP}\"\n"), nic.config());
        let text = text.replace(&group, &format!("{group}virtual_mac = \"{MAC}\"\n"));
        member.write_config(&text.replace(begin, "").replace("[node]\n", &format!("[node]\n{node}")))?;
    }
    Ok((lab, spec))
}

/// The client knows where the VIP is, and hears of nothing else.
fn lock(lab: &Lab) -> Result<()> {
    lab.client()?.ns.ip(&format!("neigh replace {VIP} lladdr {MAC} dev {INTERFACE} nud permanent")).map(drop)
}

/// A cluster in service, and a client with a locked entry.
fn rig(nic: Nic, node: &str) -> Result<Rig> {
    let (lab, spec) = lab(nic, node)?;
    lock(&lab)?;
    Rig::start(lab, &spec, ArpProbes::Off, |_| ())
}

/// Does a node's interface let the virtual MAC in?
fn lets_in(node: &Node) -> Result<bool> {
    let shown = node.ns().command("bridge")?.args(["fdb", "show", "dev", INTERFACE]).output()?;
    ensure!(shown.status.success(), "bridge fdb show: {}", String::from_utf8_lossy(&shown.stderr));
    Ok(String::from_utf8(shown.stdout)?.contains(MAC))
}

fn served_across_moves(nic: Nic, node: &str) -> Result<()> {
    let rig = rig(nic, node)?;
    let before: Vec<Snapshot> = rig.lab.nodes().iter().map(Node::snapshot).collect::<Result<_>>()?;
    let unchanged = |carrier| -> Result<()> {
        for (node, old) in rig.lab.nodes().iter().zip(&before) {
            assert_eq!(old.interface_changes(&node.snapshot()?, carrier), [""; 0], "{}", node.name());
        }
        Ok(())
    };
    for member in rig.lab.nodes() {
        ensure!(lets_in(member)?, "{} does not let it in", member.name());
    }
    // A planned move.
    let old = rig.holder()?;
    let start = clock::now();
    old.succeed(&["switchover", GROUP])?;
    let (new, account) = rig.expect_move(start, old.name())?;
    println!("planned: {account:?}");
    unchanged(Carrier::Compared)?;
    // A holder whose agent has died: its host still has the MAC.
    let start = clock::now();
    new.kill_agent()?;
    let (third, account) = rig.expect_move(start, new.name())?;
    println!("killed: {account:?}");
    new.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    // A holder that is cut off, and comes back.
    let start = clock::now();
    third.isolate()?;
    let (last, account) = rig.expect_move(start, third.name())?;
    println!("cut off: {account:?}");
    let start = clock::now();
    third.rejoin()?;
    rig.expect_calm(start, last.name())?;
    unchanged(Carrier::Compared)?;
    // By its cable.
    let start = clock::now();
    last.cut()?;
    let (_, account) = rig.expect_move(start, last.name())?;
    println!("cut: {account:?}");
    unchanged(Carrier::Ignored)
}

#[lab_test("bridge")]
fn a_client_with_a_locked_entry_is_served_across_every_move() -> Result<()> {
    served_across_moves(Nic::Veth, "")
}

#[lab_test("bridge")]
fn so_it_is_where_xdp_takes_the_frame() -> Result<()> {
    served_across_moves(Nic::Card, "mode = \"generic\"\n")
}

#[lab_test("bridge", "cards")]
fn so_it_is_on_a_virtual_machines_card() -> Result<()> {
    served_across_moves(Nic::Virtio, "")
}

/// Tells the switch that the virtual MAC is behind this port, until it learns anew.
fn teach(lab: &Lab, port: &str) -> Result<()> {
    let words = format!("fdb replace {MAC} dev {port} master dynamic");
    let done = lab.switch().command("bridge")?.args(words.split(' ')).output()?;
    ensure!(done.status.success(), "bridge {words}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[lab_test("bridge")]
fn a_switch_that_sends_to_a_node_without_the_lease_learns_at_once() -> Result<()> {
    // Nothing is announced by itself.
    let rig = rig(Nic::Veth, "garp_master_refresh = \"0s\"\n")?;
    let holder = rig.holder()?;
    std::thread::sleep(Duration::from_secs(4));
    let other = rig.lab.candidates().find(|node| node.name() != holder.name()).context("another node")?;
    let start = clock::now();
    for _ in 0..3 {
        teach(&rig.lab, other.name())?;
        std::thread::sleep(Duration::from_millis(500));
    }
    rig.wait_answerer(None, || ())?;
    let account = rig.account(start, clock::now(), holder.name())?;
    println!("taught: {account:?}");
    ensure!(account.verdict.answered_by_two == 0 && account.verdict.new_holder.is_none(), "{account:?}");
    ensure!(account.probes_lost > 0, "the switch has sent nothing to the other: {account:?}");
    ensure!(account.gap_ms() <= clock::millis(BOUND), "{account:?}");
    counts(other, "mac_in_drop_no_lease")
}

#[lab_test("bridge")]
fn a_gateways_client_with_a_locked_entry_is_taken_through_by_whoever_holds() -> Result<()> {
    let routers = Routers::new(Nic::Veth, true)?;
    for node in routers.lab.nodes() {
        let text = std::fs::read_to_string(node.config_file())?;
        let keys = format!("gateway = true\nvirtual_mac = \"{MAC}\"\n");
        node.write_config(&text.replace("gateway = true\n", &keys))?;
    }
    lock(&routers.lab)?;
    let (first, second) = routers.start()?;
    routers.moves_to(second)?;
    routers.passes("the second has the lease")?;
    // Its agent has died: the first takes the client through.
    second.kill_agent()?;
    routers.passes("the second is dead")?;
    ensure!(routers.lab.wait_holder(GROUP, PATIENCE)?.name() == first.name(), "{}", first.log_tail());
    // What reaches a router that has no lease ends there.
    teach(&routers.lab, second.name())?;
    let client = routers.client()?;
    let is_answered = || ask_udp(client, SERVER, Duration::from_millis(200)).is_ok();
    ensure!(wait_until(clock::now().plus(PATIENCE), is_answered), "the switch learns nothing");
    let shown = routers.client()?.ip(&format!("neigh show {VIP}"))?;
    ensure!(shown.contains(MAC) && shown.contains("PERMANENT"), "{shown}");
    Ok(())
}

#[lab_test("bridge")]
fn an_agent_that_follows_another_takes_everything_over() -> Result<()> {
    let rig = rig(Nic::Veth, "")?;
    let holder = rig.holder()?;
    let start = clock::now();
    kill(holder.agent_pid()?, Signal::SIGUSR2)?;
    let log = || std::fs::read_to_string(holder.log_file()).unwrap_or_default();
    let goes_on = || log().matches("the agent runs").count() == 2;
    ensure!(wait_until(clock::now().plus(PATIENCE), goes_on), "{}", holder.log_tail());
    rig.expect_calm(start, holder.name())?;
    ensure!(lets_in(holder)?);
    // Somebody takes it off.
    let words = format!("fdb del {MAC} dev {INTERFACE} self");
    ensure!(holder.ns().command("bridge")?.args(words.split(' ')).status()?.success(), "bridge {words}");
    let is_back = || lets_in(holder).unwrap_or(false);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{}", holder.log_tail());
    ensure!(log().contains("somebody took off what lets in a virtual MAC"), "{}", holder.log_tail());
    Ok(())
}

#[lab_test("bridge")]
fn reload_begins_and_ends_it_and_unload_leaves_nothing() -> Result<()> {
    let (lab, _) = lab(Nic::Veth, "")?;
    let before: Vec<_> = lab.nodes().iter().map(Node::snapshot).collect::<Result<_>>()?;
    let line = format!("virtual_mac = \"{MAC}\"\n");
    let reload = |from: &str, to: &str| -> Result<()> {
        for node in lab.nodes() {
            let text = std::fs::read_to_string(node.config_file())?;
            node.write_config(&text.replace(from, to))?;
            if node.has_agent() {
                node.succeed(&["reload"])?;
            }
        }
        Ok(())
    };
    reload(&line, "\n# none\n")?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let client = &lab.client()?.ns;
    let service = SocketAddrV4::new(VIP, SERVICE_PORT);
    let echoes: Result<Vec<_>> =
        lab.candidates().map(|node| EchoServer::start(node.ns(), node.name(), service)).collect();
    let _echoes = echoes?;
    let believes = |is_it: &dyn Fn(&str) -> bool| {
        let asks = || ask_udp(client, service, Duration::from_millis(200)).is_ok();
        let shown = || client.ip(&format!("neigh show {VIP}")).unwrap_or_default();
        let does = || asks() && is_it(&shown());
        ensure!(wait_until(clock::now().plus(PATIENCE), does), "{}", shown());
        Ok(())
    };
    let own = holder.ns().mac(INTERFACE)?.to_string();
    believes(&|shown| shown.contains(&own))?;
    ensure!(!lets_in(holder)?);
    reload("\n# none\n", "virtual_mac = \"auto\"\n")?;
    believes(&|shown| shown.contains("lladdr") && !shown.contains(&own) && !shown.contains(MAC))?;
    reload("virtual_mac = \"auto\"\n", &line)?;
    believes(&|shown| shown.contains(MAC))?;
    for node in lab.nodes() {
        ensure!(lets_in(node)?, "{}", node.log_tail());
    }
    reload(&line, "\n# none\n")?;
    believes(&|shown| shown.contains(&own))?;
    for node in lab.nodes() {
        ensure!(!lets_in(node)?, "{}", node.log_tail());
    }
    reload("\n# none\n", &line)?;
    for (node, before) in lab.nodes().iter().zip(before) {
        node.stop_agent()?;
        ensure!(lets_in(node)?, "an agent that stops takes nothing off");
        node.succeed(&["unload"])?;
        ensure!(!lets_in(node)?, "{}", node.name());
        assert_eq!(before.all_changes(&node.snapshot()?), [""; 0], "{}", node.name());
    }
    Ok(())
}

#[lab_test("bridge")]
fn interfaces_that_could_not_receive_it_are_refused() -> Result<()> {
    for (nic, why) in [(Nic::Bridge, "a bridge"), (Nic::Macvlan, "a macvlan"), (Nic::Card, "mode = \"tc\"")] {
        let (lab, _) = lab(nic, nic.config())?;
        let node = lab.nodes().first().context("a node")?;
        node.succeed(&["keygen", &lab.key_file().to_string_lossy()])?;
        node.start_agent()?;
        let has_ended = || node.check_agent().is_err();
        ensure!(wait_until(clock::now().plus(PATIENCE), has_ended), "{nic:?}: {}", node.log_tail());
        let log = node.log_tail();
        ensure!(log.contains("can't have its virtual_mac on") && log.contains(why), "{nic:?}: {log}");
    }
    Ok(())
}
