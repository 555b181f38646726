//! Checks, tracked interfaces and the files of `conf.d`: what they mean, and
//! what is refused of them, in which words.

use std::path::PathBuf;

use super::*;

/// [`FULL`] with more at its end, which belongs to the group `cache`.
fn with(more: &str) -> String {
    format!("{FULL}{more}")
}

/// The reasons for which a check with these lines, which begin behind
/// `[[group.check]]` in line 28, is refused.
fn refused(checks: &[&str]) -> String {
    let mut said = Vec::new();
    for check in checks {
        let text = with(&format!("[[group.check]]\n{check}\n"));
        let errors = parse(&text).expect_err("must be refused");
        for error in errors.errors() {
            let place = error.place.expect("all are in the text");
            assert!(place.line >= 28, "{error}");
            said.push(error.to_string());
        }
    }
    said.join("\n")
}

#[test]
fn checks_of_every_kind_are_read() {
    let config = good(&with(
        r#"when_all_fail = "keep"
        track_interface = ["eth1"]
        [[group.check]]
        tcp = "127.0.0.1:3306"
        interval = "500ms"
        [[group.check]]
        http = "https://localhost:8443/health?full"
        status = [200, 204]
        body = "ok"
        insecure = true
        name = "app"
        [[group.check]]
        http = "http://[::1]/"
        status = 301
        [[group.check]]
        exec = ["/usr/bin/check", "arg"]
        interval = "10s"
        timeout = "5s"
        rise = 3
        fall = 1
        [[group.check]]
        systemd = "postgresql@14-main.service"
        [[group.check]]
        process = "mysqld"
        [[group.check]]
        file = "/run/maintenance"
        present = false
        "#,
    ));
    let health = &config.groups[0].health;
    assert_eq!(health.when_all_fail, WhenAllFail::Keep);
    assert_eq!(health.track_interface, ["eth1"]);
    let said = |check: &Check| {
        let Check { name, kind, interval, timeout, rise, fall } = check;
        format!("{name}: {kind}; {interval:?} {timeout:?} {rise} {fall}")
    };
    let said: Vec<_> = health.checks.iter().map(said).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    tcp-127.0.0.1:3306: tcp 127.0.0.1:3306; 500ms 500ms 2 3
    app: http https://localhost:8443/health?full; 2s 1s 2 3
    http-[::1]/: http http://[::1]/; 2s 1s 2 3
    exec-check: exec /usr/bin/check arg; 10s 5s 3 1
    systemd-postgresql@14-main.service: systemd postgresql@14-main.service; 2s 1s 2 3
    process-mysqld: process mysqld; 2s 1s 2 3
    file-/run/maintenance: file /run/maintenance, absent; 2s 1s 2 3
    ");
    assert!(matches!(&health.checks[1].kind, CheckKind::Http { statuses, insecure: true, url, .. }
        if statuses == &[200, 204] && url.host == "localhost" && url.port == 8443));
    assert!(
        matches!(&health.checks[2].kind, CheckKind::Http { url, .. } if url.host == "::1" && url.port == 80)
    );
    assert!(config.groups[1].health.is_empty());
    assert_eq!(config.groups[1].health.when_all_fail, WhenAllFail::Release);
}

/// An admin changes one node at a time, so nodes may have different checks meanwhile.
#[test]
fn checks_are_a_nodes_own_business() {
    let more = with("track_interface = [\"eth1\"]\n[[group.check]]\nprocess = \"mysqld\"\n");
    assert_eq!(good(&more).digest(), good(FULL).digest());
    assert_eq!(good(&more).nodes_digest(), good(FULL).nodes_digest());
}

#[test]
fn checks_that_say_not_what_to_look_at_or_too_much() {
    let found = refused(&[
        "name = \"a\"",
        "tcpp = \"127.0.0.1:1\"",
        "tcp = \"127.0.0.1:1\"\nfile = \"/run/a\"",
        "script = \"/bin/true\"",
        "tcp = \"127.0.0.1:1\"\nbody = \"ok\"\nstatus = 200\ninsecure = true\npresent = true",
        "file = \"/a\"\nbody = \"ok\"",
        "tcp = \"127.0.0.1:1\"\nname = \"two words\"",
        "tcp = \"127.0.0.1:1\"\nname = \"\"",
    ]);
    insta::assert_snapshot!(found, @r#"
    vip.toml:28:1: the check does not say what to look at: add one of tcp, http, exec, systemd, process, file, such as tcp = "127.0.0.1:3306"
    vip.toml:29:1: [[group.check]] has no key "tcpp": did you mean "tcp"?
    vip.toml:30:8: the check has tcp and file: keep one, and write a [[group.check]] of its own for the other
    vip.toml:28:1: the check does not say what to look at: add one of tcp, http, exec, systemd, process, file, such as tcp = "127.0.0.1:3306"
    vip.toml:29:1: [[group.check]] has no key "script": remove it, or write one of name, tcp, http, exec, systemd, process, file, interval, timeout, rise, fall, status, body, insecure, present
    vip.toml:30:8: body is for http, and this check is tcp: remove it
    vip.toml:31:10: status is for http, and this check is tcp: remove it
    vip.toml:32:12: insecure is for http, and this check is tcp: remove it
    vip.toml:33:11: present is for file, and this check is tcp: remove it
    vip.toml:30:8: body is for http, and this check is file: remove it
    vip.toml:30:8: the check's name "two words" has a ' ': use only letters, digits and - _ .
    vip.toml:30:8: the check's name is empty: write one of letters, digits and - _ .
    "#);
}

#[test]
fn addresses_that_nothing_listens_on() {
    let found = refused(&[
        "tcp = \"127.0.0.1\"",
        "tcp = \"localhost:3306\"",
        "tcp = \"127.0.0.1:0\"",
        "tcp = 3306",
        "http = \"127.0.0.1:80/\"",
        "http = \"ftp://127.0.0.1/\"",
        "http = \"http://user:secret@127.0.0.1/\"",
        "http = \"http:///health\"",
        "http = \"http://127.0.0.1/\"\ninsecure = true",
        "http = \"http://127.0.0.1/\"\nstatus = 99",
        "http = \"http://127.0.0.1/\"\nstatus = []",
        "http = \"http://127.0.0.1/\"\nstatus = [200, \"204\"]",
    ]);
    insta::assert_snapshot!(found, @r#"
    vip.toml:29:7: 127.0.0.1 has no port: write "127.0.0.1:3306" with the service's
    vip.toml:29:7: "localhost:3306" is no address: write an IP address and a port, such as "127.0.0.1:3306"
    vip.toml:29:7: nothing can listen on 127.0.0.1:0: write the service's address and port
    vip.toml:29:7: tcp is a string, and 3306 is an integer: write tcp = "127.0.0.1:3306"
    vip.toml:29:8: "127.0.0.1:80/" is no address of a page: write http = "http://127.0.0.1:8080/health", with http or https and without a user
    vip.toml:29:8: "ftp://127.0.0.1/" is no address of a page: write http = "http://127.0.0.1:8080/health", with http or https and without a user
    vip.toml:29:8: "http://user:secret@127.0.0.1/" is no address of a page: write http = "http://127.0.0.1:8080/health", with http or https and without a user
    vip.toml:29:8: "http:///health" is no address of a page: write http = "http://127.0.0.1:8080/health", with http or https and without a user
    vip.toml:30:12: insecure is for https, and this is http: remove it
    vip.toml:30:10: status = 99 is none of HTTP: write one from 100 to 599
    vip.toml:30:10: status names none: write status = 200, or remove it
    vip.toml:30:16: status is an integer, or several, and "204" is a string: write status = 200, or status = [200, 204]
    "#);
}

#[test]
fn programs_units_processes_and_files_that_can_not_be() {
    let found = refused(&[
        "exec = \"/usr/bin/check arg\"",
        "exec = []",
        "exec = [\"check\"]",
        "exec = [\"/usr/bin/check\", 1]",
        "exec = [\"/usr/bin/check\", \"a\\u0000b\"]",
        "systemd = \"\"",
        "systemd = \"--all\"",
        "systemd = \"two units\"",
        "process = \"\"",
        "process = \"/usr/sbin/mysqld\"",
        "process = \"a-very-long-process-name\"",
        "file = \"maintenance\"",
        "file = \"/run/a\"\npresent = \"no\"",
    ]);
    insta::assert_snapshot!(found, @r#"
    vip.toml:29:8: exec is an array of strings, and "/usr/bin/check arg" is a string: write exec = ["/usr/local/bin/check", "argument"]
    vip.toml:29:8: exec names no program: write exec = ["/usr/local/bin/check", "argument"]
    vip.toml:29:9: exec: "check" is no absolute path: write it from / on
    vip.toml:29:27: exec is an array of strings, and 1 is an integer: write exec = ["/usr/local/bin/check", "argument"]
    vip.toml:29:27: an argument can't have a NUL in it: remove it
    vip.toml:29:11: "" is no unit of systemd: write it as `systemctl` shows it, such as "postgresql.service"
    vip.toml:29:11: "--all" is no unit of systemd: write it as `systemctl` shows it, such as "postgresql.service"
    vip.toml:29:11: "two units" is no unit of systemd: write it as `systemctl` shows it, such as "postgresql.service"
    vip.toml:29:11: "" is no name of a process: write it as `ps -o comm` shows it, such as "mysqld"
    vip.toml:29:11: "/usr/sbin/mysqld" is no name of a process: write it as `ps -o comm` shows it, such as "mysqld"
    vip.toml:29:11: Linux cuts names of processes after 15 bytes, and "a-very-long-process-name" has 24: write "a-very-long-pro"
    vip.toml:29:8: file: "maintenance" is no absolute path: write it from / on
    vip.toml:30:11: present is true or false, and "no" is a string: write present = false
    "#);
}

#[test]
fn times_and_counts_out_of_range() {
    let found = refused(&[
        "process = \"a\"\ninterval = \"10ms\"",
        "process = \"a\"\ninterval = \"2h\"",
        "process = \"a\"\ninterval = \"2\"",
        "process = \"a\"\ninterval = 2",
        "process = \"a\"\ntimeout = \"3s\"",
        "process = \"a\"\ninterval = \"10s\"\ntimeout = \"11s\"",
        "process = \"a\"\ntimeout = \"1ms\"",
        "process = \"a\"\nrise = 0",
        "process = \"a\"\nfall = 1001",
        "process = \"a\"\nfall = \"3\"",
    ]);
    insta::assert_snapshot!(found, @r#"
    vip.toml:30:12: interval = "10ms" is out of range: write one from 100ms to 1h
    vip.toml:30:12: interval = "2h" is out of range: write one from 100ms to 1h
    vip.toml:30:12: "2" is no time: write a number and its unit, such as interval = "1s"
    vip.toml:30:12: interval is a string, and 2 is an integer: write interval = "1s"
    vip.toml:30:11: timeout = "3s" is out of range: write one from 10ms to 2s, the interval
    vip.toml:31:11: timeout = "11s" is out of range: write one from 10ms to 10s, the interval
    vip.toml:30:11: timeout = "1ms" is out of range: write one from 10ms to 2s, the interval
    vip.toml:30:8: rise = 0 is out of range: write one from 1 to 1000
    vip.toml:30:8: fall = 1001 is out of range: write one from 1 to 1000
    vip.toml:30:8: fall is an integer, and "3" is a string: write fall = 1
    "#);
}

#[test]
fn two_checks_of_one_name() {
    let check = "[[group.check]]\nexec = [\"/bin/check\", \"one\"]\n";
    let text = with(&format!("{check}{}", check.replace("one", "two")));
    insta::assert_snapshot!(parse(&text).expect_err("refused"), @r#"vip.toml:31:8: the group has a check "exec-check" already (line 29): give this one another name = "...""#);
}

#[test]
fn choices_that_are_none() {
    let text = with("when_all_fail = \"panic\"\ntrack_interface = [\"eth 1\", \"eth1\", \"eth1\"]\n");
    insta::assert_snapshot!(parse(&text).expect_err("refused"), @r#"
    vip.toml:28:17: when_all_fail = "panic" is no choice: write "release" (a holder whose checks fail lets go, and nobody answers) or "keep" (it goes on until another node is ready)
    vip.toml:29:20: "eth 1" can't be an interface: write one as `ip link` shows it
    vip.toml:29:37: the interface "eth1" is named twice: remove one
    "#);
    insta::assert_snapshot!(parse(&with("when_all_fail = \"keep\"\n")).expect_err("refused"), @r#"vip.toml:28:17: when_all_fail = "keep" does nothing without a check: add a [[group.check]], or remove when_all_fail"#);
    insta::assert_snapshot!(parse(&with("track_interface = []\nwhen_all_fail = \"keep\"\n")).expect_err("refused"), @r#"vip.toml:29:17: when_all_fail = "keep" does nothing without a check: add a [[group.check]], or remove when_all_fail"#);
    let many = "[[group.check]]\nprocess = \"a\"\n".repeat(33);
    let found = parse(&with(&many)).expect_err("refused").to_string();
    assert!(found.contains("33 checks are too many for a group: keep 32 at most"), "{found}");
}

/// On a standby such a check would ask the holder.
#[test]
fn checks_of_the_groups_own_vip() {
    let found = refused(&[
        "tcp = \"10.0.1.20:80\"",
        "tcp = \"[::ffff:10.0.1.20]:80\"",
        "http = \"https://10.0.1.20:8443/health\"\nname = \"app\"",
    ]);
    insta::assert_snapshot!(found, @r#"
    vip.toml:29:7: tcp = "10.0.1.20:80" asks the group's own VIP 10.0.1.20, which only its holder answers for, so that no node could pass before one holds it: ask 127.0.0.1 or this node's own address
    vip.toml:29:7: tcp = "[::ffff:10.0.1.20]:80" asks the group's own VIP 10.0.1.20, which only its holder answers for, so that no node could pass before one holds it: ask 127.0.0.1 or this node's own address
    vip.toml:29:8: http = "https://10.0.1.20:8443/health" asks the group's own VIP 10.0.1.20, which only its holder answers for, so that no node could pass before one holds it: ask 127.0.0.1 or this node's own address
    "#);
    // This group may depend on the VIP of another group.
    good(&with("[[group.check]]\ntcp = \"10.0.1.12:3306\"\n"));
}

#[test]
fn a_check_with_too_few_brackets() {
    insta::assert_snapshot!(parse(&with("[group.check]\ntcp = \"127.0.0.1:1\"\n")).expect_err("refused"), @"vip.toml:28:1: check is an array of tables, and [group.check] is a table: write [[group.check]]");
}

#[test]
fn a_check_outside_of_a_group() {
    let text = edited(&[("[cluster]\n", "[[check]]\ntcp = \"127.0.0.1:1\"\n[cluster]\n")]);
    insta::assert_snapshot!(parse(&text).expect_err("refused"), @r#"vip.toml:5:3: the file has no key "check": move it to [[group]]"#);
}

/// A directory with a configuration, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let path = std::env::temp_dir().join(format!("vip-config-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("conf.d")).expect("made");
        for (name, text) in files {
            fs::write(path.join(name), text).expect("written");
        }
        Self(path)
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.0.join("vip.toml"))
    }

    /// What is wrong, with the directory left out.
    fn refused(&self) -> String {
        let errors = self.load().expect_err("must be refused").to_string();
        errors.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind in the directory of temporary files, it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WEB: &[u8] = b"[[group]]\nname = \"web\"\nvips = [\"10.0.1.30\"]\n";

#[test]
fn files_of_the_directory_add_groups() {
    let main = FULL.split_once("[[group]]").expect("there").0;
    let directory = Directory::new(
        "more",
        &[
            ("vip.toml", main.as_bytes()),
            ("conf.d/10-web.toml", WEB),
            ("conf.d/20-app.toml", b"[[group]]\nname = \"app\"\nvips = [\"10.0.1.31\"]\n[[group]]\nname = \"b\"\nvips = [\"10.0.1.32\"]\n"),
            ("conf.d/empty.toml", b"# nothing yet\n"),
            ("conf.d/.hidden.toml", b"no configuration"),
            ("conf.d/README", b"no configuration"),
            ("conf.d/web.conf", b"no configuration"),
            ("conf.d/web.toml~", b"no configuration"),
        ],
    );
    let names: Vec<_> = directory.load().expect("right").groups.into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["app", "b", "web"]);
    let listed = more_files(&directory.0.join("vip.toml")).expect("listed");
    let listed: Vec<_> = listed.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(listed, ["10-web.toml", "20-app.toml", "empty.toml"]);
    let unread = unread_files(&directory.0.join("vip.toml")).expect("listed");
    let unread: Vec<_> = unread.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(unread, ["web.conf", "web.toml~"], "hidden files and a README are nobody's mistake");
    // The order of files makes no difference to what other nodes see.
    let whole = format!(
        "{main}{}",
        "[[group]]\nname = \"b\"\nvips = [\"10.0.1.32\"]\n[[group]]\nname = \"web\"\nvips = [\"10.0.1.30\"]\n[[group]]\nname = \"app\"\nvips = [\"10.0.1.31\"]\n"
    );
    assert_eq!(good(&whole).digest(), directory.load().expect("right").digest());
}

#[test]
fn what_is_there_once_is_not_for_the_directory() {
    let cluster = b"[cluster]\nlease = \"1s\"\n[node]\nname = \"db-b\"\n[[gruop]]\nname = \"x\"\n";
    let directory = Directory::new(
        "once",
        &[("vip.toml", FULL.as_bytes()), ("conf.d/a.toml", cluster), ("conf.d/b.toml", WEB)],
    );
    insta::assert_snapshot!(directory.refused(), @r#"
    conf.d/a.toml:1:2: a file of conf.d has groups only, and "cluster" is there once for all: move it to the main file
    conf.d/a.toml:3:2: a file of conf.d has groups only, and "node" is there once for all: move it to the main file
    conf.d/a.toml:5:3: a file of conf.d has no key "gruop": did you mean "group"?
    "#);
}

#[test]
fn mistakes_of_all_files_are_told_with_their_files() {
    let directory = Directory::new(
        "mistakes",
        &[
            ("vip.toml", edited(&[("lease = \"200ms\"", "lease = \"200\"")]).as_bytes()),
            ("conf.d/a.toml", b"\n[[group]]\nname = \"web\"\nvips = [\"10.0.1.12\", \"10.0.1.40\"]\n"),
            ("conf.d/b.toml", b"[[group]]\nname = \"web\"\nvips = [\"10.0.1.40\", \"10.0.1.10\"]\npriority = { db-x = 3 }\n"),
        ],
    );
    insta::assert_snapshot!(directory.refused(), @r#"
    vip.toml:8:9: "200" is no time: write a number and its unit, such as "200ms"
    conf.d/a.toml:4:9: the VIP 10.0.1.12 is in group "db" already (vip.toml, line 22): remove it from one of them
    conf.d/b.toml:2:8: there is a group "web" already (conf.d/a.toml, line 3): give this one another name, or join the two
    conf.d/b.toml:3:9: the VIP 10.0.1.40 is in group "web" already (conf.d/a.toml, line 4): remove it from one of them
    conf.d/b.toml:3:22: the VIP 10.0.1.10 is the address of db-a (vip.toml, line 11), which can't move: write another
    conf.d/b.toml:4:14: there is no node "db-x": did you mean "db-a"?
    "#);
}

#[test]
fn a_file_that_is_no_toml_does_not_hide_the_mistakes_of_others() {
    let directory = Directory::new(
        "broken",
        &[
            ("vip.toml", edited(&[("\"10.0.1.20\"", "\"10.0.1\"")]).as_bytes()),
            ("conf.d/a.toml", b"[[group]]\nname = web\n"),
            ("conf.d/b.toml", b"[[group]]\nname = \"W\xfc\"\n"),
            ("conf.d/c.toml", b"[[group]]\nname = \"W\"\nvips = [\"10.0.1.40\"]\n"),
        ],
    );
    fs::create_dir(directory.0.join("conf.d/d.toml")).expect("made");
    insta::assert_snapshot!(directory.refused(), @r#"
    vip.toml:27:9: "10.0.1" is no IPv4 address: write one, such as "10.0.1.12"
    conf.d/a.toml:2:8: web is no value of TOML: if it is a string, write "web"
    conf.d/b.toml:2:10: this byte is no UTF-8: save the file as UTF-8
    conf.d/c.toml:2:8: the group's name "W" has a 'W': use only small letters, digits and - _ .
    conf.d/d.toml: can't be read (Is a directory (os error 21)): make it readable, or remove it
    "#);
}

/// What Windows' editors do to a file.
#[test]
fn a_mark_at_the_beginning_and_carriage_returns_are_no_mistake() {
    let text = format!("\u{feff}{}", FULL.replace('\n', "\r\n"));
    assert_eq!(parse(&text), parse(FULL));
    let errors = parse(&text.replace("[node]", "[nod]")).expect_err("refused");
    let first = errors.errors().iter().find(|error| error.text == "nod").expect("the unknown table");
    assert_eq!(first.line, "[nod]");
    assert_eq!(first.place, Some(Place { line: 1, column: 2 }), "the mark is no column");
    let directory = Directory::new("mark", &[("vip.toml", text.as_bytes())]);
    assert!(directory.load().is_ok());
}

#[test]
fn a_directory_that_is_none() {
    let directory = Directory::new("none", &[("vip.toml", FULL.as_bytes())]);
    fs::remove_dir(directory.0.join("conf.d")).expect("empty");
    assert_eq!(
        directory.load(),
        Ok(Config {
            cluster: Cluster { key_file: "/etc/vip/cluster.key".into(), ..good(FULL).cluster },
            ..good(FULL)
        })
    );
    fs::write(directory.0.join("conf.d"), "").expect("written");
    insta::assert_snapshot!(directory.refused(), @"conf.d: can't be listed (Not a directory (os error 20)): make it a directory");
}

/// Each error has its line and the offending text, for programs that show them.
#[test]
fn a_mistake_comes_with_its_line_and_the_offending_text() {
    let errors = parse(&edited(&[("lease = \"200ms\"", "lease = \"200\"")])).expect_err("refused");
    let [error] = errors.errors() else { panic!("{errors}") };
    assert_eq!((error.line.as_str(), error.text.as_str()), ("lease = \"200\"", "\"200\""));
}

/// Counts the refused configurations in the tests.
#[test]
fn at_least_forty_bad_configurations_are_covered() {
    let tests = [include_str!("refused.rs"), include_str!("health.rs")];
    let whole: usize = tests.iter().map(|text| text.matches("errors(&").count()).sum();
    let checks =
        tests[1].lines().filter(|line| line.trim_start().starts_with('"') && line.contains(" = ")).count();
    assert!(whole >= 40 && checks >= 40, "{whole} files, {checks} checks");
}
