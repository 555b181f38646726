//! A classic BPF program that decides which datagrams the kernel lets into the
//! agent's socket: those from the peers' addresses, and while one address is
//! flooded only those that can be a new payload of its peer. Sans-IO:
//! [`super::socket`] attaches it, and [`super::source_guard`] decides what to let
//! in.
//!
//! It lets in a small random part of the rest, so that the agent notices and
//! reports a flood, and notices its end; and so that a peer which restarts during
//! a flood comes back.

use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;
use vip_common::heartbeat::{
    Admits, COUNTER_AT, KIND_AT, KIND_DATA, RECEIVER_INCARNATION_AT, SENDER_INCARNATION_AT, SessionBounds,
    VERSION_AT, WIRE_VERSION,
};

/// Of datagrams from no peer's address, the program lets in one in this many, so
/// that the agent can report them.
pub(super) const STRANGERS_LET_IN: u32 = 64;
/// Of datagrams from a flooded peer's address that are no new payload, the
/// program lets in one in this many.
pub(super) const OTHERS_LET_IN: u32 = 8;
/// The longest program that the kernel takes (BPF_MAXINSNS).
const LEN_MAX: usize = 4096;

/// What to let in from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The address, with the port that the peer sends from.
    pub(super) address: SocketAddr,
    /// Which of its datagrams.
    pub(super) admits: Admits,
}

// Offsets from here on count from the network header (linux/filter.h).
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Where the kernel's random number is loaded from: SKF_AD_OFF + SKF_AD_RANDOM.
const RANDOM: u32 = 0xffff_f000 + 56;
const IPV4_SOURCE: u32 = NETWORK_HEADER + 12;
const IPV6_SOURCE: u32 = NETWORK_HEADER + 8;
/// Where an IPv4 header has its version and length, and their value without
/// options.
const IPV4_PLAIN: (u32, u32) = (NETWORK_HEADER, 0x45);
/// Where an IPv6 header has the next header, and its value for UDP.
const IPV6_PLAIN: (u32, u32) = (NETWORK_HEADER + 6, 17);
/// The program sees a datagram from its UDP header on.
const SOURCE_PORT: u32 = 0;
const UDP_HEADER_LEN: u32 = 8;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// Returned: how many bytes of the datagram are let in.
const WHOLE: u32 = u32::MAX;

/// One step of a block; a jump leads to a label.
enum Step {
    /// No jump.
    Do(u32, u32),
    /// Goes on if the loaded value is this one, else jumps to the label.
    Is(u32, Label),
    /// Jumps to the label if the loaded value is higher.
    Above(u32, Label),
    /// A label.
    At(Label),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The end of the block.
    Next,
    /// Let the datagram in.
    In,
    /// Let a few in.
    Few,
    /// Keep it out.
    Out,
}

/// The program that lets in these sources; `None` if there are too many for one.
pub(super) fn program(sources: &[Source]) -> Option<Vec<sock_filter>> {
    let mut program = Vec::new();
    for source in sources {
        assemble(&block(source), &mut program)?;
    }
    assemble(&sample(STRANGERS_LET_IN), &mut program)?;
    (program.len() <= LEN_MAX).then_some(program)
}

/// Lets in one of `n`, a power of two.
fn sample(n: u32) -> [Step; 6] {
    [
        Step::Do(LOAD_WORD, RANDOM),
        Step::Do(AND, n - 1),
        Step::Is(0, Label::Out),
        Step::Do(RETURN, WHOLE),
        Step::At(Label::Out),
        Step::Do(RETURN, 0),
    ]
}

fn block(source: &Source) -> Vec<Step> {
    let mut steps = Vec::new();
    match source.address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            steps.extend([Step::Do(LOAD_WORD, IPV4_SOURCE), Step::Is(ip.into(), Label::Next)]);
        }
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
            // Addresses of one network differ in their last word.
            for (at, word) in (0..16).step_by(4).zip(words).collect::<Vec<_>>().into_iter().rev() {
                steps.extend([Step::Do(LOAD_WORD, IPV6_SOURCE + at), Step::Is(word, Label::Next)]);
            }
        }
    }
    steps.extend([Step::Do(LOAD_HALF, SOURCE_PORT), Step::Is(source.address.port().into(), Label::Next)]);
    match source.admits {
        Admits::All => steps.push(Step::Do(RETURN, WHOLE)),
        Admits::Few => steps.extend(sample(OTHERS_LET_IN)),
        Admits::Payloads(bounds) => {
            // Datagrams with options or extension headers, which agents never send,
            // bypass the ingress program's check of the header's tag.
            let is_v4 = source.address.ip().to_canonical().is_ipv4();
            let (at, plain) = if is_v4 { IPV4_PLAIN } else { IPV6_PLAIN };
            steps.extend([Step::Do(LOAD_BYTE, at), Step::Is(plain, Label::Few)]);
            steps.extend(is_new_payload(&bounds));
            steps.push(Step::At(Label::Few));
            steps.extend(sample(OTHERS_LET_IN));
            steps.extend([Step::At(Label::In), Step::Do(RETURN, WHOLE)]);
        }
    }
    steps
}

/// Jumps to [`Label::In`] if the datagram can be a new payload; else goes on, or
/// jumps to [`Label::Few`].
fn is_new_payload(bounds: &SessionBounds) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, byte) in [(VERSION_AT, WIRE_VERSION), (KIND_AT, KIND_DATA)] {
        steps.extend([Step::Do(LOAD_BYTE, place(at)), Step::Is(byte.into(), Label::Few)]);
    }
    for (at, word) in [(SENDER_INCARNATION_AT, bounds.from), (RECEIVER_INCARNATION_AT, bounds.to)] {
        let (high, low) = halves(word);
        steps.extend([
            Step::Do(LOAD_WORD, place(at)),
            Step::Is(high, Label::Few),
            Step::Do(LOAD_WORD, place(at + 4)),
            Step::Is(low, Label::Few),
        ]);
    }
    let (high, low) = halves(bounds.highest);
    steps.extend([
        Step::Do(LOAD_WORD, place(COUNTER_AT)),
        Step::Above(high, Label::In),
        Step::Is(high, Label::Few),
        Step::Do(LOAD_WORD, place(COUNTER_AT + 4)),
        Step::Above(low, Label::In),
    ]);
    steps
}

/// Converts an offset in the datagram to one from the UDP header on.
fn place(at: usize) -> u32 {
    // A place in a header of some tens of bytes.
    UDP_HEADER_LEN + u32::try_from(at).unwrap_or(u32::MAX - UDP_HEADER_LEN)
}

/// The high and the low half of a word, as they are on the wire.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Appends a block. Its jumps stay within it, so they are short.
fn assemble(steps: &[Step], program: &mut Vec<sock_filter>) -> Option<()> {
    let is_code = |step: &&Step| !matches!(step, Step::At(_));
    let place = |label: Label| {
        let at = steps.iter().position(|step| matches!(step, Step::At(at) if *at == label));
        let before = at.map_or(steps, |at| &steps[..at]);
        before.iter().filter(is_code).count()
    };
    for (here, step) in steps.iter().filter(is_code).enumerate() {
        let distance = |label| u8::try_from(place(label).checked_sub(here + 1)?).ok();
        let (code, k, jt, jf) = match step {
            Step::Do(code, k) => (*code, *k, 0, 0),
            Step::Is(k, otherwise) => (IF_EQUAL, *k, 0, distance(*otherwise)?),
            Step::Above(k, then) => (IF_GREATER, *k, distance(*then)?, 0),
            Step::At(_) => continue,
        };
        program.push(sock_filter { code: u16::try_from(code).ok()?, jt, jf, k });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _};

    use vip_common::heartbeat::{SESSION_KEYS, SessionKey};

    use super::*;
    use crate::socket_filter::attach;

    // This filter does not check tags.
    const BOUNDS: SessionBounds = SessionBounds {
        from: 0x0102_0304_0506_0708,
        to: 0x1112_1314_1516_1718,
        highest: 5,
        keys: [SessionKey::NONE; SESSION_KEYS],
    };

    /// A datagram that carries a payload of this session, as far as the kernel can see.
    fn datagram(counter: u64) -> Vec<u8> {
        let mut bytes = vec![0; 80];
        bytes[0] = WIRE_VERSION;
        bytes[1] = KIND_DATA;
        for (at, word) in [
            (SENDER_INCARNATION_AT, BOUNDS.from),
            (RECEIVER_INCARNATION_AT, BOUNDS.to),
            (COUNTER_AT, counter),
        ] {
            bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// A socket of that address family, two that send to it, and the three addresses.
    fn sockets(own: &str, others: [&str; 2]) -> (UdpSocket, [UdpSocket; 2]) {
        let socket = UdpSocket::bind(own).expect("an address of this host");
        socket.set_nonblocking(true).expect("a flag");
        (socket, others.map(|other| UdpSocket::bind(other).expect("an address of this host")))
    }

    /// How many of `n` such datagrams come in.
    fn let_in(to: &UdpSocket, from: &UdpSocket, bytes: &[u8], n: u32) -> u32 {
        let (mut came, mut buffer) = (0, [0; 100]);
        for _ in 0..n {
            from.send_to(bytes, to.local_addr().expect("bound")).expect("sent");
            came += u32::from(to.recv_from(&mut buffer).is_ok_and(|(len, _)| buffer[..len] == *bytes));
        }
        came
    }

    fn filter(socket: &UdpSocket, peer: &UdpSocket, admits: Admits) {
        let far = |n: u16| Source {
            address: SocketAddr::from(([10, 9, 8, 7], n)),
            admits: Admits::Payloads(BOUNDS),
        };
        let peer = Source { address: peer.local_addr().expect("bound"), admits };
        // Not the first and not the last.
        let sources: Vec<_> = (1..20).map(far).chain([peer]).chain((20..40).map(far)).collect();
        attach(socket, &program(&sources).expect("it fits")).expect("attached");
    }

    #[test]
    fn a_peers_address_is_let_in_and_of_others_a_few() {
        for (own, others) in
            [("127.0.0.1:0", ["127.0.0.2:0", "127.0.0.3:0"]), ("[::1]:0", ["[::1]:0", "[::1]:0"])]
        {
            let (socket, [peer, stranger]) = sockets(own, others);
            assert_eq!(let_in(&socket, &stranger, b"x", 50), 50, "without a program");
            filter(&socket, &peer, Admits::All);
            assert_eq!(let_in(&socket, &peer, b"x", 200), 200);
            let few = let_in(&socket, &stranger, b"x", 20_000);
            assert!((100..600).contains(&few), "{few} of {}", 20_000 / STRANGERS_LET_IN);
        }
    }

    #[test]
    fn under_a_flood_new_payloads_are_let_in_and_of_the_rest_a_few() {
        let (socket, [peer, stranger]) = sockets("127.0.0.1:0", ["127.0.0.2:0", "127.0.0.3:0"]);
        filter(&socket, &peer, Admits::Payloads(BOUNDS));
        for counter in [6, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            assert_eq!(let_in(&socket, &peer, &datagram(counter), 100), 100, "{counter}");
        }
        let few = |bytes: &[u8]| let_in(&socket, &peer, bytes, 2_000) < 500;
        assert!(few(&datagram(5)) && few(&datagram(0)), "received before");
        for (at, what) in
            [(0, "version"), (1, "kind"), (37, "sender's life"), (38, "receiver's life"), (30, "life")]
        {
            let mut other = datagram(6);
            other[at] ^= 1;
            assert!(few(&other), "{what}");
        }
        assert!(few(b"short") && few(b""));
        assert!(let_in(&socket, &stranger, &datagram(6), 2_000) < 100, "from elsewhere");
        // A datagram that is no payload still has a chance.
        let few = let_in(&socket, &peer, &datagram(5), 20_000);
        assert!((1_000..4_000).contains(&few), "{few} of {}", 20_000 / OTHERS_LET_IN);
        filter(&socket, &peer, Admits::Few);
        assert!(let_in(&socket, &peer, &datagram(6), 2_000) < 500);
    }

    #[test]
    fn under_a_flood_options_and_extension_headers_let_nobody_in() {
        let (socket, [peer, _]) = sockets("127.0.0.1:0", ["127.0.0.2:0", "127.0.0.3:0"]);
        let (socket_v6, [peer_v6, _]) = sockets("[::1]:0", ["[::1]:0", "[::1]:0"]);
        // Three NOPs and the end (RFC 791); destination options of padding (RFC 8200, 4.6).
        let (nothing, padding) = ([1_u8, 1, 1, 0], [0_u8, 0, 1, 4, 0, 0, 0, 0]);
        for (socket, peer, level, option, bytes) in [
            (&socket, &peer, libc::IPPROTO_IP, libc::IP_OPTIONS, &nothing[..]),
            (&socket_v6, &peer_v6, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &padding[..]),
        ] {
            filter(socket, peer, Admits::Payloads(BOUNDS));
            assert_eq!(let_in(socket, peer, &datagram(6), 100), 100);
            let len = libc::socklen_t::try_from(bytes.len()).expect("few");
            // SAFETY: a socket of ours, and as many bytes as are said.
            let set =
                unsafe { libc::setsockopt(peer.as_raw_fd(), level, option, bytes.as_ptr().cast(), len) };
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
            assert!(let_in(socket, peer, &datagram(6), 2_000) < 500);
            filter(socket, peer, Admits::All);
            assert_eq!(let_in(socket, peer, &datagram(6), 100), 100, "else they are nobody's business");
        }
    }

    #[test]
    fn a_cluster_of_any_size_fits() {
        let source = |n: u16| Source {
            address: SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, n)),
            admits: Admits::Payloads(BOUNDS),
        };
        let sources: Vec<_> =
            (0..u16::try_from(crate::config::NODES_MAX).expect("few")).map(source).collect();
        assert!(program(&sources).is_some());
        let sources: Vec<_> = (0..1_000).map(source).collect();
        assert!(program(&sources).is_none());
    }
}
