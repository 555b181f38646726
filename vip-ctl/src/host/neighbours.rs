//! Pins peers' hardware addresses: a permanent entry of the neighbour table for
//! each peer that is on this host's link and has a `mac` in the configuration, so
//! that nobody can take the peer's place by ARP. Records the entry that was there
//! before, and puts it back.
//!
//! A peer that is reached through a router has no entry here to pin.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use super::{Host, HostError, Saved, Tried};

/// A peer whose hardware address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// What this host knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It is behind a router.
    Routed,
    /// There is no route to it, or it is this host.
    Unreachable,
    /// It is on the link; its hardware address comes from ARP or neighbour
    /// discovery.
    Learned(Option<[u8; 6]>),
    /// It is on the link; its hardware address is fixed, whatever anybody claims.
    Pinned([u8; 6]),
}

/// An entry that this host has pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNeighbour {
    /// The interface's index.
    ifindex: u32,
    /// The hardware address that it was pinned to.
    mac: [u8; 6],
    /// The one that somebody else had pinned it to before.
    before: Option<[u8; 6]>,
}

impl Host {
    /// What this host knows of the neighbour with that address.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn neighbour(&self, address: IpAddr) -> Result<Neighbour, HostError> {
        self.runtime.block_on(async {
            let ifindex = match way_to(&self.handle, address).await? {
                Way::Link(ifindex) => ifindex,
                Way::Router => return Ok(Neighbour::Routed),
                Way::None => return Ok(Neighbour::Unreachable),
            };
            Ok(match entry(&self.handle, ifindex, address).await? {
                Some((Some(mac), true)) => Neighbour::Pinned(mac),
                Some((mac, _)) => Neighbour::Learned(mac),
                None => Neighbour::Learned(None),
            })
        })
    }

    /// Pins those peers that are on the link and not pinned yet. Returns the
    /// changes in words; none if everything was there.
    ///
    /// # Errors
    /// [`HostError`]; what was changed until then is recorded.
    pub fn pin_neighbours(&self, pins: &[Pin]) -> Result<Vec<String>, HostError> {
        let mut done = Vec::new();
        if pins.is_empty() {
            return Ok(done);
        }
        let mut saved = Saved::read(&self.run_dir)?;
        self.runtime.block_on(async {
            for pin in pins {
                let Way::Link(ifindex) = way_to(&self.handle, pin.address).await? else { continue };
                let there = entry(&self.handle, ifindex, pin.address).await?;
                if there == Some((Some(pin.mac), true)) {
                    continue;
                }
                let of_others = |(mac, is_permanent): (Option<[u8; 6]>, bool)| mac.filter(|_| is_permanent);
                let known = saved.neighbours.get(&pin.address).filter(|known| known.ifindex == ifindex);
                let before = match known {
                    // Keeps the older record: it has what was there before the first
                    // change.
                    Some(known) => known.before,
                    None => there.and_then(of_others),
                };
                saved.neighbours.insert(pin.address, SavedNeighbour { ifindex, mac: pin.mac, before });
                saved.write(&self.run_dir)?;
                put(&self.handle, ifindex, pin.address, pin.mac).await?;
                done.push(format!("pinned {} to {}", pin.address, mac_text(pin.mac)));
            }
            Ok(done)
        })
    }

    /// Puts back what [`Host::pin_neighbours`] has changed, except for the pins
    /// in `but`, and for what somebody else has changed since.
    ///
    /// # Errors
    /// [`HostError`]; what could not be put back stays recorded.
    pub fn unpin_neighbours(&self, but: &[Pin]) -> Result<(), HostError> {
        let mut saved = Saved::read(&self.run_dir)?;
        if saved.neighbours.keys().all(|address| but.iter().any(|pin| pin.address == *address)) {
            return Ok(());
        }
        self.runtime.block_on(unpin(&self.handle, &mut saved, but))?;
        saved.write(&self.run_dir)
    }
}

/// Puts back everything that is recorded, except for the pins in `but`.
pub(super) async fn unpin(handle: &Handle, saved: &mut Saved, but: &[Pin]) -> Result<(), HostError> {
    let is_kept = |address: &IpAddr| but.iter().any(|pin| pin.address == *address);
    let kept = saved.neighbours.iter().filter(|(address, _)| is_kept(address));
    let kept: BTreeMap<_, _> = kept.map(|(address, saved)| (*address, saved.clone())).collect();
    let gone = std::mem::replace(&mut saved.neighbours, kept).into_iter();
    for (address, SavedNeighbour { ifindex, mac, before }) in gone.filter(|(address, _)| !is_kept(address)) {
        // An interface that is gone has taken its entries with it.
        if entry(handle, ifindex, address).await? != Some((Some(mac), true)) {
            continue;
        }
        match before {
            Some(before) => put(handle, ifindex, address, before).await?,
            None => delete(handle, ifindex, address).await?,
        }
    }
    Ok(())
}

/// The way to an address.
enum Way {
    Link(u32),
    Router,
    None,
}

async fn way_to(handle: &Handle, address: IpAddr) -> Result<Way, HostError> {
    let question = match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, 128).build()
        }
    };
    let mut answers = handle.route().get(question).execute();
    match answers.try_next().await {
        Ok(Some(route)) => Ok(way_of(&route)),
        Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => Ok(Way::None),
        Err(e) => Err(e).tried(|| format!("find the route to {address}")),
    }
}

fn way_of(route: &RouteMessage) -> Way {
    let is_router =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    let link = |attribute: &RouteAttribute| {
        if let RouteAttribute::Oif(ifindex) = attribute { Some(*ifindex) } else { None }
    };
    if route.attributes.iter().any(is_router) {
        return Way::Router;
    }
    let link = route.attributes.iter().find_map(link).filter(|ifindex| *ifindex != super::LOOPBACK);
    link.map_or(Way::None, Way::Link)
}

/// The entry for an address on an interface: its hardware address, and whether
/// it is permanent.
async fn entry(
    handle: &Handle,
    ifindex: u32,
    address: IpAddr,
) -> Result<Option<(Option<[u8; 6]>, bool)>, HostError> {
    let mut entries = handle.neighbours().get().execute();
    let mut found = None;
    while let Some(entry) = entries.try_next().await.tried(|| "list the neighbours".into())? {
        if entry.header.ifindex == ifindex && address_of(&entry) == Some(address) {
            found = Some((mac_of(&entry), entry.header.state == NeighbourState::Permanent));
        }
    }
    Ok(found)
}

/// The address that a neighbour entry is about.
pub(super) fn address_of(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) = attribute {
            Some(IpAddr::V4(*v4))
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            Some(IpAddr::V6(*v6))
        } else {
            None
        }
    })
}

fn mac_of(entry: &NeighbourMessage) -> Option<[u8; 6]> {
    entry.attributes.iter().find_map(|attribute| {
        let NeighbourAttribute::LinkLayerAddress(mac) = attribute else { return None };
        mac.as_slice().try_into().ok()
    })
}

async fn put(handle: &Handle, ifindex: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), HostError> {
    let request = handle.neighbours().add(ifindex, address).link_layer_address(&mac);
    let request = request.state(NeighbourState::Permanent).replace().execute();
    request.await.tried(|| format!("pin the neighbour {address} to {}", mac_text(mac)))
}

async fn delete(handle: &Handle, ifindex: u32, address: IpAddr) -> Result<(), HostError> {
    let mut request = handle.neighbours().add(ifindex, address);
    let message = request.message_mut().clone();
    match handle.neighbours().del(message).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.code.is_some_and(|code| -code.get() == libc::ENOENT) => {
            Ok(())
        }
        done => done.tried(|| format!("take the pinned entry of {address} away")),
    }
}

/// The hardware address as people write it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
