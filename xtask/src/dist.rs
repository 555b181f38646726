//! `cargo xtask dist`: the Debian package and the tarball, and with `--check`
//! a clean Debian that the package is installed on.
//!
//! The package is put together with dpkg-deb, which every Debian has: what is
//! in it is a list of files below, and what happens at an upgrade is in
//! `packaging/debian`.

mod check;
mod deb;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use self::tree::Tree;
use crate::{
    build::{self, Warnings},
    place::{Place, find_in_path},
    process,
    setup::{self, Need},
};

/// Rust's name for Linux without a C library of the host's: what is built for
/// it runs everywhere.
const STATIC_TARGET: &str = concat!(env!("VIP_ARCH"), "-unknown-linux-musl");

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct DistArgs {
    /// Pack this vip-ctl instead of building one
    #[arg(long, value_name = "FILE")]
    vip_ctl: Option<PathBuf>,
    /// Write the package and the tarball to this directory
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Also install, use, remove and purge the package on a clean Debian (needs root and debootstrap)
    #[arg(long)]
    check: bool,
}

/// What is packed.
struct Release {
    /// The program.
    vip_ctl: PathBuf,
    /// Of the workspace.
    version: String,
    /// Does the program need nothing of the host?
    is_static: bool,
}

/// `cargo xtask dist`.
///
/// # Errors
/// When something does not build, a tool is missing, or the package does not pass its check.
pub(crate) fn run(place: &Place, args: &DistArgs) -> anyhow::Result<ExitCode> {
    let release = release(place, args.vip_ctl.as_deref())?;
    let out = place.root().join(&args.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let tree = Tree::gather(place, &release, &out.join("tree"))?;
    println!("{}", tarball(&release, &tree, &out)?.display());
    if find_in_path("dpkg-deb").is_none() {
        bail!("dpkg-deb is missing, so dist made the tarball but no package: install dpkg");
    }
    let package = deb::build(place, &release, &tree, &out)?;
    println!("{}", package.display());
    if args.check {
        check::run(place, &package, &release)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn release(place: &Place, named: Option<&Path>) -> anyhow::Result<Release> {
    let vip_ctl = match named {
        Some(file) => file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?,
        None => built(place)?,
    };
    let said = process::output_of(Command::new(&vip_ctl).arg("--version"))?;
    let version = said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    // Only a program with dependencies has a loader, and ldd lists them.
    let libraries = Command::new("ldd").arg(&vip_ctl).output().context("cannot run ldd")?;
    let is_static =
        !libraries.status.success() || String::from_utf8_lossy(&libraries.stdout).contains("statically");
    if !is_static {
        eprintln!("dist: {} is not static: it needs the host's C library", vip_ctl.display());
    }
    Ok(Release { vip_ctl, version, is_static })
}

/// A static program; where what that takes is not to be had, one for this host.
fn built(place: &Place) -> anyhow::Result<PathBuf> {
    let tools = setup::ensure(place, Need::Build)?;
    build::object(place, &tools, Warnings::Show)?;
    if let Err(error) = setup::ensure_static(place, STATIC_TARGET) {
        process::check_stop()?;
        eprintln!("dist: cannot build a static vip-ctl ({error:#}); builds one for this host's C library");
        let [vip_ctl] = build::host_programs(place, "release", [["vip-ctl", "vip-ctl"]])?;
        return Ok(vip_ctl);
    }
    let mut command = place.cargo();
    command.args([
        "build",
        "--locked",
        "--release",
        "-p",
        "vip-ctl",
        "--bin",
        "vip-ctl",
        "--target",
        STATIC_TARGET,
    ]);
    command.arg("--message-format=json-render-diagnostics");
    let (status, artifacts) = build::artifacts(&mut command)?;
    let vip_ctl = artifacts.into_iter().find(|artifact| artifact.kind == "bin");
    match vip_ctl {
        Some(vip_ctl) if status.success() => Ok(vip_ctl.executable),
        Some(_) | None => bail!("cargo cannot build the static vip-ctl; its errors are above"),
    }
}

/// The tree under a directory of the release's name, to be unpacked at `/` with
/// `--strip-components=1`, or looked at.
fn tarball(release: &Release, tree: &Tree, out: &Path) -> anyhow::Result<PathBuf> {
    let libc = if release.is_static { "static" } else { "gnu" };
    let name = format!("vip-{}", release.version);
    let file = out.join(format!("{name}-{}-linux-{libc}.tar.gz", env!("VIP_ARCH")));
    let mut command = Command::new("tar");
    command.args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--sort=name"]);
    command.arg(format!("--transform=s,^\\.,{name},")).arg("--file").arg(&file);
    command.arg("--directory").arg(tree.root()).arg(".");
    process::output_of(&mut command)?;
    Ok(file)
}
