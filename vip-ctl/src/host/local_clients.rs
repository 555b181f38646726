//! Makes local clients follow the lease, by one rule and a route per VIP.
//!
//! The VIP is local on every node, so a process on a standby would reach its own
//! host. A rule in front of the local table sends locally made packets to a table
//! of our own. For a VIP that another node holds, that table says "out on the
//! wire"; for all other addresses it has no route, and the local table is next.
//! The reverse path check asks the same question with `iif lo`, so strict
//! `rp_filter` accepts the holder's replies.
//!
//! The kernel goes through rules one by one, for each packet of the host, and
//! looks routes up in a trie: so there is one rule, however many VIPs.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder, RuleAddRequest};
use vip_common::layout::GROUPS_MAX;

use super::{HostError, Saved, Tried, whole};

/// Priority of our rules: before the local table's.
const PREF_VIP: u32 = 50;
/// Where the local table's rule goes; it is at 0 by default.
const PREF_LOCAL: u32 = 100;
/// The table of our routes ("VIP" in ASCII).
const TABLE: u32 = 0x56_4950;
/// An earlier version had a rule per VIP at [`PREF_VIP`], to a table per group:
/// this one and the group's index.
const TABLE_EARLIER: u32 = 0x76_6970;
/// The protocol that our rules and routes name as their owner: at its start
/// networkd removes what it does not know, except for the kernel's. Without a
/// rule for the local table a host receives nothing.
const SPARED: RouteProtocol = RouteProtocol::Kernel;
/// The kernel's own table of local addresses.
const TABLE_LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
/// Error numbers of the kernel for a rule, route or address that does not exist.
const ABSENT: [i32; 3] = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL];

/// Where local clients of a VIP go on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The holder is this host: local clients stay here.
    Here,
    /// Another host holds the VIP: local clients leave by this interface, with
    /// this source address.
    Out {
        /// The interface.
        ifindex: u32,
        /// The node's own address; `None` leaves the choice to the kernel.
        source: Option<IpAddr>,
    },
}

fn is_earlier(table: u32) -> bool {
    table.checked_sub(TABLE_EARLIER).is_some_and(|index| index < GROUPS_MAX)
}

/// The fields of a rule that matter here.
struct Rule {
    message: RuleMessage,
    pref: u32,
    table: u32,
    to: Option<IpAddr>,
    /// See [`SPARED`].
    spared: bool,
}

impl Rule {
    /// Does it lead to our table, as only our own rule does?
    fn is_ours(&self) -> bool {
        self.pref == PREF_VIP && self.table == TABLE
    }

    /// Is it from an earlier version?
    fn is_earlier(&self) -> bool {
        self.pref == PREF_VIP && self.to.is_some() && is_earlier(self.table)
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
            } else if let RuleAttribute::Destination(to) = attribute {
                rule.to = Some(*to);
            } else if let RuleAttribute::Protocol(protocol) = attribute {
                rule.spared = *protocol == SPARED;
            }
        }
        found.push(rule);
    }
    Ok(found)
}

/// Writes the host's rules.
pub(super) struct Rules<'h> {
    pub(super) handle: &'h Handle,
    /// Called between steps.
    pub(super) beat: fn(),
}

impl Rules<'_> {
    /// Puts our rule in front of the local table, and removes those of an earlier
    /// version; so the routes of VIPs that other nodes hold must be there
    /// already.
    pub(super) async fn ensure(
        &self,
        saved: &mut Saved,
        save: impl Fn(&Saved) -> Result<(), HostError>,
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
        if !present.iter().any(|r| r.is_ours() && r.spared) {
            // Our rule in a form that networkd would remove.
            for rule in present.iter().filter(|r| r.is_ours()) {
                self.delete_one(rule).await?;
            }
            let request = self.handle.rule().add().v4().input_interface("lo");
            let request = request.priority(PREF_VIP).table_id(TABLE);
            self.add(request).await.tried(|| "add the routing rule for local clients".into())?;
            done.push("added the routing rule for local clients".into());
        }
        self.delete_earlier(&present).await
    }

    /// Removes the rules and routes of an earlier version.
    async fn delete_earlier(&self, present: &[Rule]) -> Result<(), HostError> {
        let mut earlier = present.iter().filter(|r| r.is_earlier()).peekable();
        if earlier.peek().is_none() {
            return Ok(());
        }
        for rule in earlier {
            self.delete_one(rule).await?;
        }
        self.delete_routes(is_earlier).await
    }

    /// Removes all routes from these tables.
    async fn delete_routes(&self, is_meant: impl Fn(u32) -> bool) -> Result<(), HostError> {
        for route in all_routes(self.handle).await? {
            if table_of(&route).is_some_and(&is_meant) {
                let deleted = self.handle.route().del(route).execute().await;
                (self.beat)();
                unless(deleted, &ABSENT).tried(|| "delete a route of local clients".into())?;
            }
        }
        Ok(())
    }

    /// Puts the local table's rule behind ours, and replaces one of an earlier
    /// version.
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
            // Again: a deletion may have hit it, since the kernel deletes the first
            // rule that matches, and a rule without a protocol matches any.
            self.add_local(PREF_LOCAL).await?;
            done.push(format!(
                "marked the rule for the local table at {PREF_LOCAL} so that networkd spares it"
            ));
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
        for rule in present.iter().filter(|r| r.is_ours() || r.is_earlier()) {
            self.delete_one(rule).await?;
        }
        self.delete_routes(|table| table == TABLE || is_earlier(table)).await
    }

    async fn add_local(&self, pref: u32) -> Result<(), HostError> {
        let request = self.handle.rule().add().v4().priority(pref).table_id(TABLE_LOCAL);
        self.add(request).await.tried(|| format!("add a rule for the local table at {pref}"))
    }

    /// Adds a rule; succeeds if it is there already.
    async fn add<T>(&self, request: RuleAddRequest<T>) -> Result<(), rtnetlink::Error> {
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

/// What [`Rules::ensure`] would do, in sentences.
pub(super) async fn missing_rules(handle: &Handle) -> Result<Vec<String>, HostError> {
    let present = rules(handle).await?;
    let mut would = Vec::new();
    if present.iter().any(|r| r.is_local_at(0)) {
        would.push(format!("the rule for the local table would be moved from 0 to {PREF_LOCAL}"));
    }
    if !present.iter().any(|r| r.is_ours() && r.spared) {
        would.push("the routing rule for local clients would be added".into());
    }
    Ok(would)
}

/// Writes or removes the route of a VIP's local clients.
pub(super) async fn place(handle: &Handle, vip: IpAddr, place: Place) -> Result<(), HostError> {
    let what = || format!("set the route of local clients of {vip} (table {TABLE})");
    let route = route(vip, place).map_err(|e| HostError::io(what(), e))?;
    match place {
        Place::Here => unless(handle.route().del(route).execute().await, &ABSENT).tried(what),
        Place::Out { .. } => handle.route().add(route).replace().execute().await.tried(what),
    }
}

/// The route of a VIP's local clients; for [`Place::Here`] the one to remove.
///
/// # Errors
/// If the VIP and the source address are of two families.
fn route(vip: IpAddr, place: Place) -> io::Result<RouteMessage> {
    let route = RouteMessageBuilder::<IpAddr>::new().table_id(TABLE);
    let route = route.destination_prefix(vip, whole(vip)).map_err(io::Error::other)?;
    let route = match place {
        // "Nowhere" is the kernel's word for any scope, "unspec" for anybody's.
        Place::Here => route.scope(RouteScope::NoWhere).protocol(RouteProtocol::Unspec),
        Place::Out { ifindex, source } => {
            let route = route.output_interface(ifindex).scope(RouteScope::Link).protocol(SPARED);
            match source {
                Some(source) => route.pref_source(source).map_err(io::Error::other)?,
                None => route,
            }
        }
    };
    Ok(route.build())
}

/// The routes of all tables: those of IPv4, as our rule is.
async fn all_routes(handle: &Handle) -> Result<Vec<RouteMessage>, HostError> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    handle.route().get(all).execute().try_collect().await.tried(|| "list the routes".into())
}

/// By VIP, where the routes in our table let local clients go; `None` for a route
/// that we would write differently.
pub(super) async fn routes(handle: &Handle) -> Result<BTreeMap<IpAddr, Option<Place>>, HostError> {
    let mut found = BTreeMap::new();
    for route in all_routes(handle).await? {
        let Some(vip) = vip_of_route(&route) else { continue };
        let (mut out, mut source) = (None, None);
        for attribute in &route.attributes {
            if let RouteAttribute::Oif(ifindex) = attribute {
                out = Some(*ifindex);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                source = ip_of(address);
            }
        }
        let place = out.filter(|_| route.header.protocol == SPARED);
        let place = place.map(|ifindex| Place::Out { ifindex, source });
        // Somebody else has added another route: this one must be written again.
        found.entry(vip).and_modify(|known| *known = None).or_insert(place);
    }
    Ok(found)
}

fn table_of(route: &RouteMessage) -> Option<u32> {
    let table = |a: &RouteAttribute| if let RouteAttribute::Table(table) = a { Some(*table) } else { None };
    route.attributes.iter().find_map(table)
}

/// The VIP whose local clients this route is for.
pub(super) fn vip_of_route(route: &RouteMessage) -> Option<IpAddr> {
    if table_of(route) != Some(TABLE) {
        return None;
    }
    let to = route
        .attributes
        .iter()
        .find_map(|a| if let RouteAttribute::Destination(to) = a { ip_of(to) } else { None });
    to.filter(|vip| route.header.destination_prefix_length == whole(*vip))
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let RouteAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}

/// Treats these error numbers as success.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_of_its_vips_family() {
        let (vip, source) = (Ipv4Addr::new(10, 0, 1, 12), Ipv4Addr::new(10, 0, 1, 3));
        let out = |source: &str| Place::Out { ifindex: 7, source: Some(source.parse().unwrap()) };
        let written = route(vip.into(), out("10.0.1.3")).unwrap();
        let wanted = RouteMessageBuilder::<Ipv4Addr>::new().table_id(TABLE).destination_prefix(vip, 32);
        let wanted = wanted.output_interface(7).scope(RouteScope::Link).protocol(SPARED).pref_source(source);
        assert_eq!(written, wanted.build());
        assert_eq!(vip_of_route(&written), Some(vip.into()));
        let other = "2001:db8::12".parse().unwrap();
        assert_eq!(vip_of_route(&route(other, out("2001:db8::3")).unwrap()), Some(other));
        assert!(route(other, out("10.0.1.3")).is_err() && route(vip.into(), out("2001:db8::3")).is_err());
    }
}
