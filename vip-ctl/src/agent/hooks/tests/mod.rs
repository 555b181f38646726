//! The thread with real processes: order, limits, and who is told what.

mod cluster;

use std::{
    path::Path,
    sync::{Mutex, mpsc::channel},
};

use vip_lease::{RUNS_MAX, gate::Grant};

use super::*;
use crate::engine::{Epoch, GroupState, Reason};

const TEXT: &str = r#"
node = { name = "db-a", interface = "eth0" }
cluster = { name = "one", key_file = "k", node = [{ name = "db-a", address = "10.0.0.1:7077" }] }
group = [
  { name = "a", vips = ["10.0.0.8", "10.0.0.9"], priority = { db-a = 150 } },
  { name = "b", vips = ["10.0.0.10"] },
]
"#;

/// What the hooks thread tells the lease loop.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Ticket, bool)>>>);

impl Report for Told {
    fn ended(&self, _: Hook, ticket: Ticket, well: bool) {
        self.0.lock().unwrap().push((ticket, well));
    }
}

struct Rig {
    asks: Sender<RunnerAsk>,
    told: Told,
    events: Events,
    thread: thread::JoinHandle<()>,
}

impl Rig {
    /// With these hooks, each `sh -c script sh`, on both groups.
    fn new(hooks: &[(Hook, &str)], timeout: &str) -> Self {
        let mut text = format!("{TEXT}\n[hooks]\ntimeout = \"{timeout}\"\n");
        for (hook, script) in hooks {
            text += &format!("{hook} = [\"/bin/sh\", \"-c\", '''{script}''', \"sh\"]\n");
        }
        let config = Config::parse(&text, Path::new("vip.toml"), "db-a").unwrap();
        let (asks, receiver) = channel();
        let (told, events) = (Told::default(), Events::new("db-a", None));
        let runner = Runner::new(&config, events.clone(), told.clone(), asks.clone());
        let thread = thread::spawn(move || runner.run(&receiver));
        Self { asks, told, events, thread }
    }

    fn turned(&self, group: u16, grant: Option<u64>, promoting: Option<u64>) {
        let turned = turned(["a", "b"][usize::from(group)], grant, promoting);
        self.asks.send(RunnerAsk::Lease(HookAsk::Turned(turned))).unwrap();
    }

    /// Begins a planned move away from this grant.
    fn leave(&self, group: u16, grant: u64, ticket: u64) {
        let order = order(["a", "b"][usize::from(group)], Hook::PreDemote, grant, Some(ticket));
        self.asks.send(RunnerAsk::Lease(HookAsk::Run(order))).unwrap();
    }

    /// Waits until all hooks have ended; returns what was told.
    fn finish(self) -> (Vec<HookRun>, Vec<(Ticket, bool)>) {
        self.asks.send(RunnerAsk::Close).unwrap();
        self.thread.join().unwrap();
        let run = |event: &Arc<Event>| {
            let Kind::Hook(run) = &event.kind else { panic!("{event:?}") };
            run.clone()
        };
        let runs = self.events.recent().iter().map(run).collect();
        let told = self.told.0.lock().unwrap().clone();
        (runs, told)
    }
}

/// This node has this grant, and its fence is kept shut for the ticket that it
/// names; or it has none.
fn turned(group: &str, grant: Option<u64>, promoting: Option<u64>) -> Turned {
    Turned {
        group: group.into(),
        state: if grant.is_some() { GroupState::Active } else { GroupState::Standby },
        grant: grant.map(Grant),
        promoting: promoting.is_some(),
        pre_promote: promoting.map(Ticket),
        epoch: Epoch(7),
        reason: Reason::Elected,
        holder: grant.map(|_| NodeId(0)),
    }
}

fn order(group: &str, hook: Hook, grant: u64, ticket: Option<u64>) -> HookOrder {
    HookOrder {
        group: group.into(),
        hook,
        ticket: ticket.map(Ticket),
        state: "active".into(),
        grant: Grant(grant),
        epoch: 7,
        reason: "asked_for".into(),
        holder: Some(NodeId(0)),
    }
}

#[test]
fn a_hook_is_given_what_a_notify_script_is_given_and_more() {
    // Only the variables that the hook is given: the agent's own environment has others.
    let script = "echo $@; env | grep -E '^VIP_(EPOCH|GROUP|HOLDER|HOOK|NODE|REASON|STATE|VIPS)=' | sort";
    let rig = Rig::new(&[(Hook::PrePromote, script)], "10s");
    rig.turned(0, Some(1), Some(1));
    let (runs, told) = rig.finish();
    assert_eq!(told, [(Ticket(1), true)]);
    assert_eq!(
        runs[0].output,
        [
            "INSTANCE a MASTER 150",
            "VIP_EPOCH=7",
            "VIP_GROUP=a",
            "VIP_HOLDER=db-a",
            "VIP_HOOK=pre_promote",
            "VIP_NODE=db-a",
            "VIP_REASON=elected",
            "VIP_STATE=promoting",
            "VIP_VIPS=10.0.0.8 10.0.0.9",
        ]
    );
}

#[test]
fn hooks_of_one_group_run_one_after_the_other_in_order() {
    let file = std::env::temp_dir().join(format!("vip-hooks-order-{}", std::process::id()));
    let script =
        format!("echo $VIP_GROUP begin >> {0}; sleep 0.2; echo $VIP_GROUP end >> {0}", file.display());
    let rig = Rig::new(&[(Hook::PostPromote, &script), (Hook::PostDemote, &script)], "10s");
    for group in [0, 1] {
        rig.turned(group, Some(1), None);
        rig.turned(group, None, None);
    }
    // Nobody waits for a hook that does not exist.
    rig.turned(0, Some(2), Some(5));
    let (runs, told) = rig.finish();
    assert_eq!(told, [(Ticket(5), true)]);
    assert_eq!(runs.len(), 4);
    let text = std::fs::read_to_string(&file).unwrap();
    for group in ["a", "b"] {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(group)).collect();
        assert_eq!(lines, [" begin", " end", " begin", " end"]);
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_hook_that_fails_or_hangs_is_told_to_whom_waits_for_it() {
    let script = "if [ $VIP_GROUP = a ]; then echo no; exit 3; else sleep 1000; fi";
    let rig = Rig::new(&[(Hook::PrePromote, script)], "200ms");
    rig.turned(0, Some(1), Some(1));
    rig.turned(1, Some(2), Some(2));
    let (mut runs, mut told) = rig.finish();
    told.sort_unstable();
    assert_eq!(told, [(Ticket(1), false), (Ticket(2), false)]);
    runs.sort_by_key(|run| run.exit);
    assert_eq!((runs[0].outcome, runs[0].exit), (HookOutcome::TimedOut, None));
    assert_eq!(
        (runs[1].outcome, runs[1].exit, runs[1].output[0].as_str()),
        (HookOutcome::Failed, Some(3), "no")
    );
}

#[test]
fn a_run_whose_lease_is_lost_is_killed_and_one_that_waits_is_not_begun() {
    let rig = Rig::new(&[(Hook::PrePromote, "sleep 1000")], "60s");
    rig.turned(0, Some(1), Some(1));
    rig.turned(0, Some(2), Some(2));
    for ticket in [2, 1] {
        rig.asks.send(RunnerAsk::Lease(HookAsk::Cancel(Ticket(ticket)))).unwrap();
    }
    let (runs, told) = rig.finish();
    assert_eq!(runs.iter().map(|run| run.outcome).collect::<Vec<_>>(), [HookOutcome::Cancelled]);
    assert_eq!(told, [(Ticket(1), false)]);
}

#[test]
fn who_waits_for_a_hook_is_not_kept_by_those_that_nobody_waits_for() {
    let groups: Vec<_> =
        (0..RUNS_MAX + 3).map(|n| format!("{{ name = \"g{n}\", vips = [\"10.1.0.{n}\"] }}")).collect();
    let text = format!(
        "node = {{ name = \"db-a\", interface = \"eth0\" }}\n\
         cluster = {{ name = \"one\", key_file = \"k\", node = [{{ name = \"db-a\", address = \"10.0.0.1:7077\" }}] }}\n\
         group = [{}]\n[hooks]\npost_promote = [\"/bin/sleep\"]\npre_promote = [\"/bin/true\"]\npre_demote = [\"/bin/true\"]\n",
        groups.join(", ")
    );
    let config = Config::parse(&text, Path::new("vip.toml"), "db-a").unwrap();
    let (asks, _receiver) = channel();
    let mut runner = Runner::new(&config, Events::new("db-a", None), Told::default(), asks);
    for group in 0..=RUNS_MAX {
        runner.turned(&turned(&format!("g{group}"), Some(1), None));
    }
    runner.turned(&turned(&format!("g{}", RUNS_MAX + 1), Some(1), Some(1)));
    let leaver = format!("g{}", RUNS_MAX + 2);
    runner.turned(&Turned { reason: Reason::Adopted, ..turned(&leaver, Some(1), None) });
    runner.add(order(&leaver, Hook::PreDemote, 1, Some(2)));
    runner.start_next();
    assert_eq!(runner.running.len(), RUNS_MAX + 2);
    let waited_for: Vec<_> = runner.running.iter().filter_map(|run| run.order.ticket).collect();
    assert_eq!(waited_for, [Ticket(1), Ticket(2)]);
    assert!(runner.sequencer.next().is_none(), "the last one waits for a place");
}

#[test]
fn what_a_reload_has_taken_away_keeps_nobody_waiting() {
    let rig = Rig::new(&[(Hook::PreDemote, "sleep 0.5")], "10s");
    rig.turned(0, Some(1), None);
    rig.leave(0, 1, 1);
    rig.leave(0, 1, 2);
    let without = Config::parse(TEXT, Path::new("vip.toml"), "db-a").unwrap();
    rig.asks.send(RunnerAsk::Reload(Box::new(without))).unwrap();
    let (runs, told) = rig.finish();
    assert_eq!(told, [(Ticket(1), true), (Ticket(2), true)]);
    assert_eq!(runs.len(), 1);
}

#[test]
fn a_run_that_comes_too_late_is_not_begun_and_one_that_has_begun_goes_on() {
    let rig = Rig::new(&[(Hook::PreDemote, "sleep 0.5")], "10s");
    rig.turned(0, Some(1), None);
    rig.leave(0, 1, 1);
    rig.leave(0, 1, 2);
    for ticket in [1, 2] {
        rig.asks.send(RunnerAsk::Lease(HookAsk::Forget(Ticket(ticket)))).unwrap();
    }
    let (mut runs, told) = rig.finish();
    assert_eq!(told, [(Ticket(2), false), (Ticket(1), true)]);
    runs.sort_by_key(|run| run.duration_ms);
    assert_eq!(
        runs.iter().map(|run| run.outcome).collect::<Vec<_>>(),
        [HookOutcome::NotStarted, HookOutcome::Done]
    );
}
