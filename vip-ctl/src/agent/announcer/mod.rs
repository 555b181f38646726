//! The announcer's thread: sends gratuitous ARP for groups that came here, paced
//! and repeated, so that no number of VIPs can hold up the lease loop. [`queue`]
//! decides what to send when.
//!
//! It asks the fence before it announces, and the egress gate asks again. To single
//! clients ([`corrections`]) it sends at once.

mod corrections;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    time::Duration,
};

use tracing::warn;
use vip_common::{BootNs, GroupIndex, IfaceConfig, VipEntry};

use self::corrections::Corrections;
use self::queue::{Next, Progress, Queue, Turn};
use super::messages::Announce;
use crate::{
    announce::arp::{ASKING, Announcer, At, FORMS},
    clock,
    config::Garp,
    dataplane::{DataPlane, DataPlaneError, MapGroup, attach},
    mutant::{self, Mutant},
};

/// How long at least one reading of the maps serves for more than one group. What has gone
/// from them since is asked for VIP by VIP, and what has come has an order of its own.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// And how many times as long as the reading took, so that reading very many VIPs
/// takes a fifth of the time at most.
const GOOD_FOR_READS: u32 = 4;
/// How long to wait at least before forgetting a reading.
const FORGET_MIN: Duration = Duration::from_millis(1);
/// How long to wait for an order when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until the channel closes.
pub fn run(plane: &DataPlane, socket: &Announcer, orders: &Receiver<Announce>, garp: Garp) {
    let mut queue = Queue::new(garp);
    let mut seen: Option<Seen> = None;
    let mut troubles = Troubles::default();
    let mut corrections = Corrections::default();
    loop {
        // Takes all orders that wait before it sends anything: a group that comes now
        // goes before the repeats of those that came before it.
        loop {
            match orders.try_recv() {
                Ok(order) => take(order, &mut queue, &mut corrections, plane, socket),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = clock::now();
        let wait = match queue.next(now) {
            Next::Send(turn) => {
                let seen = match seen.take().filter(|seen| seen.is_good(&turn, now)) {
                    Some(good) => Ok(seen.insert(good)),
                    None => Seen::read(plane).map(|read| seen.insert(read)),
                };
                let (frames, progress) = match seen {
                    Ok(seen) => {
                        troubles.maps = false;
                        announce(plane, seen, socket, &turn, &mut troubles)
                    }
                    // The next repeat announces what can't be read now.
                    Err(e) => {
                        troubles.maps(&e);
                        (0, Progress::All)
                    }
                };
                queue.sent(turn.group, frames, progress, clock::now());
                continue;
            }
            Next::Wait(until) => until.since(now),
            Next::Idle => {
                // Many VIPs take much memory, and much time to read: claims that follow
                // each other share one reading.
                seen = seen.filter(|seen| now <= seen.good_until);
                seen.as_ref().map_or(IDLE, |seen| seen.good_until.since(now).max(FORGET_MIN))
            }
        };
        match orders.recv_timeout(wait) {
            Ok(order) => take(order, &mut queue, &mut corrections, plane, socket),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Queues an order; tells a client that has missed an announcement at once.
fn take(
    order: Announce,
    queue: &mut Queue,
    corrections: &mut Corrections,
    plane: &DataPlane,
    socket: &Announcer,
) {
    let now = clock::now();
    let Announce::Correct(client) = order else { return queue.order(order, now) };
    // A peer has named the VIP: is it one of this node's, and may this node answer for it?
    let entry = plane.vip(client.vip);
    let group = entry.and_then(|entry| plane.group_at(entry.group));
    let is_here = group.is_some_and(|g| g.fence(plane.leases().load(g.index), now).is_open());
    if !is_here || !corrections.is_due(client, now) {
        return;
    }
    let ifaces = plane.ifaces().unwrap_or_default();
    for at in entry.iter().flat_map(|entry| homes(entry, &ifaces)) {
        // It sends again, and the next telling follows.
        let _ = socket.tell(client.mac, at, client.vip);
    }
}

/// One reading of the maps.
struct Seen {
    /// When the reading began.
    at: BootNs,
    /// Until when it may be used.
    good_until: BootNs,
    groups: BTreeMap<GroupIndex, MapGroup>,
    /// In the order of their addresses.
    vips: BTreeMap<GroupIndex, Vec<(IpAddr, VipEntry)>>,
}

impl Seen {
    fn read(plane: &DataPlane) -> Result<Self, DataPlaneError> {
        let at = clock::now();
        let vips = plane.vips_by_group()?;
        let groups = plane.groups().into_iter().map(|group| (group.index, group)).collect();
        let now = clock::now();
        let good_until = now.plus(GOOD_FOR.max(now.since(at) * GOOD_FOR_READS));
        Ok(Self { at, good_until, groups, vips })
    }

    /// VIPs can have come to a group before its order, and can go at any time.
    fn is_good(&self, turn: &Turn, now: BootNs) -> bool {
        self.at >= turn.ordered && now <= self.good_until
    }
}

/// Sends what there is room for; returns how many frames, and how far that went.
fn announce(
    plane: &DataPlane,
    seen: &Seen,
    socket: &Announcer,
    turn: &Turn,
    troubles: &mut Troubles,
) -> (usize, Progress) {
    let lease = plane.leases().load(turn.group);
    let is_here = seen.groups.get(&turn.group).is_some_and(|g| g.fence(lease, clock::now()).is_open());
    if !is_here {
        return (0, Progress::Lost);
    }
    let vips = seen.vips.get(&turn.group).map_or(&[][..], Vec::as_slice);
    let done = turn.after.map_or(0, |after| vips.partition_point(|(vip, _)| *vip <= after));
    // As they are now: a MAC can change at any time. What can't be read waits for the next repeat.
    let ifaces = plane.ifaces().unwrap_or_default();
    let (now, later) = vips[done..].split_at(fit(turn.room, &vips[done..], &ifaces));
    let mut frames = 0;
    let mut last = turn.after;
    for (vip, _) in now {
        // It may have gone since the maps were read, and the gate holds back VIPs alone.
        let Some(entry) = plane.vip(*vip).filter(|entry| entry.group == turn.group) else {
            last = Some(*vip);
            continue;
        };
        for at in homes(&entry, &ifaces) {
            let forms = if turn.asks { ASKING } else { FORMS };
            match socket.announce(at, *vip, forms) {
                // The interfaces' queues are full.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (frames, Progress::Held(last)),
                sent => troubles.sent(at.ifindex, sent),
            }
            frames += FORMS.len();
        }
        last = Some(*vip);
    }
    match last {
        Some(last) if !later.is_empty() => (frames, Progress::Partly(last)),
        Some(_) | None => (frames, Progress::All),
    }
}

/// The interfaces on which a VIP is announced, and where it is there.
fn homes(entry: &VipEntry, ifaces: &BTreeMap<u32, IfaceConfig>) -> impl Iterator<Item = At> {
    let is_home =
        |ifindex, iface| entry.is_at_home(ifindex, iface) || mutant::is(Mutant::AnnouncedEverywhere);
    let homes = ifaces.iter().filter(move |(ifindex, iface)| is_home(**ifindex, **iface));
    let entry = *entry;
    homes.map(move |(ifindex, iface)| At::of(entry, *ifindex, *iface))
}

/// For how many of these VIPs there is room, each on its own interfaces; for one at least.
/// One that is announced nowhere takes the room of one interface: it is looked up, too.
fn fit(room: usize, vips: &[(IpAddr, VipEntry)], ifaces: &BTreeMap<u32, IfaceConfig>) -> usize {
    let mut left = room;
    let has_room = |(_, entry): &&(IpAddr, VipEntry)| {
        let own = if mutant::is(Mutant::PacedByAll) { ifaces.len() } else { homes(entry, ifaces).count() };
        let frames = FORMS.len() * own.max(1);
        let has_room = frames <= left;
        left = left.saturating_sub(frames);
        has_room
    };
    vips.iter().take_while(has_room).count().max(1).min(vips.len())
}

/// Errors that are logged once, and again only after a success.
#[derive(Debug, Default)]
struct Troubles {
    maps: bool,
    ifaces: BTreeSet<u32>,
}

impl Troubles {
    fn maps(&mut self, error: &DataPlaneError) {
        if !std::mem::replace(&mut self.maps, true) {
            warn!("VIPs are announced late, since the maps can't be read: {error}");
        }
    }

    fn sent(&mut self, ifindex: u32, sent: io::Result<()>) {
        if let Some(error) = self.is_new(ifindex, sent) {
            warn!(
                "VIPs are not announced on {} ({error}): see whether it is there and up; each move tries again",
                attach::name_of(ifindex)
                    .unwrap_or_else(|| format!("interface number {ifindex}, which is gone"))
            );
        }
    }

    /// The error, if it has to be logged.
    fn is_new(&mut self, ifindex: u32, sent: io::Result<()>) -> Option<io::Error> {
        match sent {
            Ok(()) => {
                self.ifaces.remove(&ifindex);
                None
            }
            // A gate that closed meanwhile, or a queue that dropped the frame.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => None,
            Err(e) => self.ifaces.insert(ifindex).then_some(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_send_is_told_once_until_it_does() {
        let mut troubles = Troubles::default();
        let mut told = |ifindex, errno: Option<i32>| {
            let sent = errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
            troubles.is_new(ifindex, sent).is_some()
        };
        assert!(told(3, Some(libc::ENXIO)));
        assert!(!told(3, Some(libc::ENXIO)), "the next VIP");
        assert!(told(4, Some(libc::ENETDOWN)), "another interface");
        assert!(!told(3, None));
        assert!(told(3, Some(libc::ENETDOWN)), "it had sent meanwhile");
        // The gate has dropped the frame, or the next repeat replaces it.
        assert!(!told(5, Some(libc::ENOBUFS)));
        assert!(told(5, Some(libc::ENODEV)));
    }

    #[test]
    fn a_vip_is_announced_on_its_own_interface_or_on_all_that_announce() {
        let iface = |flags| IfaceConfig { flags, ..IfaceConfig::default() };
        let ifaces = BTreeMap::from([(2, iface(0)), (3, iface(IfaceConfig::SILENT)), (4, iface(0))]);
        let on = |home| {
            let entry = VipEntry { home, ..VipEntry::default() };
            homes(&entry, &ifaces).map(|at| at.ifindex).collect::<Vec<_>>()
        };
        assert_eq!(on(vip_common::layout::ANYWHERE), [2, 4]);
        assert_eq!((on(4), on(vip_common::layout::NOWHERE)), (vec![4], Vec::new()));
    }

    #[test]
    fn a_burst_has_whole_vips_each_on_its_own_interfaces_and_one_at_least() {
        let ifaces = |count| (1..=count).map(|index| (index, IfaceConfig::default())).collect();
        let vips = |home| -> Vec<_> {
            let entry = VipEntry { home, ..VipEntry::default() };
            (0..100).map(|number| (IpAddr::from([10, 0, 0, number]), entry)).collect()
        };
        let everywhere = vips(vip_common::layout::ANYWHERE);
        let fits = |room, count| fit(room, &everywhere, &ifaces(count));
        assert_eq!((fits(128, 1), fits(31, 1), fits(128, 3)), (64, 15, 21));
        assert_eq!((fits(1, 1), fits(32, 64)), (1, 1));
        // A VIP with a home leaves by that alone, whatever else there is.
        assert_eq!(fit(128, &vips(2), &ifaces(8)), 64);
        // Without an interface nothing leaves, and the maps are asked all the same.
        assert_eq!(fit(32, &everywhere, &BTreeMap::new()), 16);
        assert_eq!(fit(32, &[], &ifaces(1)), 0);
    }
}
