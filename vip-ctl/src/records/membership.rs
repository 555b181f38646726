//! Rule 10 (docs/protocol.md): the voters change by one node at a time, and the
//! next change waits until every voter has the last one. The state directory
//! keeps the record of the membership that this node took part in; at its start,
//! an agent refuses a configuration that leaps over a generation.
//!
//! Nodes of neighbouring generations go on voting for each other meanwhile. Each
//! counts the votes of its own generation's voters; any majority of one
//! generation has a voter in common with any majority of the next, and that
//! voter's acceptor is one and the same (or silent after its restart).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Node},
    mutant::{self, Mutant},
    records,
};

const FILE: &str = "membership.json";

/// The membership that this node takes part in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its cluster's name.
    pub cluster: String,
    /// Its number.
    pub generation: u32,
    /// The voters' ids, by name.
    pub voters: BTreeMap<String, u8>,
    /// Voters that this node has heard with this generation, itself included.
    pub confirmed: BTreeSet<String>,
    /// The voters of the generation before, if this node took part in it.
    #[serde(default)]
    pub former: BTreeSet<String>,
}

/// Why a membership can't follow the recorded one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It is an older one, or more than one step ahead.
    #[error(
        "generation = {new} can't follow generation {old}, which this node has taken part in: \
         write {old}, or {next} after one node was added or removed"
    )]
    Leap {
        /// The generation in the record.
        old: u32,
        /// The generation in the configuration.
        new: u32,
        /// The only other generation that could follow.
        next: u64,
    },
    /// The same generation has other voters.
    #[error(
        "generation {generation} has the voters {old}, and the configuration has {new}: add or remove one with `vip-ctl member`, which raises the generation"
    )]
    SameNumber {
        /// The generation.
        generation: u32,
        /// Its voters in the record.
        old: String,
        /// Its voters in the configuration.
        new: String,
    },
    /// More than one voter comes or goes.
    #[error(
        "from generation {old} to the next one only one voter may be added or removed, or two majorities need not overlap; here {changed} change: do one after the other"
    )]
    TooMany {
        /// The generation in the record.
        old: u32,
        /// The names of those voters.
        changed: String,
    },
    /// A voter's id has changed.
    #[error("{name} had the id {old}, and the configuration says {new}: give it back its id")]
    Renumbered {
        /// The voter.
        name: String,
        /// The id in the record.
        old: u8,
        /// The id in the configuration.
        new: u8,
    },
    /// There is no record, and this is not the first generation.
    #[error(
        "this node has no record of the membership, and generation {generation} is not the first: \
         start the agents of nodes that have taken part in it, or write generation = 1 on all nodes if the cluster is a new one"
    )]
    NoRecord {
        /// The generation in the configuration.
        generation: u32,
    },
    /// Not every voter has the recorded generation yet.
    #[error(
        "generation {generation} is not confirmed by {missing} yet, and the next change has to wait for that: restart the agent there with generation {generation}, and let this node hear it"
    )]
    Unconfirmed {
        /// The recorded generation.
        generation: u32,
        /// The voters that are missing.
        missing: String,
    },
}

impl Membership {
    /// The membership of a configuration, which no other voter has confirmed yet.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let voters = config.cluster.nodes.iter().filter(|node| node.role.votes());
        let me = config.this_node();
        Self {
            cluster: config.cluster.name.clone(),
            generation: config.cluster.generation,
            voters: voters.map(|Node { name, id, .. }| (name.clone(), *id)).collect(),
            confirmed: me.role.votes().then(|| me.name.clone()).into_iter().collect(),
            former: BTreeSet::new(),
        }
    }

    /// Reads the record; `None` if this node took part in none.
    ///
    /// # Errors
    /// If the file exists but cannot be read or parsed.
    pub fn load(state_dir: &Path) -> io::Result<Option<Self>> {
        records::read(state_dir, FILE)
    }

    /// Writes the record, on disk when it returns.
    ///
    /// # Errors
    /// If it can't be written; then the former record stays.
    pub fn store(&self, state_dir: &Path) -> io::Result<()> {
        records::write_durably(state_dir, FILE, self)
    }

    /// Voters that this node has not heard with this generation.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let missing = self.voters.keys().filter(|name| !self.confirmed.contains(*name));
        missing.map(String::as_str).collect()
    }

    /// Takes note that `voter` has this generation. Returns whether that was news.
    pub fn confirm(&mut self, voter: &str) -> bool {
        self.voters.contains_key(voter) && self.confirmed.insert(voter.to_owned())
    }

    /// Can `next`, of the same cluster, follow this one? Returns the membership
    /// to record then.
    ///
    /// # Errors
    /// [`MembershipError`]: why not, and what to do.
    pub fn followed_by(&self, mut next: Self) -> Result<Self, MembershipError> {
        let changed: Vec<_> = self
            .voters
            .keys()
            .filter(|name| !next.voters.contains_key(*name))
            .chain(next.voters.keys().filter(|name| !self.voters.contains_key(*name)))
            .map(String::as_str)
            .collect();
        let (old, new) = (self.generation, next.generation);
        // A node that comes back after more than one step may have another id.
        if new != old && u64::from(new) != u64::from(old) + 1 && !mutant::is(Mutant::Leap) {
            return Err(MembershipError::Leap { old, new, next: u64::from(old) + 1 });
        }
        if let Some((name, old, new)) = self.voters.iter().find_map(|(name, old)| {
            next.voters
                .get(name)
                .filter(|new| *new != old && !mutant::is(Mutant::Renumbered))
                .map(|new| (name.clone(), *old, *new))
        }) {
            return Err(MembershipError::Renumbered { name, old, new });
        }
        if old == new {
            if changed.is_empty() {
                return Ok(self.clone());
            }
            return Err(MembershipError::SameNumber {
                generation: old,
                old: names(self.voters.keys()),
                new: names(next.voters.keys()),
            });
        }
        if changed.len() > 1 && !mutant::is(Mutant::TwoAtOnce) {
            return Err(MembershipError::TooMany { old, changed: names(changed.iter()) });
        }
        let missing = self.missing_before(&next);
        if !missing.is_empty() && !mutant::is(Mutant::Unconfirmed) {
            return Err(MembershipError::Unconfirmed { generation: old, missing: names(missing.iter()) });
        }
        next.former = self.voters.keys().cloned().collect();
        Ok(next)
    }

    /// This membership, for a node that knows nothing of the one before, in which
    /// any other voter may have been.
    fn joined_by(mut self, me: &str) -> Self {
        self.former = self.voters.keys().filter(|name| *name != me).cloned().collect();
        self
    }

    /// The voters that `next` has to wait for. A voter that was added with this
    /// generation and never came up can be removed again: no older generation has
    /// it, so it can count no votes there.
    fn missing_before(&self, next: &Self) -> Vec<&str> {
        let mut missing = self.missing();
        missing.retain(|name| {
            next.voters.contains_key(*name)
                || (self.former.contains(*name) && !mutant::is(Mutant::RemoveUnheard))
        });
        missing
    }
}

fn names(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    names.map(|name| name.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}

/// How a node enters the configured membership.
#[derive(Debug)]
pub struct Admission {
    /// The membership to record; only an agent that is about to vote by it does.
    pub membership: Membership,
    /// Does the record have it already?
    pub is_recorded: bool,
    /// What this node can't tell by its own record: whether every voter of the
    /// generation before has that one. A node that takes part in this generation
    /// knows. Until this node hears one ([`crate::daemon`]), it neither votes nor
    /// stands.
    pub doubt: Option<MembershipError>,
}

impl Admission {
    /// Checks the configured membership against the `last` one that this node
    /// took part in (rule 10).
    ///
    /// # Errors
    /// [`MembershipError`] if the one can't follow the other.
    pub fn new(last: Option<Membership>, config: &Config) -> Result<Self, MembershipError> {
        let me = config.this_node();
        let mut entry = entry(last, Membership::of(config), &me.name)?;
        if !me.role.votes() {
            // Without a vote it can't part majorities.
            entry.doubt = None;
        }
        Ok(entry)
    }
}

fn entry(last: Option<Membership>, next: Membership, me: &str) -> Result<Admission, MembershipError> {
    let generation = next.generation;
    // The record of another cluster says nothing about this one.
    let Some(last) = last.filter(|last| last.cluster == next.cluster || mutant::is(Mutant::AnyCluster))
    else {
        // The first generation has none before it.
        let doubt = (generation > 1 && !mutant::is(Mutant::NoDoubt))
            .then_some(MembershipError::NoRecord { generation });
        let membership = if doubt.is_some() { next.joined_by(me) } else { next };
        return Ok(Admission { membership, is_recorded: false, doubt });
    };
    match last.followed_by(next.clone()) {
        Ok(membership) => Ok(Admission { is_recorded: membership == last, membership, doubt: None }),
        // It may have missed what the others did meanwhile.
        Err(doubt @ (MembershipError::Leap { .. } | MembershipError::Unconfirmed { .. }))
            if generation > last.generation =>
        {
            Ok(Admission { membership: next.joined_by(me), is_recorded: false, doubt: Some(doubt) })
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    mod chains;

    use super::*;

    fn membership(generation: u32, voters: &[(&str, u8)], confirmed: &[&str]) -> Membership {
        Membership {
            cluster: "shop".into(),
            generation,
            voters: voters.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect(),
            confirmed: confirmed.iter().map(|name| (*name).to_owned()).collect(),
            former: BTreeSet::new(),
        }
    }

    const THREE: &[(&str, u8)] = &[("a", 0), ("b", 1), ("c", 2)];
    const FOUR: &[(&str, u8)] = &[("a", 0), ("b", 1), ("c", 2), ("d", 3)];

    #[test]
    fn one_voter_is_added_once_everybody_has_the_last_generation() {
        let all = ["a", "b", "c"];
        let old = membership(1, THREE, &all);
        let new = membership(2, FOUR, &["a"]);
        let former = all.map(str::to_owned).into();
        assert_eq!(old.followed_by(new.clone()), Ok(Membership { former, ..new.clone() }));
        let early = membership(1, THREE, &["a", "c"]);
        assert_eq!(
            early.followed_by(new),
            Err(MembershipError::Unconfirmed { generation: 1, missing: "b".into() })
        );
    }

    #[test]
    fn what_is_recorded_goes_on_over_a_restart() {
        let old = membership(4, THREE, &["a", "b"]);
        assert_eq!(old.followed_by(membership(4, THREE, &["a"])), Ok(old.clone()));
    }

    #[test]
    fn what_could_part_two_majorities_is_refused() {
        let all = ["a", "b", "c"];
        let old = membership(3, THREE, &all);
        let two_at_once = membership(4, &[("a", 0), ("b", 1), ("d", 3)], &["a"]);
        assert_eq!(
            old.followed_by(two_at_once),
            Err(MembershipError::TooMany { old: 3, changed: "c, d".into() })
        );
        for generation in [1, 2, 5] {
            let leap = old.followed_by(membership(generation, THREE, &["a"]));
            assert_eq!(leap, Err(MembershipError::Leap { old: 3, new: generation, next: 4 }));
        }
        assert!(matches!(
            old.followed_by(membership(3, FOUR, &["a"])),
            Err(MembershipError::SameNumber { generation: 3, .. })
        ));
        assert!(matches!(
            old.followed_by(membership(4, &[("a", 1), ("b", 0), ("c", 2)], &["a"])),
            Err(MembershipError::Renumbered { .. })
        ));
    }

    #[test]
    fn a_new_voter_that_never_came_up_can_be_removed_and_an_old_one_can_not() {
        let former: BTreeSet<_> = THREE.iter().map(|(name, _)| (*name).to_owned()).collect();
        let without_d = Membership { former: former.clone(), ..membership(2, FOUR, &["a", "b", "c"]) };
        assert!(without_d.followed_by(membership(3, THREE, &["a"])).is_ok());
        // c may still be in generation 1, and a or b might vote for it there.
        let without_c = Membership { former, ..membership(2, FOUR, &["a", "b", "d"]) };
        let next = membership(3, &[("a", 0), ("b", 1), ("d", 3)], &["a"]);
        assert_eq!(
            without_c.followed_by(next),
            Err(MembershipError::Unconfirmed { generation: 2, missing: "c".into() })
        );
    }

    /// The voters that c has to wait for on its way to generation 3 of {a, b, d}:
    /// it has no record, one that leaps, one of another cluster.
    #[test]
    fn who_can_not_vouch_for_a_membership_by_its_record_has_a_doubt() {
        let next = || membership(3, &[("a", 0), ("b", 1), ("d", 3)], &["d"]);
        let enter = |last: Option<Membership>| entry(last, next(), "d").expect("a doubt is no error");
        let far = Membership { confirmed: ["d".to_owned()].into(), ..membership(1, FOUR, &[]) };
        let foreign = Membership { cluster: "other".into(), ..membership(2, FOUR, &["a", "b", "d"]) };
        let unheard = membership(2, FOUR, &["d"]);
        for last in [None, Some(far), Some(foreign), Some(unheard)] {
            let entry = enter(last);
            assert!(entry.doubt.is_some() && !entry.is_recorded, "{entry:?}");
            // A node that has just come in counts no voter as never having been there.
            assert_eq!(entry.membership.former, ["a", "b"].map(str::to_owned).into());
        }
        let known = membership(2, FOUR, &["a", "b", "c", "d"]);
        assert_eq!(enter(Some(known)).doubt, None);
        // The first membership has none before it.
        let first = entry(None, membership(1, THREE, &["a"]), "a").expect("the first");
        assert_eq!((first.doubt, first.membership.former), (None, BTreeSet::new()));
        // There is no way back, whoever vouches.
        assert!(entry(Some(membership(4, THREE, &["a"])), next(), "d").is_err());
    }

    /// d has joined {a, b, c}, and c has not heard of it yet. Whatever d does
    /// next has to wait for c, for which a or b might still vote.
    #[test]
    fn who_has_just_joined_removes_nobody_that_it_has_not_heard() {
        let joined = entry(None, membership(2, FOUR, &["d"]), "d").expect("a doubt").membership;
        let heard = Membership { confirmed: ["a", "b", "d"].map(str::to_owned).into(), ..joined };
        let without_c = membership(3, &[("a", 0), ("b", 1), ("d", 3)], &["d"]);
        assert_eq!(
            heard.followed_by(without_c),
            Err(MembershipError::Unconfirmed { generation: 2, missing: "c".into() })
        );
    }

    #[test]
    fn only_voters_confirm() {
        let mut now = membership(1, THREE, &["a"]);
        assert!(now.confirm("b"));
        assert!(!now.confirm("b"));
        assert!(!now.confirm("observer"));
        assert_eq!(now.missing(), ["c"]);
    }
}
