//! The per-VIP counters: one for every verdict and its reason. [`crate::verdict`]
//! says which one counts a frame.

/// Defines [`Counter`] with, for each, the frame class, the verdict and the
/// reason that metrics and `status` show.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = ($class:literal, $verdict:literal, $reason:literal),)+) => {
        /// What happened to one frame. The value is an index into [`Counters`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name,)+ }

        /// Every counter, in the order of its index.
        pub const COUNTERS: &[Counter] = &[$(Counter::$name,)+];

        impl Counter {
            /// Which frames: `arp_request`, `ip_in`, `arp_out`, `ip_out`, `ip_local`, `ip_local_in`, `ip_forward`, `mac_in`, `mac_out`, `arp_claim`, `heartbeat`, `frame`.
            #[must_use]
            pub const fn class(self) -> &'static str { match self { $(Self::$name => $class,)+ } }
            /// What was done: `answer`, `pass`, `drop` or `steer`.
            #[must_use]
            pub const fn verdict(self) -> &'static str { match self { $(Self::$name => $verdict,)+ } }
            /// Why.
            #[must_use]
            pub const fn reason(self) -> &'static str { match self { $(Self::$name => $reason,)+ } }
        }
    };
}

counters! {
    /// ARP request for the VIP, answered.
    ArpRequestAnswered = ("arp_request", "answer", "lease"),
    /// ARP request for the VIP, dropped: no lease.
    ArpRequestNoLease = ("arp_request", "drop", "no_lease"),
    /// ARP request for the VIP, dropped: the lease has run out.
    ArpRequestExpired = ("arp_request", "drop", "expired"),
    /// ARP request for the VIP, dropped: the lease word can't be one.
    ArpRequestInvalid = ("arp_request", "drop", "invalid"),
    /// ARP request for the VIP, dropped: this interface's MAC is not in the map.
    ArpRequestNoMac = ("arp_request", "drop", "no_mac"),
    /// ARP request for the VIP on an interface that is not its own, dropped.
    ArpRequestElsewhere = ("arp_request", "drop", "other_interface"),
    /// ARP from another node that claims the VIP while this node holds it: a
    /// conflict.
    ArpClaimConflict = ("arp_claim", "pass", "conflict"),
    /// ARP from another node that claims the VIP while this node doesn't hold it:
    /// usually from the holder.
    ArpClaimSeen = ("arp_claim", "pass", "standby"),
    /// ARP that claims the VIP on an interface that is not its own.
    ArpClaimElsewhere = ("arp_claim", "pass", "other_interface"),
    /// IP packet to the VIP, passed.
    IpInPassed = ("ip_in", "pass", "lease"),
    /// IP packet to the VIP, dropped: no lease.
    IpInNoLease = ("ip_in", "drop", "no_lease"),
    /// IP packet to the VIP, dropped: the lease has run out.
    IpInExpired = ("ip_in", "drop", "expired"),
    /// IP packet to the VIP, dropped: the lease word can't be one.
    IpInInvalid = ("ip_in", "drop", "invalid"),
    /// IP packet to the VIP that a client has sent to this node by mistake, sent on to the
    /// holder.
    IpInSteered = ("ip_in", "steer", "other_node"),
    /// ARP with the VIP as sender, let out.
    ArpOutPassed = ("arp_out", "pass", "lease"),
    /// ARP with the VIP as sender, held back: no lease.
    ArpOutNoLease = ("arp_out", "drop", "no_lease"),
    /// ARP with the VIP as sender, held back: the lease has run out.
    ArpOutExpired = ("arp_out", "drop", "expired"),
    /// ARP with the VIP as sender, held back: the lease word can't be one.
    ArpOutInvalid = ("arp_out", "drop", "invalid"),
    /// ARP with the VIP as sender on an interface that is not its own, held back.
    ArpOutElsewhere = ("arp_out", "drop", "other_interface"),
    /// IP packet with the VIP as source, let out.
    IpOutPassed = ("ip_out", "pass", "lease"),
    /// IP packet with the VIP as source, held back: no lease.
    IpOutNoLease = ("ip_out", "drop", "no_lease"),
    /// IP packet with the VIP as source, held back: the lease has run out.
    IpOutExpired = ("ip_out", "drop", "expired"),
    /// IP packet with the VIP as source, held back: the lease word can't be one.
    IpOutInvalid = ("ip_out", "drop", "invalid"),
    /// IP packet to the VIP from a process of this host, passed.
    IpLocalPassed = ("ip_local", "pass", "lease"),
    /// IP packet to the VIP from a process of this host, dropped: no lease.
    IpLocalNoLease = ("ip_local", "drop", "no_lease"),
    /// IP packet to the VIP from a process of this host, dropped: the lease has run out.
    IpLocalExpired = ("ip_local", "drop", "expired"),
    /// IP packet to the VIP from a process of this host, dropped: the lease word can't be one.
    IpLocalInvalid = ("ip_local", "drop", "invalid"),
    /// IP packet to the VIP that no other program has dropped before the host would
    /// have taken it as its own, dropped: no lease.
    IpLocalInNoLease = ("ip_local_in", "drop", "no_lease"),
    /// The same: the lease has run out.
    IpLocalInExpired = ("ip_local_in", "drop", "expired"),
    /// The same: the lease word can't be one.
    IpLocalInInvalid = ("ip_local_in", "drop", "invalid"),
    /// IP packet of a gateway's client to elsewhere, dropped: no lease of the gateway.
    IpForwardNoLease = ("ip_forward", "drop", "no_lease"),
    /// The same: the lease has run out.
    IpForwardExpired = ("ip_forward", "drop", "expired"),
    /// The same: the lease word can't be one.
    IpForwardInvalid = ("ip_forward", "drop", "invalid"),
    /// IP packet of a gateway's client to elsewhere, sent on to the gateway's holder.
    IpForwardSteered = ("ip_forward", "steer", "other_node"),
    /// Frame for a group's virtual MAC, dropped: no lease.
    MacInNoLease = ("mac_in", "drop", "no_lease"),
    /// The same: the lease has run out.
    MacInExpired = ("mac_in", "drop", "expired"),
    /// The same: the lease word can't be one.
    MacInInvalid = ("mac_in", "drop", "invalid"),
    /// Frame from a group's virtual MAC, or ARP that says it is here, held back: no lease.
    MacOutNoLease = ("mac_out", "drop", "no_lease"),
    /// The same: the lease has run out.
    MacOutExpired = ("mac_out", "drop", "expired"),
    /// The same: the lease word can't be one.
    MacOutInvalid = ("mac_out", "drop", "invalid"),
    /// Frame from the network that ends before its headers do (slot 0 only: it
    /// names no VIP).
    FrameTruncated = ("frame", "pass", "truncated"),
    /// Frame from the network with more VLAN tags than the data plane looks through
    /// (slot 0 only).
    FrameTagged = ("frame", "pass", "tagged"),
    /// Frame of this host that ends before its headers do, held back: it may have a
    /// VIP as source (slot 0 only).
    FrameTruncatedOut = ("frame", "drop", "truncated"),
    /// Frame of this host with more VLAN tags than the data plane looks through, held
    /// back: it may have a VIP as source (slot 0 only).
    FrameTaggedOut = ("frame", "drop", "tagged"),
    /// Datagram to the agent's port from an address that is no peer's (slot 0
    /// only).
    HeartbeatStranger = ("heartbeat", "drop", "stranger"),
    /// Datagram to the agent's port from a peer's address that is being flooded,
    /// and no new payload (slot 0 only).
    HeartbeatFlood = ("heartbeat", "drop", "flood"),
    /// Event that was lost because the ring buffer was full (slot 0 only).
    EventLost = ("frame", "pass", "event_lost"),
}

/// How many counters there are.
pub const COUNTERS_LEN: usize = COUNTERS.len();

/// Value of the `COUNTERS` map, one per CPU and VIP slot, indexed by [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Frames, indexed by [`Counter`] as a number.
    pub frames: [u64; COUNTERS_LEN],
}

impl Default for Counters {
    fn default() -> Self {
        Self { frames: [0; COUNTERS_LEN] }
    }
}

impl Counters {
    /// The count of one kind of frame.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.frames[counter as usize]
    }
}
