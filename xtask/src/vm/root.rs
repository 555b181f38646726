//! The first root of a virtual machine, which stays the only one: busybox, what
//! the lab calls, the programs under test, the kernel's modules for networks.
//! What runs in it first is `init.sh`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{
    archive::Archive,
    machine::{ENDED, Machine, UP},
};
use crate::{place::find_in_path, process};

/// The first program.
const INIT: &str = include_str!("init.sh");

/// What `init.sh` and the lab take from busybox. No more: a test that needs a
/// program would take busybox's way of it for the program.
const APPLETS: [&str; 12] =
    ["cat", "grep", "lsmod", "mkdir", "modprobe", "mount", "rm", "sed", "sh", "sleep", "stty", "timeout"];

/// What the lab cannot do without.
const NEEDED: [&str; 2] = ["ip", "tc"];
/// What single tests need, which are skipped where this machine lacks it.
const WELCOME: [&str; 5] = ["bridge", "conntrack", "nft", "setpriv", "ss"];

/// The modules that are brought along, below the kernel's own directory, and
/// those below them that drive hardware.
const MODULES: [&str; 7] = ["net", "drivers/net", "drivers/virtio", "lib", "crypto", "arch", "fs/overlayfs"];
const HARDWARE: [&str; 3] = ["ethernet", "wireless", "phy"];

/// Where the programs under test are.
const OURS: &str = "vip";

/// Writes the archive to a file in `scratch`. `programs` are the lab and vip-ctl.
///
/// # Errors
/// When a program or a library is missing, or a file cannot be read or written.
pub(super) fn make(
    machine: &Machine,
    [lab, vip_ctl]: [&Path; 2],
    filter: &[String],
    limit: Duration,
    scratch: &Path,
) -> anyhow::Result<PathBuf> {
    let file = scratch.join("root.cpio");
    let out = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut root = Root::new(Archive::new(BufWriter::new(out)));
    for dir in ["dev", "proc", "root", "run", "sbin", "sys", "tmp", "var"] {
        root.directory(Path::new(dir))?;
    }
    let settings = format!("UP='{UP}'\nENDED='{ENDED}'\nLIMIT={}\n", limit.as_secs());
    root.content("vip/settings", settings.as_bytes())?;
    root.content("vip/tests", filter.join("\n").as_bytes())?;
    root.content("init", INIT.as_bytes())?;

    root.file("bin/busybox", &machine.tools().busybox())?;
    for applet in APPLETS {
        root.archive.link(Path::new(&format!("bin/{applet}")), "busybox")?;
    }
    root.archive.link(Path::new("sbin/modprobe"), "../bin/busybox")?;

    let mut found = vec![];
    for name in NEEDED {
        found.push(machine.tools().program(name).with_context(|| format!("`{name}` is missing"))?);
    }
    found.extend(WELCOME.into_iter().filter_map(|name| machine.tools().program(name)));
    for program in &found {
        let name = program.file_name().context("a program without a name")?;
        root.file(Path::new("usr/sbin").join(name), program)?;
    }
    for (name, program) in [("lab", lab), ("vip-ctl", vip_ctl)] {
        root.file(Path::new(OURS).join(name), &stripped(program, &scratch.join(name))?)?;
        found.push(program.to_owned());
    }
    for library in libraries(machine, &found)? {
        // The loader is asked for by its full path, the others by their names.
        let to = if library.starts_with("/lib64") {
            library.clone()
        } else {
            Path::new("/lib").join(library.file_name().context("a library without a name")?)
        };
        root.file(to, &library)?;
    }
    root.modules(machine)?;
    root.archive.finish().context("cannot finish the archive")?;
    Ok(file)
}

/// The archive, and which directories are in it.
struct Root<W: Write> {
    archive: Archive<W>,
    directories: BTreeSet<PathBuf>,
}

impl<W: Write> Root<W> {
    fn new(archive: Archive<W>) -> Self {
        Self { archive, directories: BTreeSet::new() }
    }

    fn directory(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() || path == Path::new("/") || self.directories.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.archive.directory(path)?;
        self.directories.insert(path.to_owned());
        Ok(())
    }

    fn content(&mut self, path: impl AsRef<Path>, content: &[u8]) -> anyhow::Result<()> {
        let path = path.as_ref();
        self.directory(path.parent().unwrap_or(path))?;
        Ok(self.archive.file(path, content)?)
    }

    fn file(&mut self, path: impl AsRef<Path>, from: &Path) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.content(path, &content)
    }

    fn modules(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let (root, below) = (machine.kernel().root(), machine.kernel().modules());
        for entry in list(&root.join(&below))? {
            if entry.is_file() {
                self.file(entry.strip_prefix(root)?, &entry)?;
            }
        }
        let mut dirs: Vec<PathBuf> =
            MODULES.iter().map(|dir| root.join(&below).join("kernel").join(dir)).collect();
        dirs.retain(|dir| dir.is_dir());
        while let Some(dir) = dirs.pop() {
            for entry in list(&dir)? {
                if !entry.is_dir() {
                    self.file(entry.strip_prefix(root)?, &entry)?;
                } else if !HARDWARE.iter().any(|name| entry.ends_with(Path::new("net").join(name))) {
                    dirs.push(entry);
                }
            }
        }
        Ok(())
    }
}

fn list(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// The program without debug information, which is most of it; itself where
/// there is no strip.
fn stripped(program: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let Some(strip) = find_in_path("strip").or_else(|| find_in_path("llvm-strip")) else {
        return Ok(program.to_owned());
    };
    process::output_of(Command::new(strip).arg("-g").arg("-o").arg(to).arg(program))?;
    Ok(to.to_owned())
}

/// The libraries that the programs need, the loader among them.
fn libraries(machine: &Machine, programs: &[PathBuf]) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let mut ldd = machine.tools().with_libraries("ldd");
        let said = process::output_of(ldd.arg(program))?;
        let missing: Vec<&str> = said.lines().filter(|line| line.ends_with("not found")).collect();
        if !missing.is_empty() {
            bail!("{} lacks {}", program.display(), missing.join(","));
        }
        found.extend(parse_ldd(&said));
    }
    Ok(found)
}

/// A line is `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or for the loader only a path.
fn parse_ldd(said: &str) -> impl Iterator<Item = PathBuf> {
    said.lines().filter_map(|line| {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path).trim();
        let path = path.split(" (").next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_paths() {
        let said = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = parse_ldd(said).collect();
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_directory_comes_once_and_after_its_parents() {
        let mut root = Root::new(Archive::new(Vec::new()));
        root.content("a/b/one", b"1").expect("written");
        root.content("a/b/two", b"2").expect("written");
        let bytes = root.archive.finish().expect("written");
        let text = String::from_utf8_lossy(&bytes);
        let names = ["a\0", "a/b\0", "a/b/one\0", "a/b/two\0"].map(|name| text.match_indices(name).next());
        let at: Vec<usize> = names.into_iter().map(|found| found.expect("it is there").0).collect();
        assert!(at.is_sorted(), "{at:?}");
        assert_eq!(text.matches("070701").count(), 5);
    }
}
