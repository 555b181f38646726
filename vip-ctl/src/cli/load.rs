//! `vip-ctl load`: the data plane on this host, by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde_json::json;
use vip_common::{
    GroupMode,
    layout::{GROUP_NAME_LEN, VIPS_DEFAULT, VIPS_MAX},
};

use super::support::{
    dry_run,
    output::{Failure, Format, print, print_json},
};
use crate::{
    config,
    dataplane::attach::{Attached, Gate, How},
    exit::Exit,
    home::Home,
    lock::Lock,
    mode::{MODES, Mode},
    node::{GroupSetup, Setup, plan, set_up},
    paths::Paths,
};

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vip-ctl load --iface eth0 --vip 10.0.1.12\n  vip-ctl load --iface eth0 --vip 10.0.1.12 --dry-run"
)]
pub(super) struct Args {
    /// An interface that the VIP's traffic comes in by, with its mode where that is not
    /// --mode; may be repeated.
    #[arg(long, required = true, value_name = "IFACE[:MODE]", value_parser = interface)]
    iface: Vec<(String, Option<Mode>)>,
    /// An interface that is guarded and nothing more: no VIP is answered or announced there,
    /// as with announce = false in vip.toml; may be repeated.
    #[arg(long, value_name = "IFACE[:MODE]", value_parser = interface)]
    guard: Vec<(String, Option<Mode>)>,
    /// An IPv4 address to guard, with its subnet's prefix where no interface has an
    /// address in that, and with the one interface that it is answered on, if not on all;
    /// may be repeated.
    #[arg(long, value_name = "ADDRESS[/PREFIX][@IFACE]", value_parser = vip)]
    vip: Vec<(IpAddr, Home)>,
    /// The group that these VIPs move with.
    #[arg(long, default_value = "default", value_parser = group_name)]
    group: String,
    /// How to run the program on the way in.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Which hook the egress gate uses, and the way in where its mode is tc.
    #[arg(long, value_enum, default_value_t = Gate::Auto)]
    gate: Gate,
    /// Keep a log of frames, for `vip-ctl frame-log`; slow, for debugging only.
    #[arg(long)]
    frame_log: bool,
    /// For how many VIPs to make room; fixed until the next unload.
    #[arg(long, default_value_t = VIPS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(VIPS_MAX)))]
    vips_max: u32,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Parses an interface, and its mode if there is one: names of interfaces have no colon.
fn interface(text: &str) -> Result<(String, Option<Mode>), String> {
    let Some((name, mode)) = text.split_once(':') else { return Ok((text.to_owned(), None)) };
    let known =
        || format!("{mode:?} is no mode: write one of {} after the colon", MODES.map(Mode::name).join(", "));
    Ok((name.to_owned(), Some(Mode::named(mode).ok_or_else(known)?)))
}

/// Parses a VIP, with its prefix and its interface if it has any.
fn vip(text: &str) -> Result<(IpAddr, Home), String> {
    let (text, interface) = match text.split_once('@') {
        Some((text, name)) => (text, Some(name.to_owned())),
        None => (text, None),
    };
    let Some((address, length)) = text.split_once('/') else {
        return Ok((address_of(text)?, Home { interface, prefix: None }));
    };
    let address = address_of(address)?;
    Ok((address, Home { interface, prefix: config::prefix_of(address, length)? }))
}

/// Parses an IPv4 address that can be a VIP.
fn address_of(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4))
            if v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() =>
        {
            Err("no host can have this address: give an ordinary unicast address".to_owned())
        }
        Ok(address @ IpAddr::V4(_)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err("IPv6 VIPs are not there yet: give an IPv4 address".to_owned()),
        Err(_) => Err("not an IPv4 address: write it like 10.0.1.12".to_owned()),
    }
}

/// Checks that a name fits the map and a metrics label.
fn group_name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if text.is_empty() || text.len() > GROUP_NAME_LEN || !text.chars().all(fine) {
        return Err(format!("use up to {GROUP_NAME_LEN} of a-z, 0-9, -, _ and ."));
    }
    Ok(text.to_owned())
}

/// Refuses an interface that shall answer and not answer.
fn refuse_silent(args: &Args, silent: &BTreeSet<String>) -> Result<(), Failure> {
    if let Some((name, _)) = args.iface.iter().find(|(name, _)| silent.contains(name)) {
        let why = format!("{name} is named by --iface and by --guard: write one of them");
        return Err(Failure::new(Exit::Usage, why));
    }
    let at_home = |(vip, home): &(IpAddr, Home)| Some((*vip, home.interface.clone()?));
    if let Some((vip, name)) = args.vip.iter().filter_map(at_home).find(|(_, name)| silent.contains(name)) {
        let why = format!("{vip} would be answered on {name} alone, where --guard says that nothing is");
        return Err(Failure::new(Exit::Usage, why));
    }
    Ok(())
}

pub(super) fn run(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let groups = if args.vip.is_empty() {
        Vec::new()
    } else {
        let vips: BTreeSet<_> = args.vip.iter().map(|(vip, _)| *vip).collect();
        vec![GroupSetup {
            name: args.group.clone(),
            mode: GroupMode::Manual,
            hold: Duration::ZERO,
            vips: vips.into_iter().collect(),
            homes: args.vip.iter().cloned().collect(),
            is_gateway: false,
            waiting: Vec::new(),
            virtual_mac: None,
        }]
    };
    let mode = |(name, mode): &(String, Option<Mode>)| (name.clone(), mode.unwrap_or(args.mode));
    let silent: BTreeSet<_> = args.guard.iter().map(|(name, _)| name.clone()).collect();
    refuse_silent(args, &silent)?;
    let named = || args.iface.iter().chain(&args.guard);
    let setup = Setup {
        interfaces: named().map(|(name, _)| name.clone()).collect(),
        modes: named().map(mode).collect::<BTreeMap<_, _>>(),
        silent,
        how: How { gate: args.gate, frame_log: args.frame_log },
        groups,
        vips_max: args.vips_max,
    };
    if args.dry_run {
        Lock::check(paths)?;
        return dry_run::tell(&plan::of_set_up(paths, &setup)?, format);
    }
    let _lock = Lock::take(paths, false)?;
    let node = set_up(paths, &setup)?;
    let kept = |attached: &Attached| if attached.is_kept { " as before" } else { "" };
    let gate = |gate: Gate| match gate {
        Gate::Tcx | Gate::Auto => "tcx",
        Gate::Clsact => "clsact",
    };
    if format == Format::Json {
        let attached: Vec<_> = node
            .attached
            .iter()
            .map(|(name, a)| json!({ "name": name, "mode": a.mode.name(), "kept": a.is_kept, "gate": gate(a.gate) }))
            .collect();
        print_json(&json!({ "interfaces": attached, "changes": node.changes, "warnings": node.warnings }))?;
        return Ok(Exit::Ok);
    }
    for (name, attached) in &node.attached {
        let (mode, gate) = (attached.mode.name(), gate(attached.gate));
        print(&format!("{name}: {mode} mode{}, egress gate on {gate}\n", kept(attached)));
    }
    for change in &node.changes {
        print(&format!("{change}\n"));
    }
    for warning in &node.warnings {
        print(&format!("warning: {warning}\n"));
    }
    Ok(Exit::Ok)
}
