//! The demo: a three-node cluster in a lab, a client that probes it, one
//! break after the other, and an account of what was on the wire.
//!
//! Here is the order of things; `steps` breaks and waits, `report` counts,
//! `live` shows. How a node is broken is the lab's business, and building
//! `vip-ctl` is xtask's.

mod live;
mod report;
mod steps;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::live::Live;
use self::report::Report;
use self::steps::{Course, STEPS};
use crate::lab::probe::{ArpProber, LATE};
use crate::lab::rig::{ArpProbes, Rig};
use crate::lab::{self, Lab, LabId, LabSpec, Nic, VIP, cleanup};

/// Run a three-node cluster in network namespaces, break it, and show what happened.
///
/// Exits with 0 only if every step found a holder and no frame was answered by two.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "demo", bin_name = "cargo xtask demo")]
pub struct DemoArgs {
    /// How long a lease is good for (T_accept), e.g. 50ms, 200ms, 1s
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// Leave the lab and its agents up at the end, and print how to enter it
    #[arg(long)]
    pub keep: bool,
    /// Make the third node a witness: it votes and never holds the VIP
    #[arg(long)]
    pub witness: bool,
    /// What the nodes' interfaces are
    #[arg(long, value_enum, default_value_t = Nic::Veth)]
    pub nic: Nic,
    /// Write the table as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Remove a lab that --keep left, with everything that runs in it, and do nothing else
    #[arg(long, value_name = "LAB", conflicts_with_all = ["keep", "witness", "nic", "json", "lease"])]
    pub remove: Option<String>,
    /// The vip-ctl to run
    #[arg(long, value_name = "PATH", hide = true)]
    pub vip_ctl: Option<PathBuf>,
}

/// Runs the demo to its end and prints its account; whether all was well.
///
/// # Errors
/// When the demo itself could not be run: no privilege, a tool is missing, an
/// agent ended. That vip failed a step is in the exit code instead.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    if let Some(id) = &args.remove {
        cleanup::remove(&LabId::parse(id)?)?;
        println!("removed lab {id}");
        return Ok(ExitCode::SUCCESS);
    }
    let vip_ctl = lab::begin("the demo", args.vip_ctl.as_deref())?;
    let spec = LabSpec::three_nodes(args.lease, Some(vip_ctl.clone()));
    let spec = if args.witness { spec.with_witness() } else { spec }.on(args.nic);
    let mut live = Live::new();
    live.say("building three nodes, a switch and a client");
    let lab = Lab::new(&spec)?;
    let mut rig = Rig::start(lab, &spec, ArpProbes::On, |text| live.say(text))?;
    let outcome = play(args, &rig, &mut live);
    live.clear();
    // Only now, so that Ctrl-C removes a lab that has not come to its end; and
    // after a failure as well, for that is what one wants to look at.
    if args.keep && !cleanup::interrupted() {
        rig.lab.keep()?;
        print_how_to_enter(&rig.lab, &vip_ctl);
    }
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the steps, prints and writes the report; whether the report is a good one.
fn play(args: &DemoArgs, rig: &Rig, live: &mut Live) -> Result<bool> {
    let Rig { lab, udp, tcp, capture, .. } = rig;
    let mut course = Course::begin(rig, live)?;
    let ended = STEPS.iter().try_for_each(|step| course.run(*step));
    if cleanup::interrupted() {
        bail!("interrupted");
    }
    // The last step's probes have the time to be answered that all others had.
    std::thread::sleep(LATE);
    let lost = capture.lost();
    let history = course.into_history();
    let nodes: Vec<&str> = lab.nodes().iter().map(|node| node.name()).collect();
    let report =
        Report::new(&nodes, &history, &udp.probes(), &capture.frames(), &tcp.history(), lost.as_ref().ok());

    live.clear();
    print!("{}", report.timeline());
    print!("{}", report.table());
    println!();
    println!(
        "capture: {} frames from the nodes, {} of them with {VIP} as source, {}",
        capture.seen(),
        capture.frames().len(),
        match &lost {
            Ok(0) => "none lost".to_owned(),
            Ok(lost) => format!("{lost} LOST"),
            Err(e) => format!("and the capture FAILED: {e:#}"),
        }
    );
    let history = tcp.history();
    println!(
        "client: {} ARP requests; TCP {} exchanges, {} reconnects, {} resets, {} failed attempts{}",
        rig.arp.as_ref().map_or(0, ArpProber::sent),
        history.exchanges,
        history.reconnects(),
        history.resets(),
        history.failed_attempts,
        match udp.skipped() {
            0 => String::new(),
            skipped => format!("; {skipped} probes not sent because this machine stalled"),
        }
    );
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?).with_context(|| format!("writing {}", file.display()))?;
        println!("wrote the table to {}", file.display());
    }
    let mut complaints = report.complaints();
    if let Err(e) = ended
        && complaints.is_empty()
    {
        complaints.push(format!("{e:#}"));
    }
    for complaint in &complaints {
        eprintln!("FAILED: {complaint}");
    }
    Ok(complaints.is_empty())
}

fn print_how_to_enter(lab: &Lab, vip_ctl: &Path) {
    println!("\nThe lab stays up, with its agents (the echo services have ended; ping answers). As root:");
    for node in lab.nodes() {
        println!("  {} ({}): nsenter --net={}", node.name(), node.address(), node.ns().path().display());
        println!(
            "    VIP_BPF_DIR={} VIP_RUN_DIR={} VIP_STATE_DIR={} nsenter --net={} {} status",
            node.bpf_dir().display(),
            node.run_dir().display(),
            node.state_dir().display(),
            node.ns().path().display(),
            vip_ctl.display()
        );
        println!("    log: {}", node.log_file().display());
    }
    for client in lab.clients() {
        println!("  {} ({}): nsenter --net={}", client.name, client.address, client.ns.path().display());
    }
    println!("  switch: nsenter --net={}", lab.switch().path().display());
    println!("  remove it all: cargo xtask demo --remove {}", lab.id());
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_options_are_those_of_the_readme() {
        DemoArgs::command().debug_assert();
        let args =
            DemoArgs::try_parse_from(["demo", "--lease", "50ms", "--keep", "--witness", "--json", "f"]);
        let args = args.unwrap();
        assert_eq!(args.lease, Duration::from_millis(50));
        assert!(args.keep && args.witness && args.json.is_some());
        assert_eq!(DemoArgs::try_parse_from(["demo"]).unwrap().lease, Duration::from_millis(200));
        assert!(DemoArgs::try_parse_from(["demo", "--lease", "soon"]).is_err());
    }
}
