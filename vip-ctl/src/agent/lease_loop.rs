//! The lease loop: the one thread that owns the engine, the transport and the
//! lease store, and turns sockets and timers into inputs and outputs into IO.
//!
//! It makes no decision, logs nothing, allocates little and waits for nobody:
//! whatever may take time is told to other threads.

mod asker;
mod asks;
mod mail;
mod moves;
mod socket;
mod source_filter;
mod source_guard;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
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
    BootNs, GroupIndex,
    event::{Event, EventKind},
};

pub use self::{
    asker::Asker,
    mail::{Room, make_room},
    source_guard::SourceGuard,
};
use self::{
    mail::{BATCH, Inbox, Outbox},
    moves::Move,
};
use super::{
    Notice,
    announcer::Announce,
    eligibility::Eligible,
    gate::{GateRule, Gates, Ticket},
    hooks::HookAsk,
    lateness::Lateness,
    parting::Partings,
};
use crate::{
    dataplane::{DataPlane, clock, observe::Events},
    engine::{
        Command, CommandId, Completed, Engine, Epoch, GroupId, Input, Label, LabelSpec, Labels, NodeId,
        Output, Packet, Refusal, Reloaded, Status,
    },
    event::Hook,
    transport::{Received, Transport},
};

/// Turns after which it is judged what follows from silence, however much is
/// left unread: whoever floods this socket must not keep a node from standing.
const UNREAD_TURNS_MAX: u32 = 16;
/// Events taken from the ring buffer in one turn.
const EVENTS_PER_TURN: usize = 64;
/// How often at most the keeper is told of the same trouble: whoever can send
/// frames or datagrams here must not be able to fill its queue, or the log.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What other threads ask of the loop.
pub enum Ask {
    /// Do what a person wants, and tell what came of it. Groups go by their
    /// numbers in that table; while the loop has another one, it is busy.
    Command(Command, u64, oneshot::Sender<Result<Completed, Refusal>>),
    /// Go on with other groups, then say [`Notice::Regrouped`].
    Regroup(Box<Regroup>),
    /// Tell the network where a group is, if it is here: it has new VIPs.
    Announce(Label),
    /// What does the engine know?
    Status(oneshot::Sender<Snapshot>),
    /// The memory on disk has this ceiling.
    Ceiling(Epoch),
    /// Whether this node can serve groups.
    Eligible(Vec<(GroupId, Eligible)>),
    /// A hook that the loop waits for has ended, and whether well.
    HookEnded(Hook, Ticket, bool),
    /// Release everything and end.
    Stop,
    /// End at once and leave the leases as they are, to the next agent or to time.
    Leave,
}

/// Other groups for a loop that runs.
pub struct Regroup {
    /// Groups that end or begin anew, by their numbers so far.
    pub ended: Vec<GroupId>,
    /// The groups, by their new numbers.
    pub groups: Vec<Reloaded>,
    /// Their labels.
    pub labels: Vec<LabelSpec>,
    /// The digest of all of them.
    pub table: u64,
    /// Their places in the maps; none on a witness.
    pub index: Vec<GroupIndex>,
    /// The groups whose leases may not have all of their VIPs yet.
    pub uncovered: Vec<GroupId>,
    /// What their hooks ask, by their new numbers.
    pub rules: Vec<GateRule>,
}

/// What the loop knows at one moment.
pub struct Snapshot {
    /// The digest of the groups that the view is of.
    pub table: u64,
    /// Nodes that have other groups, by what they last said.
    pub differing: Vec<NodeId>,
    /// The engine's view.
    pub engine: Status,
    /// When that was.
    pub now: BootNs,
    /// What was counted.
    pub counts: Counts,
    /// Rejected datagrams by reason, those that are zero left out.
    pub rejected: Vec<(&'static str, u64)>,
    /// How late renewals began.
    pub lateness: Lateness,
    /// Groups that are held here while their fence is kept shut.
    pub promoting: Vec<GroupId>,
    /// Groups that this node stays away from, until when.
    pub barred: BTreeMap<GroupId, BootNs>,
}

/// What the loop counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that could not be sent, or had no session to be sealed for.
    pub unsent: u64,
    /// Authentic datagrams received.
    pub received: u64,
    /// Authentic datagrams whose packet was not understood.
    pub undecoded: u64,
    /// Datagrams that the kernel dropped before this agent could take them.
    pub dropped: u64,
}

/// The data plane's side of the loop; a witness has none.
pub struct Plane {
    /// The lease store is in here.
    pub maps: DataPlane,
    /// By [`GroupId`].
    index: Vec<GroupIndex>,
    /// The other way round.
    groups: BTreeMap<GroupIndex, GroupId>,
    /// The ring buffer.
    pub events: Events,
}

impl Plane {
    /// The maps, with the groups' places by [`GroupId`].
    #[must_use]
    pub fn new(maps: DataPlane, index: Vec<GroupIndex>, events: Events) -> Self {
        let groups = numbers(&index);
        Self { maps, index, groups, events }
    }

    /// Where each group is in the maps, by [`GroupId`].
    #[must_use]
    pub fn index(&self) -> &[GroupIndex] {
        &self.index
    }

    fn regroup(&mut self, index: Vec<GroupIndex>) {
        self.groups = numbers(&index);
        self.index = index;
    }
}

fn numbers(index: &[GroupIndex]) -> BTreeMap<GroupIndex, GroupId> {
    index.iter().copied().zip((0..=u16::MAX).map(GroupId)).collect()
}

/// Everything that the loop owns.
pub struct LeaseLoop {
    /// Decides.
    pub engine: Engine,
    /// What groups are called between nodes.
    pub labels: Labels,
    /// The groups whose leases may not have all of their VIPs yet.
    pub uncovered: Vec<GroupId>,
    /// Seals and opens.
    pub transport: Transport,
    /// To and from the peers; does not block.
    pub socket: UdpSocket,
    /// Who may send to it.
    pub guard: SourceGuard,
    /// The nodes' addresses.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The maps.
    pub plane: Option<Plane>,
    /// What others ask.
    pub asks: Receiver<Ask>,
    /// Written whenever something was asked.
    pub wake: std::sync::Arc<EventFd>,
    /// Where notices go.
    pub tell: Sender<Notice>,
    /// Where announcements are ordered.
    pub announcer: Sender<Announce>,
    /// Between the engine's words and the map.
    pub gates: Gates,
    /// Where hooks are ordered.
    pub hooks: Sender<HookAsk>,
    /// This node.
    pub me: NodeId,
}

/// The loop while it runs.
struct Running {
    inner: LeaseLoop,
    outbox: Outbox,
    counts: Counts,
    waiting: Vec<(CommandId, oneshot::Sender<Result<Completed, Refusal>>)>,
    next_command: u64,
    stopped: bool,
    /// Planned moves that wait for hooks.
    partings: Partings<Move>,
    /// Those that need not wait any more, for after the input at hand.
    freed: Vec<Move>,
    troubles: BTreeMap<Trouble, BootNs>,
    lateness: Lateness,
    /// Turns in a row that have left something unread.
    unread_turns: u32,
}

/// What is only told now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Datagrams in this node's name are rejected; `None` for no peer's.
    Rejected(Option<NodeId>),
    /// A VIP of this group is claimed by another node.
    Claim(GroupId),
    /// Renewals begin late.
    Late,
}

impl LeaseLoop {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// If a timer can't be made or waiting fails: then the process must end,
    /// and the leases run out.
    pub fn run(self) -> io::Result<()> {
        let timer =
            TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let mut running = Running {
            inner: self,
            outbox: Outbox::default(),
            counts: Counts::default(),
            waiting: Vec::new(),
            next_command: 0,
            stopped: false,
            partings: Partings::default(),
            freed: Vec::new(),
            troubles: BTreeMap::new(),
            lateness: Lateness::default(),
            unread_turns: 0,
        };
        running.prepare(&vec![None; running.inner.gates.len()]);
        let mut inbox = Inbox::new();
        while !running.stopped {
            running.turn(&mut inbox)?;
            running.wait(&timer)?;
        }
        Ok(())
    }
}

impl Running {
    /// Everything that is due now.
    fn turn(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        self.note_lateness();
        // Time first for this node's own leases: what ran out while we slept
        // has run out, whatever waits in the socket.
        self.input(Input::Clock);
        self.inner.transport.wake(clock::now());
        self.transmit();
        // Mail before judgement: whoever was late itself would else believe
        // a peer gone whose renewal lies in the socket.
        let is_drained = self.read(inbox)?;
        self.unread_turns = if is_drained { 0 } else { self.unread_turns + 1 };
        if is_drained || self.unread_turns >= UNREAD_TURNS_MAX {
            self.unread_turns = 0;
            self.input(Input::Wake);
        }
        self.moves_due();
        self.calm_down();
        while let Ok(ask) = self.inner.asks.try_recv() {
            self.ask(ask);
        }
        self.events();
        self.look_at_uncovered();
        Ok(())
    }

    /// Reads what has arrived, up to a limit. Returns whether nothing is left.
    fn read(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        let count = inbox.receive(&self.inner.socket)?;
        for place in 0..count {
            if let Some((bytes, source)) = inbox.datagram(place) {
                self.datagram(bytes, source);
            }
        }
        Ok(count < BATCH)
    }

    /// VIPs that have come to a group are answered as soon as its leases have them.
    fn look_at_uncovered(&mut self) {
        if self.inner.uncovered.is_empty() {
            return;
        }
        let now = clock::now();
        let inner = &mut self.inner;
        inner.labels.advance(now);
        // Also of a lease whose word is kept back.
        let expiry = |group: GroupId| inner.gates.until(group);
        let is_covered = |group: &GroupId| inner.labels.covered(*group, expiry(*group), now);
        let (covered, uncovered): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.uncovered).into_iter().partition(is_covered);
        inner.uncovered = uncovered;
        for group in covered {
            if let Some((_, label)) = self.inner.labels.asked(group) {
                self.say(Notice::Covered { label });
            }
        }
    }

    /// Lateness is what a busy host does to us before it costs a lease.
    fn note_lateness(&mut self) {
        let Some(by) = self.inner.engine.lateness(clock::now()) else { return };
        let margin = self.inner.engine.margin();
        if self.lateness.note(by, margin) && self.is_due(Trouble::Late) {
            self.say(Notice::Late { by, margin });
        }
    }

    fn datagram(&mut self, bytes: &[u8], source: SocketAddr) {
        match self.receive(bytes, source) {
            Received::Payload { from, payload } => {
                let from = NodeId(from);
                match Packet::decode_from(&payload, from, &mut self.inner.labels, clock::now()) {
                    Ok(mut packet) => {
                        self.counts.received += 1;
                        self.keep_requests_back(from, &mut packet);
                        self.input(Input::Message { from, packet });
                    }
                    Err(_) => self.counts.undecoded += 1,
                }
            }
            Received::Adopted { peer, fresh, generation, is_member, .. } => {
                let (node, restarted) = (NodeId(peer), !fresh);
                self.input(Input::PeerStarted { peer: node });
                self.say(Notice::Connected { node, restarted, generation, is_member });
            }
            Received::Handshake => {}
            Received::Rejected { reason, from } => {
                let from = from.map(NodeId);
                if self.is_due(Trouble::Rejected(from)) {
                    self.say(Notice::Rejected { reason, from, source });
                }
            }
        }
        self.transmit();
    }

    /// Feeds the engine, and does what it says before anything else.
    fn input(&mut self, input: Input) {
        let now = clock::now();
        self.inner.engine.handle(input, now);
        self.outputs(now);
    }

    fn outputs(&mut self, now: BootNs) {
        while let Some(output) = self.inner.engine.poll_output() {
            self.output(output, now);
        }
        self.flush();
        let freed = std::mem::take(&mut self.freed);
        self.go_ahead(freed);
    }

    /// `now` is when the engine was given what led to it.
    fn output(&mut self, output: Output, now: BootNs) {
        match output {
            Output::StoreLease { group, lease } => self.word(group, lease, now),
            Output::Send { to, packet } => self.send(to, &packet),
            Output::Announce { group } => self.takeover(group),
            Output::Changed { group, state, epoch, reason, holder } => {
                self.changed(group, state, holder, (epoch, reason), now);
            }
            Output::RaiseCeiling { ceiling } => self.say(Notice::RaiseCeiling(ceiling)),
            Output::Remember { standby, pause } => self.say(Notice::Remember { standby, pause }),
            Output::Done { id, outcome } => {
                if let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
                    let (_, reply) = self.waiting.swap_remove(place);
                    // Whoever asked may have gone away.
                    let _ = reply.send(outcome);
                }
            }
            Output::Stopped => self.stopped = true,
        }
    }

    fn send(&mut self, to: NodeId, packet: &Packet) {
        for payload in packet.encode_for(to, &mut self.inner.labels, clock::now()) {
            match self.inner.transport.seal(to.0, &payload) {
                Ok(datagram) => self.datagram_out(to, datagram),
                Err(_) => self.counts.unsent += 1,
            }
        }
    }

    fn transmit(&mut self) {
        while let Some((to, datagram)) = self.inner.transport.poll_transmit() {
            self.datagram_out(NodeId(to), datagram);
        }
        self.flush();
    }

    /// Sent with those that follow from the same input, in the order of the
    /// engine's outputs: a word that came before is in the map.
    fn datagram_out(&mut self, to: NodeId, datagram: Vec<u8>) {
        let Some(address) = self.inner.addresses.get(&to) else {
            self.counts.unsent += 1;
            return;
        };
        if self.outbox.put(*address, datagram) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let told = self.outbox.send(&self.inner.socket);
        self.counts.sent += told.sent;
        self.counts.unsent += told.unsent;
    }

    fn events(&mut self) {
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.inner.plane.as_mut().and_then(|plane| plane.events.next()) else { return };
            self.event(event);
        }
    }

    /// Others' claims matter while we hold: then the network must hear us again.
    fn event(&mut self, event: Event) {
        if event.kind != EventKind::ClaimConflict as u32 {
            return;
        }
        let group = self.inner.plane.as_ref().and_then(|plane| plane.groups.get(&event.group).copied());
        if let Some(group) = group {
            // Each claim is answered, if not at once: the announcer sees to that.
            self.announce(group, Announce::Defend);
            if self.is_due(Trouble::Claim(group)) {
                self.say(Notice::Claim { group, vip: event.vip.into(), mac: event.mac });
            }
        }
    }

    /// Straight to the announcer: how soon the network hears it is part of the gap.
    fn announce(&self, group: GroupId, order: impl Fn(GroupIndex) -> Announce) {
        let index = self.inner.plane.as_ref().and_then(|plane| plane.index.get(usize::from(group.0)));
        if let Some(index) = index {
            // The announcer ends only with the process.
            let _ = self.inner.announcer.send(order(*index));
        }
    }

    /// True if this trouble has not been told for a while; then it is to be told now.
    fn is_due(&mut self, trouble: Trouble) -> bool {
        let now = clock::now();
        let is_due = self.troubles.get(&trouble).is_none_or(|told| now.since(*told) >= TROUBLE_PAUSE);
        if is_due {
            self.troubles.insert(trouble, now);
        }
        is_due
    }

    fn say(&self, notice: Notice) {
        // The other end is gone only when the process ends.
        let _ = self.inner.tell.send(notice);
    }

    /// Sleeps until something arrives or is due.
    fn wait(&self, timer: &TimerFd) -> io::Result<()> {
        let due =
            [self.inner.engine.next_deadline(), self.inner.transport.next_deadline(), self.moves_deadline()];
        match due.into_iter().flatten().min() {
            Some(due) => {
                // Zero would switch the timer off; the past fires at once.
                let due = due.0.max(1);
                let at =
                    TimeSpec::new((due / 1_000_000_000).cast_signed(), (due % 1_000_000_000).cast_signed());
                timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => timer.unset()?,
        }
        let events = self.inner.plane.as_ref().map(|plane| plane.events.as_raw_fd());
        // SAFETY: the ring buffer owns the descriptor and outlives this call.
        let events = events.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        let wait_for = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let wake = self.inner.wake.as_fd();
        let mut fds = [self.inner.socket.as_fd(), timer.as_fd(), wake, events.unwrap_or(wake)].map(wait_for);
        // A witness has no events.
        let count = fds.len() - usize::from(events.is_none());
        match poll(&mut fds[..count], PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if fds[2].any() == Some(true) {
            // It only says that something waits in the channel.
            let _ = self.inner.wake.read();
        }
        Ok(())
    }
}
