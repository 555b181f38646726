//! Watches netlink: carriers, MACs, and other programs that remove what is ours.

use std::{io, net::IpAddr, time::Duration};

use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{MulticastGroup, sys::AsyncSocket};
use tracing::warn;

use super::{Interface, LOOPBACK, connected, interface, local_clients, neighbours};

/// Something changed.
#[derive(Clone, Debug)]
pub enum Watched {
    /// An interface is there, with this state.
    Link(Interface),
    /// The interface with this index is gone.
    Gone(u32),
    /// Somebody removed an address, added or removed a rule, or an interface has got
    /// an address that local clients may need.
    Disturbed,
    /// Somebody removed the route of this VIP's local clients.
    RouteGone(IpAddr),
    /// A neighbour entry that is watched has changed, or is gone.
    Neighbour,
    /// Anything may have changed: the watch begins, or has missed something.
    Missed,
}

/// How long to wait before another try when a watch has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// The receive buffer for netlink, in bytes: ten thousand routes that are dropped
/// at once are some megabytes of messages.
const RECEIVE_BYTES: usize = 8 << 20;
/// The multicast groups to watch.
const GROUPS: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Rule, MulticastGroup::Ipv4Route];

/// Calls `tell` for every change until it returns false; begins with
/// [`Watched::Missed`]. Of neighbour entries, it watches those of `addresses`. If
/// a watch ends by itself, begins another.
///
/// # Errors
/// If the watch can't be set up at first.
pub async fn watch(addresses: Vec<IpAddr>, mut tell: impl FnMut(Watched) -> bool) -> io::Result<()> {
    let mut is_set_up = false;
    loop {
        match watch_once(&addresses, &mut tell, &mut is_set_up).await {
            Ok(false) => return Ok(()),
            Ok(true) => warn!("the watch of netlink has ended: beginning anew"),
            Err(e) if is_set_up => warn!("netlink can't be watched ({e}): trying again"),
            Err(e) => return Err(e),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One watch; returns whether anybody still listens after its end.
async fn watch_once(
    addresses: &[IpAddr],
    mut tell: impl FnMut(Watched) -> bool,
    is_set_up: &mut bool,
) -> io::Result<bool> {
    let mut groups = GROUPS.to_vec();
    // A host may have very many neighbours.
    groups.extend((!addresses.is_empty()).then_some(MulticastGroup::Neigh));
    let (mut connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    make_room(connection.socket_mut().socket_ref());
    *is_set_up = true;
    let connection = tokio::spawn(connection);
    let mut listens = tell(Watched::Missed);
    while listens && let Some((message, _)) = messages.next().await {
        if let Some(watched) = understand(message.payload, addresses) {
            listens = tell(watched);
        }
    }
    connection.abort();
    Ok(listens)
}

/// Asks for more than the default buffer, which a burst overruns. Where that is
/// not allowed, a burst costs a check of everything.
fn make_room(socket: &rtnetlink::sys::Socket) {
    if let Err(e) = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BYTES) {
        warn!("no larger buffer for what netlink says ({e}): a burst will be looked after by repairs");
    }
}

fn understand(payload: NetlinkPayload<RouteNetlinkMessage>, addresses: &[IpAddr]) -> Option<Watched> {
    // The kernel had more messages than there was room for.
    if matches!(payload, NetlinkPayload::Overrun(_)) {
        return Some(Watched::Missed);
    }
    let NetlinkPayload::InnerMessage(inner) = payload else { return None };
    if let RouteNetlinkMessage::NewLink(link) = &inner {
        Some(Watched::Link(interface(link)))
    } else if let RouteNetlinkMessage::DelLink(link) = &inner {
        Some(Watched::Gone(link.header.index))
    } else if let RouteNetlinkMessage::DelRoute(route) = &inner {
        let is_subnet = connected::subnet_of(route).is_some();
        local_clients::vip_of_route(route)
            .map(Watched::RouteGone)
            .or_else(|| is_subnet.then_some(Watched::Disturbed))
    } else if let RouteNetlinkMessage::NewAddress(address) = &inner {
        // Addresses on the loopback interface are our own.
        (address.header.index != LOOPBACK).then_some(Watched::Disturbed)
    } else if let RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) = &inner
    {
        let is_watched = neighbours::address_of(entry).is_some_and(|address| addresses.contains(&address));
        is_watched.then_some(Watched::Neighbour)
    } else {
        // A rule that is new may have come in front of others that had no priority.
        let disturbs = matches!(
            inner,
            RouteNetlinkMessage::DelAddress(_)
                | RouteNetlinkMessage::NewRule(_)
                | RouteNetlinkMessage::DelRule(_)
        );
        disturbs.then_some(Watched::Disturbed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_was_missed_is_looked_after() {
        let overrun = NetlinkPayload::Overrun(Vec::new());
        assert!(matches!(understand(overrun, &[]), Some(Watched::Missed)));
    }

    #[test]
    fn the_route_of_a_vip_is_told_from_others() {
        const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
        let route = |table, length| {
            let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().table_id(table);
            let route = route.destination_prefix(VIP, length).build();
            understand(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)), &[])
        };
        assert!(matches!(route(0x56_4950, 32), Some(Watched::RouteGone(vip)) if vip == VIP));
        assert!(route(0x56_4950, 24).is_none() && route(254, 32).is_none());
    }
}
