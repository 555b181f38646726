//! The groups of the new configuration: which VIPs move together, and each
//! group's priorities, checks and hooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use vip_common::layout::GROUP_NAME_LEN;

use super::{
    BLANK, Notes, UNKNOWN_INTERFACE,
    command::{Command, Looks, other_user},
    out::{Out, array, quoted},
    read::{Common, Instance, Lined, Old, Script, SyncGroup, Vip},
    write::{delay_of, spelled, time},
};
use crate::config::{self, Config, DELAY_MAX, NAME_LEN_MAX, PRIORITY_DEFAULT, PRIORITY_MAX};

/// The shortest and the longest pause between two runs of a check.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The shortest timeout of a check.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// The most passes or failures that can be configured.
const COUNT_MAX: u32 = 1000;

/// VIPs that move together, from one instance or a sync group of them.
pub(super) struct Group<'a> {
    line: usize,
    name: String,
    /// Is it a sync group?
    is_sync: bool,
    instances: Vec<&'a Instance>,
    /// The sync group's first: it takes precedence.
    commons: Vec<&'a Common>,
    /// The VIPs that can be carried over, each once in the whole configuration;
    /// empty if a person has to fill them in.
    pub(super) vips: Vec<Vip>,
}

/// The groups of which something can be carried over.
pub(super) fn groups<'a>(old: &'a Old, notes: &mut Notes) -> Vec<Group<'a>> {
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
        if instances.is_empty() {
            notes.lost(sync.line, format!("vrrp_sync_group {} has no instance", sync.name));
        } else {
            groups.push(of_sync(sync, instances, notes));
        }
    }
    for instance in old.instances.iter().filter(|i| !taken.contains(i.name.as_str())) {
        groups.push(Group {
            line: instance.line,
            name: instance.name.clone(),
            is_sync: false,
            instances: vec![instance],
            commons: vec![&instance.common],
            vips: Vec::new(),
        });
    }
    let mut known = BTreeMap::new();
    groups.retain_mut(|group| vips(group, old, &mut known, notes));
    names(&mut groups, notes);
    groups
}

fn of_sync<'a>(sync: &'a SyncGroup, instances: Vec<&'a Instance>, notes: &mut Notes) -> Group<'a> {
    let priorities: BTreeSet<_> =
        instances.iter().filter_map(|i| i.priority.as_ref().map(|p| p.value)).collect();
    if priorities.len() > 1 {
        notes.changed(sync.line, "its instances have different priorities: the first one's is the group's");
    }
    let commons = std::iter::once(&sync.common).chain(instances.iter().map(|i| &i.common)).collect();
    Group { line: sync.line, name: sync.name.clone(), is_sync: true, instances, commons, vips: Vec::new() }
}

/// Gives each group a valid name that no other group has.
fn names(groups: &mut [Group<'_>], notes: &mut Notes) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for group in groups {
        let spelled = spelled(&group.name.to_lowercase(), GROUP_NAME_LEN, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit()
        });
        let name = unique(&spelled, GROUP_NAME_LEN, &mut names);
        if name != group.name {
            notes.changed(
                group.line,
                format!("{} is called {name} here, also in the arguments of hooks", group.name),
            );
        }
        group.name = name;
    }
}

/// The name, or the name with the first number that makes it unique.
fn unique(name: &str, len_max: usize, names: &mut BTreeSet<String>) -> String {
    let mut unique = name.to_owned();
    for number in 2.. {
        if names.insert(unique.clone()) {
            break;
        }
        unique = format!("{}-{number}", &name[..name.len().min(len_max - 6)]);
    }
    unique
}

/// Finds the VIPs of a group; false to leave the group out. `known` are those of
/// the groups before.
fn vips(
    group: &mut Group<'_>,
    old: &Old,
    known: &mut BTreeMap<IpAddr, (usize, String)>,
    notes: &mut Notes,
) -> bool {
    let mut elsewhere = false;
    let mut sixes: Vec<(usize, &str)> = Vec::new();
    for instance in &group.instances {
        let default = instance.interface.as_ref().map(|interface| interface.value.clone());
        let default = default.or_else(|| old.default_interface.clone());
        for vip in &instance.vips {
            let (text, length) = match vip.text.split_once('/') {
                Some((address, length)) => (address, Some(length)),
                None => (vip.text.as_str(), None),
            };
            let Ok(address) = text.parse::<IpAddr>() else {
                notes.lost(vip.line, format!("{:?} is no address", vip.text));
                continue;
            };
            if address.is_ipv6() && !takes_ipv6() {
                sixes.push((vip.line, text));
                elsewhere = true;
            } else if let Some(kind) = no_servers(address) {
                notes.lost(vip.line, format!("{text} is {kind}, which no server can take over"));
            } else if let Some((line, name)) = known.get(&address) {
                notes.lost(vip.line, format!("{text} is in {name} already, in line {line}"));
                elsewhere = true;
            } else {
                known.insert(address, (vip.line, instance.name.clone()));
                let device = vip.device.clone().or_else(|| default.clone());
                // As an address of an interface has it: then that subnet is there.
                let prefix = length.and_then(|length| config::prefix_of(address, length).ok().flatten());
                let text = prefix.map_or(address.to_string(), |prefix| format!("{address}/{prefix}"));
                group.vips.push(Vip { line: vip.line, text, device });
            }
        }
    }
    for (line, text) in sixes {
        let mend = if group.vips.is_empty() {
            "leave it to keepalived".to_owned()
        } else {
            format!("leave it to keepalived, in an instance of its own; it does not move with {}", group.name)
        };
        notes.lost(line, format!("{text} is IPv6, which isn't there yet: {mend}"));
    }
    if group.vips.is_empty() && elsewhere {
        notes.lost(group.line, format!("{} has no VIP that can be carried over", group.name));
        return false;
    }
    if group.vips.is_empty() {
        notes.fill_in(
            group.line,
            format!("the VIPs of {}: there are none that can be carried over", group.name),
        );
    }
    true
}

/// Why a server can't have this address.
fn no_servers(address: IpAddr) -> Option<&'static str> {
    if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_unspecified() {
        Some("the unspecified address")
    } else if matches!(address, IpAddr::V4(four) if four.is_broadcast()) {
        Some("the broadcast address")
    } else {
        None
    }
}

/// Does this version take IPv6 VIPs?
fn takes_ipv6() -> bool {
    const SAMPLE: &str = "[node]\ninterface = \"e\"\n[cluster]\nname = \"c\"\nkey_file = \"k\"\n\
        [[cluster.node]]\nname = \"a\"\naddress = \"10.0.0.1:1\"\n[[group]]\nname = \"g\"\nvips = [\"2001:db8::1\"]\n";
    Config::parse(SAMPLE, Path::new("sample"), "a").is_ok()
}

/// Writes a group. `names` are this node's and the placeholders for the others',
/// `interfaces` those that the data plane is on.
pub(super) fn write(
    out: &mut Out,
    group: &Group<'_>,
    names: (&str, &[String]),
    interfaces: &[String],
    old: &Old,
    notes: &mut Notes,
) {
    out.say(group.line, format!("\n[[group]]\nname = {}", quoted(&group.name)));
    let first = group.vips.first().map_or(group.line, |vip| vip.line);
    if group.vips.is_empty() {
        out.say(first, format!("vips = [\"{BLANK}\"]"));
    } else {
        vips_and_interface(out, first, group, interfaces);
    }
    virtual_mac(out, group, notes);
    priority(out, group, names, notes);
    preemption(out, group, notes);
    tracked(out, group, interfaces, notes);
    checks(out, group, old, notes);
    hooks(out, group, old, notes);
}

/// Where a node has several interfaces, each VIP is said to be on its own.
fn vips_and_interface(out: &mut Out, line: usize, group: &Group<'_>, interfaces: &[String]) {
    let of = |vip: &Vip| vip.device.clone().unwrap_or_else(|| UNKNOWN_INTERFACE.to_owned());
    let devices: BTreeSet<_> = group.vips.iter().map(of).collect();
    if devices.len() > 1 {
        out.say(line, "vips = [");
        for vip in &group.vips {
            let (address, interface) = (quoted(&vip.text), quoted(&of(vip)));
            out.say(vip.line, format!("    {{ address = {address}, interface = {interface} }},"));
        }
        return out.say(line, "]");
    }
    out.say(line, format!("vips = {}", array(group.vips.iter().map(|vip| &vip.text))));
    if let Some(device) = devices.first().filter(|_| interfaces.len() > 1) {
        out.say(line, format!("interface = {}", quoted(device)));
    }
}

/// The MAC of VRRP's range that keepalived makes of the router's id (RFC 5798).
fn virtual_mac(out: &mut Out, group: &Group<'_>, notes: &mut Notes) {
    let mut macs =
        group.instances.iter().filter_map(|instance| Some((instance.use_vmac?, instance.router_id)));
    let Some((line, router_id)) = macs.next() else { return };
    if macs.any(|(_, other)| other != router_id) || group.instances.iter().any(|i| i.use_vmac.is_none()) {
        notes.changed(line, format!("all VIPs of {} have one MAC, which moves with them", group.name));
    }
    let id = router_id.and_then(|id| u8::try_from(id).ok()).filter(|id| *id > 0);
    let mac = id.map_or("auto".to_owned(), |id| format!("00:00:5e:00:01:{id:02x}"));
    out.say(line, format!("virtual_mac = {}", quoted(&mac)));
}

fn priority(out: &mut Out, group: &Group<'_>, (me, others): (&str, &[String]), notes: &mut Notes) {
    let found = group.instances.iter().find_map(|instance| instance.priority.as_ref());
    let value = found.map_or(u32::from(PRIORITY_DEFAULT), |priority| priority.value);
    let line = found.map_or(group.line, |priority| priority.line);
    let clamped = value.clamp(1, u32::from(PRIORITY_MAX));
    if clamped != value {
        notes.changed(line, format!("priority {value} is {clamped} here: 1 to {PRIORITY_MAX} can be"));
    }
    let others: String = others.iter().map(|name| format!(", {} = \"{BLANK}\"", quoted(name))).collect();
    out.say(line, format!("priority = {{ {} = {clamped}{others} }}", key(me)));
}

fn preemption(out: &mut Out, group: &Group<'_>, notes: &mut Notes) {
    if let Some(instance) = group.instances.iter().find(|instance| instance.no_preempt) {
        if instance.is_master {
            notes.changed(
                instance.line,
                "keepalived ignores nopreempt with state MASTER; preempt = false counts in any case",
            );
        }
        out.say(group.line, "preempt = false");
        return;
    }
    out.say(group.line, "preempt = true");
    let delays = group.instances.iter().filter_map(|instance| instance.preempt_delay.as_ref());
    match delays.clone().find(|delay| delay.value > 0.0) {
        Some(delay) => {
            let text = time(delay_of("preempt_delay", delay, DELAY_MAX, notes));
            out.say(delay.line, format!("preempt_delay = {text}"));
        }
        None => notes.changed_once(
            group.line,
            "the node of the highest priority takes the group back 30 s after it is ready, not at once: set preempt_delay for another time, or preempt = false",
        ),
    }
}

/// Interfaces that the group tracks beyond those of its VIPs, which count anyway.
fn tracked(out: &mut Out, group: &Group<'_>, interfaces: &[String], notes: &mut Notes) {
    let mut tracked: Vec<&String> = Vec::new();
    // With one interface, all VIPs are on that.
    let has_vip = |name: &String| {
        let is_its = |vip: &Vip| vip.device.as_ref() == Some(name);
        group.vips.iter().any(is_its) || (interfaces.len() == 1 && interfaces.contains(name))
    };
    let carrying = group.instances.iter().filter(|instance| !instance.ignores_interface);
    for interface in carrying.filter_map(|instance| instance.interface.as_ref()) {
        if !has_vip(&interface.value) && !tracked.contains(&&interface.value) {
            notes.changed(
                interface.line,
                format!(
                    "{} carried VRRP and no VIP of this group: it is in track_interface, so that a node without it does not hold {}",
                    interface.value, group.name
                ),
            );
            tracked.push(&interface.value);
        }
    }
    for name in group.commons.iter().flat_map(|common| &common.interfaces) {
        if !has_vip(name) && !tracked.contains(&name) {
            tracked.push(name);
        }
    }
    if !tracked.is_empty() {
        out.say(group.line, format!("track_interface = {}", array(tracked)));
    }
}

fn checks(out: &mut Out, group: &Group<'_>, old: &Old, notes: &mut Notes) {
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    for tracked in group.commons.iter().flat_map(|common| &common.scripts) {
        if !seen.insert(&tracked.value) {
            continue;
        }
        let name = &tracked.value;
        let Some(script) = old.scripts.get(name) else {
            notes.lost(tracked.line, format!("there is no vrrp_script {name}"));
            continue;
        };
        let Some(command) = &script.command else {
            notes.lost(
                script.line,
                format!("vrrp_script {name} has no command that could be carried over, and so there is no check of it"),
            );
            continue;
        };
        if script.is_reverse {
            notes.lost(
                script.line,
                format!("vrrp_script {name} counts in reverse: write a check that passes when it does not"),
            );
            continue;
        }
        let name =
            unique(&spelled(name, NAME_LEN_MAX, |c| c.is_ascii_alphanumeric()), NAME_LEN_MAX, &mut names);
        check(out, &name, script, command, old, notes);
    }
}

fn check(out: &mut Out, name: &str, script: &Script, command: &Command, old: &Old, notes: &mut Notes) {
    out.say(script.line, format!("[[group.check]]\nname = {}", quoted(name)));
    let looks = match command.looks(notes) {
        Looks::Process(name) => format!("process = {}", quoted(&name)),
        Looks::Systemd(unit) => format!("systemd = {}", quoted(&unit)),
        Looks::Tcp(address) => format!("tcp = {}", quoted(&address)),
        Looks::File(path) => format!("file = {}", quoted(&path)),
        Looks::Exec(words) => {
            match &script.user {
                Some(user) => other_user("the script", user, notes),
                None => as_root(command, old, notes),
            }
            format!("exec = {}", array(words))
        }
    };
    out.say(command.line, looks);
    // keepalived's defaults (keepalived.conf(5)), which differ from ours.
    let second = Duration::from_secs(1);
    let written = |time: &Option<Lined<f64>>| {
        let time = time.as_ref().map(|time| Duration::try_from_secs_f64(time.value).unwrap_or(Duration::MAX));
        time.map(|time| if time.is_zero() { second } else { time })
    };
    let (min, max) = INTERVAL;
    let asked = written(&script.interval).unwrap_or(second);
    let interval = asked.clamp(min, max);
    let line = script.interval.as_ref().map_or(script.line, |interval| interval.line);
    if interval != asked {
        let shown = humantime::format_duration(interval);
        let asked = humantime::format_duration(asked);
        notes.changed(line, format!("interval {asked} is {shown} here: 100ms to 1h can be"));
    }
    out.say(line, format!("interval = {}", time(interval)));
    let asked = written(&script.timeout).unwrap_or(asked);
    let timeout = asked.clamp(TIMEOUT_MIN, interval);
    let line = script.timeout.as_ref().map_or(script.line, |timeout| timeout.line);
    if script.timeout.is_some() && asked > interval {
        let asked = humantime::format_duration(asked);
        let shown = humantime::format_duration(interval);
        notes.changed(
            line,
            format!(
                "timeout {asked} is longer than the interval, and a run ends before the next begins: it is {shown} here; write a longer interval if a run takes that long"
            ),
        );
    }
    out.say(line, format!("timeout = {}", time(timeout)));
    for (what, count) in [("rise", &script.rise), ("fall", &script.fall)] {
        let asked = count.as_ref().map_or(1, |count| count.value);
        let most = asked.clamp(1, COUNT_MAX);
        let line = count.as_ref().map_or(script.line, |count| count.line);
        if most != asked {
            notes.changed(line, format!("{what} {asked} is {most} here: 1 to {COUNT_MAX} can be"));
        }
        out.say(line, format!("{what} = {most}"));
    }
}

/// Notes that a command runs as root if the file names no user for it.
fn as_root(command: &Command, old: &Old, notes: &mut Notes) {
    if !command.has_user && !old.has_script_user {
        notes.changed_once(
            command.line,
            "scripts run as root here; keepalived runs them as the user keepalived_script, where there is one: to be another, write \"/usr/sbin/runuser\", \"-u\", \"USER\", \"--\" before the command",
        );
    }
}

fn hooks(out: &mut Out, group: &Group<'_>, old: &Old, notes: &mut Notes) {
    // The sync group's key takes precedence over its instances'.
    let mut of = |keyword: &str| {
        let mut found = group.commons.iter().filter_map(|common| common.notify.get(keyword));
        let first = found.next()?;
        for other in found.filter(|other| !other.is_same(first)) {
            notes.lost(
                other.line,
                format!("{keyword}: there is one hook for the whole group, that of line {}: call both from one script", first.line),
            );
        }
        Some(first)
    };
    let (any, master, backup, fault) =
        (of("notify"), of("notify_master"), of("notify_backup"), of("notify_fault"));
    if let Some(stop) = of("notify_stop") {
        notes.lost(stop.line, "notify_stop: post_demote runs when the agent hands over before it stops");
    }
    let special = [master, backup, fault];
    if let Some(any) = any.filter(|_| special.iter().any(Option::is_some)) {
        notes.changed(any.line, "keepalived runs notify after notify_master, _backup or _fault: here one hook runs for each change, the more special one");
    }
    let pairs =
        [("post_promote", master.or(any)), ("post_demote", backup.or(any)), ("on_fault", fault.or(any))];
    let Some(first) = pairs.iter().find_map(|(_, command)| *command) else { return };
    differences(group, first, any, backup, notes);
    out.say(first.line, "[group.hooks]");
    for (hook, command) in pairs {
        if let Some(command) = command {
            as_root(command, old, notes);
            let words = command.run(notes);
            out.say(command.line, format!("{hook} = {}", array(words)));
        }
    }
}

/// Notes once how hooks differ here.
fn differences(
    group: &Group<'_>,
    first: &Command,
    any: Option<&Command>,
    backup: Option<&Command>,
    notes: &mut Notes,
) {
    if let Some(any) = any.filter(|_| group.is_sync) {
        notes.changed_once(any.line, "notify gets INSTANCE where keepalived says GROUP for a sync group");
    }
    if any.is_none_or(|any| !any.is_same(first)) {
        notes.changed_once(
            first.line,
            "hooks get INSTANCE, the group, the state and the priority behind their own arguments, as keepalived does with notify alone",
        );
    }
    notes.changed_once(
        first.line,
        "a hook is killed after 10 s: set timeout under [group.hooks] if it takes longer",
    );
    if let Some(backup) = backup.or(any) {
        notes.changed_once(
            backup.line,
            "post_demote runs when this node gives the group up; keepalived also runs notify_backup, and notify, when it starts",
        );
        notes.changed_once(
            backup.line,
            "when a node fails that holds the group, post_demote runs, and then on_fault; keepalived runs notify_fault alone",
        );
    }
}

/// A bare key, or a quoted one if the name has characters that a bare key may
/// not.
fn key(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        name.to_owned()
    } else {
        quoted(name)
    }
}
