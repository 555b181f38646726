//! Explores a scope and reports the result: how much there was, what was violated
//! or never seen, and by which steps.

use std::{
    fmt::{self, Write as _},
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use super::{
    claims::ONE_HOLDER,
    scope::{PLACES, Scope},
    table::{EventKey, Own},
    world::{Action, Cluster, World},
};

/// The result of an exploration.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scope.
    pub scope: Scope,
    /// Different states.
    pub states: usize,
    /// Steps from one state to another.
    pub steps: usize,
    /// The most steps from the beginning.
    pub depth: usize,
    /// How many times an engine ran; all other results were known already.
    pub runs: usize,
    /// How long it took.
    pub took: Duration,
    /// Was every state explored?
    pub exhausted: bool,
    /// What had to be seen and was, with the number of steps that it takes.
    pub reached: Vec<(&'static str, usize)>,
    /// What had to be seen and was not.
    pub missed: Vec<&'static str>,
    /// The violated claim, and the steps to it.
    pub violated: Option<Violation>,
}

/// A claim that does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The claim.
    pub claim: &'static str,
    /// How many steps it takes.
    pub depth: usize,
    /// The steps, one a line, with what they led to.
    pub trace: String,
}

impl Outcome {
    /// Is the result as it should be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.exhausted && self.missed.is_empty() && self.violated.is_none()
    }

    /// Were two fences open at once?
    #[must_use]
    pub fn two_holders(&self) -> Option<&Violation> {
        self.violated.as_ref().filter(|violation| violation.claim == ONE_HOLDER)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, states, steps, depth, runs, took, .. } = self;
        let end = match (&self.violated, self.exhausted) {
            (Some(_), _) => "VIOLATED",
            (None, true) => "exhausted",
            (None, false) => "NOT EXHAUSTED in time",
        };
        writeln!(f, "{}: {scope}", scope.name)?;
        write!(f, "  {states} states, depth {depth}, {steps} steps, {runs} engine runs, {took:.1?}: {end}")?;
        for (name, depth) in &self.reached {
            write!(f, "\n  reached after {depth} steps: {name}")?;
        }
        for name in &self.missed {
            write!(f, "\n  NEVER REACHED: {name}")?;
        }
        if let Some(Violation { claim, depth, trace }) = &self.violated {
            write!(f, "\n  VIOLATED after {depth} steps: {claim}\n{trace}")?;
        }
        Ok(())
    }
}

/// Explores all of `scope`, breadth first, for at most `limit`; a violation
/// ends it.
///
/// # Panics
/// If a thread of the exploration does.
#[must_use]
pub fn explore(scope: Scope, limit: Duration) -> Outcome {
    explore_to(scope, limit, None)
}

/// [`explore`], no further than so many steps from the beginning.
///
/// # Panics
/// As [`explore`].
#[must_use]
pub fn explore_to(scope: Scope, limit: Duration, depth: Option<usize>) -> Outcome {
    let begin = Instant::now();
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut builder = Cluster::new(scope).checker();
    if let Some(depth) = depth {
        // The beginning itself counts.
        builder = builder.target_max_depth(depth + 1);
    }
    let checker =
        builder.threads(threads).timeout(limit).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let took = begin.elapsed();
    let mut outcome = Outcome {
        scope,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        runs: checker.model().table.runs(),
        took,
        exhausted: took < limit,
        reached: Vec::new(),
        missed: Vec::new(),
        violated: None,
    };
    let mut found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.remove(property.name).map(stateright::Path::into_vec);
        match (property.expectation, path) {
            (Expectation::Always, Some(path)) => {
                outcome.exhausted = false;
                outcome.violated.get_or_insert(Violation {
                    claim: property.name,
                    depth: path.len() - 1,
                    trace: checker.model().tell(&path),
                });
            }
            (Expectation::Sometimes, Some(path)) => outcome.reached.push((property.name, path.len() - 1)),
            (Expectation::Sometimes, None) => outcome.missed.push(property.name),
            (Expectation::Always, None) | (Expectation::Eventually, _) => {}
        }
    }
    outcome
}

impl Cluster {
    /// A path as text.
    fn tell(&self, path: &[(World, Option<Action>)]) -> String {
        let mut story = String::new();
        for (index, (world, action)) in path.iter().enumerate() {
            if let Some((after, _)) = path.get(index + 1)
                && let Some(action) = action
            {
                // Writing to a string does not fail.
                let _written = writeln!(story, "  {:3} {}", index + 1, self.tell_step(world, *action, after));
            }
        }
        story
    }

    fn tell_step(&self, world: &World, action: Action, after: &World) -> String {
        let Some((node, what, stopped)) = self.event_of(action) else {
            return format!("tick {}{}", after.tick, fences(world, after));
        };
        let event = match what {
            EventKey::Deliver(message) => {
                let envelope = self.table.message(message);
                format!("{:?} from {}", envelope.about, envelope.from)
            }
            EventKey::Own(Own::Wake) => "wakes up".to_owned(),
            EventKey::Own(Own::Restart) => "a new process".to_owned(),
            EventKey::Own(Own::Step) => "a new process, in the next generation".to_owned(),
            EventKey::Own(Own::Continue) => "goes on".to_owned(),
            EventKey::Own(Own::Order(order)) => format!("order {order:?}"),
        };
        let step = self.step(world, node, what);
        let sent = match &step.stopped_before {
            Some((_, sent)) if stopped => sent,
            Some(_) | None => &step.sent,
        };
        let mut line = format!("node {node}: {event}");
        if stopped {
            line += "; stopped before it writes its map";
        } else if step.stored {
            line += &format!("; map {:?}", self.local(after, node).map);
        }
        for &message in sent {
            let envelope = self.table.message(message);
            let lost = if after.net.contains(&message) { "" } else { " (lost or no news)" };
            line += &format!("\n        to {}: {:?}{lost}", envelope.to, envelope.about);
        }
        line + &fences(world, after)
    }
}

/// Which fences are open, if that has changed.
fn fences(before: &World, after: &World) -> String {
    if before.open == after.open {
        return String::new();
    }
    let open: Vec<_> = (0..PLACES).filter(|node| after.open & (1 << node) != 0).collect();
    format!("\n        open on {open:?}")
}
