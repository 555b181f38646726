//! Coming into a membership that this node can't vouch for by its own record
//! (rule 10): it asks the voters, over the same transport as ever, and takes
//! part in nothing until one answers that takes part in it. Whoever does knew
//! that every voter has the generation before.

use std::{io, net::UdpSocket, os::fd::AsFd as _, path::Path, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::info;
use vip_common::BootNs;

use super::{AgentError, lease_loop::SourceGuard, membership::MembershipError, start};
use crate::{
    config::{Config, Node},
    dataplane::clock,
    transport::{KeyRing, PAYLOAD_LEN_MAX, Received, Transport},
};

/// How long it is asked. Then the agent ends, to be started again.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams taken from the socket before it is looked at the time again.
const DATAGRAMS_PER_TURN: usize = 64;
/// How often it is looked whether a challenge is due, at least.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until a voter is heard that takes part in the configured membership.
///
/// # Errors
/// [`AgentError::Unvouched`] if there is none, with what was in `doubt`.
pub(super) fn ask(
    config: &Config,
    config_path: &Path,
    keys: &KeyRing,
    (socket, guard): (&UdpSocket, &SourceGuard),
    doubt: MembershipError,
) -> Result<(), AgentError> {
    info!("{doubt}; asking the other voters");
    let (incarnation, entropy) = start::draw()?;
    let mut transport = Transport::new(start::identity(config, incarnation, false), keys.clone(), entropy);
    let until = clock::now().plus(PATIENCE);
    let mut buffer = vec![0; PAYLOAD_LEN_MAX];
    while clock::now() < until {
        transport.wake(clock::now());
        transmit(&mut transport, socket, &config.cluster.nodes);
        wait(socket, until).map_err(AgentError::system("wait for the other voters"))?;
        // Who floods this node keeps it from nothing.
        for _ in 0..DATAGRAMS_PER_TURN {
            let Ok((len, source)) = socket.recv_from(&mut buffer) else { break };
            let received = transport.receive_from(guard.peer_at(source), &buffer[..len], clock::now());
            transmit(&mut transport, socket, &config.cluster.nodes);
            let Received::Adopted { peer, generation, is_member: true, .. } = received else { continue };
            let voter = config.cluster.nodes.iter().find(|node| node.id == peer && node.role.votes());
            if let Some(voter) = voter
                && generation == u64::from(config.cluster.generation)
            {
                info!(
                    node = voter.name,
                    generation, "takes part in this membership, and so does this node now"
                );
                return Ok(());
            }
        }
    }
    Err(AgentError::Unvouched { path: config_path.to_owned(), source: doubt })
}

fn transmit(transport: &mut Transport, socket: &UdpSocket, nodes: &[Node]) {
    while let Some((to, datagram)) = transport.poll_transmit() {
        if let Some(node) = nodes.iter().find(|node| node.id == to) {
            // What is lost is said again.
            let _ = socket.send_to(&datagram, node.address);
        }
    }
}

fn wait(socket: &UdpSocket, until: BootNs) -> io::Result<()> {
    let most = LOOK.min(until.since(clock::now())).as_millis();
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
