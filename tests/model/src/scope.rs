//! What one exploration covers: which nodes take part, how fast clocks run, how
//! long it lasts and how many faults there may be. [`super::catalogue`] lists the
//! explorations.

use std::{fmt, time::Duration};

use vip_common::BootNs;
#[cfg(feature = "mutants")]
use vip_engine::Mutant;
use vip_engine::{Engine, EngineConfig, GroupId, GroupSpec, Incarnation, NodeSpec, PeerLoss, Role, Timing};

use super::{claims::Claim, node_id};

/// How many places for voters there are. Where nobody is, is [`Role::Vacant`].
pub const PLACES: usize = 5;

/// Who takes part, by place: these, and nobody at the other places.
pub(super) const fn voters(roles: &[Role]) -> [Role; PLACES] {
    let mut places = [Role::Vacant; PLACES];
    let mut place = 0;
    while place < roles.len() {
        places[place] = roles[place];
        place += 1;
    }
    places
}

/// A step of the membership (rule 10): a restart may bring a node from the
/// former generation to the next one, and never back.
///
/// An exploration begins at any moment of the step: every voter of both may be
/// in either generation, by a restart whose silence is over. A voter that only
/// the next one has is there from the start, as one that has not started yet
/// is no other than one that is late with everything. A voter that only the
/// former one has, stays in it: its next process finds that it is no member.
/// Nodes of both generations hear each other, as neighbouring generations do; the
/// engine has to ignore nodes that its own generation does not have.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// The voters of the next generation.
    pub next: [Role; PLACES],
}

/// T_accept: with it RESERVE_MIN is a quarter.
pub(super) const ACCEPT: Duration = Duration::from_millis(80);

/// Who can serve the group: these.
pub(super) const fn fit(nodes: &[usize]) -> [bool; PLACES] {
    let mut places = [false; PLACES];
    let mut index = 0;
    while index < nodes.len() {
        places[nodes[index]] = true;
        index += 1;
    }
    places
}

/// One clock is slow, the others' fast.
pub(super) const fn slow(node: usize) -> [Rate; PLACES] {
    let mut rates = [Rate::Fast; PLACES];
    rates[node] = Rate::Slow;
    rates
}

/// When the first engines are made. Tick 0 is when their silence ends.
pub(super) const STARTED: BootNs = BootNs(1_000_000_000);

/// How fast a node's clock runs.
///
/// A lease of 0.8·T_accept lasts as long by a slow clock as T_accept does by a
/// fast one: their ratio is the margin of rule 4, all of it. Moreover, time
/// goes in ticks of which a fast clock's T_accept is a whole number, and its
/// 0.8·T_accept, rounded up, the same number: even between fast clocks there
/// is no tick left between the end of a lease and the moment at which the
/// acceptors forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As fast as any.
    Fast,
    /// 0.8 times as fast.
    Slow,
}

/// How long a tick is by a fast clock. Everything happens at ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// T_accept/4. An attempt, which lasts 0.4·T_accept, may go on over one
    /// tick's end.
    Quarter,
    /// T_accept/2. An attempt succeeds within its tick or not at all; what
    /// acceptors hear later of it still counts with them.
    Half,
}

impl Tick {
    /// How many there are in T_accept.
    #[must_use]
    pub const fn per_accept(self) -> u8 {
        match self {
            Self::Quarter => 4,
            Self::Half => 2,
        }
    }

    fn by(self, rate: Rate) -> Duration {
        let fast = ACCEPT / u32::from(self.per_accept());
        match rate {
            Rate::Fast => fast,
            Rate::Slow => fast * 4 / 5,
        }
    }
}

/// By which configuration a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Generation {
    /// The only one, or the one before a step.
    Former,
    /// The one after it.
    Next,
}

/// Where an exploration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Node 0 stands: its Prepares are on their way.
    Standing,
    /// Node 0 has just got the lease, by the votes of just as many others as
    /// it takes, whichever. What it sent the rest is still on its way.
    Won,
}

/// What is asked of a node from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The node can serve the group from now on, so that it stands when it may.
    Fit,
    /// It can't any more. Given to the holder, which has to release.
    Unfit,
    /// `switchover` to this node, given to the holder.
    HandOver(u8),
    /// `promote` of the very node, while it knows of no holder.
    Stand,
    /// The holder's process is told to end.
    Stop,
}

/// What one exploration covers: everything that can happen within it, in any
/// order, with any message lost, repeated or late, and any process late.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// What it is called in the report.
    pub name: &'static str,
    /// The voters. Node 0 is the first to stand.
    pub roles: [Role; PLACES],
    /// A step to other voters, while it lasts.
    pub step: Option<Membership>,
    /// Who can serve the group from the start; others after [`Order::Fit`].
    pub fit: [bool; PLACES],
    /// Their clocks.
    pub rates: [Rate; PLACES],
    /// What has happened before.
    pub start: Start,
    /// How fine time is.
    pub tick: Tick,
    /// How long it lasts, in ticks after the first silence.
    pub horizon: u8,
    /// How many ballots the network carries besides node 0's first. Further
    /// renewals are lost; processes that would stand once
    /// more are stopped.
    pub ballots: u8,
    /// Do renewals get anywhere? Else they are always lost, and only candidacies
    /// count as ballots.
    pub renewals: bool,
    /// How many restarts there may be: of any node at any time, also of one
    /// several times.
    pub restarts: u8,
    /// Orders to nodes, each of which may be given once, at any time, or not.
    pub orders: &'static [(u8, Order)],
    /// How often a process may be stopped, for any time, or end, just before
    /// a map write.
    pub stops: u8,
    /// Do datagrams for a former incarnation reach the next one? The transport
    /// rejects them; here the engine has to cope by itself.
    pub old_datagrams: bool,
    /// Are the numbers of later incarnations lower?
    pub falling: bool,
    /// Is [`vip_engine::About::Holding`] carried? Else it is always lost.
    pub holding: bool,
    /// Are Accepts kept that come too late for the attempt they answer? The
    /// engine as it ships takes no notice of them; a mutant may.
    pub late_accepts: bool,
    /// Pair mode (rule 13), for two nodes; the third one's place is vacant.
    pub pair: Option<PeerLoss>,
    /// Do nodes hear each other only at tick 0, and otherwise only what is
    /// delivered? It matters in pair mode alone; see [`super::local`].
    pub deaf: bool,
    /// Is one holder at a time claimed? It is, but for a pair that takes.
    pub one_holder: bool,
    /// What the exploration must see.
    pub reaches: &'static [Claim],
    /// How all engines are broken.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Scope {
    /// Three nodes with equal clocks and no faults but those of the network.
    #[must_use]
    pub const fn new(name: &'static str, tick: Tick, horizon: u8, ballots: u8) -> Self {
        Self {
            name,
            roles: voters(&[Role::Node; 3]),
            step: None,
            fit: fit(&[0]),
            rates: [Rate::Fast; PLACES],
            start: Start::Standing,
            tick,
            horizon,
            ballots,
            renewals: true,
            restarts: 0,
            orders: &[],
            stops: 0,
            old_datagrams: false,
            falling: false,
            holding: false,
            late_accepts: false,
            pair: None,
            deaf: false,
            one_holder: true,
            reaches: &[Claim::Held],
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Is there a node at this place, in whichever generation?
    pub(super) fn has(&self, node: usize) -> bool {
        self.is_in(node, Generation::Former) || self.is_in(node, Generation::Next)
    }

    /// Is there a node at this place in this generation?
    pub(super) fn is_in(&self, node: usize, generation: Generation) -> bool {
        self.members(generation).is_some_and(|roles| roles[node] != Role::Vacant)
    }

    /// The voters of a generation, if there is such a one.
    pub(super) fn members(&self, generation: Generation) -> Option<&[Role; PLACES]> {
        match generation {
            Generation::Former => Some(&self.roles),
            Generation::Next => self.step.as_ref().map(|step| &step.next),
        }
    }

    /// How many voters make a majority in a generation.
    pub(super) fn majority(&self, generation: Generation) -> usize {
        let places = (0..PLACES).filter(|&node| self.is_in(node, generation));
        places.count() / 2 + 1
    }

    /// What the clock of `node` shows at `tick`.
    pub(super) fn clock(&self, node: usize, tick: u8) -> BootNs {
        STARTED.plus(ACCEPT).plus(self.tick.by(self.rates[node]) * u32::from(tick))
    }

    /// The engine of the `start`th process on `node`, made at `now` by the
    /// configuration of `generation`, with the lease that is in the map. The one
    /// place where engines are made.
    pub(super) fn engine(
        &self,
        node: usize,
        generation: Generation,
        start: u8,
        held: Option<BootNs>,
        now: BootNs,
    ) -> Engine {
        let number = if self.falling { u8::MAX - start } else { start };
        // Those who come after node 0 stand without a slot's delay if it
        // is node 1, else with less than a tick's.
        let groups = vec![GroupSpec { priorities: vec![1, 5, 4, 3, 2], ..GroupSpec::default() }];
        let roles = self.members(generation).unwrap_or(&self.roles);
        let nodes = roles.iter().map(|&role| NodeSpec { role }).collect();
        let incarnation = Incarnation(u64::from(number));
        let config = EngineConfig::new(node_id(node), incarnation, nodes, groups, ACCEPT);
        let config = EngineConfig { pair: self.pair, ..config };
        let held: Vec<_> = held.into_iter().map(|until| (GroupId(0), until)).collect();
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.mutant {
            return Engine::mutated(mutant, config, &held, now);
        }
        Engine::new(config, &held, now)
    }

    /// The longest lease that the data plane believes, in nanoseconds.
    pub(super) fn hold_ns(&self) -> u64 {
        let hold = self.engine(0, Generation::Former, 1, None, STARTED).hold();
        u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long an attempt waits for answers.
    pub(super) fn patience() -> Duration {
        Timing::new(ACCEPT).patience
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { horizon, ballots, restarts, stops, .. } = self;
        let parts = self.tick.per_accept();
        let places = |generation| (0..PLACES).filter(move |&node| self.is_in(node, generation)).collect();
        let (former, next): (Vec<_>, Vec<_>) = (places(Generation::Former), places(Generation::Next));
        if self.step.is_some() {
            write!(f, "voters {former:?}, then {next:?}, ")?;
        } else if self.pair.is_none() && former.len() != 3 {
            write!(f, "{} voters, ", former.len())?;
        }
        write!(f, "{horizon} ticks of T_accept/{parts}, {} ballots, {restarts} restarts", ballots + 1)?;
        if self.start == Start::Won {
            write!(f, ", the first already won")?;
        }
        for (rate, name) in [(Rate::Fast, "fast"), (Rate::Slow, "slow")] {
            let nodes: Vec<_> =
                (0..PLACES).filter(|&node| self.has(node) && self.rates[node] == rate).collect();
            if self.rates.contains(&Rate::Slow) {
                write!(f, ", {name} clocks {nodes:?}")?;
            }
        }
        if stops > &0 {
            write!(f, ", {stops} stops before a map write")?;
        }
        for (node, order) in self.orders {
            write!(f, ", {node}: {order:?}")?;
        }
        for (set, name) in [
            (self.roles.contains(&Role::Witness), "witnesses"),
            (self.pair == Some(PeerLoss::Take), "a pair that takes"),
            (self.pair == Some(PeerLoss::Hold), "a pair that holds"),
            (!self.renewals, "renewals lost"),
            (self.deaf, "nodes that may not hear each other"),
            (self.old_datagrams, "datagrams outlive incarnations"),
            (self.falling, "falling incarnations"),
        ] {
            if set {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}
