//! Netlink watched: carrier, MACs, and others who tidy up what is ours.

use std::{io, net::IpAddr, time::Duration};

use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{MulticastGroup, sys::AsyncSocket};
use tracing::warn;

use super::{Interface, LOOPBACK, interface, local_clients, neighbours};

/// Something changed.
#[derive(Clone, Debug)]
pub enum Watched {
    /// An interface is there, with this state.
    Link(Interface),
    /// The interface with this index is gone.
    Gone(u32),
    /// An address or a rule was removed by somebody, or an interface has got an
    /// address that local clients may need.
    Disturbed,
    /// The route of this VIP's local clients was removed by somebody.
    RouteGone(IpAddr),
    /// A neighbour entry that is watched has changed, or is gone.
    Neighbour,
    /// Anything may have changed: the watch begins, or something was missed.
    Missed,
}

/// How long it takes to try again when a watch has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// Room for what the kernel has to say, in bytes: ten thousand routes that are
/// dropped at once are some megabytes.
const RECEIVE_BYTES: usize = 8 << 20;
/// What is watched.
const GROUPS: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Rule, MulticastGroup::Ipv4Route];

/// Calls `tell` for every change, of neighbour entries for those of these
/// addresses, until it returns false; begins with [`Watched::Missed`]. A watch that ends by itself is begun anew.
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

/// One watch; whether anybody listens after its end.
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

/// More than the default, which a burst overruns; where that is not allowed, a
/// burst costs a look at everything.
fn make_room(socket: &rtnetlink::sys::Socket) {
    if let Err(e) = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BYTES) {
        warn!("no larger buffer for what netlink says ({e}): a burst will be looked after by repairs");
    }
}

fn understand(payload: NetlinkPayload<RouteNetlinkMessage>, addresses: &[IpAddr]) -> Option<Watched> {
    // The kernel had more to say than there was room for.
    if matches!(payload, NetlinkPayload::Overrun(_)) {
        return Some(Watched::Missed);
    }
    let NetlinkPayload::InnerMessage(inner) = payload else { return None };
    if let RouteNetlinkMessage::NewLink(link) = &inner {
        Some(Watched::Link(interface(link)))
    } else if let RouteNetlinkMessage::DelLink(link) = &inner {
        Some(Watched::Gone(link.header.index))
    } else if let RouteNetlinkMessage::DelRoute(route) = &inner {
        local_clients::vip_of_route(route).map(Watched::RouteGone)
    } else if let RouteNetlinkMessage::NewAddress(address) = &inner {
        // Those on the loopback interface are our own.
        (address.header.index != LOOPBACK).then_some(Watched::Disturbed)
    } else if let RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) = &inner
    {
        let is_watched = neighbours::address_of(entry).is_some_and(|address| addresses.contains(&address));
        is_watched.then_some(Watched::Neighbour)
    } else {
        let is_removal =
            matches!(inner, RouteNetlinkMessage::DelAddress(_) | RouteNetlinkMessage::DelRule(_));
        is_removal.then_some(Watched::Disturbed)
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
