//! The prober's thread: where another node holds a group, it asks for its VIPs on the
//! wire as a client would, and notices when nobody answers. [`questions`] decides whom to
//! ask when.
//!
//! It asks by broadcast and with an address of its own, since that is what a client's first
//! question is, and what switches let pass that inspect ARP; where it has none in the VIP's
//! subnet, by an address probe (RFC 5227). The data plane remembers the answers; this
//! thread only looks them up.
//!
//! Before anybody takes a group, it asks whether answers arrive at all: [`ways`].

mod questions;
mod segment;
mod unheard;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak, mpsc::Sender},
    thread,
    time::Duration,
};

use tracing::warn;
use vip_common::{BootNs, GroupIndex, GroupMode, IfaceConfig, VipEntry};

pub use self::ways::Links;
use self::{
    questions::{Now, Questions},
    ways::{End, Ways},
};
use super::{checks::Board, messages::Notice, threads::spawn};
use crate::{
    announce::arp::Announcer,
    clock,
    dataplane::{DataPlane, DataPlaneError, MapGroup},
    host::{Host, HostError, is_on_link},
    paths::Paths,
};

/// How often to look for answers.
const TICK: Duration = Duration::from_millis(250);
/// How long one reading of the maps serves at least. What has gone since is asked for one
/// by one.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// And how many times as long as the reading took.
const GOOD_FOR_READS: u32 = 100;
/// How often a holder hears that nobody answers for a VIP of its group.
const COMPLAIN: Duration = Duration::from_secs(1);
/// Of how many groups at once, at most.
const COMPLAINTS: usize = 512;

/// Why the thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProberError {
    /// The maps.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// Netlink.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The socket or the thread.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Starts the thread, which ends with the board.
///
/// # Errors
/// [`ProberError`].
pub fn start(
    paths: &Paths,
    board: &Arc<Board>,
    keeper: Sender<Notice>,
    links: Links,
) -> Result<(), ProberError> {
    let (plane, host) = (DataPlane::open(&paths.bpf_dir)?, Host::open(&paths.run_dir)?);
    let (socket, board) = (Announcer::open()?, Arc::downgrade(board));
    let (questions, ground, told) = (Questions::default(), None, BTreeMap::new());
    let complained = BootNs::default();
    let ways = Ways::open(links)?;
    spawn("prober", move || {
        Prober { plane, host, socket, questions, ways, keeper, ground, told, complained }.run(&board)
    })
    .map_err(|e| io::Error::other(e.to_string()))?;
    Ok(())
}

/// What the maps had when they were last read.
struct Ground {
    good_until: BootNs,
    groups: BTreeMap<GroupIndex, MapGroup>,
    vips: BTreeMap<GroupIndex, Vec<(IpAddr, VipEntry)>>,
    ifaces: BTreeMap<u32, IfaceConfig>,
    /// Of each interface.
    addresses: BTreeMap<u32, Vec<(IpAddr, u8)>>,
    /// The interfaces that peers can ask.
    ends: BTreeMap<u32, End>,
}

impl Ground {
    fn read(plane: &DataPlane, host: &Host) -> Result<Self, DataPlaneError> {
        let begin = clock::now();
        let vips = plane.vips_by_group()?;
        let groups = plane.groups().into_iter().filter(|group| group.mode == GroupMode::Cluster);
        let groups = groups.map(|group| (group.index, group)).collect();
        let ifaces = plane.ifaces()?;
        let mut addresses = host.all_addresses().unwrap_or_default();
        addresses.retain(|ifindex, _| ifaces.contains_key(ifindex));
        let is_vip = |address| plane.vip(address).is_some();
        let end = |(ifindex, iface): (&u32, &IfaceConfig)| {
            Some((*ifindex, End::of(*iface, addresses.get(ifindex)?, is_vip)?))
        };
        let ends = ifaces.iter().filter_map(end).collect();
        let now = clock::now();
        let good_until = now.plus(GOOD_FOR.max(now.since(begin) * GOOD_FOR_READS));
        Ok(Self { good_until, groups, vips, ifaces, addresses, ends })
    }

    /// This host's address in a VIP's subnet on an interface; no VIP, whose requests would
    /// not leave.
    fn own(&self, plane: &DataPlane, ifindex: u32, vip: IpAddr) -> Option<Ipv4Addr> {
        let is_own = |own: &&(IpAddr, u8)| is_on_link(&[**own], vip) && plane.vip(own.0).is_none();
        let own = self.addresses.get(&ifindex)?.iter().find(is_own);
        if let Some((IpAddr::V4(own), _)) = own { Some(*own) } else { None }
    }
}

struct Prober {
    plane: DataPlane,
    host: Host,
    socket: Announcer,
    questions: Questions,
    ways: Ways,
    keeper: Sender<Notice>,
    ground: Option<Ground>,
    /// The VIPs that the board has as unheard, by their groups' names: places change.
    told: BTreeMap<String, IpAddr>,
    /// When the holders have last heard of those.
    complained: BootNs,
}

impl Prober {
    fn run(mut self, board: &Weak<Board>) {
        let mut is_told = false;
        loop {
            thread::sleep(TICK);
            let Some(board) = board.upgrade() else { return };
            match self.turn(&board) {
                Ok(true) => is_told = false,
                Ok(false) => return,
                Err(e) if !std::mem::replace(&mut is_told, true) => {
                    warn!("whether other holders answer can't be looked after: {e}");
                }
                Err(_) => {}
            }
        }
    }

    /// False once the lease loop has ended.
    fn turn(&mut self, board: &Board) -> Result<bool, DataPlaneError> {
        let now = clock::now();
        let ground = match self.ground.take() {
            // Whoever hears a question believes the MAC in it.
            Some(ground) if now <= ground.good_until && self.plane.ifaces()? == ground.ifaces => ground,
            before => self.look(before.as_ref())?,
        };
        let mut news = Vec::new();
        let plane = &self.plane;
        let vips_of = |group| ground.vips.get(&group).map_or(&[][..], Vec::as_slice);
        let hosts = self.ways.hosts(now);
        let looked = self.questions.turn(now, |index| {
            let lease = plane.leases().load(index);
            let is_here = ground.groups.get(&index).is_none_or(|group| group.fence(lease, now).is_open());
            let vips = vips_of(index);
            // It may have gone since the maps were read.
            let heard = move |at: usize| plane.vip(vips[at].0).and_then(|vip| plane.heard(vip.slot).ok());
            let (holder, hosts, ifaces) = (plane.holder(index), &hosts, &ground.ifaces);
            let is_near = move |at: usize| {
                let is_home = |by| ifaces.get(by).is_some_and(|iface| vips[at].1.is_at_home(*by, *iface));
                hosts.iter().any(|(by, node)| Some(node.0) == holder && is_home(by))
            };
            Now { is_here, holder, vips: vips.len(), heard, is_near }
        });
        for (index, asked) in looked {
            let vips = vips_of(index);
            if let Some((vip, entry)) = asked.and_then(|at| vips.get(at))
                && !self.ask(*vip, *entry, &ground)
            {
                self.questions.unasked(index);
            }
            let Some(group) = ground.groups.get(&index) else { continue };
            let unheard = self.questions.unheard(index).and_then(|at| Some(vips.get(at)?.0));
            if unheard != self.told.get(&group.name).copied() {
                board.unheard(&group.name, unheard);
                // The keeper ends only with the process.
                let _ = self.keeper.send(Notice::Silent { group: group.name.clone(), vip: unheard });
                match unheard {
                    Some(vip) => {
                        news.push((group.name.clone(), vip));
                        self.told.insert(group.name.clone(), vip)
                    }
                    None => self.told.remove(&group.name),
                };
            }
        }
        if let Some((group, vip)) = news.first() {
            let more = news.len() - 1;
            warn!(group, %vip, more, "nobody answers for a VIP of a group that this node does not hold");
        }
        let goes_on = self.ways.turn(now, &ground.ends, &self.socket, board);
        self.complain(now, &ground);
        self.plane.set_hops(&self.ways.hops(now))?;
        self.ground = Some(ground);
        Ok(goes_on)
    }

    /// Tells holders what is not heard of them, and judges what they tell this node.
    fn complain(&mut self, now: BootNs, ground: &Ground) {
        let Self { plane, ways, told, questions, .. } = self;
        if now.since(self.complained) >= COMPLAIN {
            self.complained = now;
            // The group of now: it may have another place, or be gone. A new holder has not
            // been asked yet.
            let of_now = told.values().filter_map(|vip| Some((plane.vip(*vip)?.group, *vip)));
            let is_news =
                |group| questions.silent_of(group, now).is_some_and(|of| plane.holder(group) == Some(of));
            let of_now = of_now.filter(|(group, _)| is_news(*group));
            ways.complain(of_now.take(COMPLAINTS).collect());
        }
        let is_open = |group: &MapGroup| group.fence(plane.leases().load(group.index), now).is_open();
        let of = |vip| ground.groups.get(&plane.vip(vip)?.group);
        let here = |vip| of(vip).filter(|group| is_open(group)).map(|group| group.name.as_str());
        let is_here = |name: &str, vip| match of(vip) {
            Some(group) if group.name == name => is_open(group),
            // It has lost that VIP since.
            Some(_) | None => ground.groups.values().any(|group| group.name == name && is_open(group)),
        };
        let homes = |vip| {
            let Some(entry) = plane.vip(vip) else { return Vec::new() };
            let is_home = |by| ground.ifaces.get(by).is_some_and(|iface| entry.is_at_home(*by, *iface));
            ground.ends.iter().filter(|(by, _)| is_home(by)).map(|(_, end)| end.address()).collect()
        };
        ways.judge_complaints(now, here, is_here, homes);
    }

    /// Reads the maps. What is known of a group that is another one now, or has other VIPs,
    /// is forgotten.
    fn look(&mut self, before: Option<&Ground>) -> Result<Ground, DataPlaneError> {
        let ground = Ground::read(&self.plane, &self.host)?;
        self.questions.keep(&ground.groups.keys().copied().collect());
        for (index, group) in &ground.groups {
            let is_same = |before: &Ground| {
                before.groups.get(index).is_some_and(|former| former.name == group.name)
                    && before.vips.get(index) == ground.vips.get(index)
            };
            if !before.is_some_and(is_same) {
                self.questions.unasked(*index);
            }
        }
        let names: BTreeSet<_> = ground.groups.values().map(|group| &group.name).collect();
        self.told.retain(|name, _| names.contains(name));
        Ok(ground)
    }

    /// Asks on the VIP's own interfaces; false if nothing left any of them.
    fn ask(&self, vip: IpAddr, entry: VipEntry, ground: &Ground) -> bool {
        let homes = ground.ifaces.iter().filter(|(ifindex, iface)| entry.is_at_home(**ifindex, **iface));
        let asked = homes.map(|(ifindex, iface)| {
            let own = ground.own(&self.plane, *ifindex, vip);
            self.socket.ask(*ifindex, iface.mac, own, vip).is_ok()
        });
        asked.fold(false, |any, is_sent| any | is_sent)
    }
}
