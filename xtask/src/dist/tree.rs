//! The files of a release, laid out as they are installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Release;
use crate::{place::Place, process};

/// Files of the workspace and where they go, compressed where Debian's policy
/// wants it.
const FILES: &[(&str, &str)] = &[
    ("packaging/vip-agent.service", "usr/lib/systemd/system/vip-agent.service"),
    ("packaging/vip-agent.default", "etc/default/vip-agent"),
    ("packaging/vip.toml", "usr/share/doc/vip/examples/vip.toml"),
    ("packaging/grafana-dashboard.json", "usr/share/doc/vip/examples/grafana-dashboard.json"),
    ("packaging/alerts.yaml", "usr/share/doc/vip/examples/alerts.yaml"),
    ("packaging/debian/copyright", "usr/share/doc/vip/copyright"),
    ("LICENSE-MIT", "usr/share/doc/vip/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/vip/LICENSE-APACHE"),
    ("README.md", "usr/share/doc/vip/README.md"),
    ("ARCHITECTURE.md", "usr/share/doc/vip/ARCHITECTURE.md"),
    ("CONTRIBUTING.md", "usr/share/doc/vip/CONTRIBUTING.md"),
    ("CHANGELOG.md", "usr/share/doc/vip/changelog"),
];

/// Where the completions of each shell go.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/vip-ctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_vip-ctl"),
    ("fish", "usr/share/fish/vendor_completions.d/vip-ctl.fish"),
];

const PROGRAM: &str = "usr/sbin/vip-ctl";
const MAN: &str = "usr/share/man/man8";
const DOCS: &str = "usr/share/doc/vip";

/// The laid out files.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Lays out everything below `root`, which is emptied first.
    pub(super) fn gather(place: &Place, release: &Release, root: &Path) -> anyhow::Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("cannot empty {}", root.display()))?;
        }
        let tree = Self(root.to_owned());
        tree.copy(&release.vip_ctl, PROGRAM, 0o755)?;
        let program = root.join(PROGRAM);
        // Without it the package is larger, and works.
        let _stripped = Command::new("strip").arg("--strip-unneeded").arg(&program).status();
        for (from, to) in FILES {
            tree.copy(&place.root().join(from), to, 0o644)?;
        }
        let docs = place.root().join("docs");
        for entry in fs::read_dir(&docs).with_context(|| format!("cannot list {}", docs.display()))? {
            let path = entry?.path();
            // The pages, and what they show and link to.
            if let Some(name) = path.file_name().and_then(|name| name.to_str())
                && path.is_file()
            {
                tree.copy(&path, &format!("{DOCS}/docs/{name}"), 0o644)?;
            }
        }
        for (shell, to) in COMPLETIONS {
            let script = process::output_of(Command::new(&program).args(["completions", shell]))?;
            tree.write(&script, to)?;
        }
        let man = root.join(MAN);
        process::output_of(Command::new(&program).arg("man").arg(&man))?;
        let mut pages: Vec<_> = fs::read_dir(&man)?
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        pages.push(root.join(DOCS).join("changelog"));
        process::output_of(Command::new("gzip").args(["--best", "--no-name", "--force"]).args(&pages))?;
        tree.allow_reading(root)?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> anyhow::Result<()> {
        let to = self.made(to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    fn write(&self, text: &str, to: &str) -> anyhow::Result<()> {
        let to = self.made(to)?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))
    }

    /// The path of a file to be, in a directory that is there.
    fn made(&self, file: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(file);
        let dir = path.parent().with_context(|| format!("{} is in no directory", path.display()))?;
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(path)
    }

    /// Whatever the umask of whoever packs: everybody may read.
    fn allow_reading(&self, path: &Path) -> anyhow::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let mode = meta.permissions().mode();
        let wanted = if meta.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
        if meta.is_dir() {
            for entry in fs::read_dir(path)? {
                self.allow_reading(&entry?.path())?;
            }
        }
        Ok(())
    }
}
