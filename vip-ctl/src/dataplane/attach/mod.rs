//! Attaches the programs: the way in by XDP or tc, the egress gate on the way out,
//! the local gate on `lo`. Links are pinned, and replaced without a gap.
//!
//! The caller decides which interfaces those are, and which modes to try.

mod choice;
mod tc;
mod xdp;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp,
        links::{FdLink, LinkError, PinnedLink},
    },
    sys::SyscallError,
};
use aya_log::EbpfLogger;
use vip_common::names;

pub use self::choice::{is_below_guarded, modes, taken_text};
use self::tc::{Hook, on_hook};
use super::{
    DataPlane, DataPlaneError,
    bpffs::{self, PIN_CLSACT, PIN_TCX, PIN_XDP, unpin},
    filters::Filter,
    load::program,
};
use crate::{
    host::{Interface, XdpMode},
    mode::Mode,
};

/// The loopback interface, where the local gate sits.
const LOOPBACK: (u32, &str) = (1, "lo");
/// ENOLINK: the link's interface is gone.
const GONE: i32 = libc::ENOLINK;

/// The pins of the program on the way in, of which an interface has one.
const WAYS_IN: [&str; 3] = [PIN_XDP, PIN_TCX, PIN_CLSACT];

/// Which hook programs at tc use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Gate {
    /// tcx where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// A tcx link, replaced atomically.
    Tcx,
    /// A filter on the clsact qdisc, for older kernels.
    Clsact,
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Which hook programs at tc use.
    pub gate: Gate,
    /// Does the program on the way in keep a frame log ([`frame_log`])?
    pub frame_log: bool,
}

/// What an interface has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// How the program on the way in runs, never [`Mode::Auto`].
    pub mode: Mode,
    /// Did an earlier process attach it in this way?
    pub is_kept: bool,
    /// [`Gate::Tcx`] or [`Gate::Clsact`].
    pub gate: Gate,
}

/// Attaches both programs to an interface in the first of `modes` that is possible. If an
/// earlier process attached its own in one of them, replaces those in place. `there` are the
/// mode and the id of the XDP program that runs there now, whoever's it is. On error it
/// removes nothing: the address may be on `lo`, and then the gate must stay.
///
/// # Errors
/// Of the last of `modes`: [`DataPlaneError::Occupied`] (with an empty owner) if another
/// XDP program is there, [`DataPlaneError::Mode`] if the driver refuses. And
/// [`DataPlaneError::NoInterface`].
pub fn attach(
    ebpf: &mut Ebpf,
    dir: &Path,
    iface: &str,
    (modes, how): (&[Mode], How),
    there: Option<(Mode, u32)>,
) -> Result<Attached, DataPlaneError> {
    let at = (ifindex_of(iface)?, iface);
    // The gate first: without the program on the way in, this node answers
    // nothing yet.
    let gate = egress_gate(dir, at).attach(ebpf, how.gate)?;
    let (mode, is_kept) = attach_way_in(ebpf, dir, at, (modes, how), there)?;
    Ok(Attached { mode, is_kept, gate })
}

/// Attaches the local gate to the loopback interface.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn attach_local(ebpf: &mut Ebpf, dir: &Path, gate: Gate) -> Result<Gate, DataPlaneError> {
    local_gate(dir).attach(ebpf, gate)
}

/// The interfaces for which the program on the way in is pinned below `dir`, by
/// index, without those that are gone from the host.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the directory can't be read.
pub fn interfaces(dir: &Path) -> Result<BTreeMap<u32, String>, DataPlaneError> {
    let links = bpffs::links_dir(dir);
    let entries = match fs::read_dir(&links) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(DataPlaneError::io(format!("read {}", links.display()), e)),
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let (what, ifindex) = name.to_str()?.rsplit_once('-')?;
            WAYS_IN.contains(&what).then(|| ifindex.parse::<u32>().ok())?
        })
        .filter_map(|ifindex| Some((ifindex, name_of(ifindex)?)))
        .collect())
}

/// Removes the pins and the MACs of interfaces that are gone: nothing runs there,
/// and the map has room for only some tens of MACs.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the directory or the map can't be read or changed.
pub fn sweep(plane: &mut DataPlane) -> Result<(), DataPlaneError> {
    plane.forget_ifaces(is_gone)?;
    let links = bpffs::links_dir(plane.dir());
    let read = |e| DataPlaneError::io(format!("read {}", links.display()), e);
    for entry in fs::read_dir(&links).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let ifindex = path.file_name().and_then(|name| name.to_str()?.rsplit_once('-')?.1.parse().ok());
        if ifindex.is_some_and(is_gone) {
            unpin(&path)?;
        }
    }
    Ok(())
}

/// Is there surely no interface with this index?
fn is_gone(ifindex: u32) -> bool {
    use nix::errno::Errno;
    // The crate answers with an empty name whatever went wrong.
    Errno::clear();
    let is_nameless = nix::net::if_::if_indextoname(ifindex).is_ok_and(|name| name.is_empty());
    is_nameless && matches!(Errno::last(), Errno::ENXIO | Errno::ENODEV)
}

/// The name that an interface has now; `None` if it is gone.
#[must_use]
pub fn name_of(ifindex: u32) -> Option<String> {
    // The crate answers with an empty name if there is no such index.
    nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok().filter(|name| !name.is_empty())
}

fn ifindex_of(iface: &str) -> Result<u32, DataPlaneError> {
    nix::net::if_::if_nametoindex(iface).map_err(|_| DataPlaneError::NoInterface { name: iface.to_owned() })
}

/// The program with this id, as `bpftool prog` shows it.
#[must_use]
pub fn program_name(id: u32) -> String {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default();
    format!("{name:?} (id {id})")
}

/// Programs and filters of others that decide before our gate what leaves an interface;
/// all of them if our gate is not there. The kernel asks tcx programs first, then filters.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel doesn't tell.
pub fn before_gate(dir: &Path, link: &Interface) -> Result<Vec<String>, DataPlaneError> {
    let name = names::PROG_EGRESS;
    // Kernels before 6.6 have no tcx.
    let programs = on_hook(&link.name, TcAttachType::Egress).unwrap_or_default();
    let others = programs.iter().take_while(|program| program.name_as_str() != Some(name));
    let mut before: Vec<_> = others.map(|program| program_name(program.id())).collect();
    if before.len() == programs.len() {
        let filters = egress_gate(dir, (link.index, &link.name)).filters()?;
        before.extend(filters.iter().take_while(|filter| !filter.is(name)).map(Filter::describe));
    }
    Ok(before)
}

/// Has another program come before one of ours at tc on this interface, or has one of
/// ours gone from there? False if that can't be read, and for a filter that stands where
/// no other can be overtaken.
#[must_use]
pub fn is_displaced(dir: &Path, link: &Interface) -> bool {
    if link.loopback {
        return local_gate(dir).is_displaced(true);
    }
    let at = (link.index, link.name.as_str());
    let is_ours = is_attached(dir, link.index);
    egress_gate(dir, at).is_displaced(is_ours)
        || way_in_at_tc(dir, at, false).is_displaced(link_path(dir, PIN_CLSACT, link.index).exists())
}

/// The tag of the program on the way in of an interface; `None` if nothing is pinned,
/// or the link has lost its program.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the pin can't be read.
pub fn tag(dir: &Path, ifindex: u32) -> Result<Option<u64>, DataPlaneError> {
    let Some(id) = program_id(dir, ifindex)? else { return Ok(None) };
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    Ok(programs.into_iter().find(|program| program.id() == id).map(|program| program.tag()))
}

/// The id of the program on the way in of an interface.
fn program_id(dir: &Path, ifindex: u32) -> Result<Option<u32>, DataPlaneError> {
    for pin in [PIN_XDP, PIN_TCX].map(|what| link_path(dir, what, ifindex)) {
        if let Some(link) = reusable(&pin)? {
            let info = link.info();
            let info =
                info.map_err(|e| DataPlaneError::from_source(format!("read {}", pin.display()), &e))?;
            return Ok(Some(info.program_id()));
        }
    }
    let pin = link_path(dir, PIN_CLSACT, ifindex);
    if !pin.exists() {
        return Ok(None);
    }
    let id = SchedClassifier::from_pin(&pin).and_then(|program| program.info()).map(|info| info.id());
    id.map(Some).map_err(|e| DataPlaneError::from_source(format!("read {}", pin.display()), &e))
}

/// True if a program on the way in is pinned for the interface with this index.
#[must_use]
pub fn is_attached(dir: &Path, ifindex: u32) -> bool {
    WAYS_IN.iter().any(|what| link_path(dir, what, ifindex).exists())
}

/// Is the way in of an interface at tc?
fn is_at_tc(dir: &Path, ifindex: u32) -> bool {
    [PIN_TCX, PIN_CLSACT].iter().any(|what| link_path(dir, what, ifindex).exists())
}

/// Whether the pinned program on the way in of an interface runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does, in this mode.
    Runs(Mode),
    /// It does not.
    Gone,
    /// That can't be read.
    Unknown,
}

/// Does the pinned program on the way in run on this interface? A link that was detached
/// still has its pin and its program, so the interface is asked.
#[must_use]
pub fn presence(dir: &Path, link: &Interface) -> Presence {
    let pinned = |what| reusable(&link_path(dir, what, link.index));
    let (by_xdp, by_tcx) = match (pinned(PIN_XDP), pinned(PIN_TCX)) {
        (Ok(by_xdp), Ok(by_tcx)) => (by_xdp, by_tcx),
        (Err(_), _) | (_, Err(_)) => return Presence::Unknown,
    };
    if let Some(by_xdp) = by_xdp {
        let Ok(info) = by_xdp.info() else { return Presence::Unknown };
        if let Some((mode, _)) = xdp_on(link).filter(|(_, id)| *id == info.program_id()) {
            return Presence::Runs(mode);
        }
    }
    if let Some(by_tcx) = by_tcx {
        return match (by_tcx.info(), on_hook(&link.name, TcAttachType::Ingress)) {
            (Ok(info), Ok(programs)) if programs.iter().any(|p| p.id() == info.program_id()) => {
                Presence::Runs(Mode::Tc)
            }
            (Ok(_), Ok(_)) => Presence::Gone,
            (Err(_), _) | (_, Err(_)) => Presence::Unknown,
        };
    }
    if !is_at_tc(dir, link.index) {
        return Presence::Gone;
    }
    match way_in_at_tc(dir, (link.index, &link.name), false).has_filter() {
        Ok(true) => Presence::Runs(Mode::Tc),
        Ok(false) => Presence::Gone,
        Err(_) => Presence::Unknown,
    }
}

/// The mode and the id of the XDP program on an interface, whoever's it is.
#[must_use]
pub fn xdp_on(link: &Interface) -> Option<(Mode, u32)> {
    link.xdp.map(|(mode, id)| match mode {
        XdpMode::Native => (Mode::Native, id),
        XdpMode::Generic => (Mode::Generic, id),
    })
}

/// The frame log of the program on the way in of an interface: what
/// [`How::frame_log`] asked for.
///
/// # Errors
/// [`DataPlaneError::NoFrameLog`] if the program there keeps none.
pub fn frame_log(dir: &Path, ifindex: u32) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError> {
    let id = program_id(dir, ifindex)?.ok_or_else(|| DataPlaneError::NotLoaded { dir: dir.to_owned() })?;
    EbpfLogger::init_from_id(id).map_err(|_| DataPlaneError::NoFrameLog)
}

/// Removes everything from an interface; succeeds if nothing is there.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach(dir: &Path, ifindex: u32, iface: &str) -> Result<(), DataPlaneError> {
    unpin(&link_path(dir, PIN_XDP, ifindex))?;
    let at = (ifindex, iface);
    way_in_at_tc(dir, at, false).detach()?;
    egress_gate(dir, at).detach()
}

/// Removes the local gate from the loopback interface.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach_local(dir: &Path) -> Result<(), DataPlaneError> {
    local_gate(dir).detach()
}

/// Attaches the program on the way in, and takes off what an earlier process attached in
/// another way. Returns how it runs, and whether that is how it ran before.
fn attach_way_in(
    ebpf: &mut Ebpf,
    dir: &Path,
    at: (u32, &str),
    (modes, how): (&[Mode], How),
    there: Option<(Mode, u32)>,
) -> Result<(Mode, bool), DataPlaneError> {
    let (pin, name) = (link_path(dir, PIN_XDP, at.0), names::WAY_IN_XDP[usize::from(how.frame_log)]);
    let at_tc = way_in_at_tc(dir, at, how.frame_log);
    if let Some((mode, id)) = there.filter(|(mode, _)| modes.contains(mode))
        && xdp::replace(program(ebpf, name)?, &pin, at.1, id)?
    {
        // What an interrupted change of mode left.
        at_tc.detach()?;
        return Ok((mode, true));
    }
    if modes.contains(&Mode::Tc) && is_at_tc(dir, at.0) {
        at_tc.attach(ebpf, how.gate)?;
        unpin(&pin)?;
        return Ok((Mode::Tc, true));
    }
    let mut refused = DataPlaneError::NoInterface { name: at.1.to_owned() };
    for &mode in modes {
        let result = if mode == Mode::Tc {
            at_tc.attach(ebpf, how.gate).map(drop)
        } else {
            if there.is_some_and(|(_, id)| xdp::is_pinned(&pin, id)) {
                // An interface runs XDP in one mode at a time.
                at_tc.attach(ebpf, how.gate)?;
                xdp::detach(&pin)?;
            }
            xdp::attach(program::<Xdp>(ebpf, name)?, &pin, at.1, mode)
        };
        match result {
            // What was there before goes when the new one is in place.
            Ok(()) if mode == Mode::Tc => unpin(&pin)?,
            Ok(()) => at_tc.detach()?,
            Err(e) => {
                refused = e;
                continue;
            }
        }
        return Ok((mode, false));
    }
    Err(refused)
}

/// The way in of an interface at tc.
fn way_in_at_tc<'a>(dir: &Path, (ifindex, iface): (u32, &'a str), frame_log: bool) -> Hook<'a> {
    Hook {
        ifindex,
        iface,
        direction: TcAttachType::Ingress,
        program: names::WAY_IN_TC[usize::from(frame_log)],
        family: &names::WAY_IN_TC,
        pin: link_path(dir, PIN_TCX, ifindex),
        filter_pin: Some(link_path(dir, PIN_CLSACT, ifindex)),
    }
}

/// The gate on the way out of an interface.
fn egress_gate<'a>(dir: &Path, (ifindex, iface): (u32, &'a str)) -> Hook<'a> {
    Hook {
        ifindex,
        iface,
        direction: TcAttachType::Egress,
        program: names::PROG_EGRESS,
        family: &[names::PROG_EGRESS],
        pin: link_path(dir, names::PROG_EGRESS, ifindex),
        filter_pin: None,
    }
}

/// The gate of the loopback interface.
fn local_gate(dir: &Path) -> Hook<'static> {
    Hook {
        ifindex: LOOPBACK.0,
        iface: LOOPBACK.1,
        direction: TcAttachType::Egress,
        program: names::PROG_LOCAL,
        family: &[names::PROG_LOCAL],
        pin: link_path(dir, names::PROG_LOCAL, LOOPBACK.0),
        filter_pin: None,
    }
}

/// The pin of a link. It is named by the interface's index, which a new interface
/// of the same name does not inherit, and because bpffs allows no dot in a name.
fn link_path(dir: &Path, what: &str, ifindex: u32) -> PathBuf {
    bpffs::links_dir(dir).join(format!("{what}-{ifindex}"))
}

/// The link pinned at `pin`, if there is one.
fn reusable(pin: &Path) -> Result<Option<FdLink>, DataPlaneError> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => Ok(Some(FdLink::from(link))),
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(e) => Err(DataPlaneError::from_source(format!("open {}", pin.display()), &e)),
    }
}

/// True if the link runs the very program that was loaded, and `is_there`: then
/// there is nothing to replace, and `ip link` shows the same program id as
/// before. The tag is the kernel's hash of the instructions. Beyond it, programs
/// differ only in their maps, and a link is never pinned beside maps other than
/// its own. A link that was detached still names its program, so `is_there` has
/// to look at the interface.
fn runs(
    link: &FdLink,
    loaded: Result<ProgramInfo, ProgramError>,
    is_there: impl Fn(u32) -> Result<bool, DataPlaneError>,
) -> Result<bool, DataPlaneError> {
    let (Ok(link), Ok(loaded)) = (link.info(), loaded) else { return Ok(false) };
    let is_same = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .any(|program| program.id() == link.program_id() && program.tag() == loaded.tag());
    Ok(is_same && is_there(link.program_id())?)
}

/// Pins a link in the place of what is there, which goes no moment before.
fn pin_link(link: FdLink, pin: &Path) -> Result<(), DataPlaneError> {
    let coming = bpffs::coming(pin);
    // An interrupted attempt may have left it.
    unpin(&coming)?;
    let what = || format!("pin {}", pin.display());
    link.pin(&coming).map_err(|e| DataPlaneError::from_source(what(), &e))?;
    fs::rename(&coming, pin).map_err(|e| DataPlaneError::io(what(), e))
}
