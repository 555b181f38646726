//! Messages of nftables, as far as the gate at IP level needs them, by the kernel's own
//! netlink: no program has to be installed for that. What is in a table is `local_in`'s
//! business.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use nix::sys::socket::SockProtocol;

use super::netlink::{DONE, ERROR, HEADER_BYTES, asked, received, said};

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, of linux/netfilter/nfnetlink.h.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, of linux/netfilter/nfnetlink.h.
const NFTABLES: u8 = 10;
/// `NFPROTO_IPV4`, of linux/netfilter.h.
const IPV4: u8 = 2;
/// `struct nfgenmsg`, of linux/netfilter/nfnetlink.h.
const FAMILY_BYTES: usize = 4;
/// `NLA_F_NESTED`, of linux/netlink.h.
const NESTED: u16 = 1 << 15;
/// What a message is about: `enum nf_tables_msg_types`, of linux/netfilter/nf_tables.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `NFT_MSG_NEWTABLE`
    NewTable = 0,
    /// `NFT_MSG_GETTABLE`
    GetTable = 1,
    /// `NFT_MSG_DELTABLE`
    DeleteTable = 2,
    /// `NFT_MSG_NEWCHAIN`
    NewChain = 3,
    /// `NFT_MSG_NEWRULE`
    NewRule = 6,
    /// `NFT_MSG_GETRULE`
    GetRule = 7,
    /// `NFT_MSG_DELRULE`
    DeleteRules = 8,
}

impl Kind {
    const fn number(self) -> u16 {
        (NFTABLES as u16) << 8 | self as u16
    }

    /// What is new may be there already: then it is changed.
    const fn flags(self) -> u16 {
        match self {
            Self::NewTable | Self::NewChain | Self::NewRule => NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
            Self::GetRule => NLM_F_REQUEST | NLM_F_DUMP,
            Self::GetTable => NLM_F_REQUEST,
            Self::DeleteTable | Self::DeleteRules => NLM_F_REQUEST | NLM_F_ACK,
        }
    }
}

/// A message without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) attributes: Vec<u8>,
}

/// An attribute.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that is made of attributes.
pub(super) fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// An attribute that is a text.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// An attribute that is a number.
pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// The value of the attribute of this kind in a message that [`ask`] returned.
pub(super) fn value(message: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(message.get(FAMILY_BYTES..)?).filter_map(Result::ok);
    attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
}

/// Does all of this at once, in this thread's network namespace, or nothing of it.
///
/// # Errors
/// What the kernel says of the first message that it refuses.
pub(super) fn change(messages: &[Message]) -> io::Result<()> {
    transact(messages, true)
}

/// Would the kernel do it? It looks at each message, and does nothing.
///
/// # Errors
/// As of [`change`].
pub(super) fn rehearse(messages: &[Message]) -> io::Result<()> {
    transact(messages, false)
}

/// The kernel's answers to a question, each without its header.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is nothing of that name, else what the kernel says.
pub(super) fn ask(question: &Message) -> io::Result<Vec<Vec<u8>>> {
    let flags = question.kind.flags();
    let question = framed(question.kind.number(), flags, [IPV4, 0, 0, 0], &question.attributes, 1);
    let socket = asked(SockProtocol::NetlinkNetFilter, &question)?;
    let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    let mut answers = Vec::new();
    loop {
        for (kind, _, payload) in received(&socket)? {
            match kind {
                DONE => return Ok(answers),
                ERROR => said(&payload)?,
                _ => answers.push(payload),
            }
        }
        if !is_dump {
            return Ok(answers);
        }
    }
}

/// A batch without an end is looked at, and undone.
fn transact(messages: &[Message], has_end: bool) -> io::Result<()> {
    let whole = [0, 0, 0, NFTABLES];
    let mut bytes = framed(BATCH_BEGIN, NLM_F_REQUEST, whole, &[], 0);
    let mut last = 0;
    for message in messages {
        last += 1;
        let kind = message.kind;
        bytes.extend(framed(kind.number(), kind.flags(), [IPV4, 0, 0, 0], &message.attributes, last));
    }
    if has_end {
        bytes.extend(framed(BATCH_END, NLM_F_REQUEST, whole, &[], last + 1));
    }
    let socket = asked(SockProtocol::NetlinkNetFilter, &bytes)?;
    loop {
        for (kind, sequence, payload) in received(&socket)? {
            if kind == ERROR {
                said(&payload)?;
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

fn framed(kind: u16, flags: u16, family: [u8; FAMILY_BYTES], attributes: &[u8], sequence: u32) -> Vec<u8> {
    let length = HEADER_BYTES + FAMILY_BYTES + attributes.len();
    let mut bytes = vec![0; HEADER_BYTES];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(u32::try_from(length).unwrap_or(u32::MAX));
    header.set_message_type(kind);
    header.set_flags(flags);
    header.set_sequence_number(sequence);
    bytes.extend(family);
    bytes.extend(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_has_its_own_length() {
        let mut message = vec![IPV4, 0, 0, 0];
        message.extend(text(1, "gate"));
        message.extend(nested(4, &[number(1, 7), text(2, "a")]));
        message.extend(number(2, 9));
        assert_eq!(value(&message, 1), Some(b"gate\0".to_vec()));
        assert_eq!(value(&message, 2), Some(9_u32.to_be_bytes().to_vec()));
        assert_eq!(value(&message, 4), Some([number(1, 7), text(2, "a")].concat()));
        assert_eq!((value(&message, 3), value(&message[..2], 1)), (None, None));
        assert_eq!(text(2, "a").get(4..), Some(&[b'a', 0, 0, 0][..]), "padded to four bytes");
    }

    #[test]
    fn a_message_says_how_long_it_is() {
        let bytes = framed(Kind::NewRule.number(), NLM_F_REQUEST, [IPV4, 0, 0, 0], &number(1, 7), 3);
        let message = NetlinkBuffer::new_checked(&bytes[..]).expect("whole");
        assert_eq!((message.message_type(), message.sequence_number()), (0x0a06, 3));
        assert_eq!(message.length() as usize, bytes.len());
        assert_eq!(value(message.payload(), 1), Some(7_u32.to_be_bytes().to_vec()));
    }
}
