//! What a host pays for each route lookup, by how many VIPs it stands by for: an
//! unconnected `sendto` looks a route up each time.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::{INTERFACE, LEASE, Lab, LabSpec, Node, NodeSpec, cleanup};

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct RouteArgs {
    /// Write the rows as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How many times to measure each host, in turns
    #[arg(long, value_name = "NUMBER", default_value_t = 15)]
    pub rounds: usize,
    /// The vip-ctl to run
    #[arg(long, value_name = "PATH", hide = true)]
    pub vip_ctl: Option<PathBuf>,
}

/// The VIPs of each host; none is a host without vip.
const VIPS: [u32; 4] = [0, 1, 1_000, 10_000];
/// Datagrams of one measurement.
const SENDS: u32 = 20_000;
/// The discard port.
const PORT: u16 = 9;

/// The figures of a host.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// VIPs that it stands by for.
    pub vips: u32,
    /// Nanoseconds for each `sendto`, in the middle.
    pub median_ns: f64,
    /// The least and the most.
    pub least_ns: f64,
    /// See `least_ns`.
    pub most_ns: f64,
    /// The median beside that of the host with one VIP.
    pub ratio_to_one: f64,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Measures all hosts, prints the table, and writes it.
///
/// # Errors
/// When something can't be measured here.
pub(super) fn run(args: &RouteArgs, vip_ctl: &Path) -> Result<()> {
    let node = |vips: &u32| NodeSpec { name: format!("vips-{vips}"), witness: false, priority: 100 };
    let nodes = VIPS.iter().map(node).collect();
    let lab = Lab::new(&LabSpec { nodes, ..LabSpec::three_nodes(LEASE, Some(vip_ctl.to_owned())) })?;
    for (node, vips) in lab.nodes().iter().zip(VIPS) {
        load(node, vips)?;
    }
    let to = SocketAddrV4::new(lab.client()?.address, PORT);
    let sockets: Result<Vec<_>> = lab.nodes().iter().map(socket).collect();
    let sockets = sockets?;
    let mut taken = vec![Vec::new(); VIPS.len()];
    for _ in 0..args.rounds {
        anyhow::ensure!(!cleanup::interrupted(), "interrupted");
        for (socket, taken) in sockets.iter().zip(&mut taken) {
            taken.push(measure(socket, to)?);
        }
    }
    let report = Report { rows: rows(taken) };
    print!("{}", table(&report));
    super::store(&report, args.json.as_deref())
}

/// Stands by for so many VIPs.
fn load(node: &Node, vips: u32) -> Result<()> {
    if vips == 0 {
        return Ok(());
    }
    let first = u32::from(Ipv4Addr::new(10, 80, 0, 0));
    let mut command = node.vip_ctl()?;
    command.args(["load", "--iface", INTERFACE, "--vips-max", "16384"]);
    command.args((1..=vips).map(|vip| format!("--vip={}", Ipv4Addr::from(first + vip))));
    let loaded = command.output().context("running vip-ctl load")?;
    anyhow::ensure!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    Ok(())
}

/// A socket that is not connected, on a host.
fn socket(node: &Node) -> Result<UdpSocket> {
    Ok(node.ns().enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??)
}

/// Nanoseconds for each datagram.
fn measure(socket: &UdpSocket, to: SocketAddrV4) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..SENDS {
        // Nobody listens there: the next call may tell that the last one was refused.
        let _sent = socket.send_to(b"x", to);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(SENDS))
}

fn rows(taken: Vec<Vec<f64>>) -> Vec<Row> {
    let mut rows: Vec<_> = VIPS
        .into_iter()
        .zip(taken)
        .map(|(vips, mut taken)| {
            taken.sort_by(f64::total_cmp);
            let at = |place: usize| taken.get(place).copied().unwrap_or_default();
            let (median_ns, most_ns) = (at(taken.len() / 2), at(taken.len().saturating_sub(1)));
            Row { vips, median_ns, least_ns: at(0), most_ns, ratio_to_one: 0.0 }
        })
        .collect();
    let one = rows.iter().find(|row| row.vips == 1).map_or(f64::NAN, |row| row.median_ns);
    rows.iter_mut().for_each(|row| row.ratio_to_one = row.median_ns / one);
    rows
}

fn table(report: &Report) -> String {
    let mut text = String::from("VIPs    sendto, ns: median   least    most   beside 1 VIP\n");
    for row in &report.rows {
        text += &format!(
            "{:>6}  {:>18.0}  {:>6.0}  {:>6.0}  {:>13.2}\n",
            row.vips, row.median_ns, row.least_ns, row.most_ns, row.ratio_to_one
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_set_beside_the_one_with_one_vip() {
        let rows = rows(vec![vec![9.0], vec![30.0, 10.0, 20.0], vec![40.0], vec![20.0]]);
        let ratios: Vec<_> = rows.iter().map(|row| (row.vips, row.ratio_to_one)).collect();
        assert_eq!(ratios, [(0, 0.45), (1, 1.0), (1_000, 2.0), (10_000, 1.0)]);
        assert_eq!((rows[1].least_ns, rows[1].median_ns, rows[1].most_ns), (10.0, 20.0, 30.0));
        assert!(table(&Report { rows }).contains("  1000                  40"));
    }
}
