//! What rustup has and can add. Toolchains are looked up on disk, since asking
//! rustup starts a process for each; only installing goes through it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    place::{Place, find_in_path},
    process,
};

/// Directories of the installed toolchains, nightly first.
pub(super) fn toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")));
    let Some(home) = home else { return Vec::new() };
    let mut toolchains: Vec<PathBuf> = fs::read_dir(home.join("toolchains"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    toolchains.sort_by_key(|path| (!is_nightly(path), path.clone()));
    toolchains
}

fn name(toolchain: &Path) -> String {
    toolchain.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_nightly(toolchain: &Path) -> bool {
    name(toolchain).starts_with("nightly")
}

/// Adds the core source to an installed nightly.
///
/// # Errors
/// When there is no rustup or no nightly, or rustup cannot.
pub(super) fn add_source(place: &Place) -> anyhow::Result<()> {
    let Some(nightly) = toolchains().into_iter().find(|path| is_nightly(path)) else {
        bail!("rustup has no nightly toolchain to add the core source to")
    };
    let mut command = rustup()?;
    command.args(["component", "add", "rust-src", "--toolchain", &name(&nightly)]);
    eprintln!("setup: installing rust-src for rustup's {} (the source of core)", name(&nightly));
    process::run_logged("setup: rustup", &mut command, &place.tools().join("rustup.log"))
}

/// Installs a nightly toolchain with its core source.
///
/// # Errors
/// When there is no rustup, or it cannot.
pub(super) fn install_nightly(place: &Place) -> anyhow::Result<()> {
    let mut command = rustup()?;
    command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    eprintln!("setup: installing rustup's nightly toolchain with rust-src");
    process::run_logged("setup: rustup", &mut command, &place.tools().join("rustup.log"))
}

/// Adds what formats and lints to the toolchain that runs us, if it is absent:
/// rustup's minimal profile leaves it out.
///
/// # Errors
/// When something is absent and rustup cannot add it.
pub(super) fn add_linters(place: &Place) -> anyhow::Result<()> {
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if process::output_of(place.cargo().args([verb, "--version"])).is_ok() {
            continue;
        }
        let mut command =
            rustup().with_context(|| format!("`cargo {verb}` is missing: install {component}"))?;
        command.args(["component", "add", component]);
        eprintln!("setup: installing {component} by rustup (`cargo {verb}`)");
        process::run_logged("setup: rustup", &mut command, &place.tools().join("rustup.log"))?;
    }
    Ok(())
}

/// Adds a target to the toolchain that runs us.
///
/// # Errors
/// When there is no rustup, or it cannot.
pub(super) fn add_target(place: &Place, target: &str) -> anyhow::Result<()> {
    let mut command = rustup()?;
    command.args(["target", "add", target]);
    eprintln!("setup: installing {target} by rustup (Rust's library for static programs)");
    process::run_logged("setup: rustup", &mut command, &place.tools().join("rustup.log"))
}

fn rustup() -> anyhow::Result<Command> {
    match find_in_path("rustup") {
        Some(rustup) => Ok(Command::new(rustup)),
        None => bail!("there is no rustup in PATH"),
    }
}
