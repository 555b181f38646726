//! The lease loop: the one thread that owns the engine, the transport and the
//! lease store. It turns sockets and timers into inputs, and outputs into IO.
//! [`vip_lease`] has what it does in between, and in which order.
//!
//! It logs nothing, allocates little and waits for nobody: it leaves everything
//! that may take time to other threads.

mod mail;
mod requests;
mod socket;
mod source_filter;
mod source_guard;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::mpsc::{Receiver, Sender},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::EventFd,
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use tokio::sync::oneshot;
use vip_common::{
    BootNs, GroupIndex, Lease,
    event::{Event, EventKind},
    layout::Holder,
};
use vip_lease::{Core, HookAsk, Io, LeaseNotice, Parts};

use self::mail::{BATCH, Inbox, Outbox, Sent};
pub use self::{
    mail::{Room, make_room},
    source_guard::SourceGuard,
};
use super::messages::{Announce, Ask, Notice, PeerWord, RunnerAsk};
use crate::{
    clock,
    dataplane::{DataPlane, observe::Events},
    engine::{ByGroup, Completed, GroupId, NodeId, Paths, Refusal, StaleClient},
};

/// Of how many clients that send to this node by mistake their holders hear in a period:
/// each costs a datagram, and whoever forges frames can make many.
const STALE_MAX: u32 = 20;
const STALE_PERIOD: Duration = Duration::from_millis(200);
/// Events taken from the ring buffer in one turn.
const EVENTS_PER_TURN: usize = 64;

/// The data plane's side of the loop; a witness has none.
pub struct Plane {
    /// The lease store is in here.
    pub maps: DataPlane,
    /// By [`GroupId`].
    index: ByGroup<GroupIndex>,
    /// The same the other way round.
    groups: BTreeMap<GroupIndex, GroupId>,
    /// The ring buffer.
    pub events: Events,
}

impl Plane {
    /// The maps, with the groups' places by [`GroupId`].
    #[must_use]
    pub fn new(maps: DataPlane, index: ByGroup<GroupIndex>, events: Events) -> Self {
        let groups = numbers(&index);
        Self { maps, index, groups, events }
    }

    /// Where each group is in the maps, by [`GroupId`].
    #[must_use]
    pub const fn index(&self) -> &ByGroup<GroupIndex> {
        &self.index
    }

    fn regroup(&mut self, index: ByGroup<GroupIndex>) {
        self.groups = numbers(&index);
        self.index = index;
    }
}

fn numbers(index: &ByGroup<GroupIndex>) -> BTreeMap<GroupIndex, GroupId> {
    index.iter().copied().zip(index.ids()).collect()
}

/// Everything that the loop owns.
pub struct LeaseLoop {
    /// The initial state of the loop's core.
    pub parts: Parts,
    /// To and from the peers; does not block.
    pub socket: UdpSocket,
    /// Decides who may send to the socket.
    pub guard: SourceGuard,
    /// The nodes' addresses.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The maps.
    pub plane: Option<Plane>,
    /// Requests of other threads.
    pub asks: Receiver<Ask>,
    /// Signals that a request waits.
    pub wake: std::sync::Arc<EventFd>,
    /// The channel for notices to the keeper.
    pub tell: Sender<Notice>,
    /// The channel for orders to the announcer.
    pub announcer: Sender<Announce>,
    /// The channel for orders to the hooks' thread.
    pub hooks: Sender<RunnerAsk>,
    /// The channel to the prober, for what peers say of the ways between interfaces.
    pub prober: Sender<PeerWord>,
}

/// The loop while it runs.
struct Running {
    core: Core<Doer>,
    guard: SourceGuard,
    asks: Receiver<Ask>,
    wake: std::sync::Arc<EventFd>,
    /// When the period began in which so many stale clients may still be told of.
    stale_since: BootNs,
    stale_left: u32,
}

/// Carries out what the core decides.
struct Doer {
    socket: UdpSocket,
    outbox: Outbox,
    sent: Sent,
    addresses: BTreeMap<NodeId, SocketAddr>,
    plane: Option<Plane>,
    tell: Sender<Notice>,
    announcer: Sender<Announce>,
    hooks: Sender<RunnerAsk>,
    prober: Sender<PeerWord>,
}

impl Io for Doer {
    type Reply = oneshot::Sender<Result<Completed, Refusal>>;

    fn now(&self) -> BootNs {
        clock::now()
    }

    fn store(&mut self, group: GroupId, lease: Lease) {
        if let Some(plane) = &self.plane
            && let Some(index) = plane.index.get(group)
        {
            plane.maps.leases().store(*index, lease);
        }
    }

    fn send(&mut self, to: NodeId, datagram: Vec<u8>) {
        let Some(address) = self.addresses.get(&to) else {
            self.sent.unsent += 1;
            return;
        };
        if self.outbox.put(*address, datagram) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let told = self.outbox.send(&self.socket);
        self.sent.sent += told.sent;
        self.sent.unsent += told.unsent;
    }

    fn takeover(&mut self, group: GroupId) {
        self.announce(group, Announce::Takeover);
    }

    fn announce_all(&mut self) {
        // The announcer ends only with the process.
        let _ = self.announcer.send(Announce::Again);
    }

    fn correct(&mut self, client: StaleClient) {
        // The announcer ends only with the process.
        let _ = self.announcer.send(Announce::Correct(client));
    }

    fn paths(&mut self, from: NodeId, paths: &Paths) {
        // A witness has no prober.
        let _ = self.prober.send(PeerWord::Paths(from, paths.clone()));
    }

    fn unheard(&mut self, by: NodeId, vip: IpAddr) {
        let _ = self.prober.send(PeerWord::Unheard(by, vip));
    }

    fn tell(&mut self, notice: LeaseNotice) {
        if let LeaseNotice::Changed { transition, .. } = &notice
            && let Some(plane) = &self.plane
            && let Some(index) = plane.index.get(transition.group)
        {
            // Here, since the keeper may be busy when clients err most.
            let holder = transition.holder.map_or(Holder::NOBODY, |node| Holder::node(node.0));
            plane.maps.note_holder(*index, holder);
        }
        // The other end is gone only when the process ends.
        let _ = self.tell.send(Notice::Lease(notice));
    }

    fn hook(&mut self, ask: HookAsk) {
        // The thread "hooks" ends only with the process.
        let _ = self.hooks.send(RunnerAsk::Lease(ask));
    }

    fn reply(&mut self, reply: Self::Reply, outcome: Result<Completed, Refusal>) {
        // The thread that asked may have gone away.
        let _ = reply.send(outcome);
    }
}

impl Doer {
    /// Straight to the announcer: the time until the network hears of it is part
    /// of the gap.
    fn announce(&self, group: GroupId, order: impl Fn(GroupIndex) -> Announce) {
        let index = self.plane.as_ref().and_then(|plane| plane.index.get(group));
        if let Some(index) = index {
            // The announcer ends only with the process.
            let _ = self.announcer.send(order(*index));
        }
    }
}

impl LeaseLoop {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// If a timer can't be made or waiting fails: then the process must end,
    /// and the leases run out.
    pub fn run(self) -> io::Result<()> {
        let Self { parts, socket, guard, addresses, plane, asks, wake, tell, announcer, hooks, prober } =
            self;
        let timer =
            TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let (outbox, sent) = (Outbox::default(), Sent::default());
        let doer = Doer { socket, outbox, sent, addresses, plane, tell, announcer, hooks, prober };
        let mut running = Running {
            core: Core::new(parts, doer),
            guard,
            asks,
            wake,
            stale_since: clock::now(),
            stale_left: STALE_MAX,
        };
        let mut inbox = Inbox::new();
        while !running.core.is_stopped() {
            running.turn(&mut inbox)?;
            running.wait(&timer)?;
        }
        running.guard.lift();
        Ok(())
    }
}

impl Running {
    /// Does everything that is due now.
    fn turn(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        self.core.begin_turn();
        let is_drained = self.read(inbox)?;
        self.core.judge(is_drained);
        self.calm_down();
        while let Ok(ask) = self.asks.try_recv() {
            self.ask(ask);
        }
        self.events();
        self.core.look_at_uncovered();
        Ok(())
    }

    /// Reads what has arrived, up to a limit. Returns whether nothing is left.
    fn read(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        let count = inbox.receive(&self.core.io.socket)?;
        for place in 0..count {
            if let Some((bytes, source)) = inbox.datagram(place) {
                let received = self.receive(bytes, source);
                self.core.receive(received, source);
            }
        }
        Ok(count < BATCH)
    }

    fn events(&mut self) {
        let now = clock::now();
        if now.since(self.stale_since) >= STALE_PERIOD {
            (self.stale_since, self.stale_left) = (now, STALE_MAX);
        }
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.core.io.plane.as_mut().and_then(|plane| plane.events.next()) else {
                return;
            };
            self.event(event);
        }
    }

    /// Another node claims a VIP: while this node holds it, the network must hear
    /// this node again. Or a client has missed where a VIP is.
    fn event(&mut self, event: Event) {
        let plane = self.core.io.plane.as_ref();
        let Some(group) = plane.and_then(|plane| plane.groups.get(&event.group).copied()) else { return };
        let (vip, mac) = (event.vip.into(), event.mac);
        if event.kind == EventKind::ClaimConflict as u32 {
            // The announcer answers each claim, though maybe not at once.
            self.core.io.announce(group, Announce::Defend);
            self.core.claimed(group, LeaseNotice::Claim { group, vip: event.vip.into(), mac });
        } else if event.kind == EventKind::Stale as u32 && self.stale_left > 0 {
            self.stale_left -= 1;
            self.core.stale(group, StaleClient { vip, mac });
        }
    }

    /// Sleeps until something arrives or is due.
    fn wait(&self, timer: &TimerFd) -> io::Result<()> {
        match self.core.next_deadline() {
            Some(due) => {
                // Zero would switch the timer off; the past fires at once.
                let due = due.0.max(1);
                let at =
                    TimeSpec::new((due / 1_000_000_000).cast_signed(), (due % 1_000_000_000).cast_signed());
                timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => timer.unset()?,
        }
        let io = &self.core.io;
        let events = io.plane.as_ref().map(|plane| plane.events.as_raw_fd());
        // SAFETY: the ring buffer owns the descriptor and outlives this call.
        let events = events.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        let wait_for = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let wake = self.wake.as_fd();
        let mut fds = [io.socket.as_fd(), timer.as_fd(), wake, events.unwrap_or(wake)].map(wait_for);
        // A witness has no events.
        let count = fds.len() - usize::from(events.is_none());
        match poll(&mut fds[..count], PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if fds[2].any() == Some(true) {
            // It only says that something waits in the channel.
            let _ = self.wake.read();
        }
        Ok(())
    }
}
