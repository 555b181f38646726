//! What a valid configuration means, as JSON and as text.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, time::Duration};

use serde_json::{Value, json};

use crate::{
    config::{Check, Config, Group, Hooks, WhenAllFail},
    engine::{PeerLoss, Role},
    events::Hook,
    home::Home,
    host::mac_text,
};

/// VIPs of a group that the text shows.
const VIPS_SHOWN: usize = 8;

const fn role(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Witness => "witness",
        Role::Observer => "observer",
        Role::Vacant => "vacant",
    }
}

const fn pair(loss: PeerLoss) -> &'static str {
    match loss {
        PeerLoss::Take => "take",
        PeerLoss::Hold => "hold",
    }
}

const fn when_all_fail(choice: WhenAllFail) -> &'static str {
    match choice {
        WhenAllFail::Release => "release",
        WhenAllFail::Keep => "keep",
    }
}

fn voters(config: &Config) -> usize {
    config.cluster.nodes.iter().filter(|node| node.role.votes()).count()
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// What the configuration means, as JSON.
pub(super) fn meaning(config: &Config, files: &[String]) -> Value {
    let check = |check: &Check| {
        json!({
            "name": check.name,
            "kind": check.kind.name(),
            "what": check.kind.to_string(),
            "interval_ms": check.interval.as_millis(),
            "timeout_ms": check.timeout.as_millis(),
            "rise": check.rise,
            "fall": check.fall,
        })
    };
    let home = |(vip, home): (&IpAddr, &Home)| {
        (vip.to_string(), json!({ "interface": home.interface, "prefix": home.prefix }))
    };
    let group = |group: &Group| {
        json!({
            "name": group.name,
            "vips": group.vips.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "homes": group.homes.iter().map(home).collect::<BTreeMap<_, _>>(),
            "gateway": group.is_gateway,
            "virtual_mac": group.virtual_mac.map(mac_text),
            "priority": group.priorities,
            "preempt_delay_ms": group.preempt.map(|delay| delay.as_millis()),
            "checks": group.health.checks.iter().map(check).collect::<Vec<_>>(),
            "track_interface": group.health.track_interface,
            "when_all_fail": when_all_fail(group.health.when_all_fail),
            "hooks": hooks(&group.hooks),
        })
    };
    let nodes = config.cluster.nodes.iter().map(|node| {
        json!({ "name": node.name, "id": node.id, "address": node.address.to_string(), "role": role(node.role) })
    });
    json!({
        "files": files,
        "node": config.node_name,
        "interfaces": config.interfaces,
        "only_guarded": config.silent,
        "startup_delay_ms": config.startup_delay.as_millis(),
        "garp": {
            "repeat": config.garp.repeat,
            "delay_ms": config.garp.delay.map(|delay| delay.as_millis()),
            "refresh_ms": config.garp.refresh.map(|refresh| refresh.as_millis()),
            "interval_ms": config.garp.interval.map(|interval| interval.as_millis()),
        },
        "cluster": config.cluster.name,
        "key_file": config.cluster.key_file.display().to_string(),
        "lease_ms": config.cluster.lease.as_millis(),
        "generation": config.cluster.generation,
        "pair": config.cluster.pair.map(pair),
        "voters": voters(config),
        "nodes": nodes.collect::<Vec<_>>(),
        "groups": config.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

/// What happens when a group moves, as JSON.
fn hooks(hooks: &Hooks) -> Value {
    let programs: BTreeMap<&str, &[String]> =
        hooks.commands.iter().map(|(hook, words)| (hook.name(), words.as_slice())).collect();
    json!({
        "programs": programs,
        "timeout_ms": hooks.timeout.as_millis(),
        "pre_demote_timeout_ms": hooks.pre_demote_timeout.as_millis(),
        "on_failure": hooks.on_failure.name(),
        "retry_after_ms": hooks.retry_after.as_millis(),
        "webhook": hooks.webhook.as_ref().map(ToString::to_string),
    })
}

/// What the configuration means, as text.
pub(super) fn text(config: &Config, files: &[String]) -> String {
    let cluster = &config.cluster;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} {} right: node {} of cluster {}, lease {}, generation {}",
        files.join(", "),
        if files.len() == 1 { "is" } else { "are" },
        config.node_name,
        cluster.name,
        time(cluster.lease),
        cluster.generation
    );
    if !config.interfaces.is_empty() {
        let only = |name: &String| if config.silent.contains(name) { " (only guarded)" } else { "" };
        let names: Vec<_> = config.interfaces.iter().map(|name| format!("{name}{}", only(name))).collect();
        let _ = writeln!(out, "interfaces: {}", names.join(", "));
    }
    for node in &cluster.nodes {
        let own = if node.id == config.me { ", this one" } else { "" };
        let _ =
            writeln!(out, "  {:<16} {:<22} {}{own}", node.name, node.address.to_string(), role(node.role));
    }
    let voters = voters(config);
    let _ = match cluster.pair {
        Some(loss) => writeln!(out, "pair mode ({}): no majority decides", pair(loss)),
        None => writeln!(out, "{voters} voters, of which {} may fail", (voters.max(1) - 1) / 2),
    };
    for group in &config.groups {
        group_text(&mut out, group);
    }
    let vips: usize = config.groups.iter().map(|group| group.vips.len()).sum();
    let checks: usize = config.groups.iter().map(|group| group.health.checks.len()).sum();
    let hooks: usize = config.groups.iter().map(|group| group.hooks.commands.len()).sum();
    let groups = config.groups.len();
    let _ = writeln!(out, "in all: groups {groups}, VIPs {vips}, checks {checks}, hooks {hooks}");
    out
}

fn group_text(out: &mut String, group: &Group) {
    let shown = |vip: &IpAddr| {
        let Home { interface, prefix } = group.homes.get(vip).cloned().unwrap_or_default();
        let prefix = prefix.map_or(String::new(), |prefix| format!("/{prefix}"));
        format!("{vip}{prefix}{}", interface.map_or(String::new(), |name| format!(" on {name}")))
    };
    let mut vips: Vec<_> = group.vips.iter().take(VIPS_SHOWN).map(shown).collect();
    if group.vips.len() > VIPS_SHOWN {
        vips.push(format!("and {} more", group.vips.len() - VIPS_SHOWN));
    }
    let priorities: Vec<_> = group.priorities.iter().map(|(node, rank)| format!("{node} {rank}")).collect();
    let preempt = group
        .preempt
        .map_or_else(|| "no preemption".to_owned(), |delay| format!("preemption after {}", time(delay)));
    // Writing to a string does not fail.
    let _ = writeln!(out, "group {}: {}", group.name, vips.join(", "));
    if group.is_gateway {
        let _ = writeln!(out, "  gateway: without the lease, nothing that comes in there is forwarded");
    }
    if let Some(mac) = group.virtual_mac {
        let _ = writeln!(out, "  virtual_mac {}: it moves with the VIPs", mac_text(mac));
    }
    let _ = writeln!(out, "  priority {}; {preempt}", priorities.join(", "));
    for check in &group.health.checks {
        let Check { name, kind, interval, timeout, rise, fall } = check;
        let (interval, timeout) = (time(*interval), time(*timeout));
        let _ = writeln!(
            out,
            "  check {name}: {kind}; every {interval}, timeout {timeout}, rise {rise}, fall {fall}"
        );
    }
    if !group.health.track_interface.is_empty() {
        let _ = writeln!(out, "  tracks {}", group.health.track_interface.join(", "));
    }
    if !group.health.is_empty() {
        let _ = writeln!(out, "  when all fail: {}", when_all_fail(group.health.when_all_fail));
    }
    let hooks = &group.hooks;
    for (hook, words) in &hooks.commands {
        let _ = write!(out, "  hook {hook}: {}; timeout {}", words.join(" "), time(hooks.limit(*hook)));
        if *hook == Hook::PrePromote {
            let (failure, after) = (hooks.on_failure.name(), time(hooks.retry_after));
            let _ = write!(out, ", on failure {failure}, retry after {after}");
        }
        let _ = writeln!(out);
    }
    if let Some(webhook) = &hooks.webhook {
        let _ = writeln!(out, "  webhook {webhook}");
    }
}
