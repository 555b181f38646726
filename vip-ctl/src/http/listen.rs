//! Makes the sockets that the API listens on.

use std::{fs, io, os::unix::fs::PermissionsExt, os::unix::net::UnixListener, path::Path};

/// A socket for root alone. Replaces one that is there: the caller has the node's
/// lock, so that one is a dead agent's.
pub(super) fn unix(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
