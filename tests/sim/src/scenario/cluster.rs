//! The first part of a scenario: the cluster, and what its transport lets pass.
//! It becomes the plan of a world without chance.

use std::{collections::BTreeMap, time::Duration};

use vip_engine::{GroupSpec, MEMBERS_MAX, NodeSpec, PRIORITY_DEFAULT, PeerLoss, Role, VOTERS_MAX};

use super::words::{Mistake, Words};
use crate::{names::Names, plan::Plan};

/// How far a clock's rate may be off, in parts per million: the world's
/// arithmetic allows no more.
const PPM_MAX: i64 = 250_000;

/// How to write the cluster. Each word has one usage.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("lease", "lease TIME"),
    ("nodes", "nodes NAME..."),
    ("witnesses", "witnesses NAME..."),
    ("observers", "observers NAME..."),
    ("pair", "pair take|hold"),
    ("group", "group NAME [NODE=PRIORITY]..."),
    ("clock", "clock NODE PPM"),
    ("transport", "transport passes old"),
];

/// A cluster; nodes and groups are in the order of their names, as in a
/// configuration file that was read.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub names: Names,
    pub roles: Vec<Role>,
    pub groups: Vec<GroupSpec>,
    lease: Duration,
    pair: Option<PeerLoss>,
    ppm: Vec<i64>,
    old_passes: bool,
}

impl Cluster {
    /// The index of the node with this name.
    pub fn node(&self, name: &str) -> Result<usize, Mistake> {
        let known = &self.names.nodes;
        known.iter().position(|node| node == name).ok_or_else(|| {
            Mistake::new(name, format!("is no node of this cluster: it has {}", known.join(", ")))
        })
    }

    /// The index of the group with this name.
    pub fn group(&self, name: &str) -> Result<usize, Mistake> {
        let known = &self.names.groups;
        known.iter().position(|group| group == name).ok_or_else(|| {
            Mistake::new(name, format!("is no group of this cluster: it has {}", known.join(", ")))
        })
    }

    /// The plan of a world with this cluster in it.
    pub fn plan(&self) -> Plan {
        let nodes = self.roles.iter().map(|&role| NodeSpec { role }).collect();
        let plan = Plan::calm(self.names.clone(), nodes, self.groups.clone(), self.lease);
        Plan { pair: self.pair, ppm: self.ppm.clone(), is_sealed: !self.old_passes, ..plan }
    }
}

/// A cluster whose description is incomplete.
#[derive(Debug, Default)]
pub(super) struct Draft {
    lease: Option<Duration>,
    roles: BTreeMap<String, Role>,
    groups: BTreeMap<String, BTreeMap<String, u8>>,
    pair: Option<PeerLoss>,
    ppm: BTreeMap<String, i64>,
    old_passes: bool,
}

impl Draft {
    /// Takes in a setting whose first word, one of [`SETTINGS`], is given.
    pub fn set(&mut self, setting: &str, words: &mut Words<'_>) -> Result<(), Mistake> {
        match setting {
            "lease" => self.lease = Some(words.duration()?),
            "nodes" => self.members(Role::Node, words)?,
            "witnesses" => self.members(Role::Witness, words)?,
            "observers" => self.members(Role::Observer, words)?,
            "pair" => {
                self.pair = Some(match words.take("`take` or `hold`")? {
                    "take" => PeerLoss::Take,
                    "hold" => PeerLoss::Hold,
                    other => return Err(Mistake::new(other, "is no kind of pair: write `take` or `hold`")),
                });
            }
            "group" => {
                let name = words.take("a name")?;
                let mut priorities = BTreeMap::new();
                while let Some(word) = words.peek() {
                    let (node, priority) = word
                        .split_once('=')
                        .and_then(|(node, priority)| Some((node, priority.parse().ok()?)))
                        .filter(|(_, priority)| (1..=254).contains(priority))
                        .ok_or_else(|| Mistake::new(word, "is no priority: write `NODE=1` to `NODE=254`"))?;
                    priorities.insert(self.member(node)?, priority);
                    words.take("a priority")?;
                }
                if self.groups.insert(name.to_owned(), priorities).is_some() {
                    return Err(Mistake::new(name, "is there already: give each group a name of its own"));
                }
            }
            "clock" => {
                let node = self.member(words.take("a node")?)?;
                let word = words.take("a rate in parts per million")?;
                let ppm = word.parse().ok().filter(|ppm| (-PPM_MAX..=PPM_MAX).contains(ppm));
                let ppm = ppm.ok_or_else(|| {
                    Mistake::new(word, format!("is no clock rate: write -{PPM_MAX} to {PPM_MAX}, in ppm"))
                })?;
                self.ppm.insert(node, ppm);
            }
            _ => {
                words.expect("passes")?;
                words.expect("old")?;
                self.old_passes = true;
            }
        }
        words.end()
    }

    fn members(&mut self, role: Role, words: &mut Words<'_>) -> Result<(), Mistake> {
        words.peek().ok_or_else(|| Mistake::new("", "names are missing"))?;
        while words.peek().is_some() {
            let name = words.take("a name")?;
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || name == "all" {
                return Err(Mistake::new(name, "can't be a name: use letters, digits and `-`"));
            }
            if self.roles.insert(name.to_owned(), role).is_some() {
                return Err(Mistake::new(name, "is there already: give each node a name of its own"));
            }
        }
        Ok(())
    }

    fn member(&self, name: &str) -> Result<String, Mistake> {
        if self.roles.contains_key(name) {
            return Ok(name.to_owned());
        }
        Err(Mistake::new(name, "is no node: name it in `nodes`, `witnesses` or `observers` before"))
    }

    /// The cluster, now that its description is over.
    pub fn finish(&self) -> Result<Cluster, Mistake> {
        let missing =
            |what: &str| Mistake::new("", format!("the cluster has no {what} yet: write one before"));
        if !self.roles.values().any(|&role| role == Role::Node) {
            return Err(missing("`nodes a b c`"));
        }
        let voters = self.roles.values().filter(|role| role.votes()).count();
        if voters > VOTERS_MAX || self.roles.len() > MEMBERS_MAX {
            let most = format!("the cluster has more than {VOTERS_MAX} voters or {MEMBERS_MAX} members");
            return Err(Mistake::new("", most));
        }
        let holders = self.roles.values().filter(|role| **role == Role::Node).count();
        if self.pair.is_some() && (voters, holders) != (2, 2) {
            return Err(Mistake::new("", "a pair is two nodes without a witness"));
        }
        if self.groups.is_empty() {
            return Err(missing("`group db`"));
        }
        let groups = self.groups.values().map(|priorities| {
            let of = |node| priorities.get(node).copied().unwrap_or(PRIORITY_DEFAULT);
            GroupSpec { priorities: self.roles.keys().map(of).collect(), ..GroupSpec::default() }
        });
        Ok(Cluster {
            names: Names {
                nodes: self.roles.keys().cloned().collect(),
                groups: self.groups.keys().cloned().collect(),
            },
            roles: self.roles.values().copied().collect(),
            groups: groups.collect(),
            lease: self.lease.ok_or_else(|| missing("`lease 200ms`"))?,
            pair: self.pair,
            ppm: self.roles.keys().map(|node| self.ppm.get(node).copied().unwrap_or_default()).collect(),
            old_passes: self.old_passes,
        })
    }
}
