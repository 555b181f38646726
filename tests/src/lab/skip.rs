//! When a privileged test can't run: it says so, and is counted as skipped
//! instead of passing silently. `cargo xtask test` does the counting.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::cards;

/// The file that a skipped test leaves a line in, for whoever counts.
pub const SKIPS_ENV: &str = "VIP_TEST_SKIPS";

/// Why this process may not build a lab; `None` if it may.
#[must_use]
pub fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    // Root of a container may still be refused: try, on a thread that ends at once.
    let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    match tried {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(format!("can't make a network namespace: {e}")),
        Err(_) => Some("can't start a thread".to_owned()),
    }
}

/// What a test needs of its host besides programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// The right to make network namespaces.
    Namespaces,
}

/// Whether the test `name` has to be left out here, for want of `need` or of one of
/// `others`; says so on stderr and in the file named by [`SKIPS_ENV`]. Another need is a
/// program, or `link KIND`: that the kernel has interfaces of this kind of `ip link`, or
/// `cards`: a pair of real ones for each of three nodes, or `standby card`: one with a standby.
///
/// # Panics
/// When that file can't be written: a skip that nobody counts would look like
/// a pass.
#[must_use]
pub fn is_skipped(name: &str, need: Need, others: &[&str]) -> bool {
    let lacks_right = match need {
        Need::Nothing => None,
        Need::Namespaces => lacking(),
    };
    let lacks = lacks_right.or_else(|| {
        others.iter().find_map(|other| match other.strip_prefix("link ") {
            Some(kind) => (!has_link(kind)).then(|| format!("needs a kernel with interfaces of type {kind}")),
            None if *other == "cards" => {
                (!cards::are_here()).then(|| "needs cards of `cargo xtask vm`".to_owned())
            }
            None if *other == "standby card" => {
                cards::with_standby().is_none().then(|| "needs a card of `cargo xtask vm`".to_owned())
            }
            None => (!is_installed(other)).then(|| format!("needs {other}")),
        })
    });
    if let Some(why) = &lacks {
        note(name, why);
    }
    lacks.is_some()
}

/// Makes an interface of this kind, in a namespace that ends with the attempt.
fn has_link(kind: &str) -> bool {
    let tried = std::thread::spawn({
        let kind = kind.to_owned();
        move || {
            unshare(CloneFlags::CLONE_NEWNET).is_ok()
                && ip("link add below type veth peer name other")
                && (ip(&format!("link add above type {kind}"))
                    || ip(&format!("link add above type {kind} table 2"))
                    // Kinds that sit on another one. VLANs want a number, and VRFs a table.
                    || ip(&format!("link add link below name above type {kind}"))
                    || ip(&format!("link add link below name above type {kind} id 2")))
        }
    });
    tried.join().unwrap_or(false)
}

fn ip(args: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(args.split_ascii_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Says that the test `name` is left out here and why, on stderr and in the
/// file named by [`SKIPS_ENV`].
///
/// # Panics
/// As [`is_skipped`].
pub fn note(name: &str, why: &str) {
    let line = format!("skipped: {name}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIPS_ENV) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "cannot write to {}: {written:?}", path.display());
    }
}
