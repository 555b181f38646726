//! What the lines of a `keepalived.conf` mean, and which of them mean nothing here.

use std::collections::BTreeMap;

use super::{Notes, tree::Entry};

/// A line's number and what was read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lined<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// What was understood of the old file.
#[derive(Clone, Debug, Default)]
pub(super) struct Old {
    pub(super) router_id: Option<String>,
    pub(super) startup_delay: Option<f64>,
    pub(super) instances: Vec<Instance>,
    pub(super) sync_groups: Vec<SyncGroup>,
    pub(super) scripts: BTreeMap<String, Script>,
}

/// A `vrrp_instance`.
#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) interface: Option<String>,
    pub(super) priority: Option<Lined<u32>>,
    /// Seconds.
    pub(super) advert_int: Option<Lined<f64>>,
    pub(super) own: Option<String>,
    pub(super) peers: Vec<Lined<String>>,
    pub(super) vips: Vec<Lined<String>>,
    pub(super) no_preempt: bool,
    /// Seconds.
    pub(super) preempt_delay: Option<f64>,
    pub(super) common: Common,
}

/// A `vrrp_sync_group`.
#[derive(Clone, Debug, Default)]
pub(super) struct SyncGroup {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) members: Vec<Lined<String>>,
    pub(super) common: Common,
}

/// What instances and sync groups can both have.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    pub(super) scripts: Vec<Lined<String>>,
    pub(super) interfaces: Vec<String>,
    /// By keyword: `notify_master` and so on.
    pub(super) notify: BTreeMap<&'static str, Vec<String>>,
}

/// A `vrrp_script`.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) script: String,
    /// Seconds.
    pub(super) interval: Option<f64>,
    pub(super) timeout: Option<f64>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
}

/// Hooks that have a counterpart.
const NOTIFY: &[&str] = &["notify_master", "notify_backup", "notify_fault", "notify_stop", "notify"];

/// What an instance may say that has no counterpart, and why.
const LOST: &[(&str, &str)] = &[
    ("authentication", "nodes are told apart by the cluster's key, which is not sent: `vip-ctl keygen`"),
    ("virtual_routes", "routes are not moved: put them on every node, once"),
    ("virtual_rules", "routing rules are not moved: put them on every node, once"),
    ("virtual_ipaddress_excluded", "see the VIPs"),
    ("track_bfd", "BFD is not followed: a node that is cut off loses its lease by itself"),
    ("track_process", "write a check of it: process = \"NAME\" under [[group.check]]"),
    ("track_file", "write a check of it: file = \"PATH\" under [[group.check]]"),
    ("smtp_alert", "mail is not sent: use a hook, or webhook"),
    ("lvs_sync_daemon_interface", "IPVS is not touched"),
    ("lvs_sync_daemon", "IPVS is not touched"),
    (
        "notify_master_rx_lower_pri",
        "there are no adverts of lower priority: a rival claim is counted in vip_conflicts_total",
    ),
    ("notify_deleted", "a group that is removed is released: post_demote runs"),
    ("use_vmac", "no MAC address moves: other hosts are told of the new one"),
    ("use_ipvlan", "nothing is put on an interface"),
    ("vmac_xmit_base", "no MAC address moves"),
];

/// What an instance may say that needs no counterpart: it is so anyway, or
/// about VRRP's own packets, which there are none of.
const NEEDLESS: &[&str] = &[
    "accept",
    "check_unicast_src",
    "debug",
    "dont_track_primary",
    "down_timer_adverts",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "garp_master_delay",
    "garp_master_refresh",
    "garp_master_refresh_repeat",
    "garp_master_repeat",
    "higher_prio_send_advert",
    "kernel_rx_buf_size",
    "linkbeat_use_polling",
    "lower_prio_no_advert",
    "native_ipv6",
    "old_unicast_checksum",
    "promote_secondaries",
    "skip_check_adv_addr",
    "strict_mode",
    "thread_timer_expired",
    "unicast_ttl",
    "version",
    "virtual_router_id",
    "vrrp_version",
];

/// Reads the whole tree.
pub(super) fn read(tree: &[Entry], notes: &mut Notes) -> Old {
    let mut old = Old::default();
    for entry in tree {
        match entry.key() {
            "global_defs" => global(entry, &mut old, notes),
            "vrrp_instance" => old.instances.push(instance(entry, notes)),
            "vrrp_sync_group" => old.sync_groups.push(sync_group(entry, notes)),
            "vrrp_script" => {
                let script = script(entry, notes);
                old.scripts.insert(entry.rest(), script);
            }
            "include" | "includer" | "includem" | "includew" | "includeb" | "includea" => {
                notes.lost(
                    entry.line,
                    format!(
                        "{} is another file: convert it, too, or put its text in here first",
                        entry.rest()
                    ),
                );
            }
            "virtual_server" | "virtual_server_group" | "real_server" => notes.lost(
                entry.line,
                format!(
                    "{} is IPVS, which is not touched: keep keepalived for it, without its VRRP",
                    entry.key()
                ),
            ),
            "vrrp_track_process" => {
                notes.lost(
                    entry.line,
                    format!("{} {}: write a check with process = \"NAME\"", entry.key(), entry.rest()),
                );
            }
            "vrrp_track_file" | "track_file" => {
                notes.lost(
                    entry.line,
                    format!("{} {}: write a check with file = \"PATH\"", entry.key(), entry.rest()),
                );
            }
            "static_ipaddress" | "static_routes" | "static_rules" | "static_track_group" => notes.lost(
                entry.line,
                format!("{} is the host's own network: give it to whatever configures that", entry.key()),
            ),
            key if key.starts_with('$') || key.starts_with('@') => {
                notes.lost(
                    entry.line,
                    format!("{key} is a definition or a condition, which is not followed: write it out"),
                );
            }
            key => notes.lost(entry.line, format!("{key} is not known here")),
        }
    }
    old
}

fn global(entry: &Entry, old: &mut Old, notes: &mut Notes) {
    for entry in entry.entries() {
        match entry.key() {
            "router_id" => old.router_id = entry.value().map(str::to_owned),
            "vrrp_startup_delay" => old.startup_delay = seconds(entry, notes),
            "notification_email" | "notification_email_from" | "smtp_server" | "smtp_connect_timeout"
            | "smtp_alert" | "smtp_alert_vrrp" | "smtp_helo_name" | "email_faults" => {
                notes.lost(entry.line, format!("{}: mail is not sent; use a hook, or webhook", entry.key()));
            }
            "script_user" => notes.changed(
                entry.line,
                "scripts run as the agent's user, root: begin the command with runuser -u USER -- to be another",
            ),
            "enable_script_security" => notes.changed(
                entry.line,
                "see yourself that scripts, and the directories they are in, can be written by root alone",
            ),
            "enable_snmp_vrrp" | "enable_snmp_keepalived" | "enable_snmp_checker" | "enable_snmp_rfc"
            | "enable_traps" | "enable_dbus" => {
                notes.lost(entry.line, format!("{}: use `vip-ctl metrics` or the agent's HTTP API", entry.key()));
            }
            // About VRRP's packets and keepalived's own processes.
            key if key.starts_with("vrrp_") || key.starts_with("checker_") || key.starts_with("bfd_") => {}
            "process_names" | "default_interface" | "lvs_sync_daemon" | "lvs_flush" | "use_pid_dir"
            | "dynamic_interfaces" | "instance" | "net_namespace" | "max_auto_priority" => {
                notes.lost(entry.line, format!("{} is keepalived's own", entry.key()));
            }
            key => notes.lost(entry.line, format!("{key} is not known here")),
        }
    }
}

fn instance(entry: &Entry, notes: &mut Notes) -> Instance {
    let mut instance = Instance { line: entry.line, name: entry.rest(), ..Instance::default() };
    for entry in entry.entries() {
        match entry.key() {
            "state" => {}
            "interface" => instance.interface = entry.value().map(str::to_owned),
            "priority" => {
                instance.priority = number(entry, notes).map(|value| Lined { line: entry.line, value });
            }
            "advert_int" => {
                instance.advert_int = seconds(entry, notes).map(|value| Lined { line: entry.line, value });
            }
            "unicast_src_ip" | "mcast_src_ip" => instance.own = entry.value().map(str::to_owned),
            "unicast_peer" => instance.peers.extend(
                entry.entries().iter().map(|peer| Lined { line: peer.line, value: peer.key().to_owned() }),
            ),
            "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                instance
                    .vips
                    .extend(entry.entries().iter().map(|vip| address(vip, &mut instance.common, notes)));
            }
            "nopreempt" => instance.no_preempt = true,
            "preempt_delay" => instance.preempt_delay = seconds(entry, notes),
            _ if common(entry, &mut instance.common, notes) => {}
            key => other(key, entry, notes),
        }
    }
    instance
}

/// A VIP's line: `ADDRESS[/LENGTH] [dev IFACE] [label L] [scope S]`.
fn address(entry: &Entry, common: &mut Common, notes: &mut Notes) -> Lined<String> {
    let mut words = entry.words.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "dev" => {
                if let Some(device) = words.next() {
                    common.interfaces.push(device.to_owned());
                    notes.changed(
                        entry.line,
                        format!("{} was put on {device}: here it is on lo, and answered on every interface of [node]", entry.key()),
                    );
                }
            }
            // What an address on an interface can have, and one on lo need not.
            "brd" | "label" | "scope" | "peer" | "metric" | "track_group" => {
                words.next();
            }
            _ => {}
        }
    }
    Lined { line: entry.line, value: entry.key().to_owned() }
}

fn sync_group(entry: &Entry, notes: &mut Notes) -> SyncGroup {
    let mut group = SyncGroup { line: entry.line, name: entry.rest(), ..SyncGroup::default() };
    for entry in entry.entries() {
        match entry.key() {
            "group" => group.members.extend(entry.entries().iter().flat_map(|members| {
                members.words.iter().map(|member| Lined { line: members.line, value: member.clone() })
            })),
            "global_tracking" | "sync_group_tracking_weight" => {
                notes.lost(
                    entry.line,
                    format!("{}: a check counts for the whole group, without a weight", entry.key()),
                );
            }
            _ if common(entry, &mut group.common, notes) => {}
            key => other(key, entry, notes),
        }
    }
    group
}

/// Reads what instances and sync groups share; false if it is none of that.
fn common(entry: &Entry, common: &mut Common, notes: &mut Notes) -> bool {
    match entry.key() {
        "track_script" => {
            for script in entry.entries() {
                weight(script, notes);
                common.scripts.push(Lined { line: script.line, value: script.key().to_owned() });
            }
        }
        "track_interface" => {
            for interface in entry.entries() {
                weight(interface, notes);
                common.interfaces.push(interface.key().to_owned());
            }
        }
        key => {
            let Some(known) = NOTIFY.iter().find(|known| **known == key) else { return false };
            common.notify.insert(known, command(&entry.rest()));
        }
    }
    true
}

/// A weight changes the priority; here it is a matter of yes or no.
fn weight(entry: &Entry, notes: &mut Notes) {
    let weight = entry.words.iter().skip_while(|word| *word != "weight").nth(1);
    if weight.is_some_and(|weight| weight != "0") {
        notes.changed(
            entry.line,
            format!("{} has a weight: here a node that fails it does not hold the group at all", entry.key()),
        );
    }
}

fn other(key: &str, entry: &Entry, notes: &mut Notes) {
    if let Some((_, why)) = LOST.iter().find(|(lost, _)| *lost == key) {
        notes.lost(entry.line, format!("{key}: {why}"));
    } else if !NEEDLESS.contains(&key) {
        notes.lost(entry.line, format!("{key} is not known here"));
    }
}

fn script(entry: &Entry, notes: &mut Notes) -> Script {
    let mut script = Script::default();
    for entry in entry.entries() {
        match entry.key() {
            "script" => script.script = entry.rest(),
            "interval" => script.interval = seconds(entry, notes),
            "timeout" => script.timeout = seconds(entry, notes),
            "rise" => script.rise = number(entry, notes),
            "fall" => script.fall = number(entry, notes),
            "weight" => {
                if entry.value() != Some("0") {
                    notes.changed(
                        entry.line,
                        "the script has a weight: here a node that fails it does not hold the group at all",
                    );
                }
            }
            "user" => notes.changed(
                entry.line,
                "the script runs as the agent's user, root: begin the command with runuser -u USER -- to be another",
            ),
            "init_fail" => notes.changed(entry.line, "init_fail: a node holds nothing until its checks have passed"),
            key => notes.lost(entry.line, format!("{key} is not known here")),
        }
    }
    script
}

fn number(entry: &Entry, notes: &mut Notes) -> Option<u32> {
    let number = entry.value().and_then(|value| value.parse().ok());
    if number.is_none() {
        notes.lost(entry.line, format!("{} {} is no number", entry.key(), entry.rest()));
    }
    number
}

fn seconds(entry: &Entry, notes: &mut Notes) -> Option<f64> {
    let seconds =
        entry.value().and_then(|value| value.parse().ok()).filter(|s: &f64| s.is_finite() && *s >= 0.0);
    if seconds.is_none() {
        notes.lost(entry.line, format!("{} {} is no number of seconds", entry.key(), entry.rest()));
    }
    seconds
}

/// The words of a command; through a shell if it is made for one.
pub(super) fn command(text: &str) -> Vec<String> {
    if text.contains(|c: char| "|&;<>$`*?()~".contains(c)) {
        return vec!["/bin/sh".into(), "-c".into(), text.to_owned()];
    }
    text.split_whitespace().map(str::to_owned).collect()
}
