//! A network namespace of the lab: made, entered by threads, handed to child
//! processes, deleted. What is inside one is not this module's business.
//!
//! Children enter with setns between fork and exec, never through
//! `ip netns exec`: that one remounts /sys and hides the BPF filesystem.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use super::cleanup;

/// Where iproute2 keeps named namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// A named network namespace. It outlives this handle: `cleanup` deletes it.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `name`, with its loopback up and without IPv6.
    ///
    /// IPv6 is off because its autoconfiguration changes `ip addr` by itself
    /// whenever a carrier comes back, and the lab compares that output.
    ///
    /// # Errors
    /// When `ip` is missing, or not allowed to.
    pub fn create(name: &str) -> Result<Self> {
        run(tool("ip")?.args(["netns", "add", name]))?;
        let ns = Self { name: name.to_owned() };
        ns.enter(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                if Path::new(&path).exists() {
                    std::fs::write(&path, "1").with_context(|| format!("writing {path}"))?;
                }
            }
            Ok::<(), anyhow::Error>(())
        })??;
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Its name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, e.g. for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("opening namespace {}", self.name))
    }

    /// Runs `f` on a thread of its own inside the namespace and waits for it.
    /// A socket that `f` returns stays in the namespace.
    ///
    /// # Errors
    /// When the namespace is gone, or entering it is not allowed.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(f())
            });
            match inside.join() {
                Ok(result) => result.with_context(|| format!("entering namespace {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts `f` on a thread named `thread` inside the namespace.
    ///
    /// # Errors
    /// When the namespace is gone, or the thread can't be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        thread: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = self.open()?;
        let name = self.name.clone();
        std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering namespace {name}"))?;
                Ok(f())
            })
            .with_context(|| format!("starting thread {thread}"))
    }

    /// A command that will run inside the namespace, in a process group of its
    /// own so that the terminal's Ctrl-C reaches only the lab's owner.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.inside(program)?;
        command.process_group(0).stdin(Stdio::null());
        Ok(command)
    }

    /// A command that will run inside the namespace, in a session of its own
    /// whose terminal is its standard input.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn session(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.inside(program)?;
        // SAFETY: between fork and exec the closure makes two system calls,
        // one of them on the standard input, and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    -1 => Err(std::io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        Ok(command)
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call on a
        // descriptor that it owns, and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        Ok(command)
    }

    /// Runs `ip` with these arguments (split at blanks) inside the namespace;
    /// what it printed.
    ///
    /// # Errors
    /// When `ip` is missing or fails; the message has what it said.
    pub fn ip(&self, args: &str) -> Result<String> {
        tool("ip")?;
        run(self.command("ip")?.args(args.split_ascii_whitespace()))
    }

    /// The hardware address of an interface, as `ip` writes it.
    ///
    /// # Errors
    /// When it has none.
    pub fn mac(&self, interface: &str) -> Result<String> {
        let shown = self.ip(&format!("link show {interface}"))?;
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        mac.map(str::to_owned).with_context(|| format!("{interface} has no hardware address"))
    }

    /// Runs several `ip` commands, one a line, in one process.
    ///
    /// # Errors
    /// As [`Netns::ip`]; stops at the first that fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        tool("ip")?;
        let mut command = self.command("ip")?;
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Until it has ended: what it makes must be there when a clean-up looks.
        let _gate = cleanup::gate()?;
        let mut child = command.spawn().context("starting ip")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).context("writing to ip")?;
        }
        let output = child.wait_with_output().context("waiting for ip")?;
        checked("ip -batch", &output).map(drop).with_context(|| format!("the batch was:\n{lines}"))
    }

    /// Takes the interface `link` out of this process's namespace into this one, as `name`.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses to move it.
    pub fn adopt(&self, link: &str, name: &str) -> Result<()> {
        let _gate = cleanup::gate()?;
        run(tool("ip")?.args(["link", "set", link, "netns", &self.name, "name", name])).map(drop)
    }
}

/// A command for an external tool that the lab assumes to be there.
///
/// # Errors
/// One sentence that names the tool and its package when it is not on PATH.
pub(crate) fn tool(name: &str) -> Result<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|dir| dir.join(name).is_file()));
    if !found {
        bail!("`{name}` is not on PATH: the lab needs it (Debian package iproute2)");
    }
    Ok(Command::new(name))
}

/// Runs `command`, a short one, to its end; what it printed on stdout.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    // Until it has ended: what it makes must be there when a clean-up looks.
    let _gate = cleanup::gate()?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|e| {
        if e.kind() == ErrorKind::NotFound {
            anyhow!("{shown}: no such program")
        } else {
            anyhow!("{shown}: {e}")
        }
    })?;
    let output = child.wait_with_output().with_context(|| format!("waiting for {shown}"))?;
    checked(&shown, &output)
}

fn checked(shown: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
