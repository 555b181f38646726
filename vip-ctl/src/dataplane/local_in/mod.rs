//! The gate at IP level: a netfilter program at the hook for what this host takes
//! as its own (Linux 6.4). It holds what comes in by a way that nothing else
//! guards: from a container, a tunnel, another interface, or one that was made
//! again while no agent looks.
//!
//! Its link belongs to the network namespace, not to an interface. The kernel can't
//! change such a link: a new one comes before the old one's pin goes, and for that
//! moment both ask the same maps.

mod btf;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::Object;
use vip_common::{layout::SkbOffsets, names};

use super::{
    DataPlaneError,
    bpffs::{local_in_pins as pins, unpin},
    object::OBJECT,
    syscalls::{self, LinkInfo},
};

/// Type information of the running kernel.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// Before every other program at the hook (the kernel keeps `i32::MIN` for
/// itself). No two BPF programs may have the same place, and a new link comes while
/// the old one is there.
const PRIORITIES: std::ops::RangeInclusive<i32> = i32::MIN + 1..=i32::MIN + 16;

/// Is the gate at IP level there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalIn {
    /// Yes.
    Attached,
    /// This kernel can't have it; why, in words.
    Unavailable(String),
}

/// Attaches the gate in this network namespace, or replaces the one that an earlier
/// process pinned. The program gets the maps of `ebpf`. On error it removes nothing.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel has such programs and refuses this one a
/// place, or the pin can't be read or written.
pub fn attach(ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
    let program = match loaded(ebpf) {
        Ok(program) => program,
        Err(Refused::Never(why)) => return Ok(LocalIn::Unavailable(why)),
        Err(Refused::Now(message)) => {
            return Err(DataPlaneError::Kernel { what: "load the gate at IP level".into(), message });
        }
    };
    if let Some((info, running)) = pinned(dir)?
        && is_same(running.as_fd(), program.as_fd())
        && is_hooked(running.as_fd(), info)?
    {
        return Ok(LocalIn::Attached);
    }
    let link = match hooked(program.as_fd()) {
        Ok(link) => link,
        // Without CONFIG_NETFILTER_BPF_LINK.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            return Ok(LocalIn::Unavailable(format!(
                "the kernel attaches no BPF program to netfilter ({e})"
            )));
        }
        Err(e) => return Err(DataPlaneError::io("attach the gate at IP level", e)),
    };
    let [pin, coming] = pins(dir);
    // An interrupted attempt may have left it.
    unpin(&coming)?;
    syscalls::pin(link.as_fd(), &coming)
        .and_then(|()| fs::rename(&coming, &pin))
        .map_err(|e| DataPlaneError::io(format!("pin {}", pin.display()), e))?;
    Ok(LocalIn::Attached)
}

/// Is the gate pinned below `dir`, and does it run in this network namespace?
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn is_attached(dir: &Path) -> Result<bool, DataPlaneError> {
    match pinned(dir)? {
        Some((info, program)) => is_hooked(program.as_fd(), info),
        None => Ok(false),
    }
}

/// Why this kernel can't have the gate, over the maps of `ebpf`; `None` if it can.
pub(super) fn refused(ebpf: &Ebpf) -> Option<String> {
    match loaded(ebpf) {
        Ok(_) => None,
        Err(Refused::Never(why) | Refused::Now(why)) => Some(why),
    }
}

/// Why the program could not be loaded.
enum Refused {
    /// This kernel can't have it.
    Never(String),
    /// Another try may succeed: the kernel lacked memory, or the like.
    Now(String),
}

/// Removes the gate; succeeds if it is not there.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach(dir: &Path) -> Result<(), DataPlaneError> {
    pins(dir).iter().try_for_each(|pin| unpin(pin))
}

/// Where the running kernel has what the program reads; zero if it doesn't tell.
pub(super) fn skb_offsets() -> SkbOffsets {
    known_offsets().unwrap_or(SkbOffsets { head: 0, network_header: 0 })
}

/// The kernel does not change while it runs: what is known stays known.
fn known_offsets() -> Result<SkbOffsets, Refused> {
    static KNOWN: OnceLock<SkbOffsets> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let btf = fs::read(KERNEL_BTF).map_err(|e| {
        let why = format!("{KERNEL_BTF} can't be read ({e})");
        if e.kind() == io::ErrorKind::NotFound { Refused::Never(why) } else { Refused::Now(why) }
    })?;
    let offset = |field| {
        let offset = btf::field_offset(&btf, "sk_buff", field).and_then(|at| u16::try_from(at).ok());
        offset.ok_or_else(|| Refused::Never(format!("{KERNEL_BTF} has no field {field} in sk_buff")))
    };
    let found = SkbOffsets { head: offset("head")?, network_header: offset("network_header")? };
    Ok(*KNOWN.get_or_init(|| found))
}

/// The pinned link, and its program.
fn pinned(dir: &Path) -> Result<Option<(LinkInfo, OwnedFd)>, DataPlaneError> {
    let [pin, _] = pins(dir);
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

/// As for the other programs: beyond the instructions they differ only in their
/// maps, and a link is never pinned beside maps other than its own.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (one, other) = (syscalls::program_tag(one), syscalls::program_tag(other));
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

/// Is this link's program at the hook of this namespace? A link that was detached,
/// or that is in another namespace, tells the same of itself; but the place in
/// this one is free then.
fn is_hooked(program: BorrowedFd<'_>, info: LinkInfo) -> Result<bool, DataPlaneError> {
    match syscalls::create_link(program, info.priority) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Ok(_) => Ok(false),
        Err(e) => Err(DataPlaneError::io("look for the gate at IP level", e)),
    }
}

/// The program at the first place that is free.
fn hooked(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in PRIORITIES {
        match syscalls::create_link(program, priority) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            done => return done,
        }
    }
    Err(last)
}

/// The program in the kernel, over the maps of `ebpf`; or why this kernel can't
/// have it.
fn loaded(ebpf: &Ebpf) -> Result<OwnedFd, Refused> {
    known_offsets()?;
    let broken = |what: &str| Refused::Never(format!("this vip-ctl's data plane is incomplete: {what}"));
    let mut object = Object::parse(OBJECT).map_err(|e| broken(&e.to_string()))?;
    let wanted = object.programs.remove(names::PROG_LOCAL_IN).ok_or_else(|| broken(names::PROG_LOCAL_IN))?;
    let (key, license) = (wanted.function_key(), wanted.license.clone());
    // The other programs need other maps.
    for other in std::mem::take(&mut object.programs).into_values() {
        object.functions.remove(&other.function_key());
    }
    object.programs.insert(names::PROG_LOCAL_IN.to_owned(), wanted);
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = std::mem::take(&mut object.maps);
    let with_fds = maps.iter().filter_map(|(name, map)| {
        let data = data(ebpf.map(name)?)?;
        Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
    });
    object.relocate_maps(with_fds, &text).map_err(|e| broken(&e.to_string()))?;
    object.relocate_calls(&text).map_err(|e| broken(&e.to_string()))?;
    let function = object.functions.get(&key).ok_or_else(|| broken(names::PROG_LOCAL_IN))?;
    syscalls::load_program(names::PROG_LOCAL_IN, &function.instructions, &license).map_err(|(e, said)| {
        // The verifier says why; an unknown type gets EINVAL without a word.
        if !said.is_empty() {
            Refused::Never(format!("the kernel refuses the program ({e}: {said})"))
        } else if e.raw_os_error() == Some(libc::EINVAL) {
            let why = format!("the kernel has no BPF programs for netfilter, which Linux 6.4 brings ({e})");
            Refused::Never(why)
        } else {
            Refused::Now(format!("the kernel does not load it ({e})"))
        }
    })
}

/// The map itself, of the types that the object has.
fn data(map: &Map) -> Option<&MapData> {
    if let Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) = map {
        Some(data)
    } else {
        None
    }
}
