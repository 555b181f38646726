//! Files as people have them, written for these tests, and what becomes of them.

use std::path::Path;

use super::*;
use crate::config::Config;

const PAIR: &str = include_str!("pair.conf");
const SYNC: &str = include_str!("sync.conf");
const ODD: &str = include_str!("odd.conf");
const FIREWALLS: &str = include_str!("firewalls.conf");
const COPIED: &str = include_str!("copied.conf");
const LIMITS: &str = include_str!("limits.conf");

fn converted(text: &str) -> Converted {
    convert(text, None, "lb-host").expect("it has instances")
}

/// The result as one text.
fn shown(text: &str) -> String {
    let converted = converted(text);
    let mut out = converted.toml;
    out.push('\n');
    for note in &converted.notes {
        let line = note.line.map_or("-".to_owned(), |line| line.to_string());
        out.push_str(&format!("{line}: {}: {}\n", note.kind.name(), note.says));
    }
    out
}

/// What a person does with the result: names, addresses and priorities.
fn filled_in(toml: &str, addresses: &[&str]) -> String {
    let mut text = toml.replace("\"FILL-IN:node-", "\"other-").replace("\" = \"FILL-IN\"", "\" = 90");
    for address in addresses {
        text = text.replacen("FILL-IN:7077", address, 1);
    }
    text
}

fn parse(toml: &str) -> Result<Config, crate::config::ConfigErrors> {
    Config::parse(toml, Path::new("vip.toml"), "lb-host")
}

/// The lines that `parse` refuses in the converted file: a person has to fill each of them in.
fn to_fill_in(toml: &str) -> Vec<String> {
    let errors = parse(toml).expect_err("it is not filled in");
    let lines: Vec<_> = errors.errors().iter().map(|error| error.line.clone()).collect();
    assert!(lines.iter().all(|line| line.contains("FILL-IN")), "{errors}");
    lines
}

#[test]
fn a_pair_of_load_balancers() {
    insta::assert_snapshot!(shown(PAIR));
    let toml = converted(PAIR).toml;
    assert_eq!(to_fill_in(&toml).len(), 3, "a name, the witness, and a priority");
    let config = parse(&filled_in(&toml, &["192.0.2.13:7077"])).expect("filled in, it is right");
    assert_eq!(config.node_name, "lb-1");
    assert_eq!(config.cluster.nodes.len(), 3);
    assert_eq!(config.groups[0].vips.len(), 2);
    assert_eq!(config.groups[0].priorities["lb-1"], 150);
    assert_eq!(config.groups[0].priorities["other-2"], 90);
    assert_eq!(config.groups[0].preempt, Some(std::time::Duration::from_secs(300)));
}

#[test]
fn a_sync_group_of_routers_with_ipvs() {
    insta::assert_snapshot!(shown(SYNC));
    let toml = converted(SYNC).toml;
    assert_eq!(to_fill_in(&toml).len(), 4, "two names, and their priorities");
    let config =
        parse(&filled_in(&toml, &[])).expect("both peers are known, and three nodes need no witness");
    assert_eq!(config.groups.len(), 1, "a sync group is one group");
    assert_eq!(config.groups[0].preempt, None);
    assert_eq!(config.interfaces, ["ens3", "ens4"]);
    assert_eq!(config.startup_delay, std::time::Duration::from_secs(20));
}

#[test]
fn odd_braces_and_next_to_nothing() {
    insta::assert_snapshot!(shown(ODD));
    let toml = converted(ODD).toml;
    to_fill_in(&toml);
    let full = filled_in(&toml, &["203.0.113.1:7077", "203.0.113.2:7077", "203.0.113.3:7077"]);
    let config = parse(&full).expect("filled in, it is right");
    assert_eq!(config.node_name, "lb-host", "there is no router_id");
    assert_eq!(config.groups.len(), 2);
    assert_eq!(config.cluster.lease, std::time::Duration::from_millis(50));
}

#[test]
fn firewalls_with_two_nets_and_a_cable_between_them() {
    insta::assert_snapshot!(shown(FIREWALLS));
    let toml = converted(FIREWALLS).toml;
    assert_eq!(to_fill_in(&toml).len(), 4, "a name, the witness, and a priority for each group");
    let config = parse(&filled_in(&toml, &["198.51.100.14:7077"])).expect("filled in, it is right");
    assert_eq!(config.interfaces, ["eth0", "eth1"], "where the addresses were, by their aliases too");
    assert_eq!(config.cluster.nodes.len(), 3, "one peer in two nets is one node, and there is a witness");
    assert_eq!(config.groups[0].health.track_interface, ["eth2"]);
    assert_eq!(config.groups[1].health.track_interface, ["eth2", "ppp0"]);
}

#[test]
fn the_example_that_everybody_copies() {
    insta::assert_snapshot!(shown(COPIED));
    let toml = converted(COPIED).toml;
    to_fill_in(&toml);
    let addresses = ["203.0.113.1:7077", "203.0.113.2:7077", "203.0.113.3:7077"];
    let full = filled_in(&toml, &addresses).replace("FILL-IN/", "/usr/local/bin/");
    let config = parse(&full).expect("filled in, it is right");
    assert_eq!(config.node_name, "lb-host", "LVS_DEVEL is nobody's name");
    assert_eq!(config.groups.len(), 1, "an instance of IPv6 alone is left out");
    assert_eq!(config.groups[0].vips.len(), 3, "one is there twice");
}

#[test]
fn what_is_out_of_range_or_missing() {
    insta::assert_snapshot!(shown(LIMITS));
    let Converted { toml, notes } = converted(LIMITS);
    let mends: Vec<_> = notes.iter().filter(|note| note.kind == Kind::Mend).collect();
    let full = filled_in(&toml, &["203.0.113.2:7077", "203.0.113.3:7077"]).replace("FILL-IN:iface", "eth0");
    let errors = parse(&full).expect_err("it is to be mended");
    assert_eq!(errors.errors().len(), mends.len(), "what is refused is told: {errors}\n{mends:#?}");
}

#[test]
fn all_its_addresses_are_of_ipv6() {
    let text = "vrrp_instance six {\n interface eth0\n virtual_ipaddress {\n 2001:db8::1/64\n }\n}\n";
    let error = convert(text, None, "h").expect_err("there is nothing to carry over");
    let expected = "1: all its VIPs are IPv6, which isn't there yet: leave them to keepalived";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn stand_ins_are_not_taken_for_names() {
    let toml = |name: &str| convert(PAIR, Some(name), "lb-host").expect("converted").toml;
    for name in ["node-2", "witness", "lb-1"] {
        let config = parse(&filled_in(&toml(name), &["192.0.2.13:7077"]));
        let config = config.unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert_eq!((config.node_name.as_str(), config.cluster.nodes.len()), (name, 3));
    }
}

#[test]
fn peers_are_other_nodes_each_once() {
    let peers = "        192.0.2.11\n        192.0.2.12\n        192.0.2.12\n";
    let text = PAIR.replace("        192.0.2.12\n", peers);
    let config = parse(&filled_in(&converted(&text).toml, &["192.0.2.13:7077"])).expect("filled in");
    let mut addresses: Vec<_> = config.cluster.nodes.iter().map(|node| node.address.to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, ["192.0.2.11:7077", "192.0.2.12:7077", "192.0.2.13:7077"]);
}

#[test]
fn more_than_can_be_is_told_at_once() {
    let script = |n: usize| format!("vrrp_script s{n} {{\n script \"/bin/s{n}\"\n}}\n");
    let scripts: String = (0..40).map(script).collect();
    let tracked: String = (0..40).map(|n| format!("s{n}\n")).collect();
    let text = format!(
        "{scripts}vrrp_instance a {{\ninterface e\nvirtual_ipaddress {{\n10.0.0.1\n}}\ntrack_script {{\n{tracked}}}\n}}"
    );
    let notes = converted(&text).notes;
    let mend = notes.iter().find(|note| note.kind == Kind::Mend).expect("32 checks can be");
    assert!(mend.says.contains("40 checks are too many"), "{mend:?}");
    assert_eq!(mend.line, Some(97), "at the first script that is too much");
}

#[test]
fn definitions_and_long_lines_are_followed() {
    let text = "$NET=192.0.2\n$VIP=$NET.7/24\nvrrp_instance a {\n interface \\\n  eth3\n virtual_ipaddress {\n  \
                ${VIP} dev ${UNKNOWN}\n  $VIP dev eth1 # not $NET\n }\n priority 10\n}\n";
    let Converted { toml, notes } = converted(text);
    assert!(toml.contains("vips = [\"192.0.2.7/24\"]"), "{toml}");
    let says: Vec<_> = notes.iter().map(|note| (note.line, note.says.as_str())).collect();
    for expected in [
        (Some(1), "$NET is written out as 192.0.2 wherever it is used"),
        (Some(2), "$VIP is written out as 192.0.2.7/24 wherever it is used"),
        (Some(8), "192.0.2.7 is in a already, in line 7"),
    ] {
        assert!(says.contains(&expected), "{expected:?} is not in {says:#?}");
    }
    // A definition of definitions does not grow without a limit.
    let doubled: String = (1..100).map(|n| format!("$A{n}=$A{}$A{}\n", n - 1, n - 1)).collect();
    let instance = "vrrp_instance a {\n virtual_ipaddress {\n 10.0.0.1\n }\n}\n";
    assert!(convert(&format!("$A0=xxxxxxxx\n{doubled}{instance}"), None, "h").is_ok());
}

#[test]
fn a_name_can_be_given() {
    let toml = convert(PAIR, Some("db-a"), "lb-host").expect("converted").toml;
    assert!(toml.contains("name = \"db-a\"") && toml.contains("{ db-a = 150, "), "{toml}");
}

#[test]
fn nothing_of_the_old_file_goes_without_a_word() {
    // Every top-level block and every key that is not about VRRP's own packets.
    for (text, word) in
        [(SYNC, "include"), (SYNC, "virtual_server"), (SYNC, "a_key_of_tomorrow"), (SYNC, "$VLAN")]
    {
        let line =
            text.lines().position(|line| line.contains(word) || line.contains("include")).map(|at| at + 1);
        let notes = converted(text).notes;
        let found =
            notes.iter().any(|note| note.says.contains(word) || (word == "include" && note.line == line));
        assert!(found, "nothing is said of {word}: {notes:#?}");
    }
}

#[test]
fn what_is_none_of_keepalived_is_refused_with_its_line() {
    let refused = |text: &str| convert(text, None, "h").expect_err("refused").to_string();
    assert_eq!(
        refused("global_defs {\n}\n"),
        "1: there is no vrrp_instance in it, and so no VIP: name the file that has one"
    );
    assert_eq!(refused("vrrp_instance a {\n  priority 1\n"), "1: this { is never closed: add the }");
    assert_eq!(refused("a\n}\n"), "2: this } closes nothing: remove it");
    assert_eq!(refused("\n{ a }\n"), "2: this { belongs to nothing: write a keyword before it");
    assert_eq!(refused("a \"b\n"), "1: a quote is never closed: add it");
    assert!(refused(&"a {".repeat(100)).contains("too deeply"));
}

proptest::proptest! {
    #[test]
    fn no_text_brings_it_down(text in "[a-z{}\"#!$'= \\n\\\\]{0,200}") {
        // `convert` may refuse the text, but must return.
        let _ = convert(&text, None, "h");
        let _ = convert(&format!("vrrp_instance a {{\n{text}\n}}"), None, "h");
    }

    #[test]
    fn what_is_refused_when_it_is_filled_in_is_told(
        interface in "[a-z0-9:]{0,20}",
        vips in proptest::collection::vec("(10\\.0\\.0\\.[0-9]|224\\.0\\.0\\.1|x|::1)( dev [a-z:1]{1,17})?", 0..4),
        numbers in proptest::collection::vec("(0|1|0\\.01|5|5000|100000|-3|x)", 6),
        script in "[a-z/ '\"\\\\<>|&-]{0,30}",
        tracked in "[a-z0-9:]{1,18}",
    ) {
        let vips = vips.join("\n");
        let [interval, timeout, fall, priority, delay, advert] = &numbers[..] else { unreachable!("six") };
        let text = format!(
            "vrrp_script s {{\nscript {script}\ninterval {interval}\ntimeout {timeout}\nfall {fall}\n}}\n\
             vrrp_instance A {{\ninterface {interface}\npriority {priority}\npreempt_delay {delay}\n\
             advert_int {advert}\nunicast_src_ip 10.0.0.1\nunicast_peer {{\n10.0.0.2\n}}\n\
             virtual_ipaddress {{\n{vips}\n}}\ntrack_script {{\ns\n}}\ntrack_interface {{\n{tracked}\n}}\n\
             notify_master {script}\n}}\n"
        );
        if let Ok(Converted { toml, notes }) = convert(&text, None, "h") {
            // No agent accepts the converted file before a person has filled it in.
            proptest::prop_assert!(parse(&toml).is_err(), "{toml}");
            let full = super::out::filled_in(&toml);
            let errors = parse(&full).err();
            let refused = errors.as_ref().map_or(0, |errors| errors.errors().len());
            let told = notes.iter().filter(|note| note.kind == Kind::Mend).count();
            proptest::prop_assert_eq!(refused, told, "{}\n{:?}", full, errors);
        }
    }
}
