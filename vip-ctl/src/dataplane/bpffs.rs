//! The BPF file system: where the data plane is pinned, and mounting that file
//! system where nobody has.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use vip_common::names;

use super::DataPlaneError;

/// Where the kernel's BPF file system belongs.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The pin of a map.
#[must_use]
pub fn map_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("maps").join(name)
}

/// The directory of the pinned links.
#[must_use]
pub fn links_dir(dir: &Path) -> PathBuf {
    dir.join("links")
}

/// Makes sure that `dir` exists on a BPF file system, mounting that if needed.
///
/// # Errors
/// [`DataPlaneError::NoPermission`] without the privilege to do so, else
/// [`DataPlaneError::Kernel`].
pub fn prepare(dir: &Path) -> Result<(), DataPlaneError> {
    let mount_point = Path::new(MOUNT_POINT);
    if dir.starts_with(mount_point) && !is_bpffs(mount_point)? {
        mount(Some("bpf"), mount_point, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|e| {
            DataPlaneError::io(format!("mount the BPF file system on {MOUNT_POINT}"), e.into())
        })?;
    }
    for part in [dir.join("maps"), links_dir(dir)] {
        fs::create_dir_all(&part).map_err(|e| DataPlaneError::io(format!("create {}", part.display()), e))?;
    }
    if !is_bpffs(dir)? {
        return Err(DataPlaneError::Kernel {
            what: format!("pin below {}", dir.display()),
            message: "it is not on a BPF file system; choose a directory below /sys/fs/bpf".into(),
        });
    }
    Ok(())
}

/// Removes every pin below `dir`, and `dir` itself. Removes the record first, as
/// it was pinned last: where it is, everything else is, too.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if something can't be removed.
pub fn remove(dir: &Path) -> Result<(), DataPlaneError> {
    for removed in [fs::remove_file(map_path(dir, names::NODE)), fs::remove_dir_all(dir)] {
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(DataPlaneError::io(format!("remove {}", dir.display()), e));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_bpffs(path: &Path) -> Result<bool, DataPlaneError> {
    match statfs(path) {
        Ok(stat) => Ok(stat.filesystem_type() == BPF_FS_MAGIC),
        Err(e) => Err(DataPlaneError::io(format!("look at {}", path.display()), e.into())),
    }
}
