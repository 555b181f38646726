//! `[hooks]` and `[group.hooks]`: which of the two counts, and what is refused.

use super::*;
use crate::{config::hooks::OnFailure, events::Hook};

const NODE: &str = r#"
[hooks]
post_promote = ["/bin/told", "all"]
on_fault = ["/bin/page"]
timeout = "20s"
webhook = "https://alerts.example/vip"
"#;

#[test]
fn a_groups_own_hooks_count_key_by_key() {
    let own = "[group.hooks]\npre_promote = [\"/bin/promote\", \"a b\", \"$c\"]\non_fault = []\non_failure = \"ignore\"\n";
    let config = good(
        &(edited(&[("[[group]]\nname = \"cache\"", &format!("{own}[[group]]\nname = \"cache\""))]) + NODE),
    );
    let [cache, db] = config.groups.as_slice() else { panic!("two groups") };
    let words = |hooks: &Hooks, hook| hooks.commands.get(&hook).cloned().unwrap_or_default();
    assert_eq!(words(&cache.hooks, Hook::PostPromote), ["/bin/told", "all"]);
    assert_eq!(words(&cache.hooks, Hook::OnFault), ["/bin/page"]);
    assert_eq!(cache.hooks.on_failure, OnFailure::Release);
    // No shell: what looks like one is an argument.
    assert_eq!(words(&db.hooks, Hook::PrePromote), ["/bin/promote", "a b", "$c"]);
    assert_eq!(words(&db.hooks, Hook::PostPromote), ["/bin/told", "all"]);
    assert!(!db.hooks.commands.contains_key(&Hook::OnFault), "an empty array switches it off");
    assert_eq!(db.hooks.on_failure, OnFailure::Ignore);
    assert_eq!(db.hooks.limit(Hook::PrePromote), Duration::from_secs(20));
    assert_eq!(db.hooks.limit(Hook::PreDemote), Duration::from_secs(2));
    assert_eq!(db.hooks.webhook.as_ref().map(|w| w.host.as_str()), Some("alerts.example"));
    assert_eq!(
        db.hooks.webhook.as_ref().map(ToString::to_string).as_deref(),
        Some("https://alerts.example/vip")
    );
    // Hooks are a node's own business: other nodes may have different ones.
    assert_eq!(config.groups_digest(), good(FULL).groups_digest());
}

#[test]
fn an_empty_webhook_switches_the_nodes_off() {
    let own = "[group.hooks]\nwebhook = \"\"\n[[group]]\nname = \"cache\"";
    let config = good(&(edited(&[("[[group]]\nname = \"cache\"", own)]) + NODE));
    let told: Vec<_> = config.groups.iter().map(|group| group.hooks.webhook.is_some()).collect();
    assert_eq!(told, [true, false]);
    let config = good(&format!("{FULL}[hooks]\nwebhook = \"\"\n"));
    assert!(config.groups.iter().all(|group| group.hooks.webhook.is_none()));
}

#[test]
fn hooks_are_there_once() {
    let text = edited(&[
        ("[[group]]\nname = \"cache\"", "[[group.hooks]]\non_fault = []\n[[group]]\nname = \"cache\""),
        ("[cluster]\n", "[[hooks]]\ntimeout = \"5s\"\n[cluster]\n"),
    ]);
    insta::assert_snapshot!(parse(&text).expect_err("refused"), @"
    vip.toml:5:1: [[hooks]] is one of several tables, and hooks is there once: write [hooks]
    vip.toml:27:1: [[group.hooks]] is one of several tables, and hooks is there once: write [group.hooks]
    ");
}

#[test]
fn what_no_hook_can_be_is_refused() {
    let text = FULL.to_owned()
        + r#"
[hooks]
pre_promote = ["promote.sh"]
post_promote = "/bin/told"
pre_demote = ["/bin/a", 1]
post_demot = ["/bin/b"]
timeout = "1h"
pre_demote_timeout = "11s"
on_failure = "retry"
retry_after = "soon"
webhook = "alerts.example"
"#;
    let found = parse(&text).expect_err("must be refused").to_string();
    insta::assert_snapshot!(found, @r#"
    vip.toml:30:16: pre_promote runs "promote.sh", which is no absolute path, and no shell looks for it: write pre_promote = ["/usr/local/bin/pre_promote", "argument"]
    vip.toml:31:16: post_promote is an array of strings, and "/bin/told" is a string: write post_promote = ["/usr/local/bin/post_promote", "argument"]
    vip.toml:32:25: pre_demote is an array of strings, and 1 is an integer: write pre_demote = ["/usr/local/bin/pre_demote", "argument"]
    vip.toml:33:1: [hooks] has no key "post_demot": did you mean "post_demote"?
    vip.toml:34:11: timeout = "1h" is out of range: write one from 10ms to 10m
    vip.toml:35:22: pre_demote_timeout = "11s" is out of range: write one from 10ms to 10s
    vip.toml:36:14: on_failure = "retry" is no choice: write "release" (another node takes over when pre_promote fails) or "ignore" (this one goes on)
    vip.toml:37:15: "soon" is no time: write a number and its unit, such as retry_after = "30s"
    vip.toml:38:11: "alerts.example" is no address to post to: write one such as webhook = "https://alerts.example/vip"
    "#);
}
