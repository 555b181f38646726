//! `cargo xtask setup`: the tools that building and the lab need, found or
//! installed. Every other verb calls [`ensure`] first; when nothing is missing
//! that takes well under a second and prints nothing.
//!
//! The order in which compilers are tried is [`rustc`]'s, linkers are
//! [`linker`]'s, packages are [`apt`]'s. Nothing is ever removed, and nothing is
//! installed without a line that says so first.

mod apt;
mod linker;
mod rustc;
mod rustup;
mod vm;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

pub(crate) use self::{rustc::Rustc, vm::VmTools};
use crate::{
    place::{Place, find_in_path, is_executable},
    process,
};

/// Little-endian BPF: all that the kernels we support run on.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

/// The package that brings `ip`, on Debian and its kin.
const IPROUTE: &str = "iproute2";

/// What some tests take, as package, program and purpose. Where it is not to be
/// had, they say so and count as skipped.
const FOR_TESTS: [(&str, &str, &str); 6] = [
    ("debootstrap", "debootstrap", "a clean Debian to install the package on"),
    ("chromium", "chromium", "a browser to test the panel in"),
    ("nftables", "nft", "a firewall, and the NAT of containers"),
    ("conntrack", "conntrack", "a look at the connections that a host knows"),
    ("zsh", "zsh", "a shell to test completions in"),
    ("fish", "fish", "a shell to test completions in"),
];

/// The C compiler's wrapper that static programs are built with, and its package.
const MUSL: (&str, &str) = ("musl-gcc", "musl-tools");

/// What the verb at hand is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build only.
    Build,
    /// Build, and run network namespaces.
    Lab,
    /// All that, format and lint, and what only some tests take.
    Ci,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// The compiler of the BPF side.
    pub(crate) rustc: Rustc,
    /// bpf-linker, by absolute path; it links what this rustc emits.
    pub(crate) linker: PathBuf,
    /// llvm-strip, if there is one: the object is loadable without, but larger.
    pub(crate) strip: Option<PathBuf>,
}

/// `cargo xtask setup`.
///
/// # Errors
/// When something is missing and cannot be installed; the message says what to run.
pub(crate) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let tools = ensure(place, Need::Lab)?;
    println!("rustc for BPF  {} ({})", tools.rustc.path.display(), tools.rustc.describe());
    println!("bpf-linker     {}", tools.linker.display());
    match &tools.strip {
        Some(strip) => println!("llvm-strip     {}", strip.display()),
        None => println!("llvm-strip     none: the BPF object works, but stays larger"),
    }
    if let Some(ip) = find_in_path("ip") {
        println!("ip             {}", ip.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The tools, after installing what was missing.
///
/// # Errors
/// When something is missing and cannot be installed; the message says what to run.
pub(crate) fn ensure(place: &Place, need: Need) -> anyhow::Result<Tools> {
    let lab = match need {
        Need::Build => false,
        Need::Lab | Need::Ci => true,
    };
    let tools = match present(place)? {
        Some(tools) if !lab || find_in_path("ip").is_some() => tools,
        Some(_) | None => {
            let _lock = lock(place)?;
            // Another setup may have brought everything while we waited.
            let tools = match present(place)? {
                Some(tools) => tools,
                None => install(place)?,
            };
            if lab && find_in_path("ip").is_none() {
                apt::install(place, &[IPROUTE], "the lab's network namespaces")
                    .context("`ip` is missing: install iproute2")?;
            }
            tools
        }
    };
    if need == Need::Ci {
        rustup::add_linters(place)?;
        for (package, program, purpose) in FOR_TESTS {
            if find_in_path(program).is_some() {
                continue;
            }
            let _lock = lock(place)?;
            if let Err(error) = apt::install(place, &[package], purpose) {
                process::check_stop()?;
                eprintln!("setup: {error:#}; tests that need {program} will be skipped");
            }
        }
    }
    Ok(tools)
}

/// What a program that needs no C library of the host's is built with: Rust's
/// `target`, and a C compiler for it.
///
/// # Errors
/// When something is missing and cannot be installed; the message says what to run.
pub(crate) fn ensure_static(place: &Place, target: &str) -> anyhow::Result<()> {
    let sysroot = process::output_of(Command::new("rustc").args(["--print", "sysroot"]))?;
    let (program, package) = MUSL;
    let has_target = || Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir();
    if has_target() && find_in_path(program).is_some() {
        return Ok(());
    }
    let _lock = lock(place)?;
    if !has_target() {
        rustup::add_target(place, target).with_context(|| {
            format!("Rust's target {target} is missing: run `rustup target add {target}`")
        })?;
    }
    if find_in_path(program).is_none() {
        apt::install(place, &[package], "a C compiler for static programs")
            .with_context(|| format!("`{program}` is missing: install {package}"))?;
    }
    Ok(())
}

/// What virtual machines take; `cargo xtask vm` alone needs it.
///
/// # Errors
/// When something is missing and cannot be downloaded; the message says what.
pub(crate) fn ensure_vm(place: &Place) -> anyhow::Result<VmTools> {
    let _lock = lock(place)?;
    vm::ensure(place)
}

/// Debian's newest kernel of a line such as 6.1: the directory that its package is
/// unpacked in. [`ensure_vm`] has to come before it.
///
/// # Errors
/// When no package mirror carries one, or it cannot be downloaded.
pub(crate) fn ensure_kernel(place: &Place, line: &str) -> anyhow::Result<PathBuf> {
    let _lock = lock(place)?;
    vm::ensure_kernel(place, line)
}

/// What is there already, as a pair of compiler and linker that fit.
fn present(place: &Place) -> anyhow::Result<Option<Tools>> {
    Ok(fitting_pair(place, &rustc::find()?.usable)?.map(with_strip))
}

fn fitting_pair(place: &Place, rustcs: &[Rustc]) -> anyhow::Result<Option<(Rustc, PathBuf)>> {
    let linkers = linker::candidates(place)?;
    for rustc in rustcs {
        for linker in &linkers {
            process::check_stop()?;
            if linker::trial(place, rustc, linker)?.is_none() {
                return Ok(Some((rustc.clone(), linker.clone())));
            }
        }
    }
    Ok(None)
}

fn with_strip((rustc, linker): (Rustc, PathBuf)) -> Tools {
    let strip = find_strip(&rustc);
    Tools { rustc, linker, strip }
}

/// llvm-strip, preferably of the LLVM that the compiler has.
fn find_strip(rustc: &Rustc) -> Option<PathBuf> {
    let versioned = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-strip", rustc.llvm));
    if is_executable(&versioned) { Some(versioned) } else { find_in_path("llvm-strip") }
}

/// A way to come by a compiler, cheapest and closest to the user's habits first.
#[derive(Debug, Clone, Copy)]
enum Way {
    AsItIs,
    SourceForNightly,
    Packages,
    Nightly,
}

impl Way {
    const ALL: [Self; 4] = [Self::AsItIs, Self::SourceForNightly, Self::Packages, Self::Nightly];

    fn go(self, place: &Place) -> anyhow::Result<()> {
        match self {
            Self::AsItIs => Ok(()),
            Self::SourceForNightly => rustup::add_source(place),
            Self::Packages => apt::install_rustc(place),
            Self::Nightly => rustup::install_nightly(place),
        }
    }
}

/// Installs until a compiler and a linker fit. A way that does not work here is
/// told and the next one tried: which one does is the machine's secret.
fn install(place: &Place) -> anyhow::Result<Tools> {
    let mut obstacles = Vec::new();
    // Who names a compiler wants no other.
    let ways = if std::env::var_os(rustc::VARIABLE).is_some() { &Way::ALL[..1] } else { &Way::ALL[..] };
    for way in ways {
        let went = way.go(place);
        process::check_stop()?;
        if let Err(error) = went {
            obstacles.push(format!("{error:#}"));
            continue;
        }
        let found = rustc::find()?;
        if matches!(way, Way::AsItIs) {
            obstacles.extend(found.rejected);
        }
        if let Some(pair) = fitting_pair(place, &found.usable)? {
            return Ok(with_strip(pair));
        }
        for rustc in found.usable {
            let installed = linker::install(place, &rustc);
            process::check_stop()?;
            match installed {
                Ok(linker) => return Ok(with_strip((rustc, linker))),
                Err(error) => obstacles.push(format!("{error:#}")),
            }
        }
    }
    for obstacle in &obstacles {
        eprintln!("setup: {obstacle}");
    }
    bail!(
        "cannot find or install a compiler and a linker for BPF: with rustup, run \
         `rustup toolchain install nightly --profile minimal --component rust-src`, and put bpf-linker \
         {} of the same LLVM version into PATH (CONTRIBUTING.md, \"Tools\")",
        linker::VERSION
    )
}

/// Held while installing, so that two setups do not install the same thing at
/// once. The kernel drops it when we end, however we end.
fn lock(place: &Place) -> anyhow::Result<File> {
    let path = place.tools().join("setup.lock");
    fs::create_dir_all(place.tools())
        .with_context(|| format!("cannot create {}", place.tools().display()))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    eprintln!("setup: another setup is installing; waiting for it");
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Takes away what a user's environment may say about his own builds and what
/// would give the BPF side another compiler, other flags or another place.
pub(crate) fn shield(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(interferes) {
            command.env_remove(name);
        }
    }
    // Empty means none, also where ~/.cargo/config.toml names a wrapper.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "")
}

fn interferes(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        // `cargo run` puts its own toolchain's libraries first.
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const PREFIXES: &[&str] = &["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_"];
    NAMES.contains(&name)
        || (name != "CARGO_BUILD_JOBS" && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Whether the finished object carries type information, which the kernel and
/// `vip-ctl` ask for and a linker or strip of the wrong kind loses.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn has_btf(object: &Path) -> anyhow::Result<bool> {
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    // Section names stand in the object as strings that end in NUL, and one that
    // ends like another (`.rel.BTF`) may stand for both.
    Ok(bytes.windows(5).any(|window| window == b".BTF\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_flags_interfere_and_his_number_of_jobs_does_not() {
        for name in ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_LTO", "RUSTUP_TOOLCHAIN"] {
            assert!(interferes(name), "{name}");
        }
        for name in ["CARGO_BUILD_JOBS", "PATH", "CARGO_HOME", "HTTPS_PROXY"] {
            assert!(!interferes(name), "{name}");
        }
    }

    #[test]
    fn a_second_setup_waits_for_the_first() {
        let root = std::env::temp_dir().join(format!("vip-xtask-lock-{}", std::process::id()));
        let place = Place::at(&root);
        let first = lock(&place).expect("nobody else has it");
        let second = File::open(place.tools().join("setup.lock")).expect("the file is there");
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        second.try_lock().expect("free again");
        fs::remove_dir_all(&root).expect("removed");
    }
}
