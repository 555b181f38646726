//! The clocks: a time namespace would make this process's boot clock differ from
//! the one that BPF programs read, and a slow clock source costs time on each
//! packet.

use std::fs;

use super::Findings;
use crate::clock::boot_offset;

const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Sources that the kernel reads over a bus or an emulated device.
const SLOW: &[&str] = &["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

pub(super) fn examine(found: &mut Findings) {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    match boot_offset(&offsets) {
        // A kernel without time namespaces has no such file.
        None | Some((0, 0)) => found.ok("time namespace", "the boot clock has no offset"),
        Some((seconds, nanos)) => found.error(
            "time namespace",
            format!(
                "the boot clock is {seconds} s and {nanos} ns off the kernel's, and leases would be wrong: run agent and vip-ctl outside of a time namespace"
            ),
        ),
    }
    let source = fs::read_to_string(SOURCE).unwrap_or_default();
    match source.trim() {
        "" => found.ok("clock source", "it can't be seen from here"),
        slow if SLOW.contains(&slow) => found.warning(
            "clock source",
            format!(
                "{slow} is slow and is read for each packet to a VIP: see `dmesg | grep -i tsc` for why the TSC is not used"
            ),
        ),
        source => found.ok("clock source", source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clocks_offset_is_told_from_the_others() {
        let text = "monotonic           0         0\nboottime     -86400         5\n";
        assert_eq!(boot_offset(text), Some((-86_400, 5)));
        assert_eq!(boot_offset(""), None);
    }
}
