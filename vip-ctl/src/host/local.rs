//! Local clients follow the lease, by rules and one route per group.
//!
//! The VIP is local on every node, so a process on a standby would reach its
//! own host. A rule in front of the local table sends locally made packets to
//! the VIP to a table of the group's own: on a standby that says "out on the
//! wire", on the holder it is empty and the local table is next. The reverse
//! path check asks the same question with `iif lo`, so strict `rp_filter`
//! accepts the holder's replies.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    route::RouteScope,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use vip_common::{GroupIndex, layout::GROUPS_MAX};

use super::{HostError, Saved, Tried};

/// Priority of our rules: before the local table's.
const PREF_VIP: u32 = 50;
/// Where the local table's rule goes; it is at 0 by default.
const PREF_LOCAL: u32 = 100;
/// The table of group 0; a group's index is added ("vip" in ASCII).
const TABLE_BASE: u32 = 0x76_6970;
/// The kernel's own table of local addresses.
const TABLE_LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
/// Errno of a rule, route or address that is not there.
const ABSENT: [i32; 3] = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL];

/// Where the holder of a group is, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is this host: local clients stay here.
    Here,
    /// It is somebody on the wire: local clients leave by this interface,
    /// with this source address.
    Out {
        /// The interface.
        ifindex: u32,
        /// The node's own address; `None` leaves the choice to the kernel.
        source: Option<Ipv4Addr>,
    },
}

const fn table(group: GroupIndex) -> u32 {
    TABLE_BASE + group.0
}

/// A rule, reduced to what we ask of it.
struct Rule {
    message: RuleMessage,
    pref: u32,
    table: u32,
    to: Option<Ipv4Addr>,
}

impl Rule {
    fn is_ours(&self) -> bool {
        self.pref == PREF_VIP && (TABLE_BASE..TABLE_BASE + GROUPS_MAX).contains(&self.table)
    }

    fn is_local_at(&self, pref: u32) -> bool {
        self.pref == pref && self.to.is_none() && self.table == TABLE_LOCAL
    }
}

async fn rules(handle: &Handle) -> Result<Vec<Rule>, HostError> {
    let mut found = Vec::new();
    let mut rules = handle.rule().get(IpVersion::V4).execute();
    while let Some(message) = rules.try_next().await.tried(|| "list the routing rules".into())? {
        let mut rule = Rule { pref: 0, table: u32::from(message.header.table), to: None, message };
        for attribute in &rule.message.attributes {
            if let RuleAttribute::Priority(pref) = attribute {
                rule.pref = *pref;
            } else if let RuleAttribute::Table(table) = attribute {
                rule.table = *table;
            } else if let RuleAttribute::Destination(IpAddr::V4(to)) = attribute {
                rule.to = Some(*to);
            }
        }
        found.push(rule);
    }
    Ok(found)
}

/// Puts the rules for these VIPs in front of the local table.
pub(super) async fn ensure_rules(
    handle: &Handle,
    run_dir: &Path,
    saved: &mut Saved,
    vips: &BTreeMap<Ipv4Addr, GroupIndex>,
    done: &mut Vec<String>,
) -> Result<(), HostError> {
    let present = rules(handle).await?;
    if !present.iter().any(|r| r.is_local_at(PREF_LOCAL)) {
        add_local_rule(handle, PREF_LOCAL).await?;
    }
    if let Some(first) = present.iter().find(|r| r.is_local_at(0)) {
        saved.local_rule_moved = true;
        saved.write(run_dir)?;
        delete_rule(handle, first).await?;
        done.push(format!("moved the rule for the local table from 0 to {PREF_LOCAL}"));
    }
    for rule in present.iter().filter(|r| r.is_ours()) {
        // A VIP that changed its group has a rule to the old group's table.
        if let Some(to) = rule.to
            && vips.get(&to).is_some_and(|group| table(*group) != rule.table)
        {
            delete_rule(handle, rule).await?;
        }
    }
    for (vip, group) in vips {
        if present.iter().any(|r| r.is_ours() && r.to == Some(*vip) && r.table == table(*group)) {
            continue;
        }
        let added = handle
            .rule()
            .add()
            .v4()
            .input_interface("lo")
            .destination_prefix(*vip, 32)
            .priority(PREF_VIP)
            .table_id(table(*group))
            .action(RuleAction::ToTable)
            .execute()
            .await;
        unless(added, &[libc::EEXIST]).tried(|| format!("add the routing rule for {vip}"))?;
        done.push(format!("added the routing rule for {vip}"));
    }
    Ok(())
}

/// What [`ensure_rules`] would do, in sentences; a VIP that no map has yet has no group.
pub(super) async fn missing_rules(
    handle: &Handle,
    vips: &BTreeMap<Ipv4Addr, Option<GroupIndex>>,
) -> Result<Vec<String>, HostError> {
    let present = rules(handle).await?;
    let mut would = Vec::new();
    if present.iter().any(|r| r.is_local_at(0)) {
        would.push(format!("the rule for the local table would be moved from 0 to {PREF_LOCAL}"));
    }
    for (vip, group) in vips {
        let is_there = group.is_some_and(|group| {
            present.iter().any(|r| r.is_ours() && r.to == Some(*vip) && r.table == table(group))
        });
        if !is_there {
            would.push(format!("a routing rule for {vip} would be added"));
        }
    }
    Ok(would)
}

/// Removes our rules for the VIPs that `which` names.
pub(super) async fn delete_rules(handle: &Handle, which: impl Fn(Ipv4Addr) -> bool) -> Result<(), HostError> {
    for rule in rules(handle).await? {
        if rule.is_ours() && rule.to.is_some_and(&which) {
            delete_rule(handle, &rule).await?;
        }
    }
    Ok(())
}

/// Writes or removes the one route of a group's table.
pub(super) async fn place(handle: &Handle, group: GroupIndex, place: Place) -> Result<(), HostError> {
    let what = || format!("set the route of local clients (table {})", table(group));
    match place {
        Place::Here => {
            // "Nowhere" is the kernel's word for any scope; another one would not match.
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .table_id(table(group))
                .scope(RouteScope::NoWhere)
                .build();
            unless(handle.route().del(route).execute().await, &ABSENT).tried(what)
        }
        Place::Out { ifindex, source } => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .table_id(table(group))
                .output_interface(ifindex)
                .scope(RouteScope::Link);
            if let Some(source) = source {
                route = route.pref_source(source);
            }
            handle.route().add(route.build()).replace().execute().await.tried(what)
        }
    }
}

/// Removes our rules and routes, and puts the local table's rule back.
pub(super) async fn restore(handle: &Handle, saved: &mut Saved) -> Result<(), HostError> {
    let present = rules(handle).await?;
    if saved.local_rule_moved {
        if !present.iter().any(|r| r.is_local_at(0)) {
            add_local_rule(handle, 0).await?;
        }
        for rule in present.iter().filter(|r| r.is_local_at(PREF_LOCAL)) {
            delete_rule(handle, rule).await?;
        }
        saved.local_rule_moved = false;
    }
    for rule in present.iter().filter(|r| r.is_ours()) {
        delete_rule(handle, rule).await?;
        place(handle, GroupIndex(rule.table - TABLE_BASE), Place::Here).await?;
    }
    Ok(())
}

async fn add_local_rule(handle: &Handle, pref: u32) -> Result<(), HostError> {
    let added = handle
        .rule()
        .add()
        .v4()
        .priority(pref)
        .table_id(TABLE_LOCAL)
        .action(RuleAction::ToTable)
        .execute()
        .await;
    unless(added, &[libc::EEXIST]).tried(|| format!("add a rule for the local table at {pref}"))
}

async fn delete_rule(handle: &Handle, rule: &Rule) -> Result<(), HostError> {
    let deleted = handle.rule().del(rule.message.clone()).execute().await;
    unless(deleted, &ABSENT).tried(|| format!("delete the routing rule at {}", rule.pref))
}

/// Lets the named errnos pass as success.
fn unless(result: Result<(), rtnetlink::Error>, fine: &[i32]) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message))
            if message.code.is_some_and(|code| fine.contains(&-code.get())) =>
        {
            Ok(())
        }
        other => other,
    }
}
