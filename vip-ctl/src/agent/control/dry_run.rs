//! What a command would do, without giving it: the dry run of `switchover` and
//! the like. The engine predicts it ([`crate::engine::Engine::foresee`]); this
//! module puts it into words.

use tracing::warn;

use vip_lease::Snapshot;

use super::{Request, Response, Server, ending, exit_of};
use crate::{
    agent::messages::Ask,
    config::Config,
    engine::{Command, Foreseen, GroupId, GroupMove, NodeId},
    exit::Exit,
};

impl Server {
    /// The dry run of a request: predicts what the engine would do.
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
        let table = config.groups_digest();
        let foreseen = self.asker.ask_for(|reply| Ask::Foresee(command, table, reply)).await;
        match foreseen.ok_or_else(ending)? {
            Ok(foreseen) => Ok(Response::Would { happen: Words { config: &config }.of(&foreseen) }),
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
        // With a quorum it is a promotion like any other: if the quorum is lost
        // meanwhile, the engine must not force anything whose risk nobody has named.
        let command =
            if risked.is_some() { Command::Force { group } } else { Command::Promote { group, to } };
        let mut response = self.command(Some(self.group_name(group)), wait, |_| Ok(command)).await?;
        if let Response::Done { risk, .. } = &mut response {
            *risk = risked;
        }
        Ok(response)
    }

    /// The risk of a failover without a quorum; refuses it without `force`.
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

/// Puts the engine's prediction into sentences.
struct Words<'a> {
    config: &'a Config,
}

impl Words<'_> {
    /// Empty if the outcome is there already.
    fn of(&self, foreseen: &Foreseen) -> Vec<String> {
        match foreseen {
            Foreseen::Nothing => Vec::new(),
            Foreseen::Moves(moves) => vec![self.moves(moves)],
            Foreseen::Forced(group) => vec![format!(
                "group {} would be held by {} BY FORCE, without a quorum, whoever else may hold it",
                self.group(*group),
                self.node(NodeId(self.config.me))
            )],
            Foreseen::Standby(node, moves) => {
                let first = format!("node {} would be put on standby and take nothing", self.node(*node));
                [first].into_iter().chain(moves.iter().map(|moves| self.moves(moves))).collect()
            }
            Foreseen::Unstandby(node) => vec![format!("node {} would take groups again", self.node(*node))],
            Foreseen::Paused(true) => vec!["nothing would move by itself any more".into()],
            Foreseen::Paused(false) => vec!["groups would move by themselves again".into()],
        }
    }

    fn moves(&self, moves: &GroupMove) -> String {
        let group = self.group(moves.group);
        let from = moves.from.map(|from| self.node(from));
        let Some(to) = moves.to.map(|to| self.node(to)) else {
            let from = from.map_or_else(String::new, |from| format!(" by {from}"));
            return format!(
                "group {group} would be released{from}, and nobody would answer: no other node is ready to take it"
            );
        };
        let how = if moves.is_asked {
            "if it says that it can take it: it has other groups or VIPs in its configuration than this node"
        } else {
            "which is ready"
        };
        match from {
            Some(from) => format!("group {group} would go from {from} to {to}, {how}"),
            None => format!("group {group}, which nobody holds, would go to {to}, {how}"),
        }
    }

    fn group(&self, id: GroupId) -> &str {
        self.config.group(id).map_or("", |group| group.name.as_str())
    }

    fn node(&self, id: NodeId) -> &str {
        self.config.cluster.node(id.0).map_or("", |node| node.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::engine::Epoch;

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
    const C: NodeId = NodeId(2);

    fn said(foreseen: &Foreseen) -> String {
        let config = Config::parse(TEXT, Path::new("vip.toml"), "db-a").expect("right");
        Words { config: &config }.of(foreseen).join("; ")
    }

    #[test]
    fn a_move_names_group_holder_target_and_what_it_depends_on() {
        let to_c = GroupMove { group: DB, epoch: Epoch(3), from: Some(A), to: Some(C), is_asked: false };
        assert_eq!(said(&Foreseen::Moves(to_c)), "group db would go from db-a to db-c, which is ready");
        let asked = said(&Foreseen::Moves(GroupMove { is_asked: true, ..to_c }));
        assert!(asked.contains("if it says that it can take it"), "{asked}");
        let free = said(&Foreseen::Moves(GroupMove { from: None, ..to_c }));
        assert_eq!(free, "group db, which nobody holds, would go to db-c, which is ready");
        let nobody = GroupMove { to: None, ..to_c };
        let says = said(&Foreseen::Standby(A, vec![to_c, nobody]));
        assert!(says.contains("db-a would be put on standby") && says.contains("to db-c"), "{says}");
        assert!(says.contains("nobody would answer"), "{says}");
        assert!(said(&Foreseen::Forced(DB)).contains("BY FORCE"));
        assert_eq!(said(&Foreseen::Nothing), "");
    }
}
