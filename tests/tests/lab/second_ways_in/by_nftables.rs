//! The gate at IP level where the kernel has no netfilter programs: a table of nftables
//! that asks programs. A newer kernel is made to look like that by taking its type
//! information from vip-ctl's sight.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use vip_tests::lab::load::nft;

use super::*;

/// How the names of the tables begin.
const TABLE: &str = "vip_gate";
/// What the rule's comment begins with.
const COMMENT: &str = "vip drops packets to a VIP without a lease";
/// Runs vip-ctl without the kernel's type information.
pub(super) const BLIND: &str = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";

/// A program that calls vip-ctl where it has no netfilter programs.
struct Older(PathBuf);

impl Older {
    fn new(test: &str) -> Result<Self> {
        let script = std::env::temp_dir().join(format!("vip-older-{test}-{}", std::process::id()));
        let vip_ctl = find_vip_ctl()?;
        let run = format!("exec unshare --mount sh -c '{BLIND}' sh '{}' \"$@\"\n", vip_ctl.display());
        std::fs::write(&script, format!("#!/bin/sh\n{run}"))?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self(script))
    }

    /// Three nodes whose vip-ctl it is, where this kernel has netfilter programs.
    fn lab(&self) -> Result<Lab> {
        let vip_ctl = if has_netfilter_programs() { self.0.clone() } else { find_vip_ctl()? };
        Lab::new(&LabSpec::three_nodes(LEASE, Some(vip_ctl)))
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        let _removed = std::fs::remove_file(&self.0);
    }
}

/// By the kernel's version: they came with Linux 6.4.
pub(super) fn has_netfilter_programs() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(4))
}

fn listed(ns: &Netns, what: &str) -> Result<String> {
    let output = ns.command("nft")?.args(["list", what]).output().context("running nft")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The node's table, as nft names it.
pub(super) fn table(node: &Node) -> Result<String> {
    let tables = listed(node.ns(), "tables")?;
    let names = tables.lines().filter_map(|line| line.strip_prefix("table ip "));
    let mut ours = names.filter(|name| name.starts_with(TABLE));
    let table = ours.next().with_context(|| format!("no table of vip's: {tables}"))?.to_owned();
    ensure!(ours.next().is_none(), "more than one: {tables}");
    Ok(table)
}

/// The rules' comments, which have the programs' numbers.
fn comments(node: &Node) -> Result<Vec<String>> {
    let rules = listed(node.ns(), "ruleset")?;
    Ok(rules.lines().filter(|line| line.contains(COMMENT)).map(str::to_owned).collect())
}

#[lab_test("nft")]
fn nftables_asks_for_the_lease_and_is_left_as_it_was() -> Result<()> {
    let older = Older::new("lease")?;
    let lab = older.lab()?;
    let node = &lab.nodes()[0];
    let container = Beside::new(&lab, node, "docker0", 1)?;
    container.route_all()?;
    let _echo = EchoServer::start(node.ns(), node.name(), AT_VIP)?;
    let own = SocketAddrV4::new(container.node, SERVICE_PORT + 1);
    let _own = EchoServer::start(node.ns(), node.name(), own)?;
    let theirs = "table ip theirs { chain input { type filter hook input priority 0; accept; }; }";
    nft(node.ns(), theirs)?;
    let before = listed(node.ns(), "ruleset")?;
    let said = node.load()?;
    ensure!(!said.contains("no gate at IP level") && !said.contains("not guarded"), "{said}");
    follows_the_lease(node, &container.ns)?;
    assert_eq!(ask_tcp(&container.ns, own, PATIENCE)?, node.name());
    let vip = node.succeed(&["status", "-o", "json"])?;
    ensure!(vip.contains("ip_local_in_drop_no_lease"), "{vip}");
    // Another load changes nothing, and another data plane's table is its own.
    let (name, rules) = (table(node)?, comments(node)?);
    node.load()?;
    assert_eq!((table(node)?, comments(node)?), (name, rules));
    if has_netfilter_programs() {
        // Whoever sees that the kernel has them takes them, and the table goes.
        let mut command = node.ns().command(find_vip_ctl()?)?;
        command.env("VIP_BPF_DIR", node.bpf_dir()).env("VIP_RUN_DIR", node.run_dir());
        command.args(["load", "--iface", INTERFACE, "--vip", &VIP.to_string()]);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            (listed(node.ns(), "ruleset")?, pins(node)?),
            (before.clone(), vec![names::PROG_LOCAL_IN.to_owned()])
        );
        ensure_silent(&container.ns, "with netfilter programs")?;
    }
    node.succeed(&["unload"])?;
    assert_eq!(listed(node.ns(), "ruleset")?, before);
    ensure!(!node.bpf_dir().exists(), "pins are left");
    Ok(())
}

#[lab_test("nft")]
fn what_others_do_to_nftables_is_mended() -> Result<()> {
    let older = Older::new("mended")?;
    let lab = older.lab()?;
    lab.start_agents(PATIENCE)?;
    let holder = lab.wait_holder(GROUP, PATIENCE)?;
    let standby = lab.candidates().find(|node| node.name() != holder.name()).context("a standby")?;
    // Whatever the machine does meanwhile.
    standby.succeed(&["standby"])?;
    let container = Beside::new(&lab, standby, "docker0", 1)?;
    container.route_all()?;
    let _echo = EchoServer::start(standby.ns(), standby.name(), AT_VIP)?;
    ensure_silent(&container.ns, "with the table")?;
    let name = table(standby)?;
    let accepts = || listed(standby.ns(), "ruleset").is_ok_and(|rules| rules.contains("accept comment"));
    let sleeps = || listed(standby.ns(), "ruleset").is_ok_and(|rules| rules.contains("dormant"));
    for (what, done) in [
        ("flush ruleset", "flushed"),
        (&format!("insert rule ip {name} input accept comment \"theirs\""), "with a rule before it"),
        (&format!("add table ip {name} {{ flags dormant; }}"), "asleep"),
        (&format!("delete table ip {name}"), "deleted"),
    ] {
        let told = || {
            std::fs::read_to_string(standby.log_file())
                .unwrap_or_default()
                .matches("the gate at IP level is gone")
                .count()
        };
        let before = told();
        nft(standby.ns(), what)?;
        let is_back = || {
            let rules = comments(standby).is_ok_and(|rules| !rules.is_empty());
            rules && !accepts() && !sleeps() && told() > before
        };
        ensure!(wait_until(clock::now().plus(PATIENCE), is_back), "{done}: {}", standby.log_tail());
        ensure_silent(&container.ns, &format!("after it was {done}"))?;
    }
    // A new agent goes on with the table as it is, and without any the kernel still drops.
    let rules = comments(standby)?;
    standby.kill_agent()?;
    ensure_silent(&container.ns, "without an agent")?;
    standby.start_agent()?;
    ensure!(wait_until(clock::now().plus(PATIENCE), || standby.status().is_ok()), "{}", standby.log_tail());
    assert_eq!(comments(standby)?, rules);
    ensure_silent(&container.ns, "with the next agent")
}

/// A table that nobody but who made it may change, for as long as that lives.
pub(super) struct Owned(Child);

impl Owned {
    pub(super) fn new(ns: &Netns, name: &str) -> Result<Self> {
        let nft = ns.command("nft")?.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut says = nft.stdin.as_ref().context("its standard input")?;
        writeln!(says, "add table ip {name} {{ flags owner; }}")?;
        let owner = Self(nft);
        let is_there = || listed(ns, "tables").is_ok_and(|tables| tables.contains(name));
        ensure!(wait_until(clock::now().plus(PATIENCE), is_there), "nft has not made {name}");
        Ok(owner)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}
