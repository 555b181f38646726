//! The kernel and the privileges of this process: version, BTF, the BPF file
//! system, capabilities, the verifier's answer to our programs, real-time
//! priority and locked memory.

use std::{fs, path::Path};

use nix::sys::{
    resource::{Resource, getrlimit},
    statfs::{BPF_FS_MAGIC, statfs},
};

use super::Findings;
use crate::{
    dataplane::{DataPlaneError, load},
    realtime,
};

/// Older kernels have no XDP links, so no program would outlive its agent (5.9).
const OLDEST: (u32, u32) = (5, 9);
/// From this version on, tcx links replace the gates without a gap.
const TCX: (u32, u32) = (6, 6);
/// Type information of the running kernel.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where the BPF file system belongs.
const BPF_FS: &str = "/sys/fs/bpf";
/// capabilities(7): the number and name of each that vip-ctl uses, and for what.
const CAPABILITIES: &[(u32, &str, &str)] = &[
    (12, "CAP_NET_ADMIN", "attaching, routes and addresses"),
    (13, "CAP_NET_RAW", "announcements"),
    (14, "CAP_IPC_LOCK", "memory that is not paged out"),
    (21, "CAP_SYS_ADMIN", "the BPF file system and program ids"),
    (23, "CAP_SYS_NICE", "real-time priority"),
    (39, "CAP_BPF", "maps and programs"),
];

pub(super) fn examine(found: &mut Findings) {
    version(found);
    if Path::new(BTF).exists() {
        found.ok("btf", format!("{BTF} is there"));
    } else {
        found.warning("btf", format!("there is no {BTF}: tools can't show our maps with their types; use a kernel with CONFIG_DEBUG_INFO_BTF"));
    }
    match statfs(BPF_FS) {
        Ok(stat) if stat.filesystem_type() == BPF_FS_MAGIC => found.ok("bpffs", format!("{BPF_FS} is mounted")),
        Ok(_) | Err(_) => found.warning(
            "bpffs",
            format!("no BPF file system is on {BPF_FS}: load and agent mount it; or run `mount -t bpf bpf {BPF_FS}`"),
        ),
    }
    if capabilities(found) {
        programs(found);
    }
    jit(found);
    priority(found);
    memory(found);
}

fn version(found: &mut Findings) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match parse_release(release) {
        None => found.warning("kernel", format!("Linux {release:?} has a version that is not understood")),
        Some(version) if version < OLDEST => found.error(
            "kernel",
            format!("Linux {release} is too old: XDP links need {}.{} or newer", OLDEST.0, OLDEST.1),
        ),
        Some(version) if version < TCX => found.warning(
            "kernel",
            format!(
                "Linux {release} has no tcx ({}.{}): the gates sit on clsact, and an upgrade leaves the way out open for microseconds",
                TCX.0, TCX.1
            ),
        ),
        Some(_) => found.ok("kernel", format!("Linux {release} has all that is used")),
    }
}

/// Major and minor number at the front of a release.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The effective capabilities in the text of /proc/self/status.
fn parse_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Reports which capabilities are missing; true if none is.
fn capabilities(found: &mut Findings) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(has) = parse_capabilities(&status) else {
        found.warning("privileges", "the capabilities of this process can't be read");
        return false;
    };
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(number, ..)| has & (1 << number) == 0)
        .map(|(_, name, what)| format!("{name} ({what})"))
        .collect();
    if missing.is_empty() {
        found.ok("privileges", "this process has every capability that is used");
        return true;
    }
    found.error("privileges", format!("this process lacks {}: run it as root", missing.join(", ")));
    false
}

/// Lets the verifier check our programs, and the clock program compare this
/// process's clock with that of BPF.
fn programs(found: &mut Findings) {
    match load::try_out() {
        Ok(()) => {
            found.ok("programs", "the kernel accepts the data plane");
            found.ok("boot clock", "CLOCK_BOOTTIME here and in BPF programs is the same");
        }
        Err(e @ DataPlaneError::TimeNamespace { .. }) => found.error("boot clock", e.to_string()),
        Err(e) => found.error("programs", format!("the kernel refuses the data plane: {e}")),
    }
}

fn jit(found: &mut Findings) {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) if value.trim() == "0" => found.warning(
            "bpf jit",
            "programs are interpreted, which is several times slower: run `sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Ok(value) => found.ok("bpf jit", format!("net.core.bpf_jit_enable is {}", value.trim())),
        Err(_) => found.ok("bpf jit", "net.core.bpf_jit_enable can't be seen from this network namespace"),
    }
}

/// Tries it on a thread of its own, which ends at once.
fn priority(found: &mut Findings) {
    let tried = std::thread::spawn(|| realtime::prioritise(realtime::Role::Lease)).join();
    match tried {
        Ok(Ok(())) => found.ok("priority", "a thread gets real-time priority"),
        Ok(Err(e)) => found.warning(
            "priority",
            format!("no real-time priority ({e}): a busy host can delay a renewal; give the agent CAP_SYS_NICE or LimitRTPRIO=50"),
        ),
        Err(_) => found.warning("priority", "no thread could be started to try real-time priority"),
    }
    let runtime = fs::read_to_string("/proc/sys/kernel/sched_rt_runtime_us").unwrap_or_default();
    if runtime.trim() == "0" {
        found.error(
            "priority",
            "kernel.sched_rt_runtime_us is 0, so no real-time thread ever runs: run `sysctl -w kernel.sched_rt_runtime_us=950000`",
        );
    }
}

fn memory(found: &mut Findings) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let may_lock = parse_capabilities(&status).is_some_and(|has| has & (1 << 14) != 0);
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if may_lock || soft == u64::MAX => {
            found.ok("memlock", "the agent can lock all the memory that it needs");
        }
        Ok((soft, _)) => found.warning(
            "memlock",
            format!("only {} KiB of memory can be locked: paging can delay a renewal; give the agent CAP_IPC_LOCK or LimitMEMLOCK=infinity", soft / 1024),
        ),
        Err(e) => found.warning("memlock", format!("the limit of locked memory can't be read: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_sorts_are_read() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.15.0-1034-aws"), Some((5, 15)));
        assert_eq!(parse_release("6.18-rc1"), Some((6, 18)));
        assert_eq!(parse_release("six"), None);
        assert!(parse_release("5.4.0").is_some_and(|version| version < OLDEST));
    }

    #[test]
    fn effective_capabilities_are_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000000c0a0201000\n";
        assert_eq!(parse_capabilities(status), Some(0xc0_a020_1000));
        assert_eq!(parse_capabilities("Name:\tx\n"), None);
    }
}
