//! The gate at IP level by netfilter programs, each attached by a link that is pinned.
//!
//! The links belong to the network namespace, not to an interface. The kernel can't
//! change such a link: a new one comes before the old one's pin goes, and for that
//! moment both ask the same maps.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::Ebpf;
use vip_common::layout::SkbOffsets;

use super::{
    super::{
        DataPlaneError,
        bpffs::{netfilter_pins as pins, replace_pin, unpin},
        syscalls::{self, LinkInfo, ProgramType},
    },
    LocalIn, PARTS, Part, kernel_name, offsets,
    program::{self, Refused},
};

/// Before every other program at the hook (the kernel keeps `i32::MIN` for
/// itself). No two BPF programs may have the same place, and a new link comes while
/// the old one is there.
const PRIORITIES: std::ops::RangeInclusive<i32> = i32::MIN + 1..=i32::MIN + 16;

/// The part's program in the kernel, or why this kernel can't have it.
pub(super) fn loaded(ebpf: &Ebpf, part: &Part) -> Result<OwnedFd, Refused> {
    offsets::known()?;
    let kernel_name = kernel_name(part, part.program, program::in_programs());
    program::loaded(ebpf, ProgramType::Netfilter, part.program, &kernel_name)
}

/// Attaches a part, or replaces the one that an earlier process pinned.
pub(super) fn attach(part: &Part, ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
    let program = match loaded(ebpf, part) {
        Ok(program) => program,
        Err(refused) => return refused.outcome(),
    };
    if let Some((info, running)) = pinned(part, dir)?
        && program::is_same(running.as_fd(), program.as_fd())
        && is_hooked(part, running.as_fd(), info)?
    {
        return Ok(LocalIn::Attached);
    }
    let link = match hooked(part, program.as_fd()) {
        Ok(link) => link,
        // Without CONFIG_NETFILTER_BPF_LINK.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            return Ok(LocalIn::Unavailable(format!(
                "the kernel attaches no BPF program to netfilter ({e})"
            )));
        }
        Err(e) => return Err(DataPlaneError::io("attach the gate at IP level", e)),
    };
    replace_pin(&pins(dir, part.program), link.as_fd())?;
    Ok(LocalIn::Attached)
}

/// Is it pinned, does it run in this namespace, and look at what it can now?
pub(super) fn is_attached(part: &Part, dir: &Path, offsets: SkbOffsets) -> Result<bool, DataPlaneError> {
    let Some((info, program)) = pinned(part, dir)? else { return Ok(false) };
    let is_current = program::is_named(program.as_fd(), &kernel_name(part, part.program, offsets));
    Ok(is_current && is_hooked(part, program.as_fd(), info)?)
}

/// Removes the links; returns whether there was one.
pub(super) fn detach(dir: &Path) -> Result<bool, DataPlaneError> {
    let pins = || PARTS.iter().flat_map(|part| pins(dir, part.program));
    let had = pins().any(|pin| pin.exists());
    pins().try_for_each(|pin| unpin(&pin))?;
    Ok(had)
}

/// The pinned link, and its program.
fn pinned(part: &Part, dir: &Path) -> Result<Option<(LinkInfo, OwnedFd)>, DataPlaneError> {
    let [pin, _] = pins(dir, part.program);
    let read = || -> io::Result<_> {
        let info = syscalls::link_info(syscalls::pinned(&pin)?.as_fd())?;
        Ok((info, syscalls::program(info.program)?))
    };
    match read() {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DataPlaneError::io(format!("read {}", pin.display()), e)),
    }
}

/// Is this link's program at the hook of this namespace? A link that was detached,
/// or that is in another namespace, tells the same of itself; but the place in
/// this one is free then.
fn is_hooked(part: &Part, program: BorrowedFd<'_>, info: LinkInfo) -> Result<bool, DataPlaneError> {
    match syscalls::create_link(program, part.hook, info.priority) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Ok(_) => Ok(false),
        Err(e) => Err(DataPlaneError::io("look for the gate at IP level", e)),
    }
}

/// The program at the first place that is free.
fn hooked(part: &Part, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in PRIORITIES {
        match syscalls::create_link(program, part.hook, priority) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            done => return done,
        }
    }
    Err(last)
}
