//! Packages of Debian and its kin, by apt-get: installed, and never in exchange for
//! another one, or unpacked beside the system.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, bail};

use super::rustc::version;
use crate::{
    place::{Place, find_in_path, is_root},
    process,
};

/// Pairs of compiler and core source, newest line first. Debian carries a recent
/// Rust for its browsers as `rustc-web`, and its own as `rustc`.
const RUSTCS: [[&str; 2]; 2] = [["rustc-web", "rust-web-src"], ["rustc", "rust-src"]];

/// Package lists are fetched once a run.
static REFRESHED: AtomicBool = AtomicBool::new(false);

/// Whether this system has apt.
pub(super) fn available() -> bool {
    find_in_path("apt-get").is_some() && find_in_path("dpkg-query").is_some()
}

/// Installs a compiler with its core source.
///
/// # Errors
/// When this is no Debian, when its mirror has none that is recent enough, or
/// when we may not.
pub(super) fn install_rustc(place: &Place) -> anyhow::Result<()> {
    if !available() {
        bail!("cannot install rustc-web: this system has no apt-get");
    }
    refresh(place)?;
    let oldest = version(env!("CARGO_PKG_RUST_VERSION"));
    for pair in RUSTCS {
        let [compiler, source] = pair.map(|package| candidate(package).unwrap_or_default());
        if version(&compiler) >= oldest && compiler == source {
            // Both by name: one that is here in an older version has to follow.
            return fetch(place, &pair, "a compiler for BPF, with the source of core");
        }
    }
    bail!(
        "the package mirrors that /etc/apt names carry no rustc {} or later with its source \
         (Debian has it as rustc-web, among its security updates)",
        env!("CARGO_PKG_RUST_VERSION")
    )
}

/// Installs those of the packages that are absent.
///
/// # Errors
/// When a package is not to be had, when we may not install, or when apt fails.
pub(super) fn install(place: &Place, packages: &[&str], purpose: &str) -> anyhow::Result<()> {
    let absent: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    fetch(place, &absent, purpose)
}

/// Installs the packages, or brings them up to date.
fn fetch(place: &Place, packages: &[&str], purpose: &str) -> anyhow::Result<()> {
    if !available() {
        bail!("cannot install {}: this system has no apt-get", packages.join(" "));
    }
    if !is_root() {
        bail!("run `sudo apt-get install --no-install-recommends {}` ({purpose})", packages.join(" "));
    }
    refresh(place)?;
    let unknown: Vec<&str> =
        packages.iter().copied().filter(|package| candidate(package).is_none()).collect();
    if !unknown.is_empty() {
        bail!("the package mirrors that /etc/apt names do not carry {}", unknown.join(" "));
    }
    mend(place)?;
    eprintln!("setup: installing {} by apt-get ({purpose})", packages.join(" "));
    let mut command = apt_get();
    // --no-remove: what the user has is worth more than what we want.
    command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages);
    process::run_logged("setup: apt-get install", &mut command, &place.tools().join("apt-install.log"))
}

/// Downloads the packages and those that they need and this machine lacks, and
/// unpacks them into `to`, which is there only if all went well. Installs nothing.
///
/// # Errors
/// When a package is not to be had, or cannot be downloaded.
pub(super) fn unpack(place: &Place, packages: &[&str], to: &Path, purpose: &str) -> anyhow::Result<()> {
    if !available() {
        bail!("cannot download {}: this system has no apt-get", packages.join(" "));
    }
    refresh(place)?;
    let mut simulate = apt_get();
    simulate.args(["install", "--simulate", "--no-install-recommends"]).args(packages);
    let simulated = process::output_of(&mut simulate)?;
    let needed = parse_new(&simulated);
    let draft = to.with_extension(format!("new-{}", std::process::id()));
    eprintln!("setup: downloading {} by apt-get ({purpose})", packages.join(" "));
    download(place, &needed, &draft)?;
    fs::rename(&draft, to).with_context(|| format!("cannot write {}", to.display()))
}

/// [`unpack`], of this package alone.
///
/// # Errors
/// As there.
pub(super) fn unpack_one(place: &Place, package: &str, to: &Path, purpose: &str) -> anyhow::Result<()> {
    eprintln!("setup: downloading {package} by apt-get ({purpose})");
    download(place, &[package], to)
}

/// The package of the highest version in its name, which begins and ends so.
///
/// # Errors
/// When there is none.
pub(super) fn newest(place: &Place, begin: &str, end: &str) -> anyhow::Result<String> {
    if !available() {
        bail!("cannot download {begin}*{end}: this system has no apt-get");
    }
    refresh(place)?;
    let names = process::output_of(Command::new("apt-cache").args(["pkgnames", begin]))?;
    let fitting = names.lines().filter(|name| name.starts_with(begin) && name.ends_with(end));
    let mut fitting: Vec<&str> = fitting.collect();
    fitting.sort_by_key(|name| numbers(name));
    let newest = fitting.into_iter().rev().find(|name| candidate(name).is_some());
    newest
        .map(str::to_owned)
        .with_context(|| format!("the package mirrors that /etc/apt names do not carry {begin}*{end}"))
}

/// Downloads packages and unpacks them into `to`. apt-get checks what it gets.
fn download(place: &Place, packages: &[&str], to: &Path) -> anyhow::Result<()> {
    let debs = to.with_extension(format!("debs-{}", std::process::id()));
    fs::create_dir_all(&debs).with_context(|| format!("cannot create {}", debs.display()))?;
    let mut command = apt_get();
    command.current_dir(&debs).arg("download").args(packages);
    if is_root() {
        // The user that apt becomes otherwise may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    process::run_logged("setup: apt-get download", &mut command, &place.tools().join("apt-download.log"))?;
    for entry in fs::read_dir(&debs).with_context(|| format!("cannot read {}", debs.display()))? {
        process::output_of(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(to))?;
    }
    fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))
}

/// The packages that a simulated installation adds. `Inst NAME (VERSION …)`; one
/// that replaces an older version has that in brackets before it.
fn parse_new(simulated: &str) -> Vec<&str> {
    let added = simulated.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_once(" ("));
    added.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect()
}

/// The numbers in a name, in their order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Fetches the package lists, unless that was done in this run. A mirror that
/// does not answer is no reason to stop: another, or the old list, may do.
fn refresh(place: &Place) -> anyhow::Result<()> {
    if !is_root() || REFRESHED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let log = place.tools().join("apt-update.log");
    if let Err(error) = process::run_logged("setup: apt-get update", apt_get().arg("update"), &log) {
        process::check_stop()?;
        eprintln!("setup: {error:#}; using the package lists that are already here");
    }
    Ok(())
}

/// Ends what an interrupted installation left half done, since apt-get refuses
/// everything else until then.
fn mend(place: &Place) -> anyhow::Result<()> {
    let left = process::output_of(Command::new("dpkg").arg("--audit"))?;
    if left.trim().is_empty() {
        return Ok(());
    }
    eprintln!("setup: finishing an interrupted package installation (dpkg --configure -a)");
    let mut command = Command::new("dpkg");
    command.args(["--configure", "-a"]).env("DEBIAN_FRONTEND", "noninteractive");
    process::run_logged("setup: dpkg", &mut command, &place.tools().join("dpkg.log"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        // Ubuntu would restart services, or ask which.
        .env("NEEDRESTART_SUSPEND", "1")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=600"]);
    command
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// The version that would be installed, if there is one.
fn candidate(package: &str) -> Option<String> {
    let policy =
        process::output_of(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package])).ok()?;
    parse_candidate(&policy)
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_not_to_be_had() {
        let known =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(parse_candidate(known).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(parse_candidate("rustc-web:\n  Installed: 1.85\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None, "apt knows no such package");
    }

    #[test]
    fn only_what_a_simulated_installation_adds_is_unpacked() {
        let simulated = "Reading package lists...\nRemv qemu-utils [1:10.0]\n\
                         Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
                         Inst libc6 [2.36-9] (2.36-10 Debian:12.15/oldstable [amd64])\n\
                         Inst qemu-system-x86 (1:7.2 Debian:12.15/oldstable [amd64])\n\
                         Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(parse_new(simulated), ["libfdt1", "qemu-system-x86"]);
    }

    #[test]
    fn a_later_kernel_has_a_higher_number() {
        let mut names = ["linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names[1], "linux-image-6.1.0-50-cloud-amd64");
    }
}
