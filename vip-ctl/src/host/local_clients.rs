//! Makes local clients follow the lease, by one rule and a route per VIP.
//!
//! The VIP is local on every node, so a process on a standby would reach its own
//! host. A rule in front of the local table sends locally made packets to a table
//! of our own. For a VIP that another node holds, that table says "out on the
//! wire"; for all other addresses it has no route, and the local table is next.
//! The reverse path check asks the same question with `iif lo`, so strict
//! `rp_filter` accepts the holder's replies. Where packets to a VIP come in by the guarded
//! interfaces alone, the rule is for whatever comes in by any other ([`Reach`]): the host's
//! containers and what it routes reach the holder, too.
//!
//! The kernel goes through rules one by one, for each packet of the host, and
//! looks routes up in a trie: so there is one rule, however many VIPs, and one more for each
//! of several guarded interfaces.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    rule::RuleMessage,
};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use tracing::warn;

use super::{
    HostError, Saved, Tried,
    rules::{self, Change, Move, Order, Reach, Rule},
    whole,
};

/// The table of our routes ("VIP" in ASCII).
pub(super) const TABLE: u32 = 0x56_4950;
/// The protocol that our rules and routes name as their owner: at its start
/// networkd removes what it does not know, except for the kernel's. Without a
/// rule for the local table a host receives nothing.
pub(super) const SPARED: RouteProtocol = RouteProtocol::Kernel;
/// Error numbers of the kernel for a rule, route or address that does not exist.
pub(super) const ABSENT: [i32; 3] = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL];

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

/// Lists the host's rules, in the order in which the kernel goes through them.
async fn rules(handle: &Handle) -> Result<Vec<Rule>, HostError> {
    let listed = handle.rule().get(IpVersion::V4).execute();
    listed.map_ok(Rule::read).try_collect().await.tried(|| "list the routing rules".into())
}

/// Writes the host's rules.
pub(super) struct Rules<'h> {
    pub(super) handle: &'h Handle,
    /// Called between steps.
    pub(super) beat: fn(),
}

impl Rules<'_> {
    /// Puts our rule right before the local table's, and removes those of an
    /// earlier version; so the routes of VIPs that other nodes hold must be there
    /// already.
    pub(super) async fn ensure(
        &self,
        reach: &Reach,
        saved: &mut Saved,
        save: impl Fn(&Saved) -> Result<(), HostError>,
        done: &mut Vec<String>,
    ) -> Result<(), HostError> {
        let present = rules(self.handle).await?;
        let order = rules::ordered(&present, reach, saved.local_rule_moved)?;
        self.make(&order).await?;
        done.extend(order.told().map(|told| told.done()));
        if saved.local_rule_moved || rules::are_earlier(&present) {
            self.delete_routes(rules::is_earlier).await?;
            saved.local_rule_moved = false;
            save(saved)?;
        }
        Ok(())
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

    /// Removes our rules and routes.
    pub(super) async fn restore(&self, saved: &mut Saved) -> Result<(), HostError> {
        let order = rules::removed(&rules(self.handle).await?, saved.local_rule_moved)?;
        self.make(&order).await?;
        saved.local_rule_moved = false;
        self.delete_routes(|table| table == TABLE || rules::is_earlier(table)).await
    }

    async fn make(&self, order: &Order) -> Result<(), HostError> {
        if let Err(e) = self.make_moves(&order.moves).await {
            if order.needs_moves {
                return Err(e);
            }
            warn!("rules that were added without a priority stay behind the local table's: {e}");
        }
        for change in &order.changes {
            (self.beat)();
            match change {
                Change::Add(message) => drop(self.add(message).await?),
                Change::Delete(message) => drop(self.delete(message).await?),
            }
        }
        Ok(())
    }

    /// Gives rules of others other priorities. If the kernel refuses one, all stay as
    /// they are.
    async fn make_moves(&self, moves: &[Move]) -> Result<(), HostError> {
        let mut added = Vec::new();
        for by in moves.iter().filter(|by| !by.is_there) {
            match self.add(&by.to).await {
                Ok(is_new) => added.extend(is_new.then_some(&by.to)),
                Err(e) => {
                    for to in added {
                        self.delete(to).await?;
                    }
                    return Err(e);
                }
            }
        }
        for by in moves {
            let was_there = self.delete(&by.from).await?;
            // Its owner has deleted it meanwhile.
            if !was_there && added.contains(&&by.to) {
                self.delete(&by.to).await?;
            }
        }
        Ok(())
    }

    /// Returns whether the rule was not there.
    async fn add(&self, message: &RuleMessage) -> Result<bool, HostError> {
        (self.beat)();
        let mut request = self.handle.rule().add();
        *request.message_mut() = message.clone();
        unless(request.execute().await, &[libc::EEXIST])
            .tried(|| "add a routing rule for local clients".into())
    }

    /// Returns whether the rule was there.
    async fn delete(&self, message: &RuleMessage) -> Result<bool, HostError> {
        (self.beat)();
        let deleted = self.handle.rule().del(message.clone()).execute().await;
        unless(deleted, &ABSENT).tried(|| "delete a routing rule".into())
    }
}

/// What [`Rules::ensure`] would do, in sentences.
pub(super) async fn missing_rules(
    handle: &Handle,
    reach: &Reach,
    saved: &Saved,
) -> Result<Vec<String>, HostError> {
    let order = rules::ordered(&rules(handle).await?, reach, saved.local_rule_moved)?;
    Ok(order.told().map(|told| told.would()).collect())
}

/// Writes or removes the route of a VIP's local clients.
pub(super) async fn place(handle: &Handle, vip: IpAddr, place: Place) -> Result<(), HostError> {
    let what = || format!("set the route of local clients of {vip} (table {TABLE})");
    let route = route(vip, place).map_err(|e| HostError::io(what(), e))?;
    match place {
        Place::Here => unless(handle.route().del(route).execute().await, &ABSENT).tried(what).map(drop),
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
pub(super) async fn all_routes(handle: &Handle) -> Result<Vec<RouteMessage>, HostError> {
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

pub(super) fn table_of(route: &RouteMessage) -> Option<u32> {
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

/// Treats these error numbers as success, with nothing done: false.
pub(super) fn unless(result: Result<(), rtnetlink::Error>, fine: &[i32]) -> Result<bool, rtnetlink::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.code.is_some_and(|code| fine.contains(&-code.get())) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
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
