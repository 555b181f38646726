//! Tests of the configuration: what is accepted and what it means here, what
//! is refused and in which words in [`refused`] and [`mends`], hooks in [`hooks`].

mod api;
mod health;
mod homes;
mod hooks;
mod mends;
mod refused;
mod virtual_macs;

use std::fs;

use proptest::prelude::*;

use super::*;

/// A valid configuration with two groups, which tests edit.
const FULL: &str = r#"[node]
name = "db-a"
interface = "eth0"

[cluster]
name = "shop"
key_file = "/etc/vip/cluster.key"
lease = "200ms"
[[cluster.node]]
name = "db-a"
address = "10.0.1.10:7077"
[[cluster.node]]
name = "db-b"
address = "10.0.1.11:7077"
[[cluster.node]]
name = "tie"
address = "10.0.2.5:7077"
witness = true

[[group]]
name = "db"
vips = ["10.0.1.12", "10.0.1.13"]
priority = { db-a = 150, db-b = 100 }
preempt = false
[[group]]
name = "cache"
vips = ["10.0.1.20"]
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("vip.toml"), "db-b")
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("refused:\n{errors}"))
}

/// [`FULL`] with each first text replaced by the second one, which must be there once.
fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(FULL.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must be there once");
        text.replace(from, to)
    })
}

#[test]
fn all_that_there_is_is_understood() {
    insta::assert_debug_snapshot!(good(FULL), @r#"
    Config {
        node_name: "db-a",
        me: 0,
        startup_delay: 0ns,
        garp: Garp {
            repeat: 4,
            delay: None,
            refresh: Some(
                1s,
            ),
            interval: None,
        },
        self_test: Release,
        steer: true,
        interfaces: [
            "eth0",
        ],
        modes: {},
        silent: {},
        cluster: Cluster {
            name: "shop",
            key_file: "/etc/vip/cluster.key",
            lease: 200ms,
            pair: None,
            generation: 1,
            nodes: [
                Node {
                    id: 0,
                    name: "db-a",
                    address: 10.0.1.10:7077,
                    role: Node,
                    mac: None,
                },
                Node {
                    id: 1,
                    name: "db-b",
                    address: 10.0.1.11:7077,
                    role: Node,
                    mac: None,
                },
                Node {
                    id: 2,
                    name: "tie",
                    address: 10.0.2.5:7077,
                    role: Witness,
                    mac: None,
                },
            ],
        },
        groups: [
            Group {
                name: "cache",
                vips: [
                    10.0.1.20,
                ],
                homes: {},
                is_gateway: false,
                virtual_mac: None,
                priorities: {
                    "db-a": 100,
                    "db-b": 100,
                },
                preempt: None,
                health: Health {
                    checks: [],
                    track_interface: [],
                    when_all_fail: Release,
                },
                hooks: Hooks {
                    commands: {},
                    timeout: 10s,
                    pre_demote_timeout: 2s,
                    on_failure: Release,
                    retry_after: 30s,
                    webhook: None,
                },
            },
            Group {
                name: "db",
                vips: [
                    10.0.1.12,
                    10.0.1.13,
                ],
                homes: {},
                is_gateway: false,
                virtual_mac: None,
                priorities: {
                    "db-a": 150,
                    "db-b": 100,
                },
                preempt: None,
                health: Health {
                    checks: [],
                    track_interface: [],
                    when_all_fail: Release,
                },
                hooks: Hooks {
                    commands: {},
                    timeout: 10s,
                    pre_demote_timeout: 2s,
                    on_failure: Release,
                    retry_after: 30s,
                    webhook: None,
                },
            },
        ],
        api: None,
    }
    "#);
}

#[test]
fn the_least_that_can_be_said_has_the_documented_defaults() {
    let config = good(
        r#"
        node.interface = ["eth0", { name = "bond0.12", mode = "tc" }]
        cluster = { name = "one", key_file = "keys/cluster.key", node = [{ name = "db-b", address = "[fd00::5]:7077" }] }
        [[group]]
        name = "web"
        vips = ["192.0.2.80"]
        "#,
    );
    insta::assert_debug_snapshot!(config, @r#"
    Config {
        node_name: "db-b",
        me: 0,
        startup_delay: 0ns,
        garp: Garp {
            repeat: 4,
            delay: None,
            refresh: Some(
                1s,
            ),
            interval: None,
        },
        self_test: Release,
        steer: true,
        interfaces: [
            "eth0",
            "bond0.12",
        ],
        modes: {
            "bond0.12": Tc,
        },
        silent: {},
        cluster: Cluster {
            name: "one",
            key_file: "keys/cluster.key",
            lease: 200ms,
            pair: None,
            generation: 1,
            nodes: [
                Node {
                    id: 0,
                    name: "db-b",
                    address: [fd00::5]:7077,
                    role: Node,
                    mac: None,
                },
            ],
        },
        groups: [
            Group {
                name: "web",
                vips: [
                    192.0.2.80,
                ],
                homes: {},
                is_gateway: false,
                virtual_mac: None,
                priorities: {
                    "db-b": 100,
                },
                preempt: None,
                health: Health {
                    checks: [],
                    track_interface: [],
                    when_all_fail: Release,
                },
                hooks: Hooks {
                    commands: {},
                    timeout: 10s,
                    pre_demote_timeout: 2s,
                    on_failure: Release,
                    retry_after: 30s,
                    webhook: None,
                },
            },
        ],
        api: None,
    }
    "#);
}

#[test]
fn a_witness_needs_no_interface() {
    let config = good(&edited(&[("name = \"db-a\"\ninterface = \"eth0\"", "name = \"tie\"")]));
    assert!(config.interfaces.is_empty());
    assert_eq!((config.me, config.this_node().role), (2, Role::Witness));
}

#[test]
fn a_relative_key_file_is_beside_the_configuration() {
    let text = edited(&[("/etc/vip/cluster.key", "cluster.key")]);
    let config = Config::parse(&text, Path::new("/opt/vip/vip.toml"), "x").expect("valid");
    assert_eq!(config.cluster.key_file, Path::new("/opt/vip/cluster.key"));
}

#[test]
fn every_limit_itself_is_within() {
    let name = "n".repeat(NAME_LEN_MAX);
    let group = "g".repeat(vip_common::layout::GROUP_NAME_LEN);
    for edits in [
        ("lease = \"200ms\"", "lease = \"20ms\""),
        ("lease = \"200ms\"", "lease = \"10s\""),
        ("db-a = 150", "db-a = 1"),
        ("db-a = 150", "db-a = 254"),
        ("name = \"cache\"", &format!("name = \"{group}\"")),
        ("name = \"shop\"", &format!("name = \"{name}\"")),
        ("interface = \"eth0\"", "interface = \"fifteen-bytes--\""),
    ] {
        good(&edited(&[edits]));
    }
}

#[test]
fn seven_voters_are_taken() {
    let more: String = (1..=4)
        .map(|n| format!("[[cluster.node]]\nname = \"more-{n}\"\naddress = \"10.0.3.{n}:7077\"\n"))
        .collect();
    let config = good(&edited(&[("witness = true\n", &format!("witness = true\n{more}"))]));
    assert_eq!(config.cluster.nodes.len(), 7);
}

#[test]
fn the_digest_agrees_between_nodes_and_whatever_the_order() {
    let config = good(FULL);
    let (cluster, groups) = FULL.split_at(FULL.find("[[group]]").expect("there"));
    let cache = groups.rfind("[[group]]").expect("there");
    let reordered = format!("{cluster}{}\n{}", &groups[cache..], &groups[..cache]);
    for same in [
        edited(&[(
            "[node]\nname = \"db-a\"\ninterface = \"eth0\"",
            "[node]\nname = \"db-b\"\ninterface = \"ens3\"",
        )]),
        edited(&[("/etc/vip/cluster.key", "/run/vip/key")]),
        edited(&[("lease = \"200ms\"", "")]),
        edited(&[("lease = \"200ms\"", "lease = \"200000us\"")]),
        edited(&[("[\"10.0.1.12\", \"10.0.1.13\"]", "[\"10.0.1.13\", \"10.0.1.12\"]")]),
        edited(&[(", db-b = 100", "")]),
        edited(&[("preempt = false\n", "")]),
        reordered,
    ] {
        let same = good(&same);
        assert_eq!((same.digest(), same.groups_digest()), (config.digest(), config.groups_digest()));
    }
}

#[test]
fn the_digests_differ_for_all_that_nodes_must_agree_on() {
    let all = |config: Config| [config.digest(), config.nodes_digest(), config.groups_digest()];
    let whole = all(good(FULL));
    let edits: [&[(&str, &str)]; 3] = [
        &[("name = \"shop\"", "name = \"shoq\""), ("lease = \"200ms\"", "lease = \"201ms\"")],
        &[
            ("10.0.1.11:7077", "10.0.1.15:7077"),
            ("10.0.1.11:7077", "10.0.1.11:7078"),
            ("name = \"tie\"", "name = \"tie2\""),
            ("witness = true", "witness = false"),
            (
                "witness = true\n",
                "witness = true\n[[cluster.node]]\nname = \"obs\"\naddress = \"10.0.2.6:1\"\nobserver = true\n",
            ),
        ],
        &[
            ("name = \"cache\"", "name = \"cachf\""),
            ("\"10.0.1.20\"", "\"10.0.1.21\""),
            ("\"10.0.1.20\"", "\"10.0.1.20\", \"10.0.1.21\""),
            (", \"10.0.1.13\"", ""),
            ("preempt = false", "preempt = true"),
            ("preempt = false", "preempt = true\npreempt_delay = \"1s\""),
            ("db-a = 150", "db-a = 151"),
            ("db-b = 100", "db-b = 99"),
        ],
    ];
    for (of, edits) in edits.into_iter().enumerate() {
        let mut digests = vec![whole[of]];
        for edit in edits {
            let edited = all(good(&edited(&[*edit])));
            digests.push(edited[of]);
            for other in (0..3).filter(|other| *other != of) {
                assert_eq!(edited[other], whole[other], "{edit:?}");
            }
        }
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}

/// Other nodes compute the same number, so its definition must not drift unnoticed.
#[test]
fn the_digest_of_a_known_configuration_stays() {
    let full = good(FULL);
    assert_eq!(
        [full.digest(), full.nodes_digest(), full.groups_digest()],
        [17_255_189_458_974_590_220, 2_939_485_006_295_554_223, 6_557_854_163_490_567_805]
    );
}

#[test]
fn a_large_configuration_is_read_in_no_time() {
    let mut text = FULL.split_once("[[group]]").expect("there").0.to_owned();
    for n in 0..10_000_u32 {
        let vips: Vec<String> = (0..10)
            .map(|k| format!("\"{}\"", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n * 10 + k)))
            .collect();
        text += &format!("[[group]]\nname = \"g{n}\"\nvips = [{}]\n", vips.join(", "));
    }
    // Of this thread alone: a busy machine has other things to do.
    let spent = || {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
        Duration::from(time)
    };
    let start = spent();
    let config = good(&text);
    assert_eq!(config.groups.iter().map(|group| group.vips.len()).sum::<usize>(), 100_000);
    let took = spent() - start;
    assert!(took < Duration::from_secs(30), "{took:?} in a debug build");
}

#[test]
fn loading_reads_the_file_and_names_it() {
    let path = std::env::temp_dir().join(format!("vip-config-{}.toml", std::process::id()));
    fs::write(&path, FULL).expect("written");
    let loaded = Config::load(&path);
    fs::write(&path, b"[node]\nname = \"d\xfc\"\n").expect("written");
    let latin = Config::load(&path);
    fs::remove_file(&path).expect("there");
    let missing = Config::load(&path);
    assert_eq!(loaded, Ok(good(FULL)));
    let shown = path.display();
    assert_eq!(
        latin.map_err(|errors| errors.to_string()),
        Err(format!("{shown}:2:10: this byte is no UTF-8: save the file as UTF-8"))
    );
    let missing = missing.expect_err("there is none").to_string();
    assert!(missing.starts_with(&format!("{shown}: can't be read (No such file")), "{missing}");
}

proptest! {
    /// Whatever is done to a text, parsing ends in a configuration or in reasons.
    #[test]
    fn no_text_is_refused_without_a_reason(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
        insert in "[\\[\\]={}\",.a-z0-9\n]{0,12}",
        place in any::<prop::sample::Index>(),
    ) {
        let mut lines: Vec<&str> = FULL.lines().collect();
        for (one, other) in &cuts {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
            lines.remove(one);
        }
        let mut text = lines.join("\n");
        text.insert_str(place.index(text.len() + 1), &insert);
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                let place = error.place.expect("all are in the text");
                let line = text.split('\n').nth(place.line - 1);
                prop_assert!(line.is_some_and(|line| place.column <= line.chars().count() + 1), "{}", error);
            }
        }
    }
}

#[test]
fn a_pair_is_two_nodes_that_asked_for_it() {
    let tie = "[[cluster.node]]\nname = \"tie\"\naddress = \"10.0.2.5:7077\"\nwitness = true\n";
    for (written, meant) in [("take", PeerLoss::Take), ("hold", PeerLoss::Hold)] {
        let pair = format!("lease = \"200ms\"\npair = \"{written}\"");
        let config = good(&edited(&[(tie, ""), ("lease = \"200ms\"", &pair)]));
        assert_eq!(config.cluster.pair, Some(meant));
    }
}

#[test]
fn preemption_and_delays_are_read() {
    let config = good(&edited(&[
        ("preempt = false", "preempt = true"),
        ("vips = [\"10.0.1.20\"]", "vips = [\"10.0.1.20\"]\npreempt = true\npreempt_delay = \"5s\""),
        (
            "interface = \"eth0\"",
            "interface = \"eth0\"\nstartup_delay = \"10s\"\ngarp_master_refresh = \"0s\"\ngarp_interval = \"5ms\"\n\
             self_test = \"alarm\"\nsteer = false",
        ),
    ]));
    let garp = Garp { refresh: None, interval: Some(Duration::from_millis(5)), ..Garp::default() };
    assert_eq!((config.garp, config.self_test, config.steer), (garp, SelfTest::Alarm, false));
    let preempt: Vec<_> = config.groups.iter().map(|group| group.preempt).collect();
    assert_eq!(preempt, [Some(Duration::from_secs(5)), Some(PREEMPT_DELAY_DEFAULT)]);
    assert_eq!(config.startup_delay, Duration::from_secs(10));
}

#[test]
fn a_hardware_address_is_a_nodes_own_and_no_matter_of_the_clusters() {
    let plain = good(&edited(&[]));
    let address = "address = \"10.0.1.11:7077\"";
    let with = good(&edited(&[(address, &format!("{address}\nmac = \"02:00:5E:10:00:0a\""))]));
    let macs: Vec<_> = with.cluster.nodes.iter().map(|node| node.mac).collect();
    assert_eq!(macs, [None, Some([2, 0, 0x5e, 0x10, 0, 10]), None]);
    assert_eq!((plain.digest(), plain.nodes_digest()), (with.digest(), with.nodes_digest()));
    assert_eq!(plain.needs_restart(&with), ["[[cluster.node]]"]);
}

#[test]
fn a_mode_is_for_all_interfaces_or_for_one() {
    use crate::mode::Mode::{Native, Tc};
    let of =
        |text: &str| good(&edited(&[("interface = \"eth0\"", text)])).modes.into_iter().collect::<Vec<_>>();
    assert_eq!(of("interface = \"eth0\"\nmode = \"tc\""), [("eth0".into(), Tc)]);
    let two = "mode = \"tc\"\ninterface = [\"eth0\", { name = \"eth1\", mode = \"native\" }]";
    assert_eq!(of(two), [("eth0".into(), Tc), ("eth1".into(), Native)]);
    let tables =
        "[[node.interface]]\nname = \"eth1\"\nmode = \"native\"\n[[node.interface]]\nname = \"eth0\"";
    let config = good(&edited(&[("interface = \"eth0\"", tables)]));
    assert_eq!(
        (config.interfaces, config.modes),
        (vec!["eth1".into(), "eth0".into()], [("eth1".into(), Native)].into())
    );
}

#[test]
fn ids_stay_where_names_would_move_them_and_a_generation_may_be_even() {
    let more =
        "[[cluster.node]]\nname = \"aa\"\naddress = \"10.0.1.9:7077\"\nid = 3\n[[group]]\nname = \"db\"";
    let config = good(&edited(&[
        ("lease = \"200ms\"", "lease = \"200ms\"\ngeneration = 2"),
        ("address = \"10.0.1.10:7077\"", "address = \"10.0.1.10:7077\"\nid = 0"),
        ("address = \"10.0.1.11:7077\"", "address = \"10.0.1.11:7077\"\nid = 1"),
        ("witness = true", "witness = true\nid = 2"),
        ("[[group]]\nname = \"db\"", more),
    ]));
    let ids: Vec<_> = config.cluster.nodes.iter().map(|node| (node.name.as_str(), node.id)).collect();
    assert_eq!(ids, [("aa", 3), ("db-a", 0), ("db-b", 1), ("tie", 2)]);
    assert_eq!((config.me, config.this_node().name.as_str()), (0, "db-a"));
}
