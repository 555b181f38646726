//! `virtual_mac` of a group.

use super::*;
use crate::config::tests::refused::errors;

/// With this line in the group db.
fn with(line: &str) -> String {
    edited(&[("preempt = false", line)])
}

fn macs(text: &str) -> Vec<Option<[u8; 6]>> {
    good(text).groups.iter().map(|group| group.virtual_mac).collect()
}

#[test]
fn a_written_one_is_vrrps_or_local() {
    for (text, mac) in [
        ("00:00:5e:00:01:33", [0, 0, 0x5e, 0, 1, 0x33]),
        ("00-00-5E-00-01-FF", [0, 0, 0x5e, 0, 1, 0xff]),
        ("02:00:00:00:00:01", [2, 0, 0, 0, 0, 1]),
        ("fe:00:00:00:00:01", [0xfe, 0, 0, 0, 0, 1]),
    ] {
        assert_eq!(macs(&with(&format!("virtual_mac = \"{text}\""))), [None, Some(mac)]);
    }
    assert_eq!(macs(&with("")), [None, None]);
}

#[test]
fn others_are_refused() {
    let found = |written: &str| errors(&with(&format!("virtual_mac = {written}")));
    insta::assert_snapshot!(found("\"52:54:00\""), @r#"vip.toml:24:15: "52:54:00" is no hardware address: write "auto", or one such as "00:00:5e:00:01:33""#);
    insta::assert_snapshot!(found("\"03:00:00:00:00:01\""), @r#"vip.toml:24:15: the virtual_mac 03:00:00:00:00:01 is that of a group of hosts: write "auto""#);
    insta::assert_snapshot!(found("\"00:1b:21:00:00:01\""), @r#"vip.toml:24:15: the virtual_mac 00:1b:21:00:00:01 may be that of a card: write "auto", one of VRRP's range (00:00:5e:00:01:01 to :ff), or a locally administered one, such as 02:00:00:00:00:01"#);
    insta::assert_snapshot!(found("\"00:00:5e:00:01:00\""), @r#"vip.toml:24:15: the virtual_mac 00:00:5e:00:01:00 may be that of a card: write "auto", one of VRRP's range (00:00:5e:00:01:01 to :ff), or a locally administered one, such as 02:00:00:00:00:01"#);
    insta::assert_snapshot!(found("\"00:00:5e:00:02:01\""), @r#"vip.toml:24:15: the virtual_mac 00:00:5e:00:02:01 may be that of a card: write "auto", one of VRRP's range (00:00:5e:00:01:01 to :ff), or a locally administered one, such as 02:00:00:00:00:01"#);
    insta::assert_snapshot!(found("51"), @r#"vip.toml:24:15: virtual_mac is a string, and 51 is an integer: write virtual_mac = "auto""#);
}

#[test]
fn each_group_has_its_own_and_no_node_has_it() {
    let mac = "virtual_mac = \"00:00:5e:00:01:33\"";
    let both = edited(&[("preempt = false", mac), ("name = \"cache\"", &format!("name = \"cache\"\n{mac}"))]);
    insta::assert_snapshot!(errors(&both), @"vip.toml:27:15: the group db has the virtual_mac 00:00:5e:00:01:33 of the group cache: write another one");
    let nodes = edited(&[
        ("preempt = false", "virtual_mac = \"02:00:5e:10:00:01\""),
        ("name = \"db-b\"", "name = \"db-b\"\nmac = \"02:00:5e:10:00:01\""),
    ]);
    insta::assert_snapshot!(errors(&nodes), @"vip.toml:25:15: the node db-b has the virtual_mac 02:00:5e:10:00:01 of the group db: write another one");
}

#[test]
fn all_nodes_agree_on_it_and_without_any_the_digest_is_as_before() {
    let digest = |line: &str| good(&with(line)).groups_digest();
    let made = good(&with("virtual_mac = \"auto\""));
    let mac = made.groups[1].virtual_mac.expect("made of the names");
    assert_eq!(mac[0] & 3, 2, "unicast and local");
    assert_ne!(digest(""), made.groups_digest());
    let written = format!("virtual_mac = \"{}\"", crate::host::mac_text(mac));
    assert_eq!(digest(&written), made.groups_digest());
    assert_ne!(digest("virtual_mac = \"00:00:5e:00:01:01\""), digest("virtual_mac = \"00:00:5e:00:01:02\""));
    let renamed = with("virtual_mac = \"auto\"").replace("name = \"shop\"", "name = \"other\"");
    assert_ne!(good(&renamed).groups[1].virtual_mac, Some(mac));
}
