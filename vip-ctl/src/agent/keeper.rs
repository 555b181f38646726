//! The keeper's thread: it owns the host's side of the node. It lets local
//! clients follow the lease, repairs what others tidied away, attaches again
//! when an interface comes back, says whether this node can serve, and writes
//! the log for everybody who must not.

use std::{collections::BTreeMap, sync::mpsc::Receiver, time::Duration};

use tracing::{error, info, warn};
use vip_common::BootNs;

use super::{Names, Notice, Tell};
use crate::{
    dataplane::{attach, clock},
    engine::{GroupId, GroupState, NodeId},
    host::{Place, Watched},
    node::{Node, NodeError, Setup, set_up},
    paths::Paths,
    transport::Rejected,
};

/// What the keeper owns.
pub struct Keeper<T> {
    /// The node; a witness has none.
    pub node: Option<Node>,
    /// How to bring it up again.
    pub setup: Setup,
    /// Where it is.
    pub paths: Paths,
    /// Names for the log.
    pub names: Names,
    /// To the lease loop.
    pub lease_loop: T,
    /// What was said of eligibility last.
    pub eligible: Option<bool>,
    /// When a peer's rejected datagrams were last complained about.
    pub complained: BTreeMap<NodeId, BootNs>,
}

/// How often at most a peer's rejected datagrams are complained about.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

impl<T: Tell> Keeper<T> {
    /// Runs until the channel closes.
    pub fn run(mut self, notices: &Receiver<Notice>) {
        self.judge();
        while let Ok(notice) = notices.recv() {
            self.notice(notice);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Claim { group, vip, mac } => {
                let group = self.names.group(group);
                warn!(group, %vip, mac = mac_text(mac), "another node claims a VIP that this node holds");
            }
            Notice::Changed { group, state, epoch, reason, holder } => {
                let holder = holder.map_or("nobody", |node| self.names.node(node));
                let name = self.names.group(group);
                info!(group = name, state = %state, epoch = epoch.0, reason = %reason, holder, "changed");
                if let Err(e) = self.place(group, state) {
                    error!(group = self.names.group(group), "{e}");
                }
            }
            Notice::Connected { node, restarted } => {
                let node = self.names.node(node);
                info!(node, restarted, "connected");
            }
            Notice::Rejected { reason, from } => self.rejected(reason, from),
            Notice::Watched(watched) => self.watched(watched),
        }
    }

    /// Only what an admin can mend is worth a line, and not one per datagram;
    /// everything is counted.
    fn rejected(&mut self, reason: Rejected, from: Option<NodeId>) {
        let why = if reason == Rejected::ConfigMismatch {
            "its configuration differs from this node's in what all must agree on"
        } else if reason == Rejected::BadTag {
            "its key, or its cluster's name, is another one"
        } else {
            return;
        };
        let Some(from) = from else { return };
        let now = clock::now();
        if self.complained.get(&from).is_some_and(|last| now.since(*last) < COMPLAINT_PAUSE) {
            return;
        }
        self.complained.insert(from, now);
        let node = self.names.node(from);
        warn!(node, "datagrams that name this node as their sender are rejected: {why}");
    }

    /// Lets local clients of a group go where it is now.
    fn place(&self, group: GroupId, state: GroupState) -> Result<(), NodeError> {
        let (Some(node), Some(index)) = (&self.node, self.names.index(group)) else { return Ok(()) };
        let place = match state {
            GroupState::Active => Place::Here,
            GroupState::Init
            | GroupState::Standby
            | GroupState::Fault
            | GroupState::Paused
            | GroupState::Witness => node.out(index)?,
        };
        Ok(node.host.place_local_clients(index, place)?)
    }

    fn watched(&mut self, watched: Watched) {
        match watched {
            Watched::Link(link) if self.setup.interfaces.contains(&link.name) => {
                if !attach::is_attached(&self.paths.bpf_dir, link.index) {
                    self.come_back(&link.name);
                } else if let (Some(node), Some(mac)) = (&mut self.node, link.mac) {
                    match node.plane.ifaces() {
                        Ok(known) if known.get(&link.index) == Some(&mac) => {}
                        _ => {
                            if let Err(e) = node.plane.set_iface(link.index, mac) {
                                error!(interface = link.name, "{e}");
                            }
                        }
                    }
                }
                self.judge();
            }
            Watched::Link(_) => {}
            Watched::Gone(_) => self.judge(),
            Watched::Removed => self.repair(),
        }
    }

    /// An interface of ours is there again, with nothing on it.
    fn come_back(&mut self, interface: &str) {
        match set_up(&self.paths, &self.setup) {
            Ok(node) => {
                info!(interface, "the interface is back: attached to it again");
                self.node = Some(node);
            }
            Err(e) => error!(interface, "could not attach again: {e}"),
        }
    }

    /// Puts back what somebody removed.
    fn repair(&self) {
        let Some(node) = &self.node else { return };
        let vips = match node.vip_groups() {
            Ok(vips) => vips,
            Err(e) => return error!("{e}"),
        };
        match node.host.ensure(&vips) {
            Ok(done) if done.is_empty() => {}
            Ok(done) => warn!("somebody changed this host's network configuration: {}", done.join("; ")),
            Err(e) => error!("could not put back what somebody removed: {e}"),
        }
    }

    /// Tells the engine whether this node can serve: every interface is
    /// there, up, with a carrier, and has the program on it.
    fn judge(&mut self) {
        let Some(node) = &self.node else { return };
        let present = match node.host.interfaces() {
            Ok(present) => present,
            Err(e) => return error!("{e}"),
        };
        let bad = self.setup.interfaces.iter().find_map(|name| {
            let Some(link) = present.values().find(|link| link.name == *name) else {
                return Some(format!("{name} is gone"));
            };
            if !(link.up && link.carrier) {
                return Some(format!("{name} has no carrier"));
            }
            if link.xdp.is_none() || !attach::is_attached(&self.paths.bpf_dir, link.index) {
                return Some(format!("{name} has no XDP program"));
            }
            None
        });
        let eligible = bad.is_none();
        if self.eligible == Some(eligible) {
            return;
        }
        self.eligible = Some(eligible);
        match bad {
            Some(why) => warn!("this node can't serve: {why}"),
            None => info!("this node can serve"),
        }
        if !self.lease_loop.eligible(eligible) {
            error!("the lease loop has ended");
        }
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
