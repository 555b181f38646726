//! Decides which hook runs next. A group's hooks run one at a time and strictly
//! in the order of its grants: all of one grant, its `post_demote` too, before
//! anything of the next one. Only the lease loop reports what has happened, since
//! only it sees that in order, and every hook of a group goes through the group's
//! line here.
//!
//! Sans-IO: the thread runs the hooks and takes the time for that.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use vip_lease::{
    Hook, HookOrder, RUNS_MAX, Turned,
    gate::{Grant, Ticket},
};

use super::WAITING_MAX;
use crate::engine::{GroupState, Reason};

/// An order that will not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The order.
    pub order: HookOrder,
    /// Why not; `None` if there is nothing to run, so that nobody has to wait for
    /// it.
    pub why: Option<&'static str>,
}

/// Kinds of hooks with places of their own: slow hooks that nobody waits for must
/// not hold up traffic or a planned move, nor those two each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Taking,
    Leaving,
    Rest,
}

impl Pool {
    const ALL: [Self; 3] = [Self::Taking, Self::Leaving, Self::Rest];

    const fn of(hook: Hook) -> Self {
        match hook {
            Hook::PrePromote => Self::Taking,
            Hook::PreDemote => Self::Leaving,
            Hook::PostPromote | Hook::PostDemote | Hook::OnFault => Self::Rest,
        }
    }
}

/// A grant whose `post_demote` is still to come.
#[derive(Clone, Copy, Debug)]
struct Up {
    grant: Grant,
    epoch: u64,
    /// Was its fence open?
    opened: bool,
}

/// One group's line of hooks.
#[derive(Debug, Default)]
struct Line {
    state: Option<GroupState>,
    up: Option<Up>,
    /// The latest grant for which a `pre_promote` or `post_promote` has begun.
    begun: Option<Grant>,
    waiting: VecDeque<HookOrder>,
    running: Option<u64>,
    /// The pool in whose queue the group stands.
    turn: Option<Pool>,
}

/// The lines of all groups.
#[derive(Debug, Default)]
pub struct Sequencer {
    lines: BTreeMap<Arc<str>, Line>,
    /// Groups whose next hook may begin, by pool. May still name a group that has
    /// left the queue.
    turns: [VecDeque<Arc<str>>; 3],
    /// By the run's number.
    running: BTreeMap<u64, (Arc<str>, Pool)>,
    /// Hooks in a line that the lease loop waits for.
    tickets: BTreeMap<Ticket, Arc<str>>,
    waiting: usize,
    runs: u64,
}

impl Sequencer {
    /// A former agent of this node ended while it had this grant of the group, so
    /// it has run no `post_demote`.
    pub fn was_up(&mut self, group: &str, epoch: u64) {
        let up = Up { grant: Grant::FOUND, epoch, opened: true };
        self.lines.entry(group.into()).or_default().up = Some(up);
    }

    /// A group's state has changed. `has`: which hooks the group has. Returns the
    /// orders that will not run because of that.
    pub fn turned(&mut self, turned: &Turned, has: impl Fn(Hook) -> bool) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        let line = self.lines.entry(Arc::clone(&turned.group)).or_default();
        let before = line.state.replace(turned.state);
        let over = line.up.take_if(|up| turned.grant != Some(up.grant));
        let begun = line.begun;
        let mut opens = false;
        if let Some(grant) = turned.grant {
            let up = line.up.get_or_insert(Up { grant, epoch: 0, opened: false });
            up.epoch = turned.epoch.0;
            opens = !turned.promoting && !std::mem::replace(&mut up.opened, !turned.promoting);
        }

        if let Some(over) = over {
            self.drop_pre_promote(&turned.group, over.grant);
            // A grant whose hooks never began, and that never served, needs no end.
            if over.opened || begun == Some(over.grant) {
                let state = if turned.grant.is_some() { GroupState::Standby } else { turned.state };
                let order = HookOrder {
                    state: state.to_string(),
                    grant: over.grant,
                    epoch: over.epoch,
                    ..HookOrder::of(turned, Hook::PostDemote)
                };
                self.push(order, &has, &mut skipped);
            }
        }
        if let Some(ticket) = turned.pre_promote {
            let order = HookOrder { ticket: Some(ticket), ..HookOrder::of(turned, Hook::PrePromote) };
            self.push(order, &has, &mut skipped);
        }
        // A node that adopts a lease goes on with it: nothing was promoted.
        if opens && turned.reason != Reason::Adopted {
            self.push(HookOrder::of(turned, Hook::PostPromote), &has, &mut skipped);
        }
        if turned.state == GroupState::Fault && before != Some(GroupState::Fault) {
            self.push(HookOrder::of(turned, Hook::OnFault), &has, &mut skipped);
        }
        skipped
    }

    /// A hook has to run in the midst of a grant. Returns the orders that will
    /// not run because of that: this one, if the grant is over.
    pub fn add(&mut self, order: HookOrder, has: impl Fn(Hook) -> bool) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        let up = self.lines.get(&order.group).and_then(|line| line.up);
        if up.is_some_and(|up| up.grant == order.grant) {
            self.push(order, &has, &mut skipped);
        } else {
            skipped.push(Skipped { order, why: Some("the lease that it was for is gone") });
        }
        skipped
    }

    fn push(&mut self, order: HookOrder, has: &impl Fn(Hook) -> bool, skipped: &mut Vec<Skipped>) {
        if !has(order.hook) {
            skipped.push(Skipped { order, why: None });
            return;
        }
        let group = Arc::clone(&order.group);
        let line = self.lines.entry(Arc::clone(&group)).or_default();
        if line.waiting.len() >= WAITING_MAX
            && let Some(place) = line.waiting.iter().position(|waiting| line.may_be_dropped(waiting))
            && let Some(dropped) = self.remove(&group, place)
        {
            skipped.push(Skipped { order: dropped, why: Some("too many hooks of this group wait") });
        }
        if let Some(ticket) = order.ticket {
            self.tickets.insert(ticket, Arc::clone(&group));
        }
        if let Some(line) = self.lines.get_mut(&group) {
            line.waiting.push_back(order);
            self.waiting += 1;
        }
        self.give_turn(&group);
    }

    /// Nobody waits for this run any more. Returns its order if it had not begun.
    pub fn remove_waiting(&mut self, ticket: Ticket) -> Option<HookOrder> {
        let group = self.tickets.get(&ticket).map(Arc::clone)?;
        let line = self.lines.get(&group)?;
        let place = line.waiting.iter().position(|order| order.ticket == Some(ticket))?;
        self.remove(&group, place)
    }

    fn drop_pre_promote(&mut self, group: &Arc<str>, grant: Grant) {
        let is_it = |order: &HookOrder| order.hook == Hook::PrePromote && order.grant == grant;
        let place = self.lines.get(group).and_then(|line| line.waiting.iter().position(is_it));
        if let Some(place) = place {
            self.remove(group, place);
        }
    }

    fn remove(&mut self, group: &Arc<str>, place: usize) -> Option<HookOrder> {
        let order = self.lines.get_mut(group)?.waiting.remove(place)?;
        self.waiting -= 1;
        if let Some(ticket) = order.ticket {
            self.tickets.remove(&ticket);
        }
        self.give_turn(group);
        Some(order)
    }

    /// Puts a group into the queue of the pool that its next hook needs.
    fn give_turn(&mut self, group: &Arc<str>) {
        let Some(line) = self.lines.get_mut(group) else { return };
        let next = line.next_pool();
        if next != line.turn {
            line.turn = next;
            if let Some(pool) = next {
                self.turns[pool as usize].push_back(Arc::clone(group));
            }
        }
    }

    /// A hook that may begin now, with the number of its run.
    pub fn next(&mut self) -> Option<(u64, HookOrder)> {
        let pools = Pool::ALL.into_iter().filter(|pool| {
            self.running.values().filter(|(_, running)| running == pool).nth(RUNS_MAX - 1).is_none()
        });
        for pool in pools.collect::<Vec<_>>() {
            while let Some(group) = self.turns[pool as usize].pop_front() {
                let Some(line) = self.lines.get_mut(&group) else { continue };
                if line.turn != Some(pool) {
                    continue;
                }
                line.turn = None;
                let Some(order) = line.waiting.pop_front() else { continue };
                self.waiting -= 1;
                self.runs += 1;
                line.running = Some(self.runs);
                if matches!(order.hook, Hook::PrePromote | Hook::PostPromote) {
                    line.begun = Some(order.grant);
                }
                self.running.insert(self.runs, (group, pool));
                if let Some(ticket) = order.ticket {
                    self.tickets.remove(&ticket);
                }
                return Some((self.runs, order));
            }
        }
        None
    }

    /// A run has ended, well or not.
    pub fn ended(&mut self, number: u64) {
        if let Some((group, _)) = self.running.remove(&number)
            && let Some(line) = self.lines.get_mut(&group)
        {
            line.running = None;
            self.give_turn(&group);
        }
    }

    /// Is there nothing that runs or waits?
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting == 0
    }
}

impl Line {
    /// The pool of the next hook, if one may begin.
    fn next_pool(&self) -> Option<Pool> {
        let next = self.waiting.front().filter(|_| self.running.is_none());
        next.map(|order| Pool::of(order.hook))
    }

    /// May this order be dropped? Not a `pre_promote`, for which traffic waits,
    /// nor the end of something that has begun.
    fn may_be_dropped(&self, order: &HookOrder) -> bool {
        match order.hook {
            Hook::PrePromote => false,
            Hook::PostDemote => self.begun != Some(order.grant),
            Hook::PostPromote | Hook::PreDemote | Hook::OnFault => true,
        }
    }
}

#[cfg(test)]
mod tests;
