//! The filters on the way in or out of an interface, in the order in which the kernel asks
//! them: by their priorities from the lowest, and programs of the same one from the
//! newest. [`super::attach`] puts ours among them.
//!
//! Read by hand: a filter of somebody else that nobody here can parse must not hide ours.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use nix::sys::socket::SockProtocol;

use super::netlink::{DONE, ERROR, HEADER_BYTES, asked, received, said};
use crate::mutant::{self, Mutant};

/// `TCA_KIND`, `TCA_OPTIONS` and `TCA_CHAIN`, of linux/rtnetlink.h.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const CHAIN: u16 = 11;
/// `TCA_BPF_NAME`, of linux/pkt_cls.h.
const BPF_NAME: u16 = 7;
/// `TC_H_MAKE(TC_H_CLSACT, …)` of `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`, of
/// linux/pkt_sched.h.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `TC_H_CLSACT`, of linux/pkt_sched.h: where that qdisc stands.
const CLSACT: u32 = 0xffff_fff1;
/// `ETH_P_ALL`, of linux/if_ether.h.
const ALL_PROTOCOLS: u16 = 3;
/// `struct tcmsg`, of linux/rtnetlink.h.
const TC_BYTES: usize = 20;
/// That and the header.
const REQUEST_BYTES: u32 = 36;

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Where it stands; the kernel asks the lowest first.
    pub(super) priority: u16,
    /// Its number within its priority.
    pub(super) handle: u32,
    /// Such as `bpf` or `matchall`.
    pub(super) kind: String,
    /// Can a program of ours have the same priority? All that have it are of one kind and
    /// about one protocol; ours are about all.
    pub(super) is_shareable: bool,
    /// A BPF program's name.
    pub(super) name: Option<String>,
}

impl Filter {
    /// Is it the program of this name?
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let name = self.name.as_deref().unwrap_or(&self.kind);
        format!("{name:?} (filter of priority {})", self.priority)
    }
}

/// The lowest priority that our program can have. Those that stand below it can't be
/// overtaken: nothing is lower than 1.
pub(super) fn first_priority(filters: &[Filter]) -> u16 {
    if mutant::is(Mutant::FilterLast) {
        return filters.last().map_or(1, |last| last.priority + 1);
    }
    let is_taken = |priority| filters.iter().any(|f| f.priority == priority && !f.is_shareable);
    (1..u16::MAX).find(|priority| !is_taken(*priority)).unwrap_or(u16::MAX)
}

/// Is a filter of one of these names where no other could be overtaken any more?
pub(super) fn is_first(filters: &[Filter], names: &[&str]) -> bool {
    let best = first_priority(filters);
    let first = filters.iter().find(|filter| filter.priority >= best);
    first.is_some_and(|first| names.iter().any(|name| first.is(name)))
}

/// The filters on the way in (or else out) of an interface, in their order; none where it
/// has no clsact qdisc, or is gone.
///
/// # Errors
/// When the kernel doesn't tell.
pub(super) fn list(ifindex: u32, is_way_in: bool) -> io::Result<Vec<Filter>> {
    let parent = if is_way_in { INGRESS } else { EGRESS };
    let messages = match dump(libc::RTM_GETTFILTER, libc::RTM_NEWTFILTER, ifindex, parent) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP)) => {
            Vec::new()
        }
        listed => listed?,
    };
    Ok(messages.iter().filter_map(|message| parse(message)).collect())
}

/// Does another qdisc than clsact stand where filters on the way in would be? The kernel
/// puts those on the way out there as well then.
///
/// # Errors
/// When the kernel doesn't tell.
pub(super) fn other_qdisc(ifindex: u32) -> io::Result<Option<String>> {
    let messages = dump(libc::RTM_GETQDISC, libc::RTM_NEWQDISC, ifindex, CLSACT)?;
    let word = |message: &[u8], at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    // The kernel tells of all interfaces, and of all qdiscs of each.
    let ours = |message: &&Vec<u8>| word(message, 4) == Some(ifindex) && word(message, 12) == Some(CLSACT);
    let kind = messages.iter().find(ours).and_then(|message| {
        let mut attributes = NlasIterator::new(message.get(TC_BYTES..)?).filter_map(Result::ok);
        attributes.find(|attribute| attribute.kind() == KIND).map(|kind| text(kind.value()))
    });
    Ok(kind.filter(|kind| kind != "clsact"))
}

/// All messages of a dump that are of the kind `answer`, without their headers.
fn dump(question: u16, answer: u16, ifindex: u32, parent: u32) -> io::Result<Vec<Vec<u8>>> {
    let socket = asked(SockProtocol::NetlinkRoute, &request(question, ifindex, parent))?;
    let mut messages = Vec::new();
    loop {
        for (kind, _, payload) in received(&socket)? {
            match kind {
                DONE => return Ok(messages),
                ERROR => said(&payload)?,
                kind if kind == answer => messages.push(payload),
                _ => {}
            }
        }
    }
}

fn request(question: u16, ifindex: u32, parent: u32) -> [u8; REQUEST_BYTES as usize] {
    let mut bytes = [0; REQUEST_BYTES as usize];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(REQUEST_BYTES);
    header.set_message_type(question);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    // Of struct tcmsg: family and padding, then these, then priority and protocol.
    bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[HEADER_BYTES + 12..HEADER_BYTES + 16].copy_from_slice(&parent.to_ne_bytes());
    bytes
}

/// A message about a filter; `None` for one that is about a priority, which has no
/// handle, and for filters of a chain that others have to lead to.
fn parse(payload: &[u8]) -> Option<Filter> {
    let word = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
    let (handle, info) = (word(8)?, word(16)?);
    let mut kind = String::new();
    let mut name = None;
    let mut chain = 0;
    for attribute in NlasIterator::new(payload.get(TC_BYTES..)?).filter_map(Result::ok) {
        match attribute.kind() {
            KIND => kind = text(attribute.value()),
            OPTIONS if kind == "bpf" => {
                let mut options = NlasIterator::new(attribute.value()).filter_map(Result::ok);
                name = options.find(|option| option.kind() == BPF_NAME).map(|option| text(option.value()));
            }
            CHAIN => chain = attribute.value().first_chunk().map_or(0, |chain| u32::from_ne_bytes(*chain)),
            _ => {}
        }
    }
    let priority = u16::try_from(info >> 16).ok()?;
    let protocol = info & 0xffff;
    let is_shareable = kind == "bpf" && protocol == u32::from(ALL_PROTOCOLS.to_be());
    (handle != 0 && chain == 0).then_some(Filter { priority, handle, kind, is_shareable, name })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, kind: &str, name: Option<&str>) -> Filter {
        let (kind, name) = (kind.to_owned(), name.map(str::to_owned));
        Filter { priority, handle: 1, is_shareable: kind == "bpf", kind, name }
    }

    #[test]
    fn a_gate_overtakes_programs_and_whatever_does_not_stand_first() {
        let ours = || filter(1, "bpf", Some("gate"));
        let (program, other) = (filter(1, "bpf", Some("theirs")), filter(1, "matchall", None));
        assert_eq!(first_priority(&[]), 1);
        assert_eq!(first_priority(&[program.clone(), filter(2, "u32", None)]), 1);
        assert_eq!(first_priority(&[other.clone(), filter(2, "u32", None)]), 3);
        assert!(!is_first(&[], &["gate"]));
        assert!(is_first(&[ours(), program.clone()], &["gate"]));
        assert!(!is_first(&[program, ours()], &["gate"]));
        assert!(!is_first(&[filter(5, "u32", None), filter(9, "bpf", Some("gate"))], &["gate"]));
        assert!(is_first(&[other, filter(2, "bpf", Some("gate"))], &["gate"]), "nothing is before the first");
    }

    #[test]
    fn a_program_is_known_by_its_name_and_no_priority_and_no_other_chain_is_a_filter() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).expect("short");
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let message = |handle: u32, protocol: u16, chain: u32| {
            let mut bytes = vec![0; 8];
            bytes.extend(handle.to_ne_bytes());
            bytes.extend(EGRESS.to_ne_bytes());
            bytes.extend((0x7669_0000 | u32::from(protocol.to_be())).to_ne_bytes());
            bytes.extend(attribute(KIND, b"bpf\0"));
            bytes.extend(attribute(OPTIONS, &attribute(BPF_NAME, b"gate\0")));
            bytes.extend(attribute(CHAIN, &chain.to_ne_bytes()));
            bytes
        };
        let gate = filter(0x7669, "bpf", Some("gate"));
        assert_eq!(parse(&message(1, ALL_PROTOCOLS, 0)), Some(gate.clone()));
        // About IPv4 alone.
        assert_eq!(parse(&message(1, 0x0800, 0)), Some(Filter { is_shareable: false, ..gate }));
        assert_eq!(parse(&message(0, ALL_PROTOCOLS, 0)), None);
        assert_eq!(parse(&message(1, ALL_PROTOCOLS, 5)), None);
        assert_eq!(parse(&message(1, ALL_PROTOCOLS, 0)[..12]), None);
    }
}
