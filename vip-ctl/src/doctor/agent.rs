//! The agent and the cluster: which peers it hears, and whether the running
//! version is the installed one.

use std::{collections::BTreeSet, fs, net::UdpSocket};

use super::{Findings, Level, Patient};
use crate::{
    dataplane::{DataPlane, DataPlaneError, attach, load},
    host::{Host, LOOPBACK, Saved},
    lock::Lock,
    report::Status,
};

pub(super) fn examine(patient: &Patient<'_>, found: &mut Findings) {
    versions(patient, found);
    let pid = Lock::agent(patient.paths);
    match (patient.status, pid) {
        (Some(_), Some(pid)) => found.ok("agent", format!("it runs (pid {pid}) and answers")),
        (Some(_), None) => found.ok("agent", "it answers"),
        (None, Some(pid)) => found.error(
            "agent",
            format!(
                "it runs (pid {pid}) and does not answer: it is stopped or hung; see its log, then restart it"
            ),
        ),
        (None, None) if patient.config.is_some() => {
            found.warning(
                "agent",
                "it does not run: start it with `systemctl start vip-agent`, or `vip-ctl agent`",
            );
        }
        (None, None) => found.ok("agent", "none runs: this host is worked by hand, if at all"),
    }
    if let Some(pid) = pid
        && fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
    {
        let moves = match DataPlane::open(&patient.paths.bpf_dir) {
            Err(DataPlaneError::Layout { .. }) => "it hands over what it holds",
            Ok(_) | Err(_) => "nothing moves by that",
        };
        found.warning(
            "version",
            format!("the agent that runs is not the vip-ctl that is installed: restart it (`systemctl restart vip-agent`), {moves}"),
        );
    }
    peers(patient, found);
}

/// Does the kernel run the programs that this vip-ctl has embedded?
fn versions(patient: &Patient<'_>, found: &mut Findings) {
    match DataPlane::open(&patient.paths.bpf_dir) {
        Err(DataPlaneError::NotLoaded { .. }) => {
            return unguarded(patient, found);
        }
        Err(e) => return found.error("data plane", e.to_string()),
        Ok(_) => {}
    }
    let ours = match load::tags() {
        Ok(ours) => ours,
        Err(e) => return found.warning("data plane", format!("its version can't be told: {e}")),
    };
    let interfaces = match attach::interfaces(&patient.paths.bpf_dir) {
        Ok(interfaces) => interfaces,
        Err(e) => return found.error("data plane", e.to_string()),
    };
    for (ifindex, name) in interfaces {
        let (level, says) = match attach::tag(&patient.paths.bpf_dir, ifindex) {
            Ok(Some(tag)) if ours.contains(&tag) => (Level::Ok, "its program is this version's".to_owned()),
            Ok(Some(_)) => (
                Level::Warning,
                "its program is another version's: restart the agent, or run `vip-ctl load` again; nothing moves by that"
                    .to_owned(),
            ),
            Ok(None) => continue,
            Err(e) => (Level::Warning, e.to_string()),
        };
        found.add(level, "data plane", Some(&name), says);
    }
}

/// Without a data plane, no VIP may be on `lo`: the kernel would serve it,
/// whoever holds the lease.
fn unguarded(patient: &Patient<'_>, found: &mut Findings) {
    let configured = patient.config.into_iter().flat_map(|config| &config.groups);
    let configured = configured.flat_map(|group| &group.vips).copied();
    let on_lo = Host::open(&patient.paths.run_dir).and_then(|host| {
        let ours = Saved::read(&patient.paths.run_dir)?.addresses.into_iter();
        let vips: BTreeSet<_> = ours.chain(configured).collect();
        let on_lo = host.addresses(LOOPBACK)?.into_iter().map(|(address, _)| address);
        Ok(on_lo.filter(|address| vips.contains(address)).map(|vip| vip.to_string()).collect::<Vec<_>>())
    });
    match on_lo {
        Ok(on_lo) if on_lo.is_empty() => found.ok("data plane", "none is loaded"),
        Ok(on_lo) => found.error(
            "data plane",
            format!(
                "none is loaded, and lo has {}: this host serves what reaches it for them, whoever holds the lease; run `vip-ctl unload`, or start the agent where this node can hold them",
                on_lo.join(", ")
            ),
        ),
        Err(e) => found.error("data plane", e.to_string()),
    }
}

/// Do the data plane's answers arrive at the peers on the segment?
fn heard(status: &Status, found: &mut Findings) {
    for interface in status.interfaces.iter().filter(|interface| interface.announces) {
        let (level, says) = match interface.heard {
            Some(true) => (Level::Ok, "the data plane's answers arrive at the peers on its segment"),
            Some(false) => (
                Level::Error,
                "the peers on its segment hear this host and not its data plane: try mode = \"tc\" for it, or look for what drops answers for the VIPs and for 169.254.0.0/16 on their way",
            ),
            None => (
                Level::Ok,
                "no peer on its segment has said whether the data plane's answers arrive: there may be none",
            ),
        };
        found.add(level, "answers", Some(&interface.name), says);
    }
}

fn peers(patient: &Patient<'_>, found: &mut Findings) {
    if let Some(status) = patient.status {
        match status.quorate {
            Some(true) => found.ok("quorum", "the agent hears a majority of the voters"),
            Some(false) => found.error(
                "quorum",
                "the agent hears no majority of the voters, so this node can hold nothing: see to the peers below",
            ),
            None => {}
        }
        for peer in status.nodes.iter().filter(|node| node.name != status.node) {
            if peer.heard {
                found.add(Level::Ok, "peer", Some(&peer.name), format!("heard from {}", peer.address));
            } else {
                found.add(
                    Level::Error,
                    "peer",
                    Some(&peer.name),
                    format!("not heard: see whether its agent runs, whether UDP to {} passes the firewalls, and `vip-ctl status` for rejected datagrams (another key?)", peer.address),
                );
            }
        }
        heard(status, found);
        for (reason, count) in &status.rejected {
            found.add(
                Level::Warning,
                "peer",
                None,
                format!("{count} datagrams were rejected as {reason} since the agent started"),
            );
        }
        return;
    }
    let Some(config) = patient.config else { return };
    for peer in config.cluster.nodes.iter().filter(|node| node.id != config.me) {
        // Connecting a datagram socket sends nothing: it only finds the route.
        let unspecified = if peer.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let routed = UdpSocket::bind(unspecified).and_then(|socket| socket.connect(peer.address));
        match routed {
            Ok(()) => found.add(
                Level::Ok,
                "peer",
                Some(&peer.name),
                format!(
                    "there is a route to {}; only a running agent can tell whether it hears it",
                    peer.address
                ),
            ),
            Err(e) => found.add(
                Level::Error,
                "peer",
                Some(&peer.name),
                format!("there is no way to {} ({e}): see to this host's routes", peer.address),
            ),
        }
    }
}
