//! The announcer's thread: gratuitous ARP for groups that came here, paced
//! and repeated, so that no number of VIPs can hold up the lease loop.
//!
//! It asks the fence before it sends, and the egress gate asks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use vip_common::{BootNs, GroupIndex};

use crate::{
    announce::Announcer,
    dataplane::{DataPlane, DataPlaneError, clock},
};

/// When a takeover is announced, counted from it: at once, and again for
/// whoever missed it (a switch port that learns, a client that was busy).
const TIMES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// How often at most a rival's claims are answered by announcing again.
const DEFEND_PAUSE: Duration = Duration::from_secs(1);
/// VIPs announced before a pause: the thread has real-time priority and must
/// leave the processor to others.
const BURST: usize = 64;
const BURST_PAUSE: Duration = Duration::from_millis(1);

/// Why to announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The group has come here.
    Takeover(GroupIndex),
    /// Somebody else claimed one of its VIPs.
    Defend(GroupIndex),
}

/// Runs until the channel closes.
pub fn run(plane: &DataPlane, orders: &Receiver<Announce>) -> io::Result<()> {
    let socket = Announcer::open()?;
    let mut due: BTreeSet<(BootNs, GroupIndex)> = BTreeSet::new();
    let mut defended: BTreeMap<GroupIndex, BootNs> = BTreeMap::new();
    loop {
        let now = clock::now();
        let wait = due.first().map_or(Duration::from_secs(3600), |(at, _)| at.since(now));
        match orders.recv_timeout(wait) {
            Ok(Announce::Takeover(group)) => {
                let now = clock::now();
                due.retain(|(_, other)| *other != group);
                due.extend(TIMES.iter().map(|after| (now.plus(*after), group)));
            }
            Ok(Announce::Defend(group)) => {
                let now = clock::now();
                let next = defended.get(&group).map_or(now, |last| last.plus(DEFEND_PAUSE).max(now));
                if next <= now || !due.iter().any(|(_, other)| *other == group) {
                    defended.insert(group, next);
                    due.insert((next, group));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let now = clock::now();
        while let Some((at, group)) = due.first().copied() {
            if at > now {
                break;
            }
            due.pop_first();
            // What can't be read now is announced by the next repetition.
            let _ = announce(plane, &socket, group);
        }
    }
}

fn announce(plane: &DataPlane, socket: &Announcer, group: GroupIndex) -> Result<(), DataPlaneError> {
    let Some(known) = plane.groups().into_iter().find(|g| g.index == group) else { return Ok(()) };
    let ifaces = plane.ifaces()?;
    let vips: Vec<_> =
        plane.vips()?.into_iter().filter(|(_, e)| e.group == group).map(|(vip, _)| vip).collect();
    for (number, burst) in vips.chunks(BURST).enumerate() {
        if number > 0 {
            thread::sleep(BURST_PAUSE);
        }
        if !known.fence(plane.leases().load(group), clock::now()).is_open() {
            return Ok(());
        }
        for vip in burst {
            for (ifindex, mac) in &ifaces {
                // An interface that is down, or a gate that closed meanwhile.
                let _ = socket.announce(*ifindex, *mac, *vip);
            }
        }
    }
    Ok(())
}
