//! Files as people have them, written for these tests, and what becomes of them.

use std::path::Path;

use super::*;
use crate::config::Config;

const PAIR: &str = include_str!("pair.conf");
const SYNC: &str = include_str!("sync.conf");
const ODD: &str = include_str!("odd.conf");

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

/// What a person does with the result: other addresses and priorities, and no
/// line that only says what to fill in.
fn filled_in(toml: &str, addresses: &[&str]) -> String {
    let mut text = toml.to_owned();
    for address in addresses {
        text = text.replacen("FILL-IN:7077", address, 1);
    }
    text
}

fn parse(toml: &str) -> Result<Config, crate::config::ConfigErrors> {
    Config::parse(toml, Path::new("vip.toml"), "lb-host")
}

#[test]
fn a_pair_of_load_balancers() {
    insta::assert_snapshot!(shown(PAIR));
    let toml = converted(PAIR).toml;
    let refused = parse(&toml).expect_err("it is not filled in").to_string();
    assert!(refused.contains("FILL-IN") && refused.lines().count() == 1, "{refused}");
    let config = parse(&filled_in(&toml, &["192.0.2.13:7077"])).expect("filled in, it is right");
    assert_eq!(config.node_name, "lb-1");
    assert_eq!(config.cluster.nodes.len(), 3);
    assert_eq!(config.groups[0].vips.len(), 2);
    assert_eq!(config.groups[0].priorities["lb-1"], 150);
    assert_eq!(config.groups[0].preempt, Some(std::time::Duration::from_secs(300)));
}

#[test]
fn a_sync_group_of_routers_with_ipvs() {
    insta::assert_snapshot!(shown(SYNC));
    let config = parse(&converted(SYNC).toml).expect("both peers are known, and three nodes need no witness");
    assert_eq!(config.groups.len(), 1, "a sync group is one group");
    assert_eq!(config.groups[0].preempt, None);
    assert_eq!(config.interfaces, ["ens3", "ens4"]);
    assert_eq!(config.startup_delay, std::time::Duration::from_secs(20));
}

#[test]
fn odd_braces_and_next_to_nothing() {
    insta::assert_snapshot!(shown(ODD));
    let toml = converted(ODD).toml;
    let full = filled_in(&toml, &["203.0.113.1:7077", "203.0.113.2:7077", "203.0.113.3:7077"]);
    let config = parse(&full).expect("filled in, it is right");
    assert_eq!(config.node_name, "lb-host", "there is no router_id");
    assert_eq!(config.groups.len(), 2);
    assert_eq!(config.cluster.lease, std::time::Duration::from_millis(50));
}

#[test]
fn a_name_can_be_given() {
    let toml = convert(PAIR, Some("db-a"), "lb-host").expect("converted").toml;
    assert!(toml.contains("name = \"db-a\"") && toml.contains("{ db-a = 150 }"), "{toml}");
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
    fn no_text_brings_it_down(text in "[a-z{}\"#! \\n\\\\]{0,200}") {
        // Refused or converted: it comes back.
        let _ = convert(&text, None, "h");
        let _ = convert(&format!("vrrp_instance a {{\n{text}\n}}"), None, "h");
    }
}
