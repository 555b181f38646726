//! Mistakes from habit, as with keepalived and other files: the error says what to write instead,
//! and what has never worked is refused.

use super::{refused::errors, *};

#[test]
fn words_of_keepalived() {
    let found = errors(&edited(&[
        (
            "preempt = false",
            "nopreempt = true\nstate = \"BACKUP\"\nvirtual_router_id = 51\nadvert_int = 1\ngarp_master_delay = 1\n\
             notify_master = \"/bin/a\"\nauthentication = { auth_type = \"PASS\" }",
        ),
        ("vips = [\"10.0.1.20\"]", "virtual_ipaddress = [\"10.0.1.20\"]\ntrack_script = [\"chk\"]"),
        ("lease = \"200ms\"", "unicast_peer = [\"10.0.1.11\"]"),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:8:1: [cluster] has no key "unicast_peer", which is keepalived's: write a [[cluster.node]] with name and address for each node
    vip.toml:24:1: [[group]] has no key "nopreempt", which is keepalived's: write preempt = false, or leave it out, since no node preempts unless it is told to
    vip.toml:25:1: [[group]] has no key "state", which is keepalived's: leave it out, and let priority say which node is preferred
    vip.toml:26:1: [[group]] has no key "virtual_router_id", which is keepalived's: leave it out, since a group is known by its name
    vip.toml:27:1: [[group]] has no key "advert_int", which is keepalived's: leave it out; lease under [cluster] says how fast a failover is
    vip.toml:28:1: [[group]] has no key "garp_master_delay": move it to [node]
    vip.toml:29:1: [[group]] has no key "notify_master", which is keepalived's: write post_promote = ["/path/to/program"] under [group.hooks]
    vip.toml:30:1: [[group]] has no key "authentication", which is keepalived's: leave it out; key_file under [cluster] names the key that nodes trust
    vip.toml:33:1: [[group]] has no key "virtual_ipaddress", which is keepalived's: write vips = ["10.0.1.12"], with interface = "eth0" for its device
    vip.toml:34:1: [[group]] has no key "track_script", which is keepalived's: write a [[group.check]] with exec = ["/path/to/program"]
    "#);
}

#[test]
fn truths_of_another_spelling() {
    let found = errors(&edited(&[
        ("preempt = false", "preempt = \"false\"\npreempt_delay = \"5s\""),
        ("witness = true", "witness = 1\nobserver = \"perhaps\""),
        ("vips = [\"10.0.1.20\"]", "vips = [\"10.0.1.20\"]\npreempt = \"On\""),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:18:11: witness is true or false, and 1 is an integer: write witness = true
    vip.toml:19:12: observer is true or false, and "perhaps" is a string: write observer = true, or observer = false
    vip.toml:25:11: preempt is true or false, and "false" is a string: write preempt = false
    vip.toml:30:11: preempt is true or false, and "On" is a string: write preempt = true
    "#);
    let found = errors(&edited(&[("preempt = false", "preempt = no"), ("witness = true", "witness = True")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:18:11: True is no value of TOML: write true, or "True" if it is a string
    vip.toml:24:11: no is no value of TOML: write false, or "no" if it is a string
    "#);
}

#[test]
fn vips_with_more_than_an_address() {
    let found = errors(&edited(&[(
        "\"10.0.1.20\"",
        "\"10.0.1.20:80\", \"10.0.1.20-25\", \" 10.0.1.13\", \"10.0.1.12, 10.0.1.14\", \"10.0.1.300\"",
    )]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:27:9: the VIP 10.0.1.20:80 has a port, and a VIP has none: write "10.0.1.20"
    vip.toml:27:25: "10.0.1.20-25" is a range: write each address by itself, "10.0.1.20", "10.0.1.21" and so on
    vip.toml:27:41: " 10.0.1.13" has a blank beside the address: write "10.0.1.13"
    vip.toml:27:55: "10.0.1.12, 10.0.1.14" is more than one address: write "10.0.1.12", "10.0.1.14"
    vip.toml:27:79: "10.0.1.300" is no IPv4 address: write one, such as "10.0.1.12"
    "#);
}

#[test]
fn addresses_without_quotes() {
    let found = errors(&edited(&[
        ("[\"10.0.1.12\", \"10.0.1.13\"]", "[10.0.1.12, 10.0.1.13]"),
        ("[\"10.0.1.20\"]", "10.0.1.20/24"),
        ("\"10.0.1.10:7077\"", "10.0.1.10:7077"),
    ]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:11:11: 10.0.1.10:7077 is no value of TOML: put quotes around it, "10.0.1.10:7077"
    vip.toml:22:9: 10.0.1.12 is no value of TOML: put quotes around it, "10.0.1.12"
    vip.toml:27:8: 10.0.1.20/24 is no value of TOML: put quotes around it, "10.0.1.20/24"
    "#);
}

#[test]
fn addresses_that_do_not_meet() {
    let found = errors(&edited(&[("\"10.0.1.11:7077\"", "\"127.0.1.1:7077\"")]));
    insta::assert_snapshot!(found, @"vip.toml:14:11: the address 127.0.1.1:7077 is a loopback address, which no other host can reach: write the one that the other nodes reach this one by");
    let found = errors(&edited(&[("\"10.0.1.11:7077\"", "\"[fd00::11]:7077\"")]));
    insta::assert_snapshot!(found, @"vip.toml:14:11: the address [fd00::11]:7077 is IPv6 and that of another node, 10.0.1.10:7077 (line 11), is IPv4, so that the two can't reach each other: give all nodes addresses of one kind");
    // All of them on one host, for a trial.
    good(&edited(&[
        ("10.0.1.10:7077", "127.0.0.1:7077"),
        ("10.0.1.11:7077", "127.0.0.1:7078"),
        ("10.0.2.5:7077", "127.0.0.2:7077"),
    ]));
    good(
        &FULL
            .replace("10.0.1.10:", "[fd00::10]:")
            .replace("10.0.1.11:", "[fd00::11]:")
            .replace("10.0.2.5:", "[fd00::5]:"),
    );
}

#[test]
fn interfaces_in_one_string_and_the_loopback() {
    let found = errors(&edited(&[("interface = \"eth0\"", "interface = \"eth0,eth1\"")]));
    insta::assert_snapshot!(found, @r#"vip.toml:3:13: "eth0,eth1" is more than one interface: write ["eth0", "eth1"]"#);
    let found = errors(&edited(&[("interface = \"eth0\"", "interface = [\"eth0\", \"lo\", \"eth1 eth2\"]")]));
    insta::assert_snapshot!(found, @r#"
    vip.toml:3:22: lo is the loopback interface, and no other host's traffic comes in by it: write the one that clients reach this node by, such as "eth0"
    vip.toml:3:28: "eth1 eth2" is more than one interface: write ["eth1", "eth2"]
    "#);
}

/// Every hint about text that is not TOML, apart from those for certain words.
#[test]
fn text_that_is_no_toml_in_other_ways() {
    let edits = [
        ("[\"10.0.1.20\"]", "[\"10.0.1.20\""),
        ("[\"10.0.1.12\", \"10.0.1.13\"]", "[\"10.0.1.12\" \"10.0.1.13\"]"),
        ("lease = \"200ms\"", "lease ="),
        ("lease = \"200ms\"", "lease = = \"200ms\""),
        ("lease = \"200ms\"", "lease = \"200ms\" pair = \"take\""),
        ("witness = true", "witness = true false"),
        ("db-b = 100 }", "db-b = 1_00_ }"),
        ("db-b = 100 }", "db-b = 010 }"),
        ("db-b = 100 }", "db-b = 100"),
        ("key_file = \"/etc/vip/cluster.key\"", "key_file = 'C:\\key"),
        ("name = \"cache\"", "na me = \"cache\""),
        ("name = \"shop\"", "name = \"\\shop\""),
    ];
    let found: Vec<_> = edits.iter().map(|edit| errors(&edited(&[*edit]))).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    vip.toml:27:20: vips = ["10.0.1.20" is not TOML (unclosed array, expected `]`): close it with ]
    vip.toml:22:21: vips = ["10.0.1.12" "10.0.1.13"] is not TOML (missing comma between array elements, expected `,`): put a comma between the two values
    vip.toml:8:8: lease = has no value: write one after the =
    vip.toml:8:9: lease = = "200ms" is not TOML (extra `=`): remove one =
    vip.toml:8:17: lease = "200ms" pair = "take" is not TOML (unexpected key or value, expected newline, `#`): put what comes after the value on a line of its own
    vip.toml:18:11: true false is no value of TOML: if it is a string, write "true false"
    vip.toml:23:37: priority = { db-a = 150, db-b = 1_00_ } is not TOML (`_` may only go between digits): write the number with its digits alone
    vip.toml:23:33: priority = { db-a = 150, db-b = 010 } is not TOML (unexpected leading zero): write the number without the zero, or put quotes around it if it is a string
    vip.toml:24:1: preempt = false is not TOML (missing comma between key-value pairs, expected `,`): put a comma before it, or close the table that began before with }
    vip.toml:7:19: key_file = 'C:\key is not TOML (invalid literal string, expected `'`): close the string with ' in its line
    vip.toml:26:4: na me = "cache" is not TOML (key with no value, expected `=`): write it as key = value
    vip.toml:6:10: name = "\shop" is not TOML (missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`): write \\ for a \ in a string
    "#);
}
