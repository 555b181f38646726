//! Starts the programs of checks and hooks: exactly as configured, without a
//! shell, as this agent's user, in a process group of their own and with an empty
//! stdin.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

/// Variables for systemd and the agent alone (sd_notify(3)): a program that had
/// them too could speak for the agent.
const OURS: &[&str] = &["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A program and its arguments, with variables to add to its environment; the
/// caller decides where its output goes.
///
/// Nothing here makes the standard library fork: this process is large and locked
/// in memory, and copying its page tables would hold up the lease loop.
///
/// # Errors
/// If `words` is empty.
pub(crate) fn command(
    words: &[String],
    environment: impl IntoIterator<Item = (&'static str, String)>,
) -> io::Result<Command> {
    let [program, arguments @ ..] = words else { return Err(io::Error::other("there is no program")) };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::null()).envs(environment);
    for name in OURS {
        command.env_remove(name);
    }
    Ok(command)
}

/// Makes the kernel treat a program that has just been started like any other
/// when it runs out of memory. The kernel may be told to spare the agent, but not
/// a database that a hook starts.
pub(crate) fn is_like_others(pid: u32) {
    // A program that has ended already needs nothing.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_speaks_for_the_agent_and_what_is_added_is_there() {
        let words = ["/usr/bin/env".to_owned()];
        let command = command(&words, [("VIP_GROUP", "db".to_owned())]).unwrap();
        let set: Vec<_> = command.get_envs().collect();
        assert!(set.contains(&("VIP_GROUP".as_ref(), Some("db".as_ref()))));
        for name in OURS {
            assert!(set.contains(&(name.as_ref(), None)), "{name}");
        }
        assert!(super::command(&[], []).is_err());
    }
}
