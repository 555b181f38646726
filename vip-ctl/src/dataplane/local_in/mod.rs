//! The gate at IP level: netfilter programs (Linux 6.4) at the hook for what this host
//! takes as its own, and behind NAT. They hold what comes in by a way that nothing else
//! guards: from a container, a tunnel, another interface, or one that was made
//! again while no agent looks; and what a published port would take to a container.
//!
//! Their links belong to the network namespace, not to an interface. The kernel can't
//! change such a link: a new one comes before the old one's pin goes, and for that
//! moment both ask the same maps.

mod btf;
mod offsets;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::Object;
use vip_common::{BootNs, layout::SkbOffsets, names};

use super::{
    DataPlaneError,
    bpffs::{netfilter_pins as pins, unpin},
    object::OBJECT,
    syscalls::{self, LinkInfo, NetfilterHook},
};
use crate::clock;

/// Before every other program at the hook (the kernel keeps `i32::MIN` for
/// itself). No two BPF programs may have the same place, and a new link comes while
/// the old one is there.
const PRIORITIES: std::ops::RangeInclusive<i32> = i32::MIN + 1..=i32::MIN + 16;

/// Is the gate at IP level there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalIn {
    /// Yes.
    Attached,
    /// At the hook for what the host takes as its own, and not behind NAT; why, in words.
    OpenToNat(String),
    /// This kernel can't have it; why, in words.
    Unavailable(String),
}

/// How long after the kernel has refused the program behind NAT to try that again.
const AGAIN: Duration = Duration::from_mins(10);

/// Is there where the kernel records connections.
const CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A program of the gate, and its hook.
#[derive(Debug)]
struct Part {
    program: &'static str,
    hook: NetfilterHook,
}

/// The gate's programs. Without the kernel's record of connections there is no NAT, and
/// only the first.
const PARTS: [Part; 2] = [
    Part { program: names::PROG_LOCAL_IN, hook: NetfilterHook::LocalIn },
    Part { program: names::PROG_TRANSLATED, hook: NetfilterHook::PostRouting },
];

impl Part {
    /// Those that there shall be.
    fn wanted(offsets: SkbOffsets) -> &'static [Self] {
        if offsets.status == 0 { &PARTS[..1] } else { &PARTS }
    }

    /// The name in the kernel, by which a program that looks behind NAT is told from one
    /// that was loaded before the kernel could do it.
    fn name(&self, offsets: SkbOffsets) -> String {
        let is_both = self.hook == NetfilterHook::LocalIn && offsets.status != 0;
        if is_both { format!("{}_ct", self.program) } else { self.program.to_owned() }
    }

    /// Attaches it, or replaces the one that an earlier process pinned.
    fn attach(&self, ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
        let program = match loaded(ebpf, self) {
            Ok(program) => program,
            Err(Refused::Never(why)) => return Ok(LocalIn::Unavailable(why)),
            Err(Refused::Now(message)) => {
                return Err(DataPlaneError::Kernel { what: "load the gate at IP level".into(), message });
            }
        };
        if let Some((info, running)) = self.pinned(dir)?
            && is_same(running.as_fd(), program.as_fd())
            && self.is_hooked(running.as_fd(), info)?
        {
            return Ok(LocalIn::Attached);
        }
        let link = match self.hooked(program.as_fd()) {
            Ok(link) => link,
            // Without CONFIG_NETFILTER_BPF_LINK.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                return Ok(LocalIn::Unavailable(format!(
                    "the kernel attaches no BPF program to netfilter ({e})"
                )));
            }
            Err(e) => return Err(DataPlaneError::io("attach the gate at IP level", e)),
        };
        let [pin, coming] = pins(dir, self.program);
        // An interrupted attempt may have left it.
        unpin(&coming)?;
        syscalls::pin(link.as_fd(), &coming)
            .and_then(|()| fs::rename(&coming, &pin))
            .map_err(|e| DataPlaneError::io(format!("pin {}", pin.display()), e))?;
        Ok(LocalIn::Attached)
    }

    /// The pinned link, and its program.
    fn pinned(&self, dir: &Path) -> Result<Option<(LinkInfo, OwnedFd)>, DataPlaneError> {
        let [pin, _] = pins(dir, self.program);
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

    /// Is it pinned, does it run in this namespace, and look at what it can now?
    fn is_attached(&self, dir: &Path, offsets: SkbOffsets) -> Result<bool, DataPlaneError> {
        let Some((info, program)) = self.pinned(dir)? else { return Ok(false) };
        let named = syscalls::program_tag(program.as_fd()).map(|(_, name)| name);
        let is_current = named.is_ok_and(|name| name == syscalls::kernel_name(&self.name(offsets)));
        Ok(is_current && self.is_hooked(program.as_fd(), info)?)
    }

    /// Is this link's program at the hook of this namespace? A link that was detached,
    /// or that is in another namespace, tells the same of itself; but the place in
    /// this one is free then.
    fn is_hooked(&self, program: BorrowedFd<'_>, info: LinkInfo) -> Result<bool, DataPlaneError> {
        match syscalls::create_link(program, self.hook, info.priority) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(true),
            Ok(_) => Ok(false),
            Err(e) => Err(DataPlaneError::io("look for the gate at IP level", e)),
        }
    }

    /// The program at the first place that is free.
    fn hooked(&self, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for priority in PRIORITIES {
            match syscalls::create_link(program, self.hook, priority) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
                done => return done,
            }
        }
        Err(last)
    }
}

/// Attaches the gate in this network namespace, or replaces the one that an earlier
/// process pinned. The programs get the maps of `ebpf`. On error it removes nothing.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel has such programs and refuses one of these a
/// place, or a pin can't be read or written.
pub fn attach(ebpf: &Ebpf, dir: &Path) -> Result<LocalIn, DataPlaneError> {
    let [host, behind_nat] = &PARTS;
    let done = host.attach(ebpf, dir)?;
    let refused = if done != LocalIn::Attached || Part::wanted(in_programs()).len() < PARTS.len() {
        None
    } else {
        // The node serves all the same, and guards what it can.
        match behind_nat.attach(ebpf, dir) {
            Ok(LocalIn::Attached) => None,
            Ok(LocalIn::OpenToNat(why) | LocalIn::Unavailable(why)) => Some(why),
            Err(e) => Some(e.to_string()),
        }
    };
    *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = refused.clone().map(|why| (clock::now(), why));
    Ok(refused.map_or(done, LocalIn::OpenToNat))
}

/// When this process was last refused the program behind NAT, and why.
static REFUSED: Mutex<Option<(BootNs, String)>> = Mutex::new(None);

/// What is open where the kernel has refused this process the program behind NAT, in words.
#[must_use]
pub fn open_to_nat() -> Option<String> {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.as_ref().map(|(_, why)| nat_text(why))
}

/// What is open without the program behind NAT.
#[must_use]
pub fn nat_text(why: &str) -> String {
    format!(
        "packets to a VIP that NAT on this host gives another destination, as a published port does, pass without a lease: the gate at IP level is not behind NAT ({why})"
    )
}

/// Is a part of the gate missing that another try may bring? What the kernel has refused is
/// tried again after [`AGAIN`] only.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn is_missing(dir: &Path) -> Result<bool, DataPlaneError> {
    if !guards_host(dir)? {
        return Ok(true);
    }
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
    Ok(refused.is_none_or(|at| clock::now().since(at) >= AGAIN) && !is_attached(dir)?)
}

/// Is the part there that holds what the host takes as its own, and does it look behind NAT
/// where there can be any?
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn guards_host(dir: &Path) -> Result<bool, DataPlaneError> {
    PARTS[0].is_attached(dir, offsets::known().unwrap_or_default())
}

/// Is the gate pinned below `dir`, does it run in this network namespace, and look behind
/// NAT where there can be any?
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn is_attached(dir: &Path) -> Result<bool, DataPlaneError> {
    let offsets = offsets::known().unwrap_or_default();
    for part in Part::wanted(offsets) {
        if !part.is_attached(dir, offsets)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What to tell where NAT can take packets to a VIP past the gate: the kernel records
/// connections, and does not tell how. `None` where it can't.
#[must_use]
pub fn blind_to_nat() -> Option<&'static str> {
    let is_blind = || offsets::known().is_ok_and(|offsets| offsets.status == 0);
    (fs::exists(CONNECTIONS).unwrap_or(false) && is_blind()).then_some(
        "NAT on this host can take packets to a VIP past the gate at IP level: the kernel has no type information of its connections (CONFIG_DEBUG_INFO_BTF_MODULES)",
    )
}

/// What of the gate this kernel can have, over the maps of `ebpf`.
pub(super) fn possible(ebpf: &Ebpf) -> LocalIn {
    for (part, lacking) in
        Part::wanted(in_programs()).iter().zip([LocalIn::Unavailable as fn(_) -> _, LocalIn::OpenToNat])
    {
        if let Err(Refused::Never(why) | Refused::Now(why)) = loaded(ebpf, part) {
            return lacking(why);
        }
    }
    LocalIn::Attached
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
    PARTS.iter().flat_map(|part| pins(dir, part.program)).try_for_each(|pin| unpin(&pin))
}

/// The offsets that the programs were last given.
static IN_PROGRAMS: Mutex<Option<SkbOffsets>> = Mutex::new(None);

/// Where the running kernel has what the programs read, for programs that are about to be
/// loaded; zero if it doesn't tell.
pub(super) fn skb_offsets() -> SkbOffsets {
    let offsets = offsets::known().unwrap_or_default();
    *IN_PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner) = Some(offsets);
    offsets
}

/// What [`skb_offsets`] last returned: the kernel may have got its record of connections
/// since.
fn in_programs() -> SkbOffsets {
    IN_PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
}

/// As for the other programs: beyond the instructions they differ only in their
/// maps, and a link is never pinned beside maps other than its own.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (one, other) = (syscalls::program_tag(one), syscalls::program_tag(other));
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

/// The program in the kernel, over the maps of `ebpf`; or why this kernel can't
/// have it.
fn loaded(ebpf: &Ebpf, part: &Part) -> Result<OwnedFd, Refused> {
    offsets::known()?;
    let name = part.program;
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
    syscalls::load_program(&part.name(in_programs()), &function.instructions, &license).map_err(
        |(e, said)| {
            // The verifier says why; an unknown type gets EINVAL without a word.
            if !said.is_empty() {
                Refused::Never(format!("the kernel refuses the program ({e}: {said})"))
            } else if e.raw_os_error() == Some(libc::EINVAL) {
                let why =
                    format!("the kernel has no BPF programs for netfilter, which Linux 6.4 brings ({e})");
                Refused::Never(why)
            } else {
                Refused::Now(format!("the kernel does not load it ({e})"))
            }
        },
    )
}

/// The map itself, of the types that the object has.
fn data(map: &Map) -> Option<&MapData> {
    if let Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) = map {
        Some(data)
    } else {
        None
    }
}
