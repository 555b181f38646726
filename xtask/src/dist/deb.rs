//! The Debian package: the tree, and what dpkg has to know of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{Release, tree::Tree};
use crate::{place::Place, process};

/// Run by dpkg around unpacking and removing; what they do is said in them.
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];
/// Where the package's own files are, which are not installed.
const CONTROL: &str = "DEBIAN";

/// Builds the package into `out`.
pub(super) fn build(place: &Place, release: &Release, tree: &Tree, out: &Path) -> anyhow::Result<PathBuf> {
    let architecture = process::output_of(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let files = files_below(tree.root())?;
    let control = tree.root().join(CONTROL);
    fs::create_dir_all(&control).with_context(|| format!("cannot create {}", control.display()))?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
    fs::write(control.join("control"), control_text(release, architecture, tree.root(), &files)?)?;
    let conffiles: String = files
        .iter()
        .filter(|file| file.starts_with("etc"))
        .map(|file| format!("/{}\n", file.display()))
        .collect();
    fs::write(control.join("conffiles"), conffiles)?;
    let sums = process::output_of(
        Command::new("md5sum")
            .current_dir(tree.root())
            .args(files.iter().filter(|file| !file.starts_with("etc"))),
    )?;
    fs::write(control.join("md5sums"), sums)?;
    for script in SCRIPTS {
        let to = control.join(script);
        fs::copy(place.root().join("packaging/debian").join(script), &to)
            .with_context(|| format!("cannot copy the script {script}"))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    for file in ["control", "conffiles", "md5sums"] {
        fs::set_permissions(control.join(file), fs::Permissions::from_mode(0o644))?;
    }
    let package = out.join(format!("vip_{}_{architecture}.deb", release.version));
    let built = process::output_of(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(tree.root())
            .arg(&package),
    );
    fs::remove_dir_all(&control).with_context(|| format!("cannot remove {}", control.display()))?;
    built.map(|_| package)
}

fn control_text(
    release: &Release,
    architecture: &str,
    root: &Path,
    files: &[PathBuf],
) -> anyhow::Result<String> {
    let mut bytes = 0;
    for file in files {
        bytes += fs::metadata(root.join(file))?.len();
    }
    // What a dynamic program is linked with; a static one needs nothing.
    let depends = if release.is_static { "" } else { "Depends: libc6 (>= 2.34), libgcc-s1\n" };
    Ok(format!(
        "Package: vip\n\
         Version: {}\n\
         Architecture: {architecture}\n\
         Maintainer: The vip authors <vip@invalid>\n\
         Section: net\n\
         Priority: optional\n\
         Installed-Size: {}\n\
         {depends}\
         Suggests: ethtool, iproute2, man-db\n\
         Description: virtual IP addresses, fenced by leases in the kernel\n \
         Moves an IP address between servers in milliseconds, without touching an\n \
         interface, and so that two servers can never both have it: an XDP program\n \
         answers for the address only while a lease in a BPF map says so, and agents\n \
         renew that lease by a majority.\n",
        release.version,
        bytes.div_ceil(1024)
    ))
}

/// Every file below `root`, relative to it, in order.
fn files_below(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
