//! `vip-ctl promote` and `demote`: by hand on this node's maps, or through
//! the agent on the whole cluster.

use std::{io::Write as _, time::Duration};

use serde_json::json;
use vip_common::{GroupMode, Lease, VipEntry};

use super::support::{
    client, dry_run,
    output::{Failure, Format, print, print_json},
};
use crate::{
    agent::control::{Request, Response},
    announce::arp::{ASKING, Announcer, At, FORMS},
    dataplane::{DataPlane, DataPlaneError, MapGroup},
    exit::Exit,
    host::Host,
    lock::Lock,
    node::Node,
    paths::Paths,
};

/// How often a promotion by hand is announced, and how long between.
const ANNOUNCEMENTS: u32 = 3;
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The group, or one of its VIPs; may be left out where there is one group.
    #[arg(value_name = "GROUP|VIP")]
    pub(super) group: Option<String>,
    #[command(flatten)]
    wait: Wait,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Whether a move is done when the lease has moved, or later.
#[derive(clap::Args, Debug)]
pub(super) struct Wait {
    /// Wait until the new holder serves, which its `pre_promote` delays. The default.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Wait only until the lease has moved, and don't tell whether the new holder
    /// then serves.
    #[arg(long)]
    no_wait: bool,
}

impl Wait {
    /// Shall the verb wait?
    pub(super) const fn is_on(&self) -> bool {
        self.wait || !self.no_wait
    }
}

pub(super) fn promote(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        return rehearse(args, true, paths, format);
    }
    if let Some(response) =
        client::ask(paths, &Request::Promote { group: args.group.clone(), wait: args.wait.is_on() })?
    {
        return tell(response, format);
    }
    let (node, group, _lock) = open(args, paths)?;
    let held = node.plane.leases().load(group.index) == Lease::MANUAL;
    node.plane.leases().store(group.index, Lease::MANUAL);
    // From here on the kernel answers; the rest only makes clients notice sooner.
    node.place_group(group.index, true)?;
    announce(&node, &group)?;
    said(format, &group, true, held)
}

pub(super) fn demote(args: &Args, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    if args.dry_run {
        return rehearse(args, false, paths, format);
    }
    if let Some(response) =
        client::ask(paths, &Request::Demote { group: args.group.clone(), wait: args.wait.is_on() })?
    {
        return tell(response, format);
    }
    let (node, group, _lock) = open(args, paths)?;
    let held = node.plane.leases().load(group.index) == Lease::MANUAL;
    node.plane.leases().clear(group.index);
    node.place_group(group.index, false)?;
    said(format, &group, false, !held)
}

/// The dry run of both: the agent's if one runs, else from the maps alone.
fn rehearse(args: &Args, active: bool, paths: &Paths, format: Format) -> Result<Exit, Failure> {
    let group = args.group.clone();
    let wait = false;
    let request = if active { Request::Promote { group, wait } } else { Request::Demote { group, wait } };
    if let Some(happen) = dry_run::ask(paths, &request)? {
        return dry_run::tell(&happen, format);
    }
    let plane = DataPlane::open(&paths.bpf_dir)?;
    let group = find(args, &plane)?;
    let held = plane.leases().load(group.index) == Lease::MANUAL;
    let happen = match (active, held) {
        (true, false) => Some(format!("group {} would be active on this node, by hand", group.name)),
        (false, true) => Some(format!("group {} would be standby on this node", group.name)),
        (true, true) | (false, false) => None,
    };
    dry_run::tell(happen.as_slice(), format)
}

/// Prints the result of a command to the agent.
pub(super) fn tell(response: Response, format: Format) -> Result<Exit, Failure> {
    match response {
        Response::Done { group, holder, risk } => {
            let mut told = json!({ "group": group, "holder": holder });
            if let Some(risk) = risk {
                // If the reader went away, that is no error of this verb.
                let _ = writeln!(std::io::stderr(), "vip-ctl: by force: {risk}");
                told["risk"] = risk.into();
            }
            match format {
                Format::Json => print_json(&told)?,
                Format::Text => match holder {
                    Some(holder) => print(&format!("group {group} is held by {holder}\n")),
                    None => print(&format!("group {group} is held by nobody\n")),
                },
            }
            Ok(Exit::Ok)
        }
        Response::Status(_)
        | Response::Standby { .. }
        | Response::Pause { .. }
        | Response::Reloaded(_)
        | Response::Would { .. }
        | Response::Error { .. } => Err(client::strange()),
    }
}

/// The node, the group that the command names, and the lock.
fn open(args: &Args, paths: &Paths) -> Result<(Node, MapGroup, Lock), Failure> {
    let lock = Lock::take(paths, false)?;
    let plane = DataPlane::open(&paths.bpf_dir)?;
    let group = find(args, &plane)?;
    let node = Node::new(plane, Host::open(&paths.run_dir)?);
    Ok((node, group, lock))
}

/// The group that the command names, if it can be moved by hand.
fn find(args: &Args, plane: &DataPlane) -> Result<MapGroup, Failure> {
    let group = match &args.group {
        Some(name) => plane.find_group(name)?,
        None => only_group(plane)?,
    };
    match group.mode {
        GroupMode::Manual => Ok(group),
        GroupMode::Cluster | GroupMode::Unused => {
            Err(crate::node::NodeError::BelongsToAgent { group: group.name }.into())
        }
    }
}

fn only_group(plane: &DataPlane) -> Result<MapGroup, Failure> {
    let mut groups = plane.groups();
    match (groups.pop(), groups.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(DataPlaneError::NoSuchGroup { name: "default".into() }.into()),
        (Some(last), false) => {
            let mut names: Vec<_> = groups.into_iter().map(|g| g.name).collect();
            names.push(last.name);
            Err(Failure::new(
                Exit::Usage,
                format!("there are several groups here: name one of {}", names.join(", ")),
            ))
        }
    }
}

/// Announces a group's VIPs on their interfaces, several times.
fn announce(node: &Node, group: &MapGroup) -> Result<(), Failure> {
    let failed = |e| Failure::new(Exit::System, format!("promoted, but could not announce it: {e}"));
    let announcer = Announcer::open().map_err(failed)?;
    let (vips, ifaces) = (node.plane.vips()?, node.plane.ifaces()?);
    for round in 0..ANNOUNCEMENTS {
        if round > 0 {
            std::thread::sleep(ANNOUNCE_PAUSE);
        }
        let forms = if round + 1 == ANNOUNCEMENTS { ASKING } else { FORMS };
        for (ifindex, iface) in &ifaces {
            let here = |entry: &VipEntry| entry.group == group.index && entry.is_at_home(*ifindex, *iface);
            for (vip, entry) in vips.iter().filter(|(_, entry)| here(entry)) {
                match announcer.announce(At::of(*entry, *ifindex, *iface), *vip, forms) {
                    // An interface that is down or gone has no neighbours to tell.
                    Err(e)
                        if matches!(e.raw_os_error(), Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV)) => {}
                    other => other.map_err(failed)?,
                }
            }
        }
    }
    Ok(())
}

fn said(format: Format, group: &MapGroup, active: bool, was_so: bool) -> Result<Exit, Failure> {
    let state = if active { "active" } else { "standby" };
    match format {
        Format::Json => print_json(&json!({ "group": group.name, "state": state, "changed": !was_so }))?,
        Format::Text => {
            let already = if was_so { " (it was already)" } else { "" };
            print(&format!("group {} is {state} on this node{already}\n", group.name));
        }
    }
    Ok(Exit::Ok)
}
