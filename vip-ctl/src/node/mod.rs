//! Brings a node's data plane up and down: the order in which programs, maps and
//! host configuration come and go, shared by `load`, `unload` and the agent.
//!
//! Coming up, the node answers nothing before the gates are there; going down,
//! the gates are the last to leave.

mod asks;
mod attaching;
mod former;
mod gateways;
pub mod parts;
pub mod plan;
mod sites;
pub mod virtual_macs;
mod ways;
mod ways_in;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use aya::Ebpf;
use vip_common::{GroupIndex, GroupMode, Lease, VipEntry};

use crate::{
    clock,
    dataplane::{
        DataPlane, DataPlaneError, MapGroup,
        attach::{self, Attached, How},
        bpffs,
        load::load,
        local_in,
    },
    exit::Exit,
    home::Home,
    host::{Host, HostError, Interface, Saved, stray_text},
    mode::Mode,
    paths::Paths,
};

pub use self::{former::take_off_former, ways::Ways};

/// A group that the node shall have.
#[derive(Clone, Debug)]
pub struct GroupSetup {
    /// Its name.
    pub name: String,
    /// Who writes its lease.
    pub mode: GroupMode,
    /// The longest lease (T_hold); ignored in manual mode.
    pub hold: Duration,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
    /// The interface and the prefix of those that have any.
    pub homes: BTreeMap<IpAddr, Home>,
    /// Are they gateways for hosts there?
    pub is_gateway: bool,
    /// Then VIPs of the group that no lease covers yet: they are not answered, and nothing
    /// goes through for them.
    pub waiting: Vec<IpAddr>,
    /// The MAC that moves with them, if they have one.
    pub virtual_mac: Option<[u8; 6]>,
}

/// What the node shall have.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Interfaces to attach to; empty leaves them as they are.
    pub interfaces: Vec<String>,
    /// How to run the way in where that is not left to vip-ctl, by interface.
    pub modes: BTreeMap<String, Mode>,
    /// Those of them that only guard: no VIP is answered or announced there.
    pub silent: BTreeSet<String>,
    /// How to attach to them.
    pub how: How,
    /// Groups to add or change.
    pub groups: Vec<GroupSetup>,
    /// Room for VIPs in new maps.
    pub vips_max: u32,
}

/// A node whose data plane is up.
pub struct Node {
    /// The maps.
    pub plane: DataPlane,
    /// The host.
    pub host: Host,
    /// True if an earlier process had pinned the data plane.
    pub adopted: bool,
    /// What this call attached, by interface name.
    pub attached: Vec<(String, Attached)>,
    /// True if the last attempt to attach the gate at IP level succeeded.
    pub has_local_in: bool,
    /// What this call changed on the host, in words.
    pub changes: Vec<String>,
    /// What a person should know, in words.
    pub warnings: Vec<String>,
    left_out: asks::LeftOut,
    /// Those of the groups that this process was told of last.
    gateways: BTreeMap<IpAddr, VipEntry>,
}

/// Why a node could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data plane.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// The host's configuration.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Not an Ethernet interface.
    #[error("{name} is no Ethernet interface: name one that has a hardware address")]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// The group is promoted by hand, and an agent wants it.
    #[error("the group {group:?} is promoted by hand on this node: run `vip-ctl demote {group}` first")]
    PromotedByHand {
        /// The group.
        group: String,
    },
    /// The group belongs to an agent, and a manual verb wants it.
    #[error(
        "the group {group:?} belongs to an agent, which does not run now: start it, or run `vip-ctl unload` first"
    )]
    BelongsToAgent {
        /// The group.
        group: String,
    },
    /// Another version has a group that is promoted by hand.
    #[error(
        "a group is promoted by hand in maps of layout {layout}, which this version can't read: `vip-ctl unload` ends that; then start the agent again"
    )]
    PromotedBefore {
        /// The layout.
        layout: u32,
    },
    /// No program of ours is on the interface.
    #[error("no program of vip is on {name}: `vip-ctl status` lists the interfaces that have one")]
    NotGuarded {
        /// The interface.
        name: String,
    },
    /// The interface can't receive what is for the group's virtual MAC.
    #[error("group {group} can't have its virtual_mac on {iface}: {why}")]
    Deaf {
        /// The group.
        group: String,
        /// The interface.
        iface: String,
        /// Why it can't, in words.
        why: &'static str,
    },
    /// The interface is the only one of a VIP.
    #[error(
        "{vip} is answered on {iface} alone: take it off first, by --vip {vip}, or give it another interface by `vip-ctl load`"
    )]
    HomeOf {
        /// The VIP.
        vip: IpAddr,
        /// The interface.
        iface: String,
    },
    /// Without an interface nobody could be answered.
    #[error("no interface would be left: run `vip-ctl unload` without --iface to take everything off")]
    LastInterface,
    /// An interface has the address as an ordinary one.
    #[error("{}", stray_text(*vip, iface))]
    OnInterface {
        /// The VIP.
        vip: IpAddr,
        /// The interface.
        iface: String,
    },
}

impl NodeError {
    /// The process's exit code for this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::DataPlane(e) => e.exit(),
            Self::Host(e) if e.is_permission() => Exit::NoPermission,
            Self::Host(_) => Exit::System,
            Self::NotEthernet { .. } | Self::NotGuarded { .. } => Exit::NoInput,
            Self::LastInterface | Self::HomeOf { .. } | Self::Deaf { .. } => Exit::Usage,
            Self::PromotedByHand { .. }
            | Self::PromotedBefore { .. }
            | Self::BelongsToAgent { .. }
            | Self::OnInterface { .. } => Exit::Unsafe,
        }
    }
}

/// Brings the node up, or changes one that is up. After an interruption or a
/// refusal it can run again. On error, takes a node down again that was not up
/// before.
///
/// # Errors
/// [`NodeError`].
pub fn set_up(paths: &Paths, setup: &Setup) -> Result<Node, NodeError> {
    let host = Host::open(&paths.run_dir)?;
    let broken = Saved::trouble(&paths.run_dir);
    let present = host.interfaces()?;
    let interfaces = chosen(&setup.interfaces, &present)?;
    refuse_ordinary_addresses(&host, setup)?;
    sites::refuse_unguarded(&paths.bpf_dir, setup)?;
    virtual_macs::refuse_deaf(&paths.bpf_dir, setup, &present)?;
    let beneath = sites::beneath(&host, setup, &present)?;
    match DataPlane::open(&paths.bpf_dir) {
        Ok(plane) => {
            refuse_mixing(&plane, setup)?;
            refuse_taken(&plane, setup)?;
        }
        // Earlier pins and gates go before new ones come: what an earlier process put on
        // the host must be gone by then.
        Err(DataPlaneError::NotLoaded { .. }) => host.restore()?,
        // The next step reports it.
        Err(_) => {}
    }
    let loaded = load(&paths.bpf_dir, setup.vips_max)?;
    let fresh = !loaded.adopted;
    let mut node = Node::new(loaded.plane, host);
    node.adopted = loaded.adopted;
    node.gateways = gateways::of_groups(&setup.groups);
    if let Err(e) = node.apply(loaded.ebpf, setup, &interfaces) {
        if fresh {
            // The first error is the one to report. Addresses that were on `lo` before
            // stay.
            let _ = node
                .host
                .restore()
                .map_err(NodeError::from)
                .and_then(|()| take_off(&node.host, &paths.bpf_dir));
        }
        return Err(e);
    }
    node.warnings.extend(broken.into_iter().chain(beneath));
    node.warn_of_ways_in(&present);
    let left_out = node.newly_left_out();
    node.warnings.extend(left_out);
    Ok(node)
}

/// Do the maps have the groups of `setup` with its VIPs, and is the kernel's
/// clock the agent's? Then leases can go on before anything else is checked: the
/// attached programs obey them.
#[must_use]
pub fn is_in_maps(paths: &Paths, setup: &Setup) -> bool {
    let Ok(plane) = DataPlane::open(&paths.bpf_dir) else { return false };
    let Ok(vips) = plane.vips() else { return false };
    let mut own: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (vip, entry) in vips {
        own.entry(entry.group).or_default().insert(vip, sites::of_entry(&entry));
    }
    let mut there: BTreeMap<_, _> = plane.groups().into_iter().map(|g| (g.name.clone(), g)).collect();
    let is_as_wanted = |wanted: &GroupSetup| {
        there.remove(&wanted.name).is_some_and(|group| {
            group.mode == wanted.mode
                && u128::from(group.hold_ns_max) == wanted.hold.as_nanos()
                && own.remove(&group.index).unwrap_or_default() == sites::of_group(wanted, sites::index_of)
        })
    };
    setup.groups.iter().all(is_as_wanted) && there.is_empty() && clock::is_the_kernels()
}

/// Removes what an agent had here before and the configuration no longer names,
/// so that a VIP can go from one group to another. Groups in `ended` may come
/// again under the same names, so their leases are cleared. Leaves groups alone
/// that are promoted by hand.
///
/// # Errors
/// [`NodeError`].
pub fn prune(paths: &Paths, keep: &[GroupSetup], ended: &[String]) -> Result<(), NodeError> {
    let mut plane = match DataPlane::open(&paths.bpf_dir) {
        Ok(plane) => plane,
        Err(DataPlaneError::NotLoaded { .. }) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let is_over = |group: &&MapGroup| group.mode == GroupMode::Cluster && ended.contains(&group.name);
    for group in plane.groups().iter().filter(is_over) {
        plane.leases().clear(group.index);
    }
    let host = Host::open(&paths.run_dir)?;
    prune_groups(&mut plane, &host, keep)
}

fn prune_vips(plane: &mut DataPlane, host: &Host, groups: &[GroupSetup]) -> Result<(), NodeError> {
    let keep: BTreeMap<_, _> = groups.iter().map(|kept| (kept.name.as_str(), &kept.vips)).collect();
    let kept = |group: &MapGroup| keep.get(group.name.as_str()).copied();
    let kept: BTreeMap<GroupIndex, BTreeSet<IpAddr>> = plane
        .groups()
        .iter()
        .filter(|group| group.mode == GroupMode::Cluster)
        .map(|group| (group.index, kept(group).into_iter().flatten().copied().collect()))
        .collect();
    let goes = |vip, group| kept.get(&group).is_some_and(|kept| !kept.contains(vip));
    let vips = plane.vips()?;
    let going: BTreeSet<_> =
        vips.iter().filter(|(vip, entry)| goes(*vip, entry.group)).map(|(vip, _)| *vip).collect();
    gateways::prepare(plane, &vips, &going, groups)?;
    // The addresses first: as long as the VIPs are in the map, the gates guard
    // them.
    host.remove_vips(&going)?;
    for vip in going {
        plane.remove_vip(vip)?;
    }
    Ok(())
}

fn prune_groups(plane: &mut DataPlane, host: &Host, keep: &[GroupSetup]) -> Result<(), NodeError> {
    // A group takes its VIPs out of the map with it: their addresses must be gone
    // by then, or nothing would guard them.
    prune_vips(plane, host, keep)?;
    let keep: BTreeSet<_> = keep.iter().map(|kept| kept.name.as_str()).collect();
    let goes = |group: &MapGroup| group.mode == GroupMode::Cluster && !keep.contains(group.name.as_str());
    let going = plane.groups().into_iter().filter(goes).map(|group| group.index).collect();
    Ok(plane.remove_groups(&going)?)
}

/// Takes the node down and puts the host back. No error if it is not up.
///
/// # Errors
/// [`NodeError`]: then the gates stay, since the addresses may still be there.
pub fn tear_down(paths: &Paths) -> Result<(), NodeError> {
    let host = Host::open(&paths.run_dir)?;
    match DataPlane::open(&paths.bpf_dir) {
        Ok(plane) => Node::new(plane, host).take_down(paths),
        Err(DataPlaneError::Layout { .. }) => former::take_down(paths, &host),
        Err(DataPlaneError::NotLoaded { .. }) => {
            // An interrupted load or unload may have left the host changed.
            host.restore()?;
            take_off(&host, &paths.bpf_dir)
        }
        Err(e) => Err(e.into()),
    }
}

/// Removes programs, gates and pins from this host, when it has no VIP any more.
/// Looks at all interfaces: a clsact filter has no pin by which to find it.
fn take_off(host: &Host, dir: &Path) -> Result<(), NodeError> {
    for (ifindex, interface) in host.interfaces()?.iter().filter(|(_, interface)| !interface.loopback) {
        attach::detach(dir, *ifindex, &interface.name)?;
    }
    attach::detach_local(dir)?;
    local_in::detach(dir)?;
    Ok(bpffs::remove(dir)?)
}

/// The interfaces that `setup` names, or what is wrong with one.
fn chosen(
    names: &[String],
    present: &BTreeMap<u32, Interface>,
) -> Result<Vec<(Interface, [u8; 6])>, NodeError> {
    names
        .iter()
        .map(|name| {
            let interface = present
                .values()
                .find(|i| i.name == *name)
                .ok_or_else(|| DataPlaneError::NoInterface { name: name.clone() })?;
            match interface.mac {
                Some(mac) if !interface.loopback => Ok((interface.clone(), mac)),
                _ => Err(NodeError::NotEthernet { name: name.clone() }),
            }
        })
        .collect()
}

/// Refuses a VIP that an interface has as an ordinary address: the host would
/// serve it whoever holds the lease.
fn refuse_ordinary_addresses(host: &Host, setup: &Setup) -> Result<(), NodeError> {
    let vips = setup.groups.iter().flat_map(|group| &group.vips).copied().collect();
    host.ordinary(&vips)?.map_or(Ok(()), |(vip, iface)| Err(NodeError::OnInterface { vip, iface }))
}

/// Refuses a VIP that is in another group already, before a group is made for
/// it. Between groups of one agent it may move: the group that gives it up
/// loses it first.
fn refuse_taken(plane: &DataPlane, setup: &Setup) -> Result<(), NodeError> {
    let (vips, groups) = (plane.vips()?, plane.groups());
    let groups: BTreeMap<_, _> = groups.iter().map(|group| (group.index, group)).collect();
    for group in &setup.groups {
        for vip in &group.vips {
            let owner = vips.get(vip).and_then(|entry| groups.get(&entry.group).copied());
            let is_moving =
                |owner: &&MapGroup| owner.mode == GroupMode::Cluster && group.mode == GroupMode::Cluster;
            if let Some(owner) = owner.filter(|owner| owner.name != group.name && !is_moving(owner)) {
                return Err(DataPlaneError::VipTaken { vip: *vip, group: owner.name.clone() }.into());
            }
        }
    }
    Ok(())
}

/// Refuses a group to an agent while the group is promoted by hand, and to
/// manual mode while it belongs to an agent.
fn refuse_mixing(plane: &DataPlane, setup: &Setup) -> Result<(), NodeError> {
    let wanted: BTreeMap<_, _> = setup.groups.iter().map(|group| (group.name.as_str(), group)).collect();
    for there in plane.groups() {
        let Some(wanted) = wanted.get(there.name.as_str()) else { continue };
        match (there.mode, wanted.mode) {
            (GroupMode::Manual, GroupMode::Cluster) => {
                if plane.leases().load(there.index) == Lease::MANUAL {
                    return Err(NodeError::PromotedByHand { group: there.name });
                }
            }
            (GroupMode::Cluster, GroupMode::Manual) => {
                return Err(NodeError::BelongsToAgent { group: there.name });
            }
            (GroupMode::Manual, GroupMode::Manual)
            | (GroupMode::Cluster, GroupMode::Cluster)
            | (GroupMode::Unused, _)
            | (_, GroupMode::Unused) => {}
        }
    }
    Ok(())
}

impl Node {
    /// A node that is up already, with nothing to report yet.
    #[must_use]
    pub fn new(plane: DataPlane, host: Host) -> Self {
        Self {
            plane,
            host,
            adopted: true,
            attached: Vec::new(),
            has_local_in: false,
            changes: Vec::new(),
            warnings: Vec::new(),
            left_out: asks::LeftOut::default(),
            gateways: BTreeMap::new(),
        }
    }

    /// Could this node have these groups? Changes nothing.
    ///
    /// # Errors
    /// [`NodeError`] if an interface has a VIP as an ordinary address, a group is
    /// promoted by hand, or there is no room.
    pub fn has_room_for(&self, setup: &Setup) -> Result<(), NodeError> {
        refuse_mixing(&self.plane, setup)?;
        refuse_ordinary_addresses(&self.host, setup)?;
        virtual_macs::refuse_deaf(self.plane.dir(), setup, &self.host.interfaces()?)?;
        Ok(self.plane.has_room_for(setup.groups.iter().map(|group| group.vips.len()).sum())?)
    }

    /// First step of a reload: removes VIPs that go, and gives groups that come
    /// their places, without a lease or a VIP. Returns the places of all groups.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn begin_change(&mut self, groups: &[GroupSetup]) -> Result<Vec<GroupIndex>, NodeError> {
        self.gateways = gateways::of_groups(groups);
        prune_vips(&mut self.plane, &self.host, groups)?;
        self.put_groups(groups)
    }

    /// Last step, when no group that goes or begins anew has a lease any more:
    /// removes groups that go, and adds VIPs that come. Returns the VIPs that
    /// came.
    ///
    /// # Errors
    /// [`NodeError`]; the step can run again.
    pub fn finish_change(&mut self, groups: &[GroupSetup]) -> Result<Vec<IpAddr>, NodeError> {
        self.gateways = gateways::of_groups(groups);
        prune_groups(&mut self.plane, &self.host, groups)?;
        let came = self.put(groups)?;
        self.place()?;
        self.ensure_host()?;
        Ok(came)
    }

    /// Puts groups and their VIPs into the maps; returns the VIPs that came.
    fn put(&mut self, groups: &[GroupSetup]) -> Result<Vec<IpAddr>, NodeError> {
        let places = self.put_groups(groups)?;
        let of = |(group, index): (&GroupSetup, GroupIndex)| {
            let sites = sites::of_group(group, sites::index_of);
            sites.into_iter().map(move |(vip, site)| (vip, index, site))
        };
        Ok(self.plane.put_vips(groups.iter().zip(places).flat_map(of))?)
    }

    fn put_groups(&mut self, groups: &[GroupSetup]) -> Result<Vec<GroupIndex>, NodeError> {
        let wanted = groups.iter().map(|group| (group.name.as_str(), group.mode, group.hold));
        Ok(self.plane.put_groups(wanted)?)
    }

    fn apply(
        &mut self,
        mut ebpf: Ebpf,
        setup: &Setup,
        interfaces: &[(Interface, [u8; 6])],
    ) -> Result<(), NodeError> {
        let named = setup.groups.iter().flat_map(|group| group.vips.iter().map(|vip| (*vip, &group.name)));
        let named: BTreeMap<_, _> = named.collect();
        // A refused interface must leave no VIP in the maps of a node that is up: it could
        // be promoted, and be answered without an address on `lo`.
        self.attach(&mut ebpf, setup, interfaces)?;
        for vip in self.put(&setup.groups)? {
            let group = named.get(&vip).map_or("", |name| name.as_str());
            self.changes.push(format!("{vip} in group {group}"));
        }
        self.place()?;
        let done = self.ensure_host()?;
        self.changes.extend(done);
        Ok(())
    }

    /// The first VIP that an interface has as an ordinary address; see [`Host::ordinary`].
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn stray(&self) -> Result<Option<(IpAddr, String)>, NodeError> {
        Ok(self.host.ordinary(&self.plane.vips()?.into_keys().collect())?)
    }

    /// Puts back what somebody removed of what this node needs on its host.
    /// Returns the changes in words; none if everything was there.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn repair(&mut self) -> Result<Vec<String>, NodeError> {
        let placed = self.place();
        // Goes on even if something else can't be put back.
        let mut done = self.ensure_host()?;
        done.extend(placed?);
        Ok(done)
    }

    /// Makes every group's local clients go where its lease says now; returns in
    /// words what somebody else had changed. Reads the maps and the host's
    /// addresses only once: there can be ten thousand VIPs.
    fn place(&self) -> Result<Vec<String>, NodeError> {
        let ways = self.ways()?;
        let mut places = BTreeMap::new();
        for group in self.plane.groups() {
            let is_open = group.fence(self.plane.leases().load(group.index), clock::now()).is_open();
            places.extend(ways.places(group.index, is_open));
        }
        Ok(self.host.place_all(&places)?)
    }

    /// Removes the VIPs that nothing guards any more from a host where somebody
    /// has removed this data plane: the kernel would serve them from `lo`, whoever
    /// holds the lease. Those of a data plane that was loaded meanwhile stay.
    ///
    /// # Errors
    /// [`NodeError`]: then this host may not be as it was before.
    pub fn leave_unguarded(&self) -> Result<(), NodeError> {
        let loaded = DataPlane::open(self.plane.dir());
        let guarded = loaded.as_ref().map(DataPlane::vips).unwrap_or_else(|_| Ok(BTreeMap::new()))?;
        let mut vips: BTreeSet<_> = self.plane.vips()?.into_keys().collect();
        vips.retain(|vip| !guarded.contains_key(vip));
        self.host.take_off_loopback(&vips)?;
        match loaded {
            Ok(_) => Ok(()),
            Err(DataPlaneError::NotLoaded { .. }) => Ok(self.host.restore()?),
            Err(e) => Err(e.into()),
        }
    }

    fn take_down(&self, paths: &Paths) -> Result<(), NodeError> {
        for group in self.plane.groups() {
            self.plane.leases().clear(group.index);
        }
        // Even if the record of them is lost.
        self.host.take_off_loopback(&self.plane.vips()?.into_keys().collect())?;
        self.host.restore()?;
        take_off(&self.host, &paths.bpf_dir)
    }
}
