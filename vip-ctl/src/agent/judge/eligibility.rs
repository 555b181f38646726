//! Which groups this node could serve, and why not: its own interfaces, the
//! groups' checks and their tracked interfaces, taken together. The judge's
//! thread tells the engine, and looks at the interfaces.

use std::collections::{BTreeMap, BTreeSet};

use vip_lease::Eligible;

use crate::{
    config::{self, WhenAllFail},
    engine::{ByGroup, GroupId},
    host::Interface,
    mutant::{self, Mutant},
};

/// A change of a group's eligibility.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The group.
    pub group: GroupId,
    /// The verdict for the engine; `None` while nothing is known.
    pub word: Option<Eligible>,
    /// Why it is not `Yes`.
    pub why: Option<String>,
}

/// All groups. What it costs to judge goes by what has changed,
/// not by how many groups there are.
#[derive(Debug)]
pub struct Judge {
    groups: ByGroup<Watched>,
    by_name: BTreeMap<String, GroupId>,
    /// The groups that track an interface.
    tracked: BTreeMap<String, Vec<GroupId>>,
    /// Groups about which something may be new.
    unjudged: BTreeSet<GroupId>,
    /// Groups that wait with their verdict until everything of theirs is on this
    /// node.
    withheld: BTreeSet<GroupId>,
    /// What kept this node from serving any group, at the last judgement.
    trouble: Option<String>,
    /// Why tracked interfaces were down at that time.
    downs: BTreeMap<String, String>,
}

/// The state of a check after its first verdict.
#[derive(Clone, Debug)]
enum CheckResult {
    Passes,
    /// And why.
    Fails(String),
}

#[derive(Debug)]
struct Watched {
    name: String,
    checks: Vec<config::Check>,
    /// By check.
    verdicts: BTreeMap<String, Option<CheckResult>>,
    track: Vec<String>,
    when_all_fail: WhenAllFail,
    /// The last verdict that was returned.
    told: Option<(Option<Eligible>, Option<String>)>,
}

impl Judge {
    /// A judge that knows nothing of any check.
    #[must_use]
    pub fn new(groups: &[config::Group]) -> Self {
        let groups = groups.iter().map(|group| Watched {
            name: group.name.clone(),
            checks: group.health.checks.clone(),
            verdicts: group.health.checks.iter().map(|check| (check.name.clone(), None)).collect(),
            track: group.health.track_interface.clone(),
            when_all_fail: group.health.when_all_fail,
            told: None,
        });
        let groups: ByGroup<Watched> = groups.collect();
        let by_name = groups.with_ids().map(|(id, group)| (group.name.clone(), id)).collect();
        let mut tracked: BTreeMap<String, Vec<GroupId>> = BTreeMap::new();
        for (id, group) in groups.with_ids() {
            for name in &group.track {
                tracked.entry(name.clone()).or_default().push(id);
            }
        }
        let unjudged = groups.ids().collect();
        let withheld = BTreeSet::new();
        Self { groups, by_name, tracked, unjudged, withheld, trouble: None, downs: BTreeMap::new() }
    }

    /// Goes on with other groups. Keeps what is known of checks that are the
    /// same, and returns everything anew. `withheld` are the names of groups that
    /// wait for [`Judge::admit`].
    pub fn regroup(&mut self, groups: &[config::Group], withheld: &BTreeSet<String>) {
        let old = std::mem::replace(self, Self::new(groups));
        for group in &mut self.groups {
            let Some(was) = old.by_name.get(&group.name).map(|id| &old.groups[*id]) else { continue };
            group.told = was.told.clone().filter(|_| mutant::is(Mutant::NotToldAnew));
            for (check, verdict) in &mut group.verdicts {
                let known = group.checks.iter().find(|known| known.name == *check);
                if was.checks.iter().any(|old| Some(old) == known && !mutant::is(Mutant::VerdictsForgotten))
                    || mutant::is(Mutant::VerdictKept)
                {
                    *verdict = was.verdicts.get(check).cloned().flatten();
                }
            }
        }
        self.withheld = withheld.iter().filter_map(|name| self.by_name.get(name).copied()).collect();
    }

    /// Judges all groups from here on.
    pub fn admit(&mut self) {
        self.unjudged.append(&mut self.withheld);
    }

    /// A verdict on a check: why it fails, or `None` if it passes.
    pub fn note(&mut self, group: &str, check: &str, trouble: Option<String>) {
        let Some(&id) = self.by_name.get(group) else { return };
        if let Some(known) = self.groups[id].verdicts.get_mut(check) {
            *known = Some(trouble.map_or(CheckResult::Passes, CheckResult::Fails));
            self.unjudged.insert(id);
        }
    }

    /// Does any group track this interface?
    #[must_use]
    pub fn tracks(&self, interface: &str) -> bool {
        self.tracked.contains_key(interface)
    }

    /// The name of a group.
    #[must_use]
    pub fn name(&self, group: GroupId) -> &str {
        self.groups.get(group).map_or("?", |group| group.name.as_str())
    }

    /// Judges the groups about which something may be new. `trouble` is what
    /// keeps this node from serving any group. Returns what has changed since the
    /// last time.
    pub fn judge(&mut self, trouble: Option<&str>, links: &BTreeMap<u32, Interface>) -> Vec<News> {
        if self.trouble.as_deref() != trouble {
            self.trouble = trouble.map(str::to_owned);
            self.unjudged.extend(self.groups.ids());
        }
        let down_now = |name: &String| Some((name.clone(), down(name, links)?));
        let downs: BTreeMap<_, _> = self.tracked.keys().filter_map(down_now).collect();
        let is_new = |name: &&String| downs.get(*name) != self.downs.get(*name);
        let concerned = self.tracked.keys().filter(is_new).flat_map(|name| &self.tracked[name]);
        self.unjudged.extend(concerned);
        self.downs = downs;
        let mut news = Vec::new();
        for id in std::mem::take(&mut self.unjudged) {
            if self.withheld.contains(&id) {
                continue;
            }
            let group = &mut self.groups[id];
            let now = group.judge(trouble, &self.downs);
            if group.told.as_ref() != Some(&now) {
                group.told = Some(now.clone());
                news.push(News { group: id, word: now.0, why: now.1 });
            }
        }
        news
    }
}

impl Watched {
    fn judge(
        &self,
        trouble: Option<&str>,
        downs: &BTreeMap<String, String>,
    ) -> (Option<Eligible>, Option<String>) {
        if let Some(trouble) = trouble {
            let keeps = mutant::is(Mutant::KeepsInTrouble) && self.when_all_fail == WhenAllFail::Keep;
            return (Some(if keeps { Eligible::Unwell } else { Eligible::No }), Some(trouble.to_owned()));
        }
        let failing = self.verdicts.iter().find_map(|(name, verdict)| match verdict {
            Some(CheckResult::Fails(trouble)) => Some(format!("check {name}: {trouble}")),
            Some(CheckResult::Passes) | None => None,
        });
        let down = || self.track.iter().find_map(|name| downs.get(name).cloned());
        if let Some(why) = failing.or_else(down) {
            let word = match self.when_all_fail {
                WhenAllFail::Release => Eligible::No,
                WhenAllFail::Keep => Eligible::Unwell,
            };
            return (Some(word), Some(why));
        }
        match self.verdicts.iter().find(|(_, verdict)| verdict.is_none() && !mutant::is(Mutant::WellUnseen)) {
            // A lease that this process found at its start goes on meanwhile.
            Some((name, _)) => (None, Some(format!("check {name} has no result yet"))),
            None => (Some(Eligible::Yes), None),
        }
    }
}

/// Why an interface carries no traffic; `None` if it does.
pub fn down(name: &str, links: &BTreeMap<u32, Interface>) -> Option<String> {
    match links.values().find(|link| link.name == name) {
        None => Some(format!("{name} is gone")),
        Some(link) if !(link.up && (link.carrier || mutant::is(Mutant::CarrierUnseen))) => {
            Some(format!("{name} has no carrier"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Check, CheckKind, Health};

    fn group(name: &str, checks: &[&str], track: &[&str], when_all_fail: WhenAllFail) -> config::Group {
        let second = Duration::from_secs(1);
        let check = |name: &&str| Check {
            name: (*name).to_owned(),
            kind: CheckKind::Process("x".into()),
            interval: second,
            timeout: second,
            rise: 1,
            fall: 1,
        };
        let track_interface = track.iter().map(|name| (*name).to_owned()).collect();
        let health = Health { checks: checks.iter().map(check).collect(), track_interface, when_all_fail };
        config::Group {
            name: name.into(),
            vips: Vec::new(),
            priorities: BTreeMap::new(),
            preempt: None,
            hooks: crate::config::Hooks::default(),
            health,
        }
    }

    fn links(carrier: bool) -> BTreeMap<u32, Interface> {
        let link = Interface { index: 7, name: "eth1".into(), up: true, carrier, ..Interface::default() };
        [(7, link)].into()
    }

    fn said(news: &[News]) -> Vec<(u16, Option<Eligible>, Option<&str>)> {
        news.iter().map(|news| (news.group.0, news.word, news.why.as_deref())).collect()
    }

    #[test]
    fn a_group_without_checks_is_served_by_who_can() {
        let mut judge = Judge::new(&[group("a", &[], &[], WhenAllFail::Keep)]);
        assert_eq!(said(&judge.judge(None, &links(true))), [(0, Some(Eligible::Yes), None)]);
        assert_eq!(judge.judge(None, &links(true)), []);
        // A node that can't serve keeps nothing.
        let no = (0, Some(Eligible::No), Some("eth0 is gone"));
        assert_eq!(said(&judge.judge(Some("eth0 is gone"), &links(true))), [no]);
    }

    #[test]
    fn nothing_is_said_before_every_check_has_a_verdict_unless_one_fails() {
        let mut judge = Judge::new(&[group("a", &["x", "y"], &[], WhenAllFail::Release)]);
        assert_eq!(said(&judge.judge(None, &links(true))), [(0, None, Some("check x has no result yet"))]);
        judge.note("a", "x", None);
        judge.note("b", "y", None);
        assert_eq!(said(&judge.judge(None, &links(true))), [(0, None, Some("check y has no result yet"))]);
        judge.note("a", "y", None);
        assert_eq!(said(&judge.judge(None, &links(true))), [(0, Some(Eligible::Yes), None)]);
        judge.note("a", "x", Some("refused".into()));
        let no = (0, Some(Eligible::No), Some("check x: refused"));
        assert_eq!(said(&judge.judge(None, &links(true))), [no]);
        let mut judge = Judge::new(&[group("a", &["x", "y"], &[], WhenAllFail::Keep)]);
        judge.note("a", "y", Some("refused".into()));
        let unwell = (0, Some(Eligible::Unwell), Some("check y: refused"));
        assert_eq!(said(&judge.judge(None, &links(true))), [unwell]);
    }

    #[test]
    fn other_groups_are_told_anew_and_checks_that_stay_are_known() {
        let old =
            [group("a", &["x", "y"], &[], WhenAllFail::Release), group("b", &[], &[], WhenAllFail::Release)];
        let mut judge = Judge::new(&old);
        judge.note("a", "x", None);
        judge.note("a", "y", Some("refused".into()));
        judge.judge(None, &links(true));
        let mut next = [group("0", &["x"], &[], WhenAllFail::Release), old[0].clone()];
        // Another check with the same name has to prove itself.
        next[1].health.checks[1].fall = 2;
        judge.regroup(&next, &BTreeSet::new());
        let wait = |group, check| (group, None, Some(check));
        let both = [wait(0, "check x has no result yet"), wait(1, "check y has no result yet")];
        assert_eq!(said(&judge.judge(None, &links(true))), both);
        judge.note("a", "y", None);
        assert_eq!(said(&judge.judge(None, &links(true))), [(1, Some(Eligible::Yes), None)]);
        // With other groups under the same numbers, everything has to be told anew.
        judge.regroup(&next, &BTreeSet::new());
        let both = [wait(0, "check x has no result yet"), (1, Some(Eligible::Yes), None)];
        assert_eq!(said(&judge.judge(None, &links(true))), both);
    }

    #[test]
    fn a_tracked_interface_concerns_the_groups_that_track_it() {
        let groups = [
            group("a", &[], &["eth1"], WhenAllFail::Release),
            group("b", &[], &["eth1"], WhenAllFail::Keep),
            group("c", &[], &[], WhenAllFail::Release),
        ];
        let mut judge = Judge::new(&groups);
        assert!(judge.tracks("eth1") && !judge.tracks("eth0"));
        let yes = |group| (group, Some(Eligible::Yes), None);
        assert_eq!(said(&judge.judge(None, &links(true))), [yes(0), yes(1), yes(2)]);
        let why = Some("eth1 has no carrier");
        let gone = [(0, Some(Eligible::No), why), (1, Some(Eligible::Unwell), why)];
        assert_eq!(said(&judge.judge(None, &links(false))), gone);
        assert_eq!(said(&judge.judge(None, &links(true))), [yes(0), yes(1)]);
        judge.judge(None, &BTreeMap::new());
        assert_eq!(said(&judge.judge(None, &links(true))), [yes(0), yes(1)]);
    }
    #[test]
    fn a_verdict_costs_a_look_at_its_own_group() {
        let names: Vec<_> = (0..1_000).map(|number| format!("g{number}")).collect();
        let mut groups: Vec<_> =
            names.iter().map(|name| group(name, &["x"], &[], WhenAllFail::Release)).collect();
        groups[7].health.track_interface = vec!["eth1".into()];
        let mut judge = Judge::new(&groups);
        judge.judge(None, &links(true));
        assert_eq!(judge.unjudged.len(), 0);
        judge.note("g500", "x", Some("refused".into()));
        judge.note("g500", "y", None);
        judge.note("nobody", "x", None);
        assert_eq!(judge.unjudged.iter().copied().collect::<Vec<_>>(), [GroupId(500)]);
        let news = judge.judge(None, &links(true));
        assert_eq!(said(&news), [(500, Some(Eligible::No), Some("check x: refused"))]);
        // Every group that an interface concerns gets its verdict.
        let news = judge.judge(None, &links(false));
        assert_eq!(said(&news), [(7, Some(Eligible::No), Some("eth1 has no carrier"))]);
        assert_eq!(judge.judge(Some("eth0 is gone"), &links(false)).len(), 1_000);
    }

    #[test]
    fn a_group_that_is_not_there_yet_is_not_judged() {
        let groups = [group("a", &[], &[], WhenAllFail::Release), group("b", &[], &[], WhenAllFail::Release)];
        let mut judge = Judge::new(&groups[..1]);
        judge.judge(None, &links(true));
        judge.regroup(&groups, &["b".to_owned()].into());
        let yes = |group| (group, Some(Eligible::Yes), None);
        assert_eq!(said(&judge.judge(None, &links(true))), [yes(0)]);
        let no = |group| (group, Some(Eligible::No), Some("eth0 is gone"));
        assert_eq!(said(&judge.judge(Some("eth0 is gone"), &links(true))), [no(0)]);
        judge.admit();
        assert_eq!(said(&judge.judge(Some("eth0 is gone"), &links(true))), [no(1)]);
    }
}
