//! How one table of groups follows another; and whole clusters that get other groups, one node
//! after the other, in which two nodes must never answer for one VIP.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use vip_common::{BootNs, Lease};

use super::*;
use vip_engine::{
    Command, CommandId, Engine, EngineConfig, Epoch, GroupSpec, Incarnation, Input, Labels, NodeId, NodeSpec,
    Output, Packet, PeerLoss, Reloaded, Role,
};

const ACCEPT: Duration = Duration::from_millis(200);

fn vip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

type Group = (String, Vec<IpAddr>);

fn groups(groups: &[(&str, &[u8])]) -> Vec<Group> {
    let group = |&(name, vips): &(&str, &[u8])| (name.to_owned(), vips.iter().copied().map(vip).collect());
    groups.iter().map(group).collect()
}

fn follow(tables: &[&[(&str, &[u8])]]) -> Next {
    let mut next = Next { table: Table::of(&groups(tables[0])), was: ByGroup::new(), ended: Vec::new() };
    for table in &tables[1..] {
        next = next.table.next(&groups(table));
    }
    next
}

#[test]
fn a_group_that_stays_goes_on_under_another_number() {
    let next = follow(&[&[("db", &[1]), ("web", &[2])], &[("app", &[3]), ("db", &[1])]]);
    assert_eq!(next.was, [None, Some(GroupId(0))]);
    assert_eq!(next.ended, [GroupId(1)]);
    assert_eq!(next.table.groups()[GroupId(1)], TableGroup::new("db", &[vip(1)]));
}

#[test]
fn a_vip_that_is_added_is_not_answered_before_a_lease_has_it() {
    let mut next = follow(&[&[("db", &[1])], &[("db", &[1, 2])]]);
    let db = &next.table.groups()[GroupId(0)];
    assert_eq!(db.formers, [vec![vip(1)]]);
    assert_eq!(db.answered().collect::<Vec<_>>(), [vip(1)]);
    next.table.settle(GroupId(0));
    assert_eq!(next.table.groups()[GroupId(0)].answered().collect::<Vec<_>>(), [vip(1), vip(2)]);
}

#[test]
fn groups_whose_vips_have_changed_are_looked_at_until_a_lease_has_them() {
    let first: &[(&str, &[u8])] = &[("app", &[1]), ("db", &[2])];
    assert_eq!(follow(&[first]).table.uncovered(), []);
    let mut next = follow(&[first, &[("app", &[1]), ("db", &[2, 3])]]).table;
    assert_eq!(next.uncovered(), [GroupId(1)]);
    next.settle(GroupId(1));
    assert_eq!(next.uncovered(), []);
}

#[test]
fn a_group_with_other_vips_only_is_mute_until_a_lease_has_them() {
    let first: &[(&str, &[u8])] = &[("app", &[1, 2]), ("db", &[3])];
    assert_eq!(follow(&[first, &[("app", &[2, 4]), ("db", &[3, 5])]]).table.mute(), [], "some are answered");
    let mut next = follow(&[first, &[("app", &[4]), ("db", &[3])]]).table;
    assert_eq!(next.mute(), [GroupId(0)]);
    next.settle(GroupId(0));
    assert_eq!(next.mute(), []);
}

#[test]
fn a_vip_that_is_removed_is_not_answered_at_once() {
    let next = follow(&[&[("db", &[1, 2])], &[("db", &[1])]]);
    let db = &next.table.groups()[GroupId(0)];
    assert_eq!((db.answered().collect::<Vec<_>>(), next.was), (vec![vip(1)], vec![Some(GroupId(0))].into()));
}

#[test]
fn groups_between_which_a_vip_moves_begin_anew() {
    let next = follow(&[&[("db", &[1]), ("web", &[2, 3])], &[("db", &[1, 3]), ("web", &[2])]]);
    // web's leases cover VIP 3 as well, and db may have that now.
    assert_eq!(next.was, [Some(GroupId(0)), None]);
    assert_eq!(next.ended, [GroupId(1)]);
}

#[test]
fn a_vip_that_moves_in_two_steps_ends_nothing() {
    let mut first = follow(&[&[("db", &[1]), ("web", &[2, 3])], &[("db", &[1]), ("web", &[2])]]);
    for group in [GroupId(0), GroupId(1)] {
        first.table.settle(group);
    }
    let second = first.table.next(&groups(&[("db", &[1, 3]), ("web", &[2])]));
    assert!(second.ended.is_empty());
    let [db, web] = second.table.groups().as_slice() else { panic!("two groups") };
    assert_eq!((db.formers.as_slice(), web.formers.as_slice()), ([vec![vip(1)]].as_slice(), [].as_slice()));
}

#[test]
fn what_is_taken_back_is_as_it_was() {
    let next = follow(&[&[("db", &[1])], &[("db", &[1, 2])], &[("db", &[1])]]);
    let db = &next.table.groups()[GroupId(0)];
    assert!(db.is_settled());
    assert_eq!(
        (db.formers.as_slice(), next.was),
        ([vec![vip(1), vip(2)]].as_slice(), vec![Some(GroupId(0))].into())
    );
}

#[test]
fn the_set_that_is_asked_for_is_never_forgotten() {
    let next = follow(&[
        &[("db", &[1])],
        &[("db", &[1, 2])],
        &[("db", &[1, 3])],
        &[("db", &[1, 4])],
        &[("db", &[1, 5])],
        &[("db", &[1, 6])],
    ]);
    let db = &next.table.groups()[GroupId(0)];
    assert_eq!(db.formers.len(), FORMERS_MAX);
    assert!(db.formers.contains(&vec![vip(1)]));
}

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// The maps of a node, changed in the same steps as those of the data plane. A lease word stays
/// in its map after the lease, unless whoever gives the lease up clears it.
#[derive(Default)]
struct Maps {
    /// The lease words, by place.
    words: BTreeMap<usize, Lease>,
    /// The groups' places, by name.
    places: BTreeMap<String, usize>,
    /// The VIPs that are answered, and the place of the lease word of each.
    vips: BTreeMap<IpAddr, usize>,
}

/// A node, with the parts that an agent has.
struct Host {
    engine: Engine,
    labels: Labels,
    table: Table,
    maps: Maps,
    /// The groups' places in the maps, by number.
    index: ByGroup<usize>,
    /// During a reload, the table that the keeper changes to.
    under_way: Option<Next>,
}

struct Cluster {
    dice: Dice,
    now: BootNs,
    hosts: Vec<Host>,
    /// Packets on their way, by the time of arrival.
    flying: BTreeMap<(BootNs, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    cut: Option<usize>,
    commands: u64,
    took_over: u64,
}

/// Of three nodes; of two if these are a pair.
fn config(me: usize, groups: usize, pair: Option<PeerLoss>) -> EngineConfig {
    let nodes = vec![NodeSpec { role: Role::Node }; if pair.is_some() { 2 } else { 3 }];
    let groups = vec![GroupSpec::default(); groups];
    let config = EngineConfig::new(node(me), Incarnation(me as u64 + 1), nodes, groups, ACCEPT);
    EngineConfig { pair, ..config }
}

fn node(place: usize) -> NodeId {
    NodeId(u8::try_from(place).expect("three nodes"))
}

fn digest(table: &Table) -> u64 {
    table.groups().iter().fold(7, |hash: u64, group| hash.wrapping_mul(31) ^ group.labels().current.0)
}

impl Cluster {
    fn new(seed: u64, first: &[Group]) -> Self {
        Self::of(None, seed, first)
    }

    fn of(pair: Option<PeerLoss>, seed: u64, first: &[Group]) -> Self {
        #[cfg(feature = "mutants")]
        crate::mutant::choose();
        let now = BootNs(1_000_000_000);
        let table = Table::of(first);
        let host = |me| {
            let config = config(me, first.len(), pair);
            let specs: Vec<_> = table.groups().iter().map(TableGroup::labels).collect();
            let mut host = Host {
                labels: Labels::new(&config, &specs, digest(&table), now),
                engine: Engine::new(config, &[], now),
                maps: Maps::default(),
                index: ByGroup::new(),
                table: table.clone(),
                under_way: None,
            };
            host.index = host.maps.begin_change(&table);
            host.maps.finish_change(&table);
            host
        };
        let hosts = (0..config(0, 0, pair).nodes.len()).map(host).collect();
        let mut cluster = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now,
            hosts,
            flying: BTreeMap::new(),
            sent: 0,
            cut: None,
            commands: 0,
            took_over: 0,
        };
        for me in 0..cluster.hosts.len() {
            cluster.make_eligible(me);
        }
        cluster
    }

    fn make_eligible(&mut self, me: usize) {
        for group in self.hosts[me].table.groups().ids() {
            self.give(me, Input::Eligible { group, eligible: true });
        }
    }

    fn give(&mut self, me: usize, input: Input) {
        let now = self.now;
        self.hosts[me].engine.handle(input, now);
        self.carry_out(me);
    }

    fn carry_out(&mut self, me: usize) {
        let now = self.now;
        while let Some(output) = self.hosts[me].engine.poll_output() {
            match output {
                Output::StoreLease { group, lease } => {
                    let host = &mut self.hosts[me];
                    let had = host.word(group).expiry().is_some_and(|until| until > now);
                    self.took_over += u64::from(!had && lease != Lease::NONE);
                    host.maps.words.insert(host.index[group], lease);
                }
                Output::Send { to, packet } => {
                    let payloads = packet.encode_for(to, &mut self.hosts[me].labels, now);
                    let to = usize::from(to.0);
                    let is_cut = self.cut.is_some_and(|cut| cut == me || cut == to);
                    if is_cut || self.dice.roll(20) == 0 {
                        continue;
                    }
                    for bytes in payloads {
                        self.sent += 1;
                        let delay = Duration::from_micros(100 + self.dice.roll(6_000));
                        self.flying.insert((now.plus(delay), self.sent), (me, to, bytes));
                    }
                }
                Output::Announce { .. }
                | Output::Changed(_)
                | Output::RaiseCeiling { .. }
                | Output::Remember { .. }
                | Output::Done { .. }
                | Output::Correct { .. }
                | Output::Unheard { .. }
                | Output::Stopped => {}
            }
        }
        self.hosts[me].cover(now);
        self.check();
    }

    /// Every VIP is answered by one node at most.
    fn check(&self) {
        let mut by: BTreeMap<IpAddr, Vec<(usize, usize)>> = BTreeMap::new();
        for (me, host) in self.hosts.iter().enumerate() {
            for (vip, place) in &host.maps.vips {
                let word = host.maps.words.get(place).copied().unwrap_or(Lease::NONE);
                if word.expiry().is_some_and(|until| until > self.now) {
                    by.entry(*vip).or_default().push((me, *place));
                }
            }
        }
        for (vip, by) in by {
            assert!(by.len() < 2, "{vip} is answered by {by:?} at {:?}", self.now);
        }
    }

    /// Runs the cluster for `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        loop {
            let arrival = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let deadlines = self.hosts.iter().filter_map(|host| host.engine.next_deadline());
            let Some(at) = deadlines.chain(arrival).min().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            if arrival == Some(at) {
                let Some((_, (from, to, bytes))) = self.flying.pop_first() else { break };
                let (host, now) = (&mut self.hosts[to], self.now);
                let packet =
                    Packet::decode_from(&bytes, node(from), &mut host.labels, now).expect("one of ours");
                self.give(to, Input::Message { from: node(from), packet });
            } else {
                for me in 0..self.hosts.len() {
                    self.give(me, Input::Wake);
                }
            }
        }
        self.now = end;
    }

    /// The keeper's first step, `Node::begin_change` of `vip-ctl`: removes VIPs that go, and
    /// gives places to groups that come.
    fn begin_reload(&mut self, me: usize, groups: &[Group]) -> ByGroup<usize> {
        let host = &mut self.hosts[me];
        let next = host.table.next(groups);
        let index = host.maps.begin_change(&next.table);
        host.under_way = Some(next);
        self.check();
        index
    }

    /// The lease loop's step: gives up the leases of groups that end, and carries out the outputs
    /// of that, before anything else changes.
    fn regroup(&mut self, me: usize, index: ByGroup<usize>) {
        let now = self.now;
        let Some(next) = self.hosts[me].under_way.clone() else { return };
        for group in &next.ended {
            self.hosts[me].engine.retire(*group, now);
            self.carry_out(me);
        }
        let host = &mut self.hosts[me];
        let specs: Vec<_> =
            next.was.iter().copied().zip(next.table.groups().iter().map(TableGroup::labels)).collect();
        host.labels.reload(&specs, digest(&next.table), now);
        host.index = index;
        let reloaded = |was: &Option<GroupId>| Reloaded {
            was: *was,
            spec: GroupSpec::default(),
            epoch: Epoch::default(),
        };
        host.engine.reload(next.was.iter().map(reloaded).collect(), now);
        self.carry_out(me);
    }

    /// The keeper's last step, `Node::finish_change` of `vip-ctl`: removes groups that go, and
    /// adds VIPs that come.
    fn finish_reload(&mut self, me: usize) {
        let host = &mut self.hosts[me];
        let Some(next) = host.under_way.take() else { return };
        host.table = next.table;
        host.maps.finish_change(&host.table);
        self.check();
        self.make_eligible(me);
    }

    /// Reloads a node in the steps of an agent; the other nodes work between the steps.
    fn reload(&mut self, me: usize, groups: &[Group]) {
        let index = self.begin_reload(me, groups);
        self.pass_by();
        self.regroup(me, index);
        self.pass_by();
        self.finish_reload(me);
    }

    /// Lets time pass: mostly none at all, sometimes as much as a busy machine takes.
    fn pass_by(&mut self) {
        if self.dice.roll(4) == 0 {
            let time = Duration::from_millis(self.dice.roll(60));
            self.run(time);
        }
    }

    fn holders(&self, name: &str) -> Vec<usize> {
        let holds = |host: &Host| {
            let group = host.table.groups().find(|group| group.name == name);
            group.is_some_and(|group| host.word(group).expiry().is_some_and(|until| until > self.now))
        };
        (0..self.hosts.len()).filter(|me| holds(&self.hosts[*me])).collect()
    }
}

impl Maps {
    fn begin_change(&mut self, table: &Table) -> ByGroup<usize> {
        self.prune_vips(table);
        table.groups().iter().map(|group| self.put_group(&group.name)).collect()
    }

    fn finish_change(&mut self, table: &Table) {
        self.prune_vips(table);
        let (words, is_kept) = (&mut self.words, |name: &str| table.groups().iter().any(|g| g.name == name));
        self.places.retain(|name, place| {
            if !is_kept(name) {
                words.insert(*place, Lease::NONE);
            }
            is_kept(name)
        });
        for group in table.groups() {
            let place = self.put_group(&group.name);
            for vip in group.answered() {
                // No VIP goes straight from one group to another.
                assert_eq!(*self.vips.entry(vip).or_insert(place), place, "{vip} is taken");
            }
        }
    }

    fn put_group(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let is_free = |place: &usize| !self.places.values().any(|used| used == place);
        let place = (0..).find(is_free).expect("there are more places than groups");
        self.words.insert(place, Lease::NONE);
        self.places.insert(name.to_owned(), place);
        place
    }

    fn prune_vips(&mut self, table: &Table) {
        let places = &self.places;
        self.vips.retain(|vip, place| {
            let groups = table.groups().iter();
            groups
                .filter(|group| places.get(&group.name) == Some(place))
                .any(|g| g.answered().any(|v| v == *vip))
        });
    }
}

impl Host {
    /// A group's word in the map.
    fn word(&self, group: GroupId) -> Lease {
        let place = self.index.get(group);
        place.and_then(|place| self.maps.words.get(place)).copied().unwrap_or(Lease::NONE)
    }

    /// Answers for VIPs that have come to a group as soon as its leases cover them. During a
    /// reload the keeper does not listen.
    fn cover(&mut self, now: BootNs) {
        self.labels.advance(now);
        if self.under_way.is_some() {
            return;
        }
        for group in self.table.groups().ids() {
            if !self.table.groups()[group].is_settled()
                && self.labels.covered(group, self.word(group).expiry(), now)
            {
                self.table.settle(group);
                self.maps.finish_change(&self.table);
            }
        }
    }
}

#[test]
fn a_vip_added_node_by_node_moves_nothing_and_is_answered_in_the_end() {
    let (old, new) =
        (groups(&[("db", &[1]), ("web", &[2])]), groups(&[("app", &[4]), ("db", &[1, 3]), ("web", &[2])]));
    let mut cluster = Cluster::new(1, &old);
    cluster.run(ACCEPT * 4);
    let (db, web) = (cluster.holders("db"), cluster.holders("web"));
    assert_eq!((db.len(), web.len()), (1, 1));
    let before = cluster.took_over;
    for me in 0..3 {
        cluster.reload(me, &new);
        cluster.run(ACCEPT * 3);
        assert_eq!((cluster.holders("db"), cluster.holders("web")), (db.clone(), web.clone()), "node {me}");
    }
    assert_eq!(cluster.took_over, before + 1, "app is taken, and nothing else");
    assert!(cluster.hosts[db[0]].maps.vips.contains_key(&vip(3)));
    assert_eq!(cluster.holders("app").len(), 1);
}

#[test]
fn a_vip_is_not_answered_while_a_majority_does_not_know_it() {
    let mut cluster = Cluster::new(2, &groups(&[("db", &[1])]));
    cluster.run(ACCEPT * 4);
    let holder = cluster.holders("db")[0];
    cluster.reload(holder, &groups(&[("db", &[1, 2])]));
    cluster.run(ACCEPT * 10);
    assert_eq!(cluster.holders("db"), [holder], "the lease goes on for the former set");
    assert!(!cluster.hosts[holder].maps.vips.contains_key(&vip(2)));
}

#[test]
fn a_pair_that_holds_moves_no_vip_to_another_group_while_it_hears_nobody() {
    let (old, new) = (groups(&[("db", &[1]), ("web", &[2, 3])]), groups(&[("db", &[1, 3]), ("web", &[2])]));
    let mut cluster = Cluster::of(Some(PeerLoss::Hold), 3, &old);
    cluster.run(ACCEPT * 4);
    let (db, web) = (cluster.holders("db")[0], GroupId(1));
    let elsewhere = Command::Promote { group: web, to: node(1 - db) };
    cluster.give(db, Input::Command { id: CommandId(1), command: elsewhere });
    cluster.run(ACCEPT * 4);
    assert_eq!(cluster.holders("web"), [1 - db]);
    // The other one goes on by its own vote, as it is told nothing.
    cluster.cut = Some(db);
    cluster.reload(db, &new);
    cluster.run(ACCEPT * 20);
    assert_eq!((cluster.holders("db"), cluster.holders("web")), (vec![db], vec![1 - db]));
    cluster.cut = None;
    cluster.reload(1 - db, &new);
    cluster.run(ACCEPT * 20);
    assert!(cluster.hosts[db].maps.vips.contains_key(&vip(3)), "it is answered in the end");
}

/// Any groups over a few VIPs, so that VIPs move between groups all the time.
fn any_groups(dice: &mut Dice) -> Vec<Group> {
    let mut vips: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for vip in 1..=4 {
        let name = ["a", "b", "c", ""][usize::try_from(dice.roll(4)).expect("small")];
        if !name.is_empty() {
            vips.entry(name).or_default().push(vip);
        }
    }
    vips.entry("z").or_default().push(9);
    let named: Vec<_> = vips.iter().map(|(name, vips)| (*name, vips.as_slice())).collect();
    groups(&named)
}

#[test]
fn no_vip_is_ever_answered_twice_whatever_is_reloaded_where() {
    reload_anything_anywhere(None);
}

#[test]
fn a_pair_that_holds_never_answers_twice_whatever_is_reloaded_where() {
    reload_anything_anywhere(Some(PeerLoss::Hold));
}

fn reload_anything_anywhere(pair: Option<PeerLoss>) {
    let mut moved = 0;
    for seed in 0..150 {
        let mut dice = Dice(seed * 2 + 1);
        let mut known = vec![any_groups(&mut dice)];
        let mut cluster = Cluster::of(pair, seed, &known[0]);
        let nodes = cluster.hosts.len();
        for _ in 0..60 {
            cluster.run(Duration::from_millis(1 + dice.roll(260)));
            let me = usize::try_from(dice.roll(nodes as u64)).expect("small");
            match dice.roll(8) {
                0..4 => {
                    // Mostly the groups that another node has already, sometimes new ones.
                    let place = usize::try_from(dice.roll(known.len() as u64 + 1)).expect("small");
                    if place == known.len() {
                        known.push(any_groups(&mut dice));
                        if known.len() > 3 {
                            known.remove(0);
                        }
                    }
                    let groups = known[place.min(known.len() - 1)].clone();
                    cluster.reload(me, &groups);
                }
                4 => cluster.cut = Some(me),
                5 => cluster.cut = None,
                _ => {
                    cluster.commands += 1;
                    let group = GroupId(u16::try_from(dice.roll(4)).expect("small"));
                    let command = Command::Switchover { group, to: None };
                    cluster.give(me, Input::Command { id: CommandId(cluster.commands), command });
                }
            }
        }
        moved += cluster.took_over;
        // In the end all nodes have the same groups: each group is held, each VIP answered.
        cluster.cut = None;
        let last = known[known.len() - 1].clone();
        for me in 0..nodes {
            cluster.reload(me, &last);
        }
        cluster.run(ACCEPT * 12);
        for (name, vips) in &last {
            let holders = cluster.holders(name);
            assert_eq!(holders.len(), 1, "seed {seed}: {name} is held by {holders:?}");
            for vip in vips {
                assert!(
                    cluster.hosts[holders[0]].maps.vips.contains_key(vip),
                    "seed {seed}: {vip} is not answered"
                );
            }
        }
    }
    assert!(moved > 1000, "leases have moved {moved} times only");
}
