//! A node's lease words, read from its pinned map: what the kernel answers by,
//! seen without asking the agent for anything. Read only.

use std::ffi::CString;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use vip_common::layout::GROUPS_MAX;
use vip_common::{Lease, names};

use super::{Node, clock};

/// `BPF_OBJ_GET` (linux/bpf.h).
const OBJ_GET: libc::c_int = 7;
/// Bytes of the map.
const BYTES: NonZeroUsize = NonZeroUsize::new(GROUPS_MAX as usize * size_of::<u64>()).expect("not empty");

/// The part of `union bpf_attr` that `BPF_OBJ_GET` takes.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The words, as long as this lives.
pub struct Leases(NonNull<AtomicU64>);

// SAFETY: the words are only read, as the atomics that they are, and the
// mapping is as good in any thread.
unsafe impl Send for Leases {}
// SAFETY: as above.
unsafe impl Sync for Leases {}

impl Leases {
    /// Those of a node whose data plane is up.
    ///
    /// # Errors
    /// When its map can't be opened or mapped.
    pub fn open(node: &Node) -> Result<Self> {
        let path = node.bpf_dir().join("maps").join(names::LEASES);
        let what = || format!("opening {}", path.display());
        let text = CString::new(path.as_os_str().as_bytes())?;
        let attr = ObjGet { pathname: text.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
        // SAFETY: the command reads this much of `attr` and the path that it
        // points to; both live through the call.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw const attr, size_of::<ObjGet>()) };
        ensure!(fd >= 0, "{}: {}", what(), std::io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let words = unsafe { mmap(None, BYTES, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &fd, 0) };
        Ok(Self(words.with_context(what)?.cast()))
    }

    /// Is this group's lease there and not over?
    #[must_use]
    pub fn is_valid(&self, group: u32) -> bool {
        assert!(group < GROUPS_MAX, "group {group} is beyond the map");
        // SAFETY: within the mapping, aligned to eight, and read atomically.
        let word = unsafe { self.0.add(group as usize).as_ref() }.load(Ordering::SeqCst);
        Lease(word).expiry().is_some_and(|expiry| expiry > clock::now())
    }

    /// How many of the first `groups` have one.
    #[must_use]
    pub fn valid(&self, groups: u32) -> u32 {
        u32::try_from((0..groups).filter(|group| self.is_valid(*group)).count()).unwrap_or(u32::MAX)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; nobody else has it.
        let _ = unsafe { munmap(self.0.cast(), BYTES.get()) };
    }
}
