//! Prepares the host so that VIPs can be there without being on an interface: the
//! address on `lo`, the rules and routes by which local clients follow the lease,
//! and the ARP settings. Also puts all of that back.
//!
//! Nothing here is on the failover path, and nothing here decides who holds.

pub mod beneath;
mod connected;
mod let_in;
mod local_clients;
mod neighbours;
mod plan;
mod rules;
pub mod settings;
mod undo;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkXdp, XdpAttached},
};
use rtnetlink::Handle;
use tokio::runtime::Runtime;

pub use self::{
    connected::Subnet,
    let_in::LetIn,
    local_clients::Place,
    neighbours::{Neighbour, Pin, SavedNeighbour, mac_text},
    rules::{InTheWay, Reach},
    undo::Saved,
};

/// The index of the loopback interface.
pub const LOOPBACK: u32 = 1;

/// Where an interface runs its XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver: slower, and on any interface.
    Generic,
}

/// What went wrong with the host's network configuration.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A netlink request failed.
    #[error("could not {what}: {source}")]
    Netlink {
        /// What vip-ctl tried.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A file could not be read or written.
    #[error("could not {what}: {source}")]
    Io {
        /// What vip-ctl tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Routing rules of others are in the way of ours.
    #[error("could not {0}")]
    Rules(#[from] InTheWay),
}

impl HostError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// True if this process lacks a privilege.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Netlink { source: rtnetlink::Error::NetlinkError(message), .. } => {
                let errno = message.code.map_or(0, |code| -code.get());
                errno == libc::EPERM || errno == libc::EACCES
            }
            Self::Netlink { .. } | Self::Rules(_) => false,
        }
    }
}

/// Adds to a netlink error what vip-ctl tried.
trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, HostError>;
}

impl<T> Tried<T> for Result<T, rtnetlink::Error> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, HostError> {
        self.map_err(|source| HostError::Netlink { what: what(), source })
    }
}

/// An interface of this network namespace.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if that is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// Administratively up.
    pub up: bool,
    /// The other end of the wire is there.
    pub carrier: bool,
    /// How many times that has come.
    pub carrier_ups: u32,
    /// True for `lo`.
    pub loopback: bool,
    /// What it is if the kernel makes it, such as `bond`, `vlan` or `veth`; `None` for
    /// what a driver of hardware makes.
    pub kind: Option<String>,
    /// The index of the interface that it is a port of: a bond, a bridge, a VRF.
    pub controller: Option<u32>,
    /// The index of the interface that it is on top of, as a VLAN's or a macvlan's is.
    pub below: Option<u32>,
    /// The mode and id of the XDP program on it.
    pub xdp: Option<(XdpMode, u32)>,
}

/// The host's network configuration, through netlink, with calls that block.
///
/// Use it on a plain thread: its calls panic inside of an async runtime.
pub struct Host {
    runtime: Runtime,
    handle: Handle,
    run_dir: PathBuf,
    /// Called between the steps of what may take long.
    beat: fn(),
    /// Where local clients of each VIP were last sent.
    placed: RefCell<BTreeMap<IpAddr, Place>>,
    /// What interfaces let in that somebody else has made them let in.
    others: RefCell<BTreeSet<LetIn>>,
}

impl Host {
    /// Opens netlink; records its changes below `run_dir`.
    ///
    /// # Errors
    /// [`HostError::Io`] if netlink can't be opened.
    pub fn open(run_dir: &Path) -> Result<Self, HostError> {
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            drop(guard);
            runtime.spawn(connection);
            Ok((runtime, handle))
        };
        let (runtime, handle) = open().map_err(|e| HostError::io("open netlink", e))?;
        let (placed, others) = (RefCell::default(), RefCell::default());
        Ok(Self { runtime, handle, run_dir: run_dir.to_owned(), beat: || (), placed, others })
    }

    /// Calls `beat` between the steps of long operations, which can have ten
    /// thousand: so the watchdog can tell a slow one from one that hangs.
    pub fn beat_with(&mut self, beat: fn()) {
        self.beat = beat;
    }

    /// Every interface, by index.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn interfaces(&self) -> Result<BTreeMap<u32, Interface>, HostError> {
        self.runtime.block_on(async {
            let mut interfaces = BTreeMap::new();
            let mut links = self.handle.link().get().execute();
            while let Some(link) = links.try_next().await.tried(|| "list the interfaces".into())? {
                let interface = interface(&link);
                interfaces.insert(interface.index, interface);
            }
            Ok(interfaces)
        })
    }

    /// The interface of this name, if there is one.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn interface(&self, name: &str) -> Result<Option<Interface>, HostError> {
        self.runtime.block_on(async {
            let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
            match links.try_next().await {
                Ok(link) => Ok(link.as_ref().map(interface)),
                Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => {
                    Ok(None)
                }
                Err(e) => Err(e).tried(|| format!("look at the interface {name}")),
            }
        })
    }

    /// The IPv4 addresses of an interface, with their prefix lengths.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn addresses(&self, ifindex: u32) -> Result<Vec<(IpAddr, u8)>, HostError> {
        self.runtime.block_on(self.addresses_of(ifindex))
    }

    /// The same of every interface that has any, by its index. The kernel lists those of
    /// all, of `lo` with its VIPs too, for one interface as well: ask once for several.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn all_addresses(&self) -> Result<BTreeMap<u32, Vec<(IpAddr, u8)>>, HostError> {
        self.runtime.block_on(self.addresses_by_index(None))
    }

    /// The first of these VIPs that an interface has as an ordinary address, and the
    /// interface's name: by that the host's own stack has it, whoever holds the lease.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn ordinary(&self, vips: &BTreeSet<IpAddr>) -> Result<Option<(IpAddr, String)>, HostError> {
        let found = self.runtime.block_on(async {
            let mut found = None;
            let mut addresses = self.handle.address().get().execute();
            while let Some(address) = addresses.try_next().await.tried(|| "list the addresses".into())? {
                let index = address.header.index;
                let vip = ipv4_of(&address).filter(|local| index != LOOPBACK && vips.contains(local));
                found = found.or_else(|| Some((vip?, index)));
            }
            Ok::<_, HostError>(found)
        })?;
        let Some((vip, index)) = found else { return Ok(None) };
        let interface = self.interfaces()?.remove(&index);
        Ok(interface.map(|interface| (vip, interface.name)))
    }

    async fn addresses_of(&self, ifindex: u32) -> Result<Vec<(IpAddr, u8)>, HostError> {
        Ok(self.addresses_by_index(Some(ifindex)).await?.remove(&ifindex).unwrap_or_default())
    }

    /// Of all interfaces, or of this one alone.
    async fn addresses_by_index(
        &self,
        only: Option<u32>,
    ) -> Result<BTreeMap<u32, Vec<(IpAddr, u8)>>, HostError> {
        let mut request = self.handle.address().get();
        if let Some(ifindex) = only {
            request = request.set_link_index_filter(ifindex);
        }
        let (mut found, mut addresses) = (BTreeMap::<_, Vec<_>>::new(), request.execute());
        while let Some(address) = addresses.try_next().await.tried(|| "list the addresses".into())? {
            let index = address.header.index;
            if only.is_some_and(|only| index != only) {
                continue;
            }
            if let Some(local) = ipv4_of(&address) {
                found.entry(index).or_default().push((local, address.header.prefix_len));
            }
        }
        Ok(found)
    }

    /// Prepares the host for these VIPs, and leaves alone what is there already:
    /// the ARP settings, the rule, and last the addresses on `lo`. Local clients
    /// of VIPs that other nodes hold must have their routes by then
    /// ([`Host::place_all`]). Returns the changes in words; none if everything
    /// was there.
    ///
    /// # Errors
    /// [`HostError`]; what was changed until then is recorded, and
    /// [`Host::restore`] puts it back.
    pub fn ensure<T>(&self, vips: &BTreeMap<IpAddr, T>, reach: &Reach) -> Result<Vec<String>, HostError> {
        let mut saved = Saved::read(&self.run_dir)?;
        let mut done = Vec::new();
        settings::ensure(&mut saved, &self.run_dir, &mut done)?;
        let save = |saved: &Saved| saved.write(&self.run_dir);
        let rules = local_clients::Rules { handle: &self.handle, beat: self.beat };
        let ruled = self.runtime.block_on(rules.ensure(reach, &mut saved, save, &mut done));
        // A rule of somebody else keeps no VIP away from a holder. The gate on `lo` guards
        // it as well.
        self.ensure_addresses(&mut saved, vips, &mut done)?;
        ruled.map(|()| done)
    }

    fn ensure_addresses<T>(
        &self,
        saved: &mut Saved,
        vips: &BTreeMap<IpAddr, T>,
        done: &mut Vec<String>,
    ) -> Result<(), HostError> {
        let present: BTreeSet<_> =
            self.addresses(LOOPBACK)?.into_iter().map(|(address, _)| address).collect();
        let missing: Vec<_> = vips.keys().filter(|vip| !present.contains(vip)).collect();
        // Doesn't write the same record again: a full disk must not keep an address away.
        if missing.iter().any(|vip| !saved.addresses.contains(vip)) {
            saved.addresses.extend(missing.iter().copied());
            saved.write(&self.run_dir)?;
        }
        self.runtime.block_on(async {
            for vip in missing {
                let mut request = self.handle.address().add(LOOPBACK, *vip, whole(*vip)).replace();
                // With a wider scope it would be the source of what leaves by an interface
                // without an address of its own.
                request.message_mut().header.scope = AddressScope::Host;
                request.execute().await.tried(|| format!("put {vip} on lo"))?;
                (self.beat)();
                done.push(format!("put {vip} on lo"));
            }
            Ok(())
        })
    }

    /// Removes the VIPs' addresses from `lo`, if we put them there, and then
    /// their routes.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn remove_vips(&self, vips: &BTreeSet<IpAddr>) -> Result<(), HostError> {
        if vips.is_empty() {
            return Ok(());
        }
        let mut saved = Saved::read(&self.run_dir)?;
        // Whoever put them there: without an entry in the map, nothing would guard them.
        self.take_off_loopback(vips)?;
        let there = self.runtime.block_on(local_clients::routes(&self.handle))?;
        for vip in vips.iter().filter(|vip| there.contains_key(vip)) {
            self.place_local_clients(*vip, Place::Here)?;
            (self.beat)();
        }
        self.placed.borrow_mut().retain(|vip, _| !vips.contains(vip));
        saved.addresses.retain(|vip| !vips.contains(vip));
        saved.write(&self.run_dir)
    }

    /// Removes these addresses from the loopback interface, as far as they are
    /// there. Lists them only once: there can be ten thousand.
    async fn delete_addresses(&self, vips: &BTreeSet<IpAddr>) -> Result<(), HostError> {
        let mut addresses = self.handle.address().get().set_link_index_filter(LOOPBACK).execute();
        let mut found = Vec::new();
        while let Some(address) = addresses.try_next().await.tried(|| "list the addresses".into())? {
            let vip = ipv4_of(&address).filter(|local| vips.contains(local));
            if let Some(vip) = vip.filter(|_| address.header.index == LOOPBACK) {
                found.push((vip, address));
            }
        }
        for (vip, address) in found {
            self.handle.address().del(address).execute().await.tried(|| format!("take {vip} off lo"))?;
            (self.beat)();
        }
        Ok(())
    }

    /// Makes local clients of a VIP follow the lease: they reach this host if it
    /// is the holder, else they go out over the wire.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn place_local_clients(&self, vip: IpAddr, place: Place) -> Result<(), HostError> {
        let done = self.runtime.block_on(local_clients::place(&self.handle, vip, place));
        let mut placed = self.placed.borrow_mut();
        match &done {
            Ok(()) => placed.insert(vip, place),
            // After an error, the old or the new route may be there.
            Err(_) => placed.remove(&vip),
        };
        done
    }

    /// Where local clients of a VIP were last sent; `None` if that is not known.
    #[must_use]
    pub fn placed(&self, vip: IpAddr) -> Option<Place> {
        self.placed.borrow().get(&vip).copied()
    }

    /// The same for many VIPs, where it differs. Returns in words what somebody
    /// else had changed.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn place_all(&self, places: &BTreeMap<IpAddr, Place>) -> Result<Vec<String>, HostError> {
        let there = self.runtime.block_on(local_clients::routes(&self.handle))?;
        let mut done = Vec::new();
        for (vip, place) in places {
            let before = self.placed(*vip);
            if there.get(vip).copied().unwrap_or(Some(Place::Here)) == Some(*place) {
                self.placed.borrow_mut().insert(*vip, *place);
                continue;
            }
            self.place_local_clients(*vip, *place)?;
            (self.beat)();
            // To another place, it is the VIP that has moved.
            if before == Some(*place) {
                done.push(format!("set the route of local clients of {vip}"));
            }
        }
        Ok(done)
    }

    /// Shall there be a route for this VIP's local clients, by the last call
    /// about it?
    #[must_use]
    pub fn needs_route(&self, vip: IpAddr) -> bool {
        self.placed(vip).is_some_and(|place| place != Place::Here)
    }

    /// Removes these VIPs from the loopback interface, whoever put them there:
    /// without the gates the host would answer for them.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn take_off_loopback(&self, vips: &BTreeSet<IpAddr>) -> Result<(), HostError> {
        self.runtime.block_on(self.delete_addresses(vips))
    }

    /// Is there a record of what was changed on this host since it booted?
    #[must_use]
    pub fn has_record(&self) -> bool {
        Saved::read(&self.run_dir).is_ok_and(|saved| !saved.addresses.is_empty())
    }

    /// Puts back everything that [`Host::ensure`] changed.
    ///
    /// # Errors
    /// [`HostError`]; what could not be put back stays recorded.
    pub fn restore(&self) -> Result<(), HostError> {
        let mut saved = Saved::read(&self.run_dir)?;
        self.connect(&BTreeSet::new())?;
        self.runtime.block_on(async {
            self.delete_addresses(&saved.addresses).await?;
            let_in::shut_out(&self.handle, &saved.let_in).await?;
            neighbours::unpin(&self.handle, &mut saved, &[]).await?;
            local_clients::Rules { handle: &self.handle, beat: self.beat }.restore(&mut saved).await
        })?;
        saved.addresses.clear();
        saved.let_in.clear();
        settings::restore(&saved)?;
        Saved::remove(&self.run_dir)
    }
}

/// The source address for this host's own packets to `vip` on an interface that
/// has these `addresses`: one in the VIP's subnet, else the first of its family;
/// never a VIP.
#[must_use]
pub fn source_among<T>(
    addresses: &[(IpAddr, u8)],
    vip: IpAddr,
    vips: &BTreeMap<IpAddr, T>,
) -> Option<IpAddr> {
    let is_own = |address: &IpAddr| address.is_ipv4() == vip.is_ipv4() && !vips.contains_key(address);
    let own = || addresses.iter().filter(|(address, _)| is_own(address));
    let same_subnet = own().find(|(address, prefix)| common_bits(*address, vip) >= u32::from(*prefix));
    same_subnet.or_else(|| own().next()).map(|(address, _)| *address)
}

/// What people are told of a VIP that an interface has as an ordinary address.
#[must_use]
pub fn stray_text(vip: IpAddr, iface: &str) -> String {
    format!("{vip} is an address of {iface} on this host: a VIP must not be on an interface; take it off")
}

/// Is the VIP in the subnet of one of these addresses of an interface?
#[must_use]
pub fn is_on_link(addresses: &[(IpAddr, u8)], vip: IpAddr) -> bool {
    let covers = |(address, prefix): &(IpAddr, u8)| {
        address.is_ipv4() == vip.is_ipv4() && common_bits(*address, vip) >= u32::from(*prefix)
    };
    addresses.iter().any(covers)
}

/// The number of leading bits that two addresses share; 0 for two families.
fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

/// The prefix length of an address that stands for itself alone, in bits.
const fn whole(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The IPv4 address that a message is about; `None` for one of IPv6, which the
/// kernel lists beside them.
fn ipv4_of(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(local @ IpAddr::V4(_)) = attribute { Some(*local) } else { None }
    })
}

/// Reads an interface from a link message.
fn interface(link: &netlink_packet_route::link::LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Interface::default()
    };
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            interface.name.clone_from(name);
        } else if let LinkAttribute::Address(address) = attribute {
            interface.mac = address.as_slice().try_into().ok();
        } else if let LinkAttribute::Controller(index) = attribute {
            interface.controller = Some(*index);
        } else if let LinkAttribute::CarrierUpCount(count) = attribute {
            interface.carrier_ups = *count;
        } else if let LinkAttribute::Link(index) = attribute {
            interface.below = Some(*index);
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            interface.kind = info.iter().find_map(kind);
        } else if let LinkAttribute::Xdp(xdp) = attribute {
            interface.xdp = xdp_program(xdp);
        }
    }
    // The other end of a cable, and what is in another network namespace, is not below.
    let is_elsewhere = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkNetNsId(_));
    if interface.kind.as_deref() == Some("veth") || link.attributes.iter().any(is_elsewhere) {
        interface.below = None;
    }
    interface
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None }
}

fn xdp_program(attributes: &[LinkXdp]) -> Option<(XdpMode, u32)> {
    let id = attributes.iter().find_map(|a| if let LinkXdp::ProgId(id) = a { Some(*id) } else { None })?;
    let generic = attributes.iter().any(|a| matches!(a, LinkXdp::Attached(XdpAttached::SocketBuffer)));
    Some((if generic { XdpMode::Generic } else { XdpMode::Native }, id))
}

pub use watch::{Watched, watch};
mod watch;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn packets_to_a_vip_carry_an_address_of_its_subnet_or_else_the_first() {
        let on = |texts: &[&str]| -> Vec<(IpAddr, u8)> {
            let split = |text: &&str| text.split_once('/').map(|(a, b)| (address(a), b.parse().unwrap()));
            texts.iter().filter_map(split).collect()
        };
        let all = on(&["fd00::1/64", "192.0.2.7/24", "10.0.0.12/24", "10.0.1.12/24", "10.0.1.3/24"]);
        let vips = BTreeMap::from([(address("10.0.1.12"), ())]);
        let source = |vip| source_among(&all, address(vip), &vips);
        assert_eq!(source("10.0.1.12"), Some(address("10.0.1.3")), "a VIP is nobody's own");
        assert_eq!(source("10.0.0.99"), Some(address("10.0.0.12")));
        assert_eq!(source("198.51.100.1"), Some(address("192.0.2.7")));
        assert_eq!(source("fd00:1::9"), Some(address("fd00::1")));
        assert_eq!(source_among(&all[..1], address("10.0.1.12"), &vips), None);
        assert_eq!(
            source_among(&on(&["10.0.1.3/0"]), address("192.0.2.1"), &vips),
            Some(address("10.0.1.3"))
        );
    }
}
