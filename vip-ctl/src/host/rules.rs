//! The order of the host's routing rules: ours comes right before the one for
//! the local table, and everybody else's stay where they are to that one.
//!
//! The kernel has the local table's rule at priority 0 (ip-rule(8)), and adds a rule
//! behind all others of its priority. So ours gets before it by a stand-in for the
//! local table's, which is deleted and added again. While that lasts, and wherever it
//! is cut off, the host has a rule for its local table, and the next call goes on
//! from there. Where an administrator has given the local table's another priority,
//! as for VRFs, ours has the one below.
//!
//! A rule that is added without a priority gets the one that the second rule of the
//! list has, less one; with ours in the list that is 0. Such rules are given the
//! priority that the kernel would have given them without ours.
//!
//! A rule names one interface. Where ours is for all but several, each of those has a rule of
//! its own to the local table, before ours: what comes in there finds the VIP, which every
//! node has in that table, and asks ours for what is not this host's alone.
//!
//! The kernel deletes the first rule that has what a request names; what the request
//! does not name, it ignores. So a plan is made on a copy of the list, and nothing is
//! deleted where another rule would go.

use netlink_packet_route::{
    AddressFamily,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use vip_common::layout::GROUPS_MAX;

use super::local_clients::{SPARED, TABLE};

/// The priority of the kernel's rule for the main table, from which rules
/// without a priority are numbered downwards.
const PREF_MAIN: u32 = 32766;
/// Earlier versions had their rules here.
const PREF_EARLIER: u32 = 50;
/// Earlier versions moved the local table's rule here.
const PREF_LOCAL_EARLIER: u32 = 100;
/// The oldest version had a rule per VIP, to a table per group: this one and the
/// group's index.
const TABLE_EARLIER: u32 = 0x76_6970;
/// The kernel's own table of local addresses.
const TABLE_LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
/// "No limit", as the kernel lists the shortest prefix that a rule accepts.
const ANY_PREFIX: u32 = u32::MAX;

/// Whose packets to a VIP our rule sends to its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of this host's own processes.
    Processes,
    /// All but those that come in by these interfaces (one or more), also what this host
    /// routes for others. What comes in there is for this host: a lease opens its fence before
    /// the keeper removes the route, and must not wait for that.
    AllBut(Vec<String>),
}

/// What a rule of ours leads to, by which interface packets come in, and is it for those by
/// any other?
type Shape<'a> = (u32, Option<&'a str>, bool);

impl Reach {
    /// The rules that it takes, in their order.
    fn shapes(&self) -> Vec<Shape<'_>> {
        match self {
            Self::Processes => vec![(TABLE, Some("lo"), false)],
            Self::AllBut(one) if one.len() == 1 => {
                one.iter().map(|name| (TABLE, Some(name.as_str()), true)).collect()
            }
            Self::AllBut(several) => {
                let first = several.iter().map(|name| (TABLE_LOCAL, Some(name.as_str()), false));
                first.chain([(TABLE, None, false)]).collect()
            }
        }
    }
}

/// Whose a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Ours.
    Ours,
    /// Ours for what comes in by one of several interfaces, to the local table.
    WayIn,
    /// Of the oldest version.
    Oldest,
    /// For the local table, and for every packet.
    Local,
    /// Ours for the local table, while we put the rules in order. It accepts no
    /// default route, of which the local table has none, and thereby differs.
    StandIn,
    /// Of somebody else, or of the kernel.
    Foreign,
}

/// A routing rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    message: RuleMessage,
    pref: u32,
    table: u32,
    whose: Whose,
    /// See [`SPARED`].
    spared: bool,
    /// By which interface packets come in that it is for.
    input: Option<String>,
}

impl Rule {
    /// Reads a rule as the kernel lists it.
    pub(super) fn read(message: RuleMessage) -> Self {
        let (mut pref, mut table) = (0, u32::from(message.header.table));
        let (mut accepts, mut spared) = (ANY_PREFIX, false);
        let (mut input, mut to, mut others) = (None, false, false);
        for attribute in &message.attributes {
            if let RuleAttribute::Priority(number) = attribute {
                pref = *number;
            } else if let RuleAttribute::Table(number) = attribute {
                table = *number;
            } else if let RuleAttribute::Protocol(protocol) = attribute {
                spared = *protocol == SPARED;
            } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
                accepts = *length;
            } else if let RuleAttribute::Iifname(name) = attribute {
                input = Some(name.clone());
            } else if matches!(attribute, RuleAttribute::Destination(_)) {
                to = true;
            } else {
                others = true;
            }
        }
        let header = &message.header;
        others |= header.action != RuleAction::ToTable || header.tos != 0 || header.src_len != 0;
        let inverted = header.flags.contains(RuleFlags::Invert);
        let whose = match (input.as_deref(), to, table, pref) {
            (Some(_), false, TABLE, _) if inverted && !others => Whose::Ours,
            _ if others || inverted => Whose::Foreign,
            (Some("lo"), false, TABLE, _) => Whose::Ours,
            (None, false, TABLE, _) if accepts == ANY_PREFIX && spared => Whose::Ours,
            (Some(_), false, TABLE_LOCAL, _) if accepts == ANY_PREFIX && spared => Whose::WayIn,
            (_, true, table, PREF_EARLIER) if is_earlier(table) => Whose::Oldest,
            (None, false, TABLE_LOCAL, 0) if accepts == 0 && spared => Whose::StandIn,
            (None, false, TABLE_LOCAL, _) if accepts == ANY_PREFIX => Whose::Local,
            _ => Whose::Foreign,
        };
        Self { pref, table, whose, spared, input, message }
    }

    /// Is it one of those that a [`Reach`] takes?
    fn is_own(&self) -> bool {
        matches!(self.whose, Whose::Ours | Whose::WayIn)
    }

    fn shape(&self) -> Shape<'_> {
        let inverted = self.message.header.flags.contains(RuleFlags::Invert);
        (self.table, self.input.as_deref(), inverted)
    }

    /// With this priority; the kernel does not list a priority of 0.
    fn at(&self, pref: u32) -> RuleMessage {
        let mut message = self.message.clone();
        message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Priority(_)));
        message.attributes.push(RuleAttribute::Priority(pref));
        message
    }

    fn is(&self, whose: Whose, pref: u32) -> bool {
        self.whose == whose && self.pref == pref
    }

    /// What a request names beside priority and table.
    fn names(&self) -> impl Iterator<Item = &RuleAttribute> {
        self.message.attributes.iter().filter(|attribute| {
            !matches!(
                attribute,
                RuleAttribute::Priority(_)
                    | RuleAttribute::Table(_)
                    | RuleAttribute::SuppressPrefixLen(ANY_PREFIX)
                    | RuleAttribute::Protocol(RouteProtocol::Unspec)
            )
        })
    }

    /// Does a request to delete `wanted` fit this rule (`rule_find` of the kernel's
    /// net/core/fib_rules.c)?
    fn fits(&self, wanted: &Self) -> bool {
        let (has, wants) = (&self.message.header, &wanted.message.header);
        self.pref == wanted.pref
            && self.table == wanted.table
            && has.action == wants.action
            && (wants.src_len == 0 || has.src_len == wants.src_len)
            && (wants.dst_len == 0 || has.dst_len == wants.dst_len)
            && (wants.tos == 0 || has.tos == wants.tos)
            && wanted.names().all(|attribute| self.message.attributes.contains(attribute))
    }

    /// The same rule, at whatever priority?
    fn is_copy_of(&self, other: &Self) -> bool {
        self.at(0) == other.at(0)
    }

    /// May the kernel have it at this priority? It leads to no rule before itself.
    fn may_be_at(&self, pref: u32) -> bool {
        let leads_back = |a: &RuleAttribute| matches!(a, RuleAttribute::Goto(to) if *to <= pref);
        !self.message.attributes.iter().any(leads_back)
    }
}

/// Is this the table of a group, as the oldest version had them?
pub(super) fn is_earlier(table: u32) -> bool {
    table.checked_sub(TABLE_EARLIER).is_some_and(|index| index < GROUPS_MAX)
}

/// Are there rules of an earlier version, which has moved the local table's?
pub(super) fn are_earlier(present: &[Rule]) -> bool {
    let has = |whose, pref| present.iter().any(|rule: &Rule| rule.is(whose, pref));
    has(Whose::Oldest, PREF_EARLIER)
        || (has(Whose::Ours, PREF_EARLIER) && has(Whose::Local, PREF_LOCAL_EARLIER))
}

/// A request to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Add this rule, if it is not there yet.
    Add(RuleMessage),
    /// Delete the first rule that fits this one, if there is one.
    Delete(RuleMessage),
}

/// A rule that is to have another priority.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Move {
    /// As it is.
    pub(super) from: RuleMessage,
    /// As it shall be.
    pub(super) to: RuleMessage,
    /// Was it added by a call that was cut off?
    pub(super) is_there: bool,
    table: u32,
    pref: u32,
}

/// Our rule can't come before the local table's without touching those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "put the routing rule for local clients before the local table's: the rule to table {table} at priority {pref} is in the way: give it a higher one"
)]
pub struct InTheWay {
    table: u32,
    pref: u32,
}

/// What a person is told of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Our rule comes before the local table's.
    Ordered,
    /// The rule to this table gets this priority.
    Numbered {
        /// The number of the table.
        table: u32,
        /// The priority.
        pref: u32,
    },
}

impl Told {
    /// What was done.
    pub(super) fn done(&self) -> String {
        match self {
            Self::Ordered => "put the routing rule for local clients before the local table's".into(),
            Self::Numbered { table, pref } => {
                format!(
                    "gave the routing rule to table {table}, which was added without a priority, the priority {pref}"
                )
            }
        }
    }

    /// What would be done.
    pub(super) fn would(&self) -> String {
        match self {
            Self::Ordered => {
                "the routing rule for local clients would be put before the local table's".into()
            }
            Self::Numbered { table, pref } => {
                format!(
                    "the routing rule to table {table}, which was added without a priority, would get the priority {pref}"
                )
            }
        }
    }
}

/// What brings the rules in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Order {
    /// First these: all that are not there are added, and then all deleted where they
    /// were.
    pub(super) moves: Vec<Move>,
    /// Must all of these succeed before the changes?
    pub(super) needs_moves: bool,
    /// Then these.
    pub(super) changes: Vec<Change>,
    /// Is our rule put before the local table's?
    is_ordered: bool,
}

impl Order {
    /// What a person is told of it.
    pub(super) fn told(&self) -> impl Iterator<Item = Told> {
        let numbered = self.moves.iter().map(|by| Told::Numbered { table: by.table, pref: by.pref });
        numbered.chain(self.is_ordered.then_some(Told::Ordered))
    }
}

/// A rule of ours at this priority, for this table.
fn own(pref: u32, table: u32, attribute: Option<RuleAttribute>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    let all = [RuleAttribute::Priority(pref), RuleAttribute::Table(table), RuleAttribute::Protocol(SPARED)];
    message.attributes.extend(all.into_iter().chain(attribute));
    message
}

fn ours(pref: u32, (table, input, inverted): Shape<'_>) -> RuleMessage {
    let mut message = own(pref, table, input.map(|name| RuleAttribute::Iifname(name.to_owned())));
    message.header.flags.set(RuleFlags::Invert, inverted);
    message
}

fn stand_in() -> RuleMessage {
    own(0, TABLE_LOCAL, Some(RuleAttribute::SuppressPrefixLen(0)))
}

/// A copy of the host's list, on which the changes are tried.
struct Plan {
    list: Vec<Rule>,
    order: Order,
}

impl Plan {
    fn new(present: &[Rule]) -> Self {
        Self { list: present.to_vec(), order: Order::default() }
    }

    fn insert(&mut self, message: &RuleMessage) {
        let rule = Rule::read(message.clone());
        if !self.list.iter().any(|there| there.pref == rule.pref && there.is_copy_of(&rule)) {
            let at = self.list.iter().position(|there| there.pref > rule.pref);
            self.list.insert(at.unwrap_or(self.list.len()), rule);
        }
    }

    fn add(&mut self, message: RuleMessage) {
        self.insert(&message);
        self.order.changes.push(Change::Add(message));
    }

    /// Deletes all such rules.
    fn delete(&mut self, goes: impl Fn(&Rule) -> bool) -> Result<(), InTheWay> {
        let going: Vec<_> = self.list.iter().filter(|rule| goes(rule)).cloned().collect();
        for rule in going {
            if let Some(other) = take(&mut self.list, &rule) {
                return Err(InTheWay { table: other.table, pref: other.pref });
            }
            self.order.changes.push(Change::Delete(rule.at(rule.pref)));
        }
        Ok(())
    }

    fn has(&self, whose: Whose, pref: u32) -> bool {
        self.list.iter().any(|rule| rule.is(whose, pref))
    }

    /// Gives rules of others, that have come to stand at our priority behind ours or the
    /// local table's, the priorities that the kernel would have given them without
    /// ours. Returns one that can't be moved.
    fn renumber(&mut self, pref: u32, was_ours: bool) -> Option<InTheWay> {
        let is_late = |rule: &&Rule| rule.whose == Whose::Foreign && rule.pref == pref;
        let begins = |rule: &Rule| rule.pref == pref && rule.whose != Whose::Foreign;
        let late: Vec<_> =
            self.list.iter().skip_while(|rule| !begins(rule)).filter(is_late).cloned().collect();
        let others = || self.list.iter().filter(|rule| rule.whose == Whose::Foreign && rule.pref > pref);
        let copies: Vec<_> = others().take(late.len()).cloned().collect();
        let is_done = |rule: &Rule| copies.iter().find(|copy| copy.is_copy_of(rule));
        let mut free = others().next().map_or(PREF_MAIN, |rule| rule.pref);
        let mut numbered: Vec<(Rule, u32, bool)> = Vec::new();
        // Each comes before the one that was added before it; but those that somebody
        // had put there before ours came keep their order.
        let forwards: Vec<_> = if was_ours { late.clone() } else { late.iter().rev().cloned().collect() };
        let mut stuck = None;
        for rule in forwards {
            let copy = is_done(&rule).map(|copy| copy.pref);
            let to = copy.unwrap_or(free.saturating_sub(1));
            if to <= pref || !rule.may_be_at(to) {
                stuck = stuck.or(Some(InTheWay { table: rule.table, pref }));
                continue;
            }
            free = free.min(to);
            numbered.push((rule, to, copy.is_some()));
        }
        // They are deleted as they stand in the list.
        let place = |rule: &Rule| late.iter().position(|other| other == rule);
        numbered.sort_by_key(|(rule, ..)| place(rule));
        for (rule, to, is_there) in numbered {
            if take(&mut self.list, &rule).is_some() {
                stuck = stuck.or(Some(InTheWay { table: rule.table, pref }));
                continue;
            }
            self.insert(&rule.at(to));
            let (from, table) = (rule.at(pref), rule.table);
            self.order.moves.push(Move { from, to: rule.at(to), is_there, table, pref: to });
        }
        stuck
    }
}

/// Takes from the list what a request to delete `rule` deletes; returns it, and
/// leaves it there, if that is another one.
fn take(list: &mut Vec<Rule>, rule: &Rule) -> Option<Rule> {
    let at = list.iter().position(|there| there.fits(rule))?;
    let first = list.get(at)?;
    if first != rule {
        return Some(first.clone());
    }
    list.remove(at);
    None
}

/// The priority of the local table's rule, or the one that it has to get because
/// one of our versions took it away, or it is nowhere: then this host receives
/// nothing.
fn pref_of_local(present: &[Rule], is_moved: bool) -> u32 {
    let local = present.iter().filter(|rule| rule.whose == Whose::Local).map(|rule| rule.pref).min();
    let stands_in = present.iter().any(|rule| rule.whose == Whose::StandIn);
    if is_moved || stands_in || are_earlier(present) { 0 } else { local.unwrap_or(0) }
}

/// Puts our rule right before the local table's, and removes those of earlier
/// versions; `is_moved` if one of these has moved the local table's rule.
pub(super) fn ordered(present: &[Rule], reach: &Reach, is_moved: bool) -> Result<Order, InTheWay> {
    let mut plan = Plan::new(present);
    let local = pref_of_local(present, is_moved);
    let pref = local.saturating_sub(1);
    let is_ours = |rule: &Rule| rule.is_own() && rule.pref == pref;
    let ours_at = present.iter().position(is_ours);
    let last_at = present.iter().rposition(is_ours);
    let local_at = present.iter().position(|rule| rule.is(Whose::Local, pref));
    let there = || present.iter().filter(|rule| is_ours(rule));
    let is_kept = there().all(|rule| rule.spared) && there().map(Rule::shape).eq(reach.shapes());
    let is_first = is_kept && last_at.zip(local_at).is_none_or(|(ours, local)| ours < local);
    // Above 0, only where ours is the first of all does the kernel put them there.
    let may_be_late = local == 0 || ours_at == Some(0);
    let stuck = may_be_late.then(|| plan.renumber(pref, ours_at.is_some())).flatten();
    let must_turn = !is_first && local == 0;
    if let Some(stuck) = stuck.filter(|_| must_turn) {
        return Err(stuck);
    }
    plan.order.needs_moves = must_turn;
    plan.order.is_ordered = !is_first;
    let own_local = present.iter().find(|rule| rule.is(Whose::Local, 0)).map(|rule| rule.at(0));
    let turns = must_turn && own_local.is_some();
    if turns {
        plan.add(stand_in());
    }
    if !is_first {
        plan.delete(|rule| rule.is_own() && rule.pref == pref)?;
    }
    if turns {
        // A request to delete it fits our rules to the local table, too.
        plan.delete(|rule| rule.is(Whose::Local, 0))?;
    }
    if !is_first {
        reach.shapes().into_iter().for_each(|shape| plan.add(ours(pref, shape)));
    }
    if local == 0 && !plan.has(Whose::Local, 0) {
        plan.add(own_local.unwrap_or_else(|| own(0, TABLE_LOCAL, None)));
    }
    plan.delete(|rule| rule.whose == Whose::StandIn)?;
    plan.delete(|rule| rule.is_own() && rule.pref != pref)?;
    delete_earlier(&mut plan, present, is_moved)?;
    Ok(plan.order)
}

/// Removes our rules, and leaves the local table's where the kernel has it, or
/// where an administrator has put it.
pub(super) fn removed(present: &[Rule], is_moved: bool) -> Result<Order, InTheWay> {
    let mut plan = Plan::new(present);
    let local = pref_of_local(present, is_moved);
    let is_ours = |rule: &Rule| rule.is_own() || matches!(rule.whose, Whose::StandIn | Whose::Oldest);
    let is_loaded = present.iter().any(is_ours);
    let may_be_late = is_loaded && (local == 0 || present.first().is_some_and(Rule::is_own));
    let stuck = may_be_late.then(|| plan.renumber(local.saturating_sub(1), true)).flatten();
    let lacks_local = local == 0 && !plan.has(Whose::Local, 0);
    let stands_in = plan.has(Whose::StandIn, 0);
    // Behind a rule that the stand-in comes before, the local table's would be too late.
    let stays = lacks_local && stands_in && stuck.is_some();
    if lacks_local && !stays {
        plan.order.needs_moves = stands_in;
        plan.add(own(0, TABLE_LOCAL, None));
    }
    if !stays {
        plan.delete(|rule| rule.whose == Whose::StandIn)?;
    }
    plan.delete(Rule::is_own)?;
    delete_earlier(&mut plan, present, is_moved)?;
    Ok(plan.order)
}

fn delete_earlier(plan: &mut Plan, present: &[Rule], is_moved: bool) -> Result<(), InTheWay> {
    let is_moved = is_moved || are_earlier(present);
    plan.delete(|rule| rule.whose == Whose::Oldest)?;
    plan.delete(|rule| is_moved && rule.is(Whose::Local, PREF_LOCAL_EARLIER))
}

#[cfg(test)]
mod tests;
