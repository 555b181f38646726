//! Netlink watched: carrier, MACs, and others who tidy up what is ours.

use std::io;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use super::{Interface, interface};

/// Something changed.
#[derive(Clone, Debug)]
pub enum Watched {
    /// An interface is there, with this state.
    Link(Interface),
    /// The interface with this index is gone.
    Gone(u32),
    /// An address or a rule was removed by somebody.
    Removed,
}

/// Calls `tell` for every change until it returns false or netlink ends.
///
/// # Errors
/// If the watch can't be set up.
pub async fn watch(mut tell: impl FnMut(Watched) -> bool) -> io::Result<()> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Rule];
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    let connection = tokio::spawn(connection);
    while let Some((message, _)) = messages.next().await {
        let netlink_packet_core::NetlinkPayload::InnerMessage(inner) = message.payload else { continue };
        let watched = if let RouteNetlinkMessage::NewLink(link) = &inner {
            Watched::Link(interface(link))
        } else if let RouteNetlinkMessage::DelLink(link) = &inner {
            Watched::Gone(link.header.index)
        } else if matches!(inner, RouteNetlinkMessage::DelAddress(_) | RouteNetlinkMessage::DelRule(_)) {
            Watched::Removed
        } else {
            continue;
        };
        if !tell(watched) {
            break;
        }
    }
    connection.abort();
    Ok(())
}
