//! The prober's part that asks peers' interfaces whether their answers arrive, and tells
//! the judge of this node's own interfaces. [`super::segment`] decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::mpsc::{Receiver, Sender, TryRecvError},
    time::Duration,
};

use tracing::{info, warn};
use vip_common::{
    BootNs, GroupIndex, IfaceConfig,
    layout::{Hops, mac_word},
};

use super::{
    segment::{Own, Question, Segment},
    unheard::{Silence, Unheard},
};
use crate::{
    agent::{
        checks::{Board, Hearing},
        judge::PROOF_MAX,
        messages::{Ask, Asker, Heard, PeerWord, Silent},
    },
    announce::{arp::Announcer, ear::Ear},
    clock,
    config::SelfTest,
    dataplane::attach,
    engine::{NodeId, PathEnd},
    host::is_on_link,
};

/// For how long frames are sent on after the last word of where to: no dead agent's word
/// lasts, and a busy one's does.
const HOPS_HOLD: Duration = Duration::from_secs(3);

/// What the prober has of the other threads.
pub struct Links {
    /// To the lease loop, which speaks with the peers.
    pub asker: Asker,
    /// What it has heard of them.
    pub inbox: Receiver<PeerWord>,
    /// To the judge.
    pub judge: Sender<Heard>,
    /// The other nodes' names.
    pub nodes: BTreeMap<NodeId, String>,
    /// What follows from silence.
    pub self_test: SelfTest,
    /// Whether to send on what is another node's.
    pub steer: bool,
}

/// See the module.
pub(super) struct Ways {
    segment: Segment,
    /// `None` where nobody is to be asked.
    ear: Option<Ear>,
    links: Links,
    begin: BootNs,
    /// Since when nobody has said anything of an interface that was unheard.
    missed: Option<BootNs>,
    /// What the judge and the board were told of each interface; `None` until peers have
    /// said something of each, or should have.
    told: Option<BTreeMap<String, Hearing>>,
    /// What peers say of VIPs that this node holds.
    unheard: Unheard,
    /// What the judge was told of that.
    mute: BTreeMap<String, String>,
}

impl Ways {
    pub(super) fn open(links: Links) -> io::Result<Self> {
        let ear = if links.self_test == SelfTest::Off { None } else { Some(Ear::open()?) };
        Ok(Self {
            segment: Segment::default(),
            ear,
            links,
            begin: clock::now(),
            missed: None,
            told: None,
            unheard: Unheard::default(),
            mute: BTreeMap::new(),
        })
    }

    /// Takes what has come in, and asks what is due; false once the lease loop has ended.
    #[must_use]
    pub(super) fn turn(
        &mut self,
        now: BootNs,
        ends: &BTreeMap<u32, End>,
        socket: &Announcer,
        board: &Board,
    ) -> bool {
        let own: BTreeSet<_> = ends.values().map(|end| end.address.into()).collect();
        loop {
            match self.links.inbox.try_recv() {
                Ok(PeerWord::Paths(from, paths)) => self.segment.hear(from, &paths, &own, now),
                Ok(PeerWord::Unheard(by, vip)) => self.unheard.hear(by, vip, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        let Some(ear) = &self.ear else { return true };
        while let Some(answer) = ear.next() {
            self.segment.answered(answer.ifindex, answer.mac, answer.address);
        }
        for question in self.segment.turn(now) {
            self.segment.asked(question.of, ask(question, ends, socket), now);
        }
        if let Some(seen) = self.segment.say(now) {
            let ends = ends.values().map(|end| PathEnd { mac: end.mac, address: end.address.into() });
            // The lease loop ends only with the process.
            let _ = self.links.asker.ask(Ask::Paths(ends.collect(), seen));
        }
        let heard = |(ifindex, end): (&u32, &End)| {
            let is_heard = self.segment.is_heard(end.address.into(), now)?;
            let interface = attach::name_of(*ifindex)?;
            let peers = self.segment.silent_for(end.own(), now);
            let trouble = (!is_heard).then(|| self.trouble(&interface, &peers));
            Some((interface, Hearing { is_unwell: !is_heard && !peers.is_empty(), trouble }))
        };
        let mut heard: BTreeMap<_, _> = ends.iter().filter_map(heard).collect();
        self.keep_known(&mut heard, now);
        if self.told.is_some() || heard.len() == ends.len() || now.since(self.begin) >= PROOF_MAX {
            self.tell(heard, board);
        }
        true
    }

    /// The nodes whose hosts answer, each with the index of an interface that hears them.
    pub(super) fn hosts(&self, now: BootNs) -> BTreeSet<(u32, NodeId)> {
        self.segment.hosts(now)
    }

    /// Tells the holders that nobody answers for these VIPs.
    pub(super) fn complain(&self, vips: Vec<(GroupIndex, IpAddr)>) {
        if self.ear.is_some() && !vips.is_empty() {
            // The lease loop ends only with the process.
            let _ = self.links.asker.ask(Ask::Unheard(vips));
        }
    }

    /// Judges what peers say of VIPs that this node holds: `here` names the group of a VIP if
    /// it is one of those, `is_here` says whether this node holds a group that had the VIP, and
    /// `homes` are this node's addresses where the VIP is announced.
    pub(super) fn judge_complaints<'a>(
        &mut self,
        now: BootNs,
        here: impl Fn(IpAddr) -> Option<&'a str>,
        is_here: impl Fn(&str, IpAddr) -> bool,
        homes: impl Fn(IpAddr) -> Vec<IpAddr>,
    ) {
        let (segment, nodes) = (&self.segment, &self.links.nodes);
        let near = |vip| match homes(vip) {
            // Without an address there, nobody can tell who could hear it.
            homes if homes.is_empty() => nodes.keys().copied().collect(),
            homes => homes.into_iter().flat_map(|own| segment.on_segment(own, now)).collect(),
        };
        self.unheard.turn(now, here, near);
        let groups = self.unheard.groups(now, is_here);
        let mute: BTreeMap<_, _> =
            groups.into_iter().map(|(name, of)| (name.to_owned(), mute(of, &self.links.nodes))).collect();
        if mute == self.mute {
            return;
        }
        for (group, why) in mute.iter().filter(|(group, _)| !self.mute.contains_key(*group)) {
            warn!(group, "{why}");
        }
        if self.links.self_test == SelfTest::Release {
            // The judge ends only with the process.
            let _ = self.links.judge.send(Heard::Mute(mute.clone()));
        }
        self.mute = mute;
    }

    /// Where the data plane sends frames on that are another node's: by the index of the
    /// interface that they came in by. True for some seconds.
    pub(super) fn hops(&self, now: BootNs) -> BTreeMap<u32, Hops> {
        let mut hops: BTreeMap<u32, Hops> = BTreeMap::new();
        if !self.links.steer {
            return hops;
        }
        for (by, node, mac) in self.segment.neighbours(now) {
            let there = hops.entry(by).or_default();
            there.until_ns = now.plus(HOPS_HOLD).0;
            if let Some(place) = there.macs.get_mut(usize::from(node.0)) {
                *place = mac_word(mac);
            }
        }
        hops
    }

    /// Peers that say nothing for a moment take nothing back: this process, or all of them,
    /// may have stood still. What they said before stays true for as long as a start waits.
    fn keep_known(&mut self, heard: &mut BTreeMap<String, Hearing>, now: BootNs) {
        let told = self.told.iter().flatten();
        let missing: Vec<_> =
            told.filter(|(name, known)| !known.is_heard() && !heard.contains_key(*name)).collect();
        if missing.is_empty() {
            self.missed = None;
            return;
        }
        if now.since(*self.missed.get_or_insert(now)) < PROOF_MAX {
            heard.extend(missing.into_iter().map(|(name, known)| (name.clone(), known.clone())));
        }
    }

    /// A sentence on an interface whose answers do not arrive.
    fn trouble(&self, interface: &str, peers: &[NodeId]) -> String {
        let mend = "another mode may help, or look for what drops its answers on their way";
        if peers.is_empty() {
            // Whoever says so is not heard either.
            return format!(
                "{interface}: no node hears another's data plane there, and each hears the hosts: does the network drop answers for 169.254.0.0/16, and for the VIPs? Else {mend}"
            );
        }
        let (peers, hear) = hearers(peers, &self.links.nodes);
        format!("{interface}: {peers} {hear} this host and not its data plane: {mend}")
    }

    fn tell(&mut self, heard: BTreeMap<String, Hearing>, board: &Board) {
        if self.told.as_ref() == Some(&heard) {
            return;
        }
        let before = self.told.take().unwrap_or_default();
        for (interface, hearing) in &heard {
            let was = before.get(interface);
            let is_new = was.is_none_or(|was| was.is_heard() != hearing.is_heard());
            // Of what the node can't serve on, the keeper tells.
            let is_told = self.links.self_test == SelfTest::Release && hearing.is_unwell;
            match &hearing.trouble {
                Some(trouble) if is_new && !is_told => warn!(interface, "{trouble}"),
                None if is_new && was.is_some() => info!(interface, "peers hear the data plane again"),
                Some(_) | None => {}
            }
        }
        board.hearing(heard.clone());
        if self.links.self_test == SelfTest::Release {
            let unwell = heard.iter().filter(|(_, hearing)| hearing.is_unwell);
            let unheard = heard.iter().filter(|(_, hearing)| !hearing.is_heard());
            let silent = Silent {
                unwell: unwell.filter_map(|(name, of)| Some((name.clone(), of.trouble.clone()?))).collect(),
                unheard: unheard.map(|(name, _)| name.clone()).collect(),
            };
            // The judge ends only with the process.
            let _ = self.links.judge.send(Heard::Silent(silent));
        }
        self.told = Some(heard);
    }
}

/// Peers by name, and what they do.
fn hearers(peers: &[NodeId], nodes: &BTreeMap<NodeId, String>) -> (String, &'static str) {
    let name = |peer: &NodeId| nodes.get(peer).cloned().unwrap_or_else(|| peer.0.to_string());
    let names: Vec<_> = peers.iter().map(name).collect();
    (names.join(" and "), if peers.len() == 1 { "hears" } else { "hear" })
}

/// A sentence on a group of which peers hear nothing.
fn mute(silence: &Silence, nodes: &BTreeMap<NodeId, String>) -> String {
    let (peers, hear) = hearers(&silence.peers, nodes);
    let (vip, pause) = (silence.vip, silence.pause.as_secs());
    format!(
        "{peers} {hear} nobody answer for {vip} while this node has it: does the network let {vip} pass from here? Another node keeps the group for {pause} s"
    )
}

/// An interface of this node that answers, with an address of the host's own on it.
pub(super) struct End {
    mac: [u8; 6],
    address: Ipv4Addr,
    prefix: u8,
}

impl End {
    fn own(&self) -> Own {
        (self.address.into(), self.prefix)
    }

    /// The host's own address there.
    pub(super) fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Of an interface with these addresses; `None` if it answers for no VIP, or has only
    /// VIPs.
    pub(super) fn of(
        iface: IfaceConfig,
        addresses: &[(IpAddr, u8)],
        is_vip: impl Fn(IpAddr) -> bool,
    ) -> Option<Self> {
        let own = |(address, prefix): &(IpAddr, u8)| match address {
            IpAddr::V4(v4) if !is_vip(*address) => Some((*v4, *prefix)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        let (address, prefix) = addresses.iter().find_map(own)?;
        (!iface.has(IfaceConfig::BELOW)).then_some(Self { mac: iface.mac, address, prefix })
    }
}

/// Asks for both addresses by each interface in the subnet, and returns those.
fn ask(question: Question, ends: &BTreeMap<u32, End>, socket: &Announcer) -> Vec<u32> {
    let Question { mac, address, .. } = question;
    let is_near = |end: &End| is_on_link(&[end.own()], address.into());
    let near = ends.iter().filter(|(_, end)| is_near(end));
    let asked = near.filter(|(ifindex, end)| {
        let test = IfaceConfig::test_address(mac).into();
        // The test first: who answers the second could have answered it.
        [test, address].map(|about| socket.ask_one(mac, **ifindex, end.mac, about).is_ok()) == [true; 2]
    });
    asked.map(|(ifindex, _)| *ifindex).collect()
}
