//! Entering a membership that this node's own record does not confirm (rule 10).
//! The node asks the voters, over the usual transport, and takes part in nothing
//! until one answers that takes part in the membership. Such a voter knew that
//! every voter had the generation before.

use std::{io, net::UdpSocket, os::fd::AsFd as _, path::Path, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::info;
use vip_common::BootNs;

use super::{AgentError, start};
use crate::{
    agent::lease_loop::SourceGuard,
    clock,
    config::{Config, Node},
    mutant::{self, Mutant},
    paths::Paths,
    records::membership::{Admission, Membership, MembershipError},
    transport::{KeyRing, PAYLOAD_LEN_MAX, Received, Transport},
};

/// How long the agent asks. Then it ends, for systemd to start it again.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams to take from the socket before checking the time again.
const DATAGRAMS_PER_TURN: usize = 64;
/// How often at least to check whether a challenge is due.
const CHALLENGE_POLL: Duration = Duration::from_millis(100);

/// Checks the configured membership against the one that this node took part
/// in before (rule 10).
///
/// # Errors
/// [`AgentError::Membership`] if the configured one can't follow it, and
/// [`AgentError::System`] if the record can't be read.
pub(super) fn take_part(config: &Config, config_path: &Path, paths: &Paths) -> Result<Admission, AgentError> {
    let last = Membership::load(&paths.state_dir).map_err(AgentError::system(format!(
        "read the record of the membership in {} (move a broken membership.json away)",
        paths.state_dir.display()
    )))?;
    Admission::new(last, config)
        .map_err(|source| AgentError::Membership { path: config_path.to_owned(), source })
}

/// Waits until this node hears a voter that takes part in the configured
/// membership.
///
/// # Errors
/// [`AgentError::Unvouched`] if it hears none, with `doubt` as the reason.
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
        // A flood must not keep this loop from checking the time.
        for _ in 0..DATAGRAMS_PER_TURN {
            let Ok((len, source)) = socket.recv_from(&mut buffer) else { break };
            let received = transport.receive_from(guard.peer_at(source), &buffer[..len], clock::now());
            transmit(&mut transport, socket, &config.cluster.nodes);
            if let Some(voter) = voucher(config, &received) {
                info!(
                    node = voter.name,
                    generation = config.cluster.generation,
                    "takes part in this membership, and so does this node now"
                );
                return Ok(());
            }
        }
    }
    Err(AgentError::Unvouched { path: config_path.to_owned(), source: doubt })
}

/// The voter behind this datagram, if it takes part in the configured membership.
fn voucher<'a>(config: &'a Config, received: &Received) -> Option<&'a Node> {
    let Received::Adopted { peer, generation, is_member, .. } = received else { return None };
    let is_in = *is_member || mutant::is(Mutant::AnybodyVouches);
    let is_this = *generation == u64::from(config.cluster.generation) || mutant::is(Mutant::AnyGeneration);
    let voters = config.cluster.nodes.iter().filter(|node| node.role.votes());
    voters.filter(|_| is_in && is_this).find(|node| node.id == *peer)
}

fn transmit(transport: &mut Transport, socket: &UdpSocket, nodes: &[Node]) {
    while let Some((to, datagram)) = transport.poll_transmit() {
        if let Some(node) = nodes.iter().find(|node| node.id == to) {
            // The transport repeats what is lost.
            let _ = socket.send_to(&datagram, node.address);
        }
    }
}

fn wait(socket: &UdpSocket, until: BootNs) -> io::Result<()> {
    let most = CHALLENGE_POLL.min(until.since(clock::now())).as_millis();
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"[node]
name = "d"
interface = "eth0"
[cluster]
name = "shop"
key_file = "/etc/vip/cluster.key"
lease = "200ms"
generation = 3
node = [
  { name = "a", id = 0, address = "10.0.1.10:7077" },
  { name = "b", id = 1, address = "10.0.1.11:7077" },
  { name = "c", id = 2, address = "10.0.1.12:7077", observer = true },
  { name = "d", id = 3, address = "10.0.1.13:7077" },
]
[[group]]
name = "db"
vips = ["10.0.1.20"]
"#;

    #[test]
    fn only_a_voter_that_takes_part_in_this_very_membership_vouches_for_it() {
        let config = Config::parse(CONFIG, Path::new("vip.toml"), "d").expect("it is right");
        let said = |peer, generation, is_member| Received::Adopted {
            peer,
            incarnation: 7,
            fresh: true,
            generation,
            is_member,
        };
        let vouches = |received| voucher(&config, &received).map(|node| node.name.as_str());
        assert_eq!(vouches(said(1, 3, true)), Some("b"));
        assert_eq!(vouches(said(1, 3, false)), None, "it is joining itself");
        for generation in [2, 4] {
            assert_eq!(vouches(said(1, generation, true)), None, "it takes part in another one");
        }
        assert_eq!(vouches(said(2, 3, true)), None, "an observer");
        assert_eq!(vouches(said(9, 3, true)), None, "nobody");
        assert_eq!(vouches(Received::Handshake), None);
    }
}
