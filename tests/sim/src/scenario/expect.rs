//! The expectations of a scenario: how to write them, and how they are judged.

use std::time::Duration;

use vip_engine::{CommandId, GroupState, Refusal};

use super::{
    cluster::Cluster,
    words::{Mistake, Words},
};
use crate::{clock::SimNs, names::group_id, world::World};

/// Everything that can be written.
pub(super) const USAGE: &str = "expect FACT [within TIME | for TIME], where FACT is one of \
    `holder GROUP = NODE [or NODE...]`, `holder GROUP = any`, `nobody holds GROUP`, `two hold GROUP` (a pair), \
    `holder [GROUP] unchanged`, `state NODE GROUP = STATE`, `completed [LABEL]`, \
    `refused [LABEL] = WHY`, `moves GROUP <= NUMBER`, `gap GROUP <= TIME`";

/// The states as the engine displays them.
const STATES: &[GroupState] = &[
    GroupState::Init,
    GroupState::Standby,
    GroupState::Active,
    GroupState::Fault,
    GroupState::Paused,
    GroupState::Witness,
    GroupState::Observer,
];

/// Something that must hold at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expect {
    pub fact: Fact,
    pub span: Span,
}

/// When it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Now,
    /// At some moment from now on, not later than this.
    Within(Duration),
    /// At every event from now on, for this long.
    For(Duration),
}

/// What must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// One of these may answer for the group; if empty, any.
    Holder {
        group: usize,
        nodes: Vec<usize>,
    },
    Nobody {
        group: usize,
    },
    /// In pair mode, two nodes may answer.
    Two {
        group: usize,
    },
    /// No fence of the groups has opened or closed since the last `expect`.
    Unchanged {
        groups: Vec<usize>,
    },
    State {
        node: usize,
        group: usize,
        state: GroupState,
    },
    Completed {
        label: Option<String>,
    },
    Refused {
        label: Option<String>,
        why: String,
    },
    /// Since the beginning.
    Moves {
        group: usize,
        at_most: u64,
    },
    /// The last time that nobody held the group was no longer than this.
    Gap {
        group: usize,
        at_most: Duration,
    },
}

/// Reads what follows `expect`.
pub(super) fn parse(words: &mut Words<'_>, cluster: &Cluster) -> Result<Expect, Mistake> {
    let fact = fact(words, cluster)?;
    let span = match words.peek() {
        Some("within") => {
            words.expect("within")?;
            Span::Within(words.duration()?)
        }
        Some("for") => {
            words.expect("for")?;
            Span::For(words.duration()?)
        }
        Some(_) | None => Span::Now,
    };
    Ok(Expect { fact, span })
}

fn fact(words: &mut Words<'_>, cluster: &Cluster) -> Result<Fact, Mistake> {
    let word = words.take("what to expect")?;
    match word {
        "holder" => {
            if words.take_if("unchanged") {
                return Ok(Fact::Unchanged { groups: (0..cluster.groups.len()).collect() });
            }
            let group = words.group(cluster)?;
            if words.take_if("unchanged") {
                return Ok(Fact::Unchanged { groups: vec![group] });
            }
            words.expect("=")?;
            if words.take_if("any") {
                return Ok(Fact::Holder { group, nodes: Vec::new() });
            }
            let mut nodes = vec![words.node(cluster)?];
            while words.take_if("or") {
                nodes.push(words.node(cluster)?);
            }
            Ok(Fact::Holder { group, nodes })
        }
        "nobody" => {
            words.expect("holds")?;
            Ok(Fact::Nobody { group: words.group(cluster)? })
        }
        "two" => {
            words.expect("hold")?;
            Ok(Fact::Two { group: words.group(cluster)? })
        }
        "state" => {
            let (node, group) = (words.node(cluster)?, words.group(cluster)?);
            words.expect("=")?;
            let word = words.take("a state")?;
            let state = STATES.iter().find(|state| state.to_string() == word).ok_or_else(|| {
                let names: Vec<_> = STATES.iter().map(ToString::to_string).collect();
                Mistake::new(word, format!("is no state: there are {}", names.join(", ")))
            })?;
            Ok(Fact::State { node, group, state: *state })
        }
        "completed" => Ok(Fact::Completed { label: label(words) }),
        "refused" => {
            let label = label(words);
            words.expect("=")?;
            Ok(Fact::Refused { label, why: words.take("a reason, like `no-target`")?.to_owned() })
        }
        "moves" => {
            let group = words.group(cluster)?;
            words.expect("<=")?;
            Ok(Fact::Moves { group, at_most: words.number()? })
        }
        "gap" => {
            let group = words.group(cluster)?;
            words.expect("<=")?;
            Ok(Fact::Gap { group, at_most: words.duration()? })
        }
        _ => Err(Mistake::new(word, format!("is nothing to expect: write {USAGE}"))),
    }
}

/// The label of a command, where one is written.
fn label(words: &mut Words<'_>) -> Option<String> {
    let word = words.peek().filter(|word| !["=", "within", "for"].contains(word))?;
    words.take("a label").ok()?;
    Some(word.to_owned())
}

/// A refusal in the words of scenarios: `TargetNotReady` is `target-not-ready`.
fn refusal_name(refusal: Refusal) -> String {
    let mut name = String::new();
    for c in format!("{refusal:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// What a scenario remembers while it runs.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Commands given, with their labels; the last one last.
    pub given: Vec<(Option<String>, CommandId)>,
    /// By group: how often fences had changed at the last `expect`.
    pub changes: Vec<u64>,
}

impl Memory {
    /// The command with this label; the last one, without a label.
    fn command(&self, label: Option<&str>) -> Option<CommandId> {
        let mut given = self.given.iter().rev();
        given.find(|(known, _)| label.is_none() || known.as_deref() == label).map(|&(_, id)| id)
    }
}

impl Fact {
    /// Does it hold?
    pub fn holds(&self, world: &World, memory: &Memory) -> bool {
        self.instead(world, memory).is_none()
    }

    /// What holds instead; `None` if it is as expected.
    pub fn instead(&self, world: &World, memory: &Memory) -> Option<String> {
        let answer = |label: &Option<String>| {
            let id = memory.command(label.as_deref())?;
            world.answers.iter().find(|answer| answer.1 == id).map(|answer| answer.2)
        };
        match self {
            Self::Holder { group, nodes } => {
                let open: Vec<_> = world.open_on(group_id(*group)).map(|node| usize::from(node.0)).collect();
                let right = open.len() == 1 && (nodes.is_empty() || nodes.contains(&open[0]));
                (!right).then(|| held_by(world, *group))
            }
            Self::Nobody { group } => world.holdings[*group].open.map(|_| held_by(world, *group)),
            Self::Two { group } => {
                let two = world.open_on(group_id(*group)).count() == 2;
                (!two).then(|| held_by(world, *group))
            }
            Self::Unchanged { groups } => {
                let changed = |group: &&usize| {
                    memory.changes.get(**group).copied().unwrap_or_default()
                        != world.holdings[**group].changes
                };
                let group = *groups.iter().find(changed)?;
                let changes = world.holdings[group].changes - memory.changes.get(group).copied().unwrap_or(0);
                Some(format!("fences of it have changed {changes} times; {}", held_by(world, group)))
            }
            Self::State { node, group, state } => {
                let node = &world.nodes[*node];
                let Some(engine) = node.engine() else { return Some("its agent does not run".to_owned()) };
                let found = engine.status(node.clock.at(world.now)).groups[group_id(*group)].state;
                (found != *state).then(|| format!("it is {found}"))
            }
            Self::Completed { label } => match answer(label) {
                Some(Ok(_)) => None,
                Some(Err(refusal)) => Some(format!("it was refused: {}", refusal_name(refusal))),
                None => Some("there is no answer yet".to_owned()),
            },
            Self::Refused { label, why } => match answer(label) {
                Some(Ok(completed)) => Some(format!("it was completed: {completed:?}")),
                Some(Err(refusal)) if refusal_name(refusal) == *why => None,
                Some(Err(refusal)) => {
                    Some(format!("it was refused for another reason: {}", refusal_name(refusal)))
                }
                None => Some("there is no answer yet".to_owned()),
            },
            Self::Moves { group, at_most } => {
                let moves = world.holdings[*group].moves;
                (moves > *at_most).then(|| format!("it has moved {moves} times"))
            }
            Self::Gap { group, at_most } => {
                let holding = &world.holdings[*group];
                let (from, to) = (holding.closed_at, holding.opened_at);
                let gap = if holding.open.is_some() { to } else { world.now }.since(from);
                (from != SimNs(0) && gap > *at_most).then(|| format!("nobody held it for {gap:.1?}"))
            }
        }
    }
}

fn held_by(world: &World, group: usize) -> String {
    let names = &world.plan.names;
    let open: Vec<_> = world.open_on(group_id(group)).map(|node| names.node(node)).collect();
    let group = names.group(group_id(group));
    match open.as_slice() {
        [] => format!("nobody holds {group}"),
        [one] => format!("{one} holds {group}"),
        more => format!("{} hold {group}", more.join(" and ")),
    }
}
