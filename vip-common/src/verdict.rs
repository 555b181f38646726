//! What happens to a frame that is about a VIP: one table, the class of the
//! frame by what the fence of the VIP's group says ([`crate::fence`]).
//!
//! | class | `Open` | `NoLease` | `Expired` | `Invalid` |
//! |---|---|---|---|---|
//! | `ArpRequest` | answer: lease | drop: no_lease | drop: expired | drop: invalid |
//! | `ArpClaim` | pass: conflict, tells `ClaimConflict` | pass: standby, tells `ClaimSeen` | pass: standby, tells `ClaimSeen` | pass: standby, tells `ClaimSeen` |
//! | `IpIn` | pass: lease | drop: no_lease | drop: expired | drop: invalid |
//! | `ArpOut` | pass: lease | drop: no_lease | drop: expired | drop: invalid |
//! | `IpOut` | pass: lease | drop: no_lease | drop: expired | drop: invalid |
//! | `IpLocal` | pass: lease | drop: no_lease | drop: expired | drop: invalid |
//! | `IpLocalIn` | pass | drop: no_lease | drop: expired | drop: invalid |
//! | `IpForward` | pass | drop: no_lease | drop: expired | drop: invalid |
//! | `MacIn` | pass | drop: no_lease | drop: expired | drop: invalid |
//! | `MacOut` | pass | drop: no_lease | drop: expired | drop: invalid |
//! | `ArpRequestElsewhere` | drop: other_interface | drop: other_interface | drop: other_interface | drop: other_interface |
//! | `ArpClaimElsewhere` | pass: other_interface | pass: other_interface | pass: other_interface | pass: other_interface |
//! | `ArpOutElsewhere` | drop: other_interface | drop: other_interface | drop: other_interface | drop: other_interface |
//!
//! Each cell is the verdict, the reason that its counter shows, and the event
//! that goes to the agent. A test compares these lines with the code. A packet
//! that `IpLocalIn` passes has no counter there: `IpIn` or `IpLocal` has counted
//! it where it came in. Neither has one that `IpForward` passes: under a lease nobody
//! asks whether it is for this host. `MacIn` and `MacOut` come before all others, which judge
//! and count what they pass.
//!
//! The data plane determines the class of a frame. It drops a request that it
//! would answer if it knew the interface's MAC (`ArpRequestNoMac`). ARP on an interface
//! that is not the VIP's own is `Elsewhere`: a VIP of one network is unknown in the
//! others. IP packets are not: routers send them by whatever interface they choose, and
//! the lease alone says who may take them. Frames about no VIP pass, apart from unwanted
//! datagrams to the agent's port.

use crate::{counter::Counter, event::EventKind, lease::Fence};

/// Frames that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// From the network: a request for the hardware address of a VIP.
    ArpRequest,
    /// From the network: somebody else claims a VIP.
    ArpClaim,
    /// From the network: an IP packet to a VIP.
    IpIn,
    /// To the network: ARP with a VIP as sender.
    ArpOut,
    /// To the network: an IP packet with a VIP as source.
    IpOut,
    /// From a process of this host: an IP packet to a VIP on this host.
    IpLocal,
    /// By whatever way: an IP packet to a VIP that this host is about to take as
    /// its own.
    IpLocalIn,
    /// From the network, by a VIP's own interface: an IP packet that this host is about to
    /// forward for a client whose gateway is the VIP.
    IpForward,
    /// From the network: any frame for a group's virtual MAC.
    MacIn,
    /// To the network: any frame from a group's virtual MAC, and ARP that says it is there.
    MacOut,
    /// As [`Class::ArpRequest`], on an interface that is not the VIP's own.
    ArpRequestElsewhere,
    /// As [`Class::ArpClaim`], on an interface that is not the VIP's own.
    ArpClaimElsewhere,
    /// As [`Class::ArpOut`], on an interface that is not the VIP's own.
    ArpOutElsewhere,
}

impl Class {
    /// The class of such a frame on an interface that is not the VIP's own.
    #[inline(always)]
    #[must_use]
    pub const fn elsewhere(self) -> Self {
        match self {
            Self::ArpRequest | Self::ArpRequestElsewhere => Self::ArpRequestElsewhere,
            Self::ArpClaim | Self::ArpClaimElsewhere => Self::ArpClaimElsewhere,
            Self::ArpOut | Self::ArpOutElsewhere => Self::ArpOutElsewhere,
            Self::IpIn | Self::IpOut | Self::IpLocal | Self::IpLocalIn | Self::IpForward => self,
            Self::MacIn | Self::MacOut => self,
        }
    }
}

/// Every class.
pub const CLASSES: &[Class] = &[
    Class::ArpRequest,
    Class::ArpClaim,
    Class::IpIn,
    Class::ArpOut,
    Class::IpOut,
    Class::IpLocal,
    Class::IpLocalIn,
    Class::IpForward,
    Class::MacIn,
    Class::MacOut,
    Class::ArpRequestElsewhere,
    Class::ArpClaimElsewhere,
    Class::ArpOutElsewhere,
];

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it go on, untouched.
    Pass,
    /// Drop it silently.
    Drop,
    /// Turn it into its answer, and send that back out where the frame came from.
    Answer,
    /// Send it on to the holder, out where it came from. No fence says so: a frame that is
    /// to be dropped may be sent on instead.
    Steer,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What to do with the frame.
    pub verdict: Verdict,
    /// Where the frame is counted, in the VIP's slot; `None` if another program has
    /// counted it.
    pub counter: Option<Counter>,
    /// The event that goes to the agent, if any.
    pub event: Option<EventKind>,
}

/// The cell for a class of frames under this fence.
#[inline(always)]
#[must_use]
pub const fn ruling(class: Class, fence: Fence) -> Ruling {
    match (class, fence) {
        (Class::ArpRequest, Fence::Open) => answer(Counter::ArpRequestAnswered),
        // The host's own stack has the VIP on `lo` and must never see these.
        (Class::ArpRequest, Fence::NoLease) => drop(Counter::ArpRequestNoLease),
        (Class::ArpRequest, Fence::Expired) => drop(Counter::ArpRequestExpired),
        (Class::ArpRequest, Fence::Invalid) => drop(Counter::ArpRequestInvalid),

        // On a standby it is the holder's announcement, and the neighbour entry
        // of this host's own clients follows it. The agent announces again.
        (Class::ArpClaim, Fence::Open) => tell(Counter::ArpClaimConflict, EventKind::ClaimConflict),
        (Class::ArpClaim, Fence::NoLease | Fence::Expired | Fence::Invalid) => {
            tell(Counter::ArpClaimSeen, EventKind::ClaimSeen)
        }

        (Class::IpIn, Fence::Open) => pass(Counter::IpInPassed),
        (Class::IpIn, Fence::NoLease) => drop(Counter::IpInNoLease),
        (Class::IpIn, Fence::Expired) => drop(Counter::IpInExpired),
        (Class::IpIn, Fence::Invalid) => drop(Counter::IpInInvalid),

        (Class::ArpOut, Fence::Open) => pass(Counter::ArpOutPassed),
        (Class::ArpOut, Fence::NoLease) => drop(Counter::ArpOutNoLease),
        (Class::ArpOut, Fence::Expired) => drop(Counter::ArpOutExpired),
        (Class::ArpOut, Fence::Invalid) => drop(Counter::ArpOutInvalid),

        (Class::IpOut, Fence::Open) => pass(Counter::IpOutPassed),
        (Class::IpOut, Fence::NoLease) => drop(Counter::IpOutNoLease),
        (Class::IpOut, Fence::Expired) => drop(Counter::IpOutExpired),
        (Class::IpOut, Fence::Invalid) => drop(Counter::IpOutInvalid),

        (Class::IpLocal, Fence::Open) => pass(Counter::IpLocalPassed),
        (Class::IpLocal, Fence::NoLease) => drop(Counter::IpLocalNoLease),
        (Class::IpLocal, Fence::Expired) => drop(Counter::IpLocalExpired),
        (Class::IpLocal, Fence::Invalid) => drop(Counter::IpLocalInvalid),

        (Class::IpLocalIn, Fence::Open) => Ruling { verdict: Verdict::Pass, counter: None, event: None },
        (Class::IpLocalIn, Fence::NoLease) => drop(Counter::IpLocalInNoLease),
        (Class::IpLocalIn, Fence::Expired) => drop(Counter::IpLocalInExpired),
        (Class::IpLocalIn, Fence::Invalid) => drop(Counter::IpLocalInInvalid),

        (Class::IpForward, Fence::Open) => Ruling { verdict: Verdict::Pass, counter: None, event: None },
        (Class::IpForward, Fence::NoLease) => drop(Counter::IpForwardNoLease),
        (Class::IpForward, Fence::Expired) => drop(Counter::IpForwardExpired),
        (Class::IpForward, Fence::Invalid) => drop(Counter::IpForwardInvalid),

        (Class::MacIn | Class::MacOut, Fence::Open) => {
            Ruling { verdict: Verdict::Pass, counter: None, event: None }
        }
        (Class::MacIn, Fence::NoLease) => drop(Counter::MacInNoLease),
        (Class::MacIn, Fence::Expired) => drop(Counter::MacInExpired),
        (Class::MacIn, Fence::Invalid) => drop(Counter::MacInInvalid),

        (Class::MacOut, Fence::NoLease) => drop(Counter::MacOutNoLease),
        (Class::MacOut, Fence::Expired) => drop(Counter::MacOutExpired),
        (Class::MacOut, Fence::Invalid) => drop(Counter::MacOutInvalid),

        (Class::ArpRequestElsewhere, _) => drop(Counter::ArpRequestElsewhere),
        // Not about the network that the VIP is in: no conflict.
        (Class::ArpClaimElsewhere, _) => pass(Counter::ArpClaimElsewhere),
        (Class::ArpOutElsewhere, _) => drop(Counter::ArpOutElsewhere),
    }
}

#[inline(always)]
const fn answer(counter: Counter) -> Ruling {
    Ruling { verdict: Verdict::Answer, counter: Some(counter), event: None }
}

#[inline(always)]
const fn pass(counter: Counter) -> Ruling {
    Ruling { verdict: Verdict::Pass, counter: Some(counter), event: None }
}

#[inline(always)]
const fn drop(counter: Counter) -> Ruling {
    Ruling { verdict: Verdict::Drop, counter: Some(counter), event: None }
}

/// Passes the frame and tells the agent.
#[inline(always)]
const fn tell(counter: Counter, event: EventKind) -> Ruling {
    Ruling { verdict: Verdict::Pass, counter: Some(counter), event: Some(event) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeMap, format, string::String, vec::Vec};

    use super::*;
    use crate::counter::COUNTERS;

    const FENCES: [Fence; 4] = [Fence::Open, Fence::NoLease, Fence::Expired, Fence::Invalid];

    fn cells() -> impl Iterator<Item = (Class, Fence, Ruling)> {
        CLASSES.iter().flat_map(|&class| FENCES.map(|fence| (class, fence, ruling(class, fence))))
    }

    fn is_elsewhere(class: Class) -> bool {
        use Class::{ArpClaimElsewhere, ArpOutElsewhere, ArpRequestElsewhere};
        matches!(class, ArpRequestElsewhere | ArpClaimElsewhere | ArpOutElsewhere)
    }

    #[test]
    fn a_vip_has_no_arp_elsewhere_and_the_same_ip() {
        for &class in CLASSES {
            let is_arp = matches!(class, Class::ArpRequest | Class::ArpClaim | Class::ArpOut);
            assert_eq!(class.elsewhere() != class, is_arp, "{class:?}");
            assert_eq!(is_elsewhere(class.elsewhere()), is_arp || is_elsewhere(class), "{class:?}");
        }
    }

    /// The class, the verdict and the reason as the counter shows them.
    fn shown(class: Class, fence: Fence, verdict: Verdict) -> [&'static str; 3] {
        let shown_class = match class {
            Class::ArpRequest | Class::ArpRequestElsewhere => "arp_request",
            Class::ArpClaim | Class::ArpClaimElsewhere => "arp_claim",
            Class::IpIn => "ip_in",
            Class::ArpOut | Class::ArpOutElsewhere => "arp_out",
            Class::IpOut => "ip_out",
            Class::IpLocal => "ip_local",
            Class::IpLocalIn => "ip_local_in",
            Class::IpForward => "ip_forward",
            Class::MacIn => "mac_in",
            Class::MacOut => "mac_out",
        };
        let verdict = match verdict {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::Answer => "answer",
            Verdict::Steer => "steer",
        };
        let reason = match (class, fence) {
            (class, _) if is_elsewhere(class) => "other_interface",
            (Class::ArpClaim, Fence::Open) => "conflict",
            (Class::ArpClaim, _) => "standby",
            (_, Fence::Open) => "lease",
            (_, Fence::NoLease) => "no_lease",
            (_, Fence::Expired) => "expired",
            (_, Fence::Invalid) => "invalid",
        };
        [shown_class, verdict, reason]
    }

    #[test]
    fn the_table_of_the_docs_is_the_one_in_the_code() {
        let source = include_str!("verdict.rs");
        let documented: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//! | `")).collect();
        let coded: Vec<_> = CLASSES
            .iter()
            .map(|class| {
                let cells = FENCES.map(|fence| {
                    let Ruling { counter, event, .. } = ruling(*class, fence);
                    let tells = event.map_or(String::new(), |event| format!(", tells `{event:?}`"));
                    counter.map_or(String::from("pass"), |counter| {
                        format!("{}: {}{tells}", counter.verdict(), counter.reason())
                    })
                });
                format!("{class:?}` | {} |", cells.join(" | "))
            })
            .collect();
        assert_eq!(documented, coded);
    }

    #[test]
    fn every_cell_does_what_its_counter_says() {
        for (class, fence, ruling) in cells() {
            let Some(counter) = ruling.counter else {
                let is_uncounted = class == Class::IpLocalIn || class == Class::IpForward;
                let is_mac = class == Class::MacIn || class == Class::MacOut;
                assert!((is_uncounted || is_mac) && fence.is_open());
                continue;
            };
            let counted = [counter.class(), counter.verdict(), counter.reason()];
            assert_eq!(counted, shown(class, fence, ruling.verdict), "{class:?} {fence:?}");
        }
    }

    #[test]
    fn only_an_open_fence_lets_a_vip_through_and_it_drops_nothing() {
        for (class, fence, ruling) in cells() {
            let is_claim = class == Class::ArpClaim;
            if is_elsewhere(class) {
                let is_claim = class == Class::ArpClaimElsewhere;
                assert_eq!(
                    ruling.verdict,
                    if is_claim { Verdict::Pass } else { Verdict::Drop },
                    "{class:?} {fence:?}"
                );
                assert!(ruling.event.is_none(), "{class:?} {fence:?}");
                continue;
            }
            assert_eq!(ruling.verdict != Verdict::Drop, fence.is_open() || is_claim, "{class:?} {fence:?}");
            assert_eq!(
                ruling.verdict == Verdict::Answer,
                fence.is_open() && class == Class::ArpRequest,
                "{class:?} {fence:?}"
            );
            assert_eq!(ruling.event.is_some(), is_claim, "{class:?} {fence:?}");
        }
    }

    #[test]
    fn a_counter_of_a_vip_is_for_one_cell() {
        let mut cells_of = BTreeMap::<_, usize>::new();
        for counter in cells().filter_map(|(_, _, ruling)| ruling.counter) {
            *cells_of.entry(counter as usize).or_default() += 1;
        }
        for &counter in COUNTERS {
            let expected = match (counter, counter.class()) {
                // Whatever it is that a standby lacks.
                (Counter::ArpClaimSeen, _) => 3,
                (_, _) if counter.reason() == "other_interface" => 4,
                // Would be answered, if the interface's MAC were known.
                (Counter::ArpRequestNoMac, _) | (_, "frame" | "heartbeat") => 0,
                // Would be dropped, if nobody knew the holder.
                (Counter::IpInSteered | Counter::IpForwardSteered, _) => 0,
                (_, _) => 1,
            };
            let cells = cells_of.get(&(counter as usize)).copied().unwrap_or(0);
            assert_eq!(cells, expected, "{counter:?}");
        }
    }
}
