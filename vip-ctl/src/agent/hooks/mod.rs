//! The thread "hooks": runs the hooks that the [`sequence`] of each group gives
//! it, a few at a time in all, each on a thread of its own, so that even a disk
//! that hangs under a program holds up only that run. [`webhook`] posts to
//! webhooks.

mod run;
mod sequence;
mod webhook;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use tracing::{info, warn};
use vip_common::BootNs;
use vip_lease::{
    Hook, HookAsk, HookOrder, Turned,
    gate::{GateRule, Ticket},
};

use self::{
    run::Task,
    sequence::{Sequencer, Skipped},
    webhook::Webhooks,
};
use super::{
    messages::{Asker, HookEnded, Report, RunnerAsk},
    threads::{ThreadError, spawn},
};
use crate::{
    clock,
    config::{Config, Hooks, hooks::OnFailure},
    engine::{ByGroup, NodeId},
    events::{Change, Event, Events, HookOutcome, HookRun, Kind, history},
    paths::Paths,
};

/// Hooks of one group that may wait; beyond that the oldest are dropped.
const WAITING_MAX: usize = 8;
/// How long after its limit a run may still be ending before the thread gives it
/// up.
const GIVE_UP: Duration = Duration::from_secs(5);
/// How long a stopping agent waits for hooks that run or have to run.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long it then waits until the last changes are posted.
const POST_MAX: Duration = Duration::from_secs(2);
/// How often to check whether anything is overdue.
const OVERDUE_POLL: Duration = Duration::from_millis(500);

/// What this thread knows of a group.
#[derive(Clone, Debug)]
struct Known {
    vips: String,
    priority: u8,
    hooks: Hooks,
}

/// A run under way.
struct Run {
    number: u64,
    order: HookOrder,
    cancel: Arc<AtomicBool>,
    give_up: BootNs,
}

/// The thread's state.
pub struct Runner<R> {
    node: String,
    nodes: BTreeMap<NodeId, String>,
    /// All groups, including those that a reload has removed: they still have
    /// their last hooks.
    groups: BTreeMap<String, Known>,
    events: Events,
    report: R,
    /// A sender to this thread, for the runs.
    own: Sender<RunnerAsk>,
    webhooks: Option<Webhooks>,
    sequencer: Sequencer,
    running: Vec<Run>,
    /// Is a hook running, or waiting for its turn?
    is_at_work: Arc<AtomicBool>,
}

impl<R: Report> Runner<R> {
    /// A runner for the groups of this configuration.
    pub fn new(config: &Config, events: Events, report: R, own: Sender<RunnerAsk>) -> Self {
        let mut runner = Self {
            node: config.node_name.clone(),
            nodes: config.cluster.nodes.iter().map(|node| (NodeId(node.id), node.name.clone())).collect(),
            groups: BTreeMap::new(),
            events,
            report,
            own,
            webhooks: None,
            sequencer: Sequencer::default(),
            running: Vec::new(),
            is_at_work: Arc::default(),
        };
        runner.reload(config);
        runner
    }

    fn reload(&mut self, config: &Config) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.reload(config);
        }
        for group in &config.groups {
            let known = Known {
                vips: group.vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                priority: group.priorities.get(&config.node_name).copied().unwrap_or(0),
                hooks: group.hooks.clone(),
            };
            self.groups.insert(group.name.clone(), known);
        }
    }

    /// Takes from `before`, the history of this node's former agents, which
    /// groups still need a `post_demote`: an agent that ended while it was active
    /// has run none.
    fn was_up(&mut self, before: &[Event]) {
        let mut last: BTreeMap<&str, &Change> = BTreeMap::new();
        for event in before {
            if let (Kind::Changed(change), Some(group)) = (&event.kind, &event.group) {
                last.insert(group, change);
            }
        }
        for (group, change) in last {
            if matches!(change.to.as_str(), "active" | "promoting") {
                self.sequencer.was_up(group, change.epoch);
            }
        }
    }

    /// Runs until it is told to close and all hooks have ended or were given up.
    pub fn run(mut self, asks: &Receiver<RunnerAsk>) {
        let mut close_at: Option<BootNs> = None;
        loop {
            let is_idle = self.sequencer.is_idle();
            if close_at.is_some_and(|at| is_idle || at <= clock::now()) {
                break;
            }
            let wait = close_at.map_or(OVERDUE_POLL, |at| OVERDUE_POLL.min(at.since(clock::now())));
            // Without anything to look after, it need not wake up.
            let ask = if is_idle && close_at.is_none() {
                asks.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                asks.recv_timeout(wait)
            };
            match ask {
                Ok(RunnerAsk::Lease(HookAsk::Turned(turned))) => self.turned(&turned),
                Ok(RunnerAsk::Lease(HookAsk::Run(order))) => self.add(order),
                Ok(RunnerAsk::Lease(HookAsk::Cancel(ticket))) => self.cancel(ticket),
                Ok(RunnerAsk::Lease(HookAsk::Forget(ticket))) => self.forget(ticket),
                Ok(RunnerAsk::Reload(config)) => self.reload(&config),
                Ok(RunnerAsk::Ended(number, ended)) => {
                    if let Some(place) = self.running.iter().position(|run| run.number == number) {
                        self.end(place, ended);
                    }
                }
                Ok(RunnerAsk::Close) => close_at = Some(clock::now().plus(STOP_MAX)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.give_up();
            self.start_next();
            self.is_at_work.store(!self.sequencer.is_idle(), Ordering::Relaxed);
        }
        for run in &self.running {
            run.cancel.store(true, Ordering::Relaxed);
            let hook = run.order.hook;
            warn!(group = &*run.order.group, %hook, "the agent ends, and this hook with it");
        }
        if !self.running.is_empty() {
            // Lets the process groups get their signal before this process goes.
            thread::sleep(Duration::from_millis(1500));
        }
        let Self { webhooks, events, .. } = self;
        drop(events);
        if let Some(webhooks) = webhooks {
            webhooks.finish(POST_MAX);
        }
    }

    fn turned(&mut self, turned: &Turned) {
        let known = self.groups.get(&*turned.group);
        let skipped = self.sequencer.turned(turned, |hook| has(known, hook));
        self.skip(skipped);
    }

    fn add(&mut self, order: HookOrder) {
        let known = self.groups.get(&*order.group);
        let skipped = self.sequencer.add(order, |hook| has(known, hook));
        self.skip(skipped);
    }

    fn skip(&mut self, skipped: Vec<Skipped>) {
        for Skipped { order, why } in skipped {
            match why {
                None => self.report_ended(&order, true),
                Some(why) => self.tell(&order, not_run(why)),
            }
        }
    }

    fn cancel(&mut self, ticket: Ticket) {
        if let Some(run) = self.running.iter().find(|run| run.order.ticket == Some(ticket)) {
            run.cancel.store(true, Ordering::Relaxed);
        }
        // A run that has not begun is dropped without a report.
        let _ = self.sequencer.remove_waiting(ticket);
    }

    fn forget(&mut self, ticket: Ticket) {
        if let Some(late) = self.sequencer.remove_waiting(ticket) {
            self.tell(&late, not_run("the move came before its turn"));
        }
    }

    fn start_next(&mut self) {
        while let Some((number, order)) = self.sequencer.next() {
            self.start(number, order);
        }
    }

    fn start(&mut self, number: u64, order: HookOrder) {
        let Some(task) = self.task(&order) else {
            // A reload has removed the hook meanwhile: nobody has to wait for it.
            self.sequencer.ended(number);
            self.report_ended(&order, true);
            return;
        };
        let limit = task.limit;
        let cancel = Arc::new(AtomicBool::new(false));
        let (own, flag) = (self.own.clone(), Arc::clone(&cancel));
        let body = move || {
            let ended = run::run(&task, &flag);
            // The other end is gone only when the agent has ended.
            let _ = own.send(RunnerAsk::Ended(number, ended));
        };
        match thread::Builder::new().name("hook".into()).spawn(body) {
            Ok(_) => {
                let give_up = clock::now().plus(limit).plus(GIVE_UP);
                self.running.push(Run { number, order, cancel, give_up });
            }
            Err(e) => {
                self.sequencer.ended(number);
                self.tell(&order, not_run(&format!("no thread for it: {e}")));
            }
        }
    }

    /// A run has ended.
    fn end(&mut self, place: usize, ended: HookEnded) {
        let run = self.running.swap_remove(place);
        self.sequencer.ended(run.number);
        self.tell(&run.order, ended);
    }

    /// The command, with the arguments that keepalived's notify scripts get.
    fn task(&self, order: &HookOrder) -> Option<Task> {
        let known = self.groups.get(&*order.group)?;
        let mut command = known.hooks.commands.get(&order.hook)?.clone();
        let holder = order.holder.and_then(|node| self.nodes.get(&node)).cloned().unwrap_or_default();
        let (state, priority) = (notify_state(order), known.priority.to_string());
        command.extend(["INSTANCE", &*order.group, state, &priority].map(str::to_owned));
        let environment = BTreeMap::from([
            ("VIP_GROUP", order.group.to_string()),
            ("VIP_NODE", self.node.clone()),
            ("VIP_STATE", order.state.clone()),
            ("VIP_HOLDER", holder),
            ("VIP_EPOCH", order.epoch.to_string()),
            ("VIP_REASON", order.reason.clone()),
            ("VIP_VIPS", known.vips.clone()),
            ("VIP_HOOK", order.hook.name().to_owned()),
        ]);
        Some(Task { command, environment, limit: known.hooks.limit(order.hook) })
    }

    /// Gives up a run whose thread does not come back, for instance from a disk
    /// that hangs.
    fn give_up(&mut self) {
        let now = clock::now();
        while let Some(place) = self.running.iter().position(|run| run.give_up <= now) {
            let ended =
                HookEnded { outcome: HookOutcome::TimedOut, ..not_run("it hangs, and can't be killed") };
            self.end(place, ended);
        }
    }

    fn report_ended(&self, order: &HookOrder, well: bool) {
        if let Some(ticket) = order.ticket {
            self.report.ended(order.hook, ticket, well);
        }
    }

    /// Reports how a hook has ended, to all who need to know.
    fn tell(&self, order: &HookOrder, ended: HookEnded) {
        let (hook, group) = (order.hook, &*order.group);
        let duration_ms = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX);
        let how = match (ended.outcome, ended.exit) {
            (HookOutcome::Done, _) => "done".to_owned(),
            (HookOutcome::Failed, Some(code)) => format!("failed with exit code {code}"),
            (HookOutcome::Failed, None) => "was killed by a signal".to_owned(),
            (HookOutcome::TimedOut, _) => "took too long and was killed".to_owned(),
            (HookOutcome::Cancelled, _) => "was killed, since the lease is lost".to_owned(),
            (HookOutcome::NotStarted, _) => "could not be started".to_owned(),
        };
        let output = ended.output.join(" | ");
        let colon = if output.is_empty() { "" } else { ": " };
        let message = format!("{hook} {how} after {duration_ms} ms{colon}{output}");
        let HookEnded { outcome, exit, output, .. } = ended;
        let run = HookRun { hook, outcome, exit, duration_ms, output, epoch: order.epoch };
        // Before anything that follows from its end, to keep the order of the history.
        self.events.publish(Some(group), Kind::Hook(run), message.clone());
        self.report_ended(order, outcome == HookOutcome::Done);
        if outcome.is_failure() {
            warn!(group, %hook, exit, duration_ms, "{message}");
        } else {
            info!(group, %hook, exit, duration_ms, "{message}");
        }
    }
}

/// Does this group have such a hook?
fn has(known: Option<&Known>, hook: Hook) -> bool {
    known.is_some_and(|known| known.hooks.commands.contains_key(&hook))
}

fn not_run(why: &str) -> HookEnded {
    HookEnded {
        outcome: HookOutcome::NotStarted,
        exit: None,
        took: Duration::ZERO,
        output: vec![why.to_owned()],
    }
}

/// The state, as keepalived's notify scripts expect it.
fn notify_state(order: &HookOrder) -> &'static str {
    match order.hook {
        Hook::PrePromote | Hook::PostPromote => "MASTER",
        Hook::OnFault => "FAULT",
        Hook::PostDemote if order.state == "fault" => "FAULT",
        Hook::PreDemote | Hook::PostDemote => "BACKUP",
    }
}

/// The threads that report changes to people and run their hooks, as the agent
/// starts them.
pub struct People {
    /// What happens.
    pub events: Events,
    /// Orders for hooks.
    pub hooks: Sender<RunnerAsk>,
    is_at_work: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl People {
    /// Is a hook running, or waiting for its turn?
    #[must_use]
    pub fn has_hooks_at_work(&self) -> bool {
        self.is_at_work.load(Ordering::Relaxed)
    }

    /// Waits, for a limited time, until the last hooks have run and the last
    /// changes are posted.
    pub fn finish(self) {
        let Self { events, hooks, thread, .. } = self;
        drop(events);
        if hooks.send(RunnerAsk::Close).is_ok() {
            // The thread is done, or it panicked, and the process with it.
            let _ = thread.join();
        }
    }
}

/// Starts the threads "hooks" and "history". The lease loop may already have sent
/// orders through `hooks`.
///
/// # Errors
/// [`ThreadError`] if a thread can't be started.
pub fn start(
    config: &Config,
    paths: &Paths,
    report: &Asker,
    hooks: Sender<RunnerAsk>,
    asks: Receiver<RunnerAsk>,
) -> Result<People, ThreadError> {
    let before = history::read(&paths.state_dir).unwrap_or_else(|e| {
        warn!("the history in {} can't be read: {e}", paths.state_dir.display());
        Vec::new()
    });
    let thread = |name: &'static str| move |source| ThreadError { name: name.into(), source };
    let writer = history::start(&paths.state_dir).map_err(thread("history"))?;
    let events = Events::new(&config.node_name, Some(writer));
    let mut runner = Runner::new(config, events.clone(), report.clone(), hooks.clone());
    runner.was_up(&before);
    let webhooks = Webhooks::start(config, &events).map_err(thread("webhook"))?;
    runner.webhooks = Some(webhooks);
    let is_at_work = Arc::clone(&runner.is_at_work);
    let thread = spawn("hooks", move || runner.run(&asks))?;
    Ok(People { events, hooks, is_at_work, thread })
}

/// What the hooks of each group ask of the group's gate.
#[must_use]
pub fn rules(config: &Config) -> ByGroup<GateRule> {
    let rule = |group: &crate::config::Group| {
        let hooks = &group.hooks;
        let has = |hook| hooks.commands.contains_key(&hook);
        GateRule {
            name: group.name.as_str().into(),
            pre_promote: has(Hook::PrePromote),
            ignore_failure: hooks.on_failure == OnFailure::Ignore,
            retry_after: hooks.retry_after,
            pre_demote: has(Hook::PreDemote).then(|| hooks.limit(Hook::PreDemote)),
        }
    };
    config.groups.iter().map(rule).collect()
}

#[cfg(test)]
mod tests;
