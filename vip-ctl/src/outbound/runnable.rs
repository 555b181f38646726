//! Checks whether this host can run the programs that a configuration names for
//! checks and hooks. A typo in a hook would otherwise show at the first failover,
//! and then on every node one after the other, since all have the same line.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, thread};

use tracing::warn;
use vip_lease::Hook;

use crate::config::{CheckKind, Config, hooks::OnFailure};

/// The permission bits for running a program.
const MODE_EXECUTE: u32 = 0o111;
/// Groups that are named in one sentence.
const GROUPS_NAMED: usize = 5;

/// A program that can't be run on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The check or hook that names it and why it can't run, in one sentence.
    pub says: String,
    /// Does it keep this node from holding a group, although nothing else does? A
    /// `pre_promote` whose failure releases the lease does.
    pub releases: bool,
}

/// The programs that this node would run and can't: of checks in the order of the
/// groups, then of hooks. A node that never holds runs none.
#[must_use]
pub fn unusable(config: &Config) -> Vec<Unusable> {
    let mut found = Vec::new();
    if !config.this_node().can_hold() {
        return found;
    }
    // A hook of [hooks] concerns all groups, and is reported once.
    let mut hooks: BTreeMap<(Hook, &str, bool), Vec<&str>> = BTreeMap::new();
    for group in &config.groups {
        for check in &group.health.checks {
            let CheckKind::Exec(words) = &check.kind else { continue };
            let program = words.first().map_or("", String::as_str);
            if let Some(why) = not_runnable(Path::new(program)) {
                let says = format!("group {}, check {}: {program} {why}", group.name, check.name);
                found.push(Unusable { says, releases: false });
            }
        }
        for (hook, words) in &group.hooks.commands {
            let program = words.first().map_or("", String::as_str);
            let releases = *hook == Hook::PrePromote
                && match group.hooks.on_failure {
                    OnFailure::Release => true,
                    OnFailure::Ignore => false,
                };
            hooks.entry((*hook, program, releases)).or_default().push(&group.name);
        }
    }
    for ((hook, program, releases), groups) in hooks {
        let Some(why) = not_runnable(Path::new(program)) else { continue };
        let follows = if releases {
            "; until it can be, this node releases each lease of it at once: mend the path, or set on_failure = \"ignore\""
        } else {
            ""
        };
        found.push(Unusable {
            says: format!("{}, {hook}: {program} {why}{follows}", named(&groups)),
            releases,
        });
    }
    found
}

/// How many programs of checks and hooks this node would run.
#[must_use]
pub fn count(config: &Config) -> usize {
    let of_checks = config.groups.iter().flat_map(|group| &group.health.checks);
    let of_checks = of_checks.filter(|check| match check.kind {
        CheckKind::Exec(_) => true,
        CheckKind::Tcp(_)
        | CheckKind::Http { .. }
        | CheckKind::Systemd(_)
        | CheckKind::Process(_)
        | CheckKind::File { .. } => false,
    });
    let of_hooks: usize = config.groups.iter().map(|group| group.hooks.commands.len()).sum();
    if config.this_node().can_hold() { of_checks.count() + of_hooks } else { 0 }
}

/// Logs the programs that can't run, on a thread of its own: a file system that
/// hangs must not block the caller.
pub fn warn_aside(config: &Config) {
    let config = config.clone();
    let body = move || {
        for Unusable { says, .. } in unusable(&config) {
            warn!("{says}");
        }
    };
    if let Err(e) = thread::Builder::new().name("programs".into()).spawn(body) {
        warn!("could not check whether the programs of checks and hooks can run: {e}");
    }
}

fn named(groups: &[&str]) -> String {
    let several = if groups.len() == 1 { "group" } else { "groups" };
    let first = &groups[..groups.len().min(GROUPS_NAMED)];
    let more = match groups.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{several} {}{more}", first.join(", "))
}

/// Why a program can't be run; `None` if it can.
fn not_runnable(program: &Path) -> Option<String> {
    match fs::metadata(program) {
        Err(e) => Some(format!("can't be run: {e}")),
        Ok(found) if !found.is_file() => Some("is no file".to_owned()),
        Ok(found) if found.permissions().mode() & MODE_EXECUTE == 0 => {
            Some("may not be run: set its mode to 0755".to_owned())
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
[hooks]
post_promote = ["/nowhere/told"]
[[group]]
name = "db"
vips = ["10.0.1.12"]
[[group.check]]
exec = ["/nowhere/check"]
[group.hooks]
pre_promote = ["/nowhere/promote", "--fast"]
[[group]]
name = "web"
vips = ["10.0.1.13"]
[group.hooks]
pre_promote = ["/nowhere/promote"]
on_failure = "ignore"
post_demote = ["/bin/sh", "-c", "true"]
on_fault = ["/etc/passwd"]
"#;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("vip.toml"), "host").expect("right")
    }

    #[test]
    fn all_programs_are_looked_at_and_each_is_told_once() {
        let config = config(RIGHT);
        let found = unusable(&config);
        let said: Vec<_> = found.iter().map(|one| format!("{}: {}", one.releases, one.says)).collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
    false: group db, check exec-check: /nowhere/check can't be run: No such file or directory (os error 2)
    false: group web, pre_promote: /nowhere/promote can't be run: No such file or directory (os error 2)
    true: group db, pre_promote: /nowhere/promote can't be run: No such file or directory (os error 2); until it can be, this node releases each lease of it at once: mend the path, or set on_failure = "ignore"
    false: groups db, web, post_promote: /nowhere/told can't be run: No such file or directory (os error 2)
    false: group web, on_fault: /etc/passwd may not be run: set its mode to 0755
    "#);
        assert_eq!(count(&config), 7);
    }

    #[test]
    fn who_never_holds_runs_none() {
        let config = config(&RIGHT.replacen("db-a", "tie", 1));
        assert_eq!((unusable(&config), count(&config)), (Vec::new(), 0));
    }

    #[test]
    fn many_groups_are_not_all_named() {
        assert_eq!(named(&["a"]), "group a");
        assert_eq!(named(&["a", "b", "c", "d", "e"]), "groups a, b, c, d, e");
        assert_eq!(named(&["a", "b", "c", "d", "e", "f", "g"]), "groups a, b, c, d, e and 2 more");
    }

    #[test]
    fn what_can_be_run_is_a_file_that_may_be() {
        assert_eq!(not_runnable(Path::new("/bin/sh")), None);
        assert_eq!(
            not_runnable(Path::new("/etc/passwd")),
            Some("may not be run: set its mode to 0755".into())
        );
        assert_eq!(not_runnable(Path::new("/etc")), Some("is no file".into()));
    }
}
