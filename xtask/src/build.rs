//! `cargo xtask build`: the BPF object, then the programs of the host that
//! embed it. Which compiler and linker is [`crate::setup`]'s to say.
//!
//! aya-build is not used: it insists on rustup's nightly and drops RUSTC.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    place::Place,
    process,
    setup::{self, BPF_TARGET, Need, Tools},
};

/// Package, binary and profile of the BPF object.
const BPF: [&str; 6] = ["-p", "vip-ebpf", "--bin", "vip-ebpf", "--profile", "ebpf"];

/// No compilation here takes as long; only a hung one does.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// Cargo's profile for vip-ctl; the BPF object is always optimised
    #[arg(long, default_value = "release")]
    profile: String,
    /// The same as `--profile release`, the default
    #[arg(long, conflicts_with = "profile")]
    release: bool,
}

/// What to do about warnings of the BPF side's compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warnings {
    /// Show them.
    Show,
    /// Fail on them.
    Deny,
}

/// `cargo xtask build`.
///
/// # Errors
/// When a tool is missing or something does not compile.
pub(crate) fn run(place: &Place, args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let profile = if args.release { "release" } else { &args.profile };
    let tools = setup::ensure(place, Need::Build)?;
    object(place, &tools, Warnings::Show)?;
    let [vip_ctl] = host_programs(place, profile, [["vip-ctl", "vip-ctl"]])?;
    println!("{}", place.bpf_object().display());
    println!("{}", vip_ctl.display());
    Ok(ExitCode::SUCCESS)
}

/// vip-ctl with the current data plane embedded: sets up, builds both sides and
/// gives the program's path.
///
/// # Errors
/// When a tool is missing or something does not compile.
pub(crate) fn vip_ctl(place: &Place) -> anyhow::Result<PathBuf> {
    let tools = setup::ensure(place, Need::Build)?;
    object(place, &tools, Warnings::Show)?;
    let [vip_ctl] = host_programs(place, "release", [["vip-ctl", "vip-ctl"]])?;
    Ok(vip_ctl)
}

/// Builds the BPF object and puts it where `vip-ctl/build.rs` looks for it.
///
/// # Errors
/// When it does not compile, or comes out without type information.
pub(crate) fn object(place: &Place, tools: &Tools, warnings: Warnings) -> anyhow::Result<()> {
    let mut command = bpf_cargo(place, tools);
    command.arg("build");
    bpf_arguments(place, tools, &mut command);
    if warnings == Warnings::Deny {
        // Not -D warnings, which would count as other flags and build all anew.
        // Cargo has this for good since 1.97; the variable is for those before.
        command.env("CARGO_UNSTABLE_WARNINGS", "true").args(["--config", "build.warnings=\"deny\""]);
    }
    if !process::run(&mut command)?.success() {
        bail!("cargo cannot build the BPF object with {}; its errors are above", tools.rustc.path.display());
    }
    let built = place.bpf_target().join(BPF_TARGET).join("ebpf/vip-ebpf");
    let finished = strip(place, tools, &built)?;
    if !setup::has_btf(&finished)? {
        bail!(
            "{} has no BTF: {} or llvm-strip dropped it; try another version of them",
            finished.display(),
            tools.linker.display()
        );
    }
    publish(&finished, &place.bpf_object())
}

/// Lints the BPF side with its own compiler's clippy; `None` if that has none.
///
/// # Errors
/// When clippy cannot be run.
pub(crate) fn clippy_object(place: &Place, tools: &Tools) -> anyhow::Result<Option<ExitStatus>> {
    let Some(cargo_clippy) = tools.rustc.cargo_clippy()? else { return Ok(None) };
    let cargo = bpf_cargo(place, tools);
    let mut command = Command::new(cargo_clippy);
    command.current_dir(place.root());
    setup::shield(&mut command);
    // It sets the wrapper itself; an empty one would hide it.
    command.env_remove("RUSTC_WORKSPACE_WRAPPER").env("CARGO", cargo.get_program()).arg("clippy");
    bpf_arguments(place, tools, &mut command);
    command.args(["--", "-D", "warnings"]);
    Ok(Some(process::run(&mut command)?))
}

/// The cargo that builds the BPF side.
fn bpf_cargo(place: &Place, tools: &Tools) -> Command {
    let mut command = match tools.rustc.cargo() {
        Some(cargo) => {
            let mut command = Command::new(cargo);
            command.current_dir(place.root());
            command
        }
        None => place.cargo(),
    };
    setup::shield(&mut command);
    command
}

fn bpf_arguments(place: &Place, tools: &Tools, command: &mut Command) {
    let linker = format!("-Clinker={}", tools.linker.display());
    // 0x1f separates flags, so that spaces in the linker's path are no matter.
    let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", &linker].join("\x1f");
    command
        .env("RUSTC", &tools.rustc.path)
        // A stable compiler takes -Z build-std only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .args(["--locked", "-Z", "build-std=core", "--target", BPF_TARGET])
        .args(BPF)
        .arg("--target-dir")
        .arg(place.bpf_target());
}

/// Drops debug information, which is most of the object; BTF stays.
fn strip(place: &Place, tools: &Tools, built: &Path) -> anyhow::Result<PathBuf> {
    let Some(strip) = &tools.strip else { return Ok(built.to_owned()) };
    // Named for this process: two builds at once must not share it.
    let stripped = place.bpf_target().join(format!("vip-ebpf.stripped-{}", std::process::id()));
    process::output_of(Command::new(strip).arg("-g").arg("-o").arg(&stripped).arg(built))?;
    if setup::has_btf(&stripped)? {
        return Ok(stripped);
    }
    fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
    Ok(built.to_owned())
}

/// Puts the object in its place, whole or not at all. One that has not changed
/// is left alone, so that vip-ctl is not built anew for its date.
fn publish(finished: &Path, object: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(finished).with_context(|| format!("cannot read {}", finished.display()))?;
    let scratch = object.with_extension(format!("new-{}", std::process::id()));
    if !fs::read(object).is_ok_and(|present| present == bytes) {
        fs::write(&scratch, &bytes).with_context(|| format!("cannot write {}", scratch.display()))?;
        fs::rename(&scratch, object).with_context(|| format!("cannot write {}", object.display()))?;
    }
    if finished.extension().is_some_and(|extension| extension.to_string_lossy().starts_with("stripped-")) {
        fs::remove_file(finished).with_context(|| format!("cannot remove {}", finished.display()))?;
    }
    Ok(())
}

/// What a program of the `tests` package needs that builds labs for people:
/// the tools, the BPF object, and the release builds of `vip-ctl` and of that
/// program, whose paths it gives in this order.
///
/// # Errors
/// When something is missing or does not compile.
pub(crate) fn lab_program(place: &Place, program: &str) -> anyhow::Result<[PathBuf; 2]> {
    let tools = setup::ensure(place, Need::Lab)?;
    object(place, &tools, Warnings::Show)?;
    host_programs(place, "release", [["vip-ctl", "vip-ctl"], ["vip-tests", program]])
}

/// Builds programs of the host, given as package and binary, in one go, and
/// gives their paths. The BPF object has to be there.
///
/// # Errors
/// When something does not compile.
pub(crate) fn host_programs<const N: usize>(
    place: &Place,
    profile: &str,
    programs: [[&str; 2]; N],
) -> anyhow::Result<[PathBuf; N]> {
    host_programs_with(place, profile, programs, &[])
}

/// [`host_programs`], with features of their packages.
///
/// # Errors
/// As there.
pub(crate) fn host_programs_with<const N: usize>(
    place: &Place,
    profile: &str,
    programs: [[&str; 2]; N],
    features: &[&str],
) -> anyhow::Result<[PathBuf; N]> {
    let mut command = place.cargo();
    command.args(["build", "--locked", "--profile", profile, "--message-format=json-render-diagnostics"]);
    for [package, bin] in programs {
        command.args(["-p", package, "--bin", bin]);
    }
    for feature in features {
        command.args(["--features", feature]);
    }
    let (status, artifacts) = artifacts(&mut command)?;
    if !status.success() {
        bail!("`{}` failed", process::spell(&command));
    }
    let mut paths = Vec::with_capacity(N);
    for [_, bin] in programs {
        let path = artifacts
            .iter()
            .find(|artifact| artifact.kind == "bin" && artifact.name == bin)
            .map(|artifact| artifact.executable.clone())
            .with_context(|| format!("cargo built no program {bin}"))?;
        paths.push(path);
    }
    paths.try_into().map_err(|_| anyhow::anyhow!("cargo built more or fewer programs than xtask asked for"))
}

/// A program that cargo made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The target's name.
    pub(crate) name: String,
    /// The target's kind: `lib`, `bin`, `test`, ….
    pub(crate) kind: String,
    /// The package's Cargo.toml.
    pub(crate) manifest: PathBuf,
    /// The program, absolute.
    pub(crate) executable: PathBuf,
}

/// Runs a cargo command that was told to write JSON, and gives the programs
/// that it made, whether or not all of them came to be.
///
/// # Errors
/// When cargo cannot be run.
pub(crate) fn artifacts(command: &mut Command) -> anyhow::Result<(ExitStatus, Vec<Artifact>)> {
    let mut printed = Vec::new();
    let status = process::run_streamed(command, BUILD_LIMIT, |bytes| printed.extend_from_slice(bytes))?;
    Ok((status, String::from_utf8_lossy(&printed).lines().filter_map(parse_artifact).collect()))
}

fn parse_artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if message.get("reason")?.as_str()? != "compiler-artifact" {
        return None;
    }
    let target = message.get("target")?;
    Some(Artifact {
        name: text(target.get("name")?)?,
        kind: text(target.get("kind")?.get(0)?)?,
        manifest: text(message.get("manifest_path")?)?.into(),
        executable: text(message.get("executable")?)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_are_artifacts() {
        let program = r#"{"reason":"compiler-artifact","manifest_path":"/v/vip-ctl/Cargo.toml","target":{"kind":["bin"],"name":"vip-ctl"},"executable":"/v/target/release/vip-ctl"}"#;
        assert_eq!(
            parse_artifact(program),
            Some(Artifact {
                name: "vip-ctl".into(),
                kind: "bin".into(),
                manifest: "/v/vip-ctl/Cargo.toml".into(),
                executable: "/v/target/release/vip-ctl".into(),
            })
        );
        for other in [
            r#"{"reason":"compiler-artifact","manifest_path":"/v/a/Cargo.toml","target":{"kind":["lib"],"name":"a"},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not json",
        ] {
            assert_eq!(parse_artifact(other), None, "{other}");
        }
    }

    #[test]
    fn an_unchanged_object_keeps_its_date() {
        let dir = std::env::temp_dir().join(format!("vip-xtask-build-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("created");
        let (built, object) = (dir.join("built"), dir.join("vip-ebpf.o"));
        fs::write(&built, "one").expect("written");
        publish(&built, &object).expect("published");
        let first = fs::metadata(&object).and_then(|meta| meta.modified()).expect("it is there");
        publish(&built, &object).expect("published");
        assert_eq!(fs::metadata(&object).and_then(|meta| meta.modified()).expect("it is there"), first);
        fs::write(&built, "two").expect("written");
        publish(&built, &object).expect("published");
        assert_eq!(fs::read(&object).expect("it is there"), b"two");
        assert_eq!(fs::read_dir(&dir).expect("listed").count(), 2, "nothing else is left");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
