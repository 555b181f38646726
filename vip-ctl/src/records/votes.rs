//! For how long votes of this node's former incarnations may still count, in a
//! file: an agent that comes back with a shorter lease in its configuration has
//! forgotten what it accepted under the longer one, and must be silent for as
//! long as that lasts (docs/protocol.md, rule 5).

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    config::LEASE_MAX,
    mutant::{self, Mutant},
    records,
};

const FILE: &str = "votes.json";

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Votes {
    /// The boot that the record is about.
    boot_id: String,
    /// The longest T_accept of any vote that may still count, in nanoseconds.
    accept_ns: u64,
}

/// Records that this process may vote for `accept` from now on, and returns how
/// long it must be silent first. Doesn't write again what the record has: a full
/// disk must not keep an agent from coming back.
///
/// # Errors
/// If the record can't be read or written: then the agent must not vote.
pub fn begin(run_dir: &Path, accept: Duration) -> io::Result<Duration> {
    begin_after(run_dir, accept, Duration::from_nanos(clock::now().0))
}

/// [`begin`], this long after the boot.
fn begin_after(run_dir: &Path, accept: Duration, uptime: Duration) -> io::Result<Duration> {
    let boot_id = records::boot_id()?;
    let former = former(run_dir, &boot_id)?;
    let longest = former.unwrap_or_else(|| before_this_boot(uptime)).max(accept);
    if former != Some(longest) && !mutant::is(Mutant::VotesUnrecorded) {
        write(run_dir, boot_id, if mutant::is(Mutant::VotesShortened) { accept } else { longest })?;
    }
    Ok(if mutant::is(Mutant::OwnSilence) { accept } else { longest })
}

/// The silence is over: from now on only votes of `accept` count.
///
/// # Errors
/// If the record can't be written; then it asks for more silence than needed.
pub fn settle(run_dir: &Path, accept: Duration) -> io::Result<()> {
    write(run_dir, records::boot_id()?, accept)
}

/// For how long votes of former incarnations of this boot may still count; `None`
/// if there is no record of this boot.
fn former(run_dir: &Path, boot_id: &str) -> io::Result<Option<Duration>> {
    let votes: Option<Votes> = records::read(run_dir, FILE)?;
    let votes = votes.filter(|votes| votes.boot_id == boot_id || mutant::is(Mutant::AnyBoot));
    Ok(votes.map(|votes| Duration::from_nanos(votes.accept_ns)))
}

/// For how long votes from before this boot may still count: the process that
/// gave them has been dead for at least `uptime`.
fn before_this_boot(uptime: Duration) -> Duration {
    if mutant::is(Mutant::BootForgets) {
        return Duration::ZERO;
    }
    LEASE_MAX.saturating_sub(uptime)
}

fn write(run_dir: &Path, boot_id: String, longest: Duration) -> io::Result<()> {
    let accept_ns = u64::try_from(longest.as_nanos()).map_err(io::Error::other)?;
    records::write(run_dir, FILE, &Votes { boot_id, accept_ns })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_longer_of_two_leases_decides_until_its_votes_are_over() {
        let dir = std::env::temp_dir().join(format!("vip-votes-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(200));
        assert_eq!(begin(&dir, long).unwrap(), long);
        // Twice, since a crash during the silence must not shorten it.
        for _ in 0..2 {
            assert_eq!(begin(&dir, short).unwrap(), long);
        }
        settle(&dir, short).unwrap();
        assert_eq!(begin(&dir, short).unwrap(), short);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn after_a_boot_only_the_time_since_counts() {
        let dir = std::env::temp_dir().join(format!("vip-votes-boot-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        write(&dir, "another boot".into(), Duration::from_secs(60)).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(former(&dir, "this boot").unwrap(), None);
        assert_eq!(before_this_boot(second), LEASE_MAX - second);
        assert_eq!(before_this_boot(LEASE_MAX * 2), Duration::ZERO);
        fs::remove_dir_all(dir).unwrap();
    }

    /// The record of the first start after a boot covers votes from before it,
    /// also for a start that follows before their time is over.
    #[test]
    fn a_second_start_soon_after_a_boot_is_silent_for_as_long_as_the_first() {
        let dir = std::env::temp_dir().join(format!("vip-votes-soon-{}", std::process::id()));
        let (short, second) = (Duration::from_millis(200), Duration::from_secs(1));
        for uptime in [second, second * 2] {
            assert_eq!(begin_after(&dir, short, uptime).unwrap(), LEASE_MAX - second);
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_written_already_needs_no_room_on_the_disk() {
        let dir = std::env::temp_dir().join(format!("vip-votes-full-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let accept = Duration::from_secs(1);
        let silence = begin(&dir, accept).unwrap();
        // From now on nobody can write the record, not even root.
        fs::create_dir(dir.join(format!("{FILE}.new"))).unwrap();
        assert_eq!(begin(&dir, accept).unwrap(), silence);
        assert!(begin(&dir, LEASE_MAX * 2).is_err(), "an unwritten record must keep it from voting");
        fs::remove_dir_all(dir).unwrap();
    }
}
