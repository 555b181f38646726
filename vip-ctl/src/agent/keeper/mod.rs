//! The keeper's thread: it owns the host's side of the node. It makes local
//! clients follow the lease, repairs what other programs removed, attaches again
//! when an interface comes back, and writes the log for the threads that must
//! not. The [`judge`](super::judge) says what this node can serve, and none of
//! this work holds it up.

mod batch;
pub mod carriers;
pub mod chronicle;
pub mod pins;
mod places;
mod record_writer;
pub mod reload;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::mpsc::Receiver,
    time::Duration,
};

use tracing::{error, info, warn};
use vip_common::BootNs;
use vip_lease::{LeaseNotice, table::Table, transport::Rejected};

use self::places::Places;
use self::{
    carriers::{Carriers, concerns},
    chronicle::Chronicle,
    pins::Pins,
    reload::UnderWay,
};
use super::{
    checks::Applier,
    judge::{Handle, HostLinks, program_trouble},
    messages::{Notice, Tell},
    names::Names,
};
use crate::{
    clock,
    config::Config,
    dataplane::{
        DataPlaneError,
        attach::{self, Presence},
        local_in,
    },
    engine::{GroupId, GroupState, Label, NodeId, Transition},
    host::{Interface, Watched, mac_text, stray_text},
    mode::Mode,
    node::{Node, NodeError, Setup},
    paths::Paths,
    records::{membership::Membership, memory::Memory},
};

/// Everything that the keeper owns.
pub struct Keeper<T> {
    /// The node; a witness has none.
    pub node: Option<Node>,
    /// Peers' neighbour entries.
    pub pins: Pins,
    /// How to bring the node up again.
    pub setup: Setup,
    /// Where the node's files are.
    pub paths: Paths,
    /// Names for the log.
    pub names: Names,
    /// To the lease loop.
    pub lease_loop: T,
    /// The judge; `None` on a node that never holds.
    pub judge: Option<Handle<T, HostLinks>>,
    /// Where local clients shall go.
    pub routes: Routes,
    /// Groups whose leases now have all of their VIPs, by the last notices.
    pub covered: Vec<Label>,
    /// A handle to change which checks run; `None` on a node that never holds.
    pub checks: Option<Applier>,
    /// When the log last complained about rejected datagrams of a peer, or of
    /// strangers.
    pub complained: BTreeMap<Option<NodeId>, BootNs>,
    /// What outlives this incarnation.
    pub memory: Memory,
    /// The part of the membership that outlives it (rule 10).
    pub membership: Membership,
    /// The configuration as of the last reload.
    pub config: Config,
    /// The groups, and which of their VIPs this node may answer.
    pub table: Table,
    /// A reload that the lease loop has not taken over yet.
    pub under_way: Option<UnderWay>,
    /// Messages of netlink during a reload: a repair would bring back what has to
    /// go.
    pub postponed: Vec<Watched>,
    /// Reports to people, and to the hooks' thread.
    pub chronicle: Chronicle,
    /// A VIP that somebody has put on an interface, and that one's name.
    pub stray: Option<(IpAddr, String)>,
    /// Does an interface not let in a virtual MAC?
    pub is_deaf: bool,
    /// Which interfaces have a carrier.
    pub carriers: Carriers,
}

/// Local clients' routes that are still to be set.
#[derive(Debug, Default)]
pub struct Routes(Places);

/// How often at most the log complains about a peer's rejected datagrams.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// How many repairs the log lists one by one.
const TOLD_MAX: usize = 10;

impl<T: Tell + Clone + Send + 'static> Keeper<T> {
    /// Runs until the channel closes.
    pub fn run(self, notices: &Receiver<Notice>) {
        batch::KeeperLoop::new(self).run(notices);
    }
}

impl<T: Tell> Keeper<T> {
    /// Takes note of what shall outlive this incarnation. Returns whether there
    /// is anything to write.
    fn remember(&mut self, notice: &LeaseNotice) -> bool {
        match notice {
            LeaseNotice::Changed { transition, .. } => {
                let name = self.names.group(transition.group);
                self.memory.note_epoch(name, transition.epoch)
            }
            LeaseNotice::RaiseCeiling(ceiling) => {
                self.memory.ceiling = self.memory.ceiling.max(ceiling.0);
                true
            }
            LeaseNotice::Remember { standby, pause } => {
                self.memory.standby = *standby;
                (self.memory.pause_version, self.memory.paused) = (pause.version, pause.on);
                true
            }
            LeaseNotice::Claim { .. }
            | LeaseNotice::Regrouped
            | LeaseNotice::Covered { .. }
            | LeaseNotice::Asked { .. }
            | LeaseNotice::Connected { .. }
            | LeaseNotice::Late { .. }
            | LeaseNotice::Rejected { .. } => false,
        }
    }

    /// This node has heard a voter: does that have this node's membership (rule
    /// 10)?
    fn confirm(&mut self, node: NodeId, generation: u64) {
        let ours = u64::from(self.membership.generation);
        let name = self.names.node(node);
        if generation > ours {
            warn!(
                node = name,
                "this node has generation {ours} of the membership and {name} has {generation}: \
                 bring this node's vip.toml up to date and restart its agent"
            );
            return;
        }
        if generation < ours || !self.membership.confirm(name) {
            return;
        }
        if self.membership.missing().is_empty() {
            info!(generation = ours, "every voter has this generation of the membership");
        }
        if let Err(e) = self.membership.store(&self.paths.state_dir) {
            error!("the record of the membership could not be written: {e}");
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Lease(notice) => self.lease_notice(notice),
            Notice::Checked { group, check, trouble } => {
                match &trouble {
                    Some(trouble) => warn!(group, check, "a health check fails: {trouble}"),
                    None => info!(group, check, "a health check passes"),
                }
                self.chronicle.checked(&group, &check, trouble.as_deref());
            }
            Notice::CanServe { because } => {
                self.chronicle.eligible(because.as_deref());
                match &because {
                    Some(why) => warn!("this node can't serve: {why}"),
                    None => info!("this node can serve"),
                }
            }
            Notice::Watched(watched) => self.watched(watched),
            Notice::Silent { group, vip } => self.chronicle.silent(&group, vip),
            Notice::Unheard(interfaces) => interfaces.iter().for_each(|name| self.try_another_mode(name)),
            Notice::Reload(order) => {
                // First, with the numbers and places that groups have so far.
                self.settle();
                self.begin_reload(*order);
            }
        }
    }

    fn lease_notice(&mut self, notice: LeaseNotice) {
        match notice {
            LeaseNotice::Claim { group, vip, mac } => {
                let group = self.names.group(group);
                self.chronicle.claim(group, &vip.to_string(), &mac_text(mac));
                warn!(group, %vip, mac = mac_text(mac), "another node claims a VIP that this node holds");
            }
            LeaseNotice::Asked { command, at } => self.chronicle.asked(&self.names, command, at),
            LeaseNotice::Changed { transition, promoting, gap } => {
                self.chronicle.changed(&self.names, &transition, promoting, gap);
                let Transition { group, state, epoch, reason, holder } = transition;
                let holder = holder.map_or("nobody", |node| self.names.node(node));
                let name = self.names.group(group);
                info!(group = name, state = %state, promoting, epoch = epoch.0, reason = %reason, holder, "changed");
                self.want_place(group, state, promoting);
            }
            LeaseNotice::Connected { node, generation, is_member: false, .. } => {
                info!(node = self.names.node(node), generation, "asks to take part in this membership");
            }
            LeaseNotice::Connected { node, restarted, generation, is_member: true } => {
                info!(node = self.names.node(node), restarted, "connected");
                self.chronicle.connected(self.names.node(node), restarted);
                self.confirm(node, generation);
            }
            LeaseNotice::Remember { standby, pause } => {
                self.chronicle.mode(standby, pause);
                info!(standby, paused = pause.on, "changed");
            }
            LeaseNotice::RaiseCeiling(_) => {}
            LeaseNotice::Late { by, margin } => {
                self.chronicle.late(by, margin);
                warn!(
                    "a renewal began {} ms late, and {} ms would have cost the lease: is this host too busy, or the agent without real-time priority?",
                    by.as_millis(),
                    margin.as_millis()
                );
            }
            LeaseNotice::Rejected { reason, from, source } => self.rejected(reason, from, source),
            LeaseNotice::Regrouped => {
                self.settle();
                self.finish_reload();
            }
            LeaseNotice::Covered { label } => self.covered.push(label),
        }
    }

    /// Logs only what an admin can mend, and not each datagram; the counters have
    /// everything.
    fn rejected(&mut self, reason: Rejected, from: Option<NodeId>, source: SocketAddr) {
        self.chronicle.rejected(reason, from.map(|from| self.names.node(from)));
        let why = if reason == Rejected::ConfigMismatch {
            "its configuration differs from this node's in what all must agree on"
        } else if reason == Rejected::GenerationMismatch {
            "its membership is not this node's, nor the one before or after it"
        } else if reason == Rejected::BadTag {
            "its key, or its cluster's name, is another one"
        } else if reason == Rejected::ForeignAddress {
            "no such node has this address: if one of them is behind it, configure the address that its datagrams come from"
        } else {
            return;
        };
        if from.is_none() && reason != Rejected::ForeignAddress {
            return;
        }
        let now = clock::now();
        if self.complained.get(&from).is_some_and(|last| now.since(*last) < COMPLAINT_PAUSE) {
            return;
        }
        self.complained.insert(from, now);
        match from {
            Some(from) => {
                let node = self.names.node(from);
                warn!(node, %source, "datagrams that name this node as their sender are rejected: {why}");
            }
            None => warn!(%source, "datagrams are dropped: {why}"),
        }
    }

    /// Makes local clients of a group go where it is now: not here while its
    /// fence is shut.
    fn want_place(&mut self, group: GroupId, state: GroupState, promoting: bool) {
        let is_here = match state {
            GroupState::Active => !promoting,
            GroupState::Init
            | GroupState::Standby
            | GroupState::Fault
            | GroupState::Paused
            | GroupState::Witness
            | GroupState::Observer => false,
        };
        if let Some(index) = self.names.index(group) {
            self.routes.0.want(index, is_here);
        }
    }

    /// Interfaces, addresses or VIPs of this host have changed.
    pub(super) fn forget_ways(&mut self) {
        self.routes.0.forget_ways();
    }

    /// Does together what many notices asked for.
    fn settle(&mut self) {
        self.cover();
        let Some(node) = &self.node else { return };
        let failed = self.routes.0.settle(node);
        let more = failed.len().saturating_sub(TOLD_MAX);
        for (group, e) in failed.into_iter().take(TOLD_MAX) {
            error!(place = group.0, more, "local clients of a group could not be let go where it is: {e}");
        }
    }

    pub(super) fn watched(&mut self, watched: Watched) {
        if self.under_way.is_some() {
            self.postponed.push(watched);
            return;
        }
        if matches!(&watched, Watched::Neighbour | Watched::Missed)
            || matches!(&watched, Watched::Link(link) if link.up)
        {
            self.pins.look();
        }
        match watched {
            Watched::Link(link) => {
                let is_back = self.carriers.comes_back(&link);
                // XDP in the driver of one of ours would run on a port that is new.
                if concerns(&link, &self.setup.interfaces) {
                    if is_back {
                        // The lease loop ends only with the process.
                        let _ = self.lease_loop.announce_all();
                    }
                    self.look();
                }
            }
            Watched::Missed => self.look(),
            Watched::Gone(index) => {
                self.carriers.forget(index);
                self.forget_ways();
            }
            Watched::Disturbed => self.forget_ways(),
            // The repair that follows puts routes back.
            Watched::RouteGone(_) | Watched::Neighbour => {}
        }
    }

    /// Checks this node's interfaces as they are now: does the program run on
    /// each that is there, and is its MAC known?
    fn look(&mut self) {
        self.forget_ways();
        self.look_at_programs();
        let told = self.judge.as_ref().and_then(|judge| judge.looked());
        told.into_iter().for_each(|notice| self.notice(notice));
    }

    fn look_at_programs(&mut self) {
        let Some(node) = &mut self.node else { return };
        let present = match node.host.interfaces() {
            Ok(present) => present,
            Err(e) => return error!("{e}"),
        };
        present.values().for_each(|link| self.carriers.learn(link));
        let ours = || present.values().filter(|link| self.setup.interfaces.contains(&link.name));
        let answers_nobody =
            |link: &&Interface| program_trouble(&self.paths.bpf_dir, link, &present).is_some();
        if let Some(link) = ours().find(answers_nobody) {
            return self.come_back(&link.name);
        }
        let is_displaced = |link: &&Interface| attach::is_displaced(&self.paths.bpf_dir, link);
        let mut gates = ours().chain(present.values().filter(|link| link.loopback));
        if let Some(link) = gates.find(is_displaced) {
            warn!(interface = link.name, "another program comes before ours at tc: putting ours first");
            return self.come_back(&link.name);
        }
        if node.has_local_in && local_in::is_missing(&self.paths.bpf_dir).unwrap_or(false) {
            warn!("the gate at IP level is gone, or does not look behind NAT: attaching it again");
            return self.come_back("lo");
        }
        let written = node.write_ifaces(&self.setup, &ours().map(|link| link.index).collect());
        match written.and_then(|()| node.follow_names(&self.setup)) {
            Ok(moved) if moved.is_empty() => {}
            Ok(moved) => {
                let vips = moved.join(", ");
                warn!("an interface's name is another device's now, and these VIPs go with it: {vips}");
                self.repair();
            }
            Err(e) => error!("{e}"),
        }
    }

    /// The peers do not hear the data plane on this interface: what native XDP sends back may
    /// go nowhere. Where nobody has asked for that mode, tries the next one; whoever starts
    /// later goes on with it.
    fn try_another_mode(&mut self, name: &str) {
        let Some(node) = &self.node else { return };
        let link = match node.host.interface(name) {
            Ok(link) => link,
            Err(e) => return error!("{e}"),
        };
        let runs = link.map(|link| attach::presence(&self.paths.bpf_dir, &link));
        if self.setup.mode(name) != Mode::Auto || runs != Some(Presence::Runs(Mode::Native)) {
            return;
        }
        warn!(interface = name, "most peers do not hear the data plane in native mode: trying it at tc");
        self.setup.modes.insert(name.to_owned(), Mode::Tc);
        self.come_back(name);
    }

    /// An interface of ours has no program, its gate is not the first, or the one at IP
    /// level is gone.
    fn come_back(&mut self, interface: &str) {
        let Some(node) = &mut self.node else { return };
        match node.attach_again(&self.setup) {
            Ok(()) => {
                info!(interface, "attached to the interface again");
                let left_out = node.newly_left_out();
                node.warnings.iter().chain(&left_out).for_each(|warning| warn!("{warning}"));
            }
            Err(NodeError::DataPlane(e @ DataPlaneError::Replaced { .. })) => {
                // The lease loop writes to maps that can't be attached to any more.
                // Leases run out in the kernel, and the next start of the agent begins
                // anew.
                error!(interface, "could not attach again, and this agent ends: {e}");
                if let Err(e) = node.leave_unguarded() {
                    error!("this host may still have VIPs that nothing guards: run `vip-ctl unload`: {e}");
                }
                std::process::abort();
            }
            Err(e) => error!(interface, "could not attach again: {e}"),
        }
    }

    /// Lets in the virtual MACs again that somebody has taken off an interface. Says once
    /// what can't be.
    fn let_in(&mut self) {
        let is_any = self.config.groups.iter().any(|group| group.virtual_mac.is_some());
        let Some(node) = self.node.as_ref().filter(|_| is_any) else { return };
        match node.let_in_again() {
            Ok(done) if done.is_empty() => self.is_deaf = false,
            Ok(done) => warn!("somebody took off what lets in a virtual MAC: {}", done.join("; ")),
            Err(e) if !std::mem::replace(&mut self.is_deaf, true) => {
                error!("this node does not receive what is for a virtual MAC: {e}");
            }
            Err(_) => {}
        }
    }

    /// Puts back what somebody removed.
    fn repair(&mut self) {
        self.forget_ways();
        let Some(node) = &mut self.node else { return };
        match node.repair() {
            Ok(done) if done.is_empty() => {}
            Ok(done) => {
                let told = done.iter().take(TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
                let more = done.len().saturating_sub(TOLD_MAX);
                warn!(more, "somebody changed this host's network configuration: {told}");
            }
            Err(e) => error!("could not put back what somebody removed: {e}"),
        }
        node.newly_left_out().iter().for_each(|warning| warn!("{warning}"));
        self.look_for_strays();
    }

    /// Has somebody put a VIP on an interface? It is left there, and told: whoever did that
    /// has to say what it is for.
    fn look_for_strays(&mut self) {
        let Some(node) = &self.node else { return };
        let stray = match node.stray() {
            Ok(stray) => stray,
            Err(e) => return error!("could not look for VIPs on interfaces: {e}"),
        };
        if let Some((vip, iface)) = stray.as_ref().filter(|_| stray != self.stray) {
            warn!("{}", stray_text(*vip, iface));
        }
        self.stray = stray;
    }
}
