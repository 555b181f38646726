//! Puts the BPF object where `vip-ctl` embeds it from: `$OUT_DIR/vip-ebpf.o`. It
//! only copies: compiling the object takes another compiler, and is the job of
//! `cargo xtask build`.

use std::{env, fs, path::PathBuf};

/// Names the object to embed, instead of the one that `cargo xtask build` made.
const VARIABLE: &str = "VIP_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(complaint) = embed() {
        println!("cargo::error={complaint}");
    }
}

fn embed() -> Result<(), String> {
    let object = env::var_os(VARIABLE).map_or_else(built_object, |named| Ok(PathBuf::from(named)))?;
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!("the BPF object {} cannot be read ({error}): run `cargo xtask build`", object.display())
    })?;
    if !is_bpf(&bytes) {
        return Err(format!("{} is no BPF object: run `cargo xtask build`", object.display()));
    }
    let target = PathBuf::from(variable("OUT_DIR")?).join("vip-ebpf.o");
    fs::write(&target, bytes).map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// Where `cargo xtask build` puts the object, whatever target directory is in
/// use.
fn built_object() -> Result<PathBuf, String> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("vip-ctl has no parent directory")?;
    Ok(root.join("target/bpf/vip-ebpf.o"))
}

fn variable(name: &str) -> Result<std::ffi::OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

/// A 64-bit ELF file for the BPF machine (EM_BPF, 247).
fn is_bpf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02") && bytes.get(18..20) == Some(&[247, 0])
}
