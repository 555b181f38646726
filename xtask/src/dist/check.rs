//! The package on a clean Debian: installed, used, upgraded, removed, purged.
//! The root comes from debootstrap once, and is kept as an archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use super::Release;
use crate::{
    place::{Place, find_in_path, is_root},
    process,
};

/// The Debian that is installed on: the oldest that is supported.
const SUITE: &str = "bookworm";

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next check empties what is left.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// Takes the package through its life.
pub(super) fn run(place: &Place, package: &Path, release: &Release) -> anyhow::Result<()> {
    ensure!(is_root(), "--check unpacks a Debian, which only root can do: run it as root");
    let scratch = Scratch(place.tools().join(format!("debian-{}", std::process::id())));
    unpack(place, &scratch.0)?;
    let root = &scratch.0;
    let before = files(root)?;
    let inside = root.join("vip.deb");
    fs::copy(package, &inside).with_context(|| format!("cannot copy {}", package.display()))?;

    inside_of(root, &["dpkg", "--install", "/vip.deb"])?;
    let said = inside_of(root, &["vip-ctl", "--version"])?;
    ensure!(said.contains(&release.version), "`vip-ctl --version` prints {said:?}, not {}", release.version);
    let page = fs::metadata(root.join("usr/share/man/man8/vip-ctl-switchover.8.gz"));
    ensure!(page.is_ok_and(|page| page.len() > 0), "the package has no manual page vip-ctl-switchover(8)");
    ensure!(inside_of(root, &["vip-ctl", "man"])?.contains(".TH "), "`vip-ctl man` prints no manual page");
    // What doctor says of the rest is this machine's; the configuration is the package's.
    let example = "/usr/share/doc/vip/examples/vip.toml";
    let seen = tried(root, &["vip-ctl", "doctor", "--config", example])?;
    ensure!(seen.contains(&format!("{example} is right")), "`vip-ctl doctor` rejects the example:\n{seen}");
    let verified = inside_of(root, &["dpkg", "--verify", "vip"])?;
    ensure!(verified.trim().is_empty(), "`dpkg --verify vip` finds changed files:\n{verified}");

    let mine = root.join("etc/default/vip-agent");
    fs::write(&mine, "VIP_LOG=debug\n")?;
    fs::create_dir_all(root.join("etc/vip"))?;
    fs::write(root.join("etc/vip/vip.toml"), "# mine\n")?;
    inside_of(root, &["dpkg", "--install", "--force-confold", "/vip.deb"])?;
    ensure!(
        fs::read_to_string(&mine)?.contains("debug"),
        "an upgrade has overwritten /etc/default/vip-agent"
    );
    ensure!(root.join("etc/vip/vip.toml").exists(), "an upgrade has removed /etc/vip/vip.toml");
    inside_of(root, &["dpkg", "--remove", "vip"])?;
    ensure!(
        mine.exists() && root.join("etc/vip/vip.toml").exists(),
        "`dpkg --remove vip` has removed configuration files"
    );
    inside_of(root, &["dpkg", "--purge", "vip"])?;
    fs::remove_file(&inside)?;
    let after = files(root)?;
    let left: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
    ensure!(left.is_empty(), "`dpkg --purge vip` leaves {left:?}");
    println!("the package was installed, used, upgraded, removed and purged on a clean Debian ({SUITE})");
    Ok(())
}

/// A clean root in `root`; from the archive, which is made if it is not there.
fn unpack(place: &Place, root: &Path) -> anyhow::Result<()> {
    let archive = place.tools().join(format!("debian-{SUITE}.tar"));
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    if !archive.exists() {
        if find_in_path("debootstrap").is_none() {
            bail!("debootstrap is missing: install it, so that --check can make a clean Debian");
        }
        eprintln!("dist: downloading a clean Debian for --check; later runs reuse it");
        let log = place.tools().join("debootstrap.log");
        let mut command = Command::new("debootstrap");
        process::run_logged("debootstrap", command.args(["--variant=minbase", SUITE]).arg(root), &log)?;
        let draft = archive.with_extension("new");
        process::output_of(
            Command::new("tar").arg("--create").arg("--file").arg(&draft).arg("-C").arg(root).arg("."),
        )?;
        fs::rename(&draft, &archive).with_context(|| format!("cannot write {}", archive.display()))?;
        return Ok(());
    }
    process::output_of(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("-C").arg(root))
        .map(drop)
}

/// What a program in the root printed; it has to succeed.
fn inside_of(root: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut command = chroot(root, args);
    process::output_of(&mut command).with_context(|| format!("in the clean Debian: {}", args.join(" ")))
}

/// What a program in the root printed, whether or not it succeeds.
fn tried(root: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = chroot(root, args).output().context("cannot run chroot")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn chroot(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(args).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

/// Every path below the root, but for what dpkg itself keeps.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    const DPKG: &[&str] = &["var/lib/dpkg", "var/log", "var/cache"];
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if DPKG.iter().any(|own| path.starts_with(own)) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                dirs.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}
