//! Where things are: the workspace, its target directory, the cargo that runs
//! us. Knows paths only; running programs is [`crate::process`]'s.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// The workspace that this xtask was compiled from.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    /// Finds the workspace.
    ///
    /// # Errors
    /// When the directory that xtask was compiled in is gone.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // At run time, cargo names the directory of the clone that is in use
        // now; the compiled-in one would be wrong after the clone was moved.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask has no parent directory")?;
        let root = fs::canonicalize(root).with_context(|| {
            format!(
                "the workspace {} is gone: run `cargo xtask` inside the clone that is in use now",
                root.display()
            )
        })?;
        Ok(Self { root })
    }

    /// A place with another root, for tests on a tree of their own.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The workspace's top directory, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Tools that setup made for this clone, and their logs.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// Cargo's target directory for the BPF side. Apart from the host's, since
    /// another rustc and other flags would throw its contents away.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.root.join("target/bpf")
    }

    /// The finished BPF object. `vip-ctl/build.rs` looks for it here.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.bpf_target().join("vip-ebpf.o")
    }

    /// A cargo command in the workspace's root, on the toolchain that runs us.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        // What cargo tells xtask about itself is wrong for the packages that it
        // builds next, and would count as a change to some build scripts.
        for (name, _) in env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name == "CARGO_MANIFEST_DIR" || name.starts_with("CARGO_PKG_"))
            {
                command.env_remove(name);
            }
        }
        // The object that was just built is the one to embed.
        command.env_remove("VIP_EBPF_OBJECT");
        command
    }
}

/// The first executable file of this name in PATH, or where administrators'
/// tools are, which an ordinary user's PATH leaves out.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    all_in_path(name).into_iter().next()
}

/// Every executable file of this name, in the order of PATH.
pub(crate) fn all_in_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .filter(|file| is_executable(file))
        .collect()
}

/// Whether this is a file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we may install packages: /proc/self belongs to the effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
