//! A test with three nodes, each with the shipped core of the lease loop and the
//! hooks' sequencer. Hooks start and stop a service, take their time, fail and
//! hang, while messages are lost, agents stand still or are killed, and people
//! move the group. The clock jumps.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fastrand::Rng;
use vip_common::{BootNs, GroupMode, Lease, fence_open, lease::LEASE_NS_MAX};
use vip_lease::{
    Core, Eligible, Hook, HookAsk, HookOrder, Io, LeaseNotice, Parts,
    gate::{GateRule, Gates, Grant, Ticket},
    transport::{Identity, KeyId, KeyRing, Psk, Transport},
};

use crate::{
    agent::hooks::sequence::{Sequencer, Skipped},
    engine::{
        Command, Completed, Engine, EngineConfig, GroupId, GroupSpec, GroupState, Incarnation, Label,
        LabelSpec, Labels, NodeId, NodeSpec, Packet, Refusal, Role, StaleClient,
    },
};

const SEEDS: u64 = 24;
const DB: GroupId = GroupId(0);
const ACCEPT: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_secs(4);
/// How long the trouble lasts, and how long all is well before the check.
const ROUGH: Duration = Duration::from_secs(90);
const CALM: Duration = Duration::from_secs(40);

/// What a core wants done in the world.
enum Act {
    Store(Lease),
    Send(NodeId, Packet),
    Tell(LeaseNotice),
    Hook(HookAsk),
}

/// Collects what a core wants done.
struct Hands {
    now: BootNs,
    acts: VecDeque<Act>,
}

impl Io for Hands {
    type Reply = ();

    fn now(&self) -> BootNs {
        self.now
    }

    fn store(&mut self, _group: GroupId, lease: Lease) {
        self.acts.push_back(Act::Store(lease));
    }

    fn says(&mut self, to: NodeId, packet: &Packet) {
        self.acts.push_back(Act::Send(to, packet.clone()));
    }

    // Packets go as they are, without a seal.
    fn send(&mut self, _to: NodeId, _datagram: Vec<u8>) {}

    fn flush(&mut self) {}

    fn takeover(&mut self, _group: GroupId) {}

    fn announce_all(&mut self) {}

    fn correct(&mut self, _client: StaleClient) {}

    fn tell(&mut self, notice: LeaseNotice) {
        self.acts.push_back(Act::Tell(notice));
    }

    fn hook(&mut self, ask: HookAsk) {
        self.acts.push_back(Act::Hook(ask));
    }

    fn reply(&mut self, (): (), _outcome: Result<Completed, Refusal>) {}
}

struct Run {
    order: HookOrder,
    until: BootNs,
    well: bool,
}

/// A node: its agent, and what outlives that.
struct Host {
    id: NodeId,
    core: Core<Hands>,
    sequencer: Sequencer,
    running: BTreeMap<u64, Run>,
    /// Its agent stands still until then.
    stopped_until: BootNs,
    mail: VecDeque<(NodeId, Packet)>,
    has: BTreeSet<Hook>,
    /// The lease word in the kernel's map.
    map: Lease,
    /// Does the service run?
    serves: bool,
    /// Did its history say that it had the lease?
    was_up: bool,
    /// The latest grant whose hooks ran, and the grants whose `post_demote` is
    /// still owed.
    latest: Grant,
    owed: BTreeSet<Grant>,
}

struct World {
    rng: Rng,
    now: BootNs,
    seed: u64,
    hosts: Vec<Host>,
    in_flight: BTreeMap<(BootNs, u64), (NodeId, NodeId, Packet)>,
    numbered: u64,
    /// Messages per thousand that are lost.
    loss: u32,
    is_rough: bool,
    failed: usize,
    grants: usize,
}

impl Host {
    fn agent(
        id: NodeId,
        has: &BTreeSet<Hook>,
        held: &[(GroupId, BootNs)],
        number: u64,
        now: BootNs,
    ) -> Core<Hands> {
        let nodes = vec![NodeSpec { role: Role::Node }; 3];
        let config = EngineConfig::new(id, Incarnation(number), nodes, vec![GroupSpec::default()], ACCEPT);
        let rule = GateRule {
            name: "db".into(),
            pre_promote: has.contains(&Hook::PrePromote),
            ignore_failure: false,
            retry_after: RETRY_AFTER,
            pre_demote: has.contains(&Hook::PreDemote).then_some(Duration::from_secs(2)),
        };
        let identity = Identity {
            me: id.0,
            incarnation: number,
            cluster: "shop".into(),
            config_digest: 1,
            generation: 1,
            nodes_digest: 1,
            is_member: true,
            peers: Vec::new(),
        };
        let keys = KeyRing::new((KeyId(1), Psk::new([1; 32])), None).expect("one key");
        let parts = Parts {
            labels: Labels::new(&config, &[LabelSpec::only(Label(0))], 0, now),
            engine: Engine::new(config, held, now),
            uncovered: Vec::new(),
            mute: Vec::new(),
            transport: Transport::new(identity, keys, [1; 32]),
            gates: Gates::new(vec![rule].into(), held),
            me: id,
        };
        Core::new(parts, Hands { now, acts: VecDeque::new() })
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            now: BootNs(1_000_000_000),
            seed,
            hosts: Vec::new(),
            in_flight: BTreeMap::new(),
            numbered: 0,
            loss: 10,
            is_rough: true,
            failed: 0,
            grants: 0,
        };
        for id in (0..3).map(NodeId) {
            // A service that a hook starts needs a hook that stops it.
            let mut has: BTreeSet<_> = [Hook::PrePromote, Hook::PostPromote, Hook::PostDemote].into();
            has.extend([Hook::PreDemote, Hook::OnFault].into_iter().filter(|_| world.rng.bool()));
            let core = Host::agent(id, &has, &[], u64::from(id.0), world.now);
            world.hosts.push(Host {
                id,
                core,
                sequencer: Sequencer::default(),
                running: BTreeMap::new(),
                stopped_until: BootNs(0),
                mail: VecDeque::new(),
                has,
                map: Lease::NONE,
                serves: false,
                was_up: false,
                latest: Grant::FOUND,
                owed: BTreeSet::new(),
            });
            world.eligible(usize::from(id.0), Eligible::Yes);
        }
        world
    }

    /// Kills the agent; its next process goes on with the lease in the map.
    fn restart(&mut self, host: usize) {
        self.numbered += 1;
        let (number, now) = (1_000 + self.numbered, self.now);
        let host_now = &mut self.hosts[host];
        let held: Vec<_> =
            host_now.map.expiry().filter(|until| *until > now).map(|at| (DB, at)).into_iter().collect();
        host_now.core = Host::agent(host_now.id, &host_now.has, &held, number, now);
        host_now.mail.clear();
        host_now.sequencer = Sequencer::default();
        // The agent's processes end with it, as under systemd.
        host_now.running.clear();
        (host_now.latest, host_now.owed) = (Grant::FOUND, BTreeSet::new());
        if host_now.was_up {
            host_now.sequencer.was_up("db", 0);
            host_now.owed.insert(Grant::FOUND);
        }
        self.eligible(host, Eligible::Yes);
    }

    // What the core says is done.

    /// Lets a host's core do something now, and does what follows.
    fn with(&mut self, host: usize, act: impl FnOnce(&mut Core<Hands>)) {
        let core = &mut self.hosts[host].core;
        core.io.now = self.now;
        act(core);
        while let Some(act) = self.hosts[host].core.io.acts.pop_front() {
            self.act(host, act);
        }
    }

    fn act(&mut self, host: usize, act: Act) {
        match act {
            Act::Store(lease) => {
                self.hosts[host].map = lease;
                self.check();
            }
            Act::Send(to, packet) => {
                if self.rng.u32(0..1000) >= self.loss {
                    self.numbered += 1;
                    let at = self.now.plus(Duration::from_micros(self.rng.u64(100..3_000)));
                    self.in_flight.insert((at, self.numbered), (self.hosts[host].id, to, packet));
                }
            }
            Act::Tell(LeaseNotice::Changed { transition, promoting, .. })
                if transition.state == GroupState::Active =>
            {
                self.hosts[host].was_up = true;
                self.grants += usize::from(!promoting);
            }
            Act::Tell(LeaseNotice::Changed { .. }) => self.hosts[host].was_up = false,
            Act::Tell(_) => {}
            Act::Hook(HookAsk::Turned(turned)) => {
                let at = &mut self.hosts[host];
                let skipped = at.sequencer.turned(&turned, |hook| at.has.contains(&hook));
                self.skip(host, skipped);
            }
            Act::Hook(HookAsk::Run(order)) => {
                let at = &mut self.hosts[host];
                let skipped = at.sequencer.add(order, |hook| at.has.contains(&hook));
                self.skip(host, skipped);
            }
            Act::Hook(HookAsk::Cancel(ticket)) => self.cancel(host, ticket),
            Act::Hook(HookAsk::Forget(ticket)) => {
                if let Some(order) = self.hosts[host].sequencer.remove_waiting(ticket) {
                    self.skip(host, vec![Skipped { order, why: Some("late") }]);
                }
            }
        }
    }

    /// At most one fence is open, and that of a promoting node is shut.
    fn check(&self) {
        let now = self.now;
        let is_open = |host: &&Host| fence_open(GroupMode::Cluster, host.map, LEASE_NS_MAX, now);
        let open: Vec<_> = self.hosts.iter().filter(is_open).map(|host| host.id).collect();
        assert!(open.len() <= 1, "seed {}: {open:?}", self.seed);
        let is_early = |host: &Host| is_open(&host) && host.core.gates.is_promoting(DB);
        assert!(!self.hosts.iter().any(is_early), "seed {}: open while promoting", self.seed);
    }

    fn cancel(&mut self, host: usize, ticket: Ticket) {
        let by = self.now.plus(Duration::from_millis(self.rng.u64(1..1_100)));
        self.hosts[host].sequencer.remove_waiting(ticket);
        for run in self.hosts[host].running.values_mut().filter(|run| run.order.ticket == Some(ticket)) {
            (run.until, run.well) = (run.until.min(by), false);
        }
    }

    fn skip(&mut self, host: usize, skipped: Vec<Skipped>) {
        for Skipped { order, why } in skipped {
            if let Some(ticket) = order.ticket {
                self.hook_ended(host, order.hook, ticket, why.is_none());
            }
        }
    }

    fn hook_ended(&mut self, host: usize, hook: Hook, ticket: Ticket, well: bool) {
        let barred = |world: &Self| world.hosts[host].core.gates.barred().len();
        let before = barred(self);
        self.with(host, |core| core.hook_ended(hook, ticket, well));
        self.failed += usize::from(barred(self) > before);
    }

    fn eligible(&mut self, host: usize, word: Eligible) {
        self.with(host, |core| core.eligible(DB, word));
    }

    fn command(&mut self, host: usize, command: Command) {
        self.with(host, |core| core.command(command, 0, ()));
    }

    // What hooks do.

    fn begin_hooks(&mut self, host: usize) {
        while let Some((number, order)) = self.hosts[host].sequencer.next() {
            let ms = if self.is_rough { self.rng.u64(0..1_500) } else { self.rng.u64(0..50) };
            let (hangs, fails) = (self.rng.u8(0..16) == 0, self.rng.u8(0..6) == 0);
            let takes = if self.is_rough && hangs { LIMIT } else { Duration::from_millis(ms) };
            let well = !self.is_rough || !hangs && !fails;
            let now = self.now;
            let at = &mut self.hosts[host];
            assert!(at.running.is_empty(), "seed {}: two hooks at once", self.seed);
            if order.hook != Hook::OnFault {
                assert!(order.grant >= at.latest, "seed {}: {order:?} after {:?}", self.seed, at.latest);
                at.latest = order.grant;
            }
            match order.hook {
                Hook::PrePromote => {
                    assert!(at.owed.is_empty(), "seed {}: {:?} have not ended", self.seed, at.owed);
                    at.owed.insert(order.grant);
                }
                Hook::PostDemote => assert!(at.owed.remove(&order.grant), "seed {}: {order:?}", self.seed),
                Hook::PostPromote | Hook::PreDemote | Hook::OnFault => {}
            }
            at.running.insert(number, Run { order, until: now.plus(takes), well });
        }
    }

    fn end_hooks(&mut self, host: usize) {
        let now = self.now;
        let over = self.hosts[host].running.iter().filter(|(_, run)| run.until <= now).map(|(n, _)| *n);
        for number in over.collect::<Vec<_>>() {
            let at = &mut self.hosts[host];
            let Some(run) = at.running.remove(&number) else { continue };
            match run.order.hook {
                // It may have started the service before it ended.
                Hook::PrePromote | Hook::PostPromote => at.serves = true,
                Hook::PreDemote | Hook::PostDemote => at.serves = false,
                Hook::OnFault => {}
            }
            at.sequencer.ended(number);
            if let Some(ticket) = run.order.ticket {
                self.hook_ended(host, run.order.hook, ticket, run.well);
            }
        }
    }

    // Time.

    /// Lets a node do what is due.
    fn turn(&mut self, host: usize) {
        if self.hosts[host].stopped_until > self.now {
            return;
        }
        self.with(host, Core::begin_turn);
        while let Some((from, packet)) = self.hosts[host].mail.pop_front() {
            self.with(host, |core| core.message(from, packet));
        }
        self.with(host, |core| core.judge(true));
        self.end_hooks(host);
        self.begin_hooks(host);
    }

    fn next_at(&self, host: &Host) -> Option<BootNs> {
        let hooks = host.running.values().map(|run| run.until).min();
        let own = [host.core.next_deadline(), hooks];
        own.into_iter().flatten().min().map(|at| at.max(host.stopped_until))
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        let mut next_order = self.now;
        while self.now < end {
            let message = self.in_flight.first_key_value().map(|((at, _), _)| *at);
            let own = self.hosts.iter().filter_map(|host| self.next_at(host)).min();
            let due = [message, own, self.is_rough.then_some(next_order), Some(end)];
            self.now = due.into_iter().flatten().min().unwrap_or(end).max(self.now);
            self.check();
            while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, packet) = entry.remove();
                self.hosts[usize::from(to.0)].mail.push_back((from, packet));
            }
            if self.is_rough && next_order <= self.now {
                next_order = self.now.plus(Duration::from_millis(self.rng.u64(0..4_000)));
                self.any();
            }
            for host in 0..self.hosts.len() {
                self.turn(host);
            }
        }
    }

    /// An event, or a command of a person.
    fn any(&mut self) {
        let host = self.rng.usize(0..3);
        let (node, on) = (NodeId(self.rng.u8(0..3)), self.rng.bool());
        if self.hosts[host].stopped_until > self.now {
            return;
        }
        match self.rng.u8(0..12) {
            0..=3 => self.command(host, Command::Switchover { group: DB, to: Some(node) }),
            4 => self.command(host, Command::Promote { group: DB, to: node }),
            5 => self.command(host, Command::Standby { node, on, force: false }),
            6 => self.command(host, Command::Pause { on }),
            7 => self.restart(host),
            8 | 9 => {
                let still = Duration::from_millis(self.rng.u64(0..2_500));
                self.hosts[host].stopped_until = self.now.plus(still);
            }
            10 => self.eligible(host, [Eligible::Yes, Eligible::No, Eligible::Unwell][usize::from(node.0)]),
            _ => self.loss = self.rng.u32(0..200),
        }
    }

    /// Ends all trouble.
    fn heal(&mut self) {
        (self.is_rough, self.loss) = (false, 0);
        self.run(Duration::from_secs(5));
        for host in 0..self.hosts.len() {
            self.hosts[host].stopped_until = BootNs(0);
            self.eligible(host, Eligible::Yes);
            let node = self.hosts[host].id;
            self.command(host, Command::Standby { node, on: false, force: false });
        }
        self.command(0, Command::Pause { on: false });
        self.run(CALM);
    }
}

#[test]
fn whatever_hooks_do_one_node_ends_with_an_open_fence_and_a_service_that_runs() {
    let (mut failed, mut grants) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run(ROUGH);
        world.heal();
        let now = world.now;
        let open: Vec<_> = world
            .hosts
            .iter()
            .filter(|host| fence_open(GroupMode::Cluster, host.map, LEASE_NS_MAX, now))
            .map(|host| host.id)
            .collect();
        let serve: Vec<_> = world.hosts.iter().filter(|host| host.serves).map(|host| host.id).collect();
        let told = || {
            let states =
                world.hosts.iter().map(|host| host.core.engine.status(now).groups[GroupId(0)].clone());
            states.collect::<Vec<_>>()
        };
        assert_eq!(open.len(), 1, "seed {seed}: nobody serves: {:#?}", told());
        assert_eq!(serve, open, "seed {seed}: the service is elsewhere: {:#?}", told());
        assert!(world.hosts.iter().all(|host| host.sequencer.is_idle()), "seed {seed}");
        failed += world.failed;
        grants += world.grants;
    }
    // The test must have met hard cases, not easy days alone.
    assert!(failed > 20 && grants > 150, "{failed} failed of {grants}");
}
