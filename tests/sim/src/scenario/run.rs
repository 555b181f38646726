//! Plays scenarios, step by step.

use std::time::Duration;

use vip_engine::Command;
use vip_lease::Eligible;

use super::{
    Broken, Line, Scenario, Step, Wait,
    expect::{Expect, Memory, Span},
};
use crate::{
    Mutant, Stats, Violation,
    agent::Ask,
    clock::{SimNs, nanos},
    rng::Rng,
    survive,
    trace::Trace,
    world::World,
};

/// How long a process stalls if no time is given: for ever.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// The result of a scenario.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What went wrong first, if anything.
    pub result: Result<(), Broken>,
    /// Figures.
    pub stats: Stats,
    /// The last lines of what happened.
    pub trace: Vec<String>,
}

/// Why a step failed.
enum Failed {
    Violation(Violation),
    Step(String),
}

impl From<Violation> for Failed {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Scenario {
    /// Plays it, and keeps the last `trace_lines` lines of what happens.
    #[must_use]
    pub fn run(&self, trace_lines: usize) -> Replay {
        // Only jitter, loss and duplicates ask for chance; always the same one.
        let rng = Rng::new(0);
        let mut world = World::new(self.cluster.plan(), rng, Mutant::None, Trace::new(trace_lines));
        for node in &mut world.nodes {
            node.restarts = false;
        }
        let mut memory = Memory { changes: vec![0; world.holdings.len()], ..Memory::default() };
        let broken = |line: &Line, why: String| Broken {
            file: self.file.clone(),
            line: line.number,
            text: line.text.clone(),
            why,
        };
        let mut result = Ok(());
        for line in &self.lines {
            world.note(|_| format!("#      line {}: {}", line.number, line.text));
            let played = survive(&mut world, |world| match play(line, world, &mut memory) {
                Ok(()) => Ok(None),
                Err(Failed::Step(why)) => Ok(Some(why)),
                Err(Failed::Violation(violation)) => Err(violation),
            });
            result = match played {
                Ok(None) => continue,
                Ok(Some(why)) => Err(broken(line, why)),
                Err(violation) => Err(broken(line, violation.tell(&self.cluster.names))),
            };
            break;
        }
        Replay { result, stats: world.stats, trace: world.trace.into_lines() }
    }
}

fn play(line: &Line, world: &mut World, memory: &mut Memory) -> Result<(), Failed> {
    match line.wait {
        Wait::No => {}
        Wait::At(at) => {
            let at = SimNs(nanos(at));
            if at < world.now {
                let now = world.now.since(SimNs(0));
                return Err(Failed::Step(format!("that time is past, it is {now:?}; write `after`")));
            }
            world.run_until(at)?;
        }
        Wait::After(time) => world.run_until(world.now.plus(time))?,
    }
    if let Some(step) = &line.step {
        take(step, world, memory)?;
    }
    world.check_fences()?;
    world.check_answers()?;
    Ok(())
}

fn take(step: &Step, world: &mut World, memory: &mut Memory) -> Result<(), Failed> {
    match step {
        Step::Start { nodes, generation } => {
            for &node in nodes {
                if world.nodes[node].agent.is_some() {
                    return Err(Failed::Step(format!("the agent of {} runs already", world.name(node))));
                }
                if let Some(generation) = *generation {
                    world.nodes[node].generation = generation;
                }
                world.start(node)?;
            }
        }
        Step::Kill { nodes, host } => nodes.iter().try_for_each(|&node| world.kill(node, *host))?,
        Step::Stall { nodes, how_long, with_output } => {
            let how_long = how_long.unwrap_or(FOR_EVER);
            for &node in nodes {
                if *with_output {
                    world.nodes[node].stall_with_output = Some(how_long);
                } else {
                    world.stall(node, how_long);
                }
            }
        }
        Step::Resume { nodes } => nodes.iter().try_for_each(|&node| world.resume(node))?,
        Step::Stop { nodes } => nodes.iter().try_for_each(|&node| world.ask(node, Ask::Stop))?,
        Step::Eligible { nodes, groups, eligible } => {
            let eligible = *eligible;
            for (node, group) in nodes.iter().flat_map(|&node| groups.iter().map(move |&group| (node, group)))
            {
                world.nodes[node].eligible[group] = eligible;
                world.tell_eligible(node, group, if eligible { Eligible::Yes } else { Eligible::No })?;
            }
        }
        Step::Delay { links, by } => {
            links.iter().for_each(|&(from, to)| world.plan.delay_ns[from][to] = nanos(*by));
        }
        Step::Jitter { by } => world.plan.jitter_ns = nanos(*by),
        Step::Loss { chance } => world.plan.loss = *chance,
        Step::Duplicates { chance } => world.plan.duplicates = *chance,
        Step::Cut { links, cut } => links.iter().for_each(|&(from, to)| world.cut[from][to] = *cut),
        Step::Tap { taps } => world.taps.extend_from_slice(taps),
        Step::Untap { keep } => world.taps.retain(|tap| tap.keep != *keep),
        Step::SendKept { keep, links } => {
            let sent: usize = links.iter().map(|&(from, to)| world.send_kept(*keep, from, to)).sum();
            if sent == 0 {
                return Err(Failed::Step("no such datagram was kept".to_owned()));
            }
        }
        Step::Command { command, via, label } => give(*command, *via, label.as_deref(), world, memory)?,
        Step::Expect(expect) => judge(expect, world, memory)?,
    }
    Ok(())
}

/// A command goes to a node by name, else to the holder, else to any that runs.
fn give(
    command: Command,
    via: Option<usize>,
    label: Option<&str>,
    world: &mut World,
    memory: &mut Memory,
) -> Result<(), Failed> {
    let holder = command.group().and_then(|group| world.holdings[group.place()].open);
    let holder = holder.map(|node| usize::from(node.0));
    let able =
        |node: &usize| world.nodes[*node].agent.is_some() && world.nodes[*node].stalled_until.is_none();
    let at = via.or(holder.filter(able)).or_else(|| (0..world.nodes.len()).find(able));
    let id = match at {
        Some(node) => world.command(node, command)?,
        None => None,
    };
    let id = id.ok_or_else(|| Failed::Step("no agent runs there that could take the command".to_owned()))?;
    memory.given.push((label.map(str::to_owned), id));
    Ok(())
}

fn judge(expect: &Expect, world: &mut World, memory: &mut Memory) -> Result<(), Failed> {
    let fact = &expect.fact;
    match expect.span {
        Span::Now => {}
        Span::Within(time) => {
            let end = world.now.plus(time);
            world.run_until_or(end, |world| fact.holds(world, memory))?;
        }
        Span::For(time) => {
            let end = world.now.plus(time);
            world.run_until_or(end, |world| !fact.holds(world, memory))?;
        }
    }
    if let Some(instead) = fact.instead(world, memory) {
        let at = world.now.since(SimNs(0));
        return Err(Failed::Step(format!("at {at:.1?}, {instead}")));
    }
    memory.changes = world.holdings.iter().map(|holding| holding.changes).collect();
    Ok(())
}
