//! The text of the new configuration. What is not known stands in it in a
//! form that is refused until somebody fills it in.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, time::Duration};

use vip_common::layout::GROUP_NAME_LEN;

use super::{
    Notes,
    read::{Common, Instance, Lined, Old, Script, SyncGroup, command},
};
use crate::config::{Config, LEASE_DEFAULT, NAME_LEN_MAX, PRIORITY_DEFAULT, PRIORITY_MAX};

/// The port that agents listen on, unless told otherwise.
const PORT: u16 = 7077;
/// In the place of what only a person knows; no address begins so.
const BLANK: &str = "FILL-IN";
/// The shortest lease that a conversion chooses.
const LEASE_SHORT: Duration = Duration::from_millis(50);

/// VIPs that move together, out of one instance or a sync group of them.
struct Group<'a> {
    line: usize,
    name: String,
    instances: Vec<&'a Instance>,
    /// Of the sync group first, which has the last word.
    commons: Vec<&'a Common>,
}

/// Writes the configuration.
pub(super) fn write(old: &Old, node: Option<&str>, host_name: &str, notes: &mut Notes) -> String {
    let name =
        node.map(str::to_owned).or_else(|| old.router_id.clone()).unwrap_or_else(|| host_name.to_owned());
    let name = spelled(&name, NAME_LEN_MAX, |c| c.is_ascii_alphanumeric());
    let groups = groups(old, notes);
    let mut out = String::from("# Made by `vip-ctl convert`. What it could not know says FILL-IN.\n");
    this_node(&mut out, old, &name);
    cluster(&mut out, old, &name, notes);
    for group in &groups {
        group_text(&mut out, group, &name, old, notes);
    }
    out
}

/// Writing to a string does not fail.
macro_rules! say {
    ($out:expr, $($text:tt)*) => {
        let _ = writeln!($out, $($text)*);
    };
}

fn this_node(out: &mut String, old: &Old, name: &str) {
    let commons = old.instances.iter().map(|i| &i.common);
    let tracked: BTreeSet<_> = commons.flat_map(|common| &common.interfaces).cloned().collect();
    let own: BTreeSet<_> = old.instances.iter().filter_map(|i| i.interface.clone()).collect();
    let interfaces = if own.is_empty() { tracked } else { own };
    say!(out, "\n[node]\nname = {}", quoted(name));
    match interfaces.len() {
        0 => {
            say!(out, "interface = \"{BLANK}:interface\"  # where the VIP's traffic comes in");
        }
        1 => {
            say!(out, "interface = {}", interfaces.iter().map(|name| quoted(name)).collect::<String>());
        }
        _ => {
            say!(out, "interface = {}", array(interfaces.iter()));
        }
    }
    if let Some(delay) = old.startup_delay {
        say!(out, "startup_delay = {}", time(delay));
    }
}

fn cluster(out: &mut String, old: &Old, me: &str, notes: &mut Notes) {
    say!(
        out,
        "\n[cluster]\nname = \"main\"\nkey_file = \"/etc/vip/cluster.key\"\nlease = {}",
        quoted(&lease(old, notes))
    );
    notes.fill_in(
        None,
        "the key: run `vip-ctl keygen /etc/vip/cluster.key` on one node, and copy the file to all others, mode 0600",
    );
    // Of the instance that names its peers: they are to reach each other.
    let with_peers = old.instances.iter().filter(|i| !i.peers.is_empty());
    let own = with_peers.chain(&old.instances).find_map(|i| i.own.clone());
    let own = own.filter(|own| own.parse::<IpAddr>().is_ok());
    if own.is_none() {
        notes.fill_in(None, format!("the address of {me}, by which the other nodes reach its agent"));
    }
    node_text(out, me, &own.map_or_else(|| BLANK.to_owned(), |own| socket(&own)), "");
    let mut peers: Vec<&Lined<String>> = Vec::new();
    for peer in old.instances.iter().flat_map(|i| &i.peers) {
        if !peers.iter().any(|known| known.value == peer.value) {
            peers.push(peer);
        }
    }
    for (number, peer) in (2..).zip(&peers) {
        notes.fill_in(
            peer.line,
            format!("the name of {} (node-{number} stands for it), also in priority", peer.value),
        );
        let address =
            if peer.value.parse::<IpAddr>().is_ok() { socket(&peer.value) } else { BLANK.to_owned() };
        node_text(out, &format!("node-{number}"), &address, "  # its name is FILL-IN");
    }
    if peers.is_empty() {
        notes.fill_in(
            None,
            "the other node or nodes: the old file has no unicast_peer; node-2 stands for the first of them",
        );
        node_text(out, "node-2", BLANK, "  # its name is FILL-IN");
    }
    let voters = 1 + peers.len().max(1);
    if voters.is_multiple_of(2) {
        notes.fill_in(
            None,
            "the address of a witness, which only votes: any third host that runs `vip-ctl agent`; without one, see pair mode in docs/lease.md and what it can't do",
        );
        say!(out, "[[cluster.node]]\nname = \"witness\"\naddress = \"{BLANK}:{PORT}\"\nwitness = true");
    }
}

fn node_text(out: &mut String, name: &str, address: &str, comment: &str) {
    let address = if address == BLANK { format!("{BLANK}:{PORT}") } else { address.to_owned() };
    say!(out, "[[cluster.node]]\nname = {}{comment}\naddress = {}", quoted(name), quoted(&address));
}

fn socket(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") }
}

/// A lease that fails over at least as fast as three adverts did, within reason.
fn lease(old: &Old, notes: &mut Notes) -> String {
    let shortest =
        old.instances.iter().filter_map(|i| i.advert_int.as_ref()).min_by(|a, b| a.value.total_cmp(&b.value));
    let Some(advert) = shortest else { return "200ms".into() };
    let three = Duration::try_from_secs_f64(advert.value * 3.0).unwrap_or(LEASE_DEFAULT);
    let lease = three.clamp(LEASE_SHORT, LEASE_DEFAULT);
    notes.changed(
        advert.line,
        format!(
            "advert_int {} took about {} s to fail over; the lease of {} takes about that long instead",
            advert.value,
            (advert.value * 3600.0).round() / 1000.0,
            humantime::format_duration(lease)
        ),
    );
    humantime::format_duration(lease).to_string()
}

fn groups<'a>(old: &'a Old, notes: &mut Notes) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for sync in &old.sync_groups {
        let mut instances = Vec::new();
        for member in &sync.members {
            match old.instances.iter().find(|i| i.name == member.value) {
                None => notes.lost(member.line, format!("there is no vrrp_instance {}", member.value)),
                Some(instance) if taken.insert(&instance.name) => instances.push(instance),
                Some(instance) => {
                    notes.lost(member.line, format!("{} is in another sync group already", instance.name));
                }
            }
        }
        if !instances.is_empty() {
            groups.push(of_sync(sync, instances, notes));
        }
    }
    for instance in old.instances.iter().filter(|i| !taken.contains(i.name.as_str())) {
        groups.push(Group {
            line: instance.line,
            name: instance.name.clone(),
            instances: vec![instance],
            commons: vec![&instance.common],
        });
    }
    let mut names: BTreeSet<String> = BTreeSet::new();
    for group in &mut groups {
        let spelled = spelled(&group.name.to_lowercase(), GROUP_NAME_LEN, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit()
        });
        let mut name = spelled.clone();
        for number in 2.. {
            if names.insert(name.clone()) {
                break;
            }
            name = format!("{}-{number}", &spelled[..spelled.len().min(GROUP_NAME_LEN - 4)]);
        }
        if name != group.name {
            notes.changed(group.line, format!("{} is called {name} here", group.name));
        }
        group.name = name;
    }
    groups
}

fn of_sync<'a>(sync: &'a SyncGroup, instances: Vec<&'a Instance>, notes: &mut Notes) -> Group<'a> {
    let priorities: BTreeSet<_> =
        instances.iter().filter_map(|i| i.priority.as_ref().map(|p| p.value)).collect();
    if priorities.len() > 1 {
        notes.changed(sync.line, "its instances have different priorities: the first one's is the group's");
    }
    let commons = std::iter::once(&sync.common).chain(instances.iter().map(|i| &i.common)).collect();
    Group { line: sync.line, name: sync.name.clone(), instances, commons }
}

fn group_text(out: &mut String, group: &Group<'_>, me: &str, old: &Old, notes: &mut Notes) {
    say!(out, "\n[[group]]\nname = {}", quoted(&group.name));
    let vips = vips(group, notes);
    if vips.is_empty() {
        notes.fill_in(
            group.line,
            format!("the VIPs of group {}: there are none that can be carried over", group.name),
        );
    }
    say!(out, "vips = {}", array(vips.iter()));
    let priority = group.instances.iter().find_map(|i| i.priority.as_ref());
    let value = priority.map_or(u32::from(PRIORITY_DEFAULT), |p| p.value);
    let clamped = value.clamp(1, u32::from(PRIORITY_MAX));
    if clamped != value {
        notes.changed(group.line, format!("priority {value} is {clamped} here: 1 to {PRIORITY_MAX} can be"));
    }
    say!(out, "priority = {{ {} = {clamped} }}  # the others' as in their own files: FILL-IN", key(me));
    preemption(out, group, notes);
    tracked(out, group);
    let mut seen = BTreeSet::new();
    for script in group.commons.iter().flat_map(|common| &common.scripts) {
        if !seen.insert(&script.value) {
            continue;
        }
        match old.scripts.get(&script.value) {
            Some(known) => check(out, &script.value, known),
            None => notes.lost(script.line, format!("there is no vrrp_script {}", script.value)),
        }
    }
    hooks(out, group, notes);
}

fn vips(group: &Group<'_>, notes: &mut Notes) -> Vec<String> {
    let mut vips = Vec::new();
    for vip in group.instances.iter().flat_map(|i| &i.vips) {
        let text = vip.value.split_once('/').map_or(vip.value.as_str(), |(address, _)| address);
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => vips.push(text.to_owned()),
            Ok(IpAddr::V6(_)) if takes_ipv6() => vips.push(text.to_owned()),
            Ok(IpAddr::V6(_)) => {
                notes.lost(vip.line, format!("{text} is IPv6, which isn't there yet: leave it to keepalived"))
            }
            Err(_) => notes.lost(vip.line, format!("{:?} is no address", vip.value)),
        }
    }
    vips.dedup();
    vips
}

/// Does this version take IPv6 VIPs?
fn takes_ipv6() -> bool {
    const SAMPLE: &str = "[node]\ninterface = \"e\"\n[cluster]\nname = \"c\"\nkey_file = \"k\"\n\
        [[cluster.node]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n[[group]]\nname = \"g\"\nvips = [\"2001:db8::1\"]\n";
    Config::parse(SAMPLE, std::path::Path::new("sample"), "a").is_ok()
}

fn preemption(out: &mut String, group: &Group<'_>, notes: &mut Notes) {
    if group.instances.iter().any(|i| i.no_preempt) {
        say!(out, "preempt = false");
        return;
    }
    say!(out, "preempt = true");
    match group.instances.iter().find_map(|i| i.preempt_delay).filter(|delay| *delay > 0.0) {
        Some(delay) => {
            say!(out, "preempt_delay = {}", time(delay));
        }
        None => notes.changed(
            group.line,
            "the node of the highest priority takes the group back 30 s after it is ready, not at once: set preempt_delay for another time, or preempt = false",
        ),
    }
}

/// Interfaces that count for the group beyond those that the data plane is on.
fn tracked(out: &mut String, group: &Group<'_>) {
    let own: BTreeSet<_> = group.instances.iter().filter_map(|i| i.interface.as_ref()).collect();
    let tracked: BTreeSet<_> =
        group.commons.iter().flat_map(|c| &c.interfaces).filter(|name| !own.contains(name)).collect();
    if !tracked.is_empty() {
        say!(out, "track_interface = {}", array(tracked.into_iter()));
    }
}

fn check(out: &mut String, name: &str, script: &Script) {
    say!(out, "[[group.check]]\nname = {}", quoted(&spelled(name, 64, |c| c.is_ascii_alphanumeric())));
    match tcp(&script.script) {
        // The shell's way to try a port.
        Some(address) => {
            say!(out, "tcp = {}", quoted(&address));
        }
        None => {
            say!(out, "exec = {}", array(command(&script.script).iter()));
        }
    }
    // keepalived's own defaults (keepalived.conf(5)), which are not ours.
    let interval = script.interval.filter(|interval| *interval > 0.0).unwrap_or(1.0);
    say!(out, "interval = {}", time(interval));
    say!(out, "timeout = {}", time(script.timeout.unwrap_or(interval).min(interval)));
    say!(out, "rise = {}\nfall = {}", script.rise.unwrap_or(1).max(1), script.fall.unwrap_or(1).max(1));
}

/// The address in `</dev/tcp/HOST/PORT`.
fn tcp(script: &str) -> Option<String> {
    let rest = script.trim().trim_start_matches(['<', ' ']).strip_prefix("/dev/tcp/")?;
    let (host, port) = rest.split_once('/')?;
    let (host, port): (IpAddr, u16) = (host.parse().ok()?, port.parse().ok()?);
    Some(std::net::SocketAddr::new(host, port).to_string())
}

fn hooks(out: &mut String, group: &Group<'_>, notes: &mut Notes) {
    // The sync group's word counts before its instances'.
    let of = |keyword: &str| group.commons.iter().find_map(|common| common.notify.get(keyword));
    let any = of("notify");
    let pairs = [
        ("post_promote", of("notify_master").or(any)),
        ("post_demote", of("notify_backup").or(any)),
        ("on_fault", of("notify_fault").or(any)),
    ];
    if of("notify_stop").is_some() {
        notes.lost(group.line, "notify_stop: post_demote runs when the agent hands over before it stops");
    }
    if any.is_some() && pairs.iter().any(|(_, command)| *command != any) {
        notes.changed(group.line, "notify and notify_master, _backup or _fault are both there: one hook runs for each, the more special one");
    }
    if pairs.iter().all(|(_, command)| command.is_none()) {
        return;
    }
    say!(out, "[group.hooks]");
    for (hook, command) in pairs {
        if let Some(command) = command {
            say!(out, "{hook} = {}", array(command.iter()));
        }
    }
}

/// A name with everything that can't be in it replaced.
fn spelled(text: &str, len_max: usize, fine: impl Fn(char) -> bool) -> String {
    let name: String =
        text.chars().map(|c| if fine(c) || "-_.".contains(c) { c } else { '-' }).take(len_max).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

/// A bare key, or a quoted one where a bare one may not have its characters.
fn key(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn array<S: AsRef<str>>(texts: impl Iterator<Item = S>) -> String {
    format!("[{}]", texts.map(|text| quoted(text.as_ref())).collect::<Vec<_>>().join(", "))
}

fn time(seconds: f64) -> String {
    // Millionths are more than anybody wrote.
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let millis = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    quoted(&humantime::format_duration(millis).to_string())
}
