//! What is refused, and in which words: each has its line and column, the
//! offending text, and a mend.

use super::*;

/// The reasons for which `text` is refused.
pub(super) fn errors(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

#[test]
fn unknown_key_with_a_typo() {
    let found = errors(&edited(&[
        ("lease = \"200ms\"", "leese = \"200ms\""),
        ("vips = [\"10.0.1.20\"]", "vip = [\"10.0.1.20\"]"),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:8:1: [cluster] has no key "leese": did you mean "lease"?
    vip.toml:27:1: [[group]] has no key "vip": did you mean "vips"?
    "#);
}

#[test]
fn misspelt_tables_are_not_missing_too() {
    let found = errors("[[gruop]]\nname = \"db\"\n[Cluster]\n[Node]\n");
    insta::assert_snapshot!(found, @r#"
    vip.toml:1:3: the file has no key "gruop": did you mean "group"?
    vip.toml:3:2: the file has no key "Cluster": did you mean "cluster"?
    vip.toml:4:2: the file has no key "Node": did you mean "node"?
    "#);
}

#[test]
fn key_in_the_wrong_table() {
    let found = errors(&edited(&[("interface = \"eth0\"", "interface = \"eth0\"\npreempt = false")]));
    insta::assert_snapshot!(found, @r#"vip.toml:4:1: [node] has no key "preempt": move it to [[group]]"#);
}

#[test]
fn unknown_keys_that_resemble_nothing() {
    let found = errors(&edited(&[("[node]", "colour = 1\n[node]"), ("preempt = false", "hair = 51")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:1:1: the file has no key "colour": remove it, or write one of node, cluster, group, api, hooks
    vip.toml:25:1: [[group]] has no key "hair": remove it, or write one of name, vips, interface, gateway, virtual_mac, priority, preempt, preempt_delay, when_all_fail, track_interface, check, hooks
    "#);
}

#[test]
fn unknown_table() {
    let found = errors(&edited(&[("[cluster]\n", "[clutser]\n")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:5:2: the file has no key "clutser": did you mean "cluster"?
    vip.toml:9:3: [cluster] has no key_file: add key_file = "/etc/vip/cluster.key"
    vip.toml:9:3: [cluster] has no name: add name = "shop"
    "#);
}

#[test]
fn vip_in_two_groups() {
    let found = errors(&edited(&[("\"10.0.1.20\"", "\"10.0.1.12\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:27:9: the VIP 10.0.1.12 is in group "db" already (line 22): remove it from one of them"#);
}

#[test]
fn vip_twice_in_one_group() {
    let found = errors(&edited(&[("\"10.0.1.20\"", "\"10.0.1.20\", \"10.0.1.20\"")]));
    insta::assert_snapshot!(found, @"vip.toml:27:22: the VIP 10.0.1.20 is in this group already (line 27): remove one of the two");
}

#[test]
fn vip_that_is_a_nodes_address() {
    let found = errors(&edited(&[("\"10.0.1.20\"", "\"10.0.1.11\"")]));
    insta::assert_snapshot!(found, @"vip.toml:27:9: the VIP 10.0.1.11 is the address of db-b (line 14), which can't move: write another");
}

#[test]
fn vips_that_no_server_can_take_over() {
    let found = errors(&edited(&[(
        "\"10.0.1.20\"",
        "\"0.0.0.0\", \"127.0.0.1\", \"224.0.0.18\", \"255.255.255.255\", \"0.0.1.20\"",
    )]));
    insta::assert_snapshot!(found, @"
    vip.toml:27:9: the VIP 0.0.0.0 is the unspecified address, which no server can take over: write another
    vip.toml:27:20: the VIP 127.0.0.1 is a loopback address, which no server can take over: write another
    vip.toml:27:33: the VIP 224.0.0.18 is a multicast address, which no server can take over: write another
    vip.toml:27:47: the VIP 255.255.255.255 is the broadcast address, which no server can take over: write another
    vip.toml:27:66: the VIP 0.0.1.20 is an address of the unused network 0.0.0.0/8, which no server can take over: write another
    ");
}

#[test]
fn vips_of_another_form() {
    let found = errors(&edited(&[("\"10.0.1.20\"", "\"10.0.1.20/24\", \"10.0.1\", \"db.example.com\", 10")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:27:25: "10.0.1" is no IPv4 address: write one, such as "10.0.1.12"
    vip.toml:27:35: "db.example.com" is no IPv4 address: write one, such as "10.0.1.12"
    vip.toml:27:53: vips is an array of strings, and 10 is an integer: write vips = ["10.0.1.12"]
    "#);
}

#[test]
fn ipv6_vip() {
    let found = errors(&edited(&[("\"10.0.1.20\"", "\"2001:db8::12\"")]));
    insta::assert_snapshot!(found, @"vip.toml:27:9: the VIP 2001:db8::12 is IPv6, which isn't there yet: remove it, or write an IPv4 address");
}

#[test]
fn no_vips() {
    let found = errors(&edited(&[("vips = [\"10.0.1.20\"]", "vips = []")]));
    insta::assert_snapshot!(found, @r#"vip.toml:27:8: the group has no VIP: write vips = ["10.0.1.12"], or remove the group"#);
}

#[test]
fn vips_that_are_no_array() {
    let found = errors(&edited(&[("vips = [\"10.0.1.20\"]", "vips = \"10.0.1.20\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:27:8: vips is an array of strings, and "10.0.1.20" is a string: write vips = ["10.0.1.12"]"#);
}

const TIE: &str = "[[cluster.node]]\nname = \"tie\"\naddress = \"10.0.2.5:7077\"\nwitness = true\n";

#[test]
fn a_preempt_delay_alone_and_one_that_is_no_time() {
    let found = errors(&edited(&[
        ("preempt = false", "preempt_delay = \"1s\""),
        ("vips = [\"10.0.1.20\"]", "vips = [\"10.0.1.20\"]\npreempt = true\npreempt_delay = \"soon\""),
        ("interface = \"eth0\"", "interface = \"eth0\"\nstartup_delay = \"2days\""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:4:17: startup_delay = "2days" is too long: write 1day at most
    vip.toml:25:17: preempt_delay = "1s" does nothing without preempt = true: add that, or remove preempt_delay
    vip.toml:30:17: "soon" is no time: write a number and its unit, such as preempt_delay = "30s"
    "#);
}

#[test]
fn announcements_that_are_too_fast_or_too_slow() {
    let garp = "garp_master_repeat = 1000\ngarp_master_refresh = \"1ms\"\ngarp_interval = \"2s\"\n\
                vrrp_garp_master_delay = 5\ngarp_extra_if = 1\nself_test = \"on\"";
    let found = errors(&edited(&[("interface = \"eth0\"", &format!("interface = \"eth0\"\n{garp}"))]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:4:22: garp_master_repeat = 1000 is out of range: write one from 0 to 100
    vip.toml:5:23: garp_master_refresh is too short: write "100ms" at least, or "0s" for none
    vip.toml:6:17: garp_interval is too long: write "1s" at most
    vip.toml:7:1: [node] has no key "vrrp_garp_master_delay", which is keepalived's: write it under [node], without vrrp_
    vip.toml:8:1: [node] has no key "garp_extra_if", which is keepalived's: leave it out, since the agent announces a VIP by itself when it has to
    vip.toml:9:13: self_test = "on" means nothing: write "release", "alarm" or "off"
    "#);
}

#[test]
fn steering_without_knowing_where_to() {
    let keys = "interface = \"eth0\"\nself_test = \"off\"\nsteer = true";
    let found = errors(&edited(&[("interface = \"eth0\"", keys)]));
    insta::assert_snapshot!(found, @r#"vip.toml:5:9: steer = true takes the self-test, which finds where the other nodes are: leave out self_test = "off", or steer"#);
}

#[test]
fn pair_with_a_witness_and_a_choice_that_is_none() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = \"200ms\"\npair = \"take\"")]));
    insta::assert_snapshot!(found, @"vip.toml:9:8: pair is for two nodes without a witness, and this cluster has 3 voters: remove it; with three voters a majority decides, and no cut makes two holders");
    let found = errors(&edited(&[(TIE, ""), ("lease = \"200ms\"", "lease = \"200ms\"\npair = \"yes\"")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:9:8: pair = "yes" is no choice: write "take" (a node that does not hear the other takes over; a cut between them makes two holders) or "hold" (it takes nothing by itself)
    vip.toml:13:1: two nodes (db-a, db-b) without a witness can't tell a dead peer from a cut link: add a third [[cluster.node]] with witness = true, or choose pair = "take" or "hold" under [cluster]
    "#);
}

#[test]
fn a_witness_that_observes() {
    let found = errors(&edited(&[("witness = true", "witness = true\nobserver = true")]));
    insta::assert_snapshot!(found, @"vip.toml:19:12: a witness votes and an observer does not: remove observer = true, or witness = true");
}

#[test]
fn ids_of_some_nodes_and_twice_and_out_of_range() {
    let found = errors(&edited(&[
        ("address = \"10.0.1.10:7077\"", "address = \"10.0.1.10:7077\"\nid = 3"),
        ("address = \"10.0.1.11:7077\"", "address = \"10.0.1.11:7077\"\nid = 3"),
        ("lease = \"200ms\"", "lease = \"200ms\"\ngeneration = 0"),
    ]));
    insta::assert_snapshot!(found, @"
    vip.toml:9:14: generation = 0 is out of range: write one from 1 to 4294967295
    vip.toml:17:6: another node has the id 3 already (line 13): give each node its own
    vip.toml:18:1: other nodes have an id and this one has none: give all of them one, as `vip-ctl member` does, or none
    ");
    let found = errors(&edited(&[("witness = true", "witness = true\nid = 32")]));
    insta::assert_snapshot!(found, @"vip.toml:19:6: id = 32 is out of range: write one from 0 to 31");
}

#[test]
fn hardware_addresses_that_no_host_or_another_has() {
    let [first, second] = ["address = \"10.0.1.10:7077\"", "address = \"10.0.1.11:7077\""];
    let with = |address: &str, mac: &str| format!("{address}\nmac = {mac}");
    let found = errors(&edited(&[
        (first, &with(first, "\"01:00:5e:00:00:12\"")),
        (second, &with(second, "\"2:0:5e:0:0:12\"")),
        ("witness = true", "witness = true\nmac = \"00:00:00:00:00:00\""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:12:7: the hardware address 01:00:5e:00:00:12 is that of a group of hosts: write the one of that node's interface, as `ip link` shows it
    vip.toml:16:7: "2:0:5e:0:0:12" is no hardware address: write it as `ip link` shows it on that node, such as mac = "02:00:5e:10:00:01"
    vip.toml:21:7: the hardware address 00:00:00:00:00:00 is nobody's: write it as `ip link` shows it on that node
    "#);
    let found = errors(&edited(&[
        (first, &with(first, "\"02:00:5e:00:00:0a\"")),
        (second, &with(second, "\"02-00-5e-00-00-0A\"")),
        ("witness = true", "witness = true\nmac = 5"),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:16:7: another node has the hardware address "02-00-5e-00-00-0A" already (line 12): give each node its own
    vip.toml:21:7: mac is a string, and 5 is an integer: write mac = "02:00:5e:10:00:01"
    "#);
}

#[test]
fn two_nodes_without_a_witness() {
    let found = errors(&edited(&[(
        "[[cluster.node]]\nname = \"tie\"\naddress = \"10.0.2.5:7077\"\nwitness = true\n",
        "",
    )]));
    insta::assert_snapshot!(found, @r#"vip.toml:12:1: two nodes (db-a, db-b) without a witness can't tell a dead peer from a cut link: add a third [[cluster.node]] with witness = true, or choose pair = "take" or "hold" under [cluster]"#);
}

#[test]
fn one_node_and_a_witness() {
    let found = errors(&edited(&[
        ("[[cluster.node]]\nname = \"db-b\"\naddress = \"10.0.1.11:7077\"\n", ""),
        (", db-b = 100", ""),
    ]));
    insta::assert_snapshot!(found, @"vip.toml:12:1: 2 voters survive no more failures than 1: add one, or remove one");
}

#[test]
fn four_voters() {
    let found = errors(&edited(&[(
        "[[group]]\nname = \"db\"",
        "[[cluster.node]]\nname = \"d\"\naddress = \"10.0.1.14:7077\"\n[[group]]\nname = \"db\"",
    )]));
    insta::assert_snapshot!(found, @"vip.toml:20:1: 4 voters survive no more failures than 3: add one, or remove one");
}

#[test]
fn only_witnesses() {
    let found = errors(&FULL.replace(":7077\"\n", ":7077\"\nwitness = true\n").replacen(
        "witness = true\nwitness = true\n",
        "witness = true\n",
        1,
    ));
    insta::assert_snapshot!(found, @r#"
    vip.toml:5:1: every node is a witness or an observer, so none can hold a VIP: remove witness = true or observer = true from one
    vip.toml:25:14: "db-a" is a witness and never holds a VIP: remove its priority
    vip.toml:25:26: "db-b" is a witness and never holds a VIP: remove its priority
    "#);
}

#[test]
fn too_many_voters() {
    let more: String = (1..=5)
        .map(|n| format!("[[cluster.node]]\nname = \"more-{n}\"\naddress = \"10.0.3.{n}:7077\"\n"))
        .collect();
    let found = errors(&edited(&[("witness = true\n", &format!("witness = true\n{more}"))]));
    insta::assert_snapshot!(found, @"vip.toml:31:1: 8 voters are too many: keep 7 at most, and let others observe");
}

#[test]
fn two_nodes_of_one_name_and_address() {
    let found = errors(&edited(&[
        ("name = \"db-b\"\naddress = \"10.0.1.11:7077\"", "name = \"db-a\"\naddress = \"10.0.1.10:7077\""),
        (", db-b = 100", ""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:13:8: there is a node "db-a" already (line 10): give this one another name
    vip.toml:14:11: another node has the address 10.0.1.10:7077 already (line 11): give each node its own
    "#);
}

#[test]
fn addresses_of_another_form() {
    let found = errors(&edited(&[
        ("\"10.0.1.10:7077\"", "\"10.0.1.10\""),
        ("\"10.0.1.11:7077\"", "\"db-b.example.com:7077\""),
        ("\"10.0.2.5:7077\"", "\"fd00::5\""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:11:11: the address 10.0.1.10 has no port: write "10.0.1.10:7077"
    vip.toml:14:11: "db-b.example.com:7077" is no address: write an IP address and a port, such as "10.0.1.10:7077"
    vip.toml:17:11: the address fd00::5 has no port: write "[fd00::5]:7077"
    "#);
}

#[test]
fn addresses_of_no_single_host() {
    let found = errors(&edited(&[
        ("\"10.0.1.10:7077\"", "\"10.0.1.10:0\""),
        ("\"10.0.1.11:7077\"", "\"0.0.0.0:7077\""),
        ("\"10.0.2.5:7077\"", "\"[ff02::1]:7077\""),
    ]));
    insta::assert_snapshot!(found, @"
    vip.toml:11:11: the address 10.0.1.10:0 has port 0: write the port that the agent listens on
    vip.toml:14:11: the address 0.0.0.0:7077 is no single host's: write the one that the other nodes reach it by
    vip.toml:17:11: the address [ff02::1]:7077 is no single host's: write the one that the other nodes reach it by
    ");
}

#[test]
fn this_node_is_none_of_them() {
    let found = errors(&edited(&[("name = \"db-a\"\ninterface", "name = \"db-c\"\ninterface")]));
    insta::assert_snapshot!(found, @r#"vip.toml:2:8: this node's name, "db-c", is none of the cluster's nodes: did you mean name = "db-a"?"#);
}

#[test]
fn this_host_is_none_of_them() {
    let text = edited(&[("name = \"db-a\"\ninterface", "interface")]);
    let found = Config::parse(&text, Path::new("/etc/vip/vip.toml"), "dbb").expect_err("refused").to_string();
    insta::assert_snapshot!(found, @r#"/etc/vip/vip.toml:1:1: this host's name, "dbb", is none of the cluster's nodes: did you mean name = "db-b"?"#);
}

#[test]
fn no_interface() {
    let found = errors(&edited(&[("interface = \"eth0\"\n", "")]));
    insta::assert_snapshot!(found, @r#"vip.toml:1:1: "db-a" has no interface to answer on: under [node], add interface = "eth0""#);
}

#[test]
fn interfaces_that_cannot_be() {
    let found = errors(&edited(&[(
        "interface = \"eth0\"",
        "interface = [\"eth0\", \"eth0\", \"\", \"eth 1\", \"a/b\", \"sixteen-bytes-if\", 3]",
    )]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:3:22: the interface "eth0" is named twice: remove one
    vip.toml:3:30: "" can't be an interface: write one as `ip link` shows it
    vip.toml:3:34: "eth 1" can't be an interface: write one as `ip link` shows it
    vip.toml:3:43: "a/b" can't be an interface: write one as `ip link` shows it
    vip.toml:3:50: the interface "sixteen-bytes-if" has 16 bytes, and Linux has names of 15 at most: write it as `ip link` shows it
    vip.toml:3:70: interface is an array of strings and tables, and 3 is an integer: write interface = ["eth0", { name = "eth1", mode = "tc" }]
    "#);
}

#[test]
fn modes_that_there_are_not() {
    let found = errors(&edited(&[(
        "interface = \"eth0\"",
        "mode = \"fast\"\ninterface = [\"eth0\", { name = \"eth1\", mode = \"xdp\" }, { mode = \"tc\" }, { name = \"eth2\", driver = \"x\" }]",
    )]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:3:8: mode = "fast" is no choice: write one of auto, native, tc, generic
    vip.toml:4:46: mode = "xdp" is no choice: write one of auto, native, tc, generic
    vip.toml:4:55: [[node.interface]] has no name: add name = "eth0"
    vip.toml:4:89: [[node.interface]] has no key "driver": remove it, or write one of name, mode, label, announce
    "#);
    let found =
        errors(&edited(&[("name = \"db-a\"\ninterface = \"eth0\"", "name = \"tie\"\nmode = \"tc\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:3:8: mode is about the interface, and there is none: add interface = "eth0""#);
}

#[test]
fn no_interfaces() {
    let found = errors(&edited(&[("interface = \"eth0\"", "interface = []")]));
    insta::assert_snapshot!(found, @r#"vip.toml:3:13: interface names none: write interface = "eth0""#);
}

#[test]
fn interface_of_another_type() {
    let found = errors(&edited(&[("interface = \"eth0\"", "interface = 3")]));
    insta::assert_snapshot!(found, @r#"vip.toml:3:13: interface is a string, and 3 is an integer: write interface = "eth0""#);
}

#[test]
fn lease_too_short() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = \"19999us\"")]));
    insta::assert_snapshot!(found, @"vip.toml:8:9: the lease 19999us is out of range: write one from 20ms to 10s");
}

#[test]
fn lease_too_long() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = \"10s 1ns\"")]));
    insta::assert_snapshot!(found, @"vip.toml:8:9: the lease 10s 1ns is out of range: write one from 20ms to 10s");
}

#[test]
fn lease_without_a_unit() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = \"200\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:8:9: "200" is no time: write a number and its unit, such as "200ms""#);
}

#[test]
fn lease_that_is_a_number() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = 200")]));
    insta::assert_snapshot!(found, @r#"vip.toml:8:9: lease is a string, and 200 is an integer: write lease = "200ms""#);
}

#[test]
fn lease_without_quotes() {
    let found = errors(&edited(&[("lease = \"200ms\"", "lease = 200ms")]));
    insta::assert_snapshot!(found, @r#"vip.toml:8:9: 200ms is no value of TOML: if it is a string, write "200ms""#);
}

#[test]
fn priorities_out_of_range() {
    let found = errors(&edited(&[("db-a = 150, db-b = 100", "db-a = 0, db-b = 255")]));
    insta::assert_snapshot!(found, @"
    vip.toml:23:21: the priority 0 is out of range: write one from 1 to 254
    vip.toml:23:31: the priority 255 is out of range: write one from 1 to 254
    ");
}

#[test]
fn priorities_of_another_type() {
    let found = errors(&edited(&[("db-a = 150, db-b = 100", "db-a = \"high\", db-b = 1.5")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:23:21: a priority is an integer, and "high" is a string: write priority = { db-a = 150, db-b = 100 }
    vip.toml:23:36: a priority is an integer, and 1.5 is a float: write priority = { db-a = 150, db-b = 100 }
    "#);
}

#[test]
fn priorities_of_nodes_that_are_none() {
    let found = errors(&edited(&[("db-a = 150, db-b = 100", "db_a = 150, web = 1, tie = 7")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:23:14: there is no node "db_a": did you mean "db-a"?
    vip.toml:23:26: there is no node "web": write one of db-a, db-b, tie
    vip.toml:23:35: "tie" is a witness and never holds a VIP: remove its priority
    "#);
}

#[test]
fn two_groups_of_one_name() {
    let found = errors(&edited(&[("name = \"cache\"", "name = \"db\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:26:8: there is a group "db" already (line 21): give this one another name, or join the two"#);
}

#[test]
fn names_of_groups() {
    let found = errors(&edited(&[
        ("name = \"db\"", "name = \"Db 1\""),
        ("name = \"cache\"", "name = \"a-name-that-is-far-too-long-for-it\""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:21:8: the group's name "Db 1" has a 'D': use only small letters, digits and - _ .
    vip.toml:26:8: the group's name "a-name-that-is-far-too-long-for-it" has 34 bytes: shorten it to 32 at most
    "#);
}

#[test]
fn names_of_cluster_and_nodes() {
    let found = errors(&edited(&[("name = \"shop\"", "name = \"\""), ("name = \"tie\"", "name = \"t/e\"")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:6:8: the cluster's name is empty: write one of letters, digits and - _ .
    vip.toml:16:8: the node's name "t/e" has a '/': use only letters, digits and - _ .
    "#);
}

#[test]
fn what_must_be_there() {
    let found = errors(&edited(&[
        ("name = \"shop\"\nkey_file = \"/etc/vip/cluster.key\"\n", ""),
        ("name = \"tie\"\naddress = \"10.0.2.5:7077\"\n", ""),
        ("name = \"cache\"\nvips = [\"10.0.1.20\"]\n", ""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:5:1: [cluster] has no key_file: add key_file = "/etc/vip/cluster.key"
    vip.toml:5:1: [cluster] has no name: add name = "shop"
    vip.toml:13:1: [[cluster.node]] has no address: add address = "10.0.1.10:7077"
    vip.toml:13:1: [[cluster.node]] has no name: add name = "db-a"
    vip.toml:21:1: [[group]] has no name: add name = "db"
    vip.toml:21:1: [[group]] has no vips: add vips = ["10.0.1.12"]
    "#);
}

#[test]
fn an_empty_key_file_path() {
    let found = errors(&edited(&[("\"/etc/vip/cluster.key\"", "\"\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:7:12: key_file is empty: write key_file = "/etc/vip/cluster.key""#);
}

#[test]
fn tables_with_too_few_brackets() {
    let found = errors(
        "node = 3\n[cluster]\nname = \"shop\"\nkey_file = \"key\"\n[cluster.node]\nname = \"a\"\n[group]\nname = \"db\"\n",
    );
    insta::assert_snapshot!(found, @"
    vip.toml:1:8: node is a table, and 3 is an integer: write [node]
    vip.toml:5:1: node is an array of tables, and [cluster.node] is a table: write [[cluster.node]]
    vip.toml:7:1: group is an array of tables, and [group] is a table: write [[group]]
    ");
}

#[test]
fn nothing_at_all() {
    let found = errors("");
    insta::assert_snapshot!(found, @"
    vip.toml:1:1: there is no [[group]]: add one, with its name and vips
    vip.toml:1:1: there is no [cluster]: add it, with a [[cluster.node]] for each node
    ");
}

#[test]
fn empty_arrays_of_tables() {
    let found = errors("group = []\n[cluster]\nname = \"shop\"\nkey_file = \"key\"\nnode = []\n");
    insta::assert_snapshot!(found, @"
    vip.toml:1:1: there is no [[group]]: add one, with its name and vips
    vip.toml:2:1: [cluster] has no nodes: add a [[cluster.node]] for each
    ");
}

#[test]
fn text_that_is_no_toml() {
    let found = errors(&edited(&[
        ("[cluster]\n", "[cluster\n"),
        ("interface = \"eth0\"", "interface = \"eth0"),
        ("vips = [\"10.0.1.20\"]", "vips: 10.0.1.20"),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:3:18: interface = "eth0 is not TOML (invalid basic string, expected `"`): close the string with " in its line, and write \\ for a \ in it
    vip.toml:5:9: [cluster is not TOML (unclosed table, expected `]`): close it with ]
    vip.toml:27:7: 10.0.1.20 is no value of TOML: put quotes around it, "10.0.1.20"
    "#);
}

#[test]
fn a_key_that_is_there_twice() {
    let found = errors(&edited(&[("preempt = false", "name = \"db2\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:24:1: "name" is there a second time: keep one of the two"#);
}

#[test]
fn columns_count_characters() {
    let found = errors(&edited(&[("db-a = 150, db-b = 100", "\"größe-ß\" = 150, nobody = 100")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:23:14: there is no node "größe-ß": write one of db-a, db-b, tie
    vip.toml:23:31: there is no node "nobody": write one of db-a, db-b, tie
    "#);
}
