//! Epochs and claims that another node's lease is refused in the name of: what
//! they teach, and whether this node's own lease has been replaced.

use super::Group;
use crate::{
    config::Epoch,
    message::{Ballot, Claim},
    mutant::Mutant,
    node::Node,
};

impl Group {
    /// A refusal names the epoch of another's grant or attempt. This node's next
    /// grant is a later one: it would else give way to a rival that knows higher
    /// epochs than a majority, each time that it has won, and the rival never
    /// wins.
    pub(super) fn hear_epoch(&mut self, epoch: Epoch, node: &Node) {
        if epoch > self.acceptor.epoch() && !node.broken.is(Mutant::DeafToEpochs) {
            self.named = self.named.max(epoch);
        }
    }

    /// Was this ballot used after the one that won this node's lease?
    pub(super) fn is_renewal(&self, ballot: Ballot) -> bool {
        self.lease.is_some_and(|lease| Some(ballot) > lease.ballot)
    }

    /// Does another node's lease of the grant `epoch` mean that ours has been
    /// replaced while this machine was not running? That of a later grant does:
    /// a majority that promised it no longer had ours. So does one of the same,
    /// if its owner says itself that it holds (`is_sure`). One of an earlier
    /// grant is what its holder could not renew, under however high a ballot,
    /// or its machine was not running meanwhile. What is held by force has no
    /// majority: it gives way to all that has one, and nothing that has one
    /// gives way to it. In pair mode both may hold (rule 13).
    pub(super) fn superseded_by(
        &self,
        other: Ballot,
        (epoch, claim): (Epoch, Claim),
        is_sure: bool,
        node: &Node,
    ) -> bool {
        let Some(lease) = self.lease else { return false };
        let is_sure = is_sure && !node.broken.is(Mutant::EpochsDecide);
        let is_later = match lease.epoch {
            Some(_) if is_sure && node.broken.is(Mutant::OwnWordSupersedes) => true,
            Some(ours) if !node.broken.is(Mutant::BallotsSupersede) => {
                epoch > ours || (is_sure && epoch == ours)
            }
            Some(_) | None => Some(other) > lease.ballot,
        };
        let gives_way = match (self.forced.is_some(), claim) {
            (false, Claim::Forced) => is_later && node.broken.is(Mutant::ForceSupersedes),
            (true, Claim::Asked | Claim::Held) => true,
            (false, Claim::Asked | Claim::Held) | (true, Claim::Forced) => is_later,
        };
        other.node != node.me()
            && node.config.pair.is_none()
            && (gives_way || node.broken.is(Mutant::AlwaysSuperseded))
            && !node.broken.is(Mutant::NeverSuperseded)
    }
}
