//! Attaches the programs: XDP on the way in, the egress gate on the way out, the
//! local gate on `lo`. Links are pinned, and replaced without a gap.
//!
//! The caller decides which interfaces those are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
        },
        xdp::{XdpLink, XdpLinkId},
    },
    sys::SyscallError,
};
use aya_log::EbpfLogger;
use vip_common::names;

use super::{
    DataPlane, DataPlaneError,
    bpffs::{self, unpin},
    error::errno_of,
    load::program,
};

/// The loopback interface, where the local gate sits.
const LOOPBACK: (u32, &str) = (1, "lo");
/// ENOLINK: the link's interface is gone.
const GONE: i32 = libc::ENOLINK;
/// The priority of our filters on a clsact qdisc ("vi" in ASCII), by which the
/// next process finds and replaces them in place.
const CLSACT_PRIORITY: u16 = 0x7669;
/// The handle of our filters there, see [`CLSACT_PRIORITY`].
const CLSACT_HANDLE: u16 = 1;

/// Asks netlink for the id of the XDP program that runs on an interface, by its
/// index. The kernel tells it of this namespace's interfaces only.
pub type XdpOn<'a> = &'a dyn Fn(u32) -> Result<Option<u32>, DataPlaneError>;

/// How to run XDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// In the driver where it can, else in the stack; vip-ctl says which.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack, after the driver: slower, and on any interface.
    Generic,
}

/// Which hook the gates use.
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
    /// How to run XDP.
    pub mode: Mode,
    /// Which hook the gates use.
    pub gate: Gate,
    /// Does the program on the way in keep a frame log ([`frame_log`])?
    pub frame_log: bool,
}

/// What an interface has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// [`Mode::Native`] or [`Mode::Generic`]; `None` if this process took over a
    /// link with the mode that it has.
    pub xdp: Option<Mode>,
    /// [`Gate::Tcx`] or [`Gate::Clsact`].
    pub gate: Gate,
}

/// Attaches both programs to an interface, or replaces those that an earlier
/// process pinned there. On error it removes nothing: the address may be on `lo`,
/// and then the gate must stay.
///
/// # Errors
/// [`DataPlaneError::Occupied`] (with an empty owner) if another XDP program
/// is there, [`DataPlaneError::Mode`] if the driver refuses,
/// [`DataPlaneError::NoInterface`].
pub fn attach(
    ebpf: &mut Ebpf,
    dir: &Path,
    iface: &str,
    how: How,
    running: XdpOn<'_>,
) -> Result<Attached, DataPlaneError> {
    let ifindex = ifindex_of(iface)?;
    // The gate first: without the program on the way in, this node answers
    // nothing yet.
    let gate = attach_gate(ebpf, dir, (ifindex, iface), names::PROG_EGRESS, how.gate)?;
    let xdp = attach_xdp(ebpf, dir, (ifindex, iface), how, running)?;
    Ok(Attached { xdp, gate })
}

/// Attaches the local gate to the loopback interface.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn attach_local(ebpf: &mut Ebpf, dir: &Path, gate: Gate) -> Result<Gate, DataPlaneError> {
    attach_gate(ebpf, dir, LOOPBACK, names::PROG_LOCAL, gate)
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
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("xdp-")?.parse::<u32>().ok())
        .filter_map(|ifindex| Some((ifindex, name_of(ifindex)?)))
        .collect())
}

/// Removes the pins and the MACs of interfaces that are gone: nothing runs there,
/// and the map has room for only some tens of MACs.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the directory or the map can't be read or changed.
pub fn sweep(plane: &mut DataPlane) -> Result<(), DataPlaneError> {
    plane.forget_ifaces(|ifindex| name_of(ifindex).is_none())?;
    let links = bpffs::links_dir(plane.dir());
    let read = |e| DataPlaneError::io(format!("read {}", links.display()), e);
    for entry in fs::read_dir(&links).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let ifindex = path.file_name().and_then(|name| name.to_str()?.rsplit_once('-')?.1.parse().ok());
        if ifindex.is_some_and(|ifindex| name_of(ifindex).is_none()) {
            unpin(&path)?;
        }
    }
    Ok(())
}

/// The name that an interface has now; `None` if it is gone.
fn name_of(ifindex: u32) -> Option<String> {
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

/// Programs of others that run before our gate at the tcx egress hook of an
/// interface; all of them if our gate is not there.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the kernel has no tcx or doesn't tell.
pub fn before_gate(iface: &str) -> Result<Vec<String>, DataPlaneError> {
    let programs = on_egress(iface)?;
    let others = programs.iter().take_while(|program| program.name_as_str() != Some(names::PROG_EGRESS));
    Ok(others.map(|program| program_name(program.id())).collect())
}

/// Has another program come before the gate on this interface, or has the gate
/// gone from there? False for a gate by clsact, and if that can't be read.
#[must_use]
pub fn is_displaced(dir: &Path, ifindex: u32, iface: &str) -> bool {
    let name = if ifindex == LOOPBACK.0 { names::PROG_LOCAL } else { names::PROG_EGRESS };
    let Ok(Some(link)) = reusable(&link_path(dir, name, ifindex)) else { return false };
    let (Ok(link), Ok(programs)) = (link.info(), on_egress(iface)) else { return false };
    programs.first().is_none_or(|first| first.id() != link.program_id())
}

/// The programs at the tcx egress hook of an interface, in the order in which they
/// run.
fn on_egress(iface: &str) -> Result<Vec<ProgramInfo>, DataPlaneError> {
    SchedClassifier::query_tcx(iface, TcAttachType::Egress)
        .map(|(_, programs)| programs)
        .map_err(|e| DataPlaneError::from_source(format!("list the programs on {iface}"), &e))
}

/// The tag of the program behind the pinned link on an interface; `None` if
/// nothing is pinned, or the link has lost its program.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if the pin can't be read.
pub fn tag(dir: &Path, ifindex: u32) -> Result<Option<u64>, DataPlaneError> {
    let pin = link_path(dir, "xdp", ifindex);
    let Some(link) = reusable(&pin)? else { return Ok(None) };
    let id = link
        .info()
        .map_err(|e| DataPlaneError::from_source(format!("read {}", pin.display()), &e))?
        .program_id();
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    Ok(programs.into_iter().find(|program| program.id() == id).map(|program| program.tag()))
}

/// True if the program on the way in is pinned for the interface with this index.
#[must_use]
pub fn is_attached(dir: &Path, ifindex: u32) -> bool {
    link_path(dir, "xdp", ifindex).exists()
}

/// True if netlink says that the pinned program runs on the interface with this
/// index. A link that was detached still has its pin and its program.
#[must_use]
pub fn runs_on(dir: &Path, ifindex: u32, running: Option<u32>) -> bool {
    let Ok(Some(link)) = reusable(&link_path(dir, "xdp", ifindex)) else { return false };
    link.info().is_ok_and(|info| Some(info.program_id()) == running)
}

/// Has the program gone from the interface with this index? If that can't be
/// read, it counts as there.
#[must_use]
pub fn is_gone(dir: &Path, ifindex: u32, running: Option<u32>) -> bool {
    match reusable(&link_path(dir, "xdp", ifindex)) {
        Ok(None) => true,
        Ok(Some(link)) => link.info().is_ok_and(|info| Some(info.program_id()) != running),
        Err(_) => false,
    }
}

/// The frame log of the program on the way in of an interface: what
/// [`How::frame_log`] asked for.
///
/// # Errors
/// [`DataPlaneError::NoFrameLog`] if the program there keeps none.
pub fn frame_log(dir: &Path, ifindex: u32) -> Result<EbpfLogger<&'static dyn log::Log>, DataPlaneError> {
    let pin = link_path(dir, "xdp", ifindex);
    let failed = |e: LinkError| DataPlaneError::from_source(format!("read {}", pin.display()), &e);
    let link = reusable(&pin)?.ok_or_else(|| DataPlaneError::NotLoaded { dir: dir.to_owned() })?;
    let id = link.info().map_err(failed)?.program_id();
    EbpfLogger::init_from_id(id).map_err(|_| DataPlaneError::NoFrameLog)
}

/// Removes everything from an interface; succeeds if nothing is there.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach(dir: &Path, ifindex: u32, iface: &str) -> Result<(), DataPlaneError> {
    unpin(&link_path(dir, "xdp", ifindex))?;
    detach_gate(dir, (ifindex, iface), names::PROG_EGRESS)
}

/// Removes the local gate from the loopback interface.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub fn detach_local(dir: &Path) -> Result<(), DataPlaneError> {
    detach_gate(dir, LOOPBACK, names::PROG_LOCAL)
}

fn attach_xdp(
    ebpf: &mut Ebpf,
    dir: &Path,
    (ifindex, iface): (u32, &str),
    how: How,
    running: XdpOn<'_>,
) -> Result<Option<Mode>, DataPlaneError> {
    let pin = link_path(dir, "xdp", ifindex);
    let name = if how.frame_log { names::PROG_INGRESS_LOGGED } else { names::PROG_INGRESS };
    let xdp: &mut Xdp = program(ebpf, name)?;
    if let Some(link) = reusable(&pin)? {
        if runs(&link, xdp.info(), |id| Ok(running(ifindex)? == Some(id)))? {
            return Ok(None);
        }
        let link = XdpLink::try_from(link)
            .map_err(|e| DataPlaneError::from_source(format!("adopt the link on {iface}"), &e))?;
        match xdp.attach_to_link(link) {
            // The pin still names the same link.
            Ok(_) if running(ifindex)? == Some(id_of(xdp.info(), name)?) => return Ok(None),
            // It is in another namespace, on an interface with the same index.
            Ok(_) => {}
            Err(e) if errno_of(&e) == Some(GONE) => unpin(&pin)?,
            Err(e) => return Err(DataPlaneError::from_source(format!("replace the program on {iface}"), &e)),
        }
    }
    let (id, mode) = match how.mode {
        Mode::Native => (try_xdp(xdp, iface, Mode::Native)?, Mode::Native),
        Mode::Generic => (try_xdp(xdp, iface, Mode::Generic)?, Mode::Generic),
        Mode::Auto => match try_xdp(xdp, iface, Mode::Native) {
            Ok(id) => (id, Mode::Native),
            Err(DataPlaneError::Mode { .. }) => (try_xdp(xdp, iface, Mode::Generic)?, Mode::Generic),
            Err(e) => return Err(e),
        },
    };
    let link = xdp.take_link(id).map_err(|e| DataPlaneError::from_source("take the link".into(), &e))?;
    // If the kernel answers EINVAL, it has no XDP links, and aya falls back to a
    // netlink attachment: that outlives its process but can't be pinned.
    let link = FdLink::try_from(link).map_err(|e| {
        DataPlaneError::from_source(format!("attach a link to {iface} (Linux 5.9 or newer is needed)"), &e)
    })?;
    unpin(&pin)?;
    pin_link(link, &pin)?;
    Ok(Some(mode))
}

fn try_xdp(xdp: &mut Xdp, iface: &str, mode: Mode) -> Result<XdpLinkId, DataPlaneError> {
    let (flags, name) = match mode {
        Mode::Generic => (XdpMode::Skb, "generic"),
        Mode::Native | Mode::Auto => (XdpMode::Driver, "native"),
    };
    xdp.attach(iface, flags).map_err(|e| match errno_of(&e) {
        Some(libc::EBUSY | libc::EEXIST) => {
            DataPlaneError::Occupied { iface: iface.to_owned(), owner: String::new() }
        }
        Some(errno @ (libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOMEM)) => {
            DataPlaneError::Mode {
                iface: iface.to_owned(),
                mode: name,
                source: io::Error::from_raw_os_error(errno),
            }
        }
        _ => DataPlaneError::from_source(format!("attach to {iface} in {name} mode"), &e),
    })
}

fn attach_gate(
    ebpf: &mut Ebpf,
    dir: &Path,
    (ifindex, iface): (u32, &str),
    name: &'static str,
    gate: Gate,
) -> Result<Gate, DataPlaneError> {
    let pin = link_path(dir, name, ifindex);
    let tc: &mut SchedClassifier = program(ebpf, name)?;
    let is_first = |id| Ok(on_egress(iface)?.first().is_some_and(|first| first.id() == id));
    if let Some(link) = reusable(&pin)? {
        if runs(&link, tc.info(), is_first)? {
            return Ok(Gate::Tcx);
        }
        // Behind another program, or in another namespace on an interface with the same
        // index, the program can't be replaced where it is: a new link comes first.
        let link_info = link.info().ok();
        if link_info.is_some_and(|info| is_first(info.program_id()).unwrap_or(false)) {
            let link = link.try_into().map_err(|e: LinkError| {
                DataPlaneError::from_source(format!("adopt the gate on {iface}"), &e)
            })?;
            match tc.attach_to_link(link) {
                Ok(_) => return Ok(Gate::Tcx),
                Err(e) if errno_of(&e) == Some(GONE) => unpin(&pin)?,
                Err(e) => {
                    return Err(DataPlaneError::from_source(format!("replace the gate on {iface}"), &e));
                }
            }
        }
    }
    // Programs that come before could accept a frame and end the chain.
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
    let refused = |e: &ProgramError| DataPlaneError::from_source(format!("attach the gate to {iface}"), e);
    if gate != Gate::Clsact {
        match tc.attach_with_options(iface, TcAttachType::Egress, tcx) {
            Ok(id) => {
                let link = tc.take_link(id).map_err(|e| refused(&e))?;
                let link = FdLink::try_from(link)
                    .map_err(|e| DataPlaneError::from_source(format!("pin the gate on {iface}"), &e))?;
                unpin(&pin)?;
                pin_link(link, &pin)?;
                // One gate is enough, and the new one is in place.
                detach_clsact(iface, name)?;
                return Ok(Gate::Tcx);
            }
            // Kernels before 6.6 do not know the attach type.
            Err(e) if gate == Gate::Auto && errno_of(&e) == Some(libc::EINVAL) => {}
            Err(e) => return Err(refused(&e)),
        }
    }
    attach_clsact(tc, iface, name)?;
    Ok(Gate::Clsact)
}

/// Attaches a filter on the clsact qdisc. It has no link and stays until somebody
/// removes it; one that is there is replaced in place.
fn attach_clsact(tc: &mut SchedClassifier, iface: &str, name: &'static str) -> Result<(), DataPlaneError> {
    let what = || format!("attach the gate to {iface} by clsact ({name})");
    if let Err(e) = qdisc_add_clsact(iface)
        && errno_of(&e) != Some(libc::EEXIST)
    {
        return Err(DataPlaneError::from_source(what(), &e));
    }
    let (priority, handle) = (CLSACT_PRIORITY, TcHandle::new(0, CLSACT_HANDLE));
    let there = SchedClassifierLink::attached(iface, TcAttachType::Egress, priority, handle, None)
        .map_err(|e| DataPlaneError::io(what(), e))?;
    // If an earlier version put its filter elsewhere, that one stays behind ours
    // and asks the same maps again; detaching ours removes it too, by the
    // program's name.
    let attached = tc.attach_to_link(there).or_else(|_| {
        let options = NlOptions { priority, handle, classid: None };
        tc.attach_with_options(iface, TcAttachType::Egress, TcAttachOptions::Netlink(options))
    });
    let link =
        attached.and_then(|id| tc.take_link(id)).map_err(|e| DataPlaneError::from_source(what(), &e))?;
    // Dropping it would take the filter off again.
    std::mem::forget(link);
    Ok(())
}

fn detach_clsact(iface: &str, name: &str) -> Result<(), DataPlaneError> {
    match qdisc_detach_program(iface, TcAttachType::Egress, name) {
        Ok(()) => Ok(()),
        Err(aya::programs::tc::TcError::IoError(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // Without a clsact qdisc, or without the interface, there is no filter either.
        Err(e)
            if matches!(
                errno_of(&e),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(DataPlaneError::from_source(format!("take the gate off {iface}"), &e)),
    }
}

fn detach_gate(dir: &Path, (ifindex, iface): (u32, &str), name: &'static str) -> Result<(), DataPlaneError> {
    unpin(&link_path(dir, name, ifindex))?;
    detach_clsact(iface, name)
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

fn id_of(loaded: Result<ProgramInfo, ProgramError>, name: &str) -> Result<u32, DataPlaneError> {
    loaded.map(|info| info.id()).map_err(|e| DataPlaneError::from_source(format!("look at {name}"), &e))
}

fn pin_link(link: FdLink, pin: &Path) -> Result<(), DataPlaneError> {
    link.pin(pin).map(drop).map_err(|e| DataPlaneError::from_source(format!("pin {}", pin.display()), &e))
}
