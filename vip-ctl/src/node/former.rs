//! Takes off what another version has pinned in a layout that this one can't read.
//!
//! Leases do not go on in another layout: they are closed first, so that whoever asks
//! meanwhile is answered as by a node without one. Then the VIPs leave `lo`, and the gates
//! last.

use std::collections::BTreeSet;

use super::{DataPlaneError, Host, NodeError, Paths, take_off};
use crate::dataplane::former::Former;

/// Takes off the data plane of another layout, if that is what is pinned here, so that an
/// agent can load its own. Returns what it did, in words.
///
/// # Errors
/// [`NodeError`] if a group is promoted by hand there, if an interface has one of its VIPs as
/// an ordinary address, which nothing would guard any more, or if something can't be taken
/// off: then the gates stay.
pub fn take_off_former(paths: &Paths) -> Result<Option<String>, NodeError> {
    let Some(former) = Former::find(&paths.bpf_dir)? else { return Ok(None) };
    let layout = former.layout();
    if former.is_promoted_by_hand()? {
        return Err(NodeError::PromotedBefore { layout });
    }
    let host = Host::open(&paths.run_dir)?;
    let vips = former.vips()?;
    if let Some((vip, iface)) = host.ordinary(&vips)? {
        return Err(NodeError::OnInterface { vip, iface });
    }
    take_down(paths, &host)?;
    let vips: Vec<_> = vips.iter().map(ToString::to_string).collect();
    Ok(Some(format!(
        "took off the data plane of an earlier version, whose maps have layout {layout}, with its VIPs ({}): this version loads its own, and goes on with no lease of that one's",
        vips.join(", ")
    )))
}

/// Takes it off and puts the host back.
///
/// # Errors
/// [`NodeError`]: then the gates stay, since the addresses may still be there.
pub(super) fn take_down(paths: &Paths, host: &Host) -> Result<(), NodeError> {
    if let Some(former) = Former::find(&paths.bpf_dir)? {
        let vips = former.vips();
        // Who can read neither the map nor the record can't know what is on `lo`.
        let vips = if host.has_record() { vips.unwrap_or_else(|_| BTreeSet::new()) } else { vips? };
        match former.close() {
            // Whose leases can't be read is taken off all the same: its VIPs go first.
            Ok(()) | Err(DataPlaneError::Layout { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        host.take_off_loopback(&vips)?;
    }
    // An interrupted load or unload may have left the host changed.
    host.restore()?;
    take_off(host, &paths.bpf_dir)
}
