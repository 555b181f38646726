//! Debian's kernels: which of their packages is the newest that the package
//! mirrors carry, and where it is unpacked. Downloading is [`crate::setup`]'s.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{place::Place, setup};

/// A line of kernels that Debian maintains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's own: gates are filters of clsact.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has among its updates: gates are tcx programs.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub(super) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The unpacked package, downloaded unless it is there.
    ///
    /// # Errors
    /// When no package mirror carries such a kernel.
    pub(super) fn find(self, place: &Place) -> anyhow::Result<Unpacked> {
        let dir = setup::ensure_kernel(place, &self.to_string())?;
        Unpacked::at(dir)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

/// A kernel's package, unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    root: PathBuf,
    /// Its name for itself, as `uname -r` prints it.
    release: String,
}

impl Unpacked {
    fn at(root: PathBuf) -> anyhow::Result<Self> {
        let modules = root.join("lib/modules");
        let entry = fs::read_dir(&modules)
            .with_context(|| format!("cannot read {}", modules.display()))?
            .next()
            .with_context(|| format!("{} is empty: remove {}", modules.display(), root.display()))??;
        let release = entry.file_name().into_string().ok().context("a kernel's name is not UTF-8")?;
        Ok(Self { root, release })
    }

    pub(super) fn release(&self) -> &str {
        &self.release
    }

    pub(super) fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The directory that `modprobe` looks in, below `/`.
    pub(super) fn modules(&self) -> PathBuf {
        Path::new("lib/modules").join(&self.release)
    }

    /// The unpacked package's top directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}
