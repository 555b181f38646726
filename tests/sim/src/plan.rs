//! What a seed decides before the world begins: the cluster, its clocks, its
//! network, and how rough it gets. [`super::chaos`] decides on the way what
//! happens when.

use std::time::Duration;

use vip_engine::{
    ByGroup, COMMAND_TIMEOUT, EPOCH_MARGIN, GroupSpec, NodeSpec, PeerLoss, Role, Timing, VOTERS_MAX,
};
use vip_lease::gate::GateRule;

use super::{
    Mutant,
    clock::nanos,
    groups::{self, Version},
    names::Names,
    rng::Rng,
};

/// The clock rate error that the margin of 0.8 (rule 4) allows with a little to spare:
/// (1 − 0.1) / (1 + 0.1) = 0.818.
const PPM_MAX: u64 = 100_000;
/// What chrony and good crystals stay within.
const PPM_USUAL: u64 = 500;
/// Beyond any margin: (1 − 0.25) / (1 + 0.25) = 0.6.
const PPM_BEYOND: i64 = 250_000;
/// How long a datagram takes in a calm world: a LAN with a busy host at each end.
const CALM_DELAY: Duration = Duration::from_micros(200);
/// The most groups of a plan.
const GROUPS_MAX: u64 = 64;

/// One voter comes or goes from one generation to the next (rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub node: usize,
    /// It comes; else it goes.
    pub added: bool,
}

/// A simulation's parameters.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub names: Names,
    pub nodes: Vec<NodeSpec>,
    pub groups: Vec<GroupSpec>,
    /// The groups' VIPs: at first, and as reloads of each node have them.
    pub versions: Vec<Version>,
    /// How long at most it takes a keeper to handle a notice.
    pub keeper_ns: u64,
    /// By group: has it a `pre_promote` and a `pre_demote`?
    pub hooks: Vec<(bool, bool)>,
    /// How long hooks take, at most.
    pub hook_ns: u64,
    /// How many hooks of a thousand fail.
    pub hooks_fail: u64,
    /// Who comes or goes while the agents are restarted one by one: the first
    /// leads from generation 1 to 2. Another node each.
    pub changes: Vec<Change>,
    /// Pair mode, for two nodes (rule 13).
    pub pair: Option<PeerLoss>,
    /// How long after its start no node stands by itself.
    pub startup_delay: Duration,
    /// By node: T_accept. The same everywhere, except for one mutant.
    pub accept: Vec<Duration>,
    /// T_accept becomes this while the agents are restarted one by one.
    pub accept_later: Option<Duration>,
    pub timing: Timing,
    pub ppm: Vec<i64>,
    /// By sender and receiver: the least delay, in ns.
    pub delay_ns: Vec<Vec<u64>>,
    /// What chance adds to it, at most, in ns.
    pub jitter_ns: u64,
    /// Per mille of packets that are delayed for up to 3·T_accept.
    pub late: u64,
    /// Per mille of packets lost.
    pub loss: u64,
    /// Per mille of packets that arrive twice.
    pub duplicates: u64,
    /// Per million of outputs before which the process is stopped for a while.
    pub stalls: u64,
    /// How often in a thousand times a disk is full.
    pub disk_full: u64,
    /// How long it takes until a record is on disk, at most.
    pub disk_ns: u64,
    /// How often in a thousand crashes of a host its disk is lost with it.
    pub disk_lost: u64,
    /// See [`vip_engine::EPOCH_MARGIN`].
    pub epoch_margin: u64,
    /// The shipped transport seals the datagrams, and drops those for, or from, a
    /// former incarnation; without it the engine has to cope alone.
    pub is_sealed: bool,
    /// The nodes get another key, step by step, each at some restart.
    pub rotates: bool,
    /// Mean time between two blows of fate.
    pub blow_every: Duration,
    /// How long the rough phase lasts.
    pub rough: Duration,
    /// A late timer, at most, in ns.
    pub lateness_ns: u64,
}

impl Plan {
    /// The members of a generation.
    pub fn members(&self, generation: u64) -> Vec<NodeSpec> {
        let mut nodes = self.nodes.clone();
        for (before, Change { node, added }) in (1..).zip(&self.changes) {
            if (generation <= before) == *added {
                nodes[*node].role = Role::Vacant;
            }
        }
        nodes
    }

    /// How long at most the answer to a command takes: it waits for a
    /// `pre_demote`, and for the command's outcome.
    pub fn answer_max(&self) -> Duration {
        let waits = self.hooks.iter().any(|(_, pre_demote)| *pre_demote);
        let hook = if waits { self.longest().accept + Duration::from_secs(1) } else { Duration::ZERO };
        COMMAND_TIMEOUT + hook
    }

    /// What the groups' hooks ask of their gates.
    pub fn gate_rules(&self) -> ByGroup<GateRule> {
        let accept = self.longest().accept;
        let rule = |(group, &(pre_promote, pre_demote)): (usize, &(bool, bool))| GateRule {
            name: group.to_string().into(),
            pre_promote,
            retry_after: accept * 2,
            pre_demote: pre_demote.then_some(accept),
            ..GateRule::default()
        };
        self.hooks.iter().enumerate().map(rule).collect()
    }

    /// The times that follow from the longest T_accept.
    pub fn longest(&self) -> Timing {
        self.accept_later.map_or(self.timing, |later| Timing::new(later.max(self.timing.accept)))
    }

    /// The generation that the changes lead to.
    pub fn last_generation(&self) -> u64 {
        (1..).zip(&self.changes).last().map_or(1, |(before, _)| before + 1)
    }

    /// A cluster in which nothing happens by chance: exact clocks, a network
    /// of [`CALM_DELAY`], timers on time.
    pub fn calm(names: Names, nodes: Vec<NodeSpec>, groups: Vec<GroupSpec>, accept: Duration) -> Self {
        let count = nodes.len();
        Self {
            names,
            nodes,
            versions: vec![(1..).take(groups.len()).map(|vip| vec![vip]).collect()],
            keeper_ns: 0,
            hooks: vec![(false, false); groups.len()],
            hook_ns: 0,
            hooks_fail: 0,
            groups,
            changes: Vec::new(),
            pair: None,
            startup_delay: Duration::ZERO,
            accept: vec![accept; count],
            accept_later: None,
            timing: Timing::new(accept),
            ppm: vec![0; count],
            delay_ns: vec![vec![nanos(CALM_DELAY); count]; count],
            jitter_ns: 0,
            late: 0,
            loss: 0,
            duplicates: 0,
            stalls: 0,
            disk_full: 0,
            disk_ns: 0,
            disk_lost: 0,
            epoch_margin: EPOCH_MARGIN,
            is_sealed: true,
            rotates: false,
            blow_every: Duration::ZERO,
            rough: Duration::ZERO,
            lateness_ns: 0,
        }
    }

    /// What a seed decides.
    pub fn new(rng: &mut Rng, mutant: Mutant) -> Self {
        let count = rng.pick(&[2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, VOTERS_MAX]);
        // Up to 1 of 3 or 4, 2 of 5 or 6, 3 of 7.
        let witnesses = if count > 2 && rng.chance(400) { 1 + rng.index((count - 1) / 2) } else { 0 };
        let mut nodes = vec![NodeSpec { role: Role::Node }; count];
        for _ in 0..witnesses {
            nodes[rng.index(count)].role = Role::Witness;
        }
        // A pair has two nodes and nothing else; other clusters may have an observer.
        let pair = if count == 2 && witnesses == 0 {
            rng.pick(&[None, Some(PeerLoss::Take), Some(PeerLoss::Hold)])
        } else {
            None
        };
        let changes = if count > 2 && (rng.chance(250) || mutant == Mutant::HastySteps) {
            Self::some_changes(rng, &nodes)
        } else {
            Vec::new()
        };
        let observers = usize::from(rng.chance(100));
        nodes.extend(vec![NodeSpec { role: Role::Observer }; observers]);
        let count = nodes.len();
        let accept = Duration::from_millis(rng.pick(&[20, 50, 100, 200, 200, 200, 500, 1000, 1000, 1000]));
        // Many groups make a schedule long; a few of those will do.
        let groups = match rng.below(100) {
            0..90 => rng.between(1, 4),
            90..98 => rng.between(5, 16),
            _ => rng.between(17, GROUPS_MAX),
        };
        let groups: Vec<_> = (0..groups)
            .map(|_| GroupSpec {
                priorities: (0..count).map(|_| rng.pick(&[50, 100, 100, 150])).collect(),
                preempt: if rng.chance(200) { Some(accept * 2) } else { None },
            })
            .collect();
        let timing = Timing::new(accept);
        let wild = rng.chance(250);
        let ppm = (0..count).map(|_| {
            let most = if wild { PPM_MAX } else { PPM_USUAL };
            let size = i64::try_from(rng.between(0, most)).unwrap_or(0);
            if mutant == Mutant::ClockRate {
                rng.pick(&[-PPM_BEYOND, PPM_BEYOND])
            } else {
                rng.pick(&[size, -size])
            }
        });
        let ppm = ppm.collect();
        // A round trip stays below r/2, so that what remains is for chance.
        let delay_max = nanos(timing.renew) / rng.pick(&[8, 16, 64, 64, 128]);
        let delay_ns =
            (0..count).map(|_| (0..count).map(|_| rng.between(10_000, delay_max)).collect()).collect();
        let shorter = |node| mutant == Mutant::ShortAcceptor && node % 2 == 0;
        let accepts = (0..count).map(|node| if shorter(node) { accept / 2 } else { accept });
        // Half of it leaves a round trip in r/2 still.
        let later = matches!(mutant, Mutant::VotesUnrecorded | Mutant::MixedLeases);
        let accept_later =
            (rng.chance(100) || later).then(|| rng.pick(&[accept * 5, accept * 2, accept / 2]));
        let accept_later = accept_later.filter(|later| *later >= Duration::from_millis(50));
        // A pair that can't hear each other may have two.
        let rotates = mutant == Mutant::HastyKeys && pair.is_none();
        let is_sealed = rotates || rng.chance(500);
        let reloads = if is_sealed && rng.chance(250) { rng.between(1, 3) } else { 0 };
        let versions = groups::some_versions(rng, groups.len(), reloads);
        let has_hooks = rng.chance(250);
        let hooks = groups.iter().map(|_| (has_hooks && rng.chance(700), has_hooks && rng.chance(500)));
        let hooks = hooks.collect();
        let blow_every = accept.mul_f64(rng.pick(&[0.3, 1.0, 1.0, 3.0]));
        Self {
            names: Names::default(),
            accept: accepts.collect(),
            accept_later,
            nodes,
            versions,
            keeper_ns: rng.pick(&[0, 1_000_000, nanos(accept * 2)]),
            hooks,
            hook_ns: rng.pick(&[0, nanos(accept / 4), nanos(accept * 3)]),
            hooks_fail: rng.pick(&[0, 50, 300]),
            groups,
            changes,
            pair,
            startup_delay: if rng.chance(100) { accept * 3 } else { Duration::ZERO },
            timing,
            ppm,
            delay_ns,
            jitter_ns: rng.pick(&[0, delay_max / 4, delay_max, delay_max * 4, nanos(timing.renew)]),
            late: rng.pick(&[0, 0, 5, 50, 200]),
            loss: rng.pick(&[0, 0, 10, 100, 300]),
            duplicates: rng.pick(&[0, 20, 200]),
            stalls: rng.pick(&[0, 0, 200, 3000]),
            disk_full: rng.pick(&[0, 20, 200]),
            disk_ns: rng.pick(&[1_000_000, nanos(accept / 4), nanos(accept * 4)]),
            disk_lost: rng.pick(&[0, 0, 0, 200]),
            epoch_margin: rng.pick(&[2, 8, EPOCH_MARGIN]),
            is_sealed,
            rotates: is_sealed && (rotates || rng.chance(300)),
            blow_every,
            rough: accept * 10 + blow_every * 10,
            lateness_ns: rng.pick(&[0, 50_000, 1_000_000]),
        }
    }

    /// One or two; somebody must be able to hold without them, too.
    fn some_changes(rng: &mut Rng, nodes: &[NodeSpec]) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..rng.between(1, 2) {
            let change = Change { node: rng.index(nodes.len()), added: rng.chance(500) };
            let stays = |node| node != change.node && changes.iter().all(|other| other.node != node);
            let mut others = nodes.iter().enumerate().filter(|(node, _)| stays(*node));
            let is_new = changes.iter().all(|other| other.node != change.node);
            if is_new && others.any(|(_, spec)| spec.role == Role::Node) {
                changes.push(change);
            }
        }
        changes
    }
}
