//! bpf-linker: finding one, trying whether it links what a given compiler
//! emits, and compiling one. The compiler is [`super::rustc`]'s.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{BPF_TARGET, Rustc, apt, has_btf, shield};
use crate::{
    place::{Place, all_in_path, find_in_path, is_executable},
    process,
};

/// Names the linker to use, instead of any that would be found.
pub(crate) const VARIABLE: &str = "VIP_BPF_LINKER";

/// The version that is compiled when none is found.
pub(crate) const VERSION: &str = "0.13.0";

/// The LLVM versions that [`VERSION`] can be compiled with.
const LLVMS: [u32; 3] = [21, 22, 23];

/// The smallest BPF program: it needs no `core`, so it tries the linker in a
/// tenth of a second. Its language items are those of rustc 1.90 and later.
const TRIAL: &str = r#"#![feature(no_core, lang_items)]
#![no_core]
#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn trial() -> u32 {
    2
}
"#;

/// Linkers that are there: [`VARIABLE`] alone if it is set, else those in PATH,
/// then our own.
///
/// # Errors
/// When [`VARIABLE`] names no program.
pub(super) fn candidates(place: &Place) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(named) = env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        if !is_executable(&named) {
            bail!("{VARIABLE}={} is not an executable file", named.display());
        }
        return Ok(vec![std::path::absolute(named)?]);
    }
    let mut linkers = all_in_path("bpf-linker");
    linkers.extend(Some(own(place)).filter(|path| is_executable(path)));
    Ok(linkers)
}

fn own(place: &Place) -> PathBuf {
    place.tools().join("bin/bpf-linker")
}

/// Links a program that this compiler emits: a linker with an older LLVM cannot
/// read it, and one whose libraries are gone does not start. `None` means that
/// it fits, or that this compiler is too new for the trial program to tell;
/// otherwise, the linker's complaint.
///
/// # Errors
/// When the trial cannot be made at all.
pub(super) fn trial(place: &Place, rustc: &Rustc, linker: &Path) -> anyhow::Result<Option<String>> {
    // Two setups may try at once.
    let dir = place.tools().join(format!("trial-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let result = trial_in(&dir, rustc, linker);
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    result
}

fn trial_in(dir: &Path, rustc: &Rustc, linker: &Path) -> anyhow::Result<Option<String>> {
    let source = dir.join("trial.rs");
    let object = dir.join("trial.o");
    fs::write(&source, TRIAL).with_context(|| format!("cannot write {}", source.display()))?;
    let output = shield(&mut Command::new(&rustc.path))
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--target", BPF_TARGET, "--crate-type", "cdylib", "--crate-name", "trial"])
        .args(["-C", "panic=abort", "-C", "debuginfo=2", "-C", "link-arg=--btf"])
        .arg("-C")
        .arg(format!("linker={}", linker.display()))
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", rustc.path.display()))?;
    if output.status.success() {
        return Ok((!has_btf(&object)?).then(|| format!("{} wrote no BTF", linker.display())));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Ok(complaint
        .contains("linking with")
        .then(|| format!("{} cannot link what {} emits", linker.display(), rustc.describe())))
}

/// Compiles a linker that fits this compiler into our own tools.
///
/// # Errors
/// When an LLVM that fits cannot be had, or compiling fails.
pub(super) fn install(place: &Place, rustc: &Rustc) -> anyhow::Result<PathBuf> {
    if env::var_os(VARIABLE).is_some() {
        bail!("{VARIABLE} names a linker that cannot link what {} emits", rustc.path.display());
    }
    let (llvm, prefix) = llvm_for(place, rustc)?;
    eprintln!(
        "setup: installing bpf-linker {VERSION} into target/tools (compiled with LLVM {llvm}; half a minute on two idle cores)"
    );
    let mut command = place.cargo();
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(place.tools());
    // The user's flags for his own programs are not this one's. The toolchain is
    // the one that runs us, whose cargo this is.
    shield(&mut command);
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    // Its work is done in LLVM's library: optimising the rest takes longer than
    // it ever saves here.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let scratch = place.tools().join("build");
    command.env("LLVM_PREFIX", &prefix).env("CARGO_TARGET_DIR", &scratch);
    process::run_logged("setup: compiling bpf-linker", &mut command, &place.tools().join("bpf-linker.log"))?;
    if let Some(complaint) = trial(place, rustc, &own(place))? {
        bail!("{complaint}, although setup has just compiled it for that");
    }
    // 0.3 GiB that nothing needs any more; if it stays, nothing breaks.
    let _kept = fs::remove_dir_all(&scratch);
    Ok(own(place))
}

/// An LLVM that reads what this compiler emits (its own version, or a later
/// one), with what compiling against it needs.
fn llvm_for(place: &Place, rustc: &Rustc) -> anyhow::Result<(u32, PathBuf)> {
    let fitting: Vec<u32> = LLVMS.into_iter().filter(|llvm| *llvm >= rustc.llvm).collect();
    let mut obstacles = Vec::new();
    for llvm in &fitting {
        if apt::available() {
            let brought = apt::install(
                place,
                &packages(*llvm).each_ref().map(String::as_str),
                "to compile bpf-linker with",
            );
            process::check_stop()?;
            if let Err(error) = brought {
                obstacles.push(format!("{error:#}"));
                continue;
            }
        }
        if let Some(prefix) = llvm_prefix(*llvm) {
            return Ok((*llvm, prefix));
        }
        obstacles.push(format!("there is no llvm-config of LLVM {llvm}"));
    }
    bail!(
        "{} emits code of LLVM {}, and setup cannot compile bpf-linker {VERSION} for that: {}",
        rustc.path.display(),
        rustc.llvm,
        if fitting.is_empty() { format!("it supports only LLVM {LLVMS:?}") } else { obstacles.join("; ") }
    )
}

/// What Debian calls the parts that compiling bpf-linker takes.
fn packages(llvm: u32) -> [String; 4] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "zlib1g-dev".into(), "libzstd-dev".into()]
}

/// Where an LLVM of this major version is installed.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-config"));
    let configs = Some(debian)
        .filter(|path| is_executable(path))
        .into_iter()
        .chain(find_in_path(&format!("llvm-config-{llvm}")))
        .chain(find_in_path("llvm-config"));
    for config in configs {
        let ask = |flag: &str| process::output_of(Command::new(&config).arg(flag)).ok();
        let of = ask("--version").and_then(|text| text.trim().split('.').next()?.parse::<u32>().ok());
        if of == Some(llvm) {
            return ask("--prefix").map(|text| PathBuf::from(text.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_carry_the_version_they_are_for() {
        assert_eq!(packages(22), ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"]);
    }
}
