//! Waits until a group that has moved is served where it went. A holder whose
//! fence is still shut for its `pre_promote` does not call itself ready; for this
//! node itself, the gates tell.

use std::{collections::BTreeMap, time::Duration};

use vip_common::BootNs;
use vip_lease::Snapshot;

use super::{Response, Server};
use crate::{
    clock,
    config::{Config, hooks},
    engine::NodeId,
    events::{Event, Hook, Kind},
    exit::Exit,
};

/// How long to wait for a node that has the lease: the longest `pre_promote`, and
/// some more.
const SERVED_MAX: Duration = hooks::TIMEOUT_MAX.saturating_add(Duration::from_secs(10));
/// How long to wait until a node has taken a group that was given away.
const TAKEN_MAX: Duration = Duration::from_secs(2);
/// How soon to look again, at first and later.
const SERVED_POLL_FIRST: Duration = Duration::from_millis(5);
const SERVED_POLL_LATER: Duration = Duration::from_millis(100);

/// Groups that move, each with its new holder as soon as that is known.
pub(super) type Moving = BTreeMap<String, Option<NodeId>>;

/// A group whose new holder lost it before it served.
struct Lost {
    group: String,
    by: NodeId,
    holder: Option<NodeId>,
}

impl Server {
    /// The groups that a node holds, as far as this node knows.
    pub(super) async fn held_by(&self, node: NodeId) -> Result<Moving, Response> {
        let (config, snapshot) = self.snapshot().await?;
        let groups = config.groups.iter().zip(&snapshot.engine.groups);
        let held = groups.filter(|(_, known)| known.holder == Some(node));
        Ok(held.map(|(group, _)| (group.name.clone(), None)).collect())
    }

    /// Waits until their new holders serve all of these groups. For groups that
    /// nobody takes it waits only for [`TAKEN_MAX`].
    ///
    /// # Errors
    /// [`Exit::PromoteFailed`] if a node lost one before it served it.
    pub(super) async fn wait_until_served(&self, mut moving: Moving) -> Result<(), Response> {
        // The semaphore is never closed.
        let _place = self.waits.acquire().await.ok();
        let (begun, known) = (clock::now(), self.events().recent().last().map_or(0, |event| event.seq));
        let mut pause = SERVED_POLL_FIRST;
        loop {
            let (config, snapshot) = self.snapshot().await?;
            if let Some(lost) = look(&mut moving, &config, &snapshot, begun) {
                return Err(self.not_served(lost, known).await?);
            }
            if moving.is_empty() {
                return Ok(());
            }
            if let Some((group, Some(node))) = moving.first_key_value()
                && clock::now().since(begun) >= SERVED_MAX
            {
                let name = self.node_name(*node);
                let message =
                    format!("group {group}: {name} has the lease, and its pre_promote has not ended yet");
                return Err(Response::error(Exit::Timeout, message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SERVED_POLL_LATER);
        }
    }

    /// The response for a group that was lost. `known`: the last event before.
    async fn not_served(&self, lost: Lost, known: u64) -> Result<Response, Response> {
        let Lost { group, by, mut holder } = lost;
        let begun = clock::now();
        while holder.is_none() && clock::now().since(begun) < TAKEN_MAX {
            tokio::time::sleep(SERVED_POLL_LATER).await;
            let (config, snapshot) = self.snapshot().await?;
            let mut groups = config.groups.iter().zip(&snapshot.engine.groups);
            holder = groups.find(|(named, _)| named.name == group).and_then(|(_, known)| known.holder);
        }
        let why = self.why_not_served(&group, by, known);
        let now = match holder {
            Some(holder) => format!("{} holds it now", self.node_name(holder)),
            None => "nobody holds it yet".to_owned(),
        };
        Ok(Response::error(Exit::PromoteFailed, format!("group {group}: {why}; {now}")))
    }

    /// Why the node did not serve the group. `known`: the last event before.
    fn why_not_served(&self, group: &str, node: NodeId, known: u64) -> String {
        let name = self.node_name(node);
        if node != NodeId(self.config().me) {
            return format!(
                "{name} won the lease and lost it before it served: its pre_promote failed or took too long, or \
                 {name} is gone (`vip-ctl history {group}` on {name} says which)"
            );
        }
        let events = self.events().recent();
        let failed = |event: &&std::sync::Arc<Event>| {
            event.seq > known
                && event.group.as_deref() == Some(group)
                && matches!(&event.kind, Kind::Hook(run)
                    if run.hook == Hook::PrePromote && run.outcome.is_failure())
        };
        match events.iter().rev().find(failed) {
            Some(event) => format!("{name} won the lease and can't serve: {}", event.message),
            None => format!("{name} won the lease and lost it while its pre_promote ran"),
        }
    }
}

/// Removes the groups that are served, or that nobody takes. Returns one that was
/// lost meanwhile.
fn look(moving: &mut Moving, config: &Config, snapshot: &Snapshot, begun: BootNs) -> Option<Lost> {
    let me = NodeId(config.me);
    let is_late = snapshot.now.since(begun) >= TAKEN_MAX;
    let mut rest = Moving::new();
    let groups = config.groups.iter().zip(snapshot.engine.groups.with_ids());
    for (group, (id, known)) in groups {
        let Some(by) = moving.remove(&group.name) else { continue };
        let by = match (by, known.holder) {
            (Some(by), holder) if holder != Some(by) => {
                return Some(Lost { group: group.name.clone(), by, holder });
            }
            (None, None) if is_late => continue,
            (by, holder) => by.or(holder),
        };
        let is_served = by.is_some_and(|by| {
            // This node knows its own state at once.
            if by == me {
                return !snapshot.promoting.contains(&id);
            }
            // If the node has other groups, this node can't tell whether it serves this
            // one.
            let node = snapshot.engine.nodes.get(usize::from(by.0));
            known.ready.contains(&by) || node.is_some_and(|node| node.differs)
        });
        if !is_served {
            rest.insert(group.name.clone(), by);
        }
    }
    // Any other group is no longer in the configuration.
    *moving = rest;
    None
}
