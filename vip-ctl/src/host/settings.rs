//! The ARP settings that a host with VIPs on `lo` needs, in force for all interfaces.

use std::{fs, path::Path};

use super::{HostError, Saved};

/// Where the settings for all interfaces are; the higher of these and an
/// interface's own is in force (ip-sysctl).
const SETTINGS: &str = "/proc/sys/net/ipv4/conf/all";
/// The settings.
///
/// - `arp_ignore` 1: answer only for addresses of the interface that the request
///   came in by, so not for the VIP where no program runs.
/// - `arp_announce` 2: send requests from the interface's own address. Otherwise
///   a standby whose service still has a socket on the VIP asks for its clients'
///   MACs from the VIP. The egress gate rightly drops those requests, so when the
///   node takes over, its replies wait for the next try, up to a second.
const WANTED: [(&str, u8); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

/// Has somebody set one of them too low? `sysctl --system` does, at many an upgrade.
#[must_use]
pub fn are_low() -> bool {
    low().is_ok_and(|low| !low.is_empty())
}

/// Those that are too low, with what they should be.
pub(super) fn low() -> Result<Vec<(&'static str, u8)>, HostError> {
    let mut low = Vec::new();
    for (name, wanted) in WANTED {
        if is_low(&read(name)?, wanted) {
            low.push((name, wanted));
        }
    }
    Ok(low)
}

/// Those that nobody has changed since this host's record of them, with what they were.
pub(super) fn still_ours(saved: &Saved) -> Result<Vec<(&str, &str)>, HostError> {
    let mut ours = Vec::new();
    for (name, value) in &saved.settings {
        let set = WANTED.iter().find(|(known, _)| known == name).map(|(_, wanted)| wanted.to_string());
        if set.as_deref() == Some(read(name)?.trim()) {
            ours.push((name.as_str(), value.as_str()));
        }
    }
    Ok(ours)
}

/// Raises those that are too low, and records what they were.
pub(super) fn ensure(saved: &mut Saved, run_dir: &Path, done: &mut Vec<String>) -> Result<(), HostError> {
    for (name, wanted) in low()? {
        saved.settings.insert(name.to_owned(), read(name)?.trim().to_owned());
        saved.write(run_dir)?;
        write(name, &wanted.to_string())?;
        done.push(format!("set net.ipv4.conf.all.{name} to {wanted}"));
    }
    Ok(())
}

/// Puts back what they were. What an administrator has set meanwhile stays.
pub(super) fn restore(saved: &Saved) -> Result<(), HostError> {
    still_ours(saved)?.into_iter().try_for_each(|(name, value)| write(name, value))
}

/// A value that is no small number is what somebody wants.
fn is_low(text: &str, wanted: u8) -> bool {
    text.trim().parse::<u8>().is_ok_and(|value| value < wanted)
}

fn read(name: &str) -> Result<String, HostError> {
    let path = format!("{SETTINGS}/{name}");
    fs::read_to_string(&path).map_err(|e| HostError::io(format!("read {path}"), e))
}

fn write(name: &str, value: &str) -> Result<(), HostError> {
    let path = format!("{SETTINGS}/{name}");
    fs::write(&path, value).map_err(|e| HostError::io(format!("write {path}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_value_and_an_odd_one_are_what_somebody_wants() {
        let low = ["0\n", "1\n", "2\n", "8", "-1", "300", ""].map(|text| is_low(text, 2));
        assert_eq!(low, [true, true, false, false, false, false, false]);
    }
}
