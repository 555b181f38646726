//! What the lines of a `keepalived.conf` mean, and which of them mean nothing here.

use std::collections::BTreeMap;

use super::{
    Notes,
    command::{Command, User, other_user},
    garp::Garp,
    tree::{self, Entry},
};

/// A line's number and what was read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lined<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Everything that was understood of the old file.
#[derive(Clone, Debug, Default)]
pub(super) struct Old {
    pub(super) router_id: Option<Lined<String>>,
    pub(super) startup_delay: Option<Lined<f64>>,
    /// How VIPs are announced, where an instance does not say so.
    pub(super) garp: Garp,
    /// The interface of addresses that name none.
    pub(super) default_interface: Option<String>,
    /// Does the file name the user for scripts?
    pub(super) has_script_user: bool,
    pub(super) instances: Vec<Instance>,
    pub(super) sync_groups: Vec<SyncGroup>,
    pub(super) scripts: BTreeMap<String, Script>,
}

/// A `vrrp_instance`.
#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    pub(super) line: usize,
    pub(super) name: String,
    /// The interface of VRRP, and of addresses that name no other.
    pub(super) interface: Option<Lined<String>>,
    /// A failure of the interface does not count.
    pub(super) ignores_interface: bool,
    pub(super) is_master: bool,
    pub(super) priority: Option<Lined<u32>>,
    /// Seconds.
    pub(super) advert_int: Option<Lined<f64>>,
    pub(super) own: Option<String>,
    pub(super) peers: Vec<Lined<String>>,
    pub(super) vips: Vec<Vip>,
    pub(super) no_preempt: bool,
    /// Seconds.
    pub(super) preempt_delay: Option<Lined<f64>>,
    /// The VIPs' MAC moves with them, as this line says.
    pub(super) use_vmac: Option<usize>,
    pub(super) router_id: Option<u32>,
    /// How its VIPs are announced.
    pub(super) garp: Garp,
    pub(super) common: Common,
}

/// An address that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    pub(super) line: usize,
    /// As the file has it, with its prefix length.
    pub(super) text: String,
    /// The interface that it names.
    pub(super) device: Option<String>,
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
    pub(super) notify: BTreeMap<&'static str, Command>,
}

/// A `vrrp_script`.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) line: usize,
    pub(super) command: Option<Command>,
    /// Seconds.
    pub(super) interval: Option<Lined<f64>>,
    /// Seconds.
    pub(super) timeout: Option<Lined<f64>>,
    pub(super) rise: Option<Lined<u32>>,
    pub(super) fall: Option<Lined<u32>>,
    /// The script's result counts the other way round.
    pub(super) is_reverse: bool,
    /// The user that it runs as.
    pub(super) user: Option<User>,
}

/// Hooks that have a counterpart.
const NOTIFY: &[&str] = &["notify_master", "notify_backup", "notify_fault", "notify_stop", "notify"];

/// Keys of an instance that have no counterpart, and why.
const LOST: &[(&str, &str)] = &[
    ("authentication", "nodes are told apart by the cluster's key, which is not sent: `vip-ctl keygen`"),
    ("virtual_routes", "routes are not moved: put them on every node, once"),
    ("virtual_rules", "routing rules are not moved: put them on every node, once"),
    ("track_bfd", "vip does not use BFD: a node that is cut off loses its lease by itself"),
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
    ("no_accept", "the VIP is an address of lo here, and takes what comes for it"),
    ("notify_priority_changes", "a priority does not change by itself here"),
    ("vrf", "the data plane is on the interfaces of [node], whatever VRF they are in"),
    ("use_ipvlan", "nothing is put on an interface"),
];

/// Keys of an instance that need no counterpart: it is so anyway, or they are
/// about VRRP's own packets, which vip does not send.
const NEEDLESS: &[&str] = &[
    "accept",
    "check_unicast_src",
    "debug",
    "down_timer_adverts",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "garp_extra_if",
    "garp_master_refresh_repeat",
    "higher_prio_send_advert",
    "kernel_rx_buf_size",
    "linkbeat_use_polling",
    "lower_prio_no_advert",
    "mcast_dst_ip",
    "native_ipv6",
    "no_virtual_ipaddress",
    "old_unicast_checksum",
    "owner_ignore_adverts",
    "preempt",
    "promote_secondaries",
    "skip_check_adv_addr",
    "strict_mode",
    "thread_timer_expired",
    "timer_expired_backup",
    "track_src_ip",
    "unicast_fault_no_peer",
    "unicast_ttl",
    "v3_checksum_as_v2",
    "version",
    "vmac_xmit_base",
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
            "static_ipaddress" | "static_routes" | "static_rules" | "static_track_group" | "track_group" => {
                notes.lost(
                    entry.line,
                    format!("{} is the host's own network: give it to whatever configures that", entry.key()),
                );
            }
            // About VRRP's packets.
            "garp_group" | "linkbeat_interfaces" | "linkbeat_use_polling" => {}
            "interface_up_down_delays" => notes.lost(
                entry.line,
                "interface_up_down_delays: an interface without a carrier counts at once, and so does one that has it again",
            ),
            "net_namespace" => notes.lost(
                entry.line,
                format!("net_namespace {}: start the agent in it, by its unit's NetworkNamespacePath=", entry.rest()),
            ),
            key => other(key, entry, notes),
        }
    }
    old
}

/// Handles a line of keepalived's language rather than its configuration; false
/// if the line is not one.
fn preprocessed(key: &str, entry: &Entry, notes: &mut Notes) -> bool {
    if let Some((name, value)) = tree::definition(key) {
        let whole = std::iter::once(value).chain(entry.words.iter().skip(1).map(String::as_str));
        let whole = whole.collect::<Vec<_>>().join(" ");
        notes.changed(entry.line, format!("${name} is written out as {whole} wherever it is used"));
        return true;
    }
    if key.starts_with(['$', '@', '~']) {
        notes.lost(
            entry.line,
            format!("{key} is a definition or a condition, which vip-ctl does not follow: write it out"),
        );
        return true;
    }
    false
}

fn global(entry: &Entry, old: &mut Old, notes: &mut Notes) {
    for entry in entry.entries() {
        match entry.key() {
            "router_id" => old.router_id = lined(entry),
            "vrrp_startup_delay" => old.startup_delay = seconds(entry, notes),
            "vrrp_delay_after_boot" => notes.lost(
                entry.line,
                "vrrp_delay_after_boot: startup_delay under [node] is a delay after each start of the agent",
            ),
            "default_interface" => old.default_interface = entry.value().and_then(|name| device(entry, name, notes)),
            "notification_email" | "notification_email_from" | "smtp_server" | "smtp_connect_timeout"
            | "smtp_alert" | "smtp_alert_vrrp" | "smtp_helo_name" | "email_faults" => {
                notes.lost(entry.line, format!("{}: mail is not sent; use a hook, or webhook", entry.key()));
            }
            "script_user" => {
                old.has_script_user = true;
                if let Some(user) = User::of(entry.line, entry.words.get(1..).unwrap_or_default()) {
                    other_user("what names no user of its own", &user, notes);
                }
            }
            "notify_fifo" | "notify_fifo_script" | "vrrp_notify_fifo" | "vrrp_notify_fifo_script" => notes.lost(
                entry.line,
                format!(
                    "{}: there is no FIFO; follow `vip-ctl events --follow -o json`, or use hooks or webhook",
                    entry.key()
                ),
            ),
            "startup_script" | "shutdown_script" => notes.lost(
                entry.line,
                format!("{}: use ExecStartPre= or ExecStopPost= of the agent's unit", entry.key()),
            ),
            "startup_script_timeout" | "shutdown_script_timeout" => {}
            "enable_script_security" => notes.changed(
                entry.line,
                "see yourself that scripts, and the directories they are in, can be written by root alone",
            ),
            "enable_snmp_vrrp" | "enable_snmp_keepalived" | "enable_snmp_checker" | "enable_snmp_rfc"
            | "enable_traps" | "enable_dbus" => {
                notes.lost(entry.line, format!("{}: use `vip-ctl metrics` or the agent's HTTP API", entry.key()));
            }
            key if key.strip_prefix("vrrp_").is_some_and(|key| old.garp.read(key, entry, notes)) => {}
            // About VRRP's packets and keepalived's own processes.
            key if key.starts_with("vrrp_") || key.starts_with("checker_") || key.starts_with("bfd_") => {}
            "process_names" | "lvs_sync_daemon" | "lvs_flush" | "use_pid_dir"
            | "dynamic_interfaces" | "instance" | "net_namespace" | "max_auto_priority" => {
                notes.lost(entry.line, format!("{} is keepalived's own", entry.key()));
            }
            key => other(key, entry, notes),
        }
    }
}

fn instance(entry: &Entry, notes: &mut Notes) -> Instance {
    let mut instance = Instance { line: entry.line, name: entry.rest(), ..Instance::default() };
    for entry in entry.entries() {
        match entry.key() {
            "state" => instance.is_master = entry.value() == Some("MASTER"),
            "interface" => {
                let name = entry.value().and_then(|name| device(entry, name, notes));
                instance.interface = name.map(|value| Lined { line: entry.line, value });
            }
            "dont_track_primary" => instance.ignores_interface = true,
            "priority" => instance.priority = number(entry, notes),
            "advert_int" => instance.advert_int = seconds(entry, notes),
            "unicast_src_ip" | "mcast_src_ip" => instance.own = entry.value().map(str::to_owned),
            "unicast_peer" => instance.peers.extend(
                entry.entries().iter().map(|peer| Lined { line: peer.line, value: peer.key().to_owned() }),
            ),
            "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                instance.vips.extend(entry.entries().iter().map(|entry| vip(entry, notes)));
            }
            "nopreempt" => instance.no_preempt = true,
            "preempt_delay" => instance.preempt_delay = seconds(entry, notes),
            "use_vmac" | "use_vmac_addr" => instance.use_vmac = Some(entry.line),
            "virtual_router_id" => instance.router_id = number(entry, notes).map(|id| id.value),
            _ if common(entry, &mut instance.common, notes) => {}
            key if instance.garp.read(key, entry, notes) => {}
            key => other(key, entry, notes),
        }
    }
    instance
}

/// A VIP's line: `ADDRESS[/LENGTH] [dev IFACE] [label L] [scope S]`. A VIP on lo
/// needs none of the other options that an address on an interface can have.
fn vip(entry: &Entry, notes: &mut Notes) -> Vip {
    let after = |keyword: &str| entry.words.iter().skip_while(|word| *word != keyword).nth(1);
    let mut device = after("dev").and_then(|name| device(entry, name, notes));
    // Then a route to the host leads to it, by whatever interface that route has.
    if device.as_deref() == Some("lo") {
        device = None;
        notes.changed(
            entry.line,
            format!("{} was put on lo: here it is answered for on the interfaces of [node]", entry.key()),
        );
    }
    Vip { line: entry.line, text: entry.key().to_owned(), device }
}

/// An interface, also by the name of an alias of it, such as `eth0:1`. `None` for
/// a definition that is not in this file.
fn device(entry: &Entry, name: &str, notes: &mut Notes) -> Option<String> {
    if name.contains('$') {
        notes.lost(entry.line, format!("the interface {name} is not defined in this file"));
        return None;
    }
    Some(name.split(':').next().unwrap_or(name).to_owned())
}

fn lined(entry: &Entry) -> Option<Lined<String>> {
    entry.value().map(|value| Lined { line: entry.line, value: value.to_owned() })
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

/// Reads a key that instances and sync groups share; false if it is none of
/// those.
fn common(entry: &Entry, common: &mut Common, notes: &mut Notes) -> bool {
    match entry.key() {
        "track_script" => {
            for script in entry.entries().iter().filter(|script| weight(script, notes)) {
                common.scripts.push(Lined { line: script.line, value: script.key().to_owned() });
            }
        }
        "track_interface" => {
            for interface in entry.entries() {
                let device = device(interface, interface.key(), notes);
                if device.is_some() && weight(interface, notes) {
                    common.interfaces.extend(device);
                }
            }
        }
        key => {
            let Some(known) = NOTIFY.iter().find(|known| **known == key) else { return false };
            if let Some(command) = Command::of_notify(entry, notes) {
                common.notify.insert(known, command);
            }
        }
    }
    true
}

/// A weight changes the priority; here a check only says yes or no. False for a
/// reversed weight, which has no counterpart.
fn weight(entry: &Entry, notes: &mut Notes) -> bool {
    if entry.words.iter().any(|word| word == "reverse") {
        notes.lost(
            entry.line,
            format!("{} counts in reverse: write a check that passes when it does not", entry.key()),
        );
        return false;
    }
    let weight = entry.words.iter().skip_while(|word| *word != "weight").nth(1);
    if weight.is_some_and(|weight| weight != "0") {
        notes.changed(
            entry.line,
            format!("{} has a weight: here a node that fails it does not hold the group at all", entry.key()),
        );
    }
    true
}

fn other(key: &str, entry: &Entry, notes: &mut Notes) {
    if preprocessed(key, entry, notes) {
        return;
    }
    if let Some((_, why)) = LOST.iter().find(|(lost, _)| *lost == key) {
        notes.lost(entry.line, format!("{key}: {why}"));
    } else if !NEEDLESS.contains(&key) {
        notes.lost(entry.line, format!("{key} is not known here"));
    }
}

fn script(entry: &Entry, notes: &mut Notes) -> Script {
    let mut script = Script { line: entry.line, ..Script::default() };
    for entry in entry.entries() {
        match entry.key() {
            "script" => script.command = Command::of_script(entry, notes),
            "interval" => script.interval = seconds(entry, notes),
            "timeout" => script.timeout = seconds(entry, notes),
            "rise" => script.rise = number(entry, notes),
            "fall" => script.fall = number(entry, notes),
            "weight" => {
                script.is_reverse = entry.words.iter().any(|word| word == "reverse");
                if entry.value() != Some("0") && !script.is_reverse {
                    notes.changed(
                        entry.line,
                        "the script has a weight: here a node that fails it does not hold the group at all",
                    );
                }
            }
            "user" => {
                script.user = User::of(entry.line, entry.words.get(1..).unwrap_or_default());
            }
            "init_fail" => {
                notes.changed(entry.line, "init_fail: a node holds nothing until its checks have passed")
            }
            key => other(key, entry, notes),
        }
    }
    script
}

pub(super) fn number(entry: &Entry, notes: &mut Notes) -> Option<Lined<u32>> {
    let number = entry.value().and_then(|value| value.parse().ok());
    if number.is_none() {
        notes.lost(entry.line, format!("{} {} is no number", entry.key(), entry.rest()));
    }
    number.map(|value| Lined { line: entry.line, value })
}

pub(super) fn seconds(entry: &Entry, notes: &mut Notes) -> Option<Lined<f64>> {
    let seconds =
        entry.value().and_then(|value| value.parse().ok()).filter(|s: &f64| s.is_finite() && *s >= 0.0);
    if seconds.is_none() {
        notes.lost(entry.line, format!("{} {} is no number of seconds", entry.key(), entry.rest()));
    }
    seconds.map(|value| Lined { line: entry.line, value })
}
