//! XDP, in the driver or right behind it: attached by a link, which is pinned.

use std::{io, path::Path};

use aya::programs::{
    Xdp, XdpMode,
    links::FdLink,
    xdp::{XdpLink, XdpLinkId},
};

use super::{GONE, pin_link, reusable, runs};
use crate::{
    dataplane::{DataPlaneError, bpffs::unpin, error::errno_of},
    mode::Mode,
};

/// Makes the link pinned at `pin` run this program; false if none is pinned there that
/// runs the program with the id `running`, which is the interface's.
pub(super) fn replace(xdp: &mut Xdp, pin: &Path, iface: &str, running: u32) -> Result<bool, DataPlaneError> {
    let Some(link) = reusable(pin)? else { return Ok(false) };
    // It may be in another namespace, on an interface with the same index.
    if !link.info().is_ok_and(|info| info.program_id() == running) {
        return Ok(false);
    }
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

/// Attaches the program in this mode, and pins its link in the place of what is there.
pub(super) fn attach(xdp: &mut Xdp, pin: &Path, iface: &str, mode: Mode) -> Result<(), DataPlaneError> {
    let id = attach_id(xdp, iface, mode)?;
    let link = xdp.take_link(id).map_err(|e| DataPlaneError::from_source("take the link".into(), &e))?;
    // If the kernel answers EINVAL, it has no XDP links, and aya falls back to a
    // netlink attachment: that outlives its process but can't be pinned.
    let link = FdLink::try_from(link).map_err(|e| {
        DataPlaneError::from_source(format!("attach a link to {iface} (Linux 5.9 or newer is needed)"), &e)
    })?;
    unpin(pin)?;
    pin_link(link, pin)
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
