//! Local clients follow the lease, by rules and one route per group.
//!
//! The VIP is local on every node, so a process on a standby would reach its
//! own host. A rule in front of the local table sends locally made packets to
//! the VIP to a table of the group's own: on a standby that says "out on the
//! wire", on the holder it is empty and the local table is next. The reverse
//! path check asks the same question with `iif lo`, so strict `rp_filter`
//! accepts the holder's replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder, RuleAddRequest};
use vip_common::{GroupIndex, layout::GROUPS_MAX};

use super::{HostError, Saved, Tried};

/// Priority of our rules: before the local table's.
const PREF_VIP: u32 = 50;
/// Where the local table's rule goes; it is at 0 by default.
const PREF_LOCAL: u32 = 100;
/// The table of group 0; a group's index is added ("vip" in ASCII).
const TABLE_BASE: u32 = 0x76_6970;
/// Whose work our rules and routes are said to be: networkd drops on its start
/// what it does not know, except for the kernel's. Without a rule for the local
/// table a host hears nobody.
const SPARED: RouteProtocol = RouteProtocol::Kernel;
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

fn group_of(table: u32) -> Option<GroupIndex> {
    table.checked_sub(TABLE_BASE).filter(|index| *index < GROUPS_MAX).map(GroupIndex)
}

/// A rule, reduced to what we ask of it.
struct Rule {
    message: RuleMessage,
    pref: u32,
    table: u32,
    to: Option<Ipv4Addr>,
    /// See [`SPARED`].
    spared: bool,
}

impl Rule {
    fn is_ours(&self) -> bool {
        self.pref == PREF_VIP && group_of(self.table).is_some()
    }

    fn is_local_at(&self, pref: u32) -> bool {
        self.pref == pref && self.to.is_none() && self.table == TABLE_LOCAL
    }
}

async fn rules(handle: &Handle) -> Result<Vec<Rule>, HostError> {
    let mut found = Vec::new();
    let mut rules = handle.rule().get(IpVersion::V4).execute();
    while let Some(message) = rules.try_next().await.tried(|| "list the routing rules".into())? {
        let table = u32::from(message.header.table);
        let mut rule = Rule { pref: 0, table, to: None, spared: false, message };
        for attribute in &rule.message.attributes {
            if let RuleAttribute::Priority(pref) = attribute {
                rule.pref = *pref;
            } else if let RuleAttribute::Table(table) = attribute {
                rule.table = *table;
            } else if let RuleAttribute::Destination(IpAddr::V4(to)) = attribute {
                rule.to = Some(*to);
            } else if let RuleAttribute::Protocol(protocol) = attribute {
                rule.spared = *protocol == SPARED;
            }
        }
        found.push(rule);
    }
    Ok(found)
}

/// Writing the host's rules.
pub(super) struct Rules<'h> {
    pub(super) handle: &'h Handle,
    /// Called between steps.
    pub(super) beat: fn(),
}

impl Rules<'_> {
    /// Puts the rules for these VIPs in front of the local table.
    pub(super) async fn ensure(
        &self,
        saved: &mut Saved,
        save: impl Fn(&Saved) -> Result<(), HostError>,
        vips: &BTreeMap<Ipv4Addr, GroupIndex>,
        done: &mut Vec<String>,
    ) -> Result<(), HostError> {
        let present = rules(self.handle).await?;
        self.ensure_local(&present, done).await?;
        if let Some(first) = present.iter().find(|r| r.is_local_at(0)) {
            if !saved.local_rule_moved {
                saved.local_rule_moved = true;
                save(saved)?;
            }
            self.delete_one(first).await?;
            done.push(format!("moved the rule for the local table from 0 to {PREF_LOCAL}"));
        }
        let mut there = BTreeSet::new();
        for rule in present.iter().filter(|r| r.is_ours()) {
            let Some(to) = rule.to else { continue };
            let wanted = vips.get(&to).map(|group| table(*group));
            // A VIP that changed its group has a rule to the old group's table,
            // and an earlier version's would be tidied away.
            if wanted.is_some_and(|table| table != rule.table || !rule.spared) {
                self.delete_one(rule).await?;
            } else {
                there.insert((to, rule.table));
            }
        }
        for (vip, group) in vips.iter().filter(|(vip, group)| !there.contains(&(**vip, table(**group)))) {
            let request = self.handle.rule().add().v4().input_interface("lo").destination_prefix(*vip, 32);
            let request = request.priority(PREF_VIP).table_id(table(*group));
            self.add(request).await.tried(|| format!("add the routing rule for {vip}"))?;
            done.push(format!("added the routing rule for {vip}"));
        }
        Ok(())
    }

    /// Puts the local table's rule behind ours; one of an earlier version is
    /// replaced.
    async fn ensure_local(&self, present: &[Rule], done: &mut Vec<String>) -> Result<(), HostError> {
        if present.iter().any(|r| r.is_local_at(PREF_LOCAL) && r.spared) {
            return Ok(());
        }
        self.add_local(PREF_LOCAL).await?;
        let older = present.iter().filter(|r| r.is_local_at(PREF_LOCAL) && !r.spared);
        let mut replaced = false;
        for rule in older {
            replaced = true;
            self.delete_one(rule).await?;
        }
        if replaced {
            // The kernel deletes the first that fits, and a rule without a
            // protocol fits any.
            self.add_local(PREF_LOCAL).await?;
            done.push(format!("marked the rule for the local table at {PREF_LOCAL} as one to be spared"));
        }
        Ok(())
    }

    /// Removes our rules for the VIPs that `which` names.
    pub(super) async fn delete(&self, which: impl Fn(Ipv4Addr) -> bool) -> Result<(), HostError> {
        for rule in rules(self.handle).await? {
            if rule.is_ours() && rule.to.is_some_and(&which) {
                self.delete_one(&rule).await?;
            }
        }
        Ok(())
    }

    /// Removes our rules and routes, and puts the local table's rule back.
    pub(super) async fn restore(&self, saved: &mut Saved) -> Result<(), HostError> {
        let present = rules(self.handle).await?;
        if saved.local_rule_moved {
            if !present.iter().any(|r| r.is_local_at(0)) {
                self.add_local(0).await?;
            }
            for rule in present.iter().filter(|r| r.is_local_at(PREF_LOCAL)) {
                self.delete_one(rule).await?;
            }
            saved.local_rule_moved = false;
        }
        for rule in present.iter().filter(|r| r.is_ours()) {
            self.delete_one(rule).await?;
        }
        for group in routes(self.handle).await?.into_keys() {
            place(self.handle, group, Place::Here).await?;
            (self.beat)();
        }
        Ok(())
    }

    async fn add_local(&self, pref: u32) -> Result<(), HostError> {
        let request = self.handle.rule().add().v4().priority(pref).table_id(TABLE_LOCAL);
        self.add(request).await.tried(|| format!("add a rule for the local table at {pref}"))
    }

    /// Adds a rule; that it is there already is no error.
    async fn add(&self, request: RuleAddRequest<Ipv4Addr>) -> Result<(), rtnetlink::Error> {
        let mut request = request.action(RuleAction::ToTable);
        request.message_mut().attributes.push(RuleAttribute::Protocol(SPARED));
        (self.beat)();
        unless(request.execute().await, &[libc::EEXIST])
    }

    async fn delete_one(&self, rule: &Rule) -> Result<(), HostError> {
        let deleted = self.handle.rule().del(rule.message.clone()).execute().await;
        (self.beat)();
        unless(deleted, &ABSENT).tried(|| format!("delete the routing rule at {}", rule.pref))
    }
}

/// What [`Rules::ensure`] would do, in sentences; a VIP that no map has yet has no group.
pub(super) async fn missing_rules(
    handle: &Handle,
    vips: &BTreeMap<Ipv4Addr, Option<GroupIndex>>,
) -> Result<Vec<String>, HostError> {
    let present = rules(handle).await?;
    let mut would = Vec::new();
    if present.iter().any(|r| r.is_local_at(0)) {
        would.push(format!("the rule for the local table would be moved from 0 to {PREF_LOCAL}"));
    }
    let there: BTreeSet<_> = present.iter().filter(|r| r.is_ours()).map(|r| (r.to, r.table)).collect();
    for (vip, group) in vips {
        if !group.is_some_and(|group| there.contains(&(Some(*vip), table(group)))) {
            would.push(format!("a routing rule for {vip} would be added"));
        }
    }
    Ok(would)
}

/// Writes or removes the one route of a group's table.
pub(super) async fn place(handle: &Handle, group: GroupIndex, place: Place) -> Result<(), HostError> {
    let what = || format!("set the route of local clients (table {})", table(group));
    match place {
        Place::Here => {
            // "Nowhere" is the kernel's word for any scope, "unspec" for anybody's.
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .table_id(table(group))
                .scope(RouteScope::NoWhere)
                .protocol(RouteProtocol::Unspec)
                .build();
            unless(handle.route().del(route).execute().await, &ABSENT).tried(what)
        }
        Place::Out { ifindex, source } => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .table_id(table(group))
                .output_interface(ifindex)
                .scope(RouteScope::Link)
                .protocol(SPARED);
            if let Some(source) = source {
                route = route.pref_source(source);
            }
            handle.route().add(route.build()).replace().execute().await.tried(what)
        }
    }
}

/// Where the routes in our tables let local clients go; `None` for one that we
/// would write in another way.
pub(super) async fn routes(handle: &Handle) -> Result<BTreeMap<GroupIndex, Option<Place>>, HostError> {
    let mut found = BTreeMap::new();
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(all).execute();
    while let Some(route) = routes.try_next().await.tried(|| "list the routes".into())? {
        let Some(group) = group_of_route(&route) else { continue };
        let (mut out, mut source) = (None, None);
        for attribute in &route.attributes {
            if let RouteAttribute::Oif(ifindex) = attribute {
                out = Some(*ifindex);
            } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
                source = Some(*address);
            }
        }
        let is_whole = route.header.destination_prefix_length == 0 && route.header.protocol == SPARED;
        let place = out.filter(|_| is_whole).map(|ifindex| Place::Out { ifindex, source });
        // More than one is somebody else's work, and written anew.
        found.entry(group).and_modify(|known| *known = None).or_insert(place);
    }
    Ok(found)
}

/// The group whose table this route is in.
pub(super) fn group_of_route(route: &RouteMessage) -> Option<GroupIndex> {
    route
        .attributes
        .iter()
        .find_map(|a| if let RouteAttribute::Table(table) = a { group_of(*table) } else { None })
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
