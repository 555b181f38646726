//! When a privileged test can't run: it says so, and is counted as skipped
//! instead of passing silently. `cargo xtask test` does the counting.

use std::io::Write;

use nix::sched::{CloneFlags, unshare};

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

/// True if the test `name` has to be left out here; says so on stderr and in
/// the file named by [`SKIPS_ENV`].
///
/// # Panics
/// When that file can't be written: a skip that nobody counts would look like
/// a pass.
#[must_use]
pub fn skipped(name: &str) -> bool {
    let Some(why) = lacking() else { return false };
    note(name, &why);
    true
}

/// True if the test `name` has to be left out for want of the program `tool`; said as by [`skipped`].
///
/// # Panics
/// As there.
#[must_use]
pub fn skipped_without(name: &str, tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if !there {
        note(name, &format!("needs {tool}"));
    }
    !there
}

/// Says that the test `name` is left out here and why, on stderr and in the
/// file named by [`SKIPS_ENV`].
///
/// # Panics
/// As [`skipped`].
pub fn note(name: &str, why: &str) {
    let line = format!("skipped: {name}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os(SKIPS_ENV) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "can't write to {}: {written:?}", path.display());
    }
}
