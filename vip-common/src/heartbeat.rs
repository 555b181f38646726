//! Datagrams between agents, as far as the kernel looks at them: where their
//! header has what, and which of them it lets in while their port is flooded.
//!
//! Nothing here is secret, and nothing that is let in is believed: that takes
//! the tag, which the agent checks.

/// Version of the datagram's layout and meaning; a datagram of any other is rejected.
pub const WIRE_VERSION: u8 = 6;
/// The kind of a datagram that carries a payload.
pub const KIND_DATA: u8 = 3;
/// Where the version is in a datagram, in bytes from its beginning; so for those below.
pub const VERSION_AT: usize = 0;
/// Where the kind is.
pub const KIND_AT: usize = 1;
/// Where the sender's incarnation is.
pub const SENDER_INCARNATION_AT: usize = 30;
/// Where the receiver's incarnation is.
pub const RECEIVER_INCARNATION_AT: usize = 38;
/// Where the counter is.
pub const COUNTER_AT: usize = 46;

/// Of datagrams from no peer's address the way in passes one in so many on to
/// the agent's socket, which lets in a few of them, to be told of.
pub const STRANGERS_PASSED: u32 = 16;
/// The same of what is no new payload, from a peer's address that is flooded.
pub const OTHERS_PASSED: u32 = 16;
/// Peers that the `PEERS` map has room for.
pub const PEERS_MAX: u32 = 256;

/// An address and a port: the agent's own, as the only value of the
/// `HEARTBEAT` map, where all zeros is none; or a peer's, as key of `PEERS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Endpoint {
    /// IPv6, or IPv4 mapped into it (RFC 4291, 2.5.5.2), in network order.
    pub address: [u8; 16],
    /// The UDP port, in network order.
    pub port: [u8; 2],
    /// Always zero.
    pub pad: [u8; 2],
}

impl Endpoint {
    /// No endpoint.
    pub const NONE: Self = Self { address: [0; 16], port: [0; 2], pad: [0; 2] };

    /// An IPv4 address and a port, both in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: [u8; 4], port: [u8; 2]) -> Self {
        let [a, b, c, d] = address;
        Self::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port)
    }

    /// An IPv6 address and a port, both in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(address: [u8; 16], port: [u8; 2]) -> Self {
        Self { address, port, pad: [0; 2] }
    }
}

/// What is let in of a peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Everything.
    All,
    /// New payloads of this session, and a few of the rest.
    Payloads(SessionBounds),
    /// A few.
    Few,
}

/// What a payload has to be like to be a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SessionBounds {
    /// The peer's adopted incarnation.
    pub from: u64,
    /// This node's incarnation.
    pub to: u64,
    /// The highest counter received; all are new that are higher.
    pub highest: u64,
}

/// [`Admits`] as value of the `PEERS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Admission {
    /// 1: everything, 2: new payloads and a few of the rest; else a few.
    pub admits: u32,
    /// Always zero.
    pub pad: u32,
    /// For payloads; else zeros.
    pub bounds: SessionBounds,
}

impl Admission {
    const ALL: u32 = 1;
    const PAYLOADS: u32 = 2;
    const FEW: u32 = 3;

    /// What the map's value stands for.
    #[inline(always)]
    #[must_use]
    pub const fn admits(&self) -> Admits {
        match self.admits {
            Self::ALL => Admits::All,
            Self::PAYLOADS => Admits::Payloads(self.bounds),
            _ => Admits::Few,
        }
    }
}

impl From<Admits> for Admission {
    fn from(admits: Admits) -> Self {
        let none = SessionBounds { from: 0, to: 0, highest: 0 };
        let (admits, bounds) = match admits {
            Admits::All => (Self::ALL, none),
            Admits::Payloads(bounds) => (Self::PAYLOADS, bounds),
            Admits::Few => (Self::FEW, none),
        };
        Self { admits, pad: 0, bounds }
    }
}
