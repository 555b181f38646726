//! What `check` says of configurations and of this host.

use std::fs;

use super::{
    meaning::{meaning, text},
    *,
};
use crate::config::hooks::OnFailure;

const RIGHT: &str = r#"
node = { name = "db-a", interface = "eth0" }
[cluster]
name = "shop"
key_file = "cluster.key"
node = [
  { name = "db-a", address = "10.0.1.10:7077" },
  { name = "db-b", address = "10.0.1.11:7077" },
  { name = "tie", address = "10.0.2.5:7077", witness = true },
]
[[group]]
name = "db"
vips = ["10.0.1.12"]
priority = { db-a = 150 }
preempt = true
when_all_fail = "keep"
track_interface = ["eth1"]
[[group.check]]
tcp = "127.0.0.1:3306"
[[group.check]]
exec = ["/nowhere/check"]
[group.hooks]
pre_promote = ["/nowhere/promote", "--fast"]
pre_demote = ["/nowhere/demote"]
webhook = "https://alerts.example/vip"
"#;

#[test]
fn a_right_configuration_is_told_in_words() {
    let config = Config::parse(RIGHT, Path::new("vip.toml"), "host").expect("right");
    let files = ["vip.toml".to_owned(), "conf.d/web.toml".to_owned()];
    insta::assert_snapshot!(text(&config, &files), @"
    vip.toml, conf.d/web.toml are right: node db-a of cluster shop, lease 200ms, generation 1
    interfaces: eth0
      db-a             10.0.1.10:7077         node, this one
      db-b             10.0.1.11:7077         node
      tie              10.0.2.5:7077          witness
    3 voters, of which 1 may fail
    group db: 10.0.1.12
      priority db-a 150, db-b 100; preemption after 30s
      check tcp-127.0.0.1:3306: tcp 127.0.0.1:3306; every 2s, timeout 1s, rise 2, fall 3
      check exec-check: exec /nowhere/check; every 2s, timeout 1s, rise 2, fall 3
      tracks eth1
      when all fail: keep
      hook pre_promote: /nowhere/promote --fast; timeout 10s, on failure release, retry after 30s
      hook pre_demote: /nowhere/demote; timeout 2s
      webhook https://alerts.example/vip
    in all: groups 1, VIPs 1, checks 2, hooks 2
    ");
    let json = meaning(&config, &files);
    assert_eq!(json["groups"][0]["checks"][0]["kind"], "tcp");
    assert_eq!(json["groups"][0]["preempt_delay_ms"], 30_000);
    assert_eq!(json["voters"], 3);
    insta::assert_snapshot!(json["groups"][0]["hooks"], @r#"{"on_failure":"release","pre_demote_timeout_ms":2000,"programs":{"pre_demote":["/nowhere/demote"],"pre_promote":["/nowhere/promote","--fast"]},"retry_after_ms":30000,"timeout_ms":10000,"webhook":"https://alerts.example/vip"}"#);
}

#[test]
fn where_vips_belong_is_told() {
    let edited = RIGHT
        .replace("interface = \"eth0\"", "interface = [\"eth0\", { name = \"docker0\", announce = false }]");
    let edited = edited
        .replace("\"10.0.1.12\"", "\"10.0.1.12\", { address = \"203.0.113.5/29\", interface = \"eth0\" }");
    let config = Config::parse(&edited, Path::new("vip.toml"), "host").expect("right");
    let said = text(&config, &["vip.toml".to_owned()]);
    for expected in
        ["interfaces: eth0, docker0 (only guarded)\n", "group db: 10.0.1.12, 203.0.113.5/29 on eth0\n"]
    {
        assert!(said.contains(expected), "{said}");
    }
    let homes = &meaning(&config, &[])["groups"][0]["homes"];
    assert_eq!(homes, &json!({ "203.0.113.5": { "interface": "eth0", "prefix": 29 } }));
}

#[test]
fn mistakes_come_with_their_lines() {
    let text = RIGHT.replace("\"10.0.1.12\"", "\"10.0.1\"").replace("cluster.key", "");
    let errors = Config::parse(&text, Path::new("vip.toml"), "host").expect_err("wrong");
    let said: String = errors.errors().iter().map(shown).collect();
    insta::assert_snapshot!(said, @r#"
vip.toml:5:12: key_file is empty: write key_file = "/etc/vip/cluster.key"
    key_file = ""
               ^^
vip.toml:13:9: "10.0.1" is no IPv4 address: write one, such as "10.0.1.12"
    vips = ["10.0.1"]
            ^^^^^^^^
"#);
    let json = mistake(&errors.errors()[1]);
    assert_eq!((&json["line"], &json["column"]), (&json!(13), &json!(9)));
    assert_eq!(json["text"], "\"10.0.1\"");
}

/// A directory with a configuration, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("vip-check-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("conf.d")).expect("made");
        for (name, text) in files {
            fs::write(path.join(name), text).expect("written");
        }
        Self(path)
    }

    fn main(&self) -> PathBuf {
        self.0.join("vip.toml")
    }

    /// `text` with the directory left out.
    fn without(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind in the directory of temporary files, it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an admin sees of several mistakes in several files.
#[test]
fn mistakes_of_several_files_come_with_their_lines() {
    let main = RIGHT
        .replace("preempt = true", "nopreempt = true")
        .replace("10.0.1.11:7077", "127.0.1.1:7077")
        .replace("interface = \"eth0\"", "interface = \"eth0,eth1\"");
    let app =
        "[[group]]\n\tname = \"App\"\nvips = [\"10.0.1.12/24\", \"10.0.1.12\"]\npriority = { db-c = 3 }\n";
    let web = "[[group]]\nname = \"web\"\nvips = [10.0.1.30]\npreempt = yes\n";
    let directory =
        Directory::new("several", &[("vip.toml", &main), ("conf.d/app.toml", app), ("conf.d/web.toml", web)]);
    let told = || {
        let errors = Config::load(&directory.main()).expect_err("wrong");
        directory.without(&errors.errors().iter().map(shown).collect::<String>())
    };
    insta::assert_snapshot!(told(), @r#"
    vip.toml:2:37: "eth0,eth1" is more than one interface: write ["eth0", "eth1"]
        node = { name = "db-a", interface = "eth0,eth1" }
                                            ^^^^^^^^^^^
    vip.toml:15:1: [[group]] has no key "nopreempt", which is keepalived's: write preempt = false, or leave it out, since no node preempts unless it is told to
        nopreempt = true
        ^^^^^^^^^
    conf.d/app.toml:2:9: the group's name "App" has a 'A': use only small letters, digits and - _ .
         name = "App"
                ^^^^^
    conf.d/web.toml:3:9: 10.0.1.30 is no value of TOML: put quotes around it, "10.0.1.30"
        vips = [10.0.1.30]
                ^^^^^^^^^
    conf.d/web.toml:4:11: yes is no value of TOML: write true, or "yes" if it is a string
        preempt = yes
                  ^^^
    "#);
    fs::write(directory.0.join("conf.d/web.toml"), "[[group]]\nname = \"web\"\nvips = []\nhooks = 3\n")
        .expect("written");
    insta::assert_snapshot!(told(), @r#"
    vip.toml:2:37: "eth0,eth1" is more than one interface: write ["eth0", "eth1"]
        node = { name = "db-a", interface = "eth0,eth1" }
                                            ^^^^^^^^^^^
    vip.toml:8:30: the address 127.0.1.1:7077 is a loopback address, which no other host can reach: write the one that the other nodes reach this one by
          { name = "db-b", address = "127.0.1.1:7077" },
                                     ^^^^^^^^^^^^^^^^
    vip.toml:15:1: [[group]] has no key "nopreempt", which is keepalived's: write preempt = false, or leave it out, since no node preempts unless it is told to
        nopreempt = true
        ^^^^^^^^^
    conf.d/app.toml:2:9: the group's name "App" has a 'A': use only small letters, digits and - _ .
         name = "App"
                ^^^^^
    conf.d/app.toml:3:9: the VIP 10.0.1.12 is in group "db" already (vip.toml, line 13): remove it from one of them
        vips = ["10.0.1.12/24", "10.0.1.12"]
                ^^^^^^^^^^^^^^
    conf.d/app.toml:3:25: the VIP 10.0.1.12 is in group "db" already (vip.toml, line 13): remove it from one of them
        vips = ["10.0.1.12/24", "10.0.1.12"]
                                ^^^^^^^^^^^
    conf.d/app.toml:4:14: there is no node "db-c": did you mean "db-a"?
        priority = { db-c = 3 }
                     ^^^^
    conf.d/web.toml:3:8: the group has no VIP: write vips = ["10.0.1.12"], or remove the group
        vips = []
               ^^
    conf.d/web.toml:4:9: hooks is a table, and 3 is an integer: write [group.hooks]
        hooks = 3
                ^
    "#);
}

#[test]
fn what_is_not_read_and_what_no_router_forwards_is_warned_of() {
    let text = RIGHT.replace("10.0.1.12", "169.254.7.12");
    let directory = Directory::new(
        "unread",
        &[("vip.toml", &text), ("conf.d/web.conf", ""), ("conf.d/web.toml~", ""), ("conf.d/README", "")],
    );
    let config = Config::load(&directory.main()).expect("right");
    let warnings = [unread(&directory.main()), doubtful(&config)].concat();
    insta::assert_snapshot!(directory.without(&warnings.join("\n")), @"
    conf.d/web.conf is not read: end its name in .toml, or move it away
    conf.d/web.toml~ is not read: end its name in .toml, or move it away
    group db: the VIP 169.254.7.12 is a link-local address, which no router forwards: only clients on the same link can reach it
    ");
}

#[test]
fn the_host_is_looked_at() {
    let mut config = Config::parse(RIGHT, Path::new("/nowhere/vip.toml"), "host").expect("right");
    config.groups[0].health.track_interface = vec!["vip-none0".to_owned()];
    config.interfaces = vec!["lo".to_owned()];
    let findings = of_host(&config, Path::new("/nowhere"));
    assert_eq!(findings.errors.len(), 2, "{:?}", findings.errors);
    assert!(findings.errors[0].starts_with("there is no key file /nowhere/cluster.key"));
    assert!(findings.errors[1].starts_with("group db, pre_promote: /nowhere/promote can't be run"));
    assert_eq!(findings.warnings.len(), 4, "{:?}", findings.warnings);
    assert!(findings.warnings[0].contains("10.0.1.12 is in no subnet of its interface"));
    assert!(findings.warnings[1].contains("no interface vip-none0"));
    assert!(findings.warnings[2].contains("check exec-check: /nowhere/check can't be run"));
    assert!(findings.warnings[3].contains("pre_demote: /nowhere/demote can't be run"));
    // If the group ignores failed hooks, a program that is missing is only a warning.
    config.groups[0].hooks.on_failure = OnFailure::Ignore;
    let findings = of_host(&config, Path::new("/nowhere"));
    assert_eq!((findings.errors.len(), findings.warnings.len()), (1, 5));
}
