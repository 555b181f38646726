//! The lease word and the fence: who may answer for a group, and until when.
//!
//! A lease is one `u64` in the `LEASES` map. One thread of one process writes it,
//! and the kernel reads it for every packet. The engine decides who *gets* a
//! lease; nothing here does.

use core::time::Duration;

use crate::layout::GroupMode;

/// A point in time on CLOCK_BOOTTIME, in nanoseconds since boot.
///
/// The same clock that `bpf_ktime_get_boot_ns` reads. It never crosses the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BootNs(pub u64);

impl BootNs {
    /// This point in time moved forward by `by`; saturates.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// `d` in nanoseconds, saturating at `u64::MAX` (584 years).
#[expect(clippy::cast_possible_truncation, reason = "compared against u64::MAX first")]
const fn nanos(d: Duration) -> u64 {
    let ns = d.as_nanos();
    if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }
}

/// The longest lease that the data plane believes, whatever a group's own
/// limit says: a lease that ends further away than this is none.
pub const LEASE_NS_MAX: u64 = 60_000_000_000;

/// The word in the `LEASES` map: 0 for none, [`Lease::MANUAL`] for a group
/// promoted by hand, else the CLOCK_BOOTTIME nanosecond at which it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Lease(pub u64);

impl Lease {
    /// No lease: the node does not answer.
    pub const NONE: Self = Self(0);
    /// Promoted by hand: holds until demoted, and only where the group is in
    /// [`GroupMode::Manual`].
    pub const MANUAL: Self = Self(u64::MAX);

    /// A lease that ends at `expiry`.
    ///
    /// An expiry that would read as one of the two special words is no lease.
    #[must_use]
    pub const fn until(expiry: BootNs) -> Self {
        if expiry.0 == u64::MAX { Self::NONE } else { Self(expiry.0) }
    }

    /// When this lease ends; `None` for no lease and for a manual one.
    #[must_use]
    pub const fn expiry(self) -> Option<BootNs> {
        if self.0 == 0 || self.0 == u64::MAX { None } else { Some(BootNs(self.0)) }
    }
}

/// What the fence of a group says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// The node is the holder: answer, accept, send.
    Open,
    /// Nobody gave this node a lease.
    NoLease,
    /// There was a lease; it has run out.
    Expired,
    /// The word cannot be a lease: it ends too far away, or it does not fit
    /// the group's mode.
    Invalid,
}

impl Fence {
    /// True only for [`Fence::Open`].
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open)
    }
}

/// May this node answer for a group at `now`?
///
/// The one definition, used by XDP, the egress gate, `status`, the engine's tests
/// and the simulator. `hold_ns_max` is the longest lease this group can have, in
/// nanoseconds; [`LEASE_NS_MAX`] caps it.
#[inline(always)]
#[must_use]
pub const fn fence(mode: GroupMode, lease: Lease, hold_ns_max: u64, now: BootNs) -> Fence {
    if lease.0 == Lease::NONE.0 {
        return Fence::NoLease;
    }
    match mode {
        GroupMode::Unused => Fence::Invalid,
        GroupMode::Manual => {
            if lease.0 == Lease::MANUAL.0 {
                Fence::Open
            } else {
                Fence::Invalid
            }
        }
        GroupMode::Cluster => {
            if lease.0 <= now.0 {
                return Fence::Expired;
            }
            let cap = if hold_ns_max < LEASE_NS_MAX { hold_ns_max } else { LEASE_NS_MAX };
            if lease.0 - now.0 > cap { Fence::Invalid } else { Fence::Open }
        }
    }
}

/// [`fence`], reduced to yes or no.
#[inline(always)]
#[must_use]
pub const fn fence_open(mode: GroupMode, lease: Lease, hold_ns_max: u64, now: BootNs) -> bool {
    fence(mode, lease, hold_ns_max, now).is_open()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: u64 = 160_000_000;
    const NOW: BootNs = BootNs(5_000_000_000);

    #[test]
    fn zero_is_no_lease_in_every_mode() {
        for mode in [GroupMode::Unused, GroupMode::Manual, GroupMode::Cluster] {
            assert_eq!(fence(mode, Lease::NONE, HOLD, NOW), Fence::NoLease);
        }
    }

    #[test]
    fn cluster_lease_opens_until_its_very_nanosecond() {
        let lease = Lease(NOW.0 + 1);
        assert_eq!(fence(GroupMode::Cluster, lease, HOLD, NOW), Fence::Open);
        assert_eq!(fence(GroupMode::Cluster, lease, HOLD, BootNs(NOW.0 + 1)), Fence::Expired);
    }

    #[test]
    fn cluster_lease_too_far_away_is_none() {
        let just = Lease(NOW.0 + HOLD);
        let over = Lease(NOW.0 + HOLD + 1);
        assert_eq!(fence(GroupMode::Cluster, just, HOLD, NOW), Fence::Open);
        assert_eq!(fence(GroupMode::Cluster, over, HOLD, NOW), Fence::Invalid);
        let capped = Lease(NOW.0 + LEASE_NS_MAX + 1);
        assert_eq!(fence(GroupMode::Cluster, capped, u64::MAX, NOW), Fence::Invalid);
    }

    #[test]
    fn manual_and_cluster_never_mix() {
        assert_eq!(fence(GroupMode::Manual, Lease::MANUAL, HOLD, NOW), Fence::Open);
        assert_eq!(fence(GroupMode::Manual, Lease(NOW.0 + 1), HOLD, NOW), Fence::Invalid);
        assert_eq!(fence(GroupMode::Cluster, Lease::MANUAL, HOLD, NOW), Fence::Invalid);
        assert_eq!(fence(GroupMode::Unused, Lease::MANUAL, HOLD, NOW), Fence::Invalid);
    }

    #[test]
    fn lease_until_never_yields_the_manual_word() {
        assert_eq!(Lease::until(BootNs(u64::MAX)), Lease::NONE);
        assert_eq!(Lease::until(BootNs(7)).expiry(), Some(BootNs(7)));
    }
}
