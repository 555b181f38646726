//! Renewals and their answers taken together: groups under one ballot, a bit for
//! each. They name groups by numbers, which mean the same only to a peer that has
//! this node's table; all other peers get labels.

use super::{DecodeError, Reader, put_ballot, put_message};
use crate::{
    config::{Epoch, GroupId},
    label::{Naming, Use},
    message::{About, Ballot, Claim, Message, PAYLOAD_MAX},
};

const RENEWALS: u8 = 15;
const ACCEPTS: u8 = 16;

/// Kind, table, ballot, first group and number of bits.
const HEAD: usize = 1 + 8 + 17 + 2 + 2;
/// The most groups without a bit between two that have one: more bits than this
/// cost more than they save.
const GAP_MAX: u16 = 128;

/// The message that all groups of a run share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Propose, held: each has an epoch of its own.
    Renewal,
    /// Accept.
    Accept,
}

/// What one message adds to a run.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Kind,
    ballot: Ballot,
    group: u16,
    epoch: Epoch,
}

impl Part {
    fn of(message: &Message) -> Option<Self> {
        let Message::Group { group, about } = message else { return None };
        let (kind, ballot, epoch) = match *about {
            About::Propose { ballot, epoch, claim: Claim::Held } => (Kind::Renewal, ballot, epoch),
            About::Accept { ballot } => (Kind::Accept, ballot, Epoch::default()),
            About::Prepare { .. }
            | About::Promise { .. }
            | About::Propose { claim: Claim::Asked | Claim::Forced, .. }
            | About::Holding { .. }
            | About::Refuse { .. }
            | About::Release { .. }
            | About::Released { .. }
            | About::AskReady { .. }
            | About::Ready { .. }
            | About::Stale { .. }
            | About::Unheard { .. } => return None,
        };
        Some(Self { kind, ballot, group: group.0, epoch })
    }

    const fn message(&self) -> Message {
        let (ballot, epoch) = (self.ballot, self.epoch);
        let about = match self.kind {
            Kind::Renewal => About::Propose { ballot, epoch, claim: Claim::Held },
            Kind::Accept => About::Accept { ballot },
        };
        Message::Group { group: GroupId(self.group), about }
    }

    const fn usage(&self) -> Use {
        match self.kind {
            Kind::Renewal => Use::Vote,
            Kind::Accept => Use::Answer,
        }
    }

    /// Bytes besides its bit.
    const fn extra(&self) -> usize {
        match self.kind {
            Kind::Renewal => number_len(self.epoch.0),
            Kind::Accept => 0,
        }
    }
}

/// Messages that can go as one.
struct Run {
    /// At least one, by rising numbers.
    parts: Vec<Part>,
    extra: usize,
    /// Bytes of the first message, should it stay the only one.
    alone: usize,
}

impl Run {
    fn new(part: Part, alone: usize) -> Self {
        Self { extra: part.extra(), parts: vec![part], alone }
    }

    fn takes(&self, part: &Part) -> bool {
        self.parts.last().is_some_and(|last| {
            (last.kind, last.ballot) == (part.kind, part.ballot)
                && part.group > last.group
                && part.group - last.group <= GAP_MAX
        })
    }

    fn span(&self) -> usize {
        match (self.parts.first(), self.parts.last()) {
            (Some(first), Some(last)) => usize::from(last.group - first.group) + 1,
            _ => 0,
        }
    }

    fn len(&self) -> usize {
        if self.parts.len() == 1 { self.alone } else { HEAD + self.span().div_ceil(8) + self.extra }
    }

    /// Bytes of the run with `part`.
    fn len_with(&self, part: &Part) -> usize {
        let first = self.parts.first().map_or(part.group, |first| first.group);
        let bits = usize::from(part.group - first) + 1;
        HEAD + bits.div_ceil(8) + self.extra + part.extra()
    }

    fn push(&mut self, part: Part) {
        self.extra += part.extra();
        self.parts.push(part);
    }

    fn put(&self, out: &mut Vec<u8>, naming: &impl Naming) {
        let Some(first) = self.parts.first() else { return };
        if self.parts.len() == 1 {
            put_message(out, &first.message(), naming);
            return;
        }
        out.push(match first.kind {
            Kind::Renewal => RENEWALS,
            Kind::Accept => ACCEPTS,
        });
        out.extend(naming.table().to_be_bytes());
        put_ballot(out, first.ballot);
        out.extend(first.group.to_be_bytes());
        let span = self.span();
        // Numbers of groups are 16 bits, and PAYLOAD_MAX holds fewer bits.
        out.extend(u16::try_from(span).unwrap_or(u16::MAX).to_be_bytes());
        let bits = out.len();
        out.resize(bits + span.div_ceil(8), 0);
        for part in &self.parts {
            let at = usize::from(part.group - first.group);
            out[bits + at / 8] |= 1 << (at % 8);
        }
        if first.kind == Kind::Renewal {
            for part in &self.parts {
                put_number(out, part.epoch.0);
            }
        }
    }
}

/// Puts messages into the bytes of one packet, in their order.
pub(super) struct Packer<'a, N> {
    naming: &'a N,
    bytes: Vec<u8>,
    run: Option<Run>,
    scratch: Vec<u8>,
}

impl<'a, N: Naming> Packer<'a, N> {
    pub(super) fn new(naming: &'a N) -> Self {
        Self { naming, bytes: Vec::with_capacity(PAYLOAD_MAX), run: None, scratch: Vec::new() }
    }

    /// Puts a message in. Returns false, and does nothing, if the packet would be
    /// longer than [`PAYLOAD_MAX`]; the first message always fits.
    pub(super) fn add(&mut self, message: &Message) -> bool {
        let part = Part::of(message).filter(|part| self.naming.by_number(GroupId(part.group), part.usage()));
        if let (Some(run), Some(part)) = (&mut self.run, part)
            && run.takes(&part)
        {
            let has_room = self.bytes.len() + run.len_with(&part) <= PAYLOAD_MAX;
            if has_room {
                run.push(part);
            }
            return has_room;
        }
        self.scratch.clear();
        put_message(&mut self.scratch, message, self.naming);
        let len = self.len();
        if len > 0 && len + self.scratch.len() > PAYLOAD_MAX {
            return false;
        }
        self.close();
        match part {
            Some(part) => self.run = Some(Run::new(part, self.scratch.len())),
            None => self.bytes.extend_from_slice(&self.scratch),
        }
        true
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.run.as_ref().map_or(0, Run::len)
    }

    fn close(&mut self) {
        if let Some(run) = self.run.take() {
            run.put(&mut self.bytes, self.naming);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }
}

/// Takes a run from `reader`, if it begins with one. A run has at least two
/// groups; its first and its last bit are set, and there is no bit beyond.
///
/// # Errors
/// If it is cut short, or has another form.
pub(super) fn read(
    reader: &mut Reader<'_>,
    naming: &mut impl Naming,
    messages: &mut Vec<Message>,
) -> Result<bool, DecodeError> {
    let kind = match reader.0.first() {
        Some(&RENEWALS) => Kind::Renewal,
        Some(&ACCEPTS) => Kind::Accept,
        Some(_) | None => return Ok(false),
    };
    reader.u8()?;
    let (table, ballot) = (reader.u64()?, reader.ballot()?);
    let (first, span) = (reader.u16()?, usize::from(reader.u16()?));
    let (bits, rest) = reader.0.split_at_checked(span.div_ceil(8)).ok_or(DecodeError::Truncated)?;
    reader.0 = rest;
    let is_set = |at: usize| bits[at / 8] & (1 << (at % 8)) != 0;
    let is_whole = span >= 2
        && is_set(0)
        && is_set(span - 1)
        && (span..bits.len() * 8).all(|at| !is_set(at))
        && usize::from(first) + span <= usize::from(u16::MAX) + 1;
    if !is_whole {
        return Err(DecodeError::Unknown { what: "run", byte: bits.last().copied().unwrap_or(0) });
    }
    let is_ours = naming.hear_table(table);
    for at in (0..span).filter(|at| is_set(*at)) {
        let epoch = match kind {
            Kind::Renewal => Epoch(number(reader)?),
            Kind::Accept => Epoch::default(),
        };
        let Ok(group) = u16::try_from(usize::from(first) + at) else { continue };
        let part = Part { kind, ballot, group, epoch };
        if is_ours && naming.numbered(GroupId(group), part.usage()) {
            messages.push(part.message());
        }
    }
    Ok(true)
}

/// Bytes that [`put_number`] takes.
const fn number_len(number: u64) -> usize {
    let bits = 64 - number.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn number(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = reader.u8()?;
        let seven = u64::from(byte & 0x7f);
        let is_too_high = (seven << shift) >> shift != seven;
        let is_padded = byte == 0 && shift > 0;
        if is_too_high || is_padded {
            return Err(DecodeError::Unknown { what: "end of a number", byte });
        }
        number |= seven << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Unknown { what: "end of a number", byte: 0x80 })
}
