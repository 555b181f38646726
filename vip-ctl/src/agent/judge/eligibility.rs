//! Which groups this node could serve, and why not: its own interfaces, the
//! groups' checks and their tracked interfaces, taken together. The judge's
//! thread tells the engine, and looks at the interfaces.

use std::collections::{BTreeMap, BTreeSet};

use vip_lease::Eligible;

use crate::{
    config::{self, WhenAllFail},
    dataplane::attach,
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

/// Why an interface can't be served on well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This node knows it.
    Sure(String),
    /// Others say so, or have not said the contrary yet.
    Said(String),
}

impl Trouble {
    /// In words.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Sure(why) | Self::Said(why) => why,
        }
    }
}

/// All groups. What it costs to judge goes by what has changed,
/// not by how many groups there are.
#[derive(Debug)]
pub struct Judge {
    groups: ByGroup<Watched>,
    by_name: BTreeMap<String, GroupId>,
    /// The groups that track an interface.
    tracked: BTreeMap<String, Vec<GroupId>>,
    /// The groups that are announced on an interface.
    announced: BTreeMap<String, Vec<GroupId>>,
    /// Groups about which something may be new.
    unjudged: BTreeSet<GroupId>,
    /// Groups that wait with their verdict until everything of theirs is on this
    /// node.
    withheld: BTreeSet<GroupId>,
    /// Why interfaces could not be served on, at the last judgement.
    troubles: BTreeMap<String, Trouble>,
    /// Why tracked interfaces were down at that time.
    downs: BTreeMap<String, String>,
    /// Groups, by name, of which peers hear no VIP while this node has them, and what they say.
    mute: BTreeMap<String, String>,
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
    /// The interfaces on which its VIPs are announced.
    homes: BTreeSet<String>,
    when_all_fail: WhenAllFail,
    /// The last verdict that was returned.
    told: Option<(Option<Eligible>, Option<String>)>,
}

impl Judge {
    /// A judge that knows nothing of any check. `announcing` are the interfaces of VIPs
    /// that have none of their own.
    #[must_use]
    pub fn new(groups: &[config::Group], announcing: &[String]) -> Self {
        let groups = groups.iter().map(|group| Watched {
            name: group.name.clone(),
            checks: group.health.checks.clone(),
            verdicts: group.health.checks.iter().map(|check| (check.name.clone(), None)).collect(),
            track: group.health.track_interface.clone(),
            homes: homes(group, announcing),
            when_all_fail: group.health.when_all_fail,
            told: None,
        });
        let groups: ByGroup<Watched> = groups.collect();
        let by_name = groups.with_ids().map(|(id, group)| (group.name.clone(), id)).collect();
        let mut tracked: BTreeMap<String, Vec<GroupId>> = BTreeMap::new();
        let mut announced: BTreeMap<String, Vec<GroupId>> = BTreeMap::new();
        for (id, group) in groups.with_ids() {
            for name in &group.track {
                tracked.entry(name.clone()).or_default().push(id);
            }
            for name in &group.homes {
                announced.entry(name.clone()).or_default().push(id);
            }
        }
        let unjudged = groups.ids().collect();
        let withheld = BTreeSet::new();
        let (troubles, downs, mute) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { groups, by_name, tracked, announced, unjudged, withheld, troubles, downs, mute }
    }

    /// Goes on with other groups. Keeps what is known of checks that are the
    /// same, and returns everything anew. `withheld` are the names of groups that
    /// wait for [`Judge::admit`].
    pub fn regroup(&mut self, groups: &[config::Group], announcing: &[String], withheld: &BTreeSet<String>) {
        let old = std::mem::replace(self, Self::new(groups, announcing));
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
        self.mute = old.mute;
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

    /// Peers hear no VIP of these groups while this node has them.
    pub fn note_mute(&mut self, groups: BTreeMap<String, String>) {
        let before = std::mem::replace(&mut self.mute, groups);
        let names = before.keys().chain(self.mute.keys());
        let is_news = |name: &&String| before.get(*name) != self.mute.get(*name);
        self.unjudged.extend(names.filter(is_news).filter_map(|name| self.by_name.get(name)));
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

    /// Is any group announced on this interface?
    #[must_use]
    pub fn announces(&self, interface: &str) -> bool {
        self.announced.contains_key(interface) || mutant::is(Mutant::EveryInterface)
    }

    /// Judges the groups about which something may be new. `troubles` are the
    /// interfaces of this node that can't be served on well, and why. Returns what has changed
    /// since the last time.
    pub fn judge(
        &mut self,
        troubles: BTreeMap<String, Trouble>,
        links: &BTreeMap<u32, Interface>,
    ) -> Vec<News> {
        let differs = |name: &&String| troubles.get(*name) != self.troubles.get(*name);
        for name in troubles.keys().chain(self.troubles.keys()).filter(differs) {
            if mutant::is(Mutant::EveryInterface) {
                self.unjudged.extend(self.groups.ids());
            }
            self.unjudged.extend(self.announced.get(name).into_iter().flatten());
        }
        self.troubles = troubles;
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
            let now = group.judge(&self.troubles, &self.downs, self.mute.get(&group.name));
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
        troubles: &BTreeMap<String, Trouble>,
        downs: &BTreeMap<String, String>,
        mute: Option<&String>,
    ) -> (Option<Eligible>, Option<String>) {
        let is_ours = |name: &String| self.homes.contains(name) || mutant::is(Mutant::EveryInterface);
        let ours = || troubles.iter().filter(|(name, _)| is_ours(name)).map(|(_, trouble)| trouble);
        let sure = ours().find_map(|trouble| match trouble {
            Trouble::Sure(why) => Some(why.clone()),
            Trouble::Said(_) => None,
        });
        if let Some(why) = sure {
            let keeps = mutant::is(Mutant::KeepsInTrouble) && self.when_all_fail == WhenAllFail::Keep;
            return (Some(if keeps { Eligible::Unwell } else { Eligible::No }), Some(why));
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
        // Those who say so can be wrong: better this node than none.
        if let Some(said) = ours().next().map(Trouble::why).or(mute.map(String::as_str)) {
            let word = if mutant::is(Mutant::SaidIsSure) { Eligible::No } else { Eligible::Unwell };
            return (Some(word), Some(said.to_owned()));
        }
        match self.verdicts.iter().find(|(_, verdict)| verdict.is_none() && !mutant::is(Mutant::WellUnseen)) {
            // A lease that this process found at its start goes on meanwhile.
            Some((name, _)) => (None, Some(format!("check {name} has no result yet"))),
            None => (Some(Eligible::Yes), None),
        }
    }
}

/// The interfaces on which a group's VIPs are announced.
fn homes(group: &config::Group, announcing: &[String]) -> BTreeSet<String> {
    let of = |vip| group.homes.get(vip).and_then(|home| home.interface.as_ref());
    let own = group.vips.iter().filter_map(of);
    let is_anywhere = group.vips.is_empty() || group.vips.iter().any(|vip| of(vip).is_none());
    own.chain(announcing.iter().filter(|_| is_anywhere)).cloned().collect()
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

/// Why what comes in by an interface is another one's; `None` if it is its own.
pub fn taken(name: &str, links: &BTreeMap<u32, Interface>) -> Option<String> {
    let link = links.values().find(|link| link.name == name)?;
    attach::taken_text(link, links).filter(|_| !mutant::is(Mutant::ServesAsPort))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{Check, CheckKind, Health},
        home::Home,
    };

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
            homes: BTreeMap::new(),
            is_gateway: false,
            virtual_mac: None,
            priorities: BTreeMap::new(),
            preempt: None,
            hooks: crate::config::Hooks::default(),
            health,
        }
    }

    const ETH0: &str = "eth0";

    fn judge_of(groups: &[config::Group]) -> Judge {
        Judge::new(groups, &[ETH0.to_owned()])
    }

    /// What eth0 suffers from.
    fn trouble(why: Option<&str>) -> BTreeMap<String, Trouble> {
        why.map(|why| (ETH0.to_owned(), Trouble::Sure(why.to_owned()))).into_iter().collect()
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
        let mut judge = judge_of(&[group("a", &[], &[], WhenAllFail::Keep)]);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [(0, Some(Eligible::Yes), None)]);
        assert_eq!(judge.judge(trouble(None), &links(true)), []);
        // A node that can't serve keeps nothing.
        let no = (0, Some(Eligible::No), Some("eth0 is gone"));
        assert_eq!(said(&judge.judge(trouble(Some("eth0 is gone")), &links(true))), [no]);
        // What others say takes nothing from the last who could: unless it fails a check.
        for (checks, word) in [(&[][..], Eligible::Unwell), (&["x"][..], Eligible::No)] {
            let mut judge = judge_of(&[group("a", checks, &[], WhenAllFail::Release)]);
            judge.note("a", "x", Some("refused".into()));
            let said = [(ETH0.to_owned(), Trouble::Said("nobody hears it".into()))].into();
            assert_eq!(judge.judge(said, &links(true))[0].word, Some(word));
        }
    }

    #[test]
    fn nothing_is_said_before_every_check_has_a_verdict_unless_one_fails() {
        let mut judge = judge_of(&[group("a", &["x", "y"], &[], WhenAllFail::Release)]);
        assert_eq!(
            said(&judge.judge(trouble(None), &links(true))),
            [(0, None, Some("check x has no result yet"))]
        );
        judge.note("a", "x", None);
        judge.note("b", "y", None);
        assert_eq!(
            said(&judge.judge(trouble(None), &links(true))),
            [(0, None, Some("check y has no result yet"))]
        );
        judge.note("a", "y", None);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [(0, Some(Eligible::Yes), None)]);
        judge.note("a", "x", Some("refused".into()));
        let no = (0, Some(Eligible::No), Some("check x: refused"));
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [no]);
        let mut judge = judge_of(&[group("a", &["x", "y"], &[], WhenAllFail::Keep)]);
        judge.note("a", "y", Some("refused".into()));
        let unwell = (0, Some(Eligible::Unwell), Some("check y: refused"));
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [unwell]);
    }

    #[test]
    fn other_groups_are_told_anew_and_checks_that_stay_are_known() {
        let old =
            [group("a", &["x", "y"], &[], WhenAllFail::Release), group("b", &[], &[], WhenAllFail::Release)];
        let mut judge = judge_of(&old);
        judge.note("a", "x", None);
        judge.note("a", "y", Some("refused".into()));
        judge.judge(trouble(None), &links(true));
        let mut next = [group("0", &["x"], &[], WhenAllFail::Release), old[0].clone()];
        // Another check with the same name has to prove itself.
        next[1].health.checks[1].fall = 2;
        judge.regroup(&next, &[ETH0.to_owned()], &BTreeSet::new());
        let wait = |group, check| (group, None, Some(check));
        let both = [wait(0, "check x has no result yet"), wait(1, "check y has no result yet")];
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), both);
        judge.note("a", "y", None);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [(1, Some(Eligible::Yes), None)]);
        // With other groups under the same numbers, everything has to be told anew.
        judge.regroup(&next, &[ETH0.to_owned()], &BTreeSet::new());
        let both = [wait(0, "check x has no result yet"), (1, Some(Eligible::Yes), None)];
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), both);
    }

    #[test]
    fn a_tracked_interface_concerns_the_groups_that_track_it() {
        let groups = [
            group("a", &[], &["eth1"], WhenAllFail::Release),
            group("b", &[], &["eth1"], WhenAllFail::Keep),
            group("c", &[], &[], WhenAllFail::Release),
        ];
        let mut judge = judge_of(&groups);
        assert!(judge.tracks("eth1") && !judge.tracks("eth0"));
        let yes = |group| (group, Some(Eligible::Yes), None);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [yes(0), yes(1), yes(2)]);
        let why = Some("eth1 has no carrier");
        let gone = [(0, Some(Eligible::No), why), (1, Some(Eligible::Unwell), why)];
        assert_eq!(said(&judge.judge(trouble(None), &links(false))), gone);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [yes(0), yes(1)]);
        judge.judge(trouble(None), &BTreeMap::new());
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [yes(0), yes(1)]);
    }

    #[test]
    fn an_interface_concerns_the_groups_that_are_announced_on_it() {
        let mut groups = ["lan", "both", "wan"].map(|name| group(name, &[], &[], WhenAllFail::Keep));
        let vips = ["10.0.1.12", "203.0.113.5"].map(|vip| vip.parse().unwrap());
        let home = |vip| (vip, Home { interface: Some("wan0".into()), prefix: None });
        for (group, own, at_wan) in [(0, &vips[..1], None), (1, &vips[..], Some(1)), (2, &vips[1..], Some(1))]
        {
            groups[group].vips = own.to_vec();
            groups[group].homes = at_wan.map(|at: usize| home(vips[at])).into_iter().collect();
        }
        let mut judge = judge_of(&groups);
        assert!(judge.announces(ETH0) && judge.announces("wan0") && !judge.announces("docker0"));
        let at = |name: &str| BTreeMap::from([(name.to_owned(), Trouble::Sure(format!("{name} is gone")))]);
        let yes = |group| (group, Some(Eligible::Yes), None);
        assert_eq!(said(&judge.judge(at("docker0"), &links(true))), [yes(0), yes(1), yes(2)]);
        let no = |group| (group, Some(Eligible::No), Some("wan0 is gone"));
        assert_eq!(said(&judge.judge(at("wan0"), &links(true))), [no(1), no(2)]);
        let lan = |group| (group, Some(Eligible::No), Some("eth0 is gone"));
        assert_eq!(said(&judge.judge(at(ETH0), &links(true))), [lan(0), lan(1), yes(2)]);
        assert_eq!(said(&judge.judge(BTreeMap::new(), &links(true))), [yes(0), yes(1)]);
    }

    #[test]
    fn a_group_that_peers_do_not_hear_is_better_elsewhere() {
        let groups = ["a", "b"].map(|name| group(name, &[], &[], WhenAllFail::Release));
        let mut judge = judge_of(&groups);
        judge.judge(trouble(None), &links(true));
        let why = Some("nobody hears it");
        judge.note_mute([("b".to_owned(), "nobody hears it".to_owned())].into());
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [(1, Some(Eligible::Unwell), why)]);
        judge.regroup(&groups, &[ETH0.to_owned()], &BTreeSet::new());
        let both = [(0, Some(Eligible::Yes), None), (1, Some(Eligible::Unwell), why)];
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), both, "also after a reload");
        judge.note_mute(BTreeMap::new());
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [(1, Some(Eligible::Yes), None)]);
    }

    #[test]
    fn a_verdict_costs_a_look_at_its_own_group() {
        let names: Vec<_> = (0..1_000).map(|number| format!("g{number}")).collect();
        let mut groups: Vec<_> =
            names.iter().map(|name| group(name, &["x"], &[], WhenAllFail::Release)).collect();
        groups[7].health.track_interface = vec!["eth1".into()];
        let mut judge = judge_of(&groups);
        judge.judge(trouble(None), &links(true));
        assert_eq!(judge.unjudged.len(), 0);
        judge.note("g500", "x", Some("refused".into()));
        judge.note("g500", "y", None);
        judge.note("nobody", "x", None);
        assert_eq!(judge.unjudged.iter().copied().collect::<Vec<_>>(), [GroupId(500)]);
        let news = judge.judge(trouble(None), &links(true));
        assert_eq!(said(&news), [(500, Some(Eligible::No), Some("check x: refused"))]);
        // Every group that an interface concerns gets its verdict.
        let news = judge.judge(trouble(None), &links(false));
        assert_eq!(said(&news), [(7, Some(Eligible::No), Some("eth1 has no carrier"))]);
        assert_eq!(judge.judge(trouble(Some("eth0 is gone")), &links(false)).len(), 1_000);
    }

    #[test]
    fn a_group_that_is_not_there_yet_is_not_judged() {
        let groups = [group("a", &[], &[], WhenAllFail::Release), group("b", &[], &[], WhenAllFail::Release)];
        let mut judge = judge_of(&groups[..1]);
        judge.judge(trouble(None), &links(true));
        judge.regroup(&groups, &[ETH0.to_owned()], &["b".to_owned()].into());
        let yes = |group| (group, Some(Eligible::Yes), None);
        assert_eq!(said(&judge.judge(trouble(None), &links(true))), [yes(0)]);
        let no = |group| (group, Some(Eligible::No), Some("eth0 is gone"));
        assert_eq!(said(&judge.judge(trouble(Some("eth0 is gone")), &links(true))), [no(0)]);
        judge.admit();
        assert_eq!(said(&judge.judge(trouble(Some("eth0 is gone")), &links(true))), [no(1)]);
    }
}
