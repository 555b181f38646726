//! Whether another node's lease or attempt, in whose name an acceptor refuses,
//! means that this node's own lease has been replaced.

use super::Group;
use crate::{
    config::Epoch,
    message::{Ballot, Claim},
    mutant::Mutant,
    node::Node,
};

impl Group {
    /// Was this ballot used after the one that won this node's lease?
    pub(super) fn is_renewal(&self, ballot: Ballot) -> bool {
        self.lease.is_some_and(|lease| Some(ballot) > lease.ballot)
    }

    /// Does another node's lease or attempt of the grant `epoch` mean that ours
    /// has been replaced while this machine was not running?
    ///
    /// - A later grant does: a majority that promised it no longer had ours.
    /// - An attempt at a later grant does not where its ballot is below ours. A
    ///   voter of our majority promised it before ours, and refuses it now: so it
    ///   fails, or its voters have restarted since, and its owner soon says that
    ///   it holds. To give way would repeat itself, since the owner of such an
    ///   attempt knows later epochs than a majority.
    /// - A lease of the same grant does if its owner says itself that it holds
    ///   (`is_sure`).
    /// - An earlier grant does not: its holder could not renew it, under however
    ///   high a ballot, or its machine was not running meanwhile.
    ///
    /// A lease by force has no majority: it gives way to all that has one, and
    /// nothing that has one gives way to it. In pair mode both may hold (rule 13).
    pub(super) fn superseded_by(
        &self,
        other: Ballot,
        (epoch, claim): (Epoch, Claim),
        is_sure: bool,
        node: &Node,
    ) -> bool {
        let Some(lease) = self.lease else { return false };
        let is_sure = is_sure && !node.broken.is(Mutant::EpochsDecide);
        let is_older = claim == Claim::Asked
            && Some(other) < lease.ballot
            && !node.broken.is(Mutant::OlderAttemptsSupersede);
        let is_later = match lease.epoch {
            Some(_) if is_sure && node.broken.is(Mutant::OwnWordSupersedes) => true,
            Some(ours) if !node.broken.is(Mutant::BallotsSupersede) => {
                (epoch > ours && !is_older) || (is_sure && epoch == ours)
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
