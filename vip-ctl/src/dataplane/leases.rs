//! Array maps mapped into memory: the lease store, one aligned 8-byte store
//! per group, and a read-only view of others.
//!
//! A map update by system call copies the value byte by byte, and a reader in the
//! kernel may see half of it; a store through the mapping is atomic.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::{GroupIndex, Lease};

use super::DataPlaneError;

/// An array map of `T`, mapped into this process.
pub struct Mapped<T> {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
    len: u32,
    value: PhantomData<T>,
}

// SAFETY: the mapping is owned by this value alone, holds plain data and is
// only read or written with volatile or atomic accesses.
unsafe impl<T: Pod> Send for Mapped<T> {}
// SAFETY: as above; shared references only read volatile or store atomically.
unsafe impl<T: Pod> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// The kernel rounds an array's values up to eight bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array, which must have been created with `BPF_F_MMAPABLE` and
    /// `len` entries.
    ///
    /// # Errors
    /// [`DataPlaneError::Kernel`] if the kernel refuses.
    pub fn new(map: &MapData, len: u32) -> Result<Self, DataPlaneError> {
        let bytes =
            NonZeroUsize::new((Self::STRIDE * len as usize).next_multiple_of(4096)).ok_or_else(|| {
                DataPlaneError::Kernel { what: "map an array".into(), message: "it is empty".into() }
            })?;
        // SAFETY: a new shared mapping of a map's fd at an address of the
        // kernel's choice; nothing else is touched.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|e| DataPlaneError::io("map an array into memory", e.into()))?;
        Ok(Self { start: start.cast(), bytes, len, value: PhantomData })
    }

    /// The value at `index`; `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: within the mapping, aligned to eight, any bit pattern is a
        // valid `T`; volatile because the kernel or another process may write.
        Some(unsafe { self.start.as_ptr().add(Self::STRIDE * index as usize).cast::<T>().read_volatile() })
    }
}

impl<T> Mapped<T> {
    /// The word at `index`, of an array of words that everybody stores whole.
    pub(super) fn word(&self, index: u32) -> &AtomicU64 {
        assert!(index < self.len && size_of::<T>() == 8, "{index} is beyond an array of words");
        // SAFETY: within the mapping, aligned to eight, alive as long as
        // `self`, and everybody accesses it atomically.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(index as usize)) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, and nobody can use it any more.
        // It can only fail for arguments that `new` would have failed for.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

/// The lease store.
///
/// In cluster mode only the agent's lease loop writes a word that opens a fence. A
/// start, a reload and `unload` write [`Lease::NONE`], for groups that no engine
/// has. In manual mode the process that holds the node's lock writes.
pub struct LeaseTable {
    words: Mapped<Lease>,
}

impl LeaseTable {
    pub(super) fn new(map: &MapData, len: u32) -> Result<Self, DataPlaneError> {
        Ok(Self { words: Mapped::new(map, len)? })
    }

    /// Stores a group's lease: all that a failover is for the kernel. The first
    /// packet after this returns is judged by it. Only for the lease loop and, in
    /// manual mode, `promote`: everybody else clears.
    pub fn store(&self, group: GroupIndex, lease: Lease) {
        self.word(group).store(lease.0, Ordering::SeqCst);
    }

    /// Takes a group's lease away, whoever has written it: this opens no fence.
    pub fn clear(&self, group: GroupIndex) {
        self.store(group, Lease::NONE);
    }

    /// A group's lease.
    #[must_use]
    pub fn load(&self, group: GroupIndex) -> Lease {
        Lease(self.word(group).load(Ordering::SeqCst))
    }

    fn word(&self, group: GroupIndex) -> &AtomicU64 {
        self.words.word(group.0)
    }
}
