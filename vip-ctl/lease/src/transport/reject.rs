//! Why datagrams are dropped, and the transport's counters. Others show them;
//! nothing here logs.

/// Defines [`Rejected`] with the label that each reason has in metrics.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why a datagram was dropped. Nothing is ever sent back for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Rejected { $($(#[$doc])* $name,)+ }

        impl Rejected {
            /// Every reason, in the order of the declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The reason as metrics name it.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$name => $label,)+ } }
        }
    };
}

reasons! {
    /// Shorter than a header and a tag.
    Truncated = "truncated",
    /// Another wire version.
    Version = "version",
    /// A kind of datagram that this version does not have.
    Kind = "kind",
    /// The receiver's index is not this node's.
    NotForMe = "not_for_me",
    /// The sender's index is none of this node's peers.
    UnknownPeer = "unknown_peer",
    /// The key id is not in this node's key file.
    UnknownKey = "unknown_key",
    /// The tag does not verify: another key, another cluster, or tampered with.
    BadTag = "bad_tag",
    /// Genuine, but the sender has another configuration.
    ConfigMismatch = "config_mismatch",
    /// Genuine, but the sender's membership is not this node's, nor the one
    /// before or after it.
    GenerationMismatch = "generation_mismatch",
    /// Genuine, but from or for an incarnation that is not the current one.
    StaleIncarnation = "stale_incarnation",
    /// Received before, by its counter, or too old to tell.
    Replayed = "replayed",
    /// A genuine response to a challenge that is not outstanding.
    Unsolicited = "unsolicited",
    /// Genuine, but its payload is not what its kind carries.
    Malformed = "malformed",
    /// From no peer's address, or from that of another peer than it names.
    ForeignAddress = "foreign_address",
    /// More came of its kind than this node checks or answers.
    RateLimited = "rate_limited",
}

/// The transport's counters since it was created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payloads sealed.
    pub sealed: u64,
    /// Payloads handed to the caller.
    pub delivered: u64,
    /// Challenges queued for sending.
    pub challenges_sent: u64,
    /// Genuine challenges received.
    pub challenges_received: u64,
    /// Responses queued for sending.
    pub responses_sent: u64,
    /// Responses that echoed an outstanding challenge.
    pub responses_received: u64,
    /// Incarnations of peers adopted.
    pub adoptions: u64,
    /// Challenges and responses dropped because the outbox was full.
    pub outbox_full: u64,
    pub(super) rejected: [u64; Rejected::ALL.len()],
}

impl Counters {
    /// How many datagrams were dropped for `reason`.
    #[must_use]
    pub const fn rejected(&self, reason: Rejected) -> u64 {
        self.rejected[reason as usize]
    }
}
