//! An agent that goes on as another program, for an upgrade: it leaves its
//! leases as they are and becomes, in the same process, the `vip-ctl` that is
//! installed now. What it holds the next one finds in the maps.

use std::{
    convert::Infallible,
    env, fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why serving ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A signal said so, or the lease loop has ended.
    Stop,
    /// This program, installed meanwhile, is to go on in this process.
    Replace(PathBuf),
}

/// What Linux adds to the path of a program whose file was replaced.
const DELETED: &str = " (deleted)";

/// The program that is installed where this one was, if it can be started.
///
/// # Errors
/// If there is none, or it does not even tell its version: then the one that
/// runs had better go on.
pub(super) fn successor() -> io::Result<PathBuf> {
    let own = fs::read_link("/proc/self/exe")?;
    let path = own.to_str().and_then(|path| path.strip_suffix(DELETED)).map_or(own.clone(), PathBuf::from);
    let mut trial = Command::new(&path);
    trial.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = trial.status()?;
    if status.success() { Ok(path) } else { Err(io::Error::other(format!("it fails ({status})"))) }
}

/// Becomes `program`, with this process's arguments; returns only if that fails.
///
/// # Errors
/// Why it could not be started.
pub(super) fn become_successor(program: &Path) -> io::Result<Infallible> {
    Err(Command::new(program).args(env::args_os().skip(1)).exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_tell_its_version_takes_nothing_over() {
        // The test's own program knows no such option.
        let refused = successor().expect_err("no vip-ctl");
        assert!(refused.to_string().contains("fails"), "{refused}");
    }
}
