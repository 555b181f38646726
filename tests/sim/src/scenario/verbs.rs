//! The words that a step can begin with. A new one takes a line in [`VERBS`],
//! a function here, and, if it does something new, a variant of [`Step`] with
//! its arm in [`super::run`]. A new command of the engine takes the first two.

use vip_engine::{Command, GroupId, NodeId};

use super::{
    Step,
    cluster::Cluster,
    expect,
    words::{Mistake, Words},
};
use crate::{
    names::{group_id, node_id},
    network::{Keep, MessageKind, Tap},
};

type Parse = fn(&mut Words<'_>, &Cluster) -> Result<Step, Mistake>;

/// A word that a step can begin with.
pub(super) struct Verb {
    pub name: &'static str,
    /// What can be written, for people.
    pub usage: &'static str,
    pub parse: Parse,
}

const fn verb(name: &'static str, usage: &'static str, parse: Parse) -> Verb {
    Verb { name, usage, parse }
}

/// Every one of them.
pub(super) const VERBS: &[Verb] = &[
    // Nodes.
    verb("start", "start NODE...|all [generation N]", start),
    verb("kill", "kill NODE...|all", |words, cluster| {
        Ok(Step::Kill { nodes: words.nodes(cluster)?, host: false })
    }),
    verb("crash", "crash NODE...|all", |words, cluster| {
        Ok(Step::Kill { nodes: words.nodes(cluster)?, host: true })
    }),
    verb("stall", "stall NODE...|all [with output] [for TIME]", stall),
    verb("resume", "resume NODE...|all", |words, cluster| Ok(Step::Resume { nodes: words.nodes(cluster)? })),
    verb("stop", "stop NODE...|all", |words, cluster| Ok(Step::Stop { nodes: words.nodes(cluster)? })),
    verb("eligible", "eligible NODE...|all [GROUP...]", |words, cluster| eligible(true, words, cluster)),
    verb("ineligible", "ineligible NODE...|all [GROUP...]", |words, cluster| eligible(false, words, cluster)),
    // The network.
    verb("delay", "delay TIME [NODE -> NODE | NODE <-> NODE]", |words, cluster| {
        Ok(Step::Delay { by: words.duration()?, links: words.links_or_all(cluster)? })
    }),
    verb("jitter", "jitter TIME", |words, _| Ok(Step::Jitter { by: words.duration()? })),
    verb("loss", "loss PERCENT%", |words, _| Ok(Step::Loss { chance: words.chance()? })),
    verb("duplicates", "duplicates PERCENT%", |words, _| Ok(Step::Duplicates { chance: words.chance()? })),
    verb("cut", "cut NODE -> NODE | NODE <-> NODE (* is every node)", |words, cluster| {
        Ok(Step::Cut { links: words.links(cluster)?, cut: true })
    }),
    verb("heal", "heal [NODE -> NODE | NODE <-> NODE]", |words, cluster| {
        Ok(Step::Cut { links: words.links_or_all(cluster)?, cut: false })
    }),
    verb("hold", "hold KIND[,KIND...]|any NODE -> NODE | nothing", |words, cluster| {
        tap(Keep::Hold, words, cluster)
    }),
    verb("record", "record KIND[,KIND...]|any NODE -> NODE | nothing", |words, cluster| {
        tap(Keep::Record, words, cluster)
    }),
    verb("deliver", "deliver held [NODE -> NODE]", |words, cluster| {
        words.expect("held")?;
        Ok(Step::SendKept { keep: Keep::Hold, links: words.links_or_all(cluster)? })
    }),
    verb("replay", "replay recorded [NODE -> NODE]", |words, cluster| {
        words.expect("recorded")?;
        Ok(Step::SendKept { keep: Keep::Record, links: words.links_or_all(cluster)? })
    }),
    // Commands.
    verb("promote", "promote GROUP to NODE [via NODE] [as LABEL]", |words, cluster| {
        let group = group(words, cluster)?;
        words.expect("to")?;
        let to = node_id(words.node(cluster)?);
        command(Command::Promote { group, to }, words, cluster)
    }),
    verb("demote", "demote GROUP [via NODE] [as LABEL]", |words, cluster| {
        let group = group(words, cluster)?;
        command(Command::Demote { group }, words, cluster)
    }),
    verb("switchover", "switchover GROUP [to NODE] [via NODE] [as LABEL]", |words, cluster| {
        let group = group(words, cluster)?;
        let to: Option<NodeId> = if words.take_if("to") { Some(node_id(words.node(cluster)?)) } else { None };
        command(Command::Switchover { group, to }, words, cluster)
    }),
    verb("force", "force GROUP [via NODE] [as LABEL]", |words, cluster| {
        let group = group(words, cluster)?;
        command(Command::Force { group }, words, cluster)
    }),
    verb("standby", "standby NODE [force] [via NODE] [as LABEL]", |words, cluster| {
        let node = node_id(words.node(cluster)?);
        let force = words.take_if("force");
        command(Command::Standby { node, on: true, force }, words, cluster)
    }),
    verb("unstandby", "unstandby NODE [via NODE] [as LABEL]", |words, cluster| {
        let node = node_id(words.node(cluster)?);
        command(Command::Standby { node, on: false, force: false }, words, cluster)
    }),
    verb("pause", "pause [via NODE] [as LABEL]", |words, cluster| {
        command(Command::Pause { on: true }, words, cluster)
    }),
    verb("resume-cluster", "resume-cluster [via NODE] [as LABEL]", |words, cluster| {
        command(Command::Pause { on: false }, words, cluster)
    }),
    // What must be so.
    verb("expect", expect::USAGE, |words, cluster| expect::parse(words, cluster).map(Step::Expect)),
];

fn start(words: &mut Words<'_>, cluster: &Cluster) -> Result<Step, Mistake> {
    let nodes = words.nodes(cluster)?;
    let generation = if words.take_if("generation") { Some(words.number()?) } else { None };
    Ok(Step::Start { nodes, generation })
}

fn stall(words: &mut Words<'_>, cluster: &Cluster) -> Result<Step, Mistake> {
    let nodes = words.nodes(cluster)?;
    let with_output = words.take_if("with");
    if with_output {
        words.expect("output")?;
    }
    let how_long = if words.take_if("for") { Some(words.duration()?) } else { None };
    Ok(Step::Stall { nodes, how_long, with_output })
}

fn eligible(eligible: bool, words: &mut Words<'_>, cluster: &Cluster) -> Result<Step, Mistake> {
    Ok(Step::Eligible { nodes: words.nodes(cluster)?, groups: words.groups_or_all(cluster)?, eligible })
}

fn tap(keep: Keep, words: &mut Words<'_>, cluster: &Cluster) -> Result<Step, Mistake> {
    let word = words.take("a kind of message, or `nothing`")?;
    if word == "nothing" {
        return Ok(Step::Untap { keep });
    }
    let kinds = match word {
        "any" => Vec::new(),
        _ => word.split(',').map(kind).collect::<Result<_, _>>()?,
    };
    let links = words.links(cluster)?;
    let taps = links.into_iter().map(|(from, to)| Tap { keep, kinds: kinds.clone(), from, to });
    Ok(Step::Tap { taps: taps.collect() })
}

fn kind(word: &str) -> Result<MessageKind, Mistake> {
    let found = MessageKind::NAMED.iter().find(|(name, _)| *name == word);
    found.map(|&(_, kind)| kind).ok_or_else(|| {
        let names: Vec<_> = MessageKind::NAMED.iter().map(|(name, _)| *name).collect();
        Mistake::new(word, format!("is no kind of message: there are {}, any", names.join(", ")))
    })
}

fn group(words: &mut Words<'_>, cluster: &Cluster) -> Result<GroupId, Mistake> {
    words.group(cluster).map(group_id)
}

/// The end that all commands share.
fn command(command: Command, words: &mut Words<'_>, cluster: &Cluster) -> Result<Step, Mistake> {
    let via = if words.take_if("via") { Some(words.node(cluster)?) } else { None };
    let label = if words.take_if("as") { Some(words.take("a label")?.to_owned()) } else { None };
    Ok(Step::Command { command, via, label })
}
