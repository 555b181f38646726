//! Compilers that can build the BPF side: those that have the source of `core`,
//! of their own version. Finding only; [`super::rustup`] and [`super::apt`]
//! install.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::shield;
use crate::{
    place::{all_in_path, is_executable},
    process,
};

/// Names the compiler to use, instead of any that would be found.
pub(crate) const VARIABLE: &str = "VIP_BPF_RUSTC";

/// The workspace's `rust-version`: cargo refuses to build with less.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// A compiler that has its core source.
#[derive(Debug, Clone)]
pub(crate) struct Rustc {
    /// The compiler itself, absolute; never rustup's proxy, which would choose
    /// another one in another directory.
    pub(crate) path: PathBuf,
    /// The major version of its LLVM; the linker's must not be lower.
    pub(crate) llvm: u32,
    release: String,
    sysroot: PathBuf,
}

impl Rustc {
    /// For people: version and LLVM.
    pub(crate) fn describe(&self) -> String {
        format!("{}, LLVM {}", self.release, self.llvm)
    }

    /// The cargo that came with it, where it came by rustup: `-Z build-std` knows
    /// the layout of its own version's source. Elsewhere the neighbour may be
    /// of any age (Debian's `cargo` beside `rustc-web`).
    pub(crate) fn cargo(&self) -> Option<PathBuf> {
        let cargo = self.sysroot.join("bin/cargo");
        let from_rustup = self.sysroot.join("lib/rustlib/multirust-channel-manifest.toml").is_file();
        (from_rustup && is_executable(&cargo)).then_some(cargo)
    }

    /// The clippy of this very compiler, if it is installed: another one could not
    /// read the core that this one compiles.
    ///
    /// # Errors
    /// When a clippy is there and cannot be asked for its version.
    pub(crate) fn cargo_clippy(&self) -> anyhow::Result<Option<PathBuf>> {
        let [clippy, driver] = ["cargo-clippy", "clippy-driver"].map(|name| self.path.with_file_name(name));
        if !is_executable(&clippy) || !is_executable(&driver) {
            return Ok(None);
        }
        let printed = process::output_of(shield(&mut Command::new(driver)).args(["--rustc", "-vV"]))?;
        Ok((field(&printed, "release") == Some(&self.release)).then_some(clippy))
    }
}

/// What looking for compilers brought.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of preference.
    pub(crate) usable: Vec<Rustc>,
    /// One sentence for each that will not do.
    pub(crate) rejected: Vec<String>,
}

/// Looks for compilers: [`VARIABLE`] alone if it is set, else rustup's nightly,
/// rustup's others, those in PATH, the system's.
///
/// # Errors
/// When [`VARIABLE`] names something that will not do.
pub(crate) fn find() -> anyhow::Result<Found> {
    if let Some(named) = env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        return match inspect(&named) {
            Ok(rustc) => Ok(Found { usable: vec![rustc], rejected: Vec::new() }),
            Err(error) => Err(error.context(format!("cannot use {VARIABLE}={}", named.display()))),
        };
    }
    let mut found = Found::default();
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in candidates() {
        process::check_stop()?;
        let Ok(sysroot) = sysroot(&path) else { continue };
        if seen.contains(&sysroot) {
            continue;
        }
        seen.push(sysroot);
        match inspect(&path) {
            Ok(rustc) => found.usable.push(rustc),
            Err(error) => found.rejected.push(format!("{error:#}")),
        }
    }
    Ok(found)
}

fn candidates() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        super::rustup::toolchains().into_iter().map(|toolchain| toolchain.join("bin/rustc")).collect();
    paths.extend(all_in_path("rustc"));
    paths.extend(["/usr/bin/rustc", "/usr/local/bin/rustc"].map(PathBuf::from));
    // Ubuntu's versioned packages.
    let mut versioned: Vec<PathBuf> = fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rust-"))
        .map(|entry| entry.path().join("bin/rustc"))
        .collect();
    versioned.sort();
    paths.extend(versioned.into_iter().rev());
    paths.retain(|path| is_executable(path));
    paths
}

fn sysroot(rustc: &Path) -> anyhow::Result<PathBuf> {
    let printed = process::output_of(shield(&mut Command::new(rustc)).args(["--print", "sysroot"]))?;
    fs::canonicalize(printed.trim())
        .with_context(|| format!("cannot find the sysroot of {}", rustc.display()))
}

/// The compiler at this path, if it will do.
fn inspect(path: &Path) -> anyhow::Result<Rustc> {
    let sysroot = sysroot(path)?;
    let real = sysroot.join("bin/rustc");
    let path = if is_executable(&real) { real } else { fs::canonicalize(path)? };
    let source = sysroot.join("lib/rustlib/src/rust");
    if !source.join("library/core/src/lib.rs").is_file() {
        bail!("{} has no core source ({} is absent)", path.display(), source.join("library/core").display());
    }
    let printed = process::output_of(shield(&mut Command::new(&path)).arg("-vV"))?;
    let release =
        field(&printed, "release").with_context(|| format!("`{} -vV` prints no release", path.display()))?;
    let llvm = field(&printed, "LLVM version")
        .and_then(|version| version.split('.').next()?.parse().ok())
        .with_context(|| format!("`{} -vV` prints no LLVM version", path.display()))?;
    if version(release) < version(OLDEST) {
        bail!("{} is {release}, older than the {OLDEST} that vip needs", path.display());
    }
    if let Some(of) = source_version(&source)
        && version(&of) != version(release)
    {
        bail!("{} is {release}, but its core source is {of}'s", path.display());
    }
    Ok(Rustc { release: release.to_owned(), llvm, sysroot, path })
}

/// The version that a source tree says it has; rustup's component says none.
fn source_version(source: &Path) -> Option<String> {
    fs::read_to_string(source.join("src/version")).ok().map(|text| text.trim().to_owned())
}

fn field<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Major, minor and patch of what a compiler, a source tree or a package calls
/// its version; parts that are absent count as zero.
pub(super) fn version(text: &str) -> [u32; 3] {
    // A package's epoch stands before a colon.
    let text = text.split_once(':').map_or(text, |(_, rest)| rest);
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    [0; 3].map(|_: u32| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn versions_of_compilers_and_packages_compare() {
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), [1, 96, 0]);
        assert_eq!(version("1:22.1.8-1"), [22, 1, 8]);
        assert_eq!(version("1.97.0-nightly"), [1, 97, 0]);
        assert!(version("1.63.0+dfsg1-2") < version("1.95"));
        assert!(version("1.100.0") > version("1.95"));
    }

    /// A directory that looks like a compiler's, with a script for the compiler.
    fn sysroot_of(name: &str, release: &str, source: Option<&str>) -> PathBuf {
        let root = env::temp_dir().join(format!("vip-xtask-rustc-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("bin")).expect("created");
        let script = format!(
            "#!/bin/sh\ncase $1 in --print) echo {}; ;; *) printf 'release: {release}\\nLLVM version: 22.1.4\\n';; esac\n",
            root.display()
        );
        let rustc = root.join("bin/rustc");
        fs::write(&rustc, script).expect("written");
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).expect("made executable");
        if let Some(version) = source {
            let tree = root.join("lib/rustlib/src/rust");
            fs::create_dir_all(tree.join("library/core/src")).expect("created");
            fs::create_dir_all(tree.join("src")).expect("created");
            fs::write(tree.join("library/core/src/lib.rs"), "").expect("written");
            fs::write(tree.join("src/version"), version).expect("written");
        }
        root
    }

    #[test]
    fn a_compiler_needs_its_own_core_source_and_the_right_age() {
        let good = sysroot_of("good", "1.96.0", Some("1.96.0\n"));
        let rustc = inspect(&good.join("bin/rustc")).expect("complete");
        assert_eq!((rustc.llvm, rustc.release.as_str()), (22, "1.96.0"));
        assert_eq!(rustc.cargo(), None, "not rustup's");

        for (name, release, source, complaint) in [
            ("bare", "1.96.0", None, "no core source"),
            ("mixed", "1.96.0", Some("1.85.0"), "its core source is 1.85.0's"),
            ("old", "1.85.0", Some("1.85.0"), "older than"),
        ] {
            let root = sysroot_of(name, release, source);
            let error = inspect(&root.join("bin/rustc")).expect_err(name);
            assert!(format!("{error:#}").contains(complaint), "{name}: {error:#}");
            fs::remove_dir_all(&root).expect("removed");
        }
        fs::remove_dir_all(&good).expect("removed");
    }
}
