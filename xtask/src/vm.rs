//! `cargo xtask vm`: the lab's tests on kernels that this machine does not run:
//! Debian's, in a virtual machine. Which tests run without a filter stands here.
//!
//! The machine is emulated, never accelerated: it has to work where this one is a
//! virtual machine itself. What is downloaded is kept in `target/tools/vm`.

mod archive;
mod kernel;
mod machine;
mod root;

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::{
    kernel::Kernel,
    machine::{Machine, Ran},
};
use crate::{
    build::{self, Warnings},
    place::Place,
    process,
    setup::{self, Need},
    tally::Tally,
    test,
};

/// What runs on each kernel without a filter: what this machine's may lack, above all the
/// kinds of interfaces. Chosen so that both kernels take less than ten minutes on two cores.
const CHOSEN: &[&str] = &["fixtures::every_cell", "fixtures::verified", "two_networks::by_hand_a_vip"];
/// And what runs on the newest of them: cards with a driver, tcx, and the gate at IP level by
/// netfilter programs.
const CHOSEN_NEWEST: &[&str] = &[
    "fixtures::arp_requests",
    "fixtures::gates",
    "gates::a_gate_comes",
    "gateway::so_it_is_on_a_virtual_machines_card",
    "nics::a_virtual_machines_card",
    "real_hosts::a_vip_on",
    "second_ways_in::a_container",
    "second_ways_in::a_hung_agent",
    "second_ways_in::a_tunnel",
    "steered::so_it_is_on_a_virtual_machines_card",
    "translated::a_connection",
    "translated::a_published_port",
    "translated::a_vip",
    "virtual_mac::so_it_is_on_a_virtual_machines_card",
];
/// And what runs on the oldest of them: for each part of the data plane that asks the
/// kernel for something of its own, a few tests.
const CHOSEN_OLDEST: &[&str] = &[
    "bonds::a_pulled_cable",
    "fixtures::",
    "gates::a_gate_by_clsact",
    "gates::filters_of",
    "host::an_agent_whose_maps_are_gone",
    "host::pins_of_another_namespace",
    "host::unload_restores_a_host",
    "host::what_an_interrupted_load",
    "local_clients::a_local_client_on_a_standby",
    "local_clients::a_vip_is_no_source",
    "modes::on_a_trunk",
    "nics::a_bond",
    "nics::a_vlan",
    "second_ways_in::a_container",
    "translated::a_published_port",
    "two_networks::so_it_is",
    "vrfs::the_rules",
];

/// Tests of a choice of one's own may take so long.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// The chosen ones may take so long, for each kernel; they take two thirds of it.
const CHOSEN_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args, Default)]
pub(crate) struct VmArgs {
    /// Boot this kernel alone
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
    /// Run the lab's tests whose name contains one of these, instead of the chosen ones
    filter: Vec<String>,
}

/// `cargo xtask vm`.
///
/// # Errors
/// When the programs under test do not build. Failed tests are no error, but an
/// exit code; so is a kernel that cannot be had.
pub(crate) fn run(place: &Place, args: &VmArgs) -> anyhow::Result<ExitCode> {
    let tools = setup::ensure(place, Need::Lab)?;
    build::object(place, &tools, Warnings::Show)?;
    let tally = all(place, args)?;
    println!("{tally}");
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests on each kernel; the BPF object has to be there. A kernel that
/// cannot be had counts as one that was skipped.
///
/// # Errors
/// When vip-ctl or the lab does not build.
pub(crate) fn all(place: &Place, args: &VmArgs) -> anyhow::Result<Tally> {
    let [vip_ctl] = build::host_programs(place, "release", [["vip-ctl", "vip-ctl"]])?;
    let lab = test::lab_program(place)?;
    let mut tally = Tally::default();
    for kernel in Kernel::ALL.into_iter().filter(|kernel| args.kernel.is_none_or(|only| only == *kernel)) {
        println!("\n=== Linux {kernel} in a virtual machine");
        match ready(place, kernel) {
            Ok(machine) => tally.add(run_on(place, &machine, kernel, [&lab, &vip_ctl], &args.filter)?),
            Err(error) => {
                process::check_stop()?;
                println!("skipped: Linux {kernel}: {error:#}");
                tally.skipped += 1;
            }
        }
    }
    Ok(tally)
}

/// The emulator and the kernel, downloaded if they are not there.
fn ready(place: &Place, kernel: Kernel) -> anyhow::Result<Machine> {
    anyhow::ensure!(std::env::consts::ARCH == "x86_64", "only kernels for x86_64 are booted");
    Machine::find(setup::ensure_vm(place)?, kernel.find(place)?)
}

/// Runs the tests on one kernel. An emulated machine stands still whenever this one
/// does, and for longer: what may have failed for that runs once more.
fn run_on(
    place: &Place,
    machine: &Machine,
    kernel: Kernel,
    programs: [&Path; 2],
    filter: &[String],
) -> anyhow::Result<Tally> {
    let begun = Instant::now();
    let (filter, limit) = match filter {
        [] => {
            let more = if kernel == Kernel::ALL[0] { CHOSEN_OLDEST } else { CHOSEN_NEWEST };
            (CHOSEN.iter().chain(more).map(|&name| name.to_owned()).collect(), CHOSEN_LIMIT)
        }
        some => (some.to_vec(), LIMIT),
    };
    let boot = |filter: &[String]| -> anyhow::Result<Ran> {
        // Named for this process: two runs at once must not share it.
        let scratch = place.tools().join(format!("vm/run-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let log = place.tools().join(format!("vm/linux-{kernel}.log"));
        let ran = root::make(machine, programs, filter, limit, &scratch)
            .and_then(|initrd| machine.run(&initrd, limit, &log));
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
        ran
    };
    let first = boot(&filter)?;
    let mut tally = first.tally;
    if !first.excusable.is_empty() {
        let names = first.excusable.join(", ");
        println!("\nrunning again, since an emulated machine may stand still: {names}");
        let again = boot(&first.excusable)?.tally;
        if again.failed == 0 && again.passed == first.excusable.len() {
            println!("failed first and passed in a second run: {names}");
            tally.failed -= again.passed;
            tally.passed += again.passed;
        }
    }
    let (up, took) = (first.up.as_secs_f64(), begun.elapsed().as_secs_f64());
    println!("Linux {}: up after {up:.0} s, {tally} in {took:.0} s", machine.release());
    Ok(tally)
}
