//! The steps of the demo: what each one breaks or mends, and what has to be
//! true before the next one may begin. Counting is left to `report`.

use std::time::Duration;

use anyhow::{Context, Result};
use vip_common::BootNs;

use super::live::Live;
use crate::lab::rig::Rig;
use crate::lab::snapshot::{Carrier, Snapshot};
use crate::lab::{GROUP, Lab, Node, clock};

/// How long each step goes on once the holder is found.
const SETTLE: Duration = Duration::from_secs(1);
/// How long agents get to hear each other again, besides the lease.
const PATIENCE: Duration = Duration::from_secs(10);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The holder's cable is pulled.
    Cut,
    /// It is put back.
    Return,
    /// The holder's agent is killed with SIGKILL; its host lives.
    Kill,
    /// That agent is started again.
    Restart,
    /// The holder's agent is stopped with SIGSTOP.
    Stop,
    /// It goes on.
    Continue,
    /// The holder hands over, as planned.
    Switchover,
}

/// The steps in their order.
pub(super) const STEPS: [Step; 7] =
    [Step::Cut, Step::Return, Step::Kill, Step::Restart, Step::Stop, Step::Continue, Step::Switchover];

impl Step {
    /// The name in table and JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Return => "return",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Continue => "continue",
            Self::Switchover => "switchover",
        }
    }

    /// Whether the VIP has to move. In the other steps it may not, but that
    /// shows as lost probes and is for the reader to judge.
    pub(super) const fn moves(self) -> bool {
        match self {
            Self::Cut | Self::Kill | Self::Stop | Self::Switchover => true,
            Self::Return | Self::Restart | Self::Continue => false,
        }
    }

    fn what(self, node: &str) -> String {
        match self {
            Self::Cut => format!("{node} is cut off from the switch"),
            Self::Return => format!("{node} is back on the switch"),
            Self::Kill => format!("the agent of {node} is killed (SIGKILL)"),
            Self::Restart => format!("the agent of {node} is started again"),
            Self::Stop => format!("the agent of {node} is stopped (SIGSTOP)"),
            Self::Continue => format!("the agent of {node} goes on (SIGCONT)"),
            Self::Switchover => format!("{node} is asked for a switchover"),
        }
    }
}

/// What was done in one step, and when.
#[derive(Clone, Debug)]
pub(super) struct StepRecord {
    pub(super) step: Step,
    /// What was done, in words.
    pub(super) what: String,
    /// From its beginning to the next one's.
    pub(super) start: BootNs,
    pub(super) end: BootNs,
    /// Who answered the client when it began.
    pub(super) holder_before: String,
    /// Why the step did not come to its good end, if so.
    pub(super) failure: Option<String>,
    /// What `ip addr` and `ip -d link` show differently afterwards, by node.
    pub(super) interface_changes: Vec<String>,
}

/// The run of the steps.
pub(super) struct Course<'a> {
    rig: &'a Rig,
    live: &'a mut Live,
    /// The node that the last breaking step broke.
    broken: Option<&'a Node>,
    snapshots: Vec<Snapshot>,
    history: Vec<StepRecord>,
}

impl<'a> Course<'a> {
    pub(super) fn begin(rig: &'a Rig, live: &'a mut Live) -> Result<Self> {
        let snapshots = look_at_all(&rig.lab)?;
        Ok(Self { rig, live, broken: None, snapshots, history: Vec::new() })
    }

    pub(super) fn into_history(self) -> Vec<StepRecord> {
        self.history
    }

    /// Runs one step to its settled end and records it.
    ///
    /// # Errors
    /// When the cluster did not come to a state that the next step could begin
    /// in; what was seen of the step is recorded all the same.
    pub(super) fn run(&mut self, step: Step) -> Result<()> {
        let holder = self.rig.holder()?;
        let before = holder.name();
        let node = if step.moves() { holder } else { self.broken.context("nothing is broken")? };
        let what = step.what(node.name());
        self.live.say(&format!("{}: {what}", step.name()));
        let mut record = StepRecord {
            step,
            what,
            start: clock::now(),
            end: clock::now(),
            holder_before: before.to_string(),
            failure: None,
            interface_changes: Vec::new(),
        };
        // Contiguous steps leave no frame and no probe without one.
        if let Some(last) = self.history.last_mut() {
            last.end = record.start;
        }
        let outcome = self.carry_out(step, node, before, &mut record);
        record.end = clock::now();
        record.failure = outcome.as_ref().err().map(|e| format!("{e:#}"));
        self.history.push(record);
        self.broken = step.moves().then_some(node);
        outcome.with_context(|| format!("step {}", step.name()))
    }

    fn carry_out(&mut self, step: Step, node: &'a Node, before: &str, record: &mut StepRecord) -> Result<()> {
        match step {
            Step::Cut => node.cut()?,
            Step::Return => node.heal()?,
            Step::Kill => node.kill_agent()?,
            Step::Restart => node.start_agent()?,
            Step::Stop => node.pause_agent()?,
            Step::Continue => node.resume_agent()?,
            Step::Switchover => drop(node.succeed(&["switchover", GROUP])?),
        }
        let (rig, udp) = (self.rig, &self.rig.udp);
        let holder =
            rig.wait_answerer(step.moves().then_some(before), || self.live.tick(step.name(), udp))
                .with_context(|| format!("the log of {} ends with:\n{}", node.name(), node.log_tail()))?;
        let how = if *holder == *before { "still answers" } else { "answers now" };
        self.live.say(&format!("{}: {holder} {how}", step.name()));
        let settled = clock::now().plus(SETTLE);
        while clock::now() < settled {
            rig.check()?;
            self.live.tick(step.name(), udp);
            std::thread::sleep(Duration::from_millis(10));
        }
        // Whoever can hear the others has to before the next node is broken.
        let away = match step {
            Step::Cut | Step::Stop => Some(node.name()),
            Step::Return | Step::Kill | Step::Restart | Step::Continue | Step::Switchover => None,
        };
        let deadline = clock::now().plus(PATIENCE + 5 * rig.lab.lease());
        for peer in rig.lab.nodes().iter().filter(|n| n.has_agent() && Some(n.name()) != away) {
            peer.wait_quorate(deadline)?;
        }
        self.compare_interfaces(step, node, record)
    }

    fn compare_interfaces(&mut self, step: Step, broken: &Node, record: &mut StepRecord) -> Result<()> {
        let now = look_at_all(&self.rig.lab)?;
        for ((node, old), new) in self.rig.lab.nodes().iter().zip(&self.snapshots).zip(&now) {
            let cable = matches!(step, Step::Cut | Step::Return) && node.name() == broken.name();
            let carrier = if cable { Carrier::Ignored } else { Carrier::Compared };
            let changes = old.interface_changes(new, carrier);
            record.interface_changes.extend(changes.iter().map(|line| format!("{}: {line}", node.name())));
        }
        self.snapshots = now;
        Ok(())
    }
}

fn look_at_all(lab: &Lab) -> Result<Vec<Snapshot>> {
    lab.nodes().iter().map(Node::snapshot).collect()
}
