//! Reads the counters, summed over the CPUs, and the events ring buffer.

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use vip_common::{
    Counter, Heard, VipSlot,
    counter::{COUNTERS, Counters},
    event::Event,
    names,
};

use super::{DataPlane, DataPlaneError, pinned, typed};

impl DataPlane {
    /// The counters of one VIP (or of [`VipSlot::NODE`]), summed over the CPUs.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn counters(&self, slot: VipSlot) -> Result<Counters, DataPlaneError> {
        let per_cpu = self.counters.get(&slot.0, 0).map_err(|e| DataPlaneError::map("read counters", e))?;
        let mut sum = Counters::default();
        for counters in per_cpu.iter() {
            for (total, frames) in sum.frames.iter_mut().zip(counters.frames) {
                *total = total.wrapping_add(frames);
            }
        }
        Ok(sum)
    }

    /// What this node, while it has no lease, last heard of a VIP from other hosts.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the map can't be read.
    pub fn heard(&self, slot: VipSlot) -> Result<Heard, DataPlaneError> {
        self.heard.get(&slot.0, 0).map_err(|e| DataPlaneError::map("read who claims a VIP", e))
    }
}

/// The name of a counter in JSON: class, verdict and reason.
#[must_use]
pub fn counter_name(counter: Counter) -> String {
    format!("{}_{}_{}", counter.class(), counter.verdict(), counter.reason())
}

/// The counters as (name, frames), without those that are zero unless `all`.
#[must_use]
pub fn named(counters: &Counters, all: bool) -> Vec<(String, u64)> {
    COUNTERS
        .iter()
        .map(|c| (counter_name(*c), counters.get(*c)))
        .filter(|(_, frames)| all || *frames > 0)
        .collect()
}

/// The events ring buffer; there must be one reader.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Opens the ring buffer pinned below `dir`.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if it can't be opened.
    pub fn open(dir: &Path) -> Result<Self, DataPlaneError> {
        Ok(Self { ring: typed(names::EVENTS, Map::RingBuf(pinned(dir, names::EVENTS)?))? })
    }

    /// The next event, if one waits.
    #[expect(clippy::should_implement_trait, reason = "an iterator would borrow the ring for its life")]
    pub fn next(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        if item.len() < size_of::<Event>() {
            return None;
        }
        // SAFETY: long enough, any bit pattern is a valid `Event`, and the
        // read asks for no alignment.
        Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() })
    }
}

impl std::os::fd::AsRawFd for Events {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.ring.as_raw_fd()
    }
}
