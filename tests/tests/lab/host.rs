//! What a node's own processes and its administrator notice: local clients
//! follow the lease, and taking vip off a host leaves it as it was.

use std::net::SocketAddrV4;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_common::layout::IfaceConfig;
use vip_common::names;
use vip_ctl::dataplane::DataPlane;
use vip_tests::lab::echo::{EchoServer, ask_tcp, ask_udp};
use vip_tests::lab::wire::{self, Direction};
use vip_tests::lab::{
    GROUP, INTERFACE, LEASE, Lab, LabSpec, Node, SERVICE_PORT, VIP, clock, disk, find_vip_ctl, wait_until,
};
use vip_tests_macros::lab_test;

use super::gates::{is_entered, is_gated};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for an answer where none is expected.
const BRIEF: Duration = Duration::from_millis(500);
/// Our rule, as `ip rule` shows it: its table is "VIP" in ASCII.
const RULE: &str = "iif eth0 lookup 5654864";
const AT_VIP: SocketAddrV4 = SocketAddrV4::new(VIP, SERVICE_PORT);

fn spec() -> Result<LabSpec> {
    Ok(LabSpec::three_nodes(LEASE, Some(find_vip_ctl()?)))
}

/// Loads, promotes and demotes by hand, and checks what the client gets.
fn work_by_hand(lab: &Lab, node: &Node) -> Result<()> {
    let client = &lab.client()?.ns;
    node.load()?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "answered before it was promoted");
    node.succeed(&["promote"])?;
    assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, node.name());
    assert_eq!(ask_tcp(client, AT_VIP, PATIENCE)?, node.name());
    assert_eq!(ask_tcp(node.ns(), AT_VIP, PATIENCE)?, node.name());
    node.succeed(&["demote"])?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err(), "answered after it was demoted");
    Ok(())
}

#[lab_test]
fn unload_restores_a_host_that_was_worked_by_hand() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    // The host's own settings, other than the defaults: `unload` must restore them.
    node.ns().enter(|| {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{INTERFACE}/arp_ignore"), "2")?;
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")
    })??;
    node.ns().ip("rule add pref 60 from 10.77.9.0/24 lookup 60")?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let before = node.snapshot()?;
    for round in 0..2 {
        work_by_hand(&lab, node)?;
        ensure!(!before.all_changes(&node.snapshot()?).is_empty(), "load changed nothing");
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new(), "round {round}");
        let pins = std::fs::read_dir(node.bpf_dir()).into_iter().flatten().count();
        assert_eq!(pins, 0, "pins are left in round {round}");
    }
    Ok(())
}

#[lab_test]
fn unload_while_active_leaves_nobody_answering() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, client) = (&lab.nodes()[0], &lab.client()?.ns);
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let before = node.snapshot()?;
    node.load()?;
    node.succeed(&["promote"])?;
    assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, node.name());
    node.succeed(&["unload"])?;
    ensure!(ask_udp(client, AT_VIP, BRIEF).is_err());
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    Ok(())
}

#[lab_test]
fn unload_restores_a_host_after_its_agent_has_ended() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let before: Result<Vec<_>> = lab.nodes().iter().map(Node::snapshot).collect();
    let before = before?;
    lab.start_agents(PATIENCE)?;
    lab.wait_holder(GROUP, PATIENCE)?;
    for node in lab.nodes() {
        // One agent ends on SIGTERM, one on SIGKILL: `unload` must work after both.
        if node.name() == "db-b" {
            node.kill_agent()?;
        } else {
            node.stop_agent()?;
        }
    }
    for (node, before) in lab.nodes().iter().zip(&before) {
        node.succeed(&["unload"])?;
        assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new(), "{}", node.name());
    }
    Ok(())
}

#[lab_test]
fn unload_leaves_no_vip_on_a_host_whose_record_is_lost() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    node.kill_agent()?;
    std::fs::remove_file(node.run_dir().join("host.json"))?;
    node.start_agent()?;
    node.kill_agent()?;
    node.succeed(&["unload"])?;
    let addresses = node.ns().ip("address show dev lo")?;
    ensure!(!addresses.contains(&VIP.to_string()), "without gates it is answered here: {addresses}");
    Ok(())
}

#[lab_test]
fn what_others_tidy_away_is_put_back() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let before = node.snapshot()?;
    // systemd-networkd removes rules like this, and NetworkManager addresses.
    node.ns().ip(&format!("addr del {VIP}/32 dev lo"))?;
    node.ns().ip("rule del pref 0")?;
    // `sysctl --system` sets what a distribution has in its files.
    let set_arp = |name: &str, value: &str| -> Result<()> {
        let path = format!("/proc/sys/net/ipv4/conf/all/{name}");
        Ok(node.ns().enter(|| std::fs::write(path, value))??)
    };
    set_arp("arp_ignore", "0")?;
    set_arp("arp_announce", "0")?;
    let mut changes = Vec::new();
    let back = wait_until(clock::now().plus(PATIENCE), || {
        changes = node.snapshot().map_or_else(|e| vec![format!("{e:#}")], |now| before.all_changes(&now));
        changes.is_empty()
    });
    ensure!(back, "{changes:?}");
    // What an administrator sets meanwhile outlives `unload`.
    set_arp("arp_ignore", "2")?;
    node.stop_agent()?;
    node.succeed(&["unload"])?;
    let all = |name: &str| {
        node.ns().enter(|| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}")))
    };
    assert_eq!((all("arp_ignore")??.trim(), all("arp_announce")??.trim()), ("2", "0"));
    Ok(())
}

#[lab_test]
fn who_puts_a_vip_on_an_interface_is_told_and_reaches_no_client_by_it() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let node = lab.nodes().iter().find(|node| node.name() != holder.name()).context("no standby")?;
    let _there = EchoServer::start(holder.ns(), holder.name(), AT_VIP)?;
    let _here = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    node.ns().ip(&format!("address add {VIP}/24 dev {INTERFACE}"))?;
    let says = format!("{VIP} is an address of {INTERFACE}");
    let warns = || node.status().is_ok_and(|status| status.warnings.iter().any(|w| w.contains(&says)));
    ensure!(wait_until(clock::now().plus(PATIENCE), warns), "status: {:?}", node.status()?.warnings);
    ensure!(wait_until(clock::now().plus(PATIENCE), || node.has_logged(&says)), "{}", node.log_tail());
    let doctor = node.run(&["doctor", "-q"])?;
    ensure!(String::from_utf8_lossy(&doctor.stdout).contains(&says), "{doctor:?}");
    for client in [&lab.client()?.ns, node.ns()] {
        assert_eq!(ask_udp(client, AT_VIP, PATIENCE)?, holder.name());
    }
    node.ns().ip(&format!("address del {VIP}/24 dev {INTERFACE}"))?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || !warns()), "{:?}", node.status()?.warnings);
    Ok(())
}

#[lab_test]
fn a_broken_record_keeps_nobody_from_loading_and_unloading() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let rules = node.ns().ip("rule")?;
    node.load()?;
    std::fs::write(node.run_dir().join("host.json"), "{\"boot_id\": ")?;
    let said = node.succeed(&["load", "--iface", INTERFACE, "--vip", "10.77.0.101"])?;
    ensure!(said.contains("warning: ") && said.contains("host.json: "), "{said}");
    std::fs::write(node.run_dir().join("host.json"), "")?;
    node.succeed(&["unload"])?;
    ensure!(!node.ns().ip("address show lo")?.contains("10.77.0."), "a VIP is left without a gate");
    assert_eq!(node.ns().ip("rule")?, rules);
    Ok(())
}

#[lab_test]
fn an_interface_that_leaves_the_configuration_is_left_alone() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    for command in ["link add spare type veth peer name other", "link set spare up", "link set other up"] {
        node.ns().ip(command)?;
    }
    let config = std::fs::read_to_string(node.config_file())?;
    let one = format!("interface = \"{INTERFACE}\"");
    node.write_config(&config.replace(&one, &format!("interface = [\"{INTERFACE}\", \"spare\"]")))?;
    lab.start_agents(PATIENCE)?;
    let has_spare = || node.succeed(&["status"]).map(|status| status.contains("interface spare"));
    ensure!(has_spare()?, "it is not on the second interface");
    // Only a start reads it, and leases go on meanwhile.
    node.kill_agent()?;
    node.write_config(&config)?;
    node.start_agent()?;
    let says = |what: &str| node.has_logged(what);
    let gates = [names::PROG_LOCAL_IN, names::PROG_LOCAL_IN_NFT];
    let has_gate = gates.iter().any(|gate| node.bpf_dir().join("links").join(gate).exists());
    if has_gate && !says("NAT on this host can take packets to a VIP past the gate") {
        let left = wait_until(clock::now().plus(PATIENCE), || has_spare().is_ok_and(|has| !has));
        ensure!(left && says("took the programs off spare"), "{}", node.log_tail());
    } else {
        // Without the gate at IP level, or past it, nothing else guards that way in.
        let stays = || says("spare is not named any more: its programs stay, and answer nothing");
        ensure!(wait_until(clock::now().plus(PATIENCE), stays) && has_spare()?, "{}", node.log_tail());
    }
    ensure!(is_entered(node)?, "the one that stays has lost its program");
    Ok(())
}

#[lab_test]
fn an_interface_that_was_taken_away_is_no_obstacle() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let name = node.name().to_owned();
    node.ns().ip(&format!("link del {INTERFACE}"))?;
    let state = |wanted: &str| {
        wait_until(clock::now().plus(PATIENCE), || {
            node.status().is_ok_and(|status| status.groups.iter().all(|group| group.state == wanted))
        })
    };
    ensure!(state("fault"), "{name} does not notice: {}", node.log_tail());
    // Another interface of the same name: the agent attaches to it, and can serve again.
    node.ns().ip(&format!("link add {INTERFACE} type veth peer name spare"))?;
    node.ns().ip(&format!("link set {INTERFACE} up"))?;
    node.ns().ip("link set spare up")?;
    let attached = wait_until(clock::now().plus(PATIENCE), || is_entered(node).unwrap_or(false));
    ensure!(attached, "not attached again: {}", node.log_tail());
    node.ns().ip(&format!("link del {INTERFACE}"))?;
    node.stop_agent()?;
    node.succeed(&["unload"])?;
    let pins = std::fs::read_dir(node.bpf_dir()).into_iter().flatten().count();
    assert_eq!(pins, 0, "pins are left");
    Ok(())
}

#[lab_test]
fn wrong_requests_have_exit_codes_of_their_own() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let code = |args: &[&str]| -> Result<Option<i32>> {
        let output = node.run(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!said.trim().is_empty(), "vip-ctl {args:?} says nothing about its failure");
        Ok(output.status.code())
    };
    let not_loaded = code(&["promote"])?;
    let no_interface = code(&["load", "--iface", "nowhere", "--vip", "10.77.0.100"])?;
    let usage = code(&["load", "--vip", "not-an-address"])?;
    node.load()?;
    let unknown = code(&["promote", "no-such-group"])?;
    // An XDP program of somebody else's is on the interface already.
    let occupied = &lab.nodes()[1];
    wire::attach_pass_all(occupied.ns(), INTERFACE)?;
    let busy = occupied.run(&["load", "--iface", "eth0:native", "--vip", &VIP.to_string()])?.status.code();
    let codes = [not_loaded, no_interface, usage, unknown, busy];
    ensure!(codes.iter().all(|c| c.is_some_and(|c| c > 0)), "{codes:?}");
    let mut distinct = codes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    ensure!(distinct.len() == codes.len(), "not distinct: {codes:?}");
    Ok(())
}

/// Takes the interface away, and puts another one of the same name there.
fn replace_interface(node: &Node) -> Result<()> {
    node.ns().ip(&format!("link del {INTERFACE}"))?;
    node.ns().ip(&format!("link add {INTERFACE} type veth peer name spare"))?;
    node.ns().ip(&format!("link set {INTERFACE} up")).map(drop)
}

fn load_native(node: &Node) -> Result<String> {
    node.succeed(&["load", "--iface", INTERFACE, "--vip", &VIP.to_string(), "--mode", "native"])
}

#[lab_test]
fn a_gate_stays_where_the_way_in_is_refused() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    node.load()?;
    replace_interface(node)?;
    wire::attach_pass_all(node.ns(), INTERFACE)?;
    ensure!(load_native(node).is_err(), "another program's place was taken");
    ensure!(node.ns().ip("addr show lo")?.contains(&VIP.to_string()), "the VIP is gone");
    ensure!(is_gated(node)?, "nothing keeps the VIP of a node without a lease off the wire");
    // A `load` that fails on a node that was not up leaves nothing.
    node.succeed(&["unload"])?;
    ensure!(!is_gated(node)? && load_native(node).is_err() && !is_gated(node)?, "a gate is left");
    ensure!(!node.ns().ip("addr show lo")?.contains(&VIP.to_string()), "the VIP is left");
    Ok(())
}

#[lab_test]
fn interfaces_that_are_gone_take_no_room() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    node.load()?;
    // Fill the map, as interfaces do that come and go.
    let mut plane = DataPlane::open(node.bpf_dir())?;
    let full = (10_000..11_000).find(|ifindex| plane.set_iface(*ifindex, IfaceConfig::default()).is_err());
    ensure!(full.is_some(), "the map is never full");
    replace_interface(node)?;
    node.load()?;
    assert_eq!(plane.ifaces()?.len(), 1, "{:?}", plane.ifaces()?);
    Ok(())
}

#[lab_test]
fn pins_of_another_namespace_are_not_taken_for_this_one() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let (node, other) = (&lab.nodes()[0], &lab.nodes()[1]);
    let index = |node: &Node| node.ns().enter(|| nix::net::if_::if_nametoindex(INTERFACE));
    ensure!(index(node)?? == index(other)??, "the lab's interfaces have other indices");
    node.load()?;
    // The same pins, in a namespace whose interface has the same index.
    let mut command = other.ns().command(find_vip_ctl()?)?;
    command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", other.run_dir());
    command.args(["load", "--iface", INTERFACE, "--vip", &VIP.to_string()]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(is_entered(other)?, "nothing guards the way in");
    ensure!(is_gated(other)?, "nothing guards the way out");
    Ok(())
}

#[lab_test]
fn what_an_interrupted_load_or_unload_left_is_found() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    let before = node.snapshot()?;
    let by_clsact = ["load", "--iface", INTERFACE, "--vip", &VIP.to_string(), "--gate", "clsact"];
    let pins = |dir: &str| -> Result<Vec<_>> {
        let entries = std::fs::read_dir(node.bpf_dir().join(dir))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
    };
    let filters = || wire::filters(node.ns(), INTERFACE, Direction::Out);
    // Twice, since the second `load` replaces the filter in place.
    for _ in 0..2 {
        node.succeed(&by_clsact)?;
        assert_eq!(filters()?, [names::PROG_EGRESS]);
    }
    for pin in pins("links")? {
        std::fs::remove_file(pin)?;
    }
    node.succeed(&["unload"])?;
    assert_eq!(filters()?, Vec::<String>::new());
    // Some maps are missing: neither `unload` nor `load` may fail.
    for verb in [&["unload"][..], &["load", "--iface", INTERFACE, "--vip", &VIP.to_string()]] {
        node.load()?;
        std::fs::remove_file(node.bpf_dir().join("maps/LEASES"))?;
        node.succeed(verb)?;
    }
    node.succeed(&["unload"])?;
    // `unload` keeps the qdisc, which others may use by now.
    node.ns().command("tc")?.args(["qdisc", "del", "dev", INTERFACE, "clsact"]).status()?;
    assert_eq!(before.all_changes(&node.snapshot()?), Vec::<String>::new());
    Ok(())
}

#[lab_test]
fn an_agent_whose_maps_are_gone_ends_and_begins_anew() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    // As if another BPF filesystem were mounted there: only a process that has the maps open
    // still sees them.
    std::fs::remove_file(node.bpf_dir().join("maps/NODE"))?;
    replace_interface(node)?;
    let ended = || node.check_agent().is_err();
    ensure!(wait_until(clock::now().plus(PATIENCE), ended), "it goes on: {}", node.log_tail());
    let log = std::fs::read_to_string(node.log_file())?;
    ensure!(log.contains("no longer those that this agent's leases are in"), "{log}");
    // The new interface has no program: with the VIP on lo, it would be served there.
    let on_lo = || -> Result<bool> { Ok(node.ns().ip("addr show lo")?.contains(&VIP.to_string())) };
    ensure!(!on_lo()? && !node.ns().ip("rule")?.contains(RULE), "{}", node.log_tail());
    // Takes the ended agent away, and starts another one.
    node.kill_agent()?;
    node.ns().ip(&format!("addr add {}/24 dev {INTERFACE}", node.address()))?;
    node.start_agent()?;
    let is_guarded = || is_entered(node).unwrap_or(false) && is_gated(node).unwrap_or(false);
    ensure!(wait_until(clock::now().plus(PATIENCE), is_guarded), "{}", node.log_tail());
    // Once the gates are there, the node puts its VIPs back.
    let is_served = || {
        let rules = node.ns().ip("rule");
        on_lo().unwrap_or(false) && rules.is_ok_and(|rules| rules.contains(RULE))
    };
    ensure!(wait_until(clock::now().plus(PATIENCE), is_served), "{}", node.log_tail());
    node.check_agent()
}

#[lab_test]
fn a_data_plane_that_somebody_removes_costs_the_lease() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    lab.start_agents(PATIENCE)?;
    let node = lab.wait_holder(GROUP, PATIENCE)?;
    let other = lab.candidates().find(|other| other.name() != node.name()).context("another node")?;
    // The programs disappear with their pins, and netlink sends no notice of it.
    for entry in std::fs::read_dir(node.bpf_dir())? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    let holder = || other.status().ok()?.group(GROUP)?.holder.clone();
    let has_moved = || holder().is_some_and(|holder| holder != node.name());
    ensure!(wait_until(clock::now().plus(PATIENCE), has_moved), "it stays: {}", node.log_tail());
    // A running agent cannot bring the data plane back: it ends, and the next agent does.
    let ended = || node.check_agent().is_err();
    ensure!(wait_until(clock::now().plus(PATIENCE), ended), "it goes on: {}", node.log_tail());
    // Nothing guards the VIPs any more: left on lo, they would be served here as well.
    let addresses = node.ns().ip("addr")?;
    ensure!(!addresses.contains(&format!("{VIP}/32")), "it is left on lo: {addresses}");
    node.kill_agent()?;
    node.start_agent()?;
    lab.wait_quorate(PATIENCE)?;
    node.take(GROUP, PATIENCE)?;
    Ok(())
}

/// A child that does not outlive its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[lab_test]
fn the_watchdog_ends_an_agent_whose_keeper_hangs_and_no_slow_disk_does() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(1);
    let lab = Lab::new(&spec()?)?;
    let node = lab.node("db-a")?;
    node.succeed(&["keygen", lab.key_file().to_str().context("a path")?])?;
    let socket = UnixDatagram::bind(lab.id().dir().join("notify"))?;
    let log = std::fs::File::create(node.log_file())?;
    let mut command = node.vip_ctl()?;
    command.arg("agent").arg("--config").arg(node.config_file());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.env("NOTIFY_SOCKET", lab.id().dir().join("notify"));
    command.env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
    let _agent = Owned(command.spawn()?);
    let is_fed_within = |time: Duration| -> Result<bool> {
        let deadline = clock::now().plus(time);
        while clock::now() < deadline {
            socket.set_read_timeout(Some(time))?;
            let mut buffer = [0; 4096];
            let Ok(len) = socket.recv(&mut buffer) else { return Ok(false) };
            if String::from_utf8_lossy(&buffer[..len]).contains("WATCHDOG=1") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    ensure!(is_fed_within(PATIENCE)?, "{}", node.log_tail());

    let memory = node.state_dir().join("memory.json.new");
    let mut verbs = ["standby", "unstandby"].iter().cycle();
    let has_hung = |verb: &str| -> Result<bool> {
        disk::hang(&memory)?;
        ensure!(wait_until(clock::now().plus(PATIENCE), || node
            .run(&[verb])
            .is_ok_and(|o| o.status.success())));
        let end = clock::now().plus(LIMIT * 4);
        while clock::now() < end {
            ensure!(
                is_fed_within(PATIENCE)?,
                "a memory that can't be written hangs the keeper: {}",
                node.log_tail()
            );
        }
        Ok(disk::is_hanging(&memory))
    };
    // A write that had begun before the pipe was there may have replaced it: try again.
    let deadline = clock::now().plus(PATIENCE);
    while !has_hung(verbs.next().context("they go round")?)? {
        ensure!(clock::now() < deadline, "what is written at {} never waits", memory.display());
    }

    disk::hang(&node.state_dir().join("groups.json.new"))?;
    let config = std::fs::read_to_string(node.config_file())?;
    node.write_config(&config.replace(&format!("\"{VIP}\""), &format!("\"{VIP}\", \"10.77.0.150\"")))?;
    let mut reload = node.vip_ctl()?;
    let _reload = Owned(reload.arg("reload").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let starves = || is_fed_within(LIMIT * 4).is_ok_and(|is_fed| !is_fed);
    ensure!(
        wait_until(clock::now().plus(PATIENCE), starves),
        "fed while the keeper hangs: {}",
        node.log_tail()
    );
    ensure!(node.has_logged("the keeper hangs"), "{}", node.log_tail());
    Ok(())
}

#[lab_test]
fn a_directory_that_is_named_by_mistake_keeps_what_others_have_there() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    // No BPF file system at all.
    let files = node.run_dir().join("precious");
    std::fs::create_dir_all(files.join("maps"))?;
    std::fs::write(files.join("maps/NODE"), "one")?;
    let at = |dir: &Path, rest: &[&str]| -> Result<Output> {
        let dir = dir.to_str().context("a path")?;
        node.run(&[&["--bpf-dir", dir], rest].concat())
    };
    at(&files, &["unload"])?;
    assert_eq!(std::fs::read_to_string(files.join("maps/NODE"))?, "one");
    let loads = ["load", "--iface", INTERFACE, "--vip", &VIP.to_string()];
    ensure!(!at(&files, &loads)?.status.success() && !files.join("links").exists(), "it has loaded there");
    // One that others use, too.
    let shared = node.bpf_dir().join("shared");
    std::fs::create_dir_all(shared.join("others"))?;
    ensure!(at(&shared, &loads)?.status.success(), "{:?}", at(&shared, &loads));
    ensure!(at(&shared, &["unload"])?.status.success());
    ensure!(shared.join("others").exists() && !shared.join("maps").exists());
    std::fs::remove_dir(shared.join("others"))?;
    std::fs::remove_dir(shared)?;
    Ok(())
}

#[lab_test]
fn an_interface_that_is_refused_leaves_no_vip_in_the_maps() -> Result<()> {
    let lab = Lab::new(&spec()?)?;
    let node = &lab.nodes()[0];
    node.load()?;
    node.ns().ip("link add taken type veth peer name other")?;
    node.ns().ip("link set taken up")?;
    wire::attach_pass_all(node.ns(), "taken")?;
    let second = "10.77.0.150";
    let loads =
        ["load", "--iface", INTERFACE, "--iface", "taken:native", "--vip", second, "--group", "second"];
    ensure!(node.run(&loads)?.status.code() == Some(73));
    ensure!(!node.run(&["promote", "second"])?.status.success(), "a group without a VIP on lo is promoted");
    Ok(())
}
