//! XDP, in the driver or right behind it: attached by a link, which is pinned.

use std::{io, os::fd::AsFd, path::Path};

use aya::programs::{
    Xdp, XdpMode,
    links::FdLink,
    xdp::{XdpLink, XdpLinkId},
};

use super::{GONE, pin_link, reusable, runs};
use crate::{
    dataplane::{DataPlaneError, bpffs::unpin, error::errno_of, syscalls},
    mode::Mode,
};

/// Makes the link pinned at `pin` run this program; false if none is pinned there that
/// runs the program with the id `running`, which is the interface's.
pub(super) fn replace(xdp: &mut Xdp, pin: &Path, iface: &str, running: u32) -> Result<bool, DataPlaneError> {
    if !is_pinned(pin, running) {
        return Ok(false);
    }
    let Some(link) = reusable(pin)? else { return Ok(false) };
    if runs(&link, xdp.info(), |_| Ok(true))? {
        return Ok(true);
    }
    let link = XdpLink::try_from(link)
        .map_err(|e| DataPlaneError::from_source(format!("adopt the link on {iface}"), &e))?;
    match xdp.attach_to_link(link) {
        // The pin still names the same link.
        Ok(_) => Ok(true),
        Err(e) if errno_of(&e) == Some(GONE) => Ok(false),
        Err(e) => Err(DataPlaneError::from_source(format!("replace the program on {iface}"), &e)),
    }
}

/// Is a link pinned there that runs the program with the id `running`? Else it may be in
/// another namespace, on an interface with the same index.
pub(super) fn is_pinned(pin: &Path, running: u32) -> bool {
    let info = reusable(pin).ok().flatten().and_then(|link| link.info().ok());
    info.is_some_and(|info| info.program_id() == running)
}

/// Attaches the program in this mode, and pins its link in the place of what is there.
pub(super) fn attach(xdp: &mut Xdp, pin: &Path, iface: &str, mode: Mode) -> Result<(), DataPlaneError> {
    let id = attach_id(xdp, iface, mode)?;
    let link = xdp.take_link(id).map_err(|e| DataPlaneError::from_source("take the link".into(), &e))?;
    // If the kernel answers EINVAL, it has no XDP links, and aya falls back to a
    // netlink attachment: that outlives its process but can't be pinned.
    let link = FdLink::try_from(link).map_err(|e| {
        DataPlaneError::from_source(format!("attach a link to {iface} (Linux 5.9 or newer is needed)"), &e)
    })?;
    pin_link(link, pin)
}

/// Takes the program whose link is pinned at `pin` off its interface at once, so that
/// another mode can have the place.
pub(super) fn detach(pin: &Path) -> Result<(), DataPlaneError> {
    // A link that has lost its interface is detached already, and so is one that is gone.
    let _ = syscalls::pinned(pin).and_then(|link| syscalls::detach(link.as_fd()));
    unpin(pin)
}

fn attach_id(xdp: &mut Xdp, iface: &str, mode: Mode) -> Result<XdpLinkId, DataPlaneError> {
    let flags = if mode == Mode::Generic { XdpMode::Skb } else { XdpMode::Driver };
    xdp.attach(iface, flags).map_err(|e| match errno_of(&e) {
        Some(libc::EBUSY | libc::EEXIST) => {
            DataPlaneError::Occupied { iface: iface.to_owned(), owner: String::new() }
        }
        Some(errno @ (libc::EOPNOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOMEM)) => {
            DataPlaneError::Mode {
                iface: iface.to_owned(),
                mode: mode.name(),
                source: io::Error::from_raw_os_error(errno),
            }
        }
        _ => DataPlaneError::from_source(format!("attach to {iface} in {} mode", mode.name()), &e),
    })
}
