//! Chains of memberships: nodes are configured, started and stopped in any order,
//! by hand and by `vip-ctl member`, some of them new and some far behind.
//! Whichever run at the same time, no two of them can win majorities without a
//! common voter.
//!
//! Here a generation is one set of voters: that nobody gives two different sets
//! the same number is an assumption (docs/lease.md).

use fastrand::Rng;

use super::super::*;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const SEEDS: u64 = 3000;
const STEPS: usize = 400;

#[derive(Default)]
struct Host {
    /// What its vip.toml says.
    configured: Option<Membership>,
    /// What its state directory has.
    record: Option<Membership>,
    /// What its agent takes part in.
    running: Option<Membership>,
}

struct World {
    rng: Rng,
    hosts: Vec<Host>,
    /// By generation, the first of them 1.
    sets: Vec<BTreeMap<String, u8>>,
    /// How many times a node came in on another one's word, and without.
    vouched: usize,
    followed: usize,
}

fn name(host: usize) -> String {
    NAMES[host].to_owned()
}

impl World {
    fn new(seed: u64) -> Self {
        let first = (0..3).map(|host| (name(host), u8::try_from(host).unwrap())).collect();
        let mut world = Self {
            rng: Rng::with_seed(seed),
            hosts: NAMES.iter().map(|_| Host::default()).collect(),
            sets: vec![first],
            vouched: 0,
            followed: 0,
        };
        for host in 0..3 {
            world.copy(host, 1);
            world.start(host);
        }
        world
    }

    fn membership(&self, host: usize, generation: u32) -> Option<Membership> {
        let voters = self.sets.get(usize::try_from(generation).ok()? - 1)?.clone();
        voters.contains_key(&name(host)).then(|| Membership {
            cluster: "shop".into(),
            generation,
            voters,
            confirmed: [name(host)].into(),
            former: BTreeSet::new(),
        })
    }

    /// A generation's configuration comes to a host, whatever that has run.
    fn copy(&mut self, host: usize, generation: u32) {
        if let Some(membership) = self.membership(host, generation) {
            self.hosts[host].configured = Some(membership);
        }
    }

    /// Adds or removes one voter in the host's configuration, as the next
    /// generation; checked as `vip-ctl member` does, or by hand.
    fn edit(&mut self, host: usize, by_hand: bool) {
        let Some(now) = self.hosts[host].configured.clone() else { return };
        let generation = now.generation + 1;
        if self.sets.len() >= usize::try_from(generation).unwrap() {
            // Another host has decided on this generation already.
            self.copy(host, generation);
            return;
        }
        let mut voters = now.voters.clone();
        let other = self.rng.usize(..NAMES.len());
        if voters.remove(&name(other)).is_none() {
            voters.insert(name(other), u8::try_from(other).unwrap());
        }
        if voters.len() < 2 || !voters.contains_key(&name(host)) {
            return;
        }
        let next = Membership { generation, voters: voters.clone(), ..now.clone() };
        let record = self.hosts[host].record.as_ref();
        let may = record.is_some_and(|record| {
            record.generation == now.generation && record.followed_by(next.clone()).is_ok()
        });
        if may || by_hand {
            self.sets.push(voters);
            self.copy(host, generation);
        }
    }

    fn start(&mut self, host: usize) {
        self.hosts[host].running = None;
        let Some(next) = self.hosts[host].configured.clone() else { return };
        let Ok(entry) = entry(self.hosts[host].record.clone(), next, &name(host)) else { return };
        let generation = entry.membership.generation;
        if entry.doubt.is_some() {
            let mut others = self.hosts.iter().filter_map(|other| other.running.as_ref());
            if !others.any(|other| other.generation == generation) {
                return;
            }
            self.vouched += 1;
        } else {
            self.followed += usize::from(!entry.is_recorded);
        }
        self.hosts[host].record = Some(entry.membership.clone());
        self.hosts[host].running = Some(entry.membership);
    }

    /// Two agents hear each other, if they may.
    fn meet(&mut self, one: usize, other: usize) {
        if one == other || !self.hears(one, other) || !self.hears(other, one) {
            return;
        }
        for (host, peer) in [(one, other), (other, one)] {
            let theirs = self.hosts[peer].running.as_ref().map(|running| running.generation);
            let Some(running) = &mut self.hosts[host].running else { return };
            if theirs == Some(running.generation) {
                running.confirm(&name(peer));
            }
            let record = running.clone();
            self.hosts[host].record = Some(record);
        }
    }

    fn hears(&self, host: usize, peer: usize) -> bool {
        let (Some(own), Some(theirs)) = (&self.hosts[host].running, &self.hosts[peer].running) else {
            return false;
        };
        own.generation.abs_diff(theirs.generation) <= 1 && own.voters.contains_key(&name(peer))
    }

    /// Which of its voters could vote for a host, the host included, and how many
    /// votes it needs.
    fn votes(&self, host: usize) -> Option<(BTreeSet<usize>, usize)> {
        let own = self.hosts[host].running.as_ref()?;
        let could = |peer: &usize| {
            own.voters.contains_key(&name(*peer)) && (*peer == host || self.hears(*peer, host))
        };
        Some(((0..NAMES.len()).filter(could).collect(), own.voters.len() / 2 + 1))
    }

    /// Are there two sets of voters, each large enough, without a common voter?
    fn parted(&self) -> Option<(usize, usize)> {
        let all: Vec<_> = (0..NAMES.len()).filter_map(|host| Some((host, self.votes(host)?))).collect();
        all.iter().enumerate().find_map(|(place, (one, (its, needs)))| {
            all[place + 1..].iter().find_map(|(other, (theirs, need))| {
                let parted =
                    its.len() >= *needs && theirs.len() >= *need && its.union(theirs).count() >= needs + need;
                parted.then_some((*one, *other))
            })
        })
    }

    fn step(&mut self) {
        let (host, other) = (self.rng.usize(..NAMES.len()), self.rng.usize(..NAMES.len()));
        match self.rng.u32(..12) {
            0 => self.hosts[host].running = None,
            1 | 2 => self.start(host),
            3 => self.edit(host, false),
            4 => self.edit(host, true),
            5 => {
                let last = u32::try_from(self.sets.len()).unwrap();
                let generation = self.rng.u32(1..=last);
                self.copy(host, generation);
            }
            6 => {
                let last = u32::try_from(self.sets.len()).unwrap();
                self.copy(host, last);
                self.start(host);
            }
            _ => self.meet(host, other),
        }
    }
}

#[test]
fn no_two_that_run_at_the_same_time_can_win_without_a_voter_in_common() {
    let (mut vouched, mut followed, mut longest) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for step in 0..STEPS {
            world.step();
            if let Some((one, other)) = world.parted() {
                let of = |host: usize| format!("{} {:?}", name(host), world.hosts[host].running);
                panic!("seed {seed}, step {step}:\n{}\n{}", of(one), of(other));
            }
        }
        vouched += world.vouched;
        followed += world.followed;
        longest = longest.max(world.sets.len());
    }
    assert!(vouched > 200 && followed > 1000 && longest >= 6, "{vouched} {followed} {longest}");
}
