//! Turns the lease loop's notices into events for people, and the history behind
//! them. It decides about no lease, and about no hook.

use std::{collections::BTreeMap, net::IpAddr, sync::mpsc::Sender, time::Duration};

use vip_common::BootNs;

use crate::agent::{messages::RunnerAsk, names::Names};
use crate::{
    clock,
    config::Config,
    engine::{Command, NodeId, Pause, Reason, Transition},
    events::{Change, Events, Kind},
    transport::Rejected,
};

/// How long after a command a change may still follow from it: the longest
/// `pre_demote`, and the time of the command itself.
const COMMAND_COUNTS: Duration = Duration::from_secs(15);

/// The last state of a group that was reported.
#[derive(Clone, Debug, Default)]
struct Last {
    /// In this run of the agent.
    state: Option<String>,
    holder: Option<NodeId>,
}

/// Records and reports what happens.
pub struct Chronicle {
    events: Events,
    hooks: Sender<RunnerAsk>,
    /// By group.
    last: BTreeMap<String, Last>,
    /// Recent commands, by group; `None` for one that concerns all groups.
    asked: BTreeMap<Option<String>, (BootNs, String)>,
}

impl Chronicle {
    /// A chronicle that publishes to `events`; `hooks` gets reloads.
    #[must_use]
    pub fn new(events: Events, hooks: Sender<RunnerAsk>) -> Self {
        Self { events, hooks, last: BTreeMap::new(), asked: BTreeMap::new() }
    }

    /// A person has given a command, here or at another node.
    pub fn asked(&mut self, names: &Names, command: Command, at: NodeId) {
        let what = match command {
            Command::Promote { to, .. } => format!("promote {}", names.node(to)),
            Command::Demote { .. } => "demote".to_owned(),
            Command::Switchover { to: Some(to), .. } => format!("switchover --to {}", names.node(to)),
            Command::Switchover { to: None, .. } => "switchover".to_owned(),
            Command::Force { .. } => "failover --force".to_owned(),
            Command::Standby { node, on: true, .. } => format!("standby {}", names.node(node)),
            Command::Standby { node, on: false, .. } => format!("unstandby {}", names.node(node)),
            Command::Pause { .. } => return,
        };
        let group = command.group().map(|group| names.group(group).to_owned());
        self.asked.insert(group, (clock::now(), format!("{what} (at {})", names.node(at))));
    }

    /// The command that led to a change with this reason, if one did.
    fn command(&mut self, group: &str, reason: Reason) -> Option<String> {
        let may_follow = match reason {
            Reason::Elected
            | Reason::HandedOver
            | Reason::Demoted
            | Reason::Promoted
            | Reason::Standby
            | Reason::Forced
            | Reason::HolderSeen
            | Reason::HolderReleased => true,
            Reason::Started
            | Reason::Adopted
            | Reason::Expired
            | Reason::Superseded
            | Reason::Eligibility
            | Reason::PromoteFailed
            | Reason::Stopping
            | Reason::Merged
            | Reason::HolderExpired
            | Reason::Removed => false,
        };
        if !may_follow {
            return None;
        }
        let now = clock::now();
        self.asked.retain(|_, (at, _)| now.since(*at) < COMMAND_COUNTS);
        let key = [Some(group.to_owned()), None].into_iter().find(|key| self.asked.contains_key(key))?;
        let (_, command) = self.asked.get(&key)?.clone();
        // Whoever holds the group then, the command has done its work for it.
        if matches!(reason, Reason::Elected | Reason::HolderSeen | Reason::Forced) {
            self.asked.remove(&Some(group.to_owned()));
        }
        Some(command)
    }

    /// State or holder of a group has changed. `promoting`: is the fence kept
    /// shut until a hook has ended? `gap` is the one that it has ended.
    pub fn changed(
        &mut self,
        names: &Names,
        transition: &Transition,
        promoting: bool,
        gap: Option<Duration>,
    ) {
        let Transition { group, state, epoch, reason, holder } = *transition;
        let group = names.group(group).to_owned();
        let command = self.command(&group, reason);
        let to = if promoting { "promoting".to_owned() } else { state.to_string() };
        let last = self.last.entry(group.clone()).or_default();
        let (from, before) = (last.state.replace(to.clone()), std::mem::replace(&mut last.holder, holder));
        let name = |node: Option<NodeId>| node.map(|node| names.node(node).to_owned());
        let change = Change {
            holder_before: name(before),
            holder: name(holder),
            epoch: epoch.0,
            reason: reason.to_string(),
            command,
            gap_ms: gap.map(|gap| u64::try_from(gap.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)),
            from,
            to,
        };
        let message = sentence(&change);
        self.events.publish(Some(&group), Kind::Changed(change), message);
    }

    /// Goes on with other groups, or other hooks of them.
    pub fn reload(&self, config: &Config) {
        // The thread "hooks" ends only with the process.
        let _ = self.hooks.send(RunnerAsk::Reload(Box::new(config.clone())));
    }

    /// Another machine claims a VIP.
    pub fn claim(&self, group: &str, vip: &str, mac: &str) {
        let message = format!("{mac} claims {vip}, which this node holds");
        self.events.publish(Some(group), Kind::Claim { vip: vip.into(), mac: mac.into() }, message);
    }

    /// Nobody answers for a VIP of a group that this node does not hold, or somebody does
    /// again.
    pub fn silent(&self, group: &str, vip: Option<IpAddr>) {
        let vip = vip.map(|vip| vip.to_string());
        let message = vip.as_ref().map_or_else(
            || "somebody answers for its VIPs again on this node's segment".into(),
            |vip| format!("nobody answers for {vip} on this node's segment"),
        );
        self.events.publish(Some(group), Kind::Silent { vip }, message);
    }

    /// A peer is there, or is there again.
    pub fn connected(&self, peer: &str, restarted: bool) {
        let message = if restarted { format!("{peer} has restarted") } else { format!("{peer} is heard") };
        self.events.publish(None, Kind::Connected { peer: peer.into(), restarted }, message);
    }

    /// Standby or pause has changed.
    pub fn mode(&self, standby: bool, pause: Pause) {
        let message = format!(
            "this node is {}on standby, the cluster {}",
            if standby { "" } else { "not " },
            if pause.on { "paused" } else { "not paused" }
        );
        self.events.publish(None, Kind::Mode { standby, paused: pause.on }, message);
    }

    /// A renewal began late.
    pub fn late(&self, by: Duration, margin: Duration) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (by_ms, margin_ms) = (ms(by), ms(margin));
        let message =
            format!("a renewal began {by_ms} ms late, and {margin_ms} ms would have cost the lease");
        self.events.publish(None, Kind::Late { by_ms, margin_ms }, message);
    }

    /// A datagram was rejected.
    pub fn rejected(&self, reason: Rejected, from: Option<&str>) {
        let message = format!(
            "a datagram {} was rejected: {}",
            from.map_or("of no node of this cluster".to_owned(), |from| format!("that names {from}")),
            reason.label()
        );
        let kind = Kind::Rejected { peer: from.map(str::to_owned), reason: reason.label().into() };
        self.events.publish(None, kind, message);
    }

    /// A health check has changed its verdict.
    pub fn checked(&self, group: &str, check: &str, trouble: Option<&str>) {
        let message =
            trouble.map_or_else(|| format!("{check} passes"), |why| format!("{check} fails: {why}"));
        let (ok, error) = (trouble.is_none(), trouble.map(str::to_owned));
        self.events.publish(Some(group), Kind::Check { check: check.into(), ok, error }, message);
    }

    /// This node has become able, or unable, to serve at all.
    pub fn eligible(&self, because: Option<&str>) {
        let message = because.map_or("this node can serve".into(), |b| format!("this node can't serve: {b}"));
        let kind = Kind::Eligible { eligible: because.is_none(), because: because.map(str::to_owned) };
        self.events.publish(None, kind, message);
    }
}

fn sentence(change: &Change) -> String {
    let mut text = match &change.from {
        Some(from) if *from == change.to => change.to.clone(),
        Some(from) => format!("{from} -> {}", change.to),
        None => change.to.clone(),
    };
    text += &format!(": {}, held by {}", change.reason, change.holder.as_deref().unwrap_or("nobody"));
    if change.epoch > 0 {
        text += &format!(", epoch {}", change.epoch);
    }
    if let Some(gap) = change.gap_ms {
        text += &format!(", gap {gap} ms");
    }
    if let Some(command) = &change.command {
        text += &format!(", by {command}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::{ByGroup, Epoch, GroupId, GroupState};

    const DB: GroupId = GroupId(0);
    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    fn names() -> Names {
        Names {
            nodes: [(A, "db-a".to_owned()), (B, "db-b".to_owned())].into(),
            groups: vec!["db".into()].into(),
            index: ByGroup::new(),
        }
    }

    fn chronicle() -> (Chronicle, Events) {
        let events = Events::new("db-b", None);
        (Chronicle::new(events.clone(), channel().0), events)
    }

    fn change(state: GroupState, reason: Reason, holder: Option<NodeId>) -> Transition {
        Transition { group: DB, state, epoch: Epoch(4), reason, holder }
    }

    #[test]
    fn a_grant_that_waits_is_told_twice() {
        let (mut chronicle, events) = chronicle();
        let names = names();
        chronicle.asked(&names, Command::Switchover { group: DB, to: Some(B) }, A);
        chronicle.changed(&names, &change(GroupState::Standby, Reason::HolderReleased, None), false, None);
        let grant = change(GroupState::Active, Reason::Elected, Some(B));
        chronicle.changed(&names, &grant, true, None);
        let gap = Some(Duration::from_micros(1_200_400));
        chronicle.changed(&names, &grant, false, gap);
        let said: Vec<_> = events.recent().iter().map(|event| event.message.clone()).collect();
        assert_eq!(
            said,
            [
                "standby: holder_released, held by nobody, epoch 4, by switchover --to db-b (at db-a)",
                "standby -> promoting: elected, held by db-b, epoch 4, by switchover --to db-b (at db-a)",
                "promoting -> active: elected, held by db-b, epoch 4, gap 1201 ms",
            ]
        );
    }

    #[test]
    fn what_runs_out_is_nobodys_command() {
        let (mut chronicle, events) = chronicle();
        let names = names();
        chronicle.asked(&names, Command::Demote { group: DB }, A);
        chronicle.changed(&names, &change(GroupState::Standby, Reason::HolderExpired, None), false, None);
        assert!(!events.recent()[0].message.contains("by demote"));
    }
}
