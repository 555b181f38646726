//! What an agent and its node use, by the kernel's own accounts of the process
//! and its network namespace: reading them costs the agent nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use vip_common::BootNs;

use crate::lab::{INTERFACE, Node, clock};

/// An account at one moment; all of it only grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// When.
    pub at: BootNs,
    /// Ticks of the CPU that the agent has had (proc_pid_stat(5)).
    pub ticks: u64,
    /// Bytes that the node's interface has sent and received.
    pub bytes: u64,
    /// UDP datagrams that it has sent.
    pub sent: u64,
    /// UDP datagrams that its kernel dropped, mostly for want of room in the
    /// agent's socket.
    pub lost: u64,
}

impl Usage {
    /// The account of a node that has an agent.
    ///
    /// # Errors
    /// When the agent is gone, or its accounts are not of the documented shape.
    pub fn of(node: &Node) -> Result<Self> {
        let proc = format!("/proc/{}", node.agent_pid()?);
        let read = |file: &str| {
            fs::read_to_string(format!("{proc}/{file}")).with_context(|| format!("reading {proc}/{file}"))
        };
        let (stat, dev, snmp) = (read("stat")?, read("net/dev")?, read("net/snmp")?);
        let at = clock::now();
        let ticks = ticks(&stat).with_context(|| format!("{proc}/stat has no CPU time"))?;
        let bytes = bytes(&dev).with_context(|| format!("{proc}/net/dev has no bytes of the interface"))?;
        let udp = |name| udp(&snmp, name).with_context(|| format!("{proc}/net/snmp has no {name} of UDP"));
        Ok(Self { at, ticks, bytes, sent: udp("OutDatagrams")?, lost: udp("InErrors")? })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Spent {
        let seconds = self.at.since(before.at).as_secs_f64().max(f64::EPSILON);
        let cpu = Duration::from_secs_f64((self.ticks - before.ticks) as f64 / ticks_per_second());
        let bytes = self.bytes - before.bytes;
        Spent {
            cpu_percent: 100.0 * cpu.as_secs_f64() / seconds,
            bytes,
            bytes_per_s: bytes as f64 / seconds,
            sent: self.sent - before.sent,
            lost: self.lost - before.lost,
        }
    }
}

/// What was used in a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Of one core.
    pub cpu_percent: f64,
    /// Sent and received.
    pub bytes: u64,
    /// The same by time.
    pub bytes_per_s: f64,
    /// Datagrams.
    pub sent: u64,
    /// Datagrams.
    pub lost: u64,
}

fn ticks_per_second() -> f64 {
    // SAFETY: takes a number only.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// User and system time, in ticks: the 14th and 15th fields; the second is a
/// name in brackets, which can have anything in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Received and sent bytes of the lab's interface: the first and ninth column.
fn bytes(dev: &str) -> Option<u64> {
    let line = dev.lines().find_map(|line| line.trim().strip_prefix(INTERFACE)?.strip_prefix(':'))?;
    let columns: Vec<u64> = line.split_ascii_whitespace().filter_map(|column| column.parse().ok()).collect();
    Some(columns.first()? + columns.get(8)?)
}

/// A counter of UDP: a line of names, then one of values.
fn udp(snmp: &str, name: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_ascii_whitespace().position(|found| found == name)?;
    values.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_by_their_documented_shape() {
        let stat = "4711 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks(stat), Some(300));
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10\n  eth0: 100 2 3 4 5 6 7 8 900 10\n";
        assert_eq!(bytes(dev), Some(1000));
        let snmp = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: 7 0 2 9\n";
        assert_eq!(
            (udp(snmp, "InErrors"), udp(snmp, "OutDatagrams"), udp(snmp, "X")),
            (Some(2), Some(9), None)
        );
    }
}
