//! The order of the host's routing rules: ours comes right before the one for
//! the local table, and both before everybody else's, where the kernel has the
//! local table's by default (priority 0, ip-rule(8)).
//!
//! The kernel adds a rule behind all others of its priority, so ours gets there
//! by a stand-in for the local table's, which is deleted and added again. While
//! that lasts, and wherever it is cut off, the host has a rule for its local table,
//! and the next call goes on from there.
//!
//! A rule that is added without a priority gets the one that the second rule of
//! the list has, less one; with ours in the list that is 0. Such rules are given
//! the priority that the kernel would have given them without ours.

use netlink_packet_route::{
    AddressFamily,
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

/// Whose a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Ours, at priority 0.
    Ours,
    /// Of an earlier version.
    Earlier,
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
                input = Some(name.as_str());
            } else if matches!(attribute, RuleAttribute::Destination(_)) {
                to = true;
            } else {
                others = true;
            }
        }
        let header = &message.header;
        others |= header.action != RuleAction::ToTable || header.tos != 0 || header.src_len != 0;
        others |= header.flags.contains(RuleFlags::Invert);
        let whose = match (input, to, table, pref) {
            _ if others => Whose::Foreign,
            (Some("lo"), false, TABLE, 0) => Whose::Ours,
            (Some("lo"), false, TABLE, PREF_EARLIER) => Whose::Earlier,
            (_, true, table, PREF_EARLIER) if is_earlier(table) => Whose::Earlier,
            (None, false, TABLE_LOCAL, 0) if accepts == 0 => Whose::StandIn,
            (None, false, TABLE_LOCAL, _) if accepts == ANY_PREFIX => Whose::Local,
            _ => Whose::Foreign,
        };
        Self { pref, table, whose, spared, message }
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
}

/// Is this the table of a group, as the oldest version had them?
pub(super) fn is_earlier(table: u32) -> bool {
    table.checked_sub(TABLE_EARLIER).is_some_and(|index| index < GROUPS_MAX)
}

/// A request to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// Add this rule, if it is not there yet.
    Add(RuleMessage),
    /// Delete the first rule that is like this one, if there is one.
    Delete(RuleMessage),
}

/// Rules without a priority of their own stand at 0, and the rule with the
/// lowest priority leaves no number for them below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "put the routing rule for local clients before the local table's: the rule to table {table} has the priority 0 as well, and none is free below {lowest}: give the rule at {lowest} a higher one"
)]
pub struct NoRoom {
    table: u32,
    lowest: u32,
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
                format!("gave the routing rule to table {table} the priority {pref} instead of 0")
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
                format!("the routing rule to table {table} would get the priority {pref} instead of 0")
            }
        }
    }
}

/// What brings the rules in order, and what of it a person is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Order {
    pub(super) changes: Vec<Change>,
    pub(super) told: Vec<Told>,
}

impl Order {
    fn add(&mut self, message: RuleMessage) {
        self.changes.push(Change::Add(message));
    }

    fn delete(&mut self, rule: &Rule) {
        self.changes.push(Change::Delete(rule.at(rule.pref)));
    }

    fn delete_all(&mut self, rules: &[Rule], goes: impl Fn(&Rule) -> bool) {
        rules.iter().filter(|rule| goes(rule)).for_each(|rule| self.delete(rule));
    }

    fn add_local(&mut self) {
        self.add(first(TABLE_LOCAL, None));
    }

    fn delete_stand_in(&mut self) {
        self.changes.push(Change::Delete(stand_in()));
    }
}

/// A rule at priority 0 for this table.
fn first(table: u32, attribute: Option<RuleAttribute>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    let all = [RuleAttribute::Priority(0), RuleAttribute::Table(table), RuleAttribute::Protocol(SPARED)];
    message.attributes.extend(all.into_iter().chain(attribute));
    message
}

fn ours() -> RuleMessage {
    first(TABLE, Some(RuleAttribute::Iifname("lo".into())))
}

fn stand_in() -> RuleMessage {
    first(TABLE_LOCAL, Some(RuleAttribute::SuppressPrefixLen(0)))
}

/// Puts our rule right before the local table's, and removes those of earlier
/// versions; `is_moved` if one of these has moved the local table's rule.
///
/// Where an administrator has moved the local table's rule, as for VRFs, it stays
/// there.
pub(super) fn ordered(present: &[Rule], is_moved: bool) -> Result<Order, NoRoom> {
    let mut order = Order::default();
    let place = |whose| present.iter().position(|rule| rule.is(whose, 0));
    let (ours_at, local_at) = (place(Whose::Ours), place(Whose::Local));
    let is_kept = ours_at.is_some_and(|at| present.get(at).is_some_and(|rule| rule.spared));
    let is_first = is_kept && ours_at.zip(local_at).is_none_or(|(ours, local)| ours < local);
    match renumber(present, &mut order) {
        Err(e) if !is_first => return Err(e),
        // They come behind the local table's, as they should, if in another order.
        Ok(()) | Err(_) => {}
    }
    if !is_first {
        order.told.push(Told::Ordered);
        if local_at.is_some() {
            order.add(stand_in());
            order.delete_all(present, |rule| rule.is(Whose::Local, 0));
        }
        order.delete_all(present, |rule| rule.is(Whose::Ours, 0));
        order.add(ours());
    }
    let stands_in = place(Whose::StandIn).is_some();
    let lacks_local = local_at.is_none() && must_be_at_zero(present, is_moved);
    if lacks_local || !is_first && local_at.is_some() {
        order.add_local();
    }
    if stands_in || !is_first && local_at.is_some() {
        order.delete_stand_in();
    }
    delete_earlier(present, is_moved, &mut order);
    Ok(order)
}

/// Removes our rules, and leaves the local table's where the kernel has it, or
/// where an administrator has put it.
pub(super) fn removed(present: &[Rule], is_moved: bool) -> Order {
    let mut order = Order::default();
    let has_room = renumber(present, &mut order).is_ok();
    let has_local = present.iter().any(|rule| rule.is(Whose::Local, 0));
    let stands_in = present.iter().any(|rule| rule.whose == Whose::StandIn);
    let lacks_local = !has_local && must_be_at_zero(present, is_moved);
    // Without room it would come behind rules that the stand-in comes before.
    if lacks_local && (has_room || !stands_in) {
        order.add_local();
    }
    if stands_in && (has_room || has_local) {
        order.delete_stand_in();
    }
    order.delete_all(present, |rule| rule.is(Whose::Ours, 0));
    delete_earlier(present, is_moved, &mut order);
    order
}

/// True if one of our versions took the local table's rule from priority 0, or
/// there is none at all: then this host receives nothing.
fn must_be_at_zero(present: &[Rule], is_moved: bool) -> bool {
    let is_ours = |rule: &Rule| matches!(rule.whose, Whose::StandIn | Whose::Earlier);
    is_moved || present.iter().any(is_ours) || !present.iter().any(|rule| rule.whose == Whose::Local)
}

/// Are there rules of an earlier version?
pub(super) fn are_earlier(present: &[Rule]) -> bool {
    present.iter().any(|rule| rule.whose == Whose::Earlier)
}

fn delete_earlier(present: &[Rule], is_moved: bool, order: &mut Order) {
    let is_moved = is_moved || are_earlier(present);
    order.delete_all(present, |rule| rule.whose == Whose::Earlier);
    order.delete_all(present, |rule| is_moved && rule.is(Whose::Local, PREF_LOCAL_EARLIER));
}

/// Gives the rules of others that stand at 0 behind ours or the local table's the
/// priority that the kernel would have given them.
fn renumber(present: &[Rule], order: &mut Order) -> Result<(), NoRoom> {
    let at_zero = || present.iter().filter(|rule| rule.pref == 0);
    let mut late: Vec<_> = at_zero()
        .skip_while(|rule| rule.whose == Whose::Foreign)
        .filter(|r| r.whose == Whose::Foreign)
        .collect();
    if !present.iter().any(|rule| rule.is(Whose::Ours, 0)) {
        // Somebody has given them that priority, and they keep their order; else
        // each comes before the one that was added before it.
        late.reverse();
    }
    let is_moved = are_earlier(present);
    let counts = |rule: &&Rule| match rule.whose {
        Whose::Foreign => true,
        Whose::Local => !is_moved,
        Whose::Ours | Whose::StandIn | Whose::Earlier => false,
    };
    let lowest = present.iter().filter(counts).map(|rule| rule.pref).filter(|pref| *pref > 0).min();
    let lowest = lowest.unwrap_or(PREF_MAIN);
    let mut free = lowest;
    for rule in late {
        free -= 1;
        if free == 0 {
            return Err(NoRoom { table: rule.table, lowest });
        }
        order.add(rule.at(free));
        order.delete(rule);
        order.told.push(Told::Numbered { table: rule.table, pref: free });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
