//! Groups and VIPs that come, go and move while the agents run, with the real
//! agent in the real kernel.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use vip_tests::lab::{
    GROUP, GroupSpec, LEASE, Lab, LabSpec, Node, SERVICE_PORT, VIP, clock,
    echo::{EchoServer, ask_udp},
    find_vip_ctl,
    rig::{Rig, WATCH},
    wait_until,
};
use vip_tests_macros::lab_test;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for one answer.
const ASK: Duration = Duration::from_millis(300);

fn vip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn spec(groups: &[(&str, &[Ipv4Addr])]) -> Result<LabSpec> {
    let group =
        |&(name, vips): &(&str, &[Ipv4Addr])| GroupSpec { name: name.to_owned(), vips: vips.to_vec() };
    let groups = groups.iter().map(group).collect();
    Ok(LabSpec { groups, ..LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)) })
}

/// The node's configuration, with other groups.
fn with_groups(node: &Node, groups: &[(&str, &[Ipv4Addr])]) -> Result<String> {
    let text = std::fs::read_to_string(node.config_file())?;
    let (before, _) = text.split_once("[[group]]").context("a configuration has a group")?;
    let mut text = before.to_owned();
    for (name, vips) in groups {
        let vips: Vec<_> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        text += &format!("[[group]]\nname = \"{name}\"\nvips = [{}]\n", vips.join(", "));
    }
    Ok(text)
}

fn reload(node: &Node, groups: &[(&str, &[Ipv4Addr])]) -> Result<String> {
    node.write_config(&with_groups(node, groups)?)?;
    node.succeed(&["reload"])
}

/// A service at `vip` on each node, whether or not the address is there.
fn serve(lab: &Lab, vip: Ipv4Addr) -> Result<Vec<EchoServer>> {
    let at = SocketAddrV4::new(vip, SERVICE_PORT);
    lab.candidates().map(|node| EchoServer::start(node.ns(), node.name(), at)).collect()
}

fn asked(lab: &Lab, vip: Ipv4Addr) -> Result<Option<String>> {
    Ok(ask_udp(&lab.client()?.ns, SocketAddrV4::new(vip, SERVICE_PORT), ASK).ok())
}

/// Waits until the client gets an answer from `vip`; returns who answered.
fn answered(lab: &Lab, vip: Ipv4Addr) -> Result<String> {
    let mut by = None;
    wait_until(clock::now().plus(PATIENCE), || {
        by = asked(lab, vip).ok().flatten();
        by.is_some()
    });
    by.with_context(|| format!("nobody answers for {vip}"))
}

/// The ends of all agents' logs.
fn logs(lab: &Lab) -> String {
    lab.nodes().iter().map(|node| format!("{}:\n{}\n", node.name(), node.log_tail())).collect()
}

#[lab_test]
fn groups_and_vips_come_and_go_and_the_others_notice_nothing() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP])])?)?;
    let _services = [serve(&rig.lab, vip(101))?, serve(&rig.lab, vip(102))?];
    let holder = rig.holder()?.name().to_owned();
    let start = clock::now();
    // Add a VIP, and a group whose name sorts before the first one.
    let more: &[(&str, &[Ipv4Addr])] = &[("app", &[vip(102)]), (GROUP, &[VIP, vip(101)])];
    let (first, others) = rig.lab.nodes().split_first().context("three nodes")?;
    let said = reload(first, more)?;
    ensure!(said.contains("added: app") && said.contains(&format!("changed: {GROUP}")), "{said}");
    std::thread::sleep(WATCH);
    ensure!(asked(&rig.lab, vip(101))?.is_none(), "a VIP that no majority has is answered");
    let told = first.status()?;
    ensure!(told.warnings.iter().any(|w| w.contains("not answered yet")), "{:?}", told.warnings);
    for node in others {
        reload(node, more)?;
    }
    let by = answered(&rig.lab, vip(101))?;
    ensure!(by == holder, "{GROUP} was on {holder} and is on {by}:\n{}", logs(&rig.lab));
    answered(&rig.lab, vip(102))?;
    // An agent that starts with the new configuration changes nothing.
    let node = rig.lab.nodes().iter().find(|node| node.name() != holder).context("three nodes")?;
    node.kill_agent()?;
    node.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    let by = answered(&rig.lab, vip(101))?;
    ensure!(by == holder, "{GROUP} was on {holder} and is on {by}:\n{}", logs(&rig.lab));
    node.take("app", PATIENCE)?;
    ensure!(answered(&rig.lab, vip(102))? == node.name());
    // And back again.
    for node in rig.lab.nodes() {
        let said = reload(node, &[(GROUP, &[VIP])])?;
        ensure!(said.contains("removed: app"), "{said}");
    }
    for gone in [vip(101), vip(102)] {
        let by = asked(&rig.lab, gone)?;
        ensure!(by.is_none(), "{gone} is gone, and answered by {by:?}:\n{}", logs(&rig.lab));
    }
    let said = reload(node, &[(GROUP, &[VIP])])?;
    ensure!(said.contains("no group has changed"), "{said}");
    rig.expect_calm(start, &holder)
}

#[lab_test]
fn what_is_wrong_or_takes_a_restart_changes_nothing() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP])])?)?;
    let node = rig.holder()?;
    let start = clock::now();
    let good = std::fs::read_to_string(node.config_file())?;
    for (text, told) in [
        (good.replace("vips =", "vip ="), "did you mean \"vips\"?"),
        (
            good.replace("1s", "2s"),
            "[cluster] lease changed, which takes a restart of the agent on every node",
        ),
        (
            good.replace("[node]\n", "[node]\nstartup_delay = \"1s\"\n"),
            "startup_delay changed, which takes a restart of the agent (no VIP moves by that)",
        ),
        (good.replace(&VIP.to_string(), &node.address().to_string()), "which can't move"),
    ] {
        node.write_config(&text)?;
        let out = node.run(&["reload"])?;
        let error = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.code() == Some(78) && error.contains(told), "{out:?}");
        kill(node.agent_pid()?, Signal::SIGHUP)?;
    }
    node.write_config(&good)?;
    let name = node.name().to_owned();
    rig.expect_calm(start, &name)
}

#[lab_test]
fn a_vip_that_goes_to_another_group_is_never_answered_twice() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP, vip(101)]), ("web", &[vip(102)])])?)?;
    let before = rig.holder()?.name().to_owned();
    let elsewhere = rig.lab.nodes().iter().find(|node| node.name() != before).context("three nodes")?;
    elsewhere.succeed(&["switchover", "web", "--to", elsewhere.name()])?;
    let start = clock::now();
    let moved: &[(&str, &[Ipv4Addr])] = &[(GROUP, &[vip(101)]), ("web", &[VIP, vip(102)])];
    for node in rig.lab.nodes() {
        let said = reload(node, moved)?;
        ensure!(said.contains("begun anew"), "{said}");
        std::thread::sleep(LEASE / 2);
    }
    rig.lab.wait_holder("web", PATIENCE)?;
    let after = rig.wait_answerer(None, || ())?;
    std::thread::sleep(WATCH);
    let account = rig.account(start, clock::now(), &before)?;
    ensure!(account.holder_after.as_deref() == Some(&*after), "{account:?}");
    // After the first node's reload the two others are a majority that knows
    // the old groups, and may take the VIP under its old one, once. Two that
    // answered at the same time would take turns, a thousand times a second.
    let frames = rig.capture.frames();
    let mut by: Vec<_> = frames.iter().filter(|frame| frame.at >= start).map(|frame| frame.from).collect();
    by.dedup();
    ensure!(by.len() <= 3, "answered in turns, by {by:?}: {account:?}\n{}", logs(&rig.lab));
    ensure!(rig.lab.wait_holder("web", PATIENCE)?.name() == &*after);
    Ok(())
}

/// Is `vip` on the node's loopback, where the VIPs of its groups are?
fn is_on_host(node: &Node, vip: Ipv4Addr) -> Result<bool> {
    Ok(node.ns().ip("-4 address show dev lo")?.contains(&format!(" {vip}/32 ")))
}

#[lab_test]
fn what_a_reload_could_not_bring_about_is_told_and_mended_by_the_next() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP])])?)?;
    let holder = rig.holder()?.name().to_owned();
    let node = rig.lab.nodes().iter().find(|node| node.name() != holder).context("three nodes")?;
    let start = clock::now();
    let more = with_groups(node, &[(GROUP, &[VIP]), ("app", &[vip(102)])])?;
    let hooked = format!("{more}[group.hooks]\npre_promote = [\"/nonexistent/promote\"]\n");
    node.write_config(&hooked)?;
    let said = node.succeed(&["reload", "--dry-run"])?;
    ensure!(said.contains("group app would be added"), "{said}");
    ensure!(said.contains("group app, pre_promote: /nonexistent/promote can't be run"), "{said}");
    // If the node cannot read its record of what it did to the host, it adds no address.
    node.write_config(&more)?;
    let record = node.run_dir().join("host.json");
    let good = std::fs::read(&record)?;
    std::fs::remove_file(&record)?;
    std::fs::create_dir(&record)?;
    for attempt in ["first", "second"] {
        let out = node.run(&["-o", "json", "reload"])?;
        let told: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let message = told["error"]["message"].as_str().unwrap_or_default();
        ensure!(out.status.code() == Some(71) && told["error"]["code"] == 71, "{attempt}: {out:?}");
        ensure!(
            message.contains("not all there") && message.contains("vip-ctl reload"),
            "{attempt}: {out:?}"
        );
        ensure!(!is_on_host(node, vip(102))?, "{attempt}: it is there after all");
    }
    // It has the new groups all the same, and its status shows them.
    ensure!(node.status()?.groups.iter().any(|group| group.name == "app"));
    std::fs::remove_dir(&record)?;
    std::fs::write(&record, good)?;
    let said = node.succeed(&["reload"])?;
    ensure!(said.contains("no group has changed") && is_on_host(node, vip(102))?, "{said}");
    rig.expect_calm(start, &holder)?;
    // If a hook's program cannot be run, the agent keeps its leases and warns.
    node.write_config(&hooked)?;
    node.succeed(&["reload"])?;
    let warned = |times: usize| {
        wait_until(clock::now().plus(PATIENCE), || {
            let log = std::fs::read_to_string(node.log_file()).unwrap_or_default();
            log.matches("pre_promote: /nonexistent/promote can't be run").count() == times
        })
    };
    ensure!(warned(1), "{}", node.log_tail());
    node.kill_agent()?;
    node.start_agent()?;
    ensure!(warned(2), "{}", node.log_tail());
    Ok(())
}

#[lab_test]
fn who_has_none_of_a_groups_vips_takes_none_over() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP])])?)?;
    let holder = rig.holder()?.name().to_owned();
    let others: Vec<_> = rig.lab.nodes().iter().filter(|node| node.name() != holder).collect();
    let (changed, same) = (others[0], others[1]);
    let old = rig.lab.nodes().iter().find(|node| node.name() == holder).context("the holder")?;
    let refuses = |how: &str| -> Result<()> {
        let out = old.run(&["switchover", GROUP, "--to", changed.name()])?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.code() == Some(107) && said.contains("not ready"), "{how}: {out:?}");
        Ok(())
    };
    let start = clock::now();
    reload(changed, &[(GROUP, &[vip(150)])])?;
    refuses("reloaded")?;
    changed.kill_agent()?;
    changed.start_agent()?;
    rig.lab.wait_quorate(PATIENCE)?;
    refuses("started")?;
    // Until its peers have said that they hear it, it says that.
    let told = || changed.succeed(&["explain", GROUP]);
    let why = "none of its VIPs here is in the configuration of a majority";
    let is_told = || told().is_ok_and(|told| told.contains(why));
    ensure!(wait_until(clock::now().plus(PATIENCE), is_told), "{}", told()?);
    let told = old.succeed(&["explain", GROUP])?;
    ensure!(told.contains("has other groups or VIPs in its configuration than this node"), "{told}");
    rig.expect_calm(start, &holder)?;
    let start = clock::now();
    old.kill_agent()?;
    let (new, _) = rig.expect_move(start, &holder)?;
    ensure!(new.name() == same.name(), "{} answers nothing, and took it:\n{}", new.name(), logs(&rig.lab));
    // Once a majority has the new VIP, the holder answers for it.
    for node in [old, same] {
        node.write_config(&with_groups(node, &[(GROUP, &[vip(150)])])?)?;
    }
    old.start_agent()?;
    same.succeed(&["reload"])?;
    let _service = serve(&rig.lab, vip(150))?;
    answered(&rig.lab, vip(150))?;
    Ok(())
}

#[lab_test]
fn a_move_to_a_node_with_other_groups_is_waited_for_no_longer_than_it_takes() -> Result<()> {
    let rig = Rig::new(&spec(&[(GROUP, &[VIP])])?)?;
    let old = rig.holder()?;
    let other = rig.lab.nodes().iter().find(|node| node.name() != old.name()).context("three nodes")?;
    reload(other, &[(GROUP, &[VIP]), ("app", &[vip(102)])])?;
    let start = clock::now();
    let said = old.succeed(&["switchover", GROUP, "--to", other.name()])?;
    ensure!(said.contains(&format!("held by {}", other.name())), "{said}");
    let (new, _) = rig.expect_move(start, old.name())?;
    ensure!(new.name() == other.name(), "{}", new.name());
    Ok(())
}
