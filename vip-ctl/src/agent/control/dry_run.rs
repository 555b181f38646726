//! What a command would bring about, told without giving it: the dry run of
//! `switchover` and its like. It judges by what the engine knows at this
//! moment, as the engine would when it is asked; nothing is sent and nothing
//! is changed, so a peer may still think otherwise when it comes to it.

use tracing::warn;

use vip_lease::Snapshot;

use super::{Request, Response, Server, exit_of};
use crate::{
    config::Config,
    engine::{Command, GroupId, GroupState, GroupStatus, NodeId, Refusal, Role, Status},
    exit::Exit,
};

impl Server {
    /// What the engine would be told to do, if it were told.
    pub(super) async fn rehearse(&self, request: Request) -> Result<Response, Response> {
        let (config, snapshot) = self.snapshot().await?;
        let me = NodeId(config.me);
        let command = match request {
            Request::Promote { group, .. } => Command::Promote { group: self.group(group)?, to: me },
            Request::Demote { group, .. } => Command::Demote { group: self.group(group)? },
            Request::Switchover { group, to, .. } => {
                Command::Switchover { group: self.group(group)?, to: self.node(to)? }
            }
            Request::Failover { group, to, force, .. } => {
                let (group, to) = (self.group(group)?, self.node(to)?.unwrap_or(me));
                let risk = self.may_fail_over(group, to, force, &snapshot)?;
                if risk.is_some() { Command::Force { group } } else { Command::Promote { group, to } }
            }
            Request::Standby { node, on, force, .. } => {
                Command::Standby { node: self.node(node)?.unwrap_or(me), on, force }
            }
            Request::Pause { on } => Command::Pause { on },
            Request::Reload => {
                let next = self.read_again().await?;
                let mut happen = changed_groups(&config, &next);
                let unusable = Self::unusable(next).await?;
                happen.extend(unusable.into_iter().map(|says| format!("warning: {says}")));
                return Ok(Response::Would { happen });
            }
            Request::Status | Request::Events { .. } | Request::DryRun { .. } => {
                return Err(Response::error(Exit::Usage, "this request changes nothing: just make it"));
            }
        };
        match rehearse(&config, &snapshot.engine, command) {
            Ok(happen) => Ok(Response::Would { happen }),
            Err(refusal) => Err(Response::error(exit_of(refusal), format!("refused: {refusal}"))),
        }
    }

    /// Gives the lease to a node, whether or not the holder is there.
    pub(super) async fn failover(
        &self,
        group: Option<String>,
        to: Option<String>,
        force: bool,
        wait: bool,
    ) -> Result<Response, Response> {
        let me = NodeId(self.config().me);
        let to = self.node(to)?.unwrap_or(me);
        let group = self.group(group)?;
        let (_, snapshot) = self.snapshot().await?;
        let risked = self.may_fail_over(group, to, force, &snapshot)?;
        if let Some(risk) = &risked {
            warn!("failover --force: {risk}");
        }
        // With a quorum it is a promotion like any other: should the quorum be
        // lost meanwhile, nothing is forced whose risk was not named.
        let command =
            if risked.is_some() { Command::Force { group } } else { Command::Promote { group, to } };
        let mut response = self.command(Some(self.group_name(group)), wait, |_| Ok(command)).await?;
        if let Response::Done { risk, .. } = &mut response {
            *risk = risked;
        }
        Ok(response)
    }

    /// What is risked by a failover without a quorum; refused if it is not wanted enough.
    fn may_fail_over(
        &self,
        group: GroupId,
        to: NodeId,
        force: bool,
        snapshot: &Snapshot,
    ) -> Result<Option<String>, Response> {
        if snapshot.engine.quorate {
            return Ok(None);
        }
        let risk = self.risk(group, snapshot);
        if !force {
            let message = format!("{risk}; if that is sure, repeat it with --force");
            return Err(Response::error(Exit::NoQuorum, message));
        }
        if to != NodeId(self.config().me) {
            let name = self.node_name(to);
            return Err(Response::error(
                Exit::Unsafe,
                format!("without a quorum only this node can be made to answer: run it on {name}"),
            ));
        }
        Ok(Some(risk))
    }

    /// What a forced failover of a group risks, in one sentence.
    fn risk(&self, group: GroupId, snapshot: &Snapshot) -> String {
        let name = self.group_name(group);
        let config = self.config();
        let unheard = config.cluster.nodes.iter().filter(|node| {
            let known = snapshot.engine.nodes.get(usize::from(node.id));
            node.can_hold() && known.is_some_and(|known| !known.present)
        });
        let unheard: Vec<_> = unheard.map(|node| node.name.as_str()).collect();
        format!(
            "group {name}: no quorum: any of {} may hold {name} without being heard here, and then two nodes answer for \
             its VIPs and what is written to one of them is lost; make sure that they are off or cut from the clients",
            if unheard.is_empty() { "the other nodes".to_owned() } else { unheard.join(", ") }
        )
    }
}

/// What a reload would change, group by group.
fn changed_groups(old: &Config, new: &Config) -> Vec<String> {
    let mut happen = Vec::new();
    for group in &new.groups {
        match old.groups.iter().find(|known| known.name == group.name) {
            None => happen.push(format!("group {} would be added", group.name)),
            Some(known) if known != group => happen.push(format!("group {} would be changed", group.name)),
            Some(_) => {}
        }
    }
    let gone = old.groups.iter().filter(|known| !new.groups.iter().any(|group| group.name == known.name));
    happen.extend(
        gone.map(|group| format!("group {} would be removed, and released if it is held", group.name)),
    );
    happen
}

/// What would happen, in sentences; none if it is so already.
///
/// # Errors
/// The refusal that the command would meet.
fn rehearse(config: &Config, known: &Status, command: Command) -> Result<Vec<String>, Refusal> {
    let view = View { config, known, me: NodeId(config.me) };
    match command {
        Command::Promote { group, to } => view.to(group, to, true),
        Command::Switchover { group, to: Some(to) } => view.to(group, to, false),
        Command::Switchover { group, to: None } => {
            let (held, holder) = view.held(group)?;
            let to = view.best(group, held, holder).ok_or(Refusal::NoTarget)?;
            Ok(vec![view.moves(group, Some(holder), to)])
        }
        Command::Demote { group } => {
            let (held, holder) = view.held(group)?;
            Ok(vec![view.away(group, held, holder)])
        }
        Command::Force { group } => view.force(group),
        Command::Standby { node, on, force } => view.standby(node, on, force),
        Command::Pause { .. } if known.silent => Err(Refusal::Starting),
        Command::Pause { on } if on == known.paused => Ok(Vec::new()),
        Command::Pause { on: true } => Ok(vec!["nothing would move by itself any more".into()]),
        Command::Pause { on: false } => Ok(vec!["groups would move by themselves again".into()]),
    }
}

/// The cluster as this node knows it.
struct View<'a> {
    config: &'a Config,
    known: &'a Status,
    me: NodeId,
}

impl View<'_> {
    fn group(&self, id: GroupId) -> Result<&GroupStatus, Refusal> {
        self.known.groups.get(usize::from(id.0)).ok_or(Refusal::NoSuchGroup)
    }

    fn group_name(&self, id: GroupId) -> &str {
        self.config.groups.get(usize::from(id.0)).map_or("", |group| group.name.as_str())
    }

    fn node_name(&self, id: NodeId) -> &str {
        self.config.cluster.node(id.0).map_or("", |node| node.name.as_str())
    }

    /// The group and its holder, if this node may say anything about it.
    fn seen(&self, id: GroupId) -> Result<(&GroupStatus, Option<NodeId>), Refusal> {
        let group = self.group(id)?;
        // What this node holds it can give away, whoever else is there.
        if group.holder != Some(self.me) {
            if self.known.silent {
                return Err(Refusal::Starting);
            }
            if !self.known.quorate {
                return Err(Refusal::NoQuorum);
            }
        }
        Ok((group, group.holder))
    }

    fn held(&self, id: GroupId) -> Result<(&GroupStatus, NodeId), Refusal> {
        let (group, holder) = self.seen(id)?;
        Ok((group, holder.ok_or(Refusal::NotHeld)?))
    }

    /// The ready node of the highest priority; ties by id, as the engine has them.
    fn best(&self, id: GroupId, group: &GroupStatus, except: NodeId) -> Option<NodeId> {
        let ready = group.ready.iter().copied().filter(|node| *node != except);
        ready.min_by_key(|node| (std::cmp::Reverse(self.priority(id, *node)), *node))
    }

    fn priority(&self, id: GroupId, node: NodeId) -> u8 {
        let group = self.config.groups.get(usize::from(id.0));
        group.and_then(|group| group.priorities.get(self.node_name(node)).copied()).unwrap_or(0)
    }

    fn never_holds(&self, node: NodeId) -> Result<(), Refusal> {
        match self.known.nodes.get(usize::from(node.0)).map(|known| known.role) {
            None => Err(Refusal::NoSuchNode),
            Some(Role::Witness | Role::Observer | Role::Vacant) => Err(Refusal::TargetNeverHolds),
            Some(Role::Node) => Ok(()),
        }
    }

    /// Can `node` take the group when a person names it?
    fn can_take(&self, group: &GroupStatus, node: NodeId) -> Result<(), Refusal> {
        self.never_holds(node)?;
        let known = self.known.nodes.get(usize::from(node.0));
        if known.is_none_or(|known| !known.present) {
            return Err(Refusal::TargetSilent);
        }
        // Who was demoted by hand takes it only when asked by name, and who has
        // no quorum only by force: neither says that it is ready; of itself
        // this node knows.
        let is_able = node == self.me
            && match group.state {
                GroupState::Paused | GroupState::Standby => true,
                GroupState::Init
                | GroupState::Active
                | GroupState::Fault
                | GroupState::Witness
                | GroupState::Observer => false,
            };
        let is_asked = known.is_some_and(|known| known.differs);
        if group.ready.contains(&node) || is_able || is_asked { Ok(()) } else { Err(Refusal::TargetNotReady) }
    }

    /// To a node that was named; a promotion also takes what nobody holds.
    fn to(&self, id: GroupId, to: NodeId, promotes: bool) -> Result<Vec<String>, Refusal> {
        self.never_holds(to)?;
        let (group, holder) = self.seen(id)?;
        if holder == Some(to) {
            return Ok(Vec::new());
        }
        if holder.is_none() && !promotes {
            return Err(Refusal::NotHeld);
        }
        self.can_take(group, to)?;
        Ok(vec![self.moves(id, holder, to)])
    }

    fn moves(&self, id: GroupId, from: Option<NodeId>, to: NodeId) -> String {
        let known = self.known.nodes.get(usize::from(to.0));
        let how = if known.is_some_and(|known| known.differs) {
            "if it says that it can take it: it has other groups or VIPs in its configuration than this node"
        } else {
            "which is ready"
        };
        let (group, to) = (self.group_name(id), self.node_name(to));
        match from {
            Some(from) => {
                format!("group {group} would go from {} to {to}, {how}", self.node_name(from))
            }
            None => format!("group {group}, which nobody holds, would go to {to}, {how}"),
        }
    }

    /// To whoever is best, or to nobody.
    fn away(&self, id: GroupId, group: &GroupStatus, holder: NodeId) -> String {
        match self.best(id, group, holder) {
            Some(to) => self.moves(id, Some(holder), to),
            None => format!(
                "group {} would be released by {}, and nobody would answer: no other node is ready to take it",
                self.group_name(id),
                self.node_name(holder)
            ),
        }
    }

    fn force(&self, id: GroupId) -> Result<Vec<String>, Refusal> {
        // With a quorum nothing has to be forced.
        if self.known.quorate {
            return self.to(id, self.me, true);
        }
        let group = self.group(id)?;
        if self.known.silent {
            return Err(Refusal::Starting);
        }
        if group.holder == Some(self.me) {
            return Ok(Vec::new());
        }
        self.can_take(group, self.me)?;
        Ok(vec![format!(
            "group {} would be held by {} BY FORCE, without a quorum, whoever else may hold it",
            self.group_name(id),
            self.node_name(self.me)
        )])
    }

    fn standby(&self, node: NodeId, on: bool, force: bool) -> Result<Vec<String>, Refusal> {
        self.never_holds(node)?;
        let known = self.known.nodes.get(usize::from(node.0)).ok_or(Refusal::NoSuchNode)?;
        if !known.present {
            return Err(Refusal::TargetSilent);
        }
        if known.standby == on {
            return Ok(Vec::new());
        }
        let name = self.node_name(node);
        if !on {
            return Ok(vec![format!("node {name} would take groups again")]);
        }
        let mut says = vec![format!("node {name} would be put on standby and take nothing")];
        for (id, group) in (0..=u16::MAX).map(GroupId).zip(&self.known.groups) {
            if group.holder == Some(node) {
                if !force && self.best(id, group, node).is_none() {
                    return Err(Refusal::NoTarget);
                }
                says.push(self.away(id, group, node));
            }
        }
        Ok(says)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::{Epoch, NodeStatus};

    const TEXT: &str = r#"[node]
name = "db-a"
interface = "eth0"
[cluster]
name = "shop"
key_file = "cluster.key"
[[cluster.node]]
name = "db-a"
address = "10.0.1.10:7077"
[[cluster.node]]
name = "db-b"
address = "10.0.1.11:7077"
[[cluster.node]]
name = "db-c"
address = "10.0.1.12:7077"
[[cluster.node]]
name = "eye"
address = "10.0.2.5:7077"
observer = true
[[group]]
name = "db"
vips = ["10.0.1.20"]
priority = { db-a = 150, db-b = 100, db-c = 120 }
"#;
    const DB: GroupId = GroupId(0);
    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);
    const EYE: NodeId = NodeId(3);

    /// All is well, and db-a, from which it is seen, holds.
    fn well() -> Status {
        let node =
            |role| NodeStatus { role, last_heard: None, present: true, standby: false, differs: false };
        Status {
            quorate: true,
            silent: false,
            paused: false,
            alone: false,
            grants_left: u64::MAX,
            nodes: vec![node(Role::Node), node(Role::Node), node(Role::Node), node(Role::Observer)],
            groups: vec![GroupStatus {
                state: GroupState::Active,
                holder: Some(A),
                epoch: Epoch(3),
                expiry: None,
                forced: false,
                ready: vec![A, B, C],
            }],
        }
    }

    fn said(known: &Status, command: Command) -> Result<String, Refusal> {
        let config = Config::parse(TEXT, Path::new("vip.toml"), "db-a").expect("right");
        rehearse(&config, known, command).map(|says| says.join("; "))
    }

    #[test]
    fn a_switchover_names_the_target_or_the_refusal() {
        let mut known = well();
        let switchover = |to| Command::Switchover { group: DB, to };
        let to_c = Ok("group db would go from db-a to db-c, which is ready".to_owned());
        assert_eq!(said(&known, switchover(None)), to_c, "the best by priority");
        assert_eq!(said(&known, switchover(Some(C))), to_c);
        assert_eq!(said(&known, switchover(Some(A))), Ok(String::new()), "it is there already");
        assert_eq!(said(&known, switchover(Some(EYE))), Err(Refusal::TargetNeverHolds));
        known.groups[0].ready = vec![A];
        assert_eq!(said(&known, switchover(None)), Err(Refusal::NoTarget));
        assert_eq!(said(&known, switchover(Some(B))), Err(Refusal::TargetNotReady));
        known.nodes[1].present = false;
        assert_eq!(said(&known, switchover(Some(B))), Err(Refusal::TargetSilent));
        known.groups[0].holder = None;
        assert_eq!(said(&known, switchover(None)), Err(Refusal::NotHeld));
        known.quorate = false;
        assert_eq!(said(&known, switchover(None)), Err(Refusal::NoQuorum));
    }

    #[test]
    fn a_demotion_says_when_nobody_would_answer() {
        let mut known = well();
        let demote = Command::Demote { group: DB };
        assert!(said(&known, demote).is_ok_and(|says| says.contains("to db-c")));
        known.groups[0].ready = vec![A];
        assert!(said(&known, demote).is_ok_and(|says| says.contains("nobody would answer")));
    }

    #[test]
    fn who_was_demoted_can_be_promoted_by_name() {
        let mut known = well();
        known.groups[0].holder = None;
        known.groups[0].ready = vec![B, C];
        let promote = Command::Promote { group: DB, to: A };
        assert_eq!(said(&known, promote), Err(Refusal::TargetNotReady));
        known.groups[0].state = GroupState::Paused;
        assert!(said(&known, promote).is_ok_and(|says| says.contains("would go to db-a")));
    }

    #[test]
    fn standby_tells_of_all_that_moves_or_is_refused() {
        let mut known = well();
        let standby = |force| Command::Standby { node: A, on: true, force };
        let says = said(&known, standby(false)).expect("others are ready");
        assert!(says.contains("db-a would be put on standby") && says.contains("to db-c"), "{says}");
        known.groups[0].ready = vec![A];
        assert_eq!(said(&known, standby(false)), Err(Refusal::NoTarget));
        assert!(said(&known, standby(true)).is_ok_and(|says| says.contains("nobody would answer")));
        known.nodes[0].standby = true;
        assert_eq!(said(&known, standby(false)), Ok(String::new()));
    }

    #[test]
    fn force_is_loud_and_needs_no_quorum() {
        let mut known = well();
        known.groups[0].holder = None;
        known.groups[0].state = GroupState::Standby;
        known.groups[0].ready = Vec::new();
        known.quorate = false;
        let force = Command::Force { group: DB };
        assert!(said(&known, force).is_ok_and(|says| says.contains("BY FORCE")));
        known.silent = true;
        assert_eq!(said(&known, force), Err(Refusal::Starting));
    }

    #[test]
    fn a_pause_that_is_on_changes_nothing() {
        let mut known = well();
        assert!(said(&known, Command::Pause { on: true }).is_ok_and(|says| !says.is_empty()));
        known.paused = true;
        assert_eq!(said(&known, Command::Pause { on: true }), Ok(String::new()));
    }
}
