//! Where VIPs belong: interfaces by name and by label, prefixes, and interfaces that only
//! guard.

use super::{refused::errors, *};

/// Where a VIP is at home, as it is told here.
fn home(interface: Option<&str>, prefix: Option<u8>) -> Home {
    Home { interface: interface.map(str::to_owned), prefix }
}

fn homes(config: &Config, group: &str) -> Vec<(String, Home)> {
    let group = config.groups.iter().find(|known| known.name == group).unwrap();
    group.homes.iter().map(|(vip, home)| (vip.to_string(), home.clone())).collect()
}

const THREE: &str = "interface = [\"eth0\", { name = \"enp3s0\", label = \"wan\" }, { name = \"docker0\", announce = false }]";

#[test]
fn a_vip_is_at_home_on_the_interface_that_it_or_its_group_names() {
    let config = good(&edited(&[
        ("interface = \"eth0\"", THREE),
        (
            "vips = [\"10.0.1.12\", \"10.0.1.13\"]",
            "interface = \"eth0\"\nvips = [\"10.0.1.12\", { address = \"203.0.113.5/29\", interface = \"wan\" }]",
        ),
        ("vips = [\"10.0.1.20\"]", "vips = [\"10.0.1.20\", { address = \"10.0.1.21/32\" }]"),
    ]));
    let wan = home(Some("enp3s0"), Some(29));
    let eth0 = home(Some("eth0"), None);
    assert_eq!(homes(&config, "db"), [("10.0.1.12".into(), eth0), ("203.0.113.5".into(), wan)]);
    assert_eq!(homes(&config, "cache"), []);
    assert_eq!(config.announcing().collect::<Vec<_>>(), ["eth0", "enp3s0"]);
    // With one interface, a prefix needs no more.
    let config = good(&edited(&[("vips = [\"10.0.1.20\"]", "vips = [\"10.9.0.20/24\"]")]));
    assert_eq!(homes(&config, "cache"), [("10.9.0.20".into(), home(None, Some(24)))]);
    // A witness has no interfaces, and the groups' file may be the same everywhere.
    let of_witness = edited(&[
        ("name = \"db-a\"\ninterface = \"eth0\"", "name = \"tie\""),
        ("preempt = false", "interface = \"wan\""),
    ]);
    assert_eq!(homes(&good(&of_witness), "db"), []);
}

#[test]
fn nodes_agree_whatever_their_interfaces_are_called() {
    let with = |interface: &str| {
        let node = format!("interface = {{ name = \"{interface}\", label = \"lan\" }}").replace('{', "[{");
        let node = node.replace('}', "}]");
        good(&edited(&[("interface = \"eth0\"", node.as_str()), ("preempt = false", "interface = \"lan\"")]))
    };
    let (one, other) = (with("eth0"), with("enp1s0"));
    assert_ne!(homes(&one, "db"), homes(&other, "db"));
    assert_eq!(one.groups_digest(), other.groups_digest());
}

#[test]
fn homes_that_there_are_not() {
    let found = errors(&edited(&[
        ("interface = \"eth0\"", THREE),
        ("preempt = false", "interface = \"wam\""),
        (
            "vips = [\"10.0.1.20\"]",
            "vips = [\"10.0.1.20/24\", { address = \"10.0.1.21\", interface = \"docker0\" }, { interface = \"eth0\" }, \
             { address = \"10.0.1.22\", interface = \"tun7\" }]",
        ),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:24:13: "wam" is no interface of this node: did you mean "wan"?
    vip.toml:27:9: 10.0.1.20 has a prefix, and this node has several interfaces: say which one its subnet is on, such as { address = "10.0.1.20/24", interface = "eth0" }
    vip.toml:27:62: nothing is announced on docker0: take announce = false off it under [node]
    vip.toml:27:75: [[group.vips]] has no address: add address = "10.0.1.12"
    vip.toml:27:136: "tun7" is no interface of this node: add it to interface under [node], or give one of eth0, enp3s0, docker0 there the label "tun7"
    "#);
    let found = errors(&edited(&[(
        "vips = [\"10.0.1.20\"]",
        "vips = [\"10.0.1.20/33\", \"10.0.1.16/29\", \"10.0.1.23/29\", \"10.0.1.24/0\", \"10.0.1.25 dev eth0\"]",
    )]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:27:9: the VIP 10.0.1.20/33: "33" is no length of a prefix: write one from 1 to 32
    vip.toml:27:25: the VIP 10.0.1.16/29: it is the address of that network itself: write one of its hosts'
    vip.toml:27:41: the VIP 10.0.1.23/29: it is the broadcast address of that network: write one of its hosts'
    vip.toml:27:57: the VIP 10.0.1.24/0: "0" is no length of a prefix: write one from 1 to 32
    vip.toml:27:72: "10.0.1.25 dev eth0" names its interface as keepalived does: write { address = "10.0.1.25", interface = "eth0" }
    "#);
    let silent = "interface = [{ name = \"eth0\", announce = false, label = \"a\" }, { name = \"a\", label = \"a\" }, \
                  { name = \"b\", announce = \"no\" }]";
    let found = errors(&edited(&[("interface = \"eth0\"", silent)]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:3:73: "a" is an interface here, and the label of another one: choose another label
    vip.toml:3:86: eth0 has the label "a" already: give each its own
    vip.toml:3:118: announce is true or false, and "no" is a string: write announce = false
    "#);
    let silent = "interface = [{ name = \"eth0\", announce = false }]";
    let found = errors(&edited(&[("interface = \"eth0\"", silent)]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:22:9: 10.0.1.12 would be announced nowhere: take announce = false off one of this node's interfaces
    vip.toml:27:9: 10.0.1.20 would be announced nowhere: take announce = false off one of this node's interfaces
    "#);
}

#[test]
fn a_group_of_gateways_is_told_and_its_nodes_agree() {
    let with = |key: &str| edited(&[("preempt = false", key)]);
    let config = good(&with("gateway = true"));
    let are: Vec<_> = config.groups.iter().map(|group| (group.name.as_str(), group.is_gateway)).collect();
    assert_eq!(are, [("cache", false), ("db", true)]);
    let (plain, off) = (good(&with("")), good(&with("gateway = false")));
    assert_eq!(plain.groups_digest(), off.groups_digest());
    assert_ne!(plain.groups_digest(), config.groups_digest());
    let found = errors(&with("gateway = \"eth0\""));
    insta::assert_snapshot!(found, @r#"vip.toml:24:11: gateway is true or false, and "eth0" is a string: write gateway = true, or gateway = false"#);
    // Eight on each interface; where a VIP names none, it is on all.
    let many = |count: u8| {
        let vips: Vec<_> = (1..=count).map(|last| format!("\"10.0.3.{last}\"")).collect();
        let own = ", { address = \"10.0.1.13\", interface = \"eth0\" }]\ngateway = true";
        edited(&[
            ("interface = \"eth0\"", "interface = [\"eth0\", \"eth1\"]"),
            ("vips = [\"10.0.1.20\"]", &format!("vips = [{}{own}", vips.join(", "))),
        ])
    };
    let config = good(&many(7).replace("\"10.0.1.12\", \"10.0.1.13\"", "\"10.0.1.12\""));
    assert!(config.groups.iter().any(|group| group.is_gateway && group.vips.len() == 8));
    let found = errors(&many(8).replace("\"10.0.1.12\", \"10.0.1.13\"", "\"10.0.1.12\""));
    insta::assert_snapshot!(found, @"vip.toml:27:117: 10.0.1.13 is one gateway too many on eth0, which can have 8: put it into a group without gateway = true");
}
