//! The BPF file system: where the data plane is pinned, and mounting that file
//! system where nobody has.

use std::{
    fs, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use vip_common::names;

use super::{DataPlaneError, syscalls};

/// What the pin of a program on the way in begins with: by XDP.
pub(super) const PIN_XDP: &str = "xdp";
/// By tcx.
pub(super) const PIN_TCX: &str = names::PROG_INGRESS_TC;
/// By clsact: a program, since a filter has no link.
pub(super) const PIN_CLSACT: &str = "clsact";
/// What each pin of an interface begins with.
const PINS: [&str; 5] = [PIN_XDP, PIN_TCX, PIN_CLSACT, names::PROG_EGRESS, names::PROG_LOCAL];
/// Where the kernel's BPF file system belongs.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// The pin of a map.
#[must_use]
pub fn map_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("maps").join(name)
}

/// Where what shall take the place of a pin is pinned first: the new one is there before
/// the old one goes.
pub(super) fn coming(pin: &Path) -> PathBuf {
    let mut name = pin.file_name().unwrap_or_default().to_owned();
    name.push("_new");
    pin.with_file_name(name)
}

/// The directory of the pinned links.
#[must_use]
pub fn links_dir(dir: &Path) -> PathBuf {
    dir.join("links")
}

/// The pin of a program of the gate at IP level, and the name that a new link, or program, has before it
/// replaces the old one. They have no interface's index at their end, and are not swept
/// away with one.
#[must_use]
pub(super) fn netfilter_pins(dir: &Path, program: &str) -> [PathBuf; 2] {
    let links = links_dir(dir);
    [links.join(program), links.join(format!("{program}_new"))]
}

/// Pins a link or a program at the first of [`netfilter_pins`], instead of the one that is
/// there; at no moment is there none.
///
/// # Errors
/// [`DataPlaneError::Kernel`].
pub(super) fn replace_pin([pin, coming]: &[PathBuf; 2], of: BorrowedFd<'_>) -> Result<(), DataPlaneError> {
    // An interrupted attempt may have left it.
    unpin(coming)?;
    syscalls::pin(of, coming)
        .and_then(|()| fs::rename(coming, pin))
        .map_err(|e| DataPlaneError::io(format!("pin {}", pin.display()), e))
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
    let above = dir.ancestors().find(|part| part.exists()).unwrap_or(dir);
    if !is_bpffs(above)? {
        return Err(DataPlaneError::Kernel {
            what: format!("pin below {}", dir.display()),
            message: "it is not on a BPF file system; choose a directory below /sys/fs/bpf".into(),
        });
    }
    for part in [dir.join("maps"), links_dir(dir)] {
        fs::create_dir_all(&part).map_err(|e| DataPlaneError::io(format!("create {}", part.display()), e))?;
    }
    Ok(())
}

/// Removes our pins below `dir`, and `dir` itself if nothing else is there: links, of which
/// other versions have ones that this does not know, while there is the record. Of the maps
/// that goes first, as it was pinned last: where it is, the others are, too.
/// Where nothing of ours can be, it does nothing.
///
/// # Errors
/// [`DataPlaneError::Kernel`] if something can't be removed.
pub fn remove(dir: &Path) -> Result<(), DataPlaneError> {
    if !dir.exists() || !is_bpffs(dir)? {
        return Ok(());
    }
    let (record, maps, links) = (map_path(dir, names::NODE), dir.join("maps"), links_dir(dir));
    // Beside our record all is ours, also what another version has pinned.
    let is_ours = record.exists();
    let known = |name: &str| names::MAPS.contains(&name) || is_link(name);
    for part in [&links, &maps] {
        if part == &maps {
            unpin(&record)?;
        }
        for entry in fs::read_dir(part).into_iter().flatten().filter_map(Result::ok) {
            if is_ours || entry.file_name().to_str().is_some_and(known) {
                unpin(&entry.path())?;
            }
        }
    }
    for part in [&maps, &links, dir] {
        // What others have pinned there keeps the directories, and so does a mount.
        removed(
            part,
            fs::remove_dir(part),
            &[io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy],
        )?;
    }
    Ok(())
}

/// Removes a pin, the last thing that keeps a link or a map where no process has it
/// open; succeeds if there is none.
pub(super) fn unpin(pin: &Path) -> Result<(), DataPlaneError> {
    removed(pin, fs::remove_file(pin), &[io::ErrorKind::NotFound])
}

fn removed(path: &Path, result: io::Result<()>, fine: &[io::ErrorKind]) -> Result<(), DataPlaneError> {
    match result {
        Err(e) if !fine.contains(&e.kind()) => {
            Err(DataPlaneError::io(format!("remove {}", path.display()), e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Is this the name of one of our links: what it is, and the interface's index if it
/// is on one?
fn is_link(name: &str) -> bool {
    let gates =
        [names::PROG_LOCAL_IN, names::PROG_TRANSLATED, names::PROG_LOCAL_IN_NFT, names::PROG_TRANSLATED_NFT];
    if gates.contains(&name.trim_end_matches("_new")) {
        return true;
    }
    let Some((what, ifindex)) = name.trim_end_matches("_new").rsplit_once('-') else { return false };
    PINS.contains(&what) && ifindex.parse::<u32>().is_ok()
}

fn is_bpffs(path: &Path) -> Result<bool, DataPlaneError> {
    match statfs(path) {
        Ok(stat) => Ok(stat.filesystem_type() == BPF_FS_MAGIC),
        Err(e) => Err(DataPlaneError::io(format!("look at {}", path.display()), e.into())),
    }
}
