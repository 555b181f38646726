//! The prober's part that asks peers' interfaces whether their answers arrive, and tells
//! the judge of this node's own interfaces. [`super::segment`] decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::mpsc::{Receiver, Sender, TryRecvError},
};

use tracing::{info, warn};
use vip_common::{BootNs, IfaceConfig};

use super::segment::{Question, Segment};
use crate::{
    agent::{
        checks::{Board, Hearing},
        judge::PROOF_MAX,
        messages::{Ask, Asker, Heard, Silent},
    },
    announce::{arp::Announcer, ear::Ear},
    clock,
    config::SelfTest,
    dataplane::attach,
    engine::{NodeId, PathEnd, Paths},
};

/// What the prober has of the other threads.
pub struct Links {
    /// To the lease loop, which speaks with the peers.
    pub asker: Asker,
    /// What it has heard of them.
    pub inbox: Receiver<(NodeId, Paths)>,
    /// To the judge.
    pub judge: Sender<Heard>,
    /// The nodes' names.
    pub nodes: BTreeMap<NodeId, String>,
    /// What follows from silence.
    pub self_test: SelfTest,
}

/// See the module.
pub(super) struct Ways {
    segment: Segment,
    /// `None` where nobody is to be asked.
    ear: Option<Ear>,
    links: Links,
    begin: BootNs,
    /// What the judge and the board were told of each interface; `None` until peers have
    /// said something of each, or should have.
    told: Option<BTreeMap<String, Hearing>>,
}

impl Ways {
    pub(super) fn open(links: Links) -> io::Result<Self> {
        let ear = if links.self_test == SelfTest::Off { None } else { Some(Ear::open()?) };
        Ok(Self { segment: Segment::default(), ear, links, begin: clock::now(), told: None })
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
                Ok((from, paths)) => self.segment.hear(from, &paths, &own, now),
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
            let trouble = (!is_heard).then(|| self.trouble(&interface, end.address.into(), now));
            Some((interface, Hearing { is_heard, trouble }))
        };
        let heard: BTreeMap<_, _> = ends.iter().filter_map(heard).collect();
        if self.told.is_some() || heard.len() == ends.len() || now.since(self.begin) >= PROOF_MAX {
            let unable =
                ends.iter().filter(|(_, end)| !self.segment.silent_for(end.address.into(), now).is_empty());
            let unable = unable.filter_map(|(ifindex, _)| attach::name_of(*ifindex)).collect();
            self.tell(heard, &unable, board);
        }
        true
    }

    /// A sentence on an interface whose answers do not arrive.
    fn trouble(&self, interface: &str, own: IpAddr, now: BootNs) -> String {
        let mend = "try mode = \"tc\", or look for what drops its answers on their way";
        let name = |peer: &NodeId| self.links.nodes.get(peer).cloned().unwrap_or_else(|| peer.0.to_string());
        let peers: Vec<_> = self.segment.silent_for(own, now).iter().map(name).collect();
        if peers.is_empty() {
            // Whoever says so is not heard either.
            return format!(
                "{interface}: no node hears another's data plane there, and each hears the hosts: does the network drop answers for 169.254.0.0/16, and for the VIPs? Else {mend}"
            );
        }
        format!("{interface}: {} hear this host and not its data plane: {mend}", peers.join(" and "))
    }

    /// `unable`: the interfaces that this node can't serve on.
    fn tell(&mut self, heard: BTreeMap<String, Hearing>, unable: &BTreeSet<String>, board: &Board) {
        if self.told.as_ref() == Some(&heard) {
            return;
        }
        let before = self.told.take().unwrap_or_default();
        for (interface, hearing) in &heard {
            let was = before.get(interface);
            let is_new = was.is_none_or(|was| was.is_heard != hearing.is_heard);
            // Of what the node can't serve on, the keeper tells.
            let is_told = self.links.self_test == SelfTest::Release && unable.contains(interface);
            match &hearing.trouble {
                Some(trouble) if is_new && !is_told => warn!(interface, "{trouble}"),
                None if is_new && was.is_some() => info!(interface, "peers hear the data plane again"),
                Some(_) | None => {}
            }
        }
        board.hearing(heard.clone());
        if self.links.self_test == SelfTest::Release {
            let trouble = |name: &String| Some((name.clone(), heard.get(name)?.trouble.clone()?));
            let unheard = heard.iter().filter(|(_, hearing)| !hearing.is_heard);
            let silent = Silent {
                unable: unable.iter().filter_map(trouble).collect(),
                unheard: unheard.map(|(name, _)| name.clone()).collect(),
            };
            // The judge ends only with the process.
            let _ = self.links.judge.send(Heard::Silent(silent));
        }
        self.told = Some(heard);
    }
}

/// An interface of this node that answers, with an address of the host's own on it.
pub(super) struct End {
    mac: [u8; 6],
    address: Ipv4Addr,
    prefix: u8,
}

impl End {
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
    let is_near = |end: &End| crate::host::is_on_link(&[(end.address.into(), end.prefix)], address.into());
    let near = ends.iter().filter(|(_, end)| is_near(end));
    let asked = near.filter(|(ifindex, end)| {
        let test = IfaceConfig::test_address(mac).into();
        // The test first: who answers the second could have answered it.
        [test, address].map(|about| socket.ask_one(mac, **ifindex, end.mac, about).is_ok()) == [true; 2]
    });
    asked.map(|(ifindex, _)| *ifindex).collect()
}
