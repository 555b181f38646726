//! What virtual machines take: an emulator, a shell for their first root, and
//! Debian's kernels. Nothing of it is installed: it is downloaded by apt, which
//! checks it, and unpacked in `target/tools/vm`, where it stays.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::apt;
use crate::{
    place::{Place, find_in_path, is_executable},
    process,
};

/// The emulator's program and package.
const QEMU: [&str; 2] = ["qemu-system-x86_64", "qemu-system-x86"];
/// busybox without libraries, for the first program.
const BUSYBOX: &str = "busybox-static";
/// Programs that single tests of the lab need, and their packages.
const FOR_TESTS: [[&str; 2]; 2] = [["nft", "nftables"], ["conntrack", "conntrack"]];
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The emulator, and what else was found or unpacked.
#[derive(Debug)]
pub(crate) struct VmTools {
    /// Where packages are unpacked.
    unpacked: PathBuf,
    qemu: PathBuf,
}

impl VmTools {
    /// A program of the packages or of this machine.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let dirs = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let unpacked = dirs.iter().map(|dir| self.unpacked.join(dir).join(name));
        unpacked.into_iter().find(|file| is_executable(file)).or_else(|| find_in_path(name))
    }

    /// busybox, linked statically.
    pub(crate) fn busybox(&self) -> PathBuf {
        busybox(&self.unpacked)
    }

    /// A command for the emulator.
    pub(crate) fn emulator(&self) -> Command {
        let mut command = self.with_libraries(&self.qemu);
        if self.qemu.starts_with(&self.unpacked) {
            command.env("QEMU_MODULE_DIR", self.unpacked.join("usr").join(LIBRARIES).join("qemu"));
            for data in ["qemu", "seabios"] {
                command.arg("-L").arg(self.unpacked.join("usr/share").join(data));
            }
        }
        command
    }

    /// A command that finds the packages' libraries besides this machine's.
    pub(crate) fn with_libraries(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let paths = ["usr", ""].map(|dir| self.unpacked.join(dir).join(LIBRARIES));
        command.env("LD_LIBRARY_PATH", paths.map(|path| path.display().to_string()).join(":"));
        command
    }
}

fn busybox(unpacked: &Path) -> PathBuf {
    let merged = unpacked.join("usr/bin/busybox");
    if merged.is_file() { merged } else { unpacked.join("bin/busybox") }
}

/// The emulator and its companions, after downloading what was missing.
///
/// # Errors
/// When something is missing and cannot be had.
pub(super) fn ensure(place: &Place) -> anyhow::Result<VmTools> {
    let unpacked = place.tools().join("vm/programs");
    let [program, package] = QEMU;
    if !unpacked.is_dir() {
        let mut packages = vec![BUSYBOX];
        if find_in_path(program).is_none() {
            packages.push(package);
        }
        packages
            .extend(FOR_TESTS.iter().filter(|[name, _]| find_in_path(name).is_none()).map(|pair| pair[1]));
        apt::unpack(place, &packages, &unpacked, "an emulator for other kernels")?;
    }
    let mut tools = VmTools { unpacked, qemu: PathBuf::new() };
    tools.qemu = tools.program(program).with_context(|| {
        format!("{program} is missing: install {package}, or remove {}", tools.unpacked.display())
    })?;
    Ok(tools)
}

/// The newest of Debian's kernels of this line, such as 6.1: where its package is unpacked.
///
/// # Errors
/// When the package mirrors carry none, or it cannot be downloaded.
pub(super) fn ensure_kernel(place: &Place, line: &str) -> anyhow::Result<PathBuf> {
    let unpacked = place.tools().join("vm").join(format!("linux-{line}"));
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let package = apt::newest(place, &format!("linux-image-{line}."), "-cloud-amd64")?;
    let draft = unpacked.with_extension(format!("new-{}", std::process::id()));
    apt::unpack_one(place, &package, &draft, "a kernel to boot in a virtual machine")?;
    // Debian has moved /lib below /usr since.
    if !draft.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", draft.join("lib"))?;
    }
    let modules = draft.join("lib/modules");
    let Some(release) = std::fs::read_dir(&modules)?.next() else {
        bail!("the package {package} has no modules");
    };
    // Debian's packages do that when they are installed.
    let mut depmod = Command::new(busybox(&place.tools().join("vm/programs")));
    process::output_of(depmod.arg("depmod").arg("-b").arg(&draft).arg(release?.file_name()))?;
    std::fs::rename(&draft, &unpacked).with_context(|| format!("cannot write {}", unpacked.display()))?;
    Ok(unpacked)
}
