//! The text of the new configuration, except for its groups. Unknown values get a
//! placeholder that vip refuses until a person fills it in.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    BLANK, ConvertError, Notes, UNKNOWN_INTERFACE, garp,
    group::{self, Group},
    out::{Out, PORT, array, blank_address, quoted, stand_in},
    read::{Instance, Lined, Old},
};
use crate::config::{DELAY_MAX, LEASE_DEFAULT, NAME_LEN_MAX};

/// The shortest lease that a conversion chooses.
const LEASE_SHORT: Duration = Duration::from_millis(50);
/// The `router_id` of keepalived's example, which is in many files.
const ROUTER_ID_COPIED: &str = "LVS_DEVEL";

/// Writes the configuration.
pub(super) fn write(
    old: &Old,
    node: Option<&str>,
    host_name: &str,
    notes: &mut Notes,
) -> Result<Out, ConvertError> {
    let me = own_name(old, node, host_name, notes);
    let groups = group::groups(old, notes);
    if groups.is_empty() {
        let line = old.instances.first().map_or(1, |instance| instance.line);
        return Err(ConvertError {
            line,
            says: "all its VIPs are IPv6, which isn't there yet: leave them to keepalived".into(),
        });
    }
    let mut out = Out::default();
    out.say(None, format!("# Made by `vip-ctl convert`. What it could not know says {BLANK}."));
    let interfaces = this_node(&mut out, old, &groups, &me, notes);
    let others = cluster(&mut out, old, &me, notes);
    untracked(old, notes);
    for group in &groups {
        group::write(&mut out, group, (&me, &others), &interfaces, old, notes);
    }
    Ok(out)
}

/// Notes scripts that nothing tracks.
fn untracked(old: &Old, notes: &mut Notes) {
    let commons = old.instances.iter().map(|instance| &instance.common);
    let commons = commons.chain(old.sync_groups.iter().map(|sync| &sync.common));
    let tracked: BTreeSet<_> = commons.flat_map(|common| &common.scripts).map(|name| &name.value).collect();
    for (name, script) in old.scripts.iter().filter(|(name, _)| !tracked.contains(name)) {
        notes.lost(script.line, format!("no track_script names vrrp_script {name}"));
    }
}

/// This node's name.
fn own_name(old: &Old, node: Option<&str>, host_name: &str, notes: &mut Notes) -> String {
    let spelled = |name: &str| spelled(name, NAME_LEN_MAX, |c| c.is_ascii_alphanumeric());
    if let Some(given) = node {
        let name = spelled(given);
        if name != given {
            notes.add(super::Kind::Changed, None, format!("{given} is called {name} here"));
        }
        return name;
    }
    let Some(Lined { line, value }) = &old.router_id else { return spelled(host_name) };
    if value.eq_ignore_ascii_case(ROUTER_ID_COPIED) {
        let name = spelled(host_name);
        notes.changed(
            *line,
            format!("router_id {value} is that of keepalived's example: this node is called {name}, as the host is; --node gives it another name"),
        );
        return name;
    }
    let name = spelled(value);
    notes.changed(
        *line,
        format!("router_id {value}: this node is called {name}, and each node needs a name of its own; --node gives it another"),
    );
    name
}

/// Writes `[node]`; returns its interfaces: those that had addresses.
fn this_node(out: &mut Out, old: &Old, groups: &[Group<'_>], me: &str, notes: &mut Notes) -> Vec<String> {
    let mut vips: Vec<_> = groups.iter().flat_map(|group| &group.vips).collect();
    vips.sort_by_key(|vip| vip.line);
    let mut interfaces: Vec<String> = Vec::new();
    for device in vips.iter().filter_map(|vip| vip.device.as_ref()) {
        if !interfaces.contains(device) {
            interfaces.push(device.clone());
        }
    }
    if interfaces.is_empty() || vips.iter().any(|vip| vip.device.is_none()) {
        interfaces.push(UNKNOWN_INTERFACE.to_owned());
        notes
            .fill_in(None, "the interface that the VIPs' traffic comes in by: the old file does not name it");
    }
    let from = vips.first().map(|vip| vip.line);
    if let Some(line) = from {
        notes.changed(
            line,
            "VIPs are addresses of lo here, on every node; the lease decides who answers for them on the interfaces of [node]",
        );
    }
    out.say(None, format!("\n[node]\nname = {}", quoted(me)));
    match &interfaces[..] {
        [one] => out.say(from, format!("interface = {}", quoted(one))),
        several => out.say(from, format!("interface = {}", array(several))),
    }
    if let Some(delay) = &old.startup_delay {
        let text = time(delay_of("vrrp_startup_delay", delay, DELAY_MAX, notes));
        out.say(delay.line, format!("startup_delay = {text}"));
    }
    garp::write(out, old, notes);
    interfaces
}

/// Writes `[cluster]`; returns the placeholders for the names of the other nodes.
fn cluster(out: &mut Out, old: &Old, me: &str, notes: &mut Notes) -> Vec<String> {
    out.say(None, "\n[cluster]\nname = \"main\"\nkey_file = \"/etc/vip/cluster.key\"");
    lease(out, old, notes);
    notes.fill_in(
        None,
        "the key: run `vip-ctl keygen /etc/vip/cluster.key` on one node, and copy the file to all others, mode 0600",
    );
    let reached = reached(old, notes);
    if reached.own.is_none() {
        notes.fill_in(None, format!("the address of {me}, by which the other nodes reach its agent"));
    }
    let own = reached.own.as_deref().map_or_else(blank_address, socket);
    out.say(None, format!("[[cluster.node]]\nname = {}\naddress = {}", quoted(me), quoted(&own)));
    let mut others = Vec::new();
    for (number, peer) in (2..).zip(&reached.peers) {
        let name = stand_in(number);
        notes.fill_in(
            peer.line,
            format!("the name of {} ({name} stands for it), and its priority for each group", peer.value),
        );
        let address =
            if peer.value.parse::<IpAddr>().is_ok() { socket(&peer.value) } else { blank_address() };
        let text = format!("[[cluster.node]]\nname = {}\naddress = {}", quoted(&name), quoted(&address));
        out.say(peer.line, text);
        others.push(name);
    }
    if others.is_empty() {
        let name = stand_in(2);
        notes.fill_in(
            None,
            format!(
                "the other node, or nodes: the old file has no unicast_peer; {name} stands for the first of them; its name, its address, and its priority for each group"
            ),
        );
        out.say(
            None,
            format!("[[cluster.node]]\nname = {}\naddress = {}", quoted(&name), quoted(&blank_address())),
        );
        others.push(name);
    }
    let voters = 1 + others.len();
    if voters.is_multiple_of(2) {
        notes.fill_in(
            None,
            "the address of a witness, which only votes: any third host that runs `vip-ctl agent`; without one, see pair mode in docs/lease.md and what it can't do",
        );
        let name = if me == "witness" { "witness-2" } else { "witness" };
        out.say(
            None,
            format!(
                "[[cluster.node]]\nname = {}\naddress = {}\nwitness = true",
                quoted(name),
                quoted(&blank_address())
            ),
        );
    }
    others
}

/// The addresses at which the agents reach each other.
struct Reached<'a> {
    own: Option<String>,
    peers: Vec<&'a Lined<String>>,
}

/// Takes the addresses of one instance: those of another are the same hosts' in
/// another network.
fn reached<'a>(old: &'a Old, notes: &mut Notes) -> Reached<'a> {
    let address = |instance: &Instance| instance.own.clone().filter(|own| own.parse::<IpAddr>().is_ok());
    let Some(chosen) = old.instances.iter().find(|instance| !instance.peers.is_empty()) else {
        return Reached { own: old.instances.iter().find_map(address), peers: Vec::new() };
    };
    let own = address(chosen);
    let mut peers: Vec<&Lined<String>> = Vec::new();
    for peer in &chosen.peers {
        if own.as_ref() == Some(&peer.value) {
            notes.changed(
                peer.line,
                format!("{} is this node's own address, and no other node's", peer.value),
            );
        } else if !peers.iter().any(|known| known.value == peer.value) {
            peers.push(peer);
        }
    }
    for other in old.instances.iter().filter(|other| !std::ptr::eq(*other, chosen)) {
        let new = |peer: &&Lined<String>| chosen.peers.iter().all(|known| known.value != peer.value);
        let unknown: Vec<_> = other.peers.iter().filter(new).collect();
        if let Some(first) = unknown.first() {
            let addresses: Vec<_> = unknown.iter().map(|peer| peer.value.as_str()).collect();
            notes.changed(
                first.line,
                format!(
                    "{}, of {}, is taken for another address of a node that {} names: one is enough; add a [[cluster.node]] if it is another host",
                    addresses.join(", "),
                    other.name,
                    chosen.name
                ),
            );
        }
    }
    Reached { own, peers }
}

fn socket(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") }
}

/// A lease that fails over at least as fast as three adverts did, within limits.
fn lease(out: &mut Out, old: &Old, notes: &mut Notes) {
    let adverts = old.instances.iter().filter_map(|instance| instance.advert_int.as_ref());
    let Some(advert) = adverts.min_by(|a, b| a.value.total_cmp(&b.value)) else {
        out.say(None, format!("lease = {}", quoted(&humantime::format_duration(LEASE_DEFAULT).to_string())));
        return;
    };
    let three = Duration::try_from_secs_f64(advert.value * 3.0).unwrap_or(LEASE_DEFAULT);
    let lease = humantime::format_duration(three.clamp(LEASE_SHORT, LEASE_DEFAULT)).to_string();
    notes.changed(
        advert.line,
        format!(
            "with advert_int {} it took about {} s to take over from a dead node; with lease = \"{lease}\" it takes little more than {lease}",
            advert.value,
            (advert.value * 3600.0).round() / 1000.0,
        ),
    );
    out.say(advert.line, format!("lease = {}", quoted(&lease)));
}

/// A delay within the limit of the configuration.
pub(super) fn delay_of(what: &str, delay: &Lined<f64>, limit: Duration, notes: &mut Notes) -> Duration {
    let written = Duration::try_from_secs_f64(delay.value).unwrap_or(Duration::MAX);
    if written > limit {
        let max = humantime::format_duration(limit);
        notes.changed(delay.line, format!("{what} {} is {max} here: no more can be", delay.value));
    }
    written.min(limit)
}

/// A name in which all invalid characters are replaced.
pub(super) fn spelled(text: &str, len_max: usize, fine: impl Fn(char) -> bool) -> String {
    let name: String =
        text.chars().map(|c| if fine(c) || "-_.".contains(c) { c } else { '-' }).take(len_max).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

/// A time as the configuration has it, in quotes.
pub(super) fn time(duration: Duration) -> String {
    // Millionths are more than anybody wrote.
    let millis = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    quoted(&humantime::format_duration(millis).to_string())
}
