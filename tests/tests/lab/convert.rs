//! `vip-ctl convert` as it is called: what goes to stdout, to stderr and to a
//! file, and what it exits with. What becomes of the lines of a
//! `keepalived.conf` is tested next to the conversion itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::lab::find_vip_ctl;
use vip_tests_macros::tool_test;

const OLD: &str = "global_defs {
    router_id lb-1
}
vrrp_script chk_haproxy {
    script \"killall -0 haproxy\"
    interval 2
}
vrrp_instance VI_1 {
    interface eth0
    priority 150
    unicast_src_ip 192.0.2.11
    unicast_peer {
        192.0.2.12
    }
    virtual_ipaddress {
        192.0.2.100/24 dev eth0
    }
    track_script {
        chk_haproxy
    }
}
";

/// A directory that goes with the test, with the old file in it.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vip-convert-{test}-{}", std::process::id()));
        fs::create_dir(&path)?;
        let dir = Self(path);
        fs::write(dir.file("keepalived.conf"), OLD)?;
        Ok(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn run(&self, args: &[&str]) -> Result<Ran> {
        run(Command::new(find_vip_ctl()?).args(args).current_dir(&self.0))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Left behind in the directory of temporary files, it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// Its JSON, which has to be all that is on stdout.
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }
}

fn run(command: &mut Command) -> Result<Ran> {
    let Output { status, stdout, stderr } = command.output()?;
    let text = |bytes| String::from_utf8(bytes).context("UTF-8");
    Ok(Ran { code: status.code(), stdout: text(stdout)?, stderr: text(stderr)? })
}

fn check(dir: &Dir, file: &Path) -> Result<Ran> {
    dir.run(&["check", "--no-host", "--config", file.to_str().context("UTF-8")?])
}

#[test]
fn it_goes_to_stdout_and_the_notes_to_stderr() -> Result<()> {
    let dir = Dir::new("stdout")?;
    let ran = dir.run(&["convert", "keepalived.conf"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("# Made by `vip-ctl convert`."), "{}", ran.stdout);
    assert!(ran.stdout.contains("vips = [\"192.0.2.100/24\"]"), "{}", ran.stdout);
    assert!(ran.stderr.contains("keepalived.conf:13: fill in: the name of 192.0.2.12"), "{}", ran.stderr);
    assert!(ran.stderr.lines().all(|line| line.starts_with("keepalived.conf:")), "{}", ran.stderr);
    Ok(())
}

#[test]
fn what_it_writes_is_refused_until_it_is_filled_in() -> Result<()> {
    let dir = Dir::new("fill-in")?;
    let ran = dir.run(&["convert", "keepalived.conf", "--node", "lb-a", "--out", "vip.toml"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("wrote vip.toml: fill in what says FILL-IN"), "{}", ran.stdout);
    let file = dir.file("vip.toml");
    let ran = check(&dir, &file)?;
    assert_eq!(ran.code, Some(78), "{}", ran.stdout);
    let mut text = fs::read_to_string(&file)?;
    // Each of these alone is enough to refuse it.
    for (from, to) in
        [("FILL-IN:node-2", "lb-b"), ("FILL-IN:7077", "192.0.2.13:7077"), ("\"FILL-IN\"", "100")]
    {
        fs::write(&file, &text)?;
        assert_eq!(check(&dir, &file)?.code, Some(78), "with {from}");
        ensure!(text.contains(from), "{text}");
        text = text.replace(from, to);
    }
    fs::write(&file, &text)?;
    let ran = check(&dir, &file)?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("3 voters, of which 1 may fail"), "{}", ran.stdout);
    Ok(())
}

#[test]
fn a_file_that_is_there_is_overwritten_by_force_alone() -> Result<()> {
    let dir = Dir::new("force")?;
    let file = dir.file("vip.toml");
    fs::write(&file, "precious\n".repeat(1000))?;
    let ran = dir.run(&["convert", "keepalived.conf", "--out", "vip.toml"])?;
    assert_eq!(ran.code, Some(73), "{}", ran.stderr);
    assert!(ran.stderr.contains("use --force to overwrite it"), "{}", ran.stderr);
    assert!(fs::read_to_string(&file)?.starts_with("precious"));
    let ran = dir.run(&["convert", "keepalived.conf", "--out", "vip.toml", "--force"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let text = fs::read_to_string(&file)?;
    assert!(text.starts_with("# Made by") && !text.contains("precious"), "{text}");
    let ran = dir.run(&["convert", "keepalived.conf", "--out", "nowhere/vip.toml"])?;
    assert_eq!(ran.code, Some(73), "{}", ran.stderr);
    Ok(())
}

#[test]
fn each_failure_has_its_exit_code() -> Result<()> {
    let dir = Dir::new("failures")?;
    fs::write(dir.file("empty.conf"), "global_defs {\n}\n")?;
    fs::write(dir.file("open.conf"), "vrrp_instance a {\n")?;
    let cases: &[(&[&str], i32, &str)] = &[
        (&["convert", "--force", "keepalived.conf"], 64, "--out"),
        (&["convert", "keepalived.conf", "another.conf"], 64, "another.conf"),
        (&["convert", "--nodes", "a"], 64, "--node"),
        (&["convert", "missing.conf"], 66, "missing.conf can't be read"),
        (&["convert", "."], 66, "can't be read"),
        (&["convert", "empty.conf"], 78, "empty.conf:1: there is no vrrp_instance in it"),
        (&["convert", "open.conf"], 78, "open.conf:1: this { is never closed"),
    ];
    for (args, code, said) in cases {
        let ran = dir.run(args)?;
        assert_eq!(ran.code, Some(*code), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
    }
    Ok(())
}

#[tool_test("setpriv")]
fn a_file_that_may_not_be_read_is_a_matter_of_rights() -> Result<()> {
    let dir = Dir::new("rights")?;
    fs::set_permissions(dir.file("keepalived.conf"), fs::Permissions::from_mode(0o000))?;
    let vip_ctl = find_vip_ctl()?;
    // Root may read it all the same, unless that right is taken from it.
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(vip_ctl);
        command
    } else {
        Command::new(vip_ctl)
    };
    let ran = run(command.args(["-o", "json", "convert", "keepalived.conf"]).current_dir(&dir.0))?;
    assert_eq!(ran.code, Some(77), "{}", ran.stderr);
    assert!(ran.stderr.contains("run it as root"), "{}", ran.stderr);
    assert_eq!(ran.json()?["error"]["code"], 77);
    Ok(())
}

#[test]
fn json_is_valid_whether_it_works_or_not() -> Result<()> {
    let dir = Dir::new("json")?;
    let ran = dir.run(&["-o", "json", "convert", "keepalived.conf"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.is_empty(), "the notes are in it: {}", ran.stderr);
    let json = ran.json()?;
    assert_eq!(json["out"], Value::Null);
    assert!(json["toml"].as_str().is_some_and(|toml| toml.contains("[[group]]")), "{json}");
    let notes = json["notes"].as_array().context("notes")?;
    let kinds: Vec<_> = notes.iter().filter_map(|note| note["kind"].as_str()).collect();
    assert_eq!(kinds.len(), notes.len());
    assert!(kinds.contains(&"fill_in") && kinds.contains(&"changed"), "{json}");
    assert!(notes.iter().all(|note| note["says"].is_string()), "{json}");

    let ran = dir.run(&["-o", "json", "convert", "keepalived.conf", "--out", "vip.toml"])?;
    assert_eq!(ran.json()?["out"], "vip.toml");
    assert_eq!(ran.json()?["toml"].as_str(), Some(fs::read_to_string(dir.file("vip.toml"))?.as_str()));

    for (args, code) in [
        (&["-o", "json", "convert", "missing.conf"][..], 66),
        (&["-o", "json", "convert", "keepalived.conf", "--out", "vip.toml"][..], 73),
    ] {
        let ran = dir.run(args)?;
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert_eq!(ran.json()?["error"]["code"], code);
        assert!(ran.json()?["error"]["message"].is_string());
    }
    Ok(())
}
