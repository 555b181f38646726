//! Loads the programs of the gate at IP level, with a type that their section does not
//! tell: aya does not know that of netfilter programs.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::Object;
use vip_common::layout::SkbOffsets;

use super::{
    super::{
        DataPlaneError,
        object::OBJECT,
        syscalls::{self, ProgramType},
    },
    LocalIn, offsets,
};

/// Why the program could not be loaded.
#[derive(Debug)]
pub(super) enum Refused {
    /// This kernel can't have it.
    Never(String),
    /// Another try may succeed: the kernel lacked memory, or the like.
    Now(String),
}

impl Refused {
    /// What comes of it: another try may help, or there is no such gate.
    pub(super) fn outcome(self) -> Result<LocalIn, DataPlaneError> {
        match self {
            Self::Never(why) => Ok(LocalIn::Unavailable(why)),
            Self::Now(message) => {
                Err(DataPlaneError::Kernel { what: "load the gate at IP level".into(), message })
            }
        }
    }

    /// Why, in words.
    pub(super) fn why(self) -> String {
        match self {
            Self::Never(why) | Self::Now(why) => why,
        }
    }
}

/// The offsets that the programs were last given.
static IN_PROGRAMS: Mutex<Option<SkbOffsets>> = Mutex::new(None);

/// Where the running kernel has what the programs read, for programs that are about to be
/// loaded; zero if it doesn't tell.
pub(in super::super) fn skb_offsets() -> SkbOffsets {
    let offsets = offsets::known().unwrap_or_default();
    *IN_PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner) = Some(offsets);
    offsets
}

/// What [`skb_offsets`] last returned: the kernel may have got its record of connections
/// since.
pub(super) fn in_programs() -> SkbOffsets {
    IN_PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
}

/// As for the other programs: beyond the instructions they differ only in their
/// maps, and neither a link nor a program is ever pinned beside maps other than its own.
pub(super) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (one, other) = (syscalls::program_tag(one), syscalls::program_tag(other));
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

/// Does the kernel call it by this name?
pub(super) fn is_named(program: BorrowedFd<'_>, wanted: &str) -> bool {
    let named = syscalls::program_tag(program).map(|(_, name)| name);
    named.is_ok_and(|name| name == syscalls::kernel_name(wanted))
}

/// The program `name` in the kernel, which calls it `kernel_name`, over the maps of `ebpf`;
/// or why this kernel can't have it.
pub(super) fn loaded(
    ebpf: &Ebpf,
    kind: ProgramType,
    name: &str,
    kernel_name: &str,
) -> Result<OwnedFd, Refused> {
    let broken = |what: &str| Refused::Never(format!("this vip-ctl's data plane is incomplete: {what}"));
    let mut object = Object::parse(OBJECT).map_err(|e| broken(&e.to_string()))?;
    let wanted = object.programs.remove(name).ok_or_else(|| broken(name))?;
    let (key, license) = (wanted.function_key(), wanted.license.clone());
    // The other programs need other maps.
    for other in std::mem::take(&mut object.programs).into_values() {
        object.functions.remove(&other.function_key());
    }
    object.programs.insert(name.to_owned(), wanted);
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = std::mem::take(&mut object.maps);
    let with_fds = maps.iter().filter_map(|(name, map)| {
        let data = data(ebpf.map(name)?)?;
        Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
    });
    object.relocate_maps(with_fds, &text).map_err(|e| broken(&e.to_string()))?;
    object.relocate_calls(&text).map_err(|e| broken(&e.to_string()))?;
    let function = object.functions.get(&key).ok_or_else(|| broken(name))?;
    syscalls::load_program(kind, kernel_name, &function.instructions, &license).map_err(|(e, said)| {
        // The verifier says why; an unknown type gets EINVAL without a word.
        if !said.is_empty() {
            Refused::Never(format!("the kernel refuses the program ({e}: {said})"))
        } else if kind == ProgramType::Netfilter && e.raw_os_error() == Some(libc::EINVAL) {
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
