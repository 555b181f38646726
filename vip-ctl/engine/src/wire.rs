//! Packets as bytes, and back. Numbers are big-endian; a message is a kind byte
//! and its fields, a packet is one message after another up to its end. A message
//! names a group by its label ([`super::label`]), or by its number ([`runs`]).
//! The transport has authentication, sequence numbers and the wire version.

mod paths;
mod runs;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use vip_common::BootNs;

use super::{
    config::{CommandId, Epoch, GroupId, Incarnation, NodeId, Pause},
    io::{Command, Refusal},
    label::{ByNumber, Label, Labels, Naming, Use},
    message::{
        About, AskId, Ballot, Claim, Message, PAYLOAD_MAX, Packet, Refused, RequestId, StaleClient, Verdict,
    },
};

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end in the middle of a message.
    #[error("the packet ends in the middle of a message")]
    Truncated,
    /// A kind byte that this version does not know.
    #[error("unknown {what} {byte}")]
    Unknown {
        /// Which kind byte.
        what: &'static str,
        /// Its value.
        byte: u8,
    },
    /// Longer than any packet that an engine sends.
    #[error("the packet is longer than {PAYLOAD_MAX} bytes")]
    TooLong,
}

const NOBODY: u8 = u8::MAX;

const HEARTBEAT: u8 = 1;
const PREPARE: u8 = 2;
const PROMISE: u8 = 3;
const PROPOSE: u8 = 4;
const ACCEPT: u8 = 5;
const REFUSE: u8 = 6;
const RELEASE: u8 = 7;
const RELEASED: u8 = 8;
const ASK_READY: u8 = 9;
const READY: u8 = 10;
const REQUEST: u8 = 11;
const VERDICT: u8 = 12;
const HOLDING: u8 = 13;
const NODE: u8 = 14;
/// 15 and 16 are those of [`runs`].
const STALE: u8 = 17;
const PATHS: u8 = 18;
const UNHEARD: u8 = 19;

const HELD: u8 = 1;
const PROMISED: u8 = 2;
const RESERVED: u8 = 3;
const SILENT: u8 = 4;

const PROMOTE: u8 = 1;
const DEMOTE: u8 = 2;
const SWITCHOVER: u8 = 3;
const FORCE: u8 = 4;
const STANDBY: u8 = 5;
const UNSTANDBY: u8 = 6;
const STANDBY_BY_FORCE: u8 = 7;
const PAUSE: u8 = 8;
const RESUME: u8 = 9;

const STARTED: u8 = 1;
const REFUSED: u8 = 2;

/// Every refusal, at the place of its number on the wire: only append.
const REFUSALS: &[Refusal] = &[
    Refusal::NoSuchGroup,
    Refusal::NoSuchNode,
    Refusal::NoQuorum,
    Refusal::Starting,
    Refusal::Stopping,
    Refusal::NotHeld,
    Refusal::TargetNeverHolds,
    Refusal::TargetNotReady,
    Refusal::TargetSilent,
    Refusal::NoTarget,
    Refusal::NotHolder,
    Refusal::Busy,
    Refusal::Timeout,
];

const fn refusal_number(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NoSuchGroup => 0,
        Refusal::NoSuchNode => 1,
        Refusal::NoQuorum => 2,
        Refusal::Starting => 3,
        Refusal::Stopping => 4,
        Refusal::NotHeld => 5,
        Refusal::TargetNeverHolds => 6,
        Refusal::TargetNotReady => 7,
        Refusal::TargetSilent => 8,
        Refusal::NoTarget => 9,
        Refusal::NotHolder => 10,
        Refusal::Busy => 11,
        Refusal::Timeout => 12,
    }
}

impl Packet {
    /// The packet for `to`, in as few payloads as it fits, each of at most
    /// [`PAYLOAD_MAX`] bytes. It names groups by their labels, or by their
    /// numbers where `to` has the same ones, and leaves out messages about groups
    /// that it can't name to `to`.
    #[must_use]
    pub fn encode_for(&self, to: NodeId, labels: &mut Labels, now: BootNs) -> Vec<Vec<u8>> {
        self.payloads(&labels.with(to, now))
    }

    /// The packet that `bytes` from `from` stand for, without messages about
    /// groups that this node does not have, or may not vote on now.
    ///
    /// # Errors
    /// If they are no packet, or longer than [`PAYLOAD_MAX`].
    pub fn decode_from(
        bytes: &[u8],
        from: NodeId,
        labels: &mut Labels,
        now: BootNs,
    ) -> Result<Self, DecodeError> {
        Self::decode_with(bytes, &mut labels.with(from, now))
    }

    /// [`Packet::encode_for`] a node with the same groups: by their numbers.
    #[must_use]
    pub fn encode(&self) -> Vec<Vec<u8>> {
        self.payloads(&ByNumber)
    }

    /// The messages in as few payloads as they fit, at least one.
    fn payloads(&self, naming: &impl Naming) -> Vec<Vec<u8>> {
        let mut payloads = Vec::with_capacity(1);
        let mut packer = runs::Packer::new(naming);
        for message in &self.messages {
            if !packer.add(message) {
                payloads.push(std::mem::replace(&mut packer, runs::Packer::new(naming)).finish());
                packer.add(message);
            }
        }
        payloads.push(packer.finish());
        payloads
    }

    /// The packet that one payload stands for, all of it, with groups by their
    /// numbers. A packet has only one payload, except for where runs are cut, and
    /// the padding bits of a heartbeat's last byte: those are ignored, and
    /// encoded as zeros.
    ///
    /// # Errors
    /// If they are no packet, or longer than [`PAYLOAD_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with(bytes, &mut ByNumber)
    }

    fn decode_with(bytes: &[u8], naming: &mut impl Naming) -> Result<Self, DecodeError> {
        if bytes.len() > PAYLOAD_MAX {
            return Err(DecodeError::TooLong);
        }
        let mut reader = Reader(bytes);
        let mut messages = Vec::new();
        while !reader.0.is_empty() {
            if !runs::read(&mut reader, naming, &mut messages)? {
                messages.extend(reader.message(naming)?);
            }
        }
        Ok(Self { messages })
    }
}

const fn claim_byte(claim: Claim) -> u8 {
    match claim {
        Claim::Asked => 0,
        Claim::Held => 1,
        Claim::Forced => 2,
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message, naming: &impl Naming) {
    match *message {
        Message::Heartbeat { first, ref ready } => {
            out.push(HEARTBEAT);
            out.extend(naming.table().to_be_bytes());
            out.extend(first.0.to_be_bytes());
            // The engine puts a bounded number of groups into one heartbeat.
            let told = u16::try_from(ready.len()).unwrap_or(u16::MAX);
            out.extend(told.to_be_bytes());
            for eight in ready[..usize::from(told)].chunks(8) {
                let bits = eight.iter().enumerate().map(|(bit, &ready)| u8::from(ready) << bit);
                out.push(bits.fold(0, |byte, bit| byte | bit));
            }
        }
        Message::Request { request, epoch, command } => {
            // Commands about nodes have no group; the field stays, as zero.
            let label =
                command.group().map_or(Some(Label::default()), |group| naming.label(group, Use::Other));
            let Some(label) = label else { return };
            put_request(out, REQUEST, request);
            out.extend(epoch.0.to_be_bytes());
            let (kind, to) = match command {
                Command::Promote { to, .. } => (PROMOTE, Some(to)),
                Command::Demote { .. } => (DEMOTE, None),
                Command::Switchover { to, .. } => (SWITCHOVER, to),
                Command::Force { .. } => (FORCE, None),
                Command::Standby { node, on: true, force: false } => (STANDBY, Some(node)),
                Command::Standby { node, on: true, force: true } => (STANDBY_BY_FORCE, Some(node)),
                Command::Standby { node, on: false, .. } => (UNSTANDBY, Some(node)),
                Command::Pause { on: true } => (PAUSE, None),
                Command::Pause { on: false } => (RESUME, None),
            };
            out.push(kind);
            out.extend(label.0.to_be_bytes());
            put_node(out, to);
        }
        Message::Node { standby, pause, highest } => {
            out.extend([NODE, u8::from(standby)]);
            out.extend(pause.version.to_be_bytes());
            out.push(u8::from(pause.on));
            out.extend(highest.0.to_be_bytes());
        }
        Message::Verdict { request, verdict } => {
            put_request(out, VERDICT, request);
            match verdict {
                Verdict::Started { successor } => {
                    out.push(STARTED);
                    put_node(out, successor);
                }
                Verdict::Refused(refusal) => out.extend([REFUSED, refusal_number(refusal)]),
            }
        }
        Message::Paths(ref paths) => {
            out.push(PATHS);
            paths::put(out, paths);
        }
        Message::Group { group, about } => {
            if let Some(label) = naming.label(group, Use::of(&about)) {
                put_about(out, label, about);
            }
        }
    }
}

fn put_about(out: &mut Vec<u8>, group: Label, about: About) {
    match about {
        About::Prepare { ballot } => put_head(out, PREPARE, group, ballot),
        About::Promise { ballot, epoch, yours } => {
            put_head(out, PROMISE, group, ballot);
            out.extend(epoch.0.to_be_bytes());
            out.push(u8::from(yours.is_some()));
            if let Some(yours) = yours {
                out.extend(yours.0.to_be_bytes());
            }
        }
        About::Propose { ballot, epoch, claim } => {
            put_head(out, PROPOSE, group, ballot);
            out.extend(epoch.0.to_be_bytes());
            out.push(claim_byte(claim));
        }
        About::Accept { ballot } => put_head(out, ACCEPT, group, ballot),
        About::Holding { ballot } => put_head(out, HOLDING, group, ballot),
        About::Refuse { ballot, because } => {
            put_head(out, REFUSE, group, ballot);
            put_refused(out, because);
        }
        About::Release { ballot, successor } => {
            put_head(out, RELEASE, group, ballot);
            put_node(out, successor);
        }
        About::Released { ballot } => put_head(out, RELEASED, group, ballot),
        About::AskReady { ask } => {
            out.push(ASK_READY);
            out.extend(group.0.to_be_bytes());
            out.extend(ask.0.to_be_bytes());
        }
        About::Ready { ask, ready } => {
            out.push(READY);
            out.extend(group.0.to_be_bytes());
            out.extend(ask.0.to_be_bytes());
            out.push(u8::from(ready));
        }
        About::Unheard { vip } => {
            out.push(UNHEARD);
            out.extend(group.0.to_be_bytes());
            put_address(out, vip);
        }
        About::Stale { client: StaleClient { vip, mac } } => {
            out.push(STALE);
            out.extend(group.0.to_be_bytes());
            put_address(out, vip);
            out.extend(mac);
        }
    }
}

fn put_refused(out: &mut Vec<u8>, because: Refused) {
    match because {
        Refused::Held { ballot, epoch, claim, remaining } => {
            out.push(HELD);
            put_ballot(out, ballot);
            out.extend(epoch.0.to_be_bytes());
            out.push(claim_byte(claim));
            put_duration(out, remaining);
        }
        Refused::Promised { ballot } => {
            out.push(PROMISED);
            put_ballot(out, ballot);
        }
        Refused::Reserved { successor, remaining } => {
            out.extend([RESERVED, successor.0]);
            put_duration(out, remaining);
        }
        Refused::Silent { remaining } => {
            out.push(SILENT);
            put_duration(out, remaining);
        }
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, group: Label, ballot: Ballot) {
    out.push(kind);
    out.extend(group.0.to_be_bytes());
    put_ballot(out, ballot);
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.extend(ballot.round.to_be_bytes());
    out.extend(ballot.incarnation.0.to_be_bytes());
    out.push(ballot.node.0);
}

fn put_request(out: &mut Vec<u8>, kind: u8, request: RequestId) {
    out.push(kind);
    out.extend(request.incarnation.0.to_be_bytes());
    out.extend(request.command.0.to_be_bytes());
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    out.extend(ns.to_be_bytes());
}

/// IPv4 as its IPv6-mapped address.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    let mapped = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    out.extend(mapped.octets());
}

fn put_node(out: &mut Vec<u8>, node: Option<NodeId>) {
    out.push(node.map_or(NOBODY, |node| node.0));
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(DecodeError::Unknown { what: "flag", byte }),
        }
    }

    fn claim(&mut self) -> Result<Claim, DecodeError> {
        match self.u8()? {
            0 => Ok(Claim::Asked),
            1 => Ok(Claim::Held),
            2 => Ok(Claim::Forced),
            byte => Err(DecodeError::Unknown { what: "claim", byte }),
        }
    }

    fn label(&mut self) -> Result<Label, DecodeError> {
        self.u64().map(Label)
    }

    fn epoch(&mut self) -> Result<Epoch, DecodeError> {
        self.u64().map(Epoch)
    }

    fn ask(&mut self) -> Result<AskId, DecodeError> {
        self.u64().map(AskId)
    }

    fn duration(&mut self) -> Result<Duration, DecodeError> {
        self.u64().map(Duration::from_nanos)
    }

    fn address(&mut self) -> Result<IpAddr, DecodeError> {
        self.take::<16>().map(|octets| Ipv6Addr::from(octets).to_canonical())
    }

    fn node(&mut self) -> Result<Option<NodeId>, DecodeError> {
        let id = self.u8()?;
        Ok((id != NOBODY).then_some(NodeId(id)))
    }

    fn ballot(&mut self) -> Result<Ballot, DecodeError> {
        Ok(Ballot { round: self.u64()?, incarnation: Incarnation(self.u64()?), node: NodeId(self.u8()?) })
    }

    fn request(&mut self) -> Result<RequestId, DecodeError> {
        Ok(RequestId { incarnation: Incarnation(self.u64()?), command: CommandId(self.u64()?) })
    }

    /// The next message; `None` if this node has no such group, or may not vote
    /// on it.
    fn message(&mut self, naming: &mut impl Naming) -> Result<Option<Message>, DecodeError> {
        match self.u8()? {
            HEARTBEAT => self.heartbeat(naming).map(Some),
            REQUEST => {
                let (request, epoch) = (self.request()?, self.epoch()?);
                let command = self.command(naming)?;
                Ok(command.map(|command| Message::Request { request, epoch, command }))
            }
            NODE => Ok(Some(Message::Node {
                standby: self.flag()?,
                pause: Pause { version: self.u64()?, on: self.flag()? },
                highest: self.epoch()?,
            })),
            VERDICT => Ok(Some(Message::Verdict { request: self.request()?, verdict: self.verdict()? })),
            PATHS => Ok(Some(Message::Paths(paths::read(self)?))),
            kind => {
                let label = self.label()?;
                let about = self.about(kind)?;
                let group = naming.group(label, Use::of(&about));
                Ok(group.map(|group| Message::Group { group, about }))
            }
        }
    }

    fn about(&mut self, kind: u8) -> Result<About, DecodeError> {
        match kind {
            PREPARE => Ok(About::Prepare { ballot: self.ballot()? }),
            PROMISE => Ok(About::Promise {
                ballot: self.ballot()?,
                epoch: self.epoch()?,
                yours: if self.flag()? { Some(self.epoch()?) } else { None },
            }),
            PROPOSE => {
                Ok(About::Propose { ballot: self.ballot()?, epoch: self.epoch()?, claim: self.claim()? })
            }
            ACCEPT => Ok(About::Accept { ballot: self.ballot()? }),
            HOLDING => Ok(About::Holding { ballot: self.ballot()? }),
            REFUSE => Ok(About::Refuse { ballot: self.ballot()?, because: self.refused()? }),
            RELEASE => Ok(About::Release { ballot: self.ballot()?, successor: self.node()? }),
            RELEASED => Ok(About::Released { ballot: self.ballot()? }),
            ASK_READY => Ok(About::AskReady { ask: self.ask()? }),
            READY => Ok(About::Ready { ask: self.ask()?, ready: self.flag()? }),
            UNHEARD => Ok(About::Unheard { vip: self.address()? }),
            STALE => Ok(About::Stale { client: StaleClient { vip: self.address()?, mac: self.take()? } }),
            byte => Err(DecodeError::Unknown { what: "message", byte }),
        }
    }

    fn heartbeat(&mut self, naming: &mut impl Naming) -> Result<Message, DecodeError> {
        let table = self.u64()?;
        let first = self.u16().map(GroupId)?;
        let told = usize::from(self.u16()?);
        let bytes = self.0.split_at_checked(told.div_ceil(8));
        let (bytes, rest) = bytes.ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        // Numbers of another table mean other groups: they say nothing of ours.
        let told = if naming.hear_table(table) { told } else { 0 };
        let ready = (0..told).map(|bit| bytes[bit / 8] & (1 << (bit % 8)) != 0);
        Ok(Message::Heartbeat { first, ready: ready.collect() })
    }

    fn refused(&mut self) -> Result<Refused, DecodeError> {
        match self.u8()? {
            HELD => {
                let (ballot, epoch) = (self.ballot()?, self.epoch()?);
                Ok(Refused::Held { ballot, epoch, claim: self.claim()?, remaining: self.duration()? })
            }
            PROMISED => Ok(Refused::Promised { ballot: self.ballot()? }),
            RESERVED => Ok(Refused::Reserved { successor: NodeId(self.u8()?), remaining: self.duration()? }),
            SILENT => Ok(Refused::Silent { remaining: self.duration()? }),
            byte => Err(DecodeError::Unknown { what: "refusal", byte }),
        }
    }

    fn command(&mut self, naming: &mut impl Naming) -> Result<Option<Command>, DecodeError> {
        let kind = self.u8()?;
        let (label, to) = (self.label()?, self.node()?);
        let is_of_nodes = matches!(kind, STANDBY | STANDBY_BY_FORCE | UNSTANDBY | PAUSE | RESUME);
        if is_of_nodes && label != Label::default() {
            return Err(DecodeError::Unknown { what: "command", byte: kind });
        }
        let group = if is_of_nodes { Some(GroupId::default()) } else { naming.group(label, Use::Other) };
        // A command that is wrong is wrong for any group.
        let command = Self::command_about(kind, group.unwrap_or_default(), to)?;
        Ok(group.map(|_| command))
    }

    fn command_about(kind: u8, group: GroupId, to: Option<NodeId>) -> Result<Command, DecodeError> {
        match (kind, to) {
            (PROMOTE, Some(to)) => Ok(Command::Promote { group, to }),
            (DEMOTE, None) => Ok(Command::Demote { group }),
            (SWITCHOVER, to) => Ok(Command::Switchover { group, to }),
            (FORCE, None) => Ok(Command::Force { group }),
            (STANDBY, Some(node)) => Ok(Command::Standby { node, on: true, force: false }),
            (STANDBY_BY_FORCE, Some(node)) => Ok(Command::Standby { node, on: true, force: true }),
            (UNSTANDBY, Some(node)) => Ok(Command::Standby { node, on: false, force: false }),
            (PAUSE, None) => Ok(Command::Pause { on: true }),
            (RESUME, None) => Ok(Command::Pause { on: false }),
            (byte, _) => Err(DecodeError::Unknown { what: "command", byte }),
        }
    }

    fn verdict(&mut self) -> Result<Verdict, DecodeError> {
        match self.u8()? {
            STARTED => Ok(Verdict::Started { successor: self.node()? }),
            REFUSED => {
                let byte = self.u8()?;
                let refusal = REFUSALS.get(usize::from(byte)).copied();
                refusal.map(Verdict::Refused).ok_or(DecodeError::Unknown { what: "verdict", byte })
            }
            byte => Err(DecodeError::Unknown { what: "verdict", byte }),
        }
    }
}
